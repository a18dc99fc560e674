//! The main job, through the public API: instruct, resolve, fan out, act, read back, confirm. Real processes, real databases.

use std::fs;

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::Engine;
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_ERASED, SHOP_ERASED, email, user_id},
    scenario::{
        acme_with_crm_and_shop, assert_refused, by_email, completed, create, create_customer, get, outcomes, register,
        remote_files, wait_for,
    },
};
use tonic::Code;

const SUBJECTS: u64 = 50;

struct Scene {
    deployment: Deployment,
    crm: AppDatabase,
    shop: AppDatabase,
    operator: Client,
    acme: Client,
}

async fn scene(store: StoreKind, crm: Engine, shop: Engine) -> Scene {
    let deployment = Deployment::start(store).await;
    let (crm, shop) = acme_with_crm_and_shop(&deployment, (crm, shop), SUBJECTS).await;
    let operator = deployment.operator().await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    Scene { deployment, crm, shop, operator, acme }
}

const CRM_CUSTOMERS: &str =
    "SELECT CAST(id AS CHAR(20)), email, user_id, name, phone, remark, restricted FROM customer ORDER BY id";

async fn an_erasure_reaches_both_systems(store: StoreKind, crm: Engine, shop: Engine) {
    let s = scene(store, crm, shop).await;
    let before = s.crm.rows(CRM_CUSTOMERS, 7).await;
    let request = create(&s.acme, by_email(v1::Action::Erasure, "Subject7@Example.com")).await.unwrap();
    let request = completed(&s.acme, &request.name).await;
    assert_eq!(request.state(), v1::RequestState::Completed, "{request:#?}");
    assert_eq!(outcomes(&request), [&CRM_ERASED[..], &SHOP_ERASED].concat());
    // The system that yields the user id is erased last.
    let at = |i: usize| request.tasks[i].confirmation.as_ref().unwrap().confirm_time.unwrap();
    assert!((at(1).seconds, at(1).nanos) <= (at(0).seconds, at(0).nanos), "shop is confirmed before crm");
    assert!(request.tasks[0].confirmation.as_ref().unwrap().backups_expire_time.is_some());

    let n = i64::try_from(SUBJECTS).unwrap();
    assert_eq!(
        s.crm
            .count("SELECT count(*) FROM customer WHERE id = 7 AND email IS NULL AND phone IS NULL AND name = 'erased'")
            .await,
        1
    );
    assert_eq!(s.crm.count("SELECT count(*) FROM address").await, 2 * (n - 1));
    assert_eq!(s.crm.count("SELECT count(*) FROM message WHERE body IS NULL").await, 3);
    assert_eq!(s.shop.count("SELECT count(*) FROM account").await, n - 1);
    assert_eq!(s.shop.count("SELECT count(*) FROM orders").await, 2 * (n - 1));
    assert_eq!(s.shop.count("SELECT count(*) FROM order_line").await, 4 * (n - 1));
    let mut after = s.crm.rows(CRM_CUSTOMERS, 7).await;
    after.remove("7");
    let mut neighbours = before;
    neighbours.remove("7");
    assert_eq!(after, neighbours, "every neighbour is whole");
    let log = s.deployment.log().to_lowercase();
    assert!(!log.contains("subject7") && !log.contains("u-000007"), "no personal data in the log (I10)");
}

#[tokio::test]
async fn an_erasure_reaches_both_systems_sqlite() {
    an_erasure_reaches_both_systems(StoreKind::Sqlite, Engine::Sqlite, Engine::Sqlite).await;
}

#[tokio::test]
async fn an_erasure_reaches_both_systems_postgres_and_mariadb() {
    an_erasure_reaches_both_systems(StoreKind::Postgres, Engine::Postgres, Engine::MySql).await;
}

