//! A MariaDB that is cut, slow, locked or killed in the middle: tried again, never confirmed before it is so, and then with exact counts.

use std::time::{Duration, Instant};

use quittance_api::v1;
use quittance_connectors::{BatchContext, Connector as _, ConnectorError, MatchSet, Subject, sql::SqlConnector};
use quittance_domain::{
    Timestamp,
    action::Action,
    data_map::{DataMap, MapKind},
    identifier::{Identifier, IdentifierKind},
    ids::CustomerId,
    system::SystemScope,
};
use quittance_sql::{ConnectOptions, Engine, Pool, Val};
use quittance_tests::{
    AppDatabase, StoreKind,
    app_database::{CRM_ERASED, CRM_MAP, email},
    scenario::{by_email, completed, create, get, outcomes, wait_for},
    servers::OwnServer,
};

use crate::scene::{SUBJECTS, Scene, erase};

/// A change of these rows takes so long.
async fn slow_down(pool: &Pool, which: &str, seconds: u32) {
    let trigger = format!(
        "CREATE TRIGGER slow BEFORE UPDATE ON customer FOR EACH ROW BEGIN IF {which} THEN DO SLEEP({seconds}); END IF; END"
    );
    pool.run_script(&trigger).await.unwrap();
}

/// No change is slow any more. Waits for whoever is at one.
async fn speed_up(pool: &Pool) {
    let until = Instant::now() + Duration::from_secs(60);
    while let Err(error) = pool.run_script("DROP TRIGGER IF EXISTS slow").await {
        assert!(Instant::now() < until, "{error}");
    }
}

