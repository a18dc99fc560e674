//! The calls that nearly every test makes: a customer, its systems, a request, waiting for its end.

use std::time::{Duration, Instant};

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::Engine;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::{
    AppDatabase, Deployment,
    app_database::{CRM_MAP, SHOP_MAP},
};

pub fn new_id() -> String {
    Uuid::new_v4().to_string()
}

pub fn agreement() -> v1::Agreement {
    v1::Agreement {
        version: 0,
        signed_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        window_days: 30,
        retention_days: None,
        time_zone: "Europe/Amsterdam".to_owned(),
        allowed_countries: vec!["EEA".to_owned()],
        contacts: vec![v1::Contact {
            role: "administrator".to_owned(),
            email: "admin@customer.example".to_owned(),
            display_name: String::new(),
        }],
        facts: Some(v1::ProcessingFacts {
            controller: "Acme BV".to_owned(),
            purposes: vec!["delivery".to_owned()],
            ..v1::ProcessingFacts::default()
        }),
        recipients: Vec::new(),
    }
}

/// The customer `acme`, and its only system: `crm`, in SQLite.
pub async fn acme_with_crm(deployment: &Deployment, subjects: u64) -> AppDatabase {
    let crm = AppDatabase::crm(Engine::Sqlite, deployment.folder.path(), subjects).await;
    deployment.secret("crm", &crm.url);
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    register(&operator, "crm", system("acme", v1::ConnectorKind::Sql, "crm", CRM_MAP)).await.unwrap();
    crm
}

/// The customer `acme` and its two systems: `crm`, which yields the user ids that `shop` is keyed by. In these databases.
pub async fn acme_with_crm_and_shop(
    deployment: &Deployment,
    (crm, shop): (Engine, Engine),
    subjects: u64,
) -> (AppDatabase, AppDatabase) {
    let crm = AppDatabase::crm(crm, deployment.folder.path(), subjects).await;
    let shop = AppDatabase::shop(shop, deployment.folder.path(), subjects).await;
    deployment.secret("crm", &crm.url);
    deployment.secret("shop", &shop.url);
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    let sql = v1::ConnectorKind::Sql;
    register(&operator, "crm", system("acme", sql, "crm", CRM_MAP)).await.unwrap();
    register(&operator, "shop", system("acme", sql, "shop", SHOP_MAP)).await.unwrap();
    (crm, shop)
}

pub async fn create_customer(operator: &Client, id: &str) {
    let request = v1::CreateCustomerRequest {
        request_id: new_id(),
        customer_id: id.to_owned(),
        customer: Some(v1::Customer { display_name: format!("{id} BV"), ..v1::Customer::default() }),
        agreement: Some(agreement()),
    };
    operator.customers().create_customer(request).await.unwrap();
}

/// A system of one customer's, in the Netherlands.
pub fn system(customer: &str, connector: v1::ConnectorKind, secret: &str, map: &str) -> v1::System {
    v1::System {
        display_name: format!("System {secret}"),
        role: v1::SystemRole::StorageBackend.into(),
        country: "NL".to_owned(),
        connector: connector.into(),
        connection_secret: secret.to_owned(),
        customers: vec![v1::SystemCustomer { customer: format!("customers/{customer}"), key: String::new() }],
        backup_retention: Some(prost_types::Duration { seconds: 14 * 86_400, nanos: 0 }),
        data_map_yaml: map.to_owned(),
        ..v1::System::default()
    }
}

/// What a system somewhere else has of a subject: files. `quittance-file-worker` works it, or the test does, or nobody.
pub const FILES_MAP: &str = "version: 1\ncollections:\n  files:\n    fields:\n      content: file\n";

/// What a worker of such a system says that has done it.
pub fn two_files_erased() -> v1::Outcome {
    v1::Outcome {
        collection: "files".to_owned(),
        category: "file".to_owned(),
        outcome: v1::OutcomeKind::Erased.into(),
        grade: v1::Grade::Executed.into(),
        count: 2,
        ..v1::Outcome::default()
    }
}

/// Such a system of acme's, asked by email.
pub fn remote_files(display_name: &str) -> v1::System {
    v1::System {
        accepts: vec![v1::IdentifierKind::Email.into()],
        display_name: display_name.to_owned(),
        ..system("acme", v1::ConnectorKind::Remote, "", FILES_MAP)
    }
}

