//! Erasure as such: what goes, what stays, what is counted, how identifiers match.

use quittance_connectors::{BatchContext, Connector as _, ConnectorError, SubjectError};
use quittance_domain::{action::Action, identifier::IdentifierKind};
use quittance_sql::Engine;
use tokio::time::Instant;

use crate::harness::{Db, carried_out, ctx, email, on_all_engines, read, refused, sets, subject, user};

on_all_engines!(
    w1_masked,
    w1_deleted,
    composite_keys,
    several_identifiers,
    case_tells_ids_apart,
    emails_in_any_case,
    phones_by_digits,
    constants_and_pseudonyms,
    confined_to_the_customer,
    a_key_that_the_column_cannot_hold,
    nothing_held,
    nothing_is_changed_once_the_lease_is_uncertain,
    what_the_column_cannot_hold,
    yields,
    yields_of_rows_with_nothing_left,
);

/// The benchmark's schema, with 20 customers of 14 rows each.
pub async fn w1(db: &Db) {
    db.sql(
        "CREATE TABLE customer (id integer primary key, email varchar(200), name varchar(200), phone varchar(50), city varchar(100));
         CREATE TABLE address (id integer primary key, customer_id integer, street varchar(100), city varchar(100), zip varchar(20), FOREIGN KEY (customer_id) REFERENCES customer (id));
         CREATE TABLE orders (id integer primary key, customer_id integer, total numeric(10,2), note varchar(200), FOREIGN KEY (customer_id) REFERENCES customer (id));
         CREATE TABLE payment (id integer primary key, order_id integer, card_name varchar(200), amount numeric(10,2), FOREIGN KEY (order_id) REFERENCES orders (id));
         CREATE TABLE message (id integer primary key, sender_email varchar(200), body varchar(500));
         CREATE INDEX customer_email ON customer (email);
         CREATE INDEX address_customer ON address (customer_id);
         CREATE INDEX orders_customer ON orders (customer_id);
         CREATE INDEX payment_order ON payment (order_id);
         CREATE INDEX message_sender ON message (sender_email);",
    )
    .await;
    let mut script = String::new();
    for c in 1..=20 {
        script += &format!("INSERT INTO customer VALUES ({c}, 'c{c}@example.com', 'Name {c}', '+4670{c:07}', 'City');");
        for k in 1..=2 {
            script +=
                &format!("INSERT INTO address VALUES ({}, {c}, 'Street {c}-{k}', 'City', '0{c}');", (c - 1) * 2 + k);
        }
        for k in 1..=3 {
            let o = (c - 1) * 3 + k;
            script += &format!(
                "INSERT INTO orders VALUES ({o}, {c}, {k}.50, 'Note {o}'); INSERT INTO payment VALUES ({o}, {o}, 'Name {c}', {k}.50);"
            );
        }
        for k in 1..=5 {
            script += &format!("INSERT INTO message VALUES ({}, 'c{c}@example.com', 'Hello {k}');", (c - 1) * 5 + k);
        }
    }
    db.sql(&script).await;
}

pub fn w1_map(erase: &str) -> String {
    format!(
        "  customer: {{key: [id], identifiers: [{{kind: email, field: email, match: exact}}], fields: {{email: email, name: display_name, phone: phone, city: city}}, erase: {erase}}}
  address: {{key: [id], owned_by: [{{collection: customer, fields: {{customer_id: id}}}}], fields: {{street: address, city: city, zip: address}}, erase: {erase}}}
  orders: {{key: [id], owned_by: [{{collection: customer, fields: {{customer_id: id}}}}], fields: {{note: message}}, erase: {erase}}}
  payment: {{key: [id], owned_by: [{{collection: orders, fields: {{order_id: id}}}}], fields: {{card_name: financial}}, erase: {erase}}}
  message: {{key: [id], identifiers: [{{kind: email, field: sender_email, match: exact}}], fields: {{sender_email: email, body: message}}, erase: {erase}}}
"
    )
}

