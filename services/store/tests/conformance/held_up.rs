//! PostgreSQL: whoever takes something in about two persons is held up between their lines, and others are not.

use std::time::{Duration, Instant};

use quittance_domain::ids::SystemId;
use quittance_sql::Tx;

use crate::{harness::TestStore, statements::by_the_case, world::*};

/// Two persons of whom nothing is open, in the order in which their lines are locked.
pub async fn in_order(t: &TestStore, acme: &Customer) -> [&'static str; 2] {
    let mut persons = Vec::new();
    for person in ["mara", "noor"] {
        persons.push((acme.instruct(at(0), access(person)).await, person));
    }
    let heads = t.rows("SELECT request_id FROM subject_heads ORDER BY pseudonym", vec![]).await;
    persons.sort_by_key(|(id, _)| heads.iter().position(|row| row.uuid(0).unwrap() == id.uuid()));
    for (id, _) in &persons {
        acme.cancel(*id, at(0)).await.unwrap();
    }
    [persons[0].1, persons[1].1]
}

/// The line of a person about whom something is at work.
pub struct HeldUp<'a> {
    t: &'a TestStore,
    line: Tx,
}

impl<'a> HeldUp<'a> {
    pub async fn new(t: &'a TestStore, acme: &Customer, system: &SystemId, person: &str) -> Self {
        let at_work = acme.instruct(at(1), access(person)).await;
        assert_eq!(claim_one(t, system, at(1)).await.key.request, at_work);
        let mut line = t.raw().await;
        let heads = line.fetch(&by_the_case("SELECT request_id FROM subject_heads FOR UPDATE"), vec![]).await.unwrap();
        assert_eq!(heads.len(), 1, "of nobody else anything is open");
        Self { t, line }
    }

    pub async fn let_go(self) {
        self.line.commit().await.unwrap();
    }

    pub async fn is_waited_for(&self) {
        lock_is_waited_for(self.t, 1).await;
    }
}

/// How many transactions wait for others.
pub const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

/// Until so many transactions wait for others.
pub async fn lock_is_waited_for(t: &TestStore, transactions: i64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while t.count(WAITING).await < transactions {
        assert!(Instant::now() < deadline, "nobody waits for what is locked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
