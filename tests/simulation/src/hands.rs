//! What callers do through a replica's API: the customer, the operator, a worker in somebody else's network. Each does what its
//! real counterpart does, and tries again where that would.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quittance_connectors::{BatchContext, Connector as _, ConnectorError, MatchSet, Subject, SubjectResult};
use quittance_dispatch::{
    Clock, TopologyCache,
    remote::{AnswerBounds, RemoteDesk},
};
use quittance_domain::{
    Timestamp,
    action::{Action, Correction, CorrectionTarget},
    agreement::Agreement,
    country::Country,
    identifier::IdentifierKind,
    ids::{CustomerId, IdempotencyId, RequestId, SystemId, TaskKey},
    outcome::{Confirmation, Evidence, EvidenceKind, Grade, Outcome, OutcomeKind},
    request::NewRequest,
    system::System,
    task::Work,
};
use quittance_store::{
    Intake, IntakeContext, IntakeItem, LeasedBatch, LeasedTask, NewCustomer, Report, ReportResult, Store, StoreError,
    StoreResult,
};
use uuid::Uuid;

use crate::{
    check::ZONE,
    connector::SimulatedConnector,
    scene::Asked,
    snapshot::{Rid, TaskId},
    system::{COLLECTION, NAME, identifier, typed_customer},
    world::at,
};

/// Days of its window, and of retention.
pub type Terms = (u16, u16);

pub fn agreement((window_days, retention_days): Terms) -> Agreement {
    Agreement {
        version: 1,
        signed_at: at(Duration::ZERO, -86_400),
        window_days,
        retention_days,
        time_zone: ZONE.to_owned(),
        allowed_countries: Country::parse("NL").into_iter().collect(),
        contacts: Vec::new(),
        facts: Default::default(),
        recipients: Vec::new(),
    }
}

pub fn new_customer(customer: usize, terms: Terms) -> NewCustomer {
    NewCustomer {
        id: typed_customer(customer),
        idempotency: IdempotencyId::new(Uuid::from_u128(customer as u128 + 1)),
        display_name: "A company".to_owned(),
        agreement: agreement(terms),
    }
}

pub fn intake(asked: &Asked) -> Intake {
    let item = &asked.item;
    let mut identifiers = vec![identifier(IdentifierKind::Email, item.person)];
    if item.with_phone {
        identifiers.push(identifier(IdentifierKind::Phone, item.person));
    }
    let correction = Correction {
        collection: COLLECTION.to_owned(),
        field: "name".to_owned(),
        target: CorrectionTarget::Replace { old: NAME.to_owned(), new: format!("Name {}", item.number) },
    };
    Intake {
        idempotency: IdempotencyId::new(item.idempotency),
        request: NewRequest {
            corrections: (item.action == Action::Rectification).then_some(correction).into_iter().collect(),
            restriction_ground: item.ground,
            subject_informed_at: (item.action == Action::LiftRestriction).then(|| at(Duration::ZERO, 0)),
            controller_due_at: asked.controller_due,
            reference: format!("number {}", item.number),
            ..NewRequest::plain(item.action, identifiers)
        },
        referred: item.referred.then(|| "please".to_owned()),
    }
}

/// How often a replica reads the systems anew before it tells its caller to come again.
const TOPOLOGY_TRIES: u32 = 5;

/// A customer's or an operator's call, at one replica.
#[derive(Clone)]
pub struct Hand {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub topology: Arc<TopologyCache>,
}

impl Hand {
    pub async fn instruct(&self, customer: &CustomerId, items: &[Intake]) -> StoreResult<Vec<IntakeItem>> {
        let agreement = self.store.customer(customer).await?.agreement;
        let mut topology = self.topology.get().await?;
        for _ in 1..TOPOLOGY_TRIES {
            let ctx = IntakeContext {
                customer,
                by: "customers/c/tokens/t",
                now: self.clock.now(),
                agreement: &agreement,
                topology: &topology,
            };
            match self.store.create_requests(&ctx, items).await {
                Err(StoreError::WrongState(_)) => topology = self.topology.refresh().await?,
                answer => return answer,
            }
        }
        Err(StoreError::WrongState(SYSTEMS_CHANGED.to_owned()))
    }

