//! The loop: hold the log, append what is staged, sign what was appended.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use quittance_domain::Timestamp;
use quittance_ledger::{
    audit::{Damage, Portion},
    checkpoint::{LogKeys, SignedHead},
    integrate::{RightEdge, integrate},
    tree::TreeHead,
};
use quittance_store::{LogCheckpoint, Store, StoreError, StoreResult};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    CheckpointFile, CheckpointFileError, Direct, EntryIndex, EntryIndexError, Halt, LogKeyRing, LogStatus, Publisher,
    Writes, begins_with, check_portion,
    publisher::PublishError,
    right_edge,
    witnesses::{Round, Witnesses},
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
            batch: 64,
            sign_every: Duration::from_millis(1000),
            poll: Duration::from_millis(200),
        }
    }
}

const HALTED_REST: Duration = Duration::from_secs(1);

/// Witnesses that have not signed are asked again, at first and at last after so long.
const ASK_AFTER_LEAST: Duration = Duration::from_secs(1);
const ASK_AFTER_MOST: Duration = Duration::from_secs(60);

/// Entries whose ids are read at once, and in one turn: an index that is begun on a long log does not keep the lease waiting.
const INDEX_PAGE: u64 = 1 << 13;
const INDEX_STEP: u64 = 1 << 18;

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

impl From<EntryIndexError> for Fault {
    fn from(e: EntryIndexError) -> Self {
        Self::Other(e.to_string())
    }
}

fn altered(what: String) -> Halt {
    Halt::Altered(Damage::of_the_whole(what))
}

/// What we know while we hold the log. Given up at the first doubt, and read again.
struct Held {
    epoch: i64,
    edge: RightEdge,
    /// Places below this one are in the index.
    indexed: u64,
    /// The newest checkpoint that is signed.
    newest: Option<Newest>,
    signed_at: Option<Instant>,
    /// Published in the store, and not in the folder yet.
    to_folder: Option<SignedHead>,
    /// The folder is new, and filled beside what else is done. Until it is whole, nothing waits for it.
    filling: bool,
    round: Option<Round>,
    /// Witnesses that did not sign are asked again then, ever less often.
    ask_at: Instant,
    ask_after: Duration,
}

struct Newest {
    /// With the signatures of those witnesses that have answered.
    signed: SignedHead,
    published: bool,
}

/// What is kept of the log outside the database.
#[derive(Clone, Debug)]
pub struct LogFiles {
    /// The highest checkpoint that was ever signed.
    pub highest: PathBuf,
    /// A folder that tells which entry has which place.
    pub index: PathBuf,
    /// A folder for checkpoint and tiles.
    pub publish: Option<PathBuf>,
}

pub struct Sequencer<W = Direct> {
    writes: W,
    store: Store,
    now: Now,
    keys: Arc<LogKeyRing>,
    highest: CheckpointFile,
    index: EntryIndex,
    publisher: Option<Publisher>,
    witnesses: Witnesses,
    options: SequencerOptions,
    status: watch::Sender<LogStatus>,
    doubt: Doubt,
    /// The epoch in which we held the log last.
    epoch: Option<i64>,
    held: Option<Held>,
}

/// Whoever has reason to believe that the log was altered says so: what is remembered is then given up, and proven anew.
#[derive(Clone, Default, Debug)]
pub struct Doubt(Arc<AtomicBool>);

