//! The day a hold ends, by a clock of the test's own: what was held goes, whoever the person is by then, and nothing else does.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use quittance_connectors::{Connector, ConnectorError, sql::SqlConnector};
use quittance_dispatch::{
    Clock, ClockTrust, ConnectorFactory, ConnectorRegistry, DispatchLimits, Dispatcher, EndsOfHolds, KeyKeeper,
    TopologyCache,
};
use quittance_domain::{
    Timestamp,
    action::Action,
    agreement::Agreement,
    country::Country,
    data_map::{DataMap, MapKind},
    identifier::{Identifier, IdentifierKind},
    ids::{CustomerId, IdempotencyId, RequestId, SystemId},
    request::{NewRequest, RequestState},
    system::{ConnectorKind, Registration, System, SystemLimits, SystemRole, SystemScope},
    task::TaskState,
};
use quittance_sql::{ConnectOptions, Pool};
use quittance_store::{CustomerRow, Intake, IntakeContext, NewCustomer, RequestFilter, Store, StoreOptions, Taken};
use quittance_tests::deployment::postgres_database;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const MAP: &str = "
version: 1
max_rows_per_subject: 100
collections:
  customer:
    key: [id]
    identifiers:
      - {kind: email, field: email}
    fields: {email: email}
    erase: mask
  orders:
    key: [id]
    owned_by:
      - {collection: customer, fields: {customer_id: id}}
    fields: {iban: financial}
    erase: delete
    restriction: {field: restricted, set: '1', clear: '0'}
    retain: {ground: books, anchor: booked_on, counted_from: end_of_year, period: P7Y}
  tickets:
    key: [id]
    identifiers:
      - {kind: email, field: email}
    fields:
      email: email
      text: message
    erase: delete
    restriction: {field: restricted, set: '1', clear: '0'}
    retain: {ground: claims, anchor: closed_on, counted_from: date, period: P3Y}
";

const SEED: &str = "
CREATE TABLE customer (id INTEGER PRIMARY KEY, email TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customer (id), iban TEXT, booked_on TEXT, restricted TEXT);
CREATE TABLE tickets (id INTEGER PRIMARY KEY, email TEXT, text TEXT, closed_on TEXT, restricted TEXT);
INSERT INTO customer VALUES (1, 'mara@example.com'), (2, 'noor@example.com');
INSERT INTO orders VALUES (1, 1, 'NL1', '2024-05-01', '0'), (2, 1, 'NL2', '2026-05-01', '0'), (3, 2, 'NL3', '2024-05-01', '0');
INSERT INTO tickets VALUES (1, 'mara@example.com', 'broken', '2025-06-01', '0'), (2, 'noor@example.com', 'late', '2025-06-01', '0');";

struct Hands(Mutex<Timestamp>);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

struct Target(String);

#[async_trait]
impl ConnectorFactory for Target {
    async fn connector(&self, _: &System, map: Arc<DataMap>) -> Result<Arc<dyn Connector>, ConnectorError> {
        let pool = Pool::open(&ConnectOptions::new(self.0.clone())).unwrap();
        Ok(Arc::new(SqlConnector::open(pool, DataMap::clone(&map))))
    }
}

