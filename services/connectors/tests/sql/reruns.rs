//! Crashes, reruns, and a world that goes on between find and read-back (I4, I5).

use quittance_connectors::{Connector as _, ConnectorError, MatchSet, SubjectError, sql::SqlConnector};
use quittance_domain::{action::Action, system::SystemScope};
use quittance_sql::Engine;

use crate::{
    erasure::{dump_w1, w1, w1_map},
    harness::{Db, carried_out, ctx, email, findings, map, on_all_engines, read, refused, sets, subject, user},
};

on_all_engines!(
    a_rerun_says_what_was_done,
    not_before_it_is_done,
    rows_that_come_between,
    a_key_that_is_somebody_elses_by_now,
    a_key_that_is_by_now_a_row_without_an_owner,
    what_had_the_new_value_already,
    a_row_that_changed_hands,
    an_account_that_is_anothers_by_the_next_attempt,
    a_row_that_moved_to_the_subjects_other_account,
    what_one_correction_writes_another_speaks_of,
    written_again_after_masking,
    the_poisonous_subject,
    a_match_set_survives_storage,
    no_personal_data_in_errors,
    a_changed_schema,
);

async fn a_rerun_says_what_was_done(db: &Db) {
    for erase in ["mask", "delete"] {
        db.sql("DROP TABLE IF EXISTS message; DROP TABLE IF EXISTS payment; DROP TABLE IF EXISTS orders; DROP TABLE IF EXISTS address; DROP TABLE IF EXISTS customer;").await;
        w1(db).await;
        let c = db.connector(&w1_map(erase));
        let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[email("c3@example.com")])]);
        let sets = sets(&c, &ctx, &subjects).await;
        c.act(&ctx, &subjects, &sets).await.unwrap()[0].clone().unwrap();
        let after = dump_w1(db).await;
        let first = read(&c, &ctx, &subjects, &sets).await;
        // The confirmation was lost; another worker begins with the stored match set.
        let again = db.connector(&w1_map(erase));
        again.act(&ctx, &subjects, &sets).await.unwrap()[0].clone().unwrap();
        assert_eq!(read(&again, &ctx, &subjects, &sets).await, first);
        assert_eq!(first[0].as_ref().unwrap().len(), 10);
        assert_eq!(dump_w1(db).await, after);
        // And find has nothing more to say.
        assert!(crate::harness::sets(&again, &ctx, &subjects).await[0].is_empty());
    }
}

async fn not_before_it_is_done(db: &Db) {
    w1(db).await;
    for erase in ["mask", "delete"] {
        let c = db.connector(&w1_map(erase));
        let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[email("c3@example.com")])]);
        let sets = sets(&c, &ctx, &subjects).await;
        assert_eq!(read(&c, &ctx, &subjects, &sets).await, [Err(SubjectError::NotYet { rows: 14 })]);
        assert_eq!(read(&c, &ctx, &subjects, &[MatchSet::default()]).await, [Err(SubjectError::NotYet { rows: 14 })]);
    }
}

async fn rows_that_come_between(db: &Db) {
    w1(db).await;
    let c = db.connector(&w1_map("mask"));
    let (ctx, subjects) =
        (ctx(Action::Erasure), [subject(&[email("c3@example.com")]), subject(&[email("c4@example.com")])]);
    let mut sets = sets(&c, &ctx, &subjects).await;
    // By identifier, by an erased owner's key, and below a row that has nothing of its own.
    db.sql("INSERT INTO message VALUES (900, 'c3@example.com', 'late');").await;
    c.act(&ctx, &subjects, &sets).await.unwrap();
    db.sql("INSERT INTO orders VALUES (900, 3, 1, null); INSERT INTO payment VALUES (900, 900, 'late', 1);").await;
    let back = read(&c, &ctx, &subjects, &sets).await;
    assert_eq!(back[0], Err(SubjectError::NotYet { rows: 2 }));
    assert_eq!(back[1].as_ref().unwrap().len(), 10, "the other subject is not made to wait");
    // The next round finds what identifiers still lead to, and adds it.
    let later = crate::harness::sets(&c, &ctx, &subjects).await;
    sets[0].absorb(later[0].clone());
    c.act(&ctx, &subjects, &sets).await.unwrap();
    assert_eq!(read(&c, &ctx, &subjects, &sets).await[0], Err(SubjectError::NotYet { rows: 1 }));
    db.sql("DELETE FROM payment WHERE id = 900;").await;
    let back = read(&c, &ctx, &subjects, &sets).await;
    assert!(back[0].as_ref().unwrap().contains(&"message.email ERASED 6".to_owned()));
}

