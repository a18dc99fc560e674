//! What came of a replay: for whoever asks, and for the log of every customer that has a part in it.

use quittance_domain::{
    Timestamp,
    action::Action,
    ids::{CustomerId, ReplayId, RequestId},
    text_enum,
};
use quittance_ledger::{Event, ReplayCounts};
use quittance_sql::{Row, Val};
use uuid::Uuid;

use super::{ReplayLease, ReplayRow, count};
use crate::{
    Store, StoreError, StoreResult,
    ledger::Staging,
    suppression::customer_id,
    tx::{parsed, us},
};

/// Shares that are given at once: those in which there is something to see.
const SHARES_MAX: i64 = 1000;

/// A customer's part.
#[derive(Clone, Debug)]
pub struct ReplayShare {
    pub customer: CustomerId,
    pub counts: ReplayCounts,
    /// Matches that wait until they can become requests.
    pub waiting: u64,
    /// Follow-up requests that are not closed.
    pub open: u64,
}

/// What a person is to look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayFindingKind {
    Rectification,
    Unreachable,
}

text_enum!(ReplayFindingKind, Rectification => "RECTIFICATION", Unreachable => "UNREACHABLE");

#[derive(Clone, Debug)]
pub struct ReplayFinding {
    pub customer: CustomerId,
    pub request: RequestId,
    pub action: Action,
    pub kind: ReplayFindingKind,
    /// The rectification changes a name of the person's: the system holds the old one.
    pub renames: bool,
}

/// Where a page of findings ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FindingPlace {
    pub customer: String,
    pub request: Uuid,
}

impl Store {
    /// The customers for whom something was found, in the order of their ids.
    pub async fn replay_shares(&self, id: ReplayId) -> StoreResult<Vec<ReplayShare>> {
        let sql = "SELECT c.customer_id, s.erasures, s.restrictions, s.liftings, s.rectifications, s.unreachable,
                     (SELECT count(*) FROM requests r WHERE r.customer_id = c.customer_id AND r.replay_id = $1),
                     (SELECT count(*) FROM replay_matches m WHERE m.customer_id = c.customer_id AND m.replay_id = $1 AND m.state = 'OPEN'),
                     (SELECT count(*) FROM requests r WHERE r.customer_id = c.customer_id AND r.replay_id = $1 AND r.closed_us IS NULL)
                   FROM customers c JOIN replay_shares s ON s.customer_id = c.customer_id
                   WHERE s.replay_id = $1 AND s.erasures + s.restrictions + s.liftings + s.rectifications + s.unreachable > 0
                   ORDER BY c.customer_id LIMIT $2";
        let mut tx = self.deployment_read().await?;
        let rows = tx.fetch(sql, vec![id.uuid().into(), SHARES_MAX.into()]).await?;
        let share = |row: &Row| {
            Ok(ReplayShare {
                customer: customer_id(row)?,
                counts: ReplayCounts { instructed: count(row.i64(6)?), ..counts(row, 1)? },
                waiting: count(row.i64(7)?),
                open: count(row.i64(8)?),
            })
        };
        rows.iter().map(share).collect()
    }

