//! Thousands of seeds, as many as there is time for; and that a seed is a seed.

use std::time::{Duration, Instant};

use quittance_simulation::{Replay, at_once, run, search, shrink};

/// How many are run at most, and for how long: the first of the two that comes.
const SEEDS: u64 = 2_000;
const TIME: Duration = Duration::from_secs(110);
/// Fewer are no simulation: a machine that comes to no more is too slow, or too busy, and says so.
const FEWEST: u64 = 200;
/// Runs that making a failure small may take.
const SHRINK_RUNS_MAX: u32 = 300;

#[test]
#[expect(clippy::print_stdout, reason = "who runs it is to see how much was run")]
fn no_seed_breaks_what_must_always_hold() {
    let found = search(0..SEEDS, Some(Instant::now() + TIME), None, at_once());
    println!("{found}");
    if let Some(seed) = found.failed {
        let small = shrink(&Replay::whole(seed), None, SHRINK_RUNS_MAX).map(|small| small.to_string());
        panic!("seed {seed} fails: {}\n{}", found.rule.unwrap_or_default(), small.unwrap_or_default());
    }
    assert!(found.requests > found.runs, "{found}: nothing much was simulated");
    assert!(found.runs >= FEWEST, "{found} in {} s: at least {FEWEST} seeds are to be run", TIME.as_secs());
}

#[test]
fn the_same_seed_is_the_same_run_line_for_line() {
    for seed in [1, 2, 3, 5, 8, 13] {
        let replay = Replay::whole(seed);
        let (first, second) = (run(&replay, None, true), run(&replay, None, true));
        for (n, (a, b)) in first.trace.lines().iter().zip(second.trace.lines()).enumerate() {
            assert_eq!(a, b, "seed {seed}, line {n}");
        }
        assert_eq!(first.trace.digest(), second.trace.digest(), "seed {seed}");
        assert_eq!(first.steps, second.steps, "seed {seed}");
    }
}

#[test]
fn another_seed_is_another_run() {
    let digest = |seed| run(&Replay::whole(seed), None, false).trace.digest();
    assert_ne!(digest(1), digest(2));
}
