//! Tasks come into being here: at intake, when a customer authorises, and when a system was added meanwhile (I3).

use std::collections::{BTreeMap, HashMap, HashSet};

use quittance_domain::{
    Timestamp,
    action::Action,
    ids::{CustomerId, RequestId, SystemId},
    plan::{PlannedTask, carry_after_named, concerned, plan_anyhow},
    request::{Notice, RequestEvent, RequestState},
    task::{TaskState, Work},
};
use quittance_ledger::Event;
use quittance_sql::{Column, Engine, Part, Row, Rows, Tx};
use uuid::Uuid;

use crate::{
    Store, StoreError, StoreResult, SubjectSecrets, Topology, changes,
    intake::planned_event,
    kept::release,
    ledger::Staging,
    lines::{self, Closed, forget_closed},
    rekey::alone,
    report::tell_completed_late,
    requests::read_list,
    seal::{RequestKey, WrappedKey},
    systems::hold_generation,
    tx::{parsed, time, us},
};

/// Requests replanned in one transaction.
const REPLAN_BATCH: i64 = 500;

/// The tasks of one request, to be inserted.
pub(crate) struct Insertion<'a> {
    pub id: RequestId,
    pub action: Action,
    pub tasks: &'a [PlannedTask],
    /// Empty where the request already stands in the order of its subject.
    pub pseudonyms: &'a [Vec<u8>],
}

struct NewTask<'a> {
    request: RequestId,
    action: Action,
    planned: &'a PlannedTask,
    state: TaskState,
}

/// Tasks that are ready to be written.
pub(crate) struct Planned {
    pub writes: Vec<Part>,
    /// The requests that had one before them.
    pub behind: HashSet<RequestId>,
    /// The tasks that wait for one of an earlier request, and would be due without it.
    pub held_back: HashSet<(RequestId, SystemId)>,
}

