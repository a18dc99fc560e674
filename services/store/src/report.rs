//! Reports: what came of leased tasks. Outcomes of a batch and their ledger entries are one transaction (I4, I6).

use std::collections::{BTreeSet, HashMap, HashSet};

use quittance_domain::{
    Timestamp,
    action::Action,
    identifier::Identifier,
    ids::{CustomerId, RequestId, SystemId, TaskKey},
    outcome::Confirmation,
    request::RequestState,
    task::Work,
};
use quittance_ledger::{Event, Operation};
use quittance_sql::{Column, Engine, Part, Row, Rows, Tx, Val};
use uuid::Uuid;

use crate::{
    LeasedTask, Store, StoreError, StoreResult, SubjectSecrets, changes,
    kept::{Kept, release},
    lease::lease_rows,
    ledger::Staging,
    lifecycle::CUSTOMERS_WORD,
    lines::{Closed, forget_closed},
    replan::{bump_ready, system_id},
    seal::{RequestKey, SealedColumn, WrappedKey},
    suppression::{self, SUBJECT_COLUMNS, Suppressing},
    systems::{held_generation, hold_generation},
    tx::{parsed, time, us},
};

/// What came of one task.
#[derive(Clone, Debug)]
pub struct Report {
    pub request: RequestId,
    pub lease: i64,
    pub result: ReportResult,
}

#[derive(Clone, Debug)]
pub enum ReportResult {
    Done(Confirmation),
    /// Done, and some of it is held until a day: what is needed then is kept.
    Held(Confirmation, Kept),
    /// Identifiers for other systems; the act comes later.
    Resolved(Vec<Identifier>),
    /// Instructed; look again then.
    Awaiting {
        check_at: Timestamp,
        reference: String,
    },
    Retry {
        at: Timestamp,
        reason: String,
    },
    Attention {
        reason: String,
    },
}

/// How often a report is made that meets a new epoch, or is ended so that another transaction can go on.
const REPORT_TRIES: u32 = 3;

/// A task of the batch's system that is done.
#[derive(Clone, Copy)]
struct Done<'a> {
    request: RequestId,
    lease: i64,
    confirmation: &'a Confirmation,
}

impl Store {
    /// Stores match sets, before anything is touched. Gives the tasks whose lease is lost: nothing may be changed for them.
    pub async fn save_match_sets(
        &self,
        system: &SystemId,
        now: Timestamp,
        match_sets: &[(&LeasedTask, Vec<u8>)],
    ) -> StoreResult<Vec<RequestId>> {
        let Some((first, _)) = match_sets.first() else { return Ok(Vec::new()) };
        let mut sealed = Vec::with_capacity(match_sets.len());
        for (task, plain) in match_sets {
            let bytes = task.request_key.seal(SealedColumn::MatchSet, system.as_str(), plain)?;
            sealed.push((task.key.request, task.lease, bytes));
        }
        self.save_sealed(&first.key.customer, system, now, sealed).await
    }

    /// As [`Store::save_match_sets`], for a worker that is elsewhere: the keys are looked up here.
    pub async fn save_remote_match_sets(
        &self,
        customer: &CustomerId,
        system: &SystemId,
        now: Timestamp,
        match_sets: Vec<(RequestId, i64, Vec<u8>)>,
    ) -> StoreResult<Vec<RequestId>> {
        let keys = self.request_keys(customer, match_sets.iter().map(|(id, ..)| *id)).await?;
        let mut sealed = Vec::with_capacity(match_sets.len());
        let mut unknown = Vec::new();
        for (request, lease, plain) in match_sets {
            match keys.get(&request) {
                Some(Some(key)) => {
                    sealed.push((request, lease, key.seal(SealedColumn::MatchSet, system.as_str(), &plain)?))
                }
                Some(None) | None => unknown.push(request),
            }
        }
        let mut lost = self.save_sealed(customer, system, now, sealed).await?;
        lost.extend(unknown);
        Ok(lost)
    }

