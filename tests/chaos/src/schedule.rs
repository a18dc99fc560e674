//! Which faults come when: all of it follows from the seed.

use std::{collections::BTreeMap, fmt, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    Replica(usize),
    Worker(usize),
    /// The store's server.
    Postgres,
    /// Between a replica and the store.
    StoreLink(usize),
    /// Between the clients and a replica.
    ClientLink(usize),
    /// Between a worker and its replica.
    WorkerLink(usize),
    /// Under the store.
    Disk,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// SIGKILL; a server with every process of its.
    Kill,
    /// SIGKILL to one connection's process of the server.
    KillBackend,
    /// SIGSTOP, and SIGCONT.
    Stop,
    /// SIGTERM, waited for.
    Terminate,
    Cut,
    Stall,
    Slow,
    /// Answers are lost.
    Deafen,
    /// By so many seconds.
    StepClock(i64),
    Fill,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub at: Duration,
    pub kind: Kind,
    pub target: Target,
    pub lasts: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            Kind::Kill => "SIGKILL".to_owned(),
            Kind::KillBackend => "SIGKILL of one backend".to_owned(),
            Kind::Stop => "SIGSTOP".to_owned(),
            Kind::Terminate => "SIGTERM".to_owned(),
            Kind::Cut => "cut".to_owned(),
            Kind::Stall => "stall".to_owned(),
            Kind::Slow => "slow".to_owned(),
            Kind::Deafen => "lost answers".to_owned(),
            Kind::StepClock(by) => format!("clock {by:+} s"),
            Kind::Fill => "full disk".to_owned(),
        };
        let target = match self.target {
            Target::Replica(n) => format!("replica-{n}"),
            Target::Worker(n) => format!("worker-{n}"),
            Target::Postgres => "postgres".to_owned(),
            Target::StoreLink(n) => format!("replica-{n} to store"),
            Target::ClientLink(n) => format!("clients to replica-{n}"),
            Target::WorkerLink(n) => format!("worker-{n} to replica"),
            Target::Disk => "disk".to_owned(),
        };
        write!(f, "{:7.1} s  {what}, {target}, {:.1} s", self.at.as_secs_f64(), self.lasts.as_secs_f64())
    }
}

/// What there is to be hurt.
#[derive(Clone, Copy, Debug)]
pub struct Victims {
    pub replicas: usize,
    pub workers: usize,
    pub postgres: bool,
    pub clocks: bool,
    pub disk: bool,
}