pub async fn dump_w1(db: &Db) -> Vec<String> {
    let mut all = Vec::new();
    for (columns, table) in [
        ("id, email, name, phone, city", "customer"),
        ("id, customer_id, street, city, zip", "address"),
        ("id, customer_id, total, note", "orders"),
        ("id, order_id, card_name, amount", "payment"),
        ("id, sender_email, body", "message"),
    ] {
        all.extend(db.dump(columns, table).await.into_iter().map(|row| format!("{table}: {row}")));
    }
    all
}

const W1_LINES: [&str; 10] = [
    "address.address ERASED 2",
    "address.city ERASED 2",
    "customer.city ERASED 1",
    "customer.display_name ERASED 1",
    "customer.email ERASED 1",
    "customer.phone ERASED 1",
    "message.email ERASED 5",
    "message.message ERASED 5",
    "orders.message ERASED 3",
    "payment.financial ERASED 3",
];

async fn w1_masked(db: &Db) {
    w1(db).await;
    let before = dump_w1(db).await;
    let c = db.connector(&w1_map("mask"));
    let subjects = [subject(&[email("c3@example.com")]), subject(&[email("c17@example.com")])];
    for outcomes in carried_out(&c, &ctx(Action::Erasure), &subjects).await {
        assert_eq!(outcomes, W1_LINES);
    }
    let after = dump_w1(db).await;
    assert_eq!(after.len(), before.len());
    let changed: Vec<_> = after.iter().filter(|row| !before.contains(row)).cloned().collect();
    assert_eq!(changed.len(), 28);
    assert!(changed.contains(&"customer: 3|-|-|-|-".to_owned()));
    assert!(changed.contains(&"orders: 7|3|1.50|-".to_owned()) || changed.contains(&"orders: 7|3|1.5|-".to_owned()));
    assert!(changed.contains(&"message: 11|-|-".to_owned()));
    assert_eq!(after.iter().filter(|row| before.contains(row)).count(), 18 * 14, "neighbours are whole");
}

async fn w1_deleted(db: &Db) {
    w1(db).await;
    let before = dump_w1(db).await;
    let c = db.connector(&w1_map("delete"));
    let subjects = [subject(&[email("c3@example.com")]), subject(&[email("c17@example.com")])];
    for outcomes in carried_out(&c, &ctx(Action::Erasure), &subjects).await {
        assert_eq!(outcomes, W1_LINES);
    }
    let after = dump_w1(db).await;
    assert_eq!(after.len(), 18 * 14);
    assert!(after.iter().all(|row| before.contains(row)), "neighbours are whole");
    assert!(!after.iter().any(|row| row.contains("c3@") || row.contains("c17@")));
}

async fn composite_keys(db: &Db) {
    db.sql(
        "CREATE TABLE account (region varchar(10), nr integer, email varchar(100), PRIMARY KEY (region, nr));
         CREATE TABLE entry (region varchar(10), nr integer, line integer, note varchar(100), PRIMARY KEY (region, nr, line));
         INSERT INTO account VALUES ('eu', 1, 'a@x.nl'), ('us', 1, 'b@x.nl'), ('eu', 2, 'c@x.nl');
         INSERT INTO entry VALUES ('eu', 1, 1, 'n'), ('eu', 1, 2, 'n'), ('us', 1, 1, 'n'), ('eu', 2, 1, 'n');",
    )
    .await;
    let c = db.connector(
        "  account: {key: [region, nr], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}
  entry: {key: [region, nr, line], owned_by: [{collection: account, fields: {region: region, nr: nr}}], fields: {note: message}, erase: delete}\n",
    );
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await;
    assert_eq!(outcomes[0], ["account.email ERASED 1", "entry.message ERASED 2"]);
    assert_eq!(db.dump("region, nr", "account").await, ["eu|2", "us|1"]);
    assert_eq!(db.dump("region, nr, line", "entry").await, ["eu|2|1", "us|1|1"]);
}

