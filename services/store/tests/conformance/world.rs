//! Short words for what the cases say: customers, systems, instructions, work.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use quittance_domain::{
    Timestamp,
    action::{Action, Correction, CorrectionTarget, RestrictionGround},
    agreement::Agreement,
    country::Country,
    data_map::DataMap,
    identifier::{Identifier, IdentifierKind},
    ids::{CustomerId, IdempotencyId, RequestId, SystemId, TaskKey},
    outcome::{Confirmation, Evidence, EvidenceKind, Grade, Outcome, OutcomeKind},
    request::{NewRequest, RequestState},
    system::{ConnectorKind, Registration, System, SystemLimits, SystemRole, SystemScope},
    task::{TaskState, Work},
};
use quittance_store::{
    Intake, IntakeContext, IntakeItem, LeaseQuery, LeasedBatch, LeasedTask, NewCustomer, Report, ReportResult,
    RequestRow, Store, StoreError, StoreResult, Taken, TaskRow,
};
use uuid::Uuid;

pub use IdentifierKind::{Email, Phone, UserId};

/// Seconds after the day on which the cases play.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_772_366_400 + seconds).unwrap()
}

/// For maps that are told apart by their version alone.
pub fn as_is(found: &[u8], _: &DataMap, _: &DataMap) -> Result<Vec<u8>, String> {
    Ok(found.to_owned())
}

pub fn day(days: i64) -> Timestamp {
    at(days * 86_400)
}

pub fn system_id(id: &str) -> SystemId {
    SystemId::new(id).unwrap()
}

pub fn new_id() -> IdempotencyId {
    IdempotencyId::new(Uuid::now_v7())
}

/// A customer with its agreement, as a caller of the store has it.
#[derive(Clone)]
pub struct Customer {
    pub store: Store,
    pub id: CustomerId,
    pub agreement: Agreement,
}

pub fn agreement() -> Agreement {
    Agreement {
        version: 1,
        signed_at: at(0),
        window_days: 30,
        retention_days: 30,
        time_zone: "Europe/Amsterdam".to_owned(),
        allowed_countries: BTreeSet::from([Country::parse("NL").unwrap()]),
        contacts: Vec::new(),
        facts: Default::default(),
        recipients: Vec::new(),
    }
}

pub async fn customer(store: &Store, id: &str) -> Customer {
    let id = CustomerId::new(id).unwrap();
    let new = NewCustomer {
        id: id.clone(),
        idempotency: new_id(),
        display_name: format!("The {id} company"),
        agreement: agreement(),
    };
    let row = store.create_customer(new, at(0)).await.unwrap();
    Customer { store: store.clone(), id, agreement: row.agreement }
}

pub fn system(id: &str, accepts: &[IdentifierKind], yields: &[IdentifierKind]) -> System {
    System {
        registration: Registration {
            id: system_id(id),
            display_name: id.to_owned(),
            role: SystemRole::StorageBackend,
            country: Country::parse("NL").unwrap(),
            connector: ConnectorKind::Remote,
            connection_secret: None,
            scope: SystemScope::AllCustomers,
            accepts: accepts.iter().copied().collect(),
            yields: yields.iter().copied().collect(),
            settle_after_s: 0,
            backup_retention_s: 0,
            grace_period_s: 0,
            limits: SystemLimits::default(),
        },
        map_version: 1,
        map: Arc::new(DataMap { max_rows_per_subject: 100, collections: Vec::new() }),
    }
}

pub async fn register(store: &Store, id: &str, accepts: &[IdentifierKind], yields: &[IdentifierKind]) -> SystemId {
    store.register_system(&system(id, accepts, yields), "version: 1", new_id(), at(0)).await.unwrap();
    system_id(id)
}

/// The usual world: `acme`, and one system that is keyed by email.
pub async fn acme_and_crm(store: &Store) -> (Customer, SystemId) {
    (customer(store, "acme").await, register(store, "crm", &[Email], &[]).await)
}

pub fn email(person: &str) -> Identifier {
    Identifier::normalise(Email, &format!("{person}@example.com")).unwrap()
}

pub fn user(id: &str) -> Identifier {
    Identifier::normalise(UserId, id).unwrap()
}

pub fn intake(action: Action, identifiers: &[Identifier]) -> Intake {
    let corrections = if action == Action::Rectification {
        vec![Correction {
            collection: "customer".to_owned(),
            field: "name".to_owned(),
            target: CorrectionTarget::Append { statement: "Moved in March".to_owned() },
        }]
    } else {
        Vec::new()
    };
    Intake {
        idempotency: new_id(),
        request: NewRequest {
            corrections,
            subject_informed_at: (action == Action::LiftRestriction).then(|| at(0)),
            ..NewRequest::plain(action, identifiers.to_vec())
        },
        referred: None,
    }
}

