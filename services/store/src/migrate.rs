//! Migrations, run by the binary. A shipped one never changes; a store of a newer schema is refused.

use std::{path::Path, time::Duration};

use quittance_sql::{Engine, Pool, SqlErrorKind, Val};

use crate::{StoreError, StoreResult, epochs};

struct Migration {
    number: i64,
    name: &'static str,
    sql: &'static str,
    /// Run after it, on PostgreSQL only.
    postgres: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "spine",
        sql: include_str!("migrations/0001_spine.sql"),
        postgres: include_str!("migrations/0001_row_security.postgres.sql"),
    },
    Migration { number: 2, name: "rights", sql: include_str!("migrations/0002_rights.sql"), postgres: "" },
    Migration {
        number: 3,
        name: "ledger",
        sql: include_str!("migrations/0003_ledger.sql"),
        postgres: include_str!("migrations/0003_ledger.postgres.sql"),
    },
    Migration {
        number: 4,
        name: "forgetting",
        sql: include_str!("migrations/0004_forgetting.sql"),
        postgres: include_str!("migrations/0004_forgetting.postgres.sql"),
    },
    Migration {
        number: 5,
        name: "replays",
        sql: include_str!("migrations/0005_replays.sql"),
        postgres: include_str!("migrations/0005_replays.postgres.sql"),
    },
    Migration {
        number: 7,
        name: "deadline_statements",
        sql: include_str!("migrations/0007_deadline_statements.sql"),
        postgres: include_str!("migrations/0007_deadline_statements.postgres.sql"),
    },
    Migration {
        number: 8,
        name: "ledger_batches",
        sql: include_str!("migrations/0008_ledger_batches.sql"),
        postgres: include_str!("migrations/0008_ledger_batches.postgres.sql"),
    },
    Migration { number: 9, name: "log_upkeep", sql: include_str!("migrations/0009_log_upkeep.sql"), postgres: "" },
    Migration { number: 10, name: "checkpoints", sql: include_str!("migrations/0010_checkpoints.sql"), postgres: "" },
    Migration {
        number: 11,
        name: "no_task_check",
        sql: "",
        postgres: include_str!("migrations/0011_no_task_check.postgres.sql"),
    },
    Migration {
        number: 12,
        name: "subject_covers",
        sql: include_str!("migrations/0012_subject_covers.sql"),
        postgres: "",
    },
];

/// How often a migration is begun that others are in the way of: a server of the build before locks tables in its own order, and a long
/// look at them (a dump, say) is not over at once.
const MIGRATE_TRIES: u32 = 30;
/// A migration that waits for a table keeps the build before from it as well: so long, and then it makes way, for as long.
const MIGRATE_PAUSE: Duration = Duration::from_secs(2);
/// PostgreSQL's `lock_not_available`.
const LOCK_TIMEOUT: &str = "55P03";
const LOCKS_WITHIN: &str = "SET LOCAL quittance.scope = 'deployment'; SET LOCAL lock_timeout = '2s'";

/// The version that this build writes.
pub(crate) const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].number;

// Any number of starting replicas may get here at once; all but one wait on the row.
const LOCK_KEY: &str = "SELECT version FROM schema_version WHERE id = 1 FOR UPDATE";

fn for_engine(engine: Engine, migration: &Migration) -> String {
    let (bytes, uuid) = match engine {
        Engine::Postgres | Engine::MySql => ("BYTEA", "UUID"),
        Engine::Sqlite => ("BLOB", "BLOB"),
    };
    let mut sql = migration.sql.replace("{bytes}", bytes).replace("{uuid}", uuid);
    if engine == Engine::Postgres {
        // Compared byte by byte, as SQLite does: the same order on both, and no locale's rules in every index look-up.
        sql = sql.replace(" TEXT", " TEXT COLLATE \"C\"");
        sql.push_str(migration.postgres);
    }
    sql
}