async fn several_identifiers(db: &Db) {
    db.sql(
        "CREATE TABLE person (id varchar(20) primary key, email varchar(100), phone varchar(50));
         INSERT INTO person VALUES ('u1', 'a@x.nl', null), ('u2', 'a2@x.nl', '+31 6 12345678'), ('u3', 'z@x.nl', null), ('u4', null, '+31612345679');",
    )
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}, {kind: phone, field: phone}, {kind: user_id, field: id}], fields: {id: {category: user_name, erase: keep}, email: email, phone: phone}, erase: mask}\n",
    );
    let all = subject(&[email("a@x.nl"), email("a2@x.nl"), (IdentifierKind::Phone, "+31612345678"), user("u3")]);
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[all]).await;
    // A row that two identifiers lead to counts once.
    assert_eq!(outcomes[0], ["person.email ERASED 3", "person.phone ERASED 1"]);
    assert_eq!(db.dump("id, email, phone", "person").await, ["u1|-|-", "u2|-|-", "u3|-|-", "u4|-|+31612345679"]);
}

async fn case_tells_ids_apart(db: &Db) {
    db.sql("CREATE TABLE person (id integer primary key, login varchar(40), name varchar(40));").await;
    for (id, login) in [(1, "Abc"), (2, "abc"), (3, "ABC"), (4, "abc "), (5, "ábc")] {
        db.sql(&format!("INSERT INTO person VALUES ({id}, '{login}', 'n{id}');")).await;
    }
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: user_id, field: login}], fields: {login: user_name, name: display_name}, erase: mask}\n",
    );
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[user("abc")])]).await;
    assert_eq!(outcomes[0], ["person.display_name ERASED 1", "person.user_name ERASED 1"]);
    assert_eq!(db.dump("id, login", "person").await, ["1|Abc", "2|-", "3|ABC", "4|abc ", "5|ábc"]);
}

async fn emails_in_any_case(db: &Db) {
    db.sql("CREATE TABLE person (id integer primary key, email varchar(100));").await;
    for (id, value) in [
        (1, "Mara@Example.com"),
        (2, "mara@example.com"),
        (3, "mara@example.co"),
        (4, "ÅSA@bücher.example"),
        (5, "åsa@BÜCHER.example"),
        (6, "asa@bucher.example"),
    ] {
        db.sql(&format!("INSERT INTO person VALUES ({id}, '{value}');")).await;
    }
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}\n",
    );
    let subjects = [subject(&[email("MARA@example.com")]), subject(&[email("åsa@bücher.example")])];
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &subjects).await;
    assert_eq!(outcomes, [["person.email ERASED 2"], ["person.email ERASED 2"]]);
    assert_eq!(db.dump("id", "person").await, ["3", "6"]);
}

async fn phones_by_digits(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, phone varchar(50));
         INSERT INTO person VALUES (1, '+46 70-123 45 67'), (2, '0046701234567'), (3, '(+46) 70.123.45.67'), (4, '+46 70-123 45 68'), (5, '146701234567');",
    )
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: phone, field: phone}], fields: {phone: phone}, erase: delete}\n",
    );
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[(IdentifierKind::Phone, "+46701234567")])]).await;
    assert_eq!(outcomes, [["person.phone ERASED 3"]]);
    assert_eq!(db.dump("id", "person").await, ["4", "5"]);
}

async fn constants_and_pseudonyms(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100) not null unique, name varchar(40) not null, born date, note varchar(50));
         INSERT INTO person VALUES (1, 'a@x.nl', 'A', '1980-01-02', null), (2, 'b@x.nl', 'B', null, 'x');",
    )
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: {category: email, erase: pseudonym}, name: {category: display_name, erase: {constant: 'it''s [gone] \\'}}, born: {category: birth_date, erase: {constant: '1900-01-01'}}, note: {category: message, erase: {constant: gone}}}, erase: mask}\n",
    );
    let subjects = [subject(&[email("a@x.nl")]), subject(&[email("b@x.nl")])];
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &subjects).await;
    assert_eq!(
        outcomes[0],
        ["person.birth_date ERASED 1", "person.display_name ERASED 1", "person.email PSEUDONYMISED 1"]
    );
    assert_eq!(
        outcomes[1],
        ["person.display_name ERASED 1", "person.email PSEUDONYMISED 1", "person.message ERASED 1"]
    );
    let rows = db.dump("id, email, name, born, note", "person").await;
    let gone = "it's [gone] \\";
    assert_eq!(rows[0], format!("1|{}|{gone}|1900-01-01|-", subjects[0].pseudonym));
    assert_eq!(rows[1], format!("2|{}|{gone}|-|gone", subjects[1].pseudonym));
}