pub fn erasure(person: &str) -> Intake {
    intake(Action::Erasure, &[email(person)])
}

pub fn access(person: &str) -> Intake {
    intake(Action::Access, &[email(person)])
}

pub fn restriction(person: &str, ground: RestrictionGround) -> Intake {
    let mut intake = intake(Action::Restriction, &[email(person)]);
    intake.request.restriction_ground = Some(ground);
    intake
}

pub fn lifting(person: &str) -> Intake {
    intake(Action::LiftRestriction, &[email(person)])
}

impl Customer {
    /// Takes a chunk in, as the server does: again where systems changed or the database asks for it.
    pub async fn take(&self, now: Timestamp, items: Vec<Intake>) -> StoreResult<Vec<IntakeItem>> {
        again!(self.take_once(now, items.clone()))
    }

    pub async fn take_once(&self, now: Timestamp, items: Vec<Intake>) -> StoreResult<Vec<IntakeItem>> {
        let topology = self.store.topology().await?;
        let ctx = IntakeContext {
            customer: &self.id,
            by: "customers/acme/tokens/test",
            now,
            agreement: &self.agreement,
            topology: &topology,
        };
        self.store.create_requests(&ctx, &items).await
    }

    pub async fn instruct(&self, now: Timestamp, intake: Intake) -> RequestId {
        self.instruct_all(now, vec![intake]).await[0]
    }

    pub async fn instruct_all(&self, now: Timestamp, items: Vec<Intake>) -> Vec<RequestId> {
        let taken = self.take(now, items).await.unwrap();
        taken.into_iter().map(|t| created(t.unwrap())).collect()
    }

    pub async fn request(&self, id: RequestId) -> RequestRow {
        self.store.request(&self.id, id).await.unwrap().0
    }

    pub async fn state(&self, id: RequestId) -> RequestState {
        self.request(id).await.state
    }

    pub async fn tasks(&self, id: RequestId) -> Vec<TaskRow> {
        self.store.request(&self.id, id).await.unwrap().1
    }

    pub async fn task(&self, id: RequestId, system: &SystemId) -> TaskRow {
        self.tasks(id).await.into_iter().find(|t| t.system == *system).expect("a task at the system")
    }

    pub async fn task_state(&self, id: RequestId, system: &SystemId) -> TaskState {
        self.task(id, system).await.state
    }

    pub fn key(&self, request: RequestId, system: &SystemId) -> TaskKey {
        TaskKey { customer: self.id.clone(), request, system: system.clone() }
    }

    pub async fn authorise(&self, id: RequestId, now: Timestamp) -> StoreResult<()> {
        let topology = self.store.topology().await?;
        self.store.authorise_request(&self.id, id, &self.agreement, &topology, "customers/acme/tokens/test", now).await
    }

    pub async fn cancel(&self, id: RequestId, now: Timestamp) -> StoreResult<()> {
        self.store.cancel_request(&self.id, id, "customers/acme", "sent by mistake", now).await
    }

    pub async fn replan(&self, now: Timestamp) {
        let topology = self.store.topology().await.unwrap();
        while self.store.replan(&self.id, &topology, now).await.unwrap() > 0 {}
    }

    /// Reports one result for one leased task, and gives what was lost.
    pub async fn report(&self, task: &LeasedTask, now: Timestamp, result: ReportResult) -> Vec<RequestId> {
        let report = Report { request: task.key.request, lease: task.lease, result };
        again!(self.store.report(&self.id, &task.key.system, || now, std::slice::from_ref(&report))).unwrap()
    }

    /// Claims the one task that is due at the system, and confirms it.
    pub async fn confirm_next(&self, system: &SystemId, now: Timestamp) -> RequestId {
        let batch = claim_at(&self.store, system, now, 1).await.expect("a task is due");
        let task = &batch.tasks[0];
        assert!(self.report(task, now, done(system)).await.is_empty());
        task.key.request
    }
}

pub fn created(taken: Taken) -> RequestId {
    match taken {
        Taken::Created(id) => id,
        Taken::Repeated(_) => panic!("it was taken in before"),
    }
}

/// Whether a caller makes the call again: a deadlock's loser, or a chunk that was planned with old systems.
pub fn may_succeed_later(error: &StoreError) -> bool {
    error.is_transient() || matches!(error, StoreError::WrongState(text) if text.contains("systems changed"))
}

