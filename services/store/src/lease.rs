//! Leases: who may work on a task, until when. A row with an epoch (`lease`), never a lock that lives in a connection.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use quittance_domain::{
    Timestamp,
    action::Action,
    ids::{CustomerId, RequestId, SystemId, TaskKey},
    task::Work,
};
use quittance_sql::{Column, Engine, Row, Rows, Tx, Val};
use uuid::Uuid;

use crate::{
    Store, StoreError, StoreResult, SubjectSecrets,
    agreements::time_zone,
    lifecycle::CUSTOMERS_WORD,
    log_upkeep::LOG_GOES_ON,
    replan::system_id,
    report::{NOT_BEGUN_AND_OBJECTED, pass_by, touch_requests},
    seal::{RequestKey, SealedColumn, WrappedKey},
    tx::{parsed, time, us},
};

/// Due work of one customer, at one system, of one action: what a batch is made of.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ReadyWork {
    pub customer: CustomerId,
    pub system: SystemId,
    pub action: Action,
    pub work: Work,
    bumps: i64,
}

/// How a claim is made.
#[derive(Clone, Debug)]
pub struct LeaseQuery<'a> {
    pub worker: &'a str,
    pub now: Timestamp,
    pub expires_at: Timestamp,
    pub tasks_max: u32,
}

pub struct LeasedBatch {
    pub customer: CustomerId,
    pub system: SystemId,
    pub action: Action,
    pub work: Work,
    pub tasks: Vec<LeasedTask>,
    pub expires_at: Timestamp,
    /// The agreement's: what is held until a day is held until that day's end there.
    pub time_zone: String,
}

/// A task under a lease, with what the work needs, opened.
pub struct LeasedTask {
    pub key: TaskKey,
    /// Goes with every report.
    pub lease: i64,
    pub attempts: u32,
    /// What the last attempt left: a vendor's reference, or why it was put off.
    pub reason: String,
    pub map_version: i64,
    pub due_at: Timestamp,
    pub subject: SubjectSecrets,
    /// What an earlier attempt stored.
    pub match_set: Option<Vec<u8>>,
    /// A hold has ended: its match set is all there is to go by, and nobody knows who the subject is.
    pub follows: Option<RequestId>,
    pub(crate) request_key: RequestKey,
}

/// When a task is tried again whose key was not in the ring.
const KEYLESS_AGAIN: Duration = Duration::from_secs(60);
/// Kinds of ready work that a page of a scan holds at most: enough to keep a process busy until its next look, however many customers wait.
const READY_PAGE_MAX: usize = 256;

impl Store {
    /// What is due, longest waiting first. Deployment-wide: from the small table `ready` only. Nothing begins while the log is halted.
    ///
    /// Where a page is full, the next one leaves its systems out: however many wait at one, those that wait elsewhere are seen.
    pub async fn ready_work(&self, now: Timestamp, systems: &[SystemId]) -> StoreResult<Vec<ReadyWork>> {
        let mut tx = self.deployment_read().await?;
        let mut unseen: Vec<&SystemId> = systems.iter().collect();
        let mut ready = Vec::new();
        while !unseen.is_empty() {
            let page = ready_page(&mut tx, now, &unseen).await?;
            let is_full = page.len() >= READY_PAGE_MAX;
            if is_full {
                let seen: HashSet<&SystemId> = page.iter().map(|work| &work.system).collect();
                unseen.retain(|system| !seen.contains(system));
            }
            ready.extend(page);
            if !is_full {
                break;
            }
        }
        Ok(ready)
    }

    /// Leases a batch of it. An empty batch: somebody else was faster.
    pub async fn lease(&self, ready: &ReadyWork, query: &LeaseQuery<'_>) -> StoreResult<LeasedBatch> {
        let tx = self.customer_tx(&ready.customer).await?;
        self.lease_in(tx, ready, query, None).await
    }

