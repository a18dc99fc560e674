//! `BatchCreateRequests`: numbered items in, a durable acknowledgement per chunk out. A chunk is atomic, the stream is not.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesOrdered};
use quittance_api::v1;
use quittance_domain::ids::request_name;
use quittance_store::{Intake, IntakeItem, Taken};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    intake::{Desk, RULES_TRIES, Rules, Sent, by_these_rules, read_item, rules_change, taken_in_before},
    tell,
};
use crate::{
    app::App,
    auth::{Caller, Standing},
    convert::parent,
    error::{ApiError, ApiResult},
    seats::Seat,
    status::{describe, to_status, violations},
};

/// Acknowledgements that a slow reader may leave unread before we stop reading from it.
const ACKNOWLEDGEMENTS_MAX: usize = 4;
/// Chunks of one stream that are taken in at once: the next one is sealed and written while the one before it becomes durable. More would
/// keep connections to the store from others.
const CHUNKS_AT_ONCE: usize = 2;

pub type BatchStream = tokio_stream::wrappers::ReceiverStream<Result<v1::BatchCreateRequestsResponse, Status>>;

pub fn run(app: Arc<App>, who: (Caller, Standing), incoming: Streaming<v1::BatchCreateRequestsRequest>) -> BatchStream {
    let (acks, stream) = mpsc::channel(ACKNOWLEDGEMENTS_MAX);
    tokio::spawn(async move {
        if let Err(error) = serve(&app, &who, incoming, &acks).await {
            // Nobody there to hear it: the client is gone.
            let _ = acks.send_timeout(Err(to_status(error)), Duration::from_secs(app.limits.unread_s)).await;
        }
    });
    BatchStream::new(stream)
}

async fn serve(
    app: &Arc<App>,
    (caller, standing): &(Caller, Standing),
    mut incoming: Streaming<v1::BatchCreateRequestsRequest>,
    acks: &mpsc::Sender<Result<v1::BatchCreateRequestsResponse, Status>>,
) -> ApiResult<()> {
    let hasher = RandomState::new();
    let mut desk: Option<(Arc<Desk>, Seat)> = None;
    // Tasks of their own: a transaction that has begun does not wait for whoever is slow to read acknowledgements.
    let mut under_way = FuturesOrdered::new();
    let mut names: VecDeque<Names> = VecDeque::new();
    let mut next: Option<(ReadChunk, Names)> = None;
    // How the stream ends once all that is under way is acknowledged.
    let mut end: Option<ApiResult<()>> = None;
    loop {
        let draining = app.drain.is_cancelled();
        if let Some((chunk, whom)) = next.take_if(|(_, whom)| !draining && may_begin(&names, whom, at_once(app))) {
            names.push_back(whom);
            under_way.push_back(tokio::spawn(take_chunk(app.clone(), chunk)));
        }
        if under_way.is_empty() {
            if next.is_none()
                && let Some(end) = end
            {
                return end;
            }
            if draining {
                let message = "the server is stopping: resume with what was not acknowledged";
                return Err(ApiError::Unavailable(message.to_owned()));
            }
        }
        tokio::select! {
            // In the stream's order, whichever is done first.
            Some(taken) = under_way.next() => {
                names.pop_front();
                let ack = taken.map_err(|_| ApiError::Internal("a chunk's task has ended without a result".to_owned()))??;
                // Gone, or it does not read: what was taken in is durable, and is told again to whoever sends it again.
                if !tell(app, acks, ack, "resume with what was not acknowledged").await? {
                    return Ok(());
                }
            }
            message = incoming.message(), if next.is_none() && end.is_none() && !draining => {
                match message {
                    Ok(Some(_)) if let Err(refused) = standing.check() => end = Some(Err(refused)),
                    Ok(Some(chunk)) => match read_chunk(app, caller, &hasher, &mut desk, chunk).await {
                        Ok(read) => next = read,
                        Err(refused) => end = Some(Err(refused)),
                    },
                    // A cut stream: what was acknowledged is durable, the rest may have been taken in.
                    Ok(None) | Err(_) => end = Some(Ok(())),
                }
            }
            () = app.drain.cancelled(), if !draining => {}
        }
    }
}

/// Beside single instructions, for each of which somebody waits, a stream does not have two chunks under way.
fn at_once(app: &App) -> usize {
    if app.dispatch.singles_come_in() { 1 } else { CHUNKS_AT_ONCE }
}

