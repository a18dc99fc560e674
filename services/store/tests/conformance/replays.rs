//! A system was restored from a backup: what was instructed there since is found by pseudonyms alone, and carried out again.

use std::time::Duration;

use quittance_domain::{
    Timestamp,
    action::{Action, IdentifierChange, RestrictionGround},
    identifier::Identifier,
    ids::{CustomerId, ReplayId, RequestId, SystemId},
    outcome::OutcomeKind,
    replay::{ReplayGuard, ReplayState},
    request::RequestState,
    system::System,
};
use quittance_ledger::{Event, RecordedEvent};
use quittance_store::{
    FollowUps, Intake, IntakeContext, NewReplay, ReplayFindingKind, ReplayLease, ReplayRow, ReplayShare, ReplayWork,
    Store, StoreError, StoreResult, SuppressionKeys, Taken,
};
use uuid::Uuid;

use crate::{
    forgetting::rotate,
    harness::TestStore,
    held_up::{HeldUp, in_order, lock_is_waited_for},
    world::*,
};

/// Days that the backups of `crm` live.
const BACKUPS: i64 = 30;

pub fn with_backups(id: &str) -> System {
    let mut system = system(id, &[Email, UserId], &[]);
    system.registration.backup_retention_s = BACKUPS.unsigned_abs() * 86_400;
    system
}

pub async fn registered(t: &Store, system: System) -> SystemId {
    t.register_system(&system, "version: 1", new_id(), at(0)).await.unwrap();
    system.id.clone()
}

/// `acme`, `bolt`, and a system with backups that both share.
pub async fn acme_bolt_and_crm(t: &TestStore) -> (Customer, Customer, SystemId) {
    (customer(t, "acme").await, customer(t, "bolt").await, registered(t, with_backups("crm")).await)
}

/// Takes it in and has it confirmed at the system.
async fn done_at(customer: &Customer, system: &SystemId, now: Timestamp, intake: Intake) -> RequestId {
    let id = customer.instruct(now, intake).await;
    assert_eq!(customer.confirm_next(system, now).await, id);
    id
}

const ANY: ReplayGuard = ReplayGuard { matches_max: u64::MAX, share_percent_max: 100 };

pub fn asked(system: &SystemId, snapshot_at: Timestamp) -> NewReplay {
    NewReplay {
        id: ReplayId::new(Uuid::now_v7()),
        idempotency: new_id(),
        system: system.clone(),
        snapshot_at,
        dry_run: false,
        guard: ANY,
        by: "operator/ops".to_owned(),
    }
}

pub async fn lease(t: &Store, system: &SystemId, now: Timestamp) -> Option<ReplayLease> {
    let asks = ReplayWork::InProcess { asks: std::slice::from_ref(system) };
    let expires_at = now.checked_add(Duration::from_secs(LEASE_S.unsigned_abs())).unwrap();
    again!(t.lease_replay(asks, "worker", now, expires_at)).unwrap()
}

/// What the system holds of each customer is matched; what the replay then is.
pub async fn matched(t: &Store, new: &NewReplay, held: &[(&Customer, &[Identifier])], now: Timestamp) -> ReplayLease {
    t.start_replay(new, now).await.unwrap();
    let lease = lease(t, &new.system, now).await.expect("it is due");
    let concerned = begin(t, &lease).await;
    let (mut read, mut found) = (0, 0);
    for (customer, keys) in held {
        read += keys.len() as u64;
        if concerned.contains(&customer.id) {
            found += t.match_held(&lease, &customer.id, keys).await.unwrap();
        }
    }
    assert!(t.hold_replay(&lease, now, Some((read, found))).await.unwrap());
    count(t, &lease).await;
    lease
}

async fn begin(t: &Store, lease: &ReplayLease) -> Vec<CustomerId> {
    let concerned = t.customers_suppressed(&lease.replay.system).await.unwrap();
    for customer in &concerned {
        t.open_share(customer, lease).await.unwrap();
    }
    concerned
}

async fn count(t: &Store, lease: &ReplayLease) {
    for customer in t.replay_customers(lease.replay.id).await.unwrap() {
        t.count_matches(&customer, lease).await.unwrap();
    }
}

pub async fn instruct(customer: &Customer, lease: &ReplayLease, now: Timestamp) -> FollowUps {
    let follow_ups = customer.store.next_follow_ups(lease, &customer.id, 100, now).await.unwrap();
    take_in(customer, lease, &follow_ups, now).await.unwrap();
    follow_ups
}

