//! What the customer and the operator decide: from which states, with what effect, on what record (I1, I9).

use std::time::{Duration, Instant};

use quittance_domain::{
    action::{Action, RestrictionGround},
    ids::{RequestId, SystemId},
    outcome::OutcomeKind,
    request::RequestState,
    task::{TaskState, Work},
};
use quittance_sql::{SqlErrorKind, Tx};
use quittance_store::{Report, ReportResult, StoreError, StoreResult, despite_conflicts};

use crate::{harness::TestStore, held_up::lock_is_waited_for, statements::by_the_case, world::*};

async fn refer(acme: &Customer, person: &str) -> RequestId {
    let mut intake = erasure(person);
    intake.referred = Some("please delete me".to_owned());
    acme.instruct(at(1), intake).await
}

fn is_wrong_state(result: StoreResult<()>) -> bool {
    matches!(result, Err(StoreError::WrongState(_)))
}

pub async fn a_referred_request_waits_for_the_customers_word(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = refer(&acme, "mara").await;
    let waiting = acme.request(id).await;
    assert_eq!((waiting.state, waiting.closed_at), (RequestState::AwaitingCustomer, None));
    assert!(acme.tasks(id).await.is_empty());
    assert!(claim(t, &crm, day(50)).await.is_none());
    acme.replan(at(2)).await;
    assert!(acme.tasks(id).await.is_empty(), "the sweep is nobody's word");
    acme.authorise(id, day(10)).await.unwrap();
    let going = acme.request(id).await;
    assert_eq!(going.state, RequestState::InProgress);
    assert_eq!(
        (going.first_due_at, going.due_at),
        ("2026-04-10T21:59:59.999999Z".parse().unwrap(), going.first_due_at)
    );
    let task = claim_one(t, &crm, day(11)).await;
    assert_eq!(task.subject.words.as_ref().unwrap().expose(), "please delete me");
    acme.report(&task, day(11), done(&crm)).await;
    assert_eq!(acme.state(id).await, RequestState::Completed);
}

pub async fn an_authorised_request_is_planned_with_todays_systems(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let id = refer(&acme, "mara").await;
    let old = t.topology().await.unwrap();
    register(t, "shop", &[Email], &[]).await;
    let refused = t.authorise_request(&acme.id, id, &acme.agreement, &old, "test", at(2)).await;
    assert!(is_wrong_state(refused));
    acme.authorise(id, at(3)).await.unwrap();
    assert_eq!(acme.tasks(id).await.len(), 2);
    assert!(t.customers_to_replan(t.generation().await.unwrap()).await.unwrap().is_empty());
}

pub async fn a_declined_request_is_closed_and_never_runs(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = refer(&acme, "mara").await;
    t.decline_request(&acme.id, id, "customers/acme", "not our user", at(2)).await.unwrap();
    let closed = acme.request(id).await;
    assert_eq!((closed.state, closed.closed_at), (RequestState::Declined, Some(at(2))));
    assert_eq!(closed.closing_reason.as_deref(), Some("not our user"));
    assert!(claim(t, &crm, day(50)).await.is_none());
    assert_nothing_more_can_happen(t, &acme, id).await;
}

