//! Who may preview at each system now. Previews take no lease, so that nothing else holds them to what the system can bear.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use quittance_domain::{ids::SystemId, system::System};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

pub struct PreviewPlaces {
    most: usize,
    systems: Mutex<HashMap<SystemId, Arc<Semaphore>>>,
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
        let places = || {
            let batches = usize::try_from(system.limits.concurrency).unwrap_or(usize::MAX);
            Arc::new(Semaphore::new(self.most.min(batches).min(Semaphore::MAX_PERMITS)))
        };
        let mut systems = self.systems.lock().unwrap_or_else(PoisonError::into_inner);
        systems.entry(system.id.clone()).or_insert_with(places).clone()
    }
}
