//! A leased batch, from the lease to the report.

use std::{borrow::Cow, sync::Arc};

use quittance_connectors::{Connector, ConnectorError};
use quittance_domain::{
    ids::{CustomerId, RequestId},
    system::System,
};
use quittance_store::{LeasedBatch, LeasedTask, Report, ReportResult, Store};
use tokio_util::sync::CancellationToken;

use crate::{
    Clock, DispatchLimits,
    execute::{Execution, Ran, hand_back, retry},
    heartbeat::{self, Hold},
    registry::{ConnectorRegistry, as_planned},
};

/// What batches share.
pub(crate) struct Workshop {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub limits: DispatchLimits,
    pub connectors: Arc<ConnectorRegistry>,
    /// Cancelled when a drain has waited long enough.
    pub hand_back: CancellationToken,
}

impl Workshop {
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        limits: DispatchLimits,
        connectors: Arc<ConnectorRegistry>,
        hand_back: CancellationToken,
    ) -> Self {
        Self { store, clock, limits, connectors, hand_back }
    }

    /// Works on the batch and reports it. Answers whether the system could be worked with.
    pub async fn run(&self, system: &System, mut batch: LeasedBatch, hold: Hold) -> bool {
        // A task works with the map that it was planned with; a batch nearly always has one.
        batch.tasks.sort_by_key(|t| t.map_version);
        let leases: Vec<(RequestId, i64)> = batch.tasks.iter().map(|t| (t.key.request, t.lease)).collect();
        let clock = self.clock.as_ref();
        let lost = heartbeat::until_lost(&self.store, clock, &self.limits, &batch.customer, &system.id, &leases, &hold);
        let (reports, available) = tokio::select! {
            // What is done counts as done, though the lease was lost at the same moment: the report finds out.
            biased;
            ran = self.work_and_report(system, &batch, &hold) => return ran,
            reason = lost => (hand_back(&leases, clock.now(), reason), true),
            () = self.hand_back.cancelled() => (hand_back(&leases, clock.now(), "handed back at a drain"), true),
        };
        tracing::warn!(system = %system.id, tasks = leases.len(), "a batch was given up before its end");
        if let Err(error) = self.store.report(&batch.customer, &system.id, || clock.now(), &reports).await {
            tracing::warn!(system = %system.id, %error, "leases could not be handed back: they pass by themselves");
        }
        available
    }

    async fn work_and_report(&self, system: &System, batch: &LeasedBatch, hold: &Hold) -> bool {
        let ran = self.execute(system, batch, hold).await;
        let tasks = ran.reports.len();
        self.report(system, &batch.customer, &ran.reports).await;
        tracing::debug!(system = %system.id, action = %batch.action, work = %batch.work, tasks, "batch reported");
        !ran.unavailable
    }

    async fn execute(&self, system: &System, batch: &LeasedBatch, hold: &Hold) -> Ran {
        let mut ran = Ran::default();
        for of_one_map in batch.tasks.chunk_by(|a, b| a.map_version == b.map_version) {
            let Some(first) = of_one_map.first() else { continue };
            if ran.unavailable {
                // It was not there a moment ago: it is not waited for once more.
                ran.reports.extend(self.put_off(of_one_map, "the system was not there"));
                continue;
            }
            self.execute_version((system, batch, hold), first.map_version, of_one_map, &mut ran).await;
        }
        ran
    }

    fn put_off(&self, tasks: &[LeasedTask], reason: &str) -> Vec<Report> {
        tasks.iter().map(|task| retry(self.clock.as_ref(), &self.limits, task, reason)).collect()
    }

    /// What of a subject is the system's is told by the map that a task was planned with, and so is what is done. `None`: that map does not say whose
    /// a row is, and the system is shared by now.
    async fn planned<'s>(
        &self,
        system: &'s System,
        version: i64,
    ) -> Result<Option<(Cow<'s, System>, Arc<dyn Connector>)>, ConnectorError> {
        let system = as_planned(&self.store, system, version).await;
        let system = system.map_err(|e| ConnectorError::Unavailable(e.to_string()))?;
        if system.unconfined(&system.map).next().is_some() {
            return Ok(None);
        }
        let connector = self.connectors.get(&system).await?;
        Ok(Some((system, connector)))
    }

    async fn execute_version(
        &self,
        (system, batch, hold): (&System, &LeasedBatch, &Hold),
        version: i64,
        tasks: &[LeasedTask],
        ran: &mut Ran,
    ) {
        let (system, connector) = match self.planned(system, version).await {
            Ok(Some(planned)) => planned,
            Ok(None) => {
                // Planned when it was one customer's own, of what was held until now, say: other customers' rows have come since (I8).
                let reason = format!(
                    "several customers share the system by now, and version {version} of its data map does not say whose a row is: let it run again \
                     by the map in force"
                );
                let attention = |task: &LeasedTask| Report {
                    request: task.key.request,
                    lease: task.lease,
                    result: ReportResult::Attention { reason: reason.clone() },
                };
                ran.reports.extend(tasks.iter().map(attention));
                return;
            }
            Err(error) => {
                tracing::warn!(system = %system.id, %error, "no connector");
                // A secret that is none, say: whatever it is, no batch fares better.
                ran.unavailable = true;
                ran.reports.extend(self.put_off(tasks, &error.to_string()));
                return;
            }
        };
        let execution = Execution {
            store: &self.store,
            clock: self.clock.as_ref(),
            limits: &self.limits,
            connector: connector.as_ref(),
            system: &system,
            customer: &batch.customer,
            customer_key: system.customer_key(&batch.customer),
            time_zone: batch.time_zone.clone(),
            action: batch.action,
            work: batch.work,
            hold,
            stored: Default::default(),
        };
        let part = execution.run(tasks).await;
        ran.reports.extend(part.reports);
        ran.unavailable |= part.unavailable;
    }

    /// A report that could not be stored is tried again for as long as the lease lives: the work was done, and the rerun is dear.
    async fn report(&self, system: &System, customer: &CustomerId, reports: &[Report]) {
        loop {
            match self.store.report(customer, &system.id, || self.clock.now(), reports).await {
                Ok(lost) if lost.is_empty() => return,
                Ok(lost) => {
                    tracing::warn!(system = %system.id, tasks = lost.len(), "leases were lost before the report");
                    return;
                }
                Err(error) if error.is_transient() => {
                    tracing::warn!(system = %system.id, %error, "a report could not be stored, trying again");
                    self.clock.sleep(self.limits.retry_base()).await;
                }
                Err(error) => {
                    tracing::error!(system = %system.id, %error, "a report was refused by the store");
                    return;
                }
            }
        }
    }
}
