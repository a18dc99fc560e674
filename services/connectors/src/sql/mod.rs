//! Connectors for PostgreSQL, MySQL/MariaDB and SQLite.
//!
//! A data map is compiled against the live schema, once a minute at most (`plan`); every call is then a fixed number of statements for each collection,
//! whatever the batch's size. `dialect` is the only place that knows how the engines differ.

mod alone;
mod batch;
mod catalog;
mod check;
mod dialect;
mod erase;
#[cfg(test)]
mod explained;
mod export;
mod fate;
mod find;
mod held;
mod identify;
mod keepers;
mod others;
mod outcomes;
mod plan;
mod read_back;
mod rectify;
mod restrict;
mod schema;
mod seen;
mod spelling;
mod standing;
mod statements;
mod waiting;
mod walk;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use quittance_domain::{action::Action, data_map::DataMap, outcome::Outcome, system::SystemScope};
use quittance_sql::{Engine, Leash, Pool, SqlError, SqlErrorKind, Tx};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use self::{erase::Acting, plan::Plan, schema::Schema};
use crate::{
    BatchContext, Connector, ConnectorError, Exported, Finding, Found, HeldPage, HeldPlace, MatchSet, Subject,
    SubjectResult,
};

/// How long a data map that was compiled is good for: an application's migrations tell us nothing. A foreign key that takes more along, or a column that
/// compares otherwise, would go unseen; to look again is a few statements for each table.
pub const SCHEMA_AGE_MAX: Duration = Duration::from_secs(60);

/// A replica would confirm what it has not heard of yet.
const STANDBY: &str = "the connection leads to a standby, or the server is read-only";

/// One database under one version of its data map.
pub struct SqlConnector {
    pool: Pool,
    map: Arc<DataMap>,
    /// Compiled on first use. Who finds it too old compiles it anew, and others wait for that.
    compiled: Mutex<Option<Compiled>>,
    /// Something has failed since it was compiled, and that may be the schema's.
    doubted: AtomicBool,
    schema_age_max: Duration,
}

struct Compiled {
    plan: Arc<Plan>,
    /// From before the schema was read.
    since: Instant,
}

impl std::fmt::Debug for SqlConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SqlConnector({:?})", self.pool.engine())
    }
}

/// Codes and names of schema objects only (I10).
fn failure(error: SqlError) -> ConnectorError {
    match error.kind {
        SqlErrorKind::Timeout => ConnectorError::OutOfTime(error.to_string()),
        _ if error.is_transient() => ConnectorError::Unavailable(error.to_string()),
        _ => ConnectorError::Refused(error.to_string()),
    }
}

impl SqlConnector {
    /// Opens no connection yet.
    pub fn open(pool: Pool, map: DataMap) -> Self {
        let (compiled, doubted) = (Mutex::new(None), AtomicBool::new(false));
        Self { pool, map: Arc::new(map), compiled, doubted, schema_age_max: SCHEMA_AGE_MAX }
    }

    /// Has it look again at a schema that it read longer ago than that, instead of [`SCHEMA_AGE_MAX`].
    pub fn with_schema_age_max(self, schema_age_max: Duration) -> Self {
        Self { schema_age_max, ..self }
    }

    async fn plan(&self) -> Result<Arc<Plan>, ConnectorError> {
        let mut compiled = self.compiled.lock().await;
        let doubted = self.doubted.swap(false, Ordering::Relaxed);
        let fresh = |of: &Compiled| !doubted && of.since.elapsed() < self.schema_age_max;
        // Where it cannot be made anew, there is none: the old one is not gone back to.
        if let Some(of) = compiled.take().filter(fresh) {
            return Ok(Arc::clone(&compiled.insert(of).plan));
        }
        let since = Instant::now();
        let mut tx = self.pool.begin_read().await.map_err(failure)?;
        let schema = Schema::load(&mut tx, &self.map).await.map_err(failure)?;
        let plan = Arc::new(Plan::compile(&self.map, self.pool.engine(), &schema)?);
        Ok(Arc::clone(&compiled.insert(Compiled { plan, since }).plan))
    }

