//! An upgrade without downtime: an earlier build and this one work on one store, and the earlier one then leaves. `make upgrade` builds the
//! earlier one and says where it is.

use std::{
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::Engine;
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_MAP, email},
    scenario::{by_email, certificate, completed, create, create_customer, outcomes, register, system},
};
use quittance_verify::{Policy, verify_certificate};

const SUBJECTS: u64 = 80;
const SETTINGS: &[(&str, &str)] = &[("QUITTANCED_DISPATCH__LEASE_S", "3"), ("QUITTANCED_DISPATCH__POLL_MS", "50")];

async fn erase(at: &Client, subjects: std::ops::Range<u64>) -> Vec<String> {
    let mut names = Vec::new();
    for n in subjects {
        names.push(create(at, by_email(v1::Action::Erasure, email(n))).await.unwrap().name);
    }
    names
}

/// Whose data is to be kept: every build asks the customer before it erases.
async fn is_known_to_be_restricted(at: &Client, n: u64) {
    let held = create(at, by_email(v1::Action::Erasure, email(n))).await.unwrap();
    assert_eq!(held.state(), v1::RequestState::AwaitingCustomer, "{held:#?}");
}

async fn rotate(operator: &Client) {
    let epochs = async || {
        let listed = operator.keys().list_key_epochs(v1::ListKeyEpochsRequest {}).await.unwrap();
        listed.into_inner().epochs
    };
    let before = epochs().await.len();
    operator.keys().rotate_keys(v1::RotateKeysRequest {}).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let now = epochs().await;
        let ended = now.iter().filter(|epoch| epoch.state() == v1::KeyEpochState::Logged).count();
        if now.len() == before + 1 && ended == before {
            return;
        }
        assert!(Instant::now() < deadline, "{now:#?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an earlier build: make upgrade"]
async fn an_earlier_build_and_this_one_work_on_one_store_and_nothing_is_lost_or_done_twice() {
    let earlier =
        PathBuf::from(std::env::var_os("QUITTANCE_TEST_EARLIER").expect("QUITTANCE_TEST_EARLIER: make upgrade"));
    let mut old = Deployment::start_by(earlier, StoreKind::Postgres, SETTINGS).await;
    let crm = AppDatabase::crm(Engine::Postgres, old.folder.path(), SUBJECTS).await;
    old.secret("crm", &crm.url);
    let operator = old.operator().await;
    create_customer(&operator, "acme").await;
    let limits = Some(v1::SystemLimits { concurrency: 3, batches_per_second: 0, batch_size: 7 });
    let sql = v1::ConnectorKind::Sql;
    register(&operator, "crm", v1::System { limits, ..system("acme", sql, "crm", CRM_MAP) }).await.unwrap();
    let token = old.customer_token("acme");
    let at_old = old.client(&token).await;
    let mut names = erase(&at_old, 0..20).await;
    completed(&at_old, &names[0]).await;
    let ground = v1::RestrictionGround::UnlawfulProcessing.into();
    let restriction = v1::Request { restriction_ground: ground, ..by_email(v1::Action::Restriction, email(79)) };
    create(&at_old, restriction).await.unwrap();

    // The store is migrated below the earlier build's feet, and both serve.
    let new = old.beside(SETTINGS).await;
    let at_new = new.client(&token).await;
    let (by_old, by_new) = tokio::join!(erase(&at_old, 20..40), erase(&at_new, 40..60));
    names.extend(by_old);
    names.extend(by_new);
    // Each sees what the other took in.
    for name in &names {
        completed(&at_old, name).await;
        completed(&at_new, name).await;
    }
    // Whoever of the two turns the keys over: both go on telling who somebody is.
    rotate(&operator).await;
    is_known_to_be_restricted(&at_old, 79).await;
    is_known_to_be_restricted(&at_new, 79).await;
    // In the midst of work.
    names.extend(erase(&at_old, 60..70).await);
    assert!(old.terminate().await < Duration::from_secs(30));
    names.extend(erase(&at_new, 70..75).await);

    let operator = new.client(old.operator_token()).await;
    for _ in 0..2 {
        rotate(&operator).await;
        is_known_to_be_restricted(&at_new, 79).await;
    }
    let keys = new.command().args(["ledger", "keys"]).output().unwrap();
    let keys = String::from_utf8(keys.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    let policy = Policy::new(keys, vec![], 0).unwrap();
    for name in &names {
        let request = completed(&at_new, name).await;
        assert_eq!(request.state(), v1::RequestState::Completed, "{request:#?}");
        let found = outcomes(&request);
        assert!(found.contains(&"crm message email ERASED VERIFIED 3".to_owned()), "{found:?}");
        verify_certificate(&certificate(&at_new, name, "").await.certificate, &policy).unwrap();
    }
    assert_eq!(crm.count("SELECT count(*) FROM customer WHERE email IS NULL AND name = 'erased'").await, 75);
    assert_eq!(crm.count("SELECT count(*) FROM address").await, 2 * 5);
    assert_eq!(crm.count("SELECT count(*) FROM message WHERE body IS NOT NULL").await, 3 * 5);
    let whole = new.command().args(["ledger", "fsck"]).stderr(Stdio::inherit()).output().unwrap();
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stdout));
}