#[tokio::test]
async fn who_is_not_there_is_not_held_and_what_nothing_leads_to_needs_attention() {
    let s = scene(StoreKind::Sqlite, Engine::Sqlite, Engine::Sqlite).await;
    let request = create(&s.acme, by_email(v1::Action::Erasure, "nobody@example.com")).await.unwrap();
    let attention = |r: &v1::Request| r.tasks.iter().any(|t| t.state() == v1::TaskState::NeedsAttention);
    let request = wait_for(&s.acme, &request.name, attention).await;
    let shop = request.tasks.iter().find(|t| t.system == "systems/shop").unwrap();
    assert_eq!(shop.reason, "NO_USABLE_IDENTIFIER", "no identifier is never NOT_HELD (I5)");

    // A customer may not resolve it; an operator may, with what the evidence supports.
    let resolve = |outcome: v1::OutcomeKind, grade: v1::Grade, kind: v1::EvidenceKind| v1::ResolveTaskRequest {
        name: shop.name.clone(),
        outcomes: vec![v1::Outcome {
            collection: "*".into(),
            category: "*".into(),
            outcome: outcome.into(),
            grade: grade.into(),
            basis: "asked the shop".into(),
            ..v1::Outcome::default()
        }],
        evidence: Some(v1::Evidence { kind: kind.into(), ..v1::Evidence::default() }),
    };
    use v1::{EvidenceKind, Grade, OutcomeKind};
    let by_word = resolve(OutcomeKind::NotHeld, Grade::Executed, EvidenceKind::OperatorStatement);
    let refused = s.operator.requests().resolve_task(by_word.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "a word supports no success");
    let refused = s.acme.requests().resolve_task(by_word).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // Nor is a read-back, or what a system reported, an operator's to give.
    for kind in [EvidenceKind::ReadBack, EvidenceKind::SystemReport] {
        let claimed = resolve(OutcomeKind::NotHeld, Grade::Verified, kind);
        let refused = s.operator.requests().resolve_task(claimed).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{kind:?}");
        assert!(refused.message().contains("evidence.kind"), "{refused:?}");
    }
    // Nor does a kind of evidence say anything that names none (I5).
    for (kind, field) in [
        (EvidenceKind::DocumentDigest, "evidence.sha256"),
        (EvidenceKind::SignedStatement, "evidence.reference"),
        (EvidenceKind::VendorReceipt, "evidence.reference"),
        (EvidenceKind::RetentionExpiry, "evidence.reference"),
    ] {
        let unnamed = resolve(OutcomeKind::NotHeld, Grade::Executed, kind);
        let refused = s.operator.requests().resolve_task(unnamed).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", field);
    }
    // Nor can what the data map does not know have been done.
    let mut unknown = resolve(OutcomeKind::NotHeld, Grade::Executed, EvidenceKind::DocumentDigest);
    unknown.outcomes[0].collection = "contacts".to_owned();
    let refused = s.operator.requests().resolve_task(unknown).await.unwrap_err();
    assert!(refused.message().contains("outcomes[0]"), "{refused:?}");
    let given_up = resolve(OutcomeKind::Unconfirmed, Grade::None, EvidenceKind::OperatorStatement);
    s.operator.requests().resolve_task(given_up).await.unwrap();
    let request = completed(&s.acme, &request.name).await;
    assert_eq!(request.state(), v1::RequestState::CompletedWithExceptions);
    let given_up = request.tasks.iter().find(|t| t.name == shop.name).unwrap().confirmation.as_ref().unwrap();
    assert_eq!(given_up.backups_expire_time, None, "nothing was done");
    assert!(outcomes(&request).contains(&"crm * * NOT_HELD VERIFIED 0".to_owned()));
}

/// The person is known by email alone, and the shop by the user id that the other database yields.
#[tokio::test]
async fn a_preview_follows_what_systems_yield_and_touches_nothing() {
    let s = scene(StoreKind::Sqlite, Engine::Postgres, Engine::MySql).await;
    let preview = async |email: String| {
        let request = Some(by_email(v1::Action::Erasure, email));
        let asked = v1::PreviewRequestRequest { request, ..v1::PreviewRequestRequest::default() };
        let preview = s.acme.requests().preview_request(asked).await.unwrap().into_inner();
        let rows = |p: &v1::SystemPreview| p.collections.iter().map(|c| (c.collection.clone(), c.rows)).collect();
        let systems: Vec<(bool, Vec<(String, u64)>)> = preview.systems.iter().map(|p| (p.asked, rows(p))).collect();
        systems
    };
    let rows = |rows: &[(&str, u64)]| rows.iter().map(|(c, n)| ((*c).to_owned(), *n)).collect::<Vec<_>>();
    let known = [
        (true, rows(&[("address", 2), ("customer", 1), ("message", 3)])),
        (true, rows(&[("account", 1), ("order_line", 4), ("orders", 2)])),
    ];
    assert_eq!(preview(email(7)).await, known);
    assert_eq!(preview("nobody@example.com".to_owned()).await, [(true, vec![]), (false, vec![])]);
    assert_eq!(preview(email(7)).await, known, "nothing was touched");
    let listed = s.acme.requests().list_requests(v1::ListRequestsRequest::default()).await.unwrap().into_inner();
    assert!(listed.requests.is_empty());
}

