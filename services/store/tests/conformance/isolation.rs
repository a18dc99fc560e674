//! No customer sees or touches another's, through no method of the store, and on PostgreSQL not beside it either (I8).

use std::collections::{BTreeMap, BTreeSet};

use quittance_domain::{action::RestrictionGround, ids::RequestId, outcome::OutcomeKind, request::RequestState};
use quittance_store::{
    ChangeCursor, DeadlineStatement, IssuedCertificate, LeaseQuery, LeasedTask, Report, ReportResult, RequestFilter,
    StoreError,
};

use crate::{
    harness::TestStore,
    replays::{acme_bolt_and_crm, asked, matched},
    statements::by_the_case,
    world::*,
};

/// Tables that are the deployment's: small, of all customers, and reference tables on Citus. Every other one is a customer's.
pub const DEPLOYMENT_WIDE: &[&str] = &[
    "customers",
    "data_maps",
    "deployment",
    "key_epochs",
    "key_rotation",
    "ledger_checkpoints",
    "ledger_log",
    "ledger_lost",
    "ledger_tiles",
    "ready",
    "replays",
    "schema_version",
    "systems",
];

pub async fn customer_tables(t: &TestStore) -> Vec<(String, Vec<String>)> {
    let tables = t.tables().await;
    tables.into_iter().filter(|(table, _)| !DEPLOYMENT_WIDE.contains(&table.as_str())).collect()
}

/// Every row of a customer's, of every table, as text.
async fn all_rows_of(t: &TestStore, customer: &Customer) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    let mut tables = customer_tables(t).await;
    tables.push(("customers".to_owned(), ["customer_id", "agreement_version"].map(str::to_owned).to_vec()));
    tables.push(("ready".to_owned(), ["customer_id", "system_id", "ready_us", "bumps"].map(str::to_owned).to_vec()));
    for (table, columns) in tables {
        let text = if t.is_postgres() { "CAST({} AS TEXT)" } else { "quote({})" };
        let columns: Vec<_> = columns.iter().map(|c| format!("coalesce({}, '-')", text.replace("{}", c))).collect();
        let sql = format!("SELECT {} FROM {table} WHERE customer_id = $1", columns.join(" || '|' || "));
        let rows = t.rows(&sql, vec![customer.id.as_str().into()]).await;
        let mut rows: Vec<_> = rows.iter().map(|row| row.text(0).unwrap()).collect();
        rows.sort();
        all.insert(table, rows);
    }
    all
}

struct Neighbours {
    acme: Customer,
    bolt: Customer,
    crm: quittance_domain::ids::SystemId,
    /// Of `bolt`, one of each sort.
    running: LeasedTask,
    attention: RequestId,
    awaiting: RequestId,
    exported: RequestId,
    held: RequestId,
    pending: RequestId,
}

/// Both have requests about the same persons at the same system; `bolt` has one in every state, and rows in every table.
async fn neighbours(t: &TestStore) -> Neighbours {
    let (acme, bolt, crm) = acme_bolt_and_crm(t).await;
    let lease = async |intake| {
        let id = bolt.instruct(at(1), intake).await;
        let task = claim_one(t, &crm, at(2)).await;
        assert_eq!(task.key.request, id);
        task
    };
    bolt.instruct(at(1), restriction("siu", RestrictionGround::UnlawfulProcessing)).await;
    bolt.confirm_next(&crm, at(1)).await;
    let held = bolt.instruct(at(1), erasure("siu")).await;
    let exported = lease(access("exported")).await;
    let request = exported.key.request;
    t.add_records(&exported.key, exported.lease, at(2), 0, vec![(b"{}".to_vec(), true)]).await.unwrap();
    bolt.report(&exported, at(3), done(&crm)).await;
    let failed = lease(erasure("failed")).await;
    bolt.report(&failed, at(3), attention()).await;
    let running = lease(erasure("running")).await;
    t.save_match_sets(&crm, at(3), &[(&running, b"rows".to_vec())]).await.unwrap();
    let mut referred = erasure("awaiting");
    referred.referred = Some("please".to_owned());
    let awaiting = bolt.instruct(at(1), referred).await;
    t.extend_request(&bolt.id, awaiting, day(80), "customers/acme", "complex", at(2)).await.unwrap();
    t.release_package(&bolt.id, request, "customers/bolt", Some(Vec::new()), at(4)).await.unwrap();
    let issued = IssuedCertificate { content: b"signed".to_vec(), issued_at: at(4) };
    t.keep_certificate(&bolt.id, request, issued).await.unwrap();
    let pending = bolt.instruct_all(at(4), vec![access("mara"), erasure("mara")]).await[0];
    t.running_late(&bolt.id, day(200), std::time::Duration::ZERO).await.unwrap().told().await.unwrap();
    let due_at = bolt.request(pending).await.due_at;
    let overdue = DeadlineStatement { due_at, content: b"signed".to_vec(), issued_at: day(200) };
    assert!(t.keep_deadline_statement(&bolt.id, pending, &overdue).await.unwrap());
    for person in ["siu", "failed", "running", "awaiting", "mara"] {
        acme.instruct(at(5), access(person)).await;
    }
    // Until a key's destruction is on record.
    t.change("INSERT INTO key_epoch_uses (customer_id, epoch, forgotten, rewrapped) VALUES ('bolt', 7, 1, 2)").await;
    let restored = asked(&crm, at(0));
    matched(t, &restored, &[(&bolt, &[email("siu")])], at(5)).await;
    t.change(
        "INSERT INTO kept_rows (customer_id, request_id, system_id, map_version, due_us, key_epoch, wrapped_key, sealed)
         SELECT customer_id, request_id, system_id, 1, 1, '', sealed, sealed FROM match_sets WHERE customer_id = 'bolt'",
    )
    .await;
    let rows = all_rows_of(t, &bolt).await;
    assert!(rows.values().all(|rows| !rows.is_empty()), "{rows:?}");
    Neighbours { attention: failed.key.request, exported: request, acme, bolt, crm, running, awaiting, held, pending }
}

