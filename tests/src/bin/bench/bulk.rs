//! A million erasures of one customer by one stream, which a SIGKILL of the server cuts in the middle; another customer's single requests
//! meanwhile; and what memory does.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quittance_api::v1;
use quittance_client::{
    Client,
    bulk::{BulkOptions, BulkReport, create_requests},
};
use quittance_sql::Pool;
use quittance_tests::{
    Deployment, StoreKind,
    deployment::postgres_database,
    scenario::{by_email, completed, create_customer, new_id, register, system},
};
use tokio::task::JoinHandle;

use crate::{
    Failure, Sizes,
    measure::{Probe, memory_mb, peak_memory_mb, per_s},
    results::{Line, Machine, Reach, table, write},
    w1::{W1, as_admin, number, patient},
};

/// The customer who sends all those, and the one who sends now and then.
const LARGE: &str = "large";
const SMALL: &str = "small";

const MAP: &str = "
version: 1
max_rows_per_subject: 10
collections:
  person:
    key: [id]
    identifiers: [{kind: email, field: email, match: exact}]
    fields: {email: email, name: display_name, phone: phone}
    erase: mask
";

const SEED: &str = "
CREATE TABLE person (id bigint PRIMARY KEY, email text, name text, phone text);
INSERT INTO person SELECT n, 'p' || n || '@example.com', 'Name ' || n, '+4670' || lpad(n::text, 7, '0') FROM generate_series(1, {n}) n;
CREATE INDEX person_email ON person (email);
VACUUM ANALYZE person;";

/// Of the small customer: requests a second, at most one at a time.
const BESIDE_PER_S: u64 = 20;
/// Every so many of them are followed until they are completed.
const FOLLOWED: u64 = 20;

#[derive(Default)]
pub struct BulkResults {
    quick: bool,
    machine: Machine,
    requests: u64,
    lines: Vec<(&'static str, &'static str, f64, Reach)>,
    store: Vec<(&'static str, serde_json::Value)>,
}

impl BulkResults {
    fn lines(&self) -> Vec<Line> {
        let line = |(name, about, value, reach): &(&'static str, &'static str, f64, Reach)| Line {
            name: (*name).to_owned(),
            about,
            value: Some(*value),
            reach: *reach,
        };
        self.lines.iter().map(line).collect()
    }

    pub fn table(&self) -> String {
        let ran = format!("{} erasures of one customer by stream; {}", self.requests, self.machine.shown());
        let mut table = table(&ran, &self.lines());
        for (what, found) in &self.store {
            table.push_str(&format!("{what}: {found}\n"));
        }
        table
    }

    pub fn write(&self, out: &Path) -> Result<(), Failure> {
        write(out, &self.lines(), self.quick, &self.machine, self.store.clone())
    }
}

struct App {
    url: String,
    pool: Pool,
}

async fn app(persons: u64) -> Result<App, Failure> {
    let url = postgres_database().await;
    let pool = Pool::open(&patient(url.clone()))?;
    for statement in SEED.replace("{n}", &persons.to_string()).split(';').filter(|sql| !sql.trim().is_empty()) {
        pool.run_script(statement).await?;
    }
    Ok(App { url, pool })
}

async fn customer(deployment: &Deployment, name: &str, app: &App) -> Result<Client, Failure> {
    deployment.secret(name, &app.url);
    let operator = deployment.operator().await;
    create_customer(&operator, name).await;
    register(&operator, name, system(name, v1::ConnectorKind::Sql, name, MAP)).await?;
    Ok(deployment.client(&deployment.customer_token(name)).await)
}

/// The stream of all of them.
fn stream(client: Client, count: u64, answered: Arc<AtomicU64>) -> JoinHandle<Result<BulkReport, Failure>> {
    tokio::spawn(async move {
        let item = |number| v1::BatchItem {
            number,
            request_id: new_id(),
            request: Some(by_email(v1::Action::Erasure, format!("p{number}@example.com"))),
        };
        let items = futures::stream::iter((1..=count).map(item));
        let options = BulkOptions { chunk_size: 1000, ..BulkOptions::default() };
        let told = |_: &_, report: &BulkReport| answered.store(report.answered(), Ordering::Relaxed);
        Ok(create_requests(&client, "", items, &options, told).await?)
    })
}

#[derive(Default)]
struct Beside {
    created_ms: Vec<f64>,
    completed_s: Vec<f64>,
    /// While the server was being started again.
    failed: u64,
}

/// The small customer's requests, one after the other, until it is told to stop.
fn beside(client: Client, go: Arc<AtomicBool>, stop: Arc<AtomicBool>) -> JoinHandle<Beside> {
    tokio::spawn(async move {
        let mut found = Beside::default();
        let mut followed = Vec::new();
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_micros(1_000_000 / BESIDE_PER_S)).await;
            if !go.load(Ordering::Relaxed) {
                continue;
            }
            number += 1;
            let request = v1::CreateRequestRequest {
                request_id: new_id(),
                parent: String::new(),
                request: Some(by_email(v1::Action::Erasure, format!("p{number}@example.com"))),
            };
            let begun = Instant::now();
            match client.requests().create_request(request).await {
                Ok(made) => {
                    found.created_ms.push(begun.elapsed().as_secs_f64() * 1000.0);
                    if number % FOLLOWED == 0 {
                        let (client, name) = (client.clone(), made.into_inner().request.unwrap_or_default().name);
                        followed.push(tokio::spawn(async move {
                            completed(&client, &name).await;
                            begun.elapsed().as_secs_f64()
                        }));
                    }
                }
                Err(_) => found.failed += 1,
            }
        }
        for end in followed {
            // One that was not completed in its time has panicked: that is no figure but a failure.
            found.completed_s.push(end.await.expect("a single request is completed beside a bulk"));
        }
        found
    })
}

