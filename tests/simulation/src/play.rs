//! A run: who is due begins, one of those who may go on is chosen, and what it did is looked at.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use quittance_dispatch::{Clock as _, ClockTrust, Deadlines, remote::RemoteDesk};
use quittance_domain::ids::RequestId;
use quittance_sequencer::Sequencer;
use quittance_store::{Forgetting, IntakeItem, Store, StoreError, StoreResult, Taken};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    check::{Checker, Step},
    connector::SimulatedConnector,
    depot::{Depot, keys, store_file, url},
    dice::Dice,
    hands::{Hand, RemoteWorker, intake, is_topology, new_customer, request_id},
    plan::{Fault, Listed, Quirk},
    planted::Planted,
    replica::{Outfit, Replica, halted},
    scenario::{Number, Op, Replay, Scenario, SystemNo, Timed},
    scene::{Answer, Asked, Scene, idempotency},
    seam::ActorSeam,
    snapshot::{Reader, TaskId},
    stage::Stage,
    system::{customer_id, typed_customer},
    world::{ActorId, Choice, ReplicaId, Setting, Trace, Violation, World, at},
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Run {
    pub violation: Option<Violation>,
    pub trace: Trace,
    pub fired: (Listed<Fault>, Listed<Quirk>),
    pub steps: u64,
    pub requests: usize,
    pub simulated: Duration,
}

/// Plays what a text says, alone on this thread. `lines`: keep what was seen as text.
pub fn run(replay: &Replay, planted: Option<Planted>, lines: bool) -> Run {
    play(Scenario::of(replay), planted, lines)
}

/// Plays a scenario.
pub fn play(scenario: Scenario, planted: Option<Planted>, lines: bool) -> Run {
    let depot = Depot::get();
    #[expect(clippy::expect_used, reason = "a machine without memory for it cannot simulate")]
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut play = Play::set(depot, scenario, planted, lines).await;
        play.play().await;
        play.close().await
    })
}

/// Steps after which a run is taken to turn in a circle.
const STEPS_MAX: u64 = 60_000;
/// After the last operation, this much time with all that can go wrong.
const STORM_AFTER_LAST: Duration = Duration::from_secs(1800);
/// Then, nothing going wrong any more, all must be done within this.
const CALM_MAX: Duration = Duration::from_secs(12 * 3600);
/// A dispatcher looks for requests that lack systems no more often than twice a minute.
const LOOK_FOR_LACKS: Duration = Duration::from_secs(31);
const OPERATOR_EVERY: Duration = Duration::from_secs(300);
/// How often an operator lets a task run again before it is given up.
const RETRIES_MAX: u32 = 1;
const AT_RISK: Duration = Duration::from_secs(5 * 86_400);

/// What an actor ends with.
enum Ended {
    Looked(ReplicaId, quittance_dispatch::Lookout, Vec<Work>),
    Worked,
    Turned(ReplicaId, Box<Sequencer>),
    KeysTurned(ReplicaId, Box<Forgetting>, StoreResult<()>),
    Swept(bool, i64),
    Remote(SystemNo),
    Called(Answered),
}

type Work = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// A caller's call, which is made until it is answered.
#[derive(Clone, Debug)]
struct Call {
    op: Op,
    /// For ids of its own.
    index: usize,
    replica: ReplicaId,
    tries: u32,
}

enum Answered {
    Instructed(Vec<Number>, StoreResult<Vec<IntakeItem>>),
    /// About a request.
    Told(Number, StoreResult<()>),
    /// As somebody who has no business with it.
    Trespassed(StoreResult<()>),
    Other(StoreResult<()>),
    Operated,
}

struct Play {
    scene: Arc<Scene>,
    world: Arc<World>,
    stage: Stage<Ended>,
    outfit: Outfit,
    folder: TempDir,
    reader: Reader,
    checker: Checker,
    schedule: Dice,
    replicas: Vec<Option<Replica>>,
    lives: Vec<u32>,
    up_at: Vec<Duration>,
    ops: VecDeque<Timed>,
    calls: BTreeMap<ActorId, Call>,
    later: Vec<(Duration, Call)>,
    remotes: BTreeMap<SystemNo, (u32, Duration)>,
    operator: Duration,
    operated: BTreeMap<TaskId, u32>,
    calm_since: Option<Duration>,
    steps: u64,
}