pub async fn with_one_customers_id_nothing_of_anothers_is_read(t: &TestStore) {
    let n = neighbours(t).await;
    let ids = [n.running.key.request, n.attention, n.awaiting, n.exported, n.held, n.pending];
    for id in ids {
        let found = |e: StoreError| assert!(matches!(e, StoreError::NotFound(_)), "{e}");
        found(t.request(&n.acme.id, id).await.map(|_| ()).unwrap_err());
        found(t.task_system(&n.acme.key(id, &n.crm)).await.map(|_| ()).unwrap_err());
        found(t.package_records(&n.acme.id, id, ("", -1), true, 10).await.map(|_| ()).unwrap_err());
        assert!(t.extensions(&n.acme.id, id).await.unwrap().is_empty());
        assert!(t.ledger_entries(&n.acme.id, id).await.unwrap().is_empty());
        assert_eq!(t.certificate(&n.acme.id, id).await.unwrap(), None);
        assert_eq!(t.deadline_statement(&n.acme.id, id).await.unwrap(), None);
        found(t.subject(&n.acme.id, id).await.map(|_| ()).unwrap_err());
        let package = t.package(&n.acme.id, id).await.unwrap();
        assert_eq!((package.records, package.released_at), (0, None));
    }
    let listed = t.list_requests(&n.acme.id, &RequestFilter::default(), None, 1000).await.unwrap();
    assert_eq!(listed.len(), 5);
    assert!(listed.iter().all(|row| !ids.contains(&row.id)));
    // With a place in the other's list as the page token, too.
    let listed = t.list_requests(&n.acme.id, &RequestFilter::default(), Some(n.pending), 1000).await.unwrap();
    assert!(listed.iter().all(|row| !ids.contains(&row.id)));
    let beginning = ChangeCursor::parse(if t.is_postgres() { "0.1:1:" } else { "0.n0" }).unwrap();
    let now = t.changes_now(&n.acme.id).await.unwrap();
    let changed = t.changed_requests(&n.acme.id, (&beginning, &now), None, 1000).await.unwrap();
    assert_eq!(changed.len(), 5);
    assert_eq!(t.list_agreements(&n.acme.id).await.unwrap().len(), 1);
    // Work that was found for one customer is not leased in the other's name.
    for mut ready in t.ready_work(at(100), std::slice::from_ref(&n.crm)).await.unwrap() {
        ready.customer = if ready.customer == n.acme.id { n.bolt.id.clone() } else { n.acme.id.clone() };
        let query = LeaseQuery { worker: "worker", now: at(10), expires_at: at(20), tasks_max: 100 };
        for task in t.lease(&ready, &query).await.unwrap().tasks {
            assert_eq!(task.key.customer, ready.customer);
            assert_eq!(n.acme.id == ready.customer, !ids.contains(&task.key.request));
        }
    }
}

