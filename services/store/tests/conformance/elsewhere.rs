//! The order of one person's instructions (I4) among requests that have no task at every system: recipients are told of some alone.

use quittance_domain::{
    action::{Action, RestrictionGround::NeededForLegalClaims},
    ids::{RecipientId, RequestId, SystemId},
    outcome::OutcomeKind,
    request::{Notice, RequestState},
    system::SystemRole,
    task::TaskState,
};
use quittance_store::Intake;

use crate::{
    forgetting::rotate,
    harness::TestStore,
    replays::{asked, instruct, matched, registered, with_backups},
    world::*,
};

async fn bank(t: &TestStore) -> SystemId {
    let mut bank = system("bank", &[Email], &[]);
    bank.registration.role = SystemRole::Recipient;
    registered(t, bank).await
}

struct Scene {
    acme: Customer,
    crm: SystemId,
    bank: SystemId,
}

impl Scene {
    async fn new(t: &TestStore) -> Self {
        let (acme, crm) = acme_and_crm(t).await;
        Self { acme, crm, bank: bank(t).await }
    }

    fn telling(&self, intake: Intake) -> Intake {
        let mut told = intake;
        told.request.notices = vec![Notice { recipient: RecipientId::new("bank").unwrap(), system: self.bank.clone() }];
        told
    }

    fn correction(&self) -> Intake {
        self.telling(intake(Action::Rectification, &[email("mara")]))
    }

    /// At the crm, and asserts which one.
    async fn confirm(&self, id: RequestId, now: i64) {
        assert_eq!(self.acme.confirm_next(&self.crm, at(now)).await, id);
    }

    async fn at_the_bank(&self, id: RequestId) -> TaskState {
        self.acme.task_state(id, &self.bank).await
    }

    async fn completes(&self, ids: &[RequestId]) {
        work_off(&self.acme, &[self.crm.clone(), self.bank.clone()], at(100)).await;
        for id in ids {
            assert_eq!(self.acme.state(*id).await, RequestState::Completed);
        }
    }
}

/// The one before it has no task where it was waited for: nobody waits for what never comes.
pub async fn what_waited_for_a_cancelled_one_waits_only_for_what_will_be(t: &TestStore) {
    let s = Scene::new(t).await;
    let first = s.acme.instruct(at(1), access("mara")).await;
    let cancelled = s.acme.instruct(at(2), s.telling(erasure("mara"))).await;
    let last = s.acme.instruct(at(3), s.telling(erasure("mara"))).await;
    s.acme.cancel(cancelled, at(4)).await.unwrap();
    s.confirm(first, 5).await;
    s.confirm(last, 6).await;
    assert_eq!(s.at_the_bank(last).await, TaskState::Pending);
    s.completes(&[first, last]).await;
}

/// And where the one before that has one, it is waited for.
pub async fn what_waited_for_a_cancelled_one_waits_for_whoever_was_before(t: &TestStore) {
    let s = Scene::new(t).await;
    let first = s.acme.instruct(at(1), s.correction()).await;
    let second = s.acme.instruct(at(2), access("mara")).await;
    let cancelled = s.acme.instruct(at(2), s.telling(erasure("mara"))).await;
    let last = s.acme.instruct(at(3), s.telling(erasure("mara"))).await;
    s.acme.cancel(cancelled, at(4)).await.unwrap();
    for (n, id) in (5..).zip([first, second, last]) {
        s.confirm(id, n).await;
    }
    assert_eq!(s.at_the_bank(last).await, TaskState::Waiting, "the bank was not told of the first yet");
    s.completes(&[first, second, last]).await;
}

/// An access between the two that tells nobody.
pub async fn nobody_overtakes_where_the_one_between_has_no_task(t: &TestStore) {
    let s = Scene::new(t).await;
    let first = held_up_at_the_bank(t, &s).await;
    let between = s.acme.instruct(at(4), access("mara")).await;
    let last = s.acme.instruct(at(6), s.telling(erasure("mara"))).await;
    s.confirm(between, 7).await;
    s.confirm(last, 8).await;
    is_told_of_last(t, &s, first, last).await;
}

/// It was done before the third came.
pub async fn nobody_overtakes_where_the_one_between_is_done(t: &TestStore) {
    let s = Scene::new(t).await;
    let first = held_up_at_the_bank(t, &s).await;
    let between = s.acme.instruct(at(4), access("mara")).await;
    s.confirm(between, 5).await;
    assert_eq!(s.acme.state(between).await, RequestState::Completed);
    let another = s.acme.instruct(at(5), access("mara")).await;
    s.confirm(another, 6).await;
    let last = s.acme.instruct(at(7), s.telling(erasure("mara"))).await;
    s.confirm(last, 8).await;
    is_told_of_last(t, &s, first, last).await;
}

async fn held_up_at_the_bank(t: &TestStore, s: &Scene) -> RequestId {
    let first = s.acme.instruct(at(1), s.correction()).await;
    s.confirm(first, 2).await;
    let task = claim_one(t, &s.bank, at(2)).await;
    s.acme.report(&task, at(3), attention()).await;
    first
}

