//! What one engine does of its own beside what it is told: conflicts that it settles, collations by which it compares.

use quittance_connectors::{BatchContext, Connector as _};
use quittance_domain::action::Action;
use quittance_sql::Engine;

use crate::harness::{Db, carried_out, ctx, email, on, refused, replace, sets, subject};

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