async fn confined_to_the_customer(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, tenant varchar(20), email varchar(100));
         CREATE TABLE note (id integer primary key, tenant varchar(20), person integer, body varchar(50));
         INSERT INTO person VALUES (1, 'acme', 'a@x.nl'), (2, 'other', 'a@x.nl'), (3, 'ACME', 'a@x.nl');
         INSERT INTO note VALUES (1, 'acme', 1, 'n'), (2, 'other', 1, 'n'), (3, 'other', 2, 'n');",
    )
    .await;
    let c = db.connector(
        "  person: {key: [id], customer_field: tenant, identifiers: [{kind: email, field: email}], fields: {email: email}, erase: mask}
  note: {key: [id], customer_field: tenant, owned_by: [{collection: person, fields: {person: id}}], fields: {body: message}, erase: delete}\n",
    );
    let subjects = [subject(&[email("a@x.nl")])];
    let mut ctx = ctx(Action::Erasure);
    assert!(refused(c.find(&ctx, &subjects).await).contains("person"));
    ctx.customer_key = Some("acme".to_owned());
    let outcomes = carried_out(&c, &ctx, &subjects).await;
    assert_eq!(outcomes, [["note.message ERASED 1", "person.email ERASED 1"]]);
    assert_eq!(db.dump("id, email", "person").await, ["1|-", "2|a@x.nl", "3|a@x.nl"]);
    assert_eq!(db.dump("id", "note").await, ["2", "3"]);
}

/// A cast would make 0 of `acme` and 3 of `3m`: other customers.
async fn a_key_that_the_column_cannot_hold(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, tenant integer, email varchar(100));
         INSERT INTO person VALUES (1, 0, 'a@x.nl'), (2, 3, 'a@x.nl'), (3, 4, 'a@x.nl');",
    )
    .await;
    let c = db.connector(
        "  person: {key: [id], customer_field: tenant, identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}\n",
    );
    let subjects = [subject(&[email("a@x.nl")])];
    let keyed = |key: &str| BatchContext { customer_key: Some(key.to_owned()), ..ctx(Action::Erasure) };
    let theirs = sets(&c, &keyed("3"), &subjects).await;
    for key in ["acme", "3m", "03", "3 ", "2147483648", "99999999999999999999"] {
        let ctx = keyed(key);
        if db.engine == Engine::Sqlite {
            // Its integer columns hold any text.
            assert_eq!(sets(&c, &ctx, &subjects).await[0].rows(), 0, "{key}");
            continue;
        }
        let why = [
            refused(c.find(&ctx, &subjects).await),
            refused(c.act(&ctx, &subjects, &theirs).await),
            refused(c.read_back(&ctx, &subjects, &theirs).await),
            refused(c.export(&ctx, &subjects[0], &theirs[0], None, 10).await.map(|_| ())),
        ];
        assert!(why.iter().all(|why| why.contains("person: tenant is of type int")), "{why:?}");
    }
    assert_eq!(db.dump("id", "person").await, ["1", "2", "3"]);
    carried_out(&c, &keyed("3"), &subjects).await;
    assert_eq!(db.dump("id", "person").await, ["1", "3"]);
}

async fn nothing_held(db: &Db) {
    w1(db).await;
    let c = db.connector(&w1_map("mask"));
    let ctx = ctx(Action::Erasure);
    let subjects =
        [subject(&[email("nobody@example.com")]), subject(&[user("7")]), subject(&[email("c1@example.com")])];
    let found = crate::harness::found(&c, &ctx, &subjects).await;
    assert!(found[0].as_ref().unwrap().is_empty());
    assert_eq!(found[1], Err(SubjectError::NoUsableIdentifier));
    assert_eq!(found[2].as_ref().unwrap().rows(), 14);
    let alone = &subjects[..1];
    let sets = sets(&c, &ctx, alone).await;
    c.act(&ctx, alone, &sets).await.unwrap()[0].clone().unwrap();
    assert_eq!(read(&c, &ctx, alone, &sets).await, [Ok(vec!["*.* NOT_HELD 0".to_owned()])]);
}

