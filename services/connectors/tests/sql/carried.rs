//! Foreign keys that are not where one looks for them: the database follows them all the same.

use quittance_connectors::{Connector as _, sql::SqlConnector};
use quittance_domain::{action::Action, system::SystemScope};
use quittance_sql::Engine;

use crate::harness::{Db, carried_out, ctx, findings, map, on, refused, sets, subject, user};

/// What the check says of deletions from the collection's table.
async fn told(c: &SqlConnector) -> Vec<String> {
    let told = findings(&c.check(&SystemScope::AllCustomers).await.unwrap());
    told.into_iter().filter(|f| f.starts_with("E ")).collect()
}

/// InnoDB follows a foreign key without asking whether we may see the table that has it.
#[tokio::test]
async fn from_tables_that_the_user_may_not_see() {
    on(Engine::MySql, async |db: &Db| {
        db.sql("CREATE TABLE customer (id integer primary key, login varchar(40)); INSERT INTO customer VALUES (1, 'u'), (2, 'v');").await;
        let Some(billing) = Db::make(Engine::MySql).await else { return };
        let here = &db.name;
        billing
            .sql(&format!(
                "CREATE TABLE `in-voice é` (id integer primary key, customer_id integer, FOREIGN KEY (customer_id) REFERENCES {here}.customer (id) ON DELETE CASCADE);
                 INSERT INTO `in-voice é` VALUES (7, 1);"
            ))
            .await;
        let names = [format!("{here}_l"), format!("{here}_m")];
        let (least, process) = (format!("SELECT, UPDATE, DELETE ON {here}.customer"), "PROCESS ON *.*");
        let pools = [db.user(&names[0], &[&least]).await, db.user(&names[1], &[&least, process]).await];
        let erase = |how: &str| {
            map(&format!("  customer: {{key: [id], identifiers: [{{kind: user_id, field: login}}], fields: {{login: user_name}}, erase: {how}}}\n"))
        };
        let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[user("u")])]);
        for (pool, at_check, at_work) in
            [(&pools[0], "GRANT PROCESS", "GRANT PROCESS"), (&pools[1], "would carry in-voice é.customer_id away", "1142")]
        {
            let c = SqlConnector::open(pool.clone(), erase("delete"));
            let told = told(&c).await;
            assert!(told.len() == 1 && told[0].contains(at_check), "{told:?}");
            let sets = sets(&c, &ctx, &subjects).await;
            let why = refused(c.act(&ctx, &subjects, &sets).await);
            assert!(why.contains(at_work), "{why}");
        }
        assert_eq!(billing.dump("id, customer_id", "`in-voice é`").await, ["7|1"]);
        // Nothing is deleted: no foreign key carries anything along.
        let c = SqlConnector::open(pools[0].clone(), erase("mask"));
        assert_eq!(told(&c).await, [""; 0]);
        assert_eq!(carried_out(&c, &ctx, &subjects).await, [["customer.user_name ERASED 1"]]);
        billing.drop().await;
        for (name, pool) in names.iter().zip(pools) {
            db.without(name, pool).await;
        }
    })
    .await;
}

/// A row of a partition, or of a table that inherits, is deleted by either name.
#[tokio::test]
async fn to_partitions_and_to_what_inherits() {
    on(Engine::Postgres, async |db: &Db| {
        db.sql(
            "CREATE TABLE customer (id integer, region integer, login varchar(40), PRIMARY KEY (id, region)) PARTITION BY LIST (region);
             CREATE TABLE customer_1 PARTITION OF customer (UNIQUE (id)) FOR VALUES IN (1);
             CREATE TABLE customer_2 PARTITION OF customer FOR VALUES IN (2);
             CREATE TABLE loyalty (id integer primary key, customer integer REFERENCES customer_1 (id) ON DELETE CASCADE);
             CREATE TABLE visit (id integer primary key, customer integer, region integer, FOREIGN KEY (customer, region) REFERENCES customer (id, region) ON DELETE CASCADE);
             CREATE TABLE base (id integer primary key, region integer, login varchar(40));
             CREATE TABLE heir (PRIMARY KEY (id)) INHERITS (base);
             CREATE TABLE badge (id integer primary key, base integer REFERENCES heir (id) ON DELETE CASCADE);
             CREATE TABLE card (id integer primary key, base integer REFERENCES base (id) ON DELETE CASCADE);
             INSERT INTO customer VALUES (1, 1, 'u'); INSERT INTO loyalty VALUES (7, 1);
             INSERT INTO heir VALUES (1, 1, 'u'); INSERT INTO badge VALUES (8, 1);",
        )
        .await;
        let carried = |from: &str| format!("deleting would carry {from} away");
        for (table, key, from) in [
            ("customer", "id, region", &["loyalty.customer", "visit.customer"][..]),
            ("customer_1", "id", &["loyalty.customer", "visit.customer"]),
            ("customer_2", "id, region", &["visit.customer"]),
            ("base", "id", &["badge.base", "card.base"]),
            ("heir", "id", &["badge.base"]),
        ] {
            let c = db.connector(&format!(
                "  person: {{table: {table}, key: [{key}], identifiers: [{{kind: user_id, field: login}}], fields: {{login: user_name}}, erase: delete}}\n"
            ));
            let told = told(&c).await;
            let all = from.iter().all(|from| told.iter().any(|t| t.contains(&carried(from))));
            assert!(all && told.len() == from.len(), "{table}: {told:?}");
            let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[user("u")])]);
            let sets = sets(&c, &ctx, &subjects).await;
            if sets[0].rows() > 0 {
                assert!(refused(c.act(&ctx, &subjects, &sets).await).contains("would carry rows of"), "{table}");
            }
        }
        assert_eq!(db.dump("id", "loyalty").await, ["7"]);
        assert_eq!(db.dump("id", "badge").await, ["8"]);
    })
    .await;
}
