//! After a database was restored from a backup: its log is shorter than what was signed. The published tiles hold the rest; they are
//! proven against the highest checkpoint, and brought back.
//!
//! The tiles hold salted commitments alone. An entry that the restored database still has staged gets its own place back; of the others
//! only the places are known, and stay so.

use std::{collections::HashMap, ops::Range, time::Duration};

use quittance_domain::Timestamp;
use quittance_ledger::{
    Leaf,
    audit::{Damage, Portion},
    checkpoint::{CheckpointError, LogKeys, SignedHead},
    integrate::{IntegrateError, RightEdge, integrate},
    tile::{TileError, parse_entries},
    tree::TreeHead,
};
use quittance_log_client::{PublishedLog, ReadError, audit};
use quittance_store::{StagedBatch, Store, StoreError};

use crate::{
    CheckpointFile, CheckpointFileError, Direct, Halt, KeyFileError, LogFiles, LogKeyRing, Now, Publisher,
    RecoveredPlaces, Writes, begins_with, right_edge,
};

/// Leaves that are brought back by one transaction.
const BATCH: usize = 8192;
/// More than this is held in memory for no backup that is worth its name: some two gigabytes.
const LEAVES_MAX: u64 = 1 << 26;
const PAGE: u32 = 1000;
/// How long the log is held for one batch, and so kept from a sequencer.
const LEASE: Duration = Duration::from_secs(60);
/// A sequencer that is halted gives the log back every second.
const HOLD_TRIES: u32 = 50;
const HOLD_AGAIN: Duration = Duration::from_millis(300);

#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store's own part of the log is damaged, recover that first: {0}")]
    Damaged(Damage),
    #[error(transparent)]
    File(#[from] CheckpointFileError),
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    #[error("the published log cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the published checkpoint is none of this log: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("nothing that was signed is known: neither the highest checkpoint nor a published one is there")]
    NothingSigned,
    #[error("a checkpoint of {0} entries is left outside the database: the log is judged by that one")]
    SomethingOutside(u64),
    #[error("another sequencer writes the log: stop every quittanced that has the role ledger")]
    Held,
    #[error("{0} entries are to be brought back, and this is made for {LEAVES_MAX}: restore a later backup")]
    TooMany(u64),
    #[error("the published tiles are not those of the checkpoint that was signed at {size} entries: {what}")]
    Tiles { size: u64, what: String },
    #[error(transparent)]
    Halt(#[from] Halt),
    #[error(transparent)]
    Integrate(#[from] IntegrateError),
}

/// What was brought back, and what was not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The store's log had this many entries.
    pub from: u64,
    /// And has as many as were signed.
    pub to: u64,
    /// Entries that were staged in the store and have their places back.
    pub placed: u64,
    /// Places whose entries the store lacks.
    pub lost: Vec<Range<u64>>,
    /// When the newest entry was made that had a place before: about then the backup was taken.
    pub backup_ends: Option<Timestamp>,
}

/// Brings the store's log up to the highest checkpoint. Where that is done already, nothing happens. `progress` is told how many entries
/// the log has.
pub async fn recover(
    writes: &impl Writes,
    store: &Store,
    now: Now,
    log: &LogKeys,
    highest: &CheckpointFile,
    published: &PublishedLog,
    progress: impl FnMut(u64),
) -> Result<Recovered, RecoverError> {
    let signed = target(log, highest, published).await?;
    let holder = format!("recovery-{}", uuid::Uuid::new_v4());
    let epoch = hold(writes, store, &now, &holder).await?;
    let done = Recovery { writes, store, now, holder: &holder, epoch }.up_to(&signed.head, published, progress).await;
    // However it ended, the next one need not wait for the lease to pass.
    writes.release(store, &holder).await?;
    let done = done?;
    highest.raise(writes, log, &signed)?;
    Ok(done)
}

/// After every checkpoint outside the database was lost, and on an operator's word that the database was never restored: what the store
/// says was signed is the highest from now on. Gives its size.
pub async fn accept_store(store: &Store, keys: &LogKeyRing, files: &LogFiles) -> Result<u64, RecoverError> {
    let log = keys.log_keys()?;
    let highest = CheckpointFile::highest(files.highest.clone());
    let in_folder = files.publish.as_deref().map(|folder| Publisher::new(folder).read(&log)).transpose()?.flatten();
    if let Some(signed) = highest.read(&log)?.or(in_folder) {
        return Err(RecoverError::SomethingOutside(signed.head.size));
    }
    let state = store.log_state().await?;
    right_edge(store, &state.head).await?.map_err(RecoverError::Damaged)?;
    let signed = match &state.checkpoint {
        Some(row) => SignedHead::read(row.note.as_bytes(), &log)?,
        None => keys.sign(TreeHead::empty())?,
    };
    if let Some(halt) = begins_with(store, &signed.head, &state.head).await? {
        return Err(halt.into());
    }
    highest.raise(&Direct, &log, &signed)?;
    Ok(signed.head.size)
}

/// The log while we hold it.
struct Recovery<'a, W> {
    writes: &'a W,
    store: &'a Store,
    now: Now,
    holder: &'a str,
    epoch: i64,
}

