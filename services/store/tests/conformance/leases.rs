//! Leases: one worker at a time, and none that has lost its lease writes anything (I4).

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use quittance_domain::{
    action::Action,
    ids::{CustomerId, RequestId},
    task::TaskState,
};
use quittance_store::{LeaseQuery, LeasedTask, Report, ReportResult};
use tokio::task::JoinSet;

use crate::{harness::TestStore, world::*};

pub async fn workers_that_claim_at_once_never_get_the_same_task(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let ids = acme.instruct_all(at(1), (0..120).map(|n| erasure(&format!("p{n}"))).collect()).await;
    let mut workers = JoinSet::new();
    for n in 0..12_u32 {
        let (store, crm) = ((**t).clone(), crm.clone());
        workers.spawn(async move {
            let mut claimed: Vec<RequestId> = Vec::new();
            while let Some(batch) = claim_at(&store, &crm, at(2), 1 + n % 7).await {
                assert!(batch.tasks.iter().all(|task| task.lease == 1 && task.attempts == 1));
                claimed.extend(batch.tasks.iter().map(|task| task.key.request));
            }
            claimed
        });
    }
    let mut claimed = Vec::new();
    while let Some(worker) = workers.join_next().await {
        claimed.extend(worker.unwrap());
    }
    assert_eq!(claimed.len(), 120);
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), ids.into_iter().collect());
}

pub async fn a_claim_is_of_one_customer_system_and_action(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    let bolt = customer(t, "bolt").await;
    for someone in [&acme, &bolt] {
        let people = (0..3).flat_map(|n| [erasure(&format!("e{n}")), access(&format!("a{n}"))]);
        someone.instruct_all(at(1), people.collect()).await;
    }
    let mut batches = HashSet::new();
    for ready in t.ready_work(at(1), &[crm.clone(), shop.clone()]).await.unwrap() {
        let query = LeaseQuery { worker: "worker", now: at(1), expires_at: at(60), tasks_max: 100 };
        let batch = t.lease(&ready, &query).await.unwrap();
        assert_eq!(batch.tasks.len(), 3);
        for task in &batch.tasks {
            assert_eq!((&task.key.customer, &task.key.system), (&batch.customer, &batch.system));
        }
        for task in &batch.tasks {
            let someone = if task.key.customer == acme.id { &acme } else { &bolt };
            assert_eq!(someone.request(task.key.request).await.action, batch.action);
        }
        batches.insert((batch.customer.to_string(), batch.system.to_string(), batch.action));
    }
    assert_eq!(batches.len(), 8, "2 customers, 2 systems, 2 actions");
}

pub async fn a_claim_opens_what_the_work_needs(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let mut sent = intake(Action::Rectification, &[email("mara"), user("U-7")]);
    sent.request.controller_due_at = Some(day(2));
    let id = acme.instruct(at(1), sent.clone()).await;
    let task = claim_one(t, &crm, at(2)).await;
    assert_eq!(task.key, acme.key(id, &crm));
    assert_eq!(task.subject.identifiers, sent.request.identifiers);
    assert!(task.subject.corrections == sent.request.corrections);
    assert_eq!((task.due_at, task.match_set.as_deref(), task.reason.as_str()), (day(2), None, ""));
    let row = acme.task(id, &crm).await;
    assert_eq!((row.state, row.attempts, row.run_at), (TaskState::Running, 1, at(2 + LEASE_S)));
}

pub async fn a_lease_that_passed_is_taken_over_under_a_higher_number(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let mut before = 0;
    for n in 0..4 {
        let now = at(10 + n * LEASE_S);
        let task = claim_one(t, &crm, now).await;
        assert_eq!(task.key.request, id);
        assert!(task.lease > before);
        before = task.lease;
        let last_moment = now.checked_add(std::time::Duration::from_micros(59_999_999)).unwrap();
        assert!(claim(t, &crm, last_moment).await.is_none(), "it is somebody's");
    }
    assert_eq!(acme.task(id, &crm).await.attempts, 4);
}

