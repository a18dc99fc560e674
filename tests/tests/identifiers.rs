//! A rectification that changes an identifier (Art. 16): flagged, and carried to the systems that are keyed by it.

use std::{
    fs,
    time::{Duration, Instant},
};

use quittance_api::v1::{self, IdentifierKind};
use quittance_client::Client;
use quittance_sql::{ConnectOptions, Engine, Pool};
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_MAP, SHOP_MAP, email, user_id},
    scenario::{
        acme_with_crm_and_shop, by_email, completed, create, create_customer, get, identifier, new_id, outcomes,
        rectify, register, remote_files, system, wait_for,
    },
};
use tonic::Code;
use tonic_types::StatusExt as _;

const SUBJECTS: u64 = 6;

struct Scene {
    deployment: Deployment,
    crm: AppDatabase,
    shop: AppDatabase,
    news: AppDatabase,
    acme: Client,
}

const NEWS_MAP: &str = "
version: 1
collections:
  reader:
    key: [id]
    identifiers:
      - {kind: email, field: address}
    fields:
      address: email
      topics: preference
    erase: delete
";

async fn app_database(deployment: &Deployment, name: &str, script: &str) -> AppDatabase {
    let url = format!("sqlite:{}", deployment.folder.path().join(format!("{name}.db")).display());
    let pool = Pool::open(&ConnectOptions { create: true, ..ConnectOptions::new(url.clone()) }).unwrap();
    pool.run_script(script).await.unwrap();
    AppDatabase { pool, url }
}

/// `crm` is keyed by email and yields the user id that `shop` is keyed by; `news` is keyed by email, as it was typed there. `press` too, and
/// knows nobody.
async fn scene(store: StoreKind, crm: Engine) -> Scene {
    let deployment = Deployment::start_with(store, &[("QUITTANCED_DISPATCH__LEASE_S", "4")]).await;
    let crm = AppDatabase::crm(crm, deployment.folder.path(), SUBJECTS).await;
    let shop = AppDatabase::shop(Engine::Sqlite, deployment.folder.path(), SUBJECTS).await;
    let readers = "CREATE TABLE reader (id INTEGER PRIMARY KEY, address TEXT UNIQUE, topics TEXT);
         INSERT INTO reader VALUES (1, 'Subject1@Example.com', 'art'), (2, 'subject2@example.com', 'art');";
    let news = app_database(&deployment, "news", readers).await;
    let press = app_database(
        &deployment,
        "press",
        "CREATE TABLE reader (id INTEGER PRIMARY KEY, address TEXT UNIQUE, topics TEXT);",
    )
    .await;
    for (name, database) in [("crm", &crm), ("shop", &shop), ("news", &news), ("press", &press)] {
        deployment.secret(name, &database.url);
    }
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    let sql = v1::ConnectorKind::Sql;
    register(&operator, "crm", system("acme", sql, "crm", CRM_MAP)).await.unwrap();
    register(&operator, "shop", system("acme", sql, "shop", SHOP_MAP)).await.unwrap();
    // Time between the change and the look at it.
    let settle = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    let news_system = v1::System { settle_after: settle, ..system("acme", sql, "news", NEWS_MAP) };
    register(&operator, "news", news_system).await.unwrap();
    register(&operator, "press", system("acme", sql, "press", NEWS_MAP)).await.unwrap();
    register(&operator, "files", remote_files("Files")).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    Scene { deployment, crm, shop, news, acme }
}

/// The subject is named by its user id alone: the old email is what the correction says.
fn change_email(n: u64, new: &str) -> v1::Request {
    rectify(vec![identifier(IdentifierKind::UserId, user_id(n))], ("customer", "email"), &email(n), new)
}

fn changed(request: &v1::Request) -> Vec<(IdentifierKind, &str, &str)> {
    request.identifier_changes.iter().map(|c| (c.kind(), c.collection.as_str(), c.field.as_str())).collect()
}

