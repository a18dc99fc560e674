//! The log's upkeep: whether it is halted, and what a scrub reads. Deployment-wide, as the log itself.

use std::ops::Range;

use quittance_domain::{Timestamp, ids::CustomerId};
use quittance_ledger::{Leaf, SALT_BYTES};
use uuid::Uuid;

use crate::{
    Store, StoreError, StoreResult,
    ledger::BATCH_ENTRIES_MAX,
    log::{bigint, bytes32, size},
    tx::{opt_time, us},
};

/// How far the scrub is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScrubProgress {
    /// The entry that it looks at next.
    pub next: u64,
    /// When this round began; `None` before the first.
    pub begun_at: Option<Timestamp>,
}

/// An entry that has its place, with what it commits to. Of whatever customer: the log has one order.
#[derive(Clone, Debug)]
pub struct PlacedEntry {
    pub index: u64,
    pub payload: Vec<u8>,
    pub salt: [u8; SALT_BYTES],
    pub leaf: Leaf,
}

/// Which entry has a place, by ids alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacedId {
    pub place: u64,
    pub customer: CustomerId,
    /// Of an entry that is about no request: nil, or its replay's.
    pub request: Uuid,
    pub kind: String,
}

/// What every look for work asks as well: nothing begins while the log is halted.
pub(crate) const LOG_GOES_ON: &str = "NOT EXISTS (SELECT 1 FROM ledger_log WHERE id = 1 AND halted <> '')";

impl Store {
    /// Why the log is not written; `None` while it is, or before anybody has looked.
    pub async fn log_halted(&self) -> StoreResult<Option<String>> {
        let mut tx = self.deployment_read().await?;
        let row = tx.fetch_one("SELECT halted FROM ledger_log WHERE id = 1", vec![]).await?;
        let reason = row.map(|row| row.text(0)).transpose()?;
        Ok(reason.filter(|reason| !reason.is_empty()))
    }

    /// Tells every replica that the log is halted, or (with nothing) that it is written again. Only who holds it may.
    pub async fn halt_log(&self, epoch: i64, reason: Option<&str>) -> StoreResult<()> {
        let mut tx = self.deployment_tx().await?;
        let sql = "UPDATE ledger_log SET halted = $2 WHERE id = 1 AND epoch = $1 AND halted <> $2";
        tx.execute(sql, vec![epoch.into(), reason.unwrap_or_default().into()]).await?;
        Ok(tx.commit().await?)
    }

    pub async fn scrub_progress(&self) -> StoreResult<ScrubProgress> {
        let mut tx = self.deployment_read().await?;
        let row = tx.fetch_one("SELECT scrub_next, scrub_begun_us FROM ledger_log WHERE id = 1", vec![]).await?;
        let row = row.ok_or(StoreError::NotFound("the log"))?;
        let begun = Some(row.i64(1)?).filter(|us| *us != 0);
        Ok(ScrubProgress { next: size(&row, 0)?, begun_at: opt_time(begun, "ledger_log")? })
    }

    pub async fn note_scrub(&self, progress: &ScrubProgress) -> StoreResult<()> {
        let mut tx = self.deployment_tx().await?;
        let begun = progress.begun_at.map_or(0, us);
        let sql = "UPDATE ledger_log SET scrub_next = $1, scrub_begun_us = $2 WHERE id = 1";
        tx.execute(sql, vec![bigint(progress.next).into(), begun.into()]).await?;
        Ok(tx.commit().await?)
    }

