//! The three sorts of transaction.

use quittance_domain::{Timestamp, ids::CustomerId};
use quittance_sql::{Engine, Row, Tx};

use crate::{Store, StoreError, StoreResult};

/// The second time the other one is done, mostly. Each takes PostgreSQL's `deadlock_timeout` (1 s) to be seen.
const CONFLICT_TRIES: u32 = 4;

/// What somebody decides, begun anew where its transaction was ended so that another could go on: a report locks its task, then the request,
/// then those that waited for it, and whoever decides about the whole request cannot lock all of them in that order.
pub async fn despite_conflicts<T, F: Future<Output = StoreResult<T>>>(decision: impl Fn() -> F) -> StoreResult<T> {
    again(CONFLICT_TRIES, StoreError::is_conflict, decision).await
}

/// An attempt, made so often at most as it ends in such an error.
pub(crate) async fn again<T, F: Future<Output = StoreResult<T>>>(
    tries: u32,
    is_such: impl Fn(&StoreError) -> bool,
    attempt: impl Fn() -> F,
) -> StoreResult<T> {
    for _ in 1..tries {
        match attempt().await {
            Err(error) if is_such(&error) => {}
            done => return done,
        }
    }
    attempt().await
}

impl Store {
    /// Writes, of one customer. On PostgreSQL row-level security sees the setting, and who waited for a lock sees what the other one did: so of
    /// two that end a task's last waits, the second sets it free.
    pub(crate) async fn customer_tx(&self, customer: &CustomerId) -> StoreResult<Tx> {
        // The id is a slug by its type: nothing in it needs quoting.
        let setting = format!("SET LOCAL quittance.customer_id = '{customer}'");
        Ok(self.inner.write.begin_read_committed(&setting).await?)
    }

    /// Reads, of one customer, from one snapshot where it matters.
    pub(crate) async fn customer_read(&self, customer: &CustomerId) -> StoreResult<Tx> {
        match self.engine() {
            Engine::Postgres => self.customer_tx(customer).await,
            Engine::Sqlite | Engine::MySql => Ok(self.inner.read.begin_read().await?),
        }
    }

    /// Deployment-wide tables, or what must cross customers. Named in `docs/ARCHITECTURE.md`: systems, customers, `ready`, deadlines.
    pub(crate) async fn deployment_tx(&self) -> StoreResult<Tx> {
        Ok(self.inner.write.begin_read_committed("SET LOCAL quittance.scope = 'deployment'").await?)
    }

    pub(crate) async fn deployment_read(&self) -> StoreResult<Tx> {
        match self.engine() {
            Engine::Postgres => self.deployment_tx().await,
            Engine::Sqlite | Engine::MySql => Ok(self.inner.read.begin_read().await?),
        }
    }

    /// A superuser, or a role with BYPASSRLS, walks through row-level security: said loudly, since the statements still hold.
    pub(crate) async fn check_row_security(&self) -> StoreResult<()> {
        if self.engine() != Engine::Postgres {
            return Ok(());
        }
        let mut tx = self.deployment_tx().await?;
        let role = "SELECT (rolsuper OR rolbypassrls)::int::bigint FROM pg_roles WHERE rolname = current_user";
        let bypasses = tx.fetch_one(role, vec![]).await?.map_or(Ok(0), |row| row.i64(0))?;
        if bypasses != 0 {
            tracing::warn!("the database role bypasses row-level security: use a role without SUPERUSER and BYPASSRLS");
        }
        Ok(())
    }
}

pub(crate) fn us(time: Timestamp) -> i64 {
    time.as_microsecond()
}

pub(crate) fn time(us: i64, table: &'static str) -> StoreResult<Timestamp> {
    Timestamp::from_microsecond(us).map_err(|_| StoreError::Inconsistent { table, what: "a time is out of range" })
}

pub(crate) fn opt_time(us: Option<i64>, table: &'static str) -> StoreResult<Option<Timestamp>> {
    us.map(|us| time(us, table)).transpose()
}

/// Reads a text that only our own enums write.
pub(crate) fn parsed<T>(
    row: &Row,
    at: usize,
    table: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> StoreResult<T> {
    parse(&row.text(at)?)
        .ok_or(StoreError::Inconsistent { table, what: "a state or kind that this build does not know" })
}