async fn a_key_that_is_somebody_elses_by_now(db: &Db) {
    w1(db).await;
    let c = db.connector(&w1_map("delete"));
    let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[email("c20@example.com")])]);
    let sets = sets(&c, &ctx, &subjects).await;
    c.act(&ctx, &subjects, &sets).await.unwrap();
    // SQLite hands the last rowid out again.
    db.sql(
        "INSERT INTO customer VALUES (20, 'new@example.com', 'New', null, null); INSERT INTO address VALUES (40, 20, 'New street', null, null);
         INSERT INTO orders VALUES (60, 20, 1, 'New'); INSERT INTO payment VALUES (60, 60, 'New', 1);
         INSERT INTO message VALUES (100, 'new@example.com', 'New');",
    )
    .await;
    let before = dump_w1(db).await;
    c.act(&ctx, &subjects, &sets).await.unwrap();
    // Not even the address, which hangs on the very key that the subject had.
    assert_eq!(dump_w1(db).await, before);
    assert_eq!(read(&c, &ctx, &subjects, &sets).await[0].as_ref().unwrap().len(), 10);
}

/// Links that a deletion loosens first are NULL when it comes to the row; those of a neighbour may be so by themselves.
async fn a_key_that_is_by_now_a_row_without_an_owner(db: &Db) {
    db.sql(
        "CREATE TABLE comment (id integer primary key, parent integer, author varchar(100), body varchar(20), FOREIGN KEY (parent) REFERENCES comment (id));
         CREATE TABLE a (id integer primary key, b_id integer, email varchar(100));
         CREATE TABLE b (id integer primary key, a_id integer, note varchar(20), FOREIGN KEY (a_id) REFERENCES a (id));
         INSERT INTO comment VALUES (1, null, 'a@x.nl', 'r'), (2, 1, null, 'r'), (3, null, 'b@x.nl', 'r');
         INSERT INTO a VALUES (1, null, 'a@x.nl'), (2, null, null); INSERT INTO b VALUES (1, 1, 'n'), (2, 2, 'n');
         UPDATE a SET b_id = 1;",
    )
    .await;
    if db.engine != Engine::Sqlite {
        db.sql("ALTER TABLE a ADD CONSTRAINT a_b FOREIGN KEY (b_id) REFERENCES b(id);").await;
    }
    let c = db.connector(
        "  comment: {key: [id], identifiers: [{kind: email, field: author}], owned_by: [{collection: comment, fields: {parent: id}}], fields: {author: email, body: message}, erase: delete}
  a: {key: [id], identifiers: [{kind: email, field: email}], owned_by: [{collection: b, fields: {b_id: id}}], fields: {email: email}, erase: delete}
  b: {key: [id], owned_by: [{collection: a, fields: {a_id: id}}], fields: {note: message}, erase: delete}\n",
    );
    let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[email("a@x.nl")])]);
    let sets = sets(&c, &ctx, &subjects).await;
    c.act(&ctx, &subjects, &sets).await.unwrap()[0].clone().unwrap();
    let gone = (db.dump("id", "comment").await, db.dump("id", "a").await, db.dump("id", "b").await);
    assert_eq!(gone, (vec!["3".to_owned()], vec![], vec![]));
    db.sql(
        "INSERT INTO comment VALUES (2, null, 'n@x.nl', 'new');
         INSERT INTO a VALUES (1, null, 'n@x.nl'), (2, null, 'n@x.nl'); INSERT INTO b VALUES (1, null, 'new'), (2, null, 'new');",
    )
    .await;
    c.act(&ctx, &subjects, &sets).await.unwrap()[0].clone().unwrap();
    assert_eq!(db.dump("id, body", "comment").await, ["2|new", "3|r"]);
    assert_eq!(db.dump("id, email", "a").await, ["1|n@x.nl", "2|n@x.nl"]);
    assert_eq!(db.dump("id, note", "b").await, ["1|new", "2|new"]);
    // Nothing shows whose the rows without an owner are: a person looks.
    assert!(matches!(read(&c, &ctx, &subjects, &sets).await[0], Err(SubjectError::NotYet { .. })));
}

