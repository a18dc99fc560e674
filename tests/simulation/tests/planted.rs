//! Defects that are planted are found, each of them; and what fails is made small and fails again.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use quittance_simulation::{Found, Planted, Replay, at_once, run, search, shrink};

/// A defect that so many seeds do not find passes unseen. Each is found by far fewer: otherwise the next change to scenarios or statements
/// could hide it.
const SEEDS: u64 = 200;

/// By the number of seeds alone: no clock has a say in it.
fn find(planted: Planted) -> Found {
    search(0..SEEDS, None, Some(planted), 1)
}

#[test]
#[expect(clippy::print_stdout, reason = "who runs it is to see how long each took to find")]
fn every_planted_defect_is_found() {
    let (next, unseen) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(planted) = Planted::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = find(*planted);
            match (found.failed, found.rule) {
                (Some(seed), Some(rule)) if rule != "simulation" => println!("{planted:?}: seed {seed}, {rule}"),
                _ => unseen.lock().unwrap().push((planted, found)),
            }
        }
    };
    thread::scope(|scope| (0..at_once()).for_each(|_| drop(scope.spawn(work))));
    let unseen = unseen.into_inner().unwrap();
    assert!(unseen.is_empty(), "passed unseen: {unseen:?}");
}

#[test]
fn what_fails_is_made_small_and_replays_from_its_text() {
    let planted = Planted::CompleteWithOpenTask;
    let seed = find(planted).failed.expect("it is found");
    let whole = run(&Replay::whole(seed), Some(planted), false);
    let small = shrink(&Replay::whole(seed), Some(planted), 200).expect("it fails");
    let text = small.replay.to_string();
    let again: Replay = text.parse().expect("what was printed is read");
    assert_eq!(again, small.replay);
    let replayed = run(&again, Some(planted), false);
    assert_eq!(replayed.violation.as_ref().map(|v| v.rule), whole.violation.as_ref().map(|v| v.rule), "{text}");
    assert_eq!(replayed.violation.map(|v| v.rule), Some(small.violation.rule));
    let operations = again.ops.as_ref().map_or(usize::MAX, Vec::len);
    assert!(operations <= 3, "a request and what it needs are enough: {text}");
}
