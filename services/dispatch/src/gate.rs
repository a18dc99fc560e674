//! What one system may take: so many batches at once, so many a second, and none while its breaker is open.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use quittance_domain::{
    ids::SystemId,
    system::{System, SystemLimits},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Clock, DispatchLimits, breaker::Breaker};

/// The dispatcher's clock, as the rate limiter reads it.
#[derive(Clone)]
struct Steady(Arc<dyn Clock>);

impl governor::clock::Clock for Steady {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.steady()
    }
}

pub(crate) struct Gate {
    permits: Arc<Semaphore>,
    rate: Option<RateLimiter<NotKeyed, InMemoryState, Steady, NoOpMiddleware<Duration>>>,
    breaker: Breaker,
    system: SystemId,
    limits: SystemLimits,
    clock: Arc<dyn Clock>,
}

impl Gate {
    pub fn new(system: &System, limits: &DispatchLimits, clock: Arc<dyn Clock>) -> Self {
        let rate = NonZeroU32::new(system.limits.batches_per_second).map(Quota::per_second);
        Self {
            permits: Arc::new(Semaphore::new(system.limits.concurrency as usize)),
            rate: rate.map(|quota| RateLimiter::direct_with_clock(quota, Steady(clock.clone()))),
            breaker: Breaker::new(limits),
            system: system.id.clone(),
            limits: system.limits,
            clock,
        }
    }

    /// Whether it is the gate of a system with these limits.
    pub fn fits(&self, system: &System) -> bool {
        self.limits == system.limits
    }

    /// Full, or its breaker open. What the rate refuses is only known when it is asked for.
    pub fn takes_nothing(&self) -> bool {
        self.permits.available_permits() == 0 || self.breaker.is_open(self.clock.steady())
    }

    /// Nothing of it is in work.
    pub fn rests(&self) -> bool {
        self.permits.available_permits() >= self.limits.concurrency as usize
    }

    /// Lets one batch pass, which holds the permit while it is worked on. What a full gate or an open breaker refuses costs no rate; what
    /// the rate refuses, no half-open breaker its one attempt.
    pub fn admit(&mut self) -> Option<OwnedSemaphorePermit> {
        let now = self.clock.steady();
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        let passes = !self.breaker.is_open(now)
            && self.rate.as_ref().is_none_or(|rate| rate.check().is_ok())
            && self.breaker.try_pass(now);
        passes.then_some(permit)
    }

    /// A batch came back: whether the system could be worked with, or `None` where nothing was leased. A system that is down is told of, as long as
    /// it is; nobody looks at each of its requests.
    pub fn came_back(&mut self, worked: Option<bool>) {
        match worked {
            Some(true) => {
                if self.breaker.succeeded() {
                    tracing::info!(system = %self.system, "the system can be worked with again");
                }
            }
            Some(false) => {
                if let Some(open_for) = self.breaker.failed(self.clock.steady()) {
                    let seconds = open_for.as_secs();
                    tracing::warn!(system = %self.system, seconds, "the system could not be worked with again and again: it is left alone for a while");
                }
            }
            None => self.breaker.not_used(self.clock.steady()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use quittance_domain::{
        country::Country,
        data_map::DataMap,
        system::{ConnectorKind, Registration, SystemRole, SystemScope},
    };

    use super::*;
    use crate::clock::by_hand::ByHand;

    fn gate(concurrency: u32, batches_per_second: u32) -> (Gate, Arc<ByHand>) {
        let registration = Registration {
            id: SystemId::new("crm").unwrap(),
            display_name: String::new(),
            role: SystemRole::StorageBackend,
            country: Country::parse("NL").unwrap(),
            connector: ConnectorKind::Sql,
            connection_secret: None,
            scope: SystemScope::AllCustomers,
            accepts: BTreeSet::new(),
            yields: BTreeSet::new(),
            settle_after_s: 0,
            backup_retention_s: 0,
            grace_period_s: 0,
            limits: SystemLimits { concurrency, batches_per_second, ..SystemLimits::default() },
        };
        let map = Arc::new(DataMap { max_rows_per_subject: 1, collections: Vec::new() });
        let (clock, limits) =
            (Arc::new(ByHand::default()), DispatchLimits { breaker_failures: 1, ..Default::default() });
        (Gate::new(&System { registration, map_version: 1, map }, &limits, clock.clone()), clock)
    }

    #[test]
    fn never_more_at_once_than_the_system_says() {
        let (mut gate, _) = gate(3, 0);
        let mut out: Vec<_> = (0..3).map(|_| gate.admit().unwrap()).collect();
        for _ in 0..20 {
            assert!(gate.admit().is_none() && gate.takes_nothing());
            out.pop();
            out.push(gate.admit().expect("one came back, one may go"));
        }
        out.clear();
        assert!(gate.rests());
    }

    #[test]
    fn never_more_a_second_than_the_system_says_after_what_a_rest_allows() {
        for per_second in [1, 2, 7, 40] {
            let (mut gate, clock) = gate(64, per_second);
            let (seconds, mut begun) = (20, Vec::new());
            for ms in (0..seconds * 1000).step_by(5) {
                clock.set(ms);
                while gate.admit().is_some() {
                    begun.push(ms);
                }
            }
            let rate = u64::from(per_second);
            for (i, first) in begun.iter().enumerate() {
                for (n, last) in (1..).zip(&begun[i..]) {
                    assert!(
                        n <= rate + rate * (last - first) / 1000 + 1,
                        "{n} from {first} to {last} ms, {rate} a second"
                    );
                }
            }
            let all = u64::try_from(begun.len()).unwrap();
            assert!(all >= rate * seconds, "{all} in {seconds} s: what is allowed is used");
        }
    }

    #[test]
    fn what_the_rate_refuses_takes_no_permit_and_no_attempt_of_the_breaker() {
        let (mut gate, clock) = gate(4, 1);
        drop(gate.admit().unwrap());
        gate.came_back(Some(false));
        // The breaker opens for five seconds; what it refuses costs no rate.
        clock.set(4_999);
        assert!(gate.admit().is_none() && gate.takes_nothing() && gate.rests());
        clock.set(5_000);
        let attempt = gate.admit().expect("half-open, and a second has long passed");
        assert!(gate.admit().is_none());
        drop(attempt);
        gate.came_back(None);
        assert!(gate.admit().is_none() && !gate.takes_nothing() && gate.rests(), "by the rate");
        clock.set(6_000);
        assert!(gate.admit().is_some(), "the half-open breaker still has its attempt");
    }
}