    pub async fn authorise(&self, customer: &CustomerId, request: RequestId) -> StoreResult<()> {
        let agreement = self.store.customer(customer).await?.agreement;
        let mut topology = self.topology.get().await?;
        for _ in 1..TOPOLOGY_TRIES {
            let by = "customers/c/tokens/t";
            let now = self.clock.now();
            match self.store.authorise_request(customer, request, &agreement, &topology, by, now).await {
                Err(e) if is_topology(&e) => topology = self.topology.refresh().await?,
                answer => return answer,
            }
        }
        Err(StoreError::WrongState(SYSTEMS_CHANGED.to_owned()))
    }

    pub async fn decline(&self, customer: &CustomerId, request: RequestId) -> StoreResult<()> {
        self.store.decline_request(customer, request, "customers/acme", "not ours", self.clock.now()).await
    }

    pub async fn cancel(&self, customer: &CustomerId, request: RequestId) -> StoreResult<()> {
        self.store.cancel_request(customer, request, "customers/acme", "by mistake", self.clock.now()).await
    }

    pub async fn object(&self, customer: &CustomerId, request: RequestId) -> StoreResult<()> {
        self.store.object_to_request(customer, request, "operators/kim", "it looks unlawful", self.clock.now()).await
    }

    pub async fn extend(&self, customer: &CustomerId, request: RequestId, due: Timestamp) -> StoreResult<()> {
        self.store.extend_request(customer, request, due, "customers/acme", "it is complex", self.clock.now()).await
    }

    pub async fn add_agreement(&self, customer: &CustomerId, id: Uuid, terms: Terms) -> StoreResult<()> {
        let (id, now) = (IdempotencyId::new(id), self.clock.now());
        self.store.create_agreement(customer, id, agreement(terms), now).await.map(drop)
    }

    pub async fn register(&self, system: &System, yaml: &str, id: Uuid) -> StoreResult<()> {
        self.store.register_system(system, yaml, IdempotencyId::new(id), self.clock.now()).await
    }

    pub async fn remap(&self, system: &System, yaml: &str, id: Uuid) -> StoreResult<()> {
        self.store.update_data_map(&system.id, yaml, &system.map, IdempotencyId::new(id), self.clock.now()).await
    }

    /// An operator lets a task run again, or gives it up. Answers whether the store could be asked.
    pub async fn operate(&self, tasks: &[(TaskId, bool)]) -> bool {
        for (id, gives_up) in tasks {
            let Some(key) = task_key(id) else { continue };
            let now = self.clock.now();
            let done = if *gives_up {
                self.store.resolve_task(&key, unconfirmed(&key.system, now), "operators/o", now).await
            } else {
                // What the machine finds is told by keys alone, whatever the map says.
                self.store.retry_task(&key, "operators/o", now, &|found, _, _| Ok(found.to_owned())).await
            };
            if done.is_err_and(|e| e.is_transient()) {
                return false;
            }
        }
        true
    }
}

const SYSTEMS_CHANGED: &str = "systems changed meanwhile";

pub fn is_topology(error: &StoreError) -> bool {
    matches!(error, StoreError::WrongState(text) if text == SYSTEMS_CHANGED)
}

pub fn request_id(rid: &Rid) -> Option<RequestId> {
    RequestId::parse(&rid.1).ok()
}

fn task_key(id: &TaskId) -> Option<TaskKey> {
    let (rid, system) = id;
    let (customer, system) = (CustomerId::new(&rid.0).ok()?, SystemId::new(system).ok()?);
    Some(TaskKey { customer, request: request_id(rid)?, system })
}