impl<W: Writes> Recovery<'_, W> {
    async fn up_to(
        &self,
        target: &TreeHead,
        published: &PublishedLog,
        mut progress: impl FnMut(u64),
    ) -> Result<Recovered, RecoverError> {
        let Self { store, now, .. } = self;
        let head = store.log_state().await?.head;
        let mut edge = right_edge(store, &head).await?.map_err(RecoverError::Damaged)?;
        if target.size <= head.size {
            if let Some(halt) = begins_with(store, target, &head).await? {
                return Err(halt.into());
            }
            return Ok(Recovered { from: head.size, to: head.size, placed: 0, lost: Vec::new(), backup_ends: None });
        }
        let leaves = proven_leaves(&edge, target, published).await?;
        let mut staged = staged(store).await?;
        let backup_ends = store.newest_entry(head.size).await?;
        let mut placed = 0;
        let mut rest = leaves.as_slice();
        while !rest.is_empty() {
            let (found, lost, length) = places(rest, edge.head().size, &mut staged);
            let (batch, after) = rest.split_at(length);
            let (next, tiles) = integrate(&edge, batch)?;
            self.keep().await?;
            let append = store.begin_append(self.epoch, 0).await?;
            let places = RecoveredPlaces { found: &found, lost: &lost };
            self.writes.recover(append, places, now(), &next.head(), &tiles).await?;
            placed += found.iter().map(|(batch, _)| batch.leaves.len() as u64).sum::<u64>();
            edge = next;
            rest = after;
            progress(edge.head().size);
        }
        let lost = store.lost_entries(head.size..target.size).await?;
        Ok(Recovered { from: head.size, to: target.size, placed, lost, backup_ends })
    }

    async fn keep(&self) -> Result<(), RecoverError> {
        let until = (self.now)().checked_add(LEASE).unwrap_or(Timestamp::MAX);
        let held = self.writes.hold(self.store, self.holder, (self.now)(), until).await?;
        if held == Some(self.epoch) { Ok(()) } else { Err(RecoverError::Held) }
    }
}

/// What the store lacks, if together with the store's part it makes the root that was signed. Nothing is written before that is known.
async fn proven_leaves(
    edge: &RightEdge,
    target: &TreeHead,
    published: &PublishedLog,
) -> Result<Vec<Leaf>, RecoverError> {
    let leaves = leaves(published, edge.head().size, target).await?;
    let mut proven = edge.clone();
    for batch in leaves.chunks(BATCH) {
        proven = integrate(&proven, batch)?.0;
    }
    if proven.head() == *target {
        return Ok(leaves);
    }
    // Whose fault is it?
    let found = audit(published, target, |_| ()).await?;
    Err(match found.first {
        Some(damage) => RecoverError::Tiles { size: target.size, what: damage.to_string() },
        None => Halt::Forked { signed: target.size }.into(),
    })
}

