//! One batch at one system: find, store the match sets, act, read back. What read-back says is all that is reported (I5).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use quittance_connectors::{BatchContext, Connector, ConnectorError, Found, MatchSet, Subject, SubjectError};
use quittance_domain::{
    Timestamp,
    action::Action,
    backoff::full_jitter,
    ids::{CustomerId, RequestId},
    outcome::{Confirmation, Evidence, EvidenceKind, Grade, Outcome, OutcomeKind},
    plan::NO_USABLE_IDENTIFIER,
    system::{SubjectShare, System},
    task::Work,
};
use quittance_store::{Kept, LeasedTask, MaskPseudonyms, Report, ReportResult, Store, StoreError};
use tokio::time::Instant;

use crate::{
    Clock, DispatchLimits,
    heartbeat::Hold,
    held::{UNKNOWN, leave_held},
};

/// Rounds of find, act and read-back within one attempt, for rows that came in between.
const ROUNDS_MAX: u32 = 3;
/// As long as one in so many of a batch can be done at once beside the others, those that must follow go on as a batch.
const SHARING_MIN: usize = 4;
/// So many subjects that each fail alone, and none that succeeds: it is the system, not the subjects.
const POISONOUS_MAX: u32 = 8;
/// So many subjects that each run out of time alone, and none that succeeds: the others of the batch are not tried now.
const STALLED_MAX: u32 = 2;
/// Of a task that alone ran out of time.
const OUT_OF_TIME: &str = "OUT_OF_TIME: alone it takes the system longer than a third of the lease. Add an index, end what locks its \
                           rows, or raise dispatch.lease_s; then retry it";
/// How [`SubjectError::NotYet`] begins.
const READ_BACK_FOUND: &str = "read-back found";
/// Up to here a batch waits for replicas itself; longer, and the task is put aside.
const SETTLE_IN_BATCH_MAX: Duration = Duration::from_secs(3);
/// Marks a task whose act is done and whose replicas had time to settle.
const SETTLING: &str = "SETTLING";

pub(crate) struct Execution<'a> {
    pub store: &'a Store,
    pub clock: &'a dyn Clock,
    pub limits: &'a DispatchLimits,
    pub connector: &'a dyn Connector,
    pub system: &'a System,
    pub customer: &'a CustomerId,
    pub customer_key: Option<String>,
    pub time_zone: String,
    pub action: Action,
    pub work: Work,
    pub hold: &'a Hold,
    /// Match sets that this run has stored. What is attempted again goes on from them: rows that are gone by then are not found any more.
    pub stored: Mutex<HashMap<RequestId, Vec<u8>>>,
}

/// What a run came to.
#[derive(Default)]
pub(crate) struct Ran {
    pub reports: Vec<Report>,
    /// The system could not do it now: its breaker counts it.
    pub unavailable: bool,
}

enum Stop {
    Connector(ConnectorError),
    Store(StoreError),
}

impl From<ConnectorError> for Stop {
    fn from(e: ConnectorError) -> Self {
        Self::Connector(e)
    }
}

impl From<StoreError> for Stop {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

/// One task on its way through a batch.
struct Step<'a> {
    task: &'a LeasedTask,
    subject: Subject,
    match_set: MatchSet,
}

/// Steps as a connector takes them, and steps again afterwards: nothing is copied for it.
struct Apart<'a> {
    tasks: Vec<&'a LeasedTask>,
    subjects: Vec<Subject>,
    match_sets: Vec<MatchSet>,
}

impl<'a> Apart<'a> {
    fn of(steps: Vec<Step<'a>>) -> Self {
        let (tasks, (subjects, match_sets)) = steps.into_iter().map(|s| (s.task, (s.subject, s.match_set))).unzip();
        Self { tasks, subjects, match_sets }
    }

    fn steps(self) -> impl Iterator<Item = Step<'a>> {
        let parts = self.tasks.into_iter().zip(self.subjects).zip(self.match_sets);
        parts.map(|((task, subject), match_set)| Step { task, subject, match_set })
    }
}

fn report(task: &LeasedTask, result: ReportResult) -> Report {
    Report { request: task.key.request, lease: task.lease, result }
}

/// Again, after a while.
pub(crate) fn retry(clock: &dyn Clock, limits: &DispatchLimits, task: &LeasedTask, reason: &str) -> Report {
    let attempt = task.attempts.saturating_sub(1);
    let wait = full_jitter(attempt, limits.retry_base(), limits.retry_cap(), clock.chance());
    let at = clock.now().checked_add(wait).unwrap_or(Timestamp::MAX);
    report(task, ReportResult::Retry { at, reason: reason.to_owned() })
}

