//! What one engine does of its own beside what it is told: conflicts that it settles.

use quittance_connectors::Connector as _;
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