/// Connections that are in the middle of changing rows of this database.
async fn changing(pool: &Pool) -> Vec<i64> {
    let sql = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist
               WHERE db = database() AND id <> connection_id() AND state = 'User sleep'";
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let mut tx = pool.begin_read().await.unwrap();
        let rows = tx.fetch(sql, Vec::<Val>::new()).await.unwrap();
        if !rows.is_empty() {
            return rows.iter().map(|row| row.i64(0).unwrap()).collect();
        }
        assert!(Instant::now() < until, "nothing is being changed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn tried(request: &v1::Request) -> bool {
    let task = &request.tasks[0];
    assert!(task.confirmation.is_none(), "confirmed though it is not so: {request:#?}");
    // The next attempt may begin at once.
    task.attempts > 1 || (task.state() == v1::TaskState::Pending && !task.reason.is_empty())
}

async fn all_done(s: &Scene, crm: &AppDatabase, names: &[String]) {
    for name in names {
        let done = completed(&s.acme, name).await;
        assert_eq!(
            (done.state(), outcomes(&done)),
            (v1::RequestState::Completed, CRM_ERASED.map(str::to_owned).to_vec())
        );
    }
    let (n, erased) = (SUBJECTS as i64, names.len() as i64);
    assert_eq!(crm.count("SELECT count(*) FROM customer WHERE email IS NULL AND name = 'erased'").await, erased);
    assert_eq!(
        crm.count("SELECT count(*) FROM customer WHERE email IS NOT NULL AND remark IS NOT NULL").await,
        n - erased
    );
    assert_eq!(crm.count("SELECT count(*) FROM address").await, 2 * (n - erased), "every neighbour is whole");
    assert_eq!(crm.count("SELECT count(*) FROM message WHERE body IS NULL").await, 3 * erased);
    assert_eq!(crm.count("SELECT count(*) FROM message WHERE body IS NOT NULL").await, 3 * (n - erased));
}

#[tokio::test]
async fn a_connection_that_is_cut_in_the_middle_of_a_change_is_tried_again() {
    let (s, crm) = Scene::with_crm(StoreKind::Sqlite, Engine::MySql, CRM_MAP).await;
    slow_down(&crm.pool, "TRUE", 2).await;
    let names = erase(&s.acme, 0..4).await;
    for connection in changing(&crm.pool).await {
        crm.pool.run_script(&format!("KILL CONNECTION {connection}")).await.unwrap();
    }
    wait_for(&s.acme, &names[0], tried).await;
    // Waits until the cut transaction is rolled back, and for whoever tries again meanwhile.
    speed_up(&crm.pool).await;
    all_done(&s, &crm, &names).await;
    assert!(get(&s.acme, &names[0]).await.tasks[0].attempts > 1);
}

/// Each call at a system has two seconds: a third of the lease.
const SHORT: &[(&str, &str)] =
    &[("QUITTANCED_DISPATCH__LEASE_S", "6"), ("QUITTANCED_DISPATCH__READ_BACK_ATTEMPTS_MAX", "2")];

async fn with_short_limits() -> (Scene, AppDatabase) {
    let s = Scene::on(StoreKind::Sqlite, SHORT).await;
    let crm = AppDatabase::crm(Engine::MySql, s.deployment.folder.path(), SUBJECTS).await;
    s.register_crm(&crm, CRM_MAP, None).await;
    (s, crm)
}

fn out_of_time(request: &v1::Request) -> bool {
    assert!(request.tasks[0].confirmation.is_none(), "confirmed though it is not so: {request:#?}");
    request.tasks[0].reason.starts_with("OUT_OF_TIME")
}

#[tokio::test]
async fn what_waits_for_a_neighbours_lock_is_done_when_the_lock_is_gone() {
    let (s, crm) = with_short_limits().await;
    let mut lock = crm.pool.begin().await.unwrap();
    lock.execute_script("SELECT 1 FROM customer WHERE id IN (1, 2) FOR UPDATE").await.unwrap();
    let names = erase(&s.acme, 0..4).await;
    for n in [0, 3] {
        assert_eq!(completed(&s.acme, &names[n]).await.state(), v1::RequestState::Completed, "not of {n}");
    }
    wait_for(&s.acme, &names[1], out_of_time).await;
    lock.commit().await.unwrap();
    // Whoever had too little patience for a person to be spared is let run again.
    for name in &names[1..3] {
        let ended = wait_for(&s.acme, name, |r| {
            r.state() != v1::RequestState::InProgress || r.tasks[0].state() == v1::TaskState::NeedsAttention
        });
        let ended = ended.await;
        if ended.state() == v1::RequestState::InProgress {
            let retry = v1::RetryTaskRequest { name: ended.tasks[0].name.clone() };
            s.operator.requests().retry_task(retry).await.unwrap();
        }
    }
    all_done(&s, &crm, &names).await;
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended_by_the_server_and_shown_to_a_person() {
    let (s, crm) = with_short_limits().await;
    slow_down(&crm.pool, "OLD.id = 2", 30).await;
    let names = erase(&s.acme, 0..4).await;
    for n in [0, 1, 3] {
        assert_eq!(completed(&s.acme, &names[n]).await.state(), v1::RequestState::Completed, "not of {n}");
    }
    let attention = |r: &v1::Request| r.tasks[0].state() == v1::TaskState::NeedsAttention;
    let stopped = wait_for(&s.acme, &names[2], attention).await;
    assert!(out_of_time(&stopped));
    // The server has ended it: nothing is at work there any more, and no lock is left.
    let until = Instant::now() + Duration::from_secs(5);
    while crm.pool.run_script("SELECT 1 FROM customer WHERE id = 2 FOR UPDATE NOWAIT").await.is_err() {
        assert!(Instant::now() < until, "somebody still holds the row");
    }
    crm.pool.run_script("DROP TRIGGER slow").await.unwrap();
    let retry = v1::RetryTaskRequest { name: stopped.tasks[0].name.clone() };
    s.operator.requests().retry_task(retry).await.unwrap();
    all_done(&s, &crm, &names).await;
}

/// A mounted secret was overwritten with what is none.
#[tokio::test]
async fn a_secret_that_is_none_closes_the_way_to_the_system_until_it_is_one_again() {
    let breaker = [("QUITTANCED_DISPATCH__BREAKER_FAILURES", "1"), ("QUITTANCED_DISPATCH__BREAKER_OPEN_S", "2")];
    let s = Scene::on(StoreKind::Sqlite, &breaker).await;
    let crm = AppDatabase::crm(Engine::Sqlite, s.deployment.folder.path(), SUBJECTS).await;
    s.register_crm(&crm, CRM_MAP, None).await;
    s.deployment.secret("crm", "nonsense");
    let names = erase(&s.acme, 0..4).await;
    tokio::time::sleep(Duration::from_millis(1800)).await;
    for name in &names {
        assert!(get(&s.acme, name).await.tasks[0].attempts <= 1, "it is asked again and again");
    }
    s.deployment.secret("crm", &crm.url);
    all_done(&s, &crm, &names).await;
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_of_a_change_loses_and_doubles_nothing() {
    let mut server = OwnServer::mariadb().await;
    let admin = Pool::open(&ConnectOptions::new(server.url("127.0.0.1", ""))).unwrap();
    admin.run_script("CREATE DATABASE crm").await.unwrap();
    admin.close().await;
    let s = Scene::on(StoreKind::Sqlite, &[]).await;
    let crm = AppDatabase::crm_at(server.database_url("127.0.0.1", "crm", ""), SUBJECTS).await;
    s.register_crm(&crm, CRM_MAP, Some(v1::SystemLimits { batch_size: 3, ..v1::SystemLimits::default() })).await;
    slow_down(&crm.pool, "OLD.id = 4", 5).await;
    let names = erase(&s.acme, 0..9).await;
    changing(&crm.pool).await;
    server.kill();
    wait_for(&s.acme, &names[4], tried).await;
    // Down: what comes in now waits as well, and says why.
    let later = create(&s.acme, by_email(v1::Action::Erasure, email(9))).await.unwrap().name;
    wait_for(&s.acme, &later, tried).await;
    server.launch().await;
    let fresh = Pool::open(&ConnectOptions::new(crm.url.clone())).unwrap();
    speed_up(&fresh).await;
    let crm = AppDatabase { pool: fresh, url: crm.url };
    all_done(&s, &crm, &[names, vec![later]].concat()).await;
}

/// A replica, or a primary that another took over from: who signed up meanwhile is not in it, and to find nobody needs no right to write.
#[tokio::test]
async fn a_server_that_is_read_only_is_not_asked() {
    let server = OwnServer::mariadb().await;
    let admin = Pool::open(&ConnectOptions::new(server.url("127.0.0.1", ""))).unwrap();
    admin
        .run_script(
            "CREATE DATABASE crm; CREATE TABLE crm.person (id integer primary key, email varchar(100));
             CREATE USER app@'%' IDENTIFIED BY 'secret'; GRANT SELECT, UPDATE ON crm.person TO app@'%'; SET GLOBAL read_only = 1",
        )
        .await
        .unwrap();
    let url = server.database_url("127.0.0.1", "crm", "").replace("root@", "app:secret@");
    let map = "version: 1\ncollections:\n  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: mask}\n";
    let map = DataMap::parse(map, MapKind::Sql).unwrap();
    let connector = SqlConnector::open(Pool::open(&ConnectOptions::new(url)).unwrap(), map);
    let subject = Subject {
        identifiers: vec![Identifier::normalise(IdentifierKind::Email, "new@example.com").unwrap()],
        pseudonym: "anon-00000000000000000000000000000000".to_owned(),
        corrections: Vec::new(),
        identifier_changes: Vec::new(),
    };
    let (subjects, sets) = ([subject], [MatchSet::default()]);
    for read_only in [true, false] {
        for action in [Action::Access, Action::Erasure] {
            let ctx = BatchContext {
                customer: CustomerId::new("acme").unwrap(),
                customer_key: None,
                action,
                resolving: false,
                others_restricted: false,
                now: "2026-06-15T12:00:00Z".parse::<Timestamp>().unwrap(),
                time_zone: "Europe/Amsterdam".to_owned(),
                time_limit: Duration::from_secs(10),
                commit_before: tokio::time::Instant::now() + Duration::from_secs(60),
            };
            let found = connector.find(&ctx, &subjects).await.map(|_| ());
            let exported = connector.export(&ctx, &subjects[0], &sets[0], None, 10).await.map(|_| ());
            let read = connector.read_back(&ctx, &subjects, &sets).await.map(|_| ());
            for answer in [found, exported, read] {
                match answer {
                    Err(ConnectorError::Unavailable(why)) => assert!(read_only && why.contains("standby"), "{why}"),
                    other => assert!(!read_only && other.is_ok(), "{read_only} {other:?}"),
                }
            }
        }
        let told = connector.check(&SystemScope::AllCustomers).await.unwrap();
        assert_eq!(told.iter().any(|f| f.message.contains("read-only")), read_only, "{told:?}");
        admin.run_script("SET GLOBAL read_only = 0").await.unwrap();
    }
}
