//! `make simulate`: more seeds than the tests run, or one again.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use quittance_simulation::{Replay, at_once, run, search, shrink};

/// Runs seeds of the simulation until one fails.
#[derive(Parser)]
#[command(name = "simulate")]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Stop after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Run one again and show all that happens: a seed, or what a failure printed.
    #[arg(long, conflicts_with_all = ["seeds", "from", "seconds"])]
    replay: Option<Replay>,
}

/// Runs that making a failure small may take.
const SHRINK_RUNS_MAX: u32 = 400;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(replay) = &options.replay {
        return show(replay);
    }
    let until = options.seconds.map(|s| Instant::now() + Duration::from_secs(s));
    let began = Instant::now();
    let found = search(options.from..options.from + options.seeds, until, None, at_once());
    println!("{found} in {:.1} s", began.elapsed().as_secs_f64());
    let Some(seed) = found.failed else { return ExitCode::SUCCESS };
    println!("making seed {seed} small …");
    if let Some(small) = shrink(&Replay::whole(seed), None, SHRINK_RUNS_MAX) {
        println!("{small}");
    }
    ExitCode::FAILURE
}

fn show(replay: &Replay) -> ExitCode {
    let run = run(replay, None, true);
    for line in run.trace.lines() {
        println!("{line}");
    }
    println!("{} steps, {} requests, trace {:016x}", run.steps, run.requests, run.trace.digest());
    match run.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}
