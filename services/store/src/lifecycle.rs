//! What the customer and the operator decide about a request.

use std::collections::BTreeSet;

use quittance_domain::{
    Timestamp,
    action::{Action, RestrictionGround},
    agreement::Agreement,
    ids::{CustomerId, RequestId},
    plan::{carry_after_named, concerned, plan},
    request::{NewRequest, RequestEvent, RequestState},
    window,
};
use quittance_ledger::Event;
use quittance_sql::{Engine, Tx, Val};

use crate::{
    Store, StoreError, StoreResult, SubjectSecrets, Topology, changes,
    intake::{mark_restrictions, planned_event, refusal, restrict_new_names},
    kept::release,
    ledger::Staging,
    lines,
    log::has_room,
    rekey::{alone, carry_over},
    renames::Renames,
    replan::{Insertion, insert_tasks},
    report::release_free,
    requests::read_request,
    seal::{RequestKey, WrappedKey},
    systems::hold_generation,
    tx::{parsed, us},
};

/// A due date that was moved.
#[derive(Clone, Debug)]
pub struct Extension {
    pub due_at: Timestamp,
    pub reason: String,
    pub created_at: Timestamp,
}

/// Holds an objected request's tasks: a wait on a system that never is.
pub(crate) const CUSTOMERS_WORD: &str = "";

pub(crate) async fn locked_state(tx: &mut Tx, customer: &CustomerId, id: RequestId) -> StoreResult<RequestState> {
    let lock = if tx.engine() == Engine::Postgres { "FOR UPDATE" } else { "" };
    let sql = format!("SELECT state FROM requests WHERE customer_id = $1 AND request_id = $2 {lock}");
    let row = tx.fetch_one(&sql, key(customer, id)).await?.ok_or(StoreError::NotFound("the request"))?;
    parsed(&row, 0, "requests", RequestState::parse)
}

/// So that no worker leases one, or puts one off, meanwhile; before the request, as who reports locks them. Gives whether any was ever leased:
/// what was has a lease number.
async fn hold_tasks(tx: &mut Tx, customer: &CustomerId, id: RequestId) -> StoreResult<bool> {
    let lock = if tx.engine() == Engine::Postgres { "FOR UPDATE" } else { "" };
    let sql = format!("SELECT lease FROM tasks WHERE customer_id = $1 AND request_id = $2 ORDER BY system_id {lock}");
    let mut leased = false;
    for row in tx.fetch(&sql, key(customer, id)).await? {
        leased |= row.i64(0)? > 0;
    }
    Ok(leased)
}

fn key(customer: &CustomerId, id: RequestId) -> Vec<Val> {
    vec![customer.as_str().into(), id.uuid().into()]
}

fn transition(state: RequestState, event: RequestEvent) -> StoreResult<RequestState> {
    state.on(event).map_err(|e| StoreError::WrongState(e.to_string()))
}

async fn set_state(
    tx: &mut Tx,
    customer: &CustomerId,
    id: RequestId,
    state: RequestState,
    reason: Option<&str>,
    now: Timestamp,
) -> StoreResult<()> {
    let mut args = key(customer, id);
    args.push(state.as_str().into());
    args.push(us(now).into());
    args.push(Val::from(reason));
    args.push(Val::I64(state.is_closed().then(|| us(now))));
    let sql = format!(
        "UPDATE requests SET state = $3, changed_us = $4, closing_reason = $5, closed_us = $6, changed_seq = {}
         WHERE customer_id = $1 AND request_id = $2",
        changes::seq(tx)
    );
    tx.execute(&sql, args).await?;
    Ok(())
}

