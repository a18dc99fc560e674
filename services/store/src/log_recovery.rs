//! What the log's recovery needs: places for entries that a restored database has lost sight of, and what it lacks for good.

use std::ops::Range;

use quittance_domain::{
    Timestamp,
    ids::{CustomerId, RequestId},
};
use quittance_ledger::{integrate::TileWrite, tree::TreeHead};
use quittance_sql::{Column, Rows};
use uuid::Uuid;

use crate::{
    LogAppend, StagedBatch, Store, StoreError, StoreResult, changes,
    log::{bigint, staged_batch},
    tx::us,
};

impl Store {
    /// Batches without a place, a page at a time, in the order of their ids.
    pub async fn staged_after(&self, last: Option<&StagedBatch>, max: u32) -> StoreResult<Vec<StagedBatch>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT customer_id, batch_id, leaves FROM ledger_batches
                   WHERE first_index IS NULL AND batch_id > $1 ORDER BY batch_id LIMIT $2";
        let after = last.map_or(Uuid::nil(), |last| last.batch);
        let rows = tx.fetch(sql, vec![after.into(), i64::from(max).into()]).await?;
        rows.iter().map(staged_batch).collect()
    }

    /// Requests that are open, of all customers, and how many there are beyond `max`.
    pub async fn open_requests(&self, max: u32) -> StoreResult<(Vec<(CustomerId, RequestId)>, u64)> {
        let mut tx = self.deployment_read().await?;
        let count = tx.fetch_one("SELECT count(*) FROM requests WHERE closed_us IS NULL", vec![]).await?;
        let count = count.map_or(Ok(0), |row| row.i64(0))?;
        let sql = "SELECT customer_id, request_id FROM requests WHERE closed_us IS NULL
                   ORDER BY customer_id, request_id LIMIT $1";
        let rows = tx.fetch(sql, vec![i64::from(max).into()]).await?;
        let broken = |_| StoreError::Inconsistent { table: "requests", what: "a customer's id is not one" };
        let named: StoreResult<Vec<_>> = rows
            .iter()
            .map(|row| Ok((CustomerId::new(&row.text(0)?).map_err(broken)?, RequestId::new(row.uuid(1)?))))
            .collect();
        let named = named?;
        let beyond = u64::try_from(count).unwrap_or(0).saturating_sub(named.len() as u64);
        Ok((named, beyond))
    }

    /// When the newest entries were made that had their places at this size: the service's ids tell their time.
    pub async fn newest_entry(&self, size: u64) -> StoreResult<Option<Timestamp>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT batch_id FROM ledger_batches WHERE first_index < $1 ORDER BY first_index DESC LIMIT 1";
        let row = tx.fetch_one(sql, vec![bigint(size).into()]).await?;
        let id = row.map(|row| row.uuid(0)).transpose()?;
        let time = id.and_then(|id| id.get_timestamp()).map(|time| time.to_unix());
        Ok(time.and_then(|(s, ns)| Timestamp::new(i64::try_from(s).ok()?, i32::try_from(ns).ok()?).ok()))
    }
}

impl LogAppend {
    /// As [`Self::commit`], with places that are known already: `found` get theirs back, and of `lost` it is noted that nobody has their
    /// entries any more.
    pub async fn recover(
        mut self,
        found: &[(StagedBatch, u64)],
        lost: &[Range<u64>],
        now: Timestamp,
        head: &TreeHead,
        tiles: &[TileWrite],
    ) -> StoreResult<()> {
        self.tx
            .execute_rows(
                "WITH v(first_index, end_index) AS ({rows})
                 INSERT INTO ledger_lost (first_index, end_index, found_us)
                 SELECT first_index, end_index, $1 + 0 FROM v WHERE true",
                vec![us(now).into()],
                Rows::new(vec![
                    Column::i64s(lost.iter().map(|range| bigint(range.start))),
                    Column::i64s(lost.iter().map(|range| bigint(range.end))),
                ]),
            )
            .await?;
        changes::number_on(&mut self.tx).await?;
        self.place(found.iter().map(|(batch, first)| (batch, *first)), head, tiles).await
    }
}
