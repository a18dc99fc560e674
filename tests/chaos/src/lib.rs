//! Faults for real: the service as processes, under load through its API, while a schedule from a seed kills, stops, cuts, slows, fills
//! and steps. What is left is then proven by a checker that knows nothing of the service's code (`tests/chaos-check`).

mod apps;
mod clock;
mod disk;
mod inflict;
mod journal;
mod load;
mod postgres;
mod process;
mod proxy;
mod scene;
mod schedule;
mod story;

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quittance_chaos_check::{Figures, Finding, journal::Event};
use quittance_client::{Client, ClientError, api as v1};
pub use quittance_tests::StoreKind;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    apps::CUSTOMERS,
    inflict::{DRAIN, inflict},
    journal::Journal,
    load::{Desk, Told},
    scene::Scene,
};

pub type Failure = Box<dyn Error + Send + Sync>;

/// How often the keys are rotated, on average: far more often than anybody would, and in the shortest run once.
const ROTATED_EVERY: Duration = Duration::from_secs(4);
/// Names that are looked at until they are completed, at most.
const LOOKED_AT_MAX: usize = 200;

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// How long faults are inflicted, and requests are sent.
    pub lasts: Duration,
    /// Between two faults, on average.
    pub apart: Duration,
    pub store: StoreKind,
    pub faults: bool,
    /// Of each customer.
    pub people: u64,
    /// Between two of one client's.
    pub pace: Duration,
    /// How long all may take to be settled once the faults have stopped.
    pub settle: Duration,
}

/// What came of it.
#[derive(Debug, serde::Serialize)]
pub struct Outcome {
    pub seed: u64,
    pub store: String,
    pub seconds: u64,
    pub settled_after_s: f64,
    pub faults: BTreeMap<String, usize>,
    pub figures: Figures,
    pub acknowledged: u64,
    /// Key epochs that have ended, with their keys destroyed.
    pub rotations: usize,
    pub retries: u64,
    pub longest_acknowledgement_s: f64,
    /// Replicas that ended by themselves with an error, and were started again.
    pub gave_up: u32,
    /// Errors that clients were told, and tried again after.
    pub told: BTreeMap<String, u64>,
    /// What must not be.
    pub findings: Vec<String>,
    /// What is left of it.
    pub folder: PathBuf,
}

