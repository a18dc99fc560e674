//! `BatchCreateRequests`: numbered items in, a durable acknowledgement per chunk out. A chunk is atomic, the stream is not.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use futures::{StreamExt as _, stream::FuturesOrdered};
use quittance_api::v1;
use quittance_store::{Intake, Taken};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::intake::{Desk, Rules, read_item};
use crate::{
    app::App,
    auth::Caller,
    convert::parent,
    error::{ApiError, ApiResult},
    status::{describe, to_status, violations},
};

/// Acknowledgements that a slow reader may leave unread before we stop reading from it.
const ACKNOWLEDGEMENTS_MAX: usize = 4;
/// Chunks of one stream that are taken in at once: the next one is sealed and written while the one before it becomes durable. More would
/// keep connections to the store from others.
const CHUNKS_AT_ONCE: usize = 2;

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
    app: &Arc<App>,
    caller: &Caller,
    mut incoming: Streaming<v1::BatchCreateRequestsRequest>,
    acks: &mpsc::Sender<Result<v1::BatchCreateRequestsResponse, Status>>,
) -> ApiResult<()> {
    let hasher = RandomState::new();
    let mut desk: Option<Arc<Desk>> = None;
    // Tasks of their own: a transaction that has begun does not wait for whoever is slow to read acknowledgements.
    let mut under_way = FuturesOrdered::new();
    let mut names: VecDeque<Names> = VecDeque::new();
    let mut next: Option<(ReadChunk, Names)> = None;
    let mut ended = false;
    loop {
        let draining = app.drain.is_cancelled();
        if let Some((chunk, whom)) = next.take_if(|(_, whom)| !draining && may_begin(&names, whom)) {
            names.push_back(whom);
            under_way.push_back(tokio::spawn(take_chunk(app.clone(), chunk)));
        }
        if under_way.is_empty() {
            if draining {
                let message = "the server is stopping: resume with what was not acknowledged";
                return Err(ApiError::Unavailable(message.to_owned()));
            }
            if ended {
                return Ok(());
            }
        }
        tokio::select! {
            // In the stream's order, whichever is done first.
            Some(taken) = under_way.next() => {
                names.pop_front();
                let ack = taken.map_err(|_| ApiError::Internal("a chunk's task has ended without a result".to_owned()))??;
                if acks.send(Ok(ack)).await.is_err() {
                    return Ok(());
                }
            }
            message = incoming.message(), if next.is_none() && !ended && !draining => {
                match message {
                    Ok(Some(chunk)) => next = read_chunk(app, caller, &hasher, &mut desk, chunk).await?,
                    // A cut stream: what was acknowledged is durable, the rest may have been taken in.
                    Ok(None) | Err(_) => ended = true,
                }
            }
            () = app.drain.cancelled(), if !draining => {}
        }
    }
}

/// One person's instructions keep the stream's order, and a repeated `request_id` finds the first one: what shares neither with those under
/// way may begin beside them.
fn may_begin(under_way: &VecDeque<Names>, next: &Names) -> bool {
    under_way.len() < CHUNKS_AT_ONCE && under_way.iter().all(|names| names.is_disjoint(next))
}

async fn read_chunk(
    app: &App,
    caller: &Caller,
    hasher: &RandomState,
    desk: &mut Option<Arc<Desk>>,
    chunk: v1::BatchCreateRequestsRequest,
) -> ApiResult<Option<(ReadChunk, Names)>> {
    let named = parent(&chunk.parent, "parent")?;
    let desk = match desk {
        Some(open) if named.as_ref().is_none_or(|named| *named == open.customer) => &*open,
        Some(_) => return Err(ApiError::field("parent", "one stream is for one customer")),
        None => {
            let customer = caller.customer(named, "parent")?;
            // Of a customer that is not there, or has no agreement in force, it is said at once.
            app.known_agreement(&customer).await?;
            &*desk.insert(Arc::new(Desk { customer, by: caller.principal() }))
        }
    };
    if chunk.items.is_empty() {
        return Ok(None);
    }
    if chunk.items.len() > app.limits.chunk_items_max {
        return Err(ApiError::field("items", format!("at most {} in a chunk", app.limits.chunk_items_max)));
    }
    // The stream may have begun before the log was halted.
    app.not_halted()?;
    let mut read = ReadChunk::of(app, desk, Rules::known(app, &desk.customer).await?, &chunk.items);
    if !read.errors.is_empty() {
        // Of a system or a recipient, perhaps, that another replica has heard of a moment ago.
        let present = Rules::present(app, &desk.customer).await?;
        if !present.are(&read.rules) {
            read = ReadChunk::of(app, desk, present, &chunk.items);
        }
    }
    let names = Names::of(hasher, &read.intakes);
    Ok(Some((read, names)))
}

