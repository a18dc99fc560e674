//! Who is large or slow keeps nobody else waiting.

use std::time::{Duration, Instant};

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
