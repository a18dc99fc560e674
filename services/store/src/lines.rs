//! The order of one person's instructions (I4): who comes after whom, where it waits for it, and what becomes of the others when one
//! in the middle goes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use quittance_domain::{
    action::Action,
    ids::{CustomerId, RequestId, SystemId},
    task::TaskState,
};
use quittance_sql::{Column, Engine, Part, Rows, Tx, Val};
use uuid::Uuid;

use crate::{
    StoreResult, rekey,
    replan::{Insertion, system_id},
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

/// An earlier request, as far as later ones wait for it.
struct Earlier {
    /// Planned with an older set of systems: it will still get tasks at those that it lacks.
    lacks_systems: bool,
    planned: HashSet<SystemId>,
    unconfirmed: HashSet<SystemId>,
}

impl Earlier {
    fn holds_back(&self, system: &SystemId) -> bool {
        self.unconfirmed.contains(system) || (self.lacks_systems && !self.planned.contains(system))
    }
}

/// At which systems each new task waits for which earlier request.
pub(crate) async fn held_back(
    tx: &mut Tx,
    customer: &CustomerId,
    generation: i64,
    before: &Before,
    insertions: &[Insertion<'_>],
) -> StoreResult<HashMap<RequestId, Vec<(RequestId, SystemId)>>> {
    let earlier = earlier(tx, customer, generation, before, insertions).await?;
    let mut result: HashMap<RequestId, Vec<(RequestId, SystemId)>> = HashMap::new();
    for insertion in insertions {
        for id in before.get(&insertion.id).into_iter().flatten() {
            let Some(earlier) = earlier.get(id) else { continue };
            let held = insertion.tasks.iter().map(|t| &t.system).filter(|system| earlier.holds_back(system));
            result.entry(insertion.id).or_default().extend(held.map(|system| (*id, system.clone())));
        }
    }
    Ok(result)
}

/// The open ones of the earlier requests. Locked before their tasks are read: whoever confirms one of these, or closes the request,
/// locks the request too, so nothing is confirmed unseen.
async fn earlier(
    tx: &mut Tx,
    customer: &CustomerId,
    generation: i64,
    before: &Before,
    insertions: &[Insertion<'_>],
) -> StoreResult<HashMap<RequestId, Earlier>> {
    let ids: BTreeSet<Uuid> = before.values().flatten().map(|id| id.uuid()).collect();
    let ids = || Rows::new(vec![Column::uuids(ids.iter().copied())]);
    let lock = if tx.engine() == Engine::Postgres { "FOR SHARE OF r" } else { "" };
    let sql = format!(
        "WITH v(request_id) AS ({{rows}})
         SELECT r.request_id, r.systems_generation FROM v
         JOIN requests r ON r.customer_id = $1 AND r.request_id = v.request_id
         WHERE r.closed_us IS NULL ORDER BY r.request_id {lock}"
    );
    let mut earlier = HashMap::new();
    for row in tx.fetch_rows(&sql, vec![customer.as_str().into()], ids()).await? {
        let lacks_systems = row.i64(1)? < generation;
        let open = Earlier { lacks_systems, planned: HashSet::new(), unconfirmed: HashSet::new() };
        earlier.insert(RequestId::new(row.uuid(0)?), open);
    }
    let sql = "WITH v(request_id) AS ({rows})
         SELECT t.request_id, t.system_id, t.state FROM v
         JOIN tasks t ON t.customer_id = $1 AND t.request_id = v.request_id";
    for row in tx.fetch_rows(sql, vec![customer.as_str().into()], ids()).await? {
        if let Some(open) = earlier.get_mut(&RequestId::new(row.uuid(0)?)) {
            let system = system_id(&row.text(1)?)?;
            if row.text(2)? != TaskState::Confirmed.as_str() {
                open.unconfirmed.insert(system.clone());
            }
            open.planned.insert(system);
        }
    }
    // Those of this very transaction are not in the table yet.
    for insertion in insertions {
        if let Some(open) = earlier.get_mut(&insertion.id) {
            open.planned.extend(insertion.tasks.iter().map(|t| t.system.clone()));
            open.unconfirmed.extend(insertion.tasks.iter().map(|t| t.system.clone()));
        }
    }
    Ok(earlier)
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

/// A request that has not run goes: whoever waited for it waits for those that it had waited for.
pub(crate) async fn leave(tx: &mut Tx, customer: &CustomerId, id: RequestId) -> StoreResult<()> {
    if tx.engine() == Engine::Postgres {
        hold_earlier(tx, customer, id).await?;
    }
    tx.execute(
        "INSERT INTO task_waits (customer_id, request_id, system_id, before_work, on_request_id, on_system_id, until_state)
         SELECT DISTINCT w.customer_id, w.request_id, w.system_id, w.before_work, r.request_id, w.system_id, w.until_state
         FROM task_waits w
         JOIN subject_lines l ON l.customer_id = $1 AND l.request_id = $2
         JOIN requests r ON r.customer_id = $1 AND r.request_id = l.after_request_id AND r.closed_us IS NULL
         WHERE w.customer_id = $1 AND w.on_request_id = $2 AND w.request_id <> $2
           AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.customer_id = $1 AND t.request_id = r.request_id
             AND t.system_id = w.system_id AND t.state = 'CONFIRMED')
         ON CONFLICT DO NOTHING",
        key(customer, id),
    )
    .await?;
    // The one before it in each line, if there is one that is open still.
    let one_before = "SELECT l.after_request_id FROM subject_lines l
         JOIN requests r ON r.customer_id = $1 AND r.request_id = l.after_request_id AND r.closed_us IS NULL
         WHERE l.customer_id = $1 AND l.request_id = $2 AND l.pseudonym = ";
    tx.execute(
        &format!(
            "UPDATE subject_lines SET after_request_id = ({one_before} subject_lines.pseudonym)
             WHERE customer_id = $1 AND after_request_id = $2 AND EXISTS ({one_before} subject_lines.pseudonym)"
        ),
        key(customer, id),
    )
    .await?;
    tx.execute(
        &format!(
            "UPDATE subject_heads SET request_id = ({one_before} subject_heads.pseudonym), previous_request_id = NULL
             WHERE customer_id = $1 AND request_id = $2 AND EXISTS ({one_before} subject_heads.pseudonym)"
        ),
        key(customer, id),
    )
    .await?;
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

// A head that somebody is lining up behind is left to them: to wait for them, while they wait for us, would be a deadlock.
const FORGET_HEADS_POSTGRES: &str = "WITH v(request_id) AS ({rows})
     DELETE FROM subject_heads WHERE customer_id = $1 AND pseudonym = ANY (ARRAY(
       SELECT h.pseudonym FROM subject_heads h WHERE h.customer_id = $1
         AND h.request_id IN (SELECT request_id FROM v) FOR UPDATE OF h SKIP LOCKED))";
const FORGET_HEADS_SQLITE: &str = "WITH v(request_id) AS ({rows}) DELETE FROM subject_heads
     WHERE customer_id = $1 AND request_id IN (SELECT request_id FROM v)";

/// A closed request stands in nobody's way any more.
pub(crate) fn forget_closed(engine: Engine, customer: &CustomerId, closed: &[Closed]) -> Vec<Part> {
    let heads = match engine {
        Engine::Postgres => FORGET_HEADS_POSTGRES,
        Engine::Sqlite | Engine::MySql => FORGET_HEADS_SQLITE,
    };
    let all = || closed.iter().map(|c| c.request.uuid());
    let ended = closed.iter().filter(|c| c.ends_restrictions).map(|c| c.request.uuid());
    let part =
        |sql: &str, ids: Vec<Uuid>| Part::new(sql, vec![customer.as_str().into()], Rows::new(vec![Column::uuids(ids)]));
    vec![
        part(heads, all().collect()),
        part(
            "WITH v(request_id) AS ({rows}) DELETE FROM subject_lines
             WHERE customer_id = $1 AND request_id IN (SELECT request_id FROM v)",
            all().collect(),
        ),
        part(
            "WITH v(request_id) AS ({rows}) DELETE FROM restrictions
             WHERE customer_id = $1 AND ended_by_request_id IN (SELECT request_id FROM v)",
            ended.collect(),
        ),
    ]
}