    async fn save_sealed(
        &self,
        customer: &CustomerId,
        system: &SystemId,
        now: Timestamp,
        mut sealed: Vec<(RequestId, i64, Vec<u8>)>,
    ) -> StoreResult<Vec<RequestId>> {
        // A worker elsewhere may send a task twice; one statement cannot write a row twice. The last one stands.
        let last: HashMap<RequestId, usize> = sealed.iter().enumerate().map(|(n, (id, ..))| (*id, n)).collect();
        let mut n = 0..;
        sealed.retain(|(id, ..)| n.next() == last.get(id).copied());
        let mut tx = self.customer_tx(customer).await?;
        let ids: Vec<RequestId> = sealed.iter().map(|(id, ..)| *id).collect();
        let rows = Rows::new(vec![
            Column::uuids(sealed.iter().map(|(id, ..)| id.uuid())),
            Column::i64s(sealed.iter().map(|(_, lease, _)| *lease)),
            Column::bytes(sealed.into_iter().map(|(.., bytes)| bytes)),
        ]);
        // The tasks are held meanwhile: who leases one at this moment either comes first, and it is lost here, or finds the match set. In
        // the order in which a heartbeat takes them.
        let held = if tx.engine() == Engine::Postgres { "ORDER BY t.request_id FOR SHARE OF t" } else { "" };
        let sql = format!(
            "WITH v(request_id, lease, sealed) AS ({{rows}}), held AS (
               SELECT v.request_id, v.sealed FROM v JOIN tasks t ON t.customer_id = $1
                 AND t.request_id = v.request_id AND t.system_id = $2
               WHERE t.lease = v.lease AND coalesce(t.state, '') = 'RUNNING' AND t.run_at_us + 0 > $3 {held})
             INSERT INTO match_sets (customer_id, request_id, system_id, sealed)
             SELECT $1, request_id, $2, sealed FROM held WHERE true
             ON CONFLICT (customer_id, request_id, system_id) DO UPDATE SET sealed = excluded.sealed
             RETURNING request_id"
        );
        let args = vec![customer.as_str().into(), system.as_str().into(), us(now).into()];
        let kept = tx.fetch_rows(&sql, args, rows).await?;
        tx.commit().await?;
        self.grown(kept.len()).await;
        let kept: HashSet<Uuid> = kept.iter().map(|r| r.uuid(0)).collect::<Result<_, _>>()?;
        Ok(ids.into_iter().filter(|id| !kept.contains(&id.uuid())).collect())
    }

    /// `None` of a request: it is forgotten.
    pub(crate) async fn request_keys(
        &self,
        customer: &CustomerId,
        ids: impl Iterator<Item = RequestId>,
    ) -> StoreResult<HashMap<RequestId, Option<RequestKey>>> {
        let mut tx = self.customer_read(customer).await?;
        let rows = tx
            .fetch_rows(
                "WITH v(request_id) AS ({rows}) SELECT r.request_id, r.key_epoch, r.wrapped_key FROM v
                 JOIN requests r ON r.customer_id = $1 AND r.request_id = v.request_id",
                vec![customer.as_str().into()],
                Rows::new(vec![Column::uuids(ids.map(RequestId::uuid))]),
            )
            .await?;
        let mut keys = HashMap::with_capacity(rows.len());
        for row in rows {
            let id = RequestId::new(row.uuid(0)?);
            let wrapped = WrappedKey::read(&row.text(1)?, row.bytes(2)?)?;
            let unwrap = |wrapped| RequestKey::unwrap(self.ring(), customer, id, &wrapped);
            keys.insert(id, wrapped.map(unwrap).transpose()?);
        }
        Ok(keys)
    }

    /// Records what came of leased tasks, all in one transaction. Gives those whose lease was lost: of them nothing was recorded.
    /// The clock is read when that transaction begins: a lease that passed while keys were read or a new epoch began is lost.
    pub async fn report(
        &self,
        customer: &CustomerId,
        system: &SystemId,
        clock: impl Fn() -> Timestamp,
        reports: &[Report],
    ) -> StoreResult<Vec<RequestId>> {
        let kept = reports.iter().filter_map(|report| match &report.result {
            ReportResult::Held(_, kept) => Some((report.request, kept)),
            _ => None,
        });
        let kept: Vec<(RequestId, &Kept)> = kept.collect();
        for _ in 1..REPORT_TRIES {
            match self.report_once(customer, system, &clock, reports, &kept).await {
                Ok(Some(lost)) => return Ok(lost),
                Ok(None) => {}
                // Somebody decided about one of the requests at the same moment.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        let moved = StoreError::Inconsistent { table: "deployment", what: "a new epoch begins at every try" };
        self.report_once(customer, system, &clock, reports, &kept).await?.ok_or(moved)
    }

    /// `None`: a new epoch began, and what is to be kept is sealed again.
    async fn report_once(
        &self,
        customer: &CustomerId,
        system: &SystemId,
        clock: &impl Fn() -> Timestamp,
        reports: &[Report],
        kept: &[(RequestId, &Kept)],
    ) -> StoreResult<Option<Vec<RequestId>>> {
        let kept = self.seal_kept(customer, system, kept).await?;
        let suppressing = self.suppressing(customer, system).await?;
        let now = clock();
        let mut tx = self.customer_tx(customer).await?;
        let mut lost: Vec<RequestId> = Vec::new();
        let mut done = Vec::new();
        let mut later = Vec::new();
        let mut resolved = Vec::new();
        for Report { request, lease, result } in reports {
            match result {
                ReportResult::Done(confirmation) | ReportResult::Held(confirmation, _) => {
                    done.push(Done { request: *request, lease: *lease, confirmation })
                }
                ReportResult::Resolved(found) => resolved.push((*request, *lease, found.as_slice())),
                ReportResult::Awaiting { check_at, reference } => {
                    later.push((*request, *lease, "AWAITING_CONFIRMATION", us(*check_at), reference.as_str()));
                }
                ReportResult::Retry { at, reason } => {
                    later.push((*request, *lease, "PENDING", us(*at), reason.as_str()));
                }
                ReportResult::Attention { reason } => {
                    later.push((*request, *lease, "NEEDS_ATTENTION", us(now), reason.as_str()));
                }
            }
        }
        put_off(&mut tx, customer, system, now, &later, &mut lost).await?;
        let subjects = suppressing.is_some();
        let confirmed = fence_done(&mut tx, customer, system, now, done, &mut lost, subjects).await?;
        if !kept.insert(&mut tx, customer, system, confirmed.iter().map(|(done, _)| done.request)).await? {
            drop(tx);
            self.refresh_keys().await?;
            return Ok(None);
        }
        let late = self.confirm(&mut tx, customer, system, now, confirmed, suppressing.as_ref()).await?;
        if !resolved.is_empty() {
            self.resolve(&mut tx, customer, system, now, resolved, &mut lost).await?;
        }
        tx.commit().await?;
        tell_completed_late(customer, &late);
        Ok(Some(lost))
    }

    /// An operator confirms a task that needs attention, with evidence or as `UNCONFIRMED`.
    pub async fn resolve_task(
        &self,
        key: &TaskKey,
        confirmation: Confirmation,
        by: &str,
        now: Timestamp,
    ) -> StoreResult<()> {
        let suppressing = self.suppressing(&key.customer, &key.system).await?;
        let mut tx = self.customer_tx(&key.customer).await?;
        let generation = hold_generation(&mut tx).await?;
        let changed = tx
            .execute(
                // Confirmed before an earlier instruction about the same person is, it would let those behind it go first, too (I4).
                // Nobody may ever come for one that is due: a worker was switched off, a vendor answers by letter.
                "UPDATE tasks SET state = 'CONFIRMED', lease = lease + 1, reason = ''
                 WHERE customer_id = $1 AND request_id = $2 AND system_id = $3
                   AND (state IN ('NEEDS_ATTENTION', 'PENDING', 'AWAITING_CONFIRMATION') OR (state = 'RUNNING' AND run_at_us <= $4))
                   AND NOT EXISTS (SELECT 1 FROM task_waits w WHERE w.customer_id = $1 AND w.request_id = $2
                     AND w.system_id = $3 AND w.on_request_id <> $2)",
                [task_args(key), vec![us(now).into()]].concat(),
            )
            .await?;
        if changed != 1 {
            return Err(not_resolvable(&mut tx, key).await?);
        }
        let mut staging = Staging::new(&key.customer);
        staging.add(key.request, &operated(key, Operation::Resolved, by, now));
        staging.write(&mut tx).await?;
        let done = [Done { request: key.request, lease: 0, confirmation: &confirmation }];
        let confirmed = take_off(&mut tx, &key.customer, now, generation, &done, suppressing.is_some()).await?;
        let late = self.confirm(&mut tx, &key.customer, &key.system, now, confirmed, suppressing.as_ref()).await?;
        tx.commit().await?;
        tell_completed_late(&key.customer, &late);
        Ok(())
    }

    /// Identifiers were found: they are sealed with the request, and whoever waited for them may go on.
    async fn resolve(
        &self,
        tx: &mut Tx,
        customer: &CustomerId,
        system: &SystemId,
        now: Timestamp,
        resolved: Vec<(RequestId, i64, &[Identifier])>,
        lost: &mut Vec<RequestId>,
    ) -> StoreResult<()> {
        let leases: Vec<(RequestId, i64)> = resolved.iter().map(|(id, lease, _)| (*id, *lease)).collect();
        let fenced = tx
            .fetch_rows(
                "WITH v(request_id, lease) AS ({rows}) UPDATE tasks
                 SET work = 'ACT', state = 'WAITING', attempts = 0, reason = '', run_at_us = $3 FROM v
                 WHERE tasks.customer_id = $1 AND tasks.system_id = $2 AND tasks.request_id = v.request_id
                   AND tasks.lease = v.lease AND coalesce(tasks.state, '') = 'RUNNING' AND tasks.work = 'RESOLVE' AND tasks.run_at_us + 0 > $3
                 RETURNING tasks.request_id",
                vec![customer.as_str().into(), system.as_str().into(), us(now).into()],
                lease_rows(&leases),
            )
            .await?;
        let fenced: HashSet<Uuid> = fenced.iter().map(|r| r.uuid(0)).collect::<Result<_, _>>()?;
        let (kept, gone): (Vec<_>, Vec<_>) = resolved.into_iter().partition(|(id, ..)| fenced.contains(&id.uuid()));
        lost.extend(gone.into_iter().map(|(id, ..)| id));
        self.add_identifiers(tx, customer, &kept).await?;
        let ids: Vec<RequestId> = kept.iter().map(|(id, ..)| *id).collect();
        let ended = tx.fetch_with(ended_waits(customer, system, "RESOLVED", &ids), Vec::new()).await?;
        go_on(tx, customer, system, now, &ended, &ids).await
    }

    async fn add_identifiers(
        &self,
        tx: &mut Tx,
        customer: &CustomerId,
        found: &[(RequestId, i64, &[Identifier])],
    ) -> StoreResult<()> {
        let found: HashMap<Uuid, &[Identifier]> = found.iter().map(|(id, _, f)| (id.uuid(), *f)).collect();
        // Two systems may yield for one request at the same moment, or it is objected to: the row is locked while it is read and
        // written, also where nothing was found, and whoever comes second sees what the first has released.
        let lock = if tx.engine() == Engine::Postgres { "FOR UPDATE OF r" } else { "" };
        let sql = format!(
            "WITH v(request_id) AS ({{rows}}) SELECT r.request_id, r.key_epoch, r.wrapped_key, r.sealed_subject FROM v
             JOIN requests r ON r.customer_id = $1 AND r.request_id = v.request_id ORDER BY r.request_id {lock}"
        );
        let ids: BTreeSet<Uuid> = found.keys().copied().collect();
        let rows = tx.fetch_rows(&sql, vec![customer.as_str().into()], Rows::new(vec![Column::uuids(ids)])).await?;
        let (mut ids, mut sealed) = (Vec::new(), Vec::new());
        for row in rows {
            let id = RequestId::new(row.uuid(0)?);
            let wrapped = WrappedKey::read(&row.text(1)?, row.bytes(2)?)?.ok_or(StoreError::Forgotten)?;
            let key = RequestKey::unwrap(self.ring(), customer, id, &wrapped)?;
            let mut secrets = SubjectSecrets::open(&key, &row.bytes(3)?)?;
            let before = secrets.identifiers.len();
            for identifier in found[&id.uuid()] {
                if !secrets.identifiers.contains(identifier) {
                    secrets.identifiers.push(identifier.clone());
                }
            }
            if secrets.identifiers.len() > before {
                ids.push(id.uuid());
                sealed.push(secrets.seal(&key)?);
            }
        }
        tx.execute_rows(
            "WITH v(request_id, sealed) AS ({rows}) UPDATE requests SET sealed_subject = v.sealed FROM v
             WHERE requests.customer_id = $1 AND requests.request_id = v.request_id",
            vec![customer.as_str().into()],
            Rows::new(vec![Column::uuids(ids), Column::bytes(sealed)]),
        )
        .await?;
        Ok(())
    }
}

pub(crate) fn task_args(key: &TaskKey) -> Vec<Val> {
    vec![key.customer.as_str().into(), key.request.uuid().into(), key.system.as_str().into()]
}

pub(crate) fn operated(key: &TaskKey, what: Operation, by: &str, now: Timestamp) -> Event {
    Event::Operated { system: key.system.clone(), what, by: by.to_owned(), at_us: us(now) }
}

pub(crate) async fn not_resolvable(tx: &mut Tx, key: &TaskKey) -> StoreResult<StoreError> {
    let sql = "SELECT state FROM tasks WHERE customer_id = $1 AND request_id = $2 AND system_id = $3";
    let Some(row) = tx.fetch_one(sql, task_args(key)).await? else { return Ok(StoreError::NotFound("the task")) };
    Ok(StoreError::WrongState(match row.text(0)?.as_str() {
        "NEEDS_ATTENTION" => {
            "an earlier instruction about the same person is not done there: resolve that one first".to_owned()
        }
        "WAITING" => "the task is WAITING for what comes before it".to_owned(),
        "RUNNING" => "the task is RUNNING: a worker has it until it reports, or its lease passes".to_owned(),
        state => format!("the task is {state}"),
    }))
}

type Later<'a> = (RequestId, i64, &'static str, i64, &'a str);

/// Back to the queue, or to a person; with a look at the lease.
async fn put_off(
    tx: &mut Tx,
    customer: &CustomerId,
    system: &SystemId,
    now: Timestamp,
    later: &[Later<'_>],
    lost: &mut Vec<RequestId>,
) -> StoreResult<()> {
    let rows = Rows::new(vec![
        Column::uuids(later.iter().map(|l| l.0.uuid())),
        Column::i64s(later.iter().map(|l| l.1)),
        Column::texts(later.iter().map(|l| l.2)),
        Column::i64s(later.iter().map(|l| l.3)),
        Column::texts(later.iter().map(|l| l.4)),
    ]);
    if tx.engine() == Engine::Postgres {
        // Whoever objects holds them, and is done before we look whether somebody has.
        let lock = "WITH v(request_id) AS ({rows}) SELECT t.request_id FROM v
             JOIN tasks t ON t.customer_id = $1 AND t.request_id = v.request_id AND t.system_id = $2
             ORDER BY t.request_id FOR UPDATE OF t";
        let ids = Rows::new(vec![Column::uuids(later.iter().map(|l| l.0.uuid()))]);
        tx.fetch_rows(lock, vec![customer.as_str().into(), system.as_str().into()], ids).await?;
    }
    let held = format!("v.state = 'PENDING' AND {NOT_BEGUN_AND_OBJECTED}");
    let sql = format!(
        "WITH v(request_id, lease, state, run_at_us, reason) AS ({{rows}}) UPDATE tasks
             SET state = CASE WHEN {held} THEN 'WAITING' ELSE v.state END, run_at_us = v.run_at_us,
               reason = CASE WHEN {held} THEN 'OBJECTED' ELSE v.reason END FROM v
             WHERE tasks.customer_id = $1 AND tasks.system_id = $2 AND tasks.request_id = v.request_id
               AND tasks.lease = v.lease AND coalesce(tasks.state, '') = 'RUNNING' AND tasks.run_at_us + 0 > $4
             RETURNING tasks.request_id, tasks.action, tasks.work, tasks.state, tasks.run_at_us"
    );
    let args = vec![customer.as_str().into(), system.as_str().into(), CUSTOMERS_WORD.into(), us(now).into()];
    let kept = tx.fetch_rows(&sql, args, rows).await?;
    let mut ready = Vec::new();
    let mut known = HashSet::new();
    for row in &kept {
        known.insert(row.uuid(0)?);
        if !["NEEDS_ATTENTION", "WAITING"].contains(&row.text(3)?.as_str()) {
            let action = parsed(row, 1, "tasks", Action::parse)?;
            ready.push((system.clone(), action, parsed(row, 2, "tasks", Work::parse)?, row.i64(4)?));
        }
    }
    lost.extend(later.iter().map(|l| l.0).filter(|id| !known.contains(&id.uuid())));
    if ready.len() < kept.len() {
        touch_requests(tx, customer, now, kept.iter().map(|r| r.uuid(0)).collect::<Result<_, _>>()?).await?;
    }
    // Of a closed one nothing begins any more, whatever is said of it here.
    let lock = if tx.engine() == Engine::Postgres { "FOR UPDATE OF r" } else { "" };
    let sql = format!(
        "WITH v(request_id) AS ({{rows}}) SELECT r.request_id FROM v
         JOIN requests r ON r.customer_id = $1 AND r.request_id = v.request_id AND r.closed_us IS NOT NULL ORDER BY r.request_id {lock}"
    );
    let rows = Rows::new(vec![Column::uuids(known.into_iter())]);
    let closed = tx.fetch_rows(&sql, vec![customer.as_str().into()], rows).await?;
    let closed: Vec<Uuid> = closed.iter().map(|row| row.uuid(0)).collect::<Result<_, _>>()?;
    pass_by(tx, customer, system, now, &closed).await?;
    // The hints last, as whoever takes instructions in locks them.
    bump_ready(tx, customer, ready.into_iter()).await
}

/// That nothing is to begin for a row of `tasks` at system `$2` before the customer has said its word (`$3`): somebody objected, and nothing had
/// been found to be changed.
pub(crate) const NOT_BEGUN_AND_OBJECTED: &str = "EXISTS (SELECT 1 FROM task_waits w WHERE w.customer_id = $1
       AND w.on_request_id = tasks.request_id AND w.on_system_id = $3 AND w.request_id = tasks.request_id AND w.system_id = $2
       AND w.before_work = tasks.work)
     AND NOT EXISTS (SELECT 1 FROM match_sets m WHERE m.customer_id = $1 AND m.request_id = tasks.request_id AND m.system_id = $2)";

/// Whoever was at work for these closed requests at the system is not any more: those who waited for it go on.
pub(crate) async fn pass_by(
    tx: &mut Tx,
    customer: &CustomerId,
    system: &SystemId,
    now: Timestamp,
    closed: &[Uuid],
) -> StoreResult<()> {
    if closed.is_empty() {
        return Ok(());
    }
    let closed: Vec<RequestId> = closed.iter().map(|id| RequestId::new(*id)).collect();
    let ended = tx.fetch_with(ended_waits(customer, system, "CONFIRMED", &closed), Vec::new()).await?;
    go_on(tx, customer, system, now, &ended, &[]).await
}

/// So that whoever watches sees it.
pub(crate) async fn touch_requests(
    tx: &mut Tx,
    customer: &CustomerId,
    now: Timestamp,
    ids: Vec<Uuid>,
) -> StoreResult<()> {
    let sql = format!(
        "WITH v(request_id) AS ({{rows}}) UPDATE requests SET changed_us = $2, changed_seq = {} FROM v
         WHERE requests.customer_id = $1 AND requests.request_id = v.request_id",
        changes::seq(tx)
    );
    tx.execute_rows(&sql, vec![customer.as_str().into(), us(now).into()], Rows::new(vec![Column::uuids(ids)])).await?;
    Ok(())
}

/// What its request has become of a task that is confirmed: id, state, due time, action, the request that it follows, and where it was asked
/// for, its sealed subject.
type Confirmed<'a> = (Done<'a>, Row);

