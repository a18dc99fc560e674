//! What a request costs in round trips, which is what bounds small ones: begin and end of each transaction counted.

use quittance_domain::{action::Action, ids::RequestId};
use quittance_sql::{Engine, round_trips};
use quittance_store::{IntakeContext, LeaseQuery, LeasedTask, Report, RequestRow, StoreError, TaskRow, Topology};

use crate::{harness::TestStore, world::*};

/// Of reading the customer and its agreement, and of taking in one request and giving it back.
const READ_CUSTOMER: u64 = 3;
const TAKE_ONE: u64 = 5;
const TAKE_MANY: u64 = 5;
/// On PostgreSQL the claim opens what it has claimed and moves the hint; on SQLite these are statements of their own.
const LEASE: u64 = 5;
const LEASE_ON_POSTGRES: u64 = 3;
const MATCH_SETS: u64 = 3;
const REPORT: u64 = 4;
/// Of asking what requests instruct, before a remote worker's reports about them are taken.
const ACTIONS: u64 = 3;

fn context<'a>(acme: &'a Customer, topology: &'a Topology) -> IntakeContext<'a> {
    IntakeContext {
        customer: &acme.id,
        by: "customers/acme/tokens/test",
        now: at(1),
        agreement: &acme.agreement,
        topology,
    }
}

/// The tables of a store that grows have their rows counted now and then: so often more than the bounds say, wherever it falls. (The
/// database may be known from the case before by some number of rows.)
struct Counted {
    spare: u64,
}

impl Counted {
    fn within(&mut self, trips: u64, bound: u64, what: &str) {
        let over = trips.saturating_sub(bound);
        assert!(over <= self.spare, "{trips} round trips {what}");
        self.spare -= over;
    }
}

/// Leases, stores match sets, reports; each within its bound.
async fn work(t: &TestStore, acme: &Customer, tasks: usize, tasks_max: u32, counted: &mut Counted) {
    let crm = system_id("crm");
    let ready = t.ready_work(at(2), std::slice::from_ref(&crm)).await.unwrap();
    let query = LeaseQuery { worker: "worker", now: at(2), expires_at: at(62), tasks_max };
    let (batch, trips) = round_trips(t.lease(&ready[0], &query)).await;
    let batch = batch.unwrap();
    assert_eq!(batch.tasks.len(), tasks);
    assert_eq!(batch.time_zone, "Europe/Amsterdam");
    let most = if t.engine() == Engine::Postgres { LEASE_ON_POSTGRES } else { LEASE };
    assert!(trips <= most, "{trips} round trips for a lease");

    let sets: Vec<(&LeasedTask, Vec<u8>)> = batch.tasks.iter().map(|task| (task, b"keys".to_vec())).collect();
    let (lost, trips) = round_trips(t.save_match_sets(&crm, at(3), &sets)).await;
    assert!(lost.unwrap().is_empty());
    counted.within(trips, MATCH_SETS, "for match sets");

    let ids = batch.tasks.iter().map(|task| task.key.request).collect();
    let (instructed, trips) = round_trips(t.instructed(&acme.id, &crm, &ids)).await;
    let instructed = instructed.unwrap();
    let all =
        instructed.values().all(|(said, map)| said.action == Action::Erasure && said.at <= at(2) && *map == Some(1));
    assert!(instructed.len() == tasks && all, "{instructed:?}");
    assert!(trips <= ACTIONS, "{trips} round trips for what {tasks} requests instruct");

    let done = |task: &LeasedTask| Report { request: task.key.request, lease: task.lease, result: done(&crm) };
    let reports: Vec<Report> = batch.tasks.iter().map(done).collect();
    let (lost, trips) = round_trips(t.report(&acme.id, &crm, || at(4), &reports)).await;
    assert!(lost.unwrap().is_empty());
    assert!(trips <= REPORT, "{trips} round trips for a report");
}

pub async fn one_request_takes_few(t: &TestStore) {
    const { assert!(READ_CUSTOMER + TAKE_ONE + LEASE_ON_POSTGRES + MATCH_SETS + REPORT <= 20) };
    let (acme, _) = acme_and_crm(t).await;
    let topology = t.topology().await.unwrap();
    let (read, trips) = round_trips(t.customer(&acme.id)).await;
    assert_eq!(read.unwrap().agreement, acme.agreement);
    assert!(trips <= READ_CUSTOMER, "{trips} round trips for the customer");
    let (taken, trips) = round_trips(t.create_request(&context(&acme, &topology), &erasure("mara"))).await;
    assert!(trips <= TAKE_ONE, "{trips} round trips to take one in");
    let (request, tasks): (RequestRow, Vec<TaskRow>) = taken.unwrap();
    let id = request.id;
    assert_eq!(format!("{:?}", t.request(&acme.id, id).await.unwrap()), format!("{:?}", (request, tasks)));
    work(t, &acme, 1, 1000, &mut Counted { spare: 0 }).await;
    assert_eq!(t.count("SELECT count(*) FROM requests WHERE state = 'COMPLETED'").await, 1);
    // Of all that are asked for, or of none.
    let unknown = [id, RequestId::new(uuid::Uuid::from_u128(7))].into();
    assert!(matches!(t.instructed(&acme.id, &system_id("crm"), &unknown).await, Err(StoreError::NotFound(_))));
    let bolt = customer(t, "bolt").await;
    assert!(matches!(t.instructed(&bolt.id, &system_id("crm"), &[id].into()).await, Err(StoreError::NotFound(_))));
}

pub async fn a_thousand_requests_take_no_more(t: &TestStore) {
    const { assert!(TAKE_MANY + LEASE_ON_POSTGRES + MATCH_SETS + REPORT <= 30) };
    let (acme, _) = acme_and_crm(t).await;
    let topology = t.topology().await.unwrap();
    let mut counted = Counted { spare: 1 };
    for name in ["p", "q"] {
        let chunk: Vec<_> = (0..1000).map(|n| erasure(&format!("{name}{n}"))).collect();
        let (taken, trips) = round_trips(t.create_requests(&context(&acme, &topology), &chunk)).await;
        assert!(taken.unwrap().iter().all(Result::is_ok));
        counted.within(trips, TAKE_MANY, "to take a thousand in");
        work(t, &acme, 1000, 1000, &mut counted).await;
    }
    assert_eq!(t.count("SELECT count(*) FROM requests WHERE state = 'COMPLETED'").await, 2000);
    for table in ["subject_heads", "subject_lines", "task_waits"] {
        assert_eq!(t.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
}

/// What was taken in before is not taken in again, and given as it stands.
pub async fn a_repeated_request_takes_fewer(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let topology = t.topology().await.unwrap();
    let instruction = erasure("mara");
    let (first, _) = t.create_request(&context(&acme, &topology), &instruction).await.unwrap();
    acme.confirm_next(&crm, at(2)).await;
    let (again, trips) = round_trips(t.create_request(&context(&acme, &topology), &instruction)).await;
    let (again, tasks) = again.unwrap();
    assert_eq!((again.id, again.state.is_closed(), tasks.len()), (first.id, true, 1));
    assert!(tasks[0].confirmation.is_some());
    assert!(trips < TAKE_ONE, "{trips} round trips to take one in again");
}
