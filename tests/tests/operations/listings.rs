//! `ListCustomers`, `ListAgreements`, `ListConfirmations`: what is listed, in which order and pages, and to whom.

use std::process::Command;

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::Engine;
use quittance_tests::{
    StoreKind,
    app_database::{CRM_MAP, email},
    deployment::binary,
    scenario::{agreement, assert_refused, by_email, completed, create, create_customer, get, new_id},
};
use tonic::{Code, Status};

use crate::scene::{Scene, erase};

async fn customers(client: &Client, page_size: i32, token: &str) -> Result<v1::ListCustomersResponse, Status> {
    let list = v1::ListCustomersRequest { page_size, page_token: token.to_owned() };
    client.customers().list_customers(list).await.map(tonic::Response::into_inner)
}

async fn systems(client: &Client, page_size: i32, token: &str) -> v1::ListSystemsResponse {
    let list = v1::ListSystemsRequest { page_size, page_token: token.to_owned() };
    client.systems().list_systems(list).await.unwrap().into_inner()
}

async fn customers_are_listed_by_name_in_pages(store: StoreKind) {
    let s = Scene::on(store, &[]).await;
    for id in ["zeta", "beta-2", "beta", "0-first"] {
        create_customer(&s.operator, id).await;
    }
    let all = ["0-first", "acme", "beta", "beta-2", "rival", "zeta"].map(|id| format!("customers/{id}"));
    let whole = customers(&s.operator, 0, "").await.unwrap();
    assert_eq!(whole.customers.iter().map(|c| c.name.clone()).collect::<Vec<_>>(), all);
    assert_eq!(whole.next_page_token, "");
    let acme = &whole.customers[1];
    assert_eq!((acme.display_name.as_str(), acme.agreement.as_ref().unwrap().version), ("acme BV", 1));
    assert!(acme.create_time.is_some());
    // Pages that end with the last one, pages that do not, and one that holds exactly all.
    for page_size in [1, 2, 4, 6] {
        let (mut names, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = customers(&s.operator, page_size, &token).await.unwrap();
            assert!(!page.customers.is_empty(), "no page is empty");
            names.extend(page.customers.into_iter().map(|c| c.name));
            pages += 1;
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!((names.as_slice(), pages), (all.as_slice(), (6 + page_size - 1) / page_size));
    }
    // What comes in behind the page that was read is seen, what comes in before it is not; nothing is seen twice.
    let first = customers(&s.operator, 3, "").await.unwrap();
    create_customer(&s.operator, "alpha").await;
    create_customer(&s.operator, "gamma").await;
    let rest = customers(&s.operator, 100, &first.next_page_token).await.unwrap().customers;
    let rest: Vec<&str> = rest.iter().map(|c| c.name.trim_start_matches("customers/")).collect();
    assert_eq!(rest, ["beta-2", "gamma", "rival", "zeta"]);

    let invalid = |refused, field| assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", field);
    invalid(customers(&s.operator, 1001, "").await, "page_size");
    invalid(customers(&s.operator, -1, "").await, "page_size");
    s.register_remote("a").await;
    s.register_remote("b").await;
    let page = systems(&s.operator, 1, "").await;
    let foreign = customers(&s.operator, 1, &page.next_page_token).await;
    assert_refused(foreign, Code::InvalidArgument, "INVALID_PAGE_TOKEN", "");
    let last = systems(&s.operator, 1, &page.next_page_token).await;
    assert_eq!((last.systems[0].name.as_str(), last.next_page_token.as_str()), ("systems/b", ""));
    for customer in [&s.acme, &s.rival] {
        assert_refused(customers(customer, 0, "").await, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
    }
}

#[tokio::test]
async fn customers_are_listed_by_name_in_pages_sqlite() {
    customers_are_listed_by_name_in_pages(StoreKind::Sqlite).await;
}

#[tokio::test]
async fn customers_are_listed_by_name_in_pages_postgres() {
    customers_are_listed_by_name_in_pages(StoreKind::Postgres).await;
}

/// A page that holds exactly all requests has none behind it.
#[tokio::test]
async fn the_last_page_of_requests_has_no_token() {
    let s = Scene::on(StoreKind::Sqlite, &[]).await;
    s.register_remote("print").await;
    for n in 0..4 {
        create(&s.acme, by_email(v1::Action::Erasure, email(n))).await.unwrap();
    }
    let list = |page_size, page_token| v1::ListRequestsRequest { page_size, page_token, ..Default::default() };
    let page = s.acme.requests().list_requests(list(2, String::new())).await.unwrap().into_inner();
    let last = s.acme.requests().list_requests(list(2, page.next_page_token)).await.unwrap().into_inner();
    assert_eq!((last.requests.len(), last.next_page_token.as_str()), (2, ""));
}

async fn agreements(client: &Client, parent: &str) -> Result<Vec<v1::Agreement>, Status> {
    let list = v1::ListAgreementsRequest { parent: parent.to_owned() };
    client.customers().list_agreements(list).await.map(|answer| answer.into_inner().agreements)
}

/// What is signed tomorrow does not put out of force today what was signed before.
#[tokio::test]
async fn an_agreement_of_a_day_to_come_is_refused() {
    let s = Scene::on(StoreKind::Sqlite, &[]).await;
    s.register_remote("print").await;
    let in_s = |seconds: i64| {
        let at = quittance_domain::Timestamp::now().as_second() + seconds;
        Some(prost_types::Timestamp { seconds: at, nanos: 0 })
    };
    let sign = async |signed_time| {
        let sign = v1::CreateAgreementRequest {
            request_id: new_id(),
            parent: "customers/acme".to_owned(),
            agreement: Some(v1::Agreement { signed_time, ..agreement() }),
        };
        s.operator.customers().create_agreement(sign).await
    };
    assert_refused(sign(in_s(86_400)).await, Code::InvalidArgument, "INVALID_FIELD", "agreement.signed_time");
    assert_eq!(agreements(&s.acme, "customers/acme").await.unwrap().len(), 1);
    // No two clocks agree; and by either it counts at once.
    sign(in_s(60)).await.unwrap();
    create(&s.acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    // A customer may be entered before the day from which it may instruct.
    let later = v1::CreateCustomerRequest {
        request_id: new_id(),
        customer_id: "later".to_owned(),
        customer: Some(v1::Customer { display_name: "Later BV".to_owned(), ..v1::Customer::default() }),
        agreement: Some(v1::Agreement { signed_time: in_s(86_400), ..agreement() }),
    };
    s.operator.customers().create_customer(later).await.unwrap();
    let early = v1::CreateRequestRequest {
        request_id: new_id(),
        parent: "customers/later".to_owned(),
        request: Some(by_email(v1::Action::Erasure, email(1))),
    };
    let early = s.operator.requests().create_request(early).await;
    assert_refused(early, Code::FailedPrecondition, "NO_AGREEMENT", "");
}

async fn versions_of_an_agreement_are_listed_newest_first(store: StoreKind) {
    let s = Scene::on(store, &[]).await;
    s.register_remote("print").await;
    let open = create(&s.acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    let sign = async |request_id: &str, window_days| {
        let sign = v1::CreateAgreementRequest {
            request_id: request_id.to_owned(),
            parent: "customers/acme".to_owned(),
            agreement: Some(v1::Agreement { window_days, ..agreement() }),
        };
        s.operator.customers().create_agreement(sign).await.map(|answer| answer.into_inner().agreement.unwrap())
    };
    let id = new_id();
    let second = sign(&id, 20).await.unwrap();
    assert_eq!(sign(&id, 20).await.unwrap(), second, "sent twice, it is one version");
    assert_refused(sign(&id, 21).await, Code::AlreadyExists, "REQUEST_ID_REUSED", "");
    sign(&new_id(), 10).await.unwrap();

    let listed = agreements(&s.operator, "customers/acme").await.unwrap();
    let shown: Vec<(u32, u32)> = listed.iter().map(|a| (a.version, a.window_days)).collect();
    assert_eq!(shown, [(3, 10), (2, 20), (1, 30)]);
    assert_eq!(listed[1], second);
    assert_eq!(agreements(&s.acme, "customers/acme").await.unwrap(), listed, "a customer sees its own");
    assert_eq!(agreements(&s.operator, "customers/rival").await.unwrap().len(), 1);
    assert_eq!(get(&s.acme, &open.name).await.due_time, open.due_time, "open requests keep their dates");

    assert_refused(agreements(&s.rival, "customers/acme").await, Code::NotFound, "NOT_FOUND", "");
    assert_refused(agreements(&s.rival, "customers/nobody").await, Code::NotFound, "NOT_FOUND", "");
    assert_refused(agreements(&s.operator, "customers/nobody").await, Code::NotFound, "NOT_FOUND", "");
    assert_refused(agreements(&s.operator, "acme").await, Code::InvalidArgument, "INVALID_FIELD", "parent");
    let worker = s.deployment.client(&s.deployment.connector_token("print")).await;
    assert_refused(agreements(&worker, "customers/acme").await, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
}

#[tokio::test]
async fn versions_of_an_agreement_are_listed_newest_first_sqlite() {
    versions_of_an_agreement_are_listed_newest_first(StoreKind::Sqlite).await;
}

#[tokio::test]
async fn versions_of_an_agreement_are_listed_newest_first_postgres() {
    versions_of_an_agreement_are_listed_newest_first(StoreKind::Postgres).await;
}

#[tokio::test]
async fn a_customer_is_made_once_however_often_it_is_sent() {
    let s = Scene::on(StoreKind::Postgres, &[]).await;
    let make = async |request_id: &str, display_name: &str| {
        let make = v1::CreateCustomerRequest {
            request_id: request_id.to_owned(),
            customer_id: "bolt".to_owned(),
            customer: Some(v1::Customer { display_name: display_name.to_owned(), ..v1::Customer::default() }),
            agreement: Some(agreement()),
        };
        s.operator.customers().create_customer(make).await.map(|answer| answer.into_inner().customer.unwrap())
    };
    let id = new_id();
    let first = make(&id, "Bolt BV").await.unwrap();
    assert_eq!(make(&id, "Bolt BV").await.unwrap(), first);
    assert_refused(make(&id, "Bolt NV").await, Code::AlreadyExists, "REQUEST_ID_REUSED", "");
    assert_refused(make(&new_id(), "Bolt BV").await, Code::AlreadyExists, "ALREADY_EXISTS", "");
}

async fn confirmations(client: &Client, parent: &str) -> Result<Vec<v1::Confirmation>, Status> {
    let list = v1::ListConfirmationsRequest { parent: parent.to_owned() };
    client.evidence().list_confirmations(list).await.map(|answer| answer.into_inner().confirmations)
}

async fn confirmations_are_listed_by_system_as_they_come(store: StoreKind, engine: Engine) {
    let (s, _crm) = Scene::with_crm(store, engine, CRM_MAP).await;
    // In the order of the alphabet one before `crm` and one behind it, that confirm later.
    s.register_remote("a-print").await;
    s.register_remote("z-print").await;
    let request = create(&s.acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    let crm = |r: &v1::Request| r.tasks.iter().any(|t| t.state() == v1::TaskState::Confirmed);
    quittance_tests::scenario::wait_for(&s.acme, &request.name, crm).await;
    let first = confirmations(&s.acme, &request.name).await.unwrap();
    assert_eq!(first.len(), 1, "what is open has none");

    let root = s.deployment.path("files");
    std::fs::create_dir_all(&root).unwrap();
    let mut workers = ["z-print", "a-print"]
        .map(|system| s.deployment.file_worker(system, &s.deployment.connector_token(system), &root, &[]));
    let done = completed(&s.acme, &request.name).await;
    for worker in &mut workers {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    let listed = confirmations(&s.acme, &request.name).await.unwrap();
    let of_tasks: Vec<_> = done.tasks.iter().map(|t| t.confirmation.clone().unwrap()).collect();
    assert_eq!(
        done.tasks.iter().map(|t| t.system.as_str()).collect::<Vec<_>>(),
        ["systems/a-print", "systems/crm", "systems/z-print"]
    );
    assert_eq!(listed, of_tasks, "by system");
    assert_eq!(listed[1], first[0]);
    assert_eq!(confirmations(&s.operator, &request.name).await.unwrap(), listed);

    assert_refused(confirmations(&s.rival, &request.name).await, Code::NotFound, "NOT_FOUND", "");
    let unknown = format!("customers/acme/requests/{}", uuid::Uuid::now_v7());
    assert_refused(confirmations(&s.acme, &unknown).await, Code::NotFound, "NOT_FOUND", "");
    assert_refused(confirmations(&s.acme, "customers/acme").await, Code::InvalidArgument, "INVALID_FIELD", "parent");
    let worker = s.deployment.client(&s.deployment.connector_token("crm")).await;
    let refused = confirmations(&worker, &request.name).await;
    assert_refused(refused, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
}

#[tokio::test]
async fn confirmations_are_listed_by_system_as_they_come_sqlite() {
    confirmations_are_listed_by_system_as_they_come(StoreKind::Sqlite, Engine::MySql).await;
}

#[tokio::test]
async fn confirmations_are_listed_by_system_as_they_come_postgres() {
    confirmations_are_listed_by_system_as_they_come(StoreKind::Postgres, Engine::Postgres).await;
}

/// Silence would look like nothing happening.
#[tokio::test]
async fn nobody_watches_a_customer_that_is_not_there() {
    let s = Scene::on(StoreKind::Sqlite, &[("QUITTANCED_LIMITS__STREAMS_PER_CUSTOMER_MAX", "1")]).await;
    let watch = async |client: &Client, parent: &str| {
        let watch = v1::WatchRequestsRequest { parent: parent.to_owned(), ..v1::WatchRequestsRequest::default() };
        client.requests().watch_requests(watch).await.map(tonic::Response::into_inner)
    };
    let mut open = watch(&s.operator, "customers/acme").await.unwrap();
    assert!(open.message().await.unwrap().is_some(), "the first token");
    // It is told although the customer has no room for one more: it takes none.
    let refused = watch(&s.operator, "customers/acmee").await.map(drop);
    assert_refused(refused, Code::NotFound, "NOT_FOUND", "");
    let refused = watch(&s.acme, "").await.map(drop);
    assert_refused(refused, Code::ResourceExhausted, "LIMIT_EXCEEDED", "");
    // Another customer has places of its own.
    let mut rivals = watch(&s.rival, "").await.unwrap();
    assert!(rivals.message().await.unwrap().is_some(), "the first token");
}

/// Whoever looks at a request that stands still sees which other one it waits for, of its own customer.
async fn a_task_that_waits_says_for_whom(store: StoreKind) {
    let s = Scene::on(store, &[]).await;
    s.register_remote("print").await;
    let [first, second] = [1, 1].map(|n| create(&s.acme, by_email(v1::Action::Erasure, email(n))));
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert!(get(&s.acme, &first.name).await.tasks[0].waits.is_empty());
    let task = get(&s.operator, &second.name).await.tasks.remove(0);
    assert_eq!(task.state(), v1::TaskState::Waiting);
    let confirmed = v1::WaitUntil::Confirmed.into();
    assert_eq!(
        task.waits,
        [v1::TaskWait { request: first.name.clone(), system: "systems/print".to_owned(), until: confirmed }]
    );
    let listed = s.acme.requests().list_requests(v1::ListRequestsRequest::default()).await.unwrap().into_inner();
    assert!(listed.requests.iter().all(|r| r.tasks.is_empty()), "lists have no tasks");

    let cli = |arguments: &[&str]| {
        let mut cli = Command::new(binary("quittance"));
        cli.args(["--endpoint", &s.deployment.endpoint(), "requests", "get", &second.name]).args(arguments);
        let ran = cli.env("QUITTANCE_TOKEN", s.deployment.customer_token("acme")).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    let id = first.name.rsplit('/').next().unwrap();
    assert!(cli(&[]).contains(&format!("for request {id}")), "{}", cli(&[]));
    let shown: serde_json::Value = serde_json::from_str(&cli(&["--output", "json"])).unwrap();
    let wait = serde_json::json!([{"request": first.name, "system": "systems/print", "until": "confirmed"}]);
    assert_eq!(shown["tasks"][0]["waits"], wait);

    let cancel = v1::CancelRequestRequest { name: first.name, reason: String::new() };
    s.acme.requests().cancel_request(cancel).await.unwrap();
    let task = get(&s.acme, &second.name).await.tasks.remove(0);
    assert_eq!((task.state(), task.waits.len()), (v1::TaskState::Pending, 0));
}

#[tokio::test]
async fn a_task_that_waits_says_for_whom_sqlite() {
    a_task_that_waits_says_for_whom(StoreKind::Sqlite).await;
}

#[tokio::test]
async fn a_task_that_waits_says_for_whom_postgres() {
    a_task_that_waits_says_for_whom(StoreKind::Postgres).await;
}

/// What there is to do today is shown whole, whosever it is; and who is shown some is told so.
#[tokio::test]
async fn what_needs_attention_is_listed_whole_and_a_list_that_is_cut_says_so() {
    let s = Scene::on(StoreKind::Sqlite, &[]).await;
    s.register_remote("print").await;
    let worker = s.deployment.client(&s.deployment.connector_token("print")).await;
    // More than the hundred that a list shows by itself.
    let all = erase(&s.acme, 0..103).await;
    let mut leased = Vec::new();
    while leased.len() < all.len() {
        let lease =
            v1::LeaseTasksRequest { system: "systems/print".to_owned(), worker: "w".to_owned(), ..Default::default() };
        leased.extend(worker.connectors().lease_tasks(lease).await.unwrap().into_inner().tasks);
    }
    let attention = |task: v1::LeasedTask| v1::TaskReport {
        lease: Some(v1::Lease { task: task.name, lease: task.lease }),
        result: Some(v1::task_report::Result::NeedsAttention(v1::TaskFailed { reason: "the tape is torn".to_owned() })),
    };
    let reports = leased.into_iter().map(attention).collect();
    let report = v1::ReportOutcomesRequest { system: "systems/print".to_owned(), reports };
    worker.connectors().report_outcomes(report).await.unwrap();
    let cli = |arguments: &[&str]| {
        let mut cli = Command::new(binary("quittance"));
        cli.args(["--endpoint", &s.deployment.endpoint(), "--output", "json", "requests", "list"]).args(arguments);
        let ran = cli.env("QUITTANCE_TOKEN", s.deployment.operator_token()).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let told = String::from_utf8(ran.stderr).unwrap().contains("there may be more");
        (String::from_utf8(ran.stdout).unwrap().lines().count(), told)
    };
    assert_eq!(cli(&["--all-customers", "--needs-attention"]), (103, false));
    assert_eq!(cli(&["--customer", "acme", "--needs-attention"]), (103, false));
    assert_eq!(cli(&["--customer", "acme"]), (100, true));
    assert_eq!(cli(&["--customer", "acme", "--limit", "103"]), (103, false));
    assert_eq!(cli(&["--all-customers", "--limit", "5"]), (5, true));
}