async fn take_in(
    customer: &Customer,
    lease: &ReplayLease,
    follow_ups: &FollowUps,
    now: Timestamp,
) -> StoreResult<usize> {
    let topology = customer.store.topology().await?;
    let ctx = IntakeContext {
        customer: &customer.id,
        by: "operator/ops",
        now,
        agreement: &customer.agreement,
        topology: &topology,
    };
    let later = now.checked_add(Duration::from_secs(5)).unwrap();
    customer.store.instruct_follow_ups(&ctx, lease, follow_ups, later).await
}

async fn shares(t: &Store, lease: &ReplayLease) -> Vec<ReplayShare> {
    t.replay_shares(lease.replay.id).await.unwrap()
}

/// Its id is derived from what it says, and so names nothing else.
pub async fn a_follow_up_is_one_request_though_it_is_forgotten_before_it_is_noted(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, day(2), erasure("mara")).await;
    let lease = matched(t, &asked(&crm, day(1)), &[(&acme, &[email("mara")])], day(3)).await;
    let follow_ups = instruct(&acme, &lease, day(3)).await;
    let id = acme.confirm_next(&crm, day(3)).await;
    rotate(t, day(40)).await;
    assert!(acme.request(id).await.forgotten_at.is_some());
    assert_eq!(acme.take(day(40), follow_ups.intakes).await.unwrap(), [Ok(Taken::Repeated(id))]);
}

/// Follow-ups of the customer, oldest first: action, whom it follows, state.
async fn follow_ups(customer: &Customer) -> Vec<(Action, RequestId, RequestState)> {
    let all = customer.store.list_requests(&customer.id, &Default::default(), None, 1000).await.unwrap();
    let mut all: Vec<_> =
        all.into_iter().filter_map(|r| Some((r.id, r.action, r.follow_up?.follows, r.state))).collect();
    all.sort_by_key(|(id, ..)| *id);
    all.into_iter().map(|(_, action, follows, state)| (action, follows, state)).collect()
}

pub async fn ended(t: &Store, lease: &ReplayLease, now: Timestamp) -> ReplayRow {
    assert!(t.move_replay(lease, ReplayState::Completed, "", now, now).await.unwrap());
    let row = t.replay(&lease.replay.system, lease.replay.id).await.unwrap();
    t.record_replay(&ReplayLease { replay: row.clone(), epoch: lease.epoch }, now).await.unwrap();
    row
}

pub async fn an_erasure_is_carried_out_again_by_a_request_of_its_own(t: &mut TestStore) {
    let (acme, bolt, crm) = acme_bolt_and_crm(t).await;
    let shop = registered(t, with_backups("shop")).await;
    let first = acme.instruct(at(10), erasure("mara")).await;
    assert_eq!(acme.confirm_next(&crm, at(11)).await, first);
    assert_eq!(acme.confirm_next(&shop, at(11)).await, first);
    let restored = [email("mara"), email("neighbour"), user("U-1")];
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &restored), (&bolt, &restored)], at(20)).await;
    let shares = shares(t, &lease).await;
    assert_eq!((shares.len(), shares[0].counts.erasures, &shares[0].customer), (1, 1, &acme.id));
    instruct(&acme, &lease, at(21)).await;
    assert_eq!(follow_ups(&acme).await, [(Action::Erasure, first, RequestState::InProgress)]);
    assert!(follow_ups(&bolt).await.is_empty(), "the same address of another customer is another person");
    // At the restored system alone, and from there the ordinary way.
    let task = claim_one(t, &crm, at(22)).await;
    assert_eq!(task.subject.identifiers, [email("mara")]);
    assert!(claim(t, &shop, at(22)).await.is_none());
    assert!(acme.report(&task, at(23), done(&crm)).await.is_empty());
    let (row, tasks) = t.request(&acme.id, task.key.request).await.unwrap();
    assert_eq!((row.state, tasks.len()), (RequestState::Completed, 1));
    assert_eq!(t.replay_remains(lease.replay.id).await.unwrap(), (0, 0));
    ended(t, &lease, at(24)).await;
    // Of a system that is added later it knows nothing.
    registered(t, with_backups("late")).await;
    acme.replan(at(25)).await;
    assert_eq!(acme.tasks(task.key.request).await.len(), 1);
}

pub async fn a_follow_up_that_is_open_is_not_planned_elsewhere(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, at(10), erasure("mara")).await;
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &[email("mara")])], at(20)).await;
    instruct(&acme, &lease, at(21)).await;
    let late = registered(t, with_backups("late")).await;
    acme.replan(at(22)).await;
    let id = acme.confirm_next(&crm, at(23)).await;
    assert_eq!(acme.state(id).await, RequestState::Completed);
    assert!(claim(t, &late, at(24)).await.is_none());
}