pub async fn a_report_under_an_old_lease_records_nothing(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let old = claim_one(t, &crm, at(2)).await;
    let new = claim_one(t, &crm, at(2 + LEASE_S)).await;
    let before = acme.task(id, &crm).await;
    let entries = t.count("SELECT count(*) FROM ledger_entries").await;
    let now = at(3 + LEASE_S);
    for result in results(&crm) {
        assert_eq!(acme.report(&old, now, result).await, [id]);
    }
    let after = acme.task(id, &crm).await;
    assert_eq!((after.state, after.run_at, after.reason), (TaskState::Running, before.run_at, before.reason));
    assert_eq!(t.count("SELECT count(*) FROM ledger_entries").await, entries);
    assert_eq!(t.count("SELECT count(*) FROM confirmations").await, 0);
    assert!(acme.report(&new, now, done(&crm)).await.is_empty());
}

pub async fn a_report_after_its_lease_passed_records_nothing(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    // Nobody has taken it over; but somebody may at this moment.
    for result in results(&crm) {
        assert_eq!(acme.report(&task, at(2 + LEASE_S), result).await, [id]);
    }
    assert_eq!(acme.task_state(id, &crm).await, TaskState::Running);
    assert_eq!(t.count("SELECT count(*) FROM confirmations").await, 0);
    assert_eq!(claim_one(t, &crm, at(2 + LEASE_S)).await.key.request, id);
}

fn results(system: &quittance_domain::ids::SystemId) -> Vec<ReportResult> {
    vec![
        done(system),
        ReportResult::Resolved(vec![user("U-1")]),
        ReportResult::Awaiting { check_at: at(500), reference: "ticket 9".to_owned() },
        ReportResult::Retry { at: at(500), reason: "BUSY".to_owned() },
        attention(),
    ]
}

pub async fn a_report_of_a_task_that_was_never_leased_is_lost(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let nowhere = RequestId::new(uuid::Uuid::now_v7());
    for (request, lease) in [(id, 0), (id, 1), (nowhere, 1)] {
        let report = Report { request, lease, result: done(&crm) };
        assert_eq!(t.report(&acme.id, &crm, || at(2), &[report]).await.unwrap(), [request]);
    }
    assert_eq!(acme.task_state(id, &crm).await, TaskState::Pending);
}

pub async fn a_heartbeat_keeps_a_lease(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let ids = acme.instruct_all(at(1), vec![erasure("mara"), erasure("noor")]).await;
    let batch = claim(t, &crm, at(2)).await.unwrap();
    let kept = &batch.tasks[0];
    let lease = [(kept.key.request, kept.lease)];
    assert!(t.extend_leases(&acme.id, &crm, &lease, at(50), at(200)).await.unwrap().is_empty());
    // Only the other one is taken over.
    let taken = claim_one(t, &crm, at(100)).await;
    assert_eq!(taken.key.request, ids[1]);
    assert!(acme.report(kept, at(199), done(&crm)).await.is_empty());
}

pub async fn a_heartbeat_does_not_bring_a_lost_lease_back(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let ids = acme.instruct_all(at(1), (0..4).map(|n| erasure(&format!("p{n}"))).collect()).await;
    let batch = claim(t, &crm, at(2)).await.unwrap();
    assert!(acme.report(&batch.tasks[0], at(3), done(&crm)).await.is_empty());
    let nowhere = RequestId::new(uuid::Uuid::now_v7());
    let mut leases: Vec<_> = batch.tasks.iter().map(|task| (task.key.request, task.lease)).collect();
    leases[1].1 += 1;
    leases.push((nowhere, 1));
    let lost = t.extend_leases(&acme.id, &crm, &leases, at(10), at(100)).await.unwrap();
    assert_eq!(lost, [ids[0], ids[1], nowhere], "a confirmed one, one under another lease, one that is not");
    // The moment of expiry is too late.
    let leases = [(ids[2], batch.tasks[2].lease), (ids[3], batch.tasks[3].lease)];
    let lost = t.extend_leases(&acme.id, &crm, &leases, at(100), at(200)).await.unwrap();
    assert_eq!(lost, [ids[2], ids[3]]);
    assert_eq!(claim(t, &crm, at(100)).await.unwrap().tasks.len(), 3);
}

