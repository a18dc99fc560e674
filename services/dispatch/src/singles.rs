//! Single instructions that come in now. Somebody waits for the answer to each, and a bulk that takes all it can get keeps the database from
//! giving it: so a bulk makes room beside them. Known in the process that takes them in; where workers are processes of their own, only its
//! streams make room.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::Clock;

/// So long after one, the next is expected.
const EXPECTED: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Singles {
    clock: Arc<dyn Clock>,
    /// By the steady clock.
    last: Arc<Mutex<Option<Duration>>>,
}

impl Singles {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: Arc::default() }
    }

    pub fn one_came(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.steady());
    }

    pub fn come_in(&self) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| self.clock.steady().saturating_sub(last) < EXPECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::by_hand::ByHand;

    #[test]
    fn they_are_expected_for_a_second_after_the_last_one() {
        let clock = Arc::new(ByHand::default());
        let singles = Singles::new(clock.clone());
        assert!(!singles.come_in(), "none has ever come");
        singles.one_came();
        clock.set(900);
        assert!(singles.come_in());
        singles.clone().one_came();
        clock.set(1_899);
        assert!(singles.come_in());
        clock.set(1_900);
        assert!(!singles.come_in());
    }
}
