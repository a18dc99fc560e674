//! Forgetting (I7): an epoch is closed, everything under it is either forgotten or re-wrapped under the next one, its key is destroyed, and
//! only then is that on record. `docs/decisions/0005-forgetting.md` says why in this order.
//!
//! A turn is one bounded step, and each can be repeated: whoever dies anywhere is followed by a replica that reads how far the epochs have
//! come. The lease spares double work and nothing depends on it; every write looks at the state that it changes.

use std::{collections::BTreeSet, time::Duration};

use quittance_domain::{
    Timestamp,
    ids::{CustomerId, RequestId},
};
use quittance_ledger::Event;
use quittance_sql::{Column, Engine, Rows, Tx, Val};
use uuid::Uuid;

use crate::{
    EpochRow, EpochState, Store, StoreError, StoreResult, agreements, changes,
    epochs::hold_epoch,
    ledger::Staging,
    lines::forget_places,
    rekey::{has_names, names_args},
    replan::system_id,
    report::release_free,
    seal::{KeyOf, WrappedKey},
    subject_keys::NamesOf,
    tx::{opt_time, us},
};

/// Requests of one transaction.
const BATCH: usize = 500;
/// Records of access packages that one transaction deletes.
const RECORDS_MAX: u64 = 20_000;
/// How long a replica that dies keeps others waiting.
const LEASE: Duration = Duration::from_secs(30);
/// A task whose lease passed less long ago may still be written by a worker whose clock is slow, or whose statement is on its way.
const LEASE_MARGIN: Duration = Duration::from_secs(300);
/// How long replicas that share a server are given before a step that they must not be surprised by: to use what they had just read when the
/// last key was re-wrapped, and to drop a key from memory. They look more often than that, or drop all keys (`Store::refresh_keys`).
const SETTLE: Duration = Duration::from_secs(10);

/// What a turn did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyTurn {
    /// Nothing is to be done until the next epoch is due.
    Idle,
    /// Another replica does it.
    Elsewhere,
    /// Something is on its way that is waited for: look again in a moment.
    Waits,
    /// So many requests under an old epoch do not open with its key, and are not over: it is not destroyed before a person has looked.
    Stuck { epoch: u32, requests: u64 },
    /// This epoch is the current one now.
    Begun(u32),
    /// So many of a customer's subjects are told by the current epoch's key now.
    Covered { epoch: u32, subjects: u64 },
    /// A batch of a customer's requests.
    TurnedOver { epoch: u32, forgotten: u64, rewrapped: u64 },
    /// It is proven that nothing is under it any more.
    Rewrapped(u32),
    /// Its key is gone.
    Destroyed(u32),
    /// Its destruction is on record for one more customer.
    Recorded(u32),
    /// It is on record for all.
    Logged(u32),
}

impl KeyTurn {
    /// Whether the next turn has something to do at once.
    pub const fn goes_on(&self) -> bool {
        !matches!(self, Self::Idle | Self::Elsewhere | Self::Waits | Self::Stuck { .. })
    }
}

/// Turns epochs over, whenever the last one began so long ago.
pub struct Forgetting {
    store: Store,
    holder: String,
    every: Duration,
    /// Where the walk over an epoch's requests stands.
    walk: Option<Walk>,
}

/// What keys are wrapped for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Requests,
    KeptRows,
}

impl Table {
    const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::KeptRows => "kept_rows",
        }
    }
}

struct Walk {
    epoch: u32,
    table: Table,
    customer: String,
    request: Uuid,
    unopenable: u64,
}

impl Walk {
    fn begin(epoch: u32) -> Self {
        Self { epoch, table: Table::Requests, customer: String::new(), request: Uuid::nil(), unopenable: 0 }
    }
}

#[derive(Default)]
struct Batch {
    records: u64,
    forgotten: u64,
    rewrapped: u64,
    /// Of what is kept of requests.
    kept: u64,
    unopenable: u64,
    /// Where the next one begins; `None`: the customer has no more.
    next: Option<Uuid>,
}

impl Batch {
    const fn did_something(&self) -> bool {
        self.records + self.forgotten + self.rewrapped + self.kept > 0
    }
}

impl Forgetting {
    /// `holder`: another name at every start.
    pub fn new(store: Store, holder: String, every: Duration) -> Self {
        Self { store, holder, every, walk: None }
    }

