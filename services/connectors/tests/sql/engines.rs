//! What one engine does of its own beside what it is told: conflicts that it settles, collations by which it compares, columns that it sets.

use quittance_connectors::{BatchContext, Connector as _};
use quittance_domain::action::Action;
use quittance_sql::Engine;

use crate::harness::{Db, carried_out, ctx, email, findings, on, refused, replace, sets, subject};

#[tokio::test]
async fn a_constraint_that_would_replace_another_row() {
    on(Engine::Sqlite, async |db: &Db| {
        db.sql(
            "CREATE TABLE person (id integer primary key, email text unique on conflict replace, name text);
             INSERT INTO person VALUES (1, 'ann@x.nl', 'Ann'), (2, 'bo@x.nl', 'Bo');",
        )
        .await;
        let c = db.connector("  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, name: display_name}, erase: mask}\n");
        let ctx = ctx(Action::Rectification);
        let mut ann = subject(&[email("ann@x.nl")]);
        ann.corrections = vec![replace("person", "email", "ann@x.nl", "bo@x.nl")];
        let subjects = [ann];
        let sets = sets(&c, &ctx, &subjects).await;
        refused(c.act(&ctx, &subjects, &sets).await);
        assert_eq!(db.dump("id, email, name", "person").await, ["1|ann@x.nl|Ann", "2|bo@x.nl|Bo"]);
    })
    .await;
}

/// Where nothing is replaced, the table's triggers settle their own conflicts as they always have.
#[tokio::test]
async fn triggers_keep_their_way_with_conflicts() {
    on(Engine::Sqlite, async |db: &Db| {
        db.sql(
            "CREATE TABLE person (id integer primary key, email text, flag text); INSERT INTO person VALUES (1, 'a@x.nl', null);
             CREATE TABLE changed (id integer primary key);
             CREATE TRIGGER person_changed AFTER UPDATE ON person BEGIN INSERT OR IGNORE INTO changed VALUES (new.id); END;",
        )
        .await;
        let c = db.connector("  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: mask, restriction: {field: flag, set: 'yes'}}\n");
        for action in [Action::Restriction, Action::Erasure] {
            carried_out(&c, &ctx(action), &[subject(&[email("a@x.nl")])]).await;
        }
        assert_eq!(db.dump("id, email", "person").await, ["1|-"]);
        assert_eq!(db.dump("id", "changed").await, ["1"]);
    })
    .await;
}

/// The column takes 'abc' and 'ABC' for the same, the index that makes it a key does not.
#[tokio::test]
async fn a_key_by_another_collation_than_its_columns() {
    on(Engine::Sqlite, async |db: &Db| {
        for (table, code) in [("plain", ""), ("bare", " WITHOUT ROWID")] {
            db.sql(&format!(
                "CREATE TABLE {table} (code text collate nocase not null, nr int, tenant text, email text, PRIMARY KEY (nr, code collate binary)){code};
                 INSERT INTO {table} VALUES ('abc', 1, 'acme', 'a@x.nl'), ('ABC', 1, 'globex', 'b@x.nl'), ('Abc', 1, 'acme', 'c@x.nl'), ('abc', 2, 'acme', 'b@x.nl');"
            ))
            .await;
            let c = db.connector(&format!(
                "  {table}: {{key: [code, nr], customer_field: tenant, identifiers: [{{kind: email, field: email}}], fields: {{email: email}}, erase: delete}}\n"
            ));
            let acme = BatchContext { customer_key: Some("acme".to_owned()), ..ctx(Action::Erasure) };
            let outcomes = carried_out(&c, &acme, &[subject(&[email("a@x.nl")])]).await;
            assert_eq!(outcomes, [[format!("{table}.email ERASED 1")]]);
            let left = ["ABC|1|globex", "Abc|1|acme", "abc|2|acme"];
            assert_eq!(db.dump("code, nr, tenant", table).await, left);
        }
    })
    .await;
}