pub async fn what_is_handed_back_is_due_at_once(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    assert!(t.ready_work(at(2), std::slice::from_ref(&crm)).await.unwrap().is_empty());
    acme.report(&task, at(3), ReportResult::Retry { at: at(3), reason: "HANDED_BACK".to_owned() }).await;
    let again = claim_one(t, &crm, at(3)).await;
    assert_eq!((again.key.request, again.lease, again.reason.as_str()), (id, task.lease + 1, "HANDED_BACK"));
}

pub async fn a_retry_is_not_due_before_its_time(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let awaiting = ReportResult::Awaiting { check_at: at(500), reference: "ticket 9".to_owned() };
    for (n, result) in
        [ReportResult::Retry { at: at(500), reason: "BUSY".to_owned() }, awaiting].into_iter().enumerate()
    {
        let id = acme.instruct(at(1), erasure(&format!("p{n}"))).await;
        let task = claim_one(t, &crm, at(2)).await;
        acme.report(&task, at(3), result).await;
        for too_early in [at(3), at(100), at(499)] {
            assert!(claim(t, &crm, too_early).await.is_none());
        }
        assert_eq!(t.next_ready().await.unwrap(), Some(at(500)));
        let task = claim_one(t, &crm, at(500)).await;
        assert_eq!(task.key.request, id);
        acme.report(&task, at(501), done(&crm)).await;
    }
    assert!(claim(t, &crm, at(1000)).await.is_none());
    assert_eq!(t.next_ready().await.unwrap(), None, "of what is finished, no hint stays");
}

pub async fn the_longest_due_is_claimed_first(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(acme.instruct(at(n), erasure(&format!("p{n}"))).await);
    }
    for expected in ids.chunks(2) {
        let batch = claim_at(t, &crm, at(10), 2).await.unwrap();
        assert_eq!(batch.tasks.iter().map(|task| task.key.request).collect::<Vec<_>>(), expected);
    }
}

/// Or customers with a great many requests would fill every scan of what is due.
pub async fn who_was_served_goes_behind_who_waits(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let bolt = customer(t, "bolt").await;
    acme.instruct_all(at(1), (0..6).map(|n| erasure(&format!("p{n}"))).collect()).await;
    bolt.instruct(at(5), erasure("mara")).await;
    let order = async || -> Vec<CustomerId> {
        let due = t.ready_work(at(10), std::slice::from_ref(&crm)).await.unwrap();
        due.into_iter().map(|work| work.customer).collect()
    };
    assert_eq!(order().await, [acme.id.clone(), bolt.id.clone()]);
    assert_eq!(claim_at(t, &crm, at(10), 2).await.unwrap().customer, acme.id);
    assert_eq!(order().await, [bolt.id.clone(), acme.id.clone()]);
    assert_eq!(claim_at(t, &crm, at(10), 2).await.unwrap().customer, bolt.id);
    assert_eq!(claim_at(t, &crm, at(10), 2).await.unwrap().customer, acme.id);
}

pub async fn a_system_where_hundreds_wait_hides_no_other(t: &TestStore) {
    let crm = register(t, "crm", &[Email], &[]).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    t.change(
        "INSERT INTO ready (customer_id, system_id, action, work, ready_us, bumps)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
         SELECT 'c' || i, CASE WHEN i < 600 THEN 'crm' ELSE 'shop' END, 'ERASURE', 'ACT', i, 1 FROM n",
    )
    .await;
    let due = t.ready_work(at(1), &[crm.clone(), shop.clone()]).await.unwrap();
    assert_eq!(due[0].customer.as_str(), "c1", "longest waiting first");
    assert_eq!(due.iter().filter(|work| work.system == shop).count(), 1);
    assert!(due.len() < 599, "a system gives no more than a page");
    assert!(t.ready_work(at(1), &[]).await.unwrap().is_empty());
}

pub async fn a_claim_finds_what_another_has_left(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    acme.instruct_all(at(1), (0..10).map(|n| erasure(&format!("p{n}"))).collect()).await;
    let sizes: Vec<usize> = {
        let mut sizes = Vec::new();
        while let Some(batch) = claim_at(t, &crm, at(1), 4).await {
            sizes.push(batch.tasks.len());
        }
        sizes
    };
    assert_eq!(sizes, [4, 4, 2]);
    // All are leased: the hint names the moment at which the first lease passes.
    assert_eq!(t.next_ready().await.unwrap(), Some(at(1 + LEASE_S)));
}