    /// A transaction that is over, one way or another, within the limit, on the server's side too.
    async fn begin(&self, plan: &Plan, limit: Duration) -> Result<Tx, SqlError> {
        let ms = limit.as_millis().max(1);
        match self.pool.engine() {
            Engine::Postgres => {
                let whole = if plan.version >= 170_000 {
                    format!("SET LOCAL transaction_timeout = {ms};")
                } else {
                    String::new()
                };
                let settings = format!(
                    "{whole}SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {ms}; \
                     SET LOCAL idle_in_transaction_session_timeout = {ms}; SET CONSTRAINTS ALL DEFERRED"
                );
                self.pool.begin_with_settings(&settings).await
            }
            Engine::MySql => {
                let mut tx = self.pool.begin().await?;
                let s = limit.as_secs().max(1);
                let bound = if plan.maria {
                    format!(", SESSION max_statement_time = {s}, SESSION idle_write_transaction_timeout = {s}")
                } else {
                    String::new()
                };
                // Strict: a text that does not fit is an error, not cut.
                let settings = format!(
                    "SET SESSION innodb_lock_wait_timeout = {s}, SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'){bound}"
                );
                tx.execute(&settings, Vec::new()).await?;
                Ok(tx)
            }
            Engine::Sqlite => {
                let mut tx = self.pool.begin().await?;
                tx.execute("PRAGMA defer_foreign_keys = ON", Vec::new()).await?;
                Ok(tx)
            }
        }
    }

    async fn changing(&self, limit: Duration) -> Result<(Arc<Plan>, Tx, Leash), ConnectorError> {
        let plan = self.plan().await?;
        let mut tx = self.begin(&plan, limit).await.map_err(failure)?;
        let unbounded = tx.engine() == Engine::MySql && !plan.maria;
        let leash = if unbounded { self.pool.leash(&mut tx).await.map_err(failure)? } else { Leash::default() };
        Ok((plan, tx, leash))
    }

    /// To read what is so, on the primary: what is not found is confirmed as not held, too.
    async fn reading(&self) -> Result<(Arc<Plan>, Tx), ConnectorError> {
        let plan = self.plan().await?;
        let begun = self.pool.begin_read_on_primary().await.map_err(|error| {
            if error.is_standby() { ConnectorError::Unavailable(STANDBY.to_owned()) } else { failure(error) }
        });
        Ok((plan, begun?))
    }

    /// Both within the time that there is: a system in which nothing has begun by then is not there, and another is too slow. After any other
    /// error the plan is made anew: it may be the schema's, or the database another one by now.
    async fn bounded<B, T, W: Future<Output = Result<T, ConnectorError>>>(
        &self,
        limit: Duration,
        begin: impl Future<Output = Result<B, ConnectorError>>,
        work: impl FnOnce(B) -> W,
    ) -> Result<T, ConnectorError> {
        let until = Instant::now() + limit;
        let done = match timeout_at(until, begin).await {
            Ok(Ok(begun)) => timeout_at(until, work(begun))
                .await
                .unwrap_or_else(|_| Err(ConnectorError::OutOfTime("given up".to_owned()))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ConnectorError::Unavailable("no transaction began in time".to_owned())),
        };
        if matches!(done, Err(ConnectorError::Refused(_) | ConnectorError::Unavailable(_))) {
            self.doubted.store(true, Ordering::Relaxed);
        }
        done
    }
}

