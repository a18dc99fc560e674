//! Who stands before a request at one system (I4). Mostly that is the request right before it in a line. But not every request has a task at
//! every system: a recipient is told of what the instruction says, and a follow-up is of one system alone. There, whoever stands before that
//! one stands before both.

use std::collections::{BTreeSet, HashMap, HashSet};

use quittance_domain::{
    ids::{CustomerId, RequestId, SystemId},
    request::Notice,
    task::{TaskState, Work},
};
use quittance_sql::{Column, Engine, Rows, Tx};
use uuid::Uuid;

use crate::{
    StoreResult,
    lines::Before,
    replan::{Insertion, system_id},
    requests::read_list,
    systems,
};

/// An earlier request, as far as later ones wait for it.
struct Earlier {
    is_open: bool,
    /// Planned with an older set of systems: it will still get tasks at those that it lacks.
    lacks_systems: bool,
    told: HashSet<SystemId>,
    only: Option<SystemId>,
    /// Where a hold has ended, no other system is concerned.
    follows: bool,
    planned: HashSet<SystemId>,
    unconfirmed: HashSet<SystemId>,
    /// A worker is changing something there: though it is closed, that may be done at any moment.
    at_work: HashSet<SystemId>,
}

enum Stands {
    InTheWay,
    /// It is done there, and so is whoever came before it.
    Done,
    /// It has no task there, and gets none.
    Elsewhere,
}

impl Earlier {
    fn at(&self, system: &SystemId, recipients: &HashSet<SystemId>) -> Stands {
        if self.planned.contains(system) {
            return match (self.unconfirmed.contains(system), self.is_open) {
                (true, true) => Stands::InTheWay,
                (true, false) if self.at_work.contains(system) => Stands::InTheWay,
                (true, false) => Stands::Elsewhere,
                (false, _) => Stands::Done,
            };
        }
        let is_asked = self.only.as_ref().is_none_or(|only| only == system)
            && (!recipients.contains(system) || self.told.contains(system));
        if self.is_open && self.lacks_systems && !self.follows && is_asked {
            Stands::InTheWay
        } else {
            Stands::Elsewhere
        }
    }
}

/// What is known of the requests before some others.
#[derive(Default)]
pub(crate) struct Past {
    requests: HashMap<RequestId, Earlier>,
    before: Before,
    recipients: HashSet<SystemId>,
}