async fn a_changed_email_reaches_every_system_that_is_keyed_by_it(store: StoreKind, crm: Engine) {
    let mut s = scene(store, crm).await;
    let root = s.deployment.path("files");
    let folder = |name: &str| root.join("acme/email").join(name);
    fs::create_dir_all(folder("subject1%40example.com")).unwrap();
    fs::write(folder("subject1%40example.com").join("letter.txt"), "Dear").unwrap();

    let asked = v1::PreviewRequestRequest { request: Some(change_email(1, "Mara@New.example")), ..Default::default() };
    let preview = s.acme.requests().preview_request(asked).await.unwrap().into_inner();
    assert_eq!(preview.identifier_changes.len(), 1);
    let news = preview.systems.iter().find(|p| p.system == "systems/news").unwrap();
    assert_eq!(news.collections[0].rows, 1, "{preview:#?}");

    let request = create(&s.acme, change_email(1, "Mara@New.example")).await.unwrap();
    assert_eq!(changed(&request), [(IdentifierKind::Email, "customer", "email")]);
    // The worst moment: changed in the target, and the server is gone before it says so.
    let until = Instant::now() + Duration::from_secs(30);
    while s.news.count("SELECT count(*) FROM reader WHERE address = 'mara@new.example'").await != 1 {
        assert!(Instant::now() < until, "it is not carried: {:#?}", get(&s.acme, &request.name).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    s.deployment.kill();
    s.deployment.launch().await;
    let acme = s.deployment.client(&s.deployment.customer_token("acme")).await;
    let mut worker = s.deployment.file_worker("files", &s.deployment.connector_token("files"), &root, &[]);
    let request = completed(&acme, &request.name).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(request.state(), v1::RequestState::Completed, "{request:#?}");
    assert_eq!(changed(&request), [(IdentifierKind::Email, "customer", "email")]);
    assert_eq!(
        outcomes(&request),
        [
            "crm customer email RECTIFIED VERIFIED 1",
            "crm message email RECTIFIED VERIFIED 3",
            "files files file RECTIFIED VERIFIED 1",
            "news reader email RECTIFIED VERIFIED 1",
            "press * * NOT_HELD VERIFIED 0",
            "shop * * NOT_HELD VERIFIED 0",
        ]
    );
    let news = request.tasks.iter().find(|t| t.system == "systems/news").unwrap();
    assert!(news.attempts >= 2, "it ran again: {news:#?}");
    assert!(folder("mara%40new.example").join("letter.txt").exists() && !folder("subject1%40example.com").exists());
    assert_eq!(s.crm.count("SELECT count(*) FROM customer WHERE id = 1 AND email = 'mara@new.example'").await, 1);
    assert_eq!(s.crm.count("SELECT count(*) FROM message WHERE sender_email = 'mara@new.example'").await, 3);
    assert_eq!(s.news.count("SELECT count(*) FROM reader WHERE address = 'subject2@example.com'").await, 1);

    // The person is known by the new one now, everywhere.
    let erasure = create(&acme, by_email(v1::Action::Erasure, "mara@new.example")).await.unwrap();
    let mut worker = s.deployment.file_worker("files", &s.deployment.connector_token("files"), &root, &[]);
    let erasure = completed(&acme, &erasure.name).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    let erased = outcomes(&erasure);
    for line in [
        "crm message email ERASED VERIFIED 3",
        "news reader email ERASED VERIFIED 1",
        "files files file ERASED VERIFIED 1",
    ] {
        assert!(erased.contains(&line.to_owned()), "{line}: {erased:#?}");
    }
    assert_eq!(s.shop.count("SELECT count(*) FROM account").await, i64::try_from(SUBJECTS).unwrap() - 1);
    let log = s.deployment.log().to_lowercase();
    assert!(!log.contains("subject1@") && !log.contains("mara@"), "no personal data in the log (I10)");
}

#[tokio::test]
async fn a_changed_email_reaches_every_system_that_is_keyed_by_it_sqlite() {
    a_changed_email_reaches_every_system_that_is_keyed_by_it(StoreKind::Sqlite, Engine::Sqlite).await;
}

#[tokio::test]
async fn a_changed_email_reaches_every_system_that_is_keyed_by_it_postgres_and_mariadb() {
    a_changed_email_reaches_every_system_that_is_keyed_by_it(StoreKind::Postgres, Engine::MySql).await;
}

fn task<'a>(request: &'a v1::Request, system: &str) -> &'a v1::Task {
    request.tasks.iter().find(|t| t.system == format!("systems/{system}")).unwrap()
}