pub async fn only_what_was_confirmed_since_the_snapshot_is_carried_out_again(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, at(10), erasure("before")).await;
    let after = done_at(&acme, &crm, at(30), erasure("after")).await;
    let held = [email("before"), email("after")];
    let lease = matched(t, &asked(&crm, at(20)), &[(&acme, &held)], at(40)).await;
    instruct(&acme, &lease, at(41)).await;
    assert_eq!(follow_ups(&acme).await, [(Action::Erasure, after, RequestState::InProgress)]);
}

pub async fn a_person_who_is_found_by_two_names_is_one_request(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    let first = done_at(&acme, &crm, at(10), intake(Action::Erasure, &[email("mara"), user("U-7")])).await;
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &[user("U-7"), email("mara")])], at(20)).await;
    assert_eq!(instruct(&acme, &lease, at(21)).await.intakes.len(), 1);
    assert_eq!(follow_ups(&acme).await, [(Action::Erasure, first, RequestState::InProgress)]);
    assert_eq!(claim_one(t, &crm, at(22)).await.subject.identifiers.len(), 2);
}

pub async fn a_restriction_is_carried_out_again_and_a_lifted_one_is_not(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    let ground = RestrictionGround::AccuracyContested;
    let standing = done_at(&acme, &crm, at(10), restriction("standing", ground)).await;
    done_at(&acme, &crm, at(10), restriction("lifted", ground)).await;
    done_at(&acme, &crm, at(11), lifting("lifted")).await;
    let held = [email("standing"), email("lifted")];
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &held)], at(20)).await;
    instruct(&acme, &lease, at(21)).await;
    assert_eq!(follow_ups(&acme).await, [(Action::Restriction, standing, RequestState::InProgress)]);
    let id = acme.confirm_next(&crm, at(22)).await;
    assert_eq!(acme.request(id).await.restriction_ground, Some(ground));
}

pub async fn a_lifting_of_what_the_snapshot_has_restricted_is_carried_out_again(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, at(10), restriction("mara", RestrictionGround::AccuracyContested)).await;
    let lifted = done_at(&acme, &crm, at(30), lifting("mara")).await;
    let lease = matched(t, &asked(&crm, at(20)), &[(&acme, &[email("mara")])], at(40)).await;
    instruct(&acme, &lease, at(41)).await;
    assert_eq!(follow_ups(&acme).await, [(Action::LiftRestriction, lifted, RequestState::InProgress)]);
}

pub async fn a_restriction_is_not_redone_behind_what_is_instructed_meanwhile(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, at(10), restriction("mara", RestrictionGround::AccuracyContested)).await;
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &[email("mara")])], at(20)).await;
    let lifting = acme.instruct(at(21), lifting("mara")).await;
    instruct(&acme, &lease, at(22)).await;
    assert!(follow_ups(&acme).await.is_empty(), "it would restrict again what the customer has lifted");
    assert_eq!(t.replay_remains(lease.replay.id).await.unwrap(), (1, 0));
    assert!(instruct(&acme, &lease, at(23)).await.intakes.is_empty(), "not looked at again at once");
    assert_eq!(acme.confirm_next(&crm, at(24)).await, lifting);
    instruct(&acme, &lease, at(30)).await;
    assert!(follow_ups(&acme).await.is_empty());
    assert_eq!(t.replay_remains(lease.replay.id).await.unwrap(), (0, 0), "nothing is left to do");
}

/// It was lifted after the follow-up was drafted, and nothing about the person is open any more.
pub async fn a_restriction_is_not_redone_behind_what_was_done_meanwhile(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, at(10), restriction("mara", RestrictionGround::AccuracyContested)).await;
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &[email("mara")])], at(20)).await;
    let drafted = t.next_follow_ups(&lease, &acme.id, 100, at(21)).await.unwrap();
    assert_eq!(drafted.intakes.len(), 1);
    done_at(&acme, &crm, at(22), lifting("mara")).await;
    assert_eq!(take_in(&acme, &lease, &drafted, at(23)).await.unwrap(), 0);
    instruct(&acme, &lease, at(30)).await;
    assert!(follow_ups(&acme).await.is_empty());
    assert_eq!(t.replay_remains(lease.replay.id).await.unwrap(), (0, 0), "nothing is left to do");
}

