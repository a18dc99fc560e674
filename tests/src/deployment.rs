//! A whole deployment: `quittanced` as a process of its own, with a data folder, tokens and secrets. It can be killed and started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use quittance_client::Client;
use quittance_sql::{ConnectOptions, Pool};
use tempfile::TempDir;
use uuid::Uuid;

use crate::port::Port;

/// Where the store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreKind {
    Sqlite,
    Postgres,
}

const CONFIG: &str = "quittanced.toml";

pub struct Deployment {
    pub folder: TempDir,
    program: PathBuf,
    port: Port,
    server: Option<Child>,
    operator: String,
    settings: Vec<(String, String)>,
}

/// A binary of this workspace, built by `cargo build --workspace` before the tests run.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.ancestors().find(|p| p.join(name).is_file()).unwrap_or_else(|| {
        panic!("{name} is not built: run `make test`, or `cargo build --workspace` first");
    });
    folder.join(name)
}

/// The URL of a test server; without it, a test that needs one fails and says how to get it.
pub fn test_server(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run `tests/with-servers.sh cargo test …`"))
}

/// A new database on the test PostgreSQL, owned by a role without rights beyond it, so that row-level security applies.
pub async fn postgres_database() -> String {
    let admin = test_server("QUITTANCE_TEST_POSTGRES_URL");
    let name = format!("q{}", Uuid::now_v7().simple());
    let pool = Pool::open(&ConnectOptions::new(admin.clone())).unwrap();
    pool.run_script(&format!("CREATE ROLE {name} LOGIN")).await.unwrap();
    pool.run_script(&format!("CREATE DATABASE {name} OWNER {name}")).await.unwrap();
    pool.close().await;
    let host = admin.split('@').nth(1).and_then(|h| h.split('/').next()).expect("the URL has a host");
    format!("postgres://{name}@{host}/{name}")
}

impl Deployment {
    pub async fn start(store: StoreKind) -> Self {
        Self::start_with(store, &[]).await
    }

    /// As [`Self::start_with`], with a configuration file for what no variable can say.
    pub async fn start_configured(store: StoreKind, settings: &[(&str, &str)], toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG), toml).unwrap();
        Self::start_in(binary("quittanced"), folder, store, settings).await
    }

    /// `settings`: environment of the server, as `QUITTANCED_DISPATCH__LEASE_S`.
    pub async fn start_with(store: StoreKind, settings: &[(&str, &str)]) -> Self {
        Self::start_by(binary("quittanced"), store, settings).await
    }

    /// By another build of the server.
    pub async fn start_by(program: PathBuf, store: StoreKind, settings: &[(&str, &str)]) -> Self {
        Self::start_in(program, tempfile::tempdir().unwrap(), store, settings).await
    }

    /// Another replica, of this build: on this one's store, with its keys, tokens and secrets.
    pub async fn beside(&self, settings: &[(&str, &str)]) -> Self {
        let at = |name: &str| self.path(name).display().to_string();
        let shared = [
            ("QUITTANCED_STORE_URL_FILE", at("store-url")),
            ("QUITTANCED_KEY_RING", at("data/keys")),
            ("QUITTANCED_LEDGER__FOLDER", at("data/ledger")),
            ("QUITTANCED_TOKENS", at("data/tokens.toml")),
            ("QUITTANCED_SECRETS_DIR", at("data/secrets")),
        ];
        let shared = shared.iter().map(|(name, value)| (*name, value.as_str()));
        let settings: Vec<(&str, &str)> = shared.chain(settings.iter().copied()).collect();
        // Its own SQLite is never made: it is told of this one's store.
        Self::start_with(StoreKind::Sqlite, &settings).await
    }

    async fn start_in(program: PathBuf, folder: TempDir, store: StoreKind, settings: &[(&str, &str)]) -> Self {
        fs::create_dir_all(folder.path().join("data/secrets")).unwrap();
        let mut settings: Vec<(String, String)> =
            settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        if store == StoreKind::Postgres {
            let file = folder.path().join("store-url");
            fs::write(&file, postgres_database().await).unwrap();
            settings.push(("QUITTANCED_STORE_URL_FILE".to_owned(), file.display().to_string()));
        }
        let mut deployment =
            Self { folder, program, port: Port::hold(), server: None, operator: String::new(), settings };
        deployment.operator = deployment.token(&["--name", "ops", "--role", "operator"]);
        deployment.launch().await;
        deployment
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `quittanced` on this deployment's folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if self.path(CONFIG).exists() {
            command.arg("--config").arg(self.path(CONFIG));
        }
        command.env("QUITTANCE_LOG", std::env::var("QUITTANCE_LOG").unwrap_or_else(|_| "info".to_owned()));
        command.envs(self.settings.iter().map(|(k, v)| (k, v)));
        command.arg("--data-dir").arg(self.path("data"));
        command.arg("--listen").arg(self.port.address());
        command
    }

    /// Makes a token as an operator would.
    pub fn token(&self, about: &[&str]) -> String {
        let made = self.command().args(["token", "add"]).args(about).output().unwrap();
        assert!(made.status.success(), "token add: {}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    pub fn customer_token(&self, customer: &str) -> String {
        self.token(&["--name", "erp", "--role", "customer", "--customer", customer])
    }

    pub fn connector_token(&self, system: &str) -> String {
        self.token(&["--name", system, "--role", "connector", "--system", system])
    }

    /// Starts the server, and waits until it answers.
    pub async fn launch(&mut self) {
        assert!(self.server.is_none(), "one is running");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("server.log")).unwrap();
        let child = self.command().stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.server = Some(child);
        let until = Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(self.port.address()).await.is_err() {
            let ended = self.server.as_mut().and_then(|c| c.try_wait().unwrap());
            assert!(ended.is_none(), "the server ended: {}", self.log());
            assert!(Instant::now() < until, "the server does not answer: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub const fn is_running(&self) -> bool {
        self.server.is_some()
    }

    /// SIGKILL: no drain, no goodbye.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.server.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and gives how long the drain took.
    pub async fn terminate(&mut self) -> Duration {
        let mut child = self.server.take().expect("one is running");
        let begun = Instant::now();
        let sent = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        while child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not stop: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    /// Of the running server.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("one is running").id()
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// The service's own store, from beside it.
    pub fn store_url(&self) -> String {
        let file = fs::read_to_string(self.path("store-url"));
        file.unwrap_or_else(|_| format!("sqlite:{}", self.data().join("quittance.db").display()))
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Mounts a secret, as an operator would.
    pub fn secret(&self, name: &str, url: &str) {
        fs::write(self.data().join("secrets").join(name), url).unwrap();
    }

    pub async fn client(&self, token: &str) -> Client {
        Client::connect(&self.endpoint(), token).await.unwrap()
    }

    pub async fn operator(&self) -> Client {
        self.client(&self.operator).await
    }

    pub fn operator_token(&self) -> &str {
        &self.operator
    }

    /// Starts the sample worker for a remote system, on files below `root`.
    pub fn file_worker(&self, system: &str, token: &str, root: &Path, extra: &[&str]) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("worker.log")).unwrap();
        Command::new(binary("quittance-file-worker"))
            .args(["--endpoint", &self.endpoint(), "--system", system, "--name", "worker-1"])
            .arg("--root")
            .arg(root)
            .args(extra)
            .env("QUITTANCE_TOKEN", token)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            for line in tail.iter().rev() {
                eprintln!("quittanced: {line}");
            }
        }
    }
}
