//! Who is large or slow keeps nobody else waiting.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::Engine;
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_MAP, email},
    scenario::{by_email, completed, create, create_customer, get, new_id, register, system},
};

fn limits(batch_size: u32) -> Option<v1::SystemLimits> {
    Some(v1::SystemLimits { batch_size, ..v1::SystemLimits::default() })
}

/// In whose tables `tenant` says whose a row is.
fn shared_crm(secret: &str) -> v1::System {
    let map = CRM_MAP.replace("    key: [id]\n", "    key: [id]\n    customer_field: tenant\n");
    let about = system("nobody", v1::ConnectorKind::Sql, secret, &map);
    v1::System { customers: Vec::new(), all_customers: true, ..about }
}

async fn create_for(operator: &Client, customer: &str, request: v1::Request) -> v1::Request {
    let parent = format!("customers/{customer}");
    let request = v1::CreateRequestRequest { request_id: new_id(), parent, request: Some(request) };
    operator.requests().create_request(request).await.unwrap().into_inner().request.unwrap()
}

async fn any_is_in_work(requests: &[(Client, String)]) -> bool {
    for (client, name) in requests {
        if get(client, name).await.tasks.iter().any(|task| task.state() == v1::TaskState::Running) {
            return true;
        }
    }
    false
}

const SLOW: u64 = 10;
/// Of each, more than a system takes at once.
const REQUESTS: u64 = 6;

