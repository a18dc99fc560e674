//! A request completes when every task bears a confirmation, with today's systems, and not otherwise (I3, I5).

use std::sync::Arc;

use quittance_domain::{
    data_map::{DataMap, MapKind},
    identifier::IdentifierKind::{Email, UserId},
    outcome::OutcomeKind,
    request::RequestState,
    system::System,
    task::{TaskState, Work},
};
use quittance_store::{ReportResult, StoreError};

use crate::{harness::TestStore, world::*};

pub async fn a_request_completes_with_its_last_confirmation(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    assert_eq!(acme.confirm_next(&crm, at(10)).await, id);
    let half = acme.request(id).await;
    assert_eq!((half.state, half.closed_at), (RequestState::InProgress, None));
    assert_eq!(acme.confirm_next(&shop, at(20)).await, id);
    let whole = acme.request(id).await;
    assert_eq!((whole.state, whole.closed_at, whole.changed_at), (RequestState::Completed, Some(at(20)), at(20)));
    for task in acme.tasks(id).await {
        assert_eq!(task.state, TaskState::Confirmed);
        let (stored, late) = task.confirmation.unwrap();
        assert_eq!((stored, late), (confirmation(&task.system, OutcomeKind::Erased), false));
    }
}

pub async fn what_nobody_confirms_is_an_exception(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(10)).await;
    assert!(acme.report(&task, at(11), unconfirmed(&crm)).await.is_empty());
    acme.confirm_next(&shop, at(20)).await;
    assert_eq!(acme.state(id).await, RequestState::CompletedWithExceptions);
}

pub async fn a_system_added_meanwhile_is_planned_before_a_request_completes(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let open = acme.instruct(at(1), erasure("mara")).await;
    let finished = acme.instruct(at(1), erasure("noor")).await;
    let batch = claim(t, &crm, at(2)).await.unwrap();
    for task in &batch.tasks {
        if task.key.request == finished {
            acme.report(task, at(3), done(&crm)).await;
        }
    }
    assert_eq!(acme.state(finished).await, RequestState::Completed);
    let shop = register(t, "shop", &[Email], &[]).await;
    // All that was planned is confirmed, but not all that there is.
    let task = batch.tasks.iter().find(|task| task.key.request == open).unwrap();
    assert!(acme.report(task, at(4), done(&crm)).await.is_empty());
    assert_eq!(acme.state(open).await, RequestState::InProgress);
    let generation = t.generation().await.unwrap();
    assert_eq!(t.customers_to_replan(generation).await.unwrap(), std::slice::from_ref(&acme.id));
    acme.replan(at(5)).await;
    assert!(t.customers_to_replan(generation).await.unwrap().is_empty());
    assert_eq!(acme.task_state(open, &shop).await, TaskState::Pending);
    assert_eq!(acme.tasks(finished).await.len(), 1, "what is complete stays as it is");
    assert_eq!(acme.confirm_next(&shop, at(6)).await, open);
    let closed = acme.request(open).await;
    assert_eq!((closed.state, closed.closed_at), (RequestState::Completed, Some(at(6))));
    assert!(claim(t, &shop, at(7)).await.is_none());
}

/// The new system may hold nothing of this customer's: then there is nothing to add, and the request completes all the same.
pub async fn a_request_that_lacks_nothing_after_a_change_completes(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let plain = acme.instruct(at(1), erasure("mara")).await;
    let flawed = acme.instruct(at(1), erasure("noor")).await;
    let batch = claim(t, &crm, at(2)).await.unwrap();
    let map = system("crm", &[Email], &[]).map;
    t.update_data_map(&crm, "version: 1", &map, new_id(), at(2)).await.unwrap();
    for task in &batch.tasks {
        let result = if task.key.request == flawed { unconfirmed(&crm) } else { done(&crm) };
        acme.report(task, at(3), result).await;
    }
    for id in [plain, flawed] {
        assert_eq!(acme.state(id).await, RequestState::InProgress);
    }
    acme.replan(at(4)).await;
    assert_eq!(acme.state(plain).await, RequestState::Completed);
    assert_eq!(acme.state(flawed).await, RequestState::CompletedWithExceptions);
    assert_eq!(acme.request(plain).await.closed_at, Some(at(4)));
    assert_eq!(t.count("SELECT count(*) FROM subject_heads").await, 0, "a closed request stands in nobody's way");
}

