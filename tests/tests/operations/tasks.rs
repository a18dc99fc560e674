//! `RetryTask`: what a person lets run again.

use quittance_api::v1;
use quittance_sql::Engine;
use quittance_tests::{
    StoreKind,
    app_database::{CRM_ERASED, CRM_MAP, email},
    certificates::{check, keys},
    scenario::{
        assert_refused, by_email, certificate, completed, create, get, identifier, new_id, outcomes, rectify, wait_for,
    },
};
use tonic::Code;

use crate::scene::{Scene, crm_map};

fn retry(name: &str) -> v1::RetryTaskRequest {
    v1::RetryTaskRequest { name: name.to_owned() }
}

fn needs_attention(request: &v1::Request) -> bool {
    request.tasks.iter().any(|task| task.state() == v1::TaskState::NeedsAttention)
}

async fn what_the_guard_stopped_runs_once_a_person_has_raised_it(store: StoreKind, engine: Engine) {
    // Six rows are each subject's. Of the first version of the map a remark is set to null, of the second it is kept.
    let narrow = crm_map("max_rows_per_subject: 100", "max_rows_per_subject: 5");
    let (s, crm) = Scene::with_crm(store, engine, &narrow).await;
    let stopped = create(&s.acme, by_email(v1::Action::Erasure, email(3))).await.unwrap();
    let seen = wait_for(&s.acme, &stopped.name, needs_attention).await;
    let task = seen.tasks[0].clone();
    assert_eq!(task.reason, "matches 6 rows, and the map allows 5");
    assert_eq!(crm.count("SELECT count(*) FROM customer WHERE email IS NULL").await, 0, "nothing was changed");

    // Nobody but an operator, and nothing but such a task.
    let requests = s.operator.requests();
    for customer in [&s.acme, &s.rival] {
        let refused = customer.requests().retry_task(retry(&task.name)).await;
        assert_refused(refused, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
    }
    let refused = requests.clone().retry_task(retry("customers/acme/tasks/crm")).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "name");
    for unknown in ["crm", "acme"].map(|from| task.name.replace(from, "unknown")) {
        assert_refused(requests.clone().retry_task(retry(&unknown)).await, Code::NotFound, "NOT_FOUND", "");
    }

    // Retried as it is, it comes to the same; its attempts are counted anew.
    let again = requests.clone().retry_task(retry(&task.name)).await.unwrap().into_inner().task.unwrap();
    assert!([v1::TaskState::Pending, v1::TaskState::Running].contains(&again.state()), "{again:?}");
    assert!(again.attempts <= 1 && again.reason.is_empty(), "{again:?}");
    let seen = wait_for(&s.acme, &stopped.name, needs_attention).await;
    assert_eq!(seen.tasks[0].reason, task.reason);

    let wide = crm_map("remark: {category: message, erase: set_null}", "remark: {category: message, erase: keep}");
    update(&s, wide).await;
    let running = requests.clone().retry_task(retry(&task.name)).await.unwrap().into_inner().task.unwrap();
    assert!(running.confirmation.is_none());
    let done = completed(&s.acme, &stopped.name).await;
    assert_eq!(done.state(), v1::RequestState::Completed, "{done:#?}");
    let of_today: Vec<&str> =
        CRM_ERASED.into_iter().filter(|outcome| *outcome != "crm customer message ERASED VERIFIED 1").collect();
    assert_eq!(outcomes(&done), of_today, "by the version in force when it was retried");

    // What is confirmed stays so.
    let refused = requests.clone().retry_task(retry(&task.name)).await;
    assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE", "");
    assert_eq!(outcomes(&get(&s.acme, &stopped.name).await), of_today);
    assert!(!s.deployment.log().contains("subject3"), "no personal data in the log (I10)");
}

#[tokio::test]
async fn what_the_guard_stopped_runs_once_a_person_has_raised_it_sqlite() {
    what_the_guard_stopped_runs_once_a_person_has_raised_it(StoreKind::Sqlite, Engine::Sqlite).await;
}

#[tokio::test]
async fn what_the_guard_stopped_runs_once_a_person_has_raised_it_postgres() {
    what_the_guard_stopped_runs_once_a_person_has_raised_it(StoreKind::Postgres, Engine::Postgres).await;
}

async fn update(s: &Scene, map: String) {
    let update = v1::UpdateDataMapRequest { request_id: new_id(), name: "systems/crm".to_owned(), data_map_yaml: map };
    s.operator.systems().update_data_map(update).await.unwrap();
}

