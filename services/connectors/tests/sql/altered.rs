//! What an application's team alters after its system was registered: nobody tells us.

use std::time::Duration;

use quittance_connectors::{Connector as _, ConnectorError, sql::SqlConnector};
use quittance_domain::{action::Action, system::SystemScope};
use quittance_sql::{Engine, round_trips};

use crate::harness::{Db, carried_out, ctx, findings, map, on, on_all_engines, refused, sets, subject, user};

on_all_engines!(a_cascade_that_is_made_later, a_schema_is_not_read_for_each_batch);

const PERSON: &str =
    "  person: {key: [id], identifiers: [{kind: user_id, field: login}], fields: {login: user_name}, erase: delete}\n";

async fn person(db: &Db) {
    db.sql("CREATE TABLE person (id integer primary key, login varchar(40)); INSERT INTO person VALUES (1, 'u'), (2, 'v');").await;
}

async fn errors(c: &SqlConnector) -> Vec<String> {
    let told = findings(&c.check(&SystemScope::AllCustomers).await.unwrap());
    told.into_iter().filter(|f| f.starts_with('E')).collect()
}

#[tokio::test]
async fn rows_that_a_policy_hides_are_not_taken_for_absent() {
    on(Engine::Postgres, async |db: &Db| {
        person(db).await;
        let name = format!("{}_app", db.name);
        let pool = db.user(&name, &["SELECT, UPDATE, DELETE ON person"]).await;
        let c = SqlConnector::open(pool.clone(), map(PERSON));
        assert_eq!(errors(&c).await, [""; 0]);
        let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[user("u")])]);
        let sets = sets(&c, &ctx, &subjects).await;
        assert_eq!(sets[0].rows(), 1);
        // The plan is young: the database itself must refuse.
        db.sql("ALTER TABLE person ENABLE ROW LEVEL SECURITY").await;
        assert!(refused(c.read_back(&ctx, &subjects, &sets).await).contains("42501"));
        for _ in 0..2 {
            assert!(refused(c.find(&ctx, &subjects).await).contains("row-level security hides rows"));
        }
        db.sql("ALTER TABLE person DISABLE ROW LEVEL SECURITY").await;
        assert_eq!(carried_out(&c, &ctx, &subjects).await, [["person.user_name ERASED 1"]]);
        db.without(&name, pool).await;
    })
    .await;
}

#[tokio::test]
async fn a_table_that_begins_to_keep_its_history_is_not_erased_from() {
    on(Engine::MySql, async |db: &Db| {
        person(db).await;
        let c = db.connector(PERSON).with_schema_age_max(Duration::ZERO);
        assert_eq!(errors(&c).await, [""; 0]);
        let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[user("u")])]);
        let sets = sets(&c, &ctx, &subjects).await;
        let history = ("ADD SYSTEM VERSIONING", "system-versioned", "DROP SYSTEM VERSIONING");
        let engine = ("ENGINE = MyISAM", "no transactions", "ENGINE = InnoDB");
        for (altered, why, back) in db.mariadb.then_some(history).into_iter().chain([engine]) {
            db.sql(&format!("ALTER TABLE person {altered}")).await;
            assert!(errors(&c).await.concat().contains(why));
            assert!(refused(c.find(&ctx, &subjects).await).contains(why));
            assert!(refused(c.act(&ctx, &subjects, &sets).await).contains(why));
            assert!(refused(c.read_back(&ctx, &subjects, &sets).await).contains(why));
            db.sql(&format!("ALTER TABLE person {back}")).await;
        }
        assert_eq!(carried_out(&c, &ctx, &subjects).await, [["person.user_name ERASED 1"]]);
    })
    .await;
}

/// As numbers `7`, `07` and `7f3c` are one: other people's rows would be exported.
#[tokio::test]
async fn ids_that_become_texts_are_compared_as_texts() {
    on(Engine::MySql, async |db: &Db| {
        db.sql("CREATE TABLE person (id integer primary key, login integer); INSERT INTO person VALUES (1, 7);").await;
        let c = db.connector(PERSON).with_schema_age_max(Duration::ZERO);
        let (ctx, subjects) = (ctx(Action::Access), [subject(&[user("7")])]);
        assert_eq!(sets(&c, &ctx, &subjects).await[0].rows(), 1);
        db.sql("ALTER TABLE person MODIFY login varchar(36); INSERT INTO person VALUES (2, '07'), (3, '7f3c');").await;
        assert_eq!(sets(&c, &ctx, &subjects).await[0].rows(), 1);
    })
    .await;
}

/// In the time in which the plan is not made anew.
async fn a_cascade_that_is_made_later(db: &Db) {
    person(db).await;
    let c = db.connector(PERSON);
    let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[user("u")])]);
    let sets = sets(&c, &ctx, &subjects).await;
    db.sql(
        "CREATE TABLE loyalty (id integer primary key, person integer, FOREIGN KEY (person) REFERENCES person (id) ON DELETE CASCADE);
         INSERT INTO loyalty VALUES (9, 1);",
    )
    .await;
    match c.act(&ctx, &subjects, &sets).await {
        Err(ConnectorError::Unavailable(why)) => assert!(why.contains("foreign keys to the table"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(refused(c.act(&ctx, &subjects, &sets).await).contains("would carry rows of"));
    assert_eq!(db.dump("id, person", "loyalty").await, ["9|1"]);
    assert_eq!(db.dump("id", "person").await, ["1", "2"]);
    db.sql("DELETE FROM loyalty").await;
    c.act(&ctx, &subjects, &sets).await.unwrap()[0].clone().unwrap();
    assert_eq!(db.dump("id", "person").await, ["2"]);
}

async fn a_schema_is_not_read_for_each_batch(db: &Db) {
    person(db).await;
    let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[user("u")])]);
    let asked = async |c: &SqlConnector| round_trips(c.find(&ctx, &subjects)).await.1;
    let c = db.connector(PERSON);
    let (first, second, third) = (asked(&c).await, asked(&c).await, asked(&c).await);
    assert!(second < first && second == third, "{first} {second} {third}");
    let c = db.connector(PERSON).with_schema_age_max(Duration::ZERO);
    assert_eq!((asked(&c).await, asked(&c).await), (first, first));
}