/// Who stood still for longer than its lease finds somebody else's work done, and what came after it.
async fn nothing_is_changed_once_the_lease_is_uncertain(db: &Db) {
    w1(db).await;
    let c = db.connector(&w1_map("mask"));
    let subjects = [subject(&[email("c1@example.com")])];
    let in_time = ctx(Action::Erasure);
    let sets = sets(&c, &in_time, &subjects).await;
    let late = BatchContext { commit_before: Instant::now(), ..in_time.clone() };
    let refused = c.act(&late, &subjects, &sets).await.unwrap_err();
    assert!(matches!(&refused, ConnectorError::Unavailable(why) if why.contains("lease")), "{refused}");
    assert_eq!(crate::harness::found(&c, &in_time, &subjects).await[0].as_ref().unwrap().rows(), 14);
    c.act(&in_time, &subjects, &sets).await.unwrap()[0].clone().unwrap();
    assert!(crate::harness::found(&c, &in_time, &subjects).await[0].as_ref().unwrap().is_empty());
}

async fn what_the_column_cannot_hold(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, name varchar(40)); INSERT INTO person VALUES (7, 'n'), (8, 'm');",
    )
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: user_id, field: id}], fields: {id: {category: user_name, erase: keep}, name: display_name}, erase: mask}\n",
    );
    let ids = ["007", "x", "7.0", "99999999999999999999", "7'", "8"];
    let subjects: Vec<_> = ids.iter().map(|id| subject(&[user(id)])).collect();
    let rows: Vec<usize> = sets(&c, &ctx(Action::Erasure), &subjects).await.iter().map(|s| s.rows()).collect();
    assert_eq!(rows, [0, 0, 0, 0, 0, 1], "no value poisons the batch, and none is taken for another");
}

async fn yields(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100), phone varchar(50));
         INSERT INTO person VALUES (7, 'a@x.nl', '+31 6 12345678'), (8, 'a@x.nl', 'unknown'), (9, 'b@x.nl', null);",
    )
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}], yields: {user_id: id, phone: phone, email: email}, fields: {email: email, phone: phone}, erase: mask}\n",
    );
    let found = c.find(&ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await.unwrap();
    let yielded: Vec<String> =
        found[0].as_ref().unwrap().yielded.iter().map(|i| format!("{} {}", i.kind(), i.value().expose())).collect();
    assert_eq!(yielded, ["phone +31612345678", "user_id 7", "user_id 8"]);
}

/// What was masked before, or is never masked, still leads to what has come into other systems.
async fn yields_of_rows_with_nothing_left(db: &Db) {
    db.sql(
        "CREATE TABLE user_map (id integer primary key, customer_key varchar(50)); CREATE INDEX user_map_key ON user_map (customer_key);
         CREATE TABLE person (id integer primary key, customer_key varchar(50), name varchar(50)); CREATE INDEX person_key ON person (customer_key);
         INSERT INTO user_map VALUES (7, 'k'), (8, 'l'); INSERT INTO person VALUES (9, 'k', 'Ann'), (10, 'l', 'Bo');",
    )
    .await;
    let c = db.connector(
        "  user_map: {key: [id], identifiers: [{kind: customer_key, field: customer_key}], yields: {user_id: id}, fields: {customer_key: {category: user_name, erase: keep}}, erase: mask}
  person: {key: [id], identifiers: [{kind: customer_key, field: customer_key}], yields: {user_id: id}, fields: {customer_key: {category: user_name, erase: keep}, name: display_name}, erase: mask}\n",
    );
    let (erasing, subjects) = (ctx(Action::Erasure), [subject(&[(IdentifierKind::CustomerKey, "k")])]);
    let resolving = BatchContext { resolving: true, ..erasing.clone() };
    for left in [["person.display_name ERASED 1"].as_slice(), &["*.* NOT_HELD 0"]] {
        let found = c.find(&resolving, &subjects).await.unwrap().remove(0).unwrap();
        // Nothing is touched for it.
        assert_eq!(found.match_set.rows(), usize::from(!left[0].contains("NOT_HELD")));
        let told: Vec<String> = found.leads_to().unwrap().iter().map(|i| i.value().expose().clone()).collect();
        assert_eq!(told, ["7", "9"]);
        assert_eq!(carried_out(&c, &erasing, &subjects).await, [left]);
    }
}
