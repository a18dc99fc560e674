//! Who may preview at each system now. Previews take no lease, so that nothing else holds them to what the system can bear.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use quittance_domain::{ids::SystemId, system::SystemLimits};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

pub struct PreviewPlaces {
    most: usize,
    systems: Mutex<HashMap<SystemId, Arc<Places>>>,
}

/// Of one system, while its limits are these.
struct Places {
    limits: SystemLimits,
    free: Arc<Semaphore>,
    rate: Option<DefaultDirectRateLimiter>,
}

impl PreviewPlaces {
    /// `most` at each system, and never more than the batches that it takes at once.
    pub fn new(most: usize) -> Self {
        Self { most, systems: Mutex::default() }
    }

    /// Waits for a place, which is free again when it is dropped, and then for its turn: no more begin in a second than the batches that the
    /// system takes.
    pub async fn take(&self, limits: SystemLimits, system: &SystemId) -> Result<OwnedSemaphorePermit, AcquireError> {
        let places = self.at(limits, system);
        let place = places.free.clone().acquire_owned().await?;
        if let Some(rate) = &places.rate {
            rate.until_ready().await;
        }
        Ok(place)
    }

    fn at(&self, limits: SystemLimits, system: &SystemId) -> Arc<Places> {
        let of = || {
            let batches = usize::try_from(limits.concurrency).unwrap_or(usize::MAX);
            let free = Arc::new(Semaphore::new(self.most.min(batches).clamp(1, Semaphore::MAX_PERMITS)));
            let rate = NonZeroU32::new(limits.batches_per_second).map(Quota::per_second).map(RateLimiter::direct);
            Arc::new(Places { limits, free, rate })
        };
        let mut systems = self.systems.lock().unwrap_or_else(PoisonError::into_inner);
        let known = systems.entry(system.clone()).or_insert_with(of);
        if known.limits != limits {
            *known = of();
        }
        known.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn no_more_begin_in_a_second_than_batches_may() {
        let (places, crm) = (PreviewPlaces::new(2), SystemId::new("crm").unwrap());
        let limits = SystemLimits { batches_per_second: 4, ..SystemLimits::default() };
        let begun = Instant::now();
        for _ in 0..6 {
            drop(places.take(limits, &crm).await.unwrap());
        }
        // After a rest four at once, then one every quarter of a second.
        assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
        // Who waits for the turn has a place; other limits have other places.
        let begun = Instant::now();
        let unbounded = SystemLimits { batches_per_second: 0, ..limits };
        for _ in 0..50 {
            drop(places.take(unbounded, &crm).await.unwrap());
        }
        assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    }
}
