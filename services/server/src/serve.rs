//! Wires the parts, serves, and drains.

use std::{path::Path, sync::Arc, time::Duration};

use quittance_api::v1::{
    connector_service_server::ConnectorServiceServer, customer_service_server::CustomerServiceServer,
    evidence_service_server::EvidenceServiceServer, key_service_server::KeyServiceServer,
    package_service_server::PackageServiceServer, request_service_server::RequestServiceServer,
    system_service_server::SystemServiceServer,
};
use quittance_dispatch::{
    Clock as _, ClockTrust, ClockWatch, ConnectorRegistry, Deadlines, Dispatcher, EndsOfHolds, KeyKeeper, Replays,
    Suppressions, SystemClock, TopologyCache, remote::RemoteDesk,
};
use quittance_store::Store;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};
use tower::util::MapResponseLayer;
use uuid::Uuid;

use crate::{
    agreements::AgreementCache,
    app::App,
    auth::Authenticate,
    config::{Config, RunRole},
    deadline_statements,
    evidence::EvidenceDesk,
    health, ledger,
    preview_places::PreviewPlaces,
    rpc::{
        connector::Connectors, customer::Customers, evidence::Evidence, key::Keys, package::Packages,
        request::Requests, system::Systems,
    },
    seats::Seats,
    secrets::MountedSecrets,
    status::with_reason,
    tokens::TokenTable,
};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs until SIGTERM or SIGINT, then drains.
pub async fn run(config: Config) -> Result<(), Failure> {
    let tokens = Arc::new(TokenTable::open(&config.tokens())?);
    if tokens.is_empty() {
        tracing::warn!(file = %config.tokens().display(), "no tokens: make one with `quittanced token add`");
    }
    let store = Store::open(&config.store()?).await?;
    let clock = Arc::new(SystemClock);
    let log_keys = Arc::new(ledger::keys(&config, &store, clock.now()).await?);
    let topology =
        Arc::new(TopologyCache::new(store.clone(), Duration::from_millis(config.dispatch.topology_refresh_ms)));
    let secrets = MountedSecrets {
        folder: config.secrets_dir(),
        connections_max: config.limits.system_connections,
        statement_timeout: config.dispatch.target_time_limit(),
        schema_age_max: Duration::from_secs(config.limits.system_schema_s),
    };
    let connectors = Arc::new(ConnectorRegistry::new(Arc::new(secrets)));
    let worker = format!("quittanced-{}", std::process::id());
    let dispatcher = Dispatcher::new(
        store.clone(),
        clock.clone(),
        config.dispatch.clone(),
        topology.clone(),
        connectors.clone(),
        worker.clone(),
    );
    let witnesses = ledger::witnesses(&config.ledger)?;
    let drain = CancellationToken::new();
    let mut sequencing = None;
    if config.roles.contains(&RunRole::Ledger) {
        let started = ledger::start(&config, &store, log_keys.clone(), witnesses.clone(), drain.clone());
        sequencing.insert(started).first_look().await;
    }
    let halted = ledger::watch_halt(store.clone(), drain.clone()).await?;
    let app = Arc::new(App {
        remote: RemoteDesk::new(store.clone(), clock.clone(), config.dispatch.clone()),
        dispatch: dispatcher.handle(),
        store: store.clone(),
        clock,
        topology,
        agreements: AgreementCache::default(),
        connectors,
        watches: Seats::new("watches", config.limits.watchers_max, config.limits.streams_per_customer_max),
        bulk_streams: Seats::new(
            "streams of requests",
            config.limits.bulk_streams_max,
            config.limits.streams_per_customer_max,
        ),
        preview_places: PreviewPlaces::new(config.limits.previews_per_system),
        limits: config.limits.clone(),
        evidence: EvidenceDesk {
            keys: log_keys,
            witnesses: witnesses.keys().to_vec(),
            witnesses_required: witnesses.required(),
            processor: config.processor.clone(),
        },
        halted,
        drain: drain.clone(),
    });
    if let Some(address) = config.ledger.listen {
        tokio::spawn(ledger::serve(address, store.clone(), drain.clone()));
    }
    let trust = ClockTrust::default();
    let watch = ClockWatch::new(store.clone(), app.clock.clone(), trust.clone());
    watch.look().await?;
    tokio::spawn(watch.run(drain.clone()));
    let keeper = KeyKeeper::new(store.clone(), app.clock.clone(), trust.clone());
    // Whatever this process does, it keeps no key that is destroyed.
    tokio::spawn(keeper.clone().look(drain.clone()));
    // Before any task is worked on: who cannot answer for its health does none. And not earlier: who connects is served.
    let listener = TcpListener::bind(config.listen).await;
    let listener =
        listener.map_err(|e| format!("listen on {}: {e}. Every process does, for its health", config.listen))?;
    let working = config.roles.contains(&RunRole::Worker).then(|| {
        let (store, clock, every) = (store.clone(), app.clock.clone(), config.dispatch.deadline_sweep());
        let swept = Suppressions::new(store.clone(), clock.clone(), config.dispatch.suppression_sweep(), trust.clone())
            .run(drain.clone());
        let replays = Replays::new(
            store.clone(),
            clock.clone(),
            config.dispatch.clone(),
            app.topology.clone(),
            app.connectors.clone(),
            app.dispatch.clone(),
            worker,
        );
        let replays = replays.run(drain.clone());
        let at_risk = app.at_risk().unsigned_abs();
        let deadlines = Deadlines::new(store, clock, at_risk, every, trust.clone()).run(drain.clone());
        let holds = EndsOfHolds::new(app.store.clone(), app.clock.clone(), app.topology.clone(), every, trust.clone())
            .run(drain.clone());
        let dispatching = dispatcher.run(drain.clone());
        let statements = deadline_statements::run(app.clone(), every, trust);
        let forgetting = keeper.forget(Uuid::new_v4().to_string(), config.keys.epoch(), drain.clone());
        tokio::spawn(async move { tokio::join!(dispatching, deadlines, holds, statements, forgetting, swept, replays) })
    });
    let signalled = drain.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping: no new work, what runs may finish");
        signalled.cancel();
    });
    serve(&config, listener, app, tokens, drain.clone()).await?;
    if let Some(working) = working {
        working.await?;
    }
    // After the workers: what they confirmed last is signed, too.
    if let Some(sequencing) = sequencing {
        sequencing.task.await?;
    }
    store.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Health in every process; the API where that is among its roles.
