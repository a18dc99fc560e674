//! Takes a great many requests in.
//!
//! Chunks go out over `BatchCreateRequests`, a bounded number of them unacknowledged at a time, so that memory stays flat however long
//! the row is. After a cut, the chunks that were not acknowledged are sent again on a new stream with the same `request_id`s: what had
//! been taken in is then counted as `repeated`, and nothing is taken in twice (I2).

use std::{collections::VecDeque, time::Duration};

use futures::{Stream, StreamExt as _};
use prost::Message as _;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    Backoff, Client, ClientError,
    api::{BatchCreateRequestsRequest, BatchCreateRequestsResponse, BatchItem, BatchItemError},
};

/// The contract's bound.
const CHUNK_ITEMS_MAX: usize = 1_000;
/// Keeps a chunk of large items well below the 4 MiB at which gRPC servers refuse a message unless told otherwise.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// How to send.
#[derive(Debug, Clone)]
pub struct BulkOptions {
    /// Items in a chunk, which is acknowledged as one. 1 to 1,000.
    pub chunk_size: usize,
    /// Chunks that may be unacknowledged. Bounds memory.
    pub chunks_in_flight: usize,
    /// Errors of single items to keep; all are counted.
    pub errors_kept: usize,
    /// Streams to try in a row without a single acknowledgement, before giving up.
    pub attempts: u32,
    /// How long the oldest chunk may wait for its acknowledgement before the stream counts as cut.
    pub acknowledge_within: Duration,
}

impl Default for BulkOptions {
    fn default() -> Self {
        Self {
            chunk_size: 500,
            chunks_in_flight: 8,
            errors_kept: 1_000,
            attempts: 8,
            acknowledge_within: Duration::from_secs(120),
        }
    }
}

/// What came of it so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BulkReport {
    /// Durable: taken in now.
    pub created: u64,
    /// Durable: known from before.
    pub repeated: u64,
    /// Refused, each for a reason of its own.
    pub failed: u64,
    /// Why; at most `errors_kept` of them.
    pub errors: Vec<BatchItemError>,
    /// Streams that were cut.
    pub cuts: u32,
}

impl BulkReport {
    /// Items that the service has answered.
    pub fn answered(&self) -> u64 {
        self.created + self.repeated + self.failed
    }
}

/// It ended before all items were answered. What was acknowledged is durable; sending all of it again is safe.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct BulkError {
    #[source]
    pub error: ClientError,
    pub report: BulkReport,
}

struct Chunk {
    items: Vec<BatchItem>,
    last_number: u64,
}

/// The row of items, cut into chunks. Kept outside of any stream, so that a cut loses nothing.
struct Source<S> {
    items: S,
    next: Vec<BatchItem>,
    bytes: usize,
    last_number: u64,
    ended: bool,
}

impl<S: Stream<Item = BatchItem> + Unpin> Source<S> {
    /// May be dropped and called again at any time: a chunk that was begun is kept.
    async fn chunk(&mut self, size: usize) -> Result<Option<Chunk>, ClientError> {
        while !self.ended && self.next.len() < size && self.bytes < CHUNK_BYTES_MAX {
            match self.items.next().await {
                None => self.ended = true,
                Some(item) if item.number <= self.last_number => {
                    return Err(ClientError::Contract(format!(
                        "item {} comes after item {}: numbers must rise, beginning with 1",
                        item.number, self.last_number
                    )));
                }
                Some(item) => {
                    self.last_number = item.number;
                    self.bytes += item.encoded_len();
                    self.next.push(item);
                }
            }
        }
        let items = std::mem::take(&mut self.next);
        self.bytes = 0;
        Ok(items.last().map(|item| item.number).map(|last_number| Chunk { items, last_number }))
    }
}

/// Creates a request for every item. `parent` is `customers/{customer}`, or empty where the token is a customer's. Item numbers must
/// rise. `on_chunk` sees every acknowledgement with the report so far, for progress and for the names.
pub async fn create_requests<S, P>(
    client: &Client,
    parent: &str,
    items: S,
    options: &BulkOptions,
    mut on_chunk: P,
) -> Result<BulkReport, BulkError>
where
    S: Stream<Item = BatchItem> + Unpin,
    P: FnMut(&BatchCreateRequestsResponse, &BulkReport),
{
    let mut run = Run {
        client,
        parent,
        size: options.chunk_size.clamp(1, CHUNK_ITEMS_MAX),
        in_flight: options.chunks_in_flight.max(1),
        options,
        source: Source { items, next: Vec::new(), bytes: 0, last_number: 0, ended: false },
        pending: VecDeque::new(),
        report: BulkReport::default(),
    };
    let mut backoff = Backoff::default();
    loop {
        let answered = run.report.answered();
        let error = match run.stream(&mut on_chunk).await {
            Ok(()) => return Ok(run.report),
            Err(error) => error,
        };
        if run.report.answered() > answered {
            backoff.reset();
        }
        if !error.is_retryable() || backoff.tries() + 1 >= options.attempts {
            return Err(BulkError { error, report: run.report });
        }
        run.report.cuts += 1;
        tracing::warn!(
            error = error.brief(),
            chunks_unacknowledged = run.pending.len(),
            "the stream was cut; sending the rest on a new one"
        );
        tokio::time::sleep(backoff.next_wait(error.retry_delay())).await;
    }
}

