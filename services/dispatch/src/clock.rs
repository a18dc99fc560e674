//! Time and chance, as the services have them; tests hand in their own, or of what stands here what they need not bend.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use quittance_domain::Timestamp;

#[async_trait]
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;

    /// Time since some moment, for what is measured: it never steps, whatever is done to the machine's clock.
    fn steady(&self) -> Duration {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        FIRST.get_or_init(Instant::now).elapsed()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// A number in `[0, 1)`, so that who failed together does not come back together.
    fn chance(&self) -> f64 {
        rand::random()
    }
}

/// The machine's. What it says is `ASSERTED` (I9).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // Microseconds: what the store keeps.
        let now = Timestamp::now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

#[cfg(test)]
pub(crate) mod by_hand {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Milliseconds since the start, set by hand.
    #[derive(Default)]
    pub struct ByHand(AtomicU64);

    impl ByHand {
        pub fn set(&self, ms: u64) {
            self.0.store(ms, Ordering::SeqCst);
        }
    }

    impl Clock for ByHand {
        fn now(&self) -> Timestamp {
            let ms = i64::try_from(self.0.load(Ordering::SeqCst)).unwrap();
            Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
        }

        fn steady(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::SeqCst))
        }
    }
}
