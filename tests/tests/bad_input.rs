//! Bad input, wrong callers, systems that are down: each gets the right code and a reason, changes nothing, and leaks nothing.

use std::time::{Duration, Instant};

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::{ConnectOptions, Engine, Pool};
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_MAP, email},
    deployment::test_server,
    scenario::{
        agreement, assert_refused, by_email, completed, create, create_customer, identifier, lease_one, new_id,
        outcomes, register, remote_files, system, wait_for,
    },
};
use tonic::{Code, Status};

struct Scene {
    deployment: Deployment,
    crm: AppDatabase,
    operator: Client,
    acme: Client,
}

async fn scene(engine: Engine) -> Scene {
    let deployment = Deployment::start_with(StoreKind::Sqlite, &[("QUITTANCED_DISPATCH__LEASE_S", "3")]).await;
    let crm = AppDatabase::crm(engine, deployment.folder.path(), 20).await;
    deployment.secret("crm", &crm.url);
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    register(&operator, "crm", crm_system()).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    Scene { deployment, crm, operator, acme }
}

fn crm_system() -> v1::System {
    system("acme", v1::ConnectorKind::Sql, "crm", CRM_MAP)
}

async fn count(acme: &Client) -> usize {
    let all = v1::ListRequestsRequest { page_size: 1000, ..v1::ListRequestsRequest::default() };
    acme.requests().list_requests(all).await.unwrap().into_inner().requests.len()
}