async fn hold(writes: &impl Writes, store: &Store, now: &Now, holder: &str) -> Result<i64, RecoverError> {
    for _ in 0..HOLD_TRIES {
        let until = now().checked_add(LEASE).unwrap_or(Timestamp::MAX);
        if let Some(epoch) = writes.hold(store, holder, now(), until).await? {
            return Ok(epoch);
        }
        tokio::time::sleep(HOLD_AGAIN).await;
    }
    Err(RecoverError::Held)
}

/// The larger of what is kept outside the database and what is published: both were signed.
async fn target(log: &LogKeys, highest: &CheckpointFile, published: &PublishedLog) -> Result<SignedHead, RecoverError> {
    let published = match published.checkpoint().await {
        Ok(note) => Some(SignedHead::read(&note, log)?),
        Err(ReadError::Missing(_)) => None,
        Err(e) => return Err(e.into()),
    };
    let both = [highest.read(log)?, published];
    both.into_iter().flatten().max_by_key(|signed| signed.head.size).ok_or(RecoverError::NothingSigned)
}

/// From the published bundles. What they are worth shows when the root is made of them.
async fn leaves(published: &PublishedLog, from: u64, target: &TreeHead) -> Result<Vec<Leaf>, RecoverError> {
    let count = target.size - from;
    if count > LEAVES_MAX {
        return Err(RecoverError::TooMany(count));
    }
    let wrong = |what: String| RecoverError::Tiles { size: target.size, what };
    let mut leaves = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
    let mut next = from;
    while let Some(portion) = Portion::of(next, target.size) {
        let bundle = portion.bundle().ok_or_else(|| wrong(TileError::Coordinates.to_string()))?;
        let bytes = match published.tile(bundle).await {
            Err(error) if error.is_damage() => return Err(wrong(error.to_string())),
            read => read?,
        };
        let entries = parse_entries(&bundle, &bytes).map_err(|e| wrong(format!("{bundle}: {e}")))?;
        for (place, entry) in portion.places().zip(entries).filter(|(place, _)| *place >= from) {
            let leaf = entry.try_into().map_err(|_| wrong(format!("entry {place} is not 32 bytes long")))?;
            leaves.push(Leaf(leaf));
        }
        next = portion.places().end;
    }
    Ok(leaves)
}

/// Staged batches that are found at the beginning of these leaves, with their places; the places of what is lost; and how many leaves that
/// is: a batch gets its places in one transaction.
fn places(
    leaves: &[Leaf],
    first: u64,
    staged: &mut HashMap<Leaf, StagedBatch>,
) -> (Vec<(StagedBatch, u64)>, Vec<Range<u64>>, usize) {
    let (mut found, mut lost) = (Vec::new(), Vec::<Range<u64>>::new());
    let mut at = 0;
    while let Some(leaf) = leaves.get(at).filter(|_| at < BATCH) {
        let place = first + at as u64;
        // What was staged together stands together in the log.
        let whole = |batch: &StagedBatch| leaves.get(at..).is_some_and(|here| here.starts_with(&batch.leaves));
        if staged.get(leaf).is_some_and(whole)
            && let Some(batch) = staged.remove(leaf)
        {
            at += batch.leaves.len();
            found.push((batch, place));
            continue;
        }
        match lost.last_mut() {
            Some(range) if range.end == place => range.end += 1,
            _ => lost.push(place..place + 1),
        }
        at += 1;
    }
    (found, lost, at)
}

/// All that have no place, by their first leaves: no two are alike.
async fn staged(store: &Store) -> Result<HashMap<Leaf, StagedBatch>, RecoverError> {
    let mut all = HashMap::new();
    let mut page = store.staged_after(None, PAGE).await?;
    while let Some(last) = page.last().cloned() {
        all.extend(page.into_iter().filter_map(|batch| Some((*batch.leaves.first()?, batch))));
        page = store.staged_after(Some(&last), PAGE).await?;
    }
    Ok(all)
}