impl Play {
    #[expect(clippy::expect_used, reason = "nothing has gone wrong yet")]
    async fn set(depot: &'static Depot, scenario: Scenario, planted: Option<Planted>, lines: bool) -> Self {
        let world = World::new(Setting {
            seed: scenario.seed,
            replicas: scenario.replicas,
            weather: scenario.weather,
            faults: scenario.faults.clone(),
            quirks: scenario.quirks.clone(),
            lines,
        });
        let folder = depot.run_folder().expect("a folder");
        let file = store_file(folder.path());
        let store = Store::open(&Depot::options(folder.path())).await.expect("a store");
        let scene = Scene::new(world.clone(), scenario, planted);
        let s = &scene.scenario;
        for customer in 0..s.customers {
            store
                .create_customer(new_customer(customer, (s.window_days, s.retention_days)), at(Duration::ZERO, 0))
                .await
                .expect("a customer");
        }
        for (n, plan) in s.systems.iter().enumerate().take(s.systems_at_first) {
            let id = quittance_domain::ids::IdempotencyId::new(Uuid::from_u128(1000 + n as u128));
            store.register_system(&plan.system(), &plan.yaml(), id, at(Duration::ZERO, 0)).await.expect("a system");
        }
        for (system, customer, person, rows) in &s.rows {
            scene.write_rows(*system, *customer, *person, *rows);
        }
        let log_keys = depot.log_keys.clone();
        let checker = Checker::new(scene.clone(), log_keys.log_keys().expect("keys"), keys(folder.path()));
        let outfit = Outfit { scene: scene.clone(), store, log_keys };
        let mut play = Self {
            stage: Stage::new(world.clone()),
            reader: Reader::open(&url(&file)).expect("a reader"),
            schedule: Dice::new(s.seed, "schedule"),
            replicas: (0..s.replicas).map(|_| None).collect(),
            lives: vec![0; s.replicas],
            up_at: vec![Duration::ZERO; s.replicas],
            ops: s.ops.clone().into(),
            calls: BTreeMap::new(),
            later: Vec::new(),
            remotes: BTreeMap::new(),
            operator: Duration::ZERO,
            operated: BTreeMap::new(),
            calm_since: None,
            steps: 0,
            checker,
            outfit,
            folder,
            scene,
            world,
        };
        play.look(Step { actor: 0, called_us: 0 }).await;
        play
    }

    async fn close(self) -> Run {
        let Self { stage, replicas, outfit, reader, world, scene, steps, folder, .. } = self;
        drop(stage);
        drop(replicas);
        outfit.store.close().await;
        reader.close().await;
        drop(folder);
        Run {
            violation: world.violation(),
            trace: world.trace(),
            fired: world.fired(),
            steps,
            requests: scene.seen().snapshot.requests.len(),
            simulated: world.now(),
        }
    }

    async fn play(&mut self) {
        while self.world.violation().is_none() {
            self.begin_what_is_due();
            let choices = self.world.choices();
            if let Some(choice) = (!choices.is_empty()).then(|| *self.schedule.pick(&choices)) {
                self.step(choice).await;
            } else if let Some(next) = self.next_time() {
                self.world.pass_time_to(next);
            } else {
                break;
            }
            if self.steps > STEPS_MAX || self.calm_since.is_some_and(|since| self.world.now() > since + CALM_MAX) {
                break;
            }
        }
        if self.world.violation().is_none() {
            match self.reader.entries().await.map(|entries| self.checker.end(&entries)) {
                Ok(Ok(())) => {}
                Ok(Err(violation)) => self.world.violate(violation.rule, violation.what),
                Err(error) => self.world.violate("simulation", error.to_string()),
            }
        }
    }

    async fn step(&mut self, choice: Choice) {
        self.steps += 1;
        let (actor, replica) = (choice.actor, self.stage.replica(choice.actor));
        self.world.tell(&format!("#{actor} {}: {}", self.stage.name(actor), choice.what));
        // What the caller's clock said when it came to the database's door.
        let skew =
            replica.map_or(0, |r| self.world.clock_of(r).as_microsecond() - at(self.world.now(), 0).as_microsecond());
        let called_us = at(choice.since, 0).as_microsecond() + skew;
        self.world.choose(choice);
        let ended = self.stage.run(actor).await;
        let mut look = self.world.take_commit();
        if let Some(ended) = ended {
            look |= matches!(ended, Ended::Called(_));
            self.ended(actor, ended);
        }
        if look {
            self.look(Step { actor, called_us }).await;
        }
        self.crash_who_must();
    }