pub async fn with_one_customers_id_nothing_of_anothers_is_changed(t: &TestStore) {
    let n = neighbours(t).await;
    let (acme, crm, now) = (&n.acme, &n.crm, at(6));
    let before = all_rows_of(t, &n.bolt).await;
    for id in [n.running.key.request, n.attention, n.awaiting, n.exported, n.held, n.pending] {
        let key = acme.key(id, crm);
        let refused = [
            acme.authorise(id, now).await,
            acme.cancel(id, now).await,
            t.decline_request(&acme.id, id, "customers/acme", "no", now).await,
            t.object_to_request(&acme.id, id, "operators/kim", "no", now).await,
            t.extend_request(&acme.id, id, day(90), "customers/acme", "no", now).await,
            t.retry_task(&key, "operators/kim", now, &as_is).await,
            t.resolve_task(&key, confirmation(crm, OutcomeKind::Unconfirmed), "operators/kim", now).await,
            t.add_records(&key, n.running.lease, now, 0, vec![(b"{}".to_vec(), false)]).await,
        ];
        for (call, result) in refused.into_iter().enumerate() {
            assert!(matches!(result, Err(StoreError::NotFound(_))), "call {call}: {result:?}");
        }
        let lease = [(id, n.running.lease)];
        assert_eq!(t.extend_leases(&acme.id, crm, &lease, now, at(900)).await.unwrap(), [id]);
        let set = vec![(id, n.running.lease, b"theirs".to_vec())];
        assert_eq!(t.save_remote_match_sets(&acme.id, crm, now, set).await.unwrap(), [id]);
        for result in [done(crm), attention(), ReportResult::Resolved(vec![user("U-1")])] {
            let report = Report { request: id, lease: n.running.lease, result };
            assert_eq!(t.report(&acme.id, crm, || now, &[report]).await.unwrap(), [id]);
        }
    }
    // Acts of the customer's own, about the same persons, and the sweep.
    acme.instruct_all(now, vec![erasure("mara"), restriction("siu", RestrictionGround::UnlawfulProcessing)]).await;
    acme.cancel(acme.instruct(now, lifting("siu")).await, now).await.unwrap();
    t.create_agreement(&acme.id, new_id(), agreement(), now).await.unwrap();
    acme.replan(now).await;
    assert_eq!(all_rows_of(t, &n.bolt).await, before);
}

/// Ids are random enough never to meet; that they do not is no part of what keeps customers apart. Here every id of `bolt`'s is also
/// one of `acme`'s, so that a statement that names the request alone would reach both.
pub async fn the_same_ids_at_two_customers_are_two_requests(t: &TestStore) {
    let n = neighbours(t).await;
    let (acme, bolt, crm, now) = (&n.acme, &n.bolt, &n.crm, at(6));
    let mut tables = customer_tables(t).await;
    // What others refer to comes first; an agreement both have.
    tables.sort_by_key(|(table, _)| table != "requests");
    for (table, columns) in tables.iter().filter(|(table, _)| table != "agreements") {
        let mine: Vec<_> = columns.iter().map(|c| if c == "customer_id" { "'acme'" } else { c.as_str() }).collect();
        let (columns, mine) = (columns.join(", "), mine.join(", "));
        t.change(&format!("INSERT INTO {table} ({columns}) SELECT {mine} FROM {table} WHERE customer_id = 'bolt'"))
            .await;
    }
    let (running, lease) = (n.running.key.request, n.running.lease);
    for id in [running, n.attention, n.awaiting, n.exported, n.held, n.pending] {
        assert_eq!(acme.tasks(id).await.len(), bolt.tasks(id).await.len());
        let extensions = t.extensions(&acme.id, id).await.unwrap();
        assert_eq!(extensions.len(), usize::from(id == n.awaiting));
        assert_eq!(t.package(&acme.id, id).await.unwrap().records, u64::from(id == n.exported));
    }
    let before = all_rows_of(t, bolt).await;
    assert!(t.extend_leases(&acme.id, crm, &[(running, lease)], now, at(900)).await.unwrap().is_empty());
    let report = Report { request: running, lease, result: done(crm) };
    assert!(t.report(&acme.id, crm, || now, &[report]).await.unwrap().is_empty());
    let ready = t.ready_work(now, std::slice::from_ref(crm)).await.unwrap();
    assert!(ready.iter().any(|ready| ready.customer == acme.id));
    t.retry_task(&acme.key(n.attention, crm), "operators/kim", now, &as_is).await.unwrap();
    t.object_to_request(&acme.id, n.attention, "operators/kim", "looks unlawful", now).await.unwrap();
    t.extend_request(&acme.id, n.attention, day(85), "customers/acme", "complex", now).await.unwrap();
    t.decline_request(&acme.id, n.attention, "customers/acme", "indeed", now).await.unwrap();
    t.decline_request(&acme.id, n.awaiting, "customers/acme", "not ours", now).await.unwrap();
    t.cancel_request(&acme.id, n.held, "customers/acme", "by mistake", now).await.unwrap();
    t.cancel_request(&acme.id, n.pending, "customers/acme", "by mistake", now).await.unwrap();
    assert_eq!(all_rows_of(t, bolt).await, before);
    // And the other way round, where rows of `acme`'s are missing by now.
    let report = Report { request: running, lease, result: attention() };
    assert!(t.report(&bolt.id, crm, || now, &[report]).await.unwrap().is_empty());
    let given_up = confirmation(crm, OutcomeKind::Unconfirmed);
    t.resolve_task(&bolt.key(running, crm), given_up, "operators/kim", now).await.unwrap();
    assert_eq!(acme.request(running).await.state, RequestState::Completed);
    assert_eq!(bolt.request(running).await.state, RequestState::CompletedWithExceptions);
}

