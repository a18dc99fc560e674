//! Every write of the sequencer goes through here: the seam where a test loses one, or does it and says that it failed.

use std::{future::Future, io, path::Path};

use quittance_domain::Timestamp;
use quittance_ledger::{integrate::TileWrite, tree::TreeHead};
use quittance_store::{LogAppend, LogCheckpoint, Store, StoreResult};

use crate::durable;

pub trait Writes: Clone + Send + Sync + 'static {
    /// Takes the log, or keeps it.
    fn hold(
        &self,
        store: &Store,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = StoreResult<Option<i64>>> + Send {
        store.hold_log(holder, now, until)
    }

    /// Places, tiles and head of a batch: one transaction.
    fn append(
        &self,
        append: LogAppend,
        head: &TreeHead,
        tiles: &[TileWrite],
    ) -> impl Future<Output = StoreResult<()>> + Send {
        append.commit(head, tiles)
    }

    /// The published checkpoint's row.
    fn publish(
        &self,
        store: &Store,
        epoch: i64,
        checkpoint: &LogCheckpoint,
    ) -> impl Future<Output = StoreResult<()>> + Send {
        store.publish_checkpoint(epoch, checkpoint)
    }

    /// The highest checkpoint, and what lies in the published folder.
    fn file(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        durable::write(path, bytes, mode)
    }

    /// The index of entries outside the database.
    fn extend(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        durable::extend(path, bytes, mode)
    }
}

/// Does what it is told.
#[derive(Clone, Copy, Debug)]
pub struct Direct;

impl Writes for Direct {}