fn unconfirmed(system: &SystemId, now: Timestamp) -> Confirmation {
    let outcome = Outcome {
        collection: "*".to_owned(),
        category: "*".to_owned(),
        outcome: OutcomeKind::Unconfirmed,
        grade: Grade::None,
        count: 0,
        basis: "nobody knows".to_owned(),
        until: None,
    };
    stated(system, vec![outcome], EvidenceKind::OperatorStatement, now, now)
}

fn stated(
    system: &SystemId,
    outcomes: Vec<Outcome>,
    kind: EvidenceKind,
    asked_at: Timestamp,
    now: Timestamp,
) -> Confirmation {
    Confirmation {
        system: system.clone(),
        outcomes,
        evidence: Evidence { kind, reference: String::new(), sha256: String::new(), at: asked_at },
        by: "somebody".to_owned(),
        confirmed_at: now,
        backups_expire_at: None,
    }
}

/// A worker in somebody else's network: it leases, finds, stores its match sets, acts, reads back and reports, and it never says
/// that it is still alive. So it often comes too late.
pub struct RemoteWorker {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub desk: RemoteDesk,
    pub connector: SimulatedConnector,
    pub system: System,
    pub time_limit: Duration,
    /// It sends its report once more.
    pub repeats: bool,
}

impl RemoteWorker {
    pub async fn work(&self) {
        // So few bytes that now and then not all that is due fits.
        let bounds = AnswerBounds { tasks_max: self.system.limits.batch_size, bytes_max: 2000 };
        let leased = self.desk.lease(&self.system, "remote", bounds, Duration::ZERO).await;
        let Ok(Some((batch, _))) = leased else { return };
        let reports = match self.carry_out(&batch).await {
            Ok(reports) => reports,
            Err(reason) => {
                let at = self.clock.now().checked_add(Duration::from_secs(5)).unwrap_or(Timestamp::MAX);
                batch.tasks.iter().map(|t| report(t, ReportResult::Retry { at, reason: reason.clone() })).collect()
            }
        };
        for _ in 0..=u32::from(self.repeats) {
            // What is lost is somebody else's by now: it has nothing more to say.
            if self.store.report(&batch.customer, &self.system.id, || self.clock.now(), &reports).await.is_err() {
                return;
            }
        }
    }

