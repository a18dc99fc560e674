//! `chaos-check FOLDER`: checks again what a run left behind, as long as its databases are there.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::Parser;
use quittance_chaos_check::{CheckError, Manifest, Report, check};

/// Proves that a run of `chaos` kept its promises, from what it left behind.
#[derive(Parser)]
struct Args {
    /// The run's folder, with its manifest.json.
    folder: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut out = std::io::stdout();
    // Nothing else can be done where standard output is gone.
    match checked(&Args::parse()).await {
        Ok(report) => {
            for finding in &report.findings {
                let _ = writeln!(out, "FOUND {finding}");
            }
            let _ = writeln!(out, "{:#?}", report.figures);
            if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "chaos-check: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn checked(args: &Args) -> Result<Report, CheckError> {
    check(&Manifest::read(&args.folder)?).await
}
