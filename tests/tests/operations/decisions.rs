//! `DeclineRequest` and `ObjectToRequest`: what waits for the customer's word, and what it says.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use quittance_api::v1::{self, task_report};
use quittance_client::Client;
use quittance_ledger::certificate::{CertifiedState, DecisionKind, NotProcessedCause};
use quittance_sql::Engine;
use quittance_tests::{
    StoreKind,
    app_database::{CRM_MAP, email},
    certificates::{check, keys},
    deployment::binary,
    scenario::{assert_refused, by_email, completed, create, get, lease_one, new_id, two_files_erased},
};
use tonic::{Code, Status};

use crate::scene::Scene;

async fn refer(operator: &Client, request: v1::Request) -> v1::Request {
    let refer = v1::ReferRequestRequest {
        request_id: new_id(),
        parent: "customers/acme".to_owned(),
        request: Some(request),
        words: "Please delete all of mine. Mara".to_owned(),
    };
    operator.requests().refer_request(refer).await.unwrap().into_inner().request.unwrap()
}

async fn decline(client: &Client, name: &str, reason: &str) -> Result<v1::Request, Status> {
    let decline = v1::DeclineRequestRequest { name: name.to_owned(), reason: reason.to_owned() };
    client.requests().decline_request(decline).await.map(|answer| answer.into_inner().request.unwrap())
}

async fn object(client: &Client, name: &str, reason: &str) -> Result<v1::Request, Status> {
    let object = v1::ObjectToRequestRequest { name: name.to_owned(), reason: reason.to_owned() };
    client.requests().object_to_request(object).await.map(|answer| answer.into_inner().request.unwrap())
}

async fn authorise(client: &Client, name: &str) -> Result<v1::Request, Status> {
    let authorise = v1::AuthoriseRequestRequest { name: name.to_owned() };
    client.requests().authorise_request(authorise).await.map(|answer| answer.into_inner().request.unwrap())
}

