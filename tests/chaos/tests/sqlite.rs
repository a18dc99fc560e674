//! The short form of `make chaos` on SQLite. A failing seed prints itself; `QUITTANCE_TEST_SEED` replays its schedule.

mod short;

use quittance_chaos::StoreKind;

#[tokio::test(flavor = "multi_thread")]
async fn one_server_on_sqlite_keeps_every_promise_while_everything_around_it_fails() {
    let outcome = short::run(StoreKind::Sqlite, 20).await;
    assert!(outcome.faults.len() >= 8, "many sorts of faults: {:?}", outcome.faults);
}
