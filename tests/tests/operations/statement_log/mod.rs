//! One PostgreSQL can become a cluster that is spread by customer (docs/scaling.md): what its statement log says of two customers' work, from
//! intake to forgetting, keeps the rules for that. A transaction touches rows of one customer, and each of its statements says of which; those
//! that touch several are a named list.

mod log;
mod rules;

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::{ConnectOptions, Engine, Pool};
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_MAP, SHOP_MAP, email},
    deployment::test_server,
    scenario::{
        agreement, by_email, certificate, completed, create, create_customer, new_id, rectify, register, system,
        wait_for,
    },
};

use crate::scene::{QUICK, erase, remote};
use log::transactions;
use rules::{CROSSINGS, Rules};

/// In no other word that is ever sent.
const CUSTOMERS: [&str; 2] = ["quill", "harbour"];
const SUBJECTS: u64 = 30;

/// A server on a PostgreSQL that logs each statement of its database.
async fn logged() -> (Deployment, String) {
    let mut deployment = Deployment::start_with(StoreKind::Postgres, QUICK).await;
    let database = deployment.store_url().rsplit_once('/').expect("a database's URL").1.to_owned();
    let admin = Pool::open(&ConnectOptions::new(test_server("QUITTANCE_TEST_POSTGRES_URL"))).unwrap();
    admin.run_script(&format!("ALTER DATABASE {database} SET log_statement = 'all'")).await.unwrap();
    admin.close().await;
    // It holds for who connects from now on.
    deployment.terminate().await;
    deployment.launch().await;
    (deployment, database)
}

struct Scene {
    deployment: Deployment,
    operator: Client,
    customers: [Client; 2],
    _apps: Vec<AppDatabase>,
}

/// Each customer has a system of its own that yields, and one that needs what it yields; nothing of theirs is agreed to be kept for long.
async fn scene(deployment: Deployment) -> Scene {
    let operator = deployment.operator().await;
    let mut apps = Vec::new();
    for (n, customer) in CUSTOMERS.into_iter().enumerate() {
        create_customer(&operator, customer).await;
        let signed = v1::CreateAgreementRequest {
            request_id: new_id(),
            parent: format!("customers/{customer}"),
            agreement: Some(v1::Agreement { retention_days: Some(0), ..agreement() }),
        };
        operator.customers().create_agreement(signed).await.unwrap();
        let folder = deployment.path(&format!("app{n}"));
        fs::create_dir(&folder).unwrap();
        let crm = AppDatabase::crm(Engine::Sqlite, &folder, SUBJECTS).await;
        let shop = AppDatabase::shop(Engine::Sqlite, &folder, SUBJECTS).await;
        for (name, app, map) in [("crm", crm, CRM_MAP), ("shop", shop, SHOP_MAP)] {
            let name = format!("{name}{n}");
            deployment.secret(&name, &app.url);
            register(&operator, &name, system(customer, v1::ConnectorKind::Sql, &name, map)).await.unwrap();
            apps.push(app);
        }
    }
    let [quill, harbour] = CUSTOMERS.map(|customer| deployment.customer_token(customer));
    let customers = [deployment.client(&quill).await, deployment.client(&harbour).await];
    Scene { deployment, operator, customers, _apps: apps }
}