/// Confirms tasks whose lease still holds, and takes them off their requests. Zero rows mean that it does not: nothing is recorded for
/// them (I4). On PostgreSQL that is one round trip.
async fn fence_done<'a>(
    tx: &mut Tx,
    customer: &CustomerId,
    system: &SystemId,
    now: Timestamp,
    done: Vec<Done<'a>>,
    lost: &mut Vec<RequestId>,
    subjects: bool,
) -> StoreResult<Vec<Confirmed<'a>>> {
    let mut known = HashSet::with_capacity(done.len());
    // A task that stands twice in a report is confirmed by the first.
    let (done, again): (Vec<Done<'_>>, Vec<Done<'_>>) =
        done.into_iter().partition(|d| known.insert((d.request, d.lease)));
    lost.extend(again.iter().map(|d| d.request));
    let fence = "UPDATE tasks SET state = 'CONFIRMED', reason = '' FROM v
         WHERE tasks.customer_id = $1 AND tasks.system_id = $2 AND tasks.request_id = v.request_id
           AND tasks.lease = v.lease AND coalesce(tasks.state, '') = 'RUNNING' AND tasks.work = 'ACT' AND tasks.run_at_us + 0 > $3
         RETURNING tasks.request_id, tasks.lease";
    let args = vec![customer.as_str().into(), system.as_str().into(), us(now).into()];
    if tx.engine() != Engine::Postgres {
        let generation = hold_generation(tx).await?;
        let fenced = tx
            .fetch_rows(&format!("WITH v(request_id, lease) AS ({{rows}}) {fence}"), args, lease_rows(&leases(&done)))
            .await?;
        let fenced: HashSet<(Uuid, i64)> =
            fenced.iter().map(|r| Ok((r.uuid(0)?, r.i64(1)?))).collect::<StoreResult<_>>()?;
        let (kept, gone): (Vec<_>, Vec<_>) =
            done.into_iter().partition(|d| fenced.contains(&(d.request.uuid(), d.lease)));
        lost.extend(gone.iter().map(|d| d.request));
        return take_off(tx, customer, now, generation, &kept, subjects).await;
    }
    let sql = format!(
        "WITH v(request_id, lease, exceptions) AS ({{rows}}), held AS ({}), fenced AS ({fence}, v.exceptions) {}, v.lease",
        held_generation(tx.engine()),
        taking_off(changes::seq(tx), "fenced v, held", "$3", "held.systems_generation", subjects)
    );
    let lease_at = if subjects { SUBJECT_AT + 3 } else { SUBJECT_AT };
    let updated = tx.fetch_rows(&sql, args, done_rows(&done)).await?;
    let mut by_lease = HashMap::with_capacity(updated.len());
    for row in updated {
        by_lease.insert((row.uuid(0)?, row.i64(lease_at)?), row);
    }
    let mut confirmed = Vec::with_capacity(by_lease.len());
    for d in done {
        match by_lease.remove(&(d.request.uuid(), d.lease)) {
            Some(row) => confirmed.push((d, row)),
            None => lost.push(d.request),
        }
    }
    Ok(confirmed)
}

