//! What is staged for the log: each event once, committed to by its leaf, and nothing of the person in it (I6, I10).

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use quittance_domain::{
    action::{Action, RestrictionGround},
    ids::RequestId,
    outcome::OutcomeKind,
    request::RequestState,
};
use quittance_ledger::RecordedEvent;
use quittance_sql::Val;
use quittance_store::{ReportResult, StoreError, StoreResult};
use serde_json::Value;

use crate::{harness::TestStore, world::*};

pub struct Entry {
    pub kind: String,
    pub payload: Vec<u8>,
    pub event: Value,
}

/// A request's entries in the order in which they were staged, each checked by itself.
pub async fn events(t: &TestStore, request: RequestId) -> Vec<Entry> {
    let sql = "SELECT entry_id, kind, payload, salt, leaf, customer_id FROM ledger_entries WHERE request_id = $1
               AND EXISTS (SELECT 1 FROM ledger_batches b WHERE b.customer_id = ledger_entries.customer_id
                 AND b.batch_id = ledger_entries.batch_id AND b.first_index IS NULL) ORDER BY entry_id";
    let mut entries = Vec::new();
    for row in t.rows(sql, vec![Val::from(request.uuid())]).await {
        let (kind, payload, salt) = (row.text(1).unwrap(), row.bytes(2).unwrap(), row.bytes(3).unwrap());
        assert_eq!(salt.len(), 32);
        // By hand, and not by the ledger's own function.
        let committed = [b"quittance/v1/entry\0".as_slice(), &salt, &payload].concat();
        assert_eq!(digest(&SHA256, &committed).as_ref(), row.bytes(4).unwrap());
        let envelope: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(envelope["v"], 1);
        assert_eq!(envelope["kind"], kind);
        assert_eq!(envelope["customer"], row.text(5).unwrap());
        assert_eq!(envelope["request"], request.to_string());
        assert_eq!(RecordedEvent::read(&payload).unwrap().event.kind(), kind);
        entries.push(Entry { kind, payload, event: envelope["event"].clone() });
    }
    entries
}

async fn kinds(t: &TestStore, request: RequestId) -> Vec<String> {
    events(t, request).await.into_iter().map(|e| e.kind).collect()
}

pub async fn every_event_is_staged_once_with_its_leaf(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    t.extend_request(&acme.id, id, day(60), "customers/acme", "complex", at(2)).await.unwrap();
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(3)).await.unwrap();
    acme.authorise(id, at(4)).await.unwrap();
    let task = claim_one(t, &crm, at(5)).await;
    acme.report(&task, at(6), ReportResult::Retry { at: at(6), reason: "BUSY".to_owned() }).await;
    let task = claim_one(t, &crm, at(6)).await;
    acme.report(&task, at(7), attention()).await;
    t.retry_task(&acme.key(id, &crm), "operators/kim", at(8), &as_is).await.unwrap();
    let task = claim_one(t, &crm, at(9)).await;
    acme.report(&task, at(9), attention()).await;
    let given_up = confirmation(&crm, OutcomeKind::Unconfirmed);
    t.resolve_task(&acme.key(id, &crm), given_up, "operators/kim", at(10)).await.unwrap();
    acme.confirm_next(&shop, at(11)).await;
    let staged = events(t, id).await;
    let kinds: Vec<&str> = staged.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "instructed",
            "planned",
            "extended",
            "objected",
            "authorised",
            "operated",
            "operated",
            "confirmed",
            "confirmed",
            "completed"
        ]
    );
    let us = |seconds: i64| at(seconds).as_microsecond();
    assert_eq!(staged[0].event["action"], "ERASURE");
    assert_eq!(staged[0].event["received_us"], us(1));
    assert_eq!(staged[0].event["subject"].as_str().unwrap().len(), 64);
    assert_eq!((&staged[0].event["agreement"], &staged[4].event["agreement"]), (&1.into(), &1.into()));
    assert_eq!(staged[1].event["systems"].as_array().unwrap().len(), 2);
    assert_eq!(staged[2].event["due_us"], day(60).as_microsecond());
    assert_eq!(staged[3].event["reason"], "looks unlawful");
    assert_eq!((&staged[5].event["what"], &staged[6].event["what"]), (&"retried".into(), &"resolved".into()));
    let stated: Vec<_> = acme.tasks(id).await.into_iter().map(|task| task.confirmation.unwrap().0).collect();
    for (entry, stated) in staged[7..9].iter().zip(stated) {
        assert_eq!(
            entry.event["confirmation"],
            serde_json::to_value(stated).unwrap(),
            "as the certificate will say it"
        );
    }
    assert_eq!(
        (&staged[9].event["state"], &staged[9].event["at_us"]),
        (&"COMPLETED_WITH_EXCEPTIONS".into(), &us(11).into())
    );
}