/// The lifting is taken in and done while the follow-up is on its way in.
pub async fn a_restriction_is_not_redone_behind_what_is_done_while_it_comes_in(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    let [first, last] = in_order(t, &acme).await;
    done_at(&acme, &crm, at(10), erasure(first)).await;
    done_at(&acme, &crm, at(10), restriction(last, RestrictionGround::AccuracyContested)).await;
    let line = HeldUp::new(t, &acme, &crm, first).await;
    let held = [email(first), email(last)];
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &held)], at(20)).await;
    let meanwhile = async {
        line.is_waited_for().await;
        done_at(&acme, &crm, at(21), lifting(last)).await;
        line.let_go().await;
    };
    let (drafted, ()) = tokio::join!(instruct(&acme, &lease, at(21)), meanwhile);
    assert_eq!(drafted.intakes.len(), 2);
    instruct(&acme, &lease, at(30)).await;
    let actions: Vec<_> = follow_ups(&acme).await.into_iter().map(|(action, ..)| action).collect();
    assert_eq!(actions, [Action::Erasure]);
}

/// Once it is cancelled, nothing more is instructed: what is on its way in is waited for.
pub async fn a_cancellation_waits_for_follow_ups_that_are_on_their_way_in(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, at(10), erasure("mara")).await;
    let line = HeldUp::new(t, &acme, &crm, "mara").await;
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &[email("mara")])], at(20)).await;
    let comes_in = {
        let (acme, lease) = (acme.clone(), lease.clone());
        tokio::spawn(async move { instruct(&acme, &lease, at(21)).await })
    };
    line.is_waited_for().await;
    let cancelled = {
        let (store, crm) = ((**t).clone(), crm.clone());
        tokio::spawn(async move { store.cancel_replay(&crm, lease.replay.id, "operator/ops", at(22)).await })
    };
    lock_is_waited_for(t, 2).await;
    line.let_go().await;
    assert_eq!(comes_in.await.unwrap().intakes.len(), 1);
    assert_eq!(cancelled.await.unwrap().unwrap().state, ReplayState::Cancelled);
    assert_eq!(follow_ups(&acme).await.len(), 1);
}

pub async fn an_erasure_again_waits_for_the_customer_where_a_restriction_stands(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    let erased = done_at(&acme, &crm, at(10), erasure("mara")).await;
    done_at(&acme, &crm, at(11), restriction("mara", RestrictionGround::NeededForLegalClaims)).await;
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &[email("mara")])], at(20)).await;
    instruct(&acme, &lease, at(21)).await;
    assert_eq!(follow_ups(&acme).await, [(Action::Erasure, erased, RequestState::AwaitingCustomer)]);
    let listed = t.list_requests(&acme.id, &Default::default(), None, 1).await.unwrap();
    let shop = registered(t, with_backups("shop")).await;
    acme.authorise(listed[0].id, at(22)).await.unwrap();
    assert_eq!(acme.confirm_next(&crm, at(23)).await, listed[0].id);
    assert_eq!(acme.state(listed[0].id).await, RequestState::Completed);
    assert!(claim(t, &shop, at(24)).await.is_none());
}

fn renaming(from: &str, to: &str, system: &SystemId) -> Intake {
    let mut renaming = intake(Action::Rectification, &[email(from)]);
    renaming.request.identifier_changes = vec![IdentifierChange {
        kind: Email,
        collection: "customer".to_owned(),
        field: "email".to_owned(),
        old: Some(email(from)),
        new: email(to),
        named_at: [system.clone()].into(),
    }];
    renaming
}

pub async fn rectifications_are_listed_for_the_customer(t: &mut TestStore) {
    let (acme, bolt, crm) = acme_bolt_and_crm(t).await;
    let corrected = done_at(&acme, &crm, at(10), intake(Action::Rectification, &[email("mara")])).await;
    let renamed = done_at(&bolt, &crm, at(10), renaming("old", "new", &crm)).await;
    done_at(&acme, &crm, at(10), intake(Action::Rectification, &[email("gone")])).await;
    done_at(&acme, &crm, at(11), erasure("gone")).await;
    let held = [email("mara"), email("gone"), email("old")];
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &held), (&bolt, &held)], at(20)).await;
    let listed = t.replay_findings(&lease.replay, None, 10).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|f| (&f.customer, f.request, f.kind, f.action, f.renames)).collect();
    let kind = ReplayFindingKind::Rectification;
    assert_eq!(
        listed,
        [
            (&acme.id, corrected, kind, Action::Rectification, false),
            (&bolt.id, renamed, kind, Action::Rectification, true)
        ]
    );
    instruct(&acme, &lease, at(21)).await;
    assert_eq!(follow_ups(&acme).await.len(), 1, "and the erasure is carried out again");
}

