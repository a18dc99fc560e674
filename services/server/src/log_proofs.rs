//! Proofs of the log itself: of one entry, and of two sizes. Hashes alone; nothing of a customer.

use quittance_ledger::{
    proof::{self, OutOfRange, ProofError},
    tile::TileMissing,
    tree::MerkleHash,
};
use quittance_sequencer::fetch;

use crate::{
    app::App,
    error::{ApiError, ApiResult},
};

/// The newest signed checkpoint.
pub struct Published {
    pub size: u64,
    pub note: String,
}

pub async fn published(app: &App) -> ApiResult<Published> {
    let published = app.store.log_state().await?.checkpoint;
    let published = published.ok_or_else(|| ApiError::BeyondLog("the log has no checkpoint yet".to_owned()))?;
    Ok(Published { size: published.size, note: published.note })
}

impl Published {
    /// 0 is the newest. What no signed checkpoint covers is not proven.
    pub fn size_or_newest(&self, asked: u64) -> ApiResult<u64> {
        match asked {
            0 => Ok(self.size),
            asked if asked > self.size => {
                Err(ApiError::BeyondLog(format!("the published log has {} entries, not {asked}", self.size)))
            }
            asked => Ok(asked),
        }
    }
}

pub async fn inclusion(app: &App, index: u64, size: u64) -> ApiResult<Vec<Vec<u8>>> {
    let tiles = fetch(&app.store, proof::inclusion_tiles(index, size).map_err(beyond)?).await?;
    hashes(proof::inclusion(&tiles, index, size))
}

pub async fn consistency(app: &App, old: u64, size: u64) -> ApiResult<Vec<Vec<u8>>> {
    let tiles = fetch(&app.store, proof::consistency_tiles(old, size).map_err(beyond)?).await?;
    hashes(proof::consistency(&tiles, old, size))
}

fn hashes(computed: Result<Vec<MerkleHash>, ProofError<TileMissing>>) -> ApiResult<Vec<Vec<u8>>> {
    let hashes = computed.map_err(|e| match e {
        ProofError::OutOfRange(e) => beyond(e),
        other => ApiError::Internal(format!("the log cannot be proven: {other}")),
    })?;
    Ok(hashes.into_iter().map(|hash| hash.0.to_vec()).collect())
}

fn beyond(error: OutOfRange) -> ApiError {
    ApiError::BeyondLog(error.to_string())
}
