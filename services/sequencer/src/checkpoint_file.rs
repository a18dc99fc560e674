//! A signed checkpoint in a file. It never falls, whoever writes it and however late.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use quittance_ledger::checkpoint::{CheckpointError, LogKeys, SignedHead};

use crate::{Writes, durable};

#[derive(Debug, thiserror::Error)]
pub enum CheckpointFileError {
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error("{0} is no checkpoint of this log: {1}")]
    Checkpoint(PathBuf, CheckpointError),
    #[error("{path} holds another tree of {size} entries")]
    Forked { path: PathBuf, size: u64 },
    /// Another process writes there. It goes by.
    #[error("another process is writing in {0}")]
    Busy(PathBuf),
}

#[derive(Clone, Debug)]
pub struct CheckpointFile {
    path: PathBuf,
    mode: u32,
}

impl CheckpointFile {
    /// The highest checkpoint that was ever signed, kept outside the database: a database that was restored from a backup is shorter
    /// than it, and must not grow another branch.
    pub fn highest(path: PathBuf) -> Self {
        Self { path, mode: 0o600 }
    }

    pub(crate) fn public(path: PathBuf) -> Self {
        Self { path, mode: 0o644 }
    }

    /// What the file holds, if it is there.
    pub fn read(&self, log: &LogKeys) -> Result<Option<SignedHead>, CheckpointFileError> {
        match fs::read(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.file(e)),
            Ok(bytes) => {
                let signed = SignedHead::read(&bytes, log);
                signed.map(Some).map_err(|e| CheckpointFileError::Checkpoint(self.path.clone(), e))
            }
        }
    }

    /// Writes it, unless a larger one stands there. Of the same tree, the newer signatures stand.
    pub fn raise(&self, writes: &impl Writes, log: &LogKeys, signed: &SignedHead) -> Result<(), CheckpointFileError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(|e| self.file(e))?;
        let lock = durable::lock(folder).map_err(|e| self.file(e))?;
        let Some(_lock) = lock else { return Err(CheckpointFileError::Busy(folder.to_owned())) };
        self.raise_locked(writes, log, signed)
    }

    /// As [`Self::raise`], by who holds the folder's lock.
    pub(crate) fn raise_locked(
        &self,
        writes: &impl Writes,
        log: &LogKeys,
        signed: &SignedHead,
    ) -> Result<(), CheckpointFileError> {
        if let Some(present) = self.read(log)? {
            let (size, present_size) = (signed.head.size, present.head.size);
            if present_size == size && present.head != signed.head {
                return Err(CheckpointFileError::Forked { path: self.path.clone(), size });
            }
            if present_size > size || present == *signed {
                return Ok(());
            }
        }
        writes.file(&self.path, signed.note.to_string().as_bytes(), self.mode).map_err(|e| self.file(e))
    }

    fn file(&self, e: io::Error) -> CheckpointFileError {
        CheckpointFileError::File(self.path.clone(), e)
    }
}
