//! One subject's instructions run at a system in the order in which they were given (I4).

use quittance_domain::{
    action::Action,
    ids::{RequestId, SystemId},
    outcome::OutcomeKind,
    request::RequestState,
    task::TaskState,
};
use quittance_store::StoreError;
use tokio::task::JoinSet;

use crate::{harness::TestStore, held_up::lock_is_waited_for, statements::by_the_case, world::*};

/// Confirms one after the other at `system`, and makes sure that never more than the next is due.
async fn run_in_order(acme: &Customer, system: &SystemId, ids: &[RequestId]) {
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(due_at(acme, system, ids).await, [*id], "step {n}");
        for later in &ids[n + 1..] {
            assert_eq!(acme.task_state(*later, system).await, TaskState::Waiting);
        }
        assert_eq!(acme.confirm_next(system, at(100)).await, *id);
    }
    assert!(claim(&acme.store, system, at(100)).await.is_none());
}

fn correction(person: &str) -> quittance_store::Intake {
    intake(Action::Rectification, &[email(person)])
}

pub async fn instructions_of_one_chunk_keep_their_order(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let chunk = vec![access("mara"), correction("mara"), erasure("noor"), erasure("mara")];
    let mut ids = acme.instruct_all(at(1), chunk).await;
    let other = ids.remove(2);
    assert_eq!(acme.task_state(other, &crm).await, TaskState::Pending, "another person waits for nobody");
    let batch = claim_action(&acme, &crm, Action::Erasure).await;
    assert_eq!(batch, [other]);
    run_in_order(&acme, &crm, &ids).await;
}

/// Leases and confirms what is due of one action.
async fn claim_action(acme: &Customer, system: &SystemId, action: Action) -> Vec<RequestId> {
    let mut confirmed = Vec::new();
    for ready in acme.store.ready_work(at(2), std::slice::from_ref(system)).await.unwrap() {
        if ready.action == action {
            let query = quittance_store::LeaseQuery { worker: "w", now: at(2), expires_at: at(50), tasks_max: 10 };
            for task in acme.store.lease(&ready, &query).await.unwrap().tasks {
                assert!(acme.report(&task, at(2), done(system)).await.is_empty());
                confirmed.push(task.key.request);
            }
        }
    }
    confirmed
}

pub async fn instructions_of_separate_chunks_keep_their_order(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        let sent = if n % 2 == 0 { access("mara") } else { correction("mara") };
        ids.push(acme.instruct(at(n), sent).await);
    }
    run_in_order(&acme, &crm, &ids).await;
    assert_eq!(t.count("SELECT count(*) FROM task_waits").await, 0);
    assert_eq!(t.count("SELECT count(*) FROM subject_heads").await, 0, "nobody is remembered who is finished");
}

/// The person of the second is the first's by email and the third's by user id.
pub async fn instructions_chain_over_several_identifiers(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let first = acme.instruct(at(1), intake(Action::Access, &[email("mara"), email("m.lind")])).await;
    let second = acme.instruct(at(2), intake(Action::Rectification, &[email("m.lind"), email("mara.lind")])).await;
    let third = acme.instruct(at(3), intake(Action::Erasure, &[email("mara.lind")])).await;
    run_in_order(&acme, &crm, &[first, second, third]).await;
    // And one that joins two persons' lines waits for both.
    let left = acme.instruct(at(4), access("left")).await;
    let right = acme.instruct(at(4), correction("right")).await;
    let both = acme.instruct(at(5), intake(Action::Erasure, &[email("left"), email("right")])).await;
    for earlier in [left, right] {
        assert_eq!(acme.task_state(both, &crm).await, TaskState::Waiting);
        let confirmed = acme.confirm_next(&crm, at(6)).await;
        assert!([left, right].contains(&confirmed), "{earlier}");
    }
    assert_eq!(acme.confirm_next(&crm, at(6)).await, both);
}

pub async fn instructions_that_come_at_once_are_in_an_order(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    const SENDERS: usize = 8;
    let people = ["mara", "noor", "siu"];
    let mut senders = JoinSet::new();
    for n in 0..SENDERS {
        let acme = acme.clone();
        senders.spawn(async move {
            // Each in another order: two chunks must not lock each other's people.
            let chunk = (0..people.len()).map(|k| access(people[(k + n) % people.len()])).collect();
            acme.instruct_all(at(1), chunk).await.len()
        });
    }
    while let Some(sent) = senders.join_next().await {
        assert_eq!(sent.unwrap(), people.len());
    }
    for round in 0..SENDERS {
        let batch = claim(t, &crm, at(3)).await.expect("one of each person is due");
        let mut subjects: Vec<_> = batch.tasks.iter().map(|task| task.subject.identifiers.clone()).collect();
        subjects.sort();
        subjects.dedup();
        assert_eq!((batch.tasks.len(), subjects.len()), (people.len(), people.len()), "round {round}");
        assert!(claim(t, &crm, at(3)).await.is_none(), "nobody overtakes");
        for task in &batch.tasks {
            assert!(acme.report(task, at(3), done(&crm)).await.is_empty());
        }
    }
    assert_eq!(t.count("SELECT count(*) FROM requests WHERE state = 'COMPLETED'").await, 24);
}

