//! `RetryTask`: what a person lets run again.

use quittance_api::v1;
use quittance_sql::Engine;
use quittance_tests::{
    StoreKind,
    app_database::{CRM_ERASED, email},
    scenario::{assert_refused, by_email, completed, create, get, new_id, outcomes, wait_for},
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
    assert_eq!((again.state(), again.attempts, again.reason.as_str()), (v1::TaskState::Pending, 0, ""));
    let seen = wait_for(&s.acme, &stopped.name, needs_attention).await;
    assert_eq!(seen.tasks[0].reason, task.reason);

    let wide = crm_map("remark: {category: message, erase: set_null}", "remark: {category: message, erase: keep}");
    let update = v1::UpdateDataMapRequest { request_id: new_id(), name: "systems/crm".to_owned(), data_map_yaml: wide };
    s.operator.systems().update_data_map(update).await.unwrap();
    let running = requests.clone().retry_task(retry(&task.name)).await.unwrap().into_inner().task.unwrap();
    assert!(running.confirmation.is_none());
    let done = completed(&s.acme, &stopped.name).await;
    assert_eq!(done.state(), v1::RequestState::Completed, "{done:#?}");
    assert_eq!(outcomes(&done), CRM_ERASED, "by the version that it was planned with");
    let later = create(&s.acme, by_email(v1::Action::Erasure, email(4))).await.unwrap();
    let later = outcomes(&completed(&s.acme, &later.name).await);
    assert!(!later.contains(&"crm customer message ERASED VERIFIED 1".to_owned()), "by the new one: {later:?}");

    // What is confirmed stays so.
    let refused = requests.clone().retry_task(retry(&task.name)).await;
    assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE", "");
    assert_eq!(outcomes(&get(&s.acme, &stopped.name).await), CRM_ERASED);
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