pub async fn what_was_instructed_under_a_new_name_is_carried_out_under_the_old_one(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, at(10), renaming("old", "newer", &crm)).await;
    done_at(&acme, &crm, at(11), renaming("newer", "newest", &crm)).await;
    let erased = done_at(&acme, &crm, at(12), erasure("newest")).await;
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &[email("old")])], at(20)).await;
    instruct(&acme, &lease, at(21)).await;
    assert_eq!(follow_ups(&acme).await, [(Action::Erasure, erased, RequestState::InProgress)]);
    assert_eq!(claim_one(t, &crm, at(22)).await.subject.identifiers, [email("old")]);
}

pub async fn what_nothing_leads_to_is_listed(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    let mut pbx = with_backups("pbx");
    pbx.registration.accepts = [Phone].into();
    let pbx = registered(t, pbx).await;
    let id = acme.instruct(at(10), erasure("mara")).await;
    acme.confirm_next(&crm, at(11)).await;
    t.resolve_task(&acme.key(id, &pbx), confirmation(&pbx, OutcomeKind::Unconfirmed), "operator/ops", at(12))
        .await
        .unwrap();
    let lease = matched(t, &asked(&pbx, at(5)), &[(&acme, &[])], at(20)).await;
    let listed = t.replay_findings(&lease.replay, None, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].request, listed[0].kind), (id, ReplayFindingKind::Unreachable));
    assert_eq!(shares(t, &lease).await[0].counts.unreachable, 1);
}

pub async fn nothing_sealed_of_the_original_is_needed(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    let first = done_at(&acme, &crm, at(10), erasure("mara")).await;
    t.change("UPDATE requests SET sealed_subject = key, wrapped_key = key FROM (SELECT content_mac AS key FROM requests) k; DELETE FROM match_sets").await;
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &[email("mara")])], at(20)).await;
    instruct(&acme, &lease, at(21)).await;
    assert_eq!(follow_ups(&acme).await, [(Action::Erasure, first, RequestState::InProgress)]);
}

pub async fn a_rotation_in_between_does_not_matter(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    let first = done_at(&acme, &crm, at(10), erasure("first")).await;
    acme.instruct(at(10), restriction("kept", RestrictionGround::NeededForLegalClaims)).await;
    acme.confirm_next(&crm, at(10)).await;
    let open = acme.instruct(at(10), access("second")).await;
    assert_eq!(SuppressionKeys::rotate(&t.file("keys")).unwrap(), 2);
    t.sweep_suppressions(at(11)).await.unwrap();
    let second = acme.instruct(at(12), erasure("second")).await;
    assert_eq!(acme.task_state(second, &crm).await, quittance_domain::task::TaskState::Waiting, "behind the open one");
    assert_eq!([acme.confirm_next(&crm, at(12)).await, acme.confirm_next(&crm, at(13)).await], [open, second]);
    let held = acme.instruct(at(13), erasure("kept")).await;
    assert_eq!(acme.state(held).await, RequestState::AwaitingCustomer, "the restriction still stands");
    assert_eq!(t.count("SELECT count(DISTINCT generation) FROM suppressions").await, 2);
    let names = [email("first"), email("second")];
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &names)], at(20)).await;
    instruct(&acme, &lease, at(21)).await;
    let mut all: Vec<_> = follow_ups(&acme).await.into_iter().map(|(_, follows, _)| follows).collect();
    all.sort();
    assert_eq!(all, [first, second]);
}

/// A process that only answers calls sweeps nothing, and takes in reports of workers elsewhere.
pub async fn who_sweeps_nothing_writes_by_the_newest_generation_too(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    assert_eq!(SuppressionKeys::rotate(&t.file("keys")).unwrap(), 2);
    t.refresh_keys().await.unwrap();
    done_at(&acme, &crm, at(10), erasure("mara")).await;
    assert_eq!(t.count("SELECT count(*) FROM suppressions WHERE generation = 2").await, 1);
    assert_eq!(t.count("SELECT count(*) FROM suppressions").await, 1);
}

