//! What seeds have found, written out: these stay, whatever the seeds draw tomorrow.

use std::time::Duration;

use quittance_domain::action::Action;
use quittance_simulation::{
    plan::{Fault, Plan, Quirk, Weather},
    play,
    scenario::{By, Erases, Item, Op, Scenario, SystemPlan, Timed},
};
use uuid::Uuid;

/// One replica, one customer, one system that deletes; an erasure of one person's two rows.
fn one_erasure(faults: Vec<(u64, Fault)>, quirks: Vec<(u64, Quirk)>) -> Scenario {
    let system = SystemPlan {
        id: "desk",
        by: By::Email,
        yields_user_id: false,
        erases: Erases::Delete,
        holds_one_in: None,
        settle_after_s: 0,
        batch_size: 5,
        concurrency: 1,
        remote: false,
        customers: None,
    };
    let item = |number| Item {
        number,
        idempotency: Uuid::from_u128(number as u128 + 77),
        person: number,
        action: Action::Erasure,
        ground: None,
        referred: false,
        with_phone: false,
        controller_due_days: None,
    };
    let ops = [
        Op::Rows { system: 0, customer: 0, person: 0, rows: 2 },
        Op::Rows { system: 0, customer: 0, person: 1, rows: 3 },
        Op::Instruct { customer: 0, items: vec![item(0), item(1)], gives_up: false },
    ];
    let timed = |(index, op)| Timed { index, at: Duration::from_secs(index as u64), replica: 0, op };
    Scenario {
        seed: 1,
        replicas: 1,
        customers: 1,
        persons: 2,
        rows: Vec::new(),
        systems: vec![system],
        systems_at_first: 1,
        lease_s: 30,
        window_days: 30,
        retention_days: 30,
        turns_least_s: 120,
        ledger_batch: 64,
        fresh_topology: true,
        weather: Weather { faults: 0, quirks: 0, lease_s: 30, outlasting: 0 },
        ops: ops.into_iter().enumerate().map(timed).collect(),
        faults: Plan::Listed(faults),
        quirks: Plan::Listed(quirks),
    }
}

fn stands(scenario: Scenario) {
    let run = play(scenario, None, true);
    assert_eq!(run.violation, None, "{:#?}", run.trace.lines());
    assert_eq!(run.requests, 2);
}

#[test]
fn an_erasure_on_a_quiet_day() {
    stands(one_erasure(vec![], vec![]));
}

/// Calls 0 to 2 are find, act and read back of the batch; a batch of two that is refused is split, and each is attempted anew. What was
/// erased by then was confirmed as `NOT_HELD`: the match sets that this very run had stored were not looked at again.
#[test]
fn what_a_batch_erased_before_it_was_refused_is_counted_when_it_is_attempted_again() {
    for refused in 0..8 {
        stands(one_erasure(vec![], vec![(refused, Quirk::Refuses)]));
        stands(one_erasure(vec![], vec![(refused, Quirk::Refuses), (refused + 1, Quirk::Refuses)]));
    }
}

#[test]
fn an_erasure_through_a_crash_at_every_moment_of_every_transaction() {
    for moment in 0..120 {
        stands(one_erasure(vec![(moment, Fault::Crash)], vec![]));
    }
}

#[test]
fn an_erasure_through_a_broken_connection_at_every_moment_of_every_transaction() {
    for moment in 0..120 {
        stands(one_erasure(vec![(moment, Fault::Break)], vec![]));
    }
}

/// Rows under a hold are sealed again for their end, for which the subjects are read; a report that stood still meanwhile for longer than
/// its lease was recorded by the time that it had brought along (seed 54 of 600).
#[test]
fn an_erasure_with_holds_through_a_pause_longer_than_a_lease_at_every_moment() {
    for moment in 0..120 {
        let mut scenario = one_erasure(vec![(moment, Fault::Pause { seconds: 50 })], vec![]);
        scenario.systems[0].holds_one_in = Some(2);
        stands(scenario);
    }
}

/// An operator lets a task run again that had nothing to be found by. A worker in somebody else's network was then given it, with no
/// identifier, and what it said was confirmed: `NOT_HELD`.
#[test]
fn a_remote_worker_is_not_asked_about_nobody_when_a_task_is_retried() {
    let mut scenario = one_erasure(vec![], vec![]);
    let phones = SystemPlan { id: "pbx", by: By::Phone, remote: true, ..scenario.systems[0].clone() };
    scenario.systems.push(phones);
    scenario.systems_at_first = 2;
    let (index, at) = (scenario.ops.len(), Duration::from_secs(60));
    scenario.ops.push(Timed { index, at, replica: 0, op: Op::Operate { gives_up: false } });
    stands(scenario);
}