pub async fn a_request_is_cancelled_before_anything_has_run(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    acme.cancel(id, at(2)).await.unwrap();
    let closed = acme.request(id).await;
    assert_eq!((closed.state, closed.closed_at), (RequestState::Cancelled, Some(at(2))));
    assert_eq!(closed.closing_reason.as_deref(), Some("sent by mistake"));
    assert!(acme.tasks(id).await.is_empty());
    assert!(claim(t, &crm, day(50)).await.is_none());
    for table in ["task_waits", "subject_heads", "restrictions"] {
        assert_eq!(t.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    assert_nothing_more_can_happen(t, &acme, id).await;
    let waiting = refer(&acme, "noor").await;
    acme.cancel(waiting, at(3)).await.unwrap();
    assert_eq!(acme.state(waiting).await, RequestState::Cancelled);
}

/// Not while it runs, and not once it has: also where the task went back to the queue.
pub async fn what_was_ever_leased_is_not_cancelled(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    register(t, "shop", &[Email], &[]).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    assert!(is_wrong_state(acme.cancel(id, at(3)).await));
    acme.report(&task, at(4), ReportResult::Retry { at: at(5), reason: "BUSY".to_owned() }).await;
    assert!(is_wrong_state(acme.cancel(id, at(5)).await));
    acme.confirm_next(&crm, at(6)).await;
    assert!(is_wrong_state(acme.cancel(id, at(7)).await));
    assert_eq!((acme.state(id).await, acme.tasks(id).await.len()), (RequestState::InProgress, 2));
}

/// Of a cancellation and a claim at the same moment, one comes too late.
pub async fn a_cancellation_and_a_claim_exclude_each_other(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    for round in 0..12 {
        let id = acme.instruct(at(1), erasure(&format!("p{round}"))).await;
        let canceller = {
            let acme = acme.clone();
            tokio::spawn(async move { again!(acme.cancel(id, at(2))) })
        };
        let claimed = claim(t, &crm, at(2)).await;
        let cancelled = canceller.await.unwrap();
        match &cancelled {
            Ok(()) => assert!(claimed.is_none(), "round {round}"),
            Err(StoreError::WrongState(_)) => {
                let batch = claimed.expect("it was claimed");
                assert!(acme.report(&batch.tasks[0], at(3), done(&crm)).await.is_empty());
            }
            Err(e) => panic!("{e}"),
        }
    }
}

async fn assert_nothing_more_can_happen(t: &TestStore, acme: &Customer, id: RequestId) {
    let before = acme.request(id).await;
    assert!(is_wrong_state(acme.authorise(id, day(1)).await));
    assert!(is_wrong_state(t.decline_request(&acme.id, id, "customers/acme", "again", day(1)).await));
    assert!(is_wrong_state(acme.cancel(id, day(1)).await));
    assert!(is_wrong_state(t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", day(1)).await));
    assert!(is_wrong_state(t.extend_request(&acme.id, id, day(90), "customers/acme", "complex", day(1)).await));
    let after = acme.request(id).await;
    assert_eq!(
        (after.state, after.changed_at, after.closed_at, after.closing_reason, after.due_at),
        (before.state, before.changed_at, before.closed_at, before.closing_reason, before.due_at)
    );
}

pub async fn a_completed_request_is_closed_for_good(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    acme.confirm_next(&crm, at(2)).await;
    assert_nothing_more_can_happen(t, &acme, id).await;
}

pub async fn only_what_waits_is_authorised_or_declined(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let going = acme.instruct(at(1), erasure("mara")).await;
    assert!(is_wrong_state(acme.authorise(going, at(2)).await));
    assert!(is_wrong_state(t.decline_request(&acme.id, going, "customers/acme", "no", at(2)).await));
    let waiting = refer(&acme, "noor").await;
    assert!(is_wrong_state(t.object_to_request(&acme.id, waiting, "operators/kim", "looks unlawful", at(2)).await));
}

pub async fn an_objection_holds_what_has_not_begun(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(3)).await.unwrap();
    let held = acme.request(id).await;
    assert_eq!(held.state, RequestState::AwaitingCustomer);
    assert_eq!(held.objection, Some(("looks unlawful".to_owned(), at(3))));
    assert!(claim(t, &shop, day(50)).await.is_none());
    assert_eq!(acme.task(id, &shop).await.reason, "OBJECTED");
    // What had begun is finished.
    assert!(acme.report(&task, at(4), done(&crm)).await.is_empty());
    assert!(is_wrong_state(acme.cancel(id, at(5)).await), "it has run");
    acme.authorise(id, at(6)).await.unwrap();
    let going = acme.request(id).await;
    assert_eq!((going.state, going.first_due_at), (RequestState::InProgress, held.first_due_at));
    assert_eq!(going.objection, Some(("looks unlawful".to_owned(), at(3))), "it stays on record");
    assert_eq!(acme.confirm_next(&shop, at(7)).await, id);
    assert_eq!(acme.state(id).await, RequestState::Completed);
}

/// It was waiting for a database that is down, say.
pub async fn what_is_put_off_after_an_objection_waits_for_the_customers_word(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(3)).await.unwrap();
    let put_off = || ReportResult::Retry { at: at(5), reason: "the system was not there".to_owned() };
    assert!(acme.report(&task, at(4), put_off()).await.is_empty());
    assert!(claim(t, &crm, day(3)).await.is_none(), "no attempt begins");
    let held = acme.task(id, &crm).await;
    assert_eq!((held.state, held.reason.as_str()), (TaskState::Waiting, "OBJECTED"));
    acme.authorise(id, at(6)).await.unwrap();
    let task = claim_one(t, &crm, at(7)).await;
    // Once rows were found to be changed, it may have begun, and goes on.
    assert!(t.save_match_sets(&crm, at(8), &[(&task, b"{}".to_vec())]).await.unwrap().is_empty());
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(8)).await.unwrap();
    assert!(acme.report(&task, at(9), put_off()).await.is_empty());
    assert_eq!(acme.confirm_next(&crm, at(10)).await, id);
    acme.authorise(id, at(11)).await.unwrap();
    acme.replan(at(12)).await;
    assert_eq!(acme.state(id).await, RequestState::Completed);
}

/// Many times at once, for it was a race.
pub async fn an_objection_that_meets_a_report_strands_nothing(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    for n in 0..20 {
        let id = acme.instruct(at(1), erasure(&format!("p{n}"))).await;
        let task = claim_one(t, &crm, at(2)).await;
        let put_off = ReportResult::Retry { at: at(3), reason: "the system was not there".to_owned() };
        let objecting = {
            let acme = acme.clone();
            tokio::spawn(async move {
                acme.store.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(3)).await
            })
        };
        acme.report(&task, at(3), put_off).await;
        objecting.await.unwrap().unwrap();
        assert!(claim(t, &crm, at(4)).await.is_none(), "round {n}");
        acme.authorise(id, at(5)).await.unwrap();
        assert_eq!(acme.confirm_next(&crm, at(6)).await, id, "round {n}");
    }
}