async fn is_told_of_last(t: &TestStore, s: &Scene, first: RequestId, last: RequestId) {
    assert_eq!(s.at_the_bank(last).await, TaskState::Waiting);
    assert!(claim(t, &s.bank, day(3)).await.is_none(), "the bank hears of the correction first");
    let given_up = confirmation(&s.bank, OutcomeKind::Unconfirmed);
    t.resolve_task(&s.acme.key(first, &s.bank), given_up, "operators/kim", at(9)).await.unwrap();
    assert_eq!(s.acme.confirm_next(&s.bank, at(10)).await, last);
    assert_eq!(s.acme.state(last).await, RequestState::Completed);
}

/// Systems were changed while the first waited for its customer: it is planned anew, and not for the bank.
pub async fn what_will_not_be_planned_is_not_waited_for(t: &TestStore) {
    let s = Scene::new(t).await;
    let first = s.acme.instruct(at(1), erasure("mara")).await;
    t.object_to_request(&s.acme.id, first, "operators/kim", "looks unlawful", at(2)).await.unwrap();
    register(t, "shop", &[Email], &[]).await;
    let last = s.acme.instruct(at(3), s.telling(erasure("mara"))).await;
    s.acme.authorise(first, at(4)).await.unwrap();
    s.acme.replan(at(5)).await;
    let shop = system_id("shop");
    for (n, id) in (6..).zip([first, last]) {
        s.confirm(id, n).await;
        assert_eq!(s.acme.confirm_next(&shop, at(n)).await, id);
    }
    s.completes(&[first, last]).await;
    assert_eq!(t.count("SELECT count(*) FROM task_waits").await, 0);
}

/// And so further back, behind one that is planned as of today.
pub async fn what_will_not_be_planned_is_not_waited_for_behind_another(t: &TestStore) {
    let s = Scene::new(t).await;
    let first = s.acme.instruct(at(1), erasure("mara")).await;
    t.object_to_request(&s.acme.id, first, "operators/kim", "looks unlawful", at(2)).await.unwrap();
    register(t, "shop", &[Email], &[]).await;
    let between = s.acme.instruct(at(3), access("mara")).await;
    let last = s.acme.instruct(at(4), s.telling(erasure("mara"))).await;
    s.acme.authorise(first, at(5)).await.unwrap();
    s.acme.replan(at(6)).await;
    work_off(&s.acme, &[s.crm.clone(), system_id("shop"), s.bank.clone()], at(7)).await;
    for id in [first, between, last] {
        assert_eq!(s.acme.state(id).await, RequestState::Completed);
    }
}

/// The second was done before the first, and kept its place; now nobody about the person is open.
pub async fn a_person_is_restricted_again_though_a_closed_request_has_kept_its_place(t: &TestStore) {
    let acme = customer(t, "acme").await;
    let crm = registered(t, with_backups("crm")).await;
    let s = Scene { bank: bank(t).await, acme, crm };
    let first = s.acme.instruct(at(1), s.telling(restriction("mara", NeededForLegalClaims))).await;
    s.confirm(first, 2).await;
    let second = s.acme.instruct(at(3), access("mara")).await;
    s.confirm(second, 4).await;
    let lease = matched(t, &asked(&s.crm, at(1)), &[(&s.acme, &[email("mara")])], at(5)).await;
    instruct(&s.acme, &lease, at(5)).await;
    let remains = async || t.replay_remains(lease.replay.id).await.unwrap();
    assert_eq!(remains().await, (1, 0), "the bank is not told yet");
    assert_eq!(s.acme.confirm_next(&s.bank, at(6)).await, first);
    assert_eq!(s.acme.state(first).await, RequestState::Completed);
    instruct(&s.acme, &lease, at(20)).await;
    assert_eq!(remains().await, (0, 1));
    let again = s.acme.confirm_next(&s.crm, at(21)).await;
    assert_eq!(s.acme.request(again).await.follow_up.unwrap().follows, first);
}

/// A completed request keeps its place only as long as it must.
pub async fn a_place_that_is_kept_is_given_up_when_it_is_forgotten(t: &TestStore) {
    let s = Scene::new(t).await;
    let first = s.acme.instruct(at(1), s.correction()).await;
    s.confirm(first, 2).await;
    let between = s.acme.instruct(at(4), access("mara")).await;
    s.confirm(between, 5).await;
    assert_eq!(t.count("SELECT count(*) FROM subject_lines").await, 1);
    let last = s.acme.instruct(at(6), s.telling(erasure("mara"))).await;
    s.completes(&[first, last]).await;
    assert_eq!(t.count("SELECT count(*) FROM subject_heads").await, 0);
    assert!(t.count("SELECT count(*) FROM subject_lines").await <= 1);
    rotate(t, day(100)).await;
    assert_eq!(t.count("SELECT count(*) FROM subject_lines").await, 0);
}