    async fn look(&mut self, step: Step) {
        match self.reader.read(self.world.take_written()).await {
            Ok(Some(snapshot)) => self.checker.look(snapshot, step),
            Ok(None) => self.checker.look_again(),
            Err(error) => self.world.violate("simulation", error.to_string()),
        }
    }

    fn enter(&mut self, replica: ReplicaId, name: &str, work: impl Future<Output = Ended> + Send + 'static) -> ActorId {
        let seam = ActorSeam::new(self.world.clone(), replica, self.scene.planted);
        self.stage.enter(Some(replica), name, Box::pin(quittance_sql::through(seam, work)))
    }

    /// Enters an actor and lets it come to its first parking: nothing of it has reached a database by then.
    fn begin_what_is_due(&mut self) {
        self.start_replicas();
        self.calm_down_when_over();
        let now = self.world.now();
        while self.ops.front().is_some_and(|timed| timed.at <= now) {
            if let Some(timed) = self.ops.pop_front() {
                self.operate(timed);
            }
        }
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        for (_, call) in due {
            self.call(call);
        }
        self.begin_loops();
        self.begin_remote_workers();
        self.begin_operator();
    }

    fn start_replicas(&mut self) {
        for id in 0..self.replicas.len() {
            if self.replicas[id].is_none() && self.up_at[id] <= self.world.now() {
                self.lives[id] += 1;
                let disk = self.folder.path().join("ledger");
                let mut replica = Replica::start(&self.outfit, id, self.lives[id], &disk, &mut self.schedule);
                if self.calm_since.is_some() {
                    replica.calm_down();
                }
                self.replicas[id] = Some(replica);
                self.world.tell(&format!("replica {id} starts"));
            }
        }
    }

    fn calm_down_when_over(&mut self) {
        let over = self.scene.scenario.ops.last().map_or(Duration::ZERO, |timed| timed.at) + STORM_AFTER_LAST;
        if self.calm_since.is_some() || self.world.now() < over {
            return;
        }
        self.calm_since = Some(self.world.now());
        self.world.tell("from here on nothing goes wrong");
        self.world.calm_down();
        self.up_at.fill(self.world.now());
        for replica in self.replicas.iter_mut().flatten() {
            replica.calm_down();
        }
        for n in 0..self.scene.systems.len() {
            self.scene.system(n).down_until = Duration::ZERO;
        }
        // The customers decide about what waits for them.
        let waiting: Vec<Number> = {
            let seen = self.scene.seen();
            let waits = seen.snapshot.requests.iter().filter(|(_, r)| r.state == "AWAITING_CUSTOMER");
            waits.filter_map(|(rid, _)| self.scene.number_of(&seen.snapshot, rid)).collect()
        };
        for number in waiting {
            let op = if self.schedule.per_mille(750) { Op::Authorise { number } } else { Op::Decline { number } };
            self.later.push((self.world.now(), Call { op, index: 0, replica: 0, tries: 0 }));
        }
        self.start_replicas();
    }

    /// When something begins by itself next.
    fn next_time(&self) -> Option<Duration> {
        let mut times: Vec<Duration> = self.world.next_ready().into_iter().collect();
        times.extend(self.ops.front().map(|timed| timed.at));
        times.extend(self.later.iter().map(|(at, _)| *at));
        for (id, replica) in self.replicas.iter().enumerate() {
            match replica {
                None => times.push(self.up_at[id]),
                Some(replica) => {
                    let paused = self.world.paused_until(id);
                    times.extend(self.next_look(replica).map(|at| at.max(paused)));
                    times.extend(self.next_turn(replica).map(|at| at.max(paused)));
                    times.extend(self.next_keys(replica).map(|at| at.max(paused)));
                }
            }
        }
        // Remote workers have nobody to speak to while all replicas are down.
        if self.replicas.iter().any(Option::is_some) {
            times.extend((0..self.scene.systems.len()).filter_map(|n| self.next_remote(n)));
        }
        if self.calm_since.is_none() {
            let last = self.scene.scenario.ops.last().map_or(Duration::ZERO, |timed| timed.at);
            times.push(last + STORM_AFTER_LAST);
        } else if !self.attention().is_empty() {
            times.push(self.operator + OPERATOR_EVERY);
        }
        let now = self.world.now();
        times.into_iter().min().map(|at| at.max(now + Duration::from_millis(1)))
    }

