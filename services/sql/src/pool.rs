//! Pools and transactions. Every connection, wait and statement has a limit.

use std::{
    cell::Cell,
    future::Future,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::TryStreamExt as _;
use sqlx::{
    AssertSqlSafe, Connection as _, MySql, MySqlPool, PgPool, Postgres, Sqlite, SqlitePool, Transaction,
    mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode},
    pool::PoolOptions,
    postgres::{PgConnectOptions, PgSslMode},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    Engine, Row, Rows, SqlError, SqlErrorKind, Val,
    error::{READ_ONLY_SERVER, TLS_REQUIRED, is_outdated_plan},
    params::rewrite,
    seam::{self, Ending},
};

tokio::task_local! {
    static ROUND_TRIPS: Cell<u64>;
}

/// Does a piece of work, and says how many round trips to databases it made: what they cost is counted, not guessed.
pub async fn round_trips<T>(work: impl Future<Output = T>) -> (T, u64) {
    let counted = async {
        let done = work.await;
        (done, ROUND_TRIPS.with(Cell::get))
    };
    ROUND_TRIPS.scope(Cell::new(0), counted).await
}

fn count(round_trips: u64) {
    // Outside of such work nobody counts.
    let _ = ROUND_TRIPS.try_with(|counted| counted.set(counted.get() + round_trips));
}

/// A transaction's begin and its end: one that is dropped is rolled back by a round trip, too.
const BEGIN_AND_END: u64 = 2;

/// How PostgreSQL plans what a connection asks. The other engines have nothing like it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planner {
    Auto,
    /// Each statement is planned once, for all its arguments. Right where a batch is small beside the table: a plan made for one
    /// batch's arguments would rather read a whole table than a thousand rows of it, and be made anew for each batch.
    Generic,
    /// As `Generic`, and no table is read or hashed whole where an index leads to the rows. Right for tables that grow from nothing
    /// and are only ever asked by index: a plan made while they were empty stays right, without statistics.
    ByIndex,
}

impl Planner {
    const fn settings(self) -> &'static [(&'static str, &'static str)] {
        const GENERIC: (&str, &str) = ("plan_cache_mode", "force_generic_plan");
        // A plan that may not do what it must is estimated as endless, and compiled for it.
        const PLAIN: (&str, &str) = ("jit", "off");
        match self {
            Self::Auto => &[],
            Self::Generic => &[GENERIC, PLAIN],
            Self::ByIndex => {
                &[GENERIC, PLAIN, ("enable_seqscan", "off"), ("enable_hashjoin", "off"), ("enable_mergejoin", "off")]
            }
        }
    }
}

/// How to reach a database.
#[derive(Clone)]
pub struct ConnectOptions {
    /// `postgres://…`, `mysql://…` or `sqlite:path`. TLS by the URL's own `sslmode` / `ssl-mode` and `sslrootcert` / `ssl-ca`.
    pub url: String,
    pub connections_max: u32,
    /// How long a caller waits for a connection before it is told that there is none.
    pub acquire_timeout: Duration,
    /// Bounds each statement on the server's side, so that no transaction outlives its lease. Zero: no bound.
    pub statement_timeout: Duration,
    pub planner: Planner,
    /// SQLite: make the file if it is not there.
    pub create: bool,
    /// The database is an application's. PostgreSQL: rows that a policy hides from us are an error, not absent. SQLite: the file keeps its journal's
    /// mode, and what is deleted from it is overwritten with zeros.
    pub application: bool,
    /// Refuse a connection over a network without verified TLS, unless the host is this machine. The name is verified, too: the public
    /// authorities are trusted beside the URL's own, so without it anybody's certificate would do.
    pub require_tls: bool,
}

impl ConnectOptions {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections_max: 8,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            planner: Planner::Auto,
            create: false,
            application: false,
            require_tls: true,
        }
    }
}

// The URL holds a password.
impl std::fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConnectOptions(…)")
    }
}

/// A pool of connections to one database.
#[derive(Clone, Debug)]
pub enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
    MySql(MySqlPool),
}

/// How long a connection that nobody used is taken to be there still.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

