//! How soon a server is ready on a store of a million finished requests, on either engine.

use std::time::{Duration, Instant};

use quittance_tests::{Deployment, StoreKind, scenario::create_customer};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    Failure, Sizes,
    lease::FINISHED,
    measure::median,
    w1::{as_admin, patient},
};

const CUSTOMER: &str = "finished";
const STARTS: usize = 5;

/// The same rows as on PostgreSQL, in SQLite's words.
const FINISHED_IN_SQLITE: &str = "
INSERT INTO requests (customer_id, request_id, idempotency_id, content_mac, action, state, instruction, reference, key_epoch,
    wrapped_key, sealed_subject, agreement_version, systems_generation, open_tasks, exceptions, created_us, changed_us,
    first_due_us, due_us, closed_us)
  WITH RECURSIVE s(g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM s WHERE g < {n})
  SELECT '{customer}', unhex('00000000000070008000' || printf('%012x', g)), randomblob(16), randomblob(32), 'ERASURE', 'COMPLETED',
    'CUSTOMER_REQUEST', '', '1', randomblob(64), randomblob(128), 1, 1, 0, 0, g, g, g, g, g FROM s;
INSERT INTO tasks (customer_id, request_id, system_id, action, work, state, map_version, attempts, lease, leased_by, run_at_us, reason)
  WITH RECURSIVE s(g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM s WHERE g < {n})
  SELECT '{customer}', unhex('00000000000070008000' || printf('%012x', g)), '{customer}', 'ERASURE', 'ACT', 'CONFIRMED', 1, 1, 1,
    'bench', g, '' FROM s;
INSERT INTO match_sets (customer_id, request_id, system_id, sealed)
  WITH RECURSIVE s(g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM s WHERE g < {n})
  SELECT '{customer}', unhex('00000000000070008000' || printf('%012x', g)), '{customer}', randomblob(128) FROM s;";

/// Median milliseconds from the start of the process until it says that it serves.
pub async fn startup(sizes: &Sizes, store: StoreKind) -> Result<f64, Failure> {
    let mut deployment = Deployment::start(store).await;
    create_customer(&deployment.operator().await, CUSTOMER).await;
    deployment.terminate().await;
    match store {
        StoreKind::Postgres => {
            let admin = as_admin(&deployment.store_url())?;
            admin.run_script(&filled(FINISHED, sizes.finished)).await?;
            admin.close().await;
        }
        StoreKind::Sqlite => {
            let pool = quittance_sql::Pool::open(&patient(deployment.store_url()))?;
            pool.run_script(&filled(FINISHED_IN_SQLITE, sizes.finished)).await?;
            pool.close().await;
        }
    }
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        deployment.launch().await;
        until_it_serves(&deployment).await?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        deployment.terminate().await;
    }
    Ok(median(times))
}

fn filled(sql: &str, count: u64) -> String {
    sql.replace("{customer}", CUSTOMER).replace("{n}", &count.to_string())
}

async fn until_it_serves(deployment: &Deployment) -> Result<(), Failure> {
    let channel = tonic::transport::Endpoint::new(deployment.endpoint())?.connect().await?;
    let mut health = HealthClient::new(channel);
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let said = health.check(HealthCheckRequest::default()).await?.into_inner();
        if said.status() == ServingStatus::Serving {
            return Ok(());
        }
        if Instant::now() > until {
            return Err("it does not become ready".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