impl Store {
    /// The customer makes a waiting request its own. One that was only referred is planned now, and its window begins.
    pub async fn authorise_request(
        &self,
        customer: &CustomerId,
        id: RequestId,
        agreement: &Agreement,
        topology: &Topology,
        by: &str,
        now: Timestamp,
    ) -> StoreResult<()> {
        let mut tx = self.customer_tx(customer).await?;
        if hold_generation(&mut tx).await? != topology.generation {
            return Err(StoreError::WrongState("systems changed meanwhile".to_owned()));
        }
        // Before anything else of the customer's is locked, as whoever declines does.
        alone(&mut tx, customer).await?;
        let state = transition(locked_state(&mut tx, customer, id).await?, RequestEvent::Authorise)?;
        let request = read_request(&mut tx, customer, id).await?;
        let mut staging = Staging::new(customer);
        let planned = tx
            .fetch_one(
                "SELECT system_id FROM tasks WHERE customer_id = $1 AND request_id = $2 LIMIT 1",
                key(customer, id),
            )
            .await?;
        let (mut first_due, mut due) = (request.first_due_at, request.due_at);
        let mut version = request.agreement_version;
        if planned.is_some() {
            self.lift_objection(&mut tx, customer, id, now).await?;
        } else {
            let secrets = self.secrets_in(&mut tx, customer, id).await?;
            // What was referred becomes an instruction now. An erasure that met a restriction was one from the start (I9).
            if secrets.words.is_some() {
                let zone = window::zone(&agreement.time_zone).map_err(|e| StoreError::Refused(e.to_string()))?;
                let extended = (due > first_due).then_some(due);
                first_due = window::due_at(now, agreement.window_days, &zone, request.controller_due_at)
                    .map_err(|e| StoreError::Refused(e.to_string()))?;
                due = extended.map_or(first_due, |extended| extended.max(first_due));
                version = i64::from(agreement.version);
            }
            let subject_keys = self.hold_subject_keys(&mut tx, customer).await?;
            let (tasks, names) = match request.follows {
                Some(_) => self.plan_follow_up(&mut tx, customer, id).await?,
                None => {
                    let kinds: BTreeSet<_> = secrets.identifiers.iter().map(|i| i.kind()).collect();
                    let only = request.follow_up.as_ref().map(|f| &f.system);
                    let systems = concerned(&topology.facts_for(customer), &request.notices, only);
                    let mut tasks = plan(request.action, &kinds, &systems, due).map_err(refusal)?;
                    carry_after_named(&mut tasks, &systems, &secrets.identifier_changes);
                    (tasks, secrets.names().map(|i| subject_keys.name(i)).collect())
                }
            };
            let pseudonyms = names.iter().map(|name| subject_keys.of_name(name)).collect::<StoreResult<Vec<_>>>()?;
            let renamed = subject_keys.renamed(&secrets.identifier_changes)?;
            let old_and_new = renamed.iter().flat_map(|(old, new)| [old, new]);
            let all = pseudonyms.iter().chain(old_and_new).cloned().collect();
            carry_over(&mut tx, customer, &subject_keys, &all).await?;
            let insertion = Insertion { id, action: request.action, tasks: &tasks, pseudonyms: &pseudonyms };
            let planned = insert_tasks(&mut tx, customer, now, topology.generation, &[insertion], Vec::new()).await?;
            tx.execute_together(planned.writes).await?;
            let instruction = marked(request.action, request.restriction_ground, &secrets);
            if request.follows.is_none() {
                mark_restrictions(&mut tx, customer, &[(id, &instruction, &pseudonyms)]).await?;
            }
            restrict_new_names(&mut tx, customer, &Renames::of(&renamed)).await?;
            let mut args = key(customer, id);
            args.push(i64::try_from(tasks.len()).unwrap_or(i64::MAX).into());
            args.extend([us(first_due).into(), us(due).into(), topology.generation.into(), version.into()]);
            tx.execute(
                "UPDATE requests SET open_tasks = $3, first_due_us = $4, due_us = $5, systems_generation = $6,
                   agreement_version = $7, urgency = CASE WHEN due_us = $5 THEN urgency ELSE 0 END
                 WHERE customer_id = $1 AND request_id = $2",
                args,
            )
            .await?;
            staging.add(id, &planned_event(&tasks, now));
        }
        set_state(&mut tx, customer, id, state, None, now).await?;
        let agreement = u32::try_from(version).map_err(|_| StoreError::Inconsistent {
            table: "requests",
            what: "an agreement's version is out of range",
        })?;
        let (by, first_due_us) = (by.to_owned(), us(first_due));
        staging.add(id, &Event::Authorised { by, at_us: us(now), first_due_us, agreement });
        staging.write(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    async fn lift_objection(
        &self,
        tx: &mut Tx,
        customer: &CustomerId,
        id: RequestId,
        now: Timestamp,
    ) -> StoreResult<()> {
        let mut args = key(customer, id);
        args.push(CUSTOMERS_WORD.into());
        let held = tx
            .fetch(
                "DELETE FROM task_waits WHERE customer_id = $1 AND request_id = $2 AND on_system_id = $3 RETURNING system_id",
                args,
            )
            .await?;
        let mut candidates = BTreeSet::new();
        for row in held {
            candidates.insert((id.uuid(), row.text(0)?));
        }
        let sql = "UPDATE tasks SET reason = '' WHERE customer_id = $1 AND request_id = $2 AND state = 'WAITING' AND reason = 'OBJECTED'
                   RETURNING system_id";
        for row in tx.fetch(sql, key(customer, id)).await? {
            candidates.insert((id.uuid(), row.text(0)?));
        }
        // Where all had been confirmed meanwhile, the sweep that replans also completes.
        tx.execute(
            "UPDATE requests SET systems_generation = 0 WHERE customer_id = $1 AND request_id = $2 AND open_tasks = 0",
            key(customer, id),
        )
        .await?;
        release_free(tx, customer, now, candidates).await
    }

    pub async fn decline_request(
        &self,
        customer: &CustomerId,
        id: RequestId,
        by: &str,
        reason: &str,
        now: Timestamp,
    ) -> StoreResult<()> {
        let mut tx = self.customer_tx(customer).await?;
        lines::hold(&mut tx, customer, id).await?;
        hold_tasks(&mut tx, customer, id).await?;
        let state = transition(locked_state(&mut tx, customer, id).await?, RequestEvent::Decline)?;
        close(&mut tx, customer, id, state, by, reason, now).await?;
        Ok(tx.commit().await?)
    }

    /// Takes it back, if nothing was ever leased.
    pub async fn cancel_request(
        &self,
        customer: &CustomerId,
        id: RequestId,
        by: &str,
        reason: &str,
        now: Timestamp,
    ) -> StoreResult<()> {
        let mut tx = self.customer_tx(customer).await?;
        lines::hold(&mut tx, customer, id).await?;
        hold_tasks(&mut tx, customer, id).await?;
        let state = locked_state(&mut tx, customer, id).await?;
        // Again: a system may have been added before we held the request, and its task be leased by now.
        let ran = hold_tasks(&mut tx, customer, id).await?;
        let state = transition(state, RequestEvent::Cancel { ran })?;
        close(&mut tx, customer, id, state, by, reason, now).await?;
        Ok(tx.commit().await?)
    }

    /// We say that it looks unlawful: what has not begun waits for the customer's word.
    pub async fn object_to_request(
        &self,
        customer: &CustomerId,
        id: RequestId,
        by: &str,
        reason: &str,
        now: Timestamp,
    ) -> StoreResult<()> {
        let mut tx = self.customer_tx(customer).await?;
        hold_tasks(&mut tx, customer, id).await?;
        let state = transition(locked_state(&mut tx, customer, id).await?, RequestEvent::Object)?;
        has_room(&mut tx, customer, id).await?;
        let mut args = key(customer, id);
        args.push(CUSTOMERS_WORD.into());
        tx.execute(
            // What is at work may finish. If it is put off instead, and nothing had been found to be changed, it has not begun.
            "INSERT INTO task_waits (customer_id, request_id, system_id, before_work, on_request_id, on_system_id, until_state)
             SELECT customer_id, request_id, system_id, work, request_id, $3, 'CONFIRMED' FROM tasks
             WHERE customer_id = $1 AND request_id = $2 AND state IN ('WAITING', 'PENDING', 'RUNNING')
             UNION ALL
             -- What is being asked for identifiers may finish that; it does not act.
             SELECT customer_id, request_id, system_id, 'ACT', request_id, $3, 'CONFIRMED' FROM tasks
             WHERE customer_id = $1 AND request_id = $2 AND work = 'RESOLVE'
             ON CONFLICT DO NOTHING",
            args,
        )
        .await?;
        tx.execute(
            "UPDATE tasks SET state = 'WAITING', reason = 'OBJECTED'
             WHERE customer_id = $1 AND request_id = $2 AND state IN ('WAITING', 'PENDING')",
            key(customer, id),
        )
        .await?;
        set_state(&mut tx, customer, id, state, None, now).await?;
        let mut args = key(customer, id);
        args.push(reason.into());
        args.push(us(now).into());
        tx.execute(
            "UPDATE requests SET objection_reason = $3, objection_us = $4 WHERE customer_id = $1 AND request_id = $2",
            args,
        )
        .await?;
        let mut staging = Staging::new(customer);
        let (by, reason) = (by.to_owned(), reason.to_owned());
        staging.add(id, &Event::Objected { by, reason, at_us: us(now) });
        staging.write(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Moves the due date, while it has not passed; the first one stays.
    pub async fn extend_request(
        &self,
        customer: &CustomerId,
        id: RequestId,
        due: Timestamp,
        by: &str,
        reason: &str,
        now: Timestamp,
    ) -> StoreResult<()> {
        let mut tx = self.customer_tx(customer).await?;
        if locked_state(&mut tx, customer, id).await?.is_closed() {
            return Err(StoreError::WrongState("a closed request has no date to move".to_owned()));
        }
        has_room(&mut tx, customer, id).await?;
        let request = read_request(&mut tx, customer, id).await?;
        if due <= request.due_at {
            return Err(StoreError::WrongState("an extension is later than the present due time".to_owned()));
        }
        // What is late stays late: moved now, the date that passed would be nobody's any more.
        if now > request.due_at {
            let text = "the due time has passed: an extension is instructed before it (Art. 12(3)), and late is recorded as late";
            return Err(StoreError::WrongState(text.to_owned()));
        }
        let mut args = key(customer, id);
        args.extend([us(due).into(), reason.into(), us(now).into()]);
        tx.execute(
            "INSERT INTO extensions (customer_id, request_id, due_us, reason, created_us) VALUES ($1, $2, $3, $4, $5)",
            args,
        )
        .await?;
        let mut args = key(customer, id);
        args.extend([us(due).into(), us(now).into()]);
        let sql = format!(
            "UPDATE requests SET due_us = $3, changed_us = $4, urgency = 0, changed_seq = {}
             WHERE customer_id = $1 AND request_id = $2",
            changes::seq(&tx)
        );
        tx.execute(&sql, args).await?;
        let mut staging = Staging::new(customer);
        let (by, reason) = (by.to_owned(), reason.to_owned());
        staging.add(id, &Event::Extended { due_us: us(due), by, reason, at_us: us(now) });
        staging.write(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Whether restrictions stand with the customer that no lifting ends. One that is under way counts as done: of two people's liftings neither
    /// would be the last otherwise.
    pub async fn are_others_restricted(&self, customer: &CustomerId) -> StoreResult<bool> {
        let mut tx = self.customer_read(customer).await?;
        let sql = "SELECT 1 FROM restrictions s WHERE s.customer_id = $1 AND NOT EXISTS (SELECT 1 FROM requests r
                     WHERE r.customer_id = $1 AND r.request_id = s.ended_by_request_id
                       AND r.action = 'LIFT_RESTRICTION' AND r.state = 'IN_PROGRESS') LIMIT 1";
        Ok(tx.fetch_one(sql, vec![customer.as_str().into()]).await?.is_some())
    }

    pub(crate) async fn secrets_in(
        &self,
        tx: &mut Tx,
        customer: &CustomerId,
        id: RequestId,
    ) -> StoreResult<SubjectSecrets> {
        let sql =
            "SELECT key_epoch, wrapped_key, sealed_subject FROM requests WHERE customer_id = $1 AND request_id = $2";
        let row = tx.fetch_one(sql, key(customer, id)).await?.ok_or(StoreError::NotFound("the request"))?;
        let wrapped = WrappedKey::read(&row.text(0)?, row.bytes(1)?)?.ok_or(StoreError::Forgotten)?;
        let request_key = RequestKey::unwrap(self.ring(), customer, id, &wrapped)?;
        SubjectSecrets::open(&request_key, &row.bytes(2)?)
    }
}

/// As much of an instruction as marking its restriction needs.
fn marked(action: Action, ground: Option<RestrictionGround>, secrets: &SubjectSecrets) -> NewRequest {
    NewRequest {
        identifier_changes: secrets.identifier_changes.clone(),
        restriction_ground: ground,
        ..NewRequest::plain(action, secrets.identifiers.clone())
    }
}

/// Whoever stands behind `$2` and ends restrictions, however far back: `place` says how far. By their lines, for ids tell who was sent first: what
/// was referred takes its place when it is authorised. What erases the rest on the day a hold ends is none of them.
const ENDING_BEHIND: &str = "WITH RECURSIVE behind(request_id, place) AS (
       SELECT request_id, 1 FROM subject_lines WHERE customer_id = $1 AND after_request_id = $2
       UNION
       SELECT l.request_id, b.place + 1 FROM behind b
       JOIN subject_lines l ON l.customer_id = $1 AND l.after_request_id = b.request_id)
     SELECT r.request_id FROM behind b JOIN requests r ON r.customer_id = $1 AND r.request_id = b.request_id
       AND r.action IN ('LIFT_RESTRICTION', 'ERASURE') AND r.follows_request_id IS NULL";

/// What it was to end stays; or the next behind it ends that, which may be done already.
async fn end_by_another(tx: &mut Tx, customer: &CustomerId, id: RequestId) -> StoreResult<()> {
    let ends = "SELECT 1 FROM restrictions WHERE customer_id = $1 AND ended_by_request_id = $2 LIMIT 1";
    // Nobody comes to be ended by it any more, but what is copied from such a row. Then nothing is to be looked for among all who stand behind it.
    if tx.fetch_one(ends, key(customer, id)).await?.is_none() {
        return Ok(());
    }
    hold_endings(tx, customer, id).await?;
    let named = "JOIN subject_lines n ON n.customer_id = $1 AND n.request_id = r.request_id AND n.pseudonym = restrictions.pseudonym";
    let sql = format!(
        "DELETE FROM restrictions WHERE customer_id = $1 AND ended_by_request_id = $2 AND EXISTS (
           {ENDING_BEHIND} AND r.state IN ('COMPLETED', 'COMPLETED_WITH_EXCEPTIONS') {named})"
    );
    tx.execute(&sql, key(customer, id)).await?;
    let sql = format!(
        "UPDATE restrictions SET ended_by_request_id = (
           {ENDING_BEHIND} AND r.closed_us IS NULL {named} GROUP BY r.request_id ORDER BY max(b.place) LIMIT 1)
         WHERE customer_id = $1 AND ended_by_request_id = $2"
    );
    tx.execute(&sql, key(customer, id)).await?;
    Ok(())
}

/// Until the transaction ends, nobody behind it is done, and nobody is noted on what it was to end, unseen.
async fn hold_endings(tx: &mut Tx, customer: &CustomerId, id: RequestId) -> StoreResult<()> {
    if tx.engine() == Engine::Postgres {
        let requests = format!(
            "SELECT request_id FROM requests WHERE customer_id = $1 AND request_id IN ({ENDING_BEHIND})
             ORDER BY request_id FOR SHARE"
        );
        tx.fetch(&requests, key(customer, id)).await?;
        let ended = "SELECT request_id FROM restrictions WHERE customer_id = $1 AND ended_by_request_id = $2
                     ORDER BY pseudonym, request_id FOR UPDATE";
        tx.fetch(ended, key(customer, id)).await?;
    }
    Ok(())
}

/// Declined or cancelled: tasks that were never leased go, and nobody waits for it, but where a worker is at it now: until that one is done, puts
/// it off, or its lease has passed. What had begun before an objection is not begun again, and not claimed either: a person looks at it.
async fn close(
    tx: &mut Tx,
    customer: &CustomerId,
    id: RequestId,
    state: RequestState,
    by: &str,
    reason: &str,
    now: Timestamp,
) -> StoreResult<()> {
    end_by_another(tx, customer, id).await?;
    lines::leave(tx, customer, id).await?;
    let waiting = tx
        .fetch(
            "DELETE FROM task_waits WHERE customer_id = $1 AND (request_id = $2 OR (on_request_id = $2 AND NOT EXISTS (
               SELECT 1 FROM tasks t WHERE t.customer_id = $1 AND t.request_id = $2 AND t.system_id = task_waits.on_system_id
                 AND t.state = 'RUNNING' AND t.work = 'ACT')))
             RETURNING request_id, system_id",
            key(customer, id),
        )
        .await?;
    let mut candidates = BTreeSet::new();
    for row in waiting {
        if row.uuid(0)? != id.uuid() {
            candidates.insert((row.uuid(0)?, row.text(1)?));
        }
    }
    tx.execute(
        "UPDATE tasks SET state = 'NEEDS_ATTENTION', reason = 'REQUEST_CLOSED' WHERE customer_id = $1 AND request_id = $2
         AND lease > 0 AND state IN ('WAITING', 'PENDING', 'AWAITING_CONFIRMATION')",
        key(customer, id),
    )
    .await?;
    tx.execute(
        "DELETE FROM tasks WHERE customer_id = $1 AND request_id = $2 AND state <> 'CONFIRMED' AND lease = 0",
        key(customer, id),
    )
    .await?;
    // Its customer wants what is held to stay: we have no business with it any more.
    tx.execute_together(vec![release(customer, &[id])]).await?;
    tx.execute("DELETE FROM restrictions WHERE customer_id = $1 AND request_id = $2", key(customer, id)).await?;
    set_state(tx, customer, id, state, Some(reason), now).await?;
    release_free(tx, customer, now, candidates).await?;
    let mut staging = Staging::new(customer);
    staging.add(id, &Event::Closed { state, by: by.to_owned(), reason: reason.to_owned(), at_us: us(now) });
    staging.write(tx).await
}
