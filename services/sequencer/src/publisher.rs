//! A folder in the shape of C2SP tlog-tiles, for any static web server: tiles first, the checkpoint that needs them last.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use quittance_ledger::{
    checkpoint::Checkpoint,
    note::SignedNote,
    tile::{Tile, tiles_between},
};
use quittance_store::{LogCheckpoint, Store, StoreError};

use crate::fetch;

/// Tiles held in memory at once: some two megabytes.
const TILES_AT_ONCE: usize = 256;

#[derive(Debug)]
pub struct Publisher {
    folder: PathBuf,
    /// What the folder's checkpoint covers.
    published: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store lacks {0}")]
    Missing(Tile),
}

impl Publisher {
    /// Goes on from the folder's own checkpoint: what a crash left out is written with what comes next.
    pub fn open(folder: &Path) -> Result<Self, PublishError> {
        fs::create_dir_all(folder).map_err(|e| PublishError::File(folder.to_owned(), e))?;
        let written = fs::read(folder.join("checkpoint")).ok();
        let note = written.and_then(|bytes| SignedNote::parse(&bytes).ok());
        let head = note.and_then(|note| Checkpoint::parse(note.text()).ok()).map(|c| c.head().size);
        Ok(Self { folder: folder.to_owned(), published: head.unwrap_or(0) })
    }

    pub async fn publish(&mut self, store: &Store, checkpoint: &LogCheckpoint) -> Result<(), PublishError> {
        if checkpoint.size <= self.published {
            return Ok(());
        }
        let tiles: Vec<Tile> = tiles_between(self.published, checkpoint.size).collect();
        for some in tiles.chunks(TILES_AT_ONCE) {
            let found = fetch(store, some.iter().copied()).await?;
            for tile in some {
                let bytes = found.get(tile).ok_or(PublishError::Missing(*tile))?;
                self.write(&tile.to_string(), bytes)?;
            }
        }
        self.write("checkpoint", checkpoint.note.as_bytes())?;
        self.published = checkpoint.size;
        Ok(())
    }

    /// Readers see the old file or the new one.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), PublishError> {
        let path = self.folder.join(name);
        let part = path.with_extension("part");
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&part, bytes))
            .and_then(|()| fs::rename(&part, &path));
        written.map_err(|e| PublishError::File(path, e))
    }
}
