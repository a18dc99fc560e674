//! Restrictions that stand, and the erasures that they hold back (Art. 18(1)(b), (c)).

use quittance_domain::{
    action::{
        Action,
        RestrictionGround::{AccuracyContested, NeededForLegalClaims, ObjectionPending, UnlawfulProcessing},
    },
    ids::RequestId,
    request::RequestState,
    task::TaskState,
};
use tokio::task::JoinSet;

use crate::{
    harness::TestStore,
    held_up::{HeldUp, in_order, lock_is_waited_for},
    statements::by_the_case,
    world::*,
};

pub async fn an_erasure_waits_for_the_customer_where_the_data_was_to_be_kept(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    for (n, ground) in [UnlawfulProcessing, NeededForLegalClaims].into_iter().enumerate() {
        let person = format!("p{n}");
        acme.instruct(at(1), restriction(&person, ground)).await;
        acme.confirm_next(&crm, at(2)).await;
        let held = acme.instruct(at(3), erasure(&person)).await;
        assert_eq!(acme.state(held).await, RequestState::AwaitingCustomer, "{ground}");
        assert!(acme.tasks(held).await.is_empty());
        assert!(claim(t, &crm, at(4)).await.is_none());
        // Only an erasure is in conflict with it.
        acme.instruct(at(5), access(&person)).await;
        acme.confirm_next(&crm, at(6)).await;
        acme.authorise(held, at(7)).await.unwrap();
        assert_eq!(acme.confirm_next(&crm, at(8)).await, held);
        assert_eq!(acme.state(held).await, RequestState::Completed);
    }
    assert_eq!(t.count("SELECT count(*) FROM restrictions").await, 0, "what is erased is restricted no more");
}

pub async fn other_grounds_hold_no_erasure_back(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    for (n, ground) in [AccuracyContested, ObjectionPending].into_iter().enumerate() {
        let person = format!("p{n}");
        acme.instruct(at(1), restriction(&person, ground)).await;
        acme.confirm_next(&crm, at(2)).await;
        let free = acme.instruct(at(3), erasure(&person)).await;
        assert_eq!(acme.state(free).await, RequestState::InProgress, "{ground}");
        assert_eq!(acme.confirm_next(&crm, at(4)).await, free);
    }
}

/// It stands from its instruction on, by every identifier that it named.
pub async fn a_restriction_stands_before_it_is_carried_out(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let mut sent = restriction("mara", UnlawfulProcessing);
    sent.request.identifiers.push(user("U-7"));
    acme.instruct(at(1), sent).await;
    let mut by_user = intake(Action::Erasure, &[user("U-7"), email("m.lind")]);
    by_user.request.reference = "by user id".to_owned();
    for held in [erasure("mara"), by_user] {
        let held = acme.instruct(at(2), held).await;
        assert_eq!(acme.state(held).await, RequestState::AwaitingCustomer);
    }
    let free = acme.instruct(at(2), erasure("noor")).await;
    assert_eq!(acme.state(free).await, RequestState::InProgress);
    let bolt = customer(t, "bolt").await;
    let theirs = bolt.instruct(at(3), erasure("mara")).await;
    assert_eq!(bolt.state(theirs).await, RequestState::InProgress, "another customer's restriction is another's");
}

pub async fn a_restriction_and_an_erasure_of_one_chunk_are_in_conflict_in_that_order(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let chunk = vec![restriction("mara", UnlawfulProcessing), erasure("mara")];
    let ids = acme.instruct_all(at(1), chunk).await;
    assert_eq!(acme.state(ids[1]).await, RequestState::AwaitingCustomer);
    let chunk = vec![erasure("noor"), restriction("noor", UnlawfulProcessing)];
    let ids = acme.instruct_all(at(1), chunk).await;
    assert_eq!(acme.state(ids[0]).await, RequestState::InProgress, "it was instructed before");
}

