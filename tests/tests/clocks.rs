//! A machine's clock that is wrong: it is said, with what to do, and nothing that cannot be undone is done by it.

use std::fs;

use quittance_api::v1;
use quittance_tests::{
    Deployment, StoreKind,
    app_database::email,
    deployment::test_server,
    scenario::{acme_with_crm, by_email, completed, create},
};

const DONT_FAKE_STEADY: (&str, &str) = ("FAKETIME_DONT_FAKE_MONOTONIC", "1");

#[tokio::test]
async fn a_clock_that_differs_from_the_databases_is_told_at_the_start() {
    let library = test_server("QUITTANCE_TEST_FAKETIME");
    let settings = [("LD_PRELOAD", library.as_str()), ("FAKETIME", "+2d"), DONT_FAKE_STEADY];
    let deployment = Deployment::start_with(StoreKind::Postgres, &settings).await;
    let log = deployment.log();
    assert!(log.contains("the clock cannot be right: it differs from the database server's by"), "{log}");
    assert!(log.contains("no keys are turned over"), "{log}");
}

#[tokio::test]
async fn a_clock_that_was_set_back_is_told_and_requests_are_completed_all_the_same() {
    let library = test_server("QUITTANCE_TEST_FAKETIME");
    let folder = tempfile::tempdir().unwrap();
    let offset = folder.path().join("offset");
    fs::write(&offset, "+7200\n").unwrap();
    let at = offset.display().to_string();
    let settings = [("LD_PRELOAD", library.as_str()), ("FAKETIME_TIMESTAMP_FILE", at.as_str()), DONT_FAKE_STEADY];
    let mut deployment = Deployment::start_with(StoreKind::Sqlite, &settings).await;
    let _crm = acme_with_crm(&deployment, 5).await;
    let token = deployment.customer_token("acme");
    let acme = deployment.client(&token).await;
    let name = create(&acme, by_email(v1::Action::Erasure, email(1))).await.unwrap().name;
    completed(&acme, &name).await;
    assert!(!deployment.log().contains("cannot be right"), "nothing speaks against it: {}", deployment.log());
    // What is staged has its place when the server has stopped.
    deployment.terminate().await;

    fs::write(&offset, "+0\n").unwrap();
    deployment.launch().await;
    let log = deployment.log();
    assert!(log.contains("behind the newest entry in the store"), "{log}");
    let acme = deployment.client(&token).await;
    let name = create(&acme, by_email(v1::Action::Erasure, email(2))).await.unwrap().name;
    completed(&acme, &name).await;
}