/// Only what was corrected is said to be.
async fn what_had_the_new_value_already(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100), city varchar(20));
         INSERT INTO person VALUES (1, 'a@x.nl', 'Rome'), (2, 'a@x.nl', 'Roma'), (3, 'a@x.nl', 'Rome'), (4, 'a@x.nl', 'Roma'), (5, 'a@x.nl', 'Roma');",
    )
    .await;
    let c = db.connector("  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, city: city}, erase: mask}\n");
    let ctx = ctx(Action::Rectification);
    let mut one = subject(&[email("a@x.nl")]);
    one.corrections = vec![crate::harness::replace("person", "city", "Rome", "Roma")];
    let subjects = [one];
    let mut known = sets(&c, &ctx, &subjects).await;
    for _ in 0..2 {
        assert_eq!(c.act(&ctx, &subjects, &known).await.unwrap(), [Ok(())]);
        assert_eq!(read(&c, &ctx, &subjects, &known).await, [Ok(vec!["person.city RECTIFIED 2".to_owned()])]);
        // The confirmation was lost: another worker finds, and adds what it finds.
        let again = sets(&c, &ctx, &subjects).await.remove(0);
        known[0].follow(again);
    }
    // Who finds it all as it should be says so.
    assert_eq!(carried_out(&c, &ctx, &subjects).await, [["person.city RECTIFIED 5"]]);
    // A row that comes with the old value meanwhile is corrected, too.
    db.sql("INSERT INTO person VALUES (6, 'a@x.nl', 'Rome');").await;
    assert_eq!(read(&c, &ctx, &subjects, &known).await, [Err(SubjectError::NotYet { rows: 1 })]);
    known[0].follow(sets(&c, &ctx, &subjects).await.remove(0));
    assert_eq!(c.act(&ctx, &subjects, &known).await.unwrap(), [Ok(())]);
    assert_eq!(read(&c, &ctx, &subjects, &known).await, [Ok(vec!["person.city RECTIFIED 3".to_owned()])]);
}

async fn a_row_that_changed_hands(db: &Db) {
    w1(db).await;
    let c = db.connector(&w1_map("mask"));
    let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[email("c3@example.com")])]);
    let sets = sets(&c, &ctx, &subjects).await;
    db.sql("UPDATE orders SET customer_id = 4 WHERE id = 7; UPDATE message SET sender_email = 'c4@example.com' WHERE id = 11;").await;
    c.act(&ctx, &subjects, &sets).await.unwrap();
    assert_eq!(db.dump("id, note", "orders WHERE id IN (7, 8)").await, ["7|Note 7", "8|-"]);
    assert_eq!(db.dump("id, body", "message WHERE id IN (11, 12)").await, ["11|Hello 1", "12|-"]);
    assert!(read(&c, &ctx, &subjects, &sets).await[0].is_ok());
}

const ACCOUNTS: &str =
    "  account: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: mask}
  orders: {key: [id], owned_by: [{collection: account, fields: {account: id}}], fields: {city: city}, erase: mask}\n";

async fn accounts(db: &Db) {
    db.sql(
        "CREATE TABLE account (id integer primary key, email varchar(100)); CREATE TABLE orders (id integer primary key, account integer, city varchar(20));
         INSERT INTO account VALUES (1, 'a@x.nl'), (2, 'a@x.nl'); INSERT INTO orders VALUES (7, 1, 'Utrecht'), (8, 1, 'Utrecht'), (9, 2, 'Leiden');",
    )
    .await;
}

fn moving(moves: &[(&str, &str)]) -> [quittance_connectors::Subject; 1] {
    let mut one = subject(&[email("a@x.nl")]);
    one.corrections = moves.iter().map(|(old, new)| crate::harness::replace("orders", "city", old, new)).collect();
    [one]
}

async fn an_account_that_is_anothers_by_the_next_attempt(db: &Db) {
    accounts(db).await;
    let c = db.connector(ACCOUNTS);
    let (ctx, subjects) = (ctx(Action::Rectification), moving(&[("Utrecht", "Gouda")]));
    let mut known = sets(&c, &ctx, &subjects).await;
    assert_eq!(known[0].rows(), 2);
    db.sql("UPDATE account SET email = 'b@x.nl' WHERE id = 1").await;
    known[0].follow(sets(&c, &ctx, &subjects).await.remove(0));
    let mismatch = SubjectError::OldValueMismatch { collection: "orders".to_owned(), field: "city".to_owned() };
    assert_eq!(c.act(&ctx, &subjects, &known).await.unwrap(), [Err(mismatch)]);
    assert_eq!(db.dump("id, city", "orders").await, ["7|Utrecht", "8|Utrecht", "9|Leiden"]);
}

