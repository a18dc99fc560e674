//! Whatever comes between: every request completes, every task is confirmed once, and nobody overtakes (I2, I3, I4).

use std::collections::{HashMap, HashSet};

use quittance_domain::{
    Timestamp,
    action::Action,
    ids::{RequestId, SystemId},
    outcome::OutcomeKind,
    task::{TaskState, Work},
};
use quittance_store::{LeasedTask, Report, ReportResult, StoreError};
use tokio::task::JoinSet;

use crate::{harness::TestStore, world::*};

/// SplitMix64: a schedule is replayed from its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.roll(len as u64)).unwrap()
    }
}

const PEOPLE: usize = 4;

struct Play {
    acme: Customer,
    dice: Dice,
    now: i64,
    systems: Vec<SystemId>,
    /// Requests in the order of their intake, with the person.
    asked: Vec<(RequestId, usize)>,
    cancelled: HashSet<RequestId>,
    /// Leases that some worker believes to hold.
    held: Vec<(LeasedTask, Work)>,
    confirmed: Vec<(SystemId, RequestId)>,
}

impl Play {
    fn now(&self) -> Timestamp {
        at(self.now)
    }

    async fn step(&mut self) {
        match self.dice.roll(20) {
            0..=3 => self.instruct().await,
            4..=8 => self.claim().await,
            9..=14 => self.report().await,
            15 => self.heartbeat().await,
            16 => self.now += i64::try_from(self.dice.roll(LEASE_S as u64 / 2)).unwrap(),
            17 => self.cancel().await,
            18 => self.operate().await,
            _ => self.change_systems().await,
        }
    }

    async fn instruct(&mut self) {
        let mut chunk = Vec::new();
        let mut people = Vec::new();
        for _ in 0..=self.dice.roll(3) {
            let person = self.dice.index(PEOPLE);
            let action = [Action::Access, Action::Rectification, Action::Erasure][self.dice.index(3)];
            let mut identifiers = vec![email(&format!("p{person}"))];
            if self.dice.roll(3) == 0 {
                identifiers.push(user(&format!("U-{person}")));
            }
            chunk.push(intake(action, &identifiers));
            people.push(person);
        }
        let ids = self.acme.instruct_all(self.now(), chunk).await;
        self.asked.extend(ids.into_iter().zip(people));
    }

    async fn claim(&mut self) {
        let system = self.systems[self.dice.index(self.systems.len())].clone();
        let tasks_max = 1 + u32::try_from(self.dice.roll(4)).unwrap();
        if let Some(batch) = claim_at(&self.acme.store, &system, self.now(), tasks_max).await {
            let work = batch.work;
            self.held.extend(batch.tasks.into_iter().map(|task| (task, work)));
        }
    }

    /// Of a lease that may have passed; now and then the worker forgets it, as a crash does.
    async fn report(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at_most = self.held.len();
        let (task, work) = self.held.swap_remove(self.dice.index(at_most));
        let system = task.key.system.clone();
        let later = at(self.now + i64::try_from(self.dice.roll(90)).unwrap());
        let result = match self.dice.roll(10) {
            0 => return,
            1 => ReportResult::Retry { at: later, reason: "BUSY".to_owned() },
            2 => ReportResult::Awaiting { check_at: later, reference: "ticket".to_owned() },
            3 => attention(),
            _ if work == Work::Resolve => ReportResult::Resolved(vec![user(&format!("found-{}", self.dice.roll(3)))]),
            4 => unconfirmed(&system),
            _ => done(&system),
        };
        let confirms = matches!(result, ReportResult::Done(_));
        let lost = self.acme.report(&task, self.now(), result).await;
        if lost.is_empty() && confirms {
            self.confirmed.push((system, task.key.request));
        }
    }

    async fn heartbeat(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let (task, _) = &self.held[self.dice.index(self.held.len())];
        let lease = [(task.key.request, task.lease)];
        let until = at(self.now + LEASE_S);
        self.acme.store.extend_leases(&self.acme.id, &task.key.system, &lease, self.now(), until).await.unwrap();
    }

    async fn cancel(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let (id, _) = self.asked[self.dice.index(self.asked.len())];
        if self.acme.cancel(id, self.now()).await.is_ok() {
            self.cancelled.insert(id);
        }
    }

