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
use quittance_sql::{Column, Engine, Row, Rows, Tx, Val};
use uuid::Uuid;

use crate::{
    LeasedTask, Store, StoreError, StoreResult, SubjectSecrets, changes,
    intake::wrapped_key,
    ledger::Staging,
    lifecycle::locked_state,
    lines::{Closed, forget_closed},
    replan::{bump_ready, system_id},
    seal::{RequestKey, SealedColumn},
    systems::hold_generation,
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

struct Confirmed {
    request: RequestId,
    system: SystemId,
    confirmation: Confirmation,
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
                Some(key) => sealed.push((request, lease, key.seal(SealedColumn::MatchSet, system.as_str(), &plain)?)),
                None => unknown.push(request),
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
        let kept = tx
            .fetch_rows(
                "WITH v(request_id, lease, sealed) AS ({rows})
                 INSERT INTO match_sets (customer_id, request_id, system_id, sealed)
                 SELECT $1, v.request_id, $2, v.sealed FROM v JOIN tasks t ON t.customer_id = $1
                   AND t.request_id = v.request_id AND t.system_id = $2
                 WHERE t.lease = v.lease AND coalesce(t.state, '') = 'RUNNING' AND t.run_at_us + 0 > $3
                 ON CONFLICT (customer_id, request_id, system_id) DO UPDATE SET sealed = excluded.sealed
                 RETURNING request_id",
                vec![customer.as_str().into(), system.as_str().into(), us(now).into()],
                rows,
            )
            .await?;
        tx.commit().await?;
        self.grown(kept.len()).await;
        let kept: HashSet<Uuid> = kept.iter().map(|r| r.uuid(0)).collect::<Result<_, _>>()?;
        Ok(ids.into_iter().filter(|id| !kept.contains(&id.uuid())).collect())
    }

    pub(crate) async fn request_keys(
        &self,
        customer: &CustomerId,
        ids: impl Iterator<Item = RequestId>,
    ) -> StoreResult<HashMap<RequestId, RequestKey>> {
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
            let wrapped = wrapped_key(&row.text(1)?, row.bytes(2)?)?;
            keys.insert(id, RequestKey::unwrap(self.ring(), customer, id, &wrapped)?);
        }
        Ok(keys)
    }

    /// Records what came of leased tasks, all in one transaction. Gives those whose lease was lost: of them nothing was recorded.
    pub async fn report(
        &self,
        customer: &CustomerId,
        system: &SystemId,
        now: Timestamp,
        reports: Vec<Report>,
    ) -> StoreResult<Vec<RequestId>> {
        let mut tx = self.customer_tx(customer).await?;
        let generation = hold_generation(&mut tx).await?;
        let mut lost: Vec<RequestId> = Vec::new();
        let mut done = Vec::new();
        let mut later = Vec::new();
        let mut resolved = Vec::new();
        for report in reports {
            match report.result {
                ReportResult::Done(confirmation) => done.push((report.request, report.lease, confirmation)),
                ReportResult::Resolved(found) => resolved.push((report.request, report.lease, found)),
                ReportResult::Awaiting { check_at, reference } => {
                    later.push((report.request, report.lease, "AWAITING_CONFIRMATION", us(check_at), reference));
                }
                ReportResult::Retry { at, reason } => {
                    later.push((report.request, report.lease, "PENDING", us(at), reason));
                }
                ReportResult::Attention { reason } => {
                    later.push((report.request, report.lease, "NEEDS_ATTENTION", us(now), reason));
                }
            }
        }
        put_off(&mut tx, customer, system, now, &later, &mut lost).await?;
        let confirmed = fence_done(&mut tx, customer, system, now, done, &mut lost).await?;
        confirm(&mut tx, customer, now, generation, &confirmed).await?;
        if !resolved.is_empty() {
            self.resolve(&mut tx, customer, system, now, resolved, &mut lost).await?;
        }
        tx.commit().await?;
        Ok(lost)
    }

    /// An operator confirms a task that needs attention, with evidence or as `UNCONFIRMED`.
    pub async fn resolve_task(
        &self,
        key: &TaskKey,
        confirmation: Confirmation,
        by: &str,
        now: Timestamp,
    ) -> StoreResult<()> {
        let mut tx = self.customer_tx(&key.customer).await?;
        let generation = hold_generation(&mut tx).await?;
        let changed = tx
            .execute(
                "UPDATE tasks SET state = 'CONFIRMED', lease = lease + 1, reason = ''
                 WHERE customer_id = $1 AND request_id = $2 AND system_id = $3 AND state = 'NEEDS_ATTENTION'",
                task_args(key),
            )
            .await?;
        if changed != 1 {
            return Err(not_in_attention(&mut tx, key).await?);
        }
        let mut staging = Staging::new(&key.customer);
        staging.add(key.request, &operated(key, Operation::Resolved, by, now));
        staging.write(&mut tx).await?;
        let confirmed = vec![Confirmed { request: key.request, system: key.system.clone(), confirmation }];
        confirm(&mut tx, &key.customer, now, generation, &confirmed).await?;
        Ok(tx.commit().await?)
    }

    /// An operator lets a task that needs attention run again.
    pub async fn retry_task(&self, key: &TaskKey, by: &str, now: Timestamp) -> StoreResult<()> {
        let mut tx = self.customer_tx(&key.customer).await?;
        // Nothing runs for a request that waits for its customer's word, or is closed (I1).
        let state = locked_state(&mut tx, &key.customer, key.request).await?;
        if state != RequestState::InProgress {
            return Err(StoreError::WrongState(format!("the request is {state}")));
        }
        let retried = tx
            .execute(
                "UPDATE tasks SET state = 'WAITING', attempts = 0, reason = ''
                 WHERE customer_id = $1 AND request_id = $2 AND system_id = $3 AND state = 'NEEDS_ATTENTION'",
                task_args(key),
            )
            .await?;
        if retried != 1 {
            return Err(not_in_attention(&mut tx, key).await?);
        }
        // It may have been planned behind an earlier instruction about the same person, and still be.
        let candidate = (key.request.uuid(), key.system.to_string());
        release_free(&mut tx, &key.customer, now, [candidate].into()).await?;
        let mut staging = Staging::new(&key.customer);
        staging.add(key.request, &operated(key, Operation::Retried, by, now));
        staging.write(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Identifiers were found: they are sealed with the request, and whoever waited for them may go on.
    async fn resolve(
        &self,
        tx: &mut Tx,
        customer: &CustomerId,
        system: &SystemId,
        now: Timestamp,
        resolved: Vec<(RequestId, i64, Vec<Identifier>)>,
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
                crate::lease::lease_rows(&leases),
            )
            .await?;
        let fenced: HashSet<Uuid> = fenced.iter().map(|r| r.uuid(0)).collect::<Result<_, _>>()?;
        let (kept, gone): (Vec<_>, Vec<_>) = resolved.into_iter().partition(|(id, ..)| fenced.contains(&id.uuid()));
        lost.extend(gone.into_iter().map(|(id, ..)| id));
        self.add_identifiers(tx, customer, &kept).await?;
        let ids: Vec<RequestId> = kept.iter().map(|(id, ..)| *id).collect();
        release(tx, customer, now, &ids, system, "RESOLVED", &ids).await
    }

    async fn add_identifiers(
        &self,
        tx: &mut Tx,
        customer: &CustomerId,
        found: &[(RequestId, i64, Vec<Identifier>)],
    ) -> StoreResult<()> {
        let found: HashMap<Uuid, &Vec<Identifier>> = found.iter().map(|(id, _, f)| (id.uuid(), f)).collect();
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
            let wrapped = wrapped_key(&row.text(1)?, row.bytes(2)?)?;
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

fn task_args(key: &TaskKey) -> Vec<Val> {
    vec![key.customer.as_str().into(), key.request.uuid().into(), key.system.as_str().into()]
}

fn operated(key: &TaskKey, what: Operation, by: &str, now: Timestamp) -> Event {
    Event::Operated { system: key.system.clone(), what, by: by.to_owned(), at_us: us(now) }
}

async fn not_in_attention(tx: &mut Tx, key: &TaskKey) -> StoreResult<StoreError> {
    let sql = "SELECT state FROM tasks WHERE customer_id = $1 AND request_id = $2 AND system_id = $3";
    Ok(match tx.fetch_one(sql, task_args(key)).await? {
        None => StoreError::NotFound("the task"),
        Some(row) => StoreError::WrongState(format!("the task is {}, not NEEDS_ATTENTION", row.text(0)?)),
    })
}

type Later = (RequestId, i64, &'static str, i64, String);

/// Back to the queue, or to a person; with a look at the lease.
async fn put_off(
    tx: &mut Tx,
    customer: &CustomerId,
    system: &SystemId,
    now: Timestamp,
    later: &[Later],
    lost: &mut Vec<RequestId>,
) -> StoreResult<()> {
    let rows = Rows::new(vec![
        Column::uuids(later.iter().map(|l| l.0.uuid())),
        Column::i64s(later.iter().map(|l| l.1)),
        Column::texts(later.iter().map(|l| l.2)),
        Column::i64s(later.iter().map(|l| l.3)),
        Column::texts(later.iter().map(|l| l.4.as_str())),
    ]);
    let kept = tx
        .fetch_rows(
            "WITH v(request_id, lease, state, run_at_us, reason) AS ({rows}) UPDATE tasks
             SET state = v.state, run_at_us = v.run_at_us, reason = v.reason FROM v
             WHERE tasks.customer_id = $1 AND tasks.system_id = $2 AND tasks.request_id = v.request_id
               AND tasks.lease = v.lease AND coalesce(tasks.state, '') = 'RUNNING' AND tasks.run_at_us + 0 > $3
             RETURNING tasks.request_id, tasks.action, tasks.work, tasks.state, tasks.run_at_us",
            vec![customer.as_str().into(), system.as_str().into(), us(now).into()],
            rows,
        )
        .await?;
    let mut ready = Vec::new();
    let mut known = HashSet::new();
    for row in &kept {
        known.insert(row.uuid(0)?);
        if row.text(3)? != "NEEDS_ATTENTION" {
            let action = parsed(row, 1, "tasks", Action::parse)?;
            ready.push((system.clone(), action, parsed(row, 2, "tasks", Work::parse)?, row.i64(4)?));
        }
    }
    lost.extend(later.iter().map(|l| l.0).filter(|id| !known.contains(&id.uuid())));
    if ready.len() < kept.len() {
        touch_requests(tx, customer, now, kept.iter().map(|r| r.uuid(0)).collect::<Result<_, _>>()?).await?;
    }
    bump_ready(tx, customer, ready.into_iter()).await
}

/// So that whoever watches sees it.
async fn touch_requests(tx: &mut Tx, customer: &CustomerId, now: Timestamp, ids: Vec<Uuid>) -> StoreResult<()> {
    let sql = format!(
        "WITH v(request_id) AS ({{rows}}) UPDATE requests SET changed_us = $2, changed_seq = {} FROM v
         WHERE requests.customer_id = $1 AND requests.request_id = v.request_id",
        changes::seq(tx)
    );
    tx.execute_rows(&sql, vec![customer.as_str().into(), us(now).into()], Rows::new(vec![Column::uuids(ids)])).await?;
    Ok(())
}

/// Confirms tasks whose lease still holds. Zero rows mean that it does not: nothing is recorded for them (I4).
async fn fence_done(
    tx: &mut Tx,
    customer: &CustomerId,
    system: &SystemId,
    now: Timestamp,
    done: Vec<(RequestId, i64, Confirmation)>,
    lost: &mut Vec<RequestId>,
) -> StoreResult<Vec<Confirmed>> {
    let leases: Vec<(RequestId, i64)> = done.iter().map(|(id, lease, _)| (*id, *lease)).collect();
    let kept = tx
        .fetch_rows(
            "WITH v(request_id, lease) AS ({rows}) UPDATE tasks SET state = 'CONFIRMED', reason = '' FROM v
             WHERE tasks.customer_id = $1 AND tasks.system_id = $2 AND tasks.request_id = v.request_id
               AND tasks.lease = v.lease AND coalesce(tasks.state, '') = 'RUNNING' AND tasks.work = 'ACT' AND tasks.run_at_us + 0 > $3
             RETURNING tasks.request_id",
            vec![customer.as_str().into(), system.as_str().into(), us(now).into()],
            crate::lease::lease_rows(&leases),
        )
        .await?;
    let mut kept: HashSet<Uuid> = kept.iter().map(|r| r.uuid(0)).collect::<Result<_, _>>()?;
    let mut confirmed = Vec::with_capacity(kept.len());
    for (request, _, confirmation) in done {
        // Taken out: a task that stands twice in a report is confirmed by the first.
        if kept.remove(&request.uuid()) {
            confirmed.push(Confirmed { request, system: system.clone(), confirmation });
        } else {
            lost.push(request);
        }
    }
    Ok(confirmed)
}

/// The one place where confirmations are recorded, and where requests complete.
async fn confirm(
    tx: &mut Tx,
    customer: &CustomerId,
    now: Timestamp,
    generation: i64,
    confirmed: &[Confirmed],
) -> StoreResult<()> {
    if confirmed.is_empty() {
        return Ok(());
    }
    let mut exceptions: HashMap<RequestId, i64> = HashMap::new();
    for c in confirmed {
        *exceptions.entry(c.request).or_default() += i64::from(c.confirmation.is_exception());
    }
    // A batch has one task of a request, so each request stands here once.
    let rows = Rows::new(vec![
        Column::uuids(confirmed.iter().map(|c| c.request.uuid())),
        Column::i64s(confirmed.iter().map(|c| exceptions[&c.request])),
    ]);
    let closes = "requests.open_tasks = 1 AND requests.systems_generation = $3 AND requests.state = 'IN_PROGRESS'";
    let seq = changes::seq(tx);
    let sql = format!(
        "WITH v(request_id, exceptions) AS ({{rows}}) UPDATE requests SET
           open_tasks = requests.open_tasks - 1,
           exceptions = requests.exceptions + v.exceptions,
           changed_us = $2,
           changed_seq = {seq},
           closed_us = CASE WHEN {closes} THEN $2 ELSE requests.closed_us END,
           state = CASE WHEN {closes} AND requests.exceptions + v.exceptions = 0 THEN 'COMPLETED'
                        WHEN {closes} THEN 'COMPLETED_WITH_EXCEPTIONS' ELSE requests.state END
         FROM v WHERE requests.customer_id = $1 AND requests.request_id = v.request_id
         RETURNING requests.request_id, requests.state, requests.due_us, requests.action"
    );
    let args = vec![customer.as_str().into(), us(now).into(), generation.into()];
    let updated = tx.fetch_rows(&sql, args, rows).await?;
    let mut requests: HashMap<Uuid, &Row> = HashMap::with_capacity(updated.len());
    for row in &updated {
        requests.insert(row.uuid(0)?, row);
    }
    let mut staging = Staging::new(customer);
    let mut bodies = Vec::with_capacity(confirmed.len());
    let mut closed = Vec::new();
    for c in confirmed {
        let row = requests
            .get(&c.request.uuid())
            .ok_or(StoreError::Inconsistent { table: "requests", what: "a task has no request" })?;
        let late = now > time(row.i64(2)?, "requests")?;
        staging.add(c.request, &Event::Confirmed { confirmation: c.confirmation.clone(), late });
        let body = serde_json::to_string(&c.confirmation)
            .map_err(|_| StoreError::Inconsistent { table: "confirmations", what: "it does not serialise" })?;
        bodies.push((c, body, late));
        let state = parsed(row, 1, "requests", RequestState::parse)?;
        if matches!(state, RequestState::Completed | RequestState::CompletedWithExceptions) {
            staging.add(c.request, &Event::Completed { state, at_us: us(now), late });
            let action = parsed(row, 3, "requests", Action::parse)?;
            closed.push(Closed::done(c.request, action));
        }
    }
    insert_confirmations(tx, customer, now, &bodies).await?;
    staging.write(tx).await?;
    if let [one, ..] = confirmed {
        // All of a batch are of one system.
        let ids: Vec<RequestId> = confirmed.iter().map(|c| c.request).collect();
        release(tx, customer, now, &ids, &one.system, "CONFIRMED", &[]).await?;
    }
    forget_closed(tx, customer, &closed).await
}

async fn insert_confirmations(
    tx: &mut Tx,
    customer: &CustomerId,
    now: Timestamp,
    bodies: &[(&Confirmed, String, bool)],
) -> StoreResult<()> {
    let rows = Rows::new(vec![
        Column::uuids(bodies.iter().map(|(c, ..)| c.request.uuid())),
        Column::texts(bodies.iter().map(|(c, ..)| c.system.as_str())),
        Column::texts(bodies.iter().map(|(_, body, _)| body.as_str())),
        Column::i64s(bodies.iter().map(|(.., late)| i64::from(*late))),
    ]);
    // No ON CONFLICT: a second confirmation of a task is a defect, and must fail loudly.
    tx.execute_rows(
        "WITH v(request_id, system_id, body, late) AS ({rows})
         INSERT INTO confirmations (customer_id, request_id, system_id, body, confirmed_us, late)
         SELECT $1, request_id, system_id, body, $2, late FROM v",
        vec![customer.as_str().into(), us(now).into()],
        rows,
    )
    .await?;
    Ok(())
}

/// Ends the waits on tasks that were resolved or confirmed at one system; `also`: tasks of that system that may be free themselves.
async fn release(
    tx: &mut Tx,
    customer: &CustomerId,
    now: Timestamp,
    done: &[RequestId],
    system: &SystemId,
    reached: &str,
    also: &[RequestId],
) -> StoreResult<()> {
    let ended = tx
        .fetch_rows(
            "WITH v(request_id) AS ({rows}) DELETE FROM task_waits
             WHERE customer_id = $1 AND on_system_id = $2 AND on_request_id IN (SELECT request_id FROM v)
               AND (until_state = 'RESOLVED' OR $3 = 'CONFIRMED')
             RETURNING request_id, system_id",
            vec![customer.as_str().into(), system.as_str().into(), reached.into()],
            Rows::new(vec![Column::uuids(done.iter().map(|id| id.uuid()))]),
        )
        .await?;
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