/// Its only system is found by other identifiers since, and so is a new one: nothing leads there, and that is told.
pub async fn a_system_that_nothing_leads_to_any_more_is_not_left_out(t: &TestStore) {
    let acme = customer(t, "acme").await;
    let found_by = |kind: &str| {
        format!(
            "version: 1\ncollections: {{people: {{key: [id], identifiers: [{{kind: {kind}, field: f}}], erase: delete}}}}"
        )
    };
    let map = |kind: &str| Arc::new(DataMap::parse(&found_by(kind), MapKind::Sql).unwrap());
    let crm = System { map: map("email"), ..system("crm", &[], &[]) };
    t.register_system(&crm, &found_by("email"), new_id(), at(0)).await.unwrap();
    let [before, after] = ["mara", "noor"].map(|person| acme.instruct(at(1), erasure(person)));
    let (before, after) = (before.await, after.await);
    t.update_data_map(&crm.id, &found_by("user_id"), &map("user_id"), new_id(), at(2)).await.unwrap();
    let shop = register(t, "shop", &[UserId], &[]).await;
    assert_eq!(acme.confirm_next(&crm.id, at(3)).await, before);
    acme.replan(at(4)).await;
    assert_eq!(acme.confirm_next(&crm.id, at(5)).await, after);
    for id in [before, after] {
        assert_eq!(acme.state(id).await, RequestState::InProgress);
        assert_eq!(acme.task_state(id, &shop).await, TaskState::NeedsAttention);
    }
}

pub async fn a_replan_with_old_systems_does_nothing(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let old = t.topology().await.unwrap();
    register(t, "shop", &[Email], &[]).await;
    assert_eq!(t.replan(&acme.id, &old, at(2)).await.unwrap(), 0);
    assert_eq!(acme.tasks(id).await.len(), 1);
}

/// More open requests than one transaction of the sweep takes.
pub async fn a_replan_reaches_every_open_request(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let people: Vec<_> = (0..620).map(|n| erasure(&format!("person{n}"))).collect();
    acme.instruct_all(at(1), people).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    acme.replan(at(2)).await;
    assert_eq!(t.count("SELECT count(*) FROM tasks").await, 1240);
    assert_eq!(t.count("SELECT count(*) FROM requests WHERE open_tasks = 2").await, 620);
    let mut claimed = 0;
    for system in [&crm, &shop] {
        while let Some(batch) = claim_at(t, system, at(3), 500).await {
            claimed += batch.tasks.len();
        }
    }
    assert_eq!(claimed, 1240);
}

/// The system that yields what the new one is keyed by was asked, or has acted, before there was a new one.
pub async fn a_system_added_late_does_not_wait_for_what_has_been(t: &TestStore) {
    let acme = customer(t, "acme").await;
    let crm = register(t, "crm", &[Email], &[UserId]).await;
    let mail = register(t, "mail", &[Email], &[]).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    assert_eq!(acme.confirm_next(&crm, at(2)).await, id);
    let shop = register(t, "shop", &[UserId], &[]).await;
    acme.replan(at(3)).await;
    assert_eq!(acme.task_state(id, &shop).await, TaskState::Pending, "nothing that it waits for is still to come");
    acme.confirm_next(&mail, at(4)).await;
    acme.confirm_next(&shop, at(5)).await;
    assert_eq!(acme.state(id).await, RequestState::Completed);
}

pub async fn a_system_added_while_another_is_at_work_waits_for_it(t: &TestStore) {
    let acme = customer(t, "acme").await;
    let crm = register(t, "crm", &[Email], &[UserId]).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    let shop = register(t, "shop", &[UserId], &[]).await;
    acme.replan(at(3)).await;
    assert_eq!(acme.task_state(id, &shop).await, TaskState::Waiting);
    assert!(acme.report(&task, at(4), done(&crm)).await.is_empty());
    assert_eq!(acme.confirm_next(&shop, at(5)).await, id);
    assert_eq!(acme.state(id).await, RequestState::Completed);
}

pub async fn a_task_that_needs_attention_holds_its_request_open(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    assert!(acme.report(&task, at(3), attention()).await.is_empty());
    let row = acme.task(id, &crm).await;
    assert_eq!((row.state, row.reason.as_str()), (TaskState::NeedsAttention, "MATCH_TOO_WIDE"));
    assert!(claim(t, &crm, day(400)).await.is_none(), "nothing times out into success");
    assert_eq!(acme.state(id).await, RequestState::InProgress);
    t.retry_task(&acme.key(id, &crm), "operators/kim", at(5), &as_is).await.unwrap();
    let task = claim_one(t, &crm, at(5)).await;
    assert_eq!(task.attempts, 1, "counted anew");
    acme.report(&task, at(6), attention()).await;
    let key = acme.key(id, &crm);
    t.resolve_task(&key, confirmation(&crm, OutcomeKind::Unconfirmed), "operators/kim", at(7)).await.unwrap();
    assert_eq!(acme.state(id).await, RequestState::CompletedWithExceptions);
    // Once only, and only from there.
    for refused in [
        t.resolve_task(&key, confirmation(&crm, OutcomeKind::Erased), "operators/kim", at(8)).await,
        t.retry_task(&key, "operators/kim", at(8), &as_is).await,
    ] {
        assert!(matches!(refused, Err(StoreError::WrongState(_))), "{refused:?}");
    }
}

