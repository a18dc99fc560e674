//! The published folder beside the scrub of the store: a static site that serves it must not rot in silence, and a recovery needs it whole.
//!
//! Only what differs from the store's is looked at closer. Which of the two is the log's, the folder's own signed checkpoint says: what is
//! written again has been proven under it first, so that damage of the store never spoils the copy that would repair it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use quittance_ledger::{
    audit::{Portion, Unproven},
    tile::{Tile, TileMissing},
};
use quittance_store::Store;

use crate::{
    CheckpointFile, CheckpointFileError, KeyFileError, LogKeyRing, durable, fetch,
    publisher::{PublishError, stored},
};

const TILE_MODE: u32 = 0o644;

#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderScrubError {
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(
        "published tiles differ from the store's, and it is the store's that the signed checkpoint does not prove ({0}): nothing was \
         written; `quittanced ledger fsck` names the first bad entry of the store"
    )]
    StoreUnproven(#[from] Unproven<TileMissing>),
}

impl FolderScrubError {
    /// Somebody writes into the folder just now.
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Publish(PublishError::Checkpoint(CheckpointFileError::Busy(_))))
    }
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
        let log = self.keys.log_keys()?;
        let checkpoint = self.checkpoint.clone();
        let signed = self.on_disk(move || Ok(checkpoint.read(&log)?)).await?;
        let Some(head) = signed.map(|signed| signed.head) else { return Ok(0) };
        // Beyond its checkpoint the folder promises nothing.
        let Some(portion) = Portion::of(entry, head.size) else { return Ok(0) };
        let tiles: Vec<Tile> = portion.tiles().collect();
        let (folder, believed) = (self.folder.clone(), stored(store, &tiles).await?);
        if self.on_disk(move || Ok(differing(&folder, &believed)?.is_empty())).await? {
            return Ok(0);
        }
        // What is proven and what is written are the same bytes: the store may change between two looks at it.
        let mut source = fetch(store, portion.proof_reads()).await.map_err(PublishError::from)?;
        portion.prove(&head, &source)?;
        let proven: Vec<_> = tiles.iter().filter_map(|tile| source.remove_entry(tile)).collect();
        let folder = self.folder.clone();
        self.on_disk(move || repair(&folder, &proven)).await
    }

    async fn on_disk<T, F>(&self, work: F) -> Result<T, FolderScrubError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, PublishError> + Send + 'static,
    {
        let done = tokio::task::spawn_blocking(work).await;
        Ok(done.map_err(|e| PublishError::File(self.folder.clone(), io::Error::other(e)))??)
    }
}

/// The files that are not as these tiles are, and as they would be.
fn differing<'a>(folder: &Path, tiles: &'a [(Tile, Vec<u8>)]) -> Result<Vec<(PathBuf, &'a [u8])>, PublishError> {
    let mut bad = Vec::new();
    for (tile, bytes) in tiles {
        let path = folder.join(tile.to_string());
        if !is(&path, bytes).map_err(|e| PublishError::File(path.clone(), e))? {
            bad.push((path, bytes.as_slice()));
        }
        narrower(folder, tile, bytes, &mut bad)?;
    }
    Ok(bad)
}

fn repair(folder: &Path, proven: &[(Tile, Vec<u8>)]) -> Result<usize, PublishError> {
    let lock = durable::lock(folder).map_err(|e| PublishError::File(folder.to_owned(), e))?;
    let Some(_lock) = lock else { return Err(CheckpointFileError::Busy(folder.to_owned()).into()) };
    let bad = differing(folder, proven)?;
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
