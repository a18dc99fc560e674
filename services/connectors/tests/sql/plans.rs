//! What a request costs: it must not grow with the table, nor its round trips with the batch.

use quittance_connectors::{Connector as _, ConnectorError};
use quittance_domain::action::Action;
use quittance_sql::{Engine, round_trips};

use crate::{
    erasure::w1_map,
    harness::{Db, ctx, email, on_all_engines, sets, subject},
};

on_all_engines!(round_trips_do_not_grow_with_the_batch, no_table_is_scanned, a_table_that_was_altered_meanwhile);

async fn round_trips_do_not_grow_with_the_batch(db: &Db) {
    crate::erasure::w1(db).await;
    let ctx = ctx(Action::Erasure);
    let all: Vec<_> = (1..=20).map(|n| subject(&[email(&format!("c{n}@example.com"))])).collect();
    // Five collections, in three levels of ownership. On PostgreSQL a level is one question, and so are all the keys.
    let (settings, finds, looks) = match db.engine {
        Engine::Postgres => (0, 3, 1),
        // MySQL is asked which session it is: it ends no statement by itself.
        Engine::MySql => (if db.mariadb { 1 } else { 2 }, 5, 5),
        Engine::Sqlite => (1, 5, 5),
    };
    // MySQL is asked whether it is a replica. Before a deletion is committed, each table's foreign keys are looked at again.
    let primary = u64::from(db.engine == Engine::MySql);
    for (erase, before, behind, one, many) in
        [("mask", 0, 0, &all[..1], &all[1..8]), ("delete", looks.min(2), looks, &all[8..9], &all[9..19])]
    {
        let c = db.connector(&w1_map(erase));
        sets(&c, &ctx, &all[19..]).await;
        for subjects in [one, many] {
            let (rows, found) = round_trips(sets(&c, &ctx, subjects)).await;
            assert_eq!(rows.iter().map(|set| set.rows()).sum::<usize>(), subjects.len() * 14);
            let (acted, act) = round_trips(c.act(&ctx, subjects, &rows)).await;
            acted.unwrap();
            let (read, read_back) = round_trips(c.read_back(&ctx, subjects, &rows)).await;
            assert!(read.unwrap().into_iter().all(|back| back.is_ok()));
            assert_eq!(found, 2 + primary + finds, "{erase}: find");
            assert_eq!(act, 2 + settings + before + 5 + behind, "{erase}: act");
            let most = 2 + primary + before + looks + finds;
            assert!(read_back <= most, "{erase}: {read_back} round trips to read back");
            if db.engine == Engine::Postgres {
                assert!(found + act + read_back <= 19 + behind, "{erase}: {found} + {act} + {read_back} round trips");
            }
        }
    }
}

/// Each connection may refuse once what it had prepared before: that is tried again, and no task of it goes to a person.
async fn a_table_that_was_altered_meanwhile(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100)); INSERT INTO person VALUES (1, 'a@x.nl');",
    )
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}], yields: {user_id: email}, fields: {email: email}, erase: mask}\n",
    );
    let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[email("a@x.nl")])]);
    for _ in 0..8 {
        sets(&c, &ctx, &subjects).await;
    }
    db.sql(match db.engine {
        Engine::Postgres => "ALTER TABLE person ALTER email TYPE text COLLATE \"C\"",
        Engine::MySql => "ALTER TABLE person MODIFY email text COLLATE utf8mb4_bin",
        Engine::Sqlite => "ALTER TABLE person ADD name text",
    })
    .await;
    let mut refused = 0;
    let found = loop {
        match c.find(&ctx, &subjects).await {
            Err(ConnectorError::Unavailable(_)) if refused < 4 => refused += 1,
            found => break found.unwrap().remove(0).unwrap(),
        }
    };
    assert_eq!(found.match_set.rows(), 1);
    assert_eq!(refused > 0, db.engine == Engine::Postgres);
}

/// The engines' own counters say whether a table was read from end to end.
async fn no_table_is_scanned(db: &Db) {
    crate::erasure::w1(db).await;
    let many: Vec<String> = (100..6000).map(|n| format!("({n}, 'c{n}@example.com', 'N', null, null)")).collect();
    db.sql(&format!("INSERT INTO customer VALUES {};", many.join(","))).await;
    let orders: Vec<String> = (100..6000).map(|n| format!("({n}, {n}, 1, 'x')")).collect();
    db.sql(&format!("INSERT INTO orders VALUES {};", orders.join(","))).await;
    let messages: Vec<String> = (200..6000).map(|n| format!("({n}, 'c{n}@example.com', 'x')")).collect();
    db.sql(&format!("INSERT INTO message VALUES {};", messages.join(","))).await;
    match db.engine {
        Engine::MySql => db.sql("ANALYZE TABLE customer, orders, message;").await,
        _ => db.sql("ANALYZE;").await,
    }
    let c = db.connector(&w1_map("mask"));
    let ctx = ctx(Action::Erasure);
    let subjects: Vec<_> = (1..=2).map(|n| subject(&[email(&format!("c{n}@example.com"))])).collect();
    let before = scanned(db).await;
    let rows = sets(&c, &ctx, &subjects).await;
    c.act(&ctx, &subjects, &rows).await.unwrap();
    c.read_back(&ctx, &subjects, &rows).await.unwrap();
    let after = scanned(db).await;
    assert!(after - before < 5000, "{} rows were read by scans", after - before);
}

async fn scanned(db: &Db) -> i64 {
    let sql = match db.engine {
        Engine::Postgres => {
            // Counters of a session are published when it is idle for a while, or asked to.
            db.sql("SELECT pg_stat_force_next_flush();").await;
            tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
            "SELECT COALESCE(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables WHERE relname IN ('customer', 'orders', 'message')"
        }
        Engine::MySql => {
            let mut tx = db.pool.begin_read().await.unwrap();
            let row = tx.fetch_one("SHOW GLOBAL STATUS LIKE 'Handler_read_rnd_next'", Vec::new()).await.unwrap();
            return row.unwrap().text(1).unwrap().parse().unwrap();
        }
        Engine::Sqlite => return 0,
    };
    let mut tx = db.pool.begin_read().await.unwrap();
    tx.fetch_one(sql, Vec::new()).await.unwrap().unwrap().i64(0).unwrap()
}
