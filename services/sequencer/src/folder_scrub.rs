//! The published folder beside the scrub of the store: a static site that serves it must not rot in silence, and a recovery needs it whole.
//!
//! The store's tiles have just been proven when the folder's are held against them. What differs, or is gone, is written again: of one
//! number a tile never has other bytes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use quittance_ledger::{audit::Portion, tile::Tile};
use quittance_store::Store;

use crate::{CheckpointFile, CheckpointFileError, KeyFileError, LogKeyRing, durable, fetch, publisher::PublishError};

const TILE_MODE: u32 = 0o644;

#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderScrubError {
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

#[derive(Debug)]
pub(crate) struct FolderScrub {
    folder: PathBuf,
    checkpoint: CheckpointFile,
    keys: Arc<LogKeyRing>,
}

impl FolderScrub {
    pub fn new(folder: &Path, keys: Arc<LogKeyRing>) -> Self {
        let checkpoint = CheckpointFile::public(folder.join("checkpoint"));
        Self { folder: folder.to_owned(), checkpoint, keys }
    }

    /// The files of the portion in which this entry is. Gives how many were written again.
    pub async fn portion(&self, store: &Store, entry: u64) -> Result<usize, FolderScrubError> {
        let signed = self.checkpoint.read(&self.keys.log_keys()?).map_err(PublishError::from)?;
        // Beyond its checkpoint the folder promises nothing.
        let Some(portion) = Portion::of(entry, signed.map_or(0, |signed| signed.head.size)) else { return Ok(0) };
        let tiles = portion.reads();
        let mut found = fetch(store, tiles.iter().copied()).await.map_err(PublishError::from)?;
        let proven: Result<Vec<_>, _> = tiles
            .into_iter()
            .map(|tile| found.remove(&tile).map(|bytes| (tile, bytes)).ok_or(PublishError::Missing(tile)))
            .collect();
        let (proven, folder) = (proven?, self.folder.clone());
        let repaired = tokio::task::spawn_blocking(move || repair(&folder, &proven)).await;
        Ok(repaired.map_err(|e| PublishError::File(self.folder.clone(), io::Error::other(e)))??)
    }
}

fn repair(folder: &Path, proven: &[(Tile, Vec<u8>)]) -> Result<usize, PublishError> {
    let mut bad = Vec::new();
    for (tile, bytes) in proven {
        let path = folder.join(tile.to_string());
        if !is(&path, bytes).map_err(|e| PublishError::File(path.clone(), e))? {
            bad.push((path, bytes.as_slice()));
        }
        narrower(folder, tile, bytes, &mut bad)?;
    }
    if bad.is_empty() {
        return Ok(0);
    }
    let lock = durable::lock(folder).map_err(|e| PublishError::File(folder.to_owned(), e))?;
    let Some(_lock) = lock else { return Err(CheckpointFileError::Busy(folder.to_owned()).into()) };
    for (path, bytes) in &bad {
        tracing::error!(path = %path.display(), "a published tile was not the log's, or was gone: it is written again");
        durable::write(path, bytes, TILE_MODE).map_err(|e| PublishError::File(path.clone(), e))?;
    }
    Ok(bad.len())
}

/// Partial tiles of before are beginnings of the widest; where somebody has removed them, as he may, they stay away.
fn narrower<'a>(
    folder: &Path,
    tile: &Tile,
    bytes: &'a [u8],
    bad: &mut Vec<(PathBuf, &'a [u8])>,
) -> Result<(), PublishError> {
    let each = bytes.len() / usize::from(tile.width());
    let partial = PathBuf::from(format!("{}.p", folder.join(tile.full().to_string()).display()));
    let file = |e| PublishError::File(partial.clone(), e);
    let listed = match fs::read_dir(&partial) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(file)?,
    };
    for entry in listed {
        let name = entry.map_err(file)?.file_name();
        let width = name.to_str().and_then(|name| name.parse::<u16>().ok()).filter(|width| *width < tile.width());
        let Some(beginning) = width.and_then(|width| bytes.get(..usize::from(width) * each)) else { continue };
        let path = partial.join(&name);
        if !beginning.is_empty() && !is(&path, beginning).map_err(file)? {
            bad.push((path, beginning));
        }
    }
    Ok(())
}

fn is(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        read => Ok(read? == bytes),
    }
}
