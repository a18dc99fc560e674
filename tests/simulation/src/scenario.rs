//! What happens in a run, as the seed says it: who there is, and what they do over thirty days.

use std::{collections::BTreeMap, time::Duration};

use quittance_domain::action::{Action, RestrictionGround};
use uuid::Uuid;

use crate::{
    dice::Dice,
    plan::{Fault, Plan, Quirk, Weather},
};

pub type PersonId = usize;
pub type CustomerNo = usize;
pub type SystemNo = usize;
/// Which instruction of the run.
pub type Number = usize;

pub const DAY: Duration = Duration::from_secs(86_400);
/// Persons of each customer.
pub const PERSONS: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Erases {
    Delete,
    Mask,
}

/// What is to be known of a system before the run.
#[derive(Clone, Debug)]
pub struct SystemPlan {
    pub id: &'static str,
    pub by: By,
    pub yields_user_id: bool,
    pub erases: Erases,
    /// One row of so many is held for a while.
    pub holds_one_in: Option<u64>,
    pub settle_after_s: u32,
    pub batch_size: u32,
    pub concurrency: u32,
    pub remote: bool,
    /// `None`: everybody's.
    pub customers: Option<Vec<CustomerNo>>,
}

/// What its rows are found by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    Email,
    UserId,
    Phone,
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Item {
    pub number: Number,
    pub idempotency: Uuid,
    pub person: PersonId,
    pub action: Action,
    pub ground: Option<RestrictionGround>,
    pub referred: bool,
    pub with_phone: bool,
    /// When the controller itself must answer: days from then.
    pub controller_due_days: Option<i64>,
}

#[derive(Clone, Debug)]
pub enum Op {
    Instruct {
        customer: CustomerNo,
        items: Vec<Item>,
        gives_up: bool,
    },
    /// The same again.
    Repeat {
        of: usize,
    },
    Authorise {
        number: Number,
    },
    Decline {
        number: Number,
    },
    Cancel {
        number: Number,
    },
    Object {
        number: Number,
    },
    Extend {
        number: Number,
        days: i64,
    },
    /// Another customer tries its hand at it.
    Trespass {
        number: Number,
        customer: CustomerNo,
    },
    Agreement {
        customer: CustomerNo,
        window_days: u16,
    },
    Register {
        system: SystemNo,
    },
    Remap {
        system: SystemNo,
    },
    /// The application goes on writing.
    Rows {
        system: SystemNo,
        customer: CustomerNo,
        person: PersonId,
        rows: u64,
    },
    /// An operator looks at what needs attention.
    Operate {
        gives_up: bool,
    },
    /// Looks for requests that run out of time.
    Sweep,
    /// The keys are to be rotated.
    Rotate,
    Crash {
        down_s: u64,
    },
    Pause {
        seconds: u64,
    },
    StepClock {
        seconds: i64,
    },
    Outage {
        system: SystemNo,
        seconds: u64,
    },
}

/// An operation, when it comes, and at which replica.
#[derive(Clone, Debug)]
pub struct Timed {
    pub index: usize,
    pub at: Duration,
    pub replica: usize,
    pub op: Op,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub replicas: usize,
    pub customers: usize,
    /// Of the persons there are, so many occur.
    pub persons: usize,
    pub systems: Vec<SystemPlan>,
    /// What they hold when the run begins: how many rows of whom, where.
    pub rows: Vec<(SystemNo, CustomerNo, PersonId, u64)>,
    /// Registered before anything else happens; the others come with an operation.
    pub systems_at_first: usize,
    pub lease_s: u64,
    pub window_days: u16,
    /// After which a request that is over is forgotten, with the next rotation of the keys.
    pub retention_days: u16,
    /// Between the sequencer's turns, at the least: where it works all the time, most of a run is its work.
    pub turns_least_s: u64,
    /// Entries of one of the sequencer's transactions.
    pub ledger_batch: u32,
    /// The service's replicas ask each time which systems there are, or go on with what they know until they are told.
    pub fresh_topology: bool,
    pub weather: Weather,
    pub ops: Vec<Timed>,
    pub faults: Plan<Fault>,
    pub quirks: Plan<Quirk>,
}