/// Intake, while the earlier instruction is being confirmed: the later one is either free or freed.
pub async fn an_instruction_that_meets_a_confirmation_is_not_stranded(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    for round in 0..15 {
        let person = format!("p{round}");
        acme.instruct(at(1), access(&person)).await;
        let earlier = claim_one(t, &crm, at(2)).await;
        let sender = {
            let acme = acme.clone();
            tokio::spawn(async move { acme.instruct(at(3), erasure(&person)).await })
        };
        assert!(acme.report(&earlier, at(3), done(&crm)).await.is_empty());
        let later = sender.await.unwrap();
        assert_eq!(acme.confirm_next(&crm, at(4)).await, later, "round {round}");
    }
}

/// The last two that an instruction waits for are confirmed at the same moment: neither leaves it to the other.
pub async fn an_instruction_is_freed_when_its_last_waits_end_at_once(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    for round in 0..15 {
        let (left, right) = (format!("l{round}"), format!("r{round}"));
        acme.instruct_all(at(1), vec![access(&left), access(&right)]).await;
        let both = acme.instruct(at(1), intake(Action::Erasure, &[email(&left), email(&right)])).await;
        let mut reporters = JoinSet::new();
        for task in claim(t, &crm, at(2)).await.unwrap().tasks {
            let (acme, crm) = (acme.clone(), crm.clone());
            reporters.spawn(async move { acme.report(&task, at(3), done(&crm)).await });
        }
        while let Some(lost) = reporters.join_next().await {
            assert!(lost.unwrap().is_empty());
        }
        assert_eq!(acme.task_state(both, &crm).await, TaskState::Pending, "round {round}");
        assert_eq!(acme.confirm_next(&crm, at(4)).await, both);
    }
}

pub async fn order_is_kept_system_by_system(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    let first = acme.instruct(at(1), access("mara")).await;
    let second = acme.instruct(at(2), erasure("mara")).await;
    assert_eq!(acme.confirm_next(&crm, at(3)).await, first);
    assert_eq!(acme.task_state(second, &crm).await, TaskState::Pending, "the shop's slowness is the shop's");
    assert_eq!(acme.task_state(second, &shop).await, TaskState::Waiting);
    assert_eq!(acme.confirm_next(&crm, at(3)).await, second);
    run_in_order(&acme, &shop, &[first, second]).await;
}

pub async fn the_same_person_of_another_customer_waits_for_nobody(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let bolt = customer(t, "bolt").await;
    acme.instruct(at(1), access("mara")).await;
    let theirs = bolt.instruct(at(2), erasure("mara")).await;
    assert_eq!(bolt.task_state(theirs, &crm).await, TaskState::Pending);
    assert_eq!(
        t.count("SELECT count(DISTINCT pseudonym) FROM subject_heads").await,
        2,
        "nor can anybody tell that it is one person"
    );
}

pub async fn what_is_cancelled_frees_what_waited_for_it(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let first = acme.instruct(at(1), access("mara")).await;
    let second = acme.instruct(at(2), erasure("mara")).await;
    acme.cancel(first, at(3)).await.unwrap();
    assert_eq!(acme.confirm_next(&crm, at(4)).await, second);
    assert_eq!(acme.state(second).await, RequestState::Completed);
    assert_eq!(acme.state(first).await, RequestState::Cancelled);
}

pub async fn what_is_cancelled_between_two_leaves_them_in_order(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let first = acme.instruct(at(1), access("mara")).await;
    let second = acme.instruct(at(2), correction("mara")).await;
    let third = acme.instruct(at(3), erasure("mara")).await;
    let running = claim_one(t, &crm, at(4)).await;
    assert_eq!(running.key.request, first);
    acme.cancel(second, at(5)).await.unwrap();
    assert_eq!(acme.task_state(third, &crm).await, TaskState::Waiting, "the first is still at work");
    assert!(acme.report(&running, at(6), done(&crm)).await.is_empty());
    assert_eq!(acme.confirm_next(&crm, at(7)).await, third);
}

