//! Replays: a system was restored from a backup, and what was instructed there since the snapshot is carried out again
//! (docs/decisions/0006-replay.md). A replay is the deployment's; what it finds is each customer's (I8).

mod follow_ups;
mod matching;
mod record;

pub use follow_ups::FollowUps;
pub(crate) use follow_ups::Redoing;
pub use record::{FindingPlace, ReplayFinding, ReplayFindingKind, ReplayShare};

use quittance_domain::{
    Timestamp,
    ids::{CustomerId, IdempotencyId, ReplayId, SystemId},
    replay::{ReplayGuard, ReplayState},
};
use quittance_sql::{Column, Engine, Row, Rows, Tx, Val};

use crate::{
    Store, StoreError, StoreResult,
    log_upkeep::LOG_GOES_ON,
    replan::system_id,
    tx::{opt_time, parsed, time, us},
};

/// What an operator asks for.
#[derive(Clone, Debug)]
pub struct NewReplay {
    pub id: ReplayId,
    pub idempotency: IdempotencyId,
    pub system: SystemId,
    /// What the system was restored from: what was confirmed since is missing there.
    pub snapshot_at: Timestamp,
    /// Only says what would be done.
    pub dry_run: bool,
    pub guard: ReplayGuard,
    pub by: String,
}

#[derive(Clone, Debug)]
pub struct ReplayRow {
    pub id: ReplayId,
    pub system: SystemId,
    pub snapshot_at: Timestamp,
    pub dry_run: bool,
    pub guard: ReplayGuard,
    pub state: ReplayState,
    pub reason: String,
    pub asked_by: String,
    pub asked_at: Timestamp,
    /// Who approved or cancelled it.
    pub decided_by: String,
    pub keys_read: u64,
    pub keys_matched: u64,
    /// Of the worker that has it, if the lease has not passed.
    pub held_by: String,
    pub run_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub(crate) generation: u32,
}

/// A replay that somebody works on. What comes under an older epoch is refused.
#[derive(Clone, Debug)]
pub struct ReplayLease {
    pub replay: ReplayRow,
    pub epoch: i64,
}