    /// As [`Self::lease`], of no more than so many bytes, the first task excepted. What does not fit is not read, and stays as it is.
    pub async fn lease_within(
        &self,
        ready: &ReadyWork,
        query: &LeaseQuery<'_>,
        bytes_max: usize,
    ) -> StoreResult<LeasedBatch> {
        let mut tx = self.customer_tx(&ready.customer).await?;
        let fitting = fitting(&mut tx, ready, query, bytes_max).await?;
        self.lease_in(tx, ready, query, Some(fitting)).await
    }

    async fn lease_in(
        &self,
        mut tx: Tx,
        ready: &ReadyWork,
        query: &LeaseQuery<'_>,
        fitting: Option<Fitting>,
    ) -> StoreResult<LeasedBatch> {
        let key = || -> Vec<Val> {
            vec![
                ready.customer.as_str().into(),
                ready.system.as_str().into(),
                ready.action.as_str().into(),
                ready.work.as_str().into(),
            ]
        };
        let all_fit = fitting.as_ref().is_none_or(|fitting| fitting.all);
        let moves_hint = tx.engine() == Engine::Postgres && fitting.is_none();
        let (claimed, rows) = claim(&mut tx, ready, query, key(), fitting).await?;
        match claimed {
            1.. if moves_hint => {}
            _ if all_fit && claimed < query.tasks_max as usize => settle_ready(&mut tx, ready, key()).await?,
            _ => go_behind_others(&mut tx, key(), query.now).await?,
        }
        let (tasks, time_zone) = self.open_leased(&mut tx, ready, query.now, rows).await?;
        tx.commit().await?;
        Ok(LeasedBatch {
            customer: ready.customer.clone(),
            system: ready.system.clone(),
            action: ready.action,
            work: ready.work,
            tasks,
            expires_at: query.expires_at,
            time_zone,
        })
    }

    /// The tasks, and the time zone.
    async fn open_leased(
        &self,
        tx: &mut Tx,
        ready: &ReadyWork,
        now: Timestamp,
        rows: Vec<Row>,
    ) -> StoreResult<(Vec<LeasedTask>, String)> {
        let mut tasks = Vec::with_capacity(rows.len());
        let mut time_zone = String::new();
        let (mut closed, mut keyless, mut unsealable) = (Vec::new(), Vec::new(), Vec::new());
        let mut meanwhile = stored_meanwhile(tx, ready, &rows).await?;
        let declined = closed_meanwhile(tx, ready, &rows).await?;
        let objected = hold_objected(tx, ready, now, &rows).await?;
        for row in rows {
            let id = row.uuid(0)?;
            if objected.contains(&id) {
                continue;
            }
            if row.opt_i64(9)?.is_some() || declined.contains(&id) {
                closed.push(id);
                continue;
            }
            let request = RequestId::new(id);
            let wrapped = WrappedKey::read(&row.text(5)?, row.bytes(6)?)?.ok_or(StoreError::Forgotten)?;
            let sealed = meanwhile.remove(&id).map_or_else(|| row.opt_bytes(10), |sealed| Ok(Some(sealed)))?;
            let opened = || {
                let key = RequestKey::unwrap(self.ring(), &ready.customer, request, &wrapped)?;
                let place = ready.system.as_str();
                let match_set = sealed.map(|s| key.open(SealedColumn::MatchSet, place, &s)).transpose()?;
                Ok((SubjectSecrets::open(&key, &row.bytes(7)?)?, match_set, key))
            };
            let (subject, match_set, request_key) = match opened() {
                Err(StoreError::NoEpochKey(epoch)) => {
                    tracing::warn!(customer = %ready.customer, %request, epoch, "the key of a request's epoch is missing");
                    keyless.push(id);
                    continue;
                }
                Err(StoreError::Unsealable(what)) => {
                    tracing::error!(customer = %ready.customer, %request, what, "what is sealed of a request does not open");
                    unsealable.push(id);
                    continue;
                }
                opened => opened?,
            };
            if tasks.is_empty() {
                time_zone = row.opt_text(11)?.ok_or(StoreError::NotFound("the customer"))?;
            }
            tasks.push(LeasedTask {
                key: TaskKey { customer: ready.customer.clone(), request, system: ready.system.clone() },
                lease: row.i64(1)?,
                attempts: u32::try_from(row.i64(2)?).unwrap_or(u32::MAX),
                reason: row.text(4)?,
                map_version: row.i64(3)?,
                due_at: time(row.i64(8)?, "requests")?,
                subject,
                match_set,
                follows: row.opt_uuid(12)?.map(RequestId::new),
                request_key,
            });
        }
        // Declined while it was at work, and put off or forgotten by its worker since: no attempt begins any more (I1).
        leave_to_a_person(tx, ready, now, "REQUEST_CLOSED", closed.clone()).await?;
        pass_by(tx, &ready.customer, &ready.system, now, &closed).await?;
        // It will not open the next time either, and must not hold up the rest.
        leave_to_a_person(tx, ready, now, "UNSEALABLE", unsealable).await?;
        put_aside(tx, ready, now, keyless).await?;
        tasks.sort_by_key(|t| t.key.request);
        Ok((tasks, time_zone))
    }