pub async fn what_follows_a_cancelled_one_waits_for_those_before_it(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let other = acme.instruct(at(1), correction("m.lind")).await;
    let first = acme.instruct(at(1), access("mara")).await;
    let second = acme.instruct(at(2), access("mara")).await;
    let cancelled = acme.instruct(at(3), intake(Action::Erasure, &[email("mara"), email("m.lind")])).await;
    acme.cancel(cancelled, at(4)).await.unwrap();
    let third = acme.instruct(at(5), erasure("mara")).await;
    let fourth = acme.instruct(at(5), intake(Action::Restriction, &[email("m.lind")])).await;
    assert_eq!(acme.task_state(fourth, &crm).await, TaskState::Waiting);
    run_in_order_of(&acme, &crm, &[&[first, second, third], &[other, fourth]]).await;
}

/// Several lines beside each other, each in its order.
async fn run_in_order_of(acme: &Customer, system: &SystemId, lines: &[&[RequestId]]) {
    let confirmed = work_off(acme, std::slice::from_ref(system), at(100)).await;
    for line in lines {
        let found: Vec<_> = confirmed.iter().map(|(_, id)| *id).filter(|id| line.contains(id)).collect();
        assert_eq!(found, *line);
    }
}

pub async fn what_needs_attention_holds_back_what_comes_after_it(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let first = acme.instruct(at(1), access("mara")).await;
    let second = acme.instruct(at(2), erasure("mara")).await;
    let task = claim_one(t, &crm, at(3)).await;
    acme.report(&task, at(4), attention()).await;
    assert!(claim(t, &crm, day(50)).await.is_none());
    let given_up = confirmation(&crm, OutcomeKind::Unconfirmed);
    t.resolve_task(&acme.key(first, &crm), given_up, "operators/kim", at(5)).await.unwrap();
    assert_eq!(acme.confirm_next(&crm, at(6)).await, second);
}

/// Both are planned straight to a person; letting the later one run does not let it overtake.
pub async fn a_task_that_is_tried_again_still_waits_its_turn(t: &TestStore) {
    let acme = customer(t, "acme").await;
    register(t, "crm", &[Email], &[]).await;
    let pbx = register(t, "pbx", &[Phone], &[]).await;
    let first = acme.instruct(at(1), access("mara")).await;
    let second = acme.instruct(at(2), erasure("mara")).await;
    for id in [first, second] {
        assert_eq!(acme.task_state(id, &pbx).await, TaskState::NeedsAttention);
    }
    t.retry_task(&acme.key(second, &pbx), "operators/kim", at(3), &as_is).await.unwrap();
    assert_eq!(acme.task_state(second, &pbx).await, TaskState::Waiting);
    t.retry_task(&acme.key(first, &pbx), "operators/kim", at(4), &as_is).await.unwrap();
    run_in_order(&acme, &pbx, &[first, second]).await;
}

/// Otherwise the later request could complete first, be forgotten, and let a third one go before the first.
pub async fn a_task_is_not_resolved_by_hand_before_it_is_its_turn(t: &TestStore) {
    let acme = customer(t, "acme").await;
    let crm = register(t, "crm", &[Email], &[]).await;
    let pbx = register(t, "pbx", &[Phone], &[]).await;
    let first = acme.instruct(at(1), access("mara")).await;
    let second = acme.instruct(at(2), erasure("mara")).await;
    run_in_order(&acme, &crm, &[first, second]).await;
    let give_up = async |id, now| {
        t.resolve_task(&acme.key(id, &pbx), confirmation(&pbx, OutcomeKind::Unconfirmed), "operators/kim", now).await
    };
    let refused = give_up(second, at(3)).await.unwrap_err();
    assert!(matches!(&refused, StoreError::WrongState(text) if text.contains("earlier instruction")), "{refused}");
    let third = acme.instruct(at(4), access("mara")).await;
    acme.confirm_next(&crm, at(5)).await;
    t.retry_task(&acme.key(third, &pbx), "operators/kim", at(6), &as_is).await.unwrap();
    assert_eq!(acme.task_state(third, &pbx).await, TaskState::Waiting);
    give_up(first, at(7)).await.unwrap();
    give_up(second, at(8)).await.unwrap();
    assert_eq!(acme.confirm_next(&pbx, at(9)).await, third);
}

/// A restriction and its lifting, and then there is one more system: it must not end up restricted.
pub async fn order_holds_at_a_system_added_meanwhile(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let first = acme.instruct(at(1), access("mara")).await;
    let second = acme.instruct(at(2), correction("mara")).await;
    let third = acme.instruct(at(2), erasure("mara")).await;
    // At the first system the first two have passed each other long since.
    assert_eq!(acme.confirm_next(&crm, at(3)).await, first);
    let running = claim_one(t, &crm, at(3)).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    assert!(acme.report(&running, at(4), done(&crm)).await.is_empty());
    acme.replan(at(5)).await;
    let open: Vec<_> = [second, third].into();
    assert_eq!(acme.state(first).await, RequestState::Completed, "it was complete before");
    assert_eq!(acme.confirm_next(&crm, at(6)).await, third);
    run_in_order(&acme, &shop, &open).await;
}

