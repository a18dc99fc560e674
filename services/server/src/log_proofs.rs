//! Proofs of the log itself: of one entry, and of two sizes. Hashes alone; nothing of a customer.

use std::collections::HashMap;

use quittance_ledger::{
    checkpoint::SignedHead,
    proof::{self, OutOfRange, ProofError},
    tile::{FULL_WIDTH, Tile, TileKind, TileMissing, right_edge_tiles},
    tree::{HASH_BYTES, MerkleHash, TreeHead},
};
use quittance_sequencer::fetch;

use crate::{
    app::App,
    error::{ApiError, ApiResult},
};

/// The newest signed checkpoint.
pub struct Published {
    pub note: String,
    head: TreeHead,
}

pub async fn published(app: &App) -> ApiResult<Published> {
    let published = app.store.log_state().await?.checkpoint;
    let published = published.ok_or_else(|| ApiError::BeyondLog("the log has no checkpoint yet".to_owned()))?;
    let keys = app.evidence.keys.log_keys().map_err(unproven)?;
    let head = SignedHead::read(published.note.as_bytes(), &keys).map_err(unproven)?.head;
    Ok(Published { note: published.note, head })
}

impl Published {
    /// 0 is the newest. What no signed checkpoint covers is not proven.
    pub fn size_or_newest(&self, asked: u64) -> ApiResult<u64> {
        match asked {
            0 => Ok(self.head.size),
            asked if asked > self.head.size => {
                Err(ApiError::BeyondLog(format!("the published log has {} entries, not {asked}", self.head.size)))
            }
            asked => Ok(asked),
        }
    }

    /// What was altered is not handed out: under the published root a proof is tried first. Of a smaller tree no root is signed here.
    fn is_of(&self, size: u64) -> bool {
        self.head.size == size
    }
}

pub async fn inclusion(app: &App, log: &Published, index: u64, size: u64) -> ApiResult<Vec<Vec<u8>>> {
    let mut wanted = proof::inclusion_tiles(index, size).map_err(beyond)?;
    let leaves = Tile::in_tree(TileKind::Hashes { level: 0 }, index / u64::from(FULL_WIDTH), size);
    wanted.extend(leaves);
    let tiles = fetch(&app.store, wanted).await?;
    let hashes = proof::inclusion(&tiles, index, size).map_err(fault)?;
    if log.is_of(size) {
        let leaf =
            leaves.and_then(|tile| leaf_hash(&tiles, tile, index)).ok_or_else(|| unproven("a leaf is missing"))?;
        proof::verify_inclusion(&log.head, index, &leaf, &hashes).map_err(unproven)?;
    }
    Ok(bytes(hashes))
}

fn leaf_hash(tiles: &HashMap<Tile, Vec<u8>>, tile: Tile, index: u64) -> Option<MerkleHash> {
    let (hashes, _) = tiles.get(&tile)?.as_chunks::<HASH_BYTES>();
    let at = usize::try_from(index % u64::from(FULL_WIDTH)).ok()?;
    hashes.get(at).copied().map(MerkleHash)
}

pub async fn consistency(app: &App, log: &Published, old: u64, size: u64) -> ApiResult<Vec<Vec<u8>>> {
    let mut wanted = proof::consistency_tiles(old, size).map_err(beyond)?;
    wanted.extend(right_edge_tiles(old));
    let tiles = fetch(&app.store, wanted).await?;
    let hashes = proof::consistency(&tiles, old, size).map_err(fault)?;
    if log.is_of(size) {
        let old = TreeHead { size: old, root: proof::root(&tiles, old).map_err(fault)? };
        proof::verify_consistency(&old, &log.head, &hashes).map_err(unproven)?;
    }
    Ok(bytes(hashes))
}

fn bytes(hashes: Vec<MerkleHash>) -> Vec<Vec<u8>> {
    hashes.into_iter().map(|hash| hash.0.to_vec()).collect()
}

fn fault(error: ProofError<TileMissing>) -> ApiError {
    match error {
        ProofError::OutOfRange(e) => beyond(e),
        other => unproven(other),
    }
}

fn unproven(error: impl std::fmt::Display) -> ApiError {
    ApiError::Internal(format!("the log cannot be proven: {error}"))
}

fn beyond(error: OutOfRange) -> ApiError {
    ApiError::BeyondLog(error.to_string())
}