/// Waits for a task of that system, and takes it.
pub async fn lease_one(worker: &Client, system: &str) -> v1::LeasedTask {
    let lease = v1::LeaseTasksRequest {
        system: format!("systems/{system}"),
        worker: "w".to_owned(),
        tasks_max: 1,
        wait: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
        ..v1::LeaseTasksRequest::default()
    };
    worker.connectors().lease_tasks(lease).await.unwrap().into_inner().tasks.remove(0)
}

pub async fn register(operator: &Client, id: &str, system: v1::System) -> Result<v1::System, tonic::Status> {
    let request = v1::RegisterSystemRequest { request_id: new_id(), system_id: id.to_owned(), system: Some(system) };
    operator.systems().register_system(request).await.map(|r| r.into_inner().system.unwrap())
}

/// Code, reason and field (where one is named) of an error.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: &str, field: &str) {
    let status = result.expect_err("it was let through");
    let details = status.get_error_details();
    let info = details.error_info().map(|i| i.reason.clone()).unwrap_or_default();
    let fields: Vec<String> =
        details.bad_request().map(|b| b.field_violations.iter().map(|v| v.field.clone()).collect()).unwrap_or_default();
    assert_eq!((status.code(), info.as_str()), (code, reason), "{status:?}");
    if !field.is_empty() {
        assert!(fields.iter().any(|f| f == field), "{field} is not among {fields:?}");
    }
}

pub fn identifier(kind: v1::IdentifierKind, value: impl Into<String>) -> v1::Identifier {
    v1::Identifier { kind: kind.into(), value: value.into() }
}

pub fn by_email(action: v1::Action, email: impl Into<String>) -> v1::Request {
    v1::Request {
        action: action.into(),
        identifiers: vec![identifier(v1::IdentifierKind::Email, email)],
        ..v1::Request::default()
    }
}

/// Corrects one field, for whoever is known by the identifiers.
pub fn rectify(identifiers: Vec<v1::Identifier>, place: (&str, &str), old: &str, new: &str) -> v1::Request {
    let replace = v1::ReplaceValue { old_value: old.to_owned(), new_value: new.to_owned() };
    v1::Request {
        action: v1::Action::Rectification.into(),
        identifiers,
        corrections: vec![v1::Correction {
            collection: place.0.to_owned(),
            field: place.1.to_owned(),
            target: Some(v1::correction::Target::Replace(replace)),
        }],
        ..v1::Request::default()
    }
}

pub async fn create(customer: &Client, request: v1::Request) -> Result<v1::Request, tonic::Status> {
    let request = v1::CreateRequestRequest { request_id: new_id(), parent: String::new(), request: Some(request) };
    customer.requests().create_request(request).await.map(|r| r.into_inner().request.unwrap())
}

pub async fn get(client: &Client, name: &str) -> v1::Request {
    let request = v1::GetRequestRequest { name: name.to_owned() };
    client.requests().get_request(request).await.unwrap().into_inner().request.unwrap()
}

/// Waits until `done` holds of the request; fails with the whole request if it never does.
pub async fn wait_for(client: &Client, name: &str, done: impl Fn(&v1::Request) -> bool) -> v1::Request {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let request = get(client, name).await;
        if done(&request) {
            return request;
        }
        assert!(Instant::now() < until, "it does not come: {request:#?}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

pub async fn completed(client: &Client, name: &str) -> v1::Request {
    wait_for(client, name, |r| r.state() != v1::RequestState::InProgress).await
}

/// The certificate, as soon as the log covers the request's last entry.
pub async fn certificate(client: &Client, name: &str, language: &str) -> v1::GetCertificateResponse {
    let until = Instant::now() + Duration::from_secs(40);
    loop {
        let ask = v1::GetCertificateRequest { name: name.to_owned(), document_language: language.to_owned() };
        match client.evidence().get_certificate(ask).await {
            Ok(answer) => return answer.into_inner(),
            Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status}"),
        }
        assert!(Instant::now() < until, "no certificate was issued");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One line per outcome, sorted: `system collection category OUTCOME GRADE count`.
pub fn outcomes(request: &v1::Request) -> Vec<String> {
    let mut lines = Vec::new();
    for task in &request.tasks {
        let confirmation = task.confirmation.as_ref().unwrap_or_else(|| panic!("not confirmed: {task:#?}"));
        for o in &confirmation.outcomes {
            let system = task.system.trim_start_matches("systems/");
            let outcome = o.outcome().as_str_name().trim_start_matches("OUTCOME_KIND_");
            let grade = o.grade().as_str_name().trim_start_matches("GRADE_");
            lines.push(format!("{system} {} {} {outcome} {grade} {}", o.collection, o.category, o.count));
        }
    }
    lines.sort();
    lines
}