async fn a_row_that_moved_to_the_subjects_other_account(db: &Db) {
    accounts(db).await;
    let c = db.connector(ACCOUNTS);
    let (ctx, subjects) = (ctx(Action::Rectification), moving(&[("Utrecht", "Gouda")]));
    let mut known = sets(&c, &ctx, &subjects).await;
    db.sql("UPDATE orders SET account = 2 WHERE id = 8").await;
    assert_eq!(c.act(&ctx, &subjects, &known).await.unwrap(), [Ok(())]);
    assert_eq!(read(&c, &ctx, &subjects, &known).await, [Err(SubjectError::NotYet { rows: 1 })], "one is left");
    known[0].follow(sets(&c, &ctx, &subjects).await.remove(0));
    assert_eq!(c.act(&ctx, &subjects, &known).await.unwrap(), [Ok(())]);
    assert_eq!(read(&c, &ctx, &subjects, &known).await, [Ok(vec!["orders.city RECTIFIED 2".to_owned()])]);
    assert_eq!(db.dump("id, city", "orders").await, ["7|Gouda", "8|Gouda", "9|Leiden"]);
}

/// However often it is begun anew, nothing is moved twice.
async fn what_one_correction_writes_another_speaks_of(db: &Db) {
    type Moves = &'static [(&'static str, &'static str)];
    let cases: [(Moves, [&str; 3]); 5] = [
        (&[("Leiden", "Utrecht"), ("Utrecht", "Gouda")], ["7|Gouda", "8|Gouda", "9|Utrecht"]),
        (&[("Utrecht", "Gouda"), ("Leiden", "Utrecht")], ["7|Gouda", "8|Gouda", "9|Utrecht"]),
        (&[("Utrecht", "Leiden"), ("Leiden", "Utrecht")], ["7|Leiden", "8|Leiden", "9|Utrecht"]),
        (&[("Leiden", "Utrecht"), ("Utrecht", "Gouda"), ("Gouda", "Delft")], ["7|Delft", "8|Gouda", "9|Utrecht"]),
        (&[("Gouda", "Delft"), ("Utrecht", "Gouda"), ("Leiden", "Utrecht")], ["7|Delft", "8|Gouda", "9|Utrecht"]),
    ];
    for (moves, after) in cases {
        db.sql("DROP TABLE IF EXISTS orders; DROP TABLE IF EXISTS account;").await;
        accounts(db).await;
        if moves.len() == 3 {
            db.sql("UPDATE orders SET city = 'Gouda' WHERE id = 7").await;
        }
        let c = db.connector(ACCOUNTS);
        let (ctx, subjects) = (ctx(Action::Rectification), moving(moves));
        let mut known = sets(&c, &ctx, &subjects).await;
        for _ in 0..3 {
            assert_eq!(c.act(&ctx, &subjects, &known).await.unwrap(), [Ok(())]);
            assert_eq!(db.dump("id, city", "orders").await, after);
            assert_eq!(read(&c, &ctx, &subjects, &known).await, [Ok(vec!["orders.city RECTIFIED 3".to_owned()])]);
            known[0].follow(sets(&c, &ctx, &subjects).await.remove(0));
        }
    }
}

async fn written_again_after_masking(db: &Db) {
    w1(db).await;
    let c = db.connector(&w1_map("mask"));
    let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[email("c3@example.com")])]);
    let sets = sets(&c, &ctx, &subjects).await;
    c.act(&ctx, &subjects, &sets).await.unwrap();
    db.sql("UPDATE customer SET name = 'back' WHERE id = 3; UPDATE address SET street = 'back' WHERE id = 5;").await;
    assert_eq!(read(&c, &ctx, &subjects, &sets).await, [Err(SubjectError::NotYet { rows: 2 })]);
}

async fn the_poisonous_subject(db: &Db) {
    w1(db).await;
    db.sql("CREATE TABLE loan (id integer primary key, customer integer, FOREIGN KEY (customer) REFERENCES customer (id)); INSERT INTO loan VALUES (1, 3);").await;
    let before = dump_w1(db).await;
    let c = db.connector(&w1_map("delete"));
    let (ctx, subjects) =
        (ctx(Action::Erasure), [subject(&[email("c2@example.com")]), subject(&[email("c3@example.com")])]);
    let sets = sets(&c, &ctx, &subjects).await;
    let told = refused(c.act(&ctx, &subjects, &sets).await);
    assert!(!told.contains("c3@") && !told.contains("(3)"), "{told}");
    assert_eq!(dump_w1(db).await, before, "nothing of the batch was done");
    refused(c.act(&ctx, &subjects[1..], &sets[1..]).await);
    c.act(&ctx, &subjects[..1], &sets[..1]).await.unwrap();
    assert_eq!(dump_w1(db).await.len(), 19 * 14);
}