impl Past {
    /// Of the requests in `before`, and further back where one of them is not at a system that is asked about.
    pub async fn read(
        tx: &mut Tx,
        customer: &CustomerId,
        generation: i64,
        before: Before,
        insertions: &[Insertion<'_>],
        asked: &[(RequestId, BTreeSet<&SystemId>)],
    ) -> StoreResult<Self> {
        let mut past = Self { before, ..Self::default() };
        let ids: BTreeSet<Uuid> = past.before.values().flatten().map(|id| id.uuid()).collect();
        past.add(tx, customer, generation, &ids, insertions).await?;
        past.read_recipients(tx, asked).await?;
        let passes = |past: &Self, (id, systems): &(RequestId, BTreeSet<&SystemId>)| {
            let earlier = past.before.get(id).into_iter().flatten().filter_map(|id| past.requests.get(id));
            earlier.into_iter().any(|r| systems.iter().any(|s| matches!(r.at(s, &past.recipients), Stands::Elsewhere)))
        };
        if asked.iter().any(|one| passes(&past, one)) {
            past.go_back(tx, customer, generation, ids, insertions).await?;
            past.read_recipients(tx, asked).await?;
        }
        Ok(past)
    }

    /// They matter where somebody may still be planned anew.
    async fn read_recipients(&mut self, tx: &mut Tx, asked: &[(RequestId, BTreeSet<&SystemId>)]) -> StoreResult<()> {
        if self.recipients.is_empty() && self.requests.values().any(|r| r.is_open && r.lacks_systems) {
            let systems: BTreeSet<&SystemId> = asked.iter().flat_map(|(_, systems)| systems.iter().copied()).collect();
            self.recipients = systems::recipients(tx, systems.into_iter()).await?;
        }
        Ok(())
    }

    /// Who stands in the way of `id` at `system`.
    pub fn in_the_way(&self, id: RequestId, system: &SystemId) -> BTreeSet<RequestId> {
        let (mut found, mut seen) = (BTreeSet::new(), HashSet::new());
        let mut next: Vec<RequestId> = self.before.get(&id).into_iter().flatten().copied().collect();
        while let Some(id) = next.pop() {
            let Some(earlier) = self.requests.get(&id).filter(|_| seen.insert(id)) else { continue };
            match earlier.at(system, &self.recipients) {
                Stands::InTheWay => {
                    found.insert(id);
                }
                Stands::Done => {}
                Stands::Elsewhere => next.extend(self.before.get(&id).into_iter().flatten()),
            }
        }
        found
    }

    async fn go_back(
        &mut self,
        tx: &mut Tx,
        customer: &CustomerId,
        generation: i64,
        known: BTreeSet<Uuid>,
        insertions: &[Insertion<'_>],
    ) -> StoreResult<()> {
        let rows = tx
            .fetch_rows(
                "WITH RECURSIVE v(request_id) AS ({rows}), back(request_id, after_request_id) AS (
                   SELECT l.request_id, l.after_request_id FROM v
                   JOIN subject_lines l ON l.customer_id = $1 AND l.request_id = v.request_id
                   UNION
                   SELECT l.request_id, l.after_request_id FROM back b
                   JOIN subject_lines l ON l.customer_id = $1 AND l.request_id = b.after_request_id)
                 SELECT request_id, after_request_id FROM back",
                vec![customer.as_str().into()],
                Rows::new(vec![Column::uuids(known.iter().copied())]),
            )
            .await?;
        let mut more = BTreeSet::new();
        for row in rows {
            let (id, after) = (row.uuid(0)?, row.uuid(1)?);
            self.before.entry(RequestId::new(id)).or_default().insert(RequestId::new(after));
            if !known.contains(&after) {
                more.insert(after);
            }
        }
        self.add(tx, customer, generation, &more, insertions).await
    }

    /// Requests are locked before their tasks are read: whoever confirms one of these, or closes the request, locks the request too, so
    /// nothing is confirmed unseen.
    async fn add(
        &mut self,
        tx: &mut Tx,
        customer: &CustomerId,
        generation: i64,
        ids: &BTreeSet<Uuid>,
        insertions: &[Insertion<'_>],
    ) -> StoreResult<()> {
        let ids = || Rows::new(vec![Column::uuids(ids.iter().copied())]);
        let lock = if tx.engine() == Engine::Postgres { "FOR SHARE OF r" } else { "" };
        let sql = format!(
            "WITH v(request_id) AS ({{rows}})
             SELECT r.request_id, r.systems_generation, r.closed_us, r.notices, r.only_system, r.follows_request_id FROM v
             JOIN requests r ON r.customer_id = $1 AND r.request_id = v.request_id
             ORDER BY r.request_id {lock}"
        );
        for row in tx.fetch_rows(&sql, vec![customer.as_str().into()], ids()).await? {
            let told = read_list::<Notice>(&row.text(3)?)?.into_iter().map(|notice| notice.system).collect();
            let earlier = Earlier {
                is_open: row.opt_i64(2)?.is_none(),
                lacks_systems: row.i64(1)? < generation,
                told,
                only: row.opt_text(4)?.map(|id| system_id(&id)).transpose()?,
                follows: row.opt_uuid(5)?.is_some(),
                planned: HashSet::new(),
                unconfirmed: HashSet::new(),
                at_work: HashSet::new(),
            };
            self.requests.insert(RequestId::new(row.uuid(0)?), earlier);
        }
        let sql = "WITH v(request_id) AS ({rows})
             SELECT t.request_id, t.system_id, t.state, t.work FROM v
             JOIN tasks t ON t.customer_id = $1 AND t.request_id = v.request_id";
        for row in tx.fetch_rows(sql, vec![customer.as_str().into()], ids()).await? {
            if let Some(earlier) = self.requests.get_mut(&RequestId::new(row.uuid(0)?)) {
                let system = system_id(&row.text(1)?)?;
                let state = row.text(2)?;
                if state != TaskState::Confirmed.as_str() {
                    earlier.unconfirmed.insert(system.clone());
                }
                if state == TaskState::Running.as_str() && row.text(3)? == Work::Act.as_str() {
                    earlier.at_work.insert(system.clone());
                }
                earlier.planned.insert(system);
            }
        }
        // Those of this very transaction are not in the table yet.
        for insertion in insertions {
            if let Some(earlier) = self.requests.get_mut(&insertion.id) {
                earlier.planned.extend(insertion.tasks.iter().map(|t| t.system.clone()));
                earlier.unconfirmed.extend(insertion.tasks.iter().map(|t| t.system.clone()));
            }
        }
        Ok(())
    }
}
