//! The short form of `make chaos` on PostgreSQL: every sort of fault once. A failing seed prints itself; `QUITTANCE_TEST_SEED` replays its
//! schedule.

mod short;

use quittance_chaos::StoreKind;

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_on_postgres_keep_every_promise_while_everything_around_them_fails() {
    let outcome = short::run(StoreKind::Postgres, 45).await;
    assert!(outcome.faults.len() >= 15, "every sort of fault: {:?}", outcome.faults);
}
