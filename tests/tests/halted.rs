//! A log that was altered: nothing is changed and nothing signed, reading goes on, and whoever probes or calls is told why.

use std::{
    fs,
    time::{Duration, Instant},
};

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::{ConnectOptions, Pool, Val};
use quittance_tests::{
    Deployment, StoreKind,
    app_database::email,
    scenario::{acme_with_crm, by_email, certificate, completed, create},
};
use tonic::{Code, Status, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt as _;

const WRITES: &str = "quittance.v1.Writes";

async fn health(deployment: &Deployment, service: &str) -> ServingStatus {
    let channel = Endpoint::from_shared(deployment.endpoint()).unwrap().connect().await.unwrap();
    let ask = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel).check(ask).await.unwrap().into_inner().status()
}

async fn until_writes_are(deployment: &Deployment, status: ServingStatus) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while health(deployment, WRITES).await != status {
        assert!(Instant::now() < deadline, "writes are not {status:?}: {}", deployment.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn is_told(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "LEDGER_HALTED");
    assert!(details.retry_info().unwrap().retry_delay.unwrap() >= Duration::from_secs(10));
}

/// A value of the store, by what reads and what writes it.
type Value = (&'static str, &'static str, usize);

const ROOT: Value = ("SELECT root FROM ledger_log WHERE id = 1", "UPDATE ledger_log SET root = $1 WHERE id = 1", 3);
const TILE: Value = (
    "SELECT content FROM ledger_tiles WHERE level = 0 AND tile_index = 0",
    "UPDATE ledger_tiles SET content = $1 WHERE level = 0 AND tile_index = 0",
    7,
);
const BUNDLE: Value = (
    "SELECT content FROM ledger_tiles WHERE level = -1 AND tile_index = 0",
    "UPDATE ledger_tiles SET content = $1 WHERE level = -1 AND tile_index = 0",
    40,
);
const PAYLOAD: Value = (
    "SELECT e.payload FROM ledger_entries e JOIN ledger_batches b ON b.batch_id = e.batch_id
     WHERE b.first_index + e.batch_offset = 1",
    "UPDATE ledger_entries SET payload = $1 WHERE entry_id = (SELECT e.entry_id FROM ledger_entries e
     JOIN ledger_batches b ON b.batch_id = e.batch_id WHERE b.first_index + e.batch_offset = 1)",
    20,
);

async fn altered(pool: &Pool, (read, write, byte): Value) -> Vec<u8> {
    let mut tx = pool.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap();
    let good = tx.fetch_one(read, vec![]).await.unwrap().unwrap().bytes(0).unwrap();
    let mut bad = good.clone();
    bad[byte] ^= 1;
    assert_eq!(tx.execute(write, vec![Val::from(bad)]).await.unwrap(), 1);
    tx.commit().await.unwrap();
    good
}

async fn repaired(pool: &Pool, (_, write, _): Value, good: Vec<u8>) {
    let mut tx = pool.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap();
    tx.execute(write, vec![Val::from(good)]).await.unwrap();
    tx.commit().await.unwrap();
}

/// Not handed out, for whoever asks to find out: they do not lead to the signed root.
async fn proofs_are_refused(client: &Client) {
    let asked = v1::GetInclusionProofRequest { log_index: 1, tree_size: 0 };
    assert_eq!(client.evidence().get_inclusion_proof(asked).await.unwrap_err().code(), Code::Internal);
    let asked = v1::GetConsistencyProofRequest { old_tree_size: 1, tree_size: 0 };
    assert_eq!(client.evidence().get_consistency_proof(asked).await.unwrap_err().code(), Code::Internal);
}

