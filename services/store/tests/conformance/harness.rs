//! A store of its own for every case, on the engine that the case is run for.

use std::{ops::Deref, path::PathBuf, sync::Mutex};

use quittance_sql::{ConnectOptions, Engine, Planner, Pool, Row, Tx, Val};
use quittance_store::{Store, StoreOptions, StoreResult};
use tempfile::TempDir;
use uuid::Uuid;

use crate::statements::{CUSTOMERS_TABLES, Statements, by_the_case};

const SERVER: &str = "QUITTANCE_TEST_POSTGRES_URL";

/// A fresh, empty store. On PostgreSQL it belongs to a role without SUPERUSER and BYPASSRLS, so that row-level security applies.
pub struct TestStore {
    store: Option<Store>,
    engine: Engine,
    url: String,
    folder: TempDir,
    worn: bool,
}

impl Deref for TestStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store.as_ref().expect("the case has the store open")
    }
}

impl TestStore {
    /// `None` where there is no server, and it was said that there need not be one.
    pub async fn fresh(engine: Engine) -> Option<Self> {
        Statements::check_all();
        let folder = tempfile::tempdir().unwrap();
        let url = match engine {
            Engine::Postgres => postgres_database().await?,
            Engine::Sqlite | Engine::MySql => format!("sqlite:{}", folder.path().join("store.db").display()),
        };
        let mut store = Self { store: None, engine, url, folder, worn: false };
        store.open("keys").await.unwrap();
        Some(store)
    }

    pub async fn end(mut self) {
        self.close().await;
        if self.is_postgres() && !self.worn {
            self.empty().await;
            // The next case has a key ring of its own.
            self.change(
                "DELETE FROM key_epochs; UPDATE deployment SET key_epoch = 0;
                 UPDATE key_rotation SET held_by = '', held_until_us = 0, asked = 0",
            )
            .await;
            FREE.lock().unwrap().push(self.url);
        }
    }

    /// The case leaves more behind than rows: another gets another database.
    pub fn wear_out(&mut self) {
        self.worn = true;
    }

    /// As it was when it was new, without the time that a new one takes.
    pub async fn empty(&self) {
        let others = ["ready", "replays", "data_maps", "systems", "customers"];
        // Tasks refer to requests.
        let tables = ["tasks"].iter().chain(CUSTOMERS_TABLES).chain(&others);
        let mut script: String = tables.map(|table| format!("DELETE FROM {table};")).collect();
        script.push_str("UPDATE deployment SET systems_generation = 1, suppressed_since_us = 0");
        self.change(&script).await;
    }