#[tokio::test]
async fn an_access_gives_the_customer_a_package_and_nobody_else() {
    let s = scene(StoreKind::Postgres, Engine::Postgres, Engine::Sqlite).await;
    let request = create(&s.acme, by_email(v1::Action::Access, email(3))).await.unwrap();
    let package = format!("{}/package", request.name);
    let request = completed(&s.acme, &request.name).await;
    assert_eq!(request.state(), v1::RequestState::Completed, "{request:#?}");
    let in_backups = |task: &v1::Task| task.confirmation.as_ref().unwrap().backups_expire_time.is_some();
    assert!(!request.tasks.iter().any(in_backups), "nothing has left the live data");
    let download = v1::DownloadPackageRequest { name: package.clone(), ..Default::default() };
    let mut stream = s.acme.packages().download_package(download.clone()).await.unwrap().into_inner();
    let (mut records, mut trailer) = (Vec::new(), None);
    while let Some(message) = stream.message().await.unwrap() {
        use v1::download_package_response::Part;
        match message.part.unwrap() {
            Part::Header(header) => assert_eq!(header.controller, "Acme BV"),
            Part::Record(record) => records.push(record),
            Part::RecordPart(_) => panic!("nobody asked for parts"),
            Part::Trailer(t) => trailer = Some(t.record_count),
        }
    }
    assert_eq!(trailer, Some(13));
    assert_eq!(records.len(), 13);
    let value = |record: &v1::PackageRecord, name: &str| {
        record.fields.iter().find(|f| f.name == name).and_then(|f| f.value.clone())
    };
    let customer = records.iter().find(|r| r.collection == "customer").unwrap();
    assert_eq!(value(customer, "phone").as_deref(), Some("+31610000003"));
    let account = records.iter().find(|r| r.collection == "account").unwrap();
    assert_eq!(value(account, "user_id"), Some(user_id(3)));
    let others = s.operator.packages().download_package(download).await.unwrap_err();
    assert_eq!(others.code(), Code::PermissionDenied, "access packages go to the customer alone (T7)");
}

#[tokio::test]
async fn a_rectification_touches_the_named_rows_only() {
    let s = scene(StoreKind::Sqlite, Engine::Postgres, Engine::Sqlite).await;
    let correct = |old: &str, new: &str| {
        let replace = v1::ReplaceValue { old_value: old.to_owned(), new_value: new.to_owned() };
        v1::Request {
            corrections: vec![v1::Correction {
                collection: "customer".to_owned(),
                field: "name".to_owned(),
                target: Some(v1::correction::Target::Replace(replace)),
            }],
            ..by_email(v1::Action::Rectification, email(5))
        }
    };
    let request = create(&s.acme, correct("Name 5", "Mara Jansen")).await.unwrap();
    let done = completed(&s.acme, &request.name).await;
    assert_eq!(done.state(), v1::RequestState::Completed, "a system without that collection holds nothing to correct");
    let crm = done.tasks[0].confirmation.as_ref().unwrap();
    assert_eq!(crm.outcomes[0].outcome(), v1::OutcomeKind::Rectified, "{crm:#?}");
    assert_eq!(s.crm.count("SELECT count(*) FROM customer WHERE name = 'Mara Jansen' AND id = 5").await, 1);
    assert_eq!(s.crm.count("SELECT count(*) FROM customer WHERE name = 'Mara Jansen'").await, 1);

    let wrong = create(&s.acme, correct("Somebody else", "Mara Smit")).await.unwrap();
    let attention = |r: &v1::Request| r.tasks[0].state() == v1::TaskState::NeedsAttention;
    let wrong = wait_for(&s.acme, &wrong.name, attention).await;
    assert!(wrong.tasks[0].reason.contains("old value"), "{}", wrong.tasks[0].reason);
}

#[tokio::test]
async fn a_restriction_marks_and_its_lifting_unmarks() {
    let s = scene(StoreKind::Sqlite, Engine::Sqlite, Engine::Sqlite).await;
    let restrict = v1::Request {
        restriction_ground: v1::RestrictionGround::UnlawfulProcessing.into(),
        ..by_email(v1::Action::Restriction, email(9))
    };
    let request = create(&s.acme, restrict).await.unwrap();
    completed(&s.acme, &request.name).await;
    assert_eq!(s.crm.count("SELECT count(*) FROM message WHERE restricted = '1'").await, 3);
    assert_eq!(s.shop.count("SELECT count(*) FROM order_line WHERE restricted = '1'").await, 4);

    // Art. 18(1)(b): the subject wanted it kept, so an erasure asks the customer first.
    let erasure = create(&s.acme, by_email(v1::Action::Erasure, email(9))).await.unwrap();
    assert_eq!(erasure.state(), v1::RequestState::AwaitingCustomer);

    let lift = v1::Request {
        subject_informed_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        ..by_email(v1::Action::LiftRestriction, email(9))
    };
    let request = create(&s.acme, lift).await.unwrap();
    completed(&s.acme, &request.name).await;
    assert_eq!(s.crm.count("SELECT count(*) FROM message WHERE restricted = '1'").await, 0);

    let authorise = v1::AuthoriseRequestRequest { name: erasure.name.clone() };
    s.acme.requests().authorise_request(authorise).await.unwrap();
    let erasure = completed(&s.acme, &erasure.name).await;
    assert_eq!(erasure.state(), v1::RequestState::Completed);
    assert_eq!(s.crm.count("SELECT count(*) FROM message WHERE body IS NULL").await, 3);
}

