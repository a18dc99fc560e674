//! The loop: hold the log, append what is staged, sign what was appended.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use quittance_domain::Timestamp;
use quittance_ledger::{
    checkpoint::{Checkpoint, LogKeys, SignedHead},
    integrate::{RightEdge, integrate},
    proof::{consistency, consistency_tiles, verify_consistency},
    tile::right_edge_tiles,
    tree::TreeHead,
};
use quittance_store::{LogCheckpoint, Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    CheckpointFile, CheckpointFileError, Direct, Halt, LogKeyRing, LogStatus, Publisher, Writes, fetch,
    publisher::PublishError,
};

pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Limits, each with its reason.
#[derive(Clone, Debug)]
pub struct SequencerOptions {
    /// Who we are, for the lease: another name at every start.
    pub holder: String,
    /// How long a dead sequencer keeps others waiting.
    pub lease: Duration,
    /// Staged batches of one transaction, each of a thousand entries at most: bounds memory, and how long the log's row is locked.
    pub batch: u32,
    /// Checkpoints are signed no more often than this.
    pub sign_every: Duration,
    /// How often is looked for staged entries.
    pub poll: Duration,
}

impl SequencerOptions {
    pub fn new(holder: String) -> Self {
        Self {
            holder,
            lease: Duration::from_secs(10),
            batch: 512,
            sign_every: Duration::from_millis(1000),
            poll: Duration::from_millis(200),
        }
    }
}

/// Batches of one turn: between turns the lease is renewed and checkpoints are signed.
const BATCHES_OF_A_TURN: u32 = 4;

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Halt(#[from] Halt),
    #[error("{0}")]
    Other(String),
}

impl From<CheckpointFileError> for Fault {
    fn from(e: CheckpointFileError) -> Self {
        match e {
            CheckpointFileError::Busy(_) => Self::Other(e.to_string()),
            e => Halt::File(e.to_string()).into(),
        }
    }
}

impl From<PublishError> for Fault {
    fn from(e: PublishError) -> Self {
        match e {
            PublishError::Checkpoint(e) => e.into(),
            e => Self::Other(e.to_string()),
        }
    }
}

/// What we know while we hold the log. Given up at the first doubt, and read again.
struct Held {
    epoch: i64,
    edge: RightEdge,
    /// What the published checkpoint covers.
    signed: u64,
    signed_at: Option<Instant>,
    /// Published in the store, and not in the folder yet.
    to_folder: Option<SignedHead>,
}

/// Where checkpoints stand outside the database.
#[derive(Clone, Debug)]
pub struct LogFiles {
    /// The highest that was ever signed.
    pub highest: PathBuf,
    /// A folder for checkpoint and tiles.
    pub publish: Option<PathBuf>,
}

pub struct Sequencer<W = Direct> {
    writes: W,
    store: Store,
    now: Now,
    keys: Arc<LogKeyRing>,
    highest: CheckpointFile,
    publisher: Option<Publisher>,
    options: SequencerOptions,
    status: watch::Sender<LogStatus>,
    held: Option<Held>,
}

impl Sequencer {
    pub fn new(store: Store, now: Now, keys: Arc<LogKeyRing>, files: LogFiles, options: SequencerOptions) -> Self {
        Self::with_writes(Direct, store, now, keys, files, options)
    }
}

impl<W: Writes> Sequencer<W> {
    pub fn with_writes(
        writes: W,
        store: Store,
        now: Now,
        keys: Arc<LogKeyRing>,
        files: LogFiles,
        options: SequencerOptions,
    ) -> Self {
        let (status, _) = watch::channel(LogStatus::Starting);
        let highest = CheckpointFile::highest(files.highest);
        let publisher = files.publish.as_deref().map(Publisher::new);
        Self { writes, store, now, keys, highest, publisher, options, status, held: None }
    }

    pub fn status(&self) -> watch::Receiver<LogStatus> {
        self.status.subscribe()
    }

    /// Runs until `drain` is cancelled; what is staged by then is signed, and the log given back.
    pub async fn run(mut self, drain: CancellationToken) {
        while !drain.is_cancelled() {
            let more = self.turn(false).await;
            if more {
                continue;
            }
            tokio::select! {
                () = drain.cancelled() => {}
                () = tokio::time::sleep(self.options.poll) => {}
            }
        }
        self.turn(true).await;
        if self.held.is_some()
            && let Err(error) = self.store.release_log(&self.options.holder).await
        {
            tracing::info!(%error, "the log could not be given back: its lease passes by itself");
        }
    }

    /// One turn, its faults told. Answers whether more is staged.
    pub async fn turn(&mut self, sign_now: bool) -> bool {
        match self.try_turn(sign_now).await {
            Ok(more) => {
                let status = if self.held.is_some() { LogStatus::Writing } else { LogStatus::Elsewhere };
                self.tell(status);
                more
            }
            Err(fault) => {
                // Whether it was written or not: the next turn reads what stands.
                self.held = None;
                match fault {
                    Fault::Halt(halt) => {
                        if *self.status.borrow() != LogStatus::Halted(halt.clone()) {
                            tracing::error!(reason = %halt, "the log is not written any more");
                        }
                        self.tell(LogStatus::Halted(halt));
                    }
                    Fault::Store(StoreError::LeaseLost) => tracing::warn!("another sequencer has taken the log over"),
                    fault => tracing::warn!(%fault, "the log could not be written, trying again"),
                }
                false
            }
        }
    }

