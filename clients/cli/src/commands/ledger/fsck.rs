//! `quittance ledger fsck`: is everything there that the checkpoint covers, and unaltered?

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use quittance_ledger::{
    audit::Findings,
    checkpoint::{LogKeys, SignedHead},
};
use quittance_log_client::{PublishedLog, audit};

use crate::{
    failure::{Done, End, Failure},
    keys,
    output::{Output, people_watch},
};

pub const HELP: &str = "\
It reads every tile and every entry, and names the first entry that does not fit. What the store behind the log holds of the entries is
checked by `quittanced ledger fsck`.

Examples:
  quittance ledger fsck --url https://log.processor.example --key log.vkey
  quittance ledger fsck --folder /srv/log --key log.vkey --output json

Exit codes: 0 whole; 1 damaged, or not to be read; 2 wrong usage.";

#[derive(Args)]
pub struct Fsck {
    #[command(flatten)]
    place: LogPlace,
    /// The log's public key, or a file with it. More than one where the log's key was replaced.
    #[arg(long = "key", required = true, value_name = "KEY")]
    keys: Vec<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct LogPlace {
    /// Where the log is: what stands before /checkpoint and /tile.
    #[arg(long)]
    url: Option<String>,
    /// The folder that it is published from.
    #[arg(long, value_name = "DIRECTORY")]
    folder: Option<PathBuf>,
}

pub async fn run(fsck: Fsck, ca_file: Option<&Path>, out: &mut Output) -> Done {
    let keys = LogKeys::new(keys::read(&fsck.keys)?).map_err(|fault| Failure::Usage(fault.to_string()))?;
    let log = match (fsck.place.url, fsck.place.folder) {
        (Some(url), _) => super::at_url(&url, ca_file)?,
        (None, folder) => PublishedLog::folder(folder.unwrap_or_default()),
    };
    let other = |fault: &dyn std::fmt::Display| Failure::Other(fault.to_string());
    let checkpoint = log.checkpoint().await.map_err(|fault| other(&fault))?;
    let signed = SignedHead::read(&checkpoint, &keys);
    let signed = signed.map_err(|fault| other(&format!("what the log shows as its checkpoint is none: {fault}")))?;
    let bar = if people_watch() { ProgressBar::new(signed.head.size) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} entries, {eta} left") {
        bar.set_style(style);
    }
    let found = audit(&log, &signed.head, |entries| bar.set_position(entries)).await.map_err(|fault| other(&fault))?;
    bar.finish_and_clear();
    let end = if found.is_whole() { End::Fine } else { End::Wrong };
    end.after(tell(&found, out))
}

fn tell(found: &Findings, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.document(found);
    }
    out.line(&found.to_string())
}