/// Waits until so many are answered; gives the time that the stream was at it, and how many it was.
async fn until(answered: &AtomicU64, wanted: u64) -> (Instant, u64) {
    loop {
        let now = answered.load(Ordering::Relaxed);
        if now >= wanted {
            return (Instant::now(), now);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn nth(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    // Counts are far below 2^52.
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

pub async fn bulk(w1: &W1, sizes: &Sizes, quick: bool) -> Result<BulkResults, Failure> {
    let count = sizes.bulk;
    crate::say("seeding");
    let (large_app, small_app) = (app(count).await?, app(100_000).await?);
    let mut deployment = Deployment::start(StoreKind::Postgres).await;
    let large = customer(&deployment, LARGE, &large_app).await?;
    let small = customer(&deployment, SMALL, &small_app).await?;
    let probe = Probe::of(&deployment)?;
    let (answered, go, stop) =
        (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());

    let begun = Instant::now();
    let sender = stream(large, count, answered.clone());
    let single = beside(small, go.clone(), stop.clone());
    // A stretch alone, and the next one beside the small customer's.
    let a = until(&answered, count / 20).await;
    let b = until(&answered, count / 5).await;
    go.store(true, Ordering::Relaxed);
    let c = until(&answered, count * 7 / 20).await;
    let early_mb = memory_mb(deployment.pid())?;
    let before_mb = peak_memory_mb(deployment.pid())?;
    crate::say(&format!("  {} taken in after {:.0} s; the server is killed", c.1, begun.elapsed().as_secs_f64()));
    go.store(false, Ordering::Relaxed);
    deployment.kill();
    deployment.launch().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    go.store(true, Ordering::Relaxed);
    let report = sender.await??;
    let taken_in = begun.elapsed();
    crate::say(&format!("  all taken in after {:.0} s, {} cut(s)", taken_in.as_secs_f64(), report.cuts));
    if report.answered() != count || report.failed > 0 {
        return Err(format!("{report:?}").into());
    }
    probe.until_none_of_is_open(LARGE).await?;
    let time = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    let single = single.await?;
    probe.completed(LARGE, count).await?;
    let left =
        number(&large_app.pool, "SELECT count(*) FROM person WHERE num_nonnulls(email, name, phone) > 0").await?;
    if left != 0 {
        return Err(format!("{left} persons are not erased").into());
    }
    let late_mb = memory_mb(deployment.pid())?;
    let peak_mb = peak_memory_mb(deployment.pid())?.max(before_mb);
    let client_mb = peak_memory_mb(std::process::id())?;
    let url = std::fs::read_to_string(deployment.path("store-url"))?;
    let store = store(&as_admin(url.trim())?).await?;
    let (alone, together) = (per_s(b.1 - a.1, b.0 - a.0), per_s(c.1 - b.1, c.0 - b.0));
    let lines = vec![
        ("bulk_per_s", "end to end, with the cut", per_s(count, time), Reach::None),
        ("bulk_taken_in_s", "until the last was acknowledged", taken_in.as_secs_f64(), Reach::None),
        ("bulk_cuts", "streams that were cut and went on", f64::from(report.cuts), Reach::AtLeast(1.0)),
        ("intake_alone_per_s", "acknowledged while nobody else asks", alone, Reach::None),
        ("intake_beside_per_s", "the same beside the small customer's requests", together, Reach::None),
        ("intake_kept", "the one over the other", together / alone, Reach::AtLeast(0.6)),
        ("create_ms_median", "CreateRequest of the small customer", nth(single.created_ms.clone(), 0.5), Reach::None),
        ("create_ms_p99", "the same", nth(single.created_ms.clone(), 0.99), Reach::Below(50.0)),
        ("completed_s_median", "its requests completed after", nth(single.completed_s.clone(), 0.5), Reach::None),
        ("completed_s_most", "the same, at most", nth(single.completed_s.clone(), 1.0), Reach::Below(5.0)),
        ("requests_beside", "of the small customer", single.created_ms.len() as f64, Reach::None),
        ("requests_refused", "of the small customer, at the restart", single.failed as f64, Reach::None),
        ("server_rss_mb_early", "the server's memory after a third", early_mb, Reach::None),
        ("server_rss_mb_late", "and at the end", late_mb, Reach::None),
        ("server_rss_mb_peak", "its peak", peak_mb, Reach::Below(150.0)),
        ("client_rss_mb_peak", "the sender's peak", client_mb, Reach::None),
    ];
    large_app.pool.close().await;
    small_app.pool.close().await;
    Ok(BulkResults { quick, machine: w1.machine().await?, requests: count, lines, store })
}

/// What a bulk leaves behind in the store.
async fn store(admin: &Pool) -> Result<Vec<(&'static str, serde_json::Value)>, Failure> {
    let mut tables = Vec::new();
    let mut tx = admin.begin_read().await?;
    let sql = "SELECT relname::text, n_live_tup, n_dead_tup, autovacuum_count, pg_total_relation_size(relid) / 1048576
               FROM pg_stat_user_tables WHERE n_live_tup + n_dead_tup > 1000 ORDER BY pg_total_relation_size(relid) DESC";
    for row in tx.fetch(sql, Vec::new()).await? {
        tables.push(serde_json::json!({
            "table": row.text(0)?, "live": row.i64(1)?, "dead": row.i64(2)?, "autovacuums": row.i64(3)?, "mb": row.i64(4)?,
        }));
    }
    Ok(vec![("store_tables", tables.into())])
}
