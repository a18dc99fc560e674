//! The store: one interface, SQLite and PostgreSQL behind it.
//!
//! Every function that touches a customer's rows takes the customer, which is the caller's (I8); every statement on a customer's
//! table names it, and on PostgreSQL row-level security says it again. Statements are written once for both engines; where speed or
//! safety asks for an engine's own way (`unnest` and `SKIP LOCKED` there, `json_each` and one immediate transaction here),
//! `quittance-sql` or a branch on the engine gives it.
//!
//! What is acknowledged is committed (I2). A transaction touches one customer; the exceptions are `Store::deployment_tx`'s callers.

mod agreements;
mod changes;
mod customers;
mod deadlines;
mod earlier;
mod epochs;
mod error;
mod evidence;
mod forgetting;
mod intake;
mod kept;
mod keyring;
mod known_times;
mod lease;
mod ledger;
mod lifecycle;
mod lines;
mod log;
mod log_recovery;
mod log_upkeep;
mod migrate;
mod packages;
mod rekey;
mod renames;
mod replan;
mod replays;
mod report;
mod requests;
mod retry;
mod seal;
mod statistics;
mod subject;
mod subject_keys;
mod suppression;
mod suppression_keys;
mod systems;
mod tx;
mod waits;

pub use changes::{ChangeCursor, ChangePlace};
pub use customers::{CustomerRow, NewCustomer};
pub use deadlines::{DeadlineStatement, RunningLate, ToTell};
pub use epochs::{EpochRow, EpochState};
pub use error::{StoreError, StoreResult};
pub use forgetting::{Forgetting, KeyTurn};
pub use intake::{Intake, IntakeContext, IntakeItem, Said, Taken};
pub use kept::{Kept, KeptPage};
pub use keyring::{KeyRing, MaskPseudonyms};
pub use known_times::KnownTimes;
pub use lease::{LeaseQuery, LeasedBatch, LeasedTask, ReadyWork};
pub use lifecycle::Extension;
pub use log::{IssuedCertificate, LedgerEntryRow, LogAppend, LogCheckpoint, LogState, StagedBatch};
pub use log_upkeep::{PlacedEntry, PlacedId, ScrubProgress};
pub use packages::{PackageRow, PackageSummary};
pub use replays::{
    FindingPlace, FollowUps, NewReplay, ReplayFinding, ReplayFindingKind, ReplayLease, ReplayRow, ReplayShare,
    ReplayWork,
};
pub use report::{Report, ReportResult};
pub use requests::{ChangedIdentifier, Instructed, RequestFilter, RequestRow, TaskRow, TimelinessFilter};
pub use retry::Carry;
pub use subject::SubjectSecrets;
pub use suppression::Swept;
pub use suppression_keys::SuppressionKeys;
pub use systems::Topology;
pub use tx::despite_conflicts;
pub use waits::TaskWait;

use std::{fs, path::Path, sync::Arc, time::Duration};

use quittance_sql::{ConnectOptions, Engine, Planner, Pool, SqlErrorKind};

/// Where the store is and how hard it may be worked.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// `sqlite:path` or `postgres://…`
    pub connect: ConnectOptions,
    pub key_ring: std::path::PathBuf,
}

/// A handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    write: Pool,
    read: Pool,
    ring: KeyRing,
    suppression_keys: SuppressionKeys,
    kept_of_systems: suppression::KeptOfSystems,
    growth: statistics::Growth,
    /// Held while we live: a second process on the same SQLite file is refused.
    _exclusive: Option<fs::File>,
}

impl Store {
    /// Opens the store, brings it to this build's schema, and opens the key ring.
    pub async fn open(options: &StoreOptions) -> StoreResult<Self> {
        let exclusive = match options.connect.url.strip_prefix("sqlite:") {
            Some(path) => Some(lock_exclusively(path.trim_start_matches("//"))?),
            None => None,
        };
        let mut write_options = options.connect.clone();
        write_options.planner = Planner::ByIndex;
        if exclusive.is_some() {
            // SQLite has one writer: waiting for it in our own queue is fair, waiting in SQLite's busy handler is not.
            write_options.connections_max = 1;
            write_options.create = true;
        }
        let write = Pool::open(&write_options)?;
        let read = if exclusive.is_some() { Pool::open(&options.connect)? } else { write.clone() };
        first_connection(&write, &options.key_ring).await?;
        let ring = KeyRing::open(&options.key_ring, !epochs::holds_sealed(&write).await?)?;
        let suppression_keys = suppression_keys(&write, &options.key_ring).await?;
        let store = Self {
            inner: Arc::new(Inner {
                write,
                read,
                ring,
                suppression_keys,
                kept_of_systems: Default::default(),
                growth: Default::default(),
                _exclusive: exclusive,
            }),
        };
        store.check_row_security().await?;
        store.begin_epochs().await?;
        store.know_cluster().await?;
        store.know_statistics().await?;
        Ok(store)
    }

    pub fn engine(&self) -> Engine {
        self.inner.write.engine()
    }

    pub fn ring(&self) -> &KeyRing {
        &self.inner.ring
    }

    pub async fn close(&self) {
        self.inner.write.close().await;
        self.inner.read.close().await;
    }
}

fn lock_exclusively(path: &str) -> StoreResult<fs::File> {
    if let Some(parent) = Path::new(path).parent() {
        fs::create_dir_all(parent).map_err(|e| StoreError::Startup(format!("{}: {e}", parent.display())))?;
    }
    let lock_path = format!("{path}.lock");
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
    let file = file.map_err(|e| StoreError::Startup(format!("{lock_path}: {e}")))?;
    file.try_lock().map_err(|_| {
        StoreError::Startup(format!(
            "{path} is in use by another quittanced: stop that one, or use PostgreSQL for several replicas"
        ))
    })?;
    Ok(file)
}

/// Where the ring has none, the first is of no generation that something is kept of: what is recognised by a lost key is never taken for
/// another's.
async fn suppression_keys(pool: &Pool, folder: &Path) -> StoreResult<SuppressionKeys> {
    let first = match SuppressionKeys::are_there(folder)? {
        true => None,
        false => {
            let mut tx = pool.begin_read_committed("SET LOCAL quittance.scope = 'deployment'").await?;
            let sql = "SELECT max((SELECT max(s.generation) FROM suppressions s WHERE s.customer_id = c.customer_id)) FROM customers c";
            let newest = tx.fetch_one(sql, vec![]).await?.map(|row| row.opt_i64(0)).transpose()?.flatten();
            Some(u32::try_from(newest.unwrap_or(0)).unwrap_or(u32::MAX).saturating_add(1))
        }
    };
    SuppressionKeys::open(folder, first)
}

/// A server that starts at the same time as we do gets a little while.
async fn first_connection(pool: &Pool, key_ring: &Path) -> StoreResult<()> {
    let mut tries = 0;
    loop {
        match migrate::migrate(pool, key_ring).await {
            Err(StoreError::Sql(e)) if e.kind == SqlErrorKind::Unavailable && tries < 20 => {
                if tries == 0 {
                    tracing::warn!(error = %e, "the store cannot be reached: is it running, and its URL right? trying again for a while");
                }
                tries += 1;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            // Two replicas that create the first table at once: one of them meets the other's.
            Err(e) if e.is_constraint() && tries < 3 => tries += 1,
            done => return done,
        }
    }
}
