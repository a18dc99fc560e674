//! A circuit breaker per system: what is down is asked again now and then, not by every batch. By the steady clock: a step of the other one
//! would keep it open for as long as the step.

use std::time::Duration;

use crate::DispatchLimits;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Failures in a row so far.
    Closed { failures: u32 },
    /// Nothing is tried before `until`; then one batch is.
    Open { until: Duration, open_for: Duration },
    /// The one batch is out.
    HalfOpen { open_for: Duration },
}

#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    state: State,
    failures_max: u32,
    open_first: Duration,
    open_max: Duration,
}

impl Breaker {
    pub fn new(limits: &DispatchLimits) -> Self {
        Self {
            state: State::Closed { failures: 0 },
            failures_max: limits.breaker_failures.max(1),
            open_first: Duration::from_secs(limits.breaker_open_s),
            open_max: Duration::from_secs(limits.breaker_open_max_s),
        }
    }

    /// Whether a batch may go now. In the half-open state, one may.
    pub fn try_pass(&mut self, now: Duration) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until, open_for } if now >= until => {
                self.state = State::HalfOpen { open_for };
                true
            }
            State::Open { .. } | State::HalfOpen { .. } => false,
        }
    }

    /// Whether nothing may go now.
    pub fn is_open(&self, now: Duration) -> bool {
        match self.state {
            State::Closed { .. } => false,
            State::Open { until, .. } => now < until,
            State::HalfOpen { .. } => true,
        }
    }

    /// The batch never ran (nothing was leased): it says nothing about the system.
    pub fn not_used(&mut self, now: Duration) {
        if let State::HalfOpen { open_for } = self.state {
            self.state = State::Open { until: now, open_for };
        }
    }

    /// Answers whether it was open until now.
    pub fn succeeded(&mut self) -> bool {
        let before = std::mem::replace(&mut self.state, State::Closed { failures: 0 });
        !matches!(before, State::Closed { .. })
    }

    /// Answers for how long nothing is tried now, where it opens by this.
    pub fn failed(&mut self, now: Duration) -> Option<Duration> {
        let open_for = match self.state {
            State::Closed { failures } if failures + 1 < self.failures_max => {
                self.state = State::Closed { failures: failures + 1 };
                return None;
            }
            State::Closed { .. } => self.open_first,
            State::HalfOpen { open_for } => (open_for * 2).min(self.open_max),
            // A batch that had been out when it opened.
            State::Open { .. } => return None,
        };
        let until = now.saturating_add(open_for);
        self.state = State::Open { until, open_for };
        Some(open_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn it_opens_lets_one_through_and_closes_again() {
        let limits = DispatchLimits { breaker_failures: 2, breaker_open_s: 10, ..DispatchLimits::default() };
        let mut breaker = Breaker::new(&limits);
        assert_eq!(breaker.failed(at(0)), None);
        assert!(breaker.try_pass(at(0)));
        assert_eq!(breaker.failed(at(0)), Some(at(10)));
        assert_eq!(breaker.failed(at(1)), None, "it is open");
        assert!(!breaker.try_pass(at(9)));
        assert!(breaker.try_pass(at(10)));
        assert!(!breaker.try_pass(at(10)), "only one goes through half-open");
        assert_eq!(breaker.failed(at(10)), Some(at(20)));
        assert!(!breaker.try_pass(at(29)), "the second time it stays open twice as long");
        assert!(breaker.try_pass(at(30)));
        assert!(breaker.succeeded(), "that is news");
        assert!(!breaker.succeeded());
        assert!(breaker.try_pass(at(30)) && breaker.try_pass(at(30)));
    }
}
