//! `make bench`: workload W1 end to end over the network API, beside what the same database does when asked by hand in the same run.
//! Then what the log costs.
//! Prints tables, and writes `target/bench/w1.json` and `ledger.json`. A figure that is not reached never fails the run: only what went wrong does.

mod bulk;
mod hand;
mod intake;
mod lease;
mod ledger;
mod measure;
mod results;
mod service;
mod startup;
mod w1;
mod wide;
mod workers;

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use quittance_tests::{Deployment, StoreKind};

use crate::{
    results::Results,
    w1::{Erasure, W1},
};

pub type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Measures Quittance against hand-written SQL on workload W1. Run it by `make bench`.")]
struct Args {
    /// A tenth of everything and less: says that it works, and nothing about speed.
    #[arg(long)]
    quick: bool,
    /// Only these parts; what needs another part's figure is then left out.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// The folder for the figures; beside the programs' unless given.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Hand,
    Postgres,
    Sqlite,
    Delete,
    Wide,
    Intake,
    Lease,
    Startup,
    Ledger,
    /// Only when it is named: some twenty minutes.
    Bulk,
    /// Only when it is named: 1, 2 and 4 workers beside one front.
    Workers,
}

/// How much of everything.
pub struct Sizes {
    /// Customers of W1; each is asked to be erased once.
    pub subjects: u64,
    /// Of these, by hand one by one.
    pub single: u64,
    /// Of these, before the measurement, so that connections, plans and pages are warm.
    pub warm_up: u64,
    pub wide: u64,
    pub intake: u64,
    pub finished: u64,
    /// Erasures of one customer.
    pub bulk: u64,
    pub leases: u64,
    /// Of the log.
    pub entries: u64,
    /// By hand everything is short, so it is done several times, and the median counts.
    pub rounds: usize,
}

const FULL: Sizes = Sizes {
    subjects: 10_000,
    single: 2_000,
    warm_up: 1_000,
    wide: 1_000,
    intake: 100_000,
    finished: 1_000_000,
    bulk: 1_000_000,
    leases: 21,
    entries: 1_000_000,
    rounds: 3,
};

const QUICK: Sizes = Sizes {
    subjects: 2_000,
    single: 100,
    warm_up: 200,
    wide: 50,
    intake: 5_000,
    finished: 20_000,
    bulk: 40_000,
    leases: 5,
    entries: 20_000,
    rounds: 1,
};

fn say(what: &str) {
    eprintln!("bench: {what}");
}

async fn run(args: &Args) -> Result<(), Failure> {
    let sizes = if args.quick { QUICK } else { FULL };
    let out = args.out.clone().map_or_else(beside_the_programs, Ok)?;
    let w1 = W1::create(sizes.subjects).await?;
    if args.only.contains(&Part::Bulk) {
        say("a bulk, and single requests beside it");
        let results = bulk::bulk(&w1, &sizes, args.quick).await?;
        results.write(&out.join("bulk.json"))?;
        println!("{}", results.table());
    }
    if args.only.contains(&Part::Workers) {
        say("1, 2 and 4 workers");
        let results = workers::workers(&w1, &sizes, args.quick).await?;
        results.write(&out.join("workers.json"))?;
        println!("{}", results.table());
    }
    if args.only.iter().any(|part| !matches!(part, Part::Ledger | Part::Bulk | Part::Workers)) || args.only.is_empty() {
        let results = service(args, &sizes, &w1).await?;
        results.write(&out.join("w1.json"))?;
        println!("{}", results.table());
    }
    if args.only.is_empty() || args.only.contains(&Part::Ledger) {
        say("the log");
        let results = ledger::ledger(&w1, &sizes, args.quick).await?;
        results.write(&out.join("ledger.json"))?;
        println!("{}", results.table());
    }
    println!("written to {}", out.display());
    w1.close().await;
    Ok(())
}

async fn service(args: &Args, sizes: &Sizes, w1: &W1) -> Result<Results, Failure> {
    let wanted = |part: Part| args.only.is_empty() || args.only.contains(&part);
    let mut results = Results { quick: args.quick, machine: w1.machine().await?, ..Results::default() };

    if wanted(Part::Hand) {
        say("by hand, one subject a transaction");
        results.hand_single_per_s = Some(hand::single(w1, sizes).await?);
        say("by hand, set-based");
        let set = hand::set_based(w1, sizes, Erasure::Mask).await?;
        results.hand_set_per_s = Some(set.per_s);
        results.hand_set_cpu_ms = Some(set.postgresql_ms);
        if wanted(Part::Delete) {
            say("by hand, set-based, deleting");
            results.hand_delete_per_s = Some(hand::set_based(w1, sizes, Erasure::Delete).await?.per_s);
        }
    }

    // One server goes through these, so that its memory is that of a process which has seen a great many requests.
    if [Part::Postgres, Part::Delete, Part::Intake].into_iter().any(wanted) {
        let deployment = Deployment::start(StoreKind::Postgres).await;
        let mut requests = 0;
        if wanted(Part::Postgres) {
            say("end to end, PostgreSQL store");
            let done = service::erase_all(&deployment, w1, sizes, Erasure::Mask).await?;
            results.quittance_postgres_per_s = Some(done.per_s);
            results.server_cpu_ms = Some(done.server_ms);
            results.postgresql_cpu_ms = Some(done.postgresql_ms);
            requests += sizes.subjects;
        }
        if wanted(Part::Delete) {
            say("end to end, PostgreSQL store, deleting");
            let done = service::erase_all(&deployment, w1, sizes, Erasure::Delete).await?;
            results.quittance_delete_per_s = Some(done.per_s);
            requests += sizes.subjects;
        }
        if wanted(Part::Intake) {
            say("intake, at a remote system that nobody works");
            results.intake_per_s = Some(intake::intake(&deployment, "bulk", sizes.intake).await?);
            requests += sizes.intake;
            results.server_rss_mb = Some(measure::peak_memory_mb(deployment.pid())?);
            results.server_rss_requests = Some(requests);
        }
    }
    if wanted(Part::Sqlite) {
        say("end to end, SQLite store");
        let deployment = Deployment::start(StoreKind::Sqlite).await;
        let done = service::erase_all(&deployment, w1, sizes, Erasure::Mask).await?;
        results.quittance_sqlite_per_s = Some(done.per_s);
    }
    if wanted(Part::Wide) {
        say("end to end, many customers with one request each");
        results.wide_per_s = Some(wide::wide(w1, sizes).await?);
    }
    if wanted(Part::Lease) {
        say("leasing, without and with finished tasks behind it");
        let (fresh, after) = lease::lease(sizes).await?;
        (results.lease_ms_fresh, results.lease_ms_after_1m_finished) = (Some(fresh), Some(after));
    }
    if wanted(Part::Startup) {
        say("starting on a store of finished requests");
        results.ready_ms_postgres = Some(startup::startup(sizes, StoreKind::Postgres).await?);
        results.ready_ms_sqlite = Some(startup::startup(sizes, StoreKind::Sqlite).await?);
    }
    Ok(results)
}

/// `target/bench`, for a program in `target/release`.
fn beside_the_programs() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent).ok_or("the program is in no target folder")?;
    Ok(target.join("bench"))
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