    /// A heartbeat. Gives the tasks whose lease is lost.
    pub async fn extend_leases(
        &self,
        customer: &CustomerId,
        system: &SystemId,
        leases: &[(RequestId, i64)],
        now: Timestamp,
        expires_at: Timestamp,
    ) -> StoreResult<Vec<RequestId>> {
        let mut tx = self.customer_tx(customer).await?;
        let kept = tx
            .fetch_rows(
                "WITH v(request_id, lease) AS ({rows}) UPDATE tasks SET run_at_us = $4 FROM v
                 WHERE tasks.customer_id = $1 AND tasks.system_id = $2 AND tasks.request_id = v.request_id
                   AND tasks.lease = v.lease AND coalesce(tasks.state, '') = 'RUNNING' AND tasks.run_at_us + 0 > $3
                 RETURNING tasks.request_id",
                vec![customer.as_str().into(), system.as_str().into(), us(now).into(), us(expires_at).into()],
                lease_rows(leases),
            )
            .await?;
        tx.commit().await?;
        let kept: HashSet<_> = kept.iter().map(|r| r.uuid(0)).collect::<Result<_, _>>()?;
        Ok(leases.iter().map(|(id, _)| *id).filter(|id| !kept.contains(&id.uuid())).collect())
    }

    /// How long until something is due; `None`: nothing is.
    pub async fn next_ready(&self) -> StoreResult<Option<Timestamp>> {
        let mut tx = self.deployment_read().await?;
        let row = tx.fetch_one("SELECT min(ready_us) FROM ready", vec![]).await?;
        row.map(|r| r.opt_i64(0)).transpose()?.flatten().map(|us| time(us, "ready")).transpose()
    }

    /// The systems that a worker's tasks belong to; for checks at the edge.
    pub async fn task_system(&self, key: &TaskKey) -> StoreResult<SystemId> {
        let mut tx = self.customer_read(&key.customer).await?;
        let sql = "SELECT system_id FROM tasks WHERE customer_id = $1 AND request_id = $2 AND system_id = $3";
        let args = vec![key.customer.as_str().into(), key.request.uuid().into(), key.system.as_str().into()];
        system_id(&tx.fetch_one(sql, args).await?.ok_or(StoreError::NotFound("the task"))?.text(0)?)
    }
}

