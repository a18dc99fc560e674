//! What is personal is sealed wherever it is stored (I7), and opens with its own key ring only.

use std::fs;

use quittance_domain::{
    action::{Action, Correction, CorrectionTarget},
    identifier::{Identifier, IdentifierKind::Email},
    ids::RequestId,
    task::TaskState,
};
use quittance_store::{KeyRing, LeaseQuery, ReportResult, StoreError, Taken, TaskRow};

use crate::{harness::TestStore, statements::by_the_case, world::*};

/// A text that is not personal, and is stored as it is: where the search does not find it, it finds nothing.
const PLAIN: &str = "reference-of-quokka";

/// Puts personal data through every way into the store, and gives all of it.
async fn fill(t: &TestStore) -> Vec<String> {
    let acme = customer(t, "acme").await;
    let crm = register(t, "crm", &[Email], &[UserId]).await;
    let shop = register(t, "shop", &[UserId], &[]).await;
    let mut sent =
        intake(Action::Rectification, &[email("quagga.person"), Identifier::normalise(Phone, "+46701234567").unwrap()]);
    sent.referred = Some("words-of-quagga".to_owned());
    sent.request.reference = PLAIN.to_owned();
    sent.request.corrections = vec![
        Correction {
            collection: "customer".to_owned(),
            field: "name".to_owned(),
            target: CorrectionTarget::Replace { old: "old-quagga".to_owned(), new: "new-quagga".to_owned() },
        },
        Correction {
            collection: "customer".to_owned(),
            field: "name".to_owned(),
            target: CorrectionTarget::Record { key: vec!["key-quagga".to_owned()], new: "record-quagga".to_owned() },
        },
    ];
    let id = acme.instruct(at(1), sent).await;
    acme.authorise(id, at(2)).await.unwrap();
    let task = claim_one(t, &crm, at(3)).await;
    acme.report(&task, at(4), ReportResult::Resolved(vec![user("U-quagga-yielded")])).await;
    let task = claim_one(t, &shop, at(5)).await;
    t.save_match_sets(&shop, at(6), &[(&task, b"matchset-quagga".to_vec())]).await.unwrap();
    let remote = vec![(id, task.lease, b"matchset-quagga-remote".to_vec())];
    t.save_remote_match_sets(&acme.id, &shop, at(6), remote).await.unwrap();
    let records = vec![(b"record-of-quagga".to_vec(), false), (b"record-of-quagga-others".to_vec(), true)];
    t.add_records(&task.key, task.lease, at(6), 0, records).await.unwrap();
    acme.report(&task, at(7), done(&shop)).await;
    // One in work, and one that is cancelled, too.
    acme.instruct(at(8), erasure("quagga.second")).await;
    acme.cancel(acme.instruct(at(8), erasure("quagga.third")).await, at(9)).await.unwrap();
    let personal = [
        "quagga.person@example.com",
        "+46701234567",
        "46701234567",
        "words-of-quagga",
        "old-quagga",
        "new-quagga",
        "key-quagga",
        "record-quagga",
        "U-quagga-yielded",
        "matchset-quagga",
        "record-of-quagga",
        "quagga.second",
        "quagga.third",
        "quagga",
    ];
    personal.map(str::to_owned).to_vec()
}

fn hex(text: &str) -> String {
    text.bytes().map(|b| format!("{b:02x}")).collect()
}

pub async fn no_column_holds_personal_data_in_the_clear(t: &TestStore) {
    let personal = fill(t).await;
    let mut dump = String::new();
    for (table, columns) in t.tables().await {
        for column in columns {
            let sql = if t.is_postgres() {
                format!("SELECT CAST({column} AS TEXT) FROM {table} WHERE {column} IS NOT NULL")
            } else {
                // A blob in hexadecimal digits, as PostgreSQL writes it.
                format!(
                    "SELECT CASE typeof({column}) WHEN 'blob' THEN hex({column}) ELSE CAST({column} AS TEXT) END
                         FROM {table} WHERE {column} IS NOT NULL"
                )
            };
            for row in t.rows(&sql, vec![]).await {
                dump.push_str(&row.text(0).unwrap());
                dump.push('\n');
            }
        }
    }
    let dump = dump.to_lowercase();
    assert!(dump.contains(PLAIN), "the search reaches texts");
    assert!(dump.contains(&hex("\"customer\":\"acme\"")), "and bytes");
    for secret in personal {
        let secret = secret.to_lowercase();
        assert!(!dump.contains(&secret) && !dump.contains(&hex(&secret)), "{secret}");
    }
}

