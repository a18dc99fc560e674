//! `quittance`: the command line of the service's public API.

mod args;
mod commands;
mod failure;
mod files;
mod keys;
mod output;
mod resource;
mod short_names;
mod table;
mod times;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::{
    args::{Cli, Command},
    failure::{Done, End, Failure},
    output::Output,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("error: the runtime cannot start: {error}"));
            return ExitCode::from(failure::ERROR);
        }
    };
    let done = runtime.block_on(run(cli));
    // Reading standard input may still block a thread; nobody waits for it.
    runtime.shutdown_background();
    match done {
        Ok(end) => end.into(),
        Err(failure) => {
            if !matches!(failure, Failure::OutputClosed) {
                output::note(&format!("error: {failure}"));
            }
            ExitCode::from(failure.code())
        }
    }
}

async fn run(cli: Cli) -> Done {
    let mut out = Output::stdout(cli.global.output);
    let global = &cli.global;
    match cli.command {
        Command::Customers(command) => commands::customers::run(command, global, &mut out).await,
        Command::Systems(command) => commands::systems::run(command, global, &mut out).await,
        Command::Requests(command) => commands::requests::run(command, global, &mut out).await,
        Command::Tasks(command) => commands::tasks::run(command, global, &mut out).await,
        Command::Packages(command) => commands::packages::run(command, global, &mut out).await,
        Command::Confirmations(command) => commands::evidence::run(command, global, &mut out).await,
        Command::InterimStatement(asked) => commands::evidence::interim_statement(asked, global, &mut out).await,
        Command::Verify(verify) => commands::verify::run(&verify, &mut out),
        Command::Ledger(command) => commands::ledger::run(command, global, &mut out).await,
        Command::Keys(command) => commands::keys::run(command, global, &mut out).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "quittance", &mut script);
            out.raw(&script)?;
            Ok(End::Fine)
        }
    }
}