    /// Matches that are still to become requests, and follow-ups that are not closed.
    pub async fn replay_remains(&self, id: ReplayId) -> StoreResult<(u64, u64)> {
        let sql = "SELECT CAST(coalesce(sum((SELECT count(*) FROM replay_matches m
                       WHERE m.customer_id = c.customer_id AND m.replay_id = $1 AND m.state = 'OPEN')), 0) AS BIGINT),
                     CAST(coalesce(sum((SELECT count(*) FROM requests r
                       WHERE r.customer_id = c.customer_id AND r.replay_id = $1 AND r.closed_us IS NULL)), 0) AS BIGINT)
                   FROM customers c JOIN replay_shares s ON s.customer_id = c.customer_id WHERE s.replay_id = $1";
        let mut tx = self.deployment_read().await?;
        let row = tx.fetch_one(sql, vec![id.uuid().into()]).await?.ok_or(StoreError::NotFound("the replay"))?;
        Ok((count(row.i64(0)?), count(row.i64(1)?)))
    }

    /// Customers of whom something can become requests now.
    pub async fn replay_due(&self, id: ReplayId, now: Timestamp) -> StoreResult<Vec<CustomerId>> {
        let sql = "SELECT c.customer_id FROM customers c WHERE EXISTS (SELECT 1 FROM replay_matches m
                     WHERE m.customer_id = c.customer_id AND m.replay_id = $1 AND m.state = 'OPEN' AND m.run_at_us <= $2)
                   ORDER BY c.customer_id LIMIT $3";
        let mut tx = self.deployment_read().await?;
        let rows = tx.fetch(sql, vec![id.uuid().into(), us(now).into(), SHARES_MAX.into()]).await?;
        rows.iter().map(customer_id).collect()
    }

    /// Requests that a person must look at: rectifications that the customer instructs anew, and what nothing led to.
    pub async fn replay_findings(
        &self,
        replay: &ReplayRow,
        after: Option<&FindingPlace>,
        limit: u32,
    ) -> StoreResult<Vec<ReplayFinding>> {
        let beginning = FindingPlace { customer: String::new(), request: Uuid::nil() };
        let after = after.unwrap_or(&beginning);
        let sql = "SELECT c.customer_id, m.follows_request_id, m.what, r.action, CASE WHEN r.identifier_changes = '' THEN 0 ELSE 1 END
                   FROM customers c JOIN replay_matches m ON m.customer_id = c.customer_id
                   JOIN requests r ON r.customer_id = c.customer_id AND r.request_id = m.follows_request_id
                   WHERE m.replay_id = $1 AND m.what IN ('RECTIFICATION', 'UNREACHABLE')
                     AND (c.customer_id > $2 OR (c.customer_id = $2 AND m.follows_request_id > $3))
                   GROUP BY c.customer_id, m.follows_request_id, m.what, r.action, r.identifier_changes
                   ORDER BY c.customer_id, m.follows_request_id LIMIT $4";
        let args = vec![replay.id.uuid().into(), after.customer.as_str().into(), after.request.into(), limit.into()];
        let mut tx = self.deployment_read().await?;
        let rows = tx.fetch(sql, args).await?;
        let finding = |row: &Row| {
            Ok(ReplayFinding {
                customer: customer_id(row)?,
                request: RequestId::new(row.uuid(1)?),
                kind: parsed(row, 2, "replay_matches", ReplayFindingKind::parse)?,
                action: parsed(row, 3, "requests", Action::parse)?,
                renames: row.i64(4)? != 0,
            })
        };
        rows.iter().map(finding).collect()
    }

    /// It has ended: every customer that has a part in it finds that in its log, and what was matched and not used is forgotten.
    pub async fn record_replay(&self, lease: &ReplayLease, now: Timestamp) -> StoreResult<()> {
        for customer in self.replay_customers(lease.replay.id).await? {
            self.record_share(&customer, &lease.replay, now).await?;
        }
        let mut tx = self.deployment_tx().await?;
        let sql = "UPDATE replays SET recorded = 1, held_by = '' WHERE replay_id = $1 AND epoch = $2 AND ended_us IS NOT NULL";
        tx.execute(sql, vec![lease.replay.id.uuid().into(), lease.epoch.into()]).await?;
        Ok(tx.commit().await?)
    }

    async fn record_share(&self, customer: &CustomerId, replay: &ReplayRow, now: Timestamp) -> StoreResult<()> {
        let mut tx = self.customer_tx(customer).await?;
        let args = || -> Vec<Val> { vec![customer.as_str().into(), replay.id.uuid().into()] };
        let sql = "UPDATE replay_shares SET recorded = 1 WHERE customer_id = $1 AND replay_id = $2 AND recorded = 0
                   RETURNING erasures, restrictions, liftings, rectifications, unreachable,
                     (SELECT count(*) FROM requests WHERE customer_id = $1 AND replay_id = $2)";
        let Some(row) = tx.fetch_one(sql, args()).await? else { return Ok(()) };
        let counts = ReplayCounts { instructed: count(row.i64(5)?), ..counts(&row, 0)? };
        tx.execute(
            "UPDATE replay_matches SET state = 'NOTHING', sealed = NULL WHERE customer_id = $1 AND replay_id = $2 AND state = 'OPEN'",
            args(),
        )
        .await?;
        let ended_at = replay.ended_at.unwrap_or(now);
        let mut staging = Staging::new(customer);
        let event = Event::Replayed {
            system: replay.system.clone(),
            snapshot_us: us(replay.snapshot_at),
            by: replay.asked_by.clone(),
            asked_us: us(replay.asked_at),
            dry_run: replay.dry_run,
            state: replay.state,
            counts,
            at_us: us(ended_at),
        };
        staging.add(RequestId::new(replay.id.uuid()), &event);
        staging.write(&mut tx).await?;
        Ok(tx.commit().await?)
    }
}

fn counts(row: &Row, at: usize) -> StoreResult<ReplayCounts> {
    Ok(ReplayCounts {
        erasures: count(row.i64(at)?),
        restrictions: count(row.i64(at + 1)?),
        liftings: count(row.i64(at + 2)?),
        rectifications: count(row.i64(at + 3)?),
        unreachable: count(row.i64(at + 4)?),
        instructed: 0,
    })
}
