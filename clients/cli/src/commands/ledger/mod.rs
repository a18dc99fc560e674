//! `quittance ledger …`: a log as its users see it, over HTTP or in a folder; and its recovery, where the service runs.

mod fsck;
mod recover;
mod watch;

use std::path::Path;

use clap::Subcommand;
use quittance_log_client::PublishedLog;

use crate::{
    args::Global,
    failure::{Done, Failure},
    output::Output,
};

#[derive(Subcommand)]
pub enum Command {
    /// Follows a log's checkpoints, and proves that each continues the last one trusted.
    #[command(after_help = watch::HELP)]
    Watch(watch::Watch),
    /// Reads everything that a log has published, and checks it against its checkpoint.
    #[command(after_help = fsck::HELP)]
    Fsck(fsck::Fsck),
    /// Brings the log of a restored database back from the published tiles, and lists what the database lacks.
    #[command(after_help = recover::HELP)]
    Recover(recover::Recover),
}

pub async fn run(command: Command, global: &Global, out: &mut Output) -> Done {
    let ca_file = global.ca_file.as_deref();
    match command {
        Command::Watch(watch) => watch::run(watch, ca_file, out).await,
        Command::Fsck(fsck) => fsck::run(fsck, ca_file, out).await,
        Command::Recover(recover) => recover::run(recover, ca_file, global.output),
    }
}

fn at_url(url: &str, ca_file: Option<&Path>) -> Result<PublishedLog, Failure> {
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Failure::Usage(format!("{url} is not a URL: give one like https://log.example/quittance")));
    }
    PublishedLog::open(url, ca_file).map_err(|fault| Failure::Other(fault.to_string()))
}
