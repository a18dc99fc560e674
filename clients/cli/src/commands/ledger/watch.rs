//! `quittance ledger watch`: does the log only grow?

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use jiff::Timestamp;
use quittance_ledger::{
    checkpoint::{CheckpointError, LogKeys, SignedHead},
    note::{MAX_NOTE_BYTES, SignedNote},
    proof::{InvalidProof, ProofError, consistency, consistency_tiles, verify_consistency},
    tile::{Tile, TileMissing},
    tree::TreeHead,
};
use quittance_log_client::{PublishedLog, ReadError};
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    failure::{Done, End, Failure},
    files, keys,
    output::{Output, note},
    times,
};

pub const HELP: &str = "\
The state file holds the last checkpoint that was trusted, as the log signed it. Where there is none, the first checkpoint is trusted as
it comes: compare it with other people's.

Examples:
  quittance ledger watch --url https://log.processor.example --key log.vkey --state checkpoint
  quittance ledger watch --url https://log.processor.example --key log.vkey --state checkpoint --once
  quittance ledger watch --url https://log.internal --ca-file ca.pem --key log.vkey --state checkpoint

Exit codes: 0 consistent; 1 forked, shrunk, not signed, or with --once not to be reached; 2 wrong usage.";

#[derive(Args)]
pub struct Watch {
    /// Where the log is: what stands before /checkpoint and /tile.
    #[arg(long)]
    url: String,
    /// The log's public key, or a file with it. More than one where the log's key was replaced.
    #[arg(long = "key", required = true, value_name = "KEY")]
    keys: Vec<String>,
    /// The last checkpoint that was trusted: read at the start, replaced when the log has proved that it grew.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// How long to wait between two looks.
    #[arg(long, default_value = "10s", value_parser = times::parse_duration, value_name = "DURATION")]
    every: Duration,
    /// Looks once, and ends.
    #[arg(long)]
    once: bool,
}

/// What speaks against the log. Its two signed checkpoints are shown beside it: that is the evidence.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("the log shrank: it had {trusted} entries, and now shows {seen}")]
    Shrank { trusted: u64, seen: u64 },
    #[error("the log is forked: it signed two different trees of {size} entries")]
    Forked { size: u64 },
    #[error(
        "the log does not prove that its {seen} entries begin with the {trusted} trusted ones: it is forked, or its tiles are damaged ({fault})"
    )]
    NotProven { trusted: u64, seen: u64, fault: String },
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Fetch(#[from] ReadError),
    #[error("what the log shows as its checkpoint is none: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("{wrong}\ntrusted:\n{trusted}\nseen:\n{seen}")]
    Wrong { wrong: Wrong, trusted: Box<SignedNote>, seen: Box<SignedNote> },
}

#[derive(Serialize)]
struct Look {
    looked_at: String,
    size: u64,
    root: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    consistent_with: Option<u64>,
    trusted_on_first_use: bool,
}

pub async fn run(watch: Watch, ca_file: Option<&Path>, out: &mut Output) -> Done {
    let log = LogKeys::new(keys::read(&watch.keys)?).map_err(|fault| Failure::Usage(fault.to_string()))?;
    let reader = super::at_url(&watch.url, ca_file)?;
    let mut trusted = match watch.state.try_exists() {
        Ok(true) => {
            let stored = SignedHead::read(&files::bytes(&watch.state, MAX_NOTE_BYTES)?, &log);
            let wrong = |fault| Failure::Usage(format!("{}: {fault}", watch.state.display()));
            Some(stored.map_err(wrong)?)
        }
        Ok(false) => None,
        Err(error) => return Err(Failure::Usage(format!("{} cannot be read: {error}", watch.state.display()))),
    };
    loop {
        match look(&reader, &log, trusted.as_ref()).await {
            Ok(seen) => {
                let before = trusted.as_ref().map(|t| t.head);
                if before != Some(seen.head) {
                    files::write(&watch.state, seen.note.to_string().as_bytes())?;
                }
                if before != Some(seen.head) || watch.once {
                    tell(before, &seen.head, out)?;
                }
                trusted = Some(seen);
            }
            Err(Trouble::Fetch(error)) if !watch.once => note(&format!("{error}; trying again")),
            Err(trouble) => return Err(Failure::Other(trouble.to_string())),
        }
        if watch.once {
            return Ok(End::Fine);
        }
        sleep(watch.every).await;
    }
}

async fn look(reader: &PublishedLog, log: &LogKeys, trusted: Option<&SignedHead>) -> Result<SignedHead, Trouble> {
    let seen = SignedHead::read(&reader.checkpoint().await?, log)?;
    let Some(trusted) = trusted else { return Ok(seen) };
    let wrong =
        |wrong| Trouble::Wrong { wrong, trusted: Box::new(trusted.note.clone()), seen: Box::new(seen.note.clone()) };
    let (old, new) = (trusted.head.size, seen.head.size);
    if new < old {
        return Err(wrong(Wrong::Shrank { trusted: old, seen: new }));
    }
    if new == old {
        return if seen.head == trusted.head { Ok(seen) } else { Err(wrong(Wrong::Forked { size: new })) };
    }
    let unproven =
        |fault: &dyn std::fmt::Display| wrong(Wrong::NotProven { trusted: old, seen: new, fault: fault.to_string() });
    let mut tiles: HashMap<Tile, Vec<u8>> = HashMap::new();
    for tile in consistency_tiles(old, new).map_err(|fault| unproven(&fault))? {
        tiles.insert(tile, reader.tile(tile).await?);
    }
    let proof: Result<_, ProofError<TileMissing>> = consistency(&tiles, old, new);
    let proof = proof.map_err(|fault| unproven(&fault))?;
    let proven: Result<(), InvalidProof> = verify_consistency(&trusted.head, &seen.head, &proof);
    proven.map_err(|fault| unproven(&fault))?;
    Ok(seen)
}

fn tell(before: Option<TreeHead>, seen: &TreeHead, out: &mut Output) -> Result<(), Failure> {
    let look = Look {
        looked_at: Timestamp::now().to_string(),
        size: seen.size,
        root: seen.root.to_string(),
        consistent_with: before.map(|head| head.size),
        trusted_on_first_use: before.is_none(),
    };
    if out.is_json() {
        return out.json_line(&look);
    }
    let how = match look.consistent_with {
        None => "trusted on first use: nothing to compare it with".to_owned(),
        Some(size) if size == seen.size => "unchanged".to_owned(),
        Some(size) => format!("it begins with the {size} entries trusted before"),
    };
    out.line(&format!("{} {} entries, root {}: {how}", look.looked_at, look.size, look.root))
}
