//! The loop: who may work on what, and how much at once.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quittance_domain::{
    Timestamp,
    action::Action,
    ids::{CustomerId, SystemId},
    system::{ConnectorKind, System},
    task::Work,
};
use quittance_store::{LeaseQuery, ReadyWork, Store, StoreResult, Topology};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Clock, DispatchLimits, batch::Workshop, gate::Gate, heartbeat::Hold, registry::ConnectorRegistry, singles::Singles,
    topology::TopologyCache,
};

/// How often requests are looked at that lack a system, beside every change of systems.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// What is planned for requests in one look, in transactions: however many lack a system, what is due goes on between two looks.
const SWEEP_STEPS: u32 = 8;
/// When it is tried again after it has failed.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// A full batch of so many tasks or more is a bulk's: it keeps a database busy.
const BULK_MIN: usize = 100;

/// How long a scan of `ready` is worked from. Without it, each batch that ends would have all that waits read again.
const SCAN_AGE_MAX: Duration = Duration::from_millis(50);

/// Ready work of the last scan that is still to be looked at.
#[derive(Debug, Default)]
struct Backlog {
    /// By the steady clock.
    scanned_at: Duration,
    work: Vec<ReadyWork>,
}

impl Backlog {
    fn is_stale(&self, steady: Duration) -> bool {
        self.work.is_empty() || steady.saturating_sub(self.scanned_at) > SCAN_AGE_MAX
    }
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub struct Lookout {
    /// When requests are looked at next that lack a system, and of which generation of systems they were last.
    sweep: Option<(Duration, i64)>,
    backlog: Backlog,
}

#[derive(Default)]
struct Desk {
    gates: HashMap<SystemId, Gate>,
    /// Work that somebody is leasing from right now.
    leasing: HashSet<ReadyWork>,
    /// Batches in work per customer: who has fewest comes first.
    running: HashMap<CustomerId, u32>,
    /// Of these, those of a bulk: they are large, and there is more behind them.
    bulk: HashMap<BulkKey, u32>,
}

type BulkKey = (CustomerId, SystemId, Action, Work);

fn bulk_key(work: &ReadyWork) -> BulkKey {
    (work.customer.clone(), work.system.clone(), work.action, work.work)
}

fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Wakes the loop. A wake-up carries nothing and may be lost: the poll finds what it meant.
#[derive(Clone)]
pub struct DispatchHandle {
    notify: Arc<Notify>,
    singles: Singles,
}

impl DispatchHandle {
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// A single instruction is being taken in.
    pub fn single_came(&self) {
        self.singles.one_came();
    }

    /// Whether somebody waits for single instructions now, so that a bulk makes room.
    pub fn singles_come_in(&self) -> bool {
        self.singles.come_in()
    }
}

pub struct Dispatcher {
    store: Store,
    clock: Arc<dyn Clock>,
    limits: DispatchLimits,
    topology: Arc<TopologyCache>,
    workshop: Arc<Workshop>,
    notify: Arc<Notify>,
    singles: Singles,
    desk: Arc<Mutex<Desk>>,
    /// Places for the first batch of a system each, and those that all share.
    first: Arc<Semaphore>,
    shared: Arc<Semaphore>,
    worker: String,
    hand_back: CancellationToken,
}

impl Dispatcher {
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        limits: DispatchLimits,
        topology: Arc<TopologyCache>,
        connectors: Arc<ConnectorRegistry>,
        worker: String,
    ) -> Self {
        let hand_back = CancellationToken::new();
        let workshop = Workshop::new(store.clone(), clock.clone(), limits.clone(), connectors, hand_back.clone());
        Self {
            first: Arc::new(Semaphore::new(limits.systems_max)),
            shared: Arc::new(Semaphore::new(limits.batches_max)),
            workshop: Arc::new(workshop),
            notify: Arc::new(Notify::new()),
            singles: Singles::new(clock.clone()),
            desk: Arc::default(),
            store,
            clock,
            limits,
            topology,
            worker,
            hand_back,
        }
    }

    pub fn handle(&self) -> DispatchHandle {
        DispatchHandle { notify: self.notify.clone(), singles: self.singles.clone() }
    }