/// Whichever comes first: the erasure waits for its turn and runs, or it waits for the customer. It never runs after the restriction.
pub async fn a_restriction_and_an_erasure_that_come_at_once_are_in_an_order(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    for round in 0..12 {
        let person = format!("p{round}");
        let mut senders = JoinSet::new();
        for sent in [restriction(&person, UnlawfulProcessing), erasure(&person)] {
            let acme = acme.clone();
            senders.spawn(async move { (sent.request.action, acme.instruct(at(1), sent).await) });
        }
        let mut ids = std::collections::HashMap::new();
        while let Some(sent) = senders.join_next().await {
            let (action, id) = sent.unwrap();
            ids.insert(action, id);
        }
        let (restricts, erases) = (ids[&Action::Restriction], ids[&Action::Erasure]);
        if acme.state(erases).await == RequestState::InProgress {
            assert_eq!(acme.task_state(erases, &crm).await, TaskState::Pending, "round {round}: it is the first");
            assert_eq!(acme.confirm_next(&crm, at(2)).await, erases);
        }
        assert_eq!(acme.confirm_next(&crm, at(2)).await, restricts);
    }
}

/// Nothing is left of the restriction that the erasure would stand behind.
pub async fn an_erasure_sees_a_restriction_that_was_done_while_it_came_in(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let [first, last] = in_order(t, &acme).await;
    let line = HeldUp::new(t, &acme, &crm, first).await;
    let comes_in = {
        let (acme, chunk) = (acme.clone(), vec![access(first), erasure(last)]);
        tokio::spawn(async move { acme.instruct_all(at(2), chunk).await })
    };
    line.is_waited_for().await;
    let restricts = acme.instruct(at(3), restriction(last, UnlawfulProcessing)).await;
    assert_eq!(acme.confirm_next(&crm, at(4)).await, restricts);
    line.let_go().await;
    let ids = comes_in.await.unwrap();
    assert_eq!(acme.state(ids[0]).await, RequestState::InProgress);
    assert_eq!(acme.state(ids[1]).await, RequestState::AwaitingCustomer);
}

pub async fn a_lifting_ends_a_restriction(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    acme.instruct(at(1), restriction("mara", UnlawfulProcessing)).await;
    acme.confirm_next(&crm, at(2)).await;
    let lifts = acme.instruct(at(3), lifting("mara")).await;
    let held = acme.instruct(at(4), erasure("mara")).await;
    assert_eq!(acme.state(held).await, RequestState::AwaitingCustomer, "until it is lifted, it stands");
    assert_eq!(acme.confirm_next(&crm, at(5)).await, lifts);
    assert_eq!(t.count("SELECT count(*) FROM restrictions").await, 0);
    let free = acme.instruct(at(6), erasure("mara")).await;
    assert_eq!(acme.state(free).await, RequestState::InProgress);
}

pub async fn a_lifting_that_is_cancelled_ends_nothing(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    acme.instruct(at(1), restriction("mara", UnlawfulProcessing)).await;
    acme.confirm_next(&crm, at(2)).await;
    let lifts = acme.instruct(at(3), lifting("mara")).await;
    acme.cancel(lifts, at(4)).await.unwrap();
    let held = acme.instruct(at(5), erasure("mara")).await;
    assert_eq!(acme.state(held).await, RequestState::AwaitingCustomer);
}

/// Two were instructed; the one that is not cancelled does it.
pub async fn a_lifting_ends_a_restriction_though_another_was_cancelled(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    for (cancelled, person) in ["mara", "noor"].into_iter().enumerate() {
        acme.instruct(at(1), restriction(person, UnlawfulProcessing)).await;
        acme.confirm_next(&crm, at(2)).await;
        let lifts = [acme.instruct(at(3), lifting(person)).await, acme.instruct(at(4), lifting(person)).await];
        acme.cancel(lifts[cancelled], at(5)).await.unwrap();
        acme.confirm_next(&crm, at(6)).await;
        let free = acme.instruct(at(7), erasure(person)).await;
        assert_eq!(acme.state(free).await, RequestState::InProgress, "{person}");
        acme.confirm_next(&crm, at(8)).await;
    }
}

