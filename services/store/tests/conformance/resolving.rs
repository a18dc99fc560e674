//! Identifiers that one system yields for another: found first, handed on sealed, and the yielding system acts last in an erasure.

use quittance_domain::{
    action::Action,
    identifier::Identifier,
    ids::SystemId,
    plan::Until,
    request::RequestState,
    task::{TaskState, Work},
};
use quittance_store::ReportResult;

use crate::{harness::TestStore, world::*};

struct World {
    acme: Customer,
    crm: quittance_domain::ids::SystemId,
    shop: quittance_domain::ids::SystemId,
}

/// `crm` finds a person by email and yields the user id that `shop` is keyed by.
async fn world(t: &TestStore) -> World {
    let acme = customer(t, "acme").await;
    let crm = register(t, "crm", &[Email], &[UserId]).await;
    World { acme, crm, shop: register(t, "shop", &[UserId], &[]).await }
}

pub async fn what_a_system_yields_reaches_those_that_wait_for_it(t: &TestStore) {
    let World { acme, crm, shop } = world(t).await;
    let id = acme.instruct(at(1), access("mara")).await;
    assert_eq!(acme.task_state(id, &shop).await, TaskState::Waiting);
    assert!(claim(t, &shop, at(2)).await.is_none());
    let batch = claim(t, &crm, at(2)).await.unwrap();
    assert_eq!((batch.work, batch.tasks.len()), (Work::Resolve, 1));
    let found = vec![user("U-7"), user("u-7"), user("U-7"), email("mara")];
    assert!(acme.report(&batch.tasks[0], at(3), ReportResult::Resolved(found)).await.is_empty());
    for system in [&shop, &crm] {
        let batch = claim(t, system, at(4)).await.unwrap();
        assert_eq!(batch.work, Work::Act);
        let known: Vec<Identifier> = batch.tasks[0].subject.identifiers.clone();
        assert_eq!(
            known,
            [email("mara"), user("U-7"), user("u-7")],
            "each once, and in the order in which they were found"
        );
        acme.report(&batch.tasks[0], at(5), done(system)).await;
    }
    assert_eq!(acme.state(id).await, RequestState::Completed);
}

/// For what another system yields, for another system's end, or for an earlier request of the same customer's; and for nothing of the past.
pub async fn what_waits_says_what_for(t: &TestStore) {
    let World { acme, crm, shop } = world(t).await;
    let first = acme.instruct(at(1), erasure("mara")).await;
    let second = acme.instruct(at(2), erasure("mara")).await;
    let bolt = customer(t, "bolt").await;
    let theirs = bolt.instruct(at(2), erasure("mara")).await;
    let waits = async |customer: &Customer, id| {
        let waits = t.task_waits(&customer.id, id).await.unwrap();
        waits
            .into_iter()
            .map(|w| (w.system.to_string(), w.on_request, w.on_system.to_string(), w.until))
            .collect::<Vec<_>>()
    };
    let (resolved, confirmed) = (Until::Resolved, Until::Confirmed);
    let wait = |system: &SystemId, request, on: &SystemId, until| (system.to_string(), request, on.to_string(), until);
    assert_eq!(waits(&acme, first).await, [wait(&shop, first, &crm, resolved)]);
    assert_eq!(waits(&bolt, theirs).await, [wait(&shop, theirs, &crm, resolved)]);
    let of_second =
        [wait(&crm, first, &crm, confirmed), wait(&shop, first, &shop, confirmed), wait(&shop, second, &crm, resolved)];
    assert_eq!(waits(&acme, second).await, of_second);
    assert!(waits(&bolt, second).await.is_empty(), "it is another customer's");
    bolt.cancel(theirs, at(3)).await.unwrap();

    let task = claim(t, &crm, at(3)).await.unwrap().tasks.into_iter().find(|task| task.key.request == first).unwrap();
    acme.report(&task, at(4), ReportResult::Resolved(vec![user("U-7")])).await;
    assert_eq!(
        waits(&acme, first).await,
        [wait(&crm, first, &shop, confirmed)],
        "what it waits for is what it does next"
    );
    acme.confirm_next(&shop, at(5)).await;
    acme.confirm_next(&crm, at(6)).await;
    assert!(waits(&acme, first).await.is_empty());
    assert_eq!(waits(&acme, second).await, [wait(&shop, second, &crm, resolved)]);
    // The customer's word is no system's.
    t.object_to_request(&acme.id, second, "operators/kim", "looks unlawful", at(7)).await.unwrap();
    assert_eq!(waits(&acme, second).await, [wait(&shop, second, &crm, resolved)]);
}