fn pool_options<DB: sqlx::Database>(o: &ConnectOptions) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(o.connections_max)
        .acquire_timeout(o.acquire_timeout)
        // Idle connections go: a hundred systems must not hold a hundred pools open for ever.
        .idle_timeout(Duration::from_secs(120))
        .test_before_acquire(false)
        // A server that was restarted has left the idle ones dead, and each would cost somebody an attempt. Those in steady use are not asked.
        .before_acquire(|connection: &mut DB::Connection, about| {
            Box::pin(async move {
                if about.idle_for >= IDLE_TRUSTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        // A connection's buffers grow with the largest batch, and idle ones would keep them.
        .after_release(|connection: &mut DB::Connection, _| {
            connection.shrink_buffers();
            Box::pin(async { Ok(true) })
        })
}

/// Device and number; `None`: there is none.
type FileId = Option<(u64, u64)>;

/// Which file a path led to, and since when.
struct SameFile {
    path: PathBuf,
    known: Mutex<Option<(FileId, Instant)>>,
}

impl SameFile {
    fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::default() }
    }

    /// Whether a connection of that time is to another file than the path leads to now.
    fn begun_before(&self, begun: Instant) -> bool {
        let now = std::fs::metadata(&self.path).ok().map(|file| (file.dev(), file.ino()));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((file, since)) if *file == now => begun < *since,
            Some(_) => {
                *known = Some((now, Instant::now()));
                true
            }
            None => {
                *known = Some((now, begun));
                false
            }
        }
    }
}

/// A name that only begins like an address of this machine may be anybody's.
fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.is_empty()
        || host == "localhost"
        || host.starts_with('/')
        || address.is_ok_and(|address| address.is_loopback())
}

/// What bounds a session of MySQL's or MariaDB's as `statement_timeout` does one of PostgreSQL's: waits for locks in both; in MariaDB statements
/// too, and a transaction that nobody goes on with; in MySQL what only reads (for what changes rows, see `leash.rs`). Each reads the other's
/// part as a comment.
fn mysql_session(statement_timeout: Duration) -> String {
    let (s, ms) = (statement_timeout.as_secs().max(1), statement_timeout.as_millis().max(1));
    format!(
        "SET SESSION innodb_lock_wait_timeout = {s}, SESSION lock_wait_timeout = {s} \
         /*!50708 , SESSION max_execution_time = {ms} */ \
         /*M!100300 , SESSION max_statement_time = {s}, SESSION idle_transaction_timeout = 60 */"
    )
}

fn insecure() -> SqlError {
    SqlError::plain(SqlErrorKind::Denied, TLS_REQUIRED)
}

