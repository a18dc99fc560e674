//! The order of one person's instructions (I4): who comes after whom, where it waits for it, and what becomes of the others when one
//! in the middle goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use quittance_domain::{
    action::Action,
    ids::{CustomerId, RequestId, SystemId},
};
use quittance_sql::{Column, Engine, Part, Rows, Tx, Val};
use uuid::Uuid;

use crate::{
    StoreResult,
    earlier::Past,
    rekey,
    replan::{Insertion, system_id},
    systems::hold_generation,
};

/// For each request those that come right before it, one for each of its identifiers at most.
pub(crate) type Before = HashMap<RequestId, BTreeSet<RequestId>>;

/// Puts each request at the end of its subject's line, and gives what stands before it, which is still to be written. One without
/// pseudonyms stands there already. `beside` is written in the same round trip.
///
/// The upsert locks the head's row, so two instructions about one person are in an order even when they come at the same moment.
pub(crate) async fn line_up(
    tx: &mut Tx,
    customer: &CustomerId,
    insertions: &[Insertion<'_>],
    beside: Vec<Part>,
) -> StoreResult<(Before, Part)> {
    let mut before = standing(tx, customer, insertions).await?;
    let mut lines: BTreeMap<&[u8], Vec<RequestId>> = BTreeMap::new();
    for insertion in insertions {
        for pseudonym in insertion.pseudonyms {
            let line = lines.entry(pseudonym.as_slice()).or_default();
            if line.last() != Some(&insertion.id) {
                line.push(insertion.id);
            }
        }
    }
    let mut places: Vec<(RequestId, Vec<u8>, RequestId)> = Vec::new();
    for (pseudonym, line) in &lines {
        places.extend(line.windows(2).map(|pair| (pair[1], pseudonym.to_vec(), pair[0])));
    }
    // In the pseudonyms' order: two chunks that share subjects lock them in the same order.
    let rows = Rows::new(vec![
        Column::bytes(lines.keys().map(|p| p.to_vec())),
        Column::uuids(lines.values().filter_map(|line| line.last()).map(|id| id.uuid())),
    ]);
    let heads = Part::new(
        "WITH v(pseudonym, request_id) AS ({rows})
         INSERT INTO subject_heads (customer_id, pseudonym, request_id, previous_request_id)
         SELECT $1, pseudonym, request_id, NULL FROM v WHERE true
         ON CONFLICT (customer_id, pseudonym) DO UPDATE
           SET previous_request_id = subject_heads.request_id, request_id = excluded.request_id
         RETURNING pseudonym, previous_request_id",
        vec![customer.as_str().into()],
        rows,
    );
    for row in tx.fetch_with(heads, beside).await? {
        let pseudonym = row.bytes(0)?;
        let first = lines.get(pseudonym.as_slice()).and_then(|line| line.first());
        if let (Some(previous), Some(first)) = (row.opt_uuid(1)?, first) {
            places.push((*first, pseudonym, RequestId::new(previous)));
        }
    }
    for (id, _, earlier) in &places {
        before.entry(*id).or_default().insert(*earlier);
    }
    let part = Part::new(
        "WITH v(request_id, pseudonym, after_request_id) AS ({rows})
         INSERT INTO subject_lines (customer_id, request_id, pseudonym, after_request_id)
         SELECT $1, request_id, pseudonym, after_request_id FROM v",
        vec![customer.as_str().into()],
        Rows::new(vec![
            Column::uuids(places.iter().map(|(id, ..)| id.uuid())),
            Column::bytes(places.iter().map(|(_, pseudonym, _)| pseudonym.clone())),
            Column::uuids(places.iter().map(|(.., earlier)| earlier.uuid())),
        ]),
    );
    Ok((before, part))
}

/// What stands before requests that were lined up when they were taken in.
async fn standing(tx: &mut Tx, customer: &CustomerId, insertions: &[Insertion<'_>]) -> StoreResult<Before> {
    let known = insertions.iter().filter(|i| i.pseudonyms.is_empty() && !i.tasks.is_empty());
    let rows = tx
        .fetch_rows(
            "WITH v(request_id) AS ({rows}) SELECT l.request_id, l.after_request_id FROM v
             JOIN subject_lines l ON l.customer_id = $1 AND l.request_id = v.request_id",
            vec![customer.as_str().into()],
            Rows::new(vec![Column::uuids(known.map(|i| i.id.uuid()))]),
        )
        .await?;
    let mut before = Before::new();
    for row in rows {
        before.entry(RequestId::new(row.uuid(0)?)).or_default().insert(RequestId::new(row.uuid(1)?));
    }
    Ok(before)
}

/// At which systems each new task waits for which earlier request.
pub(crate) async fn held_back(
    tx: &mut Tx,
    customer: &CustomerId,
    generation: i64,
    before: &Before,
    insertions: &[Insertion<'_>],
) -> StoreResult<HashMap<RequestId, Vec<(RequestId, SystemId)>>> {
    let mut result: HashMap<RequestId, Vec<(RequestId, SystemId)>> = HashMap::new();
    let behind = insertions.iter().filter(|i| before.contains_key(&i.id));
    let asked: Vec<_> = behind.map(|i| (i.id, i.tasks.iter().map(|t| &t.system).collect())).collect();
    if asked.is_empty() {
        return Ok(result);
    }
    let past = Past::read(tx, customer, generation, before.clone(), insertions, &asked).await?;
    for (id, systems) in asked {
        let held = systems.into_iter().flat_map(|s| past.in_the_way(id, s).into_iter().map(|on| (on, s.clone())));
        result.entry(id).or_default().extend(held);
    }
    Ok(result)
}

fn key(customer: &CustomerId, id: RequestId) -> Vec<Val> {
    vec![customer.as_str().into(), id.uuid().into()]
}

/// Before a request is closed that has not run: nobody lines up behind it, and nothing before it is confirmed unseen. Taken in the
/// order of intake: heads first, then requests.
pub(crate) async fn hold(tx: &mut Tx, customer: &CustomerId, id: RequestId) -> StoreResult<()> {
    rekey::alone(tx, customer).await?;
    if tx.engine() == Engine::Postgres {
        let heads = "SELECT pseudonym FROM subject_heads WHERE customer_id = $1 AND request_id = $2
                     ORDER BY pseudonym FOR UPDATE";
        tx.fetch(heads, key(customer, id)).await?;
        hold_earlier(tx, customer, id).await?;
    }
    Ok(())
}

async fn hold_earlier(tx: &mut Tx, customer: &CustomerId, id: RequestId) -> StoreResult<()> {
    let earlier = "SELECT r.request_id FROM requests r WHERE r.customer_id = $1 AND r.request_id IN
                     (SELECT after_request_id FROM subject_lines WHERE customer_id = $1 AND request_id = $2)
                   ORDER BY r.request_id FOR SHARE OF r";
    tx.fetch(earlier, key(customer, id)).await?;
    Ok(())
}

/// Whether a worker is changing something for `p`: closed or not, that comes before what is instructed next.
pub(crate) const AT_WORK: &str =
    "EXISTS (SELECT 1 FROM tasks t WHERE t.customer_id = $1 AND t.request_id = p.request_id
     AND t.state = 'RUNNING' AND t.work = 'ACT')";

/// A request goes before it is done: whoever waited for it waits for those that it had, or would have, waited for. What is at work for it keeps its
/// place.
pub(crate) async fn leave(tx: &mut Tx, customer: &CustomerId, id: RequestId) -> StoreResult<()> {
    if tx.engine() == Engine::Postgres {
        hold_earlier(tx, customer, id).await?;
    }
    let sql = "SELECT request_id, system_id, before_work, until_state FROM task_waits
               WHERE customer_id = $1 AND on_request_id = $2 AND request_id <> $2";
    let mut waiting = Vec::new();
    for row in tx.fetch(sql, key(customer, id)).await? {
        waiting.push((row.uuid(0)?, system_id(&row.text(1)?)?, row.text(2)?, row.text(3)?));
    }
    if !waiting.is_empty() {
        hand_on(tx, customer, id, waiting).await?;
    }
    let at_work = format!("SELECT 1 FROM requests p WHERE p.customer_id = $1 AND p.request_id = $2 AND {AT_WORK}");
    if tx.fetch_one(&at_work, key(customer, id)).await?.is_some() {
        return Ok(());
    }
    step_out(tx, customer, id).await?;
    Ok(tx.execute_together(forget_closed(tx.engine(), customer, &[Closed::undone(id)])).await?)
}

type WaitOfATask = (Uuid, SystemId, String, String);

async fn hand_on(tx: &mut Tx, customer: &CustomerId, id: RequestId, waiting: Vec<WaitOfATask>) -> StoreResult<()> {
    let sql = "SELECT after_request_id FROM subject_lines WHERE customer_id = $1 AND request_id = $2";
    let mut before = Before::new();
    for row in tx.fetch(sql, key(customer, id)).await? {
        before.entry(id).or_default().insert(RequestId::new(row.uuid(0)?));
    }
    let asked = [(id, waiting.iter().map(|(_, system, ..)| system).collect())];
    let generation = hold_generation(tx).await?;
    let past = Past::read(tx, customer, generation, before, &[], &asked).await?;
    let mut waits: Vec<(&WaitOfATask, RequestId)> = Vec::new();
    for wait in &waiting {
        waits.extend(past.in_the_way(id, &wait.1).into_iter().map(|on| (wait, on)));
    }
    let rows = Rows::new(vec![
        Column::uuids(waits.iter().map(|(w, _)| w.0)),
        Column::texts(waits.iter().map(|(w, _)| w.1.as_str())),
        Column::texts(waits.iter().map(|(w, _)| w.2.as_str())),
        Column::uuids(waits.iter().map(|(_, on)| on.uuid())),
        Column::texts(waits.iter().map(|(w, _)| w.3.as_str())),
    ]);
    tx.execute_rows(
        "WITH v(request_id, system_id, before_work, on_request_id, until_state) AS ({rows})
         INSERT INTO task_waits (customer_id, request_id, system_id, before_work, on_request_id, on_system_id, until_state)
         SELECT $1, request_id, system_id, before_work, on_request_id, system_id, until_state FROM v WHERE true
         ON CONFLICT DO NOTHING",
        vec![customer.as_str().into()],
        rows,
    )
    .await?;
    Ok(())
}

/// The one before it in each line, if there is one that somebody may still have to wait for: an open one, or one that keeps its place.
const ONE_BEFORE: &str = "SELECT l.after_request_id FROM subject_lines l
     JOIN requests r ON r.customer_id = $1 AND r.request_id = l.after_request_id
     WHERE l.customer_id = $1 AND l.request_id = $2 AND (r.closed_us IS NULL OR EXISTS (SELECT 1 FROM subject_lines o
       WHERE o.customer_id = $1 AND o.request_id = l.after_request_id AND o.pseudonym = l.pseudonym)) AND l.pseudonym = ";

/// Who stands right behind it stands right behind the one before it.
async fn step_out(tx: &mut Tx, customer: &CustomerId, id: RequestId) -> StoreResult<()> {
    tx.execute(
        &format!(
            "UPDATE subject_lines SET after_request_id = ({ONE_BEFORE} subject_lines.pseudonym)
             WHERE customer_id = $1 AND after_request_id = $2 AND EXISTS ({ONE_BEFORE} subject_lines.pseudonym)"
        ),
        key(customer, id),
    )
    .await?;
    tx.execute(
        &format!(
            "UPDATE subject_heads SET request_id = ({ONE_BEFORE} subject_heads.pseudonym), previous_request_id = NULL
             WHERE customer_id = $1 AND request_id = $2 AND EXISTS ({ONE_BEFORE} subject_heads.pseudonym)"
        ),
        key(customer, id),
    )
    .await?;
    let sql = "DELETE FROM subject_lines WHERE customer_id = $1 AND request_id = $2";
    tx.execute(sql, key(customer, id)).await?;
    Ok(())
}

/// A request that was just closed.
pub(crate) struct Closed {
    pub request: RequestId,
    /// Its lifting, or the erasure that the customer wanted all the same, is done: the restrictions that it ends go.
    pub ends_restrictions: bool,
}

impl Closed {
    pub fn done(request: RequestId, action: Action) -> Self {
        Self { request, ends_restrictions: matches!(action, Action::LiftRestriction | Action::Erasure) }
    }

    pub fn undone(request: RequestId) -> Self {
        Self { request, ends_restrictions: false }
    }
}

/// That `p` may be passed by: nobody who comes before it is open. Otherwise it keeps its place in that line until it is forgotten, for those
/// who come next may have to wait for them where it had no task.
pub(crate) const NOBODY_BEFORE: &str = "NOT EXISTS (
     WITH RECURSIVE back(request_id) AS (
       SELECT l.after_request_id FROM subject_lines l
       WHERE l.customer_id = $1 AND l.request_id = p.request_id AND l.pseudonym = p.pseudonym
       UNION
       SELECT l.after_request_id FROM back b
       JOIN subject_lines l ON l.customer_id = $1 AND l.request_id = b.request_id AND l.pseudonym = p.pseudonym)
     SELECT 1 FROM back b JOIN requests r ON r.customer_id = $1 AND r.request_id = b.request_id AND r.closed_us IS NULL)";

/// A closed request stands in nobody's way any more.
pub(crate) fn forget_closed(engine: Engine, customer: &CustomerId, closed: &[Closed]) -> Vec<Part> {
    let ended = closed.iter().filter(|c| c.ends_restrictions).map(|c| c.request.uuid()).collect();
    let mut parts = give_up_places(engine, customer, closed.iter().map(|c| c.request), NOBODY_BEFORE);
    parts.push(of_requests(
        "WITH v(request_id) AS ({rows}) DELETE FROM restrictions
         WHERE customer_id = $1 AND ended_by_request_id IN (SELECT request_id FROM v)",
        customer,
        ended,
    ));
    parts
}

/// What is forgotten keeps no place, whoever is still open before it: by then that one is longer overdue than what was agreed to be kept.
pub(crate) fn forget_places(engine: Engine, customer: &CustomerId, ids: &[RequestId]) -> Vec<Part> {
    give_up_places(engine, customer, ids.iter().copied(), "true")
}

fn give_up_places(
    engine: Engine,
    customer: &CustomerId,
    ids: impl Iterator<Item = RequestId>,
    which: &str,
) -> Vec<Part> {
    let ids: Vec<Uuid> = ids.map(RequestId::uuid).collect();
    // A head that somebody is lining up behind is left to them: to wait for them, while they wait for us, would be a deadlock.
    let (among, lock, end) = match engine {
        Engine::Postgres => ("= ANY (ARRAY(", "FOR UPDATE OF p SKIP LOCKED", "))"),
        Engine::Sqlite | Engine::MySql => ("IN (", "", ")"),
    };
    let heads = format!(
        "WITH v(request_id) AS ({{rows}}) DELETE FROM subject_heads WHERE customer_id = $1 AND pseudonym {among}
           SELECT p.pseudonym FROM subject_heads p WHERE p.customer_id = $1
             AND p.request_id IN (SELECT request_id FROM v) AND {which} {lock}{end}"
    );
    let lines = format!(
        "WITH v(request_id) AS ({{rows}}) DELETE FROM subject_lines AS p
         WHERE p.customer_id = $1 AND p.request_id IN (SELECT request_id FROM v) AND {which}"
    );
    vec![of_requests(&heads, customer, ids.clone()), of_requests(&lines, customer, ids)]
}

fn of_requests(sql: &str, customer: &CustomerId, ids: Vec<Uuid>) -> Part {
    Part::new(sql, vec![customer.as_str().into()], Rows::new(vec![Column::uuids(ids)]))
}
