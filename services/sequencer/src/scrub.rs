//! Goes through the whole log again and again, slowly: what was altered years ago is found before somebody asks for it.
//!
//! Only the process that writes the log scrubs. How far it is stands in the store, so that a restart or a take-over goes on there.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::SignedDuration;
use quittance_domain::Timestamp;
use quittance_ledger::audit::Portion;
use quittance_store::{ScrubProgress, Store, StoreResult};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{Doubt, LogKeyRing, LogStatus, Now, check_portion, folder_scrub::FolderScrub};

/// A small log is gone through at this pace, and then left alone until its time has come again.
const SLOWEST: Duration = Duration::from_secs(1);
/// How often is noted how far it is: so much is done twice after a crash.
const NOTE_EVERY: Duration = Duration::from_secs(10);

/// So often a portion of the folder is waited for, a second each, while the sequencer writes there. The store's scrub does not stand still for it.
const BUSY_MAX: u32 = 60;

pub struct Scrub {
    store: Store,
    now: Now,
    /// Everything once in this time.
    every: Duration,
    status: watch::Receiver<LogStatus>,
    doubt: Doubt,
    folder: Option<FolderScrub>,
    /// How often the folder was somebody else's in a row.
    busy: u32,
    /// As far as we know; the store may be behind.
    progress: Option<ScrubProgress>,
    noted: Instant,
}

impl Scrub {
    pub fn new(store: Store, now: Now, every: Duration, status: watch::Receiver<LogStatus>, doubt: Doubt) -> Self {
        Self { store, now, every, status, doubt, folder: None, busy: 0, progress: None, noted: Instant::now() }
    }

    /// Holds the folder's tiles against the store's on the way, and writes again what differs and is proven.
    #[must_use]
    pub fn with_folder(mut self, folder: Option<&Path>, keys: &Arc<LogKeyRing>) -> Self {
        self.folder = folder.map(|folder| FolderScrub::new(folder, keys.clone()));
        self
    }

    pub async fn run(mut self, drain: CancellationToken) {
        loop {
            let begun = Instant::now();
            let pause = match self.step().await {
                // What a step takes is part of its time.
                Ok(pause) => pause.saturating_sub(begun.elapsed()),
                Err(error) => {
                    tracing::info!(%error, "the log could not be scrubbed, trying again");
                    self.progress = None;
                    SLOWEST
                }
            };
            tokio::select! {
                () = drain.cancelled() => break,
                () = sleep(pause) => {}
            }
        }
        if let Some(progress) = self.progress
            && let Err(error) = self.store.note_scrub(&progress).await
        {
            tracing::info!(%error, "how far the scrub is could not be noted: it begins a little earlier");
        }
    }

    /// Looks at one portion. Answers how long to rest then.
    async fn step(&mut self) -> StoreResult<Duration> {
        if *self.status.borrow() != LogStatus::Writing {
            self.progress = None;
            return Ok(SLOWEST);
        }
        let now = (self.now)();
        let size = self.store.log_state().await?.head.size;
        let progress = match self.progress {
            Some(progress) => progress,
            None => self.store.scrub_progress().await?,
        };
        let begun_at = progress.begun_at.unwrap_or(now);
        let Some(portion) = Portion::of(progress.next, size) else { return self.end_round(begun_at, now).await };
        let here = ScrubProgress { next: portion.places().start, begun_at: Some(begun_at) };
        if let Some(damage) = check_portion(&self.store, portion).await? {
            tracing::error!(%damage, "the scrub found the log altered");
            // It stands still here: the sequencer looks at the same place, and goes on when it is whole again.
            self.store.note_scrub(&here).await?;
            self.doubt.raise();
            self.progress = None;
            return Ok(SLOWEST);
        }
        if !self.look_at_folder(here.next).await {
            self.busy += 1;
            if self.busy < BUSY_MAX {
                self.progress = Some(here);
                return Ok(SLOWEST);
            }
            tracing::warn!(entry = here.next, "somebody else holds the published folder: the scrub goes on without it");
        }
        self.busy = 0;
        let next = ScrubProgress { next: portion.places().end, ..here };
        if self.noted.elapsed() >= NOTE_EVERY {
            self.store.note_scrub(&next).await?;
            self.noted = Instant::now();
        }
        self.progress = Some(next);
        let portions = u32::try_from(Portion::count(size)).unwrap_or(u32::MAX).saturating_add(1);
        Ok(SLOWEST.min(self.every / portions))
    }

    /// A folder that cannot be read or written holds nothing up: it is looked at again in the next round. Answers whether it was looked
    /// at: while the sequencer writes there, it is not.
    async fn look_at_folder(&self, entry: u64) -> bool {
        let Some(folder) = &self.folder else { return true };
        match folder.portion(&self.store, entry).await {
            Ok(0) => {}
            Err(error) if error.is_busy() => return false,
            Ok(repaired) => tracing::error!(
                monotonic_counter.quittance_published_tiles_repaired = repaired as u64,
                entry,
                "published tiles were damaged, and are written again from the store: look after the disk under ledger.publish"
            ),
            Err(error) => tracing::error!(%error, entry, "published tiles could not be held against the store's"),
        }
        true
    }

    /// All of it was looked at. The next round begins when its time has come.
    async fn end_round(&mut self, begun_at: Timestamp, now: Timestamp) -> StoreResult<Duration> {
        let passed = now.duration_since(begun_at);
        let every = SignedDuration::try_from(self.every).unwrap_or(SignedDuration::MAX);
        if passed < every {
            let left = Duration::try_from(every - passed).unwrap_or(SLOWEST);
            return Ok(left.min(SLOWEST));
        }
        if passed > every * 2 {
            let hours = passed.as_hours();
            tracing::warn!(
                hours,
                "the scrub takes more than twice its time: the store is slow, or ledger.scrub_every_s small"
            );
        }
        self.store.note_scrub(&ScrubProgress { next: 0, begun_at: Some(now) }).await?;
        // Root, checkpoints and right edge are the sequencer's to prove.
        self.doubt.raise();
        self.progress = None;
        Ok(Duration::ZERO)
    }
}
