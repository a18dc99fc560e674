//! Writes that fail on demand, and that remember every checkpoint they ever saw.

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender},
    },
};

use quittance_domain::Timestamp;
use quittance_ledger::{integrate::TileWrite, tree::TreeHead};
use quittance_sequencer::{Direct, RecoveredPlaces, Writes};
use quittance_sql::{SqlError, SqlErrorKind};
use quittance_store::{LogAppend, LogCheckpoint, Store, StoreError, StoreResult};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Nothing happens.
    Lost,
    /// It happens, and is reported as failed.
    DoneAndReportedFailed,
    /// Half of a file was written.
    Torn,
    /// It happens after everybody else went on.
    LateBefore,
    /// Its answer comes after everybody else went on.
    LateAfter,
}

/// The write that fails.
#[derive(Clone, Debug)]
pub enum Which {
    /// Of all of them.
    Number(usize),
    /// Of those whose name ends so.
    Named(&'static str, usize),
}

#[derive(Default)]
pub struct Seen {
    /// What was written, in order.
    pub writes: Vec<String>,
    /// Every checkpoint that was signed, whether it was lost or not.
    pub signed: BTreeSet<String>,
    fails: Option<(Which, Failure)>,
    failed: bool,
    gate: Option<(Sender<()>, Receiver<()>)>,
}

#[derive(Clone, Default)]
pub struct Faulty(pub Arc<Mutex<Seen>>);

fn broken() -> SqlError {
    let code = "BROKEN".to_owned();
    SqlError { kind: SqlErrorKind::Unavailable, code, table: String::new(), constraint: String::new() }
}

impl Faulty {
    /// The write of this number fails so.
    pub fn fail(at: usize, how: Failure) -> Self {
        Self::failing(Which::Number(at), how)
    }

    pub fn failing(which: Which, how: Failure) -> Self {
        Self(Arc::new(Mutex::new(Seen { fails: Some((which, how)), ..Seen::default() })))
    }

    /// Where a late write says that it waits, and what it waits for.
    pub fn gate(&self, waits: Sender<()>, go: Receiver<()>) {
        self.0.lock().unwrap().gate = Some((waits, go));
    }

    pub fn signed(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().signed.clone()
    }

    pub fn writes(&self) -> Vec<String> {
        self.0.lock().unwrap().writes.clone()
    }

    /// Whether the write that was to fail has come by.
    pub fn has_failed(&self) -> bool {
        self.0.lock().unwrap().failed
    }

    fn next(&self, what: String) -> Option<Failure> {
        let mut seen = self.0.lock().unwrap();
        let is_now = |which: &Which| match which {
            Which::Number(at) => *at == seen.writes.len(),
            Which::Named(name, at) => {
                what.ends_with(name) && seen.writes.iter().filter(|write| write.ends_with(name)).count() == *at
            }
        };
        let how = seen.fails.as_ref().filter(|(which, _)| is_now(which)).map(|(_, how)| *how);
        seen.writes.push(what);
        seen.failed |= how.is_some();
        how
    }

    fn wait(&self) {
        let gate = self.0.lock().unwrap().gate.take();
        if let Some((waits, go)) = gate {
            waits.send(()).unwrap();
            go.recv().unwrap();
        }
    }

    fn disk(
        &self,
        path: &Path,
        write: impl FnOnce() -> io::Result<()>,
        half: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        match self.next(path.display().to_string()) {
            None => write(),
            Some(Failure::Lost) => Err(io::ErrorKind::StorageFull.into()),
            Some(Failure::DoneAndReportedFailed) => {
                write()?;
                Err(io::ErrorKind::TimedOut.into())
            }
            Some(Failure::Torn) => {
                half()?;
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(Failure::LateBefore) => {
                self.wait();
                write()
            }
            Some(Failure::LateAfter) => {
                let done = write();
                self.wait();
                done
            }
        }
    }

    async fn store<T>(&self, what: &str, write: impl Future<Output = StoreResult<T>> + Send) -> StoreResult<T> {
        match self.next(what.to_owned()) {
            None => write.await,
            Some(Failure::Lost | Failure::Torn) => Err(StoreError::Sql(broken())),
            Some(Failure::DoneAndReportedFailed) => {
                write.await?;
                Err(StoreError::Sql(broken()))
            }
            Some(Failure::LateBefore) => {
                self.wait();
                write.await
            }
            Some(Failure::LateAfter) => {
                let done = write.await;
                self.wait();
                done
            }
        }
    }
}

impl Writes for Faulty {
    async fn hold(&self, store: &Store, holder: &str, now: Timestamp, until: Timestamp) -> StoreResult<Option<i64>> {
        self.store("hold", Direct.hold(store, holder, now, until)).await
    }

    async fn append(&self, append: LogAppend, head: &TreeHead, tiles: &[TileWrite]) -> StoreResult<()> {
        self.store("append", Direct.append(append, head, tiles)).await
    }

    async fn publish(&self, store: &Store, epoch: i64, checkpoint: &LogCheckpoint, cosigned: usize) -> StoreResult<()> {
        self.0.lock().unwrap().signed.insert(checkpoint.note.clone());
        self.store("publish", Direct.publish(store, epoch, checkpoint, cosigned)).await
    }

    async fn keep(&self, store: &Store, epoch: i64, checkpoint: &LogCheckpoint, cosigned: usize) -> StoreResult<()> {
        self.0.lock().unwrap().signed.insert(checkpoint.note.clone());
        self.store("keep", Direct.keep(store, epoch, checkpoint, cosigned)).await
    }

    async fn halt(&self, store: &Store, epoch: i64, reason: Option<&str>) -> StoreResult<()> {
        let what = if reason.is_some() { "halt" } else { "go on" };
        self.store(what, Direct.halt(store, epoch, reason)).await
    }

    async fn release(&self, store: &Store, holder: &str) -> StoreResult<()> {
        self.store("release", Direct.release(store, holder)).await
    }

    async fn recover(
        &self,
        append: LogAppend,
        places: RecoveredPlaces<'_>,
        now: Timestamp,
        head: &TreeHead,
        tiles: &[TileWrite],
    ) -> StoreResult<()> {
        self.store("recover", Direct.recover(append, places, now, head, tiles)).await
    }

    fn file(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        if path.ends_with("checkpoint") {
            let size =
                |note: &[u8]| String::from_utf8_lossy(note).lines().nth(1).map(|size| size.parse::<u64>().unwrap());
            assert!(size(bytes) >= fs::read(path).ok().and_then(|note| size(&note)), "{} falls", path.display());
            self.0.lock().unwrap().signed.insert(String::from_utf8(bytes.to_vec()).unwrap());
        }
        let half = || {
            fs::create_dir_all(path.parent().unwrap())?;
            fs::write(path.with_extension("part"), &bytes[..bytes.len() / 2])
        };
        self.disk(path, || Direct.file(path, bytes, mode), half)
    }

    fn extend(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let half = || Direct.extend(path, &bytes[..bytes.len() / 2], mode);
        self.disk(path, || Direct.extend(path, bytes, mode), half)
    }
}