/// What a new migration adds is distributed, too: a customer's by its customer, the deployment's to every node.
pub async fn the_distributing_migration_names_every_table(t: &TestStore) {
    let migration = include_str!("../../src/migrations/distribute.citus.sql");
    let named = |function: &str| -> BTreeSet<&str> {
        let calls = migration.lines().filter_map(|line| line.strip_prefix("SELECT ")?.strip_prefix(function));
        calls.filter_map(|call| call.split('\'').nth(1)).collect()
    };
    let customers = customer_tables(t).await;
    let customers: BTreeSet<&str> = customers.iter().map(|(table, _)| table.as_str()).collect();
    assert_eq!(named("create_distributed_table("), customers);
    assert_eq!(named("create_reference_table("), DEPLOYMENT_WIDE.iter().copied().collect());
    let by_customer = migration.lines().filter(|line| line.contains("distributed_table"));
    assert!(by_customer.into_iter().all(|line| line.contains("', 'customer_id'")));
}

pub async fn a_connection_without_settings_sees_no_row(t: &TestStore) {
    let n = neighbours(t).await;
    let tables: Vec<String> = customer_tables(t).await.into_iter().map(|(table, _)| table).collect();
    let pool = t.raw_pool();
    let mut nobody = pool.begin().await.unwrap();
    for table in &tables {
        let rows = nobody.fetch(&by_the_case(&format!("SELECT count(*) FROM {table}")), vec![]).await.unwrap();
        assert_eq!(rows[0].i64(0).unwrap(), 0, "{table}");
    }
    drop(nobody);
    for (mine, theirs) in [(&n.acme, &n.bolt), (&n.bolt, &n.acme)] {
        let setting = format!("SET LOCAL quittance.customer_id = '{}'", mine.id);
        let mut tx = pool.begin_with_settings(&setting).await.unwrap();
        for table in &tables {
            let sql = format!("SELECT count(*), count(*) FILTER (WHERE customer_id = $1) FROM {table}");
            let row = tx.fetch(&by_the_case(&sql), vec![mine.id.as_str().into()]).await.unwrap();
            assert_eq!(row[0].i64(0).unwrap(), row[0].i64(1).unwrap(), "{table}");
            let sql = format!("UPDATE {table} SET customer_id = customer_id WHERE customer_id = $1");
            assert_eq!(tx.execute(&by_the_case(&sql), vec![theirs.id.as_str().into()]).await.unwrap(), 0, "{table}");
        }
        assert!(tx.fetch(&by_the_case("SELECT 1 FROM requests"), vec![]).await.unwrap().len() >= 5);
        // Nor may a row be given to somebody else.
        let give = "UPDATE extensions SET customer_id = $1";
        let insert = "INSERT INTO extensions VALUES ($1, gen_random_uuid(), 1, '', 1)";
        for sql in [insert, give] {
            let mut tx = t.raw_pool().begin_with_settings(&setting).await.unwrap();
            tx.execute(&by_the_case(insert), vec![mine.id.as_str().into()]).await.unwrap();
            let refused = tx.execute(&by_the_case(sql), vec![theirs.id.as_str().into()]).await.unwrap_err();
            assert_eq!(refused.code, "42501");
        }
    }
}

/// One that forgets the setting would otherwise inherit it from the transaction before.
pub async fn a_setting_ends_with_its_transaction(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    acme.instruct(at(1), erasure("mara")).await;
    let pool = t.raw_pool();
    for setting in ["SET LOCAL quittance.customer_id = 'acme'", "SET LOCAL quittance.scope = 'deployment'"] {
        let mut tx = pool.begin_with_settings(setting).await.unwrap();
        assert_eq!(tx.fetch(&by_the_case("SELECT 1 FROM requests"), vec![]).await.unwrap().len(), 1);
        tx.commit().await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        assert!(tx.fetch(&by_the_case("SELECT 1 FROM requests"), vec![]).await.unwrap().is_empty());
        tx.rollback().await.unwrap();
    }
}
