//! One replica of the service: its dispatcher, its sequencer, and the API's hands, over the one store.

use std::{path::Path, sync::Arc, time::Duration};

use quittance_dispatch::{Clock as _, ConnectorRegistry, DispatchLimits, Dispatcher, Lookout, TopologyCache};
use quittance_sequencer::{LogFiles, LogKeyRing, LogStatus, Sequencer, SequencerOptions};
use quittance_store::{Forgetting, Store};

use crate::{clock::ReplicaClock, connector::Factory, dice::Dice, scene::Scene, world::ReplicaId};

/// A loop of a replica: when it may turn next.
#[derive(Debug)]
pub struct Loop {
    pub every: Duration,
    pub last: Duration,
    pub busy: bool,
}

impl Loop {
    fn new(every: Duration, now: Duration) -> Self {
        Self { every, last: now.saturating_sub(every), busy: false }
    }

    pub fn next(&self) -> Duration {
        self.last + self.every
    }
}

pub struct Replica {
    pub clock: Arc<ReplicaClock>,
    pub topology: Arc<TopologyCache>,
    pub limits: DispatchLimits,
    pub dispatcher: Arc<Dispatcher>,
    pub lookout: Option<Lookout>,
    pub looks: Loop,
    pub sequencer: Option<Box<Sequencer>>,
    pub turns: Loop,
    pub forgetting: Option<Box<Forgetting>>,
    pub keys: Loop,
}

/// What replicas are made with.
pub struct Outfit {
    pub scene: Arc<Scene>,
    pub store: Store,
    pub log_keys: Arc<LogKeyRing>,
}

/// By no clock of the machine's: a checkpoint is signed when a turn says so, and when the log was taken over.
const SIGN_EVERY: Duration = Duration::from_secs(365 * 86_400);
/// Keys are rotated when an operator asks for it.
const ROTATE_EVERY: Duration = Duration::from_secs(365 * 86_400);
/// How often replicas look when nothing goes wrong.
const CALM_LOOK: Duration = Duration::from_secs(20);
const CALM_TURN: Duration = Duration::from_secs(600);

impl Replica {
    /// Starts it, for the `life`-th time. What is kept of the log outside the store is in `disk`, which all share.
    pub fn start(outfit: &Outfit, id: ReplicaId, life: u32, disk: &Path, dice: &mut Dice) -> Self {
        let Outfit { scene, store, log_keys } = outfit;
        let scenario = &scene.scenario;
        let clock = Arc::new(ReplicaClock { world: scene.world.clone(), replica: id });
        let limits = DispatchLimits { lease_s: scenario.lease_s, export_page: 2, ..DispatchLimits::default() };
        // Of the machine's clock, too: so it is either never old enough, or always too old.
        let max_age = if scenario.fresh_topology { Duration::ZERO } else { Duration::MAX };
        let topology = Arc::new(TopologyCache::new(store.clone(), max_age));
        let factory = Arc::new(Factory { scene: scene.clone() });
        let connectors = Arc::new(ConnectorRegistry::new(factory));
        let name = format!("replica-{id}-{life}");
        let dispatcher =
            Dispatcher::new(store.clone(), clock.clone(), limits.clone(), topology.clone(), connectors, name.clone());
        let now = clock.clone();
        let options = SequencerOptions {
            batch: scenario.ledger_batch,
            sign_every: SIGN_EVERY,
            ..SequencerOptions::new(name.clone())
        };
        let sequencer = Sequencer::new(
            store.clone(),
            Arc::new(move || now.now()),
            log_keys.clone(),
            LogFiles { highest: disk.join("checkpoint"), index: disk.join("entries"), publish: None },
            options,
        );
        let time = scene.world.now();
        Self {
            clock,
            topology,
            limits,
            dispatcher: Arc::new(dispatcher),
            lookout: Some(Lookout::default()),
            looks: Loop::new(Duration::from_secs(dice.between(1, 60)), time),
            sequencer: Some(Box::new(sequencer)),
            turns: Loop::new(Duration::from_secs(dice.between(scenario.turns_least_s, 7200)), time),
            forgetting: Some(Box::new(Forgetting::new(store.clone(), name, ROTATE_EVERY))),
            keys: Loop::new(Duration::from_secs(dice.between(2, 120)), time),
        }
    }

    pub const fn calm_down(&mut self) {
        (self.looks.every, self.turns.every, self.keys.every) = (CALM_LOOK, CALM_TURN, CALM_LOOK);
    }
}

/// Why a sequencer writes no more, if it does not.
pub fn halted(sequencer: &Sequencer) -> Option<String> {
    match &*sequencer.status().borrow() {
        LogStatus::Halted(halt) => Some(halt.to_string()),
        LogStatus::Starting | LogStatus::Writing | LogStatus::Elsewhere => None,
    }
}