async fn an_altered_log_ends_changes_and_keeps_reads(store: StoreKind) {
    let mut deployment = Deployment::start_with(store, &[("QUITTANCED_LEDGER__SCRUB_EVERY_S", "1")]).await;
    let _crm = acme_with_crm(&deployment, 20).await;
    let token = deployment.customer_token("acme");
    let acme = deployment.client(&token).await;
    let name = create(&acme, by_email(v1::Action::Erasure, email(0))).await.unwrap().name;
    completed(&acme, &name).await;
    let file = certificate(&acme, &name, "").await.certificate;
    assert_eq!(health(&deployment, WRITES).await, ServingStatus::Serving);
    let pool = Pool::open(&ConnectOptions::new(deployment.store_url())).unwrap();
    // Under the running service, by the scrub; and while it is stopped, at its start.
    for (n, (stopped, value)) in [(false, PAYLOAD), (false, BUNDLE), (true, ROOT), (true, TILE)].into_iter().enumerate()
    {
        if stopped {
            deployment.terminate().await;
        }
        let good = altered(&pool, value).await;
        if stopped {
            deployment.launch().await;
        }
        until_writes_are(&deployment, ServingStatus::NotServing).await;
        assert!(deployment.log().contains("the log is not written any more"));
        for service in ["", "quittance.v1.RequestService", "quittance.v1.EvidenceService"] {
            assert_eq!(health(&deployment, service).await, ServingStatus::Serving, "{service}");
        }
        let acme = deployment.client(&token).await;
        is_told(&create(&acme, by_email(v1::Action::Erasure, email(9))).await.unwrap_err());
        let read = acme.requests().get_request(v1::GetRequestRequest { name: name.clone() }).await.unwrap();
        assert_eq!(read.into_inner().request.unwrap().name, name);
        assert_eq!(certificate(&acme, &name, "").await.certificate, file, "what was issued is given again");
        if value == TILE {
            proofs_are_refused(&acme).await;
        }
        repaired(&pool, value, good).await;
        until_writes_are(&deployment, ServingStatus::Serving).await;
        let next = create(&acme, by_email(v1::Action::Erasure, email(n as u64 + 1))).await.unwrap();
        completed(&acme, &next.name).await;
        certificate(&acme, &next.name, "").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_an_altered_log_ends_changes_and_keeps_reads() {
    an_altered_log_ends_changes_and_keeps_reads(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_an_altered_log_ends_changes_and_keeps_reads() {
    an_altered_log_ends_changes_and_keeps_reads(StoreKind::Postgres).await;
}

/// The folder came back from nowhere without the checkpoint: whether the database was restored cannot be told any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_highest_checkpoint_is_halted_until_an_operator_has_said_that_the_store_is_right() {
    let mut deployment = Deployment::start(StoreKind::Sqlite).await;
    let ledger =
        |deployment: &Deployment, command: &str| deployment.command().args(["ledger", command]).output().unwrap();
    let _crm = acme_with_crm(&deployment, 20).await;
    let token = deployment.customer_token("acme");
    let acme = deployment.client(&token).await;
    let name = create(&acme, by_email(v1::Action::Erasure, email(0))).await.unwrap().name;
    completed(&acme, &name).await;
    let file = certificate(&acme, &name, "").await.certificate;
    deployment.terminate().await;
    let checkpoint = deployment.data().join("ledger/checkpoint");
    let refused = ledger(&deployment, "accept-store");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is left outside the database"), "{refused:?}");
    fs::remove_file(&checkpoint).unwrap();
    deployment.launch().await;
    until_writes_are(&deployment, ServingStatus::NotServing).await;
    let log = deployment.log();
    assert!(log.contains("no checkpoint of it is left outside the database") && log.contains("accept-store"), "{log}");
    assert!(!checkpoint.exists(), "nothing is signed");
    let acme = deployment.client(&token).await;
    is_told(&create(&acme, by_email(v1::Action::Erasure, email(9))).await.unwrap_err());
    assert_eq!(certificate(&acme, &name, "").await.certificate, file);
    deployment.terminate().await;
    let damaged = ledger(&deployment, "fsck");
    assert_eq!(damaged.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&damaged.stdout).contains("no checkpoint of it is left"), "{damaged:?}");
    let accepted = ledger(&deployment, "accept-store");
    assert!(accepted.status.success() && checkpoint.exists(), "{accepted:?}");
    assert!(ledger(&deployment, "fsck").status.success());
    deployment.launch().await;
    until_writes_are(&deployment, ServingStatus::Serving).await;
    let acme = deployment.client(&token).await;
    let next = create(&acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    completed(&acme, &next.name).await;
    certificate(&acme, &next.name, "").await;
}