struct Scene {
    _folder: TempDir,
    store: Store,
    clock: Arc<Hands>,
    topology: Arc<TopologyCache>,
    acme: CustomerRow,
    target: Pool,
    drain: CancellationToken,
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn new_id() -> IdempotencyId {
    IdempotencyId::new(Uuid::new_v4())
}

async fn scene(postgres: bool) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let url = match postgres {
        true => postgres_database().await,
        false => format!("sqlite:{}", folder.path().join("store.db").display()),
    };
    let options = StoreOptions { connect: ConnectOptions::new(url), key_ring: folder.path().join("keys") };
    let store = Store::open(&options).await.unwrap();
    let target = format!("sqlite:{}", folder.path().join("target.db").display());
    let pool = Pool::open(&ConnectOptions { create: true, ..ConnectOptions::new(target.clone()) }).unwrap();
    pool.run_script(SEED).await.unwrap();
    let now = time("2026-11-22T09:00:00Z");
    let clock = Arc::new(Hands(Mutex::new(now)));
    let agreement = Agreement {
        version: 1,
        signed_at: time("2026-01-01T00:00:00Z"),
        window_days: 30,
        retention_days: 30,
        time_zone: "Europe/Amsterdam".to_owned(),
        allowed_countries: BTreeSet::from([Country::parse("NL").unwrap()]),
        contacts: Vec::new(),
        facts: Default::default(),
        recipients: Vec::new(),
    };
    let id = CustomerId::new("acme").unwrap();
    let new = NewCustomer { id, idempotency: new_id(), display_name: "Acme".to_owned(), agreement };
    let acme = store.create_customer(new, now).await.unwrap();
    let map = DataMap::parse(MAP, MapKind::Sql).unwrap();
    let registration = Registration {
        id: SystemId::new("erp").unwrap(),
        display_name: "erp".to_owned(),
        role: SystemRole::StorageBackend,
        country: Country::parse("NL").unwrap(),
        connector: ConnectorKind::Sql,
        connection_secret: Some("erp".to_owned()),
        scope: SystemScope::Customers([(acme.id.clone(), "acme".to_owned())].into()),
        accepts: BTreeSet::from([IdentifierKind::Email]),
        yields: BTreeSet::new(),
        settle_after_s: 0,
        backup_retention_s: 0,
        grace_period_s: 0,
        limits: SystemLimits::default(),
    };
    let system = System { registration, map_version: 1, map: Arc::new(map) };
    store.register_system(&system, MAP, new_id(), now).await.unwrap();
    let topology = Arc::new(TopologyCache::new(store.clone(), Duration::from_millis(100)));
    let connectors = Arc::new(ConnectorRegistry::new(Arc::new(Target(target))));
    let drain = CancellationToken::new();
    let limits = DispatchLimits { poll_ms: 50, ..DispatchLimits::default() };
    let dispatcher =
        Dispatcher::new(store.clone(), clock.clone(), limits, topology.clone(), connectors, "worker".to_owned());
    tokio::spawn(dispatcher.run(drain.clone()));
    Scene { _folder: folder, store, clock, topology, acme, target: pool, drain }
}

impl Scene {
    /// What runs beside the dispatcher, for as long as a case needs it.
    fn keep_watch(&self) {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let holds = EndsOfHolds::new(
            store.clone(),
            clock.clone(),
            self.topology.clone(),
            Duration::from_millis(50),
            ClockTrust::default(),
        );
        tokio::spawn(holds.run(self.drain.clone()));
        let keeper = KeyKeeper::new(store, clock, ClockTrust::default());
        tokio::spawn(keeper.forget("keeper".to_owned(), Duration::from_secs(7 * 86_400), self.drain.clone()));
    }

    fn set(&self, now: &str) {
        *self.clock.0.lock().unwrap() = time(now);
    }

    async fn erase(&self, email: &str) -> RequestId {
        self.instruct(email, |identifiers| NewRequest::plain(Action::Erasure, identifiers)).await
    }

    async fn instruct(&self, email: &str, request: impl FnOnce(Vec<Identifier>) -> NewRequest) -> RequestId {
        let topology = self.topology.get().await.unwrap();
        let ctx = IntakeContext {
            customer: &self.acme.id,
            by: "test",
            now: self.clock.now(),
            agreement: &self.acme.agreement,
            topology: &topology,
        };
        let identifiers = vec![Identifier::normalise(IdentifierKind::Email, email).unwrap()];
        let sent = Intake { idempotency: new_id(), request: request(identifiers), referred: None };
        let taken = self.store.create_requests(&ctx, &[sent]).await.unwrap().pop().unwrap().unwrap();
        let Taken::Created(id) = taken else { panic!("it is new") };
        id
    }