/// Kind, and how to name it in a summary.
type Sort = (&'static str, fn(&mut StdRng, &Victims) -> (Kind, Target));

const SECOND: Duration = Duration::from_secs(1);
/// A stopped or cut-off replica loses its leases, which last three seconds in these runs, if it is so for longer.
const LASTS: std::ops::Range<f64> = 0.3..6.0;

fn replica(rng: &mut StdRng, v: &Victims) -> usize {
    rng.random_range(0..v.replicas)
}

fn worker(rng: &mut StdRng, v: &Victims) -> usize {
    rng.random_range(0..v.workers)
}

fn sorts(v: &Victims) -> Vec<Sort> {
    let mut sorts: Vec<Sort> = vec![
        ("SIGKILL replica", |r, v| (Kind::Kill, Target::Replica(replica(r, v)))),
        ("SIGSTOP replica", |r, v| (Kind::Stop, Target::Replica(replica(r, v)))),
        ("SIGTERM replica", |r, v| (Kind::Terminate, Target::Replica(replica(r, v)))),
        ("SIGKILL worker", |r, v| (Kind::Kill, Target::Worker(worker(r, v)))),
        ("SIGSTOP worker", |r, v| (Kind::Stop, Target::Worker(worker(r, v)))),
        ("cut clients", |r, v| (Kind::Cut, Target::ClientLink(replica(r, v)))),
        ("stall clients", |r, v| (Kind::Stall, Target::ClientLink(replica(r, v)))),
        ("lose answers to clients", |r, v| (Kind::Deafen, Target::ClientLink(replica(r, v)))),
        ("cut worker", |r, v| (Kind::Cut, Target::WorkerLink(worker(r, v)))),
        ("lose answers to worker", |r, v| (Kind::Deafen, Target::WorkerLink(worker(r, v)))),
    ];
    if v.postgres {
        sorts.extend([
            ("SIGKILL postgres", (|_, _| (Kind::Kill, Target::Postgres)) as fn(&mut StdRng, &Victims) -> _),
            ("SIGKILL backend", |_, _| (Kind::KillBackend, Target::Postgres)),
            ("SIGSTOP postgres", |_, _| (Kind::Stop, Target::Postgres)),
            ("cut store", |r, v| (Kind::Cut, Target::StoreLink(replica(r, v)))),
            ("stall store", |r, v| (Kind::Stall, Target::StoreLink(replica(r, v)))),
            ("slow store", |r, v| (Kind::Slow, Target::StoreLink(replica(r, v)))),
            ("lose the store's answers", |r, v| (Kind::Deafen, Target::StoreLink(replica(r, v)))),
        ]);
    }
    if v.clocks {
        sorts.extend([
            (
                "clock forward",
                (|r, v| (Kind::StepClock(r.random_range(1..30)), Target::Replica(replica(r, v))))
                    as fn(&mut StdRng, &Victims) -> _,
            ),
            ("clock back", |r, v| (Kind::StepClock(-r.random_range(1..30)), Target::Replica(replica(r, v)))),
        ]);
    }
    if v.disk {
        sorts.push(("full disk", |_, _| (Kind::Fill, Target::Disk)));
    }
    sorts
}

/// Faults for so long, each sort at least once if there is time, never two of one target at once; some `apart` from each other on average.
pub fn plan(seed: u64, lasts: Duration, apart: Duration, victims: &Victims) -> Vec<Fault> {
    let mut rng = StdRng::seed_from_u64(seed);
    let sorts = sorts(victims);
    let (mut faults, mut busy) = (Vec::new(), BTreeMap::new());
    let (mut at, mut deck) = (SECOND, Vec::new());
    while at < lasts {
        if deck.is_empty() {
            deck = sorts.clone();
            deck.shuffle(&mut rng);
        }
        // A card whose victim is still down waits its turn.
        let playable = deck.iter().position(|(_, draw)| {
            let (kind, target) = draw(&mut rng, victims);
            if busy.get(&target).is_some_and(|until| *until > at) {
                return false;
            }
            let lasts = match kind {
                Kind::KillBackend => Duration::ZERO,
                _ => Duration::from_secs_f64(rng.random_range(LASTS)),
            };
            busy.insert(target, at + lasts + SECOND);
            faults.push(Fault { at, kind, target, lasts });
            true
        });
        if let Some(card) = playable {
            deck.remove(card);
        }
        at += apart.mul_f64(rng.random_range(0.2..1.8));
    }
    faults
}

/// How often each target met each kind, for the summary.
pub fn counts(faults: &[Fault]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for fault in faults {
        let target = match fault.target {
            Target::Replica(_) => "replica",
            Target::Worker(_) => "worker",
            Target::Postgres => "postgres",
            Target::StoreLink(_) => "store link",
            Target::ClientLink(_) => "client link",
            Target::WorkerLink(_) => "worker link",
            Target::Disk => "disk",
        };
        let kind = match fault.kind {
            Kind::StepClock(by) if by < 0 => "clock back".to_owned(),
            Kind::StepClock(_) => "clock forward".to_owned(),
            kind => format!("{kind:?}").to_lowercase(),
        };
        *counts.entry(format!("{kind}, {target}")).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: Victims = Victims { replicas: 3, workers: 2, postgres: true, clocks: true, disk: true };

    #[test]
    fn a_seed_is_a_schedule() {
        let minute = 60 * SECOND;
        assert_eq!(plan(7, minute, SECOND, &ALL), plan(7, minute, SECOND, &ALL));
        assert_ne!(plan(7, minute, SECOND, &ALL), plan(8, minute, SECOND, &ALL));
    }

    #[test]
    fn every_sort_comes_and_no_target_is_hurt_twice_at_once() {
        for seed in 0..50 {
            let faults = plan(seed, 60 * SECOND, 2 * SECOND, &ALL);
            let sorts: BTreeSet<String> = counts(&faults).into_keys().collect();
            assert_eq!(sorts.len(), super::sorts(&ALL).len(), "{sorts:?}");
            for (at, fault) in faults.iter().enumerate() {
                let meets = |other: &&Fault| other.target == fault.target && other.at < fault.at + fault.lasts;
                assert_eq!(faults[at + 1..].iter().find(meets), None, "{fault}");
            }
        }
    }
}