    async fn carry_out(&self, batch: &LeasedBatch) -> Result<Vec<Report>, String> {
        let ctx = BatchContext {
            customer: batch.customer.clone(),
            customer_key: self.system.customer_key(&batch.customer),
            action: batch.action,
            resolving: batch.work == Work::Resolve,
            others_restricted: false,
            now: self.clock.now(),
            time_zone: batch.time_zone.clone(),
            time_limit: self.time_limit,
            commit_before: tokio::time::Instant::now() + self.time_limit,
        };
        let mut tasks: Vec<&LeasedTask> = batch.tasks.iter().collect();
        let share = |task: &LeasedTask| {
            let s = &task.subject;
            let share = self.system.share(&s.identifiers, &s.corrections, &s.identifier_changes);
            Subject {
                identifiers: share.identifiers,
                pseudonym: "anon".to_owned(),
                corrections: share.corrections,
                identifier_changes: share.identifier_changes,
            }
        };
        let all: Vec<Subject> = tasks.iter().map(|task| share(task)).collect();
        let unavailable = |e: ConnectorError| e.to_string();
        let found = self.connector.find(&ctx, &all).await.map_err(unavailable)?;
        if batch.work == Work::Resolve {
            let yielded = |f: SubjectResult<quittance_connectors::Found>| f.map(|f| f.yielded).unwrap_or_default();
            let resolved = tasks.iter().zip(found).map(|(t, f)| report(t, ReportResult::Resolved(yielded(f))));
            return Ok(resolved.collect());
        }
        let mut sets: BTreeMap<RequestId, MatchSet> = BTreeMap::new();
        let mut to_save = Vec::new();
        let mut reports = Vec::new();
        for (task, found) in tasks.iter().zip(found) {
            let mut set: MatchSet =
                task.match_set.as_deref().and_then(|b| serde_json::from_slice(b).ok()).unwrap_or_default();
            match found {
                Ok(found) => {
                    if set.absorb(found.match_set) {
                        let bytes = serde_json::to_vec(&set).unwrap_or_default();
                        to_save.push((task.key.request, task.lease, bytes));
                    }
                    sets.insert(task.key.request, set);
                }
                Err(e) => reports.push(report(task, ReportResult::Attention { reason: e.to_string() })),
            }
        }
        let now = self.clock.now();
        let saved = self.store.save_remote_match_sets(&batch.customer, &self.system.id, now, to_save).await;
        let lost = saved.map_err(|e| e.to_string())?;
        tasks.retain(|t| sets.contains_key(&t.key.request) && !lost.contains(&t.key.request));
        let subjects: Vec<Subject> = tasks.iter().map(|task| share(task)).collect();
        let match_sets: Vec<MatchSet> = tasks.iter().map(|t| sets[&t.key.request].clone()).collect();
        if batch.action == Action::Access {
            for ((task, subject), set) in tasks.iter().zip(&subjects).zip(&match_sets) {
                reports.push(self.export(&ctx, task, subject, set).await?);
            }
            return Ok(reports);
        }
        let acted = self.connector.act(&ctx, &subjects, &match_sets).await.map_err(unavailable)?;
        let asked_at = self.clock.now();
        let seen = self.connector.read_back(&ctx, &subjects, &match_sets).await.map_err(unavailable)?;
        for ((task, acted), seen) in tasks.iter().zip(acted).zip(seen) {
            let result = match acted.and(seen) {
                Ok(outcomes) => ReportResult::Done(self.stated(outcomes, asked_at)),
                Err(quittance_connectors::SubjectError::NotYet { .. }) => {
                    let at = self.clock.now().checked_add(Duration::from_secs(30)).unwrap_or(Timestamp::MAX);
                    ReportResult::Retry { at, reason: "not yet".to_owned() }
                }
                Err(e) => ReportResult::Attention { reason: e.to_string() },
            };
            reports.push(report(task, result));
        }
        Ok(reports)
    }

    fn stated(&self, outcomes: Vec<Outcome>, asked_at: Timestamp) -> Confirmation {
        stated(&self.system.id, outcomes, EvidenceKind::SystemReport, asked_at, self.clock.now())
    }

    async fn export(
        &self,
        ctx: &BatchContext,
        task: &LeasedTask,
        subject: &Subject,
        match_set: &MatchSet,
    ) -> Result<Report, String> {
        let exported = self.connector.export(ctx, subject, match_set, None, usize::MAX).await;
        let (exported, _) = match exported.map_err(|e| e.to_string())? {
            Ok(exported) => exported,
            Err(e) => return Ok(report(task, ReportResult::Attention { reason: e.to_string() })),
        };
        let records: Vec<(Vec<u8>, bool)> =
            exported.records.iter().map(|r| (serde_json::to_vec(r).unwrap_or_default(), r.third_party)).collect();
        let asked_at = self.clock.now();
        self.store.add_records(&task.key, task.lease, asked_at, 0, records).await.map_err(|e| e.to_string())?;
        let mut outcomes = exported.outcomes;
        if outcomes.is_empty() {
            outcomes.push(Outcome {
                collection: "*".to_owned(),
                category: "*".to_owned(),
                outcome: OutcomeKind::NotHeld,
                grade: Grade::Verified,
                count: 0,
                basis: String::new(),
                until: None,
            });
        }
        Ok(report(task, ReportResult::Done(self.stated(outcomes, asked_at))))
    }
}

fn report(task: &LeasedTask, result: ReportResult) -> Report {
    Report { request: task.key.request, lease: task.lease, result }
}