/// A claim that saw nothing removes the hint that it followed, but not one that was renewed meanwhile.
pub async fn a_hint_survives_a_claim_that_did_not_see_its_work(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    acme.report(&task, at(3), attention()).await;
    let hint = t.ready_work(at(100), std::slice::from_ref(&crm)).await.unwrap().remove(0);
    // As whoever makes work due does it, and holds before its commit.
    let mut other = t.raw().await;
    let us = at(100).as_microsecond();
    let due = format!(
        "UPDATE tasks SET state = 'PENDING', run_at_us = {us}; UPDATE ready SET bumps = bumps + 1, ready_us = {us}"
    );
    other.execute_script(&due).await.unwrap();
    let claimer = {
        let store = (**t).clone();
        tokio::spawn(async move {
            let query = LeaseQuery { worker: "worker", now: at(100), expires_at: at(160), tasks_max: 10 };
            store.lease(&hint, &query).await.map(|batch| batch.tasks.len())
        })
    };
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + Duration::from_secs(20);
    while t.count(waiting).await == 0 {
        assert!(Instant::now() < deadline, "the claim does not get to the hint");
    }
    other.commit().await.unwrap();
    assert_eq!(claimer.await.unwrap().unwrap(), 0, "it had looked before");
    assert_eq!(claim_one(t, &crm, at(100)).await.key.request, id);
}

pub async fn a_match_set_is_stored_under_a_living_lease_only(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let old = claim_one(t, &crm, at(2)).await;
    assert_eq!(save(t, &old, at(2 + LEASE_S), b"late").await, [id], "its lease has passed");
    let new = claim_one(t, &crm, at(2 + LEASE_S)).await;
    assert_eq!(new.match_set, None);
    assert!(save(t, &new, at(70), b"rows 1, 2").await.is_empty());
    assert_eq!(save(t, &old, at(71), b"overwritten").await, [id], "somebody else has it");
    let remote = vec![(id, old.lease, b"overwritten".to_vec())];
    assert_eq!(t.save_remote_match_sets(&acme.id, &crm, at(72), remote).await.unwrap(), [id]);
    let next = claim_one(t, &crm, at(2 + 2 * LEASE_S)).await;
    assert_eq!(next.match_set.as_deref(), Some(b"rows 1, 2".as_slice()));
}

/// PostgreSQL: the lease has passed, somebody else takes the task, and at the same moment its former holder stores what it found. It may
/// not go on: the new holder has not seen it, would find nothing where it acted, and say that nothing was held (I4).
pub async fn a_match_set_is_not_stored_past_a_claim_that_is_under_way(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let old = claim_one(t, &crm, at(2)).await;
    // As a claim does it, by a clock that is ahead, and holds before its commit.
    let mut claim = t.raw().await;
    claim.execute_script("UPDATE tasks SET lease = lease + 1, attempts = attempts + 1").await.unwrap();
    let saved = {
        let (store, crm) = ((**t).clone(), crm.clone());
        tokio::spawn(async move { store.save_match_sets(&crm, at(3), &[(&old, b"rows 1, 2".to_vec())]).await })
    };
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + Duration::from_secs(5);
    while t.count(waiting).await == 0 && !saved.is_finished() {
        assert!(Instant::now() < deadline, "the match set does not get to the task");
    }
    claim.commit().await.unwrap();
    assert_eq!(saved.await.unwrap().unwrap(), [id], "somebody else has it");
    assert_eq!(t.count("SELECT count(*) FROM match_sets").await, 0);
}

