//! A folder in the shape of C2SP tlog-tiles, for any static web server. Tiles lie there before the checkpoint that needs them is even
//! signed: whatever was signed can be replayed from the folder when the database is lost.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use quittance_ledger::{
    checkpoint::{LogKeys, SignedHead},
    tile::{Tile, tiles_between},
};
use quittance_store::{Store, StoreError};

use crate::{CheckpointFile, CheckpointFileError, Writes, durable, fetch};

/// Tiles held in memory at once: some two megabytes.
const TILES_AT_ONCE: usize = 256;
/// Entries whose tiles are written in one turn while a folder is filled: well within a lease.
const FILL_STEP: u64 = 1 << 16;

#[derive(Debug)]
pub struct Publisher {
    folder: PathBuf,
    checkpoint: CheckpointFile,
    /// What the folder's tiles cover, as far as we know.
    tiles: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointFileError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store lacks {0}")]
    Missing(Tile),
}

impl Publisher {
    pub fn new(folder: &Path) -> Self {
        let checkpoint = CheckpointFile::public(folder.join("checkpoint"));
        Self { folder: folder.to_owned(), checkpoint, tiles: 0 }
    }

    /// Begins with the folder's own checkpoint: what a crash left out is written with what comes next.
    pub fn read(&mut self, log: &LogKeys) -> Result<Option<SignedHead>, CheckpointFileError> {
        let signed = self.checkpoint.read(log)?;
        self.tiles = signed.as_ref().map_or(0, |signed| signed.head.size);
        Ok(signed)
    }

    /// Whether so much is missing that it is written in steps: the folder is new, and the log is not.
    pub const fn is_far_behind(&self, size: u64) -> bool {
        size.saturating_sub(self.tiles) > FILL_STEP
    }

    /// One step of that. Answers whether it was the last.
    pub async fn fill(&mut self, writes: &impl Writes, store: &Store, size: u64) -> Result<bool, PublishError> {
        let next = size.min(self.tiles.saturating_add(FILL_STEP));
        self.write_tiles(writes, store, next).await?;
        Ok(next == size)
    }

    /// Every tile that a tree of this size has and the folder has not.
    pub async fn write_tiles(&mut self, writes: &impl Writes, store: &Store, size: u64) -> Result<(), PublishError> {
        let tiles: Vec<Tile> = tiles_between(self.tiles, size).collect();
        for some in tiles.chunks(TILES_AT_ONCE) {
            let (some, folder, writes) = (stored(store, some).await?, self.folder.clone(), writes.clone());
            // Every file is on disk before the next: not on the threads that serve.
            let written = tokio::task::spawn_blocking(move || write_all(&writes, &folder, &some)).await;
            written.map_err(|e| PublishError::File(self.folder.clone(), io::Error::other(e)))??;
        }
        self.tiles = self.tiles.max(size);
        Ok(())
    }

    /// Last of all, the checkpoint whose tiles are there.
    pub fn write_checkpoint(
        &self,
        writes: &impl Writes,
        log: &LogKeys,
        signed: &SignedHead,
    ) -> Result<(), PublishError> {
        Ok(self.checkpoint.raise(writes, log, signed)?)
    }
}

/// Each of these tiles, as the store has it.
pub(crate) async fn stored(store: &Store, tiles: &[Tile]) -> Result<Vec<(Tile, Vec<u8>)>, PublishError> {
    let mut found = fetch(store, tiles.iter().copied()).await?;
    tiles.iter().map(|tile| found.remove_entry(tile).ok_or(PublishError::Missing(*tile))).collect()
}

fn write_all(writes: &impl Writes, folder: &Path, tiles: &[(Tile, Vec<u8>)]) -> Result<(), PublishError> {
    let file = |path: &Path, e| PublishError::File(path.to_owned(), e);
    fs::create_dir_all(folder).map_err(|e| file(folder, e))?;
    let lock = durable::lock(folder).map_err(|e| file(folder, e))?;
    let Some(_lock) = lock else { return Err(CheckpointFileError::Busy(folder.to_owned()).into()) };
    for (tile, bytes) in tiles {
        let path = folder.join(tile.to_string());
        // Written before a crash, or before the folder was begun anew.
        if fs::read(&path).is_ok_and(|present| present == *bytes) {
            continue;
        }
        writes.file(&path, bytes, 0o644).map_err(|e| file(&path, e))?;
    }
    Ok(())
}