    /// One step, of whatever is to be done first.
    pub async fn turn(&mut self, now: Timestamp) -> StoreResult<KeyTurn> {
        let epochs = self.store.key_epochs().await?;
        let unfinished =
            || epochs.iter().rev().filter(|e| !matches!(e.state, EpochState::Current | EpochState::Logged));
        let current = epochs.iter().find(|e| e.state == EpochState::Current);
        let current = current.ok_or(StoreError::NotFound("the current epoch"))?;
        let due = self.is_due(current, now).await?;
        if !due && unfinished().next().is_none() {
            return Ok(KeyTurn::Idle);
        }
        // A database that was restored by mistake is halted, too: the backup that is restored instead needs the keys.
        if self.store.log_halted().await?.is_some() {
            return Ok(KeyTurn::Waits);
        }
        let until = now.checked_add(LEASE).unwrap_or(Timestamp::MAX);
        if !self.store.hold_rotation(&self.holder, now, until).await? {
            return Ok(KeyTurn::Elsewhere);
        }
        let mut held_up = KeyTurn::Idle;
        for epoch in unfinished() {
            let turn = match epoch.state {
                EpochState::Closed => self.turn_over(epoch, current, now).await?,
                EpochState::Rewrapped => self.store.destroy_epoch(epoch, now).await?,
                EpochState::Destroyed => self.store.record_destruction(epoch, now).await?,
                EpochState::Current | EpochState::Logged => KeyTurn::Idle,
            };
            if turn.goes_on() {
                return Ok(turn);
            }
            // One that is stuck holds up neither those after it nor the next rotation.
            held_up = turn;
        }
        if due {
            let begun = self.store.begin_epoch(current, now).await?;
            return Ok(if begun { KeyTurn::Begun(current.number + 1) } else { KeyTurn::Waits });
        }
        Ok(held_up)
    }

    /// Gives the work back, so that another replica need not wait for the lease to pass.
    pub async fn release(&self) -> StoreResult<()> {
        let mut tx = self.store.deployment_tx().await?;
        let sql = "UPDATE key_rotation SET held_until_us = 0 WHERE id = 1 AND held_by = $1";
        tx.execute(sql, vec![self.holder.as_str().into()]).await?;
        Ok(tx.commit().await?)
    }

    async fn is_due(&self, current: &EpochRow, now: Timestamp) -> StoreResult<bool> {
        let Some(since) = current.current_at else {
            // It was there before there was a clock to date it with.
            let mut tx = self.store.deployment_tx().await?;
            let sql = "UPDATE key_epochs SET current_us = $2 WHERE epoch = $1 AND state = 'CURRENT' AND current_us = 0";
            tx.execute(sql, vec![current.number.into(), us(now).into()]).await?;
            tx.commit().await?;
            return self.store.rotation_is_asked().await;
        };
        let over = since.checked_add(self.every).is_ok_and(|due| due <= now);
        Ok(over || self.store.rotation_is_asked().await?)
    }