/// Whatever a customer does with its requests, from the first to the certificate.
async fn instructs(operator: &Client, customer: &Client, name: &str) -> String {
    let names = erase(customer, 0..8).await;
    let access = create(customer, by_email(v1::Action::Access, email(10))).await.unwrap().name;
    let who = by_email(v1::Action::Access, email(11)).identifiers;
    let corrected = create(customer, rectify(who, ("customer", "name"), "Name 11", "Named")).await.unwrap().name;
    let ground = v1::RestrictionGround::AccuracyContested.into();
    let restrict = v1::Request { restriction_ground: ground, ..by_email(v1::Action::Restriction, email(12)) };
    let restricted = create(customer, restrict).await.unwrap().name;
    let informed = Some(prost_types::Timestamp { seconds: 1_760_000_000, nanos: 0 });
    let lift = v1::Request { subject_informed_time: informed, ..by_email(v1::Action::LiftRestriction, email(12)) };
    let lifted = create(customer, lift).await.unwrap().name;
    let again = create(customer, by_email(v1::Action::Erasure, email(0))).await.unwrap().name;
    let refer = v1::ReferRequestRequest {
        request_id: new_id(),
        parent: format!("customers/{name}"),
        request: Some(by_email(v1::Action::Erasure, email(13))),
        words: "Please".to_owned(),
    };
    let referred = operator.requests().refer_request(refer).await.unwrap().into_inner().request.unwrap().name;
    customer.requests().authorise_request(v1::AuthoriseRequestRequest { name: referred.clone() }).await.unwrap();
    let preview =
        v1::PreviewRequestRequest { parent: String::new(), request: Some(by_email(v1::Action::Erasure, email(14))) };
    customer.requests().preview_request(preview).await.unwrap();

    for request in names.iter().chain([&access, &corrected, &restricted, &lifted, &referred]) {
        completed(customer, request).await;
    }
    // Nothing leads to who is erased: a person looks, and lets it run again.
    let attention = |task: &&v1::Task| task.state() == v1::TaskState::NeedsAttention;
    let again = wait_for(customer, &again, |request| request.tasks.iter().any(|task| attention(&task))).await;
    let task = again.tasks.iter().find(attention).expect("it was seen").name.clone();
    operator.requests().retry_task(v1::RetryTaskRequest { name: task }).await.unwrap();
    let package = format!("{access}/package");
    let review = v1::ReviewPackageRequest { name: package.clone(), withhold_third_party: false };
    // Only where it holds somebody else's data, too.
    let _ = customer.packages().review_package(review).await;
    let mut parts = customer
        .packages()
        .download_package(v1::DownloadPackageRequest { name: package, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    while parts.message().await.unwrap().is_some() {}
    certificate(customer, &names[0], "en").await;
    let list = v1::ListConfirmationsRequest { parent: names[0].clone() };
    customer.evidence().list_confirmations(list).await.unwrap();
    customer
        .evidence()
        .get_interim_statement(v1::GetInterimStatementRequest { name: access, ..Default::default() })
        .await
        .unwrap();
    names[0].clone()
}

/// At a system that both share, and that is registered while there are requests.
async fn decides(scene: &Scene, customer: &Client) {
    let [mistake, unlawful, late, open] =
        [20, 21, 22, 23].map(|n| create(customer, by_email(v1::Action::Erasure, email(n))));
    let (mistake, unlawful) = (mistake.await.unwrap().name, unlawful.await.unwrap().name);
    let (late, open) = (late.await.unwrap(), open.await.unwrap().name);
    let cancel = v1::CancelRequestRequest { name: mistake, reason: "by mistake".to_owned() };
    // Unless its first task has begun.
    let _ = customer.requests().cancel_request(cancel).await;
    let object = v1::ObjectToRequestRequest { name: unlawful.clone(), reason: "looks unlawful".to_owned() };
    scene.operator.requests().object_to_request(object).await.unwrap();
    let decline = v1::DeclineRequestRequest { name: unlawful, reason: "indeed".to_owned() };
    customer.requests().decline_request(decline).await.unwrap();
    let due_time = late.due_time.map(|due| prost_types::Timestamp { seconds: due.seconds + 86_400, ..due });
    let extend = v1::ExtendRequestRequest { name: late.name, due_time, reason: "complex".to_owned() };
    customer.requests().extend_request(extend).await.unwrap();
    let watch = v1::WatchRequestsRequest::default();
    let mut changes = customer.requests().watch_requests(watch).await.unwrap().into_inner();
    changes.message().await.unwrap();
    customer.requests().list_requests(v1::ListRequestsRequest::default()).await.unwrap();
    let _ = open;
}

async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What operators do: a customer's data comes back by a restore, keys are turned over.
async fn operates(scene: &Scene, erased: &str) {
    let operator = &scene.operator;
    let ask = v1::ReplayErasuresRequest {
        request_id: new_id(),
        system: "systems/crm0".to_owned(),
        snapshot_time: Some(std::time::SystemTime::now().into()),
        ..Default::default()
    };
    let replay = operator.systems().replay_erasures(ask).await.unwrap().into_inner().replay.unwrap().name;
    until("the replay ends", || async {
        let get = v1::GetReplayRequest { name: replay.clone() };
        let replay = operator.systems().get_replay(get).await.unwrap().into_inner().replay.unwrap();
        replay.state() == v1::ReplayState::Completed
    })
    .await;
    operator.keys().rotate_keys(v1::RotateKeysRequest {}).await.unwrap();
    wait_for(&scene.customers[0], erased, |request| request.forget_time.is_some()).await;
    until("the old epoch is destroyed", || async {
        let epochs = operator.keys().list_key_epochs(v1::ListKeyEpochsRequest {}).await.unwrap().into_inner().epochs;
        epochs.len() == 2 && epochs[1].state() == v1::KeyEpochState::Logged
    })
    .await;
    operator.customers().list_customers(v1::ListCustomersRequest::default()).await.unwrap();
}

/// Tables whose rows each say of which customer they are.
async fn customers_tables(store: &Pool) -> Vec<String> {
    let sql = "SELECT table_name::text FROM information_schema.columns
               WHERE table_schema = 'public' AND column_name = 'customer_id' ORDER BY 1";
    let rows = store.begin().await.unwrap().fetch(sql, vec![]).await.unwrap();
    rows.iter().map(|row| row.text(0).unwrap()).collect()
}

const PLANTED: &str = "/* planted */";

/// A statement, and the customer that is its argument.
type Sent = (String, Option<&'static str>);

/// Transactions as none may be: each must be objected to, or this test sees nothing.
async fn plant(store: &Pool) -> usize {
    let of_one = "SET LOCAL quittance.customer_id = 'quill'";
    let of_all = "SET LOCAL quittance.scope = 'deployment'";
    let touch = format!("UPDATE requests SET urgency = urgency WHERE customer_id = $1 {PLANTED}");
    let planted: [(&str, &[Sent]); 6] = [
        (of_all, &[(touch.clone(), Some("quill")), (touch.clone(), Some("harbour"))]),
        (of_one, &[(touch.clone(), Some("quill")), (touch.clone(), Some("harbour"))]),
        (of_one, &[(format!("UPDATE requests SET urgency = urgency {PLANTED}"), None)]),
        (of_all, &[(format!("SELECT count(*) FROM tasks {PLANTED}"), None)]),
        (
            of_one,
            &[(
                format!(
                    "SELECT 1 FROM tasks t JOIN requests r ON r.request_id = t.request_id WHERE t.customer_id = $1 {PLANTED}"
                ),
                Some("quill"),
            )],
        ),
        ("SELECT 1", &[(touch, Some("quill"))]),
    ];
    for (setting, statements) in planted {
        let mut tx = store.begin_with_settings(setting).await.unwrap();
        for (sql, customer) in statements {
            tx.execute(sql, customer.iter().map(|name| (*name).into()).collect()).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
    planted.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_transaction_is_of_one_customer_but_for_those_that_are_named() {
    let (deployment, database) = logged().await;
    let mut scene = scene(deployment).await;
    let [quill, harbour] = &scene.customers;
    let (erased, _) = tokio::join!(
        instructs(&scene.operator, quill, CUSTOMERS[0]),
        instructs(&scene.operator, harbour, CUSTOMERS[1])
    );
    let both = CUSTOMERS.map(|name| v1::SystemCustomer { customer: format!("customers/{name}"), key: String::new() });
    let shared = v1::System { customers: both.into(), ..remote("print") };
    register(&scene.operator, "print", shared).await.unwrap();
    tokio::join!(decides(&scene, quill), decides(&scene, harbour));
    let worker = scene.deployment.client(&scene.deployment.connector_token("print")).await;
    let ask =
        v1::LeaseTasksRequest { system: "systems/print".to_owned(), worker: "w".to_owned(), ..Default::default() };
    for _ in 0..2 {
        worker.connectors().lease_tasks(ask.clone()).await.unwrap();
    }
    operates(&scene, &erased).await;
    scene.deployment.terminate().await;

    let store = Pool::open(&ConnectOptions::new(scene.deployment.store_url())).unwrap();
    let tables = customers_tables(&store).await;
    let planted = plant(&store).await;
    store.close().await;
    let log = fs::read(test_server("QUITTANCE_TEST_POSTGRES_LOG")).unwrap();
    let transactions = transactions(&String::from_utf8_lossy(&log), &database);

    let rules = Rules { tables: &tables, customers: &CUSTOMERS };
    let (mut crossed, mut touched, mut found) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut alone = [0; CUSTOMERS.len()];
    let mut objections = Vec::new();
    for transaction in &transactions {
        touched.extend(transaction.statements.iter().flat_map(|statement| rules.touched(statement)));
        match (rules.objection(transaction), rules.crossings(transaction)) {
            (None, _) => {
                let named = rules.named(transaction);
                for (n, customer) in CUSTOMERS.iter().enumerate() {
                    alone[n] += usize::from(named == [*customer]);
                }
            }
            (Some(_), _) if transaction.statements.iter().any(|s| s.sql.contains(PLANTED)) => found += 1,
            (Some(_), Some(crossings)) => crossed.extend(crossings.into_iter().map(|crossing| crossing.says)),
            (Some(objection), None) => objections.push(objection),
        }
    }
    objections.sort();
    objections.dedup();
    assert!(objections.is_empty(), "{} sorts of transactions:\n\n{}", objections.len(), objections.join("\n\n"));
    assert_eq!(found, planted, "what was planted is seen");
    assert!(alone.iter().all(|count| *count > 100), "{alone:?} transactions of one customer");
    let unused = CROSSINGS.iter().filter(|crossing| !crossed.contains(crossing.says));
    let unused: Vec<String> = unused.map(|crossing| format!("{} ({})", crossing.says, crossing.why)).collect();
    assert!(unused.is_empty(), "named, and never seen: {unused:#?}");
    let untouched: Vec<&String> = tables.iter().filter(|table| !touched.contains(*table)).collect();
    assert!(untouched.is_empty(), "nothing was sent about {untouched:?}");
}
