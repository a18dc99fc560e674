//! The store's PostgreSQL server: one of our own, that can be killed and started again on the same data.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use quittance_sql::{ConnectOptions, Pool};
use quittance_tests::{
    deployment::test_server,
    port::Port,
    servers::{as_user, give_to, init_postgres},
};

use crate::{
    Failure,
    process::{Process, children, signal},
};

pub struct Postgres {
    pub port: Port,
    pub process: Arc<Process>,
}

impl Postgres {
    /// In a folder that its user may write into.
    pub async fn start(folder: &Path) -> Result<Self, Failure> {
        let programs = PathBuf::from(test_server("QUITTANCE_TEST_POSTGRES_BIN"));
        let home = folder.join("postgres");
        fs::create_dir_all(&home)?;
        give_to("postgres", &home);
        let data = home.join("data");
        init_postgres(&data);
        let port = Port::hold();
        let number = port.to_string();
        let server = programs.join("postgres");
        let process = Process::new("postgres".to_owned(), folder.join("postgres.log"), move || {
            let mut command = as_user("postgres", &server);
            // What is durable is durable: no setting is weaker than its default.
            command.arg("-D").arg(&data).args(["-p", &number, "-c", "listen_addresses=127.0.0.1"]);
            command.arg("-c").arg(format!("unix_socket_directories={}", home.display()));
            command.args(["-c", "max_connections=200"]);
            command
        });
        let postgres = Self { port, process };
        postgres.process.start()?;
        postgres.ready().await?;
        let admin = Pool::open(&ConnectOptions::new(postgres.url("admin", "postgres")))?;
        admin.run_script("CREATE ROLE quittance LOGIN").await?;
        admin.run_script("CREATE DATABASE quittance OWNER quittance").await?;
        admin.close().await;
        Ok(postgres)
    }

    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    pub async fn ready(&self) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let pool = Pool::open(&ConnectOptions::new(self.url("admin", "postgres")))?;
            let answered = pool.run_script("SELECT 1").await;
            pool.close().await;
            match answered {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn processes(&self) -> Vec<u32> {
        let server = self.process.pid();
        server.into_iter().flat_map(|pid| [vec![pid], children(pid)].concat()).collect()
    }

    /// All of its processes at once, as when the machine goes.
    pub fn kill(&self) -> Result<(), Failure> {
        self.process.kill(&self.processes())
    }

    /// One connection's process: the server then throws out all the others, and recovers.
    pub fn kill_backend(&self) -> Result<(), Failure> {
        let serves = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("postgres: quittance")
        };
        let backend = self.process.pid().into_iter().flat_map(children).find(serves);
        signal("KILL", backend.as_slice())
    }

    pub fn stop(&self) -> Result<(), Failure> {
        signal("STOP", &self.processes())
    }

    pub fn go_on(&self) -> Result<(), Failure> {
        signal("CONT", &self.processes())
    }
}
