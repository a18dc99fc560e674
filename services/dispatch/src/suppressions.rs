//! Lets go of suppressions when no backup can bring the data back any more, and of the keys that nothing is recognised by any more (I7).

use std::{sync::Arc, time::Duration};

use quittance_store::Store;
use tokio_util::sync::CancellationToken;

use crate::{Clock, ClockTrust};

pub struct Suppressions {
    store: Store,
    clock: Arc<dyn Clock>,
    every: Duration,
    trust: ClockTrust,
}

impl Suppressions {
    pub fn new(store: Store, clock: Arc<dyn Clock>, every: Duration, trust: ClockTrust) -> Self {
        Self { store, clock, every, trust }
    }

    /// Looks now and then, until `drain` is cancelled.
    pub async fn run(self, drain: CancellationToken) {
        while !drain.is_cancelled() {
            if self.trust.holds(self.clock.as_ref()) {
                self.sweep().await;
            }
            tokio::select! {
                () = drain.cancelled() => {}
                () = tokio::time::sleep(self.every) => {}
            }
        }
    }

    async fn sweep(&self) {
        match self.store.sweep_suppressions(self.clock.now()).await {
            Ok(swept) => {
                for generation in &swept.destroyed {
                    tracing::warn!(
                        generation,
                        "the key of a generation of suppressions was destroyed: nothing is kept under it"
                    );
                }
                if swept.suppressions > 0 {
                    tracing::info!(
                        suppressions = swept.suppressions,
                        "suppressions whose backups are gone were deleted"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "suppressions could not be swept: tried again soon"),
        }
    }
}