/// To look for an identifier is not to act: a worker that reports its find does not set the act going.
pub async fn an_objection_holds_the_act_of_what_is_being_resolved(t: &TestStore) {
    let acme = customer(t, "acme").await;
    let crm = register(t, "crm", &[Email], &[UserId]).await;
    let shop = register(t, "shop", &[UserId], &[]).await;
    let systems = [crm.clone(), shop.clone()];
    let id = acme.instruct(at(1), access("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(3)).await.unwrap();
    assert!(acme.report(&task, at(4), ReportResult::Resolved(vec![user("U-7")])).await.is_empty());
    for system in &systems {
        assert!(claim(t, system, day(50)).await.is_none(), "{system}");
    }
    acme.authorise(id, at(5)).await.unwrap();
    assert_eq!(work_off(&acme, &systems, at(6)).await.len(), 2);
    assert_eq!(acme.state(id).await, RequestState::Completed);
}

pub async fn an_objection_survives_an_operators_retry(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let pbx = register(t, "pbx", &[Phone], &[]).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(2)).await.unwrap();
    let key = acme.key(id, &pbx);
    assert!(is_wrong_state(t.retry_task(&key, "operators/kim", at(3), &as_is).await));
    assert!(claim(t, &pbx, at(4)).await.is_none());
    acme.authorise(id, at(5)).await.unwrap();
    t.retry_task(&key, "operators/kim", at(6), &as_is).await.unwrap();
    assert_eq!(work_off(&acme, &[crm, pbx], at(7)).await.len(), 2);
    assert_eq!(acme.state(id).await, RequestState::Completed);
}

/// Whether it was locked: where this one began to wait late, PostgreSQL ends it and not the other.
async fn lock_task(tx: &mut Tx, id: RequestId, system: &SystemId) -> bool {
    let sql = "SELECT lease FROM tasks WHERE request_id = $1 AND system_id = $2 FOR UPDATE";
    match tx.fetch(&by_the_case(sql), vec![id.uuid().into(), system.as_str().into()]).await {
        Ok(_) => true,
        Err(error) if error.kind == SqlErrorKind::Conflict => false,
        Err(error) => panic!("{error:?}"),
    }
}

/// PostgreSQL: each has a task that the other wants next. One of them is ended; nobody is told, neither the operator nor the worker.
pub async fn who_objects_and_who_reports_may_lock_each_other_out(t: &TestStore) {
    if !t.is_postgres() {
        return;
    }
    let acme = customer(t, "acme").await;
    let [shop, crm] = [register(t, "a-shop", &[UserId], &[]).await, register(t, "crm", &[Email], &[UserId]).await];
    let id = acme.instruct(at(1), erasure("mara")).await;
    let found = claim(t, &crm, at(2)).await.unwrap();
    // As a report does: its own task first, then those that waited for it.
    let mut report = t.raw().await;
    assert!(lock_task(&mut report, id, &crm).await);
    let objects = despite_conflicts(|| t.object_to_request(&acme.id, id, "operators/kim", "unlawful", at(3)));
    let meanwhile = async {
        lock_is_waited_for(t, 1).await;
        if lock_task(&mut report, id, &shop).await {
            report.commit().await.unwrap();
        }
    };
    let (objected, ()) = tokio::join!(objects, meanwhile);
    objected.unwrap();
    assert_eq!(acme.state(id).await, RequestState::AwaitingCustomer);
    // As an objection does.
    let mut objects = t.raw().await;
    assert!(lock_task(&mut objects, id, &shop).await);
    let result = ReportResult::Resolved(vec![user("U-7")]);
    let resolved = [Report { request: id, lease: found.tasks[0].lease, result }];
    let reports = t.report(&acme.id, &crm, || at(4), &resolved);
    let meanwhile = async {
        lock_is_waited_for(t, 1).await;
        if lock_task(&mut objects, id, &crm).await {
            objects.commit().await.unwrap();
        }
    };
    let (lost, ()) = tokio::join!(reports, meanwhile);
    assert!(lost.unwrap().is_empty());
    acme.authorise(id, at(5)).await.unwrap();
    assert_eq!(work_off(&acme, &[shop, crm], at(6)).await.len(), 2);
}

/// Everything that had begun was confirmed while the customer thought about it.
pub async fn a_request_completes_that_was_finished_before_it_was_authorised(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(3)).await.unwrap();
    assert!(acme.report(&task, at(4), done(&crm)).await.is_empty());
    assert_eq!(acme.state(id).await, RequestState::AwaitingCustomer);
    acme.authorise(id, at(5)).await.unwrap();
    let generation = t.generation().await.unwrap();
    assert_eq!(t.customers_to_replan(generation).await.unwrap(), std::slice::from_ref(&acme.id));
    acme.replan(at(6)).await;
    assert_eq!(acme.state(id).await, RequestState::Completed);
    assert!(t.customers_to_replan(generation).await.unwrap().is_empty());
}

