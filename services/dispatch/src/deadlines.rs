//! Tells of requests whose time runs out, or is over: once each, in the log and as a count that a metrics layer picks up, and as a change
//! that whoever watches the customer's requests sees.

use std::{sync::Arc, time::Duration};

use quittance_domain::{ids::CustomerId, window::Timeliness};
use quittance_store::{RunningLate, Store, StoreResult};
use tokio_util::sync::CancellationToken;

use crate::{Clock, ClockTrust};

pub struct Deadlines {
    store: Store,
    clock: Arc<dyn Clock>,
    /// How long before its due time a request is at risk.
    at_risk: Duration,
    every: Duration,
    trust: ClockTrust,
}

impl Deadlines {
    pub fn new(store: Store, clock: Arc<dyn Clock>, at_risk: Duration, every: Duration, trust: ClockTrust) -> Self {
        Self { store, clock, at_risk, every, trust }
    }

    /// Looks now and then, until `drain` is cancelled.
    pub async fn run(self, drain: CancellationToken) {
        while !drain.is_cancelled() {
            // What is told is told once: a clock that is ahead would leave the real deadline in silence.
            if self.trust.holds(self.clock.as_ref())
                && let Err(error) = self.sweep(&drain).await
            {
                tracing::warn!(%error, "not all deadlines could be told of: tried again soon");
            }
            tokio::select! {
                () = drain.cancelled() => {}
                () = self.clock.sleep(self.every) => {}
            }
        }
    }

    /// One look at all customers.
    pub async fn sweep(&self, drain: &CancellationToken) -> StoreResult<()> {
        let mut all = Ok(());
        for customer in self.store.customers_running_late(self.clock.now(), self.at_risk).await? {
            // One customer's trouble keeps no other's deadlines in silence.
            if let Err(error) = self.tell_of(&customer, drain).await {
                tracing::warn!(%customer, %error, "a customer's deadlines could not be told of");
                all = Err(error);
            }
        }
        all
    }

    async fn tell_of(&self, customer: &CustomerId, drain: &CancellationToken) -> StoreResult<()> {
        loop {
            let to_tell = self.store.running_late(customer, self.clock.now(), self.at_risk).await?;
            to_tell.late.iter().for_each(|request| tell(customer, request));
            let nobody = to_tell.late.is_empty();
            // Not before: a crash in between has them told of twice, and not never.
            to_tell.told().await?;
            if nobody || drain.is_cancelled() {
                return Ok(());
            }
        }
    }
}

/// `monotonic_counter.…` is what a metrics layer counts. Names of systems and states only (I10).
fn tell(customer: &CustomerId, late: &RunningLate) {
    let open: Vec<String> = late.open.iter().map(|(system, state)| format!("{system}={state}")).collect();
    let (request, due, open) = (late.request, late.due_at, open.join(" "));
    match late.timeliness {
        Timeliness::Overdue => tracing::warn!(
            monotonic_counter.quittance_requests_overdue = 1_u64,
            %customer, %request, %due, open, "a request is overdue"
        ),
        Timeliness::AtRisk | Timeliness::OnTrack => tracing::warn!(
            monotonic_counter.quittance_requests_at_risk = 1_u64,
            %customer, %request, %due, open, "a request's time is running out"
        ),
    }
}
