//! `GetSystem`, `TestSystem`, `UpdateDataMap`: for operators alone.

use std::fs;

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::Engine;
use quittance_tests::{
    StoreKind,
    app_database::CRM_MAP,
    scenario::{
        assert_refused, by_email, completed, create, create_customer, new_id, outcomes, register, system, wait_for,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::scene::{SUBJECTS, Scene, crm_map, remote};

async fn get(client: &Client, name: &str) -> Result<v1::System, Status> {
    let get = v1::GetSystemRequest { name: name.to_owned() };
    client.systems().get_system(get).await.map(|answer| answer.into_inner().system.unwrap())
}

async fn test(client: &Client, name: &str) -> Result<Vec<v1::Finding>, Status> {
    let test = v1::TestSystemRequest { name: name.to_owned() };
    client.systems().test_system(test).await.map(|answer| answer.into_inner().findings)
}

async fn update(client: &Client, request_id: &str, map: &str) -> Result<v1::System, Status> {
    let update = v1::UpdateDataMapRequest {
        request_id: request_id.to_owned(),
        name: "systems/crm".to_owned(),
        data_map_yaml: map.to_owned(),
    };
    client.systems().update_data_map(update).await.map(|answer| answer.into_inner().system.unwrap())
}

#[tokio::test]
async fn a_system_is_given_as_it_was_registered() {
    let s = Scene::on(StoreKind::Postgres, &[]).await;
    let (days, hours) = (86_400, 3_600);
    let duration = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let sent = v1::System {
        display_name: "Print shop".to_owned(),
        country: "BE".to_owned(),
        customers: vec![v1::SystemCustomer { customer: "customers/acme".to_owned(), key: "A-17".to_owned() }],
        accepts: vec![v1::IdentifierKind::Email.into(), v1::IdentifierKind::Phone.into()],
        settle_after: duration(2 * hours),
        backup_retention: duration(14 * days),
        grace_period: duration(30 * days),
        limits: Some(v1::SystemLimits { concurrency: 2, batches_per_second: 5, batch_size: 10 }),
        ..remote("print")
    };
    let registered = register(&s.operator, "print", sent.clone()).await.unwrap();
    let got = get(&s.operator, "systems/print").await.unwrap();
    assert_eq!(got, registered);
    assert!(got.create_time.is_some());
    let as_sent =
        v1::System { name: "systems/print".to_owned(), data_map_version: 1, create_time: got.create_time, ..sent };
    assert_eq!(got, as_sent);

    for customer in [&s.acme, &s.rival] {
        assert_refused(get(customer, "systems/print").await, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
        assert_refused(test(customer, "systems/print").await, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
        let refused = update(customer, &new_id(), CRM_MAP).await;
        assert_refused(refused, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
    }
    let worker = s.deployment.client(&s.deployment.connector_token("print")).await;
    assert_refused(get(&worker, "systems/print").await, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
    assert_refused(get(&s.operator, "systems/other").await, Code::NotFound, "NOT_FOUND", "");
    assert_refused(get(&s.operator, "print").await, Code::InvalidArgument, "INVALID_FIELD", "name");
    assert_refused(test(&s.operator, "systems/other").await, Code::NotFound, "NOT_FOUND", "");
    assert_refused(test(&s.operator, "systems/").await, Code::InvalidArgument, "INVALID_FIELD", "name");
    assert_refused(update(&s.operator, &new_id(), CRM_MAP).await, Code::NotFound, "NOT_FOUND", "");

    // Nobody can ask it from here: that is said, and is no "all well".
    let findings = test(&s.operator, "systems/print").await.unwrap();
    assert_eq!(findings.len(), 1);
    assert!(!findings[0].error && findings[0].field == "connection", "{findings:?}");

    // Registered once, whatever is sent again; and no other under the same id.
    let again = |request_id: &str, system: v1::System| {
        let request = v1::RegisterSystemRequest {
            request_id: request_id.to_owned(),
            system_id: "letters".to_owned(),
            system: Some(system),
        };
        let systems = s.operator.systems();
        async move { systems.clone().register_system(request).await.map(|r| r.into_inner().system.unwrap()) }
    };
    let id = new_id();
    let first = again(&id, remote("letters")).await.unwrap();
    assert_eq!(again(&id, remote("letters")).await.unwrap(), first);
    let other = again(&id, v1::System { country: "BE".to_owned(), ..remote("letters") }).await;
    assert_refused(other, Code::AlreadyExists, "REQUEST_ID_REUSED", "");
    assert_refused(again(&new_id(), remote("letters")).await, Code::AlreadyExists, "ALREADY_EXISTS", "");
    // Two customers of one key would be shown each other's rows.
    let customer =
        |id: &str, key: &str| v1::SystemCustomer { customer: format!("customers/{id}"), key: key.to_owned() };
    let twice = v1::System { customers: vec![customer("acme", ""), customer("rival", "acme")], ..remote("cards") };
    let refused = again(&new_id(), twice).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "system.customers[1].key");
    let twice = v1::System { customers: vec![customer("acme", ""), customer("acme", "")], ..remote("cards") };
    let refused = again(&new_id(), twice).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "system.customers[1].customer");
}

async fn a_test_of_a_system_says_what_is_wrong_now(engine: Engine) {
    let (s, crm) = Scene::with_crm(StoreKind::Sqlite, engine, CRM_MAP).await;
    let errors = |findings: Vec<v1::Finding>| {
        findings.into_iter().filter(|f| f.error).map(|f| (f.field, f.message)).collect::<Vec<_>>()
    };
    assert_eq!(errors(test(&s.operator, "systems/crm").await.unwrap()), []);
    // SQLite does not see for ALTER what another connection has altered: asked for rows first, it does.
    let rename = async |from: &str, to: &str| {
        let script = format!("SELECT 1 FROM customer; ALTER TABLE customer RENAME COLUMN {from} TO {to}");
        crm.pool.run_script(&script).await.unwrap();
    };
    rename("remark", "remarks").await;
    let found = errors(test(&s.operator, "systems/crm").await.unwrap());
    assert!(found.iter().any(|(field, _)| field.starts_with("collections.customer.fields.remark")), "{found:?}");
    rename("remarks", "remark").await;
    assert_eq!(errors(test(&s.operator, "systems/crm").await.unwrap()), [], "it is asked anew each time");

    // What cannot be asked is an error of the connection, and no error of the call.
    let secret = s.deployment.data().join("secrets/crm");
    fs::remove_file(&secret).unwrap();
    let found = errors(test(&s.operator, "systems/crm").await.unwrap());
    assert!(found[0].0 == "connection" && found[0].1.contains("secret crm"), "{found:?}");
    s.deployment.secret("crm", "postgres://nobody:hunter2@127.0.0.1:1/crm");
    let found = errors(test(&s.operator, "systems/crm").await.unwrap());
    assert!(found[0].0 == "connection" && !found[0].1.contains("hunter2"), "{found:?}");
    s.deployment.secret("crm", "postgres://nobody:hunter2@db.example.com/crm");
    let found = errors(test(&s.operator, "systems/crm").await.unwrap());
    assert!(found[0].0 == "connection" && found[0].1.contains("sslmode=verify-full"), "{found:?}");
    assert!(!s.deployment.log().contains("hunter2"), "no password in the log");

    // Nothing of this has changed it, and what is put right is used without a restart.
    s.deployment.secret("crm", &crm.url);
    assert_eq!(get(&s.operator, "systems/crm").await.unwrap().data_map_version, 1);
    let done = create(&s.acme, by_email(v1::Action::Erasure, "subject1@example.com")).await.unwrap();
    assert_eq!(completed(&s.acme, &done.name).await.state(), v1::RequestState::Completed);
}

#[tokio::test]
async fn a_test_of_a_system_says_what_is_wrong_now_sqlite() {
    a_test_of_a_system_says_what_is_wrong_now(Engine::Sqlite).await;
}

#[tokio::test]
async fn a_test_of_a_system_says_what_is_wrong_now_postgres() {
    a_test_of_a_system_says_what_is_wrong_now(Engine::Postgres).await;
}

#[tokio::test]
async fn a_test_of_a_system_says_what_is_wrong_now_mariadb() {
    a_test_of_a_system_says_what_is_wrong_now(Engine::MySql).await;
}

/// A password that was rotated: what runs already goes over to it.
#[tokio::test]
async fn a_changed_secret_is_used_by_what_runs_already() {
    let (s, crm) = Scene::with_crm(StoreKind::Sqlite, Engine::Postgres, CRM_MAP).await;
    let erase = async |n: u64| {
        let request = by_email(v1::Action::Erasure, quittance_tests::app_database::email(n));
        let request = create(&s.acme, request).await.unwrap();
        completed(&s.acme, &request.name).await.state()
    };
    assert_eq!(erase(1).await, v1::RequestState::Completed);
    // The same tables at another place.
    let moved = quittance_tests::AppDatabase::crm(Engine::Postgres, s.deployment.folder.path(), SUBJECTS).await;
    s.deployment.secret("crm", &moved.url);
    assert_eq!(erase(2).await, v1::RequestState::Completed);
    let gone = "SELECT count(*) FROM customer WHERE email IS NULL";
    assert_eq!((crm.count(gone).await, moved.count(gone).await), (1, 1));
}

async fn a_data_map_has_one_version_for_each_change(store: StoreKind, engine: Engine) {
    let (s, _crm) = Scene::with_crm(store, engine, CRM_MAP).await;
    let kept = crm_map("remark: {category: message, erase: set_null}", "remark: {category: message, erase: keep}");
    let id = new_id();
    let updated = update(&s.operator, &id, &kept).await.unwrap();
    assert_eq!((updated.data_map_version, &updated.data_map_yaml), (2, &kept));
    assert_eq!(update(&s.operator, &id, &kept).await.unwrap(), updated, "sent twice, it is one version");
    let other = update(&s.operator, &id, CRM_MAP).await;
    assert_refused(other, Code::AlreadyExists, "REQUEST_ID_REUSED", "");
    assert_eq!(get(&s.operator, "systems/crm").await.unwrap(), updated);

    // What is wrong is refused with line and field, whether the file tells it or the live system does.
    let refused = async |map: &str, field: &str, line: usize| {
        let status = update(&s.operator, &new_id(), map).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "INVALID_DATA_MAP");
        let violations = &details.bad_request().unwrap().field_violations;
        let at = format!("line {line}: ");
        let told = violations.iter().any(|v| v.field.starts_with(field) && v.description.starts_with(&at));
        assert!(told, "{field}, line {line}: {violations:?}");
    };
    let line_of = |map: &str, text: &str| 1 + map.lines().position(|line| line.contains(text)).unwrap();
    let unknown_key = crm_map("erase: delete", "erases: delete");
    refused(&unknown_key, "data_map_yaml.collections.address.erases", line_of(&unknown_key, "erases")).await;
    let no_table = crm_map("\n  message:\n", "\n  messages:\n");
    refused(&no_table, "data_map_yaml.collections.messages", line_of(&no_table, "  messages:")).await;
    let no_column = crm_map("city: city", "town: city");
    refused(&no_column, "data_map_yaml.collections.address.fields.town", line_of(&no_column, "town: city")).await;
    // As at registration.
    let request = system("acme", v1::ConnectorKind::Sql, "crm", &no_column);
    let status = register(&s.operator, "second", request).await.unwrap_err();
    let violations = status.get_error_details().bad_request().unwrap().field_violations.clone();
    let at = format!("line {}: ", line_of(&no_column, "town: city"));
    let told = |v: &tonic_types::FieldViolation| {
        v.field.starts_with("system.data_map_yaml.collections.address.fields.town") && v.description.starts_with(&at)
    };
    assert!(violations.iter().any(told), "{violations:?}");
    assert_refused(update(&s.operator, "7", &kept).await, Code::InvalidArgument, "INVALID_FIELD", "request_id");
    let unreached = "version: 1\ncollections: {}\n";
    assert_eq!(update(&s.operator, &new_id(), unreached).await.unwrap_err().code(), Code::InvalidArgument);

    // A system that is not there cannot be compared with: later.
    s.deployment.secret("crm", "postgres://nobody@127.0.0.1:1/crm");
    assert_refused(update(&s.operator, &new_id(), CRM_MAP).await, Code::Unavailable, "UNAVAILABLE", "");
    assert_eq!(get(&s.operator, "systems/crm").await.unwrap(), updated, "nothing of this is in force");
}

#[tokio::test]
async fn a_data_map_has_one_version_for_each_change_sqlite() {
    a_data_map_has_one_version_for_each_change(StoreKind::Sqlite, Engine::Sqlite).await;
}

#[tokio::test]
async fn a_data_map_has_one_version_for_each_change_postgres() {
    a_data_map_has_one_version_for_each_change(StoreKind::Postgres, Engine::MySql).await;
}

/// A recipient, or a system of customers who share it, is not made something else by its map.
#[tokio::test]
async fn a_shared_system_stays_one_whose_rows_say_whose_they_are() {
    let (s, crm) = Scene::with_crm(StoreKind::Sqlite, Engine::Sqlite, CRM_MAP).await;
    create_customer(&s.operator, "bolt").await;
    s.deployment.secret("shared", &crm.url);
    crm.pool.run_script("ALTER TABLE customer ADD COLUMN tenant VARCHAR(64)").await.unwrap();
    crm.pool.run_script("ALTER TABLE message ADD COLUMN tenant VARCHAR(64)").await.unwrap();
    crm.pool.run_script("UPDATE customer SET tenant = 'bolt' WHERE id = 5").await.unwrap();
    crm.pool.run_script("UPDATE message SET tenant = 'bolt' WHERE id BETWEEN 15 AND 17").await.unwrap();
    let whose = |map: String| map.replace("    key: [id]\n", "    key: [id]\n    customer_field: tenant\n");
    let shared = v1::System {
        customers: ["acme", "bolt"]
            .map(|id| v1::SystemCustomer { customer: format!("customers/{id}"), key: String::new() })
            .to_vec(),
        ..system("acme", v1::ConnectorKind::Sql, "shared", &whose(CRM_MAP.to_owned()))
    };
    register(&s.operator, "shared", shared).await.unwrap();
    let update = v1::UpdateDataMapRequest {
        request_id: new_id(),
        name: "systems/shared".to_owned(),
        data_map_yaml: CRM_MAP.to_owned(),
    };
    let refused = s.operator.systems().update_data_map(update).await;
    let field = "data_map_yaml.collections.customer.customer_field";
    assert_refused(refused, Code::InvalidArgument, "INVALID_DATA_MAP", field);
    let bolt = s.deployment.client(&s.deployment.customer_token("bolt")).await;
    let request = create(&bolt, by_email(v1::Action::Erasure, "subject5@example.com")).await.unwrap();
    let done = completed(&bolt, &request.name).await;
    assert!(outcomes(&done).contains(&"shared message message ERASED VERIFIED 3".to_owned()), "{done:#?}");
    let request = create(&bolt, by_email(v1::Action::Erasure, "subject6@example.com")).await.unwrap();
    assert_eq!(outcomes(&completed(&bolt, &request.name).await), ["shared * * NOT_HELD VERIFIED 0"]);
}

/// As customers sign up.
#[tokio::test]
async fn a_customer_is_added_to_a_system_with_its_key() {
    let (s, crm) = Scene::with_crm(StoreKind::Postgres, Engine::Postgres, CRM_MAP).await;
    create_customer(&s.operator, "bolt").await;
    let at = |customer: &str, key: &str| v1::SystemCustomer {
        customer: format!("customers/{customer}"),
        key: key.to_owned(),
    };
    let add = async |client: &Client, system: &str, customer: v1::SystemCustomer| {
        let add = v1::AddSystemCustomersRequest { name: system.to_owned(), customers: vec![customer] };
        client.systems().add_system_customers(add).await.map(|answer| answer.into_inner().system.unwrap().customers)
    };
    // One customer's own database, whose rows do not say whose they are.
    let refused = add(&s.operator, "systems/crm", at("bolt", "")).await;
    let field = "data_map_yaml.collections.customer.customer_field";
    assert_refused(refused, Code::InvalidArgument, "INVALID_DATA_MAP", field);

    s.deployment.secret("shared", &crm.url);
    crm.pool.run_script("ALTER TABLE customer ADD COLUMN tenant INTEGER").await.unwrap();
    crm.pool.run_script("ALTER TABLE message ADD COLUMN tenant INTEGER").await.unwrap();
    crm.pool.run_script("UPDATE customer SET tenant = 22 WHERE id = 5").await.unwrap();
    crm.pool.run_script("UPDATE message SET tenant = 22 WHERE id BETWEEN 15 AND 17").await.unwrap();
    let whose = CRM_MAP.replace("    key: [id]\n", "    key: [id]\n    customer_field: tenant\n");
    let shared =
        v1::System { customers: vec![at("acme", "11")], ..system("acme", v1::ConnectorKind::Sql, "shared", &whose) };
    register(&s.operator, "shared", shared).await.unwrap();
    let files = v1::System { all_customers: true, customers: Vec::new(), ..remote("files") };
    register(&s.operator, "files", files).await.unwrap();
    let bolt = s.deployment.client(&s.deployment.customer_token("bolt")).await;
    let open = create(&bolt, by_email(v1::Action::Erasure, "subject5@example.com")).await.unwrap();
    assert_eq!(open.tasks.len(), 1);

    let refused = add(&s.operator, "systems/shared", at("bolt", "")).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_DATA_MAP", field);
    let refused = add(&s.operator, "systems/shared", at("bolt", "11")).await;
    assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE", "");
    let refused = add(&s.operator, "systems/shared", at("nobody", "33")).await;
    assert_refused(refused, Code::NotFound, "NOT_FOUND", "");
    let refused = add(&s.operator, "systems/files", at("bolt", "")).await;
    assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE", "");
    let refused = add(&bolt, "systems/shared", at("bolt", "22")).await;
    assert_refused(refused, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
    for _ in 0..2 {
        let customers = add(&s.operator, "systems/shared", at("bolt", "22")).await.unwrap();
        assert_eq!(customers, [at("acme", "11"), at("bolt", "22")]);
    }
    let done = |request: &v1::Request| {
        let shared = request.tasks.iter().find(|task| task.name.ends_with("/shared"));
        shared.is_some_and(|task| task.state() == v1::TaskState::Confirmed)
    };
    let erased = wait_for(&bolt, &open.name, done).await;
    let shared = erased.tasks.into_iter().filter(|task| task.name.ends_with("/shared")).collect();
    let erased = v1::Request { tasks: shared, ..v1::Request::default() };
    assert!(outcomes(&erased).contains(&"shared message message ERASED VERIFIED 3".to_owned()), "{erased:#?}");
}
