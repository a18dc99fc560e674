//! What an application's team alters after its system was registered: nobody tells us.

use quittance_connectors::{Connector as _, sql::SqlConnector};
use quittance_domain::{action::Action, system::SystemScope};
use quittance_sql::Engine;

use crate::harness::{Db, carried_out, ctx, findings, map, on, refused, sets, subject, user};

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