/// The first that is done ends it, whatever came after that: another lifting, in the same chunk too, or an erasure that the customer wanted all the
/// same.
pub async fn a_restriction_that_was_lifted_stays_lifted_though_what_came_after_is_taken_back(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    for (n, after) in ["lifting", "lifting of the chunk", "erasure"].into_iter().enumerate() {
        let person = format!("p{n}");
        acme.instruct(at(1), restriction(&person, UnlawfulProcessing)).await;
        acme.confirm_next(&crm, at(2)).await;
        let (lifts, taken_back) = if after == "lifting of the chunk" {
            let ids = acme.instruct_all(at(3), vec![lifting(&person), lifting(&person)]).await;
            (ids[0], ids[1])
        } else {
            let sent = if after == "erasure" { erasure(&person) } else { lifting(&person) };
            (acme.instruct(at(3), lifting(&person)).await, acme.instruct(at(4), sent).await)
        };
        if after == "erasure" {
            acme.authorise(taken_back, at(5)).await.unwrap();
        }
        assert_eq!(acme.confirm_next(&crm, at(6)).await, lifts);
        acme.cancel(taken_back, at(7)).await.unwrap();
        assert_eq!(t.count("SELECT count(*) FROM restrictions").await, 0, "{after}");
        let free = acme.instruct(at(8), erasure(&person)).await;
        assert_eq!(acme.state(free).await, RequestState::InProgress, "{after}");
        acme.confirm_next(&crm, at(9)).await;
    }
}

async fn refer_restriction(acme: &Customer) -> RequestId {
    let mut referred = restriction("mara", UnlawfulProcessing);
    referred.referred = Some("do not delete it".to_owned());
    acme.instruct(at(1), referred).await
}

/// It stands behind what was instructed before the customer's word, though it was sent first.
pub async fn a_referred_restriction_is_not_ended_by_a_lifting_that_it_stands_behind(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let referred = refer_restriction(&acme).await;
    let before = acme.instruct(at(2), lifting("mara")).await;
    acme.authorise(referred, at(3)).await.unwrap();
    let behind = acme.instruct(at(4), lifting("mara")).await;
    acme.cancel(behind, at(5)).await.unwrap();
    assert_eq!(acme.confirm_next(&crm, at(6)).await, before);
    let held = acme.instruct(at(7), erasure("mara")).await;
    assert_eq!(acme.state(held).await, RequestState::AwaitingCustomer);
    assert_eq!(acme.confirm_next(&crm, at(8)).await, referred);
}

/// All that the first lifting had begun was done when the customer declined it; by then the second one was through.
pub async fn a_restriction_that_another_has_lifted_does_not_outlive_a_lifting_that_is_declined(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    acme.instruct(at(1), restriction("mara", UnlawfulProcessing)).await;
    acme.confirm_next(&crm, at(2)).await;
    let first = acme.instruct(at(3), lifting("mara")).await;
    let second = acme.instruct(at(4), lifting("mara")).await;
    let at_work = claim_one(t, &crm, at(5)).await;
    t.object_to_request(&acme.id, first, "operators/kim", "looks unlawful", at(6)).await.unwrap();
    assert!(acme.report(&at_work, at(7), done(&crm)).await.is_empty());
    assert_eq!(acme.confirm_next(&crm, at(8)).await, second);
    t.decline_request(&acme.id, first, "customers/acme", "indeed", at(9)).await.unwrap();
    let free = acme.instruct(at(10), erasure("mara")).await;
    assert_eq!(acme.state(free).await, RequestState::InProgress);
}

/// The one that comes is not behind the one that goes when that one looks who else ends it.
pub async fn a_lifting_that_comes_while_another_is_cancelled_ends_what_that_one_would_have(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let restricts = acme.instruct(at(1), restriction("mara", UnlawfulProcessing)).await;
    acme.confirm_next(&crm, at(2)).await;
    let goes = acme.instruct(at(3), lifting("mara")).await;
    // Whoever comes lines up behind this one, and does not wait for the one before it.
    acme.instruct(at(4), access("mara")).await;
    let mut marks = t.raw().await;
    let sql = by_the_case("SELECT ground FROM restrictions WHERE request_id = $1 FOR UPDATE");
    assert_eq!(marks.fetch(&sql, vec![restricts.uuid().into()]).await.unwrap().len(), 1);
    let comes = {
        let acme = acme.clone();
        tokio::spawn(async move { acme.instruct(at(5), lifting("mara")).await })
    };
    lock_is_waited_for(t, 1).await;
    let cancels = {
        let acme = acme.clone();
        tokio::spawn(async move { acme.cancel(goes, at(6)).await })
    };
    lock_is_waited_for(t, 2).await;
    marks.commit().await.unwrap();
    comes.await.unwrap();
    cancels.await.unwrap().unwrap();
    assert_eq!(work_off(&acme, &[crm], at(7)).await.len(), 2);
    let free = acme.instruct(at(8), erasure("mara")).await;
    assert_eq!(acme.state(free).await, RequestState::InProgress);
}

