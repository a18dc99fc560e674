//! One role in each process, on one PostgreSQL: what one has taken in another carries out, and a third brings into the log.

use std::time::Duration;

use quittance_api::v1;
use quittance_sql::Engine;
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_ERASED, CRM_MAP, email},
    scenario::{assert_refused, by_email, certificate, completed, create, create_customer, get, register, system},
};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::scene::QUICK;

const API: &str = "quittance.v1.RequestService";
const WRITES: &str = "quittance.v1.Writes";
const WORKER: &str = "quittance.v1.Worker";
const LEDGER: &str = "quittance.v1.Ledger";

/// Of these names, those that the process answers for; it serves them all.
async fn serves(deployment: &Deployment) -> Vec<&'static str> {
    let channel = Endpoint::from_shared(deployment.endpoint()).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let mut serves = Vec::new();
    for service in ["", API, WRITES, WORKER, LEDGER] {
        match client.check(HealthCheckRequest { service: service.to_owned() }).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service}");
                serves.push(service);
            }
            Err(status) => assert_eq!(status.code(), Code::NotFound, "{service}: {status}"),
        }
    }
    serves
}

fn settings(roles: &'static str) -> Vec<(&'static str, &'static str)> {
    QUICK.iter().copied().chain([("QUITTANCED_ROLES", roles)]).collect()
}

#[tokio::test]
async fn what_one_process_takes_in_another_carries_out_and_a_third_certifies() {
    let api = Deployment::start_with(StoreKind::Postgres, &settings("api")).await;
    assert_eq!(serves(&api).await, ["", API, WRITES]);
    let crm = AppDatabase::crm(Engine::Postgres, api.folder.path(), 5).await;
    api.secret("crm", &crm.url);
    let operator = api.operator().await;
    create_customer(&operator, "acme").await;
    register(&operator, "crm", system("acme", v1::ConnectorKind::Sql, "crm", CRM_MAP)).await.unwrap();
    let acme = api.client(&api.customer_token("acme")).await;
    let request = create(&acme, by_email(v1::Action::Erasure, email(3))).await.unwrap();

    let mut worker = api.beside(&settings("worker")).await;
    assert_eq!(serves(&worker).await, ["", WORKER]);
    let done = completed(&acme, &request.name).await;
    assert_eq!(done.state(), v1::RequestState::Completed);
    assert_eq!(quittance_tests::scenario::outcomes(&done), CRM_ERASED);
    // Health is all that it answers.
    let elsewhere = worker.client(&api.customer_token("acme")).await;
    let asked = elsewhere.requests().get_request(v1::GetRequestRequest { name: request.name.clone() }).await;
    assert_eq!(asked.unwrap_err().code(), Code::Unimplemented);
    let ask = v1::GetCertificateRequest { name: request.name.clone(), document_language: String::new() };
    let early = acme.evidence().get_certificate(ask).await;
    assert_refused(early, Code::FailedPrecondition, "CERTIFICATE_NOT_ISSUED", "");

    let mut ledger = api.beside(&settings("ledger")).await;
    assert_eq!(serves(&ledger).await, ["", LEDGER]);
    assert!(!certificate(&acme, &request.name, "").await.certificate.is_empty());

    // Without a worker nothing is done, and nothing lost.
    worker.terminate().await;
    let waiting = create(&acme, by_email(v1::Action::Erasure, email(4))).await.unwrap();
    // Longer than a worker would need to see it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(get(&acme, &waiting.name).await.tasks[0].state(), v1::TaskState::Pending);
    worker.launch().await;
    assert_eq!(completed(&acme, &waiting.name).await.state(), v1::RequestState::Completed);
    ledger.terminate().await;
}