    fn tell(&self, status: LogStatus) {
        self.status.send_if_modified(|old| {
            let new = *old != status;
            *old = status;
            new
        });
    }

    async fn try_turn(&mut self, sign_now: bool) -> Result<bool, Fault> {
        let now = (self.now)();
        let until = now.checked_add(self.options.lease).unwrap_or(Timestamp::MAX);
        let Some(epoch) = self.writes.hold(&self.store, &self.options.holder, now, until).await? else {
            self.held = None;
            return Ok(false);
        };
        let log = self.keys.log_keys().map_err(|e| Fault::Other(e.to_string()))?;
        let mut held = match self.held.take().filter(|held| held.epoch == epoch) {
            Some(held) => held,
            None => self.load(epoch, &log).await?,
        };
        let mut more = false;
        for _ in 0..BATCHES_OF_A_TURN {
            more = self.append(&mut held).await?;
            if !more {
                break;
            }
        }
        let rested = held.signed_at.is_none_or(|at| at.elapsed() >= self.options.sign_every);
        if held.edge.head().size > held.signed && (rested || sign_now) {
            self.sign(&mut held, &log).await?;
        }
        self.publish(&mut held, &log).await?;
        self.held = Some(held);
        Ok(more)
    }

    /// Reads where the log stands, and proves it: against its own root, what was published, and what was ever signed.
    async fn load(&mut self, epoch: i64, log: &LogKeys) -> Result<Held, Fault> {
        let state = self.store.log_state().await?;
        let tiles = fetch(&self.store, right_edge_tiles(state.head.size)).await?;
        let edge = RightEdge::load(&state.head, &tiles).map_err(|e| Halt::Altered(e.to_string()))?;
        let in_folder = match &mut self.publisher {
            Some(publisher) => publisher.read(log)?,
            None => None,
        };
        for signed in [self.highest.read(log)?, in_folder].into_iter().flatten() {
            self.extends(&signed.head, &state.head).await?;
        }
        let mut held = Held { epoch, edge, signed: 0, signed_at: None, to_folder: None };
        if let Some(published) = &state.checkpoint {
            let published = SignedHead::read(published.note.as_bytes(), log);
            let published = published.map_err(|e| Halt::Altered(format!("its published checkpoint: {e}")))?;
            self.extends(&published.head, &state.head).await?;
            self.highest.raise(&self.writes, log, &published)?;
            (held.signed, held.to_folder) = (published.head.size, Some(published));
        }
        Ok(held)
    }

    async fn extends(&self, signed: &TreeHead, present: &TreeHead) -> Result<(), Fault> {
        if signed.size > present.size {
            return Err(Halt::Shorter { size: present.size, signed: signed.size }.into());
        }
        let forked = || Halt::Forked { signed: signed.size };
        let tiles = consistency_tiles(signed.size, present.size).map_err(|_| forked())?;
        let tiles = fetch(&self.store, tiles).await?;
        let proof = consistency(&tiles, signed.size, present.size).map_err(|e| Halt::Altered(e.to_string()))?;
        verify_consistency(signed, present, &proof).map_err(|_| forked())?;
        Ok(())
    }

    /// One batch. Answers whether there may be more.
    async fn append(&self, held: &mut Held) -> Result<bool, Fault> {
        let append = self.store.begin_append(held.epoch, self.options.batch).await?;
        if append.head != held.edge.head() {
            return Err(Fault::Other("the log has moved under us".to_owned()));
        }
        if append.staged.is_empty() {
            return Ok(false);
        }
        let leaves: Vec<_> = append.staged.iter().flat_map(|batch| batch.leaves.iter().copied()).collect();
        let more = append.staged.len() == self.options.batch as usize;
        let (edge, tiles) = integrate(&held.edge, &leaves).map_err(|e| Fault::Other(e.to_string()))?;
        self.writes.append(append, &edge.head(), &tiles).await?;
        held.edge = edge;
        Ok(more)
    }

    /// Tiles first, then the highest checkpoint, and only then the published one.
    async fn sign(&mut self, held: &mut Held, log: &LogKeys) -> Result<(), Fault> {
        let head = held.edge.head();
        let other = |e: &dyn std::fmt::Display| Fault::Other(e.to_string());
        if let Some(publisher) = &mut self.publisher {
            publisher.write_tiles(&self.writes, &self.store, head.size).await?;
        }
        let checkpoint = Checkpoint::new(self.keys.origin().as_str(), head).map_err(|e| other(&e))?;
        let note = checkpoint.sign(&self.keys.signers()).map_err(|e| other(&e))?;
        let signed = SignedHead { head, note };
        self.highest.raise(&self.writes, log, &signed)?;
        let checkpoint = LogCheckpoint { size: head.size, note: signed.note.to_string() };
        self.writes.publish(&self.store, held.epoch, &checkpoint).await?;
        (held.signed, held.signed_at, held.to_folder) = (head.size, Some(Instant::now()), Some(signed));
        tracing::debug!(size = head.size, "checkpoint signed");
        Ok(())
    }

    async fn publish(&mut self, held: &mut Held, log: &LogKeys) -> Result<(), Fault> {
        let Some(publisher) = &mut self.publisher else { return Ok(()) };
        if let Some(signed) = &held.to_folder {
            publisher.write_tiles(&self.writes, &self.store, signed.head.size).await?;
            publisher.write_checkpoint(&self.writes, log, signed)?;
            held.to_folder = None;
        }
        Ok(())
    }
}
