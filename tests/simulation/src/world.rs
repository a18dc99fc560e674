//! The world of one run: its time, who waits for what, what goes wrong next, and what was seen.
//!
//! Whoever would begin a transaction, sleep, or wait for a system's answer *parks* here, and goes on when it is chosen. Nothing else runs
//! meanwhile: between two parkings there is at most one transaction, and the database's own threads are waited for. So the order of all
//! that happens is the order in which the parked were chosen, and that is drawn from the seed.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use quittance_domain::Timestamp;

use crate::{
    dice::Dice,
    plan::{Call, Fault, Listed, Moment, Plan, Quirk, Weather},
    snapshot::Written,
};

/// When every run begins: the day before summer time does in Amsterdam.
pub const START_S: i64 = 1_774_612_800;

pub type ActorId = u64;
pub type ReplicaId = usize;

/// Which invariant does not hold, and how that shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub rule: &'static str,
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} does not hold: {}", self.rule, self.what)
    }
}

struct Parking {
    actor: ActorId,
    replica: Option<ReplicaId>,
    since: Duration,
    ready_at: Duration,
    what: &'static str,
    chosen: bool,
}

/// One of the parked that may go on.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    pub parking: u64,
    pub actor: ActorId,
    /// When it came here.
    pub since: Duration,
    pub what: &'static str,
}

#[derive(Default)]
struct Process {
    paused_until: Duration,
    /// Its clock's error, in seconds.
    skew_s: i64,
    crashing: bool,
}

/// What was seen: a digest always, the lines where somebody reads them.
#[derive(Clone, Default, Debug)]
pub struct Trace {
    digest: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    fn add(&mut self, now: Duration, line: &str) {
        for byte in line.bytes().chain(now.as_micros().to_le_bytes()) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
        }
        if let Some(lines) = &mut self.lines {
            let s = now.as_secs();
            let mut text = format!("{:>2}d {:02}:{:02}:{:02} ", s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
            let _ = write!(text, "{line}");
            lines.push(text);
        }
    }

    pub const fn digest(&self) -> u64 {
        self.digest
    }

    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

struct Inner {
    seed: u64,
    now: Duration,
    parked: BTreeMap<u64, Parking>,
    parkings: u64,
    current: Option<(ActorId, Option<ReplicaId>)>,
    processes: Vec<Process>,
    weather: Weather,
    /// From then on nothing goes wrong any more.
    calm: bool,
    faults: Plan<Fault>,
    quirks: Plan<Quirk>,
    moments: u64,
    calls: u64,
    fired: (Listed<Fault>, Listed<Quirk>),
    jitter: Dice,
    committed: bool,
    written: Written,
    violation: Option<Violation>,
    trace: Trace,
}

pub struct World(Mutex<Inner>);

/// How a run is to be made.
pub struct Setting {
    pub seed: u64,
    pub replicas: usize,
    pub weather: Weather,
    pub faults: Plan<Fault>,
    pub quirks: Plan<Quirk>,
    pub lines: bool,
}

impl World {
    pub fn new(setting: Setting) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            seed: setting.seed,
            now: Duration::ZERO,
            parked: BTreeMap::new(),
            parkings: 0,
            current: None,
            processes: (0..setting.replicas).map(|_| Process::default()).collect(),
            weather: setting.weather,
            calm: false,
            faults: setting.faults,
            quirks: setting.quirks,
            moments: 0,
            calls: 0,
            fired: (Vec::new(), Vec::new()),
            jitter: Dice::new(setting.seed, "jitter"),
            committed: false,
            written: Written::default(),
            violation: None,
            trace: Trace { digest: 0, lines: setting.lines.then(Vec::new) },
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Duration {
        self.inner().now
    }

    /// What a process's own clock says.
    pub fn clock_of(&self, replica: ReplicaId) -> Timestamp {
        let inner = self.inner();
        at(inner.now, inner.processes[replica].skew_s)
    }

    pub fn step_clock(&self, replica: ReplicaId, seconds: i64) {
        self.inner().processes[replica].skew_s = seconds;
    }

    pub fn pass_time_to(&self, time: Duration) {
        let mut inner = self.inner();
        inner.now = inner.now.max(time);
    }

    pub fn jitter(&self) -> f64 {
        self.inner().jitter.unit()
    }

    /// Nothing goes wrong from here on.
    pub fn calm_down(&self) {
        let mut inner = self.inner();
        inner.calm = true;
        for process in &mut inner.processes {
            (process.paused_until, process.skew_s) = (Duration::ZERO, 0);
        }
    }

    /// Whoever is running now waits here until it is chosen, and not before `ready_at`.
    pub fn park(self: &Arc<Self>, what: &'static str, ready_at: Duration) -> Parked {
        Parked { world: self.clone(), parking: None, what, ready_at }
    }

    /// Those that may go on now.
    pub fn choices(&self) -> Vec<Choice> {
        let inner = self.inner();
        let ready = inner.parked.iter().filter(|(_, parked)| inner.ready_at(parked) <= inner.now);
        ready
            .map(|(id, parked)| Choice { parking: *id, actor: parked.actor, since: parked.since, what: parked.what })
            .collect()
    }

    /// When the next of the parked may go on.
    pub fn next_ready(&self) -> Option<Duration> {
        let inner = self.inner();
        inner.parked.values().map(|parked| inner.ready_at(parked)).min()
    }