pub async fn what_ends_otherwise_is_staged_too(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let mut referred = erasure("mara");
    referred.referred = Some("please delete me".to_owned());
    let declined = acme.instruct(at(1), referred.clone()).await;
    t.decline_request(&acme.id, declined, "customers/acme", "not our user", at(2)).await.unwrap();
    assert_eq!(kinds(t, declined).await, ["instructed", "closed"]);
    let cancelled = acme.instruct(at(1), erasure("noor")).await;
    acme.cancel(cancelled, at(2)).await.unwrap();
    assert_eq!(kinds(t, cancelled).await, ["instructed", "planned", "closed"]);
    acme.instruct(at(1), restriction("siu", RestrictionGround::UnlawfulProcessing)).await;
    acme.confirm_next(&crm, at(2)).await;
    let held = acme.instruct(at(3), erasure("siu")).await;
    assert_eq!(kinds(t, held).await, ["instructed"]);
    acme.authorise(held, at(4)).await.unwrap();
    assert_eq!(kinds(t, held).await, ["instructed", "planned", "authorised"]);
    // The sweep plans a further system, and completes what lacks none.
    let swept = acme.instruct(at(5), access("noor")).await;
    let task = claim_action(&acme, &crm).await;
    register(t, "shop", &[Email], &[]).await;
    acme.report(&task, at(6), done(&crm)).await;
    acme.replan(at(7)).await;
    assert_eq!(kinds(t, swept).await, ["instructed", "planned", "confirmed", "planned"]);
    let again = events(t, swept).await;
    assert_eq!(again[3].event["systems"], serde_json::json!([{"system": "shop", "map_version": 1}]));
    assert_eq!(again[3].event["at_us"], at(7).as_microsecond());
}

async fn claim_action(acme: &Customer, system: &quittance_domain::ids::SystemId) -> quittance_store::LeasedTask {
    let ready = acme.store.ready_work(at(5), std::slice::from_ref(system)).await.unwrap();
    let ready = ready.iter().find(|r| r.action == Action::Access).unwrap();
    let query = quittance_store::LeaseQuery { worker: "w", now: at(5), expires_at: at(60), tasks_max: 1 };
    acme.store.lease(ready, &query).await.unwrap().tasks.remove(0)
}

pub async fn what_is_refused_is_not_staged(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let sent = erasure("mara");
    let id = acme.instruct(at(1), sent.clone()).await;
    let task = claim_one(t, &crm, at(2)).await;
    let before = t.count("SELECT count(*) FROM ledger_entries").await;
    let mut other = sent.clone();
    other.request.reference = "other".to_owned();
    acme.take(at(3), vec![sent, other, intake(Action::Erasure, &[user("U-1")])]).await.unwrap();
    assert!(acme.cancel(id, at(3)).await.is_err());
    assert!(acme.authorise(id, at(3)).await.is_err());
    assert!(t.extend_request(&acme.id, id, at(3), "customers/acme", "sooner", at(3)).await.is_err());
    assert!(t.retry_task(&acme.key(id, &crm), "operators/kim", at(3), &as_is).await.is_err());
    let erased = confirmation(&crm, OutcomeKind::Erased);
    assert!(t.resolve_task(&acme.key(id, &crm), erased, "operators/kim", at(3)).await.is_err());
    assert_eq!(acme.report(&task, at(2 + LEASE_S), done(&crm)).await, [id]);
    assert_eq!(t.count("SELECT count(*) FROM ledger_entries").await, before);
}