/// What has the same key is still not deleted along, be the key's index gone by now.
#[tokio::test]
async fn a_key_that_is_unique_no_more() {
    on(Engine::Sqlite, async |db: &Db| {
        db.sql(
            "CREATE TABLE person (code text, tenant text, email text, rowid text, oid text);
             INSERT INTO person VALUES ('a', 'acme', 'a@x.nl', 'x', 'x'), ('a', 'globex', 'b@x.nl', 'x', 'x');",
        )
        .await;
        let c = db.connector("  person: {key: [code], customer_field: tenant, identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}\n");
        let acme = BatchContext { customer_key: Some("acme".to_owned()), ..ctx(Action::Erasure) };
        carried_out(&c, &acme, &[subject(&[email("a@x.nl")])]).await;
        assert_eq!(db.dump("tenant", "person").await, ["globex"]);
    })
    .await;
}

/// The number by which SQLite knows a row has three names, and columns may have them all.
#[tokio::test]
async fn a_rowid_without_a_name() {
    on(Engine::Sqlite, async |db: &Db| {
        db.sql(
            "CREATE TABLE person (code text collate nocase, rowid text, oid text, _rowid_ text, email text);
             CREATE UNIQUE INDEX person_code ON person (code collate binary);
             INSERT INTO person VALUES ('a', 'x', 'x', 'x', 'a@x.nl'), ('A', 'x', 'x', 'x', 'b@x.nl');",
        )
        .await;
        let c = db.connector("  person: {key: [code], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}\n");
        carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await;
        assert_eq!(db.dump("code", "person").await, ["A"]);
    })
    .await;
}

/// A hold must not begin anew because we have marked what is held.
#[tokio::test]
async fn an_anchor_that_moves_with_every_change() {
    on(Engine::MySql, async |db: &Db| {
        let moves = "timestamp not null default current_timestamp on update current_timestamp";
        db.sql(&format!(
            "CREATE TABLE invoice (id integer primary key, email varchar(100), note varchar(50), paid varchar(50), flag varchar(5), booked_at {moves}, paid_at {moves}, seen_at {moves});
             INSERT INTO invoice VALUES (1, 'a@x.nl', 'Ann', 'Ann', null, '2019-03-01 10:00:00', '2010-03-01 10:00:00', '2019-03-01 10:00:00'), (2, 'b@x.nl', 'Bo', 'Bo', null, '2024-03-01 10:00:00', '2024-03-01 10:00:00', '2019-03-01 10:00:00');"
        ))
        .await;
        let collection = |name: &str, fields: &str| {
            format!("  {name}: {{table: invoice, key: [id], identifiers: [{{kind: email, field: email}}], {fields}, restriction: {{field: flag, set: 'yes'}}}}\n")
        };
        let by_row = collection("invoice", "fields: {email: email, note: message}, erase: delete, retain: {ground: law, anchor: booked_at, period: P7Y}");
        let by_field = collection("payment", "fields: {email: {category: email, erase: keep}, paid: {category: financial, erase: {retain: {ground: law, anchor: paid_at, period: P7Y}}}}, erase: mask");
        let c = db.connector(&format!("{by_row}{by_field}"));
        let told = findings(&c.check(&quittance_domain::system::SystemScope::AllCustomers).await.unwrap());
        for place in ["invoice.retain.anchor", "payment.fields.paid.erase.retain.anchor"] {
            let start = format!("W collections.{place}:");
            assert!(told.iter().any(|t| t.starts_with(&start) && t.contains("begins its period anew")), "{told:#?}");
        }
        let people = [subject(&[email("a@x.nl")]), subject(&[email("b@x.nl")])];
        carried_out(&c, &ctx(Action::Restriction), &people).await;
        let anchors = ["1|yes|2019-03-01 10:00:00|2010-03-01 10:00:00", "2|yes|2024-03-01 10:00:00|2024-03-01 10:00:00"];
        assert_eq!(db.dump("id, flag, booked_at, paid_at", "invoice").await, anchors);
        // What is no anchor says when the row was changed, as it always has.
        assert_eq!(db.dump("id", "invoice WHERE seen_at > '2020-01-01'").await, ["1", "2"]);
        let mut ann = subject(&[email("a@x.nl")]);
        ann.corrections = vec![replace("invoice", "note", "Ann", "Anna")];
        carried_out(&c, &ctx(Action::Rectification), &[ann]).await;
        assert_eq!(db.dump("note, booked_at, paid_at", "invoice WHERE id = 1").await, ["Anna|2019-03-01 10:00:00|2010-03-01 10:00:00"]);
        let erased = carried_out(&db.connector(&by_row), &ctx(Action::Erasure), &people).await;
        assert_eq!(erased[0], ["invoice.email ERASED 1", "invoice.message ERASED 1"]);
        assert_eq!(erased[1], ["invoice.email RETAINED 1 (law) until 2031-03-01T23:00:00Z", "invoice.message RETAINED 1 (law) until 2031-03-01T23:00:00Z"]);
    })
    .await;
}