pub async fn in_an_erasure_the_yielding_system_acts_last(t: &TestStore) {
    let World { acme, crm, shop } = world(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let batch = claim(t, &crm, at(2)).await.unwrap();
    assert_eq!(batch.work, Work::Resolve);
    acme.report(&batch.tasks[0], at(3), ReportResult::Resolved(vec![user("U-7")])).await;
    let row = acme.task(id, &crm).await;
    assert_eq!((row.state, row.attempts), (TaskState::Waiting, 0));
    assert!(claim(t, &crm, at(4)).await.is_none(), "erased now, a crash would leave the shop's rows unfindable");
    assert_eq!(acme.confirm_next(&shop, at(5)).await, id);
    let batch = claim(t, &crm, at(6)).await.unwrap();
    assert_eq!((batch.work, batch.tasks[0].lease), (Work::Act, 2));
    acme.report(&batch.tasks[0], at(7), done(&crm)).await;
    assert_eq!(acme.state(id).await, RequestState::Completed);
}

/// Nothing found is an answer too.
pub async fn who_waits_goes_on_when_nothing_was_found(t: &TestStore) {
    let World { acme, crm, shop } = world(t).await;
    acme.instruct(at(1), access("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    acme.report(&task, at(3), ReportResult::Resolved(Vec::new())).await;
    assert_eq!(claim_one(t, &shop, at(4)).await.subject.identifiers, [email("mara")]);
}

pub async fn a_task_that_was_asked_to_resolve_is_not_confirmed_by_it(t: &TestStore) {
    let World { acme, crm, shop } = world(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    assert_eq!(acme.report(&task, at(3), done(&crm)).await, [id], "it was not asked to act");
    assert_eq!(t.count("SELECT count(*) FROM confirmations").await, 0);
    acme.report(&task, at(3), ReportResult::Resolved(vec![user("U-7")])).await;
    // And the other way round.
    let task = claim_one(t, &shop, at(4)).await;
    assert_eq!(acme.report(&task, at(5), ReportResult::Resolved(vec![user("U-8")])).await, [id]);
    assert!(acme.report(&task, at(5), done(&shop)).await.is_empty());
}

pub async fn a_resolve_is_tried_again_as_one(t: &TestStore) {
    let World { acme, crm, shop } = world(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    acme.report(&task, at(3), ReportResult::Retry { at: at(30), reason: "BUSY".to_owned() }).await;
    let batch = claim(t, &crm, at(30)).await.unwrap();
    assert_eq!((batch.work, batch.tasks[0].attempts), (Work::Resolve, 2));
    acme.report(&batch.tasks[0], at(31), attention()).await;
    t.retry_task(&acme.key(id, &crm), "operators/kim", at(32), &as_is).await.unwrap();
    let batch = claim(t, &crm, at(33)).await.unwrap();
    assert_eq!(batch.work, Work::Resolve);
    acme.report(&batch.tasks[0], at(34), ReportResult::Resolved(vec![user("U-7")])).await;
    assert_eq!(acme.confirm_next(&shop, at(35)).await, id);
}

/// An operator who ends the yielding system's task ends the waiting for it as well.
pub async fn giving_up_the_yielding_system_strands_nobody(t: &TestStore) {
    let World { acme, crm, shop } = world(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    acme.report(&task, at(3), attention()).await;
    let given_up = confirmation(&crm, quittance_domain::outcome::OutcomeKind::Unconfirmed);
    t.resolve_task(&acme.key(id, &crm), given_up, "operators/kim", at(4)).await.unwrap();
    assert_eq!(acme.confirm_next(&shop, at(5)).await, id);
    assert_eq!(acme.state(id).await, RequestState::CompletedWithExceptions);
}

/// Three in a row: the directory is keyed by what the shop yields.
pub async fn yields_chain(t: &TestStore) {
    let World { acme, crm, shop: _ } = world(t).await;
    let desk = register(t, "desk", &[UserId], &[Phone]).await;
    let pbx = register(t, "pbx", &[Phone], &[]).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let phone = Identifier::normalise(Phone, "+46 70-123 45 67").unwrap();
    for (system, found) in [(&crm, user("U-7")), (&desk, phone.clone())] {
        assert_eq!(acme.task_state(id, &pbx).await, TaskState::Waiting);
        let batch = claim(t, system, at(3)).await.unwrap();
        assert_eq!(batch.work, Work::Resolve, "{system}");
        acme.report(&batch.tasks[0], at(3), ReportResult::Resolved(vec![found])).await;
    }
    let task = claim_one(t, &pbx, at(4)).await;
    assert!(task.subject.identifiers.contains(&phone));
    // What systems yielded is not what the customer named, and not under the commitment.
    assert_eq!(task.subject.instructed(), [email("mara")]);
    acme.report(&task, at(5), done(&pbx)).await;
    let systems: Vec<_> = t.topology().await.unwrap().systems.iter().map(|s| s.id.clone()).collect();
    let order = work_off(&acme, &systems, at(6)).await;
    assert_eq!(order.last().unwrap().0, crm, "the root of all others goes last");
    assert_eq!(acme.state(id).await, RequestState::Completed);
}

/// Two systems that yield for one request at the same moment: neither's find is lost.
pub async fn finds_that_come_at_once_are_all_kept(t: &TestStore) {
    let acme = customer(t, "acme").await;
    let systems = [
        register(t, "crm", &[Email], &[UserId]).await,
        register(t, "mail", &[Email], &[UserId]).await,
        register(t, "desk", &[Email], &[UserId]).await,
    ];
    let shop = register(t, "shop", &[UserId], &[]).await;
    for round in 0..10 {
        acme.instruct(at(1), intake(Action::Access, &[email(&format!("p{round}"))])).await;
        let mut reporters = tokio::task::JoinSet::new();
        for system in &systems {
            let task = claim_one(t, system, at(2)).await;
            let acme = acme.clone();
            // Now and then nothing is found: that ends the waiting just as well.
            let found = if round < 5 { vec![user(&format!("{system}-{round}"))] } else { Vec::new() };
            reporters.spawn(async move { acme.report(&task, at(3), ReportResult::Resolved(found)).await });
        }
        while let Some(lost) = reporters.join_next().await {
            assert!(lost.unwrap().is_empty());
        }
        let task = claim_one(t, &shop, at(4)).await;
        assert_eq!(task.subject.identifiers.len(), if round < 5 { 4 } else { 1 }, "round {round}");
        acme.report(&task, at(5), done(&shop)).await;
        for system in &systems {
            acme.confirm_next(system, at(6)).await;
        }
    }
    assert_eq!(t.count("SELECT count(*) FROM requests WHERE state = 'COMPLETED'").await, 10);
    assert_eq!(t.count("SELECT count(*) FROM task_waits").await, 0);
}
