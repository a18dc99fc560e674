//! The log's side of the process: its keys, the sequencer, and its tiles over HTTP (C2SP tlog-tiles).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use quittance_dispatch::{Clock as _, SystemClock};
use quittance_domain::Timestamp;
use quittance_ledger::tile::Tile;
use quittance_log_client::{HttpClient, Witness};
use quittance_sequencer::{LogFiles, LogKeyRing, LogStatus, Now, Scrub, Sequencer, SequencerOptions, Witnesses};
use quittance_store::Store;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::{Config, LedgerConfig, WitnessConfig},
    serve::Failure,
};

/// Opens the log's keys, and begins the log in a new store.
pub async fn keys(config: &Config, store: &Store, now: Timestamp) -> Result<LogKeyRing, Failure> {
    let folder = config.ledger_folder().join("keys");
    let begun = store.log_origin().await?;
    let made_up = || format!("quittance.invalid/{}", Uuid::new_v4());
    let origin = if config.ledger.origin.is_empty() { made_up() } else { config.ledger.origin.clone() };
    let ring = LogKeyRing::open(&folder, &origin, begun.as_deref(), now)?;
    if !config.ledger.origin.is_empty() && config.ledger.origin != ring.origin().as_str() {
        let ours = ring.origin();
        return Err(format!("ledger.origin is {origin}, and the log is {ours}: a log cannot be renamed").into());
    }
    // Another replica may have begun it at the same moment, with keys of its own.
    let begun = store.begin_log(ring.origin().as_str()).await?;
    Ok(LogKeyRing::open(&folder, &origin, Some(&begun), now)?)
}

/// The configured witnesses.
pub fn witnesses(config: &LedgerConfig) -> Result<Witnesses, Failure> {
    let within = Duration::from_secs(config.witness_timeout_s.max(1));
    let mut all = Vec::with_capacity(config.witness.len());
    for WitnessConfig { url, vkey } in &config.witness {
        let key = vkey.parse().map_err(|fault| format!("ledger.witness {vkey}: {fault}"))?;
        all.push(Witness::new(HttpClient::new(None, within)?, url, key));
    }
    Ok(Witnesses::new(all, config.witnesses_required, within)?)
}

/// What is kept of the log outside the database.
pub fn files(config: &Config) -> LogFiles {
    let folder = config.ledger_folder();
    LogFiles {
        highest: folder.join("checkpoint"),
        index: folder.join("entries"),
        publish: config.ledger.publish.clone(),
    }
}

pub fn start(
    config: &Config,
    store: &Store,
    keys: Arc<LogKeyRing>,
    witnesses: Witnesses,
    drain: CancellationToken,
) -> Sequencing {
    let options = SequencerOptions {
        lease: Duration::from_secs(config.ledger.lease_s),
        batch: config.ledger.batch.max(1),
        sign_every: Duration::from_millis(config.ledger.sign_every_ms),
        ..SequencerOptions::new(format!("quittanced-{}", Uuid::new_v4()))
    };
    let now: Now = Arc::new(|| SystemClock.now());
    let sequencer =
        Sequencer::new(store.clone(), now.clone(), keys.clone(), files(config), options).witnessed_by(witnesses);
    let every = Duration::from_secs(config.ledger.scrub_every_s.max(1));
    let scrub = Scrub::new(store.clone(), now, every, sequencer.status(), sequencer.doubt())
        .with_folder(config.ledger.publish.as_deref(), &keys);
    let status = sequencer.status();
    let task = tokio::spawn(async move {
        tokio::join!(sequencer.run(drain.clone()), scrub.run(drain));
    });
    Sequencing { task, status }
}

/// The log's work in this process.
pub struct Sequencing {
    pub task: JoinHandle<()>,
    status: watch::Receiver<LogStatus>,
}

/// A store that does not answer keeps nobody waiting: then nothing can be changed anyway.
const FIRST_LOOK: Duration = Duration::from_secs(5);

impl Sequencing {
    /// The log is proven before work begins: a database that was restored is not worked on as if nothing had happened.
    pub async fn first_look(&mut self) {
        let looked = self.status.wait_for(|status| *status != LogStatus::Starting);
        if tokio::time::timeout(FIRST_LOOK, looked).await.is_err() {
            tracing::warn!("the log was not looked at yet: the store is slow");
        }
    }
}

/// How often every process asks whether the log is halted: so long may a change still be taken in.
const LOOK_AT_HALT: Duration = Duration::from_secs(1);

/// Whether the log is halted, by whichever process holds it.
pub async fn watch_halt(store: Store, drain: CancellationToken) -> Result<watch::Receiver<bool>, Failure> {
    let (tell, halted) = watch::channel(store.log_halted().await?.is_some());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = drain.cancelled() => break,
                () = tokio::time::sleep(LOOK_AT_HALT) => {}
            }
            // While the store cannot be asked, nothing can be changed anyway.
            if let Ok(halted) = store.log_halted().await {
                tell.send_if_modified(|old| std::mem::replace(old, halted.is_some()) != halted.is_some());
            }
        }
    });
    Ok(halted)
}

/// Serves checkpoint and tiles until the process drains.
pub async fn serve(address: SocketAddr, store: Store, drain: CancellationToken) {
    let router =
        Router::new().route("/checkpoint", get(checkpoint)).route("/tile/{*path}", get(tile)).with_state(store);
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%address, %error, "the log's tiles are not served"),
    };
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "serving the log's tiles");
    }
    let stopping = async move { drain.cancelled().await };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopping).await {
        tracing::error!(%error, "the log's tiles are not served any more");
    }
}

async fn checkpoint(State(store): State<Store>) -> Response {
    match store.log_state().await {
        Ok(state) => match state.checkpoint {
            Some(checkpoint) => {
                let headers =
                    [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
                (headers, checkpoint.note).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// A tile never changes: what is in a published checkpoint may be kept for ever. What is not, is nobody's business yet.
async fn tile(State(store): State<Store>, Path(path): Path<String>) -> Response {
    let Ok(tile) = format!("tile/{path}").parse::<Tile>() else { return StatusCode::BAD_REQUEST.into_response() };
    let found = async {
        let state = store.log_state().await?;
        let size = state.checkpoint.map_or(0, |c| c.size);
        let published = Tile::in_tree(tile.kind(), tile.index(), size).is_some_and(|t| t.width() >= tile.width());
        if published { store.log_tiles(&[tile]).await.map(|mut tiles| tiles.remove(&tile)) } else { Ok(None) }
    };
    match found.await {
        Ok(Some(bytes)) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream"),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (headers, bytes).into_response()
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
