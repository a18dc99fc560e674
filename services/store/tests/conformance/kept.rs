//! What a hold needs outlives its request, under a key of its own, until the day it ends is confirmed (I7).

use quittance_domain::{
    Timestamp,
    action::{InstructionKind, RestrictionGround},
    ids::{RequestId, SystemId},
    outcome::{Confirmation, Grade, OutcomeKind},
    request::RequestState,
    task::TaskState,
};
use quittance_store::{Kept, ReportResult, StoreResult};
use uuid::Uuid;

use crate::{
    forgetting::{rotate, states},
    harness::TestStore,
    held_up::{HeldUp, in_order},
    statements::by_the_case,
    world::*,
};

/// The day that the hold of these cases ends.
const END: i64 = 100;

fn retained(system: &SystemId, until: Timestamp) -> Confirmation {
    let mut confirmation = confirmation(system, OutcomeKind::Retained);
    for outcome in &mut confirmation.outcomes {
        (outcome.grade, outcome.until, outcome.basis) = (Grade::RetainedUntil, Some(until), "books".to_owned());
    }
    confirmation
}

pub fn held(system: &SystemId, rows: &[u8], until: Timestamp) -> ReportResult {
    ReportResult::Held(retained(system, until), Kept { rows: rows.to_vec(), due_at: until })
}

/// An erasure that leaves something held.
pub async fn holding(t: &TestStore, acme: &Customer, crm: &SystemId, person: &str) -> RequestId {
    let mut sent = erasure(person);
    sent.request.reference = format!("DSR-{person}");
    let id = acme.instruct(at(1), sent).await;
    let task = claim_one(t, crm, at(2)).await;
    assert_eq!(task.follows, None);
    t.save_match_sets(crm, at(2), &[(&task, b"all rows".to_vec())]).await.unwrap();
    assert!(acme.report(&task, at(3), held(crm, b"held rows", day(END))).await.is_empty());
    id
}

async fn follow_up(t: &TestStore, acme: &Customer, now: Timestamp) -> StoreResult<Vec<RequestId>> {
    let topology = t.topology().await?;
    t.follow_up(&acme.id, &acme.agreement, &topology, now).await
}

async fn kept(t: &TestStore) -> i64 {
    t.count("SELECT count(*) FROM kept_rows").await
}

pub async fn what_is_held_is_erased_on_its_day_though_its_request_is_forgotten(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let first = holding(t, &acme, &crm, "mara").await;
    assert_eq!(acme.state(first).await, RequestState::Completed);
    rotate(t, day(31)).await;
    assert!(acme.request(first).await.forgotten_at.is_some());
    assert_eq!((t.count("SELECT count(*) FROM match_sets").await, kept(t).await), (0, 1));
    rotate(t, day(60)).await;
    assert_eq!(t.count("SELECT count(*) FROM kept_rows WHERE key_epoch = '3'").await, 1);
    // Not a day too early, and once.
    assert!(t.customers_with_ended_holds(day(END - 1)).await.unwrap().is_empty());
    assert!(follow_up(t, &acme, day(END - 1)).await.unwrap().is_empty());
    assert_eq!(t.customers_with_ended_holds(day(END)).await.unwrap(), std::slice::from_ref(&acme.id));
    let made = follow_up(t, &acme, day(END)).await.unwrap();
    assert_eq!(made.len(), 1);
    assert!(follow_up(t, &acme, day(END)).await.unwrap().is_empty());
    assert!(t.customers_with_ended_holds(day(END)).await.unwrap().is_empty());
    let request = acme.request(made[0]).await;
    assert_eq!((request.follows, request.instruction), (Some(first), InstructionKind::AgreementTerm));
    assert_eq!(request.reference, "DSR-mara");
    let task = claim_one(t, &crm, day(END)).await;
    assert_eq!((task.key.request, task.follows), (made[0], Some(first)));
    assert_eq!((task.match_set.as_deref(), task.subject.identifiers.len()), (Some(b"held rows".as_slice()), 0));
    assert_eq!(kept(t).await, 1, "until it is confirmed");
    assert!(acme.report(&task, day(END), done(&crm)).await.is_empty());
    assert_eq!((acme.state(made[0]).await, kept(t).await), (RequestState::Completed, 0));
    let kinds = "SELECT count(*) FROM ledger_entries WHERE kind IN ('instructed', 'planned', 'confirmed', 'completed')";
    assert_eq!(t.count(kinds).await, 8);
    rotate(t, day(END + 31)).await;
    assert_eq!(states(t).await.len(), 4);
    assert_eq!(t.count("SELECT count(*) FROM requests WHERE key_epoch <> ''").await, 0);
}

