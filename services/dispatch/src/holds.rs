//! Makes the request that erases what was held, on the day the hold ends.

use std::{sync::Arc, time::Duration};

use quittance_domain::ids::CustomerId;
use quittance_store::{Store, StoreResult};
use tokio_util::sync::CancellationToken;

use crate::{Clock, ClockTrust, TopologyCache};

pub struct EndsOfHolds {
    store: Store,
    clock: Arc<dyn Clock>,
    topology: Arc<TopologyCache>,
    every: Duration,
    trust: ClockTrust,
}

impl EndsOfHolds {
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        topology: Arc<TopologyCache>,
        every: Duration,
        trust: ClockTrust,
    ) -> Self {
        Self { store, clock, topology, every, trust }
    }

    /// Looks now and then, until `drain` is cancelled.
    pub async fn run(self, drain: CancellationToken) {
        while !drain.is_cancelled() {
            if self.trust.holds(self.clock.as_ref())
                && let Err(error) = self.sweep(&drain).await
            {
                tracing::warn!(%error, "the store could not be asked for holds that have ended: asked again soon");
            }
            tokio::select! {
                () = drain.cancelled() => {}
                () = tokio::time::sleep(self.every) => {}
            }
        }
    }

    async fn sweep(&self, drain: &CancellationToken) -> StoreResult<()> {
        for customer in self.store.customers_with_ended_holds(self.clock.now()).await? {
            if drain.is_cancelled() {
                break;
            }
            // One customer's trouble keeps nobody else's data longer than is allowed.
            if let Err(error) = self.follow_up(&customer).await {
                tracing::warn!(%customer, %error, "what was held for a customer could not be followed up: tried again soon");
            }
        }
        Ok(())
    }

    async fn follow_up(&self, customer: &CustomerId) -> StoreResult<()> {
        let agreement = self.store.customer(customer).await?.agreement;
        loop {
            let topology = self.topology.get().await?;
            let made = self.store.follow_up(customer, &agreement, &topology, self.clock.now()).await?;
            made.iter()
                .for_each(|request| tracing::info!(%customer, %request, "a hold has ended: what was held is erased"));
            if made.is_empty() {
                return Ok(());
            }
        }
    }
}