/// A whole run, told line by line.
pub async fn run(options: &Options, say: &(impl Fn(String) + Sync)) -> Result<Outcome, Failure> {
    say(format!("seed {} on {:?}, {:.0} s", options.seed, options.store, options.lasts.as_secs_f64()));
    let folder = tempfile::Builder::new().prefix("quittance-chaos.").tempdir()?.keep();
    let scene = Arc::new(Scene::build(folder.clone(), options).await?);
    let mut findings = Vec::new();
    let victims = scene.victims();
    if options.faults && !victims.clocks {
        say("clocks are left alone: QUITTANCE_TEST_FAKETIME names no library".to_owned());
    }
    if options.faults && options.store == StoreKind::Sqlite && !victims.disk {
        say("the disk is left alone: no tmpfs may be mounted here".to_owned());
    }
    let faults = match options.faults {
        true => schedule::plan(options.seed, options.lasts, options.apart, &victims),
        false => Vec::new(),
    };

    let (stop, stopped) = watch::channel(false);
    let (look_at, looking) = mpsc::channel(LOOKED_AT_MAX);
    let desk = Arc::new(Desk {
        seed: options.seed,
        endpoints: scene.replicas.iter().map(|r| r.client_link.endpoint()).collect(),
        operator: scene.operator.clone(),
        journal: Journal::create(&scene.manifest.journal)?,
        told: Told::default(),
        stop: stopped,
        look_at,
        open: AtomicU64::new(0),
    });
    let mut tokens = Vec::new();
    for customer in CUSTOMERS {
        tokens.push((customer, scene.token(customer)?));
    }
    let mut clients = JoinSet::new();
    for (customer, token) in &tokens {
        let people = 0..options.people;
        for part in 0..2 {
            let some = people.clone().filter(move |n| n % 3 == part);
            clients.spawn(load::one_by_one(desk.clone(), customer, token.clone(), some, options.pace));
        }
        let rest = people.filter(|n| n % 3 == 2);
        clients.spawn(load::in_streams(desk.clone(), customer, token.clone(), rest, options.pace * 10));
    }
    clients.spawn(load::look(desk.clone(), looking));
    clients.spawn(load::rotate_keys(desk.clone(), ROTATED_EVERY));
    clients.spawn(watch_log(desk.clone(), scene.clone()));
    let supervised = tokio::spawn(supervise(scene.clone()));

    let begun = Instant::now();
    let mut inflicted = JoinSet::new();
    for fault in &faults {
        tokio::time::sleep(fault.at.saturating_sub(begun.elapsed())).await;
        say(fault.to_string());
        let (scene, fault) = (scene.clone(), fault.clone());
        inflicted.spawn(async move { inflict(&scene, &fault).await.map_err(|e| format!("{fault}: {e}")) });
    }
    tokio::time::sleep(options.lasts.saturating_sub(begun.elapsed())).await;
    while let Some(done) = inflicted.join_next().await {
        findings.extend(done?.err());
    }
    say(format!("{:7.1} s  faults are over", begun.elapsed().as_secs_f64()));
    stop.send_replace(true);
    let over = Instant::now();
    let all_sent = async {
        while let Some(done) = clients.join_next().await {
            done??;
        }
        Ok::<_, Failure>(())
    };
    match tokio::time::timeout(options.settle, all_sent).await {
        Ok(sent) => sent?,
        Err(_) => findings.push("some requests are not acknowledged though all faults are over".to_owned()),
    }
    let settled = tokio::time::timeout(options.settle, settle(&scene, &tokens)).await;
    if settled.is_err() {
        findings.extend(stuck(&scene, &tokens).await);
    }
    let rotations = match tokio::time::timeout(options.settle, rotated(&scene)).await {
        Ok(rotations) => rotations,
        Err(_) => {
            findings.push("a key epoch does not end though all faults are over".to_owned());
            0
        }
    };
    let settled_after_s = over.elapsed().as_secs_f64();
    say(format!("{:7.1} s  settled", begun.elapsed().as_secs_f64()));
    supervised.abort();
    drop(supervised.await);
    findings.extend(end(&scene).await?);

    let report = quittance_chaos_check::check(&scene.manifest).await?;
    findings.extend(report.findings.iter().map(Finding::to_string));
    findings.extend(desk.told.refused().into_iter().map(|(what, times)| format!("{times} times: {what}")));
    let mut gave_up = 0;
    for process in scene.processes() {
        let (times, crashes) = process.past();
        gave_up += times;
        findings.extend(crashes);
    }
    if !findings.is_empty()
        && scene.disk.is_some()
        && let Err(error) = keep_disk(clients, scene)
    {
        say(format!("the disk's content is not kept: {error}"));
    }
    Ok(Outcome {
        seed: options.seed,
        store: format!("{:?}", options.store).to_lowercase(),
        seconds: options.lasts.as_secs(),
        settled_after_s,
        faults: schedule::counts(&faults),
        figures: report.figures,
        acknowledged: desk.told.acknowledged.load(Ordering::Relaxed),
        rotations,
        retries: desk.told.retries.load(Ordering::Relaxed),
        longest_acknowledgement_s: Duration::from_millis(desk.told.longest_ms.load(Ordering::Relaxed)).as_secs_f64(),
        gave_up,
        told: desk.told.passing(),
        findings,
        folder,
    })
}