impl Pool {
    /// Makes the pool; the first connection is made by the first transaction. The URL is never part of an error.
    pub fn open(o: &ConnectOptions) -> Result<Self, SqlError> {
        let bad_url = |_| SqlError::plain(SqlErrorKind::Statement, "BAD_URL");
        let timeout_ms = o.statement_timeout.as_millis().to_string();
        if o.url.starts_with("postgres://") || o.url.starts_with("postgresql://") {
            let c: PgConnectOptions = o.url.parse().map_err(bad_url)?;
            if o.require_tls && !is_local(c.get_host()) && !matches!(c.get_ssl_mode(), PgSslMode::VerifyFull) {
                return Err(insecure());
            }
            let c = c.application_name("quittance").statement_cache_capacity(256).options([
                ("statement_timeout", timeout_ms.as_str()),
                ("idle_in_transaction_session_timeout", "60000"),
            ]);
            let c = c.options(o.planner.settings().iter().copied());
            let c = if o.application { c.options([("row_security", "off")]) } else { c };
            Ok(Self::Postgres(pool_options::<Postgres>(o).connect_lazy_with(c)))
        } else if o.url.starts_with("mysql://") || o.url.starts_with("mariadb://") {
            let c: MySqlConnectOptions = o.url.replacen("mariadb://", "mysql://", 1).parse().map_err(bad_url)?;
            if o.require_tls && !is_local(c.get_host()) && !matches!(c.get_ssl_mode(), MySqlSslMode::VerifyIdentity) {
                return Err(insecure());
            }
            let c = c.charset("utf8mb4").statement_cache_capacity(256);
            let session = (!o.statement_timeout.is_zero()).then(|| mysql_session(o.statement_timeout));
            let options: MySqlPoolOptions = pool_options::<MySql>(o).after_connect(move |conn, _| {
                let session = session.clone();
                Box::pin(async move {
                    use sqlx::Executor as _;
                    if let Some(session) = session {
                        conn.execute(AssertSqlSafe(session)).await?;
                    }
                    Ok(())
                })
            });
            Ok(Self::MySql(options.connect_lazy_with(c)))
        } else if o.url.starts_with("sqlite:") {
            let c: SqliteConnectOptions = o.url.parse().map_err(bad_url)?;
            let c =
                if o.application { c.pragma("secure_delete", "ON") } else { c.journal_mode(SqliteJournalMode::Wal) };
            let c = c
                .create_if_missing(o.create)
                // FULL: an acknowledged commit survives a power cut (I2).
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(o.statement_timeout.max(Duration::from_secs(1)))
                .statement_cache_capacity(256);
            let file = Arc::new(SameFile::new(c.get_filename().to_owned()));
            let options: SqlitePoolOptions = pool_options::<Sqlite>(o).idle_timeout(None).max_lifetime(None);
            // A file that was put in the place of the one that is open is another database: what is done to the old one, nobody sees.
            let opened = file.clone();
            let options = options.after_connect(move |_, _| {
                opened.begun_before(Instant::now());
                Box::pin(async { Ok(()) })
            });
            let options = options.before_acquire(move |_, about| {
                let begun = Instant::now().checked_sub(about.age);
                let stale = begun.is_none_or(|begun| file.begun_before(begun));
                Box::pin(async move { Ok(!stale) })
            });
            // SQLite ends a transaction by itself where the disk is full. The driver's count of them then stays behind, and it would begin
            // none on this connection any more.
            let options = options.after_release(|connection, _| {
                Box::pin(async {
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            });
            Ok(Self::Sqlite(options.connect_lazy_with(c)))
        } else {
            Err(SqlError::plain(SqlErrorKind::Statement, "BAD_URL"))
        }
    }

    pub const fn engine(&self) -> Engine {
        match self {
            Self::Postgres(_) => Engine::Postgres,
            Self::Sqlite(_) => Engine::Sqlite,
            Self::MySql(_) => Engine::MySql,
        }
    }

    /// A transaction that will write. On SQLite it takes the write lock at once, so that it cannot fail half-way for it.
    pub async fn begin(&self) -> Result<Tx, SqlError> {
        self.begin_with("BEGIN", "BEGIN IMMEDIATE").await
    }

    /// A transaction that only reads, from one snapshot.
    pub async fn begin_read(&self) -> Result<Tx, SqlError> {
        self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN").await
    }

    /// As [`Pool::begin_read`], and on the primary: a standby is refused with [`SqlError::is_standby`]. PostgreSQL's refuses by itself; MySQL is asked.
    pub async fn begin_read_on_primary(&self) -> Result<Tx, SqlError> {
        let mut tx = self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE", "BEGIN").await?;
        if tx.engine() == Engine::MySql && tx.is_standby().await? {
            return Err(SqlError::plain(SqlErrorKind::Unavailable, READ_ONLY_SERVER));
        }
        Ok(tx)
    }

    /// As [`Pool::begin`], with statements of the caller's run in the same round trip on PostgreSQL.
    /// `settings` must not hold anything from outside: it is sent as it is. How far transactions are kept from one another is what the database
    /// is set to: an application may rely on all its writers being serializable.
    pub async fn begin_with_settings(&self, settings: &str) -> Result<Tx, SqlError> {
        self.begin_with(&format!("BEGIN; {settings}"), "BEGIN IMMEDIATE").await
    }

    /// As [`Pool::begin_with_settings`], and each statement sees what was committed before it, whatever the database is set to: for who looks
    /// again behind a lock.
    pub async fn begin_read_committed(&self, settings: &str) -> Result<Tx, SqlError> {
        self.begin_with(&format!("BEGIN ISOLATION LEVEL READ COMMITTED; {settings}"), "BEGIN IMMEDIATE").await
    }

    async fn begin_with(&self, postgres: &str, sqlite: &str) -> Result<Tx, SqlError> {
        count(BEGIN_AND_END);
        seam::begin().await?;
        let begun = match self {
            Self::Postgres(p) => p.begin_with(AssertSqlSafe(postgres.to_owned())).await.map(Tx::Postgres),
            Self::Sqlite(p) => p.begin_with(AssertSqlSafe(sqlite.to_owned())).await.map(Tx::Sqlite),
            Self::MySql(p) => p.begin().await.map(Tx::MySql),
        };
        // Nothing was asked yet: whatever went wrong, the server did not let us in.
        begun.map_err(|e| SqlError { kind: SqlErrorKind::Unavailable, ..SqlError::from(e) })
    }

    /// Runs a script of several statements outside a transaction, as migrations and settings need.
    pub async fn run_script(&self, script: &str) -> Result<(), SqlError> {
        count(1);
        let script = sqlx::raw_sql(AssertSqlSafe(script.to_owned()));
        match self {
            Self::Postgres(p) => script.execute(p).await.map(|_| ())?,
            Self::Sqlite(p) => script.execute(p).await.map(|_| ())?,
            Self::MySql(p) => script.execute(p).await.map(|_| ())?,
        }
        Ok(())
    }

    pub async fn close(&self) {
        match self {
            Self::Postgres(p) => p.close().await,
            Self::Sqlite(p) => p.close().await,
            Self::MySql(p) => p.close().await,
        }
    }
}

/// A transaction. Dropped without [`Tx::commit`], it is rolled back.
pub enum Tx {
    Postgres(Transaction<'static, Postgres>),
    Sqlite(Transaction<'static, Sqlite>),
    MySql(Transaction<'static, MySql>),
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tx({:?})", self.engine())
    }
}

macro_rules! bind_scalars {
    ($query:expr, $args:expr, $val:ident, $arrays:expr) => {{
        let mut query = $query;
        for $val in $args {
            query = match $val {
                Val::Text(v) => query.bind(v),
                Val::I64(v) => query.bind(v),
                Val::Bytes(v) => query.bind(v),
                Val::Uuid(v) => query.bind(v),
                other => $arrays(query, other),
            };
        }
        query
    }};
}

type PgQuery = sqlx::query::Query<'static, Postgres, sqlx::postgres::PgArguments>;

fn bind_pg(sql: String, args: Vec<Val>) -> PgQuery {
    let arrays = |query: PgQuery, val: Val| match val {
        Val::TextArray(v) => query.bind(v),
        Val::I64Array(v) => query.bind(v),
        Val::BytesArray(v) => query.bind(v),
        Val::UuidArray(v) => query.bind(v),
        Val::Text(_) | Val::I64(_) | Val::Bytes(_) | Val::Uuid(_) => query,
    };
    bind_scalars!(sqlx::query(AssertSqlSafe(sql)), args, val, arrays)
}

// An array never reaches the other engines: `Rows::bind` gives them JSON.
fn bind_sqlite(sql: String, args: Vec<Val>) -> sqlx::query::Query<'static, Sqlite, sqlx::sqlite::SqliteArguments> {
    bind_scalars!(sqlx::query(AssertSqlSafe(sql)), args, val, |query, _| query)
}

fn bind_mysql(sql: &str, args: Vec<Val>) -> sqlx::query::Query<'static, MySql, sqlx::mysql::MySqlArguments> {
    let (sql, args) = positional(sql, args);
    bind_scalars!(sqlx::query(AssertSqlSafe(sql)), args, val, |query, _| query)
}

/// A table was altered, and PostgreSQL refuses a statement that was prepared before: for ever, on this connection, unless it is prepared anew.
async fn still_fit<T>(
    t: &mut Transaction<'static, Postgres>,
    result: Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    if let Err(error) = &result
        && is_outdated_plan(error)
    {
        t.clear_cached_statements().await?;
    }
    result
}

/// MySQL knows only `?`: numbered parameters become positional ones, repeated where they are used twice.
fn positional(sql: &str, args: Vec<Val>) -> (String, Vec<Val>) {
    let mut order = Vec::new();
    let text = rewrite(sql, |text, number| {
        text.push('?');
        order.push(number);
    });
    let args = order.into_iter().filter_map(|n| args.get(n.wrapping_sub(1)).cloned()).collect();
    (text, args)
}

impl Tx {
    pub const fn engine(&self) -> Engine {
        match self {
            Self::Postgres(_) => Engine::Postgres,
            Self::Sqlite(_) => Engine::Sqlite,
            Self::MySql(_) => Engine::MySql,
        }
    }

    /// Whether the server only follows another one, for all that it says, or nothing may be written there: MySQL's replicas are known by being
    /// read-only, as is a primary that another took over from.
    pub async fn is_standby(&mut self) -> Result<bool, SqlError> {
        let sql = match self.engine() {
            Engine::Postgres => {
                "SELECT (pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on')::int::bigint"
            }
            // A word in some versions, a number in others.
            Engine::MySql => {
                "SELECT CAST(CAST(@@global.read_only AS CHAR) NOT IN ('0', 'OFF') \
                 OR CAST(@@global.innodb_read_only AS CHAR) NOT IN ('0', 'OFF') AS SIGNED)"
            }
            Engine::Sqlite => return Ok(false),
        };
        self.fetch_one(sql, Vec::new()).await?.map_or(Ok(false), |row| Ok(row.i64(0)? != 0))
    }

    /// Says what is about to be sent, to whoever listens.
    pub(crate) fn tell(sql: &str) {
        tracing::trace!(target: "quittance::sql", sql);
    }

    /// Runs one statement and gives the number of rows it changed.
    pub async fn execute(&mut self, sql: &str, args: Vec<Val>) -> Result<u64, SqlError> {
        Self::tell(sql);
        self.send(sql, args).await
    }

    pub(crate) async fn send(&mut self, sql: &str, args: Vec<Val>) -> Result<u64, SqlError> {
        count(1);
        let sql = seam::statement(sql).await?.into_owned();
        Ok(match self {
            Self::Postgres(t) => {
                let done = bind_pg(sql, args).execute(&mut **t).await;
                still_fit(t, done).await?.rows_affected()
            }
            Self::Sqlite(t) => bind_sqlite(sql, args).execute(&mut **t).await?.rows_affected(),
            Self::MySql(t) => bind_mysql(&sql, args).execute(&mut **t).await?.rows_affected(),
        })
    }

    /// Runs one statement and gives its rows. The statement bounds how many.
    pub async fn fetch(&mut self, sql: &str, args: Vec<Val>) -> Result<Vec<Row>, SqlError> {
        Self::tell(sql);
        self.send_for_rows(sql, args).await
    }

    pub(crate) async fn send_for_rows(&mut self, sql: &str, args: Vec<Val>) -> Result<Vec<Row>, SqlError> {
        count(1);
        let sql = seam::statement(sql).await?.into_owned();
        Ok(match self {
            Self::Postgres(t) => {
                let rows = bind_pg(sql, args).fetch(&mut **t).map_ok(Row::Postgres).try_collect().await;
                still_fit(t, rows).await?
            }
            Self::Sqlite(t) => bind_sqlite(sql, args).fetch(&mut **t).map_ok(Row::Sqlite).try_collect().await?,
            Self::MySql(t) => bind_mysql(&sql, args).fetch(&mut **t).map_ok(Row::MySql).try_collect().await?,
        })
    }

    /// Runs several statements without arguments, as a migration needs.
    pub async fn execute_script(&mut self, script: &str) -> Result<(), SqlError> {
        count(1);
        let script = sqlx::raw_sql(AssertSqlSafe(script.to_owned()));
        match self {
            Self::Postgres(t) => script.execute(&mut **t).await.map(|_| ())?,
            Self::Sqlite(t) => script.execute(&mut **t).await.map(|_| ())?,
            Self::MySql(t) => script.execute(&mut **t).await.map(|_| ())?,
        }
        Ok(())
    }

    pub async fn fetch_one(&mut self, sql: &str, args: Vec<Val>) -> Result<Option<Row>, SqlError> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    /// As [`Tx::execute`], with a batch in the place of `{rows}`. Of no rows, it does nothing.
    pub async fn execute_rows(&mut self, sql: &str, mut args: Vec<Val>, rows: Rows) -> Result<u64, SqlError> {
        if rows.is_empty() {
            return Ok(0);
        }
        let sql = rows.bind(self.engine(), sql, &mut args);
        self.execute(&sql, args).await
    }

    /// As [`Tx::fetch`], with a batch in the place of `{rows}`. Of no rows, it asks nothing.
    pub async fn fetch_rows(&mut self, sql: &str, mut args: Vec<Val>, rows: Rows) -> Result<Vec<Row>, SqlError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let sql = rows.bind(self.engine(), sql, &mut args);
        self.fetch(&sql, args).await
    }

    pub async fn commit(self) -> Result<(), SqlError> {
        if seam::commit().await? == Ending::Pretend {
            return self.rollback().await;
        }
        match self {
            Self::Postgres(t) => t.commit().await?,
            Self::Sqlite(t) => t.commit().await?,
            Self::MySql(t) => t.commit().await?,
        }
        seam::committed().await
    }

    pub async fn rollback(self) -> Result<(), SqlError> {
        match self {
            Self::Postgres(t) => t.rollback().await?,
            Self::Sqlite(t) => t.rollback().await?,
            Self::MySql(t) => t.rollback().await?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Column;

    #[tokio::test]
    async fn a_batch_is_one_statement_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = ConnectOptions::new(format!("sqlite:{}", dir.path().join("t.db").display()));
        options.create = true;
        let pool = Pool::open(&options).unwrap();
        let mut tx = pool.begin().await.unwrap();
        tx.execute("CREATE TABLE t (a TEXT, b INTEGER, c BLOB)", vec![]).await.unwrap();
        let rows = Rows::new(vec![
            Column::Text(vec![Some("x\"'\u{1F600}".into()), None]),
            Column::I64(vec![Some(i64::MAX), None]),
            Column::Bytes(vec![Some(vec![0, 255]), None]),
        ]);
        let done =
            tx.execute_rows("WITH v(a, b, c) AS ({rows}) INSERT INTO t SELECT a, b, c FROM v", vec![], rows).await;
        assert_eq!(done.unwrap(), 2);
        let read = tx.fetch("SELECT a, b, c FROM t WHERE b = $1", vec![Val::from(i64::MAX)]).await.unwrap();
        assert_eq!(read[0].text(0).unwrap(), "x\"'\u{1F600}");
        assert_eq!(read[0].i64(1).unwrap(), i64::MAX);
        assert_eq!(read[0].bytes(2).unwrap(), vec![0, 255]);
        tx.commit().await.unwrap();
    }

    #[test]
    fn numbered_parameters_become_positional() {
        let (sql, args) =
            positional("a = $2 AND b = $1 AND c = $2 AND p = '$[*]'", vec![Val::from("1"), Val::from("2")]);
        assert_eq!(sql, "a = ? AND b = ? AND c = ? AND p = '$[*]'");
        assert!(args == vec![Val::from("2"), Val::from("1"), Val::from("2")]);
        let (sql, args) = positional("`a$1``$2` = $1", vec![Val::from("1")]);
        assert_eq!(sql, "`a$1``$2` = ?");
        assert!(args == vec![Val::from("1")]);
    }

    #[tokio::test]
    async fn a_network_host_without_verified_tls_is_refused() {
        let refused = Pool::open(&ConnectOptions::new("postgres://u:p@db.example.com/app?sslmode=require"));
        assert_eq!(refused.unwrap_err().code, "TLS_REQUIRED");
        for half in
            ["postgres://u:p@db.example.com/app?sslmode=verify-ca", "mysql://u:p@db.example.com/app?ssl-mode=VERIFY_CA"]
        {
            assert_eq!(Pool::open(&ConnectOptions::new(half)).unwrap_err().code, "TLS_REQUIRED", "{half}");
        }
        for local in ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"] {
            assert!(Pool::open(&ConnectOptions::new(format!("postgres://u:p@{local}/app"))).is_ok(), "{local}");
        }
        for network in ["127.0.0.1.example.com", "localhost.example.com", "10.0.0.1"] {
            for scheme in ["postgres", "mysql"] {
                let refused = Pool::open(&ConnectOptions::new(format!("{scheme}://u:p@{network}/app")));
                assert_eq!(refused.unwrap_err().code, "TLS_REQUIRED", "{scheme} {network}");
            }
        }
        for verified in [
            "postgres://u:p@db.example.com/app?sslmode=verify-full",
            "mysql://u@db.example.com/app?ssl-mode=VERIFY_IDENTITY",
        ] {
            assert!(Pool::open(&ConnectOptions::new(verified)).is_ok(), "{verified}");
        }
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_ended_by_itself_is_not_the_connections_last() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("s.db").display());
        let options = ConnectOptions { create: true, connections_max: 1, ..ConnectOptions::new(url) };
        let pool = Pool::open(&options).unwrap();
        pool.run_script("CREATE TABLE a (n)").await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        tx.execute("INSERT INTO a VALUES (1)", vec![]).await.unwrap();
        // As it does itself when the disk is full.
        tx.execute_script("ROLLBACK").await.unwrap();
        drop(tx);
        let mut tx = pool.begin().await.unwrap();
        tx.execute("INSERT INTO a VALUES (2)", vec![]).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = pool.begin_read().await.unwrap();
        let rows = tx.fetch("SELECT n FROM a", vec![]).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.i64(0).unwrap()).collect::<Vec<_>>(), [2]);
    }

    #[tokio::test]
    async fn an_applications_file_keeps_its_journal_and_nothing_of_what_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let url = format!("sqlite:{}", path.display());
        let pool = Pool::open(&ConnectOptions { create: true, application: true, ..ConnectOptions::new(url) }).unwrap();
        let holds =
            |word: &str| std::fs::read(&path).unwrap().windows(word.len()).any(|bytes| bytes == word.as_bytes());
        pool.run_script("CREATE TABLE a (n); INSERT INTO a VALUES ('maraquagga'), ('neighbour')").await.unwrap();
        assert!(holds("maraquagga"));
        pool.run_script("DELETE FROM a WHERE n = 'maraquagga'").await.unwrap();
        assert!(!holds("maraquagga") && holds("neighbour"));
        let mut tx = pool.begin_read().await.unwrap();
        let mode = tx.fetch_one("SELECT journal_mode FROM pragma_journal_mode", vec![]).await.unwrap().unwrap();
        assert_eq!(mode.text(0).unwrap(), "delete");
    }

    #[tokio::test]
    async fn a_file_that_was_put_in_the_place_of_another_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["s.db", "restored.db"].map(|name| folder.path().join(name));
        let open = |path: &std::path::Path| {
            let options = ConnectOptions::new(format!("sqlite:{}", path.display()));
            Pool::open(&ConnectOptions { create: true, ..options }).unwrap()
        };
        let (pool, beside) = (open(&path), open(&other));
        pool.run_script("CREATE TABLE a (n); INSERT INTO a VALUES (1)").await.unwrap();
        beside.run_script("CREATE TABLE a (n); INSERT INTO a VALUES (2)").await.unwrap();
        beside.close().await;
        let read = async || {
            let mut tx = pool.begin_read().await?;
            let rows = tx.fetch("SELECT n FROM a", vec![]).await?;
            Ok::<_, SqlError>(rows.iter().map(|row| row.i64(0).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(read().await.unwrap(), [1]);
        assert_eq!(read().await.unwrap(), [1], "on the connection that is open");
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(folder.path().join(format!("s.db{suffix}")));
        }
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(read().await.unwrap(), [2]);
        assert_eq!(read().await.unwrap(), [2]);
    }
}
