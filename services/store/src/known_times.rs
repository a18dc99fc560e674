//! Times that speak for or against a machine's clock.

use quittance_domain::Timestamp;
use quittance_sql::Engine;

use crate::{Store, StoreResult};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KnownTimes {
    /// When the newest entry of the log was staged, by the clock of whoever did: ids of batches bear their time (RFC 9562, version 7).
    pub newest_entry: Option<Timestamp>,
    /// PostgreSQL's own clock. SQLite has this machine's.
    pub database: Option<Timestamp>,
}

impl Store {
    pub async fn known_times(&self) -> StoreResult<KnownTimes> {
        let mut tx = self.deployment_read().await?;
        let newest =
            "SELECT batch_id FROM ledger_batches WHERE first_index IS NOT NULL ORDER BY first_index DESC LIMIT 1";
        let newest = tx.fetch_one(newest, vec![]).await?.map(|row| row.uuid(0)).transpose()?;
        let staged = newest.and_then(|id| id.get_timestamp()).map(|time| time.to_unix().0);
        let database = match tx.engine() {
            Engine::Postgres => {
                let now = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";
                tx.fetch_one(now, vec![]).await?.map(|row| row.i64(0)).transpose()?
            }
            Engine::Sqlite | Engine::MySql => None,
        };
        Ok(KnownTimes {
            newest_entry: staged.and_then(|s| Timestamp::from_second(i64::try_from(s).ok()?).ok()),
            database: database.and_then(|us| Timestamp::from_microsecond(us).ok()),
        })
    }
}