fn leases(done: &[Done<'_>]) -> Vec<(RequestId, i64)> {
    done.iter().map(|d| (d.request, d.lease)).collect()
}

/// `v(request_id, lease, exceptions)`
fn done_rows(done: &[Done<'_>]) -> Rows {
    Rows::new(vec![
        Column::uuids(done.iter().map(|d| d.request.uuid())),
        Column::i64s(done.iter().map(|d| d.lease)),
        Column::i64s(done.iter().map(|d| i64::from(d.confirmation.is_exception()))),
    ])
}

/// Where a confirmed task's row has the sealed subject.
const SUBJECT_AT: usize = 5;

/// Takes confirmed tasks off their requests, and closes those of which it was the last. A batch has one task of a request, so each request stands in it once.
fn taking_off(seq: &str, batch: &str, now: &str, generation: &str, subjects: bool) -> String {
    let subjects = if subjects { format!(", {SUBJECT_COLUMNS}") } else { String::new() };
    let closes = format!(
        "requests.open_tasks = 1 AND requests.systems_generation = {generation} AND requests.state = 'IN_PROGRESS'"
    );
    format!(
        "UPDATE requests SET
           open_tasks = requests.open_tasks - 1,
           exceptions = requests.exceptions + v.exceptions,
           changed_us = {now},
           changed_seq = {seq},
           closed_us = CASE WHEN {closes} THEN {now} ELSE requests.closed_us END,
           state = CASE WHEN {closes} AND requests.exceptions + v.exceptions = 0 THEN 'COMPLETED'
                        WHEN {closes} THEN 'COMPLETED_WITH_EXCEPTIONS' ELSE requests.state END
         FROM {batch} WHERE requests.customer_id = $1 AND requests.request_id = v.request_id
         RETURNING requests.request_id, requests.state, requests.due_us, requests.action, requests.follows_request_id{subjects}"
    )
}

/// Of tasks that are confirmed already.
async fn take_off<'a>(
    tx: &mut Tx,
    customer: &CustomerId,
    now: Timestamp,
    generation: i64,
    done: &[Done<'a>],
    subjects: bool,
) -> StoreResult<Vec<Confirmed<'a>>> {
    let sql = format!(
        "WITH v(request_id, lease, exceptions) AS ({{rows}}) {}",
        taking_off(changes::seq(tx), "v", "$2", "$3", subjects)
    );
    let args = vec![customer.as_str().into(), us(now).into(), generation.into()];
    let mut updated = HashMap::with_capacity(done.len());
    for row in tx.fetch_rows(&sql, args, done_rows(done)).await? {
        updated.insert(row.uuid(0)?, row);
    }
    let taken_off = |d: &Done<'a>| {
        let row = updated.remove(&d.request.uuid());
        Ok((*d, row.ok_or(StoreError::Inconsistent { table: "requests", what: "a task has no request" })?))
    };
    done.iter().map(taken_off).collect()
}