async fn ready_page(tx: &mut Tx, now: Timestamp, systems: &[&SystemId]) -> StoreResult<Vec<ReadyWork>> {
    let rows = tx
        .fetch_rows(
            &format!(
                "WITH v(system_id) AS ({{rows}})
                 SELECT r.customer_id, r.system_id, r.action, r.work, r.bumps FROM ready r
                 JOIN v ON v.system_id = r.system_id
                 WHERE r.ready_us <= $1 AND {LOG_GOES_ON} ORDER BY r.ready_us LIMIT $2"
            ),
            vec![us(now).into(), i64::try_from(READY_PAGE_MAX).unwrap_or(i64::MAX).into()],
            Rows::new(vec![Column::texts(systems.iter().map(|system| system.as_str()))]),
        )
        .await?;
    rows.iter()
        .map(|row| {
            let broken = |_| StoreError::Inconsistent { table: "ready", what: "an id is not one" };
            Ok(ReadyWork {
                customer: CustomerId::new(&row.text(0)?).map_err(broken)?,
                system: SystemId::new(&row.text(1)?).map_err(broken)?,
                action: parsed(row, 2, "ready", Action::parse)?,
                work: parsed(row, 3, "ready", Work::parse)?,
                bumps: row.i64(4)?,
            })
        })
        .collect()
}

/// The tasks of a batch by request and lease.
///
/// Statements that join it wrap `state` and `run_at_us` (`coalesce(…)`, `… + 0`): so no partial index fits, and each task is looked up
/// by its primary key, whatever the planner believes of a table that it has no statistics of.
pub(crate) fn lease_rows(leases: &[(RequestId, i64)]) -> Rows {
    Rows::new(vec![
        Column::uuids(leases.iter().map(|(id, _)| id.uuid())),
        Column::i64s(leases.iter().map(|(_, lease)| *lease)),
    ])
}

/// Claims what is due, and gives how many tasks that was, and the tasks with what the work needs. On PostgreSQL that is one round trip, which
/// where the whole batch is claimed moves the hint as well.
async fn claim(
    tx: &mut Tx,
    ready: &ReadyWork,
    query: &LeaseQuery<'_>,
    mut args: Vec<Val>,
    fitting: Option<Fitting>,
) -> StoreResult<(usize, Vec<Row>)> {
    let postgres = tx.engine() == Engine::Postgres;
    // The due ones first, once, by `tasks_due`; then each by its primary key. As an array, since a planner without statistics
    // joins the other way round, and that is quadratic.
    let among_due =
        if postgres { "= ANY (ARRAY(SELECT request_id FROM due))" } else { "IN (SELECT request_id FROM due)" };
    let due = match fitting {
        Some(_) => "due(request_id) AS ({rows})".to_owned(),
        None => format!("due AS MATERIALIZED ({})", due_tasks(tx.engine(), "$7", "$8")),
    };
    let update = format!(
        "UPDATE tasks SET state = 'RUNNING', lease = lease + 1, attempts = attempts + 1, leased_by = $5, run_at_us = $6
         WHERE customer_id = $1 AND system_id = $2 AND request_id {among_due}
         RETURNING request_id, lease, attempts, map_version, reason"
    );
    let time_zone = time_zone(tx.engine());
    let opened = |claimed: &str| {
        format!(
            "SELECT t.request_id, t.lease, t.attempts, t.map_version, t.reason, r.key_epoch, r.wrapped_key, r.sealed_subject,
               r.due_us, r.closed_us, (SELECT m.sealed FROM match_sets m
                 WHERE m.customer_id = $1 AND m.request_id = r.request_id AND m.system_id = $2), {time_zone}, r.follows_request_id
             FROM {claimed} JOIN requests r ON r.customer_id = $1 AND r.request_id = t.request_id"
        )
    };
    args.push(query.worker.into());
    args.push(us(query.expires_at).into());
    let sql = match (postgres, &fitting) {
        (true, None) => format!("WITH {due}, claimed AS ({update}), moved AS ({MOVE_HINT}) {}", opened("claimed t")),
        (true, Some(_)) => format!("WITH {due}, claimed AS ({update}) {}", opened("claimed t")),
        (false, _) => format!("WITH {due} {update}"),
    };
    let claimed = match fitting {
        Some(fitting) => tx.fetch_rows(&sql, args, Rows::new(vec![Column::uuids(fitting.requests)])).await?,
        None => {
            args.push(us(query.now).into());
            args.push(query.tasks_max.into());
            if postgres {
                args.push(ready.bumps.into());
            }
            tx.fetch(&sql, args).await?
        }
    };
    if postgres {
        return Ok((claimed.len(), claimed));
    }
    let ids: Vec<_> = claimed.iter().map(|row| row.uuid(0)).collect::<Result<_, _>>()?;
    let tasks = "v JOIN tasks t ON t.customer_id = $1 AND t.system_id = $2 AND t.request_id = v.request_id";
    let rows = tx
        .fetch_rows(
            &format!("WITH v(request_id) AS ({{rows}}) {}", opened(tasks)),
            vec![ready.customer.as_str().into(), ready.system.as_str().into()],
            Rows::new(vec![Column::uuids(ids)]),
        )
        .await?;
    Ok((claimed.len(), rows))
}