pub async fn a_generation_goes_with_the_last_that_was_kept_under_it(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, day(1), erasure("first")).await;
    let keys = t.file("keys");
    SuppressionKeys::rotate(&keys).unwrap();
    // It was made long enough ago for every process to know it.
    let newest = std::fs::File::options().write(true).open(keys.join("suppression-2.key")).unwrap();
    newest.set_modified(std::time::SystemTime::now() - Duration::from_secs(48 * 3600)).unwrap();
    t.sweep_suppressions(day(2)).await.unwrap();
    done_at(&acme, &crm, day(10), erasure("second")).await;
    let swept = t.sweep_suppressions(day(1 + BACKUPS)).await.unwrap();
    assert_eq!((swept.suppressions, swept.destroyed.len()), (0, 0), "the last backup may be restored still");
    let swept = t.sweep_suppressions(day(2 + BACKUPS)).await.unwrap();
    assert_eq!((swept.suppressions, swept.destroyed), (1, vec![1]));
    assert!(!keys.join("suppression-1.key").exists());
    assert_eq!(t.count("SELECT count(*) FROM suppressions").await, 1);
    let swept = t.sweep_suppressions(day(2 + BACKUPS)).await.unwrap();
    assert_eq!(swept, Default::default());
}

pub async fn what_an_open_replay_needs_stays(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, day(1), erasure("mara")).await;
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &[email("mara")])], day(2)).await;
    assert_eq!(t.sweep_suppressions(day(5 + BACKUPS)).await.unwrap().suppressions, 0);
    instruct(&acme, &lease, day(5 + BACKUPS)).await;
    assert_eq!(follow_ups(&acme).await.len(), 1);
    acme.confirm_next(&crm, day(5 + BACKUPS)).await;
    ended(t, &lease, day(5 + BACKUPS)).await;
    assert_eq!(t.sweep_suppressions(day(5 + BACKUPS)).await.unwrap().suppressions, 1, "the follow-up's own is kept");
    assert_eq!(t.count("SELECT count(*) FROM replay_matches").await, 0);
}

pub async fn a_replay_that_is_run_again_instructs_nothing_twice(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    let names: Vec<Identifier> = (0..5).map(|n| email(&format!("p{n}"))).collect();
    for n in 0..5 {
        done_at(&acme, &crm, at(10), erasure(&format!("p{n}"))).await;
    }
    let new = asked(&crm, at(5));
    let lease = matched(t, &new, &[(&acme, &names)], at(20)).await;
    // It dies when some requests were made.
    let drafted = t.next_follow_ups(&lease, &acme.id, 3, at(21)).await.unwrap();
    assert_eq!(take_in(&acme, &lease, &drafted, at(21)).await.unwrap(), 3);
    assert_eq!(take_in(&acme, &lease, &drafted, at(21)).await.unwrap(), 3, "the same again");
    acme.confirm_next(&crm, at(22)).await;
    let drafted = t.next_follow_ups(&lease, &acme.id, 3, at(23)).await.unwrap();
    let other = self::lease(t, &crm, at(20 + LEASE_S)).await.unwrap();
    assert!(!t.hold_replay(&lease, at(90), None).await.unwrap(), "the first one has lost it");
    assert_eq!(take_in(&acme, &lease, &drafted, at(90)).await, Err(StoreError::LeaseLost));
    let lost = t.match_held(&lease, &acme.id, &names).await;
    assert!(matches!(lost, Err(StoreError::LeaseLost)), "{lost:?}");
    begin(t, &other).await;
    assert_eq!(t.match_held(&other, &acme.id, &names).await.unwrap(), 5);
    count(t, &other).await;
    assert_eq!(shares(t, &other).await[0].counts.erasures, 5);
    while instruct(&acme, &other, at(91)).await.looked_at > 0 {}
    assert_eq!(follow_ups(&acme).await.len(), 5);
}

pub async fn a_dry_run_keeps_nothing_of_what_it_saw(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, at(10), erasure("mara")).await;
    let new = NewReplay { dry_run: true, ..asked(&crm, at(5)) };
    let lease = matched(t, &new, &[(&acme, &[email("mara")])], at(20)).await;
    assert_eq!(shares(t, &lease).await[0].counts.erasures, 1);
    assert!(instruct(&acme, &lease, at(21)).await.intakes.is_empty());
    assert_eq!(t.count("SELECT count(*) FROM replay_matches WHERE sealed IS NOT NULL").await, 0);
}