    pub fn choose(&self, choice: Choice) {
        if let Some(parked) = self.inner().parked.get_mut(&choice.parking) {
            parked.chosen = true;
        }
    }

    /// Polls a piece of work as that of an actor. Answers whether it has parked anew.
    pub fn as_actor<T>(&self, actor: ActorId, replica: Option<ReplicaId>, poll: impl FnOnce() -> T) -> T {
        self.inner().current = Some((actor, replica));
        let polled = poll();
        self.inner().current = None;
        polled
    }

    pub fn parkings(&self) -> u64 {
        self.inner().parkings
    }

    pub fn actor(&self) -> Option<ActorId> {
        self.inner().current.map(|(actor, _)| actor)
    }

    /// What goes wrong at this moment of a transaction.
    pub fn moment(&self, moment: Moment) -> Option<Fault> {
        let mut inner = self.inner();
        if inner.calm {
            return None;
        }
        let place = inner.moments;
        inner.moments += 1;
        let (seed, weather) = (inner.seed, inner.weather);
        let fault = inner.faults.at(place, || weather.fault(seed, place, moment))?;
        inner.fired.0.push((place, fault));
        inner.tell(&format!("fault at {moment:?}: {fault:?}"));
        Some(fault)
    }

    /// What a system does with a call.
    pub fn quirk(&self, call: Call) -> Option<Quirk> {
        let mut inner = self.inner();
        if inner.calm {
            return None;
        }
        let place = inner.calls;
        inner.calls += 1;
        let (seed, weather) = (inner.seed, inner.weather);
        let quirk = inner.quirks.at(place, || weather.quirk(seed, place, call))?;
        inner.fired.1.push((place, quirk));
        inner.tell(&format!("quirk: {quirk:?}"));
        Some(quirk)
    }

    pub fn fired(&self) -> (Listed<Fault>, Listed<Quirk>) {
        self.inner().fired.clone()
    }

    pub fn pause(&self, replica: ReplicaId, time: Duration) {
        let mut inner = self.inner();
        let until = inner.now + time;
        inner.processes[replica].paused_until = until;
    }

    pub fn paused_until(&self, replica: ReplicaId) -> Duration {
        self.inner().processes[replica].paused_until
    }

    pub fn crash(&self, replica: ReplicaId) {
        self.inner().processes[replica].crashing = true;
    }

    pub fn is_crashing(&self, replica: ReplicaId) -> bool {
        self.inner().processes[replica].crashing
    }

    /// It is gone, and so is all that it had parked.
    pub fn crashed(&self, replica: ReplicaId) {
        let mut inner = self.inner();
        inner.processes[replica] = Process { skew_s: inner.processes[replica].skew_s, ..Process::default() };
    }

    /// A transaction with statements that write these was committed.
    pub fn note_commit(&self, written: Written) {
        let mut inner = self.inner();
        inner.committed = true;
        inner.written = inner.written.and(written);
    }

    /// What was written since this was asked last.
    pub fn take_written(&self) -> Written {
        std::mem::take(&mut self.inner().written)
    }

    pub fn take_commit(&self) -> bool {
        std::mem::take(&mut self.inner().committed)
    }

    /// The first one stands.
    pub fn violate(&self, rule: &'static str, what: impl Into<String>) {
        let mut inner = self.inner();
        let violation = Violation { rule, what: what.into() };
        inner.tell(&violation.to_string());
        inner.violation.get_or_insert(violation);
    }

    pub fn violation(&self) -> Option<Violation> {
        self.inner().violation.clone()
    }

    pub fn tell(&self, line: &str) {
        self.inner().tell(line);
    }

    pub fn trace(&self) -> Trace {
        self.inner().trace.clone()
    }
}

impl Inner {
    fn ready_at(&self, parked: &Parking) -> Duration {
        let paused = parked.replica.map_or(Duration::ZERO, |replica| self.processes[replica].paused_until);
        parked.ready_at.max(paused)
    }

    fn tell(&mut self, line: &str) {
        let now = self.now;
        self.trace.add(now, line);
    }
}

/// What a clock says that is wrong by so much.
pub fn at(now: Duration, skew_s: i64) -> Timestamp {
    let us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX) + (START_S + skew_s) * 1_000_000;
    Timestamp::from_microsecond(us).unwrap_or(Timestamp::MAX)
}

/// See [`World::park`].
pub struct Parked {
    world: Arc<World>,
    parking: Option<u64>,
    what: &'static str,
    ready_at: Duration,
}

impl Future for Parked {
    type Output = ();

    /// Wakes nobody: who is chosen is polled.
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let world = self.world.clone();
        let mut inner = world.inner();
        match self.parking {
            None => {
                let Some((actor, replica)) = inner.current else { return Poll::Pending };
                let (what, ready_at, since) = (self.what, self.ready_at, inner.now);
                inner.parkings += 1;
                let id = inner.parkings;
                inner.parked.insert(id, Parking { actor, replica, since, ready_at, what, chosen: false });
                self.parking = Some(id);
                Poll::Pending
            }
            Some(id) if inner.parked.get(&id).is_none_or(|parked| parked.chosen) => Poll::Ready(()),
            Some(_) => Poll::Pending,
        }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if let Some(id) = self.parking {
            self.world.inner().parked.remove(&id);
        }
    }
}