#[tokio::test]
async fn callers_are_who_their_token_says() {
    let s = scene(Engine::Sqlite).await;
    let nobody = s.deployment.client("0000").await;
    let request = || by_email(v1::Action::Erasure, email(1));
    assert_refused(create(&nobody, request()).await, Code::Unauthenticated, "UNKNOWN_TOKEN", "");
    let worker = s.deployment.client(&s.deployment.connector_token("crm")).await;
    assert_refused(create(&worker, request()).await, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
    assert_refused(register(&s.acme, "x", crm_system()).await, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
    // An operator instructs for nobody that is not there.
    let unknown = v1::CreateRequestRequest {
        request_id: new_id(),
        parent: "customers/nobody".to_owned(),
        request: Some(request()),
    };
    let refused = s.operator.requests().create_request(unknown).await;
    assert_refused(refused, Code::NotFound, "NOT_FOUND", "");
    let lease = v1::LeaseTasksRequest { system: "systems/crm".into(), worker: "w".into(), ..Default::default() };
    let refused = s.acme.connectors().lease_tasks(lease).await;
    assert_refused(refused, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
    assert_eq!(count(&s.acme).await, 0, "nothing was changed");
}

#[tokio::test]
async fn instructions_are_checked_before_anything_is_stored() {
    let s = scene(Engine::Sqlite).await;
    use v1::IdentifierKind as K;
    let erasure = |kind: K, value: &str| v1::Request {
        identifiers: vec![identifier(kind, value)],
        ..by_email(v1::Action::Erasure, "")
    };
    let invalid =
        |r: Result<v1::Request, Status>, field: &str| assert_refused(r, Code::InvalidArgument, "INVALID_FIELD", field);
    let value = "request.identifiers[0].value";
    invalid(create(&s.acme, erasure(K::Email, "  ")).await, value);
    invalid(create(&s.acme, erasure(K::Email, "not an address")).await, value);
    invalid(create(&s.acme, erasure(K::Phone, "12")).await, value);
    invalid(create(&s.acme, erasure(K::Unspecified, "x")).await, "request.identifiers[0].kind");
    invalid(create(&s.acme, v1::Request { action: 0, ..erasure(K::Email, "a@example.com") }).await, "request.action");
    invalid(create(&s.acme, v1::Request { identifiers: vec![], ..erasure(K::Email, "") }).await, "request.identifiers");
    let unreachable = create(&s.acme, erasure(K::CustomerKey, "K-1")).await;
    assert_refused(unreachable, Code::InvalidArgument, "NO_USABLE_IDENTIFIER", "request.identifiers");
    let correct = |collection: &str, field: &str| {
        let target = v1::correction::Target::AppendStatement("a statement".to_owned());
        let correction = v1::Correction { collection: collection.into(), field: field.into(), target: Some(target) };
        v1::Request { corrections: vec![correction], ..by_email(v1::Action::Rectification, email(1)) }
    };
    invalid(create(&s.acme, correct("customer", "salary")).await, "request.corrections[0].field");
    invalid(create(&s.acme, correct("payroll", "salary")).await, "request.corrections[0].collection");
    let restriction = by_email(v1::Action::Restriction, email(1));
    invalid(create(&s.acme, restriction).await, "request.restriction_ground");
    let lift = by_email(v1::Action::LiftRestriction, email(1));
    invalid(create(&s.acme, lift).await, "request.subject_informed_time");
    // Told by their number, before each is compared with all others: that would take minutes.
    let many = (0..150_000).map(|n| identifier(K::UserId, format!("u{n}"))).collect();
    let asked = Instant::now();
    invalid(create(&s.acme, v1::Request { identifiers: many, ..erasure(K::Email, "") }).await, "request.identifiers");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let same = vec![identifier(K::Email, "a@example.com"); 33];
    invalid(create(&s.acme, v1::Request { identifiers: same, ..erasure(K::Email, "") }).await, "request.identifiers");
    let mut corrected = correct("customer", "name");
    corrected.corrections = vec![v1::Correction::default(); 65];
    invalid(create(&s.acme, corrected).await, "request.corrections");
    for no_uuid in ["7", "", "00000000-0000-0000-0000-000000000000"] {
        let request = Some(by_email(v1::Action::Erasure, email(1)));
        let sent = v1::CreateRequestRequest { request_id: no_uuid.into(), parent: String::new(), request };
        let refused = s.acme.requests().create_request(sent).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "request_id");
    }
    assert_eq!(count(&s.acme).await, 0, "nothing was stored");
    let log = s.deployment.log();
    assert!(log.contains("INVALID_FIELD") && log.contains("request.identifiers"), "refusals are in the log: {log}");
    assert!(!log.contains("a@example.com") && !log.contains("not an address"), "no personal data in the log");
}

#[tokio::test]
async fn an_oversized_message_is_refused_and_the_server_lives() {
    let s = scene(Engine::Sqlite).await;
    let huge = v1::Request { reference: "x".repeat(6 << 20), ..by_email(v1::Action::Erasure, email(1)) };
    let status = create(&s.acme, huge).await.unwrap_err();
    assert_refused(Err::<(), _>(status), Code::ResourceExhausted, "LIMIT_EXCEEDED", "");
    create(&s.acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
}

#[tokio::test]
async fn a_page_token_is_of_its_own_query() {
    let s = scene(Engine::Sqlite).await;
    for n in 0..3 {
        create(&s.acme, by_email(v1::Action::Erasure, email(n))).await.unwrap();
    }
    let page = v1::ListRequestsRequest { page_size: 2, ..v1::ListRequestsRequest::default() };
    let first = s.acme.requests().list_requests(page.clone()).await.unwrap().into_inner();
    assert_eq!(first.requests.len(), 2);
    let next = v1::ListRequestsRequest { page_token: first.next_page_token.clone(), ..page.clone() };
    let second = s.acme.requests().list_requests(next).await.unwrap().into_inner();
    assert_eq!((second.requests.len(), second.next_page_token.as_str()), (1, ""));
    let filter = v1::RequestFilter { needs_attention: true, ..v1::RequestFilter::default() };
    let other = v1::ListRequestsRequest { page_token: first.next_page_token, filter: Some(filter), ..page };
    assert_refused(s.acme.requests().list_requests(other).await, Code::InvalidArgument, "INVALID_PAGE_TOKEN", "");
}

#[tokio::test]
async fn systems_are_checked_when_they_are_registered() {
    let s = scene(Engine::Sqlite).await;
    let abroad = v1::System { country: "US".to_owned(), ..crm_system() };
    let refused = register(&s.operator, "abroad", abroad).await;
    assert_refused(refused, Code::InvalidArgument, "COUNTRY_NOT_ALLOWED", "system.country");
    let map = |yaml: &str| v1::System { data_map_yaml: yaml.to_owned(), ..crm_system() };
    let refused = register(&s.operator, "typo", map(&CRM_MAP.replace("owned_by", "ownd_by"))).await;
    let message = refused.as_ref().unwrap_err().message().to_owned();
    assert!(message.contains("line ") && message.contains("ownd_by"), "{message}");
    assert_refused(refused, Code::InvalidArgument, "INVALID_DATA_MAP", "");
    let refused = register(&s.operator, "table", map(&CRM_MAP.replace("  address:", "  adress:"))).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_DATA_MAP", "");
    let refused = register(&s.operator, "column", map(&CRM_MAP.replace("street: address", "streat: address"))).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_DATA_MAP", "");
    let refused =
        register(&s.operator, "secret", v1::System { connection_secret: "none".into(), ..crm_system() }).await;
    assert_refused(refused, Code::Unavailable, "UNAVAILABLE", "");
    let refused =
        register(&s.operator, "path", v1::System { connection_secret: "../keys".into(), ..crm_system() }).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "system.connection_secret");
    // Several customers in tables that do not say whose a row is.
    let shared = v1::System { customers: vec![], all_customers: true, ..crm_system() };
    let refused = register(&s.operator, "shared", shared).await;
    assert_refused(
        refused,
        Code::InvalidArgument,
        "INVALID_DATA_MAP",
        "system.data_map_yaml.collections.customer.customer_field",
    );
    let listed = s.operator.systems().list_systems(v1::ListSystemsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.systems.len(), 1, "nothing was registered");
    // An agreement that would leave a system outside its countries.
    let belgium = v1::CreateAgreementRequest {
        request_id: new_id(),
        parent: "customers/acme".to_owned(),
        agreement: Some(v1::Agreement { allowed_countries: vec!["BE".to_owned()], ..agreement() }),
    };
    let refused = s.operator.customers().create_agreement(belgium).await;
    assert_refused(refused, Code::InvalidArgument, "COUNTRY_NOT_ALLOWED", "agreement.allowed_countries");
}

#[tokio::test]
async fn a_lease_that_has_passed_writes_nothing() {
    let s = scene(Engine::Sqlite).await;
    register(&s.operator, "print", remote_files("Print shop")).await.unwrap();
    let request = create(&s.acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    let worker = s.deployment.client(&s.deployment.connector_token("print")).await;
    let newer = v1::LeaseTasksRequest {
        system: "systems/print".into(),
        worker: "w".into(),
        protocol: 2,
        ..v1::LeaseTasksRequest::default()
    };
    let unknown = worker.connectors().lease_tasks(newer).await;
    assert_refused(unknown, Code::FailedPrecondition, "WORKER_PROTOCOL", "");
    let first = lease_one(&worker, "print").await;
    // No heartbeat: it passes, and the next one to ask gets the task under another lease.
    let second = lease_one(&worker, "print").await;
    assert_eq!(first.name, second.name);
    assert!(second.lease > first.lease);
    let report_by = |task: &v1::LeasedTask, count: u64, evidence: v1::EvidenceKind, grade: v1::Grade| {
        let outcome = v1::Outcome {
            collection: "files".into(),
            category: "file".into(),
            outcome: v1::OutcomeKind::Erased.into(),
            grade: grade.into(),
            count,
            ..v1::Outcome::default()
        };
        let evidence = v1::Evidence { kind: evidence.into(), ..v1::Evidence::default() };
        let done = v1::TaskDone { outcomes: vec![outcome], evidence: Some(evidence) };
        let lease = v1::Lease { task: task.name.clone(), lease: task.lease };
        let result = Some(v1::task_report::Result::Done(done));
        v1::ReportOutcomesRequest {
            system: "systems/print".into(),
            reports: vec![v1::TaskReport { lease: Some(lease), result }],
        }
    };
    let report =
        |task: &v1::LeasedTask, count: u64| report_by(task, count, v1::EvidenceKind::SystemReport, v1::Grade::Verified);
    let unnamed = report_by(&second, 2, v1::EvidenceKind::VendorReceipt, v1::Grade::Executed);
    let refused = worker.connectors().report_outcomes(unnamed).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "reports[0].done.evidence.reference");
    let late = worker.connectors().report_outcomes(report(&first, 99)).await.unwrap().into_inner();
    assert_eq!(late.lost, vec![first.name.clone()]);
    let good = worker.connectors().report_outcomes(report(&second, 2)).await.unwrap().into_inner();
    assert!(good.lost.is_empty());
    let twice = worker.connectors().report_outcomes(report(&second, 3)).await.unwrap().into_inner();
    assert_eq!(twice.lost, vec![second.name.clone()], "a confirmation is recorded once");
    let request = completed(&s.acme, &request.name).await;
    assert!(outcomes(&request).contains(&"print files file ERASED VERIFIED 2".to_owned()));
}

#[tokio::test]
async fn a_database_that_is_down_is_tried_again_and_never_confirmed() {
    let s = scene(Engine::Postgres).await;
    let database = s.crm.url.rsplit('/').next().unwrap().to_owned();
    s.crm.pool.close().await;
    let admin = Pool::open(&ConnectOptions::new(test_server("QUITTANCE_TEST_POSTGRES_URL"))).unwrap();
    let cut = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'");
    admin.run_script(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false")).await.unwrap();
    admin.run_script(&cut).await.unwrap();
    let request = create(&s.acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    let tried = |r: &v1::Request| r.tasks[0].attempts >= 2;
    let open = wait_for(&s.acme, &request.name, tried).await;
    assert_eq!(open.state(), v1::RequestState::InProgress);
    assert!(open.tasks[0].confirmation.is_none(), "{open:#?}");
    assert!(!open.tasks[0].reason.contains("subject1"), "{}", open.tasks[0].reason);
    admin.run_script(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true")).await.unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let request = completed(&s.acme, &request.name).await;
    assert!(Instant::now() < until);
    assert_eq!(request.state(), v1::RequestState::Completed, "{request:#?}");
}

#[tokio::test]
async fn states_allow_only_what_they_allow() {
    let s = scene(Engine::Sqlite).await;
    let refer = v1::ReferRequestRequest {
        request_id: new_id(),
        parent: "customers/acme".to_owned(),
        request: Some(by_email(v1::Action::Erasure, email(3))),
        words: "please forget me".to_owned(),
    };
    let referred = s.operator.requests().refer_request(refer).await.unwrap().into_inner().request.unwrap();
    assert_eq!(referred.state(), v1::RequestState::AwaitingCustomer);
    assert_eq!(referred.tasks.len(), 0, "nothing is done without an instruction (I1)");
    // Only the customer makes it its own.
    let authorise = v1::AuthoriseRequestRequest { name: referred.name.clone() };
    let by_operator = s.operator.requests().authorise_request(authorise.clone()).await;
    assert_refused(by_operator, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
    let done = s.acme.requests().authorise_request(authorise.clone()).await.unwrap().into_inner().request.unwrap();
    assert_eq!(done.tasks.len(), 1);
    assert_refused(s.acme.requests().authorise_request(authorise).await, Code::FailedPrecondition, "WRONG_STATE", "");
    let done = completed(&s.acme, &referred.name).await;
    let cancel = v1::CancelRequestRequest { name: done.name.clone(), reason: String::new() };
    assert_refused(s.acme.requests().cancel_request(cancel).await, Code::FailedPrecondition, "WRONG_STATE", "");
    let certificate = |name: &str, language: &str| v1::GetCertificateRequest {
        name: name.to_owned(),
        document_language: language.to_owned(),
    };
    let refused = s.acme.evidence().get_certificate(certificate(&done.name, "de")).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "document_language");
    let statement = v1::GetInterimStatementRequest { name: done.name, ..Default::default() };
    let statement = s.acme.evidence().get_interim_statement(statement).await.unwrap().into_inner();
    assert!(statement.open_systems.is_empty());
}