    async fn turn_over(&mut self, epoch: &EpochRow, current: &EpochRow, now: Timestamp) -> StoreResult<KeyTurn> {
        let mut walk =
            self.walk.take().filter(|w| w.epoch == epoch.number).unwrap_or_else(|| Walk::begin(epoch.number));
        loop {
            let next = self.store.customer_under(walk.table, epoch.number, &walk.customer, walk.request).await?;
            let Some(customer) = next else {
                if walk.table == Table::KeptRows {
                    break;
                }
                walk = Walk { table: Table::KeptRows, unopenable: walk.unopenable, ..Walk::begin(epoch.number) };
                continue;
            };
            if customer.as_str() != walk.customer {
                (walk.customer, walk.request) = (customer.as_str().to_owned(), Uuid::nil());
            }
            let epochs = (epoch.number, current.number);
            let batch = match walk.table {
                Table::Requests => self.store.turn_over_batch(&customer, epochs, walk.request, now).await?,
                Table::KeptRows => self.store.rewrap_kept(&customer, epochs, walk.request).await?,
            };
            walk.unopenable += batch.unopenable;
            // Behind the last one there is no more of this customer's.
            walk.request = batch.next.unwrap_or(Uuid::max());
            if batch.did_something() {
                self.walk = Some(walk);
                let Batch { forgotten, rewrapped, .. } = batch;
                return Ok(KeyTurn::TurnedOver { epoch: epoch.number, forgotten, rewrapped });
            }
        }
        let shares = self.store.turn_over_shares(epoch.number, current.number).await?;
        walk.unopenable += shares.unopenable;
        if shares.rewrapped > 0 {
            return Ok(KeyTurn::TurnedOver { epoch: epoch.number, forgotten: 0, rewrapped: shares.rewrapped });
        }
        let subjects = self.store.cover_subjects(epoch, current).await?;
        if subjects > 0 {
            self.walk = Some(walk);
            return Ok(KeyTurn::Covered { epoch: epoch.number, subjects });
        }
        if self.store.close_rewrapped(epoch, current, now).await? {
            self.store.tell_lost_restrictions(epoch).await?;
            return Ok(KeyTurn::Rewrapped(epoch.number));
        }
        // Locked by others while we passed, or not to be opened: the next walk begins anew.
        if walk.unopenable > 0 {
            self.store.tell_lost_restrictions(epoch).await?;
        }
        let (epoch, requests) = (epoch.number, walk.unopenable);
        Ok(if requests > 0 { KeyTurn::Stuck { epoch, requests } } else { KeyTurn::Waits })
    }
}

/// A customer that has something under the epoch `$1`, of which subjects have the names that `$2` to `$4` say ([`names_args`]).
fn under() -> String {
    format!(
        "SELECT c.customer_id FROM customers c WHERE EXISTS (SELECT 1 FROM requests r
           WHERE r.customer_id = c.customer_id AND r.key_epoch = CAST($1 AS TEXT) AND r.key_epoch <> '')
         OR EXISTS (SELECT 1 FROM kept_rows k WHERE k.customer_id = c.customer_id AND k.key_epoch = CAST($1 AS TEXT))
         OR EXISTS (SELECT 1 FROM replay_shares s WHERE s.customer_id = c.customer_id AND s.key_epoch = CAST($1 AS TEXT))
         OR {}",
        has_names()
    )
}

fn under_args(epoch: &EpochRow, names: Option<&NamesOf>) -> Vec<Val> {
    let [length, from, before] = names_args(names);
    vec![epoch.number.into(), length, from, before]
}

impl Store {
    async fn rotation_is_asked(&self) -> StoreResult<bool> {
        let mut tx = self.deployment_read().await?;
        let row = tx.fetch_one("SELECT asked FROM key_rotation WHERE id = 1", vec![]).await?;
        Ok(row.ok_or(StoreError::NotFound("the rotation"))?.i64(0)? == 1)
    }

    async fn hold_rotation(&self, holder: &str, now: Timestamp, until: Timestamp) -> StoreResult<bool> {
        let mut tx = self.deployment_tx().await?;
        let held = tx
            .execute(
                "UPDATE key_rotation SET held_by = $1, held_until_us = $3
                 WHERE id = 1 AND (held_by = $1 OR held_until_us <= $2)",
                vec![holder.into(), us(now).into(), us(until).into()],
            )
            .await?;
        tx.commit().await?;
        Ok(held == 1)
    }

