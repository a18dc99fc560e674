//! Gives PostgreSQL statistics of tables that grow from nothing.
//!
//! A planner that thinks a customer has one task joins a batch the wrong way round, which is quadratic. The migration tells it to take
//! every customer for a large one (`n_distinct`), but that counts only once a table has been analysed, and autovacuum looks once a
//! minute: a bulk has put a hundred thousand rows there by then. So whoever makes the tables grow has them counted, a few times in a
//! deployment's life.

use std::sync::atomic::{AtomicU64, Ordering};

use quittance_sql::Engine;

use crate::{Store, StoreResult};

/// Fewer rows than this are planned well enough, whatever the planner thinks.
const LEAST: u64 = 500;
/// They are counted again when they have grown so many times. Each time, every connection plans its statements anew.
const FACTOR: u64 = 8;
/// Tables of this size have statistics for good: autovacuum keeps them.
const MOST: u64 = 200_000;

/// Those that batches are joined to. One that another replica is counting is left to it. A sample of 3,000 rows tells how many there are,
/// which is what plans depend on here; ten times as many (as autovacuum takes) would cost as much as taking in a thousand requests.
const ANALYZE: &str = "SET LOCAL default_statistics_target = 10; \
     ANALYZE (SKIP_LOCKED) requests, tasks, task_waits, match_sets, subject_heads, subject_lines, restrictions, ledger_batches, \
     ledger_entries";

const KNOWN: &str =
    "SELECT sum(greatest(reltuples, 0))::bigint FROM pg_class WHERE oid IN ('tasks'::regclass, 'match_sets'::regclass)";

/// Rows of tasks and match sets: what is known of them, and what this process has written since.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    known: AtomicU64,
    since: AtomicU64,
}

impl Growth {
    /// Counts, and says whether it is time; of those who made it so, one is told.
    fn is_due(&self, rows: u64) -> bool {
        let since = self.since.fetch_add(rows, Ordering::Relaxed) + rows;
        let known = self.known.load(Ordering::Relaxed);
        if known >= MOST || since < (known * (FACTOR - 1)).max(LEAST) {
            return false;
        }
        let taken = self.since.compare_exchange(since, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if taken {
            self.known.fetch_add(since, Ordering::Relaxed);
        }
        taken
    }
}

impl Store {
    pub(crate) async fn know_statistics(&self) -> StoreResult<()> {
        if self.engine() == Engine::Postgres {
            let mut tx = self.deployment_read().await?;
            let known = tx.fetch_one(KNOWN, vec![]).await?.map(|row| row.opt_i64(0)).transpose()?.flatten();
            let known = u64::try_from(known.unwrap_or(0)).unwrap_or(0);
            self.inner.growth.known.store(known, Ordering::Relaxed);
        }
        Ok(())
    }

    /// After rows were committed. What it does is for speed only: it never fails its caller.
    pub(crate) async fn grown(&self, rows: usize) {
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        if self.engine() != Engine::Postgres || !self.inner.growth.is_due(rows) {
            return;
        }
        if let Err(error) = self.inner.write.run_script(ANALYZE).await {
            tracing::info!(%error, "the tables could not be analysed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_counted_a_few_times_while_they_grow_and_never_again() {
        let growth = Growth::default();
        let told: Vec<u64> = (1..=10_000).filter(|_| growth.is_due(100)).map(|n| n * 100).collect();
        assert_eq!(told, [500, 4_000, 32_000, 256_000]);
    }

    #[test]
    fn a_store_that_is_large_already_is_left_alone() {
        let growth = Growth { known: AtomicU64::new(1_000_000), since: AtomicU64::new(0) };
        assert!(!growth.is_due(100_000_000));
    }
}