    async fn operate(&mut self) {
        let store = self.acme.store.clone();
        let filter = quittance_store::RequestFilter { needs_attention: true, ..Default::default() };
        let stuck = store.list_requests(&self.acme.id, &filter, None, 100).await.unwrap();
        for row in stuck {
            for task in self.acme.tasks(row.id).await {
                if task.state != TaskState::NeedsAttention {
                    continue;
                }
                let key = self.acme.key(row.id, &task.system);
                if self.dice.roll(3) == 0 {
                    let given_up = confirmation(&task.system, OutcomeKind::Unconfirmed);
                    match store.resolve_task(&key, given_up, "operators/kim", self.now()).await {
                        Ok(()) => self.confirmed.push((task.system, row.id)),
                        // An earlier instruction about the same person comes first.
                        Err(StoreError::WrongState(_)) => {}
                        Err(e) => panic!("{e}"),
                    }
                } else {
                    store.retry_task(&key, "operators/kim", self.now(), &as_is).await.unwrap();
                }
            }
        }
    }

    async fn change_systems(&mut self) {
        if self.systems.len() < 6 && self.dice.roll(4) == 0 {
            let n = self.systems.len();
            let kinds = [&[Email][..], &[UserId], &[Email, UserId]];
            let accepts = kinds[self.dice.index(3)];
            let yields: &[_] = if self.dice.roll(2) == 0 { &[UserId] } else { &[] };
            self.systems.push(register(&self.acme.store, &format!("added-{n}"), accepts, yields).await);
        }
        // The sweep comes some time after a change.
        if self.dice.roll(2) == 0 {
            self.acme.replan(self.now()).await;
        }
    }

    /// No more comes in: whatever is left runs to its end, in few enough rounds that nothing can have been stuck.
    async fn settle(&mut self, t: &TestStore, name: &str) {
        for round in 0.. {
            assert!(round < 60, "{name}: stuck: {:?}", open_tasks(t).await);
            self.now += 2 * LEASE_S;
            self.acme.replan(self.now()).await;
            self.operate().await;
            let confirmed = work_off(&self.acme, &self.systems, self.now()).await;
            self.confirmed.extend(confirmed);
            if t.count("SELECT count(*) FROM requests WHERE closed_us IS NULL").await == 0 {
                return;
            }
        }
    }