/// What lies on the small disk is to be looked at, and goes with it.
fn keep_disk(clients: JoinSet<std::io::Result<()>>, scene: Arc<Scene>) -> Result<(), Failure> {
    let (data, kept) = (scene.folder.join("data"), scene.folder.join("kept"));
    let copied = Command::new("cp").arg("-a").arg(&data).arg(&kept).status()?.success();
    // Those who hold the scene, if any is left.
    drop((clients, scene));
    if copied { Ok(fs::rename(kept, data)?) } else { Err("the disk's content could not be kept".into()) }
}

/// Starts again what ended by itself, as a container platform does.
async fn supervise(scene: Arc<Scene>) {
    loop {
        for process in scene.processes() {
            // What cannot be started now is started the next time.
            drop(process.look_after());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Writes down every checkpoint that is published.
async fn watch_log(desk: Arc<Desk>, scene: Arc<Scene>) -> std::io::Result<()> {
    let mut last = String::new();
    while !*desk.stop.borrow() {
        let now = fs::read_to_string(scene.manifest.published.join("checkpoint")).unwrap_or_default();
        if now != last {
            desk.journal.write(vec![Event::SeenCheckpoint { note: now.clone() }]).await?;
            last = now;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn open_requests(scene: &Scene, token: &str) -> Result<Vec<v1::Request>, ClientError> {
    let client = Client::connect(scene.replicas[0].client_link.endpoint(), token).await?;
    let states = vec![v1::RequestState::InProgress.into(), v1::RequestState::AwaitingCustomer.into()];
    let filter = Some(v1::RequestFilter { states, ..v1::RequestFilter::default() });
    let list = v1::ListRequestsRequest { page_size: 20, filter, ..v1::ListRequestsRequest::default() };
    Ok(client.requests().list_requests(list).await?.into_inner().requests)
}

/// Until no request is open any more.
async fn settle(scene: &Scene, tokens: &[(&str, String)]) {
    for (_, token) in tokens {
        while !open_requests(scene, token).await.is_ok_and(|open| open.is_empty()) {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

/// Until nothing is under an earlier key any more. Gives how many there were.
async fn rotated(scene: &Scene) -> usize {
    loop {
        if let Ok(client) = Client::connect(scene.replicas[0].client_link.endpoint(), &scene.operator).await
            && let Ok(epochs) = client.keys().list_key_epochs(v1::ListKeyEpochsRequest {}).await
        {
            let epochs = epochs.into_inner().epochs;
            let ended = epochs.iter().filter(|e| e.state() == v1::KeyEpochState::Logged).count();
            if ended + 1 == epochs.len() {
                return ended;
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Why it does not settle.
async fn stuck(scene: &Scene, tokens: &[(&str, String)]) -> Vec<String> {
    let mut findings = Vec::new();
    for (customer, token) in tokens {
        match open_requests(scene, token).await {
            Ok(open) => findings.extend(open.iter().map(|request| {
                let tasks = request.tasks.iter().filter(|t| t.state() != v1::TaskState::Confirmed);
                let tasks: Vec<String> = tasks
                    .map(|t| {
                        format!("{} {} after {} attempts {}", t.system, t.state().as_str_name(), t.attempts, t.reason)
                    })
                    .collect();
                format!("stuck: {} {} {tasks:?}", request.name, request.action().as_str_name())
            })),
            Err(error) => findings.push(format!("{customer} is not answered: {}", error.brief())),
        }
    }
    findings
}

/// Everything is drained and stopped; only the store's server is left, to be read.
async fn end(scene: &Scene) -> Result<Vec<String>, Failure> {
    let mut findings = Vec::new();
    let workers = scene.workers.iter().map(|w| &w.process);
    for process in workers.chain(scene.replicas.iter().map(|r| &r.process)) {
        match process.terminate(DRAIN).await? {
            Some(status) if status.success() => {}
            Some(status) => findings.push(format!("{} was drained and ended with {status}", process.name)),
            None => findings.push(format!("{} did not end within {DRAIN:?} of a SIGTERM", process.name)),
        }
    }
    Ok(findings)
}