    /// When the first of the open tasks may be leased, of some systems.
    fn next_due(&self, concerns: impl Fn(&str) -> bool) -> Option<Duration> {
        let seen = self.scene.seen();
        let due = seen.snapshot.due_us.iter().filter(|(system, _)| concerns(system)).map(|(_, due)| *due).min()?;
        let start = at(Duration::ZERO, 0).as_microsecond();
        Some(Duration::from_micros(u64::try_from(due - start).unwrap_or(0)))
    }

    fn is_remote(&self, system: &str) -> bool {
        self.scene.scenario.systems.iter().any(|plan| plan.id == system && plan.remote)
    }

    /// A replica polls all the time; only those looks are made here that could find something.
    fn next_look(&self, replica: &Replica) -> Option<Duration> {
        if replica.looks.busy {
            return None;
        }
        let due = self.next_due(|system| !self.is_remote(system)).map(|due| due.max(replica.looks.next()));
        let lacks = self.scene.seen().snapshot.lacks_systems;
        due.into_iter().chain(lacks.then(|| replica.looks.last + LOOK_FOR_LACKS)).min()
    }

    fn next_turn(&self, replica: &Replica) -> Option<Duration> {
        let seen = self.scene.seen();
        // At the end, when all else is done: one turn signs it all.
        let awaited = self.calm_since.is_some() && !seen.snapshot.due_us.is_empty();
        (!replica.turns.busy && !awaited && seen.snapshot.unsigned).then(|| replica.turns.next())
    }

    fn next_keys(&self, replica: &Replica) -> Option<Duration> {
        let wanted = self.scene.seen().snapshot.keys_turn;
        (!replica.keys.busy && wanted).then(|| replica.keys.next())
    }

    fn next_remote(&self, system: SystemNo) -> Option<Duration> {
        let plan = &self.scene.scenario.systems[system];
        let (busy, last) = self.remotes.get(&system).copied().unwrap_or_default();
        if !plan.remote || busy >= 2 {
            return None;
        }
        self.next_due(|id| id == plan.id).map(|due| due.max(last + Duration::from_secs(7)))
    }

    fn begin_loops(&mut self) {
        let now = self.world.now();
        let lacks = self.scene.seen().snapshot.lacks_systems;
        for id in 0..self.replicas.len() {
            let paused = self.world.paused_until(id) > now;
            let Some(replica) = self.replicas[id].as_ref().filter(|_| !paused) else { continue };
            let (look, turn, keys) = (self.next_look(replica), self.next_turn(replica), self.next_keys(replica));
            let Some(replica) = self.replicas[id].as_mut() else { continue };
            if look.is_some_and(|at| at <= now)
                && let Some(mut lookout) = replica.lookout.take()
            {
                (replica.looks.busy, replica.looks.last) = (true, now);
                let (dispatcher, topology) = (replica.dispatcher.clone(), replica.topology.clone());
                // What a replica knows of the systems grows old, but never very old.
                let hears = self.calm_since.is_some() || self.schedule.per_mille(500);
                let refreshes = lacks && hears && !self.scene.scenario.fresh_topology;
                let look = async move {
                    if refreshes {
                        let _ = topology.refresh().await;
                    }
                    let batches = dispatcher.look(&mut lookout).await.unwrap_or_default();
                    Ended::Looked(id, lookout, batches.into_iter().map(|batch| Box::pin(batch) as Work).collect())
                };
                self.begin(id, "dispatcher", look);
            }
            let Some(replica) = self.replicas[id].as_mut() else { continue };
            if turn.is_some_and(|at| at <= now)
                && let Some(mut sequencer) = replica.sequencer.take()
            {
                (replica.turns.busy, replica.turns.last) = (true, now);
                let sign = self.calm_since.is_some() || self.schedule.per_mille(600);
                let turn = async move {
                    sequencer.turn(sign).await;
                    Ended::Turned(id, sequencer)
                };
                self.begin(id, "sequencer", turn);
            }
            let Some(replica) = self.replicas[id].as_mut() else { continue };
            if keys.is_some_and(|at| at <= now)
                && let Some(mut forgetting) = replica.forgetting.take()
            {
                (replica.keys.busy, replica.keys.last) = (true, now);
                let (store, clock) = (self.outfit.store.clone(), replica.clock.clone());
                let turn = async move {
                    let mut turned = store.refresh_keys().await;
                    while turned.is_ok() {
                        match forgetting.turn(clock.now()).await {
                            Ok(turn) if turn.goes_on() => {}
                            Ok(_) => break,
                            Err(error) => turned = Err(error),
                        }
                    }
                    Ended::KeysTurned(id, forgetting, turned)
                };
                self.begin(id, "keys", turn);
            }
        }
    }