impl Store {
    /// The one place where confirmations are recorded, and where requests complete. Gives those that complete late.
    async fn confirm(
        &self,
        tx: &mut Tx,
        customer: &CustomerId,
        system: &SystemId,
        now: Timestamp,
        confirmed: Vec<Confirmed<'_>>,
        suppressing: Option<&Suppressing>,
    ) -> StoreResult<Vec<RequestId>> {
        if confirmed.is_empty() {
            return Ok(Vec::new());
        }
        let mut staging = Staging::new(customer);
        let mut bodies = Vec::with_capacity(confirmed.len());
        let (mut closed, mut followed, mut late_ones) = (Vec::new(), Vec::new(), Vec::new());
        let mut suppressed = Vec::new();
        for (c, row) in &confirmed {
            let late = now > time(row.i64(2)?, "requests")?;
            staging.add(c.request, &Event::Confirmed { confirmation: c.confirmation.clone(), late });
            let body = serde_json::to_string(c.confirmation)
                .map_err(|_| StoreError::Inconsistent { table: "confirmations", what: "it does not serialise" })?;
            bodies.push((c.request, body, late));
            let action = parsed(row, 3, "requests", Action::parse)?;
            suppressed.push(suppression::Confirmed { request: c.request, action, row, at: SUBJECT_AT });
            let state = parsed(row, 1, "requests", RequestState::parse)?;
            if matches!(state, RequestState::Completed | RequestState::CompletedWithExceptions) {
                staging.add(c.request, &Event::Completed { state, at_us: us(now), late });
                late_ones.extend(late.then_some(c.request));
                closed.push(Closed::done(c.request, action));
                followed.extend(row.opt_uuid(4)?.map(|_| c.request));
            }
        }
        let mut writes = forget_closed(tx.engine(), customer, &closed);
        writes.push(insert_confirmations(customer, system, now, bodies));
        writes.extend(staging.parts());
        writes.push(release(customer, &followed));
        if let Some(suppressing) = suppressing {
            writes.push(suppressing.part(self, customer, system, now, &suppressed)?);
        }
        // Not before the requests are written: only then all who wait for these tasks are there to be seen.
        let ids: Vec<RequestId> = confirmed.iter().map(|(c, _)| c.request).collect();
        let ended = tx.fetch_with(ended_waits(customer, system, "CONFIRMED", &ids), writes).await?;
        go_on(tx, customer, system, now, &ended, &[]).await?;
        Ok(late_ones)
    }
}