/// Where customers share a table, nothing is asked without saying whose rows are meant, nor by a key that the column cannot hold: a cast would make
/// another customer's of it (I8). That it cannot is no proof that nothing is held, so a person looks.
fn confined(plan: &Plan, ctx: &BatchContext) -> Result<(), ConnectorError> {
    for (c, of) in plan.map.collections.iter().zip(&plan.collections) {
        let Some(column) = &of.customer else { continue };
        let refused = |why: String| Err(ConnectorError::Refused(format!("collection {}: {why}", c.name)));
        match &ctx.customer_key {
            None => return refused("it is shared, and the customer has no key in it".to_owned()),
            Some(key) if !column.accepts(key) => {
                let (name, kind) = (&column.name, &column.type_name);
                return refused(format!("{name} is of type {kind}, which cannot hold the customer's key"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn one_each(subjects: &[Subject], sets: &[MatchSet]) -> Result<(), ConnectorError> {
    if subjects.len() == sets.len() {
        Ok(())
    } else {
        Err(ConnectorError::Refused("as many match sets as subjects are needed".to_owned()))
    }
}

#[async_trait]
impl Connector for SqlConnector {
    async fn check(&self, scope: &SystemScope) -> Result<Vec<Finding>, ConnectorError> {
        let mut tx = self.pool.begin_read().await.map_err(failure)?;
        check::check(&self.map, scope, &mut tx).await.map_err(failure)
    }

    async fn find(
        &self,
        ctx: &BatchContext,
        subjects: &[Subject],
    ) -> Result<Vec<SubjectResult<Found>>, ConnectorError> {
        self.bounded(ctx.time_limit, self.reading(), |(plan, mut tx)| async move {
            confined(&plan, ctx)?;
            let found = find::find(&plan, ctx, subjects, &mut tx).await?;
            if ctx.action == Action::Rectification {
                return rectify::narrow(&plan, ctx, subjects, &mut tx, found).await;
            }
            Ok(found)
        })
        .await
    }

    async fn act(
        &self,
        ctx: &BatchContext,
        subjects: &[Subject],
        match_sets: &[MatchSet],
    ) -> Result<Vec<SubjectResult<()>>, ConnectorError> {
        one_each(subjects, match_sets)?;
        if ctx.action == Action::Access {
            return Ok(vec![Ok(()); subjects.len()]);
        }
        self.bounded(ctx.time_limit, self.changing(ctx.time_limit), |(plan, mut tx, leash)| async move {
            let change = async {
                confined(&plan, ctx)?;
                let mut acting = Acting { plan: &plan, ctx, subjects, sets: match_sets, tx: &mut tx };
                let done = match ctx.action {
                    Action::Erasure => acting.erase().await?,
                    Action::Rectification => rectify::act(&mut acting).await?,
                    Action::Restriction => restrict::mark(&mut acting, true).await?,
                    Action::LiftRestriction => restrict::mark(&mut acting, false).await?,
                    Action::Access => vec![Ok(()); subjects.len()],
                };
                // We may have stood still since the lease was looked at.
                if Instant::now() >= ctx.commit_before {
                    return Err(ConnectorError::Unavailable("its lease was no longer certain".to_owned()));
                }
                tx.commit().await.map_err(failure)?;
                Ok(done)
            };
            let done = change.await;
            leash.release();
            done
        })
        .await
    }

    async fn read_back(
        &self,
        ctx: &BatchContext,
        subjects: &[Subject],
        match_sets: &[MatchSet],
    ) -> Result<Vec<SubjectResult<Vec<Outcome>>>, ConnectorError> {
        one_each(subjects, match_sets)?;
        self.bounded(ctx.time_limit, self.reading(), |(plan, mut tx)| async move {
            confined(&plan, ctx)?;
            read_back::read_back(&plan, ctx, subjects, match_sets, &mut tx).await
        })
        .await
    }

    async fn export(
        &self,
        ctx: &BatchContext,
        subject: &Subject,
        match_set: &MatchSet,
        after: Option<u64>,
        records_max: usize,
    ) -> Result<SubjectResult<(Exported, Option<u64>)>, ConnectorError> {
        self.bounded(ctx.time_limit, self.reading(), |(plan, mut tx)| async move {
            confined(&plan, ctx)?;
            export::page(&plan, ctx, (subject, match_set), after.unwrap_or(0), records_max, &mut tx).await
        })
        .await
    }

    async fn held(
        &self,
        after: Option<&HeldPlace>,
        rows_max: usize,
        time_limit: Duration,
    ) -> Result<HeldPage, ConnectorError> {
        self.bounded(time_limit, self.reading(), |(plan, mut tx)| async move {
            held::page(&plan, after, rows_max, &mut tx).await
        })
        .await
    }
}