/// Who looks for a replay to work on.
#[derive(Clone, Copy, Debug)]
pub enum ReplayWork<'a> {
    /// A worker of this process: it can ask these systems itself, and does all that comes after.
    InProcess { asks: &'a [SystemId] },
    /// A worker elsewhere, which says what its system holds.
    Remote { system: &'a SystemId },
}

const COLUMNS: &str = "replay_id, system_id, snapshot_us, dry_run, matches_max, share_percent_max, generation, state, reason, asked_by, asked_us,
    decided_by, keys_read, keys_matched, held_by, run_at_us, ended_us, epoch";
const EPOCH_AT: usize = 17;
const TABLE: &str = "replays";

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn read(row: &Row) -> StoreResult<ReplayRow> {
    Ok(ReplayRow {
        id: ReplayId::new(row.uuid(0)?),
        system: system_id(&row.text(1)?)?,
        snapshot_at: time(row.i64(2)?, TABLE)?,
        dry_run: row.i64(3)? != 0,
        guard: ReplayGuard { matches_max: count(row.i64(4)?), share_percent_max: count(row.i64(5)?) },
        generation: u32::try_from(row.i64(6)?).unwrap_or(u32::MAX),
        state: parsed(row, 7, TABLE, ReplayState::parse)?,
        reason: row.text(8)?,
        asked_by: row.text(9)?,
        asked_at: time(row.i64(10)?, TABLE)?,
        decided_by: row.text(11)?,
        keys_read: count(row.i64(12)?),
        keys_matched: count(row.i64(13)?),
        held_by: row.text(14)?,
        run_at: time(row.i64(15)?, TABLE)?,
        ended_at: opt_time(row.opt_i64(16)?, TABLE)?,
    })
}

fn lease_of(row: &Row) -> StoreResult<ReplayLease> {
    Ok(ReplayLease { replay: read(row)?, epoch: row.i64(EPOCH_AT)? })
}

async fn one(tx: &mut Tx, condition: &str, args: Vec<Val>) -> StoreResult<Option<ReplayRow>> {
    let row = tx.fetch_one(&format!("SELECT {COLUMNS} FROM replays WHERE {condition}"), args).await?;
    row.as_ref().map(read).transpose()
}

/// What the same `request_id` asked for.
async fn asked_before(tx: &mut Tx, new: &NewReplay) -> StoreResult<Option<StoreResult<ReplayRow>>> {
    let asked = one(tx, "idempotency_id = $1", vec![new.idempotency.uuid().into()]).await?;
    Ok(asked.map(|asked| {
        let same = asked.system == new.system && asked.snapshot_at == new.snapshot_at && asked.dry_run == new.dry_run;
        if same { Ok(asked) } else { Err(StoreError::RequestIdReused) }
    }))
}

impl Store {
    /// Asks for a replay, or gives the one that the same `request_id` asked for.
    pub async fn start_replay(&self, new: &NewReplay, now: Timestamp) -> StoreResult<ReplayRow> {
        self.inner.suppression_keys.reload()?;
        let known = self.inner.suppression_keys.numbers();
        if let Some(lost) = self.generations_in_use().await?.into_iter().find(|used| !known.contains(used)) {
            return Err(StoreError::WrongState(format!(
                "the key ring holds no suppression-{lost}.key, and what is kept under it could not be matched: restore it first"
            )));
        }
        let generation = known.last().copied().unwrap_or_default();
        let mut tx = self.deployment_tx().await?;
        if let Some(asked) = asked_before(&mut tx, new).await? {
            return asked;
        }
        let since = time(Self::suppressed_since(&mut tx).await?, "deployment")?;
        if new.snapshot_at < since {
            return Err(StoreError::WrongState(format!(
                "what a replay needs is kept of confirmations after {since} only, which is when this store was upgraded"
            )));
        }
        let open = one(&mut tx, "system_id = $1 AND ended_us IS NULL", vec![new.system.as_str().into()]).await?;
        if let Some(open) = open {
            // It may be this very request, which came twice at the same moment (I2).
            if let Some(asked) = asked_before(&mut tx, new).await? {
                return asked;
            }
            return Err(StoreError::WrongState(format!("replay {} of this system has not ended", open.id)));
        }
        let inserted = tx
            .fetch_one(
                &format!(
                    "INSERT INTO replays (replay_id, idempotency_id, system_id, snapshot_us, dry_run, matches_max, share_percent_max,
                       generation, state, reason, asked_by, asked_us, decided_by, keys_read, keys_matched, epoch, held_by, run_at_us,
                       ended_us, recorded)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'MATCHING', '', $9, $10, '', 0, 0, 0, '', $10, NULL, 0)
                     ON CONFLICT DO NOTHING RETURNING {COLUMNS}"
                ),
                vec![
                    new.id.uuid().into(),
                    new.idempotency.uuid().into(),
                    new.system.as_str().into(),
                    us(new.snapshot_at).into(),
                    i64::from(new.dry_run).into(),
                    number(new.guard.matches_max).into(),
                    number(new.guard.share_percent_max).into(),
                    i64::from(generation).into(),
                    new.by.as_str().into(),
                    us(now).into(),
                ],
            )
            .await?;
        let Some(inserted) = inserted else {
            let busy = "another replay of this system was asked for at the same moment";
            let asked = asked_before(&mut tx, new).await?;
            return asked.unwrap_or_else(|| Err(StoreError::WrongState(busy.to_owned())));
        };
        let asked = read(&inserted)?;
        tx.commit().await?;
        Ok(asked)
    }

    pub async fn replay(&self, system: &SystemId, id: ReplayId) -> StoreResult<ReplayRow> {
        let mut tx = self.deployment_read().await?;
        let args = vec![id.uuid().into(), system.as_str().into()];
        one(&mut tx, "replay_id = $1 AND system_id = $2", args).await?.ok_or(StoreError::NotFound("the replay"))
    }

    /// Newest first, those before `before`.
    pub async fn list_replays(
        &self,
        system: &SystemId,
        before: Option<ReplayId>,
        limit: u32,
    ) -> StoreResult<Vec<ReplayRow>> {
        let mut tx = self.deployment_read().await?;
        let mut args: Vec<Val> = vec![system.as_str().into(), limit.into()];
        let mut sql = format!("SELECT {COLUMNS} FROM replays WHERE system_id = $1");
        if let Some(before) = before {
            args.push(before.uuid().into());
            sql.push_str(" AND replay_id < $3");
        }
        sql.push_str(" ORDER BY replay_id DESC LIMIT $2");
        tx.fetch(&sql, args).await?.iter().map(read).collect()
    }

    /// A person has looked at what a guard had stopped.
    pub async fn approve_replay(
        &self,
        system: &SystemId,
        id: ReplayId,
        by: &str,
        now: Timestamp,
    ) -> StoreResult<ReplayRow> {
        let sql = "UPDATE replays SET state = 'INSTRUCTING', reason = '', decided_by = $3, run_at_us = $4
                   WHERE replay_id = $1 AND system_id = $2 AND state = 'AWAITING_APPROVAL'";
        self.decide(sql, system, id, by, now).await
    }

    /// What is instructed by now goes on; nothing more is.
    pub async fn cancel_replay(
        &self,
        system: &SystemId,
        id: ReplayId,
        by: &str,
        now: Timestamp,
    ) -> StoreResult<ReplayRow> {
        let sql = "UPDATE replays SET state = 'CANCELLED', decided_by = $3, ended_us = $4, run_at_us = $4, epoch = epoch + 1, held_by = ''
                   WHERE replay_id = $1 AND system_id = $2 AND ended_us IS NULL";
        self.decide(sql, system, id, by, now).await
    }

    async fn decide(
        &self,
        sql: &str,
        system: &SystemId,
        id: ReplayId,
        by: &str,
        now: Timestamp,
    ) -> StoreResult<ReplayRow> {
        let mut tx = self.deployment_tx().await?;
        let args = || vec![id.uuid().into(), system.as_str().into()];
        let mut decided: Vec<Val> = args();
        decided.extend([by.into(), us(now).into()]);
        let changed = tx.execute(sql, decided).await?;
        let replay = one(&mut tx, "replay_id = $1 AND system_id = $2", args()).await?;
        let replay = replay.ok_or(StoreError::NotFound("the replay"))?;
        if changed == 0 {
            return Err(StoreError::WrongState(format!("the replay is {}", replay.state)));
        }
        tx.commit().await?;
        Ok(replay)
    }

    /// Leases one that is due: to be worked on, or, ended, to be put on record.
    pub async fn lease_replay(
        &self,
        work: ReplayWork<'_>,
        worker: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> StoreResult<Option<ReplayLease>> {
        // Nearly always there is none, and who looks every second writes nothing.
        let due = format!(
            "SELECT replay_id FROM replays WHERE recorded = 0 AND state <> 'AWAITING_APPROVAL' AND run_at_us <= $1
               AND {LOG_GOES_ON} LIMIT 1"
        );
        if self.deployment_read().await?.fetch_one(&due, vec![us(now).into()]).await?.is_none() {
            return Ok(None);
        }
        self.inner.suppression_keys.reload()?;
        let mut tx = self.deployment_tx().await?;
        let skip_locked = if tx.engine() == Engine::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
        let (which, systems) = match work {
            ReplayWork::InProcess { asks } => ("state <> 'MATCHING' OR system_id IN (SELECT system_id FROM v)", asks),
            ReplayWork::Remote { system } => {
                ("state = 'MATCHING' AND system_id IN (SELECT system_id FROM v)", std::slice::from_ref(system))
            }
        };
        let sql = format!(
            "WITH v(system_id) AS ({{rows}}) UPDATE replays SET epoch = epoch + 1, held_by = $1, run_at_us = $2
             WHERE replay_id = (SELECT replay_id FROM replays WHERE recorded = 0 AND state <> 'AWAITING_APPROVAL' AND run_at_us <= $3
               AND ({which}) ORDER BY run_at_us LIMIT 1 {skip_locked})
             RETURNING {COLUMNS}"
        );
        // A batch without a row is no statement at all, and an in-process worker may know of no system that it could ask.
        let systems: Vec<&str> = systems.iter().map(SystemId::as_str).chain([""]).collect();
        let args = vec![worker.into(), us(expires_at).into(), us(now).into()];
        let leased = tx.fetch_rows(&sql, args, Rows::new(vec![Column::texts(systems)])).await?;
        let leased = leased.first().map(lease_of).transpose()?;
        tx.commit().await?;
        Ok(leased)
    }

    /// The lease that a worker elsewhere says it has.
    pub async fn replay_lease(
        &self,
        system: &SystemId,
        id: ReplayId,
        epoch: i64,
        now: Timestamp,
    ) -> StoreResult<ReplayLease> {
        self.inner.suppression_keys.reload()?;
        let mut tx = self.deployment_read().await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM replays WHERE replay_id = $1 AND system_id = $2 AND epoch = $3 AND state = 'MATCHING' AND run_at_us > $4"
        );
        let args = vec![id.uuid().into(), system.as_str().into(), epoch.into(), us(now).into()];
        let row = tx.fetch_one(&sql, args).await?;
        lease_of(&row.ok_or(StoreError::LeaseLost)?)
    }

    /// A heartbeat, with how far it has come. `false`: the lease is lost.
    pub async fn hold_replay(
        &self,
        lease: &ReplayLease,
        expires_at: Timestamp,
        keys: Option<(u64, u64)>,
    ) -> StoreResult<bool> {
        let mut tx = self.deployment_tx().await?;
        let (read, matched) = keys.map_or((None, None), |(read, matched)| (Some(number(read)), Some(number(matched))));
        let held = tx
            .execute(
                "UPDATE replays SET run_at_us = $3, keys_read = coalesce($4, keys_read), keys_matched = coalesce($5, keys_matched)
                 WHERE replay_id = $1 AND epoch = $2 AND recorded = 0",
                vec![
                    lease.replay.id.uuid().into(),
                    lease.epoch.into(),
                    us(expires_at).into(),
                    Val::I64(read),
                    Val::I64(matched),
                ],
            )
            .await?;
        tx.commit().await?;
        Ok(held == 1)
    }

    /// Goes on, or ends. `false`: the lease is lost. `due_at`: when it is looked at next.
    pub async fn move_replay(
        &self,
        lease: &ReplayLease,
        to: ReplayState,
        reason: &str,
        now: Timestamp,
        due_at: Timestamp,
    ) -> StoreResult<bool> {
        let mut tx = self.deployment_tx().await?;
        let moved = tx
            .execute(
                "UPDATE replays SET state = $3, reason = $4, ended_us = $5, run_at_us = $6
                 WHERE replay_id = $1 AND epoch = $2 AND ended_us IS NULL",
                vec![
                    lease.replay.id.uuid().into(),
                    lease.epoch.into(),
                    to.as_str().into(),
                    reason.into(),
                    Val::I64(to.is_ended().then(|| us(now))),
                    us(due_at).into(),
                ],
            )
            .await?;
        tx.commit().await?;
        Ok(moved == 1)
    }

    /// Customers that have a part in it.
    pub async fn replay_customers(&self, id: ReplayId) -> StoreResult<Vec<CustomerId>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT c.customer_id FROM customers c JOIN replay_shares s ON s.customer_id = c.customer_id
                   WHERE s.replay_id = $1 ORDER BY c.customer_id";
        let rows = tx.fetch(sql, vec![id.uuid().into()]).await?;
        rows.iter().map(crate::suppression::customer_id).collect()
    }
}