/// Told when it is durable; also where it was over before any sweep saw it overdue.
pub(crate) fn tell_completed_late(customer: &CustomerId, requests: &[RequestId]) {
    for request in requests {
        tracing::warn!(
            monotonic_counter.quittance_requests_completed_late = 1_u64,
            %customer, %request, "a request was completed after its due time"
        );
    }
}

fn insert_confirmations(
    customer: &CustomerId,
    system: &SystemId,
    now: Timestamp,
    bodies: Vec<(RequestId, String, bool)>,
) -> Part {
    let rows = Rows::new(vec![
        Column::uuids(bodies.iter().map(|(request, ..)| request.uuid())),
        Column::i64s(bodies.iter().map(|(.., late)| i64::from(*late))),
        Column::texts(bodies.into_iter().map(|(_, body, _)| body)),
    ]);
    // No ON CONFLICT: a second confirmation of a task is a defect, and must fail loudly.
    Part::new(
        "WITH v(request_id, late, body) AS ({rows})
         INSERT INTO confirmations (customer_id, request_id, system_id, body, confirmed_us, late)
         SELECT $1, request_id, $3, body, $2, late FROM v",
        vec![customer.as_str().into(), us(now).into(), system.as_str().into()],
        rows,
    )
}

/// Ends the waits on tasks that were resolved or confirmed at one system, and gives who waited.
fn ended_waits(customer: &CustomerId, system: &SystemId, reached: &str, done: &[RequestId]) -> Part {
    Part::new(
        "WITH v(request_id) AS ({rows}) DELETE FROM task_waits
         WHERE customer_id = $1 AND on_system_id = $2 AND on_request_id IN (SELECT request_id FROM v)
           AND (until_state = 'RESOLVED' OR $3 = 'CONFIRMED')
         RETURNING request_id, system_id",
        vec![customer.as_str().into(), system.as_str().into(), reached.into()],
        Rows::new(vec![Column::uuids(done.iter().map(|id| id.uuid()))]),
    )
}

