//! Rectifications that change an identifier.

use std::{collections::BTreeSet, time::Duration};

use quittance_domain::{
    action::{
        Action, IdentifierChange,
        RestrictionGround::{AccuracyContested, UnlawfulProcessing},
    },
    ids::SystemId,
    request::RequestState,
    task::TaskState,
};
use quittance_store::{ChangedIdentifier, Intake};

use crate::{
    harness::TestStore,
    held_up::{WAITING, lock_is_waited_for},
    statements::by_the_case,
    world::*,
};

/// Known by the user id alone; the old email comes with the correction.
pub fn change(old: &str, new: &str, named_at: &SystemId) -> Intake {
    let mut sent = intake(Action::Rectification, &[user("U-7")]);
    sent.request.identifier_changes = vec![IdentifierChange {
        kind: Email,
        collection: "customer".to_owned(),
        field: "email".to_owned(),
        old: Some(email(old)),
        new: email(new),
        named_at: BTreeSet::from([named_at.clone()]),
    }];
    sent
}

pub async fn a_changed_identifier_is_carried_after_it_was_changed_where_it_was_named(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let news = register(t, "news", &[Email], &[]).await;
    let shop = register(t, "shop", &[UserId], &[]).await;
    let id = acme.instruct(at(1), change("mara", "m.lind", &crm)).await;
    let named = [ChangedIdentifier { kind: Email, collection: "customer".to_owned(), field: "email".to_owned() }];
    assert_eq!(acme.request(id).await.identifier_changes, named);
    assert_eq!(acme.task_state(id, &shop).await, TaskState::Pending, "keyed by another kind");
    assert!(claim(t, &news, at(2)).await.is_none());
    // A system that is added meanwhile waits for it as well.
    let late = register(t, "late", &[Email], &[]).await;
    acme.replan(at(2)).await;
    assert_eq!(acme.task_state(id, &late).await, TaskState::Waiting);

    let task = claim_one(t, &crm, at(3)).await;
    let secrets = &task.subject;
    assert_eq!(secrets.identifiers, [user("U-7"), email("mara")], "the old one finds the rows");
    assert_eq!(secrets.identifier_changes[0].new, email("m.lind"));
    assert!(acme.report(&task, at(3), done(&crm)).await.is_empty());
    for system in [&news, &late, &shop] {
        assert_eq!(acme.confirm_next(system, at(4)).await, id);
    }
    assert_eq!(acme.state(id).await, RequestState::Completed);
    // Too late to wait for anything.
    let referred = Intake { referred: Some("my words".to_owned()), ..change("noor", "n.berg", &crm) };
    let referred = acme.instruct(at(5), referred).await;
    acme.authorise(referred, at(6)).await.unwrap();
    assert_eq!(acme.task_state(referred, &news).await, TaskState::Waiting);
    assert_eq!(acme.task_state(referred, &crm).await, TaskState::Pending);
}

pub async fn what_is_instructed_under_the_new_name_waits_for_the_change(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let first = acme.instruct(at(1), change("mara", "m.lind", &crm)).await;
    let by_new = acme.instruct(at(2), erasure("m.lind")).await;
    let by_old = acme.instruct(at(2), access("mara")).await;
    assert_eq!(due_at(&acme, &crm, &[first, by_new, by_old]).await, [first]);
    assert_eq!(acme.confirm_next(&crm, at(3)).await, first);
    assert_eq!(due_at(&acme, &crm, &[by_new, by_old]).await, [by_new, by_old]);
}

pub async fn a_restriction_stands_under_the_new_name(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    for (person, ground, state) in [
        ("mara", UnlawfulProcessing, RequestState::AwaitingCustomer),
        ("noor", AccuracyContested, RequestState::InProgress),
    ] {
        acme.instruct(at(1), restriction(person, ground)).await;
        let new = format!("{person}.new");
        acme.instruct(at(2), change(person, &new, &crm)).await;
        let erasure = acme.instruct(at(3), erasure(&new)).await;
        assert_eq!(acme.state(erasure).await, state, "{ground}");
    }
}

