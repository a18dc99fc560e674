//! What every run is begun with, made once a process: an empty store at this build's schema, keys, and a folder in memory.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use quittance_sequencer::LogKeyRing;
use quittance_sql::ConnectOptions;
use quittance_store::{Store, StoreOptions};
use tempfile::TempDir;

use crate::world::at;

pub struct Depot {
    folder: TempDir,
    pub log_keys: Arc<LogKeyRing>,
}

/// A log of its own, that no deployment has.
const ORIGIN: &str = "simulation.invalid/log";

const KEYS: [&str; 2] = ["epoch-1.key", "pseudonym-1.key"];

/// Memory, where the machine has a folder for it: what a run writes is thrown away.
fn in_memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

impl Depot {
    /// Not from within a runtime: it needs one of its own.
    pub fn get() -> &'static Self {
        static DEPOT: OnceLock<Depot> = OnceLock::new();
        DEPOT.get_or_init(Self::make)
    }

    #[expect(clippy::expect_used, reason = "without it there is nothing to simulate")]
    fn make() -> Self {
        let folder = tempfile::Builder::new().prefix("quittance-sim.").tempdir_in(in_memory()).expect("a folder");
        fs::DirBuilder::new().mode(0o700).create(keys(folder.path())).expect("a folder for keys");
        // The same in every run: what is ordered by a pseudonym is ordered alike.
        for (name, byte) in KEYS.into_iter().zip([1_u8, 2]) {
            use std::io::Write as _;
            let file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(keys(folder.path()).join(name));
            file.expect("a key").write_all(&[byte; 32]).expect("a key");
        }
        let log_keys = LogKeyRing::open(&folder.path().join("log"), ORIGIN, None, at(Default::default(), 0));
        let depot = Self { log_keys: Arc::new(log_keys.expect("the log's keys")), folder };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = Store::open(&Self::options(depot.folder.path())).await.expect("an empty store");
            store.begin_log(ORIGIN).await.expect("a log");
            store.close().await;
        });
        depot
    }

    /// A folder for one run, with an empty store in it, and keys, which come and go as it goes.
    pub fn run_folder(&self) -> std::io::Result<TempDir> {
        let folder = tempfile::Builder::new().prefix("run.").tempdir_in(self.folder.path())?;
        fs::copy(store_file(self.folder.path()), store_file(folder.path()))?;
        fs::DirBuilder::new().mode(0o700).create(keys(folder.path()))?;
        for name in KEYS {
            fs::copy(keys(self.folder.path()).join(name), keys(folder.path()).join(name))?;
        }
        Ok(folder)
    }

    /// How the store in a folder is opened.
    pub fn options(folder: &Path) -> StoreOptions {
        // Of the machine's clock: long enough that no stopped or sleeping machine makes a run go another way.
        let acquire_timeout = Duration::from_secs(3600);
        let url = url(&store_file(folder));
        let connect = ConnectOptions { connections_max: 1, acquire_timeout, ..ConnectOptions::new(url) };
        StoreOptions { connect, key_ring: keys(folder) }
    }
}

/// Where a folder's keys are.
pub fn keys(folder: &Path) -> PathBuf {
    folder.join("keys")
}

pub fn store_file(folder: &Path) -> PathBuf {
    folder.join("store.db")
}

pub fn url(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}