    /// Runs until `drain` is cancelled, then lets running batches finish or hands them back.
    pub async fn run(self, drain: CancellationToken) {
        let mut running = JoinSet::new();
        let mut lookout = Lookout::default();
        while !drain.is_cancelled() {
            match self.look(&mut lookout).await {
                Ok(batches) => batches.into_iter().for_each(|batch| drop(running.spawn(batch))),
                Err(error) => tracing::warn!(%error, "the store could not be asked for due work"),
            }
            // A wake-up that was answered from an older scan has not been answered yet.
            let poll = Duration::from_millis(self.limits.poll_ms);
            let next_look = if lookout.backlog.work.is_empty() { poll } else { poll.min(SCAN_AGE_MAX) };
            tokio::select! {
                () = drain.cancelled() => {}
                () = self.notify.notified() => {}
                () = self.clock.sleep(next_look) => {}
            }
            while running.try_join_next().is_some() {}
        }
        tracing::info!(batches = running.len(), "draining");
        let all = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(self.limits.drain_s), all).await.is_err() {
            self.hand_back.cancel();
            while running.join_next().await.is_some() {}
        }
    }

    /// One look at what is due. Gives the batches that may be worked on now: each leases its tasks, runs them and reports, at whatever
    /// pace it is driven.
    pub async fn look(&self, lookout: &mut Lookout) -> StoreResult<Vec<impl Future<Output = ()> + Send + use<>>> {
        let topology = self.topology.get().await?;
        let now = self.clock.steady();
        if lookout.sweep.is_none_or(|(at, generation)| generation != topology.generation || now >= at) {
            let again = self.sweep(&topology).await;
            lookout.sweep = Some((self.clock.steady() + again, topology.generation));
        }
        let mut batches = Vec::new();
        if self.first.available_permits() == 0 && self.shared.available_permits() == 0 {
            return Ok(batches);
        }
        let backlog = &mut lookout.backlog;
        if backlog.is_stale(self.clock.steady()) {
            self.scan(&topology, backlog).await?;
        }
        // Stable: among customers with equally many batches, who has waited longest.
        let counts = |desk: &Desk, work: &ReadyWork| desk.running.get(&work.customer).copied().unwrap_or(0);
        {
            let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
            backlog.work.sort_by_key(|work| counts(&desk, work));
        }
        let mut later = Vec::new();
        for work in std::mem::take(&mut backlog.work) {
            if self.takes_nothing(&work.system) || self.makes_room(&work) {
                later.push(work);
                continue;
            }
            let Some(system) = topology.system(&work.system) else { continue };
            if system.customer_key(&work.customer).is_none() {
                // Added a moment ago: whose rows are meant is known at the next look.
                continue;
            }
            let Some(slot) = self.slot(&work.system) else {
                later.push(work);
                continue;
            };
            if let Some(permit) = self.admit(system, &work) {
                batches.push(self.batch(system.clone(), work, (slot, permit)));
            }
        }
        backlog.work = later;
        Ok(batches)
    }

    /// What waits at systems that can take some. A system that is full or slow keeps nobody else's work out of sight.
    async fn scan(&self, topology: &Topology, backlog: &mut Backlog) -> StoreResult<()> {
        let in_process = topology.systems.iter().filter(|s| s.connector == ConnectorKind::Sql);
        let systems: Vec<SystemId> = in_process.map(|s| s.id.clone()).filter(|id| !self.takes_nothing(id)).collect();
        backlog.scanned_at = self.clock.steady();
        backlog.work.clear();
        if !systems.is_empty() {
            backlog.work = self.store.ready_work(self.clock.now(), &systems).await?;
        }
        let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        backlog.work.retain(|work| !desk.leasing.contains(work));
        Ok(())
    }

    /// No place, no permit, or a breaker that is open.
    fn takes_nothing(&self, system: &SystemId) -> bool {
        let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = desk.gates.get(system);
        let own = if gate.is_none_or(Gate::rests) { self.first.available_permits() } else { 0 };
        own + self.shared.available_permits() == 0 || gate.is_some_and(Gate::takes_nothing)
    }

    /// Beside single instructions a customer's bulk has fewer batches in work at a system.
    fn makes_room(&self, work: &ReadyWork) -> bool {
        if !self.singles.come_in() {
            return false;
        }
        let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let in_work = desk.bulk.get(&bulk_key(work)).copied().unwrap_or(0);
        in_work >= self.limits.bulk_batches_beside_singles.max(1)
    }

    /// A place for a batch: a system that rests has one of its own.
    fn slot(&self, system: &SystemId) -> Option<OwnedSemaphorePermit> {
        let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let rests = desk.gates.get(system).is_none_or(Gate::rests);
        let own = if rests { self.first.clone().try_acquire_owned().ok() } else { None };
        own.or_else(|| self.shared.clone().try_acquire_owned().ok())
    }

    /// Through the system's gate, if it lets a batch pass.
    fn admit(&self, system: &System, work: &ReadyWork) -> Option<OwnedSemaphorePermit> {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Gate::new(system, &self.limits, self.clock.clone());
        let gate = desk.gates.entry(system.id.clone()).or_insert_with(new);
        if !gate.fits(system) {
            *gate = new();
        }
        let permit = gate.admit()?;
        desk.leasing.insert(work.clone());
        *desk.running.entry(work.customer.clone()).or_default() += 1;
        Some(permit)
    }

    fn batch(
        &self,
        system: Arc<System>,
        work: ReadyWork,
        permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) -> impl Future<Output = ()> + Send + use<> {
        let (store, clock, workshop) = (self.store.clone(), self.clock.clone(), self.workshop.clone());
        let (desk, notify, worker) = (self.desk.clone(), self.notify.clone(), self.worker.clone());
        let lease = self.limits.lease();
        async move {
            let (now, asked) = (clock.now(), clock.steady());
            let tasks_max = system.limits.batch_size;
            let expires_at = now.checked_add(lease).unwrap_or(Timestamp::MAX);
            let query = LeaseQuery { worker: &worker, now, expires_at, tasks_max };
            let leased = store.lease(&work, &query).await;
            let leased_full = leased.as_ref().is_ok_and(|b| b.tasks.len() == tasks_max as usize);
            let bulk = (leased_full && tasks_max as usize >= BULK_MIN).then(|| bulk_key(&work));
            {
                let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
                desk.leasing.remove(&work);
                bulk.iter().for_each(|key| *desk.bulk.entry(key.clone()).or_default() += 1);
            }
            if leased_full {
                // There may be more: somebody else goes on with it while this batch is worked on.
                notify.notify_one();
            }
            let verdict = match leased {
                Ok(batch) if !batch.tasks.is_empty() => {
                    let hold = Hold::since(asked, &workshop.limits);
                    Some(workshop.run(&system, batch, hold).await)
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(system = %system.id, %error, "a batch could not be leased");
                    None
                }
            };
            {
                let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
                one_less(&mut desk.running, &work.customer);
                bulk.iter().for_each(|key| one_less(&mut desk.bulk, key));
                if let Some(gate) = desk.gates.get_mut(&system.id) {
                    gate.came_back(verdict);
                }
            }
            drop(permits);
            if verdict.is_some() {
                notify.notify_one();
            }
        }
    }

    /// Open requests get the tasks that they lack since systems were added, before they can complete (I3). Answers how long until it is to be
    /// looked at again. What goes wrong with one customer's keeps neither the others' nor what is due.
    async fn sweep(&self, topology: &Topology) -> Duration {
        let customers = match self.store.customers_to_replan(topology.generation).await {
            Ok(customers) => customers,
            Err(error) => {
                tracing::warn!(%error, "the store could not be asked for requests that lack a system");
                return SWEEP_AGAIN;
            }
        };
        let (mut steps, mut again) = (0, SWEEP_EVERY);
        for customer in customers {
            loop {
                match self.store.replan(&customer, topology, self.clock.now()).await {
                    Ok(0) => break,
                    Ok(_) => steps += 1,
                    Err(error) => {
                        tracing::warn!(%customer, %error, "requests that lack a system could not be planned");
                        again = SWEEP_AGAIN;
                        break;
                    }
                }
                if steps >= SWEEP_STEPS {
                    return Duration::ZERO;
                }
            }
        }
        again
    }
}