    /// Enters an actor that parks before anything else.
    fn begin(&mut self, replica: ReplicaId, name: &str, work: impl Future<Output = Ended> + Send + 'static) -> ActorId {
        let world = self.world.clone();
        let entered = async move {
            world.park("its turn", world.now()).await;
            work.await
        };
        let id = self.enter(replica, name, entered);
        self.stage.settle(id);
        id
    }

    fn begin_remote_workers(&mut self) {
        let now = self.world.now();
        for system in 0..self.scene.systems.len() {
            if self.next_remote(system).is_none_or(|at| at > now) {
                continue;
            }
            let Some(replica) = self.any_replica(0) else { return };
            let Some(served) = self.replicas[replica].as_ref() else { return };
            let plan = &self.scene.scenario.systems[system];
            let worker = RemoteWorker {
                store: self.outfit.store.clone(),
                clock: served.clock.clone(),
                desk: RemoteDesk::new(self.outfit.store.clone(), served.clock.clone(), served.limits.clone()),
                connector: SimulatedConnector::new(self.scene.clone(), system),
                system: plan.system(),
                time_limit: served.limits.target_time_limit(),
                repeats: self.schedule.per_mille(300),
            };
            let entry = self.remotes.entry(system).or_default();
            *entry = (entry.0 + 1, now);
            let work = async move {
                worker.work().await;
                Ended::Remote(system)
            };
            self.begin(replica, "remote worker", work);
        }
    }

    /// Tasks that need attention, of requests that are under way.
    fn attention(&self) -> Vec<TaskId> {
        let seen = self.scene.seen();
        let wants = |id: &TaskId| seen.snapshot.requests.get(&id.0).is_some_and(|r| r.state == "IN_PROGRESS");
        let tasks = seen.snapshot.tasks.iter().filter(|(id, task)| task.state == "NEEDS_ATTENTION" && wants(id));
        tasks.map(|(id, _)| id.clone()).collect()
    }

    fn begin_operator(&mut self) {
        let now = self.world.now();
        if self.calm_since.is_none() || now < self.operator + OPERATOR_EVERY || self.attention().is_empty() {
            return;
        }
        self.operator = now;
        self.call(Call { op: Op::Operate { gives_up: false }, index: 0, replica: 0, tries: 0 });
    }

    /// The wished one, if it is up; or another.
    fn any_replica(&self, wished: ReplicaId) -> Option<ReplicaId> {
        let up = |id: &ReplicaId| self.replicas[*id].is_some();
        let all = self.replicas.len();
        (0..all).map(|n| (wished + n) % all).find(up)
    }

    fn operate(&mut self, timed: Timed) {
        let Timed { index, replica, op, .. } = timed;
        let now = self.world.now();
        self.world.tell(&format!("operation {index}: {op:?}"));
        match &op {
            Op::Rows { system, customer, person, rows } => {
                self.scene.write_rows(*system, *customer, *person, *rows);
            }
            Op::Crash { down_s } => {
                self.world.crash(replica);
                self.up_at[replica] = now + Duration::from_secs(*down_s);
                self.crash_who_must();
            }
            Op::Pause { seconds } => self.world.pause(replica, Duration::from_secs(*seconds)),
            Op::StepClock { seconds } => self.world.step_clock(replica, *seconds),
            Op::Outage { system, seconds } => {
                self.scene.system(*system).down_until = now + Duration::from_secs(*seconds);
            }
            _ => self.call(Call { op, index, replica, tries: 0 }),
        }
    }

    fn again(&mut self, mut call: Call) {
        call.tries += 1;
        let wait = Duration::from_secs(self.schedule.between(1, 30));
        // The next time by another door.
        call.replica = (call.replica + 1) % self.replicas.len();
        self.later.push((self.world.now() + wait, call));
    }

