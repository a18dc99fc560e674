//! Recipients (Art. 19): listed with every rectification, erasure and restriction, and told where the instruction says so.

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::Engine;
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_MAP, email},
    scenario::{agreement, by_email, completed, create, create_customer, new_id, outcomes, register, system, wait_for},
};
use tonic::Code;
use tonic_types::StatusExt as _;

const MAP: &str = "version: 1\ncollections:\n  customer:\n    fields:\n      iban: financial\n";

struct Scene {
    deployment: Deployment,
    acme: Client,
}

async fn scene(store: StoreKind) -> Scene {
    let deployment = Deployment::start(store).await;
    let crm = AppDatabase::crm(Engine::Sqlite, deployment.folder.path(), 5).await;
    deployment.secret("crm", &crm.url);
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    register(&operator, "crm", system("acme", v1::ConnectorKind::Sql, "crm", CRM_MAP)).await.unwrap();
    let desk = v1::System {
        role: v1::SystemRole::Recipient.into(),
        display_name: "The bank's desk".to_owned(),
        accepts: vec![v1::IdentifierKind::Email.into()],
        ..system("acme", v1::ConnectorKind::Remote, "", MAP)
    };
    let by_sql =
        v1::System { connector: v1::ConnectorKind::Sql.into(), connection_secret: "crm".into(), ..desk.clone() };
    let by_sql = v1::System { data_map_yaml: CRM_MAP.to_owned(), ..by_sql };
    assert_eq!(register(&operator, "other", by_sql).await.unwrap_err().code(), Code::InvalidArgument);
    register(&operator, "bank-desk", desk).await.unwrap();
    let recipient = |id: &str, system: &str| v1::Recipient {
        recipient_id: id.to_owned(),
        display_name: format!("The {id}"),
        contact: String::new(),
        received: "name and IBAN".to_owned(),
        system: system.to_owned(),
    };
    let recipients = vec![recipient("bank", "systems/bank-desk"), recipient("gazette", "")];
    let signed = v1::CreateAgreementRequest {
        request_id: new_id(),
        parent: "customers/acme".to_owned(),
        agreement: Some(v1::Agreement { recipients, ..agreement() }),
    };
    operator.customers().create_agreement(signed).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    Scene { deployment, acme }
}

/// Nobody works for it, and the letter lies on the desk.
#[tokio::test]
async fn what_was_told_on_paper_is_recorded_though_no_worker_ever_came() {
    let s = scene(StoreKind::Sqlite).await;
    let operator = s.deployment.operator().await;
    let request = create(&s.acme, telling(1, &["bank"])).await.unwrap();
    let due = |request: &v1::Request| {
        request.tasks.iter().any(|t| t.name.ends_with("bank-desk") && t.state() == v1::TaskState::Pending)
    };
    let task = wait_for(&s.acme, &request.name, due).await.tasks;
    let task = task.into_iter().find(|t| t.name.ends_with("bank-desk")).unwrap();
    let told = v1::Outcome {
        collection: "*".to_owned(),
        category: "*".to_owned(),
        outcome: v1::OutcomeKind::Notified.into(),
        grade: v1::Grade::Executed.into(),
        count: 1,
        ..Default::default()
    };
    let letter = v1::Evidence {
        kind: v1::EvidenceKind::DocumentDigest.into(),
        reference: "letter of 23 November".to_owned(),
        sha256: "5f".repeat(32),
        ..Default::default()
    };
    let resolve = v1::ResolveTaskRequest { name: task.name, outcomes: vec![told], evidence: Some(letter) };
    // Nothing that is stated was so before it was instructed, or is over already.
    let mut early = resolve.clone();
    early.evidence.as_mut().unwrap().time = Some(prost_types::Timestamp { seconds: 1_600_000_000, nanos: 0 });
    let refused = operator.requests().resolve_task(early).await.unwrap_err();
    assert!(refused.message().starts_with("evidence.time"), "{refused}");
    let mut over = resolve.clone();
    over.outcomes[0].until = Some(prost_types::Timestamp { seconds: 1_600_000_000, nanos: 0 });
    let refused = operator.requests().resolve_task(over).await.unwrap_err();
    assert!(refused.message().starts_with("outcomes[0].until"), "{refused}");
    operator.requests().resolve_task(resolve).await.unwrap();
    let done = completed(&s.acme, &request.name).await;
    assert_eq!(done.state(), v1::RequestState::Completed);
    assert!(outcomes(&done).contains(&"bank-desk * * NOTIFIED EXECUTED 1".to_owned()), "{:?}", outcomes(&done));
}