/// As a stack takes them: the first half is on top.
fn halves(part: &[LeasedTask]) -> [&[LeasedTask]; 2] {
    let (first, second) = part.split_at(part.len() / 2);
    [second, first]
}

impl Execution<'_> {
    /// Runs all tasks of the slice. A batch that the system refuses is split until the poisonous subject stands alone; one that it cannot
    /// do in time, until the parts are done in time.
    pub async fn run(&self, tasks: &[LeasedTask]) -> Ran {
        let mut ran = Ran::default();
        let (mut poisonous, mut stalled, mut succeeded) = (0, 0, false);
        let mut in_time = usize::MAX;
        let mut parts = vec![tasks];
        while let Some(part) = parts.pop() {
            if part.len() > in_time {
                parts.extend(halves(part));
                continue;
            }
            let mut attempted = self.attempt(part).await;
            if part.len() == 1 && matches!(attempted, Err(Stop::Connector(ConnectorError::Refused(_)))) {
                // A row that came in between find and act can make a system refuse: found afresh, it is part of the work.
                attempted = self.attempt(part).await;
            }
            match attempted {
                Ok(reports) => {
                    succeeded = true;
                    ran.reports.extend(reports);
                }
                Err(Stop::Connector(ConnectorError::Refused(_))) if part.len() > 1 => parts.extend(halves(part)),
                Err(Stop::Connector(ConnectorError::OutOfTime(reason))) if part.len() > 1 => {
                    let tasks = part.len();
                    tracing::info!(system = %self.system.id, tasks, reason, "a batch ran out of time and is split");
                    // What else is as large is not tried first: each try costs the whole time limit.
                    in_time = part.len().div_ceil(2);
                    parts.extend(halves(part));
                }
                Err(Stop::Connector(ConnectorError::OutOfTime(reason))) => {
                    tracing::warn!(system = %self.system.id, reason, "a subject ran out of time alone");
                    // It may have been this one that made all its parts slow.
                    in_time = usize::MAX;
                    stalled += 1;
                    ran.reports.extend(part.iter().map(|task| self.out_of_time(task)));
                    if stalled >= STALLED_MAX && !succeeded {
                        self.put_off(&mut ran, parts.drain(..).flatten(), &reason);
                    }
                }
                Err(Stop::Connector(ConnectorError::Refused(reason))) => {
                    poisonous += 1;
                    let attention = |t| report(t, ReportResult::Attention { reason: reason.clone() });
                    ran.reports.extend(part.iter().map(attention));
                    if poisonous >= POISONOUS_MAX && !succeeded {
                        ran.unavailable = true;
                        self.put_off(&mut ran, parts.drain(..).flatten(), &reason);
                    }
                }
                Err(Stop::Connector(ConnectorError::Unavailable(reason))) => {
                    tracing::warn!(system = %self.system.id, reason, "the system could not do it now");
                    ran.unavailable = true;
                    self.put_off(&mut ran, part.iter().chain(parts.drain(..).flatten()), &reason);
                }
                Err(Stop::Store(error)) => {
                    tracing::warn!(system = %self.system.id, %error, "the store could not take a match set");
                    self.put_off(&mut ran, part.iter().chain(parts.drain(..).flatten()), "the store was not there");
                }
            }
        }
        let attention = ran.reports.iter().filter_map(|report| match &report.result {
            ReportResult::Attention { reason } => Some(reason),
            _ => None,
        });
        if let Some(reason) = attention.clone().next() {
            let tasks = attention.count();
            tracing::warn!(system = %self.system.id, customer = %self.customer, tasks, reason, "tasks need a person's attention");
        }
        ran
    }

    fn put_off<'t>(&self, ran: &mut Ran, tasks: impl Iterator<Item = &'t LeasedTask>, reason: &str) {
        for task in tasks {
            ran.reports.push(self.retry(task, reason));
        }
    }

    fn retry(&self, task: &LeasedTask, reason: &str) -> Report {
        retry(self.clock, self.limits, task, reason)
    }

    /// It may have waited for a lock: it is tried again, and a person looks at what never ends in time.
    fn out_of_time(&self, task: &LeasedTask) -> Report {
        if task.attempts >= self.limits.read_back_attempts_max && task.reason == OUT_OF_TIME {
            return report(task, ReportResult::Attention { reason: OUT_OF_TIME.to_owned() });
        }
        self.retry(task, OUT_OF_TIME)
    }

    async fn attempt(&self, tasks: &[LeasedTask]) -> Result<Vec<Report>, Stop> {
        let mut reports = Vec::with_capacity(tasks.len());
        let pseudonyms = self.store.ring().mask_pseudonyms(self.customer, &self.system.id);
        let mut steps = Vec::with_capacity(tasks.len());
        for task in tasks {
            match self.step(task, &pseudonyms) {
                // What it is asked for, it still says: other systems' rows are found by what this one yields.
                Ok(step)
                    if self.work == Work::Act && self.action == Action::Rectification && is_spared(&step.subject) =>
                {
                    let basis = "the system's data map has none of the named fields".to_owned();
                    let outcome = Outcome { basis, ..not_held() };
                    reports.push(self.confirmed(task, vec![outcome], self.clock.now()));
                }
                Ok(step) => steps.push(step),
                Err(reason) => reports.push(report(task, ReportResult::Attention { reason })),
            }
        }
        let ctx = self.context().await?;
        match (self.work, self.action) {
            (Work::Resolve, _) => self.resolve(&ctx, steps, &mut reports).await?,
            (Work::Act, Action::Access) => self.export(&ctx, steps, &mut reports).await?,
            (Work::Act, _) => self.change(&ctx, steps, &mut reports).await?,
        }
        Ok(reports)
    }

    async fn context(&self) -> Result<BatchContext, Stop> {
        let lifting = self.action == Action::LiftRestriction;
        let others_restricted = lifting && self.store.are_others_restricted(self.customer).await?;
        Ok(BatchContext {
            customer: self.customer.clone(),
            customer_key: self.customer_key.clone(),
            action: self.action,
            resolving: self.work == Work::Resolve,
            now: self.clock.now(),
            time_zone: self.time_zone.clone(),
            time_limit: self.limits.target_time_limit(),
            commit_before: self.commit_before(),
            others_restricted,
        })
    }

    /// A session in the target that stands still ends by itself after the time limit (with MySQL, which has no such bound, it does not): what
    /// begins to commit before this is committed while the lease is ours, or never.
    fn commit_before(&self) -> Instant {
        let certain = self.hold.until().saturating_sub(self.clock.steady());
        Instant::now() + certain.saturating_sub(self.limits.target_time_limit())
    }

    fn step<'t>(&self, task: &'t LeasedTask, pseudonyms: &MaskPseudonyms) -> Result<Step<'t>, String> {
        let SubjectShare { identifiers, corrections, identifier_changes } =
            self.system.share(&task.subject.identifiers, &task.subject.corrections, &task.subject.identifier_changes);
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let match_set: MatchSet = match stored.get(&task.key.request).or(task.match_set.as_ref()) {
            None => MatchSet::default(),
            Some(bytes) => {
                serde_json::from_slice(bytes).map_err(|_| "the stored match set does not parse".to_owned())?
            }
        };
        // The least one: the same in every run, whatever was yielded in which order.
        let pseudonym = match identifiers.iter().min() {
            Some(first) => pseudonyms.of(first),
            None if task.follows.is_some() => match_set.pseudonym.clone(),
            None => return Err(NO_USABLE_IDENTIFIER.to_owned()),
        };
        let subject = Subject { identifiers, pseudonym, corrections, identifier_changes };
        Ok(Step { task, subject, match_set })
    }

    /// Finds, merges with what earlier attempts found, and stores it durably. Gives the steps that may go on, and what they yield.
    async fn find<'t>(
        &self,
        ctx: &BatchContext,
        steps: Vec<Step<'t>>,
        reports: &mut Vec<Report>,
    ) -> Result<Vec<(Step<'t>, Found)>, Stop> {
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let apart = Apart::of(steps);
        let found = self.connector.find(ctx, &apart.subjects).await?;
        let mut going = Vec::with_capacity(found.len());
        let mut added = Vec::with_capacity(found.len());
        for (mut step, found) in apart.steps().zip(found) {
            match found {
                Err(error) => reports.push(self.subject_failed(step.task, &error)),
                Ok(mut found) => {
                    let later = std::mem::take(&mut found.match_set);
                    added.push(match self.action {
                        Action::Erasure => step.match_set.absorb(later),
                        Action::Rectification => step.match_set.follow(later),
                        // These change nothing that rows are found by: what is not found any more is somebody else's by now.
                        Action::Access | Action::Restriction | Action::LiftRestriction => step.match_set.replace(later),
                    });
                    going.push((step, found));
                }
            }
        }
        if self.action == Action::LiftRestriction && self.work == Work::Act {
            let mut sets: Vec<&mut MatchSet> = going.iter_mut().map(|(step, _)| &mut step.match_set).collect();
            let Some(held) = leave_held(self.store, self.customer, &self.system.id, &mut sets).await? else {
                let (touched, nothing): (Vec<_>, Vec<_>) =
                    going.into_iter().partition(|(step, _)| !step.match_set.is_empty());
                let attention = |task| report(task, ReportResult::Attention { reason: UNKNOWN.to_owned() });
                reports.extend(touched.into_iter().map(|(step, _)| attention(step.task)));
                return Ok(nothing);
            };
            added.iter_mut().zip(held).for_each(|(added, held)| *added |= held);
        }
        let to_save = going.iter().zip(added).filter(|(_, added)| *added);
        let to_save: Vec<_> = to_save.map(|((step, _), _)| (step.task, encode(&step.match_set))).collect();
        let lost = self.store.save_match_sets(&self.system.id, self.clock.now(), &to_save).await?;
        let kept = to_save.into_iter().map(|(task, bytes)| (task.key.request, bytes));
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
        // Nothing may be changed for those; their lease's new holder reports them.
        going.retain(|(step, _)| !lost.contains(&step.task.key.request));
        Ok(going)
    }

    async fn resolve(&self, ctx: &BatchContext, steps: Vec<Step<'_>>, reports: &mut Vec<Report>) -> Result<(), Stop> {
        let found = self.find(ctx, steps, reports).await?;
        let resolved = |(step, found): (Step<'_>, Found)| match found.leads_to() {
            Ok(yielded) => report(step.task, ReportResult::Resolved(yielded)),
            Err(error) => self.subject_failed(step.task, &error),
        };
        reports.extend(found.into_iter().map(resolved));
        Ok(())
    }

    async fn change(&self, ctx: &BatchContext, steps: Vec<Step<'_>>, reports: &mut Vec<Report>) -> Result<(), Stop> {
        let mut parts = vec![steps];
        while let Some(part) = parts.pop() {
            let size = part.len();
            let again = self.change_part(ctx, part, reports).await?;
            let done = size - again.len();
            if done == 0 {
                // Not by its own batch: another's is at the same rows.
                reports.extend(again.iter().map(|step| self.retry(step.task, &SubjectError::FindAgain.to_string())));
            } else if done * SHARING_MIN >= size {
                parts.push(again);
            } else {
                // Nearly all share rows with one another: one after the other, each is found once.
                parts.extend(again.into_iter().rev().map(|step| vec![step]));
            }
        }
        Ok(())
    }

    /// Gives those that must be found again, since others of the part have gone.
    async fn change_part<'t>(
        &self,
        ctx: &BatchContext,
        steps: Vec<Step<'t>>,
        reports: &mut Vec<Report>,
    ) -> Result<Vec<Step<'t>>, Stop> {
        let (mut steps, mut again) = (steps, Vec::new());
        for round in 1..=ROUNDS_MAX {
            // Where a hold has ended nobody is looked for: the person may be a customer again by now.
            let (known, sought): (Vec<_>, Vec<_>) = steps.into_iter().partition(|step| step.task.follows.is_some());
            let found = self.find(ctx, sought, reports).await?;
            let going: Vec<Step<'_>> = found.into_iter().map(|(step, _)| step).chain(known).collect();
            let going = self.still_ours(going).await?;
            let acted = self.act(ctx, going, &mut again, reports).await?;
            let settled = self.settle(acted, reports).await;
            steps = self.read_back(ctx, settled, round == ROUNDS_MAX, reports).await?;
            if steps.is_empty() {
                break;
            }
        }
        Ok(again)
    }

    /// Leaves out those whose lease is lost. A match set that was saved in this run was saved under its lease; of one that was there
    /// already nobody has asked.
    async fn still_ours<'t>(&self, mut steps: Vec<Step<'t>>) -> Result<Vec<Step<'t>>, Stop> {
        let unasked: Vec<(RequestId, i64)> = {
            let saved = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
            let unasked = steps.iter().filter(|s| !s.match_set.is_empty() && !saved.contains_key(&s.task.key.request));
            unasked.map(|step| (step.task.key.request, step.task.lease)).collect()
        };
        if !unasked.is_empty() {
            let now = self.clock.now();
            let expires_at = now.checked_add(self.limits.lease()).unwrap_or(Timestamp::MAX);
            let lost = self.store.extend_leases(self.customer, &self.system.id, &unasked, now, expires_at).await?;
            steps.retain(|step| !lost.contains(&step.task.key.request));
        }
        Ok(steps)
    }

    async fn act<'t>(
        &self,
        ctx: &BatchContext,
        steps: Vec<Step<'t>>,
        again: &mut Vec<Step<'t>>,
        reports: &mut Vec<Report>,
    ) -> Result<Vec<Step<'t>>, Stop> {
        // A correction that matches no row is for the connector to judge: an old value that is not there is no success.
        let always = self.action == Action::Rectification;
        let (touched, mut going): (Vec<_>, Vec<_>) = steps.into_iter().partition(|s| always || !s.match_set.is_empty());
        if touched.is_empty() {
            return Ok(going);
        }
        let apart = Apart::of(touched);
        let ctx = BatchContext { commit_before: self.commit_before(), ..ctx.clone() };
        let acted = self.connector.act(&ctx, &apart.subjects, &apart.match_sets).await?;
        for (step, acted) in apart.steps().zip(acted) {
            match acted {
                Ok(()) => going.push(step),
                Err(SubjectError::FindAgain) => again.push(step),
                Err(error) => reports.push(self.subject_failed(step.task, &error)),
            }
        }
        Ok(going)
    }

    /// Replicas may lag: read-back that matters waits for them.
    async fn settle<'t>(&self, steps: Vec<Step<'t>>, reports: &mut Vec<Report>) -> Vec<Step<'t>> {
        let settle = Duration::from_secs(u64::from(self.system.settle_after_s));
        let (settled, fresh): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|s| settle.is_zero() || s.task.reason == SETTLING || s.match_set.is_empty());
        if settle <= SETTLE_IN_BATCH_MAX {
            if !fresh.is_empty() {
                self.clock.sleep(settle).await;
            }
            return settled.into_iter().chain(fresh).collect();
        }
        let check_at = self.clock.now().checked_add(settle).unwrap_or(Timestamp::MAX);
        let aside = |s: Step<'_>| report(s.task, ReportResult::Awaiting { check_at, reference: SETTLING.to_owned() });
        reports.extend(fresh.into_iter().map(aside));
        settled
    }

    /// Reports what is so; gives back those that are not yet as instructed, while there are rounds left.
    async fn read_back<'t>(
        &self,
        ctx: &BatchContext,
        steps: Vec<Step<'t>>,
        last: bool,
        reports: &mut Vec<Report>,
    ) -> Result<Vec<Step<'t>>, Stop> {
        if steps.is_empty() {
            return Ok(steps);
        }
        let apart = Apart::of(steps);
        let asked_at = self.clock.now();
        let seen = self.connector.read_back(ctx, &apart.subjects, &apart.match_sets).await?;
        let mut again = Vec::new();
        for (step, seen) in apart.steps().zip(seen) {
            match seen {
                Ok(outcomes) => reports.push(self.kept(ctx, &step, self.confirmed(step.task, outcomes, asked_at))),
                Err(SubjectError::NotYet { .. }) if !last => again.push(step),
                Err(error) => reports.push(self.subject_failed(step.task, &error)),
            }
        }
        Ok(again)
    }

    async fn export(&self, ctx: &BatchContext, steps: Vec<Step<'_>>, reports: &mut Vec<Report>) -> Result<(), Stop> {
        for (step, _) in self.find(ctx, steps, reports).await? {
            match self.export_one(ctx, &step).await {
                Ok(report) => reports.push(report),
                Err(Stop::Store(StoreError::LeaseLost)) => {}
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    }

    async fn export_one(&self, ctx: &BatchContext, step: &Step<'_>) -> Result<Report, Stop> {
        let task = step.task;
        let mut totals: BTreeMap<(String, String), u64> = BTreeMap::new();
        let (mut cursor, mut number) = (None, 0_i64);
        let asked_at = self.clock.now();
        loop {
            let page = self.limits.export_page;
            let exported = self.connector.export(ctx, &step.subject, &step.match_set, cursor, page).await?;
            let (page, next) = match exported {
                Ok(exported) => exported,
                Err(error) => return Ok(self.subject_failed(task, &error)),
            };
            for outcome in page.outcomes {
                *totals.entry((outcome.collection, outcome.category)).or_default() += outcome.count;
            }
            let records: Vec<(Vec<u8>, bool)> =
                page.records.iter().map(|r| (serde_json::to_vec(r).unwrap_or_default(), r.third_party)).collect();
            let count = i64::try_from(records.len()).unwrap_or(i64::MAX);
            self.store.add_records(&task.key, task.lease, self.clock.now(), number, records).await?;
            number += count;
            match next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let exported = |((collection, category), count)| Outcome {
            collection,
            category,
            outcome: OutcomeKind::Exported,
            grade: Grade::Verified,
            count,
            basis: String::new(),
            until: None,
        };
        let outcomes: Vec<Outcome> = totals.into_iter().map(exported).collect();
        let outcomes = if outcomes.is_empty() { vec![not_held()] } else { outcomes };
        Ok(self.confirmed(task, outcomes, asked_at))
    }

    /// What is held goes with its confirmation: without it, nobody would find it on the day the hold ends.
    fn kept(&self, ctx: &BatchContext, step: &Step<'_>, report: Report) -> Report {
        let held = (ctx.action == Action::Erasure).then(|| step.match_set.held_at(ctx.now)).flatten();
        match (report.result, held) {
            (ReportResult::Done(confirmation), Some((held, due_at))) => {
                let kept = Kept { rows: encode(&held), due_at };
                Report { result: ReportResult::Held(confirmation, kept), ..report }
            }
            (result, _) => Report { result, ..report },
        }
    }

    fn confirmed(&self, task: &LeasedTask, outcomes: Vec<Outcome>, asked_at: Timestamp) -> Report {
        let now = self.clock.now();
        let evidence =
            Evidence { kind: EvidenceKind::ReadBack, reference: String::new(), sha256: String::new(), at: asked_at };
        let confirmation = Confirmation {
            system: self.system.id.clone(),
            backups_expire_at: self.system.backups_expire_at(&outcomes, now),
            outcomes,
            evidence,
            by: "connector".to_owned(),
            confirmed_at: now,
        };
        match confirmation.check(self.action).and_then(|()| confirmation.check_consistent()) {
            Ok(()) => report(task, ReportResult::Done(confirmation)),
            // Our own connector said more than it may: a defect, and never a confirmation.
            Err(error) => report(task, ReportResult::Attention { reason: error.to_string() }),
        }
    }

    fn subject_failed(&self, task: &LeasedTask, error: &SubjectError) -> Report {
        match error {
            // An outage before it counts as attempts, too: what has failed once at read-back alone is tried again.
            SubjectError::NotYet { .. }
                if task.attempts < self.limits.read_back_attempts_max || !task.reason.starts_with(READ_BACK_FOUND) =>
            {
                self.retry(task, &error.to_string())
            }
            SubjectError::NoUsableIdentifier => {
                report(task, ReportResult::Attention { reason: NO_USABLE_IDENTIFIER.to_owned() })
            }
            error => report(task, ReportResult::Attention { reason: error.to_string() }),
        }
    }
}

/// A rectification that asks nothing of this system.
fn is_spared(subject: &Subject) -> bool {
    subject.corrections.is_empty() && subject.identifier_changes.is_empty()
}

/// Nothing of the subject was found, by every identifier that the system accepts.
fn not_held() -> Outcome {
    Outcome {
        collection: "*".to_owned(),
        category: "*".to_owned(),
        outcome: OutcomeKind::NotHeld,
        grade: Grade::Verified,
        count: 0,
        basis: String::new(),
        until: None,
    }
}

fn encode(match_set: &MatchSet) -> Vec<u8> {
    // Strings, integers and times only: nothing that serde_json can refuse.
    serde_json::to_vec(match_set).unwrap_or_default()
}

/// All leases of a batch handed back, due at once.
pub(crate) fn hand_back(tasks: &[(RequestId, i64)], now: Timestamp, reason: &str) -> Vec<Report> {
    let back = |(request, lease): &(RequestId, i64)| Report {
        request: *request,
        lease: *lease,
        result: ReportResult::Retry { at: now, reason: reason.to_owned() },
    };
    tasks.iter().map(back).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or it would never be shown to a person.
    #[test]
    fn what_read_back_found_is_told_by_how_its_reason_begins() {
        assert!(SubjectError::NotYet { rows: 3 }.to_string().starts_with(READ_BACK_FOUND));
    }
}