/// What a replay has matched is sealed until it is instructed, and a rotation may come in between.
pub async fn what_was_matched_is_instructed_after_the_keys_were_turned_over(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    let first = done_at(&acme, &crm, at(10), erasure("mara")).await;
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &[email("mara")])], at(20)).await;
    rotate(t, at(21)).await;
    assert_eq!(t.count("SELECT count(*) FROM replay_shares WHERE key_epoch = '2'").await, 1);
    assert_eq!(instruct(&acme, &lease, at(60)).await.intakes.len(), 1);
    assert_eq!(follow_ups(&acme).await, [(Action::Erasure, first, RequestState::InProgress)]);
    assert_eq!(t.count("SELECT count(*) FROM replay_matches WHERE sealed IS NOT NULL").await, 0);
}

pub async fn a_replay_is_asked_for_once(t: &mut TestStore) {
    let (_, _, crm) = acme_bolt_and_crm(t).await;
    let new = asked(&crm, at(5));
    let first = t.start_replay(&new, at(10)).await.unwrap();
    let again = t.start_replay(&NewReplay { id: ReplayId::new(Uuid::now_v7()), ..new.clone() }, at(11)).await.unwrap();
    assert_eq!(again.id, first.id);
    let other = NewReplay { snapshot_at: at(6), ..new.clone() };
    assert!(matches!(t.start_replay(&other, at(11)).await, Err(StoreError::RequestIdReused)));
    let beside = t.start_replay(&asked(&crm, at(5)), at(11)).await;
    assert!(matches!(&beside, Err(StoreError::WrongState(why)) if why.contains("has not ended")), "{beside:?}");
    let mut racing = tokio::task::JoinSet::new();
    let shop = registered(t, with_backups("shop")).await;
    for _ in 0..8 {
        let (store, new) = ((**t).clone(), asked(&shop, at(5)));
        racing.spawn(async move { store.start_replay(&new, at(11)).await });
    }
    let started: Vec<StoreResult<ReplayRow>> = racing.join_all().await;
    assert_eq!(started.iter().filter(|s| s.is_ok()).count(), 1, "{started:?}");
    t.cancel_replay(&crm, first.id, "operator/ops", at(12)).await.unwrap();
    t.start_replay(&asked(&crm, at(5)), at(13)).await.unwrap();
}

/// Its sender has it sent again while the first is on its way: that is the same replay, and no other one that is in its way (I2).
pub async fn a_replay_that_is_asked_for_many_times_at_once_is_one(t: &mut TestStore) {
    acme_bolt_and_crm(t).await;
    for n in 0..10 {
        let system = registered(t, with_backups(&format!("shop-{n}"))).await;
        let new = asked(&system, at(5));
        let mut racing = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (store, new) = ((**t).clone(), NewReplay { id: ReplayId::new(Uuid::now_v7()), ..new.clone() });
            racing.spawn(async move { store.start_replay(&new, at(11)).await });
        }
        let started = racing.join_all().await.into_iter().collect::<StoreResult<Vec<ReplayRow>>>().unwrap();
        assert!(started.iter().all(|replay| replay.id == started[0].id), "{started:?}");
    }
}

pub async fn nothing_is_replayed_from_before_anything_was_kept(t: &mut TestStore) {
    let (_, _, crm) = acme_bolt_and_crm(t).await;
    t.change(&format!("UPDATE deployment SET suppressed_since_us = {}", at(100).as_microsecond())).await;
    let refused = t.start_replay(&asked(&crm, at(99)), at(200)).await;
    assert!(matches!(&refused, Err(StoreError::WrongState(why)) if why.contains("upgraded")), "{refused:?}");
    t.start_replay(&asked(&crm, at(100)), at(200)).await.unwrap();
}

pub async fn a_lost_key_is_said_before_anything_is_matched(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, at(10), erasure("mara")).await;
    drop(acme);
    t.close().await;
    std::fs::remove_file(t.file("keys").join("suppression-1.key")).unwrap();
    t.open("keys").await.unwrap();
    assert!(t.file("keys").join("suppression-2.key").exists(), "the new one is never taken for the lost one");
    let refused = t.start_replay(&asked(&crm, at(5)), at(20)).await;
    assert!(matches!(&refused, Err(StoreError::WrongState(why)) if why.contains("suppression-1.key")), "{refused:?}");
}

