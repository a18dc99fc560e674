//! Configuration: a TOML file, then the environment, then flags; each overrides what stands before it. Every limit has its place here.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::ValueEnum;
use quittance_dispatch::DispatchLimits;
use quittance_sql::ConnectOptions;
use quittance_store::StoreOptions;

#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct ConfigError(String);

#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the API listens, and in a process without that role health alone.
    pub listen: SocketAddr,
    /// Everything that the embedded default keeps: store, key ring, tokens, secrets.
    pub data_dir: PathBuf,
    /// `postgres://…`; empty means SQLite in `data_dir`.
    pub store_url: String,
    /// A file that holds the store's URL, as Kubernetes mounts a secret. Wins over `store_url`.
    pub store_url_file: Option<PathBuf>,
    pub key_ring: Option<PathBuf>,
    pub tokens: Option<PathBuf>,
    /// A file per secret, by name: URLs of the systems' databases.
    pub secrets_dir: Option<PathBuf>,
    /// PEM files; both or none. Without them, only a loopback address is listened on.
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub roles: Vec<RunRole>,
    pub log_format: LogFormat,
    /// The processor's name, as certificates say it.
    pub processor: String,
    pub ledger: LedgerConfig,
    pub keys: KeysConfig,
    pub limits: ServerLimits,
    pub dispatch: DispatchLimits,
}

/// The log.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerConfig {
    /// Its keys, the highest checkpoint that was ever signed, and the index of its entries. One folder for all replicas, which they write to;
    /// it must outlive the database, and stand in none of its backups.
    pub folder: Option<PathBuf>,
    /// The log's name, as its checkpoints say it; a URL without scheme usually. Empty: one is made up. It cannot be changed later.
    pub origin: String,
    /// Where checkpoint and tiles are served over HTTP (C2SP tlog-tiles); nothing in them is secret. None: nowhere.
    pub listen: Option<SocketAddr>,
    /// A folder into which checkpoint and tiles are written as well, for any static web server.
    pub publish: Option<PathBuf>,
    /// How long a dead sequencer keeps others waiting.
    pub lease_s: u64,
    /// Staged batches of one transaction, each of a thousand entries at most.
    pub batch: u32,
    /// Checkpoints are signed no more often than this.
    pub sign_every_ms: u64,
    /// In this time every entry and tile is looked at once, at low priority: what was altered is found before it is asked for.
    pub scrub_every_s: u64,
    /// Who signs that the log only grows.
    pub witness: Vec<WitnessConfig>,
    /// A checkpoint is published only with the signatures of so many of them.
    pub witnesses_required: usize,
    /// Whoever has not answered by then is asked again later.
    pub witness_timeout_s: u64,
}

/// A witness of the log (C2SP tlog-witness).
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Its submission prefix.
    pub url: String,
    /// Its public key, as `name+id+base64`.
    pub vkey: String,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            folder: None,
            origin: String::new(),
            listen: None,
            publish: None,
            lease_s: 10,
            batch: 64,
            sign_every_ms: 1000,
            scrub_every_s: 24 * 60 * 60,
            witness: Vec::new(),
            witnesses_required: 0,
            witness_timeout_s: 5,
        }
    }
}

/// The keys under which requests are sealed.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// How long an epoch lasts. What is over is forgotten at its end, so no later than this after its retention; a backup of the database
    /// is of use for as long.
    pub epoch_days: u32,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self { epoch_days: 7 }
    }
}

impl KeysConfig {
    pub fn epoch(&self) -> Duration {
        Duration::from_secs(u64::from(self.epoch_days) * 86_400)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum RunRole {
    Api,
    Worker,
    Ledger,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum LogFormat {
    Text,
    Json,
}

impl TryFrom<String> for RunRole {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        one_of(&text)
    }
}

impl TryFrom<String> for LogFormat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        one_of(&text)
    }
}

fn one_of<T: ValueEnum>(text: &str) -> Result<T, String> {
    let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
    T::from_str(text, false).map_err(|_| format!("{text} is none of {}", names.join(", ")))
}

