//! Databases to throw away, and short words for what the tests say.

use std::time::Duration;

use quittance_connectors::{
    BatchContext, Connector, ConnectorError, Finding, FindingSeverity, MatchSet, Subject, SubjectError, SubjectResult,
    sql::SqlConnector,
};
use quittance_domain::{
    Timestamp,
    action::{Action, Correction, CorrectionTarget},
    data_map::{DataMap, MapKind},
    identifier::{Identifier, IdentifierKind},
    ids::CustomerId,
    outcome::Outcome,
};
use quittance_sql::{ConnectOptions, Engine, Pool};

/// A database of its own for one test.
pub struct Db {
    pub engine: Engine,
    pub pool: Pool,
    /// And not MySQL, which the same connector speaks with.
    pub mariadb: bool,
    admin: Option<Pool>,
    /// On its server.
    pub name: String,
    url: String,
    _dir: Option<tempfile::TempDir>,
}

/// Declares each of these `async fn(&Db)` as a test on every engine.
macro_rules! on_all_engines {
    ($($test:ident),+ $(,)?) => {
        mod postgres { $(#[tokio::test] async fn $test() { crate::harness::on(quittance_sql::Engine::Postgres, super::$test).await; })+ }
        mod mariadb { $(#[tokio::test] async fn $test() { crate::harness::on(quittance_sql::Engine::MySql, super::$test).await; })+ }
        mod sqlite { $(#[tokio::test] async fn $test() { crate::harness::on(quittance_sql::Engine::Sqlite, super::$test).await; })+ }
    };
}
pub(crate) use on_all_engines;

pub async fn on<F>(engine: Engine, test: F)
where
    F: AsyncFn(&Db),
{
    if let Some(db) = Db::make(engine).await {
        test(&db).await;
        db.drop().await;
    }
}

impl Db {
    pub async fn make(engine: Engine) -> Option<Self> {
        let locale =
            if engine == Engine::Postgres { "ENCODING 'UTF8' TEMPLATE template0" } else { "CHARACTER SET utf8mb4" };
        Self::with(engine, locale).await
    }

    /// `locale`: what a server says behind CREATE DATABASE.
    pub async fn with(engine: Engine, locale: &str) -> Option<Self> {
        let name = format!("q_{}", uuid());
        let variable = match engine {
            Engine::Postgres => "QUITTANCE_TEST_POSTGRES_URL",
            Engine::MySql => "QUITTANCE_TEST_MARIADB_URL",
            Engine::Sqlite => {
                let dir = tempfile::tempdir().unwrap();
                let mut options = ConnectOptions::new(format!("sqlite:{}", dir.path().join("t.db").display()));
                options.create = true;
                let pool = Pool::open(&options).unwrap();
                return Some(Self {
                    engine,
                    pool,
                    mariadb: false,
                    admin: None,
                    name,
                    url: options.url,
                    _dir: Some(dir),
                });
            }
        };
        let url = server(variable)?;
        let admin = open(&url);
        admin.run_script(&format!("CREATE DATABASE {name} {locale}")).await.unwrap();
        let (base, query) = url.split_once('?').map_or((url.as_str(), String::new()), |(b, q)| (b, format!("?{q}")));
        let authority = base.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let url = format!("{authority}/{name}{query}");
        let mariadb = engine == Engine::MySql && version(&admin).await.contains("MariaDB");
        Some(Self { engine, pool: open(&url), mariadb, admin: Some(admin), name, url, _dir: None })
    }

    pub async fn drop(self) {
        self.pool.close().await;
        if let Some(admin) = self.admin {
            let force = if self.engine == Engine::Postgres { " WITH (FORCE)" } else { "" };
            admin.run_script(&format!("DROP DATABASE {}{force}", self.name)).await.unwrap();
            admin.close().await;
        }
    }

    /// What keeps a UUID; MySQL has no type for it.
    pub fn uuid(&self) -> &'static str {
        if self.engine == Engine::MySql && !self.mariadb { "varchar(36)" } else { "uuid" }
    }

    /// A user of this name, who may do these things and nothing else, as the service connects. Its name is free again with [`Db::without`].
    pub async fn user(&self, name: &str, rights: &[&str]) -> Pool {
        let (made, name) = match self.engine {
            Engine::Postgres => (format!("CREATE ROLE {name} LOGIN PASSWORD 'secret'"), name.to_owned()),
            _ => (format!("CREATE USER {name} IDENTIFIED BY 'secret'"), format!("'{name}'@'%'")),
        };
        self.sql(&made).await;
        for right in rights {
            self.sql(&format!("GRANT {right} TO {name}")).await;
        }
        let user = name.trim_matches(|c| matches!(c, '\'' | '@' | '%'));
        let (scheme, host) = self.url.split_once("://").unwrap();
        let host = host.split_once('@').map_or(host, |(_, host)| host);
        let mut options = ConnectOptions::new(format!("{scheme}://{user}:secret@{host}"));
        (options.connections_max, options.application) = (2, true);
        Pool::open(&options).unwrap()
    }

    pub async fn without(&self, name: &str, pool: Pool) {
        pool.close().await;
        let owned = if self.engine == Engine::Postgres { format!("DROP OWNED BY {name}; ") } else { String::new() };
        self.sql(&format!("{owned}DROP USER {name}")).await;
    }

    /// Runs statements, written for all engines alike.
    pub async fn sql(&self, script: &str) {
        self.pool.run_script(script).await.unwrap_or_else(|e| panic!("{e}: {script}"));
    }

    /// All rows of a table (and condition), columns joined by `|`, NULL as `-`, in order.
    pub async fn dump(&self, columns: &str, from: &str) -> Vec<String> {
        let text = if self.engine == Engine::MySql { "CHAR" } else { "TEXT" };
        let columns: Vec<String> =
            columns.split(',').map(|c| format!("COALESCE(CAST({} AS {text}), '-')", c.trim())).collect();
        let mut tx = self.pool.begin_read().await.unwrap();
        let rows = tx.fetch(&format!("SELECT {} FROM {from}", columns.join(", ")), Vec::new()).await.unwrap();
        let mut found: Vec<String> = rows
            .iter()
            .map(|row| (0..columns.len()).map(|c| row.text(c).unwrap()).collect::<Vec<_>>().join("|"))
            .collect();
        found.sort();
        found
    }

    pub fn connector(&self, map: &str) -> SqlConnector {
        SqlConnector::open(self.pool.clone(), self::map(map))
    }
}

/// `None` where there is none, and it was said that there need not be one.
fn server(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok();
    if url.is_none() {
        assert_eq!(
            std::env::var("QUITTANCE_TEST_WITHOUT_SERVERS").as_deref(),
            Ok("1"),
            "{variable} is not set: name a server, or say QUITTANCE_TEST_WITHOUT_SERVERS=1"
        );
        writeln(&format!("left out: {variable} is not set"));
    }
    url
}

/// A PostgreSQL that is in recovery.
pub fn standby() -> Option<Pool> {
    server("QUITTANCE_TEST_STANDBY_URL").map(|url| open(&url))
}

fn open(url: &str) -> Pool {
    let mut options = ConnectOptions::new(url);
    options.connections_max = 2;
    Pool::open(&options).unwrap()
}

async fn version(pool: &Pool) -> String {
    let mut tx = pool.begin_read().await.unwrap();
    tx.fetch_one("SELECT version()", Vec::new()).await.unwrap().unwrap().text(0).unwrap().to_owned()
}

fn uuid() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    format!("{nanos}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

#[expect(clippy::print_stdout, reason = "who runs the suite is to see what it did not do")]
pub fn writeln(text: &str) {
    println!("{text}");
}

/// The collections of a map, without its head.
pub fn map(collections: &str) -> DataMap {
    let yaml = if collections.starts_with("version") {
        collections.to_owned()
    } else {
        format!("version: 1\ncollections:\n{collections}")
    };
    DataMap::parse(&yaml, MapKind::Sql).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

pub const NOW: &str = "2026-06-15T12:00:00Z";

pub fn ctx(action: Action) -> BatchContext {
    BatchContext {
        customer: CustomerId::new("acme").unwrap(),
        customer_key: None,
        action,
        resolving: false,
        others_restricted: false,
        now: NOW.parse::<Timestamp>().unwrap(),
        time_zone: "Europe/Amsterdam".to_owned(),
        time_limit: Duration::from_secs(30),
        commit_before: tokio::time::Instant::now() + Duration::from_secs(600),
    }
}

pub fn email(value: &str) -> (IdentifierKind, &str) {
    (IdentifierKind::Email, value)
}

pub fn user(value: &str) -> (IdentifierKind, &str) {
    (IdentifierKind::UserId, value)
}

pub fn phone(value: &str) -> (IdentifierKind, &str) {
    (IdentifierKind::Phone, value)
}

pub fn subject(identifiers: &[(IdentifierKind, &str)]) -> Subject {
    let identifiers: Vec<Identifier> =
        identifiers.iter().map(|(kind, raw)| Identifier::normalise(*kind, raw).unwrap()).collect();
    let mark = identifiers.first().map_or(0, |i| i.value().expose().bytes().map(u64::from).sum::<u64>());
    Subject {
        identifiers,
        pseudonym: format!("anon-{mark:032x}"),
        corrections: Vec::new(),
        identifier_changes: Vec::new(),
    }
}

pub fn replace(collection: &str, field: &str, old: &str, new: &str) -> Correction {
    let target = CorrectionTarget::Replace { old: old.to_owned(), new: new.to_owned() };
    Correction { collection: collection.to_owned(), field: field.to_owned(), target }
}

/// `collection.category OUTCOME count`, with basis and end where there are any.
pub fn lines(outcomes: &[Outcome]) -> Vec<String> {
    outcomes
        .iter()
        .map(|o| {
            let mut line = format!("{}.{} {} {}", o.collection, o.category, o.outcome, o.count);
            if !o.basis.is_empty() {
                line.push_str(&format!(" ({})", o.basis));
            }
            if let Some(until) = o.until {
                line.push_str(&format!(" until {until}"));
            }
            line
        })
        .collect()
}

/// Finds, or panics for the batch; match sets of subjects in error are empty.
pub async fn found(c: &SqlConnector, ctx: &BatchContext, subjects: &[Subject]) -> Vec<SubjectResult<MatchSet>> {
    c.find(ctx, subjects).await.unwrap().into_iter().map(|r| r.map(|f| f.match_set)).collect()
}

/// Finds what must be found.
pub async fn sets(c: &SqlConnector, ctx: &BatchContext, subjects: &[Subject]) -> Vec<MatchSet> {
    found(c, ctx, subjects).await.into_iter().map(Result::unwrap).collect()
}

pub type Confirmed = Vec<SubjectResult<Vec<String>>>;

pub async fn read(c: &SqlConnector, ctx: &BatchContext, subjects: &[Subject], sets: &[MatchSet]) -> Confirmed {
    c.read_back(ctx, subjects, sets).await.unwrap().into_iter().map(|r| r.map(|o| lines(&o))).collect()
}

/// What an access of one subject exports: collection, the key's first field, and whether it is marked as a third party's.
pub async fn marks(c: &SqlConnector, one: &Subject) -> Vec<(String, String, bool)> {
    let ctx = ctx(Action::Access);
    let shown = sets(c, &ctx, std::slice::from_ref(one)).await;
    let (exported, _) = c.export(&ctx, one, &shown[0], None, 100).await.unwrap().unwrap();
    exported.records.into_iter().map(|mut r| (r.collection, r.key.remove(0), r.third_party)).collect()
}

/// As [`marks`] gives them.
pub fn marked(expected: &[(&str, &str, bool)]) -> Vec<(String, String, bool)> {
    expected.iter().map(|(collection, key, marked)| ((*collection).to_owned(), (*key).to_owned(), *marked)).collect()
}

/// Find, act, read back; everything must work.
pub async fn carried_out(c: &SqlConnector, ctx: &BatchContext, subjects: &[Subject]) -> Vec<Vec<String>> {
    let sets = sets(c, ctx, subjects).await;
    for done in c.act(ctx, subjects, &sets).await.unwrap() {
        done.unwrap();
    }
    read(c, ctx, subjects, &sets).await.into_iter().map(|r| r.unwrap()).collect()
}

pub fn other(error: &SubjectError) -> &str {
    match error {
        SubjectError::Other(text) => text,
        error => panic!("{error:?}"),
    }
}

pub fn refused<T: std::fmt::Debug>(result: Result<T, ConnectorError>) -> String {
    match result {
        Err(ConnectorError::Refused(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// `E` or `W`, field, and message.
pub fn findings(found: &[Finding]) -> Vec<String> {
    let severity = |f: &Finding| if f.severity == FindingSeverity::Error { 'E' } else { 'W' };
    found.iter().map(|f| format!("{} {}: {}", severity(f), f.field, f.message)).collect()
}
