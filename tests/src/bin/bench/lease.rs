//! What a claim costs, and that finished work costs it nothing: the store itself, asked as a dispatcher asks it.

use std::time::{Duration, Instant};

use quittance_domain::{Timestamp, ids::SystemId};
use quittance_sql::ConnectOptions;
use quittance_store::{LeaseQuery, Store, StoreOptions};
use quittance_tests::{Deployment, StoreKind};

use crate::{Failure, Sizes, intake::intake, measure::median, w1::as_admin};

const TASKS: u32 = 1_000;
/// Claims before those that count.
const WARM_UP: u64 = 3;

/// A customer's system is called like the customer.
const FRESH: &str = "fresh";
const AFTER: &str = "after";

/// As the service would have left them, in the shape that a claim could meet. `{customer}` had `{n}` requests.
pub const FINISHED: &str = "
INSERT INTO requests (customer_id, request_id, idempotency_id, content_mac, action, state, instruction, reference, key_epoch,
    wrapped_key, sealed_subject, agreement_version, systems_generation, open_tasks, exceptions, created_us, changed_us,
    first_due_us, due_us, closed_us)
  SELECT '{customer}', ('00000000-0000-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid, gen_random_uuid(),
    decode(repeat(md5(g::text), 2), 'hex'), 'ERASURE', 'COMPLETED', 'CUSTOMER_REQUEST', '', '1',
    decode(repeat(md5(g::text), 4), 'hex'), decode(repeat(md5(g::text), 8), 'hex'), 1, 1, 0, 0, g, g, g, g, g
  FROM generate_series(1, {n}) g;
INSERT INTO tasks (customer_id, request_id, system_id, action, work, state, map_version, attempts, lease, leased_by, run_at_us,
    reason)
  SELECT '{customer}', ('00000000-0000-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid, '{customer}', 'ERASURE', 'ACT',
    'CONFIRMED', 1, 1, 1, 'bench', g, '' FROM generate_series(1, {n}) g;
INSERT INTO match_sets (customer_id, request_id, system_id, sealed)
  SELECT '{customer}', ('00000000-0000-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid, '{customer}',
    decode(repeat(md5(g::text), 8), 'hex') FROM generate_series(1, {n}) g;";

/// Median milliseconds of a claim of a thousand tasks: in a fresh store, and in one with a million finished tasks of that customer.
pub async fn lease(sizes: &Sizes) -> Result<(f64, f64), Failure> {
    // Takes requests in, and works on none of them.
    let deployment = Deployment::start_with(StoreKind::Postgres, &[("QUITTANCED_ROLES", "api")]).await;
    let url = std::fs::read_to_string(deployment.path("store-url"))?.trim().to_owned();
    let admin = as_admin(&url)?;
    let options = StoreOptions { connect: ConnectOptions::new(url), key_ring: deployment.data().join("keys") };
    let store = Store::open(&options).await?;
    let open = (sizes.leases + WARM_UP) * u64::from(TASKS);

    intake(&deployment, FRESH, open).await?;
    admin.run_script("VACUUM ANALYZE").await?;
    admin.run_script("CHECKPOINT").await?;
    let fresh = claims(&store, FRESH, sizes.leases).await?;

    intake(&deployment, AFTER, open).await?;
    let finished = FINISHED.replace("{customer}", AFTER).replace("{n}", &sizes.finished.to_string());
    admin.run_script(&finished).await?;
    admin.run_script("VACUUM ANALYZE").await?;
    admin.run_script("CHECKPOINT").await?;
    let after = claims(&store, AFTER, sizes.leases).await?;
    store.close().await;
    admin.close().await;
    Ok((fresh, after))
}

async fn claims(store: &Store, system: &str, count: u64) -> Result<f64, Failure> {
    let systems = [SystemId::new(system)?];
    let mut times = Vec::new();
    for claim in 0..count + WARM_UP {
        let begun = Instant::now();
        let now = Timestamp::now();
        let ready = store.ready_work(now, &systems).await?.into_iter().next().ok_or("no work is ready")?;
        let expires_at = now.checked_add(Duration::from_secs(3600))?;
        let query = LeaseQuery { worker: "bench", now, expires_at, tasks_max: TASKS };
        let leased = store.lease(&ready, &query).await?.tasks.len();
        if claim >= WARM_UP {
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        if leased != TASKS as usize {
            return Err(format!("a claim of {TASKS} tasks got {leased}").into());
        }
    }
    Ok(median(times))
}