/// Who waits for nothing any more is due; `also`: tasks of that system that may be free themselves.
async fn go_on(
    tx: &mut Tx,
    customer: &CustomerId,
    system: &SystemId,
    now: Timestamp,
    ended: &[Row],
    also: &[RequestId],
) -> StoreResult<()> {
    // Those of the system itself are locked by this transaction: whoever ends their last wait comes after it, and looks again.
    let own: BTreeSet<Candidate> = also.iter().map(|id| (id.uuid(), system.as_str().to_owned())).collect();
    let mut candidates = BTreeSet::new();
    for row in ended {
        candidates.insert((row.uuid(0)?, row.text(1)?));
    }
    let freed = free(tx, customer, now, candidates.union(&own)).await?;
    free_after_others(tx, customer, now, candidates.difference(&freed).cloned().collect()).await
}

/// A task that may be free: request and system.
pub(crate) type Candidate = (Uuid, String);

/// Of the given tasks, those that wait for nothing any more are due.
pub(crate) async fn release_free(
    tx: &mut Tx,
    customer: &CustomerId,
    now: Timestamp,
    candidates: BTreeSet<Candidate>,
) -> StoreResult<()> {
    let freed = free(tx, customer, now, candidates.iter()).await?;
    free_after_others(tx, customer, now, candidates.difference(&freed).cloned().collect()).await
}