/// A script that tries again for ever keeps no request from its certificate, which holds so many entries and no more.
pub async fn a_request_is_not_decided_about_without_end(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    acme.report(&task, at(3), attention()).await;
    let new_id = if t.is_postgres() { "gen_random_uuid()" } else { "randomblob(16)" };
    for _ in 0..12 {
        t.change(&format!(
            "INSERT INTO ledger_entries (customer_id, entry_id, request_id, kind, payload, salt, leaf)
             SELECT customer_id, {new_id}, request_id, 'operated', payload, salt, leaf FROM ledger_entries"
        ))
        .await;
    }
    let refused = |done: StoreResult<()>| match done {
        Err(StoreError::WrongState(why)) => assert!(why.contains("more than 5000"), "{why}"),
        other => panic!("{other:?}"),
    };
    refused(t.retry_task(&acme.key(id, &crm), "operators/kim", at(4), &as_is).await);
    refused(t.object_to_request(&acme.id, id, "operators/kim", "unlawful", at(4)).await);
    refused(t.extend_request(&acme.id, id, day(60), "customers/acme", "complex", at(4)).await);
    assert_eq!(t.count("SELECT count(*) FROM ledger_entries").await, 8192);
    t.resolve_task(&acme.key(id, &crm), confirmation(&crm, OutcomeKind::Erased), "operators/kim", at(5)).await.unwrap();
    assert_eq!(acme.state(id).await, RequestState::Completed);
}

/// A failure after the entry was staged takes the entry with it, and the other way round.
pub async fn an_entry_and_what_it_tells_are_one_transaction(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    let report = || vec![quittance_store::Report { request: id, lease: task.lease, result: done(&crm) }];
    for table in ["confirmations", "ledger_entries", "subject_heads"] {
        let before = t.count("SELECT count(*) FROM ledger_entries").await;
        t.change(&format!("ALTER TABLE {table} RENAME TO away")).await;
        assert!(t.report(&acme.id, &crm, || at(3), &report()).await.is_err());
        t.change(&format!("ALTER TABLE away RENAME TO {table}")).await;
        assert_eq!(t.count("SELECT count(*) FROM ledger_entries").await, before, "{table}");
        assert_eq!(t.count("SELECT count(*) FROM confirmations").await, 0, "{table}");
        assert_eq!(t.count("SELECT open_tasks FROM requests").await, 1, "{table}");
    }
    assert!(t.report(&acme.id, &crm, || at(3), &report()).await.unwrap().is_empty());
    assert_eq!(kinds(t, id).await, ["instructed", "planned", "confirmed", "completed"]);
}

pub async fn no_entry_holds_an_identifier(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let mut sent = intake(Action::Rectification, &[email("quagga"), user("U-QUAGGA")]);
    sent.referred = Some("I am Quagga".to_owned());
    let id = acme.instruct(at(1), sent).await;
    acme.authorise(id, at(2)).await.unwrap();
    acme.confirm_next(&crm, at(3)).await;
    let staged = events(t, id).await;
    assert_eq!(staged.len(), 5);
    for entry in &staged {
        let text = String::from_utf8(entry.payload.clone()).unwrap();
        for personal in ["quagga", "example.com", "Moved in March"] {
            assert!(!text.to_lowercase().contains(&personal.to_lowercase()), "{}", entry.kind);
        }
    }
}

/// Two requests about one person cannot be told to be that from the log: each has a salt of its own.
pub async fn commitments_of_one_person_differ(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let ids = acme.instruct_all(at(1), vec![access("mara"), erasure("mara"), erasure("mara")]).await;
    let mut subjects = HashMap::new();
    for id in ids {
        let staged = events(t, id).await;
        *subjects.entry(staged[0].event["subject"].to_string()).or_insert(0) += 1;
    }
    assert_eq!(subjects.len(), 3);
    let salts = t.count("SELECT count(DISTINCT salt) FROM ledger_entries").await;
    assert_eq!((salts, t.count("SELECT count(*) FROM ledger_entries").await), (6, 6));
}

/// Whoever is given the salt, which is sealed with the request, can open the commitment.
pub async fn a_commitment_opens_with_its_salt(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), intake(Action::Access, &[email("mara"), user("U-7")])).await;
    let task = claim_one(t, &crm, at(2)).await;
    let lines = ["email:mara@example.com\n", "user_id:U-7\n"];
    let opened =
        [b"quittance/v1/subject\0".as_slice(), &task.subject.commitment_salt, lines.concat().as_bytes()].concat();
    let opened: String = digest(&SHA256, &opened).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(events(t, id).await[0].event["subject"], opened);
}
