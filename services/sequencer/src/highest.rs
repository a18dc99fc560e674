//! The highest checkpoint that was ever signed, kept outside the database: a database that was restored from a backup is shorter than
//! it, and must not grow another branch.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use quittance_ledger::{
    checkpoint::{self, CheckpointError, LogKeys},
    note::{NoteError, SignedNote},
    tree::TreeHead,
};

use crate::keys::{KeyFileError, write_durably};

#[derive(Debug, thiserror::Error)]
pub enum HighestError {
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error("{0} is not a checkpoint: {1}")]
    Note(PathBuf, NoteError),
    #[error("{0} is no checkpoint of this log: {1}")]
    Checkpoint(PathBuf, CheckpointError),
    #[error(transparent)]
    Write(#[from] KeyFileError),
}

/// A file with a signed checkpoint.
#[derive(Debug)]
pub struct Highest {
    path: PathBuf,
    size: u64,
}

impl Highest {
    /// Opens the file, and gives the head that it holds.
    pub fn open(path: &Path, log: &LogKeys) -> Result<(Self, Option<TreeHead>), HighestError> {
        let head = match fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(HighestError::File(path.to_owned(), e)),
            Ok(bytes) => {
                let note = SignedNote::parse(&bytes).map_err(|e| HighestError::Note(path.to_owned(), e))?;
                let verified = checkpoint::verify(&note, log, &[]);
                let verified = verified.map_err(|e| HighestError::Checkpoint(path.to_owned(), e))?;
                Some(*verified.checkpoint.head())
            }
        };
        Ok((Self { path: path.to_owned(), size: head.map_or(0, |h| h.size) }, head))
    }

    /// Before anybody sees a checkpoint, it stands here.
    pub fn raise(&mut self, size: u64, note: &str) -> Result<(), HighestError> {
        if size > self.size {
            write_durably(&self.path, note.as_bytes())?;
            self.size = size;
        }
        Ok(())
    }
}
