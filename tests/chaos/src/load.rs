//! Customers' systems: they send requests one by one and in streams, and send each again until they are told that it is taken in. Some come from
//! the person, through the operator: the customer extends them, authorises them or declines them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quittance_chaos_check::journal::{Event, Referred};
use quittance_client::{
    Client, ClientError, api as v1,
    bulk::{BulkOptions, create_requests},
};
use rand::Rng as _;
use tokio::sync::{mpsc, watch};

use crate::{
    apps::is_neighbour,
    journal::Journal,
    story::{self, Instruction, Ways},
};

/// How long a client waits for an answer before it asks another replica.
const PATIENCE: Duration = Duration::from_secs(5);
/// People of one stream, and requests of one chunk of it.
const STREAM_PEOPLE: usize = 30;
const CHUNK: usize = 10;
/// One in so many acknowledged requests is sent again, and one in so many is looked at until it is completed.
const SENT_AGAIN: u32 = 10;
const LOOKED_AT: u32 = 4;
/// Requests that are looked at and open, beyond which nobody begins with another person.
const OPEN_MAX: u64 = 150;

/// What all clients share.
pub struct Desk {
    pub seed: u64,
    /// One for each replica.
    pub endpoints: Vec<String>,
    /// The operator's token.
    pub operator: String,
    pub journal: Journal,
    pub told: Told,
    pub stop: watch::Receiver<bool>,
    /// Names to look at until they are completed.
    pub look_at: mpsc::Sender<Look>,
    /// How many of them are not: clients that are far ahead wait.
    pub open: AtomicU64,
}

pub struct Look {
    pub token: String,
    pub name: String,
}

/// What clients were told, other than yes.
#[derive(Default)]
pub struct Told {
    pub acknowledged: AtomicU64,
    pub retries: AtomicU64,
    pub longest_ms: AtomicU64,
    /// Errors that a client need not try again after, by reason: none is expected.
    refused: Mutex<BTreeMap<String, u64>>,
    /// Those that it may.
    passing: Mutex<BTreeMap<String, u64>>,
}

