//! Whether this machine's clock can be right. Where it cannot, what is done by the calendar and never undone is left undone: holds do not end,
//! keys are not turned over, suppressions are kept; deadlines are not told of, since each is told of once. What can be repeated goes on.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::SignedDuration;
use quittance_domain::Timestamp;
use quittance_store::{KnownTimes, Store, StoreResult};
use tokio_util::sync::CancellationToken;

use crate::Clock;

/// More than two machines in order ever differ, and less than anything waits for that is done by the calendar.
const DIFFERENCE_MAX: SignedDuration = SignedDuration::from_mins(5);
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Shared by those who ask before they do what cannot be undone. A clock is trusted until somebody has compared it.
#[derive(Clone, Debug, Default)]
pub struct ClockTrust {
    compared: Arc<Mutex<Option<Compared>>>,
}

/// What came of it, and where the clock stood then.
#[derive(Clone, Copy, Debug)]
struct Compared {
    doubted: bool,
    now: Timestamp,
    steady: Duration,
}

impl ClockTrust {
    /// Also between two comparisons: one that went another way than the steady clock was stepped.
    pub fn holds(&self, clock: &dyn Clock) -> bool {
        let Some(compared) = *self.compared() else { return true };
        let went = clock.now().duration_since(compared.now);
        let passed = SignedDuration::try_from(clock.steady().saturating_sub(compared.steady));
        let stepped = passed.map_or(SignedDuration::MAX, |passed| went.saturating_sub(passed).abs());
        !compared.doubted && stepped <= DIFFERENCE_MAX
    }

    fn compared(&self) -> MutexGuard<'_, Option<Compared>> {
        // Nothing is done under the lock that could leave it half done.
        self.compared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong with a clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum Doubt {
    #[error("it is {0:#} behind the newest entry in the store: it was set back, or what wrote that entry was ahead")]
    Behind(SignedDuration),
    #[error("it differs from the database server's by {0:#}")]
    Differs(SignedDuration),
}

fn doubt(now: Timestamp, known: &KnownTimes) -> Option<Doubt> {
    let whole = |time: SignedDuration| SignedDuration::from_secs(time.as_secs());
    let differs = known.database.map(|database| whole(now.duration_since(database).abs()));
    let behind = known.newest_entry.map(|newest| whole(newest.duration_since(now)));
    // By the second clock first: it says which of the two stories it is.
    let differs = differs.filter(|by| *by > DIFFERENCE_MAX).map(Doubt::Differs);
    differs.or_else(|| behind.filter(|by| *by > DIFFERENCE_MAX).map(Doubt::Behind))
}

pub struct ClockWatch {
    store: Store,
    clock: Arc<dyn Clock>,
    trust: ClockTrust,
}

impl ClockWatch {
    pub fn new(store: Store, clock: Arc<dyn Clock>, trust: ClockTrust) -> Self {
        Self { store, clock, trust }
    }

    /// Looks once, and says what is wrong.
    pub async fn look(&self) -> StoreResult<()> {
        let known = self.store.known_times().await?;
        let now = self.clock.now();
        let found = doubt(now, &known);
        let compared = Compared { doubted: found.is_some(), now, steady: self.clock.steady() };
        let before = self.trust.compared().replace(compared);
        match found {
            Some(doubt) => tracing::error!(
                "the clock cannot be right: {doubt}. Holds do not end, no keys are turned over, suppressions are kept and no deadline is told of \
                 until it is: see to this machine's time service (docs/operating.md, Clocks)"
            ),
            None if before.is_some_and(|before| before.doubted) => tracing::info!("the clock is right again"),
            None => {}
        }
        Ok(())
    }

    /// Until `drain` is cancelled.
    pub async fn run(self, drain: CancellationToken) {
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Err(error) = self.look().await {
                tracing::info!(%error, "the clock could not be compared with the store's");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_doubted_when_another_or_the_store_itself_speaks_against_it() {
        let at = |s: i64| Timestamp::from_second(1_800_000_000 + s).unwrap();
        let known = |newest: Option<i64>, database: Option<i64>| KnownTimes {
            newest_entry: newest.map(at),
            database: database.map(at),
        };
        let minutes = SignedDuration::from_mins;
        assert_eq!(doubt(at(0), &known(None, None)), None);
        assert_eq!(doubt(at(0), &known(Some(-86_400), None)), None, "a store may rest");
        assert_eq!(doubt(at(0), &known(Some(299), Some(-299))), None);
        assert_eq!(doubt(at(0), &known(Some(360), None)), Some(Doubt::Behind(minutes(6))));
        assert_eq!(doubt(at(0), &known(None, Some(360))), Some(Doubt::Differs(minutes(6))));
        assert_eq!(doubt(at(0), &known(None, Some(-360))), Some(Doubt::Differs(minutes(6))));
    }

    /// Stands where it is put.
    struct Put(Timestamp, Duration);

    impl Clock for Put {
        fn now(&self) -> Timestamp {
            self.0
        }

        fn steady(&self) -> Duration {
            self.1
        }
    }

    #[test]
    fn a_clock_that_is_stepped_is_not_trusted_before_it_is_compared_again() {
        let at = |now: i64, steady: u64| {
            Put(Timestamp::from_second(1_800_000_000 + now).unwrap(), Duration::from_secs(1_000 + steady))
        };
        let trust = ClockTrust::default();
        assert!(trust.holds(&at(0, 0)) && trust.holds(&at(86_400, 0)), "nobody has compared it");
        let compared = |doubted| Compared { doubted, now: at(0, 0).0, steady: at(0, 0).1 };
        trust.compared().replace(compared(false));
        assert!(trust.holds(&at(0, 0)) && trust.holds(&at(86_400, 86_400)) && trust.holds(&at(299, 0)));
        assert!(!trust.holds(&at(86_400, 50)) && !trust.holds(&at(-301, 0)));
        trust.compared().replace(compared(true));
        assert!(!trust.holds(&at(0, 0)));
    }
}
