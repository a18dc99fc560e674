//! `BatchCreateRequests`: numbered items in, a durable acknowledgement per chunk out. A chunk is atomic, the stream is not.

use std::sync::Arc;

use quittance_api::v1;
use quittance_store::{Intake, Taken, Topology};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::intake::{Desk, read_item};
use crate::{
    app::App,
    auth::Caller,
    convert::parent,
    error::{ApiError, ApiResult},
    status::{describe, to_status, violations},
};

/// Acknowledgements that a slow reader may leave unread before we stop reading from it.
const ACKNOWLEDGEMENTS_MAX: usize = 4;

pub type BatchStream = tokio_stream::wrappers::ReceiverStream<Result<v1::BatchCreateRequestsResponse, Status>>;

pub fn run(app: Arc<App>, caller: Caller, incoming: Streaming<v1::BatchCreateRequestsRequest>) -> BatchStream {
    let (acks, stream) = mpsc::channel(ACKNOWLEDGEMENTS_MAX);
    tokio::spawn(async move {
        if let Err(error) = serve(&app, &caller, incoming, &acks).await {
            // Nobody there to hear it: the client is gone.
            let _ = acks.send(Err(to_status(error))).await;
        }
    });
    BatchStream::new(stream)
}

async fn serve(
    app: &App,
    caller: &Caller,
    mut incoming: Streaming<v1::BatchCreateRequestsRequest>,
    acks: &mpsc::Sender<Result<v1::BatchCreateRequestsResponse, Status>>,
) -> ApiResult<()> {
    let mut desk: Option<Desk> = None;
    loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = app.drain.cancelled() => {
                return Err(ApiError::Unavailable("the server is stopping: resume with what was not acknowledged".to_owned()));
            }
        };
        // A cut stream: what was acknowledged is durable, the rest was not taken in.
        let Ok(Some(chunk)) = message else { return Ok(()) };
        let named = parent(&chunk.parent, "parent")?;
        let desk = match desk.take() {
            Some(open) if named.as_ref().is_none_or(|named| *named == open.customer) => desk.insert(open),
            Some(_) => return Err(ApiError::field("parent", "one stream is for one customer")),
            None => {
                let customer = caller.customer(named, "parent")?;
                desk.insert(Desk::open(app, customer, caller.principal()).await?)
            }
        };
        if chunk.items.is_empty() {
            continue;
        }
        let ack = take_chunk(app, desk, chunk.items).await?;
        if acks.send(Ok(ack)).await.is_err() {
            return Ok(());
        }
    }
}

async fn take_chunk(app: &App, desk: &Desk, items: Vec<v1::BatchItem>) -> ApiResult<v1::BatchCreateRequestsResponse> {
    if items.len() > app.limits.chunk_items_max {
        return Err(ApiError::field("items", format!("at most {} in a chunk", app.limits.chunk_items_max)));
    }
    // The stream may have begun before the log was halted.
    app.not_halted()?;
    let topology = app.topology.get().await?;
    let mut read = read_chunk(app, desk, &topology, &items);
    if !read.errors.is_empty() {
        // Of a system, perhaps, that another replica has registered a moment ago.
        let present = app.topology.present().await?;
        if present.generation != topology.generation {
            read = read_chunk(app, desk, &present, &items);
        }
    }
    let ReadChunk { intakes, numbers, errors } = read;
    let mut ack = v1::BatchCreateRequestsResponse {
        last_number: items.last().map_or(0, |i| i.number),
        errors,
        ..v1::BatchCreateRequestsResponse::default()
    };
    let taken = desk.take(app, &intakes).await?;
    for (number, taken) in numbers.into_iter().zip(taken) {
        match taken {
            Ok(Taken::Created(id)) => {
                ack.created += 1;
                ack.names.push(quittance_domain::ids::request_name(&desk.customer, id));
            }
            Ok(Taken::Repeated(id)) => {
                ack.repeated_count += 1;
                ack.names.push(quittance_domain::ids::request_name(&desk.customer, id));
            }
            Err(error) => ack.errors.push(item_error(number, &error.into())),
        }
    }
    ack.errors.sort_by_key(|e| e.number);
    Ok(ack)
}

/// The items that can be taken in, with their numbers, and the others' errors.
#[derive(Default)]
struct ReadChunk {
    intakes: Vec<Intake>,
    numbers: Vec<u64>,
    errors: Vec<v1::BatchItemError>,
}

fn read_chunk(app: &App, desk: &Desk, topology: &Topology, items: &[v1::BatchItem]) -> ReadChunk {
    let mut read = ReadChunk::default();
    for item in items {
        match read_item(app, desk, topology, &item.request_id, item.request.as_ref(), None) {
            Ok(intake) => {
                read.intakes.push(intake);
                read.numbers.push(item.number);
            }
            Err(error) => read.errors.push(item_error(item.number, &error)),
        }
    }
    read
}

fn item_error(number: u64, error: &ApiError) -> v1::BatchItemError {
    let (code, reason, message) = describe(error);
    let field = violations(error).into_iter().next().map(|v| v.field).unwrap_or_default();
    let reason = reason.as_str_name().trim_start_matches("ERROR_REASON_").to_owned();
    v1::BatchItemError { number, code: code.into(), reason, field, message }
}
