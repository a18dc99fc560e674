//! `make chaos`: faults for real, and a checker's word on what is left.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use quittance_chaos::{Failure, Options, Outcome, StoreKind, run};

/// Kills, stops, cuts, slows, fills and steps while requests come in, and proves that every promise was kept. Run it by `make chaos`.
#[derive(Parser)]
struct Args {
    /// Of the schedule; a random one unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults are inflicted.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Three servers on PostgreSQL, or one on SQLite.
    #[arg(long, value_enum, default_value_t = Store::Postgres)]
    store: Store,
    /// Where the figures go.
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Store {
    Postgres,
    Sqlite,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut out = std::io::stdout();
    // Nothing else can be done where standard output is gone.
    match chaos(&Args::parse()).await {
        Ok(outcome) => {
            for finding in &outcome.findings {
                let _ = writeln!(out, "FOUND {finding}");
            }
            if outcome.findings.is_empty() {
                let _ = fs::remove_dir_all(&outcome.folder);
                let _ = writeln!(out, "nothing found; seed {}", outcome.seed);
                return ExitCode::SUCCESS;
            }
            let _ = writeln!(out, "{} findings; seed {}", outcome.findings.len(), outcome.seed);
            let _ = writeln!(out, "logs and databases: {}", outcome.folder.display());
        }
        Err(error) => {
            let _ = writeln!(out, "chaos: {error}");
        }
    }
    ExitCode::FAILURE
}

async fn chaos(args: &Args) -> Result<Outcome, Failure> {
    let lasts = Duration::from_secs_f64(args.minutes * 60.0);
    let options = Options {
        seed: args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
        lasts,
        apart: Duration::from_secs(3),
        store: match args.store {
            Store::Postgres => StoreKind::Postgres,
            Store::Sqlite => StoreKind::Sqlite,
        },
        faults: true,
        // More than can be come by in the time.
        people: lasts.as_secs() * 8 + 200,
        pace: Duration::from_millis(400),
        settle: Duration::from_secs(300),
    };
    let say = |line: String| drop(writeln!(std::io::stdout(), "{line}"));
    let outcome = run(&options, &say).await?;
    let figures = write(&args.out, &outcome)?;
    say(format!("figures: {}", figures.display()));
    say(serde_json::to_string_pretty(&outcome)?);
    Ok(outcome)
}

fn write(folder: &Path, outcome: &Outcome) -> Result<PathBuf, Failure> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}-{}.json", outcome.store, outcome.seed));
    fs::write(&path, serde_json::to_vec_pretty(outcome)?)?;
    Ok(path)
}