/// Objected to, and then declined: no attempt begins any more, whatever state the tasks had reached (I1).
pub async fn a_declined_request_is_not_begun_again(t: &TestStore) {
    let acme = customer(t, "acme").await;
    let names = ["busy", "crashed", "waiting-for-vendor", "resolving"];
    let mut systems = Vec::new();
    for name in names {
        let yields: &[_] = if name == "resolving" { &[UserId] } else { &[] };
        systems.push(register(t, name, &[Email], yields).await);
    }
    systems.push(register(t, "shop", &[UserId], &[]).await);
    let id = acme.instruct(at(1), intake(Action::Access, &[email("mara")])).await;
    let busy = claim_one(t, &systems[0], at(2)).await;
    claim_one(t, &systems[1], at(2)).await;
    let vendor = claim_one(t, &systems[2], at(2)).await;
    let resolving = claim(t, &systems[3], at(2)).await.unwrap();
    assert_eq!(resolving.work, Work::Resolve);
    let check = ReportResult::Awaiting { check_at: at(50), reference: "ticket 9".to_owned() };
    acme.report(&vendor, at(3), check).await;
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(4)).await.unwrap();
    t.decline_request(&acme.id, id, "customers/acme", "indeed", at(5)).await.unwrap();
    acme.report(&busy, at(6), ReportResult::Retry { at: at(7), reason: "BUSY".to_owned() }).await;
    acme.report(&resolving.tasks[0], at(6), ReportResult::Resolved(vec![user("U-7")])).await;
    for system in &systems {
        for now in [at(10), day(1), day(2)] {
            assert!(claim(t, system, now).await.is_none(), "{system}");
        }
    }
    // Nor does an operator begin it again; what was done can be put on record.
    let key = acme.key(id, &systems[0]);
    assert!(is_wrong_state(t.retry_task(&key, "operators/kim", day(3), &as_is).await));
    assert_eq!(acme.task_state(id, &systems[0]).await, TaskState::NeedsAttention);
    let given_up = confirmation(&systems[0], OutcomeKind::Unconfirmed);
    t.resolve_task(&key, given_up, "operators/kim", day(3)).await.unwrap();
    assert_eq!(acme.state(id).await, RequestState::Declined);
}