/// Free pages and the write-ahead log are part of the file that is copied into a backup.
pub async fn no_byte_of_the_files_holds_personal_data_in_the_clear(t: &TestStore) {
    let personal = fill(t).await;
    let mut bytes = Vec::new();
    for suffix in ["", "-wal", "-shm"] {
        bytes.extend(fs::read(t.file(&format!("store.db{suffix}"))).unwrap());
    }
    let bytes = bytes.to_ascii_lowercase();
    let holds = |text: &str| {
        let text = text.to_ascii_lowercase().into_bytes();
        bytes.windows(text.len()).any(|window| window == text)
    };
    assert!(holds(PLAIN), "the search works");
    for secret in personal {
        assert!(!holds(&secret) && !holds(&hex(&secret)), "{secret}");
    }
}

/// Were another ring's keys used, what is sealed would be lost with it, and what was sealed would seem destroyed.
pub async fn another_key_ring_is_refused(t: &mut TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    drop(acme);
    t.close().await;
    KeyRing::open(&t.file("other-keys"), true).unwrap();
    let refused = t.another("other-keys").await;
    assert!(matches!(&refused, Err(StoreError::KeyRing(text)) if text.contains("another key")), "{refused:?}");
    // And with the right ring, all is as it was.
    t.open("keys").await.unwrap();
    let task = claim_one(t, &crm, at(4)).await;
    assert_eq!((task.key.request, task.subject.identifiers), (id, vec![email("mara")]));
}

/// A ring that lacks a key, as one that was restored from an old copy: nothing is lost by it, and what needs no key goes on.
pub async fn without_its_key_nothing_opens_and_nothing_is_lost(t: &mut TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let sent = erasure("mara");
    let id = acme.instruct(at(1), sent.clone()).await;
    let awaiting = {
        let mut referred = erasure("noor");
        referred.referred = Some("please".to_owned());
        acme.instruct(at(1), referred).await
    };
    let key = t.file("keys").join("epoch-1.key");
    let kept = fs::read(&key).unwrap();
    fs::rename(&key, t.file("away")).unwrap();
    t.ring().drop_keys();
    let missing = |e: StoreError| assert_eq!(e, StoreError::NoEpochKey(1));
    let ready = t.ready_work(at(2), std::slice::from_ref(&crm)).await.unwrap();
    let query = LeaseQuery { worker: "worker", now: at(2), expires_at: at(60), tasks_max: 10 };
    assert!(t.lease(&ready[0], &query).await.unwrap().tasks.is_empty());
    let task = acme.task(id, &crm).await;
    assert_eq!((task.state, task.reason.as_str()), (TaskState::Pending, "KEY_MISSING"));
    missing(acme.authorise(awaiting, at(2)).await.unwrap_err());
    let records = vec![(b"{}".to_vec(), false)];
    missing(t.add_records(&acme.key(id, &crm), 1, at(2), 0, records).await.unwrap_err());
    missing(acme.take_once(at(3), vec![erasure("siu")]).await.map(|_| ()).unwrap_err());
    assert_eq!(acme.request(id).await.id, id);
    // Back, it is used at once.
    fs::rename(t.file("away"), &key).unwrap();
    assert_eq!(fs::read(&key).unwrap(), kept);
    assert_eq!(acme.take(at(3), vec![sent]).await.unwrap(), vec![Ok(Taken::Repeated(id))]);
    let task = claim_one(t, &crm, at(80)).await;
    assert_eq!(task.subject.identifiers, [email("mara")]);
}

