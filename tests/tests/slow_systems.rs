//! A system that is healthy and slow: what does not fit into the time that a call has is done in smaller parts, and what never fits is
//! shown to a person.

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::Engine;
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_MAP, email},
    scenario::{by_email, completed, create, create_customer, new_id, register, system, wait_for},
};

/// Each call at a system has 2 seconds: a third of the lease.
const SETTINGS: &[(&str, &str)] = &[
    ("QUITTANCED_DISPATCH__LEASE_S", "6"),
    ("QUITTANCED_DISPATCH__POLL_MS", "50"),
    ("QUITTANCED_DISPATCH__RETRY_BASE_MS", "100"),
    ("QUITTANCED_DISPATCH__RETRY_CAP_S", "1"),
    // One failure of the system, and nothing is tried for longer than a test lasts.
    ("QUITTANCED_DISPATCH__BREAKER_FAILURES", "1"),
    ("QUITTANCED_DISPATCH__BREAKER_OPEN_S", "300"),
];

struct Scene {
    deployment: Deployment,
    crm: AppDatabase,
    acme: Client,
}

async fn scene(subjects: u64, settings: &[(&str, &str)]) -> Scene {
    let settings: Vec<_> = SETTINGS.iter().chain(settings).copied().collect();
    let deployment = Deployment::start_with(StoreKind::Postgres, &settings).await;
    let crm = AppDatabase::crm(Engine::Postgres, deployment.folder.path(), subjects).await;
    deployment.secret("crm", &crm.url);
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    register(&operator, "crm", system("acme", v1::ConnectorKind::Sql, "crm", CRM_MAP)).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    Scene { deployment, crm, acme }
}

impl Scene {
    /// A change of one of these customers takes so long.
    async fn slow_down(&self, which: &str, seconds: f64) {
        let script = format!(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE UPDATE ON customer FOR EACH ROW WHEN ({which}) EXECUTE FUNCTION wait();"
        );
        self.crm.pool.run_script(&script).await.unwrap();
    }

    /// Taken in as one chunk, and so due as one batch.
    async fn erase(&self, subjects: u64) -> Vec<String> {
        let erasure = |number| v1::BatchItem {
            number,
            request_id: new_id(),
            request: Some(by_email(v1::Action::Erasure, email(number))),
        };
        let items = (0..subjects).map(erasure).collect();
        let chunk = v1::BatchCreateRequestsRequest { parent: String::new(), items };
        let acks = self.acme.requests().batch_create_requests(tokio_stream::iter([chunk])).await.unwrap();
        acks.into_inner().message().await.unwrap().unwrap().names
    }
}

fn needs_attention(request: &v1::Request) -> bool {
    request.tasks.iter().any(|task| task.state() == v1::TaskState::NeedsAttention)
}

#[tokio::test]
async fn a_batch_that_takes_too_long_is_done_in_parts_that_do_not() {
    const SUBJECTS: u64 = 12;
    let scene = scene(SUBJECTS, &[]).await;
    scene.slow_down("true", 0.25).await;
    for name in scene.erase(SUBJECTS).await {
        let done = completed(&scene.acme, &name).await;
        assert_eq!(done.state(), v1::RequestState::Completed);
        assert_eq!(done.tasks[0].attempts, 1, "{done:#?}");
    }
}

#[tokio::test]
async fn a_subject_that_never_fits_needs_attention_and_the_others_are_done() {
    let scene = scene(5, &[("QUITTANCED_DISPATCH__READ_BACK_ATTEMPTS_MAX", "2")]).await;
    scene.slow_down("OLD.id = 2", 4.0).await;
    let names = scene.erase(4).await;
    for (n, name) in names.iter().enumerate() {
        if n == 2 {
            let seen = wait_for(&scene.acme, name, needs_attention).await;
            let reason = &seen.tasks[0].reason;
            assert!(reason.starts_with("OUT_OF_TIME"), "{reason}");
            assert!(reason.contains("index") && reason.contains("dispatch.lease_s"), "what to do: {reason}");
            assert!(seen.tasks[0].attempts >= 2, "it was tried again first: {seen:#?}");
        } else {
            assert_eq!(completed(&scene.acme, name).await.state(), v1::RequestState::Completed);
        }
    }
    assert!(scene.deployment.log().contains("a subject ran out of time alone"));
    // The system is not down: nobody else waits for it.
    let other = create(&scene.acme, by_email(v1::Action::Erasure, email(4))).await.unwrap();
    assert_eq!(completed(&scene.acme, &other.name).await.state(), v1::RequestState::Completed);
}

#[tokio::test]
async fn what_waits_for_a_neighbours_lock_is_done_when_the_lock_is_gone() {
    let scene = scene(4, &[]).await;
    let mut lock = scene.crm.pool.begin().await.unwrap();
    lock.execute_script("SELECT 1 FROM customer WHERE id IN (1, 2) FOR UPDATE").await.unwrap();
    let names = scene.erase(4).await;
    for n in [0, 3] {
        assert_eq!(completed(&scene.acme, &names[n]).await.state(), v1::RequestState::Completed, "not of {n}");
    }
    let tried = |request: &v1::Request| request.tasks[0].reason.starts_with("OUT_OF_TIME");
    wait_for(&scene.acme, &names[1], tried).await;
    lock.commit().await.unwrap();
    for name in &names[1..3] {
        assert_eq!(completed(&scene.acme, name).await.state(), v1::RequestState::Completed);
    }
}
