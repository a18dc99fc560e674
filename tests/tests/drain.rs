//! Whose work is whose, with two replicas on one store: a drain hands it back at once, a killed replica's is taken over when its lease
//! has passed, and nobody takes the work of one that is slow and alive (I4).

use std::time::{Duration, Instant};

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::{ConnectOptions, Engine, Pool, Val};
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_MAP, email},
    scenario::{by_email, completed, create, create_customer, new_id, register, system, wait_for},
};

struct Scene {
    first: Deployment,
    crm: AppDatabase,
    acme_token: String,
    acme: Client,
}

const SUBJECTS: u64 = 4;

async fn scene(settings: &[(&str, &str)], settle_after_s: i64) -> Scene {
    let first = Deployment::start_with(StoreKind::Postgres, settings).await;
    let crm = AppDatabase::crm(Engine::Postgres, first.folder.path(), SUBJECTS).await;
    first.secret("crm", &crm.url);
    let operator = first.operator().await;
    create_customer(&operator, "acme").await;
    let settle_after = Some(prost_types::Duration { seconds: settle_after_s, nanos: 0 });
    let about = v1::System { settle_after, ..system("acme", v1::ConnectorKind::Sql, "crm", CRM_MAP) };
    register(&operator, "crm", about).await.unwrap();
    let acme_token = first.customer_token("acme");
    let acme = first.client(&acme_token).await;
    Scene { first, crm, acme_token, acme }
}

/// Who has a task in work, as the store says it.
async fn holders(first: &Deployment) -> Vec<String> {
    let pool = Pool::open(&ConnectOptions::new(first.store_url())).unwrap();
    let mut tx = pool.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap();
    let rows = tx.fetch("SELECT leased_by FROM tasks WHERE state = 'RUNNING'", Vec::<Val>::new()).await.unwrap();
    rows.iter().map(|row| row.text(0).unwrap()).collect()
}

async fn until_held(first: &Deployment) -> String {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(holder) = holders(first).await.pop() {
            return holder;
        }
        assert!(Instant::now() < until, "nobody begins");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_drain_hands_back_what_does_not_end_and_another_replica_begins_it_at_once() {
    // A lease and a time limit that play no part.
    let settings = [("QUITTANCED_DISPATCH__LEASE_S", "180"), ("QUITTANCED_DISPATCH__DRAIN_S", "1")];
    let mut scene = scene(&settings, 0).await;
    let mut lock = scene.crm.pool.begin().await.unwrap();
    lock.execute_script("LOCK TABLE customer IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let request = create(&scene.acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    until_held(&scene.first).await;
    let drain = scene.first.terminate().await;
    assert!(drain >= Duration::from_secs(1), "it ends as soon as it may: {drain:?}");
    assert!(drain < Duration::from_secs(15), "a batch that hangs holds it up for {drain:?}");
    assert!(holders(&scene.first).await.is_empty(), "its lease still stands");

    let second = scene.first.beside(&settings).await;
    let acme = second.client(&scene.acme_token).await;
    let again = |request: &v1::Request| request.tasks[0].attempts == 2;
    let seen = wait_for(&acme, &request.name, again).await;
    assert_eq!(seen.tasks[0].state(), v1::TaskState::Running);
    lock.commit().await.unwrap();
    let done = completed(&acme, &request.name).await;
    assert_eq!((done.state(), done.tasks[0].attempts), (v1::RequestState::Completed, 2));
}

#[tokio::test]
async fn nobody_takes_the_work_of_a_replica_that_is_slow_and_alive() {
    let settings = [("QUITTANCED_DISPATCH__LEASE_S", "3"), ("QUITTANCED_DISPATCH__POLL_MS", "50")];
    // Its replicas settle for as long as a lease lives.
    let scene = scene(&settings, 3).await;
    scene
        .crm
        .pool
        .run_script(
            "CREATE TABLE changed (id INTEGER);
             CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM pg_sleep(0.1); INSERT INTO changed VALUES (OLD.id); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION slow();",
        )
        .await
        .unwrap();
    let second = scene.first.beside(&settings).await;
    let erasure = |number| v1::BatchItem {
        number,
        request_id: new_id(),
        request: Some(by_email(v1::Action::Erasure, email(number))),
    };
    let chunk = v1::BatchCreateRequestsRequest { parent: String::new(), items: (0..SUBJECTS).map(erasure).collect() };
    let begun = Instant::now();
    let acks = scene.acme.requests().batch_create_requests(tokio_stream::iter([chunk])).await.unwrap();
    let names = acks.into_inner().message().await.unwrap().unwrap().names;
    for name in &names {
        let done = completed(&scene.acme, name).await;
        assert_eq!((done.state(), done.tasks[0].attempts), (v1::RequestState::Completed, 1), "{done:#?}");
    }
    assert!(begun.elapsed() > Duration::from_secs(3), "it took no longer than a lease");
    let subjects = i64::try_from(SUBJECTS).unwrap();
    assert_eq!(scene.crm.count("SELECT count(*) FROM changed").await, subjects, "each was changed once");
    for log in [scene.first.log(), second.log()] {
        assert!(!log.contains("given up") && !log.contains("leases were lost"), "{log}");
    }
}

#[tokio::test]
async fn another_replica_takes_over_from_a_killed_one_when_its_lease_has_passed() {
    let settings = [("QUITTANCED_DISPATCH__LEASE_S", "3"), ("QUITTANCED_DISPATCH__POLL_MS", "50")];
    let mut scene = scene(&settings, 3).await;
    let mut second = scene.first.beside(&settings).await;
    let request = create(&scene.acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    // It settles for 3 seconds: whoever has it is in the midst of it.
    let holder = until_held(&scene.first).await;
    let (killed, survivor) = if holder == format!("quittanced-{}", scene.first.pid()) {
        (&mut scene.first, &second)
    } else {
        (&mut second, &scene.first)
    };
    killed.kill();
    let begun = Instant::now();
    let acme = survivor.client(&scene.acme_token).await;
    let taken_over = wait_for(&acme, &request.name, |request| request.tasks[0].attempts == 2).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "taken over after {:?}: {taken_over:#?}", begun.elapsed());
    let done = completed(&acme, &request.name).await;
    assert!(begun.elapsed() < Duration::from_secs(12), "it ends after {:?}", begun.elapsed());
    assert_eq!((done.state(), done.tasks[0].attempts), (v1::RequestState::Completed, 2));
    let outcomes = &done.tasks[0].confirmation.as_ref().unwrap().outcomes;
    assert!(outcomes.iter().all(|o| o.outcome() != v1::OutcomeKind::NotHeld), "by its match set: {outcomes:#?}");
}