#[tokio::test]
async fn a_remote_sub_processor_deletes_files_and_confirms() {
    let s = scene(StoreKind::Sqlite, Engine::Sqlite, Engine::Sqlite).await;
    let root = s.deployment.path("files");
    for n in 0..3 {
        let folder = root.join("acme/email").join(format!("subject{n}%40example.com"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("letter.txt"), format!("Dear subject {n}")).unwrap();
        fs::write(folder.join("label.txt"), "a label").unwrap();
    }
    let remote = v1::System { role: v1::SystemRole::SubProcessor.into(), ..remote_files("Print shop") };
    register(&s.operator, "print", remote).await.unwrap();
    let token = s.deployment.connector_token("print");
    let mut worker = s.deployment.file_worker("print", &token, &root, &[]);
    let request = create(&s.acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    let request = completed(&s.acme, &request.name).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(request.state(), v1::RequestState::Completed);
    assert!(outcomes(&request).contains(&"print files file ERASED VERIFIED 2".to_owned()), "{:?}", outcomes(&request));
    let folder = |n: u64| root.join("acme/email").join(format!("subject{n}%40example.com"));
    assert!(!folder(1).join("letter.txt").exists());
    assert_eq!(fs::read_to_string(folder(2).join("letter.txt")).unwrap(), "Dear subject 2");
}

#[tokio::test]
async fn a_system_that_is_added_meanwhile_is_part_of_the_request() {
    let s = scene(StoreKind::Sqlite, Engine::Sqlite, Engine::Sqlite).await;
    // Nobody works for it, so the request stays open.
    register(&s.operator, "slow", remote_files("slow")).await.unwrap();
    let request = create(&s.acme, by_email(v1::Action::Erasure, email(2))).await.unwrap();
    register(&s.operator, "late", remote_files("late")).await.unwrap();
    let both = |r: &v1::Request| r.tasks.len() == 4;
    wait_for(&s.acme, &request.name, both).await;
    let root = s.deployment.path("files");
    fs::create_dir_all(&root).unwrap();
    let mut workers: Vec<_> = ["slow", "late"]
        .iter()
        .map(|system| s.deployment.file_worker(system, &s.deployment.connector_token(system), &root, &[]))
        .collect();
    let request = completed(&s.acme, &request.name).await;
    for worker in &mut workers {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    assert_eq!(request.state(), v1::RequestState::Completed);
    assert_eq!(outcomes(&request).iter().filter(|o| o.contains("NOT_HELD")).count(), 2);
}

#[tokio::test]
async fn the_same_request_id_is_one_request_and_a_drain_loses_nothing() {
    let mut s = scene(StoreKind::Sqlite, Engine::Sqlite, Engine::Sqlite).await;
    let once = v1::CreateRequestRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        parent: String::new(),
        request: Some(by_email(v1::Action::Erasure, email(4))),
    };
    let first = s.acme.requests().create_request(once.clone()).await.unwrap().into_inner().request.unwrap();
    let drained = s.deployment.terminate().await;
    assert!(drained.as_secs() < 25);
    s.deployment.launch().await;
    let acme = s.deployment.client(&s.deployment.customer_token("acme")).await;
    let again = acme.requests().create_request(once.clone()).await.unwrap().into_inner().request.unwrap();
    assert_eq!(first.name, again.name);
    let mut other = once;
    other.request = Some(by_email(v1::Action::Erasure, email(5)));
    assert_eq!(acme.requests().create_request(other).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(completed(&acme, &first.name).await.state(), v1::RequestState::Completed);
}

#[tokio::test]
async fn another_customer_sees_nothing() {
    let s = scene(StoreKind::Postgres, Engine::Sqlite, Engine::Sqlite).await;
    create_customer(&s.operator, "rival").await;
    let rival = s.deployment.client(&s.deployment.customer_token("rival")).await;
    let request = create(&s.acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    let name = request.name.clone();
    let got = rival.requests().get_request(v1::GetRequestRequest { name: name.clone() }).await.unwrap_err();
    assert_eq!(got.code(), Code::NotFound);
    let cancel = v1::CancelRequestRequest { name: name.clone(), reason: String::new() };
    assert_eq!(rival.requests().cancel_request(cancel).await.unwrap_err().code(), Code::NotFound);
    let listed = rival.requests().list_requests(v1::ListRequestsRequest::default()).await.unwrap().into_inner();
    assert!(listed.requests.is_empty());
    let parent = v1::ListRequestsRequest { parent: "customers/acme".to_owned(), ..v1::ListRequestsRequest::default() };
    assert_eq!(rival.requests().list_requests(parent).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(get(&s.acme, &name).await.name, name);
}