/// Each row has an end of its own: what is held still is kept for its own day, and so on.
pub async fn what_is_still_held_is_followed_again(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let first = holding(t, &acme, &crm, "mara").await;
    rotate(t, day(31)).await;
    let second = follow_up(t, &acme, day(END)).await.unwrap()[0];
    let task = claim_one(t, &crm, day(END)).await;
    assert!(acme.report(&task, day(END), held(&crm, b"the rest", day(2 * END))).await.is_empty());
    assert_eq!((acme.state(second).await, kept(t).await), (RequestState::Completed, 1));
    rotate(t, day(END + 31)).await;
    let third = follow_up(t, &acme, day(2 * END)).await.unwrap()[0];
    assert_eq!(acme.request(third).await.follows, Some(second));
    let task = claim_one(t, &crm, day(2 * END)).await;
    assert_eq!(task.match_set.as_deref(), Some(b"the rest".as_slice()));
    // It is about the same person still: what is instructed meanwhile waits for it.
    let access = acme.instruct(day(2 * END), access("mara")).await;
    assert_eq!(acme.task_state(access, &crm).await, TaskState::Waiting);
    assert!(acme.report(&task, day(2 * END), done(&crm)).await.is_empty());
    assert_eq!(acme.task_state(access, &crm).await, TaskState::Pending);
    assert_eq!(kept(t).await, 0);
    assert!(acme.request(first).await.follows.is_none());
}

pub async fn nothing_is_kept_of_a_task_that_was_lost(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    let late = at(2 + LEASE_S + 1);
    assert_eq!(acme.report(&task, late, held(&crm, b"rows", day(END))).await, [task.key.request]);
    assert_eq!(kept(t).await, 0);
}

/// The subject asked for its data to be kept since (Art. 18): then its customer is asked, as with any erasure.
pub async fn a_restriction_holds_what_was_held(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    holding(t, &acme, &crm, "mara").await;
    holding(t, &acme, &crm, "noor").await;
    holding(t, &acme, &crm, "siu").await;
    for person in ["mara", "noor"] {
        acme.instruct(day(1), restriction(person, RestrictionGround::NeededForLegalClaims)).await;
        acme.confirm_next(&crm, day(1)).await;
    }
    rotate(t, day(31)).await;
    let made = follow_up(t, &acme, day(END)).await.unwrap();
    let mut waiting = Vec::new();
    for id in &made {
        if acme.state(*id).await == RequestState::AwaitingCustomer {
            waiting.push(*id);
        }
    }
    assert_eq!((made.len(), waiting.len()), (3, 2));
    assert_eq!(acme.confirm_next(&crm, day(END)).await, *made.iter().find(|id| !waiting.contains(id)).unwrap());
    assert!(claim(t, &crm, day(END)).await.is_none());
    acme.authorise(waiting[0], day(END)).await.unwrap();
    let task = claim_one(t, &crm, day(END)).await;
    assert_eq!((task.key.request, task.match_set.as_deref()), (waiting[0], Some(b"held rows".as_slice())));
    assert!(acme.report(&task, day(END), done(&crm)).await.is_empty());
    // It stays where the customer says so, and is no business of ours any more.
    t.decline_request(&acme.id, waiting[1], "customers/acme", "the claim is open", day(END)).await.unwrap();
    assert_eq!(kept(t).await, 0);
    assert!(follow_up(t, &acme, day(END + 1)).await.unwrap().is_empty());
}

/// It is taken in while the sweep is on its way: open still, or done by then.
pub async fn a_restriction_that_comes_beside_a_sweep_holds_what_was_held(t: &TestStore) {
    for done in [false, true] {
        let (acme, crm) = acme_and_crm(t).await;
        for person in ["mara", "noor"] {
            holding(t, &acme, &crm, person).await;
        }
        let [first, last] = in_order(t, &acme).await;
        let line = HeldUp::new(t, &acme, &crm, first).await;
        let sweep = async || follow_up(t, &acme, day(END)).await.unwrap();
        let meanwhile = async {
            line.is_waited_for().await;
            let sent = restriction(last, RestrictionGround::NeededForLegalClaims);
            let restricts = acme.instruct(at(5), sent).await;
            if done {
                assert_eq!(acme.confirm_next(&crm, at(6)).await, restricts);
            }
            line.let_go().await;
        };
        let (made, ()) = tokio::join!(sweep(), meanwhile);
        assert!(made.is_empty(), "the next sweep looks at all of it again");
        for id in sweep().await {
            let follow_up = acme.request(id).await;
            let waits = follow_up.state == RequestState::AwaitingCustomer;
            assert_eq!(waits, follow_up.reference == format!("DSR-{last}"), "{}", follow_up.reference);
        }
        assert_eq!(t.count("SELECT count(*) FROM requests WHERE follows_request_id IS NOT NULL").await, 2);
        t.empty().await;
    }
}

/// Its customer's last word was not to erase: what one system holds until then is not erased unasked.
pub async fn what_was_declined_in_the_end_is_asked_about_first(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    register(t, "shop", &[Email], &[]).await;
    let id = holding(t, &acme, &crm, "mara").await;
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(4)).await.unwrap();
    t.decline_request(&acme.id, id, "customers/acme", "indeed", at(5)).await.unwrap();
    let asked = follow_up(t, &acme, day(END)).await.unwrap()[0];
    assert_eq!(acme.state(asked).await, RequestState::AwaitingCustomer);
    assert!(claim(t, &crm, day(END)).await.is_none());
    acme.authorise(asked, day(END)).await.unwrap();
    assert_eq!(acme.confirm_next(&crm, day(END)).await, asked);
    assert_eq!((acme.state(asked).await, kept(t).await), (RequestState::Completed, 0));
}

