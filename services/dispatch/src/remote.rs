//! The desk where remote workers lease: the same leases, heartbeats and reports as the workers in this process.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use quittance_domain::{
    Timestamp,
    ids::SystemId,
    plan::NO_USABLE_IDENTIFIER,
    system::{SubjectShare, System},
};
use quittance_store::{
    LeaseQuery, LeasedBatch, LeasedTask, ReplayLease, ReplayWork, Report, ReportResult, Store, StoreResult,
};

use crate::{Clock, DispatchLimits, registry::as_planned};

#[derive(Clone)]
pub struct RemoteDesk {
    store: Store,
    clock: Arc<dyn Clock>,
    limits: DispatchLimits,
}

/// How much is leased for one answer. What does not fit stays as it is, and due.
#[derive(Clone, Copy, Debug)]
pub struct AnswerBounds {
    pub tasks_max: u32,
    /// The first task excepted.
    pub bytes_max: usize,
}

/// How often a waiting worker's system is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl RemoteDesk {
    pub fn new(store: Store, clock: Arc<dyn Clock>, limits: DispatchLimits) -> Self {
        Self { store, clock, limits }
    }

    /// When a lease or heartbeat made now passes.
    pub fn lease_expiry(&self) -> Timestamp {
        self.clock.now().checked_add(self.limits.lease()).unwrap_or(Timestamp::MAX)
    }

    /// How long a lease lives after each heartbeat.
    pub fn lease_for(&self) -> Duration {
        self.limits.lease()
    }

    /// Leases the replay of its system that waits for it to say what it holds, if there is one; and when that lease passes.
    pub async fn lease_replay(&self, system: &SystemId, worker: &str) -> StoreResult<Option<(ReplayLease, Timestamp)>> {
        let (work, expires_at) = (ReplayWork::Remote { system }, self.lease_expiry());
        let leased = self.store.lease_replay(work, worker, self.clock.now(), expires_at).await?;
        Ok(leased.map(|lease| (lease, expires_at)))
    }

    /// Leases a batch, or waits for one, with what the system gets of each task's subject; `None` when the wait is over.
    pub async fn lease(
        &self,
        system: &System,
        worker: &str,
        bounds: AnswerBounds,
        wait: Duration,
    ) -> StoreResult<Option<(LeasedBatch, Vec<SubjectShare>)>> {
        let until = Instant::now() + wait;
        loop {
            for work in self.store.ready_work(self.clock.now(), std::slice::from_ref(&system.id)).await? {
                if system.customer_key(&work.customer).is_none() {
                    // Added a moment ago: the worker is told its key at the next call.
                    continue;
                }
                let (now, expires_at) = (self.clock.now(), self.lease_expiry());
                let query = LeaseQuery { worker, now, expires_at, tasks_max: bounds.tasks_max };
                let batch = match self.store.lease_within(&work, &query, bounds.bytes_max).await {
                    Err(error) if !error.is_transient() => {
                        // One customer's trouble keeps no other's work from the worker.
                        tracing::warn!(system = %system.id, customer = %work.customer, %error, "a batch could not be leased");
                        continue;
                    }
                    leased => leased?,
                };
                let shared = self.without_nobodies(system, batch).await?;
                if !shared.0.tasks.is_empty() {
                    return Ok(Some(shared));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }

    /// Keeps back what names nobody whom the system could know: its worker would find nothing, and say that nothing is held (I5).
    async fn without_nobodies(
        &self,
        system: &System,
        mut batch: LeasedBatch,
    ) -> StoreResult<(LeasedBatch, Vec<SubjectShare>)> {
        let (mut shares, mut nobodies) = (Vec::with_capacity(batch.tasks.len()), Vec::new());
        let mut by_version = HashMap::new();
        for task in std::mem::take(&mut batch.tasks) {
            // The map may have been changed since, or while the worker waited.
            let planned = match by_version.entry(task.map_version) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(as_planned(&self.store, system, task.map_version).await?),
            };
            let subject = &task.subject;
            let share = planned.share(&subject.identifiers, &subject.corrections, &subject.identifier_changes);
            if task.follows.is_some() || !share.identifiers.is_empty() {
                shares.push(share);
                batch.tasks.push(task);
            } else {
                nobodies.push(task);
            }
        }
        if !nobodies.is_empty() {
            let attention = |task: &LeasedTask| Report {
                request: task.key.request,
                lease: task.lease,
                result: ReportResult::Attention { reason: NO_USABLE_IDENTIFIER.to_owned() },
            };
            let reports: Vec<Report> = nobodies.iter().map(attention).collect();
            self.store.report(&batch.customer, &system.id, || self.clock.now(), &reports).await?;
        }
        Ok((batch, shares))
    }
}