    async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What came of the request, once it is closed: outcome, collection and count of each line.
    async fn outcomes(&self, id: RequestId) -> Vec<String> {
        let look = async || {
            let (request, mut tasks) = self.store.request(&self.acme.id, id).await.unwrap();
            (request.state == RequestState::Completed).then(|| tasks.remove(0).confirmation.unwrap().0.outcomes)
        };
        let outcomes = self.until("it is not completed", look).await;
        let line = |o: &quittance_domain::outcome::Outcome| format!("{} {} {}", o.outcome, o.collection, o.count);
        outcomes.iter().map(line).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The request that was made when a hold ended.
    async fn follow_up(&self, of: RequestId) -> RequestId {
        let look = async || {
            let all = self.store.list_requests(&self.acme.id, &RequestFilter::default(), None, 100).await.unwrap();
            all.into_iter().find(|request| request.follows == Some(of)).map(|request| request.id)
        };
        self.until("nothing follows", look).await
    }

    async fn ids(&self, table: &str) -> Vec<i64> {
        let mut tx = self.target.begin_read().await.unwrap();
        let rows = tx.fetch(&format!("SELECT id FROM {table} ORDER BY id"), vec![]).await.unwrap();
        rows.iter().map(|row| row.i64(0).unwrap()).collect()
    }
}

async fn what_is_held_goes_on_its_day(postgres: bool) {
    let s = scene(postgres).await;
    let first = s.erase("mara@example.com").await;
    let said = s.outcomes(first).await;
    assert_eq!(said, ["ERASED customer 1", "RETAINED orders 2", "RETAINED tickets 1"]);
    assert_eq!((s.ids("orders").await, s.ids("tickets").await), (vec![1, 2, 3], vec![1, 2]));
    // Everything that tells who it was goes, and is destroyed.
    s.set("2027-01-10T00:00:00Z");
    s.keep_watch();
    let forgotten = async || s.store.request(&s.acme.id, first).await.unwrap().0.forgotten_at;
    s.store.ask_for_rotation().await.unwrap();
    s.until("it is not forgotten", forgotten).await;
    // Years later Mara is a customer again.
    s.target
        .run_script(
            "INSERT INTO customer VALUES (7, 'mara@example.com');
             INSERT INTO orders VALUES (7, 7, 'NL7', '2028-01-01', '0'); INSERT INTO tickets VALUES (7, 'mara@example.com', 'thanks', '2028-01-01', '0')",
        )
        .await
        .unwrap();
    // The ticket's three years end first, in Amsterdam.
    s.set("2028-06-01T21:59:00Z");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(s.ids("tickets").await, [1, 2, 7]);
    s.set("2028-06-02T00:00:00Z");
    let second = s.follow_up(first).await;
    assert_eq!(s.outcomes(second).await, ["ERASED tickets 1", "RETAINED orders 2"]);
    let about = s.store.subject(&s.acme.id, second).await.unwrap().unwrap();
    assert!(about.instructed().is_empty(), "it names nobody: its certificate has no subject opening");
    assert_eq!((s.ids("orders").await, s.ids("tickets").await), (vec![1, 2, 3, 7], vec![2, 7]));
    // Then the books of 2024, then those of 2026.
    s.set("2032-01-02T00:00:00Z");
    let third = s.follow_up(second).await;
    assert_eq!(s.outcomes(third).await, ["ERASED orders 1", "RETAINED orders 1"]);
    assert_eq!(s.ids("orders").await, [2, 3, 7]);
    s.set("2034-01-02T00:00:00Z");
    let fourth = s.follow_up(third).await;
    assert_eq!(s.outcomes(fourth).await, ["ERASED orders 1"]);
    assert_eq!((s.ids("orders").await, s.ids("tickets").await), (vec![3, 7], vec![2, 7]));
    assert_eq!(s.ids("customer").await, [1, 2, 7]);
    assert_eq!(s.outcomes(first).await, said, "what was confirmed stands");
    // Nothing follows any more, and the last of it is forgotten in its time.
    s.set("2034-03-01T00:00:00Z");
    let all = s.store.list_requests(&s.acme.id, &RequestFilter::default(), None, 100).await.unwrap();
    assert_eq!(all.len(), 4);
    s.store.ask_for_rotation().await.unwrap();
    let last = async || s.store.request(&s.acme.id, fourth).await.unwrap().0.forgotten_at;
    s.until("the last is not forgotten", last).await;
    s.drain.cancel();
}

/// What was held while the database was one customer's own, by a map that does not say whose a row is.
async fn what_is_held_by_such_a_map_goes_to_a_person_once_others_share_the_system(postgres: bool) {
    let s = scene(postgres).await;
    let first = s.erase("mara@example.com").await;
    s.outcomes(first).await;
    for table in ["customer", "tickets"] {
        s.target.run_script(&format!("ALTER TABLE {table} ADD COLUMN tenant TEXT DEFAULT 'acme'")).await.unwrap();
    }
    let shared =
        MAP.replace("    key: [id]\n    identifiers", "    key: [id]\n    customer_field: tenant\n    identifiers");
    let (system, map) = (SystemId::new("erp").unwrap(), DataMap::parse(&shared, MapKind::Sql).unwrap());
    s.store.update_data_map(&system, &shared, &map, new_id(), s.clock.now()).await.unwrap();
    let bolt = CustomerId::new("bolt").unwrap();
    s.store.add_customers(&system, &[(bolt, "bolt".to_owned())].into()).await.unwrap();
    s.keep_watch();
    s.set("2028-06-02T00:00:00Z");
    let second = s.follow_up(first).await;
    let waits = async || {
        let (_, tasks) = s.store.request(&s.acme.id, second).await.unwrap();
        (tasks[0].state == TaskState::NeedsAttention).then(|| tasks[0].reason.clone())
    };
    let reason = s.until("nobody is asked to look", waits).await;
    assert!(reason.contains("does not say whose a row is"), "{reason}");
    assert_eq!(s.ids("tickets").await, [1, 2], "nothing is touched");
    s.drain.cancel();
}

#[tokio::test]
async fn sqlite_what_is_held_by_such_a_map_goes_to_a_person() {
    what_is_held_by_such_a_map_goes_to_a_person_once_others_share_the_system(false).await;
}

/// Whoever is a customer again may have a restriction lifted; what the erasure of before holds stays restricted.
async fn what_is_held_stays_restricted(postgres: bool) {
    let s = scene(postgres).await;
    s.outcomes(s.erase("mara@example.com").await).await;
    // The retention of this one runs as well, and no erasure holds it.
    s.target
        .run_script("INSERT INTO tickets VALUES (7, 'mara@example.com', 'thanks', '2026-01-01', '1')")
        .await
        .unwrap();
    let lift = async || {
        let informed = s.clock.now();
        s.instruct("mara@example.com", |identifiers| NewRequest {
            subject_informed_at: Some(informed),
            ..NewRequest::plain(Action::LiftRestriction, identifiers)
        })
        .await
    };
    assert_eq!(s.outcomes(lift().await).await, ["RESTRICTION_LIFTED tickets 1"]);
    assert_eq!(s.ids("tickets WHERE restricted = '1'").await, [1]);
    assert_eq!(s.ids("orders WHERE restricted = '1'").await, [1, 2]);
    // With nothing else there, nobody is told that something was lifted.
    s.target.run_script("DELETE FROM tickets WHERE id = 7").await.unwrap();
    let second = lift().await;
    let reason = async || {
        let (_, tasks) = s.store.request(&s.acme.id, second).await.unwrap();
        (tasks[0].state == TaskState::NeedsAttention).then(|| tasks[0].reason.clone())
    };
    let reason = s.until("it needs nobody", reason).await;
    assert!(reason.contains("held by an erasure"), "{reason}");
    assert_eq!(s.ids("tickets WHERE restricted = '1'").await, [1]);
    s.drain.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_what_is_held_stays_restricted() {
    what_is_held_stays_restricted(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_what_is_held_stays_restricted() {
    what_is_held_stays_restricted(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_what_is_held_goes_on_its_day() {
    what_is_held_goes_on_its_day(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_what_is_held_goes_on_its_day() {
    what_is_held_goes_on_its_day(true).await;
}
