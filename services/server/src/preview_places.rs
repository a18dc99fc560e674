//! Who may preview at each system now. Previews take no lease, so that nothing else holds them to what the system can bear.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use quittance_domain::{ids::SystemId, system::System};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

pub struct PreviewPlaces {
    most: usize,
    /// Each with as many places as its limits gave it.
    systems: Mutex<HashMap<SystemId, (usize, Arc<Semaphore>)>>,
}

impl PreviewPlaces {
    /// `most` at each system, and never more than the batches that it takes at once.
    pub fn new(most: usize) -> Self {
        Self { most, systems: Mutex::default() }
    }

    /// Waits for a place, which is free again when it is dropped.
    pub async fn take(&self, system: &System) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.at(system).acquire_owned().await
    }

    fn at(&self, system: &System) -> Arc<Semaphore> {
        let batches = usize::try_from(system.limits.concurrency).unwrap_or(usize::MAX);
        let places = self.most.min(batches).clamp(1, Semaphore::MAX_PERMITS);
        let mut systems = self.systems.lock().unwrap_or_else(PoisonError::into_inner);
        let of = || (places, Arc::new(Semaphore::new(places)));
        let known = systems.entry(system.id.clone()).or_insert_with(of);
        if known.0 != places {
            *known = of();
        }
        known.1.clone()
    }
}
