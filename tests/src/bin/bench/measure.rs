//! What is read from outside: the clock, the process table, the store's database.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use quittance_sql::Pool;
use quittance_tests::Deployment;

use crate::{
    Failure,
    w1::{as_admin, number, patient},
};

pub fn per_s(count: u64, time: Duration) -> f64 {
    // Counts are far below 2^53.
    count as f64 / time.as_secs_f64()
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn process(pid: u32, file: &str) -> Result<String, Failure> {
    Ok(std::fs::read_to_string(PathBuf::from("/proc").join(pid.to_string()).join(file))?)
}

/// The most that the process ever held.
pub fn peak_memory_mb(pid: u32) -> Result<f64, Failure> {
    memory(pid, "VmHWM:")
}

/// What it holds now.
pub fn memory_mb(pid: u32) -> Result<f64, Failure> {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, which: &str) -> Result<f64, Failure> {
    let status = process(pid, "status")?;
    let line = status.lines().find_map(|l| l.strip_prefix(which)).ok_or("the process says nothing of its memory")?;
    let kb: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kb / 1024.0)
}

/// User and system time of a process, and of its children that have ended.
struct Times {
    parent: u32,
    own: Duration,
    ended_children: Duration,
}

fn times(pid: u32) -> Result<Times, Failure> {
    // Linux counts in hundredths of a second here, whatever the kernel was built with.
    const TICK: Duration = Duration::from_millis(10);
    let stat = process(pid, "stat")?;
    // The name in brackets may hold blanks; what follows it are numbers, but for the state.
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no name")?.1.split_whitespace().collect();
    let field = |at: usize| -> Result<u32, Failure> { Ok(fields.get(at).ok_or("no times")?.parse()?) };
    Ok(Times {
        parent: field(1)?,
        own: TICK * (field(11)? + field(12)?),
        ended_children: TICK * (field(13)? + field(14)?),
    })
}

/// Processor time of a process so far.
pub fn cpu(pid: u32) -> Result<Duration, Failure> {
    Ok(times(pid)?.own)
}

/// Processor time of a process and its children so far: of PostgreSQL, by its first process.
pub fn cpu_of_family(pid: u32) -> Result<Duration, Failure> {
    let first = times(pid)?;
    let own = first.own + first.ended_children;
    Ok(children(pid)?.map(|(_, times)| times.own + times.ended_children).fold(own, |sum, one| sum + one))
}

/// Processor time so far of the sessions at one database of a PostgreSQL that are open now, by its first process.
pub fn cpu_of_sessions(pid: u32, database: &str) -> Result<Duration, Failure> {
    let mut sum = Duration::ZERO;
    for (child, times) in children(pid)? {
        // A session's title is `postgres: user database host(port) state`.
        let title = process(child, "cmdline").unwrap_or_default();
        if title.split(' ').nth(2) == Some(database) {
            sum += times.own;
        }
    }
    Ok(sum)
}

/// A process's children that are there. One that ends while we look is counted by its parent next time.
fn children(pid: u32) -> Result<impl Iterator<Item = (u32, Times)>, Failure> {
    let listed = std::fs::read_dir("/proc")?.filter_map(Result::ok);
    let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids.filter_map(|child| Some((child, times(child).ok()?))).filter(move |(_, times)| times.parent == pid))
}

/// The first process of the PostgreSQL that serves a session of this process.
pub fn parent(pid: u32) -> Result<u32, Failure> {
    Ok(times(pid)?.parent)
}

/// Looks into a deployment's store past the service.
pub struct Probe {
    pool: Pool,
}

/// How long nothing may complete before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of long runs.
const TELL_EVERY: Duration = Duration::from_secs(15);

impl Probe {
    pub fn of(deployment: &Deployment) -> Result<Self, Failure> {
        let pool = match std::fs::read_to_string(deployment.path("store-url")) {
            Ok(url) => as_admin(url.trim())?,
            Err(_) => {
                let file = deployment.data().join("quittance.db");
                Pool::open(&patient(format!("sqlite:{}", file.display())))?
            }
        };
        Ok(Self { pool })
    }

    /// Waits until no request is open, looking often enough at the end to be right by some milliseconds.
    pub async fn until_none_is_open(&self) -> Result<(), Failure> {
        self.until_none_of_is_open("%").await
    }

    /// As that, of one customer.
    pub async fn until_none_of_is_open(&self, customer: &str) -> Result<(), Failure> {
        let count = format!("SELECT count(*) FROM requests WHERE closed_us IS NULL AND customer_id LIKE '{customer}'");
        let mut told = Instant::now();
        let (mut fewest, mut moved) = (i64::MAX, Instant::now());
        loop {
            let open = number(&self.pool, &count).await?;
            if told.elapsed() > TELL_EVERY {
                crate::say(&format!("  {open} are open"));
                told = Instant::now();
            }
            if open == 0 {
                return Ok(());
            }
            if open < fewest {
                (fewest, moved) = (open, Instant::now());
            }
            if moved.elapsed() > PATIENCE {
                let troubled = "SELECT count(*) FROM tasks WHERE state = 'NEEDS_ATTENTION'";
                let troubled = number(&self.pool, troubled).await?;
                return Err(format!("{open} requests stay open, {troubled} tasks need attention").into());
            }
            // While many are open, counting them costs the database something, and the end is far.
            let wait = u64::try_from(open)? / 40;
            tokio::time::sleep(Duration::from_millis(wait.clamp(10, if open > 100_000 { 2_000 } else { 250 }))).await;
        }
    }

    /// Fails unless so many requests of the customer's were completed by a confirmation that something was done.
    pub async fn completed(&self, customer: &str, count: u64) -> Result<(), Failure> {
        let sql = format!(
            "SELECT count(*) FROM requests r JOIN confirmations c ON c.customer_id = r.customer_id AND c.request_id = r.request_id
             WHERE r.customer_id LIKE '{customer}' AND r.state = 'COMPLETED' AND c.body LIKE '%\"ERASED\"%'"
        );
        let found = number(&self.pool, &sql).await?;
        if u64::try_from(found)? == count {
            return Ok(());
        }
        Err(format!("{found} of {count} requests are COMPLETED with rows erased").into())
    }
}