async fn serve(
    config: &Config,
    listener: TcpListener,
    app: Arc<App>,
    tokens: Arc<TokenTable>,
    drain: CancellationToken,
) -> Result<(), Failure> {
    let auth = Authenticate::new(tokens);
    let bytes = config.limits.message_bytes_max;
    macro_rules! service {
        ($server:ident, $handler:expr) => {
            InterceptedService::new($server::new($handler).max_decoding_message_size(bytes), auth.clone())
        };
    }
    let (health_reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(health::report(health_reporter, config.roles.clone(), app.halted.clone(), drain.clone()));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(quittance_api::DESCRIPTOR_SET)
        .build_v1()?;
    let mut server = Server::builder()
        .concurrency_limit_per_connection(config.limits.concurrent_rpcs_per_connection)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .tcp_nodelay(true);
    if let (Some(certificate), Some(key)) = (&config.tls_certificate, &config.tls_key) {
        let read = |file: &Path| std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()));
        let identity = Identity::from_pem(read(certificate)?, read(key)?);
        let made = server.tls_config(ServerTlsConfig::new().identity(identity));
        server = made.map_err(|e| {
            format!("{} and {} are no certificate with its key, as PEM: {e}", certificate.display(), key.display())
        })?;
    }
    let mut router = server
        .layer(MapResponseLayer::new(move |answer| with_reason(answer, bytes)))
        .layer(health::while_halted(app.halted.clone()))
        .add_service(health);
    if config.roles.contains(&RunRole::Api) {
        router = router
            .add_service(reflection)
            .add_service(service!(CustomerServiceServer, Customers(app.clone())))
            .add_service(service!(SystemServiceServer, Systems(app.clone())))
            .add_service(service!(RequestServiceServer, Requests(app.clone())))
            .add_service(service!(PackageServiceServer, Packages(app.clone())))
            .add_service(service!(ConnectorServiceServer, Connectors(app.clone())))
            .add_service(service!(KeyServiceServer, Keys(app.clone())))
            .add_service(service!(EvidenceServiceServer, Evidence(app)));
    }
    // With port 0 the system chooses: whoever started us reads it here.
    tracing::info!(address = %listener.local_addr()?, roles = ?config.roles, "listening");
    let stopping = drain.clone();
    let drained = async move { stopping.cancelled().await };
    let patience = Duration::from_secs(config.limits.drain_s);
    // A client that never hangs up does not keep us: its leases and streams are made to be resumed.
    let overdue = async move {
        drain.cancelled().await;
        tokio::time::sleep(patience).await;
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::select! {
        served = router.serve_with_incoming_shutdown(incoming, drained) => served?,
        () = overdue => tracing::warn!("some RPCs had not ended and were cut"),
    }
    Ok(())
}