    async fn check(&self, t: &TestStore, name: &str) {
        for (id, _) in &self.asked {
            let tasks = self.acme.tasks(*id).await;
            if self.cancelled.contains(id) {
                assert!(tasks.is_empty(), "{name}");
                continue;
            }
            assert!(
                tasks.iter().all(|task| task.confirmation.is_some() && task.state == TaskState::Confirmed),
                "{name}"
            );
            assert!(!tasks.is_empty());
        }
        let tasks = t.count("SELECT count(*) FROM tasks").await;
        for (what, sql) in [
            ("confirmations", "SELECT count(*) FROM confirmations"),
            ("entries", "SELECT count(*) FROM ledger_entries WHERE kind = 'confirmed'"),
        ] {
            assert_eq!(t.count(sql).await, tasks, "{name}: {what}");
        }
        assert_eq!(self.confirmed.len(), usize::try_from(tasks).unwrap(), "{name}: each was confirmed once");
        let closed = i64::try_from(self.asked.len()).unwrap();
        let ended = "SELECT count(*) FROM ledger_entries WHERE kind IN ('completed', 'closed')";
        assert_eq!(t.count(ended).await, closed, "{name}");
        // A hint that leads nowhere goes when it is followed.
        for system in &self.systems {
            assert!(claim(t, system, day(400)).await.is_none());
        }
        for table in ["task_waits", "subject_heads", "subject_lines", "ready"] {
            assert_eq!(t.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{name}: {table}");
        }
        self.check_order(name);
    }

    /// At each system, each person's requests were confirmed in the order in which they were asked for.
    fn check_order(&self, name: &str) {
        let place: HashMap<RequestId, (usize, usize)> =
            self.asked.iter().enumerate().map(|(n, (id, person))| (*id, (n, *person))).collect();
        let mut last: HashMap<(&SystemId, usize), usize> = HashMap::new();
        for (system, id) in &self.confirmed {
            let (n, person) = place[id];
            let before = last.insert((system, person), n);
            assert!(before.is_none_or(|before| before < n), "{name}: {system} overtakes for person {person}");
        }
    }
}

async fn open_tasks(t: &TestStore) -> Vec<String> {
    let sql = "SELECT t.system_id || ' ' || t.work || ' ' || t.state || ' ' || t.reason || ' ' || r.state FROM tasks t
               JOIN requests r ON r.customer_id = t.customer_id AND r.request_id = t.request_id
               WHERE r.closed_us IS NULL ORDER BY t.request_id, t.system_id";
    t.rows(sql, vec![]).await.iter().map(|row| row.text(0).unwrap()).collect()
}

/// Random interleavings of intake, claims, reports, crashes, cancellations, operators and changes of systems.
pub async fn every_schedule_ends_with_all_confirmed_in_order(t: &TestStore) {
    let plays: u64 = std::env::var("QUITTANCE_TEST_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let start: u64 = std::env::var("QUITTANCE_TEST_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    for seed in start..start + plays {
        t.empty().await;
        let acme = customer(t, "acme").await;
        let crm = register(t, "crm", &[Email], &[UserId]).await;
        let shop = register(t, "shop", &[UserId], &[]).await;
        let mail = register(t, "mail", &[Email], &[]).await;
        let mut play = Play {
            acme,
            dice: Dice(seed),
            now: 10,
            systems: vec![crm, shop, mail],
            asked: Vec::new(),
            cancelled: HashSet::new(),
            held: Vec::new(),
            confirmed: Vec::new(),
        };
        for _ in 0..80 {
            play.step().await;
        }
        let name = format!("seed {seed}");
        play.settle(t, &name).await;
        play.check(t, &name).await;
    }
}

/// The same with real concurrency: senders, workers, the sweep and a new system at once.
pub async fn workers_and_senders_at_once_leave_nothing_undone(t: &TestStore) {
    const SENDERS: usize = 4;
    const CHUNKS: usize = 4;
    const CHUNK: usize = 6;
    let all = SENDERS * CHUNKS * CHUNK;
    let acme = customer(t, "acme").await;
    let systems = vec![
        register(t, "crm", &[Email], &[UserId]).await,
        register(t, "shop", &[UserId], &[]).await,
        register(t, "mail", &[Email], &[]).await,
        system_id("added"),
    ];
    let mut people = JoinSet::new();
    for sender in 0..SENDERS {
        let acme = acme.clone();
        people.spawn(async move {
            for chunk in 0..CHUNKS {
                let actions = [Action::Access, Action::Erasure];
                let chunk = (0..CHUNK).map(|n| {
                    // Some persons are everybody's, others a sender's own.
                    let person = if n < 2 { format!("p{n}") } else { format!("p{sender}-{n}") };
                    intake(actions[(chunk + n) % 2], &[email(&person)])
                });
                acme.instruct_all(at(10), chunk.collect()).await;
            }
        });
    }
    {
        let acme = acme.clone();
        people.spawn(async move {
            register(&acme.store, "added", &[UserId], &[]).await;
            let topology = acme.store.topology().await.unwrap();
            while again!(acme.store.replan(&acme.id, &topology, at(10))).unwrap() > 0 {}
        });
    }
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    for worker in 0..4 {
        let (acme, systems) = (acme.clone(), systems.clone());
        people.spawn(async move {
            let mut turn = worker;
            let filter = quittance_store::RequestFilter {
                states: vec![quittance_domain::request::RequestState::Completed],
                ..Default::default()
            };
            loop {
                turn += 1;
                let system = &systems[turn % systems.len()];
                if let Some(batch) = claim_at(&acme.store, system, at(11), 5).await {
                    let result = || match batch.work {
                        Work::Resolve => ReportResult::Resolved(vec![user("U-1")]),
                        Work::Act => done(system),
                    };
                    let report =
                        |task: &LeasedTask| Report { request: task.key.request, lease: task.lease, result: result() };
                    let reports: Vec<Report> = batch.tasks.iter().map(report).collect();
                    let lost = again!(acme.store.report(&acme.id, system, || at(11), &reports)).unwrap();
                    assert!(lost.is_empty(), "nobody else has them");
                    continue;
                }
                if acme.store.list_requests(&acme.id, &filter, None, 1000).await.unwrap().len() == all {
                    return;
                }
                assert!(tokio::time::Instant::now() < deadline, "stuck");
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(done) = people.join_next().await {
        done.unwrap();
    }
    let count = i64::try_from(all).unwrap();
    assert_eq!(t.count("SELECT count(*) FROM requests WHERE state = 'COMPLETED' AND open_tasks = 0").await, count);
    // Those that were complete before there was a fourth system have three.
    let tasks = t.count("SELECT count(*) FROM tasks").await;
    assert!((3 * count..=4 * count).contains(&tasks));
    assert_eq!(t.count("SELECT count(*) FROM confirmations").await, tasks);
    assert_eq!(t.count("SELECT count(*) FROM ledger_entries WHERE kind = 'confirmed'").await, tasks);
    assert_eq!(t.count("SELECT count(*) FROM task_waits").await, 0);
    assert_eq!(t.count("SELECT count(*) FROM subject_lines").await, 0);
}