/// What is renamed in the same chunk, however often, is still the person whose data was to be kept.
pub async fn a_restriction_stands_under_the_new_names_of_its_chunk(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    for (n, (restricts_within, ground, state)) in [
        (false, UnlawfulProcessing, RequestState::AwaitingCustomer),
        (true, UnlawfulProcessing, RequestState::AwaitingCustomer),
        (false, AccuracyContested, RequestState::InProgress),
    ]
    .into_iter()
    .enumerate()
    {
        let [old, new, newest, unnamed] = ["old", "new", "newest", "unnamed"].map(|name| format!("{name}{n}"));
        let mut chunk = vec![
            erasure(&newest),
            change(&old, &new, &crm),
            erasure(&new),
            change(&new, &newest, &crm),
            erasure(&newest),
            erasure(&unnamed),
        ];
        if restricts_within {
            chunk.insert(0, restriction(&old, ground));
        } else {
            acme.instruct(at(1), restriction(&old, ground)).await;
        }
        let ids = acme.instruct_all(at(2), chunk).await;
        let ids = &ids[usize::from(restricts_within)..];
        assert_eq!(acme.state(ids[0]).await, RequestState::InProgress, "it was instructed before it was their name");
        assert_eq!(acme.state(ids[2]).await, state, "{ground}");
        assert_eq!(acme.state(ids[4]).await, state, "{ground}");
        assert_eq!(acme.state(ids[5]).await, RequestState::InProgress);
        let later = acme.instruct(at(3), erasure(&newest)).await;
        assert_eq!(acme.state(later).await, state, "{ground}");
        // The changes are open, and go on.
        let last = format!("last{n}");
        let ids = acme.instruct_all(at(4), vec![change(&newest, &last, &crm), erasure(&last)]).await;
        assert_eq!(acme.state(ids[1]).await, state, "{ground}");
    }
}

/// The customer does not make a change its own that only the subject asked for, by erasing who has the new name.
pub async fn what_is_only_referred_renames_nobody(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    acme.instruct(at(1), restriction("mara", UnlawfulProcessing)).await;
    let referred = Intake { referred: Some("my words".to_owned()), ..change("mara", "m.lind", &crm) };
    let ids = acme.instruct_all(at(2), vec![referred, erasure("m.lind")]).await;
    assert_eq!(acme.state(ids[1]).await, RequestState::InProgress);
}

/// In whichever order a chunk has them, a lifting by the new name ends what stands under it, and nothing that comes after.
pub async fn a_lifting_by_a_new_name_of_its_chunk_ends_what_stands_under_it(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let systems = [crm];
    let [crm] = &systems;
    acme.instruct(at(1), restriction("mara", UnlawfulProcessing)).await;
    let chunk = vec![change("mara", "m.lind", crm), lifting("m.lind"), change("m.lind", "m.berg", crm)];
    acme.instruct_all(at(2), chunk).await;
    work_off(&acme, &systems, at(3)).await;
    for name in ["m.lind", "m.berg"] {
        let free = acme.instruct(at(4), erasure(name)).await;
        assert_eq!(acme.state(free).await, RequestState::InProgress, "{name}");
    }
    let chunk = vec![change("noor", "n.berg", crm), lifting("n.berg"), restriction("noor", UnlawfulProcessing)];
    acme.instruct_all(at(5), chunk).await;
    work_off(&acme, &systems, at(6)).await;
    let held = acme.instruct(at(7), erasure("n.berg")).await;
    assert_eq!(acme.state(held).await, RequestState::AwaitingCustomer);
}

/// The lifting is done at the moment at which the change is taken in, and does not see what is copied under the new name.
pub async fn a_restriction_that_is_being_ended_does_not_stand_under_the_new_name(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    acme.instruct(at(1), restriction("mara", UnlawfulProcessing)).await;
    acme.confirm_next(&crm, at(2)).await;
    acme.instruct(at(3), lifting("mara")).await;
    let task = claim_one(t, &crm, at(4)).await;
    let behind = acme.instruct(at(5), access("mara")).await;
    // The last that the lifting's confirmation does is to free who waits for it.
    let mut freed = t.raw().await;
    let sql = by_the_case("SELECT state FROM tasks WHERE request_id = $1 FOR UPDATE");
    assert_eq!(freed.fetch(&sql, vec![behind.uuid().into()]).await.unwrap().len(), 1);
    let lifts = {
        let (acme, crm) = (acme.clone(), crm.clone());
        tokio::spawn(async move { acme.report(&task, at(6), done(&crm)).await })
    };
    lock_is_waited_for(t, 1).await;
    let renames = {
        let (acme, change) = (acme.clone(), change("mara", "m.lind", &crm));
        tokio::spawn(async move { acme.instruct(at(6), change).await })
    };
    let either = tokio::time::timeout(Duration::from_secs(20), async {
        while !renames.is_finished() && t.count(WAITING).await < 2 {}
    });
    either.await.expect("it is taken in, or waits for the lifting");
    freed.commit().await.unwrap();
    assert!(lifts.await.unwrap().is_empty());
    renames.await.unwrap();
    assert_eq!(t.count("SELECT count(*) FROM restrictions").await, 0, "under neither name");
    let free = acme.instruct(at(7), erasure("m.lind")).await;
    assert_eq!(acme.state(free).await, RequestState::InProgress);
}