/// One person's instructions keep the stream's order, and a repeated `request_id` finds the first one: what shares neither with those under
/// way may begin beside them.
fn may_begin(under_way: &VecDeque<Names>, next: &Names, at_once: usize) -> bool {
    under_way.len() < at_once && under_way.iter().all(|names| names.goes_beside(next))
}

async fn read_chunk(
    app: &App,
    caller: &Caller,
    hasher: &RandomState,
    desk: &mut Option<(Arc<Desk>, Seat)>,
    chunk: v1::BatchCreateRequestsRequest,
) -> ApiResult<Option<(ReadChunk, Names)>> {
    let named = parent(&chunk.parent, "parent")?;
    let desk = match desk {
        Some((open, _)) if named.as_ref().is_none_or(|named| *named == open.customer) => &*open,
        Some(_) => return Err(ApiError::field("parent", "one stream is for one customer")),
        None => {
            let customer = caller.customer(named, "parent")?;
            // Of a customer that is not there, or has no agreement in force, it is said at once.
            app.known_agreement(&customer).await?;
            let seat = app.bulk_streams.take(&customer)?;
            &desk.insert((Arc::new(Desk { customer, by: caller.principal() }), seat)).0
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
    let rules = Rules::known(app, &desk.customer).await?;
    let mut read = ReadChunk::of(app, desk.clone(), rules, chunk.items);
    if !read.errors.is_empty() {
        // Of a system or a recipient, perhaps, that another replica has heard of a moment ago.
        let present = Rules::present(app, &desk.customer).await?;
        if !present.are(&read.rules) {
            read = ReadChunk::of(app, desk.clone(), present, read.items);
        }
    }
    let names = Names::of(hasher, &read);
    Ok(Some((read, names)))
}

/// Read anew where the rules have changed since, as [`Desk::take_one`].
async fn take_chunk(app: Arc<App>, mut chunk: ReadChunk) -> ApiResult<v1::BatchCreateRequestsResponse> {
    for _ in 0..RULES_TRIES {
        let context = chunk.desk.context(&app, &chunk.rules)?;
        match by_these_rules(&app, app.store.create_requests(&context, &chunk.intakes).await)? {
            Some(taken) => return chunk.acknowledge(&app, taken).await,
            None => {
                let rules = Rules::present(&app, &chunk.desk.customer).await?;
                chunk = ReadChunk::of(&app, chunk.desk, rules, chunk.items);
            }
        }
    }
    Err(rules_change())
}

/// Whom a chunk is about, and its `request_id`s: as hashes, since all that is asked is whether two chunks have none in common.
struct Names {
    hashes: HashSet<u64>,
    /// By other rules it may be about more persons, and it may have to be read by others: what is refused now could be taken in then, and
    /// whose names a correction changes depends on the data maps. It goes beside no other.
    alone: bool,
}

impl Names {
    fn of(hasher: &RandomState, chunk: &ReadChunk) -> Self {
        let corrects = chunk.intakes.iter().any(|intake| !intake.request.corrections.is_empty());
        Self::are(hasher, &chunk.intakes, corrects || !chunk.errors.is_empty())
    }

    fn are(hasher: &RandomState, intakes: &[Intake], alone: bool) -> Self {
        let mut hashes = HashSet::with_capacity(2 * intakes.len());
        for Intake { idempotency, request, .. } in intakes {
            hashes.extend(request.identifiers.iter().map(|name| hasher.hash_one(name)));
            hashes.insert(hasher.hash_one(idempotency));
        }
        Self { hashes, alone }
    }

    fn goes_beside(&self, other: &Self) -> bool {
        !self.alone && !other.alone && self.hashes.is_disjoint(&other.hashes)
    }
}

/// The items that can be taken in, and the others' errors, with their places; by rules that may have changed when it is taken in.
struct ReadChunk {
    desk: Arc<Desk>,
    rules: Rules,
    items: Vec<v1::BatchItem>,
    intakes: Vec<Intake>,
    /// Of the intakes, among the items.
    places: Vec<usize>,
    errors: Vec<(usize, ApiError)>,
}

impl ReadChunk {
    fn of(app: &App, desk: Arc<Desk>, rules: Rules, items: Vec<v1::BatchItem>) -> Self {
        let (mut intakes, mut places, mut errors) = (Vec::with_capacity(items.len()), Vec::new(), Vec::new());
        for (place, item) in items.iter().enumerate() {
            match read_item(app, &desk, &rules, &item.request_id, item.request.as_ref(), None) {
                Ok(intake) => {
                    intakes.push(intake);
                    places.push(place);
                }
                Err(error) => errors.push((place, error)),
            }
        }
        Self { desk, rules, items, intakes, places, errors }
    }

    async fn acknowledge(self, app: &App, taken: Vec<IntakeItem>) -> ApiResult<v1::BatchCreateRequestsResponse> {
        let Self { desk, items, places, errors, .. } = self;
        let taken = taken.into_iter().map(|taken| taken.map_err(ApiError::from));
        let mut all: Vec<(usize, ApiResult<Taken>)> = places.into_iter().zip(taken).collect();
        all.extend(errors.into_iter().map(|(place, error)| (place, Err(error))));
        all.sort_by_key(|(place, _)| *place);
        known_before(app, &desk, &items, &mut all).await?;
        let last_number = items.last().map_or(0, |item| item.number);
        let mut ack = v1::BatchCreateRequestsResponse { last_number, ..v1::BatchCreateRequestsResponse::default() };
        for (place, taken) in all {
            match taken {
                Ok(taken) => {
                    match taken {
                        Taken::Created(_) => ack.created += 1,
                        Taken::Repeated(_) => ack.repeated_count += 1,
                    }
                    ack.names.push(request_name(&desk.customer, taken.id()));
                }
                Err(error) => ack.errors.push(item_error(items[place].number, &error)),
            }
        }
        Ok(ack)
    }
}

/// What is refused today and was taken in before is answered as what it is: a repetition.
async fn known_before<'a>(
    app: &App,
    desk: &Desk,
    items: &'a [v1::BatchItem],
    all: &mut [(usize, ApiResult<Taken>)],
) -> ApiResult<()> {
    let is_refused =
        |(_, taken): &(usize, ApiResult<Taken>)| taken.as_ref().is_err_and(ApiError::is_of_the_instruction);
    let sent =
        |item: &'a v1::BatchItem| Sent { request_id: &item.request_id, request: item.request.as_ref(), referred: None };
    let refused: Vec<_> = all.iter().filter(|one| is_refused(one)).map(|(place, _)| sent(&items[*place])).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let before = taken_in_before(app, desk, &refused).await?;
    for ((_, taken), before) in all.iter_mut().filter(|one| is_refused(one)).zip(before) {
        if let Some(before) = before {
            *taken = before.map_err(ApiError::from);
        }
    }
    Ok(())
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
        action::Action,
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
        let request = NewRequest::plain(Action::Erasure, vec![email(person)]);
        Intake { idempotency: IdempotencyId::new(Uuid::from_u128(id)), request, referred: None }
    }

    #[test]
    fn chunks_about_one_person_or_request_come_one_after_the_other() {
        let hasher = RandomState::new();
        let of = |intakes: &[Intake]| Names::are(&hasher, intakes, false);
        let under_way = VecDeque::from([of(&[erasure(1, "mara"), erasure(2, "noor")])]);
        let may_begin = |under_way: &VecDeque<Names>, next: &Names| may_begin(under_way, next, CHUNKS_AT_ONCE);
        assert!(may_begin(&under_way, &of(&[erasure(3, "siu"), erasure(4, "ben")])));
        assert!(!may_begin(&under_way, &of(&[erasure(3, "siu"), erasure(4, "noor")])), "the same person");
        assert!(!may_begin(&under_way, &of(&[erasure(1, "siu")])), "the same request");
        let alone = || Names::are(&hasher, &[erasure(5, "eve")], true);
        assert!(!may_begin(&under_way, &alone()) && !may_begin(&VecDeque::from([alone()]), &of(&[erasure(6, "kim")])));
        assert!(may_begin(&VecDeque::new(), &of(&[erasure(1, "mara")])));
    }

    #[test]
    fn a_stream_has_a_few_chunks_under_way_at_most() {
        let hasher = RandomState::new();
        let names = |n: usize| Names::are(&hasher, &[erasure(n as u128, &format!("p{n}"))], false);
        let mut under_way = VecDeque::new();
        for n in 0..CHUNKS_AT_ONCE {
            assert!(may_begin(&under_way, &names(n), CHUNKS_AT_ONCE));
            assert_eq!(may_begin(&under_way, &names(n), 1), under_way.is_empty(), "beside single instructions");
            under_way.push_back(names(n));
        }
        assert!(!may_begin(&under_way, &names(CHUNKS_AT_ONCE), CHUNKS_AT_ONCE));
    }
}