    /// The next customer that has something under the epoch: `customer` itself if it has behind `request`, or one after it.
    async fn customer_under(
        &self,
        table: Table,
        epoch: u32,
        customer: &str,
        request: Uuid,
    ) -> StoreResult<Option<CustomerId>> {
        let mut tx = self.deployment_read().await?;
        let sql = format!(
            "SELECT c.customer_id FROM customers c WHERE c.customer_id >= $2 AND EXISTS (SELECT 1 FROM {} r
               WHERE r.customer_id = c.customer_id AND r.key_epoch = $1 AND r.key_epoch <> ''
                 AND (c.customer_id > $2 OR r.request_id > $3))
             ORDER BY c.customer_id LIMIT 1",
            table.name()
        );
        let row = tx.fetch_one(&sql, vec![epoch.to_string().into(), customer.into(), request.into()]).await?;
        let broken = |_| StoreError::Inconsistent { table: "customers", what: "an id is not one" };
        row.map(|row| CustomerId::new(&row.text(0)?).map_err(broken)).transpose()
    }

    /// Forgets, or re-wraps, requests of a customer that are under `from`, in the order of their ids.
    async fn turn_over_batch(
        &self,
        customer: &CustomerId,
        (from, to): (u32, u32),
        after: Uuid,
        now: Timestamp,
    ) -> StoreResult<Batch> {
        let mut tx = self.customer_tx(customer).await?;
        if hold_epoch(&mut tx).await? != i64::from(to) {
            return Err(StoreError::WrongState("another epoch has begun".to_owned()));
        }
        let sealing = self.ring().epoch(to)?;
        let retention = retention(&mut tx, customer).await?;
        let over_before = now.checked_sub(retention).unwrap_or(Timestamp::MIN);
        // Nobody is waited for, so nobody's work is ended by a deadlock with us; whom we pass by is met on the next walk.
        let lock = if tx.engine() == Engine::Postgres { "FOR NO KEY UPDATE OF r SKIP LOCKED" } else { "" };
        let sql = format!(
            "SELECT r.request_id, r.wrapped_key, r.closed_us, r.forgotten_us,
               (SELECT count(*) FROM tasks t WHERE t.customer_id = $1 AND t.request_id = r.request_id
                  AND t.state = 'RUNNING' AND t.run_at_us > $4)
             FROM requests r WHERE r.customer_id = $1 AND r.key_epoch = $2 AND r.key_epoch <> '' AND r.request_id > $3
             ORDER BY r.request_id LIMIT {BATCH} {lock}"
        );
        let leased_since = now.checked_sub(LEASE_MARGIN).unwrap_or(Timestamp::MIN);
        let args = vec![customer.as_str().into(), from.to_string().into(), after.into(), us(leased_since).into()];
        let rows = tx.fetch(&sql, args).await?;
        let (mut over, mut rewrapped, mut batch) = (Vec::new(), Vec::new(), Batch::default());
        for row in &rows {
            let id = RequestId::new(row.uuid(0)?);
            let closed_at = opt_time(row.opt_i64(2)?, "requests")?;
            let begun = row.opt_i64(3)?.is_some();
            if begun || (closed_at.is_some_and(|closed_at| closed_at <= over_before) && row.i64(4)? == 0) {
                over.push(id);
                continue;
            }
            let wrapped = WrappedKey { epoch: from, wrapped: row.bytes(1)? };
            match wrapped.rewrap(self.ring(), customer, id, KeyOf::Request, &sealing) {
                Ok(wrapped) => rewrapped.push((id, wrapped.wrapped)),
                Err(StoreError::Unsealable(_) | StoreError::NoEpochKey(_)) => batch.unopenable += 1,
                Err(e) => return Err(e),
            }
        }
        batch.next = rows.last().filter(|_| rows.len() == BATCH).map(|row| row.uuid(0)).transpose()?;
        batch.rewrapped = rewrapped.len() as u64;
        write_rewrapped(&mut tx, customer, (from, to), rewrapped).await?;
        if !over.is_empty() {
            mark_forgotten(&mut tx, customer, &over, now).await?;
            batch.records = delete_records(&mut tx, customer, &over).await?;
            if batch.records < RECORDS_MAX {
                take_keys(&mut tx, customer, &over, now).await?;
                batch.forgotten = over.len() as u64;
            } else {
                // The rest of them is next.
                batch.next = Some(after);
            }
        }
        note_use(&mut tx, customer, from, &batch).await?;
        tx.commit().await?;
        Ok(batch)
    }

    /// Replays keep what they have matched under a key of each customer's, until it is part of a request. Of one that has ended, nothing
    /// is sealed any more: its key goes.
    async fn turn_over_shares(&self, from: u32, to: u32) -> StoreResult<Batch> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT c.customer_id FROM customers c WHERE EXISTS (SELECT 1 FROM replay_shares s
                     WHERE s.customer_id = c.customer_id AND s.key_epoch = $1) ORDER BY c.customer_id LIMIT 1";
        let row = tx.fetch_one(sql, vec![from.to_string().into()]).await?;
        drop(tx);
        let mut batch = Batch::default();
        let Some(row) = row else { return Ok(batch) };
        let broken = |_| StoreError::Inconsistent { table: "customers", what: "an id is not one" };
        let customer = CustomerId::new(&row.text(0)?).map_err(broken)?;
        let mut tx = self.customer_tx(&customer).await?;
        if hold_epoch(&mut tx).await? != i64::from(to) {
            return Err(StoreError::WrongState("another epoch has begun".to_owned()));
        }
        let sealing = self.ring().epoch(to)?;
        let lock = if tx.engine() == Engine::Postgres { "FOR UPDATE OF s" } else { "" };
        let sql = format!(
            "SELECT s.replay_id, s.wrapped_key, r.ended_us FROM replay_shares s JOIN replays r ON r.replay_id = s.replay_id
             WHERE s.customer_id = $1 AND s.key_epoch = $2 LIMIT {BATCH} {lock}"
        );
        for row in tx.fetch(&sql, vec![customer.as_str().into(), from.to_string().into()]).await? {
            let replay = row.uuid(0)?;
            let (epoch, wrapped) = if row.opt_i64(2)?.is_some() {
                (String::new(), Vec::new())
            } else {
                let wrapped = WrappedKey { epoch: from, wrapped: row.bytes(1)? };
                match wrapped.rewrap(self.ring(), &customer, RequestId::new(replay), KeyOf::Request, &sealing) {
                    Ok(wrapped) => (wrapped.epoch.to_string(), wrapped.wrapped),
                    Err(StoreError::Unsealable(_) | StoreError::NoEpochKey(_)) => {
                        batch.unopenable += 1;
                        continue;
                    }
                    Err(e) => return Err(e),
                }
            };
            tx.execute(
                "UPDATE replay_shares SET key_epoch = $3, wrapped_key = $4 WHERE customer_id = $1 AND replay_id = $2",
                vec![customer.as_str().into(), replay.into(), epoch.into(), wrapped.into()],
            )
            .await?;
            batch.rewrapped += 1;
        }
        tx.commit().await?;
        Ok(batch)
    }

    /// Again and again, while there are any: nothing else tells.
    async fn tell_lost_restrictions(&self, epoch: &EpochRow) -> StoreResult<()> {
        let customers = self.customers_with_lost_restrictions(epoch).await?;
        if !customers.is_empty() {
            tracing::error!(
                epoch = epoch.number,
                ?customers,
                "restrictions of before this store was restored hold no erasure back any more: these customers (a hundred at most are named) must \
                 instruct them anew"
            );
        }
        Ok(())
    }

    /// A batch of one customer's subjects: of the first that has any whom nobody is at work about. Answers how many.
    async fn cover_subjects(&self, epoch: &EpochRow, current: &EpochRow) -> StoreResult<u64> {
        let Some(names) = self.names_under(epoch, current)? else { return Ok(0) };
        let mut customer = String::new();
        while let Some(next) = self.customer_with_names(&names, &customer).await? {
            let covered = self.cover_batch(&next, epoch, current, &names).await?;
            if covered > 0 {
                return Ok(covered);
            }
            customer = next.to_string();
        }
        Ok(0)
    }

    /// Re-wraps what is kept of requests that may long be forgotten: it lives until it is confirmed that nothing is held any more.
    async fn rewrap_kept(&self, customer: &CustomerId, (from, to): (u32, u32), after: Uuid) -> StoreResult<Batch> {
        let mut tx = self.customer_tx(customer).await?;
        if hold_epoch(&mut tx).await? != i64::from(to) {
            return Err(StoreError::WrongState("another epoch has begun".to_owned()));
        }
        let sealing = self.ring().epoch(to)?;
        let lock = if tx.engine() == Engine::Postgres { "FOR NO KEY UPDATE OF k SKIP LOCKED" } else { "" };
        let sql = format!(
            "SELECT k.request_id, k.system_id, k.wrapped_key FROM kept_rows k
             WHERE k.customer_id = $1 AND k.key_epoch = $2 AND k.request_id > $3 ORDER BY k.request_id LIMIT {BATCH} {lock}"
        );
        let rows = tx.fetch(&sql, vec![customer.as_str().into(), from.to_string().into(), after.into()]).await?;
        let (mut ids, mut systems, mut keys, mut batch) = (Vec::new(), Vec::new(), Vec::new(), Batch::default());
        for row in &rows {
            let (id, system) = (RequestId::new(row.uuid(0)?), system_id(&row.text(1)?)?);
            let wrapped = WrappedKey { epoch: from, wrapped: row.bytes(2)? };
            match wrapped.rewrap(self.ring(), customer, id, KeyOf::KeptRows(&system), &sealing) {
                Ok(wrapped) => {
                    ids.push(id.uuid());
                    systems.push(system.as_str().to_owned());
                    keys.push(wrapped.wrapped);
                }
                Err(StoreError::Unsealable(_) | StoreError::NoEpochKey(_)) => batch.unopenable += 1,
                Err(e) => return Err(e),
            }
        }
        // What is left of the last request's, at other systems, is met on the next walk.
        batch.next = rows.last().filter(|_| rows.len() == BATCH).map(|row| row.uuid(0)).transpose()?;
        batch.kept = ids.len() as u64;
        tx.execute_rows(
            "WITH v(request_id, system_id, wrapped_key) AS ({rows})
             UPDATE kept_rows SET key_epoch = $3, wrapped_key = v.wrapped_key FROM v
             WHERE kept_rows.customer_id = $1 AND kept_rows.request_id = v.request_id AND kept_rows.system_id = v.system_id
               AND kept_rows.key_epoch = $2",
            vec![customer.as_str().into(), from.to_string().into(), to.to_string().into()],
            Rows::new(vec![Column::uuids(ids), Column::texts(systems), Column::bytes(keys)]),
        )
        .await?;
        tx.commit().await?;
        Ok(batch)
    }

    /// Proves that nothing is under an epoch. It stays so: whoever wraps a key holds the row that says which epoch is the current one.
    async fn close_rewrapped(&self, epoch: &EpochRow, current: &EpochRow, now: Timestamp) -> StoreResult<bool> {
        let mut args = under_args(epoch, self.names_under(epoch, current)?.as_ref());
        let mut tx = self.deployment_tx().await?;
        let sql = format!(
            "UPDATE key_epochs SET state = 'REWRAPPED', rewrapped_us = $5 WHERE epoch = $1 AND state = 'CLOSED'
               AND EXISTS (SELECT 1 FROM deployment WHERE id = 1 AND key_epoch = $6 AND key_epoch > $1) AND NOT EXISTS ({})",
            under()
        );
        // In whatever form names are to be, now.
        args.extend([us(now).into(), current.number.into()]);
        let proven = tx.execute(&sql, args).await?;
        tx.commit().await?;
        Ok(proven == 1)
    }

    async fn destroy_epoch(&self, epoch: &EpochRow, now: Timestamp) -> StoreResult<KeyTurn> {
        if !self.has_settled(epoch.rewrapped_at, now) {
            return Ok(KeyTurn::Waits);
        }
        // Bare names do not need this key; they are of an epoch after it now.
        let covered = self.names_under(epoch, epoch)?;
        let mut tx = self.deployment_read().await?;
        if tx.fetch_one(&format!("{} LIMIT 1", under()), under_args(epoch, covered.as_ref())).await?.is_some() {
            tracing::error!(
                epoch = epoch.number,
                "something is sealed under an epoch that was closed: its key is kept, and it is turned over again"
            );
            drop(tx);
            let mut tx = self.deployment_tx().await?;
            let again =
                "UPDATE key_epochs SET state = 'CLOSED', rewrapped_us = NULL WHERE epoch = $1 AND state = 'REWRAPPED'";
            tx.execute(again, vec![epoch.number.into()]).await?;
            tx.commit().await?;
            return Ok(KeyTurn::Waits);
        }
        tx.commit().await?;
        self.ring().destroy(epoch.number, &epoch.check)?;
        self.move_epoch(epoch.number, EpochState::Rewrapped, EpochState::Destroyed, now).await?;
        self.refresh_keys().await?;
        Ok(KeyTurn::Destroyed(epoch.number))
    }

    /// Says in the log of one more customer that the key is gone; when it is in all, the epoch is through.
    async fn record_destruction(&self, epoch: &EpochRow, now: Timestamp) -> StoreResult<KeyTurn> {
        // Until now a replica may have had it in memory.
        let (Some(destroyed_at), true) = (epoch.destroyed_at, self.has_settled(epoch.destroyed_at, now)) else {
            return Ok(KeyTurn::Waits);
        };
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT c.customer_id FROM customers c WHERE EXISTS (SELECT 1 FROM key_epoch_uses u
                     WHERE u.customer_id = c.customer_id AND u.epoch = $1) LIMIT 1";
        let row = tx.fetch_one(sql, vec![epoch.number.into()]).await?;
        drop(tx);
        let Some(row) = row else {
            self.move_epoch(epoch.number, EpochState::Destroyed, EpochState::Logged, now).await?;
            return Ok(KeyTurn::Logged(epoch.number));
        };
        let broken = |_| StoreError::Inconsistent { table: "customers", what: "an id is not one" };
        let customer = CustomerId::new(&row.text(0)?).map_err(broken)?;
        let mut tx = self.customer_tx(&customer).await?;
        let sql = "DELETE FROM key_epoch_uses WHERE customer_id = $1 AND epoch = $2 RETURNING forgotten, rewrapped";
        // `None`: another replica has just done it.
        if let Some(row) = tx.fetch_one(sql, vec![customer.as_str().into(), epoch.number.into()]).await? {
            let count = |at: usize| -> StoreResult<u64> { Ok(u64::try_from(row.i64(at)?).unwrap_or(0)) };
            let mut staging = Staging::new(&customer);
            staging.add(
                RequestId::new(Uuid::nil()),
                &Event::KeyDestroyed {
                    epoch: epoch.number,
                    forgotten: count(0)?,
                    rewrapped: count(1)?,
                    destroyed_us: us(destroyed_at),
                },
            );
            staging.write(&mut tx).await?;
            tx.commit().await?;
        }
        Ok(KeyTurn::Recorded(epoch.number))
    }

    /// One process alone has nobody to wait for.
    fn has_settled(&self, since: Option<Timestamp>, now: Timestamp) -> bool {
        match self.engine() {
            Engine::Postgres => {
                since.and_then(|since| since.checked_add(SETTLE).ok()).is_some_and(|until| until <= now)
            }
            Engine::Sqlite | Engine::MySql => true,
        }
    }

    async fn move_epoch(&self, epoch: u32, from: EpochState, to: EpochState, now: Timestamp) -> StoreResult<()> {
        let column = match to {
            EpochState::Destroyed => "destroyed_us",
            _ => "logged_us",
        };
        let mut tx = self.deployment_tx().await?;
        let sql = format!("UPDATE key_epochs SET state = $3, {column} = $4 WHERE epoch = $1 AND state = $2");
        // No row: another replica was faster, and its time stands.
        tx.execute(&sql, vec![epoch.into(), from.as_str().into(), to.as_str().into(), us(now).into()]).await?;
        Ok(tx.commit().await?)
    }
}