pub async fn every_replay_is_on_record_with_counts_alone(t: &mut TestStore) {
    let (acme, bolt, crm) = acme_bolt_and_crm(t).await;
    let first = done_at(&acme, &crm, at(10), erasure("quagga")).await;
    done_at(&bolt, &crm, at(10), erasure("other")).await;
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &[email("quagga")])], at(20)).await;
    instruct(&acme, &lease, at(21)).await;
    acme.confirm_next(&crm, at(22)).await;
    ended(t, &lease, at(23)).await;
    let own = RequestId::new(lease.replay.id.uuid());
    for (customer, erasures, instructed) in [(&acme, 1, 1), (&bolt, 0, 0)] {
        let entries = t.ledger_entries(&customer.id, own).await.unwrap();
        assert_eq!(entries.len(), 1, "once");
        let recorded = RecordedEvent::read(&entries[0].payload).unwrap();
        let Event::Replayed { by, snapshot_us, state, counts, .. } = recorded.event else { panic!("{recorded:?}") };
        assert_eq!((by.as_str(), snapshot_us, state), ("operator/ops", at(5).as_microsecond(), ReplayState::Completed));
        assert_eq!((counts.erasures, counts.instructed), (erasures, instructed));
    }
    let follow_up = t.list_requests(&acme.id, &Default::default(), None, 1).await.unwrap().remove(0);
    let entries = t.ledger_entries(&acme.id, follow_up.id).await.unwrap();
    let instructed = entries.iter().find_map(|e| match RecordedEvent::read(&e.payload).unwrap().event {
        Event::Instructed { follow_up, by, .. } => Some((follow_up.unwrap(), by)),
        _ => None,
    });
    let (followed, by) = instructed.unwrap();
    assert_eq!((followed.follows, followed.system, followed.replay), (first, crm, lease.replay.id));
    assert_eq!(by, "operator/ops");
}

pub async fn a_cancelled_replay_instructs_nothing_more(t: &mut TestStore) {
    let (acme, _, crm) = acme_bolt_and_crm(t).await;
    done_at(&acme, &crm, at(10), erasure("mara")).await;
    let lease = matched(t, &asked(&crm, at(5)), &[(&acme, &[email("mara")])], at(20)).await;
    let drafted = t.next_follow_ups(&lease, &acme.id, 100, at(20)).await.unwrap();
    t.cancel_replay(&crm, lease.replay.id, "operator/ops", at(21)).await.unwrap();
    assert_eq!(take_in(&acme, &lease, &drafted, at(21)).await, Err(StoreError::LeaseLost));
    assert!(follow_ups(&acme).await.is_empty());
    assert!(!t.move_replay(&lease, ReplayState::Instructing, "", at(22), at(22)).await.unwrap());
    let lease = self::lease(t, &crm, at(22)).await.expect("it is put on record");
    assert_eq!(lease.replay.state, ReplayState::Cancelled);
    t.record_replay(&lease, at(22)).await.unwrap();
    assert_eq!(t.count("SELECT count(*) FROM replay_matches WHERE sealed IS NOT NULL").await, 0);
    assert!(self::lease(t, &crm, at(600)).await.is_none());
    let again = t.approve_replay(&crm, lease.replay.id, "operator/ops", at(23)).await;
    assert!(matches!(again, Err(StoreError::WrongState(_))), "{again:?}");
}

pub async fn nothing_is_kept_where_no_backup_lives(t: &mut TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    done_at(&acme, &crm, at(10), erasure("mara")).await;
    let backed_up = registered(t, with_backups("backed-up")).await;
    let id = acme.instruct(at(11), access("mara")).await;
    acme.confirm_next(&crm, at(12)).await;
    acme.confirm_next(&backed_up, at(12)).await;
    assert_eq!(acme.state(id).await, RequestState::Completed);
    assert_eq!(t.count("SELECT count(*) FROM suppressions").await, 0, "and nothing of an access");
}

/// A batch is one statement, whatever is kept beside it.
pub async fn what_is_kept_costs_no_round_trip(t: &mut TestStore) {
    use quittance_sql::round_trips;
    let acme = customer(t, "acme").await;
    let plain = register(t, "plain", &[Email], &[]).await;
    let kept = registered(t, with_backups("kept")).await;
    acme.instruct_all(at(1), (0..50).map(|n| erasure(&format!("p{n}"))).collect()).await;
    let mut trips = Vec::new();
    for system in [&plain, &kept] {
        let batch = claim(t, system, at(2)).await.unwrap();
        let report = |task: &quittance_store::LeasedTask| quittance_store::Report {
            request: task.key.request,
            lease: task.lease,
            result: done(system),
        };
        let reports: Vec<_> = batch.tasks.iter().map(report).collect();
        let (lost, made) = round_trips(t.report(&acme.id, system, || at(3), &reports)).await;
        assert!(lost.unwrap().is_empty());
        trips.push(made);
    }
    assert_eq!(trips[0], trips[1]);
    assert_eq!(t.count("SELECT count(*) FROM suppressions").await, 50);
}