/// Puts requests behind those that came before them, and gives what is to be written of them then: tasks with their waits, those for the
/// subject's earlier instructions too, and where work is ready. `beside` is written at once, in the first round trip.
pub(crate) async fn insert_tasks(
    tx: &mut Tx,
    customer: &CustomerId,
    now: Timestamp,
    generation: i64,
    insertions: &[Insertion<'_>],
    beside: Vec<Part>,
) -> StoreResult<Planned> {
    let (before, places) = lines::line_up(tx, customer, insertions, beside).await?;
    let held_back = lines::held_back(tx, customer, generation, &before, insertions).await?;
    let (mut tasks, mut waiting) = (Vec::new(), HashSet::new());
    let mut waits: Vec<(RequestId, &SystemId, Work, RequestId, SystemId, &'static str)> = Vec::new();
    for insertion in insertions {
        let none = Vec::new();
        let held_back = held_back.get(&insertion.id).unwrap_or(&none);
        for planned in insertion.tasks {
            let mut state = planned.state;
            for wait in &planned.waits {
                waits.push((
                    insertion.id,
                    &planned.system,
                    wait.before,
                    insertion.id,
                    wait.on.clone(),
                    wait.until.as_str(),
                ));
            }
            for (earlier, _) in held_back.iter().filter(|(_, system)| *system == planned.system) {
                waits.push((
                    insertion.id,
                    &planned.system,
                    planned.work,
                    *earlier,
                    planned.system.clone(),
                    "CONFIRMED",
                ));
                if state == TaskState::Pending {
                    state = TaskState::Waiting;
                    waiting.insert((insertion.id, planned.system.clone()));
                }
            }
            tasks.push(NewTask { request: insertion.id, action: insertion.action, planned, state });
        }
    }
    let rows = Rows::new(vec![
        Column::uuids(waits.iter().map(|w| w.0.uuid())),
        Column::texts(waits.iter().map(|w| w.1.as_str())),
        Column::texts(waits.iter().map(|w| w.2.as_str())),
        Column::uuids(waits.iter().map(|w| w.3.uuid())),
        Column::texts(waits.iter().map(|w| w.4.as_str())),
        Column::texts(waits.iter().map(|w| w.5)),
    ]);
    let waits = Part::new(
        "WITH v(request_id, system_id, before_work, on_request_id, on_system_id, until_state) AS ({rows})
         INSERT INTO task_waits (customer_id, request_id, system_id, before_work, on_request_id, on_system_id, until_state)
         SELECT $1, request_id, system_id, before_work, on_request_id, on_system_id, until_state FROM v WHERE true
         ON CONFLICT DO NOTHING",
        vec![customer.as_str().into()],
        rows,
    );
    let due = tasks.iter().filter(|t| t.state == TaskState::Pending);
    let ready = due.map(|t| (t.planned.system.clone(), t.action, t.planned.work, us(now)));
    let ready = ready_bumps(tx.engine(), customer, ready);
    // PostgreSQL runs the first of them last: the hint is one row for all of a customer's chunks, and held from there to the commit.
    let writes = vec![ready, places, write_tasks(customer, now, &tasks), waits];
    Ok(Planned { writes, behind: before.into_keys().collect(), held_back: waiting })
}

fn write_tasks(customer: &CustomerId, now: Timestamp, tasks: &[NewTask<'_>]) -> Part {
    let t = tasks;
    let rows = Rows::new(vec![
        Column::uuids(t.iter().map(|t| t.request.uuid())),
        Column::texts(t.iter().map(|t| t.planned.system.as_str())),
        Column::texts(t.iter().map(|t| t.action.as_str())),
        Column::texts(t.iter().map(|t| t.planned.work.as_str())),
        Column::texts(t.iter().map(|t| t.state.as_str())),
        Column::i64s(t.iter().map(|t| i64::from(t.planned.map_version))),
        Column::texts(t.iter().map(|t| t.planned.reason.unwrap_or_default())),
        Column::I64(t.iter().map(|t| t.planned.latest_start.map(us)).collect()),
    ]);
    Part::new(
        "WITH v(request_id, system_id, action, work, state, map_version, reason, latest_start_us) AS ({rows})
         INSERT INTO tasks (customer_id, request_id, system_id, action, work, state, map_version, attempts, lease, leased_by,
                run_at_us, reason, latest_start_us)
         SELECT $1, request_id, system_id, action, work, state, map_version, 0, 0, '', $2, reason, latest_start_us FROM v",
        vec![customer.as_str().into(), us(now).into()],
        rows,
    )
}

pub(crate) fn system_id(text: &str) -> StoreResult<SystemId> {
    SystemId::new(text).map_err(|_| StoreError::Inconsistent { table: "tasks", what: "a system id is not one" })
}

/// A task that comes late does not wait for what has been: nobody would end that wait. `have`: whether each system has confirmed.
fn wait_for_no_past(task: &mut PlannedTask, have: &HashMap<SystemId, bool>) {
    task.waits.retain(|wait| have.get(&wait.on) != Some(&true));
    if task.state == TaskState::Waiting && !task.waits.iter().any(|wait| wait.before == task.work) {
        task.state = TaskState::Pending;
    }
}

/// Says that work is due. Raises `bumps`, so that nobody who saw nothing removes the row afterwards.
pub(crate) async fn bump_ready(
    tx: &mut Tx,
    customer: &CustomerId,
    work: impl Iterator<Item = (SystemId, Action, Work, i64)>,
) -> StoreResult<()> {
    Ok(tx.execute_together(vec![ready_bumps(tx.engine(), customer, work)]).await?)
}

fn ready_bumps(
    engine: Engine,
    customer: &CustomerId,
    work: impl Iterator<Item = (SystemId, Action, Work, i64)>,
) -> Part {
    let mut earliest: BTreeMap<(SystemId, Action, Work), i64> = BTreeMap::new();
    for (system, action, work, at) in work {
        let entry = earliest.entry((system, action, work)).or_insert(at);
        *entry = (*entry).min(at);
    }
    let rows = Rows::new(vec![
        Column::texts(earliest.keys().map(|k| k.0.as_str())),
        Column::texts(earliest.keys().map(|k| k.1.as_str())),
        Column::texts(earliest.keys().map(|k| k.2.as_str())),
        Column::i64s(earliest.values().copied()),
    ]);
    let least = if engine == Engine::Postgres { "LEAST" } else { "MIN" };
    let sql = format!(
        "WITH v(system_id, action, work, ready_us) AS ({{rows}})
         INSERT INTO ready (customer_id, system_id, action, work, ready_us, bumps)
         SELECT $1, system_id, action, work, ready_us, 1 FROM v WHERE true
         ON CONFLICT (customer_id, system_id, action, work) DO UPDATE
           SET ready_us = {least}(ready.ready_us, excluded.ready_us), bumps = ready.bumps + 1"
    );
    Part::new(sql, vec![customer.as_str().into()], rows)
}

impl Store {
    /// Plans what open requests lack since systems were added. Answers how many it looked at; call it until that is none.
    pub async fn replan(&self, customer: &CustomerId, topology: &Topology, now: Timestamp) -> StoreResult<usize> {
        let mut tx = self.customer_tx(customer).await?;
        if hold_generation(&mut tx).await? != topology.generation {
            return Ok(0);
        }
        // Before anything else of the customer's is locked, as whoever cancels does: who stands before whom is as it is until we are done.
        alone(&mut tx, customer).await?;
        let rows = self.to_replan(&mut tx, customer, topology.generation).await?;
        let ids: Vec<Uuid> = rows.iter().map(|(row, _)| row.uuid(0)).collect::<Result<_, _>>()?;
        let planned = tx
            .fetch_rows(
                "WITH v(request_id) AS ({rows}) SELECT t.request_id, t.system_id, t.state FROM v
                 JOIN tasks t ON t.customer_id = $1 AND t.request_id = v.request_id",
                vec![customer.as_str().into()],
                Rows::new(vec![Column::uuids(ids)]),
            )
            .await?;
        let mut have: HashMap<Uuid, HashMap<SystemId, bool>> = HashMap::new();
        for row in planned {
            let confirmed = row.text(2)? == TaskState::Confirmed.as_str();
            have.entry(row.uuid(0)?).or_default().insert(system_id(&row.text(1)?)?, confirmed);
        }
        let all = topology.facts_for(customer);
        let mut staging = Staging::new(customer);
        let mut missing = Vec::new();
        let (mut closed, mut late) = (Vec::new(), Vec::new());
        for (row, secrets) in &rows {
            let id = RequestId::new(row.uuid(0)?);
            let action = parsed(row, 1, "requests", Action::parse)?;
            let due = time(row.i64(2)?, "requests")?;
            let kinds = secrets.identifiers.iter().map(|i| i.kind()).collect();
            let none = HashMap::new();
            let have = have.get(&id.uuid()).unwrap_or(&none);
            // What is planned stays as it was planned; only what is missing is added.
            let only = row.opt_text(9)?.map(|id| system_id(&id)).transpose()?;
            let systems = concerned(&all, &read_list::<Notice>(&row.text(8)?)?, only.as_ref());
            let mut added = plan_anyhow(action, &kinds, &systems, due);
            carry_after_named(&mut added, &systems, &secrets.identifier_changes);
            // Where a hold has ended, no other system is concerned.
            let follows = row.opt_uuid(10)?.is_some();
            added.retain(|_| !follows);
            added.retain(|t| !have.contains_key(&t.system));
            added.iter_mut().for_each(|t| wait_for_no_past(t, have));
            let open = row.i64(7)?;
            if added.is_empty() && open == 0 {
                let exceptions = u32::try_from(row.i64(6)?).unwrap_or(u32::MAX);
                let state = RequestState::InProgress
                    .on(RequestEvent::Complete { exceptions })
                    .map_err(|e| StoreError::WrongState(e.to_string()))?;
                staging.add(id, &Event::Completed { state, at_us: us(now), late: now > due });
                late.extend((now > due).then_some(id));
                closed.push((id, state, action));
            } else if !added.is_empty() {
                staging.add(id, &planned_event(&added, now));
            }
            missing.push((id, action, added));
        }
        let insertions: Vec<Insertion<'_>> = missing
            .iter()
            .map(|(id, action, tasks)| Insertion { id: *id, action: *action, tasks, pseudonyms: &[] })
            .collect();
        let planned = insert_tasks(&mut tx, customer, now, topology.generation, &insertions, Vec::new()).await?;
        tx.execute_together(planned.writes).await?;
        let closing: HashSet<RequestId> = closed.iter().map(|(id, ..)| *id).collect();
        let added = Rows::new(vec![
            Column::uuids(missing.iter().map(|(id, ..)| id.uuid())),
            Column::i64s(missing.iter().map(|(.., tasks)| i64::try_from(tasks.len()).unwrap_or(i64::MAX))),
            Column::i64s(missing.iter().map(|(id, ..)| i64::from(closing.contains(id)))),
        ]);
        let sql = format!(
            "WITH v(request_id, added, closes) AS ({{rows}}) UPDATE requests
             SET systems_generation = $2, open_tasks = open_tasks + v.added,
               changed_us = CASE WHEN v.added > 0 OR v.closes = 1 THEN $3 ELSE changed_us END,
               changed_seq = CASE WHEN v.added > 0 OR v.closes = 1 THEN {} ELSE changed_seq END
             FROM v WHERE requests.customer_id = $1 AND requests.request_id = v.request_id",
            changes::seq(&tx)
        );
        tx.execute_rows(&sql, vec![customer.as_str().into(), topology.generation.into(), us(now).into()], added)
            .await?;
        let done = Rows::new(vec![
            Column::uuids(closed.iter().map(|(id, ..)| id.uuid())),
            Column::texts(closed.iter().map(|(_, state, _)| state.as_str())),
        ]);
        tx.execute_rows(
            "WITH v(request_id, state) AS ({rows}) UPDATE requests SET state = v.state, closed_us = $2
             FROM v WHERE requests.customer_id = $1 AND requests.request_id = v.request_id",
            vec![customer.as_str().into(), us(now).into()],
            done,
        )
        .await?;
        let follow_ups: Vec<RequestId> = closed.iter().map(|(id, ..)| *id).collect();
        let closed: Vec<_> = closed.iter().map(|(id, _, action)| Closed::done(*id, *action)).collect();
        let mut writes = forget_closed(tx.engine(), customer, &closed);
        writes.extend(staging.parts());
        writes.push(release(customer, &follow_ups));
        tx.execute_together(writes).await?;
        tx.commit().await?;
        tell_completed_late(customer, &late);
        self.grown(missing.iter().map(|(.., tasks)| tasks.len()).sum()).await;
        Ok(rows.len())
    }

    /// A page of requests that were planned with fewer systems. What cannot be opened is left out, and holds up nothing else.
    async fn to_replan(
        &self,
        tx: &mut Tx,
        customer: &CustomerId,
        generation: i64,
    ) -> StoreResult<Vec<(Row, SubjectSecrets)>> {
        let lock = if tx.engine() == Engine::Postgres { "FOR UPDATE" } else { "" };
        let sql = format!(
            "SELECT request_id, action, due_us, key_epoch, wrapped_key, sealed_subject, exceptions, open_tasks, notices, only_system,
                follows_request_id, systems_generation FROM requests
             WHERE customer_id = $1 AND closed_us IS NULL AND state = 'IN_PROGRESS' AND systems_generation < $2
               AND (systems_generation, request_id) > ($4, $5)
             ORDER BY systems_generation, request_id LIMIT $3 {lock}"
        );
        let (mut opened, mut after) = (Vec::new(), (i64::MIN, Uuid::nil()));
        let (mut unopenable, mut example) = (0_u64, None);
        loop {
            let args =
                vec![customer.as_str().into(), generation.into(), REPLAN_BATCH.into(), after.0.into(), after.1.into()];
            let page = tx.fetch(&sql, args).await?;
            let is_full = i64::try_from(page.len()).is_ok_and(|rows| rows >= REPLAN_BATCH);
            for row in page {
                after = (row.i64(11)?, row.uuid(0)?);
                match self.secrets_of(customer, &row) {
                    Ok(secrets) => opened.push((row, secrets)),
                    Err(error @ (StoreError::Unsealable(_) | StoreError::NoEpochKey(_))) => {
                        unopenable += 1;
                        example.get_or_insert((RequestId::new(after.1), error));
                    }
                    Err(error) => return Err(error),
                }
            }
            if !opened.is_empty() || !is_full {
                break;
            }
        }
        // In one line: there may be a great many, and they are met again at every sweep.
        if let Some((request, error)) = example {
            tracing::error!(%customer, unopenable, %request, %error, "requests cannot be opened, this one among them: they are not planned for new systems");
        }
        Ok(opened)
    }

    fn secrets_of(&self, customer: &CustomerId, row: &Row) -> StoreResult<SubjectSecrets> {
        let wrapped = WrappedKey::read(&row.text(3)?, row.bytes(4)?)?.ok_or(StoreError::Forgotten)?;
        let key = RequestKey::unwrap(self.ring(), customer, RequestId::new(row.uuid(0)?), &wrapped)?;
        SubjectSecrets::open(&key, &row.bytes(5)?)
    }

    /// Customers with requests that were planned with an older set of systems. Deployment-wide: a sweep, at start and on change.
    pub async fn customers_to_replan(&self, generation: i64) -> StoreResult<Vec<CustomerId>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT c.customer_id FROM customers c WHERE EXISTS (SELECT 1 FROM requests r
                   WHERE r.customer_id = c.customer_id AND r.closed_us IS NULL AND r.state = 'IN_PROGRESS'
                   AND r.systems_generation < $1)
                   ORDER BY c.customer_id LIMIT 10000";
        let rows = tx.fetch(sql, vec![generation.into()]).await?;
        let broken = |_| StoreError::Inconsistent { table: "customers", what: "an id is not one" };
        rows.iter().map(|row| CustomerId::new(&row.text(0)?).map_err(broken)).collect()
    }
}