/// Two transactions that end the last two waits of one task at the same moment do not see each other, and each would leave the task to
/// the other. So what seems to wait still is locked, and looked at once more: the second of the two then sees what the first did.
async fn free_after_others(
    tx: &mut Tx,
    customer: &CustomerId,
    now: Timestamp,
    candidates: BTreeSet<Candidate>,
) -> StoreResult<()> {
    if tx.engine() != Engine::Postgres || candidates.is_empty() {
        return Ok(());
    }
    let lock = "WITH v(request_id, system_id) AS ({rows})
         SELECT t.request_id FROM v JOIN tasks t ON t.customer_id = $1 AND t.request_id = v.request_id
           AND t.system_id = v.system_id ORDER BY t.request_id, t.system_id FOR UPDATE OF t";
    tx.fetch_rows(lock, vec![customer.as_str().into()], candidate_rows(candidates.iter())).await?;
    free(tx, customer, now, candidates.iter()).await.map(|_| ())
}

fn candidate_rows<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> Rows {
    let (ids, systems): (Vec<Uuid>, Vec<&str>) = candidates.map(|(id, system)| (*id, system.as_str())).unzip();
    Rows::new(vec![Column::uuids(ids), Column::texts(systems)])
}

/// Gives those that were freed. What is objected to is not, even if the objection comes while this statement waits for it.
async fn free<'a>(
    tx: &mut Tx,
    customer: &CustomerId,
    now: Timestamp,
    candidates: impl Iterator<Item = &'a Candidate>,
) -> StoreResult<BTreeSet<Candidate>> {
    let freed = tx
        .fetch_rows(
            "WITH v(request_id, system_id) AS ({rows}) UPDATE tasks SET state = 'PENDING', run_at_us = $2, reason = '' FROM v
             WHERE tasks.customer_id = $1 AND tasks.request_id = v.request_id AND tasks.system_id = v.system_id
               AND tasks.state = 'WAITING' AND tasks.reason <> 'OBJECTED'
               AND NOT EXISTS (SELECT 1 FROM task_waits w WHERE w.customer_id = $1
                 AND w.request_id = tasks.request_id AND w.system_id = tasks.system_id AND w.before_work = tasks.work)
             RETURNING tasks.system_id, tasks.action, tasks.work, tasks.request_id",
            vec![customer.as_str().into(), us(now).into()],
            candidate_rows(candidates),
        )
        .await?;
    let mut ready = Vec::with_capacity(freed.len());
    let mut candidates = BTreeSet::new();
    for row in &freed {
        let action = parsed(row, 1, "tasks", Action::parse)?;
        let system = row.text(0)?;
        ready.push((system_id(&system)?, action, parsed(row, 2, "tasks", Work::parse)?, us(now)));
        candidates.insert((row.uuid(3)?, system));
    }
    bump_ready(tx, customer, ready.into_iter()).await?;
    Ok(candidates)
}