    /// How many entries have no place yet.
    pub async fn staged_count(&self) -> StoreResult<u64> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT coalesce(sum(length(leaves)), 0) / 32 FROM ledger_batches WHERE first_index IS NULL";
        let row = tx.fetch_one(sql, vec![]).await?;
        row.map_or(Ok(0), |row| size(&row, 0))
    }

    /// The last place that an entry has.
    pub async fn last_place(&self) -> StoreResult<Option<u64>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT first_index + length(leaves) / 32 - 1 FROM ledger_batches WHERE first_index IS NOT NULL
                   ORDER BY first_index DESC LIMIT 1";
        tx.fetch_one(sql, vec![]).await?.map(|row| size(&row, 0)).transpose()
    }

    /// Entries with a place in this range, in the order of their places; an index with two of them twice.
    pub async fn placed_entries(&self, places: Range<u64>) -> StoreResult<Vec<PlacedEntry>> {
        let mut tx = self.deployment_read().await?;
        // One more than there are places is enough to see that there are too many.
        let limit = bigint(places.end.saturating_sub(places.start).saturating_add(1));
        // A batch may begin before the range and reach into it.
        let earliest = bigint(places.start).saturating_sub(BATCH_ENTRIES_MAX as i64);
        let sql = "SELECT b.first_index + e.batch_offset AS place, e.payload, e.salt, e.leaf FROM ledger_batches b
                   JOIN ledger_entries e ON e.customer_id = b.customer_id AND e.batch_id = b.batch_id
                   WHERE b.first_index > $4 AND b.first_index < $2
                     AND e.batch_offset >= $1 - b.first_index AND e.batch_offset < $2 - b.first_index
                   ORDER BY place LIMIT $3";
        let args = vec![bigint(places.start).into(), bigint(places.end).into(), limit.into(), earliest.into()];
        let rows = tx.fetch(sql, args).await?;
        rows.iter()
            .map(|row| {
                Ok(PlacedEntry {
                    index: size(row, 0)?,
                    payload: row.bytes(1)?,
                    salt: bytes32(row.bytes(2)?, "ledger_entries")?,
                    leaf: Leaf(bytes32(row.bytes(3)?, "ledger_entries")?),
                })
            })
            .collect()
    }

    /// As [`Self::placed_entries`], without what the entries say.
    pub async fn placed_ids(&self, places: Range<u64>) -> StoreResult<Vec<PlacedId>> {
        let mut tx = self.deployment_read().await?;
        let earliest = bigint(places.start).saturating_sub(BATCH_ENTRIES_MAX as i64);
        let sql = "SELECT b.first_index + e.batch_offset AS place, e.customer_id, e.request_id, e.kind
                   FROM ledger_batches b
                   JOIN ledger_entries e ON e.customer_id = b.customer_id AND e.batch_id = b.batch_id
                   WHERE b.first_index > $3 AND b.first_index < $2
                     AND e.batch_offset >= $1 - b.first_index AND e.batch_offset < $2 - b.first_index
                   ORDER BY place";
        let rows = tx.fetch(sql, vec![bigint(places.start).into(), bigint(places.end).into(), earliest.into()]).await?;
        let broken = |_| StoreError::Inconsistent { table: "ledger_entries", what: "a customer's id is not one" };
        rows.iter()
            .map(|row| {
                Ok(PlacedId {
                    place: size(row, 0)?,
                    customer: CustomerId::new(&row.text(1)?).map_err(broken)?,
                    request: row.uuid(2)?,
                    kind: row.text(3)?,
                })
            })
            .collect()
    }

    /// Places in this range whose entries were lost with a database, as is known since the log was recovered.
    pub async fn lost_entries(&self, places: Range<u64>) -> StoreResult<Vec<Range<u64>>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT first_index, end_index FROM ledger_lost WHERE first_index < $2 AND end_index > $1
                   ORDER BY first_index";
        let rows = tx.fetch(sql, vec![bigint(places.start).into(), bigint(places.end).into()]).await?;
        let mut lost: Vec<Range<u64>> = Vec::new();
        for row in rows {
            let range = size(&row, 0)?.max(places.start)..size(&row, 1)?.min(places.end);
            match lost.last_mut() {
                // What was noted by several transactions.
                Some(before) if before.end == range.start => before.end = range.end,
                _ => lost.push(range),
            }
        }
        Ok(lost)
    }
}