/// Limits at the edge, each with its reason.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerLimits {
    /// One message: a chunk of a thousand requests fits several times over.
    pub message_bytes_max: usize,
    /// Items of one chunk: one transaction.
    pub chunk_items_max: usize,
    /// RPCs in work on one connection: one client cannot take all.
    pub concurrent_rpcs_per_connection: usize,
    /// Connections to the store.
    pub store_connections: u32,
    /// Connections to one system's database.
    pub system_connections: u32,
    /// How long what a system's database says of its tables is taken to be so: its application is migrated without a word to us. To look again is a few
    /// statements for each table of the data map.
    pub system_schema_s: u64,
    /// How long a caller waits for a store connection before it is told to come back.
    pub store_wait_s: u64,
    /// Watchers at once: each looks at the store now and then.
    pub watchers_max: usize,
    /// Streams of requests at once: each holds a chunk or two.
    pub bulk_streams_max: usize,
    /// Watches, and streams of requests, of one customer at once: it does not keep the others out.
    pub streams_per_customer_max: usize,
    /// How long a stream waits for a reader that does not read.
    pub unread_s: u64,
    pub watch_poll_ms: u64,
    /// Previews that ask one system at once: batches need its connections, too. Never more than the system's own `limits.concurrency`.
    pub previews_per_system: usize,
    /// How long a preview may take, all systems together: clients wait 60 s for an answer.
    pub preview_s: u64,
    /// A request is `AT_RISK` when less than this is left.
    pub at_risk_days: u32,
    /// How long open RPCs may finish after SIGTERM.
    pub drain_s: u64,
    /// Bytes of a match set that a remote worker may store.
    pub match_set_bytes_max: usize,
    /// Bytes of a record that a remote worker may upload: it is one message of the package, and gRPC clients take 4 MiB unless told otherwise.
    pub record_bytes_max: usize,
    /// Records per page while a package is streamed out or in: bounds memory. Large ones fill a page sooner.
    pub package_page: u32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: 4 << 20,
            chunk_items_max: 1000,
            concurrent_rpcs_per_connection: 256,
            store_connections: 16,
            system_connections: 8,
            system_schema_s: quittance_connectors::sql::SCHEMA_AGE_MAX.as_secs(),
            store_wait_s: 10,
            watchers_max: 1000,
            bulk_streams_max: 256,
            streams_per_customer_max: 64,
            unread_s: 300,
            watch_poll_ms: 300,
            previews_per_system: 2,
            preview_s: 45,
            at_risk_days: 7,
            drain_s: 20,
            match_set_bytes_max: 1 << 20,
            record_bytes_max: 3 << 20,
            package_page: 200,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7443)),
            data_dir: PathBuf::from("quittance-data"),
            store_url: String::new(),
            store_url_file: None,
            key_ring: None,
            tokens: None,
            secrets_dir: None,
            tls_certificate: None,
            tls_key: None,
            roles: vec![RunRole::Api, RunRole::Worker, RunRole::Ledger],
            log_format: LogFormat::Text,
            processor: "Quittance".to_owned(),
            ledger: LedgerConfig::default(),
            keys: KeysConfig::default(),
            limits: ServerLimits::default(),
            dispatch: DispatchLimits::default(),
        }
    }
}

impl Config {
    /// Reads file and environment (`QUITTANCED_LISTEN`, `QUITTANCED_DISPATCH__LEASE_S`); flags are set on the result.
    pub fn load(file: Option<&std::path::Path>) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(config::File::from(file).required(true));
        }
        let environment = config::Environment::with_prefix("QUITTANCED")
            .prefix_separator("_")
            .separator("__")
            .list_separator(",")
            .with_list_parse_key("roles")
            .try_parsing(true);
        builder = builder.add_source(environment);
        let read = builder.build().and_then(config::Config::try_deserialize::<Self>);
        read.map_err(|e| ConfigError(e.to_string()))
    }

    pub fn check(&self) -> Result<(), ConfigError> {
        let tls = self.tls_certificate.is_some();
        if tls != self.tls_key.is_some() {
            return Err(ConfigError("tls_certificate and tls_key go together".to_owned()));
        }
        if !tls && !self.listen.ip().is_loopback() {
            let message = "without tls_certificate and tls_key only a loopback address is listened on: tokens and personal \
                           data would cross the network in the clear";
            return Err(ConfigError(message.to_owned()));
        }
        if !(1..=366).contains(&self.keys.epoch_days) {
            return Err(ConfigError("keys.epoch_days is between 1 and 366".to_owned()));
        }
        if self.dispatch.lease_s < 3 || self.ledger.lease_s < 2 {
            let message =
                "dispatch.lease_s is at least 3, and ledger.lease_s at least 2: a heartbeat needs a part of it";
            return Err(ConfigError(message.to_owned()));
        }
        if self.limits.package_page == 0 {
            let message = "limits.package_page is at least 1: without records a package would look empty";
            return Err(ConfigError(message.to_owned()));
        }
        if self.roles.is_empty() {
            return Err(ConfigError("roles is empty: give api, worker, ledger, or several of them".to_owned()));
        }
        Ok(())
    }

    pub fn tokens(&self) -> PathBuf {
        self.tokens.clone().unwrap_or_else(|| self.data_dir.join("tokens.toml"))
    }

    pub fn ledger_folder(&self) -> PathBuf {
        self.ledger.folder.clone().unwrap_or_else(|| self.data_dir.join("ledger"))
    }

    pub fn secrets_dir(&self) -> PathBuf {
        self.secrets_dir.clone().unwrap_or_else(|| self.data_dir.join("secrets"))
    }

    pub fn key_ring(&self) -> PathBuf {
        self.key_ring.clone().unwrap_or_else(|| self.data_dir.join("keys"))
    }

    pub fn store(&self) -> Result<StoreOptions, ConfigError> {
        let url = match &self.store_url_file {
            Some(file) => {
                let text = std::fs::read_to_string(file);
                text.map_err(|e| ConfigError(format!("{}: {e}", file.display())))?.trim().to_owned()
            }
            None if self.store_url.is_empty() => format!("sqlite:{}", self.data_dir.join("quittance.db").display()),
            None => self.store_url.clone(),
        };
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
            let message = "store_url begins with postgres://, or is empty for SQLite in data_dir";
            return Err(ConfigError(message.to_owned()));
        }
        let mut connect = ConnectOptions::new(url);
        connect.connections_max = self.limits.store_connections;
        connect.acquire_timeout = Duration::from_secs(self.limits.store_wait_s);
        Ok(StoreOptions { connect, key_ring: self.key_ring() })
    }
}