async fn a_match_set_survives_storage(db: &Db) {
    w1(db).await;
    let c = db.connector(&w1_map("mask"));
    let sets = sets(&c, &ctx(Action::Erasure), &[subject(&[email("c3@example.com")])]).await;
    let json = serde_json::to_string(&sets[0]).unwrap();
    assert!(serde_json::from_str::<MatchSet>(&json).unwrap() == sets[0]);
    assert!(json.len() < 14 * 70, "{} bytes", json.len());
    assert!(!json.contains("example.com"), "row keys, not identifiers");
}

async fn no_personal_data_in_errors(db: &Db) {
    db.sql(
        "CREATE TABLE person (id varchar(40) primary key, email varchar(100), born date, CHECK (email <> 'secret2@x.nl'));
         INSERT INTO person VALUES ('secretkey', 'secret@x.nl', '1980-01-01');",
    )
    .await;
    let c = db.connector("  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, born: birth_date}, erase: mask}\n");
    let ctx = ctx(Action::Rectification);
    for (field, old, new) in [("email", "secret@x.nl", "secret2@x.nl"), ("born", "1980-01-01", "secretdate")] {
        if db.engine == Engine::Sqlite && field == "born" {
            // Its dates are any text.
            continue;
        }
        let mut one = subject(&[email("secret@x.nl")]);
        one.corrections = vec![crate::harness::replace("person", field, old, new)];
        let subjects = [one];
        let sets = sets(&c, &ctx, &subjects).await;
        let error = c.act(&ctx, &subjects, &sets).await.unwrap_err();
        let told = format!("{error} {error:?} {sets:?} {subjects:?}");
        assert!(!told.contains("secret") && !told.contains("1980"), "{told}");
        assert_eq!(db.dump("email, born", "person").await, ["secret@x.nl|1980-01-01"]);
    }
}

/// A column of the map that has gone: refused, and well again once it is back.
async fn a_changed_schema(db: &Db) {
    db.sql("CREATE TABLE person (id integer primary key, login varchar(40), name varchar(40)); INSERT INTO person VALUES (1, 'u', 'N');").await;
    let c = db.connector("  person: {key: [id], identifiers: [{kind: user_id, field: login}], fields: {login: user_name, name: display_name}, erase: delete}\n");
    let subjects = [subject(&[user("u")])];
    assert_eq!(sets(&c, &ctx(Action::Erasure), &subjects).await[0].rows(), 1);
    db.sql("ALTER TABLE person RENAME COLUMN name TO label;").await;
    refused(c.find(&ctx(Action::Erasure), &subjects).await);
    assert!(refused(c.find(&ctx(Action::Erasure), &subjects).await).contains("column name is not there"));
    // A connection of SQLite's that has not looked since would not know the column: a question makes it look.
    db.sql("SELECT label FROM person; ALTER TABLE person RENAME COLUMN label TO name;").await;
    assert_eq!(carried_out(&c, &ctx(Action::Erasure), &subjects).await[0].len(), 2);
}

/// What it has not heard of yet, it would confirm as gone.
#[tokio::test]
async fn a_standby_confirms_nothing() {
    let Some(pool) = crate::harness::standby() else { return };
    // A table that every PostgreSQL has.
    let c = SqlConnector::open(
        pool,
        map(
            "  feature: {table: information_schema.sql_features, key: [feature_id, sub_feature_id], identifiers: [{kind: user_id, field: feature_id}], fields: {feature_name: user_name}, erase: delete}\n",
        ),
    );
    let (subjects, sets) = ([subject(&[user("nobody")])], [MatchSet::default()]);
    let standby =
        ConnectorError::Unavailable("the connection leads to a standby, or the server is read-only".to_owned());
    for action in [Action::Access, Action::Erasure] {
        let ctx = ctx(action);
        assert_eq!(c.find(&ctx, &subjects).await.err(), Some(standby.clone()), "{action:?}");
        assert_eq!(c.read_back(&ctx, &subjects, &sets).await.err(), Some(standby.clone()), "{action:?}");
    }
    let exported = c.export(&ctx(Action::Access), &subjects[0], &sets[0], None, 10).await;
    assert_eq!(exported.err(), Some(standby));
    let told = c.check(&SystemScope::AllCustomers).await.unwrap();
    assert!(findings(&told)[0].contains("leads to a standby"), "{told:?}");
}
