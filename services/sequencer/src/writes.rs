//! Every write of the sequencer goes through here: the seam where a test loses one, or does it and says that it failed.

use std::{future::Future, io, ops::Range, path::Path};

use quittance_domain::Timestamp;
use quittance_ledger::{integrate::TileWrite, tree::TreeHead};
use quittance_store::{LogAppend, LogCheckpoint, StagedBatch, Store, StoreResult};

use crate::durable;

/// Of one transaction of a recovery.
#[derive(Clone, Copy, Debug)]
pub struct RecoveredPlaces<'a> {
    pub found: &'a [(StagedBatch, u64)],
    pub lost: &'a [Range<u64>],
}

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

    /// The published checkpoint's row; also among those that are kept, where witnesses have cosigned it.
    fn publish(
        &self,
        store: &Store,
        epoch: i64,
        checkpoint: &LogCheckpoint,
        cosigned: usize,
    ) -> impl Future<Output = StoreResult<()>> + Send {
        store.publish_checkpoint(epoch, checkpoint, cosigned)
    }

    /// A checkpoint that was cosigned when it was not the newest any more.
    fn keep(
        &self,
        store: &Store,
        epoch: i64,
        checkpoint: &LogCheckpoint,
        cosigned: usize,
    ) -> impl Future<Output = StoreResult<()>> + Send {
        store.keep_checkpoint(epoch, checkpoint, cosigned)
    }

    /// That the log is halted, or (with nothing) that it is written again.
    fn halt(&self, store: &Store, epoch: i64, reason: Option<&str>) -> impl Future<Output = StoreResult<()>> + Send {
        store.halt_log(epoch, reason)
    }

    /// Gives the log back.
    fn release(&self, store: &Store, holder: &str) -> impl Future<Output = StoreResult<()>> + Send {
        store.release_log(holder)
    }

    /// What a recovery brings back in one transaction: places of entries that are there, and of those that are lost, tiles and head.
    fn recover(
        &self,
        append: LogAppend,
        places: RecoveredPlaces<'_>,
        now: Timestamp,
        head: &TreeHead,
        tiles: &[TileWrite],
    ) -> impl Future<Output = StoreResult<()>> + Send {
        append.recover(places.found, places.lost, now, head, tiles)
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
