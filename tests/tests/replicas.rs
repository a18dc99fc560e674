//! Two servers on one store: what a caller was told by one holds at the other.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use quittance_api::v1;
use quittance_client::{
    Client,
    bulk::{BulkOptions, create_requests},
};
use quittance_domain::Timestamp;
use quittance_ledger::key::VerifierKey;
use quittance_sql::{ConnectOptions, Engine, Pool};
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_MAP, SHOP_MAP, email},
    deployment::binary,
    scenario::{
        acme_with_crm, by_email, certificate, completed, create, create_customer, new_id, rectify, register,
        remote_files, system,
    },
};
use quittance_verify::{Policy, verify_certificate};
use serde_json::Value;
use tonic::Code;

/// Nothing is looked at again by itself while a test runs.
const SETTINGS: &[(&str, &str)] = &[("QUITTANCED_DISPATCH__TOPOLOGY_REFRESH_MS", "600000")];

#[tokio::test]
async fn a_correction_in_a_system_that_another_replica_has_just_registered_is_taken_in() {
    let first = Deployment::start_with(StoreKind::Postgres, SETTINGS).await;
    let second = first.beside(SETTINGS).await;
    let crm = AppDatabase::crm(Engine::Sqlite, first.folder.path(), 10).await;
    let shop = AppDatabase::shop(Engine::Sqlite, first.folder.path(), 10).await;
    first.secret("crm", &crm.url);
    first.secret("shop", &shop.url);
    let operator = first.operator().await;
    create_customer(&operator, "acme").await;
    let sql = v1::ConnectorKind::Sql;
    register(&operator, "shop", system("acme", sql, "shop", SHOP_MAP)).await.unwrap();
    let token = first.customer_token("acme");
    let acme = second.client(&token).await;
    let unknown = rectify(by_email(v1::Action::Access, email(1)).identifiers, ("customer", "name"), "Name 1", "Mara");
    let refused = create(&acme, unknown.clone()).await.unwrap_err();
    assert!(refused.message().contains("is in no system's data map"), "{refused:?}");

    register(&operator, "crm", system("acme", sql, "crm", CRM_MAP)).await.unwrap();
    let preview = v1::PreviewRequestRequest { request: Some(unknown.clone()), ..v1::PreviewRequestRequest::default() };
    acme.requests().preview_request(preview).await.unwrap();
    create(&acme, unknown).await.unwrap();

    // And once more for a stream, to a replica that knows nothing of it.
    let third = first.beside(SETTINGS).await;
    let acme = third.client(&token).await;
    create(&acme, by_email(v1::Action::Erasure, email(9))).await.unwrap();
    register(&operator, "print", remote_files("Print shop")).await.unwrap();
    let request = rectify(by_email(v1::Action::Access, email(2)).identifiers, ("files", "content"), "a", "b");
    let items = [v1::BatchItem { number: 1, request_id: new_id(), request: Some(request) }];
    let items = futures::stream::iter(items).boxed();
    let report = create_requests(&acme, "", items, &BulkOptions::default(), |_, _| {}).await.unwrap();
    assert_eq!((report.created, report.errors), (1, vec![]));
}