    /// Makes a call at a replica that is up.
    fn call(&mut self, call: Call) {
        let Some(replica) = self.any_replica(call.replica) else { return self.again(call) };
        let Some(served) = self.replicas[replica].as_ref() else { return };
        let hand =
            Hand { store: self.outfit.store.clone(), clock: served.clock.clone(), topology: served.topology.clone() };
        let Some(work) = self.prepare(&call, hand) else { return };
        let name = match call.op {
            Op::Operate { .. } => "operator",
            Op::Trespass { .. } => "trespasser",
            Op::Sweep => "sweep",
            _ => "customer",
        };
        let actor = self.begin(replica, name, work);
        self.calls.insert(actor, call);
    }

    /// What a call does. `None`: there is nothing that it could be about.
    fn prepare(&mut self, call: &Call, hand: Hand) -> Option<std::pin::Pin<Box<dyn Future<Output = Ended> + Send>>> {
        let id = |stream: u128| Uuid::from_u128(stream + call.index as u128);
        let told = |number: Number, result: StoreResult<()>| Ended::Called(Answered::Told(number, result));
        Some(match &call.op {
            Op::Instruct { customer, items, .. } => {
                let numbers: Vec<Number> = items.iter().map(|item| item.number).collect();
                let now = self.world.now();
                let mut asked = self.scene.asked();
                let mut intakes = Vec::new();
                for item in items {
                    let entry = asked.entry(item.number).or_insert_with(|| Asked {
                        customer: *customer,
                        item: item.clone(),
                        idempotency: idempotency(item),
                        controller_due: item.controller_due_days.map(|days| at(now, days * 86_400)),
                        answer: Answer::Unknown,
                        done: Default::default(),
                    });
                    intakes.push(intake(entry));
                }
                let customer = typed_customer(*customer);
                Box::pin(async move {
                    Ended::Called(Answered::Instructed(numbers, hand.instruct(&customer, &intakes).await))
                })
            }
            Op::Repeat { of } => {
                let again = self.scene.scenario.ops.iter().find(|timed| timed.index == *of)?.op.clone();
                let Op::Instruct { items, .. } = &again else { return None };
                // Who has sent nothing has nothing to repeat.
                items.iter().all(|item| self.scene.asked().contains_key(&item.number)).then_some(())?;
                return self.prepare(&Call { op: again, ..call.clone() }, hand);
            }
            Op::Authorise { number } => {
                let (customer, request, number) = self.known(*number)?;
                Box::pin(async move { told(number, hand.authorise(&customer, request).await) })
            }
            Op::Decline { number } => {
                let (customer, request, number) = self.known(*number)?;
                Box::pin(async move { told(number, hand.decline(&customer, request).await) })
            }
            Op::Cancel { number } => {
                let (customer, request, number) = self.known(*number)?;
                Box::pin(async move { told(number, hand.cancel(&customer, request).await) })
            }
            Op::Object { number } => {
                let (customer, request, number) = self.known(*number)?;
                Box::pin(async move { told(number, hand.object(&customer, request).await) })
            }
            Op::Extend { number, days } => {
                let (customer, request, number) = self.known(*number)?;
                let due = at(self.world.now(), days * 86_400);
                Box::pin(async move { told(number, hand.extend(&customer, request, due).await) })
            }
            Op::Trespass { number, customer } => {
                let (owner, request, _) = self.known(*number)?;
                let stranger = typed_customer(*customer);
                if owner == stranger {
                    return None;
                }
                let due = at(self.world.now(), 90 * 86_400);
                let way = call.index % 3;
                Box::pin(async move {
                    let result = match way {
                        0 => hand.cancel(&stranger, request).await,
                        1 => hand.extend(&stranger, request, due).await,
                        _ => hand.object(&stranger, request).await,
                    };
                    Ended::Called(Answered::Trespassed(result))
                })
            }
            Op::Agreement { customer, window_days } => {
                let terms = (*window_days, self.scene.scenario.retention_days);
                let (customer, id) = (typed_customer(*customer), id(2000));
                Box::pin(async move { Ended::Called(Answered::Other(hand.add_agreement(&customer, id, terms).await)) })
            }
            Op::Rotate => Box::pin(async move { Ended::Called(Answered::Other(hand.store.ask_for_rotation().await)) }),
            Op::Register { system } => {
                let plan = &self.scene.scenario.systems[*system];
                let (system, yaml, id) = (plan.system(), plan.yaml(), Uuid::from_u128(1000 + *system as u128));
                Box::pin(async move { Ended::Called(Answered::Other(hand.register(&system, &yaml, id).await)) })
            }
            Op::Remap { system } => {
                let plan = &self.scene.scenario.systems[*system];
                self.scene.seen().snapshot.systems.contains(plan.id).then_some(())?;
                let (system, yaml, id) = (plan.system(), plan.yaml(), id(3000));
                Box::pin(async move { Ended::Called(Answered::Other(hand.remap(&system, &yaml, id).await)) })
            }
            Op::Operate { gives_up } => {
                let mut tasks = Vec::new();
                for id in self.attention() {
                    let tried = self.operated.entry(id.clone()).or_default();
                    *tried += 1;
                    tasks.push((id, *gives_up || *tried > RETRIES_MAX));
                }
                Box::pin(async move {
                    hand.operate(&tasks).await;
                    Ended::Called(Answered::Operated)
                })
            }
            Op::Sweep => {
                let deadlines = Deadlines::new(hand.store, hand.clock.clone(), AT_RISK, AT_RISK, ClockTrust::default());
                Box::pin(async move {
                    let now = hand.clock.now().as_microsecond();
                    Ended::Swept(deadlines.sweep(&CancellationToken::new()).await.is_ok(), now)
                })
            }
            Op::Rows { .. } | Op::Crash { .. } | Op::Pause { .. } | Op::StepClock { .. } | Op::Outage { .. } => {
                return None;
            }
        })
    }

