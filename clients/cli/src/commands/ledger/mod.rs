//! `quittance ledger …`: a log as its users see it, over HTTP.

mod http;
mod watch;

use clap::Subcommand;

use crate::{failure::Done, output::Output};

#[derive(Subcommand)]
pub enum Command {
    /// Follows a log's checkpoints, and proves that each continues the last one trusted.
    #[command(after_help = watch::HELP)]
    Watch(watch::Watch),
}

pub async fn run(command: Command, out: &mut Output) -> Done {
    let Command::Watch(watch) = command;
    watch::run(watch, out).await
}
