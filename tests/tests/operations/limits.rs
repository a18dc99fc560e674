//! `SystemLimits`: how many batches are at a system at once, and how many begin a second, as the system itself sees it. What the gate does by
//! a clock set by hand is tested beside it.

use std::time::{Duration, Instant};

use quittance_api::v1;
use quittance_sql::{Engine, Val};
use quittance_tests::{
    AppDatabase, StoreKind,
    app_database::{CRM_MAP, email},
    scenario::{by_email, completed},
};

use crate::scene::{SUBJECTS, Scene, erase};

/// Each batch of one subject writes down, by the database's clock, from when to when it was at work.
async fn watched(limits: v1::SystemLimits, pause_s: f64) -> (Scene, AppDatabase) {
    let s = Scene::on(StoreKind::Sqlite, &[]).await;
    let crm = AppDatabase::crm(Engine::Postgres, s.deployment.folder.path(), SUBJECTS).await;
    let script = format!(
        "CREATE TABLE batch (began bigint, ended bigint);
         CREATE FUNCTION us() RETURNS bigint LANGUAGE sql VOLATILE AS
           $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;
         CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$
           DECLARE began bigint := us();
           BEGIN PERFORM pg_sleep({pause_s}); INSERT INTO batch VALUES (began, us()); RETURN NEW; END $$;
         CREATE TRIGGER watch BEFORE UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION watch();"
    );
    crm.pool.run_script(&script).await.unwrap();
    s.register_crm(&crm, CRM_MAP, Some(limits)).await;
    (s, crm)
}

/// When each batch began and ended, in the order in which they began. The connector and its connection are there by then.
async fn batches(s: &Scene, crm: &AppDatabase) -> Vec<(i64, i64)> {
    for some in [0..1, 1..SUBJECTS] {
        crm.pool.run_script("DELETE FROM batch").await.unwrap();
        for name in erase(&s.acme, some).await {
            let done = completed(&s.acme, &name).await;
            assert_eq!(done.state(), v1::RequestState::Completed);
            assert_eq!(done.tasks[0].attempts, 1, "{done:#?}");
        }
    }
    let mut tx = crm.pool.begin_read().await.unwrap();
    let rows = tx.fetch("SELECT began, ended FROM batch ORDER BY began", Vec::<Val>::new()).await.unwrap();
    rows.iter().map(|row| (row.i64(0).unwrap(), row.i64(1).unwrap())).collect()
}

#[tokio::test]
async fn never_more_batches_are_at_a_system_at_once_than_it_takes() {
    let limits = v1::SystemLimits { concurrency: 2, batches_per_second: 0, batch_size: 1 };
    let (s, crm) = watched(limits, 0.25).await;
    let batches = batches(&s, &crm).await;
    assert_eq!(batches.len() as u64, SUBJECTS - 1);
    let at_once = |(began, _): &(i64, i64)| batches.iter().filter(|(b, e)| b <= began && began < e).count();
    let most = batches.iter().map(at_once).max().unwrap();
    assert_eq!(most, 2, "{batches:?}");
}

#[tokio::test]
async fn never_more_batches_begin_a_second_than_a_system_takes() {
    let limits = v1::SystemLimits { concurrency: 8, batches_per_second: 3, batch_size: 1 };
    let (s, crm) = watched(limits, 0.0).await;
    let batches = batches(&s, &crm).await;
    assert_eq!(batches.len() as u64, SUBJECTS - 1);
    // After a rest three at once, then one every third of a second: the nth cannot begin sooner than that, however slow the others were.
    let first = batches[0].0;
    for (n, (began, _)) in batches.iter().enumerate() {
        let earliest = (n as i64 - 2) * 1_000_000 / 3;
        // The first may have been slow on its way to the database by as much as this.
        assert!(began - first >= earliest - 500_000, "the {n}th after {} us: {batches:?}", began - first);
    }
}

/// Previews take no lease: what the system can bear, and a person's patience, hold for them all the same.
#[tokio::test]
async fn previews_keep_to_their_places_and_their_time() {
    let settings = [("QUITTANCED_LIMITS__PREVIEWS_PER_SYSTEM", "1"), ("QUITTANCED_LIMITS__PREVIEW_S", "5")];
    let s = Scene::on(StoreKind::Sqlite, &settings).await;
    let crm = AppDatabase::crm(Engine::Postgres, s.deployment.folder.path(), SUBJECTS).await;
    s.register_crm(&crm, CRM_MAP, None).await;
    let preview = async || {
        let request = Some(by_email(v1::Action::Erasure, email(3)));
        let ask = v1::PreviewRequestRequest { request, ..v1::PreviewRequestRequest::default() };
        let mut systems = s.acme.requests().preview_request(ask).await.unwrap().into_inner().systems;
        let crm = systems.remove(0);
        (crm.asked, crm.remark)
    };
    assert_eq!(preview().await, (true, String::new()));

    let mut lock = crm.pool.begin().await.unwrap();
    lock.execute_script("LOCK TABLE customer IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let begun = Instant::now();
    let second = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        preview().await
    };
    let ((first_asked, first), (second_asked, second)) = tokio::join!(preview(), second);
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert!(!first_asked && first.contains("the time for one preview was over"), "{first}");
    assert!(!second_asked && second.contains("no more previews"), "{second}");
    drop(lock);
    assert_eq!(preview().await, (true, String::new()), "the places are free again");
}