pub async fn a_store_in_use_is_not_given_new_keys(t: &mut TestStore) {
    customer(t, "acme").await;
    t.close().await;
    for folder in ["lost-keys", "empty-keys"] {
        if folder == "empty-keys" {
            use std::os::unix::fs::DirBuilderExt as _;
            fs::DirBuilder::new().mode(0o700).create(t.file(folder)).unwrap();
        }
        let refused = t.another(folder).await;
        assert!(matches!(refused, Err(StoreError::KeyRing(_))), "{folder}");
    }
    assert!(!t.file("lost-keys").exists());
    t.open("keys").await.unwrap();
}

/// A sealed value that was moved to another row, or altered, does not open: a person looks at it, and it holds up nothing else.
pub async fn a_sealed_value_opens_in_its_own_row_only(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let ids = acme.instruct_all(at(1), vec![erasure("mara"), erasure("noor")]).await;
    let stored = t.rows("SELECT sealed_subject FROM requests ORDER BY request_id", vec![]).await;
    let stored: Vec<Vec<u8>> = stored.iter().map(|row| row.bytes(0).unwrap()).collect();
    put(t, &ids, [&stored[1], &stored[0]]).await;
    t.change("UPDATE requests SET changed_us = 1").await;
    let ready = t.ready_work(at(2), std::slice::from_ref(&crm)).await.unwrap();
    let query = LeaseQuery { worker: "worker", now: at(2), expires_at: at(60), tasks_max: 10 };
    assert!(t.lease(&ready[0], &query).await.unwrap().tasks.is_empty());
    let left =
        |task: TaskRow| assert_eq!((task.state, task.reason.as_str()), (TaskState::NeedsAttention, "UNSEALABLE"));
    assert_eq!(t.count("SELECT count(*) FROM requests WHERE changed_us = 1").await, 0, "whoever watches is told");
    put(t, &ids, [&stored[0], &stored[1]]).await;
    for id in &ids {
        left(acme.task(*id, &crm).await);
        t.retry_task(&acme.key(*id, &crm), "operators/kim", at(3), &as_is).await.unwrap();
    }
    assert_eq!(claim_at(t, &crm, at(3), 1).await.unwrap().tasks[0].subject.identifiers, [email("mara")]);
    // Neither does another request's key.
    t.change("UPDATE requests SET wrapped_key = (SELECT o.wrapped_key FROM requests o ORDER BY request_id LIMIT 1)")
        .await;
    let ready = t.ready_work(at(4), std::slice::from_ref(&crm)).await.unwrap();
    let query = LeaseQuery { now: at(4), ..query };
    assert!(t.lease(&ready[0], &query).await.unwrap().tasks.is_empty());
    left(acme.task(ids[1], &crm).await);
}

/// However many there are: more here than are planned at once.
pub async fn what_does_not_open_keeps_nothing_else_from_being_planned(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let mut ids = acme.instruct_all(at(1), (0..501).map(|n| erasure(&format!("p{n}"))).collect()).await;
    ids.sort();
    let last = ids[500];
    let mut tx = t.raw().await;
    let spoil = by_the_case("UPDATE requests SET sealed_subject = wrapped_key WHERE request_id <> $1");
    tx.execute(&spoil, vec![last.uuid().into()]).await.unwrap();
    tx.commit().await.unwrap();
    let shop = register(t, "shop", &[Email], &[]).await;
    acme.replan(at(2)).await;
    assert_eq!(acme.tasks(last).await.len(), 2);
    assert_eq!(acme.tasks(ids[0]).await.len(), 1, "what cannot be opened stays as it is");
    let batch = claim(t, &crm, at(3)).await.unwrap();
    assert!(batch.tasks.iter().all(|task| task.key.request == last));
    assert_eq!(claim_one(t, &shop, at(3)).await.key.request, last);
}

/// Writes sealed subjects behind the store's back.
async fn put(t: &TestStore, ids: &[RequestId], sealed: [&Vec<u8>; 2]) {
    let mut tx = t.raw().await;
    for (id, sealed) in ids.iter().zip(sealed) {
        let args = vec![sealed.clone().into(), id.uuid().into()];
        tx.execute(&by_the_case("UPDATE requests SET sealed_subject = $1 WHERE request_id = $2"), args).await.unwrap();
    }
    tx.commit().await.unwrap();
}
