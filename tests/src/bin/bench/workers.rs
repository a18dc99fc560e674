//! What more workers bring: 1, 2 and 4 processes of the role `worker` beside one that takes requests in and writes the log. On W1, where one
//! PostgreSQL does all the work, and on the same made slow, where workers wait for it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use quittance_api::v1;
use quittance_tests::{
    Deployment, StoreKind,
    scenario::{create_customer, register, system},
};

use crate::{
    Failure, Sizes,
    measure::{Probe, cpu, cpu_of_sessions, per_s},
    results::{Line, Machine, Reach, table, write},
    service::stream_in,
    w1::{Erasure, W1, email, map, scattered},
};

const WORKERS: [usize; 3] = [1, 2, 4];
/// Of the slow system: what each change of one table takes, whatever it changes.
const SLOW_MS: u32 = 200;
/// Subjects of the slow system, and of one of its batches: enough batches that none of the workers runs out of them.
const SLOW_SUBJECTS: u64 = 2_000;
const SLOW_BATCH: u32 = 20;

pub struct WorkersResults {
    quick: bool,
    machine: Machine,
    lines: Vec<(String, &'static str, f64)>,
}

impl WorkersResults {
    fn lines(&self) -> Vec<Line> {
        let line = |(name, about, value): &(String, &'static str, f64)| Line {
            name: name.clone(),
            about,
            value: Some(*value),
            reach: Reach::None,
        };
        self.lines.iter().map(line).collect()
    }

    pub fn table(&self) -> String {
        table(&format!("1, 2 and 4 workers; {}", self.machine.shown()), &self.lines())
    }

    pub fn write(&self, out: &Path) -> Result<(), Failure> {
        write(out, &self.lines(), self.quick, &self.machine, Vec::new())
    }
}

/// Processor time so far: of the process that takes in and writes the log, of the workers, of PostgreSQL's sessions at the store and at the
/// system, and of all of PostgreSQL.
struct Used([Duration; 5]);

struct Scene<'a> {
    w1: &'a W1,
    front: Deployment,
    workers: Vec<Deployment>,
    store: String,
}

fn database(url: &str) -> String {
    url.rsplit('/').next().unwrap_or_default().to_owned()
}

impl<'a> Scene<'a> {
    /// `batch`: subjects of one.
    async fn start(w1: &'a W1, workers: usize, batch: Option<u32>) -> Result<Self, Failure> {
        let front = Deployment::start_with(StoreKind::Postgres, &[("QUITTANCED_ROLES", "api,ledger")]).await;
        front.secret("w1", &w1.url);
        let operator = front.operator().await;
        create_customer(&operator, "w1").await;
        let limits = batch.map(|batch| v1::SystemLimits { batch_size: batch, ..v1::SystemLimits::default() });
        let map = map(Erasure::Mask, false);
        let w1_system = v1::System { limits, ..system("w1", v1::ConnectorKind::Sql, "w1", &map) };
        register(&operator, "w1", w1_system).await?;
        let mut started = Vec::with_capacity(workers);
        for _ in 0..workers {
            started.push(front.beside(&[("QUITTANCED_ROLES", "worker")]).await);
        }
        let store = database(&front.store_url());
        Ok(Self { w1, front, workers: started, store })
    }

    fn used(&self) -> Result<Used, Failure> {
        let mut workers = Duration::ZERO;
        for worker in &self.workers {
            workers += cpu(worker.pid())?;
        }
        let sessions = |database: &str| cpu_of_sessions(self.w1.postmaster(), database);
        let (store, system) = (sessions(&self.store)?, sessions(&database(&self.w1.url))?);
        Ok(Used([cpu(self.front.pid())?, workers, store, system, self.w1.cpu()?]))
    }

    /// Erases subjects `from` to `to` of the walk; gives how many a second were completed, and what a request cost.
    async fn erase(&self, from: u64, to: u64) -> Result<(f64, [f64; 5]), Failure> {
        let client = self.front.client(&self.front.customer_token("w1")).await;
        let probe = Probe::of(&self.front)?;
        let before = self.used()?;
        let begun = Instant::now();
        let created = stream_in(&client, (from..to).map(|i| email(scattered(i, self.w1.subjects)))).await?;
        probe.until_none_is_open().await?;
        let time = begun.elapsed();
        let after = self.used()?;
        let ms = |at: usize| (after.0[at] - before.0[at]).as_secs_f64() * 1000.0 / created as f64;
        probe.completed("w1", to).await?;
        Ok((per_s(created, time), std::array::from_fn(ms)))
    }
}

pub async fn workers(w1: &W1, sizes: &Sizes, quick: bool) -> Result<WorkersResults, Failure> {
    let mut lines = Vec::new();
    for count in WORKERS {
        crate::say(&format!("W1 by {count} workers"));
        w1.seed().await?;
        let scene = Scene::start(w1, count, None).await?;
        scene.erase(0, sizes.warm_up).await?;
        let (per_s, cost) = scene.erase(sizes.warm_up, w1.subjects).await?;
        w1.verify(w1.subjects, Erasure::Mask).await?;
        lines.push((format!("w1_by_{count}_per_s"), "end to end", per_s));
        let [front, workers, store, system, postgresql] = cost;
        for (what, about, ms) in [
            ("front_ms", "processor time a request: taking in, and the log", front),
            ("workers_ms", "of the workers", workers),
            ("store_ms", "of the store's sessions", store),
            ("system_ms", "of the application database's sessions", system),
            ("postgresql_ms", "of all of PostgreSQL, the writing of its log included", postgresql),
        ] {
            lines.push((format!("w1_by_{count}_{what}"), about, ms));
        }
    }
    for count in WORKERS {
        crate::say(&format!("a slow system by {count} workers"));
        w1.seed().await?;
        w1.slow_down(SLOW_MS).await?;
        let scene = Scene::start(w1, count, Some(SLOW_BATCH)).await?;
        let (per_s, _) = scene.erase(0, SLOW_SUBJECTS.min(w1.subjects)).await?;
        lines.push((format!("slow_by_{count}_per_s"), "a system that takes 200 ms to change a table", per_s));
    }
    Ok(WorkersResults { quick, machine: w1.machine().await?, lines })
}