/// Which part of a seed's scenario is run, as a text: `17`, or `17:ops=0,3:faults=12c:quirks=`.
#[derive(Clone, PartialEq, Debug)]
pub struct Replay {
    pub seed: u64,
    /// Indices of the operations; `None`: all.
    pub ops: Option<Vec<usize>>,
    pub faults: Plan<Fault>,
    pub quirks: Plan<Quirk>,
}

impl Replay {
    pub const fn whole(seed: u64) -> Self {
        Self { seed, ops: None, faults: Plan::Drawn, quirks: Plan::Drawn }
    }
}

impl std::fmt::Display for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.seed)?;
        if let Some(ops) = &self.ops {
            write!(f, ":ops={}", ops.iter().map(usize::to_string).collect::<Vec<_>>().join(","))?;
        }
        if let Some(faults) = self.faults.text() {
            write!(f, ":faults={faults}")?;
        }
        if let Some(quirks) = self.quirks.text() {
            write!(f, ":quirks={quirks}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Replay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let seed = parts.next().and_then(|seed| seed.trim().parse().ok()).ok_or("it begins with a seed's number")?;
        let mut replay = Self::whole(seed);
        for part in parts {
            let bad = || format!("{part:?} is not ops=…, faults=… or quirks=…");
            match part.split_once('=').ok_or_else(bad)? {
                ("ops", list) => {
                    let ops = list.split(',').filter(|op| !op.is_empty()).map(|op| op.parse().ok());
                    replay.ops = Some(ops.collect::<Option<_>>().ok_or_else(bad)?);
                }
                ("faults", list) => replay.faults = Plan::parse(list).ok_or_else(bad)?,
                ("quirks", list) => replay.quirks = Plan::parse(list).ok_or_else(bad)?,
                _ => return Err(bad()),
            }
        }
        Ok(replay)
    }
}

impl Scenario {
    pub fn of(replay: &Replay) -> Self {
        let mut scenario = Self::drawn(replay.seed);
        if let Some(ops) = &replay.ops {
            scenario.ops.retain(|timed| ops.contains(&timed.index));
        }
        (scenario.faults, scenario.quirks) = (replay.faults.clone(), replay.quirks.clone());
        scenario
    }

    fn drawn(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "scenario");
        let customers = *dice.pick(&[1, 2, 2, 3]);
        let systems = systems(&mut dice, customers);
        let lease_s = *dice.pick(&[15, 30, 60]);
        let (faults, quirks) = match dice.below(8) {
            0 => (0, 0),
            1 => (0, 600),
            2 => (60, 0),
            3..6 => (25, 300),
            _ => (80, 400),
        };
        let weather = Weather { faults, quirks, lease_s, outlasting: *dice.pick(&[100, 300, 700]) };
        let persons = dice.between(1, PERSONS as u64) as usize;
        let mut scenario = Self {
            seed,
            replicas: *dice.pick(&[1, 2, 2, 3, 3, 4]),
            customers,
            persons,
            rows: rows(&mut dice, systems.len(), customers, persons),
            systems_at_first: dice.between(1, systems.len() as u64) as usize,
            systems,
            lease_s,
            window_days: *dice.pick(&[1, 14, 30, 30]),
            retention_days: *dice.pick(&[0, 0, 1, 30]),
            turns_least_s: *dice.pick(&[120, 1800, 3600]),
            ledger_batch: *dice.pick(&[2, 8, 64, 64]),
            fresh_topology: dice.per_mille(700),
            weather,
            ops: Vec::new(),
            faults: Plan::Drawn,
            quirks: Plan::Drawn,
        };
        scenario.ops = Drawing::new(&scenario, dice).ops();
        scenario
    }

    pub fn item(&self, number: Number) -> Option<(CustomerNo, &Item)> {
        self.ops.iter().find_map(|timed| match &timed.op {
            Op::Instruct { customer, items, .. } => {
                items.iter().find(|item| item.number == number).map(|item| (*customer, item))
            }
            _ => None,
        })
    }
}