/// PostgreSQL: a claim that began before the former holder stored its match set, and came to the task after, hands it on.
pub async fn a_match_set_that_is_stored_while_a_claim_runs_is_handed_on(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let old = claim_one(t, &crm, at(2)).await;
    // The claim looks at due tasks through a gate that is closed: it has begun, and has not come to the task.
    let superuser = t.superuser_pool().expect("the engine is PostgreSQL");
    let gate = "CREATE FUNCTION gate() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                  IF current_query() LIKE '%SKIP LOCKED%' THEN PERFORM pg_advisory_xact_lock_shared(1); END IF;
                  RETURN true;
                END $$;
                CREATE POLICY gate ON tasks AS RESTRICTIVE USING (gate());
                SELECT pg_advisory_lock(1)";
    superuser.run_script(gate).await.unwrap();
    let claimer = {
        let (store, crm) = ((**t).clone(), crm.clone());
        tokio::spawn(async move { claim(&store, &crm, at(2 + LEASE_S)).await })
    };
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
    let deadline = Instant::now() + Duration::from_secs(20);
    while t.count(waiting).await == 0 {
        assert!(Instant::now() < deadline, "the claim does not come to the gate");
    }
    assert!(save(t, &old, at(3), b"rows 1, 2").await.is_empty());
    superuser.run_script("SELECT pg_advisory_unlock(1)").await.unwrap();
    let batch = claimer.await.unwrap().unwrap();
    superuser.run_script("DROP POLICY gate ON tasks; DROP FUNCTION gate()").await.unwrap();
    assert_eq!((batch.tasks[0].key.request, batch.tasks[0].lease), (id, 2));
    assert_eq!(batch.tasks[0].match_set.as_deref(), Some(b"rows 1, 2".as_slice()));
}

/// A crash between finding and acting: the rerun works from what the first attempt found.
pub async fn a_match_set_survives_into_the_next_lease(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    let ids = acme.instruct_all(at(1), vec![erasure("mara"), erasure("noor")]).await;
    let batch = claim(t, &crm, at(2)).await.unwrap();
    let sets: Vec<(&LeasedTask, Vec<u8>)> =
        batch.tasks.iter().enumerate().map(|(n, task)| (task, format!("rows of {n}").into_bytes())).collect();
    assert!(t.save_match_sets(&crm, at(3), &sets).await.unwrap().is_empty());
    assert!(save(t, &batch.tasks[1], at(4), b"rows of 1, found again").await.is_empty());
    for (task, expected) in
        claim(t, &crm, at(100)).await.unwrap().tasks.iter().zip(["rows of 0", "rows of 1, found again"])
    {
        assert_eq!(task.match_set.as_deref(), Some(expected.as_bytes()));
    }
    // It is this system's alone.
    assert!(claim(t, &shop, at(100)).await.unwrap().tasks.iter().all(|task| task.match_set.is_none()));
    let remote = vec![(ids[0], 2, b"from elsewhere".to_vec()), (RequestId::new(uuid::Uuid::nil()), 2, Vec::new())];
    let lost = t.save_remote_match_sets(&acme.id, &crm, at(101), remote).await.unwrap();
    assert_eq!(lost, [RequestId::new(uuid::Uuid::nil())]);
    let next = claim(t, &crm, at(200)).await.unwrap();
    assert_eq!(next.tasks[0].match_set.as_deref(), Some(b"from elsewhere".as_slice()));
}

/// Nothing is read of it, and nobody could tell that it was looked at.
pub async fn what_does_not_fit_into_an_answer_stays_as_it_is(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let ids = acme.instruct_all(at(1), vec![erasure("mara"), erasure("noor"), erasure("lea")]).await;
    let batch = claim(t, &crm, at(2)).await.unwrap();
    for task in &batch.tasks {
        assert!(save(t, task, at(3), &[7; 4000]).await.is_empty());
        let check_at = at(10);
        acme.report(task, at(4), ReportResult::Awaiting { check_at, reference: "job 7".to_owned() }).await;
    }
    let query = LeaseQuery { worker: "worker", now: at(20), expires_at: at(80), tasks_max: 100 };
    let within = async |bytes: usize| {
        let ready = t.ready_work(at(20), std::slice::from_ref(&crm)).await.unwrap();
        let batch = t.lease_within(&ready[0], &query, bytes).await.unwrap();
        assert!(batch.tasks.iter().all(|task| task.match_set.as_deref() == Some(&[7; 4000])));
        batch.tasks.into_iter().map(|task| task.key.request).collect::<Vec<_>>()
    };
    // One is larger than the answer, and goes alone; then two fit, and what is left is still due.
    let first = within(1000).await;
    assert_eq!(first.len(), 1);
    for id in ids.iter().filter(|id| **id != first[0]) {
        let task = acme.task(*id, &crm).await;
        assert_eq!((task.state, task.attempts, task.run_at), (TaskState::AwaitingConfirmation, 1, at(10)));
        assert_eq!(task.reason, "job 7");
    }
    let second = within(10_000).await;
    assert_eq!(second.len(), 2, "all that is due, and nothing that is leased");
    assert!(t.ready_work(at(20), std::slice::from_ref(&crm)).await.unwrap().is_empty());
}

