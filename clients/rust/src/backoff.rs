//! How long to wait before trying again: full jitter, so that many clients which were cut at once do not come back at once.

use std::{future::Future, time::Duration};

use crate::ClientError;

/// A row of waits: chosen evenly between nothing and a bound that doubles.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    tries: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(20))
    }
}

impl Backoff {
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, tries: 0 }
    }

    /// How often it was asked since it began or was reset.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Something went well: the next trouble begins small again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next wait; never shorter than what the service asked for, which is bounded too: a wild answer must not stop a client for days.
    pub fn next_wait(&mut self, asked: Option<Duration>) -> Duration {
        let bound = self.base.saturating_mul(1_u32 << self.tries.min(16)).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        let jittered = bound.mul_f64(rand::random_range(0.0..=1.0));
        match asked {
            Some(asked) => asked.min(Duration::from_secs(300)) + jittered,
            None => jittered,
        }
    }
}

/// Calls until it goes well, an error is final, or `attempts` are used up. Only for calls that may be sent twice: reads, and what bears a
/// `request_id`.
pub async fn retrying<T, F, Fut>(attempts: u32, mut call: F) -> Result<T, ClientError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, ClientError>>,
{
    let mut backoff = Backoff::default();
    loop {
        match call().await {
            Err(error) if error.is_retryable() && backoff.tries() + 1 < attempts => {
                tokio::time::sleep(backoff.next_wait(error.retry_delay())).await;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_within_bounds_and_honour_the_service() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for _ in 0..100 {
            assert!(backoff.next_wait(None) <= Duration::from_secs(1));
        }
        assert!(backoff.next_wait(Some(Duration::from_secs(5))) >= Duration::from_secs(5));
        assert!(backoff.next_wait(Some(Duration::MAX)) <= Duration::from_secs(301));
        backoff.reset();
        assert!(backoff.next_wait(None) <= Duration::from_millis(100));
    }
}