async fn what_the_customer_declines_is_never_done(store: StoreKind, engine: Engine) {
    let (s, crm) = Scene::with_crm(store, engine, CRM_MAP).await;
    let referred = refer(&s.operator, by_email(v1::Action::Erasure, email(2))).await;
    assert_eq!(referred.state(), v1::RequestState::AwaitingCustomer);

    let name = &referred.name;
    let refused = decline(&s.operator, name, "not ours to say").await;
    assert_refused(refused, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
    assert_refused(decline(&s.rival, name, "no").await, Code::NotFound, "NOT_FOUND", "");
    let unknown = name.replace("acme", "nobody");
    assert_refused(decline(&s.acme, &unknown, "no").await, Code::NotFound, "NOT_FOUND", "");
    let invalid = |refused, field| assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", field);
    invalid(decline(&s.acme, "requests/7", "no").await, "name");
    invalid(decline(&s.acme, name, " ").await, "reason");
    invalid(decline(&s.acme, name, &"x".repeat(513)).await, "reason");
    assert_eq!(get(&s.acme, name).await.state(), v1::RequestState::AwaitingCustomer, "nothing of this changed it");

    let declined = decline(&s.acme, name, "she is still a customer of ours").await.unwrap();
    let closed = (declined.state(), declined.closing_reason.as_str(), declined.tasks.len());
    assert_eq!(closed, (v1::RequestState::Declined, "she is still a customer of ours", 0));
    let wrong = |refused| assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE", "");
    wrong(decline(&s.acme, name, "once more").await);
    wrong(authorise(&s.acme, name).await);
    wrong(object(&s.operator, name, "too late").await);

    // One that came after it is done, and only that one.
    let other = create(&s.acme, by_email(v1::Action::Erasure, email(3))).await.unwrap();
    wrong(decline(&s.acme, &completed(&s.acme, &other.name).await.name, "too late").await);
    assert_eq!(crm.count("SELECT count(*) FROM customer WHERE email IS NULL").await, 1);
    assert_eq!(crm.count("SELECT count(*) FROM customer WHERE id = 2 AND email = 'subject2@example.com'").await, 1);
    let filter = v1::RequestFilter { states: vec![v1::RequestState::Declined.into()], ..v1::RequestFilter::default() };
    let list = v1::ListRequestsRequest { filter: Some(filter), ..v1::ListRequestsRequest::default() };
    let listed = s.acme.requests().list_requests(list).await.unwrap().into_inner().requests;
    assert_eq!(listed.iter().map(|r| &r.name).collect::<Vec<_>>(), [name]);
    let log = s.deployment.log();
    assert!(!log.contains("subject2") && !log.contains("Mara"), "no personal data in the log (I10)");
}

#[tokio::test]
async fn what_the_customer_declines_is_never_done_sqlite() {
    what_the_customer_declines_is_never_done(StoreKind::Sqlite, Engine::Sqlite).await;
}

#[tokio::test]
async fn what_the_customer_declines_is_never_done_postgres() {
    what_the_customer_declines_is_never_done(StoreKind::Postgres, Engine::Postgres).await;
}

/// What a worker of the system is given at once.
/// Signed, and without a task: that it waits can be shown, too.
#[tokio::test]
async fn how_what_waits_for_the_customer_stands_is_signed() {
    let (s, _crm) = Scene::with_crm(StoreKind::Sqlite, Engine::Sqlite, CRM_MAP).await;
    let referred = refer(&s.operator, by_email(v1::Action::Erasure, email(2))).await;
    let unlawful = v1::RestrictionGround::UnlawfulProcessing.into();
    let restriction = v1::Request { restriction_ground: unlawful, ..by_email(v1::Action::Restriction, email(3)) };
    completed(&s.acme, &create(&s.acme, restriction).await.unwrap().name).await;
    let stopped = create(&s.acme, by_email(v1::Action::Erasure, email(3))).await.unwrap();
    for request in [referred, stopped] {
        assert_eq!((request.state(), request.tasks.len()), (v1::RequestState::AwaitingCustomer, 0));
        let until = Instant::now() + Duration::from_secs(20);
        let file = loop {
            let ask = v1::GetInterimStatementRequest { name: request.name.clone(), ..Default::default() };
            let answer = s.acme.evidence().get_interim_statement(ask).await.unwrap().into_inner();
            if !answer.statement.is_empty() {
                break answer.statement;
            }
            assert!(Instant::now() < until, "nothing is signed of {request:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let said = check(&file, &keys(&s.deployment)).statement;
        assert_eq!((said.state, said.systems.len()), (CertifiedState::Interim, 0));
    }
}

async fn leased(worker: &Client) -> Vec<v1::LeasedTask> {
    let lease =
        v1::LeaseTasksRequest { system: "systems/print".to_owned(), worker: "w".to_owned(), ..Default::default() };
    worker.connectors().lease_tasks(lease).await.unwrap().into_inner().tasks
}

async fn what_we_object_to_waits_for_the_customers_word(store: StoreKind) {
    let s = Scene::on(store, &[]).await;
    s.register_remote("print").await;
    let token = s.deployment.connector_token("print");
    let worker = s.deployment.client(&token).await;
    let [stopped, goes_on] = [1, 2].map(|n| create(&s.acme, by_email(v1::Action::Erasure, email(n))));
    let (stopped, goes_on) = (stopped.await.unwrap(), goes_on.await.unwrap());

    for customer in [&s.acme, &s.rival] {
        let refused = object(customer, &stopped.name, "no").await;
        assert_refused(refused, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
    }
    let invalid = |refused, field| assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", field);
    invalid(object(&s.operator, &stopped.name, "").await, "reason");
    invalid(object(&s.operator, &stopped.name, &"x".repeat(513)).await, "reason");
    invalid(object(&s.operator, "customers/acme", "no").await, "name");
    let unknown = stopped.name.replace("acme", "rival");
    assert_refused(object(&s.operator, &unknown, "no").await, Code::NotFound, "NOT_FOUND", "");

    for request in [&stopped, &goes_on] {
        let objected = object(&s.operator, &request.name, "tax law says to keep this").await.unwrap();
        assert_eq!(objected.state(), v1::RequestState::AwaitingCustomer);
        let objection = objected.objection.unwrap();
        assert_eq!(objection.reason, "tax law says to keep this");
        assert!(objection.time.is_some());
        let task = &objected.tasks[0];
        assert_eq!((task.state(), task.reason.as_str()), (v1::TaskState::Waiting, "OBJECTED"));
        assert_eq!(objected.first_due_time, request.first_due_time, "the window goes on (I9)");
    }
    let wrong = |refused| assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE", "");
    wrong(object(&s.operator, &stopped.name, "once more").await);
    assert!(leased(&worker).await.is_empty(), "nothing is given to a worker meanwhile");

    // The customer agrees with us about the one, and insists on the other.
    let declined = decline(&s.acme, &stopped.name, "you are right").await.unwrap();
    assert_eq!((declined.state(), declined.tasks.len()), (v1::RequestState::Declined, 0));
    assert_refused(authorise(&s.operator, &goes_on.name).await, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
    assert_refused(authorise(&s.rival, &goes_on.name).await, Code::NotFound, "NOT_FOUND", "");
    let insisted = authorise(&s.acme, &goes_on.name).await.unwrap();
    assert_eq!(insisted.state(), v1::RequestState::InProgress);
    assert_eq!(insisted.tasks[0].reason, "");
    assert_eq!(insisted.first_due_time, goes_on.first_due_time);

    let root = s.deployment.path("files");
    fs::create_dir_all(&root).unwrap();
    let mut worker = s.deployment.file_worker("print", &token, &root, &[]);
    let done = completed(&s.acme, &goes_on.name).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(done.state(), v1::RequestState::Completed);
    assert_eq!(done.objection.unwrap().reason, "tax law says to keep this", "it stays on record");
    wrong(object(&s.operator, &goes_on.name, "too late").await);
    assert_eq!(get(&s.acme, &stopped.name).await.state(), v1::RequestState::Declined);
}

#[tokio::test]
async fn what_we_object_to_waits_for_the_customers_word_sqlite() {
    what_we_object_to_waits_for_the_customers_word(StoreKind::Sqlite).await;
}

#[tokio::test]
async fn what_we_object_to_waits_for_the_customers_word_postgres() {
    what_we_object_to_waits_for_the_customers_word(StoreKind::Postgres).await;
}

/// Statements with what had been done before the customer said no, or took it back, checked by nothing but the file and the log's key.
async fn what_ended_before_its_end_is_stated(store: StoreKind) {
    let s = Scene::on(store, &[]).await;
    for system in ["lab", "mail", "print"] {
        s.register_remote(system).await;
    }
    let [lab, mail] = ["lab", "mail"].map(|system| s.deployment.connector_token(system));
    let (lab, mail) = (s.deployment.client(&lab).await, s.deployment.client(&mail).await);
    let request = create(&s.acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    // One has done it, one has the task and has not said so, and the third has not begun.
    let done = lease_one(&lab, "lab").await;
    lease_one(&mail, "mail").await;
    confirm(&lab, "lab", done).await;
    object(&s.operator, &request.name, "tax law says to keep this").await.unwrap();
    decline(&s.acme, &request.name, "you are right").await.unwrap();

    let stated = statement(&s.acme, &request.name).await;
    assert_eq!(stated.open_systems.iter().map(|o| o.system.as_str()).collect::<Vec<_>>(), ["systems/mail"]);
    assert!(stated.document.starts_with(b"%PDF-"));
    let said = check(&stated.statement, &keys(&s.deployment)).statement;
    assert_eq!(said.state, CertifiedState::Declined);
    let acted = said.systems.iter().filter(|s| s.confirmation.is_some()).map(|s| s.id.as_str());
    assert_eq!(acted.collect::<Vec<_>>(), ["lab"]);
    let not: Vec<_> = said.not_processed.iter().map(|n| (n.system.as_str(), n.cause)).collect();
    let backups = ("lab", NotProcessedCause::InBackups);
    assert_eq!(not, [backups, ("mail", NotProcessedCause::Open), ("print", NotProcessedCause::NotBegun)]);
    let why: Vec<_> = said.decisions.iter().map(|d| (d.what, d.by.as_str(), d.reason.as_str())).collect();
    let objected = (DecisionKind::Objected, "operator/ops", "tax law says to keep this");
    assert_eq!(why, [objected, (DecisionKind::Declined, "customer/acme/erp", "you are right")]);

    // One that was taken back before anything had run, and one that never became an instruction.
    let cancelled = create(&s.acme, by_email(v1::Action::Erasure, email(2))).await.unwrap();
    let cancel = v1::CancelRequestRequest { name: cancelled.name.clone(), reason: "a mistake".to_owned() };
    s.acme.requests().cancel_request(cancel).await.unwrap();
    let said = check(&statement(&s.acme, &cancelled.name).await.statement, &keys(&s.deployment)).statement;
    assert_eq!((said.state, said.not_processed.len()), (CertifiedState::Cancelled, 3));
    assert!(said.not_processed.iter().all(|n| n.cause == NotProcessedCause::NotBegun));
    let referred = refer(&s.operator, by_email(v1::Action::Erasure, email(3))).await;
    decline(&s.acme, &referred.name, "not ours").await.unwrap();
    let said = check(&statement(&s.acme, &referred.name).await.statement, &keys(&s.deployment)).statement;
    assert_eq!((said.state, said.systems.len(), said.decisions.len()), (CertifiedState::Declined, 0, 1));
    let ask = v1::GetInterimStatementRequest { name: referred.name, ..Default::default() };
    assert_refused(s.rival.evidence().get_interim_statement(ask).await, Code::NotFound, "NOT_FOUND", "");
}

#[tokio::test]
async fn what_ended_before_its_end_is_stated_sqlite() {
    what_ended_before_its_end_is_stated(StoreKind::Sqlite).await;
}

#[tokio::test]
async fn what_ended_before_its_end_is_stated_postgres() {
    what_ended_before_its_end_is_stated(StoreKind::Postgres).await;
}

async fn confirm(worker: &Client, system: &str, task: v1::LeasedTask) {
    let outcome = two_files_erased();
    let evidence = v1::Evidence {
        kind: v1::EvidenceKind::SystemReport.into(),
        time: Some(SystemTime::now().into()),
        ..v1::Evidence::default()
    };
    let result = task_report::Result::Done(v1::TaskDone { outcomes: vec![outcome], evidence: Some(evidence) });
    let lease = v1::Lease { task: task.name, lease: task.lease };
    let reports = vec![v1::TaskReport { lease: Some(lease), result: Some(result) }];
    let report = v1::ReportOutcomesRequest { system: format!("systems/{system}"), reports };
    assert!(worker.connectors().report_outcomes(report).await.unwrap().into_inner().lost.is_empty());
}

/// Once the log covers it.
async fn statement(client: &Client, name: &str) -> v1::GetInterimStatementResponse {
    let ask = v1::GetInterimStatementRequest { name: name.to_owned(), document_language: "en".to_owned() };
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let stated = client.evidence().get_interim_statement(ask.clone()).await.unwrap().into_inner();
        if !stated.statement.is_empty() {
            return stated;
        }
        assert!(Instant::now() < until, "no statement is issued");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whoever waits for such a request would wait for ever, and is told so.
#[tokio::test]
async fn who_waits_is_told_that_the_customer_is_asked() {
    let s = Scene::on(StoreKind::Sqlite, &[]).await;
    s.register_remote("print").await;
    let token = s.deployment.customer_token("acme");
    let cli = |arguments: &[&str]| {
        let endpoint = s.deployment.endpoint();
        let output = Command::new(binary("quittance"))
            .args(["--endpoint", &endpoint, "--timeout", "4s", "requests"])
            .args(arguments)
            .env("QUITTANCE_TOKEN", &token)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let subjects = s.deployment.path("subjects.csv");
    fs::write(&subjects, "email\nanna@example.com\nben@example.com\n").unwrap();
    let id = new_id();
    let one = ["create", "--action", "erasure", "--email", "mara@example.com", "--request-id", &id];
    let many = ["batch", "--action", "erasure", "--batch-id", "march", "--file", subjects.to_str().unwrap()];
    for taken_in in [&one[..], &many] {
        let (code, _, told) = cli(taken_in);
        assert_eq!(code, Some(0), "{told}");
    }
    let open = s.acme.requests().list_requests(v1::ListRequestsRequest::default()).await.unwrap().into_inner().requests;
    // The newest is one of the batch, the oldest stands alone.
    for request in [&open[0], &open[2]] {
        object(&s.operator, &request.name, "tax law says to keep this").await.unwrap();
    }
    let (code, _, told) = cli(&[&one[..], &["--wait"]].concat());
    assert_eq!(code, Some(4), "still open");
    assert_eq!(told.matches("waits for the customer's word").count(), 1, "{told}");
    assert!(told.contains(&format!("quittance requests authorise {}", open[2].name)), "{told}");
    let (code, counts, told) = cli(&[&many[..], &["--wait"]].concat());
    assert_eq!(code, Some(4), "still open");
    assert_eq!(told.matches("1 of 2 wait for the customer's word").count(), 1, "{told}");
    assert!(counts.lines().any(|line| line.contains("waiting for the customer") && line.ends_with('1')), "{counts}");
}
