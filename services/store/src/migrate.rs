//! Migrations, run by the binary. A shipped one never changes; a store of a newer schema is refused.

use quittance_sql::{Engine, Pool, Val};

use crate::{StoreError, StoreResult};

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
    Migration { number: 6, name: "log upkeep", sql: include_str!("migrations/0006_log_upkeep.sql"), postgres: "" },
];

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

/// Brings the store to this build's schema. Answers whether it was empty.
pub(crate) async fn migrate(pool: &Pool) -> StoreResult<bool> {
    let mut tx = pool.begin().await?;
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
    for migration in MIGRATIONS.iter().filter(|m| m.number > version) {
        tracing::info!(number = migration.number, name = migration.name, "migrating the store");
        tx.execute_script(&for_engine(tx.engine(), migration)).await?;
        tx.execute("UPDATE schema_version SET version = $1 WHERE id = 1", vec![Val::from(migration.number)]).await?;
    }
    tx.commit().await?;
    Ok(version == 0)
}