/// Indexes over expressions, keys that `SELECT *` does not show, JSON that is more than text, constraints that are enforced.
#[tokio::test]
async fn what_mysql_has_and_mariadb_has_not() {
    on(Engine::MySql, async |db: &Db| {
        if db.mariadb {
            return;
        }
        db.sql(
            "CREATE TABLE person (my_row_id bigint unsigned not null auto_increment invisible primary key, email varchar(100) not null,
               name varchar(50), about json, born date default (curdate()), score decimal(6,2), loud varchar(100) as (upper(email)) stored,
               UNIQUE mail ((lower(email))), KEY of_name (name desc), CONSTRAINT grown CHECK (score is null or score >= 0));
             CREATE TABLE visit (id binary(16) default (uuid_to_bin(uuid())) primary key, person bigint unsigned not null, page varchar(50), CONSTRAINT of_person FOREIGN KEY (person) REFERENCES person (my_row_id) ON DELETE CASCADE);
             INSERT INTO person (email, name, about, born, score) VALUES ('Ann@x.nl', 'Ann', '{\"tel\": \"+31 6\", \"n\": [1, 2.50]}', '1980-02-01', 1.50), ('bo@x.nl', 'Bo', '[]', '1990-01-01', null);
             INSERT INTO visit (person, page) VALUES (1, 'p'), (1, 'q'), (2, 'r');",
        )
        .await;
        let c = db.connector(
            "  person: {key: [my_row_id], identifiers: [{kind: email, field: email}], fields: {email: {category: email, erase: pseudonym}, name: display_name, about: message, born: birth_date, score: {category: other, erase: keep}}, erase: mask}
  visit: {key: [id], owned_by: [{collection: person, fields: {person: my_row_id}}], fields: {page: cookie}, erase: delete}\n",
        );
        let told = findings(&c.check(&quittance_domain::system::SystemScope::AllCustomers).await.unwrap());
        assert!(told.iter().all(|f| f.starts_with('W')), "{told:#?}");
        let ann = [subject(&[email("ann@x.nl")])];
        let mut corrected = ann.clone();
        corrected[0].corrections = vec![replace("person", "name", "Ann", "Anna")];
        carried_out(&c, &ctx(Action::Rectification), &corrected).await;
        assert_eq!(db.dump("name", "person").await, ["Anna", "Bo"]);
        let outcomes = carried_out(&c, &ctx(Action::Erasure), &ann).await;
        let expected = ["person.birth_date ERASED 1", "person.display_name ERASED 1", "person.email PSEUDONYMISED 1", "person.message ERASED 1", "visit.cookie ERASED 2"];
        assert_eq!(outcomes, [expected]);
        assert_eq!(db.dump("name, about, born, score", "person").await, ["-|-|-|1.50", "Bo|[]|1990-01-01|-"]);
        assert_eq!(db.dump("page", "visit").await, ["r"]);
    })
    .await;
}