    /// A request that its sender knows of.
    fn known(&self, number: Number) -> Option<(quittance_domain::ids::CustomerId, RequestId, Number)> {
        let asked = self.scene.asked();
        let a = asked.get(&number)?;
        let rid = match &a.answer {
            Answer::Acknowledged(id) => (customer_id(a.customer), id.clone()),
            Answer::Unsent | Answer::Unknown | Answer::Refused(_) => {
                drop(asked);
                let rid = self.scene.rid_of(number)?;
                return Some((quittance_domain::ids::CustomerId::new(&rid.0).ok()?, request_id(&rid)?, number));
            }
        };
        Some((typed_customer(a.customer), request_id(&rid)?, number))
    }

    fn ended(&mut self, actor: ActorId, ended: Ended) {
        match ended {
            Ended::Worked => {}
            Ended::Looked(id, lookout, batches) => {
                if let Some(replica) = self.replicas[id].as_mut() {
                    replica.looks.busy = false;
                    replica.lookout = Some(lookout);
                }
                for batch in batches {
                    let work = async move {
                        batch.await;
                        Ended::Worked
                    };
                    self.begin(id, "batch", work);
                }
            }
            Ended::Turned(id, sequencer) => {
                if let Some(reason) = halted(&sequencer) {
                    self.world.violate("I6", reason);
                }
                if let Some(replica) = self.replicas[id].as_mut() {
                    replica.turns.busy = false;
                    replica.sequencer = Some(sequencer);
                }
            }
            Ended::KeysTurned(id, forgetting, turned) => {
                // Another epoch has begun meanwhile: the next turn sees it.
                if let Err(error) = turned
                    && !error.is_transient()
                    && !matches!(error, StoreError::WrongState(_))
                {
                    self.world.violate("I7", format!("the keys cannot be turned over: {error}"));
                }
                if let Some(replica) = self.replicas[id].as_mut() {
                    replica.keys.busy = false;
                    replica.forgetting = Some(forgetting);
                }
            }
            Ended::Swept(done, now_us) => {
                self.calls.remove(&actor);
                let untold = |r: &crate::snapshot::Request| r.is_open() && r.due_us < now_us && r.urgency < 2;
                let seen = self.scene.seen();
                if done && let Some((rid, _)) = seen.snapshot.requests.iter().find(|(_, r)| untold(r)) {
                    let what = format!("a request of {} is overdue, and nobody was told", rid.0);
                    drop(seen);
                    self.world.violate("I9", what);
                }
            }
            Ended::Remote(system) => {
                if let Some((busy, _)) = self.remotes.get_mut(&system) {
                    *busy = busy.saturating_sub(1);
                }
            }
            Ended::Called(answered) => {
                if let Some(call) = self.calls.remove(&actor) {
                    self.answered(call, answered);
                }
            }
        }
    }