/// "Do not erase, restrict instead": what a worker has in hand comes before whatever is instructed next (I4).
pub async fn what_is_at_work_for_a_declined_request_is_waited_for(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    let restrict = || restriction("mara", RestrictionGround::AccuracyContested);
    for (n, ends) in ["done", "put off", "left to a person", "its lease passes"].into_iter().enumerate() {
        let s = 1000 * n as i64;
        let id = acme.instruct(at(s + 1), erasure("mara")).await;
        let task = claim_one(t, &crm, at(s + 2)).await;
        let behind = acme.instruct(at(s + 3), restrict()).await;
        t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(s + 4)).await.unwrap();
        t.decline_request(&acme.id, id, "customers/acme", "restrict instead", at(s + 5)).await.unwrap();
        let after = acme.instruct(at(s + 6), access("mara")).await;
        assert_eq!(acme.task_state(behind, &shop).await, TaskState::Pending, "{ends}: nobody is at work there");
        for waiting in [behind, after] {
            assert_eq!(acme.task_state(waiting, &crm).await, TaskState::Waiting, "{ends}");
        }
        assert!(claim(t, &crm, at(s + 7)).await.is_none(), "{ends}");
        let later = |result| acme.report(&task, at(s + 8), result);
        match ends {
            "done" => assert!(later(done(&crm)).await.is_empty()),
            "put off" => drop(later(ReportResult::Retry { at: at(s + 9), reason: "BUSY".to_owned() }).await),
            "left to a person" => drop(later(ReportResult::Attention { reason: "BROKEN".to_owned() }).await),
            // Whoever looks for work next sees that nobody has it any more.
            _ => {}
        }
        for next in [behind, after] {
            assert_eq!(acme.confirm_next(&crm, at(s + 501)).await, next, "{ends}");
            assert_eq!(acme.confirm_next(&shop, at(s + 501)).await, next, "{ends}");
        }
        let lift = acme.instruct(at(s + 502), intake(Action::LiftRestriction, &[email("mara")])).await;
        assert_eq!(acme.confirm_next(&crm, at(s + 503)).await, lift, "{ends}: it stands in nobody's way any more");
        assert_eq!(acme.confirm_next(&shop, at(s + 503)).await, lift);
    }
    assert_eq!(t.count("SELECT count(*) FROM task_waits").await, 0);
}

/// A worker that dies after an objection and before it has found anything has begun nothing, and no other begins it (I1).
pub async fn what_was_not_begun_is_not_begun_after_an_objection(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let [idle, begun] = ["mara", "noor"].map(erasure);
    let (idle, begun) = (acme.instruct(at(1), idle).await, acme.instruct(at(1), begun).await);
    let leased = claim(t, &crm, at(2)).await.unwrap().tasks;
    let found: Vec<_> =
        leased.iter().filter(|task| task.key.request == begun).map(|task| (task, b"k".to_vec())).collect();
    assert!(t.save_match_sets(&crm, at(3), &found).await.unwrap().is_empty());
    for id in [idle, begun] {
        t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(4)).await.unwrap();
    }
    let again = claim(t, &crm, at(500)).await.unwrap().tasks;
    let ids: Vec<_> = again.iter().map(|task| task.key.request).collect();
    assert_eq!(ids, [begun], "what was found may have been changed: that is gone through with");
    assert_eq!(acme.task_state(idle, &crm).await, TaskState::Waiting);
    assert_eq!(acme.task(idle, &crm).await.reason, "OBJECTED");
    acme.authorise(idle, at(501)).await.unwrap();
    assert_eq!(acme.confirm_next(&crm, at(502)).await, idle);
}

/// It had begun under an instruction: what it did is on record, though nothing completes by it.
pub async fn what_was_done_before_a_request_was_declined_is_recorded(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(3)).await.unwrap();
    t.decline_request(&acme.id, id, "customers/acme", "indeed", at(4)).await.unwrap();
    assert!(acme.report(&task, at(5), done(&crm)).await.is_empty());
    assert!(acme.task(id, &crm).await.confirmation.is_some());
    assert_eq!(acme.state(id).await, RequestState::Declined);
    assert_eq!(acme.request(id).await.closed_at, Some(at(4)));
}