/// By the agreement in force: what both sides agreed on last.
async fn retention(tx: &mut Tx, customer: &CustomerId) -> StoreResult<Duration> {
    let sql = "SELECT a.body FROM agreements a WHERE a.customer_id = $1
               AND a.version = (SELECT agreement_version FROM customers WHERE customer_id = $1)";
    let row = tx.fetch_one(sql, vec![customer.as_str().into()]).await?.ok_or(StoreError::NotFound("the agreement"))?;
    let days = agreements::from_body(&row.text(0)?)?.retention_days;
    Ok(Duration::from_secs(u64::from(days) * 86_400))
}

fn rows_of(ids: &[RequestId]) -> Rows {
    Rows::new(vec![Column::uuids(ids.iter().map(|id| id.uuid()))])
}

/// From now on nobody is given half a package.
async fn mark_forgotten(tx: &mut Tx, customer: &CustomerId, ids: &[RequestId], now: Timestamp) -> StoreResult<()> {
    let sql = format!(
        "WITH v(request_id) AS ({{rows}}) UPDATE requests SET forgotten_us = $2, changed_us = $2, changed_seq = {} FROM v
         WHERE requests.customer_id = $1 AND requests.request_id = v.request_id AND requests.forgotten_us IS NULL",
        changes::seq(tx)
    );
    tx.execute_rows(&sql, vec![customer.as_str().into(), us(now).into()], rows_of(ids)).await?;
    Ok(())
}