    fn answered(&mut self, call: Call, answered: Answered) {
        match answered {
            Answered::Operated => {}
            Answered::Instructed(numbers, Ok(items)) => {
                for (number, item) in numbers.into_iter().zip(items) {
                    self.taken(number, item);
                }
            }
            Answered::Instructed(_, Err(error)) | Answered::Other(Err(error)) => self.failed(call, error),
            Answered::Other(Ok(())) => {}
            Answered::Told(number, Ok(())) => {
                let mut asked = self.scene.asked();
                let Some(a) = asked.get_mut(&number) else { return };
                match call.op {
                    Op::Authorise { .. } => a.done.authorised += 1,
                    Op::Object { .. } => a.done.objected += 1,
                    Op::Extend { .. } => a.done.extended += 1,
                    Op::Decline { .. } | Op::Cancel { .. } => a.done.closed += 1,
                    _ => {}
                }
            }
            // It was too late for it, or it was done before though the answer was lost.
            Answered::Told(_, Err(StoreError::WrongState(_) | StoreError::Refused(_))) => {}
            Answered::Told(_, Err(error)) => self.failed(call, error),
            Answered::Trespassed(Err(StoreError::NotFound(_))) => {}
            Answered::Trespassed(Err(error)) if error.is_transient() => {}
            Answered::Trespassed(result) => {
                self.world.violate("I8", format!("a stranger's call was answered: {result:?}"));
            }
        }
    }

    fn taken(&self, number: Number, item: IntakeItem) {
        let mut asked = self.scene.asked();
        let Some(a) = asked.get_mut(&number) else { return };
        match item {
            Ok(Taken::Created(id) | Taken::Repeated(id)) => {
                let id = id.uuid().simple().to_string().to_uppercase();
                if let Answer::Acknowledged(first) = &a.answer
                    && *first != id
                {
                    drop(asked);
                    return self.world.violate("I2", format!("instruction {number} is two requests"));
                }
                a.answer = Answer::Acknowledged(id);
            }
            Err(StoreError::Refused(why)) => {
                if matches!(a.answer, Answer::Acknowledged(_)) {
                    drop(asked);
                    return self
                        .world
                        .violate("I2", format!("instruction {number} was acknowledged, and now refused: {why}"));
                }
                a.answer = Answer::Refused(why);
            }
            // Taken in once, done, and forgotten: nothing tells any more whether this is the same.
            Err(StoreError::RequestIdForgotten) => {
                let Answer::Acknowledged(id) = a.answer.clone() else { return };
                drop(asked);
                let open = self.scene.seen().snapshot.requests.iter().any(|(rid, r)| rid.1 == id && r.is_open());
                if open {
                    self.world.violate("I2", format!("instruction {number} is open, and called forgotten"));
                }
            }
            Err(error) => {
                drop(asked);
                self.world.violate("unexpected", format!("instruction {number}: {error}"));
            }
        }
    }

    fn failed(&mut self, call: Call, error: StoreError) {
        if !error.is_transient() && !is_topology(&error) {
            return self.world.violate("unexpected", format!("{:?}: {error}", call.op));
        }
        if !matches!(call.op, Op::Instruct { gives_up: true, .. }) || self.calm_since.is_some() {
            self.again(call);
        }
    }

    /// Processes that end here. What they had begun is dropped where it stands, transactions with it.
    fn crash_who_must(&mut self) {
        for id in 0..self.replicas.len() {
            if !self.world.is_crashing(id) {
                continue;
            }
            let now = self.world.now();
            if self.up_at[id] <= now {
                self.up_at[id] = now + Duration::from_secs(self.schedule.between(1, 120));
            }
            self.world.tell(&format!("replica {id} crashes"));
            let died = self.stage.drop_all_of(id);
            self.replicas[id] = None;
            self.world.crashed(id);
            for actor in died {
                if let Some(call) = self.calls.remove(&actor) {
                    let gives_up = matches!(call.op, Op::Instruct { gives_up: true, .. } | Op::Trespass { .. });
                    if !gives_up {
                        self.again(call);
                    }
                }
            }
            // Remote workers that had their call there: others come.
            for (busy, _) in self.remotes.values_mut() {
                *busy = 0;
            }
        }
    }
}