/// `quittanced …` on the deployment's folder: what it prints.
fn quittanced(deployment: &Deployment, args: &[&str]) -> String {
    let done = deployment.command().args(args).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn log_keys(printed: &str) -> Vec<VerifierKey> {
    printed.lines().map(|line| line.parse().unwrap()).collect()
}

/// One after the other, as docs/operating.md has it.
async fn restart<const N: usize>(these: [&mut Deployment; N]) {
    for deployment in these {
        deployment.terminate().await;
        deployment.launch().await;
    }
}

/// Sent to the one replica, and where that is being started again to the other, until it is acknowledged.
async fn sent(replicas: &[Client; 2], first: usize, person: u64) -> String {
    let request = v1::CreateRequestRequest {
        request_id: new_id(),
        parent: String::new(),
        request: Some(by_email(v1::Action::Erasure, email(person))),
    };
    let until = Instant::now() + Duration::from_secs(30);
    for turn in first.. {
        match replicas[turn % 2].requests().create_request(request.clone()).await {
            Ok(taken) => return taken.into_inner().request.unwrap().name,
            Err(status) => {
                let passes = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Aborted];
                assert!(passes.contains(&status.code()) && Instant::now() < until, "while keys rotate: {status}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    unreachable!()
}

/// The log's key, the keys of requests, and those of suppressions: each is replaced while requests go through both replicas. Nothing is lost,
/// what was certified before and after is checked with the keys of its day, and who was erased under whichever key is recognised.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_sort_are_replaced_while_requests_go_through_two_replicas() {
    let settings = [("QUITTANCED_DISPATCH__SUPPRESSION_SWEEP_S", "1"), ("QUITTANCED_DISPATCH__REPLAY_PAUSE_MS", "50")];
    let mut first = Deployment::start_with(StoreKind::Postgres, &settings).await;
    let mut second = first.beside(&settings).await;
    let crm = acme_with_crm(&first, 5_000).await;
    let tables = ["customer", "address", "message"];
    for table in tables {
        crm.pool.run_script(&format!("CREATE TABLE {table}_copy AS SELECT * FROM {table}")).await.unwrap();
    }
    let snapshot = Timestamp::now().to_string();
    let token = first.customer_token("acme");
    let replicas = [first.client(&token).await, second.client(&token).await];
    let operator = first.operator().await;

    let stop = Arc::new(AtomicBool::new(false));
    let mut traffic = tokio::task::JoinSet::new();
    for sender in 0..2 {
        let (replicas, stop) = (replicas.clone(), stop.clone());
        traffic.spawn(async move {
            let mut names = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let person = 10 + 2 * names.len() as u64 + sender;
                names.push(sent(&replicas, names.len(), person).await);
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            names
        });
    }
    let certified = async |person: u64, by: usize| {
        let name = sent(&replicas, by, person).await;
        completed(&replicas[by], &name).await;
        (certificate(&replicas[by], &name, "").await.certificate, name)
    };
    // The first epoch ends beside all the rest.
    operator.keys().rotate_keys(v1::RotateKeysRequest {}).await.unwrap();
    let (before, _) = certified(0, 0).await;
    let old = log_keys(&quittanced(&first, &["ledger", "keys"]));
    assert_eq!(old.len(), 1);
    let asked_later = sent(&replicas, 1, 1).await;

    let both = log_keys(&quittanced(&first, &["ledger", "add-key"]));
    restart([&mut first]).await;
    // The other one does not sign with the new key yet, and believes it.
    let (between, name) = certified(2, 0).await;
    let shown = certificate(&replicas[1], &name, "en").await;
    assert!(shown.certificate == between && shown.document.starts_with(b"%PDF-"));
    restart([&mut second]).await;
    assert_eq!(quittanced(&first, &["keys", "rotate-pseudonyms"]), "generation 2\n");
    let (beside, _) = certified(3, 1).await;

    let published = log_keys(&quittanced(&first, &["ledger", "retire-keys"]));
    assert_eq!(published, both, "both stay published");
    restart([&mut first, &mut second]).await;
    let (after, _) = certified(4, 0).await;
    completed(&replicas[0], &asked_later).await;
    let late = certificate(&replicas[1], &asked_later, "").await.certificate;

    let until = Instant::now() + Duration::from_secs(60);
    let epochs = async || operator.keys().list_key_epochs(v1::ListKeyEpochsRequest {}).await;
    while !epochs().await.is_ok_and(|epochs| {
        let epochs = epochs.into_inner().epochs;
        epochs.len() == 2 && epochs[1].state() == v1::KeyEpochState::Logged
    }) {
        assert!(Instant::now() < until, "the old epoch is not destroyed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let names: Vec<String> = traffic.join_all().await.into_iter().flatten().collect();
    assert!(names.len() > 50, "{}", names.len());
    for (n, name) in names.iter().enumerate() {
        let request = completed(&replicas[n % 2], name).await;
        assert_eq!(request.state(), v1::RequestState::Completed, "{request:#?}");
    }

    let policy = |keys: &[VerifierKey]| Policy::new(keys.to_vec(), Vec::new(), 0).unwrap();
    for (file, keys) in [
        (&before, &old[..]),
        (&before, &both[..]),
        (&between, &both[1..]),
        (&beside, &both[1..]),
        (&after, &both[1..]),
        (&late, &both[1..]),
    ] {
        verify_certificate(file, &policy(keys)).unwrap();
    }
    assert!(verify_certificate(&after, &policy(&old)).is_err(), "the old key signs nothing any more");

    // Both generations recognise their own: all come back with a restore, and all would go again.
    let pool = Pool::open(&ConnectOptions::new(first.store_url())).unwrap();
    let mut tx = pool.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap();
    let generations = "SELECT count(DISTINCT generation) FROM suppressions";
    assert_eq!(tx.fetch_one(generations, vec![]).await.unwrap().unwrap().i64(0).unwrap(), 2);
    drop(tx);
    for table in ["address", "message", "customer"] {
        crm.pool.run_script(&format!("DELETE FROM {table}")).await.unwrap();
    }
    for table in tables {
        crm.pool.run_script(&format!("INSERT INTO {table} SELECT * FROM {table}_copy")).await.unwrap();
    }
    let ran = Command::new(binary("quittance"))
        .args(["--endpoint", &second.endpoint(), "--output", "json", "--timeout", "60s", "systems"])
        .args(["replay", "crm", "--snapshot-time", &snapshot, "--dry-run", "--wait"])
        .env("QUITTANCE_TOKEN", first.operator_token())
        .output()
        .unwrap();
    let shown: Value =
        serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&ran.stderr)));
    assert_eq!(shown["shares"][0]["erasures"], names.len() + 5, "{shown:#}");
    for deployment in [&first, &second] {
        assert!(!deployment.log().contains("not written any more"), "the log was never halted");
    }
}