/// Of most persons there is something at most systems: where nothing is held, nothing can go wrong.
fn rows(
    dice: &mut Dice,
    systems: usize,
    customers: usize,
    persons: usize,
) -> Vec<(SystemNo, CustomerNo, PersonId, u64)> {
    let places = (0..systems).flat_map(|s| (0..customers).flat_map(move |c| (0..persons).map(move |p| (s, c, p))));
    let drawn = places.map(|(s, c, p)| (s, c, p, *dice.pick(&[0, 1, 1, 2, 3])));
    drawn.filter(|(.., rows)| *rows > 0).collect()
}

fn systems(dice: &mut Dice, customers: usize) -> Vec<SystemPlan> {
    let mut kinds: BTreeMap<&'static str, (By, bool, bool)> = BTreeMap::from([
        ("crm", (By::Email, true, false)),
        ("shop", (By::UserId, false, false)),
        ("mail", (By::Email, false, true)),
        ("desk", (By::Email, false, dice.per_mille(400))),
        ("pbx", (By::Phone, false, dice.per_mille(400))),
    ]);
    let mut systems = Vec::new();
    let first = *dice.pick(&["crm", "crm", "desk", "desk", "mail"]);
    let wanted = *dice.pick(&[1, 2, 2, 3, 4]);
    let mut next = Some(first);
    while let Some(id) = next {
        let Some((by, yields, remote)) = kinds.remove(id) else { break };
        let own = customers > 1 && dice.per_mille(350);
        let mut of: Vec<CustomerNo> = (0..customers).filter(|_| dice.per_mille(700)).collect();
        if systems.is_empty() || of.is_empty() {
            of = (0..customers).collect();
        }
        systems.push(SystemPlan {
            id,
            by,
            yields_user_id: yields,
            erases: if dice.per_mille(650) { Erases::Delete } else { Erases::Mask },
            holds_one_in: dice.per_mille(250).then_some(3),
            settle_after_s: *dice.pick(&[0, 0, 0, 2, 20]),
            batch_size: *dice.pick(&[1, 2, 5]),
            concurrency: dice.between(1, 3) as u32,
            remote,
            customers: own.then_some(of),
        });
        let left: Vec<&'static str> = kinds.keys().copied().collect();
        next = (systems.len() < wanted).then(|| *dice.pick(&left));
    }
    systems
}

/// What an operation is.
#[derive(Clone, Copy)]
enum Sort {
    Instruct,
    Rows,
    Register,
    Remap,
    Repeat,
    Object,
    Authorise,
    Decline,
    Cancel,
    Extend,
    Trespass,
    Agreement,
    Operate,
    Sweep,
    Rotate,
    Crash,
    Pause,
    StepClock,
    Outage,
}

impl Sort {
    const fn is_about_a_request(self) -> bool {
        matches!(
            self,
            Self::Repeat
                | Self::Object
                | Self::Authorise
                | Self::Decline
                | Self::Cancel
                | Self::Extend
                | Self::Trespass
        )
    }
}

/// How often each comes, over all runs.
const SORTS: [(Sort, u64); 19] = [
    (Sort::Instruct, 40),
    (Sort::Rows, 8),
    (Sort::Register, 6),
    (Sort::Remap, 2),
    (Sort::Repeat, 4),
    (Sort::Object, 16),
    (Sort::Authorise, 5),
    (Sort::Decline, 2),
    (Sort::Cancel, 3),
    (Sort::Extend, 4),
    (Sort::Trespass, 8),
    (Sort::Agreement, 2),
    (Sort::Operate, 3),
    (Sort::Sweep, 2),
    (Sort::Rotate, 5),
    (Sort::Crash, 3),
    (Sort::Pause, 6),
    (Sort::StepClock, 1),
    (Sort::Outage, 1),
];