async fn take_chunk(app: Arc<App>, chunk: ReadChunk) -> ApiResult<v1::BatchCreateRequestsResponse> {
    let ReadChunk { desk, rules, last_number, intakes, numbers, errors } = chunk;
    let mut ack = v1::BatchCreateRequestsResponse { last_number, errors, ..v1::BatchCreateRequestsResponse::default() };
    let taken = desk.take(&app, rules, &intakes).await?;
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

/// Whom a chunk is about, and its `request_id`s: as hashes, since all that is asked is whether two chunks have none in common.
struct Names(HashSet<u64>);

impl Names {
    fn of(hasher: &RandomState, intakes: &[Intake]) -> Self {
        let mut names = HashSet::with_capacity(2 * intakes.len());
        for Intake { idempotency, request, .. } in intakes {
            let changed = request.identifier_changes.iter().flat_map(|change| change.old.iter().chain([&change.new]));
            names.extend(request.identifiers.iter().chain(changed).map(|name| hasher.hash_one(name)));
            names.insert(hasher.hash_one(idempotency));
        }
        Self(names)
    }

    fn is_disjoint(&self, other: &Self) -> bool {
        self.0.is_disjoint(&other.0)
    }
}

/// The items that can be taken in, with their numbers, and the others' errors.
struct ReadChunk {
    desk: Arc<Desk>,
    rules: Rules,
    last_number: u64,
    intakes: Vec<Intake>,
    numbers: Vec<u64>,
    errors: Vec<v1::BatchItemError>,
}

impl ReadChunk {
    fn of(app: &App, desk: &Arc<Desk>, rules: Rules, items: &[v1::BatchItem]) -> Self {
        let last_number = items.last().map_or(0, |item| item.number);
        let (intakes, numbers, errors) = Default::default();
        let mut read = Self { desk: desk.clone(), rules, last_number, intakes, numbers, errors };
        for item in items {
            match read_item(app, desk, &read.rules, &item.request_id, item.request.as_ref(), None) {
                Ok(intake) => {
                    read.intakes.push(intake);
                    read.numbers.push(item.number);
                }
                Err(error) => read.errors.push(item_error(item.number, &error)),
            }
        }
        read
    }
}

fn item_error(number: u64, error: &ApiError) -> v1::BatchItemError {
    let (code, reason, message) = describe(error);
    let field = violations(error).into_iter().next().map(|v| v.field).unwrap_or_default();
    let reason = reason.as_str_name().trim_start_matches("ERROR_REASON_").to_owned();
    v1::BatchItemError { number, code: code.into(), reason, field, message }
}

#[cfg(test)]
mod tests {
    use quittance_domain::{
        action::{Action, IdentifierChange, InstructionKind},
        identifier::{Identifier, IdentifierKind},
        ids::IdempotencyId,
        request::NewRequest,
    };
    use uuid::Uuid;

    use super::*;

    fn email(person: &str) -> Identifier {
        Identifier::normalise(IdentifierKind::Email, &format!("{person}@example.com")).unwrap()
    }

    fn erasure(id: u128, person: &str) -> Intake {
        let request = NewRequest {
            action: Action::Erasure,
            identifiers: vec![email(person)],
            corrections: Vec::new(),
            identifier_changes: Vec::new(),
            restriction_ground: None,
            subject_informed_at: None,
            subject_asked_at: None,
            controller_due_at: None,
            reference: String::new(),
            instruction: InstructionKind::CustomerRequest,
            notices: Vec::new(),
            follow_up: None,
        };
        Intake { idempotency: IdempotencyId::new(Uuid::from_u128(id)), request, referred: None }
    }

    #[test]
    fn chunks_about_one_person_or_request_come_one_after_the_other() {
        let hasher = RandomState::new();
        let of = |intakes: &[Intake]| Names::of(&hasher, intakes);
        let under_way = VecDeque::from([of(&[erasure(1, "mara"), erasure(2, "noor")])]);
        assert!(may_begin(&under_way, &of(&[erasure(3, "siu"), erasure(4, "ben")])));
        assert!(!may_begin(&under_way, &of(&[erasure(3, "siu"), erasure(4, "noor")])), "the same person");
        assert!(!may_begin(&under_way, &of(&[erasure(1, "siu")])), "the same request");
        let mut renamed = erasure(5, "eve");
        renamed.request.identifier_changes = vec![IdentifierChange {
            kind: IdentifierKind::Email,
            collection: String::new(),
            field: String::new(),
            old: Some(email("eve")),
            new: email("mara"),
            named_at: Default::default(),
        }];
        assert!(!may_begin(&under_way, &of(&[renamed])), "who will be called so");
        assert!(may_begin(&VecDeque::new(), &of(&[erasure(1, "mara")])));
    }

    #[test]
    fn a_stream_has_a_few_chunks_under_way_at_most() {
        let hasher = RandomState::new();
        let names = |n: usize| Names::of(&hasher, &[erasure(n as u128, &format!("p{n}"))]);
        let mut under_way = VecDeque::new();
        for n in 0..CHUNKS_AT_ONCE {
            assert!(may_begin(&under_way, &names(n)));
            under_way.push_back(names(n));
        }
        assert!(!may_begin(&under_way, &names(CHUNKS_AT_ONCE)));
    }
}