/// As [`settle_ready`] and [`go_behind_others`] do it, with a claim of `$8` tasks at most from `due`. A statement sees the tasks as they were before
/// it: those that it claims are due again when their leases pass (`$6`).
const MOVE_HINT: &str = "UPDATE ready
     SET ready_us = CASE WHEN n.claimed < $8 THEN least($6, n.other_us) ELSE greatest(ready.ready_us, $7) END
     FROM (SELECT (SELECT count(*) FROM due) AS claimed, (SELECT min(run_at_us) FROM tasks
             WHERE customer_id = $1 AND system_id = $2 AND action = $3 AND work = $4
               AND state IN ('PENDING', 'RUNNING', 'AWAITING_CONFIRMATION') AND request_id NOT IN (SELECT request_id FROM due)) AS other_us) n
     WHERE ready.customer_id = $1 AND ready.system_id = $2 AND ready.action = $3 AND ready.work = $4
       AND (n.claimed >= $8 OR (n.claimed > 0 AND ready.bumps = $9))";

/// What is due, the longest first; on PostgreSQL held, but for what others hold.
fn due_tasks(engine: Engine, now: &str, limit: &str) -> String {
    let skip_locked = if engine == Engine::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    format!(
        "SELECT request_id FROM tasks WHERE customer_id = $1 AND system_id = $2 AND action = $3 AND work = $4
           AND state IN ('PENDING', 'RUNNING', 'AWAITING_CONFIRMATION') AND run_at_us <= {now}
         ORDER BY run_at_us LIMIT {limit} {skip_locked}"
    )
}

/// What of the due work fits into an answer.
struct Fitting {
    requests: Vec<Uuid>,
    /// Nothing that is due was left out.
    all: bool,
}