struct Run<'a, S> {
    client: &'a Client,
    parent: &'a str,
    size: usize,
    in_flight: usize,
    options: &'a BulkOptions,
    source: Source<S>,
    /// Sent or to be sent, and not acknowledged.
    pending: VecDeque<Chunk>,
    report: BulkReport,
}

impl<S: Stream<Item = BatchItem> + Unpin> Run<'_, S> {
    /// One stream, until everything is acknowledged or it is cut.
    async fn stream<P>(&mut self, on_chunk: &mut P) -> Result<(), ClientError>
    where
        P: FnMut(&BatchCreateRequestsResponse, &BulkReport),
    {
        // Room for all that may be in flight and the opening message: sending never waits, so acknowledgements are always read.
        let (sender, receiver) = mpsc::channel(self.in_flight + 1);
        let mut sender = Some(sender);
        let opening = BatchCreateRequestsRequest { parent: self.parent.to_owned(), items: Vec::new() };
        post(&mut sender, opening);
        for chunk in &self.pending {
            post(&mut sender, BatchCreateRequestsRequest { parent: String::new(), items: chunk.items.clone() });
        }
        let mut service = self.client.requests();
        let opened =
            timeout(self.options.acknowledge_within, service.batch_create_requests(ReceiverStream::new(receiver)));
        let mut answers: Streaming<BatchCreateRequestsResponse> = opened.await.map_err(|_| silent())??.into_inner();
        loop {
            if self.source.ended && self.source.next.is_empty() {
                // Half-closed: the service answers what it has and ends the stream.
                sender = None;
                if self.pending.is_empty() {
                    return Ok(());
                }
            }
            let may_send = sender.is_some() && self.pending.len() < self.in_flight;
            tokio::select! {
                answer = timeout(self.options.acknowledge_within, answers.message()), if !self.pending.is_empty() || !may_send => {
                    match answer.map_err(|_| silent())?? {
                        Some(answer) => self.acknowledged(&answer, on_chunk)?,
                        None => return Err(tonic::Status::unavailable("the service ended the stream early").into()),
                    }
                }
                chunk = self.source.chunk(self.size), if may_send => {
                    if let Some(chunk) = chunk? {
                        post(&mut sender, BatchCreateRequestsRequest { parent: String::new(), items: chunk.items.clone() });
                        self.pending.push_back(chunk);
                    }
                }
            }
        }
    }

    fn acknowledged<P>(&mut self, answer: &BatchCreateRequestsResponse, on_chunk: &mut P) -> Result<(), ClientError>
    where
        P: FnMut(&BatchCreateRequestsResponse, &BulkReport),
    {
        // The opening message carries no items; a service may say so.
        if answer.last_number == 0 && answer.errors.is_empty() {
            return Ok(());
        }
        let place = self.pending.iter().position(|chunk| chunk.last_number == answer.last_number);
        let Some(chunk) = place.and_then(|at| self.pending.remove(at)) else {
            return Err(ClientError::Contract(format!(
                "the service acknowledged item {}, which ends no chunk that was sent: check that client and service are of one version",
                answer.last_number
            )));
        };
        let failed = answer.errors.len();
        // An item that is neither taken in nor refused would be lost without a word.
        if answer.created as usize + answer.repeated_count as usize + failed != chunk.items.len() {
            return Err(ClientError::Contract(format!(
                "the service answered fewer or more items than the chunk ending with item {} has: check the service's version",
                chunk.last_number
            )));
        }
        self.report.created += u64::from(answer.created);
        self.report.repeated += u64::from(answer.repeated_count);
        self.report.failed += failed as u64;
        let room = self.options.errors_kept.saturating_sub(self.report.errors.len());
        self.report.errors.extend(answer.errors.iter().take(room).cloned());
        on_chunk(answer, &self.report);
        Ok(())
    }
}

fn post(sender: &mut Option<mpsc::Sender<BatchCreateRequestsRequest>>, message: BatchCreateRequestsRequest) {
    // The channel has room for all that may be in flight, and a closed one means a cut, which the answers' side tells with its cause.
    if let Some(sender) = sender {
        drop(sender.try_send(message));
    }
}

fn silent() -> ClientError {
    tonic::Status::deadline_exceeded("the service acknowledged nothing for too long").into()
}