/// The rows were found, and what was found is kept by then: it goes on by the corrected map.
async fn what_the_database_refused_runs_once_the_map_is_corrected(store: StoreKind, engine: Engine) {
    let (s, crm) = Scene::with_crm(store, engine, CRM_MAP).await;
    for statement in refuses_remarks_that_are_null(engine) {
        crm.pool.run_script(statement).await.unwrap();
    }
    let stopped = create(&s.acme, by_email(v1::Action::Erasure, email(3))).await.unwrap();
    let task = wait_for(&s.acme, &stopped.name, needs_attention).await.tasks[0].name.clone();
    assert_eq!(crm.count("SELECT count(*) FROM customer WHERE email IS NULL").await, 0, "nothing was changed");

    // Not by a map in which what was found has no place any more.
    let requests = s.operator.requests();
    update(&s, CRM_MAP.replace("  message:\n", "  mail:\n    table: message\n")).await;
    let refused = requests.clone().retry_task(retry(&task)).await.unwrap_err();
    assert!(refused.message().contains("version 2") && refused.message().contains("message"), "{refused}");
    assert_refused(Err::<(), _>(refused), Code::FailedPrecondition, "WRONG_STATE", "");
    assert!(needs_attention(&get(&s.acme, &stopped.name).await), "it stands as it stood");

    // Fields and links stand elsewhere in this one, and remarks are set to what the database takes.
    let corrected = crm_map("      remark: {category: message, erase: set_null}\n", "");
    let remark = "    fields:\n      remark: {category: message, erase: {constant: none}}\n      email: email\n";
    update(&s, corrected.replacen("    fields:\n      email: email\n", remark, 1)).await;
    requests.clone().retry_task(retry(&task)).await.unwrap();
    let done = completed(&s.acme, &stopped.name).await;
    assert_eq!(outcomes(&done), CRM_ERASED);
    assert_eq!(crm.count("SELECT count(*) FROM customer WHERE remark = 'none'").await, 1);
    let file = certificate(&s.acme, &stopped.name, "").await.certificate;
    let checked = check(&file, &keys(&s.deployment));
    assert_eq!(checked.statement.systems[0].map_version, 3, "the one that did it");
    let planned = checked.entries.iter().filter(|entry| entry.kind == "planned").count();
    assert_eq!(planned, 2, "the log tells of both");
}

/// What is left of an instruction is not all of it.
#[tokio::test]
async fn a_correction_is_not_left_out_by_a_map_without_its_field() {
    let (s, crm) = Scene::with_crm(StoreKind::Sqlite, Engine::Sqlite, CRM_MAP).await;
    crm.pool
        .run_script("CREATE TRIGGER called BEFORE UPDATE OF phone ON customer BEGIN SELECT RAISE(ABORT, 'no'); END")
        .await
        .unwrap();
    let mut instruct =
        rectify(vec![identifier(v1::IdentifierKind::Email, email(3))], ("customer", "phone"), "+31610000003", "+31 1");
    instruct.corrections.extend(rectify(vec![], ("customer", "name"), "Name 3", "Mara").corrections);
    let stopped = create(&s.acme, instruct).await.unwrap();
    let task = wait_for(&s.acme, &stopped.name, needs_attention).await.tasks[0].name.clone();
    update(&s, crm_map("      phone: phone\n", "")).await;
    let refused = s.operator.requests().retry_task(retry(&task)).await.unwrap_err();
    assert!(refused.message().contains("customer.phone"), "{refused}");
    assert_refused(Err::<(), _>(refused), Code::FailedPrecondition, "WRONG_STATE", "");
    crm.pool.run_script("DROP TRIGGER called").await.unwrap();
    update(&s, CRM_MAP.to_owned()).await;
    s.operator.requests().retry_task(retry(&task)).await.unwrap();
    completed(&s.acme, &stopped.name).await;
    assert_eq!(crm.count("SELECT count(*) FROM customer WHERE phone = '+31 1' AND name = 'Mara'").await, 1);
}

fn refuses_remarks_that_are_null(engine: Engine) -> &'static [&'static str] {
    match engine {
        Engine::Postgres => &["ALTER TABLE customer ADD CONSTRAINT remarked CHECK (remark IS NOT NULL)"],
        _ => &["CREATE TRIGGER remarked BEFORE UPDATE ON customer WHEN NEW.remark IS NULL
                BEGIN SELECT RAISE(ABORT, 'a remark is needed'); END"],
    }
}

#[tokio::test]
async fn what_the_database_refused_runs_once_the_map_is_corrected_sqlite() {
    what_the_database_refused_runs_once_the_map_is_corrected(StoreKind::Sqlite, Engine::Sqlite).await;
}

#[tokio::test]
async fn what_the_database_refused_runs_once_the_map_is_corrected_postgres() {
    what_the_database_refused_runs_once_the_map_is_corrected(StoreKind::Postgres, Engine::Postgres).await;
}

#[tokio::test]
async fn a_task_that_is_open_or_whose_request_waits_is_not_retried() {
    let s = Scene::on(StoreKind::Sqlite, &[]).await;
    s.register_remote("print").await;
    let open = create(&s.acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    let task = open.tasks[0].name.clone();
    let refused = s.operator.requests().retry_task(retry(&task)).await;
    assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE", "");
    let object = v1::ObjectToRequestRequest { name: open.name.clone(), reason: "looks unlawful".to_owned() };
    s.operator.requests().object_to_request(object).await.unwrap();
    let refused = s.operator.requests().retry_task(retry(&task)).await;
    assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE", "");
    assert_eq!(get(&s.acme, &open.name).await.tasks[0].state(), v1::TaskState::Waiting);
}