/// By the lengths of what is stored: none of it is read before it is known to fit. Held first and measured then, since on PostgreSQL a
/// statement does not see a match set that was stored after it began.
async fn fitting(tx: &mut Tx, ready: &ReadyWork, query: &LeaseQuery<'_>, bytes_max: usize) -> StoreResult<Fitting> {
    let (customer, system) = (Val::from(ready.customer.as_str()), Val::from(ready.system.as_str()));
    let kind = vec![customer.clone(), system.clone(), ready.action.as_str().into(), ready.work.as_str().into()];
    let bounds = vec![us(query.now).into(), query.tasks_max.into()];
    let due = tx.fetch(&due_tasks(tx.engine(), "$5", "$6"), [kind, bounds].concat()).await?;
    let due: Vec<Uuid> = due.iter().map(|row| row.uuid(0)).collect::<Result<_, _>>()?;
    let lengths = tx
        .fetch_rows(
            "WITH v(request_id) AS ({rows})
             SELECT r.request_id, CAST(length(r.sealed_subject) + coalesce((SELECT length(m.sealed) FROM match_sets m
                 WHERE m.customer_id = $1 AND m.request_id = r.request_id AND m.system_id = $2), 0) AS BIGINT)
             FROM v JOIN requests r ON r.customer_id = $1 AND r.request_id = v.request_id",
            vec![customer, system],
            Rows::new(vec![Column::uuids(due.iter().copied())]),
        )
        .await?;
    let lengths: HashMap<Uuid, i64> =
        lengths.iter().map(|row| Ok((row.uuid(0)?, row.i64(1)?))).collect::<StoreResult<_>>()?;
    let mut left = i64::try_from(bytes_max).unwrap_or(i64::MAX);
    let mut requests = Vec::with_capacity(due.len());
    for id in &due {
        let length = lengths.get(id).copied().unwrap_or_default();
        // One that is larger than an answer goes out alone: it would never go otherwise.
        if length <= left || requests.is_empty() {
            left = left.saturating_sub(length);
            requests.push(*id);
        }
    }
    Ok(Fitting { all: requests.len() == due.len(), requests })
}

/// The match sets of tasks that somebody had before. On PostgreSQL the claim may have begun before that worker stored one and come to the
/// task after: it then sees the task as it is, and not the match set. What begins now sees it, and with the task held no other comes (I4).
async fn stored_meanwhile(tx: &mut Tx, ready: &ReadyWork, claimed: &[Row]) -> StoreResult<HashMap<Uuid, Vec<u8>>> {
    if tx.engine() != Engine::Postgres {
        return Ok(HashMap::new());
    }
    let before = leased_before(claimed)?;
    let rows = tx
        .fetch_rows(
            "WITH v(request_id) AS ({rows}) SELECT m.request_id, m.sealed FROM v
             JOIN match_sets m ON m.customer_id = $1 AND m.request_id = v.request_id AND m.system_id = $2",
            vec![ready.customer.as_str().into(), ready.system.as_str().into()],
            Rows::new(vec![Column::uuids(before)]),
        )
        .await?;
    rows.iter().map(|row| Ok((row.uuid(0)?, row.bytes(1)?))).collect()
}

fn leased_before(claimed: &[Row]) -> StoreResult<Vec<Uuid>> {
    let mut before = Vec::new();
    for row in claimed {
        if row.i64(1)? > 1 {
            before.push(row.uuid(0)?);
        }
    }
    Ok(before)
}

/// As with match sets: what was at work when its request was declined is unchanged by that, and the claim may have begun before.
async fn closed_meanwhile(tx: &mut Tx, ready: &ReadyWork, claimed: &[Row]) -> StoreResult<HashSet<Uuid>> {
    let before = leased_before(claimed)?;
    if tx.engine() != Engine::Postgres || before.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = tx
        .fetch_rows(
            "WITH v(request_id) AS ({rows}) SELECT r.request_id FROM v
             JOIN requests r ON r.customer_id = $1 AND r.request_id = v.request_id AND r.closed_us IS NOT NULL",
            vec![ready.customer.as_str().into()],
            Rows::new(vec![Column::uuids(before)]),
        )
        .await?;
    rows.iter().map(|row| Ok(row.uuid(0)?)).collect()
}

/// Of what somebody had before, and lost with its lease: what is objected to since, and was not begun, waits for the customer's word (I1).
async fn hold_objected(tx: &mut Tx, ready: &ReadyWork, now: Timestamp, claimed: &[Row]) -> StoreResult<HashSet<Uuid>> {
    let before = leased_before(claimed)?;
    if before.is_empty() {
        return Ok(HashSet::new());
    }
    let sql = format!(
        "WITH v(request_id) AS ({{rows}}) UPDATE tasks SET state = 'WAITING', reason = 'OBJECTED' FROM v
         WHERE tasks.customer_id = $1 AND tasks.system_id = $2 AND tasks.request_id = v.request_id AND {NOT_BEGUN_AND_OBJECTED}
         RETURNING tasks.request_id"
    );
    let args = vec![ready.customer.as_str().into(), ready.system.as_str().into(), CUSTOMERS_WORD.into()];
    let held = tx.fetch_rows(&sql, args, Rows::new(vec![Column::uuids(before)])).await?;
    let held: Vec<Uuid> = held.iter().map(|row| row.uuid(0)).collect::<Result<_, _>>()?;
    touch_requests(tx, &ready.customer, now, held.clone()).await?;
    Ok(held.into_iter().collect())
}

