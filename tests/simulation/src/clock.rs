//! The clock that a replica is handed: the world's time, by its own reckoning.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use quittance_dispatch::Clock;
use quittance_domain::Timestamp;

use crate::world::{ReplicaId, World};

pub struct ReplicaClock {
    pub world: Arc<World>,
    pub replica: ReplicaId,
}

#[async_trait]
impl Clock for ReplicaClock {
    fn now(&self) -> Timestamp {
        self.world.clock_of(self.replica)
    }

    fn steady(&self) -> Duration {
        self.world.now()
    }

    async fn sleep(&self, time: Duration) {
        self.world.park("a sleep", self.world.now() + time).await;
    }

    fn chance(&self) -> f64 {
        self.world.jitter()
    }
}
