//! `quittance keys …`

use std::time::Duration;

use clap::Subcommand;
use quittance_api::v1::{self, KeyEpochState};
use quittance_client::{Client, ClientError, retrying};
use tokio::time::{Instant, sleep, timeout_at};

use super::requests::wait::deadline;
use crate::{
    args::Global,
    failure::{Done, End, Failure},
    output::{Output, note},
    view,
};

#[derive(Subcommand)]
pub enum Command {
    /// The epochs of the key ring, newest first, and how far each has come.
    Status,
    /// Rotates now: what is over is forgotten, what lives is re-wrapped, the old key is destroyed, and that is recorded.
    Rotate {
        /// Wait until the destruction of every old key is recorded.
        #[arg(long)]
        wait: bool,
    },
}

const PAUSE: Duration = Duration::from_millis(500);

fn show(epochs: Vec<v1::KeyEpoch>, out: &mut Output) -> Result<(), Failure> {
    let epochs: Vec<view::KeyEpoch> = epochs.into_iter().map(Into::into).collect();
    if out.is_json() {
        return out.document(&epochs);
    }
    out.table(&view::KeyEpoch::table(&epochs))
}

async fn epochs(client: &Client) -> Result<Vec<v1::KeyEpoch>, Failure> {
    let list = || async { client.keys().list_key_epochs(v1::ListKeyEpochsRequest {}).await.map_err(ClientError::from) };
    Ok(retrying(8, list).await?.into_inner().epochs)
}

/// Whether one that is newer than `before` is current, and all others are through.
fn is_through(epochs: &[v1::KeyEpoch], before: u32) -> bool {
    let mut old = epochs.iter().filter(|e| e.state() != KeyEpochState::Current);
    epochs.iter().any(|e| e.number > before) && old.all(|e| e.state() == KeyEpochState::Logged)
}

async fn rotate(client: &Client, wait: bool, global: &Global, out: &mut Output) -> Done {
    let mut now = client.keys().rotate_keys(v1::RotateKeysRequest {}).await?.into_inner().epochs;
    let before = now.first().map_or(0, |newest| newest.number);
    let deadline = deadline(global.timeout);
    while wait && !is_through(&now, before) {
        if Instant::now() >= deadline {
            show(now, out)?;
            note("the old keys are still being turned over: `quittance keys status` tells when they are destroyed");
            return Ok(End::StillOpen);
        }
        sleep(PAUSE).await;
        if let Ok(listed) = timeout_at(deadline, epochs(client)).await {
            now = listed?;
        }
    }
    show(now, out)?;
    Ok(End::Fine)
}

pub async fn run(command: Command, global: &Global, out: &mut Output) -> Done {
    let client = global.connect().await?;
    match command {
        Command::Status => {
            show(epochs(&client).await?, out)?;
            Ok(End::Fine)
        }
        Command::Rotate { wait } => rotate(&client, wait, global, out).await,
    }
}