pub async fn the_first_due_date_never_changes(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let first = acme.request(id).await.first_due_at;
    t.extend_request(&acme.id, id, day(60), "customers/acme", "complex", day(2)).await.unwrap();
    t.extend_request(&acme.id, id, day(80), "customers/acme", "more complex", day(3)).await.unwrap();
    for not_later in [day(80), day(79), first] {
        assert!(is_wrong_state(t.extend_request(&acme.id, id, not_later, "customers/acme", "sooner", day(4)).await));
    }
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", day(5)).await.unwrap();
    acme.authorise(id, day(6)).await.unwrap();
    let too_late = t.extend_request(&acme.id, id, day(99), "customers/acme", "complex still", day(81)).await;
    assert!(is_wrong_state(too_late), "late is recorded as late");
    let row = acme.request(id).await;
    assert_eq!((row.first_due_at, row.due_at), (first, day(80)));
    let extensions: Vec<_> =
        t.extensions(&acme.id, id).await.unwrap().into_iter().map(|e| (e.due_at, e.reason, e.created_at)).collect();
    let extension = |due, reason: &str, at| (due, reason.to_owned(), at);
    assert_eq!(extensions, [extension(day(60), "complex", day(2)), extension(day(80), "more complex", day(3))]);
    assert_eq!(claim_one(t, &crm, day(70)).await.due_at, day(80), "late is measured by the date that holds");
    let ledger = crate::ledger::events(t, id).await;
    let dates: Vec<i64> = ledger
        .iter()
        .filter(|e| ["instructed", "authorised"].contains(&e.kind.as_str()))
        .map(|e| e.event["first_due_us"].as_i64().unwrap())
        .collect();
    assert_eq!(dates, [first.as_microsecond(); 2], "and the record says so");
}

/// The customer's own erasure waits for its word because of a restriction: its window has begun with the instruction (I9).
pub async fn an_erasure_that_waited_for_a_word_keeps_its_first_due_date(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    acme.instruct(at(1), restriction("mara", RestrictionGround::UnlawfulProcessing)).await;
    acme.confirm_next(&crm, at(1)).await;
    let id = acme.instruct(at(2), erasure("mara")).await;
    let first = acme.request(id).await.first_due_at;
    acme.authorise(id, day(10)).await.unwrap();
    let row = acme.request(id).await;
    assert_eq!((row.first_due_at, row.due_at), (first, first));
}

pub async fn what_is_not_there_is_not_found(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = RequestId::new(uuid::Uuid::now_v7());
    let key = acme.key(id, &crm);
    let results = [
        t.request(&acme.id, id).await.map(|_| ()),
        acme.authorise(id, at(1)).await,
        acme.cancel(id, at(1)).await,
        t.decline_request(&acme.id, id, "customers/acme", "no", at(1)).await,
        t.object_to_request(&acme.id, id, "operators/kim", "no", at(1)).await,
        t.extend_request(&acme.id, id, day(80), "customers/acme", "no", at(1)).await,
        t.retry_task(&key, "operators/kim", at(1), &as_is).await,
        t.resolve_task(&key, confirmation(&crm, OutcomeKind::Unconfirmed), "operators/kim", at(1)).await,
        t.task_system(&key).await.map(|_| ()),
        t.add_records(&key, 1, at(1), 0, vec![(b"{}".to_vec(), false)]).await,
        t.package_records(&acme.id, id, ("", 0), true, 10).await.map(|_| ()),
    ];
    for (n, result) in results.into_iter().enumerate() {
        assert!(matches!(result, Err(StoreError::NotFound(_))), "call {n}: {result:?}");
    }
}

/// PostgreSQL: who reports holds tasks and comes to the request then. A cancellation that had the request and wanted the tasks would end as a deadlock.
pub async fn a_cancellation_that_waits_for_a_task_does_not_hold_the_request(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let mut report = t.raw().await;
    report.execute_script("SELECT lease FROM tasks FOR UPDATE").await.unwrap();
    let cancelled = {
        let store = (**t).clone();
        let customer = acme.id.clone();
        tokio::spawn(async move { store.cancel_request(&customer, id, "customers/acme", "a mistake", at(2)).await })
    };
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + Duration::from_secs(20);
    while t.count(waiting).await == 0 {
        assert!(Instant::now() < deadline && !cancelled.is_finished(), "the cancellation does not come to the task");
    }
    report.execute_script("SELECT request_id FROM requests FOR UPDATE NOWAIT").await.expect("nobody holds it");
    report.commit().await.unwrap();
    cancelled.await.unwrap().unwrap();
    assert_eq!(acme.state(id).await, RequestState::Cancelled);
}