    pub fn is_postgres(&self) -> bool {
        self.engine == Engine::Postgres
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends the handle, as the end of a process does.
    pub async fn close(&mut self) {
        if let Some(store) = self.store.take() {
            store.close().await;
        }
    }

    /// A handle of its own on the same database, with the key ring in `keys`.
    pub async fn another(&self, keys: &str) -> StoreResult<Store> {
        let key_ring = self.file(keys);
        Store::open(&StoreOptions { connect: ConnectOptions::new(self.url.clone()), key_ring }).await
    }

    pub async fn open(&mut self, keys: &str) -> StoreResult<()> {
        self.store = Some(self.another(keys).await?);
        Ok(())
    }

    /// A connection beside the store's, of the same role, without its settings.
    pub fn raw_pool(&self) -> Pool {
        // What is explained there is explained as the store has it planned.
        let planner = Planner::ByIndex;
        let options = ConnectOptions { connections_max: 1, planner, ..ConnectOptions::new(self.url.clone()) };
        Pool::open(&options).unwrap()
    }

    /// A transaction that sees every customer.
    pub async fn raw(&self) -> Tx {
        self.raw_pool().begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap()
    }

    /// PostgreSQL: reads everything, past row-level security.
    pub fn superuser_pool(&self) -> Option<Pool> {
        let (own, admin) = (self.url.rsplit_once('/')?.1.to_owned(), std::env::var(SERVER).ok()?);
        let database = own.split('?').next()?;
        let (server, rest) = admin.rsplit_once('/')?;
        let query = rest.split_once('?').map_or_else(String::new, |(_, query)| format!("?{query}"));
        let url = format!("{server}/{database}{query}");
        self.is_postgres()
            .then(|| Pool::open(&ConnectOptions { connections_max: 1, ..ConnectOptions::new(url) }).unwrap())
    }

    /// PostgreSQL: how far its write-ahead log has come.
    pub async fn wal_position(&self) -> String {
        let Some(superuser) = self.superuser_pool() else { return String::new() };
        let row =
            superuser.begin().await.unwrap().fetch_one("SELECT pg_walfile_name(pg_current_wal_lsn())", vec![]).await;
        row.unwrap().unwrap().text(0).unwrap()
    }

    /// Whether any file of the write-ahead log since then holds these bytes.
    pub async fn wal_holds(&self, since: &str, needle: &[u8]) -> bool {
        let Some(superuser) = self.superuser_pool() else { return false };
        let sql = "SELECT count(*) FROM pg_ls_waldir() w
                   WHERE w.name >= $1 AND w.name <= pg_walfile_name(pg_current_wal_lsn()) AND length(w.name) = 24
                     AND position($2 IN pg_read_binary_file('pg_wal/' || w.name)) > 0";
        let row = superuser.begin().await.unwrap().fetch_one(sql, vec![since.into(), needle.into()]).await.unwrap();
        row.unwrap().i64(0).unwrap() > 0
    }

    pub async fn rows(&self, sql: &str, args: Vec<Val>) -> Vec<Row> {
        self.raw().await.fetch(&by_the_case(sql), args).await.unwrap_or_else(|e| panic!("{e}: {sql}"))
    }

    /// One number, over all customers.
    pub async fn count(&self, sql: &str) -> i64 {
        self.rows(sql, vec![]).await[0].i64(0).unwrap()
    }

    pub async fn change(&self, sql: &str) {
        let mut tx = self.raw().await;
        tx.execute_script(sql).await.unwrap_or_else(|e| panic!("{e}: {sql}"));
        tx.commit().await.unwrap();
    }

    /// Every table with its columns, by the engine's own catalogue.
    pub async fn tables(&self) -> Vec<(String, Vec<String>)> {
        let sql = if self.is_postgres() {
            "SELECT table_name::text, column_name::text FROM information_schema.columns
             WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"
        } else {
            "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, c.cid"
        };
        let mut tables: Vec<(String, Vec<String>)> = Vec::new();
        for row in self.rows(sql, vec![]).await {
            let (table, column) = (row.text(0).unwrap(), row.text(1).unwrap());
            match tables.last_mut() {
                Some((last, columns)) if *last == table => columns.push(column),
                _ => tables.push((table, vec![column])),
            }
        }
        assert!(tables.len() > 10, "the catalogue was read");
        tables
    }
}

/// Databases that a case is through with: to make and to drop one costs more than most cases do. They go with the test server.
static FREE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The URL of an empty database, for the role that owns it, which has no rights beyond it.
async fn postgres_database() -> Option<String> {
    let Ok(url) = std::env::var(SERVER) else {
        assert_eq!(
            std::env::var("QUITTANCE_TEST_WITHOUT_SERVERS").as_deref(),
            Ok("1"),
            "{SERVER} is not set: run `tests/with-servers.sh cargo test …`, or say QUITTANCE_TEST_WITHOUT_SERVERS=1"
        );
        return None;
    };
    if let Some(free) = FREE.lock().unwrap().pop() {
        return Some(free);
    }
    let admin = Pool::open(&ConnectOptions { connections_max: 1, ..ConnectOptions::new(url.clone()) }).unwrap();
    // Both a name and, on a server that asks for one, the role's password.
    let name = format!("q{}", Uuid::now_v7().simple());
    for statement in [
        format!("CREATE ROLE {name} LOGIN PASSWORD '{name}'"),
        format!("CREATE DATABASE {name} OWNER {name} ENCODING 'UTF8' TEMPLATE template0"),
        // No case cuts the power, and a hundred cases do not wait for the disk.
        format!("ALTER DATABASE {name} SET synchronous_commit = off"),
    ] {
        admin.run_script(&statement).await.unwrap();
    }
    admin.close().await;
    let host = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let (host, rest) = host.split_once('/').unwrap_or((host, ""));
    let query = rest.split_once('?').map_or_else(String::new, |(_, query)| format!("?{query}"));
    Some(format!("postgres://{name}:{name}@{host}/{name}{query}"))
}
