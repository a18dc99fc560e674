//! Makes a failing run small: without the operations, faults and quirks that it does not need.

use std::fmt;

use crate::{
    plan::Plan,
    planted::Planted,
    play::run,
    scenario::{Replay, Scenario},
    world::Violation,
};

/// A small run, and how it fails.
#[derive(Clone, Debug)]
pub struct Shrunk {
    pub replay: Replay,
    pub violation: Violation,
    pub runs: u32,
}

/// The operations that are left, each on its line, and the text that replays them.
impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replay, violation, runs } = self;
        writeln!(f, "{violation}")?;
        let scenario = Scenario::of(replay);
        let systems: Vec<&str> = scenario.systems.iter().map(|plan| plan.id).collect();
        writeln!(
            f,
            "{} replicas, {} customers, {systems:?}; after {runs} runs:",
            scenario.replicas, scenario.customers
        )?;
        for timed in &scenario.ops {
            let s = timed.at.as_secs();
            let time = format!("day {} {:02}:{:02}:{:02}", s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
            writeln!(f, "  {time}, replica {}: {:?}", timed.replica, timed.op)?;
        }
        write!(f, "make simulate REPLAY='{replay}'")
    }
}

struct Shrinking {
    planted: Option<Planted>,
    rule: &'static str,
    smallest: Shrunk,
    runs_left: u32,
}

impl Shrinking {
    /// Whether it still fails in the same way; if so, it is the smallest now.
    fn fails(&mut self, replay: Replay) -> bool {
        if self.runs_left == 0 {
            return false;
        }
        self.runs_left -= 1;
        let runs = self.smallest.runs + 1;
        match run(&replay, self.planted, false).violation {
            Some(violation) if violation.rule == self.rule => {
                self.smallest = Shrunk { replay, violation, runs };
                true
            }
            _ => {
                self.smallest.runs = runs;
                false
            }
        }
    }

    /// Leaves out parts of a list, large ones first, as long as it still fails.
    fn leave_out<T: Clone>(&mut self, of: impl Fn(&Replay) -> Vec<T>, with: impl Fn(&Replay, Vec<T>) -> Replay) {
        let mut size = of(&self.smallest.replay).len();
        while size > 0 {
            let mut from = 0;
            while from < of(&self.smallest.replay).len() {
                let mut less = of(&self.smallest.replay);
                less.drain(from..(from + size).min(less.len()));
                if !self.fails(with(&self.smallest.replay, less)) {
                    from += size;
                }
            }
            size /= 2;
        }
    }
}

/// `None`: it does not fail.
pub fn shrink(replay: &Replay, planted: Option<Planted>, runs_max: u32) -> Option<Shrunk> {
    let first = run(replay, planted, false);
    let violation = first.violation?;
    let all = Scenario::of(replay).ops.iter().map(|timed| timed.index).collect();
    let (faults, quirks) = first.fired;
    let listed =
        Replay { seed: replay.seed, ops: Some(all), faults: Plan::Listed(faults), quirks: Plan::Listed(quirks) };
    let smallest = Shrunk { replay: replay.clone(), violation: violation.clone(), runs: 1 };
    let mut shrinking = Shrinking { planted, rule: violation.rule, smallest, runs_left: runs_max };
    if !shrinking.fails(listed) {
        return Some(shrinking.smallest);
    }
    let quirks = |replay: &Replay| listed_of(&replay.quirks);
    let faults = |replay: &Replay| listed_of(&replay.faults);
    let ops = |replay: &Replay| replay.ops.clone().unwrap_or_default();
    // Operations take most time, and what is left of the others shifts with them: so once more at the end.
    for _ in 0..2 {
        shrinking.leave_out(quirks, |replay, quirks| Replay { quirks: Plan::Listed(quirks), ..replay.clone() });
        shrinking.leave_out(faults, |replay, faults| Replay { faults: Plan::Listed(faults), ..replay.clone() });
        shrinking.leave_out(ops, |replay, ops| Replay { ops: Some(ops), ..replay.clone() });
    }
    Some(shrinking.smallest)
}

fn listed_of<T: Clone>(plan: &Plan<T>) -> Vec<(u64, T)> {
    match plan {
        Plan::Drawn => Vec::new(),
        Plan::Listed(listed) => listed.clone(),
    }
}