/// Makes a call as often as it says that it may succeed then.
macro_rules! again {
    ($call:expr) => {{
        let mut tries = 0;
        loop {
            tries += 1;
            match $call.await {
                Err(e) if tries < 20 && crate::world::may_succeed_later(&e) => {}
                answer => break answer,
            }
        }
    }};
}
pub(crate) use again;

pub const LEASE_S: i64 = 60;

/// Leases whatever is due first at the system, for a minute.
pub async fn claim(store: &Store, system: &SystemId, now: Timestamp) -> Option<LeasedBatch> {
    claim_at(store, system, now, 100).await
}

/// As [`claim`], of `tasks_max` at most. `None`: nothing is due. Work that a transaction on its way has locked is due still, as its hint
/// says; it is looked at again.
pub async fn claim_at(store: &Store, system: &SystemId, now: Timestamp, tasks_max: u32) -> Option<LeasedBatch> {
    let expires_at = now.checked_add(Duration::from_secs(LEASE_S.unsigned_abs())).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let ready = again!(store.ready_work(now, std::slice::from_ref(system))).unwrap();
        if ready.is_empty() {
            return None;
        }
        for ready in ready {
            let query = LeaseQuery { worker: "worker", now, expires_at, tasks_max };
            let batch = again!(store.lease(&ready, &query)).unwrap();
            assert!(batch.tasks.len() <= tasks_max as usize, "a claim takes no more than it asked for");
            if !batch.tasks.is_empty() {
                return Some(batch);
            }
        }
        assert!(Instant::now() < deadline, "a hint says that work is due which nobody can have");
        tokio::task::yield_now().await;
    }
}

/// As [`claim`], of which the case knows that it is one task.
pub async fn claim_one(store: &Store, system: &SystemId, now: Timestamp) -> LeasedTask {
    let batch = claim(store, system, now).await.expect("a task is due");
    assert_eq!(batch.tasks.len(), 1);
    batch.tasks.into_iter().next().unwrap()
}

/// Which requests are due at a system, without a change to them.
pub async fn due_at(customer: &Customer, system: &SystemId, requests: &[RequestId]) -> Vec<RequestId> {
    let mut due = Vec::new();
    for id in requests {
        let tasks = customer.tasks(*id).await;
        if tasks.iter().any(|t| t.system == *system && t.state == TaskState::Pending) {
            due.push(*id);
        }
    }
    due
}

pub fn confirmation(system: &SystemId, outcome: OutcomeKind) -> Confirmation {
    let unconfirmed = outcome == OutcomeKind::Unconfirmed;
    Confirmation {
        system: system.clone(),
        outcomes: vec![Outcome {
            collection: "customer".to_owned(),
            category: "email".to_owned(),
            outcome,
            grade: if unconfirmed { Grade::None } else { Grade::Verified },
            count: if unconfirmed { 0 } else { 3 },
            basis: if unconfirmed { "the vendor went out of business".to_owned() } else { String::new() },
            until: None,
        }],
        evidence: Evidence {
            kind: if unconfirmed { EvidenceKind::OperatorStatement } else { EvidenceKind::ReadBack },
            reference: String::new(),
            sha256: String::new(),
            at: at(0),
        },
        by: "quittanced".to_owned(),
        confirmed_at: at(0),
        backups_expire_at: None,
    }
}

pub fn done(system: &SystemId) -> ReportResult {
    ReportResult::Done(confirmation(system, OutcomeKind::Erased))
}

pub fn unconfirmed(system: &SystemId) -> ReportResult {
    ReportResult::Done(confirmation(system, OutcomeKind::Unconfirmed))
}

pub fn attention() -> ReportResult {
    ReportResult::Attention { reason: "MATCH_TOO_WIDE".to_owned() }
}

/// Does whatever is due at the systems, as well-behaved workers do, until nothing is. Gives the order in which tasks were confirmed.
pub async fn work_off(customer: &Customer, systems: &[SystemId], now: Timestamp) -> Vec<(SystemId, RequestId)> {
    let mut confirmed = Vec::new();
    loop {
        let mut idle = true;
        for system in systems {
            while let Some(batch) = claim(&customer.store, system, now).await {
                idle = false;
                for task in &batch.tasks {
                    let result = match batch.work {
                        Work::Resolve => ReportResult::Resolved(Vec::new()),
                        Work::Act => done(system),
                    };
                    assert!(customer.report(task, now, result).await.is_empty());
                    if batch.work == Work::Act {
                        confirmed.push((system.clone(), task.key.request));
                    }
                }
            }
        }
        if idle {
            return confirmed;
        }
    }
}