/// A recipient that was told on paper, a worker that was switched off: nobody will ever say that it needs attention.
pub async fn what_nobody_comes_for_is_resolved_by_hand(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let resolve = async |id, now| {
        let on_paper = confirmation(&crm, OutcomeKind::Unconfirmed);
        t.resolve_task(&acme.key(id, &crm), on_paper, "operators/kim", now).await
    };
    let due = acme.instruct(at(1), erasure("mara")).await;
    let waiting = acme.instruct(at(1), erasure("mara")).await;
    let refused = resolve(waiting, at(2)).await.unwrap_err();
    assert!(matches!(&refused, StoreError::WrongState(why) if why.contains("WAITING")), "{refused}");
    resolve(due, at(2)).await.unwrap();
    assert_eq!(acme.state(due).await, RequestState::CompletedWithExceptions);
    // Under a lease it is its worker's, until the lease has passed.
    let task = claim_one(t, &crm, at(3)).await;
    let refused = resolve(waiting, at(4)).await.unwrap_err();
    assert!(matches!(&refused, StoreError::WrongState(why) if why.contains("RUNNING")), "{refused}");
    resolve(waiting, day(1)).await.unwrap();
    assert_eq!(acme.report(&task, day(1), done(&crm)).await, [waiting], "too late");
    let awaited = acme.instruct(day(2), erasure("noor")).await;
    let task = claim_one(t, &crm, day(2)).await;
    let later = ReportResult::Awaiting { check_at: day(9), reference: "T-1".to_owned() };
    assert!(acme.report(&task, day(2), later).await.is_empty());
    resolve(awaited, day(3)).await.unwrap();
    assert!(claim(t, &crm, day(30)).await.is_none());
}

/// A worker that still has the task when an operator ends it has lost it.
pub async fn a_task_resolved_by_hand_is_lost_to_its_worker(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    acme.report(&task, at(3), attention()).await;
    let key = acme.key(id, &crm);
    t.resolve_task(&key, confirmation(&crm, OutcomeKind::Unconfirmed), "operators/kim", at(4)).await.unwrap();
    assert_eq!(acme.report(&task, at(5), done(&crm)).await, [id]);
    let (stored, _) = acme.task(id, &crm).await.confirmation.unwrap();
    assert_eq!(stored.outcomes[0].outcome, OutcomeKind::Unconfirmed);
}

pub async fn late_is_recorded_as_late(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let on_time = acme.instruct(at(1), erasure("mara")).await;
    let late = acme.instruct(at(1), erasure("noor")).await;
    let due = acme.request(late).await.due_at;
    let just = claim_at(t, &crm, at(2), 1).await.unwrap();
    assert_eq!(just.tasks[0].due_at, due);
    // The due time itself is still in time.
    let until = [(just.tasks[0].key.request, just.tasks[0].lease)];
    assert!(t.extend_leases(&acme.id, &crm, &until, at(3), day(60)).await.unwrap().is_empty());
    acme.report(&just.tasks[0], due, done(&crm)).await;
    let next = due.checked_add(std::time::Duration::from_micros(1)).unwrap();
    acme.confirm_next(&crm, next).await;
    let mut lateness = Vec::new();
    for id in [on_time, late] {
        lateness.push(acme.task(id, &crm).await.confirmation.unwrap().1);
    }
    assert_eq!(lateness, [false, true]);
    assert_eq!(t.count("SELECT count(*) FROM ledger_entries WHERE kind = 'completed'").await, 2);
}

pub async fn one_report_may_hold_every_kind_of_result(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let ids = acme.instruct_all(at(1), (0..5).map(|n| erasure(&format!("p{n}"))).collect()).await;
    let batch = claim(t, &crm, at(2)).await.unwrap();
    assert_eq!((batch.work, batch.tasks.len()), (Work::Act, 5));
    let results = [
        done(&crm),
        ReportResult::Retry { at: at(100), reason: "BUSY".to_owned() },
        ReportResult::Awaiting { check_at: at(200), reference: "ticket 9".to_owned() },
        attention(),
        unconfirmed(&crm),
    ];
    let reports = batch.tasks.iter().zip(results).map(|(task, result)| quittance_store::Report {
        request: task.key.request,
        lease: task.lease,
        result,
    });
    assert!(t.report(&acme.id, &crm, || at(3), &reports.collect::<Vec<_>>()).await.unwrap().is_empty());
    let mut states = Vec::new();
    for id in ids {
        let task = acme.task(id, &crm).await;
        states.push((task.state, task.reason, acme.state(id).await));
    }
    let state = |task, reason: &str, request| (task, reason.to_owned(), request);
    assert_eq!(
        states,
        [
            state(TaskState::Confirmed, "", RequestState::Completed),
            state(TaskState::Pending, "BUSY", RequestState::InProgress),
            state(TaskState::AwaitingConfirmation, "ticket 9", RequestState::InProgress),
            state(TaskState::NeedsAttention, "MATCH_TOO_WIDE", RequestState::InProgress),
            state(TaskState::Confirmed, "", RequestState::CompletedWithExceptions),
        ]
    );
}