/// Systems that were registered since have nothing to do with it.
pub async fn a_follow_up_is_of_one_system_alone(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    holding(t, &acme, &crm, "mara").await;
    register(t, "shop", &[Email], &[]).await;
    let id = follow_up(t, &acme, day(END)).await.unwrap()[0];
    register(t, "mailer", &[Email], &[]).await;
    acme.replan(day(END)).await;
    assert_eq!(acme.tasks(id).await.len(), 1);
    assert_eq!(acme.confirm_next(&crm, day(END)).await, id);
    assert_eq!((acme.state(id).await, kept(t).await), (RequestState::Completed, 0));
}

/// Two replicas look at the same moment.
pub async fn of_sweeps_that_race_one_follows_up(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    for person in ["a", "b", "c"] {
        holding(t, &acme, &crm, person).await;
    }
    let now = day(END);
    let made = tokio::join!(follow_up(t, &acme, now), follow_up(t, &acme, now), follow_up(t, &acme, now));
    let made: usize = [made.0, made.1, made.2].into_iter().map(|made| made.map_or(0, |made| made.len())).sum();
    assert_eq!(made, 3);
    assert_eq!(t.count("SELECT count(*) FROM requests WHERE follows_request_id IS NOT NULL").await, 3);
}

/// More than are followed up at once.
pub async fn what_was_kept_and_does_not_open_keeps_no_other_hold_from_ending(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    holding(t, &acme, &crm, "mara").await;
    let mut tx = t.raw().await;
    for n in 0..101_u128 {
        // Of another request, and earlier.
        let copy = "INSERT INTO kept_rows (customer_id, request_id, system_id, map_version, due_us, key_epoch, wrapped_key, sealed)
                    SELECT customer_id, $1, system_id, map_version, due_us - 1, key_epoch, wrapped_key, sealed FROM kept_rows LIMIT 1";
        tx.execute(&by_the_case(copy), vec![Uuid::from_u128(n).into()]).await.unwrap();
    }
    tx.commit().await.unwrap();
    let made = follow_up(t, &acme, day(END)).await.unwrap();
    assert_eq!(acme.confirm_next(&crm, day(END)).await, made[0]);
    assert!(follow_up(t, &acme, day(END)).await.unwrap().is_empty());
}

/// It is nobody's word on the restriction, also where it stands behind a lifting that is taken back.
pub async fn the_end_of_a_hold_ends_no_restriction(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    holding(t, &acme, &crm, "mara").await;
    acme.instruct(day(1), restriction("mara", RestrictionGround::AccuracyContested)).await;
    acme.confirm_next(&crm, day(1)).await;
    let lifts = acme.instruct(day(END), lifting("mara")).await;
    let made = follow_up(t, &acme, day(END)).await.unwrap();
    acme.cancel(lifts, day(END)).await.unwrap();
    assert_eq!(acme.confirm_next(&crm, day(END)).await, made[0]);
    assert_eq!(t.count("SELECT count(*) FROM restrictions").await, 1);
}

/// Whoever has a restriction lifted is not to lift what is held.
pub async fn what_is_held_at_a_system_is_read_page_by_page(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let at_crm = async |after| t.kept_at(&acme.id, &crm, after).await.unwrap();
    let page = at_crm(None).await;
    assert!(page.rows.is_empty() && page.next.is_none() && !page.unsealable);
    let first = holding(t, &acme, &crm, "mara").await;
    // Under whatever key it lies by now, and until its erasure is confirmed.
    rotate(t, day(31)).await;
    assert_eq!(follow_up(t, &acme, day(END)).await.unwrap().len(), 1);
    assert_eq!(at_crm(None).await.rows, [b"held rows"]);
    assert!(at_crm(Some(first)).await.rows.is_empty());
    let globex = customer(t, "globex").await;
    assert!(t.kept_at(&globex.id, &crm, None).await.unwrap().rows.is_empty(), "another customer's");
    let mut tx = t.raw().await;
    for n in 0..100_u128 {
        let copy = "INSERT INTO kept_rows (customer_id, request_id, system_id, map_version, due_us, key_epoch, wrapped_key, sealed)
                    SELECT customer_id, $1, system_id, map_version, due_us, key_epoch, wrapped_key, sealed FROM kept_rows LIMIT 1";
        tx.execute(&by_the_case(copy), vec![Uuid::from_u128(n + 1).into()]).await.unwrap();
    }
    tx.commit().await.unwrap();
    // What is another's does not open.
    let page = at_crm(None).await;
    assert!(page.unsealable && page.rows.is_empty());
    assert_eq!(at_crm(page.next).await.rows, [b"held rows"]);
}