impl Told {
    fn error(&self, error: &ClientError) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        let counts = if error.is_retryable() { &self.passing } else { &self.refused };
        *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(error.brief()).or_default() += 1;
    }

    fn item_error(&self, error: &v1::BatchItemError) {
        let text = format!("{}: {} {}", error.reason, error.field, error.message);
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(text).or_default() += 1;
    }

    pub fn refused(&self) -> BTreeMap<String, u64> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn passing(&self) -> BTreeMap<String, u64> {
        self.passing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Desk {
    /// Some replica's; whoever does not answer is not asked again at once.
    pub async fn client(&self, token: &str) -> Result<Client, ClientError> {
        let endpoint = &self.endpoints[rand::rng().random_range(0..self.endpoints.len())];
        Client::builder(endpoint).token(token).connect_timeout(PATIENCE / 3).timeout(PATIENCE).connect().await
    }

    fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Gives whether there is more to send, when the service has caught up.
    async fn goes_on(&self) -> bool {
        while !self.stopping() && self.open.load(Ordering::Relaxed) > OPEN_MAX {
            self.pause().await;
        }
        !self.stopping()
    }

    async fn pause(&self) {
        let wait = rand::rng().random_range(50..400);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }

    async fn acknowledge(&self, told: Vec<(&Instruction, String)>, since: Instant, token: &str) -> std::io::Result<()> {
        let acknowledged = |(instruction, name): &(&Instruction, String)| Event::Acknowledged {
            customer: instruction.sent.customer.clone(),
            request_id: instruction.sent.request_id.clone(),
            name: name.clone(),
        };
        self.journal.write(told.iter().map(acknowledged).collect()).await?;
        self.told.acknowledged.fetch_add(told.len() as u64, Ordering::Relaxed);
        let took = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.told.longest_ms.fetch_max(took, Ordering::Relaxed);
        for (instruction, name) in told {
            if !instruction.sent.is_declined() && rand::rng().random_ratio(1, LOOKED_AT) {
                // Where many are looked at already, this one is not.
                drop(self.look_at.try_send(Look { token: token.to_owned(), name }));
            }
        }
        Ok(())
    }
}

/// So long on average.
fn about(pace: Duration) -> Duration {
    pace.mul_f64(rand::rng().random_range(0.2..1.8))
}

fn sent(instructions: &[Instruction]) -> Vec<Event> {
    instructions.iter().map(|i| Event::Sent(i.sent.clone())).collect()
}

/// Sends one request after the other, about these people.
pub async fn one_by_one(
    desk: Arc<Desk>,
    customer: &'static str,
    token: String,
    people: impl Iterator<Item = u64>,
    pace: Duration,
) -> std::io::Result<()> {
    let mut client = None;
    for n in people.filter(|n| !is_neighbour(*n)) {
        if !desk.goes_on().await {
            break;
        }
        for instruction in story::of(desk.seed, customer, n, Ways::Any) {
            desk.journal.write(sent(std::slice::from_ref(&instruction))).await?;
            let name = take_in(&desk, &mut client, customer, &token, &instruction).await?;
            if let Some(referred) = &instruction.sent.referred {
                say(&desk, &mut client, &token, &name, referred).await;
            }
            if rand::rng().random_ratio(1, SENT_AGAIN) {
                // Whatever answers must answer the same.
                client = None;
                take_in(&desk, &mut client, customer, &token, &instruction).await?;
            }
        }
        tokio::time::sleep(about(pace)).await;
    }
    Ok(())
}

/// Sends it until it is taken in; gives its name.
async fn take_in(
    desk: &Desk,
    client: &mut Option<Client>,
    customer: &str,
    token: &str,
    instruction: &Instruction,
) -> std::io::Result<String> {
    let since = Instant::now();
    let request = match instruction.sent.referred {
        None => until_answered(desk, client, token, &Ask::Create(instruction)).await,
        Some(_) => {
            let parent = format!("customers/{customer}");
            until_answered(desk, &mut None, &desk.operator, &Ask::Refer(instruction, parent)).await
        }
    };
    desk.acknowledge(vec![(instruction, request.name.clone())], since, token).await?;
    Ok(request.name)
}

/// The customer's word on what was referred.
async fn say(desk: &Desk, client: &mut Option<Client>, token: &str, name: &str, referred: &Referred) {
    if let Some(due_us) = referred.extended_due_us {
        until_answered(desk, client, token, &Ask::Extend(name, due_us / 1_000_000)).await;
    }
    let word = if referred.authorised { Ask::Authorise(name) } else { Ask::Decline(name) };
    until_answered(desk, client, token, &word).await;
}

/// What is asked for until there is an answer.
enum Ask<'a> {
    Create(&'a Instruction),
    /// Of this customer.
    Refer(&'a Instruction, String),
    /// To this second.
    Extend(&'a str, i64),
    Authorise(&'a str),
    Decline(&'a str),
}

impl Ask<'_> {
    async fn of(&self, client: &Client) -> Result<v1::Request, ClientError> {
        let mut requests = client.requests();
        let request = match self {
            Self::Create(instruction) => {
                let (request_id, request) = (instruction.sent.request_id.clone(), Some(instruction.request.clone()));
                let create = v1::CreateRequestRequest { request_id, parent: String::new(), request };
                requests.create_request(create).await?.into_inner().request
            }
            Self::Refer(instruction, parent) => {
                let (request_id, request) = (instruction.sent.request_id.clone(), Some(instruction.request.clone()));
                let words = "Please see to this.".to_owned();
                let refer = v1::ReferRequestRequest { request_id, parent: parent.clone(), request, words };
                requests.refer_request(refer).await?.into_inner().request
            }
            Self::Extend(name, second) => {
                let due_time = Some(prost_types::Timestamp { seconds: *second, nanos: 0 });
                let reason = "They are many.".to_owned();
                let extend = v1::ExtendRequestRequest { name: (*name).to_owned(), due_time, reason };
                requests.extend_request(extend).await?.into_inner().request
            }
            Self::Authorise(name) => {
                let authorise = v1::AuthoriseRequestRequest { name: (*name).to_owned() };
                requests.authorise_request(authorise).await?.into_inner().request
            }
            Self::Decline(name) => {
                let (name, reason) = ((*name).to_owned(), "It is not theirs to ask.".to_owned());
                requests.decline_request(v1::DeclineRequestRequest { name, reason }).await?.into_inner().request
            }
        };
        Ok(request.unwrap_or_default())
    }

    /// Whether an earlier try was carried out, though nobody heard so. (What has a `request_id` is answered as the first time.)
    async fn was_heard(&self, client: &Client) -> Option<v1::Request> {
        let (Self::Extend(name, _) | Self::Authorise(name) | Self::Decline(name)) = self else { return None };
        let asked = v1::GetRequestRequest { name: (*name).to_owned() };
        let request = client.requests().get_request(asked).await.ok()?.into_inner().request?;
        let heard = match self {
            Self::Extend(_, second) => request.due_time.as_ref().is_some_and(|due| due.seconds == *second),
            Self::Decline(_) => request.state() == v1::RequestState::Declined,
            _ => request.state() != v1::RequestState::AwaitingCustomer,
        };
        heard.then_some(request)
    }
}

async fn until_answered(desk: &Desk, client: &mut Option<Client>, token: &str, ask: &Ask<'_>) -> v1::Request {
    let mut tries = 0;
    loop {
        let answer = match client {
            Some(client) => match ask.of(client).await {
                Err(error) if tries > 0 && !error.is_retryable() => ask.was_heard(client).await.ok_or(error),
                answer => answer,
            },
            None => match desk.client(token).await {
                Ok(connected) => {
                    *client = Some(connected);
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        match answer {
            Ok(request) => return request,
            Err(error) => {
                tries += 1;
                desk.told.error(&error);
                *client = None;
                desk.pause().await;
            }
        }
    }
}

/// Sends streams of requests, about these people.
pub async fn in_streams(
    desk: Arc<Desk>,
    customer: &'static str,
    token: String,
    people: impl Iterator<Item = u64>,
    pace: Duration,
) -> std::io::Result<()> {
    let people: Vec<u64> = people.filter(|n| !is_neighbour(*n)).collect();
    for some in people.chunks(STREAM_PEOPLE) {
        if !desk.goes_on().await {
            break;
        }
        // What is instructed second about somebody comes when the first is acknowledged.
        let mut rounds: Vec<Vec<Instruction>> = Vec::new();
        for n in some {
            for (round, instruction) in story::of(desk.seed, customer, *n, Ways::Instructed).into_iter().enumerate() {
                if rounds.len() == round {
                    rounds.push(Vec::new());
                }
                rounds[round].push(instruction);
            }
        }
        for round in rounds {
            desk.journal.write(sent(&round)).await?;
            stream(&desk, &token, &round).await?;
        }
        tokio::time::sleep(about(pace)).await;
    }
    Ok(())
}

async fn stream(desk: &Desk, token: &str, round: &[Instruction]) -> std::io::Result<()> {
    let since = Instant::now();
    let options = BulkOptions {
        chunk_size: CHUNK,
        chunks_in_flight: 3,
        attempts: 2,
        acknowledge_within: PATIENCE,
        ..BulkOptions::default()
    };
    loop {
        let items = (1..).zip(round).map(|(number, instruction)| v1::BatchItem {
            number,
            request_id: instruction.sent.request_id.clone(),
            request: Some(instruction.request.clone()),
        });
        let items = futures::stream::iter(items.collect::<Vec<_>>());
        // Written outside of the callback, which cannot wait; a chunk's answer is in the journal before the next stream begins.
        let mut chunks: Vec<v1::BatchCreateRequestsResponse> = Vec::new();
        let outcome = match desk.client(token).await {
            Ok(client) => create_requests(&client, "", items, &options, |answer, _| chunks.push(answer.clone()))
                .await
                .map_err(|e| e.error),
            Err(error) => Err(error),
        };
        for answer in chunks {
            let failed: Vec<u64> = answer.errors.iter().map(|e| e.number).collect();
            answer.errors.iter().for_each(|error| desk.told.item_error(error));
            let items = (answer.names.len() + failed.len()) as u64;
            let taken = (answer.last_number + 1 - items..=answer.last_number).filter(|n| !failed.contains(n));
            let told = taken
                .zip(answer.names)
                .filter_map(|(number, name)| Some((round.get(usize::try_from(number).ok()?.checked_sub(1)?)?, name)));
            desk.acknowledge(told.collect(), since, token).await?;
        }
        match outcome {
            Ok(_) => return Ok(()),
            Err(error) => {
                desk.told.error(&error);
                desk.pause().await;
            }
        }
    }
}

/// An operator who has the keys rotated, more often than anybody would: people have instructions on both sides of it.
pub async fn rotate_keys(desk: Arc<Desk>, every: Duration) -> std::io::Result<()> {
    let mut due = Instant::now() + about(every);
    while !desk.stopping() {
        if due <= Instant::now() {
            let asked = match desk.client(&desk.operator).await {
                Ok(client) => client.keys().rotate_keys(v1::RotateKeysRequest {}).await.map_err(ClientError::from),
                Err(error) => Err(error),
            };
            match asked {
                Ok(_) => due = Instant::now() + about(every),
                Err(error) => desk.told.error(&error),
            }
        }
        desk.pause().await;
    }
    Ok(())
}

/// Looks at requests until each is completed, and writes down that it was.
pub async fn look(desk: Arc<Desk>, mut names: mpsc::Receiver<Look>) -> std::io::Result<()> {
    let mut open: Vec<Look> = Vec::new();
    while !desk.stopping() {
        while let Ok(look) = names.try_recv() {
            open.push(look);
        }
        let mut still = Vec::new();
        for look in open {
            let asked = v1::GetRequestRequest { name: look.name.clone() };
            let state = match desk.client(&look.token).await {
                Ok(client) => client.requests().get_request(asked).await.map_err(ClientError::from),
                Err(error) => Err(error),
            };
            match state.map(|answer| answer.into_inner().request.unwrap_or_default().state()) {
                Ok(v1::RequestState::Completed) => {
                    desk.journal.write(vec![Event::SeenCompleted { name: look.name }]).await?;
                }
                Ok(_) => still.push(look),
                Err(error) => {
                    desk.told.error(&error);
                    still.push(look);
                }
            }
        }
        open = still;
        desk.open.store(open.len() as u64, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}