/// PostgreSQL: while a later one is planned for a system that was added, the one before it goes. Nobody passes those before that.
pub async fn a_task_that_is_added_while_one_in_the_middle_goes_waits_for_those_before(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let [first, middle, last] = [
        acme.instruct(at(1), access("mara")).await,
        acme.instruct(at(2), correction("mara")).await,
        acme.instruct(at(3), erasure("mara")).await,
    ];
    // What is objected to is not planned for what is new before its customer's word.
    for id in [first, middle] {
        t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(4)).await.unwrap();
    }
    let shop = register(t, "shop", &[Email], &[]).await;
    // The last that the one in the middle does before it is closed is to let who stands behind it close up.
    let mut place = t.raw().await;
    let sql = by_the_case("SELECT after_request_id FROM subject_lines WHERE request_id = $1 FOR UPDATE");
    assert_eq!(place.fetch(&sql, vec![last.uuid().into()]).await.unwrap().len(), 1);
    let goes = {
        let acme = acme.clone();
        tokio::spawn(
            async move { acme.store.decline_request(&acme.id, middle, "customers/acme", "indeed", at(5)).await },
        )
    };
    lock_is_waited_for(t, 1).await;
    let replans = {
        let acme = acme.clone();
        tokio::spawn(async move { acme.replan(at(6)).await })
    };
    lock_is_waited_for(t, 2).await;
    place.commit().await.unwrap();
    goes.await.unwrap().unwrap();
    replans.await.unwrap();
    assert_eq!(acme.task_state(last, &shop).await, TaskState::Waiting);
    acme.authorise(first, at(7)).await.unwrap();
    acme.replan(at(8)).await;
    run_in_order(&acme, &shop, &[first, last]).await;
}

/// PostgreSQL: a database may be set to keep transactions further apart than we can do with. Of two that end a task's last waits at the same
/// moment, one sets it free.
pub async fn what_waits_for_two_is_set_free_whatever_the_database_is_set_to(t: &mut TestStore) {
    t.wear_out();
    let database = t.rows("SELECT current_database()::text", vec![]).await[0].text(0).unwrap();
    t.change(&format!("ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'")).await;
    t.close().await;
    t.open("keys").await.unwrap();
    let set_to = t.rows("SELECT current_setting('transaction_isolation')", vec![]).await[0].text(0).unwrap();
    assert_eq!(set_to, "repeatable read");
    let (acme, crm) = acme_and_crm(t).await;
    acme.instruct_all(at(1), vec![access("mara"), access("noor")]).await;
    let both = acme.instruct(at(2), intake(Action::Erasure, &[email("mara"), email("noor")])).await;
    let at_work = claim(t, &crm, at(3)).await.unwrap().tasks;
    assert_eq!(at_work.len(), 2);
    let mut behind = t.raw().await;
    let sql = by_the_case("SELECT state FROM tasks WHERE request_id = $1 FOR UPDATE");
    assert_eq!(behind.fetch(&sql, vec![both.uuid().into()]).await.unwrap().len(), 1);
    let mut reports = JoinSet::new();
    for task in at_work {
        let (acme, crm) = (acme.clone(), crm.clone());
        reports.spawn(async move { acme.report(&task, at(4), done(&crm)).await });
    }
    lock_is_waited_for(t, 2).await;
    behind.commit().await.unwrap();
    assert!(reports.join_all().await.iter().all(Vec::is_empty));
    assert_eq!(acme.task_state(both, &crm).await, TaskState::Pending);
}

/// The later instruction was planned with the new system before the sweep came to the earlier one.
pub async fn an_instruction_waits_for_what_is_still_to_be_planned_before_it(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let first = acme.instruct(at(1), access("mara")).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    let second = acme.instruct(at(2), erasure("mara")).await;
    assert!(claim(t, &shop, at(3)).await.is_none(), "the earlier one comes first here too");
    acme.replan(at(4)).await;
    run_in_order(&acme, &shop, &[first, second]).await;
    run_in_order(&acme, &crm, &[first, second]).await;
    for id in [first, second] {
        assert_eq!(acme.state(id).await, RequestState::Completed);
    }
}

pub async fn a_waiting_request_takes_its_place_when_it_is_authorised(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let mut referred = erasure("mara");
    referred.referred = Some("please delete me".to_owned());
    let referred = acme.instruct(at(1), referred).await;
    let first = acme.instruct(at(2), access("mara")).await;
    assert_eq!(acme.task_state(first, &crm).await, TaskState::Pending, "what waits for a word holds nobody up");
    acme.authorise(referred, at(3)).await.unwrap();
    let last = acme.instruct(at(4), access("mara")).await;
    run_in_order(&acme, &crm, &[first, referred, last]).await;
}