#[tokio::test]
async fn a_taken_email_waits_for_a_person_and_a_wrong_old_one_goes_no_further() {
    let s = scene(StoreKind::Sqlite, Engine::Sqlite).await;
    // `news` has a reader with that address, and no two may share one.
    let taken = create(&s.acme, change_email(1, &email(2))).await.unwrap();
    let attention =
        |system: &'static str| move |r: &v1::Request| task(r, system).state() == v1::TaskState::NeedsAttention;
    let taken = wait_for(&s.acme, &taken.name, attention("news")).await;
    assert_eq!(task(&taken, "crm").state(), v1::TaskState::Confirmed);
    assert_eq!(s.news.count("SELECT count(*) FROM reader WHERE address = 'Subject1@Example.com'").await, 1);

    s.crm
        .pool
        .run_script("UPDATE customer SET email = 'else@example.com' WHERE id = 5; DELETE FROM message")
        .await
        .unwrap();
    s.news.pool.run_script("INSERT INTO reader VALUES (5, 'subject5@example.com', 'art')").await.unwrap();
    let wrong = create(&s.acme, change_email(5, "mara@new.example")).await.unwrap();
    let wrong = wait_for(&s.acme, &wrong.name, attention("crm")).await;
    assert!(task(&wrong, "crm").reason.contains("old value"), "{}", task(&wrong, "crm").reason);
    assert_eq!(task(&wrong, "news").state(), v1::TaskState::Waiting);
    assert_eq!(s.news.count("SELECT count(*) FROM reader WHERE address = 'subject5@example.com'").await, 1);
}

#[tokio::test]
async fn what_is_no_identifier_is_refused_with_the_fields_path() {
    let s = scene(StoreKind::Sqlite, Engine::Sqlite).await;
    let field = |status: tonic::Status| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        status.get_error_details().bad_request().unwrap().field_violations[0].field.clone()
    };
    let refused = create(&s.acme, change_email(1, "no address")).await.unwrap_err();
    assert!(!refused.message().contains("no address"));
    assert_eq!(field(refused), "request.corrections[0].replace.new_value");
    let mut by_record = change_email(1, "a@b.example");
    let record = v1::RecordValue { key: vec!["1".to_owned()], new_value: "a@b.example".to_owned() };
    by_record.corrections[0].target = Some(v1::correction::Target::Record(record));
    assert_eq!(field(create(&s.acme, by_record).await.unwrap_err()), "request.corrections[0].record");
    let mut two = change_email(1, "a@b.example");
    two.corrections.extend(change_email(1, "c@b.example").corrections);
    assert_eq!(field(create(&s.acme, two).await.unwrap_err()), "request.corrections[1].replace");
    // Another way to write the same one is a correction like any other.
    let same = create(&s.acme, change_email(1, "SUBJECT1@EXAMPLE.COM")).await.unwrap();
    assert!(same.identifier_changes.is_empty());
    let once = v1::CreateRequestRequest {
        request_id: new_id(),
        parent: String::new(),
        request: Some(change_email(4, "d@b.example")),
    };
    let first = s.acme.requests().create_request(once.clone()).await.unwrap().into_inner().request.unwrap();
    let again = s.acme.requests().create_request(once).await.unwrap().into_inner().request.unwrap();
    assert_eq!((first.name, first.identifier_changes), (again.name, again.identifier_changes));
}

const VISITS_MAP: &str = "
version: 1
collections:
  visit:
    key: [id]
    identifiers: [{kind: email, field: email}]
    yields: {user_id: account}
    fields: {email: email}
    erase: delete
";

/// A guest's visits bear an account that others' visits bear too: looked for in the shop, it would bring their orders.
#[tokio::test]
async fn what_others_bear_too_leads_nowhere_before_a_person_has_looked() {
    let deployment = Deployment::start(StoreKind::Sqlite).await;
    let shop = AppDatabase::shop(Engine::Sqlite, deployment.folder.path(), 3).await;
    let guest = user_id(1);
    let visits = format!(
        "CREATE TABLE visit (id INTEGER PRIMARY KEY, email TEXT, account TEXT);
         INSERT INTO visit VALUES (1, 'Ann@Example.com', '{guest}'), (2, 'ben@example.com', '{guest}'), (3, 'ann@example.com ', '{guest}')"
    );
    let visits = app_database(&deployment, "visits", &visits).await;
    deployment.secret("visits", &visits.url);
    deployment.secret("shop", &shop.url);
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    let sql = v1::ConnectorKind::Sql;
    register(&operator, "shop", system("acme", sql, "shop", SHOP_MAP)).await.unwrap();
    register(&operator, "visits", system("acme", sql, "visits", VISITS_MAP)).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;

    let erase = || by_email(v1::Action::Erasure, "ann@example.com");
    let asked = v1::PreviewRequestRequest { request: Some(erase()), ..Default::default() };
    let preview = acme.requests().preview_request(asked).await.unwrap().into_inner();
    let of = |system: &str| preview.systems.iter().find(|p| p.system == format!("systems/{system}")).unwrap();
    assert!(of("visits").remark.starts_with("YIELDED_BY_OTHERS") && !of("shop").asked, "{preview:#?}");

    let request = create(&acme, erase()).await.unwrap();
    let stopped = |r: &v1::Request| task(r, "visits").state() == v1::TaskState::NeedsAttention;
    let request = wait_for(&acme, &request.name, stopped).await;
    assert!(task(&request, "visits").reason.starts_with("YIELDED_BY_OTHERS: the user_id"), "{request:#?}");
    assert_eq!(task(&request, "shop").state(), v1::TaskState::Waiting);
    assert_eq!(visits.count("SELECT count(*) FROM visit").await, 3);

    // A person has looked: the account is Ann's.
    visits.pool.run_script("UPDATE visit SET account = NULL WHERE id = 2").await.unwrap();
    let name = task(&request, "visits").name.clone();
    operator.requests().retry_task(v1::RetryTaskRequest { name }).await.unwrap();
    completed(&acme, &request.name).await;
    assert_eq!(visits.count("SELECT count(*) FROM visit").await, 1);
    assert_eq!(shop.count("SELECT count(*) FROM account").await, 2);
}

