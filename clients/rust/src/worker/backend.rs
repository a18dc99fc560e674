//! What a system's side must say for itself.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;

use crate::api::{
    HeldKey, HeldKeys, Identifier, LeasedTask, PackageRecord, TaskDone, UploadHeldKeysRequest, UploadRecordsRequest,
    upload_held_keys_request, upload_records_request,
};

/// Why a task could not be done. The reason goes to the service: no personal data (I10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendError {
    /// Not now. The service tries again later.
    Retry(String),
    /// Not without a person.
    NeedsAttention(String),
}

/// What a system says after it was changed.
#[derive(Debug, Clone, PartialEq)]
pub enum ReadBack {
    /// Seen with own eyes, or a vendor's receipt: outcomes for every collection that held something, or one `NOT_HELD`.
    Done(TaskDone),
    /// Instructed; the system answers later. The task comes back with its match set: `find`, `act` and `read_back` run again then.
    Awaiting { check_after: Duration, reference: String },
}

/// One system. Everything may run twice: after a crash, after a lost lease.
pub trait Backend: Send + Sync + 'static {
    /// Looks for what belongs to the subject and changes nothing. `task.match_set` is what an earlier attempt found, empty on the first;
    /// the result must hold all of that as well, for the earlier attempt may have erased some of it already. At most 1 MiB.
    fn find(&self, task: &LeasedTask) -> impl Future<Output = Result<Vec<u8>, BackendError>> + Send;

    /// Does what the task's action says to what was found. Not called for `ACTION_ACCESS`.
    fn act(&self, task: &LeasedTask, match_set: &[u8]) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// For `ACTION_ACCESS`: hands over a record for everything that was found.
    fn records(
        &self,
        task: &LeasedTask,
        match_set: &[u8],
        sink: RecordSink,
    ) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Looks again, by the match set and by the identifiers, and states what is so now. `records` is how many the service keeps, with
    /// `ACTION_ACCESS`.
    fn read_back(
        &self,
        task: &LeasedTask,
        match_set: &[u8],
        records: u64,
    ) -> impl Future<Output = Result<ReadBack, BackendError>> + Send;

    /// Other identifiers of the subject that this system knows. Changes nothing. None, unless written.
    fn resolve(&self, task: &LeasedTask) -> impl Future<Output = Result<Vec<Identifier>, BackendError>> + Send {
        let _ = task;
        async { Ok(Vec::new()) }
    }

    /// Whether [`Backend::held_keys`] is written: else a replay of this system waits for a worker that can.
    fn can_tell_held_keys(&self) -> bool {
        false
    }

    /// Hands over every identifier by which something would be found here, with the customer's key, after the system was restored from a
    /// backup. Changes nothing. A key may come twice. One that is left out is not erased again: rather fail than guess.
    fn held_keys(&self, sink: &mut KeySink) -> impl Future<Output = Result<(), BackendError>> + Send {
        let _ = sink;
        async { Err(BackendError::NeedsAttention("this worker cannot say what its system holds".to_owned())) }
    }
}

/// Keys of one message.
const KEYS_MAX: usize = 500;

/// Takes held keys and sends them on as they come; waits when the service is slower.
pub struct KeySink {
    sender: mpsc::Sender<UploadHeldKeysRequest>,
    sent: u64,
    waiting: Vec<HeldKey>,
}

impl KeySink {
    pub(super) const fn new(sender: mpsc::Sender<UploadHeldKeysRequest>) -> Self {
        Self { sender, sent: 0, waiting: Vec::new() }
    }

    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    /// `customer_key`: as tasks of the customer have it.
    pub async fn send(&mut self, customer_key: &str, identifier: Identifier) -> Result<(), BackendError> {
        self.waiting.push(HeldKey { identifier: Some(identifier), customer_key: customer_key.to_owned() });
        if self.waiting.len() < KEYS_MAX { Ok(()) } else { self.flush().await }
    }

    /// What waits goes out.
    pub(super) async fn flush(&mut self) -> Result<(), BackendError> {
        let keys = std::mem::take(&mut self.waiting);
        let count = keys.len() as u64;
        let part = Some(upload_held_keys_request::Part::Keys(HeldKeys { keys }));
        let sent = self.sender.send(UploadHeldKeysRequest { part }).await;
        sent.map_err(|_| BackendError::Retry("the upload of the keys was cut".to_owned()))?;
        self.sent += count;
        Ok(())
    }
}

/// Takes records and sends them on as they come; waits when the service is slower.
pub struct RecordSink {
    pub(super) sender: mpsc::Sender<UploadRecordsRequest>,
    pub(super) sent: Arc<AtomicU64>,
}

impl RecordSink {
    pub async fn send(&self, record: PackageRecord) -> Result<(), BackendError> {
        let part = Some(upload_records_request::Part::Record(record));
        let sent = self.sender.send(UploadRecordsRequest { part }).await;
        sent.map_err(|_| BackendError::Retry("the upload of the records was cut".to_owned()))?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
