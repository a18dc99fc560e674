//! What a database says it holds, after it was restored.

use std::time::Duration;

use quittance_connectors::{Connector as _, ConnectorError, HeldKey};
use quittance_sql::Engine;

use crate::harness::{Db, on_all_engines};

on_all_engines!(
    every_identifier_by_which_rows_are_found,
    a_page_at_a_time_whatever_the_key_is_made_of,
    whose_a_row_is_where_customers_share_a_table,
    what_cannot_be_found_is_not_named,
);

async fn all(db: &Db, map: &str, rows_max: usize) -> Vec<HeldKey> {
    let connector = db.connector(map);
    let (mut keys, mut after) = (Vec::new(), None);
    for _ in 0..200 {
        let page = connector.held(after.as_ref(), rows_max, Duration::from_secs(10)).await.unwrap();
        assert!(page.keys.len() <= rows_max * 3, "a page is bounded");
        keys.extend(page.keys);
        after = page.next;
        if after.is_none() {
            return keys;
        }
    }
    panic!("it never ends");
}

/// `kind value`, with the customer before it where there is one.
fn shown(keys: &[HeldKey]) -> Vec<String> {
    let one = |k: &HeldKey| {
        let customer = k.customer_key.as_ref().map_or(String::new(), |c| format!("{c}: "));
        format!("{customer}{} {}", k.identifier.kind(), k.identifier.value().expose())
    };
    let mut shown: Vec<String> = keys.iter().map(one).collect();
    shown.sort();
    shown
}

async fn every_identifier_by_which_rows_are_found(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100), phone varchar(40), code varchar(20));
         CREATE TABLE orders (id integer primary key, person integer, note text);
         CREATE TABLE messages (id integer primary key, sender varchar(100), recipient varchar(100));
         INSERT INTO person VALUES (1, 'Ann@X.nl', '+31 6 1234-5678', 'U-1'), (2, 'ben@x.nl', null, 'u-1'), (3, null, '0046701234567', null);
         INSERT INTO orders VALUES (1, 1, 'eve@x.nl');
         INSERT INTO messages VALUES (1, 'ann@x.nl', 'cid@x.nl')",
    )
    .await;
    let map = "  person: {key: [id], identifiers: [{kind: email, field: email}, {kind: phone, field: phone}, {kind: user_id, field: code}], fields: {email: email, phone: phone, code: user_name}, erase: mask}
  orders: {key: [id], owned_by: [{collection: person, fields: {person: id}}], fields: {note: message}, erase: delete}
  messages: {key: [id], identifiers: [{kind: email, field: sender}, {kind: email, field: recipient}], fields: {sender: email, recipient: email}, erase: delete}\n";
    assert_eq!(
        shown(&all(db, map, 100).await),
        [
            "email ann@x.nl",
            "email ann@x.nl",
            "email ben@x.nl",
            "email cid@x.nl",
            "phone +31612345678",
            "phone +46701234567",
            "user_id U-1",
            "user_id u-1",
        ]
    );
}

async fn a_page_at_a_time_whatever_the_key_is_made_of(db: &Db) {
    let bytes = match db.engine {
        Engine::Postgres => "bytea",
        Engine::MySql => "varbinary(16)",
        Engine::Sqlite => "blob",
    };
    let literal = |n: u32| if db.engine == Engine::Postgres { format!("'\\x{n:04x}'") } else { format!("x'{n:04x}'") };
    type Key<'a> = (&'a str, &'a str, Box<dyn Fn(u32) -> String + 'a>);
    let keys: [Key<'_>; 6] = [
        ("n", "n integer", Box::new(|n| format!("{}", i64::from(n) - 11))),
        ("n", "n bigint", Box::new(|n| format!("{}", 9_000_000_000_000_000_000_u64 + u64::from(n)))),
        ("n", "n varchar(20)", Box::new(|n| format!("'K{}-ß'", n * 7))),
        ("n", bytes, Box::new(literal)),
        ("n", "n timestamp", Box::new(|n| format!("'2026-01-01 00:00:{n:02}'"))),
        ("n, m, o", "n integer, m varchar(10), o integer", Box::new(|n| format!("{}, '{}', {}", n / 9, n / 3, n))),
    ];
    for (i, (key, columns, value)) in keys.iter().enumerate() {
        let columns = if *columns == bytes { format!("n {bytes}") } else { (*columns).to_owned() };
        let values: Vec<String> = (1..24).rev().map(|n| format!("({}, 'p{n}@x.nl')", value(n))).collect();
        db.sql(&format!(
            "CREATE TABLE t{i} ({columns}, email varchar(100), PRIMARY KEY ({key})); INSERT INTO t{i} VALUES {}",
            values.join(", ")
        ))
        .await;
        let map = format!(
            "  t{i}: {{key: [{key}], identifiers: [{{kind: email, field: email}}], fields: {{email: email}}, erase: delete}}\n"
        );
        let whole = shown(&all(db, &map, 100).await);
        assert_eq!(whole.len(), 23);
        for rows_max in [1, 2, 5, 23] {
            assert_eq!(shown(&all(db, &map, rows_max).await), whole, "{columns}, pages of {rows_max}");
        }
    }
}

async fn whose_a_row_is_where_customers_share_a_table(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, tenant varchar(20), email varchar(100));
         INSERT INTO person VALUES (1, 'acme', 'ann@x.nl'), (2, 'bolt', 'ann@x.nl'), (3, null, 'ben@x.nl')",
    )
    .await;
    let map = "  person: {key: [id], customer_field: tenant, identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}\n";
    assert_eq!(shown(&all(db, map, 2).await), ["acme: email ann@x.nl", "bolt: email ann@x.nl"]);
}

/// What `find` would not find by the identifier is no key: nothing would come of it.
async fn what_cannot_be_found_is_not_named(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100), exact varchar(100), phone varchar(40));
         INSERT INTO person VALUES (1, 'anon-12ab', 'Ann@X.nl', '070-123 45 67'), (2, '', ' ann@x.nl', 'unknown'), (3, 'ann@x.nl ', 'ann@x.nl', '+46 (0)70 123 45 67'), (4, '  ben@x.nl', null, '+1 (0)202 555 0143')",
    )
    .await;
    let map = "  person: {key: [id], identifiers: [{kind: email, field: email}, {kind: email, field: exact, match: exact}, {kind: phone, field: phone}], fields: {email: email, exact: email, phone: phone}, erase: mask}\n";
    // One blank around it and a trunk zero are looked for; two blanks are not, nor a zero where none is dialled.
    assert_eq!(shown(&all(db, map, 10).await), ["email ann@x.nl", "email ann@x.nl", "phone +46701234567"]);
}

#[tokio::test]
async fn a_replica_is_not_asked() {
    let Some(pool) = crate::harness::standby() else { return };
    // A table that every PostgreSQL has.
    let map = crate::harness::map(
        "  feature: {table: information_schema.sql_features, key: [feature_id, sub_feature_id], identifiers: [{kind: user_id, field: feature_id}], fields: {feature_name: user_name}, erase: delete}\n",
    );
    let connector = quittance_connectors::sql::SqlConnector::open(pool, map);
    match connector.held(None, 10, Duration::from_secs(10)).await {
        Err(ConnectorError::Unavailable(why)) => {
            assert_eq!(why, "the connection leads to a standby, or the server is read-only")
        }
        other => panic!("{other:?}"),
    }
}
