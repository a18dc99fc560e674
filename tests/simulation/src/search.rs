//! Many seeds, on all cores.

use std::{
    fmt,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    planted::Planted,
    play::{Run, run},
    scenario::Replay,
};

/// What came of many runs.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub runs: u64,
    pub steps: u64,
    pub requests: u64,
    pub simulated: Duration,
    /// The smallest seed that fails, of those that were run.
    pub failed: Option<u64>,
    pub rule: Option<&'static str>,
}

impl Found {
    fn add(&mut self, seed: u64, run: &Run) {
        self.runs += 1;
        self.steps += run.steps;
        self.requests += run.requests as u64;
        self.simulated += run.simulated;
        if let Some(violation) = &run.violation
            && self.failed.is_none_or(|failed| seed < failed)
        {
            (self.failed, self.rule) = (Some(seed), Some(violation.rule));
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let years = self.simulated.as_secs_f64() / (365.25 * 86_400.0);
        write!(f, "{} seeds, {} steps, {} requests, {years:.1} simulated years", self.runs, self.steps, self.requests)
    }
}

/// How many runs go on at once: two a core, since each waits for its database's thread half of the time.
pub fn at_once() -> usize {
    2 * thread::available_parallelism().map_or(1, usize::from)
}

/// Runs seeds in their order, so many at once, until one fails, all are run, or the time is over.
pub fn search(seeds: Range<u64>, until: Option<Instant>, planted: Option<Planted>, at_once: usize) -> Found {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new(Found::default());
    let work = || {
        loop {
            let over = until.is_some_and(|until| Instant::now() >= until);
            if over || found.lock().unwrap_or_else(PoisonError::into_inner).failed.is_some() {
                return;
            }
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let run = run(&Replay::whole(seed), planted, false);
            found.lock().unwrap_or_else(PoisonError::into_inner).add(seed, &run);
        }
    };
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