/// What is corrected in one system is found there by what another yields, though that one has nothing to correct.
async fn a_correction_is_found_by_what_a_system_without_it_yields(store: StoreKind) {
    let deployment = Deployment::start(store).await;
    let (_crm, shop) = acme_with_crm_and_shop(&deployment, (Engine::Sqlite, Engine::Sqlite), 3).await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let by = vec![identifier(IdentifierKind::Email, email(1))];
    let request = create(&acme, rectify(by, ("orders", "note"), "Note 2", "Ring twice")).await.unwrap();
    let request = completed(&acme, &request.name).await;
    assert_eq!(request.state(), v1::RequestState::Completed, "{request:#?}");
    assert_eq!(shop.count("SELECT count(*) FROM orders WHERE note = 'Ring twice'").await, 1);
    assert_eq!(shop.count("SELECT count(*) FROM orders WHERE note = 'Note 2'").await, 0);
    let of_crm = task(&request, "crm").confirmation.as_ref().unwrap();
    assert_eq!(of_crm.outcomes[0].outcome(), v1::OutcomeKind::NotHeld);
}

#[tokio::test]
async fn a_correction_is_found_by_what_a_system_without_it_yields_sqlite() {
    a_correction_is_found_by_what_a_system_without_it_yields(StoreKind::Sqlite).await;
}

#[tokio::test]
async fn a_correction_is_found_by_what_a_system_without_it_yields_postgres() {
    a_correction_is_found_by_what_a_system_without_it_yields(StoreKind::Postgres).await;
}

/// Row 7 of one database is somebody else than row 7 of another, unless the operator knows better.
#[tokio::test]
async fn systems_that_number_people_apart_are_warned_of() {
    let deployment = Deployment::start(StoreKind::Sqlite).await;
    let map = |table: &str, yields: &str| {
        format!(
            "version: 1\ncollections:\n  {table}:\n    key: [id]\n    identifiers: [{{kind: email, field: email}}, {{kind: user_id, field: id}}]\n{yields}    fields: {{id: {{category: user_name, erase: keep}}, email: email}}\n    erase: mask\n"
        )
    };
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    let mut told = Vec::new();
    for (name, yields) in [("cust", "    yields: {user_id: id}\n"), ("leads", "")] {
        let script = format!("CREATE TABLE {name} (id INTEGER PRIMARY KEY, email TEXT)");
        let database = app_database(&deployment, name, &script).await;
        deployment.secret(name, &database.url);
        let system = system("acme", v1::ConnectorKind::Sql, name, &map(name, yields));
        let system =
            v1::RegisterSystemRequest { request_id: new_id(), system_id: name.to_owned(), system: Some(system) };
        let answer = operator.systems().register_system(system).await.unwrap().into_inner();
        told.push(
            answer.findings.into_iter().any(|f| !f.error && f.message.contains("unless both number people alike")),
        );
    }
    assert_eq!(told, [false, true]);
    let asked = v1::ListRequestsRequest { parent: "customers/acmee".to_owned(), ..Default::default() };
    assert_eq!(
        operator.requests().list_requests(asked).await.unwrap_err().code(),
        Code::NotFound,
        "a misspelt customer"
    );
}