/// One run does without some sorts and makes much of others. Were all runs mixed alike, what is rare would be rare in each of them, and
/// hardly ever meet what it needs to show.
fn weights(dice: &mut Dice) -> [(Sort, u64); SORTS.len()] {
    SORTS.map(|(sort, often)| match sort {
        Sort::Instruct => (sort, often * *dice.pick(&[1, 1, 2])),
        _ => (sort, often * *dice.pick(&[0, 0, 1, 5])),
    })
}

/// Draws the operations: a few bursts, with days between them.
struct Drawing<'a> {
    scenario: &'a Scenario,
    weights: [(Sort, u64); SORTS.len()],
    dice: Dice,
    ops: Vec<Timed>,
    at: Duration,
    numbers: Number,
    registered: usize,
}

impl<'a> Drawing<'a> {
    fn new(scenario: &'a Scenario, mut dice: Dice) -> Self {
        let (registered, weights) = (scenario.systems_at_first, weights(&mut dice));
        Self { scenario, weights, dice, ops: Vec::new(), at: Duration::ZERO, numbers: 0, registered }
    }

    fn ops(mut self) -> Vec<Timed> {
        // Many short runs find more than a few long ones in the same time; some must be long.
        let (bursts, most) = match self.dice.below(20) {
            0..16 => (1, 5),
            16..19 => (self.dice.between(1, 2), 6),
            _ => (self.dice.between(2, 4), 8),
        };
        for burst in 0..bursts {
            self.at = DAY * u32::try_from(30 * burst / bursts).unwrap_or(0)
                + Duration::from_secs(self.dice.below(86_400 * 30 / bursts / 2));
            self.rotate(600);
            let instruct = self.instruct();
            self.push(instruct);
            for _ in 0..self.dice.below(most) {
                let op = self.op();
                self.push(op);
            }
            self.at += Duration::from_secs(self.dice.below(900));
            self.rotate(300);
        }
        self.ops
    }

    /// Around a burst rather than in it, so that much is over by then, or new after it; and what comes next comes after so many seconds.
    fn rotate(&mut self, seconds: u64) {
        if self.dice.per_mille(300) {
            self.push(Op::Rotate);
            self.at += Duration::from_secs(self.dice.below(seconds));
        }
    }

    fn push(&mut self, op: Op) {
        let instructs = matches!(op, Op::Instruct { .. });
        let gap = match self.dice.below(4) {
            0 => Duration::ZERO,
            1 => Duration::from_secs(self.dice.below(5)),
            2 => Duration::from_secs(self.dice.below(60)),
            _ => Duration::from_secs(self.dice.below(600)),
        };
        self.at += gap;
        let replica = self.dice.index(self.scenario.replicas);
        self.ops.push(Timed { index: self.ops.len(), at: self.at, replica, op });
        // A word about it follows at once, before much of it is done.
        if instructs && self.dice.per_mille(500) {
            let sort = self.sort(Sort::is_about_a_request);
            self.at += Duration::from_secs(self.dice.between(1, 3));
            if let Some(op) = sort.and_then(|sort| self.op_of(sort)) {
                let replica = self.dice.index(self.scenario.replicas);
                self.ops.push(Timed { index: self.ops.len(), at: self.at, replica, op });
            }
        }
    }

    /// One of some sorts, as often as each comes.
    fn sort(&mut self, of: impl Fn(Sort) -> bool) -> Option<Sort> {
        let weights = self.weights.map(|(sort, weight)| (sort, if of(sort) { weight } else { 0 }));
        let all: u64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = if all > 0 { self.dice.below(all) } else { 0 };
        weights.into_iter().find_map(|(sort, weight)| match drawn.checked_sub(weight) {
            Some(left) => {
                drawn = left;
                None
            }
            None => Some(sort),
        })
    }

    fn op(&mut self) -> Op {
        let sort = self.sort(|_| true);
        // What there is nothing for becomes one more instruction.
        sort.and_then(|sort| self.op_of(sort)).unwrap_or_else(|| self.instruct())
    }

