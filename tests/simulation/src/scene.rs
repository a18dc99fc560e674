//! What all parts of a run share: the world, the systems as they are, what customers have asked for, and what was last seen in the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quittance_connectors::{BatchContext, Subject};
use quittance_domain::Timestamp;

use crate::{
    planted::Planted,
    scenario::{CustomerNo, Item, Number, PersonId, Scenario, SystemNo},
    snapshot::{Rid, Snapshot, TaskId},
    system::{Row, SystemState, Truth, customer_id},
    world::{ActorId, World},
};

/// What became of an instruction, as its sender knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Answer {
    #[default]
    Unsent,
    /// Sent, and no answer came: it may have been taken in, or not.
    Unknown,
    Acknowledged(String),
    Refused(String),
}

/// What somebody changed about a request, and was told that it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Done {
    pub authorised: u32,
    pub objected: u32,
    pub extended: u32,
    pub closed: u32,
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub customer: CustomerNo,
    pub item: Item,
    /// As the store has it, in hex.
    pub idempotency: String,
    /// The controller's own date, by its reckoning when it first sent it.
    pub controller_due: Option<Timestamp>,
    pub answer: Answer,
    pub done: Done,
}

/// What was seen so far.
#[derive(Default)]
pub struct Seen {
    pub snapshot: Snapshot,
    /// Leases that an actor was given.
    pub leases: BTreeMap<ActorId, BTreeMap<TaskId, i64>>,
    /// Rows that were changed for a request at a system.
    pub changed: BTreeMap<TaskId, BTreeSet<u64>>,
    /// How a person truly stood at a system when an actor last read back.
    pub truths: BTreeMap<(ActorId, SystemNo, CustomerNo, PersonId), Truth>,
}

pub struct Scene {
    pub world: Arc<World>,
    pub scenario: Scenario,
    pub planted: Option<Planted>,
    pub systems: Vec<Mutex<SystemState>>,
    pub asked: Mutex<BTreeMap<Number, Asked>>,
    pub seen: Mutex<Seen>,
}

impl Scene {
    pub fn new(world: Arc<World>, scenario: Scenario, planted: Option<Planted>) -> Arc<Self> {
        let systems = scenario.systems.iter().map(|plan| Mutex::new(SystemState::new(plan.clone()))).collect();
        Arc::new(Self { world, scenario, planted, systems, asked: Mutex::default(), seen: Mutex::default() })
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn asked(&self) -> MutexGuard<'_, BTreeMap<Number, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn system(&self, system: SystemNo) -> MutexGuard<'_, SystemState> {
        self.systems[system].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn system_no(&self, id: &str) -> Option<SystemNo> {
        self.scenario.systems.iter().position(|plan| plan.id == id)
    }

    /// The application writes.
    pub fn write_rows(&self, system: SystemNo, customer: CustomerNo, person: PersonId, rows: u64) {
        if self.scenario.systems[system].holds(customer) {
            self.system(system).write(customer, person, rows);
        }
    }

    /// The instruction that a stored request is, by the id that its sender gave it.
    pub fn number_of(&self, snapshot: &Snapshot, rid: &Rid) -> Option<Number> {
        let wanted = &snapshot.requests.get(rid)?.idempotency;
        let asked = self.asked();
        asked.iter().find(|(_, a)| a.idempotency == *wanted).map(|(number, _)| *number)
    }

    /// The stored request of an instruction.
    pub fn rid_of(&self, number: Number) -> Option<Rid> {
        let wanted = self.asked().get(&number).map(|a| (customer_id(a.customer), a.idempotency.clone()))?;
        let seen = self.seen();
        let mut requests = seen.snapshot.requests.iter();
        requests.find(|(rid, r)| rid.0 == wanted.0 && r.idempotency == wanted.1).map(|(rid, _)| rid.clone())
    }

    /// An act changed a row: for whom?
    pub fn touched(&self, system: SystemNo, row_id: u64, row: &Row, ctx: &BatchContext) {
        let Some(actor) = self.world.actor() else { return };
        let id = self.scenario.systems[system].id;
        if customer_id(row.customer) != ctx.customer.as_str() {
            return self
                .world
                .violate("I8", format!("a row of {} was changed for {}", customer_id(row.customer), ctx.customer));
        }
        let leased: Vec<TaskId> = {
            let seen = self.seen();
            let of_actor = seen.leases.get(&actor).into_iter().flat_map(BTreeMap::keys);
            of_actor.filter(|(rid, at)| rid.0 == ctx.customer.as_str() && at == id).cloned().collect()
        };
        let mut task = None;
        for candidate in leased {
            let number = self.number_of(&self.seen().snapshot, &candidate.0);
            let asked = self.asked();
            let item = number.and_then(|n| asked.get(&n)).map(|a| &a.item);
            if item.is_some_and(|item| item.person == row.person && item.action == ctx.action) {
                task = Some(candidate);
            }
        }
        let Some(task) = task else {
            return self
                .world
                .violate("I1", format!("a row at {id} was changed, and nobody with a lease had asked for it"));
        };
        let durable = self.seen().snapshot.match_sets.contains(&task);
        if !durable {
            self.world.violate("I4", format!("a row at {id} was changed before its match set was stored"));
        }
        self.seen().changed.entry(task).or_default().insert(row_id);
    }

    /// A worker reads back: how is it truly?
    pub fn looked_back(&self, system: SystemNo, state: &SystemState, ctx: &BatchContext, subjects: &[Subject]) {
        let Some(actor) = self.world.actor() else { return };
        let Some(customer) = (0..self.scenario.customers).find(|c| customer_id(*c) == ctx.customer.as_str()) else {
            return;
        };
        let mut seen = self.seen();
        for subject in subjects {
            for person in state.persons(&subject.identifiers) {
                seen.truths.insert((actor, system, customer, person), state.truth(customer, person));
            }
        }
    }
}

/// As the store has it, in hex.
pub fn idempotency(item: &Item) -> String {
    item.idempotency.simple().to_string().to_uppercase()
}