/// Answers how many; `RECORDS_MAX` means that there may be more.
async fn delete_records(tx: &mut Tx, customer: &CustomerId, ids: &[RequestId]) -> StoreResult<u64> {
    let sql = format!(
        "WITH v(request_id) AS ({{rows}}) DELETE FROM package_records WHERE customer_id = $1
           AND (request_id, system_id, lease, number) IN (
             SELECT p.request_id, p.system_id, p.lease, p.number FROM v
             JOIN package_records p ON p.customer_id = $1 AND p.request_id = v.request_id LIMIT {RECORDS_MAX})"
    );
    Ok(tx.execute_rows(&sql, vec![customer.as_str().into()], rows_of(ids)).await?)
}

/// Takes from requests what else was sealed, and their keys. What a certificate needs stays: entries, confirmations, tasks.
async fn take_keys(tx: &mut Tx, customer: &CustomerId, ids: &[RequestId], now: Timestamp) -> StoreResult<()> {
    let of = || vec![Val::from(customer.as_str())];
    for table in ["match_sets", "task_waits"] {
        let sql = format!(
            "WITH v(request_id) AS ({{rows}}) DELETE FROM {table}
             WHERE customer_id = $1 AND request_id IN (SELECT request_id FROM v)"
        );
        tx.execute_rows(&sql, of(), rows_of(ids)).await?;
    }
    tx.execute_together(forget_places(tx.engine(), customer, ids)).await?;
    // Whoever worked on one until now, and never told: its lease is somebody else's.
    tx.execute_rows(
        "WITH v(request_id) AS ({rows}) UPDATE tasks SET state = 'NEEDS_ATTENTION', reason = 'REQUEST_CLOSED', lease = lease + 1
         FROM v WHERE tasks.customer_id = $1 AND tasks.request_id = v.request_id AND tasks.state = 'RUNNING'",
        of(),
        rows_of(ids),
    )
    .await?;
    // Nobody waits for that worker any longer.
    let sql = "WITH v(request_id) AS ({rows}) DELETE FROM task_waits
         WHERE customer_id = $1 AND on_request_id IN (SELECT request_id FROM v) RETURNING request_id, system_id";
    let mut waited = BTreeSet::new();
    for row in tx.fetch_rows(sql, of(), rows_of(ids)).await? {
        waited.insert((row.uuid(0)?, row.text(1)?));
    }
    release_free(tx, customer, now, waited).await?;
    tx.execute_rows(
        "WITH v(request_id) AS ({rows}) UPDATE requests SET key_epoch = '', wrapped_key = $2, sealed_subject = $2, content_mac = $2
         FROM v WHERE requests.customer_id = $1 AND requests.request_id = v.request_id",
        vec![customer.as_str().into(), Vec::new().into()],
        rows_of(ids),
    )
    .await?;
    Ok(())
}