/// Of two that are lifted at the same time, neither is the last to be done.
pub async fn others_are_restricted_until_their_lifting_is_under_way(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let others = async || t.are_others_restricted(&acme.id).await.unwrap();
    for person in ["mara", "noor"] {
        acme.instruct(at(1), restriction(person, UnlawfulProcessing)).await;
        acme.confirm_next(&crm, at(2)).await;
    }
    acme.instruct(at(3), lifting("mara")).await;
    assert!(others().await);
    let second = acme.instruct(at(4), lifting("noor")).await;
    assert!(!others().await);
    acme.cancel(second, at(5)).await.unwrap();
    assert!(others().await);
    acme.confirm_next(&crm, at(6)).await;
    assert!(others().await, "the second's");
}

pub async fn a_restriction_that_is_cancelled_stands_no_more(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let restricts = acme.instruct(at(1), restriction("mara", UnlawfulProcessing)).await;
    acme.cancel(restricts, at(2)).await.unwrap();
    let free = acme.instruct(at(3), erasure("mara")).await;
    assert_eq!(acme.state(free).await, RequestState::InProgress);
}

/// What was instructed after a lifting outlives it, also where both stand in one chunk.
pub async fn a_lifting_ends_only_what_was_restricted_before_it(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let systems = [crm];
    for (n, chunks) in [1, 2].into_iter().enumerate() {
        let person = format!("p{n}");
        let line = vec![
            restriction(&person, NeededForLegalClaims),
            lifting(&person),
            restriction(&person, UnlawfulProcessing),
        ];
        if chunks == 1 {
            acme.instruct_all(at(1), line).await;
        } else {
            for sent in line {
                acme.instruct(at(1), sent).await;
            }
        }
        assert_eq!(work_off(&acme, &systems, at(2)).await.len(), 3);
        let grounds = t.rows("SELECT ground FROM restrictions", vec![]).await;
        let grounds: Vec<_> = grounds.iter().map(|row| row.text(0).unwrap()).collect();
        assert_eq!(grounds, vec![UnlawfulProcessing.as_str(); n + 1], "{chunks} chunk(s)");
        let held = acme.instruct(at(3), erasure(&person)).await;
        assert_eq!(acme.state(held).await, RequestState::AwaitingCustomer);
    }
}

/// The lifting was finished, but its request completes with the sweep, since systems had changed.
pub async fn a_restriction_ends_also_where_its_lifting_completes_with_the_sweep(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    acme.instruct(at(1), restriction("mara", UnlawfulProcessing)).await;
    acme.confirm_next(&crm, at(2)).await;
    let lifts = acme.instruct(at(3), lifting("mara")).await;
    let task = claim_one(t, &crm, at(4)).await;
    t.update_data_map(&crm, "version: 1", &system("crm", &[Email], &[]).map, new_id(), at(5)).await.unwrap();
    acme.report(&task, at(6), done(&crm)).await;
    acme.replan(at(7)).await;
    assert_eq!(acme.state(lifts).await, RequestState::Completed);
    assert_eq!(t.count("SELECT count(*) FROM restrictions").await, 0);
}

/// A referred restriction counts from the customer's word on.
pub async fn a_referred_restriction_stands_once_it_is_authorised(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let referred = refer_restriction(&acme).await;
    let free = acme.instruct(at(2), erasure("mara")).await;
    assert_eq!(acme.state(free).await, RequestState::InProgress);
    acme.cancel(free, at(3)).await.unwrap();
    acme.authorise(referred, at(4)).await.unwrap();
    let held = acme.instruct(at(5), erasure("mara")).await;
    assert_eq!(acme.state(held).await, RequestState::AwaitingCustomer);
}