async fn save(t: &TestStore, task: &LeasedTask, now: quittance_domain::Timestamp, rows: &[u8]) -> Vec<RequestId> {
    t.save_match_sets(&task.key.system, now, &[(task, rows.to_vec())]).await.unwrap()
}

pub async fn a_task_is_confirmed_once(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    assert!(acme.report(&task, at(3), done(&crm)).await.is_empty());
    for again in [done(&crm), unconfirmed(&crm), attention()] {
        assert_eq!(acme.report(&task, at(4), again).await, [id]);
    }
    assert_eq!(t.count("SELECT count(*) FROM confirmations").await, 1);
    assert_eq!(t.count("SELECT count(*) FROM ledger_entries WHERE kind = 'confirmed'").await, 1);
    assert_eq!(t.count("SELECT open_tasks FROM requests").await, 0);
}

/// A remote worker may well send it so.
pub async fn a_task_that_stands_twice_in_a_report_is_confirmed_once(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    register(t, "shop", &[Email], &[]).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    let report = Report { request: id, lease: task.lease, result: unconfirmed(&crm) };
    let lost = t.report(&acme.id, &crm, || at(3), &[report.clone(), report]).await.unwrap();
    assert_eq!(lost, [id]);
    assert_eq!(t.count("SELECT count(*) FROM confirmations").await, 1);
    assert_eq!(t.count("SELECT open_tasks FROM requests").await, 1);
    assert_eq!(t.count("SELECT exceptions FROM requests").await, 1);
}

pub async fn a_match_set_sent_twice_at_once_is_stored_once(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    let set = |rows: &[u8]| (id, task.lease, rows.to_vec());
    let sets = vec![set(b"rows 1"), set(b"rows 1, 2")];
    assert!(t.save_remote_match_sets(&acme.id, &crm, at(3), sets).await.unwrap().is_empty());
    let next = claim_one(t, &crm, at(100)).await;
    assert_eq!(next.match_set.as_deref(), Some(b"rows 1, 2".as_slice()), "the last one stands");
}

/// Workers of the former and of the present lease, and all of them at once: one is heard.
pub async fn of_reports_that_race_one_is_recorded(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    let ids = acme.instruct_all(at(1), (0..8).map(|n| erasure(&format!("p{n}"))).collect()).await;
    let old = claim(t, &crm, at(2)).await.unwrap();
    let new = claim(t, &crm, at(2 + LEASE_S)).await.unwrap();
    let elsewhere = claim(t, &shop, at(2 + LEASE_S)).await.unwrap();
    let mut workers = JoinSet::new();
    for (system, batch) in [(&crm, &old), (&crm, &new), (&crm, &new), (&shop, &elsewhere), (&shop, &elsewhere)] {
        let reports: Vec<Report> = batch
            .tasks
            .iter()
            .map(|task| Report { request: task.key.request, lease: task.lease, result: done(system) })
            .collect();
        let (acme, system) = (acme.clone(), system.clone());
        workers.spawn(async move {
            let lost = again!(acme.store.report(&acme.id, &system, || at(70), &reports)).unwrap();
            (system, lost.len())
        });
    }
    let mut lost: HashMap<_, usize> = HashMap::new();
    while let Some(worker) = workers.join_next().await {
        let (system, count) = worker.unwrap();
        *lost.entry(system).or_default() += count;
    }
    assert_eq!((lost[&crm], lost[&shop]), (16, 8));
    assert_eq!(t.count("SELECT count(*) FROM confirmations").await, 16);
    assert_eq!(t.count("SELECT count(*) FROM ledger_entries WHERE kind = 'confirmed'").await, 16);
    assert_eq!(t.count("SELECT count(*) FROM ledger_entries WHERE kind = 'completed'").await, 8);
    assert_eq!(t.count("SELECT count(*) FROM requests WHERE state = 'COMPLETED' AND open_tasks = 0").await, 8);
    assert_eq!(ids.len(), 8);
}