/// Brings the store to this build's schema, if the key ring is of this store: who is pointed at another deployment's database by mistake must
/// not upgrade it.
pub(crate) async fn migrate(pool: &Pool, key_ring: &Path) -> StoreResult<()> {
    // One process has a SQLite store, and waits for its lock as long as it waits for anything.
    let tries = if pool.engine() == Engine::Postgres { MIGRATE_TRIES } else { 1 };
    for _ in 1..tries {
        match migrate_to(pool, SCHEMA_VERSION, key_ring).await {
            Err(StoreError::Sql(e)) if e.kind == SqlErrorKind::Conflict || e.code == LOCK_TIMEOUT => {
                tracing::info!("a migration met others at work, and is tried again");
                tokio::time::sleep(MIGRATE_PAUSE).await;
            }
            done => return done,
        }
    }
    migrate_to(pool, SCHEMA_VERSION, key_ring).await
}

async fn migrate_to(pool: &Pool, wanted: i64, key_ring: &Path) -> StoreResult<()> {
    // Row-level security would hide every customer's rows from a migration that moves them.
    let mut tx = pool.begin_read_committed(LOCKS_WITHIN).await?;
    tx.execute(
        "CREATE TABLE IF NOT EXISTS schema_version (id BIGINT PRIMARY KEY CHECK (id = 1), version BIGINT NOT NULL)",
        vec![],
    )
    .await?;
    tx.execute("INSERT INTO schema_version (id, version) VALUES (1, 0) ON CONFLICT (id) DO NOTHING", vec![]).await?;
    let lock =
        if tx.engine() == Engine::Postgres { LOCK_KEY } else { "SELECT version FROM schema_version WHERE id = 1" };
    let row = tx.fetch_one(lock, vec![]).await?;
    let row = row.ok_or(StoreError::Inconsistent { table: "schema_version", what: "it has no row" })?;
    let version = row.i64(0)?;
    if version > SCHEMA_VERSION {
        return Err(StoreError::Startup(format!(
            "the store has schema {version}, and this build knows {SCHEMA_VERSION}: start a newer build, or restore a backup"
        )));
    }
    for migration in MIGRATIONS.iter().filter(|m| m.number > version && m.number <= wanted) {
        tracing::info!(number = migration.number, name = migration.name, "migrating the store");
        tx.execute_script(&for_engine(tx.engine(), migration)).await?;
        tx.execute("UPDATE schema_version SET version = $1 WHERE id = 1", vec![Val::from(migration.number)]).await?;
    }
    if wanted == SCHEMA_VERSION {
        epochs::belongs(&mut tx, key_ring).await?;
    }
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use quittance_sql::{ConnectOptions, Row};

    use super::*;
    use crate::KeyRing;

    async fn rows(pool: &Pool, sql: &str) -> Vec<Row> {
        let mut tx = pool.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap();
        tx.fetch(sql, vec![]).await.unwrap()
    }

    /// A store of the first release that has a ledger, with one entry that has its place and one that has none.
    async fn entries_of_a_filled_store_keep_their_places(pool: &Pool) {
        migrate_to(pool, 3, Path::new("no-keys")).await.unwrap();
        let mut tx = pool.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap();
        for (entry, leaf, place) in [(1_u128, 7_u8, Val::from(5)), (2, 8, Val::I64(None))] {
            let leaf = Val::from(vec![leaf; 32]);
            tx.execute(
                "INSERT INTO ledger_entries (customer_id, entry_id, request_id, kind, payload, salt, leaf, leaf_index)
                 VALUES ('acme', $1, $1, 'instructed', $2, $2, $2, $3)",
                vec![uuid::Uuid::from_u128(entry).into(), leaf, place],
            )
            .await
            .unwrap();
        }
        tx.commit().await.unwrap();
        migrate(pool, Path::new("no-keys")).await.unwrap();
        let places = "SELECT b.first_index, b.leaves, e.leaf FROM ledger_entries e
                      JOIN ledger_batches b ON b.customer_id = e.customer_id AND b.batch_id = e.batch_id ORDER BY e.entry_id";
        let found = rows(pool, places).await;
        let places: Vec<Option<i64>> = found.iter().map(|row| row.opt_i64(0).unwrap()).collect();
        assert_eq!(places, [Some(5), None]);
        assert!(found.iter().all(|row| row.bytes(1).unwrap() == row.bytes(2).unwrap()));
    }

    /// Whoever is pointed at it by mistake leaves it as it is: its own servers must be able to start again.
    async fn another_deployments_store_is_refused_and_not_migrated(pool: &Pool) {
        let keys = tempfile::tempdir().unwrap();
        let [own, other] = ["own", "other"].map(|name| keys.path().join(name));
        let ring = KeyRing::open(&own, true).unwrap();
        KeyRing::open(&other, true).unwrap();
        let before = MIGRATIONS[MIGRATIONS.len() - 2].number;
        migrate_to(pool, before, Path::new("no-keys")).await.unwrap();
        // Its first key is long destroyed; what is in the other's ring is compared all the same.
        let mut tx = pool.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap();
        tx.execute(
            "INSERT INTO key_epochs (epoch, state, key_check, current_us, closed_us) VALUES (1, 'LOGGED', $1, 1, 1)",
            vec![Val::from(ring.all().unwrap()[0].check.clone())],
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        let version = "SELECT version FROM schema_version";
        for (folder, said) in [(&other, "another deployment's"), (&keys.path().join("none"), "holds no keys")] {
            let refused = migrate(pool, folder).await;
            assert!(matches!(&refused, Err(StoreError::KeyRing(text)) if text.contains(said)), "{refused:?}");
            assert_eq!(rows(pool, version).await[0].i64(0).unwrap(), before);
        }
        migrate(pool, &own).await.unwrap();
        assert_eq!(rows(pool, version).await[0].i64(0).unwrap(), SCHEMA_VERSION);
    }

    fn sqlite(dir: &tempfile::TempDir) -> Pool {
        let url = format!("sqlite:{}", dir.path().join("store.db").display());
        let options = ConnectOptions { create: true, connections_max: 1, ..ConnectOptions::new(url) };
        Pool::open(&options).unwrap()
    }

    async fn postgres() -> Pool {
        let url = std::env::var("QUITTANCE_TEST_POSTGRES_URL").expect("run `tests/with-servers.sh cargo test …`");
        let name = format!("m{}", uuid::Uuid::now_v7().simple());
        let admin = Pool::open(&ConnectOptions::new(url.clone())).unwrap();
        admin.run_script(&format!("CREATE ROLE {name} LOGIN")).await.unwrap();
        admin.run_script(&format!("CREATE DATABASE {name} OWNER {name}")).await.unwrap();
        let host = url.split('@').nth(1).and_then(|h| h.split('/').next()).unwrap();
        Pool::open(&ConnectOptions::new(format!("postgres://{name}@{host}/{name}"))).unwrap()
    }

    #[tokio::test]
    async fn entries_of_a_filled_store_keep_their_places_sqlite() {
        let dir = tempfile::tempdir().unwrap();
        entries_of_a_filled_store_keep_their_places(&sqlite(&dir)).await;
    }

    #[tokio::test]
    async fn entries_of_a_filled_store_keep_their_places_postgres() {
        entries_of_a_filled_store_keep_their_places(&postgres().await).await;
    }

    #[tokio::test]
    async fn another_deployments_store_is_refused_and_not_migrated_sqlite() {
        let dir = tempfile::tempdir().unwrap();
        another_deployments_store_is_refused_and_not_migrated(&sqlite(&dir)).await;
    }

    #[tokio::test]
    async fn another_deployments_store_is_refused_and_not_migrated_postgres() {
        another_deployments_store_is_refused_and_not_migrated(&postgres().await).await;
    }
}