impl Doubt {
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
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
        let index = EntryIndex::new(files.index);
        let publisher = files.publish.as_deref().map(Publisher::new);
        let witnesses = Witnesses::default();
        Self {
            writes,
            store,
            now,
            keys,
            highest,
            index,
            publisher,
            witnesses,
            options,
            status,
            doubt: Doubt::default(),
            epoch: None,
            held: None,
        }
    }

    /// Whose signatures are asked for, and perhaps required.
    #[must_use]
    pub fn witnessed_by(mut self, witnesses: Witnesses) -> Self {
        self.witnesses = witnesses;
        self
    }

    pub fn status(&self) -> watch::Receiver<LogStatus> {
        self.status.subscribe()
    }

    pub fn doubt(&self) -> Doubt {
        self.doubt.clone()
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
                () = tokio::time::sleep(self.rest()) => {}
            }
        }
        self.turn(true).await;
        if self.held.is_some()
            && let Err(error) = self.writes.release(&self.store, &self.options.holder).await
        {
            tracing::info!(%error, "the log could not be given back: its lease passes by itself");
        }
    }

    /// What a person must repair is not looked at five times a second.
    fn rest(&self) -> Duration {
        let halted = matches!(*self.status.borrow(), LogStatus::Halted(_));
        if halted { self.options.poll.max(HALTED_REST) } else { self.options.poll }
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
                        if let Err(error) = self.halt(&halt).await {
                            tracing::warn!(%error, "the other replicas could not be told that the log is halted");
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

    /// Every replica gets to know, and whoever can do better may have the log.
    async fn halt(&self, halt: &Halt) -> StoreResult<()> {
        if let Some(epoch) = self.epoch {
            self.writes.halt(&self.store, epoch, Some(&halt.to_string())).await?;
        }
        self.writes.release(&self.store, &self.options.holder).await
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
        self.epoch = Some(epoch);
        if self.doubt.take() {
            self.held = None;
        }
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
        self.hear_witnesses(&mut held, &log).await?;
        let rested = held.signed_at.is_none_or(|at| at.elapsed() >= self.options.sign_every);
        if (rested || sign_now) && self.has_news(&held) {
            // What no index tells of is not signed.
            if self.write_index(&mut held).await? {
                self.sign(&mut held, &log).await?;
            } else {
                more = true;
            }
        }
        self.ask_witnesses(&mut held, &log)?;
        self.write_folder(&mut held, &log).await?;
        self.held = Some(held);
        Ok(more)
    }

    /// Reads where the log stands, and proves it: against its own root, what was published, and what was ever signed.
    async fn load(&mut self, epoch: i64, log: &LogKeys) -> Result<Held, Fault> {
        // Before the store: whoever has the log by now, if we stood still, may sign more than the store had when we looked.
        let outside = self.outside(log)?;
        let state = self.store.log_state().await?;
        let edge = right_edge(&self.store, &state.head).await?.map_err(Halt::Altered)?;
        // Where the scrub stands still, it has found something.
        let scrubbed = self.store.scrub_progress().await?.next;
        if let Some(portion) = Portion::of(scrubbed, state.head.size)
            && let Some(damage) = check_portion(&self.store, portion).await?
        {
            return Err(Halt::Altered(damage).into());
        }
        for signed in outside.iter().flatten() {
            self.extends(&signed.head, &state.head).await?;
        }
        if outside.iter().all(Option::is_none) {
            // And for this one after the store.
            if self.outside(log)?.iter().any(Option::is_some) {
                return Err(Fault::Other("the log has begun meanwhile".to_owned()));
            }
            if state.head.size > 0 || state.checkpoint.is_some() {
                return Err(Halt::NothingOutside { size: state.head.size }.into());
            }
        }
        if state.checkpoint.is_none() && state.head.size == 0 {
            // From the first entry on there is something outside: where it is missing then, it was lost. A key that was added signs it, too.
            self.highest.raise(&self.writes, log, &self.sign_head(TreeHead::empty())?)?;
        }
        let mut held = Held {
            epoch,
            edge,
            indexed: self.index.resume(outside.iter().flatten().map(|signed| signed.head.size).max().unwrap_or(0))?,
            newest: None,
            signed_at: None,
            to_folder: None,
            filling: false,
            round: None,
            ask_at: Instant::now(),
            ask_after: ASK_AFTER_LEAST,
        };
        if let Some(published) = &state.checkpoint {
            let published = SignedHead::read(published.note.as_bytes(), log);
            let published = published.map_err(|e| altered(format!("its published checkpoint: {e}")))?;
            self.extends(&published.head, &state.head).await?;
            self.highest.raise(&self.writes, log, &published)?;
            held.filling = self.publisher.as_ref().is_some_and(|folder| folder.is_far_behind(published.head.size));
            held.to_folder = Some(published.clone());
            held.newest = Some(Newest { signed: published, published: true });
        }
        if self.store.log_halted().await?.is_some() {
            tracing::info!("the log is whole again, and is written on");
            self.writes.halt(&self.store, epoch, None).await?;
        }
        Ok(held)
    }

    /// The checkpoints outside the database.
    fn outside(&mut self, log: &LogKeys) -> Result<[Option<SignedHead>; 2], Fault> {
        let in_folder = match &mut self.publisher {
            Some(publisher) => publisher.read(log)?,
            None => None,
        };
        Ok([self.highest.read(log)?, in_folder])
    }

    fn sign_head(&self, head: TreeHead) -> Result<SignedHead, Fault> {
        self.keys.sign(head).map_err(|e| Fault::Other(e.to_string()))
    }

    async fn extends(&self, signed: &TreeHead, present: &TreeHead) -> Result<(), Fault> {
        begins_with(&self.store, signed, present).await?.map_or(Ok(()), |halt| Err(halt.into()))
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

    /// Whether there is something to sign. While the newest checkpoint still waits for its witnesses, there is not.
    fn has_news(&self, held: &Held) -> bool {
        match &held.newest {
            None => held.edge.head().size > 0,
            // A key that was added signs what stands, so that the others can go.
            Some(newest) if held.edge.head().size <= newest.signed.head.size => {
                newest.published && !self.keys.have_all_signed(&newest.signed.note)
            }
            Some(newest) => newest.published || (held.round.is_none() && held.ask_at <= Instant::now()),
        }
    }

    /// Which entry has which place, outside the database. Answers whether that is known of all of them.
    async fn write_index(&self, held: &mut Held) -> Result<bool, Fault> {
        let size = held.edge.head().size;
        let until = size.min(held.indexed.saturating_add(INDEX_STEP));
        while held.indexed < until {
            let end = until.min(held.indexed.saturating_add(INDEX_PAGE));
            let entries = self.store.placed_ids(held.indexed..end).await?;
            let (index, writes) = (self.index.clone(), self.writes.clone());
            // On disk when it answers: not on the threads that serve.
            let written = tokio::task::spawn_blocking(move || index.append(&writes, &entries)).await;
            written.map_err(|e| Fault::Other(e.to_string()))??;
            held.indexed = end;
        }
        Ok(until == size)
    }

    /// Tiles first, then the highest checkpoint, and only then the published one.
    async fn sign(&mut self, held: &mut Held, log: &LogKeys) -> Result<(), Fault> {
        let head = held.edge.head();
        if let Some(publisher) = self.publisher.as_mut().filter(|_| !held.filling) {
            publisher.write_tiles(&self.writes, &self.store, head.size).await?;
        }
        let signed = match held.newest.as_ref().filter(|newest| newest.signed.head == head) {
            // With what the witnesses have signed.
            Some(newest) => self.keys.sign_again(&newest.signed.note).map_err(|e| Fault::Other(e.to_string()))?,
            None => self.sign_head(head)?,
        };
        let cosigned = self.witnesses.signed(&signed, log).map_err(|e| Fault::Other(e.to_string()))?;
        self.highest.raise(&self.writes, log, &signed)?;
        held.signed_at = Some(Instant::now());
        tracing::debug!(size = head.size, "checkpoint signed");
        let newest = held.newest.insert(Newest { signed, published: false });
        if cosigned >= self.witnesses.required() {
            self.writes.publish(&self.store, held.epoch, &row_of(&newest.signed), cosigned).await?;
            newest.published = true;
            held.to_folder = Some(newest.signed.clone());
        } else {
            // Who has not signed the last one, which had enough, is not waited for.
            (held.round, held.ask_at) = (None, Instant::now());
        }
        Ok(())
    }

    /// Adds what witnesses have signed meanwhile. With as many as are required, the checkpoint is published; what comes later is added.
    async fn hear_witnesses(&self, held: &mut Held, log: &LogKeys) -> Result<(), Fault> {
        let (Some(round), Some(newest)) = (&mut held.round, &mut held.newest) else { return Ok(()) };
        let came = round.take().map_err(|e| Fault::Other(e.to_string()))?;
        let about = round.about.clone();
        if !came.is_empty() {
            // Somebody is there.
            held.ask_after = ASK_AFTER_LEAST;
        }
        if round.is_over() {
            held.round = None;
            held.ask_at = Instant::now() + held.ask_after;
            held.ask_after = (held.ask_after * 2).min(ASK_AFTER_MOST);
        }
        if came.is_empty() {
            return Ok(());
        }
        if about.head != newest.signed.head {
            // It was published before they had answered, and tells the time of what it covers.
            let signed = self.witnesses.signed(&about, log).map_err(|e| Fault::Other(e.to_string()))?;
            return Ok(self.writes.keep(&self.store, held.epoch, &row_of(&about), signed).await?);
        }
        for signature in came {
            newest.signed.note.add(signature).map_err(|e| Fault::Other(e.to_string()))?;
        }
        let signed = self.witnesses.signed(&newest.signed, log).map_err(|e| Fault::Other(e.to_string()))?;
        let (required, size) = (self.witnesses.required(), newest.signed.head.size);
        if signed < required {
            tracing::info!(size, signed, required, "the checkpoint waits for its witnesses");
            return Ok(());
        }
        self.writes.publish(&self.store, held.epoch, &row_of(&newest.signed), signed).await?;
        newest.published = true;
        held.to_folder = Some(newest.signed.clone());
        Ok(())
    }

    /// One round of questions at a time, about the newest checkpoint.
    fn ask_witnesses(&self, held: &mut Held, log: &LogKeys) -> Result<(), Fault> {
        let Some(newest) = &held.newest else { return Ok(()) };
        if self.witnesses.keys().is_empty() || held.round.is_some() || held.ask_at > Instant::now() {
            return Ok(());
        }
        held.round = self.witnesses.ask(&self.store, &newest.signed, log).map_err(|e| Fault::Other(e.to_string()))?;
        Ok(())
    }

    async fn write_folder(&mut self, held: &mut Held, log: &LogKeys) -> Result<(), Fault> {
        let Some(publisher) = &mut self.publisher else { return Ok(()) };
        if let Some(signed) = &held.to_folder {
            if held.filling && !publisher.fill(&self.writes, &self.store, signed.head.size).await? {
                return Ok(());
            }
            held.filling = false;
            publisher.write_tiles(&self.writes, &self.store, signed.head.size).await?;
            publisher.write_checkpoint(&self.writes, log, signed)?;
            held.to_folder = None;
        }
        Ok(())
    }
}

fn row_of(signed: &SignedHead) -> LogCheckpoint {
    LogCheckpoint { size: signed.head.size, note: signed.note.to_string() }
}