async fn write_rewrapped(
    tx: &mut Tx,
    customer: &CustomerId,
    (from, to): (u32, u32),
    rewrapped: Vec<(RequestId, Vec<u8>)>,
) -> StoreResult<()> {
    let (ids, keys): (Vec<_>, Vec<_>) = rewrapped.into_iter().map(|(id, key)| (id.uuid(), key)).unzip();
    tx.execute_rows(
        "WITH v(request_id, wrapped_key) AS ({rows}) UPDATE requests SET key_epoch = $3, wrapped_key = v.wrapped_key FROM v
         WHERE requests.customer_id = $1 AND requests.request_id = v.request_id AND requests.key_epoch = $2",
        vec![customer.as_str().into(), from.to_string().into(), to.to_string().into()],
        Rows::new(vec![Column::uuids(ids), Column::bytes(keys)]),
    )
    .await?;
    Ok(())
}

async fn note_use(tx: &mut Tx, customer: &CustomerId, epoch: u32, batch: &Batch) -> StoreResult<()> {
    if batch.forgotten + batch.rewrapped == 0 {
        return Ok(());
    }
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    tx.execute(
        "INSERT INTO key_epoch_uses (customer_id, epoch, forgotten, rewrapped) VALUES ($1, $2, $3, $4)
         ON CONFLICT (customer_id, epoch) DO UPDATE SET forgotten = key_epoch_uses.forgotten + excluded.forgotten,
           rewrapped = key_epoch_uses.rewrapped + excluded.rewrapped",
        vec![customer.as_str().into(), epoch.into(), count(batch.forgotten).into(), count(batch.rewrapped).into()],
    )
    .await?;
    Ok(())
}