    fn op_of(&mut self, sort: Sort) -> Option<Op> {
        let s = self.scenario;
        Some(match sort {
            Sort::Instruct => return None,
            Sort::Rows => Op::Rows {
                system: self.dice.index(s.systems.len()),
                customer: self.dice.index(s.customers),
                person: self.dice.index(s.persons),
                rows: self.dice.between(1, 3),
            },
            Sort::Register if self.registered == s.systems.len() => return None,
            Sort::Register => {
                self.registered += 1;
                Op::Register { system: self.registered - 1 }
            }
            Sort::Remap => Op::Remap { system: self.dice.index(self.registered) },
            Sort::Repeat => {
                let instructs: Vec<usize> =
                    self.ops.iter().filter(|t| matches!(t.op, Op::Instruct { .. })).map(|t| t.index).collect();
                Op::Repeat {
                    of: *if self.dice.per_mille(600) { instructs.last()? } else { self.dice.pick(&instructs) },
                }
            }
            Sort::Object => Op::Object { number: self.number() },
            Sort::Authorise => Op::Authorise { number: self.number() },
            Sort::Decline => Op::Decline { number: self.number() },
            Sort::Cancel => Op::Cancel { number: self.number() },
            Sort::Extend => Op::Extend { number: self.number(), days: self.dice.between(1, 60) as i64 },
            Sort::Trespass if s.customers == 1 => return None,
            Sort::Trespass => {
                let number = self.number();
                let stranger = self.owner(number)? + 1 + self.dice.index(s.customers - 1);
                Op::Trespass { number, customer: stranger % s.customers }
            }
            Sort::Agreement => {
                Op::Agreement { customer: self.dice.index(s.customers), window_days: self.dice.between(1, 40) as u16 }
            }
            Sort::Operate => Op::Operate { gives_up: self.dice.per_mille(400) },
            Sort::Sweep => Op::Sweep,
            Sort::Rotate => Op::Rotate,
            Sort::Crash => Op::Crash { down_s: self.dice.between(1, 300) },
            Sort::Pause => Op::Pause { seconds: self.dice.between(10, 240) },
            Sort::StepClock => Op::StepClock { seconds: self.dice.between(0, 8) as i64 - 4 },
            Sort::Outage => {
                Op::Outage { system: self.dice.index(s.systems.len()), seconds: self.dice.between(10, 900) }
            }
        })
    }

    fn owner(&self, number: Number) -> Option<CustomerNo> {
        self.ops.iter().find_map(|timed| match &timed.op {
            Op::Instruct { customer, items, .. } if items.iter().any(|item| item.number == number) => Some(*customer),
            _ => None,
        })
    }

    /// One of the instructions so far: mostly the last, about which there is still something to be said.
    fn number(&mut self) -> Number {
        if self.dice.per_mille(600) { self.numbers - 1 } else { self.dice.index(self.numbers) }
    }

    fn instruct(&mut self) -> Op {
        let customer = self.dice.index(self.scenario.customers);
        let size = *self.dice.pick(&[1, 1, 1, 2, 4]);
        let items = (0..size).map(|_| self.item()).collect();
        Op::Instruct { customer, items, gives_up: self.dice.per_mille(100) }
    }

    fn item(&mut self) -> Item {
        let dice = &mut self.dice;
        let action = match dice.below(20) {
            0..11 => Action::Erasure,
            11..14 => Action::Access,
            14..16 => Action::Rectification,
            16..18 => Action::Restriction,
            _ => Action::LiftRestriction,
        };
        let number = self.numbers;
        self.numbers += 1;
        Item {
            number,
            idempotency: Uuid::from_u64_pair(dice.draw(), dice.draw()),
            person: dice.index(self.scenario.persons),
            action,
            ground: (action == Action::Restriction).then(|| *dice.pick(RestrictionGround::ALL)),
            referred: dice.per_mille(80),
            with_phone: dice.per_mille(600),
            controller_due_days: dice.per_mille(150).then(|| dice.between(0, 20) as i64 - 2),
        }
    }
}
