//! The known set of systems, refreshed when its generation moves.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use quittance_store::{Store, StoreResult, Topology};

pub struct TopologyCache {
    store: Store,
    max_age: Duration,
    cached: Mutex<Option<(Instant, Arc<Topology>)>>,
}

impl TopologyCache {
    pub fn new(store: Store, max_age: Duration) -> Self {
        Self { store, max_age, cached: Mutex::new(None) }
    }

    fn cached(&self) -> Option<(Instant, Arc<Topology>)> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, topology: Arc<Topology>) {
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), topology));
    }

    /// At most `max_age` old. Whoever plans or completes with it checks the generation in its own transaction (I3).
    pub async fn get(&self) -> StoreResult<Arc<Topology>> {
        match self.cached() {
            Some((at, topology)) if at.elapsed() < self.max_age => Ok(topology),
            _ => self.present().await,
        }
    }

    /// As it is now. For whoever refuses something for what is not known: another replica may have registered it a moment ago.
    pub async fn present(&self) -> StoreResult<Arc<Topology>> {
        match self.cached() {
            Some((_, topology)) if self.store.generation().await? == topology.generation => {
                self.keep(topology.clone());
                Ok(topology)
            }
            _ => self.refresh().await,
        }
    }

    pub async fn refresh(&self) -> StoreResult<Arc<Topology>> {
        let topology = Arc::new(self.store.topology().await?);
        self.keep(topology.clone());
        Ok(topology)
    }
}