/// A system of its own for each customer, all in one database whose tables somebody holds locked.
#[tokio::test]
async fn slow_systems_do_not_keep_a_fast_one_waiting() {
    // Locks are waited for a third of the lease: none of the slow batches ends meanwhile.
    let deployment = Deployment::start_with(StoreKind::Postgres, &[("QUITTANCED_DISPATCH__LEASE_S", "120")]).await;
    let operator = deployment.operator().await;
    let slow = AppDatabase::crm(Engine::Postgres, deployment.folder.path(), SLOW * REQUESTS).await;
    deployment.secret("slow", &slow.url);
    let mut clients = Vec::new();
    for n in 0..SLOW {
        let customer = format!("slow-{n}");
        create_customer(&operator, &customer).await;
        let about = system(&customer, v1::ConnectorKind::Sql, "slow", CRM_MAP);
        // One task a batch, so that each system takes all that it may.
        register(&operator, &customer, v1::System { limits: limits(1), ..about }).await.unwrap();
        clients.push(deployment.client(&deployment.customer_token(&customer)).await);
    }
    let mut lock = slow.pool.begin().await.unwrap();
    // On a busy machine it may take minutes until all have come.
    lock.execute_script("SET idle_in_transaction_session_timeout = 0").await.unwrap();
    lock.execute_script("LOCK TABLE customer IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut waiting = Vec::new();
    for (n, client) in (0..).zip(&clients) {
        for i in 0..REQUESTS {
            let request = create(client, by_email(v1::Action::Erasure, email(n * REQUESTS + i))).await.unwrap();
            waiting.push((client.clone(), request.name));
        }
    }
    let until = Instant::now() + Duration::from_secs(30);
    for of_one in waiting.chunks(usize::try_from(REQUESTS).unwrap()) {
        while !any_is_in_work(of_one).await {
            assert!(Instant::now() < until, "a system begins nothing");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    let fast = AppDatabase::crm(Engine::Sqlite, deployment.folder.path(), 5).await;
    deployment.secret("fast", &fast.url);
    create_customer(&operator, "fast").await;
    register(&operator, "fast", system("fast", v1::ConnectorKind::Sql, "fast", CRM_MAP)).await.unwrap();
    let client = deployment.client(&deployment.customer_token("fast")).await;
    let request = create(&client, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    let done = completed(&client, &request.name).await;
    assert_eq!(done.state(), v1::RequestState::Completed);
    for (client, name) in &waiting {
        let request = get(client, name).await;
        assert_eq!(request.state(), v1::RequestState::InProgress, "they wait for the lock");
        assert!(request.tasks.iter().all(|task| task.attempts <= 1), "none has given up its place: {request:?}");
    }
    lock.commit().await.unwrap();
    for (client, name) in &waiting {
        assert_eq!(completed(client, name).await.state(), v1::RequestState::Completed);
    }
}

/// A system that many customers share, whose tables somebody holds locked: more of them wait at it than a look takes in, and it would
/// take more at once than there are places.
#[tokio::test]
async fn a_slow_system_at_which_hundreds_of_customers_wait_does_not_keep_a_fast_one_waiting() {
    const CUSTOMERS: u64 = 300;
    let settings = [("QUITTANCED_DISPATCH__LEASE_S", "180"), ("QUITTANCED_LIMITS__SYSTEM_CONNECTIONS", "64")];
    let deployment = Deployment::start_with(StoreKind::Postgres, &settings).await;
    let operator = deployment.operator().await;
    let slow = AppDatabase::crm(Engine::Postgres, deployment.folder.path(), CUSTOMERS).await;
    for table in ["customer", "message"] {
        slow.pool.run_script(&format!("ALTER TABLE {table} ADD tenant VARCHAR(64)")).await.unwrap();
    }
    for (table, of_whom) in [("customer", "id"), ("message", "id / 3")] {
        slow.pool.run_script(&format!("UPDATE {table} SET tenant = 'c' || {of_whom}")).await.unwrap();
    }
    deployment.secret("slow", &slow.url);
    let shared = v1::System {
        limits: Some(v1::SystemLimits { concurrency: 64, ..v1::SystemLimits::default() }),
        ..shared_crm("slow")
    };
    register(&operator, "slow", shared).await.unwrap();
    let mut lock = slow.pool.begin().await.unwrap();
    lock.execute_script("LOCK TABLE customer IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut waiting = Vec::new();
    for n in 0..CUSTOMERS {
        let customer = format!("c{n}");
        create_customer(&operator, &customer).await;
        waiting.push(create_for(&operator, &customer, by_email(v1::Action::Erasure, email(n))).await.name);
    }

    let fast = AppDatabase::crm(Engine::Sqlite, deployment.folder.path(), 5).await;
    deployment.secret("fast", &fast.url);
    create_customer(&operator, "fast").await;
    register(&operator, "fast", system("fast", v1::ConnectorKind::Sql, "fast", CRM_MAP)).await.unwrap();
    let request = create_for(&operator, "fast", by_email(v1::Action::Erasure, email(1))).await;
    let until = Instant::now() + Duration::from_secs(20);
    let is_confirmed = |task: &v1::Task| task.system == "systems/fast" && task.state() == v1::TaskState::Confirmed;
    while !get(&operator, &request.name).await.tasks.iter().any(is_confirmed) {
        assert!(Instant::now() < until, "the fast system is not seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lock.commit().await.unwrap();
    for name in &waiting {
        assert_eq!(completed(&operator, name).await.state(), v1::RequestState::Completed);
    }
}

/// Two customers at one system: one with a great many requests, the other with one.
async fn a_bulk_does_not_keep_anothers_single_request_waiting(store: StoreKind) {
    const MANY: u64 = 1500;
    let deployment = Deployment::start(store).await;
    let operator = deployment.operator().await;
    let crm = AppDatabase::crm(Engine::Postgres, deployment.folder.path(), MANY + 1).await;
    crm.pool.run_script("ALTER TABLE customer ADD tenant VARCHAR(64) DEFAULT 'bulk'").await.unwrap();
    crm.pool.run_script("ALTER TABLE message ADD tenant VARCHAR(64) DEFAULT 'bulk'").await.unwrap();
    let single = email(MANY);
    for (table, column) in [("customer", "email"), ("message", "sender_email")] {
        let of_single = format!("UPDATE {table} SET tenant = 'single' WHERE {column} = '{single}'");
        crm.pool.run_script(&of_single).await.unwrap();
    }
    deployment.secret("crm", &crm.url);
    for customer in ["bulk", "single"] {
        create_customer(&operator, customer).await;
    }
    let shared = v1::System { limits: limits(10), ..shared_crm("crm") };
    register(&operator, "crm", shared).await.unwrap();
    let bulk = deployment.client(&deployment.customer_token("bulk")).await;
    let items = (0..MANY).map(|n| v1::BatchItem {
        number: n,
        request_id: new_id(),
        request: Some(by_email(v1::Action::Erasure, email(n))),
    });
    let items: Vec<_> = items.collect();
    let chunks: Vec<_> = items
        .chunks(500)
        .map(|chunk| v1::BatchCreateRequestsRequest { parent: String::new(), items: chunk.to_vec() })
        .collect();
    let mut acks = bulk.requests().batch_create_requests(tokio_stream::iter(chunks)).await.unwrap().into_inner();
    let mut names = Vec::new();
    while let Some(ack) = acks.message().await.unwrap() {
        assert!(ack.errors.is_empty(), "{:?}", ack.errors);
        names.extend(ack.names);
    }
    let client = deployment.client(&deployment.customer_token("single")).await;
    let request = create(&client, by_email(v1::Action::Erasure, single.clone())).await.unwrap();
    let done = completed(&client, &request.name).await;
    assert_eq!(done.state(), v1::RequestState::Completed);
    let last = get(&bulk, names.last().unwrap()).await;
    assert_eq!(last.state(), v1::RequestState::InProgress, "the bulk is still under way");
    for name in &names {
        assert_eq!(completed(&bulk, name).await.state(), v1::RequestState::Completed);
    }
}

#[tokio::test]
async fn sqlite_a_bulk_does_not_keep_anothers_single_request_waiting() {
    a_bulk_does_not_keep_anothers_single_request_waiting(StoreKind::Sqlite).await;
}

#[tokio::test]
async fn postgres_a_bulk_does_not_keep_anothers_single_request_waiting() {
    a_bulk_does_not_keep_anothers_single_request_waiting(StoreKind::Postgres).await;
}

async fn in_work(crm: &AppDatabase) -> i64 {
    let mut tx = crm.pool.begin_read().await.unwrap();
    // Those that wait for our lock, and nothing of ours.
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    tx.fetch_one(waiting, vec![]).await.unwrap().unwrap().i64(0).unwrap()
}

async fn until_in_work(crm: &AppDatabase, wanted: i64) {
    let until = Instant::now() + Duration::from_secs(30);
    while in_work(crm).await != wanted {
        assert!(Instant::now() < until, "{} batches wait for the lock, not {wanted}", in_work(crm).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What single instructions were sent.
struct Sent {
    last: Instant,
    /// At most so long the server has waited for the next.
    gap: Duration,
    stop: bool,
}

impl Sent {
    fn longest_gap(&self) -> Duration {
        self.gap.max(self.last.elapsed())
    }
}

async fn send_singles(client: Client, sent: Arc<Mutex<Sent>>) -> v1::Request {
    for n in 0.. {
        let begun = Instant::now();
        let made = create(&client, by_email(v1::Action::Erasure, email(n % 200))).await.unwrap();
        let stop = {
            let mut sent = sent.lock().unwrap();
            (sent.gap, sent.last) = (sent.longest_gap(), begun);
            sent.stop
        };
        if stop {
            return completed(&client, &made.name).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!("they come until they are stopped");
}

/// Beside single instructions, for each of which somebody waits, a bulk has one full batch in work at a system, and all that the system takes
/// when there are none.
#[tokio::test]
async fn a_bulk_makes_room_beside_single_instructions() {
    const MANY: u64 = 1000;
    let deployment = Deployment::start_with(StoreKind::Postgres, &[("QUITTANCED_DISPATCH__LEASE_S", "120")]).await;
    let operator = deployment.operator().await;
    let [crm, other] = [MANY, 200].map(|persons| AppDatabase::crm(Engine::Postgres, deployment.folder.path(), persons));
    let (crm, other) = (crm.await, other.await);
    for (customer, app) in [("bulk", &crm), ("single", &other)] {
        deployment.secret(customer, &app.url);
        create_customer(&operator, customer).await;
        let about = system(customer, v1::ConnectorKind::Sql, customer, CRM_MAP);
        register(&operator, customer, v1::System { limits: limits(100), ..about }).await.unwrap();
    }
    let single = deployment.client(&deployment.customer_token("single")).await;
    let bulk = deployment.client(&deployment.customer_token("bulk")).await;
    // The schema is read before the table is locked: while one reads it, the others wait for that.
    let first = create(&bulk, by_email(v1::Action::Erasure, "nobody@example.com")).await.unwrap();
    completed(&bulk, &first.name).await;
    let mut lock = crm.pool.begin().await.unwrap();
    lock.execute_script("SET idle_in_transaction_session_timeout = 0").await.unwrap();
    lock.execute_script("LOCK TABLE customer IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let sent = Arc::new(Mutex::new(Sent { last: Instant::now(), gap: Duration::ZERO, stop: false }));
    let singles = tokio::spawn(send_singles(single, sent.clone()));
    // Until one has come.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let item = |number| v1::BatchItem {
        number,
        request_id: new_id(),
        request: Some(by_email(v1::Action::Erasure, email(number))),
    };
    let chunk = v1::BatchCreateRequestsRequest { parent: String::new(), items: (0..MANY).map(item).collect() };
    let mut acks = bulk.requests().batch_create_requests(tokio_stream::iter([chunk])).await.unwrap().into_inner();
    let mut names = Vec::new();
    while let Some(ack) = acks.message().await.unwrap() {
        names.extend(ack.names);
    }
    for _ in 0..75 {
        let (batches, gap) = (in_work(&crm).await, sent.lock().unwrap().longest_gap());
        assert!(batches <= 1 || gap > Duration::from_millis(900), "{batches} batches beside single instructions");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sent.lock().unwrap().stop = true;
    assert_eq!(singles.await.unwrap().state(), v1::RequestState::Completed);
    // As many as a system takes, unless it says otherwise.
    until_in_work(&crm, 4).await;
    lock.commit().await.unwrap();
    for name in &names {
        assert_eq!(completed(&bulk, name).await.state(), v1::RequestState::Completed);
    }
}
