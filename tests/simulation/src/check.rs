//! The invariants, looked at after every step that committed something.

mod confirmed;
mod dates;
pub use dates::ZONE;
mod fan_out;
mod forgetting;
mod leases;
mod ledger;
mod requests;

use std::{path::PathBuf, sync::Arc};

use crate::{
    scene::Scene,
    snapshot::{Entry, Snapshot},
    world::{ActorId, Violation},
};

use ledger::LedgerSeen;

pub(crate) type Checked = Result<(), Violation>;

pub(crate) fn violated(rule: &'static str, what: impl Into<String>) -> Violation {
    Violation { rule, what: what.into() }
}

/// Who made the step that is looked at, and what it knew.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub actor: ActorId,
    /// What its clock said when it asked for the transaction.
    pub called_us: i64,
}

/// Compares what is with what was.
pub struct Checker {
    scene: Arc<Scene>,
    before: Snapshot,
    ledger: LedgerSeen,
    order: requests::Order,
    systems: fan_out::Registered,
    keys: PathBuf,
}

impl Checker {
    /// `keys`: the folder of the key ring.
    pub fn new(scene: Arc<Scene>, log_keys: quittance_ledger::checkpoint::LogKeys, keys: PathBuf) -> Self {
        Self {
            scene,
            keys,
            before: Snapshot::default(),
            ledger: LedgerSeen::new(log_keys),
            order: requests::Order::default(),
            systems: fan_out::Registered::default(),
        }
    }

    /// Looks at the store as it stands after a step.
    pub fn look(&mut self, now: Snapshot, step: Step) {
        if let Err(violation) = self.checks(&now, step) {
            self.scene.world.violate(violation.rule, violation.what);
        }
        self.before = now.clone();
        self.scene.seen().snapshot = now;
    }

    /// The store is as it was; what somebody was told since may not be.
    pub fn look_again(&self) {
        let told = requests::stand(&self.scene, &self.before, &self.before);
        if let Err(violation) = told.and_then(|()| self.ledger.told(&self.scene)) {
            self.scene.world.violate(violation.rule, violation.what);
        }
    }

    fn checks(&mut self, now: &Snapshot, step: Step) -> Checked {
        let (scene, before) = (&self.scene, &self.before);
        self.systems.note(now);
        self.order.note(scene, now);
        requests::stand(scene, before, now)?;
        requests::move_as_they_may(before, now)?;
        leases::given(scene, before, now, step, &self.order)?;
        leases::fenced(scene, before, now, step)?;
        fan_out::complete(scene, now, &self.systems)?;
        confirmed::once(before, now)?;
        confirmed::invented(scene, before, now, step)?;
        self.ledger.look(now)?;
        self.ledger.told(scene)?;
        forgetting::honest(scene, before, now, &self.keys)?;
        dates::honest(scene, before, now, &self.ledger)
    }

    /// After the end, when nothing goes wrong any more and nothing moves.
    pub fn end(&self, entries: &[(i64, Entry)]) -> Checked {
        self.ledger.unaltered(entries)?;
        requests::all_done(&self.scene, &self.before)?;
        forgetting::all_through(&self.before)?;
        self.ledger.all_signed(&self.before)
    }
}