async fn leave_to_a_person(
    tx: &mut Tx,
    ready: &ReadyWork,
    now: Timestamp,
    reason: &str,
    tasks: Vec<Uuid>,
) -> StoreResult<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    tx.execute_rows(
        "WITH v(request_id) AS ({rows}) UPDATE tasks SET state = 'NEEDS_ATTENTION', reason = $3 FROM v
         WHERE tasks.customer_id = $1 AND tasks.system_id = $2 AND tasks.request_id = v.request_id",
        vec![ready.customer.as_str().into(), ready.system.as_str().into(), reason.into()],
        Rows::new(vec![Column::uuids(tasks.iter().copied())]),
    )
    .await?;
    touch_requests(tx, &ready.customer, now, tasks).await
}

/// What cannot be opened does not hold up the rest. Its key may come back: it is tried again.
async fn put_aside(tx: &mut Tx, ready: &ReadyWork, now: Timestamp, keyless: Vec<Uuid>) -> StoreResult<()> {
    let again_at = now.checked_add(KEYLESS_AGAIN).unwrap_or(Timestamp::MAX);
    tx.execute_rows(
        "WITH v(request_id) AS ({rows}) UPDATE tasks SET state = 'PENDING', run_at_us = $3, reason = 'KEY_MISSING' FROM v
         WHERE tasks.customer_id = $1 AND tasks.system_id = $2 AND tasks.request_id = v.request_id",
        vec![ready.customer.as_str().into(), ready.system.as_str().into(), us(again_at).into()],
        Rows::new(vec![Column::uuids(keyless)]),
    )
    .await?;
    Ok(())
}

/// There may be more that is due; but whoever else waits comes first. Or customers with a great many requests would keep a new one out of
/// [`READY_PAGE_MAX`].
async fn go_behind_others(tx: &mut Tx, key: Vec<Val>, now: Timestamp) -> StoreResult<()> {
    let mut args = key;
    args.push(us(now).into());
    let sql = "UPDATE ready SET ready_us = $5
               WHERE customer_id = $1 AND system_id = $2 AND action = $3 AND work = $4 AND ready_us < $5";
    tx.execute(sql, args).await?;
    Ok(())
}

/// The claim took all that was due: the hint moves to what comes next (a retry, a lease that passes), or goes.
async fn settle_ready(tx: &mut Tx, ready: &ReadyWork, key: Vec<Val>) -> StoreResult<()> {
    let mut args = key;
    args.push(ready.bumps.into());
    let hint =
        "ready.customer_id = $1 AND ready.system_id = $2 AND ready.action = $3 AND ready.work = $4 AND bumps = $5";
    let open = "FROM tasks WHERE customer_id = $1 AND system_id = $2 AND action = $3 AND work = $4
                AND state IN ('PENDING', 'RUNNING', 'AWAITING_CONFIRMATION')";
    let moved = format!(
        "UPDATE ready SET ready_us = n.next_us FROM (SELECT min(run_at_us) AS next_us {open}) n
         WHERE {hint} AND n.next_us IS NOT NULL"
    );
    if tx.execute(&moved, args.clone()).await? == 0 {
        tx.execute(&format!("DELETE FROM ready WHERE {hint} AND NOT EXISTS (SELECT 1 {open})"), args).await?;
    }
    Ok(())
}
