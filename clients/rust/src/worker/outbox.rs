//! What tasks send by the piece and the service takes by the batch: while one call is under way, the next batch gathers.

use std::{future::Future, time::Duration};

use prost::Message;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Backoff, Client, ClientError,
    api::{ReportOutcomesRequest, SaveMatchSetsRequest, TaskMatchSet, TaskReport},
};

/// Well below the 4 MiB at which gRPC servers refuse a message unless told otherwise: one more piece has at most a good 1 MiB.
const BATCH_BYTES: usize = 2 << 20;
const BATCH_PIECES: usize = 500;

/// A piece that goes out in batches.
pub(super) trait Piece: Message + Clone + 'static {
    fn task(&self) -> Option<&str>;
    /// Answers the tasks whose lease is lost.
    fn send(
        client: &Client,
        system: &str,
        pieces: Vec<Self>,
    ) -> impl Future<Output = Result<Vec<String>, ClientError>> + Send;
}

impl Piece for TaskMatchSet {
    fn task(&self) -> Option<&str> {
        self.lease.as_ref().map(|lease| lease.task.as_str())
    }

    async fn send(client: &Client, system: &str, pieces: Vec<Self>) -> Result<Vec<String>, ClientError> {
        let request = SaveMatchSetsRequest { system: system.to_owned(), match_sets: pieces };
        Ok(client.connectors().save_match_sets(request).await?.into_inner().lost)
    }
}

impl Piece for TaskReport {
    fn task(&self) -> Option<&str> {
        self.lease.as_ref().map(|lease| lease.task.as_str())
    }

    async fn send(client: &Client, system: &str, pieces: Vec<Self>) -> Result<Vec<String>, ClientError> {
        let request = ReportOutcomesRequest { system: system.to_owned(), reports: pieces };
        Ok(client.connectors().report_outcomes(request).await?.into_inner().lost)
    }
}

/// What came of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Posted {
    Kept,
    Lost,
    /// The service was not there, and the worker stops: the lease brings the task back.
    Undelivered,
    /// With the service's reason, and the field's path if it named one.
    Refused(String),
}

type Entry<P> = (P, oneshot::Sender<Posted>);

/// Sends until the service answers, or the task was dropped because its lease is lost.
pub(super) struct Outbox<P>(mpsc::Sender<Entry<P>>);

impl<P: Piece> Outbox<P> {
    /// Ends by itself with the last handle.
    pub(super) fn open(client: Client, system: String, drain: Drain) -> Self {
        let (sender, receiver) = mpsc::channel(BATCH_PIECES);
        tokio::spawn(run(Carrier { client, system, drain, gone: false }, receiver));
        Self(sender)
    }

    pub(super) async fn post(&self, piece: P) -> Posted {
        let (reply, answer) = oneshot::channel();
        if self.0.send((piece, reply)).await.is_err() {
            return Posted::Lost;
        }
        answer.await.unwrap_or(Posted::Lost)
    }
}

/// When to stop trying, and how long to try after that.
#[derive(Clone)]
pub(super) struct Drain {
    pub(super) begun: CancellationToken,
    pub(super) patience: Duration,
}

struct Carrier {
    client: Client,
    system: String,
    drain: Drain,
    /// The service was not there for as long as patience lasts: what comes now is tried once.
    gone: bool,
}

async fn run<P: Piece>(mut carrier: Carrier, mut receiver: mpsc::Receiver<Entry<P>>) {
    let mut gathered = Vec::new();
    while receiver.recv_many(&mut gathered, BATCH_PIECES).await > 0 {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for entry in gathered.drain(..) {
            bytes += entry.0.encoded_len();
            batch.push(entry);
            if bytes >= BATCH_BYTES {
                carrier.deliver(std::mem::take(&mut batch)).await;
                bytes = 0;
            }
        }
        carrier.deliver(batch).await;
    }
}

impl Carrier {
    async fn deliver<P: Piece>(&mut self, mut batch: Vec<Entry<P>>) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        // Since the drain began.
        let mut failing: Option<Instant> = None;
        loop {
            // Nobody waits for the answer any more: the task was dropped.
            batch.retain(|(_, reply)| !reply.is_closed());
            if batch.is_empty() {
                return;
            }
            let pieces = batch.iter().map(|(piece, _)| piece.clone()).collect();
            let sent = tokio::select! {
                sent = P::send(&self.client, &self.system, pieces) => sent,
                () = self.given_up(failing) => return undelivered(batch),
            };
            let error = match sent {
                Ok(lost) => {
                    for (piece, reply) in batch {
                        let is_lost = piece.task().is_some_and(|task| lost.iter().any(|l| l == task));
                        // Fails only where nobody waits.
                        let _ = reply.send(if is_lost { Posted::Lost } else { Posted::Kept });
                    }
                    return;
                }
                Err(error) => error,
            };
            if error.is_retryable() {
                let wait = backoff.next_wait(error.retry_delay());
                tracing::warn!(
                    error = error.brief(),
                    tasks = batch.len(),
                    wait_ms = wait.as_millis(),
                    "not delivered yet; trying again"
                );
                if self.drain.begun.is_cancelled() {
                    let since = *failing.get_or_insert_with(Instant::now);
                    self.gone |= since.elapsed() >= self.drain.patience;
                    if self.gone {
                        return undelivered(batch);
                    }
                    sleep(wait.min(self.drain.patience.saturating_sub(since.elapsed()))).await;
                } else {
                    // A pause that began before the drain does not outlast it.
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = self.drain.begun.cancelled() => {}
                    }
                }
            } else if batch.len() > 1 {
                // One piece spoils the batch: each stands for itself.
                for entry in batch {
                    Box::pin(self.deliver(vec![entry])).await;
                }
                return;
            } else {
                let answer = match &error {
                    ClientError::Rpc(rpc) if rpc.reason.as_deref() == Some("LEASE_LOST") => Posted::Lost,
                    ClientError::Rpc(rpc) => {
                        let reason = rpc.reason.clone().unwrap_or_else(|| format!("{:?}", rpc.code));
                        let field = error.refused_field().map(|field| format!(" at {field}"));
                        Posted::Refused(reason + &field.unwrap_or_default())
                    }
                    other => Posted::Refused(other.to_string()),
                };
                for (_, reply) in batch {
                    let _ = reply.send(answer.clone());
                }
                return;
            }
        }
    }

    /// A call that hangs ends with patience, too.
    async fn given_up(&self, failing: Option<Instant>) {
        self.drain.begun.cancelled().await;
        let waited = failing.map_or(Duration::ZERO, |since| since.elapsed());
        sleep(self.drain.patience.saturating_sub(waited)).await;
    }
}

fn undelivered<P>(batch: Vec<Entry<P>>) {
    tracing::warn!(tasks = batch.len(), "the service is not there, and the worker stops: not delivered");
    for (_, reply) in batch {
        // Fails only where nobody waits.
        let _ = reply.send(Posted::Undelivered);
    }
}