/// By whichever agreement the process knew.
#[tokio::test]
async fn a_new_agreement_counts_from_the_next_instruction_on() {
    let s = scene(StoreKind::Sqlite).await;
    let operator = s.deployment.operator().await;
    create(&s.acme, telling(1, &["bank"])).await.unwrap();
    let signed = v1::CreateAgreementRequest {
        request_id: new_id(),
        parent: "customers/acme".to_owned(),
        agreement: Some(agreement()),
    };
    operator.customers().create_agreement(signed).await.unwrap();
    // Nobody is told whom it does not name any more: neither by one instruction nor in a stream.
    let refused = create(&s.acme, telling(2, &["bank"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let item = |number, request| v1::BatchItem { number, request_id: new_id(), request: Some(request) };
    let chunk = async |items| {
        let chunk = v1::BatchCreateRequestsRequest { parent: String::new(), items };
        let acks = s.acme.requests().batch_create_requests(tokio_stream::iter([chunk])).await.unwrap();
        acks.into_inner().message().await.unwrap().unwrap()
    };
    let ack = chunk(vec![item(1, telling(2, &["bank"])), item(2, telling(3, &[]))]).await;
    assert_eq!((ack.created, ack.errors.len()), (1, 1));
    assert_eq!((ack.errors[0].number, ack.errors[0].field.as_str()), (1, "request.notify_recipients[0]"));
}

/// A system where only a new agreement allows it keeps nobody's instructions out, though the one before is what this process remembers.
#[tokio::test]
async fn where_a_new_agreement_allows_a_system_instructions_are_taken_in_at_once() {
    for streamed in [false, true] {
        let s = scene(StoreKind::Sqlite).await;
        let operator = s.deployment.operator().await;
        create(&s.acme, telling(1, &[])).await.unwrap();
        let signed = v1::CreateAgreementRequest {
            request_id: new_id(),
            parent: "customers/acme".to_owned(),
            agreement: Some(v1::Agreement {
                allowed_countries: vec!["EEA".to_owned(), "US".to_owned()],
                ..agreement()
            }),
        };
        operator.customers().create_agreement(signed).await.unwrap();
        let there = v1::System {
            country: "US".to_owned(),
            accepts: vec![v1::IdentifierKind::Email.into()],
            ..system("acme", v1::ConnectorKind::Remote, "", MAP)
        };
        register(&operator, "overseas", there).await.unwrap();
        if streamed {
            let item = v1::BatchItem { number: 1, request_id: new_id(), request: Some(telling(2, &[])) };
            let chunk = v1::BatchCreateRequestsRequest { parent: String::new(), items: vec![item] };
            let acks = s.acme.requests().batch_create_requests(tokio_stream::iter([chunk])).await.unwrap();
            assert_eq!(acks.into_inner().message().await.unwrap().unwrap().created, 1);
        } else {
            assert_eq!(create(&s.acme, telling(2, &[])).await.unwrap().tasks.len(), 2);
        }
    }
}

/// As it was, where what is new is only known to have changed when the request is planned.
#[tokio::test]
async fn whom_a_new_agreement_does_not_name_is_not_told_by_one_that_is_remembered() {
    let s = scene(StoreKind::Sqlite).await;
    create(&s.acme, telling(1, &["bank"])).await.unwrap();
    let signed = v1::CreateAgreementRequest {
        request_id: new_id(),
        parent: "customers/acme".to_owned(),
        agreement: Some(agreement()),
    };
    s.deployment.operator().await.customers().create_agreement(signed).await.unwrap();
    let item = v1::BatchItem { number: 1, request_id: new_id(), request: Some(telling(2, &["bank"])) };
    let chunk = v1::BatchCreateRequestsRequest { parent: String::new(), items: vec![item] };
    let acks = s.acme.requests().batch_create_requests(tokio_stream::iter([chunk])).await.unwrap();
    let ack = acks.into_inner().message().await.unwrap().unwrap();
    assert_eq!((ack.created, ack.errors.len()), (0, 1), "{ack:?}");
}

/// A client that did not hear the answer asks again, whatever was agreed on meanwhile (I2).
#[tokio::test]
async fn what_was_taken_in_is_known_by_its_id_when_it_could_not_be_taken_in_any_more() {
    let s = scene(StoreKind::Sqlite).await;
    let sent =
        v1::CreateRequestRequest { request_id: new_id(), parent: String::new(), request: Some(telling(1, &["bank"])) };
    let first = s.acme.requests().create_request(sent.clone()).await.unwrap().into_inner().request.unwrap();
    let signed = v1::CreateAgreementRequest {
        request_id: new_id(),
        parent: "customers/acme".to_owned(),
        agreement: Some(agreement()),
    };
    s.deployment.operator().await.customers().create_agreement(signed).await.unwrap();

    let again = s.acme.requests().create_request(sent.clone()).await.unwrap().into_inner().request.unwrap();
    assert_eq!(again.name, first.name);
    let other = v1::CreateRequestRequest { request: Some(telling(2, &["bank"])), ..sent.clone() };
    let reused = s.acme.requests().create_request(other.clone()).await.unwrap_err();
    assert_eq!(reused.code(), tonic::Code::AlreadyExists, "{reused}");
    let new = v1::CreateRequestRequest { request_id: new_id(), ..sent.clone() };
    let refused = s.acme.requests().create_request(new.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");

    let begun = v1::CreateRequestRequest { request_id: new_id(), request: Some(telling(4, &[])), ..sent.clone() };
    let items = [begun, sent, other, new].into_iter().zip(1..).map(|(sent, number)| v1::BatchItem {
        number,
        request_id: sent.request_id,
        request: sent.request,
    });
    let chunk = v1::BatchCreateRequestsRequest { parent: String::new(), items: items.collect() };
    let acks = s.acme.requests().batch_create_requests(tokio_stream::iter([chunk])).await.unwrap();
    let ack = acks.into_inner().message().await.unwrap().unwrap();
    assert_eq!((ack.last_number, ack.created, ack.repeated_count), (4, 1, 1), "{ack:?}");
    assert!(ack.names[0] != first.name && ack.names[1] == first.name, "{ack:?}");
    let errors: Vec<_> = ack.errors.iter().map(|e| (e.number, e.reason.as_str())).collect();
    assert_eq!(errors, [(3, "REQUEST_ID_REUSED"), (4, "INVALID_FIELD")]);
}

fn recipients(request: &v1::Request) -> Vec<(&str, &str)> {
    request
        .recipients
        .iter()
        .map(|r| (r.recipient_id.as_str(), r.task.rsplit('/').next().unwrap_or_default()))
        .collect()
}

fn telling(n: u64, whom: &[&str]) -> v1::Request {
    let notify_recipients = whom.iter().map(|r| (*r).to_owned()).collect();
    v1::Request { notify_recipients, ..by_email(v1::Action::Erasure, email(n)) }
}

async fn recipients_are_listed_and_told_as_instructed(store: StoreKind) {
    let s = scene(store).await;
    let listed = create(&s.acme, telling(1, &[])).await.unwrap();
    let listed = completed(&s.acme, &listed.name).await;
    assert_eq!(listed.state(), v1::RequestState::Completed, "nobody is told, and nobody waited for");
    assert_eq!(recipients(&listed), [("bank", ""), ("gazette", "")]);
    assert_eq!(listed.tasks.len(), 1);

    let told = create(&s.acme, telling(2, &["bank"])).await.unwrap();
    assert_eq!(recipients(&told), [("bank", "bank-desk"), ("gazette", "")]);
    let bank = s.deployment.client(&s.deployment.connector_token("bank-desk")).await;
    let wait = Some(prost_types::Duration { seconds: 20, nanos: 0 });
    let lease = v1::LeaseTasksRequest {
        system: "systems/bank-desk".to_owned(),
        worker: "clerk".to_owned(),
        tasks_max: 10,
        wait,
        ..v1::LeaseTasksRequest::default()
    };
    let mut leased = bank.connectors().lease_tasks(lease).await.unwrap().into_inner().tasks;
    let task = leased.pop().expect("the bank is told");
    assert!(leased.is_empty(), "of the one request that says so");
    let now = quittance_tests::scenario::get(&s.acme, &told.name).await;
    assert_eq!(now.tasks[1].system, "systems/crm");
    assert_eq!(now.tasks[1].state(), v1::TaskState::Confirmed, "it is told what was carried out");
    assert_eq!((task.action(), task.identifiers[0].value.as_str()), (v1::Action::Erasure, email(2).as_str()));
    let report = |outcome: v1::OutcomeKind| {
        let (collection, grade) = match outcome {
            v1::OutcomeKind::Erased => ("customer", v1::Grade::Executed),
            _ => ("*", v1::Grade::Accepted),
        };
        let outcome = v1::Outcome {
            collection: collection.to_owned(),
            category: if collection == "*" { "*" } else { "financial" }.to_owned(),
            outcome: outcome.into(),
            grade: grade.into(),
            ..v1::Outcome::default()
        };
        let evidence = v1::Evidence {
            kind: v1::EvidenceKind::VendorReceipt.into(),
            reference: "notice 17".to_owned(),
            ..v1::Evidence::default()
        };
        let done = v1::TaskDone { outcomes: vec![outcome], evidence: Some(evidence) };
        v1::ReportOutcomesRequest {
            system: "systems/bank-desk".to_owned(),
            reports: vec![v1::TaskReport {
                lease: Some(v1::Lease { task: task.name.clone(), lease: task.lease }),
                result: Some(v1::task_report::Result::Done(done)),
            }],
        }
    };
    let refused = bank.connectors().report_outcomes(report(v1::OutcomeKind::Erased)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "what it does with its own data is not ours to confirm");
    bank.connectors().report_outcomes(report(v1::OutcomeKind::Notified)).await.unwrap();
    let told = completed(&s.acme, &told.name).await;
    assert_eq!(told.state(), v1::RequestState::Completed);
    assert!(outcomes(&told).contains(&"bank-desk * * NOTIFIED ACCEPTED 0".to_owned()), "{:#?}", outcomes(&told));
}

#[tokio::test]
async fn recipients_are_listed_and_told_as_instructed_sqlite() {
    recipients_are_listed_and_told_as_instructed(StoreKind::Sqlite).await;
}

#[tokio::test]
async fn recipients_are_listed_and_told_as_instructed_postgres() {
    recipients_are_listed_and_told_as_instructed(StoreKind::Postgres).await;
}

#[tokio::test]
async fn whom_we_cannot_tell_is_refused() {
    let s = scene(StoreKind::Sqlite).await;
    let field = |status: tonic::Status| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        status.get_error_details().bad_request().unwrap().field_violations[0].field.clone()
    };
    for (whom, path) in
        [(&["gazette"][..], "request.notify_recipients[0]"), (&["bank", "nobody"], "request.notify_recipients[1]")]
    {
        assert_eq!(field(create(&s.acme, telling(1, whom)).await.unwrap_err()), path);
    }
    let access = v1::Request { action: v1::Action::Access.into(), ..telling(1, &["bank"]) };
    assert_eq!(field(create(&s.acme, access).await.unwrap_err()), "request.notify_recipients");
    let mut once =
        v1::CreateRequestRequest { request_id: new_id(), parent: String::new(), request: Some(telling(3, &["bank"])) };
    s.acme.requests().create_request(once.clone()).await.unwrap();
    s.acme.requests().create_request(once.clone()).await.unwrap();
    once.request = Some(telling(3, &[]));
    assert_eq!(s.acme.requests().create_request(once).await.unwrap_err().code(), Code::AlreadyExists);

    let nobody = create(
        &s.acme,
        v1::Request {
            identifiers: vec![quittance_tests::scenario::identifier(v1::IdentifierKind::Phone, "+31612345678")],
            ..telling(4, &[])
        },
    );
    assert_eq!(nobody.await.unwrap_err().code(), Code::InvalidArgument, "a recipient is no way to the person");
    let preview = v1::PreviewRequestRequest { request: Some(telling(4, &["bank"])), ..Default::default() };
    let preview = s.acme.requests().preview_request(preview).await.unwrap().into_inner();
    let named: Vec<&str> = preview.systems.iter().map(|p| p.system.as_str()).collect();
    assert_eq!(named, ["systems/crm", "systems/bank-desk"]);
}
