//! Reading: pages, filters, cursors; and values that come back as they went in, on both engines alike.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use quittance_domain::{
    Timestamp,
    action::{Action, InstructionKind, RestrictionGround},
    identifier::IdentifierKind::Email,
    ids::RequestId,
    request::RequestState,
};
use quittance_store::{ChangeCursor, Intake, RequestFilter};
use tokio::time::{sleep, timeout};

use crate::{harness::TestStore, world::*};

async fn list(acme: &Customer, filter: &RequestFilter) -> Vec<RequestId> {
    let rows = acme.store.list_requests(&acme.id, filter, None, 1000).await.unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

pub async fn pages_run_from_the_newest_to_the_oldest(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let people = (0..25).map(|n| erasure(&format!("p{n}"))).collect();
    let mut expected = acme.instruct_all(at(1), people).await;
    expected.reverse();
    let mut seen = Vec::new();
    loop {
        let before = seen.last().copied();
        let page = t.list_requests(&acme.id, &RequestFilter::default(), before, 10).await.unwrap();
        assert!(page.len() <= 10);
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|row| row.id));
        // What comes in meanwhile is newer than every page that is still to come.
        acme.instruct(at(2), erasure(&format!("late{}", seen.len()))).await;
    }
    assert_eq!(seen, expected);
}

pub async fn filters_hold_together(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let mut soon = access("soon");
    soon.request.controller_due_at = Some(day(2));
    soon.request.reference = "ticket 1".to_owned();
    let soon = acme.instruct(at(1), soon).await;
    let mut stuck = erasure("stuck");
    stuck.request.reference = "ticket 1".to_owned();
    let stuck = acme.instruct(at(1), stuck).await;
    let closed = {
        let mut closed = access("closed");
        closed.request.controller_due_at = Some(day(2));
        let id = acme.instruct(at(1), closed).await;
        acme.cancel(id, at(2)).await.unwrap();
        id
    };
    let ready = t.ready_work(at(2), std::slice::from_ref(&crm)).await.unwrap();
    let ready = ready.iter().find(|r| r.action == Action::Erasure).unwrap();
    let query = quittance_store::LeaseQuery { worker: "w", now: at(2), expires_at: at(60), tasks_max: 1 };
    let task = t.lease(ready, &query).await.unwrap().tasks.remove(0);
    acme.report(&task, at(3), attention()).await;
    let mut referred = intake(Action::Restriction, &[email("referred")]);
    referred.referred = Some("please".to_owned());
    let referred = acme.instruct(at(4), referred).await;

    let all = RequestFilter::default();
    assert_eq!(list(&acme, &all).await, [referred, closed, stuck, soon]);
    let states = |states: &[RequestState]| RequestFilter { states: states.to_vec(), ..all.clone() };
    assert_eq!(list(&acme, &states(&[RequestState::InProgress])).await, [stuck, soon]);
    let two = states(&[RequestState::Cancelled, RequestState::AwaitingCustomer]);
    assert_eq!(list(&acme, &two).await, [referred, closed]);
    let actions = |actions: &[Action]| RequestFilter { actions: actions.to_vec(), ..all.clone() };
    assert_eq!(list(&acme, &actions(&[Action::Access])).await, [closed, soon]);
    assert_eq!(list(&acme, &actions(&[Action::Erasure, Action::Restriction])).await, [referred, stuck]);
    let due = |due| RequestFilter { due_before: Some(due), ..all.clone() };
    assert_eq!(list(&acme, &due(day(2))).await, [], "before, and not at");
    assert_eq!(list(&acme, &due(day(3))).await, [soon], "and open");
    assert_eq!(list(&acme, &due(day(40))).await, [referred, stuck, soon]);
    let attention = RequestFilter { needs_attention: true, ..all.clone() };
    assert_eq!(list(&acme, &attention).await, [stuck]);
    let ticket = RequestFilter { reference: "ticket 1".to_owned(), ..all.clone() };
    assert_eq!(list(&acme, &ticket).await, [stuck, soon]);
    let both = RequestFilter { actions: vec![Action::Access], ..ticket };
    assert_eq!(list(&acme, &both).await, [soon]);
    let none = RequestFilter { needs_attention: true, ..both };
    assert_eq!(list(&acme, &none).await, []);
}

async fn between(acme: &Customer, from: &ChangeCursor, to: &ChangeCursor) -> Vec<(RequestId, Timestamp)> {
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = acme.store.changed_requests(&acme.id, (from, to), after, 4).await.unwrap();
        seen.extend(page.iter().map(|(row, _)| (row.id, row.changed_at)));
        match page.last() {
            Some((_, place)) if page.len() == 4 => after = Some(*place),
            _ => return seen,
        }
    }
}

async fn now(acme: &Customer) -> ChangeCursor {
    let cursor = acme.store.changes_now(&acme.id).await.unwrap();
    // As a client keeps it.
    ChangeCursor::parse(&cursor.to_string()).unwrap()
}

/// Each change is between two cursors exactly once, page by page.
pub async fn a_watch_that_reads_on_misses_no_change(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let start = now(&acme).await;
    let mut expected = acme.instruct_all(at(6), (0..7).map(|n| erasure(&format!("p{n}"))).collect()).await;
    // By another replica, whose clock is behind.
    expected.extend(acme.instruct_all(at(5), (7..10).map(|n| erasure(&format!("p{n}"))).collect()).await);
    let middle = now(&acme).await;
    let mut seen: Vec<RequestId> = between(&acme, &start, &middle).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(seen.len(), 10);
    seen.sort();
    assert_eq!(seen, expected);
    assert_eq!(between(&acme, &middle, &now(&acme).await).await, []);
    // Each kind of change shows.
    let task = claim_at(t, &crm, at(8), 1).await.unwrap().tasks.remove(0);
    assert_eq!(between(&acme, &middle, &now(&acme).await).await, [], "an attempt is none");
    acme.report(&task, at(9), attention()).await;
    acme.cancel(expected[4], at(10)).await.unwrap();
    t.extend_request(&acme.id, expected[5], day(70), "customers/acme", "complex", at(11)).await.unwrap();
    t.object_to_request(&acme.id, expected[6], "operators/kim", "looks unlawful", at(12)).await.unwrap();
    acme.authorise(expected[6], at(13)).await.unwrap();
    let order = [(task.key.request, at(9)), (expected[4], at(10)), (expected[5], at(11)), (expected[6], at(13))];
    assert_eq!(between(&acme, &middle, &now(&acme).await).await, order);
    let before = [order[0], order[1], order[2]];
    let later = now(&acme).await;
    assert_eq!(between(&acme, &later, &now(&acme).await).await, []);
    acme.confirm_next(&crm, at(14)).await;
    t.extend_request(&acme.id, expected[6], day(80), "customers/acme", "complex", at(15)).await.unwrap();
    let again = between(&acme, &middle, &later).await;
    assert!(before.iter().all(|change| again.contains(change)), "what changed since stands behind a later cursor");
    assert!(!again.iter().any(|(id, _)| *id == expected[6]));
}

/// The order of stamps and of beginnings is not that of commits: what commits late is seen when it has.
pub async fn a_change_that_commits_late_is_seen_once_it_has(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let slow = acme.instruct(at(1), erasure("slow")).await;
    let quick = acme.instruct(at(1), erasure("quick")).await;
    let start = now(&acme).await;
    // Its entry in the ledger has to wait, with the change made and stamped.
    let mut lock = t.raw().await;
    lock.execute("LOCK TABLE ledger_entries IN EXCLUSIVE MODE", vec![]).await.unwrap();
    let extending = {
        let acme = acme.clone();
        tokio::spawn(async move {
            acme.store.extend_request(&acme.id, slow, day(70), "customers/acme", "complex", at(2)).await
        })
    };
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'ledger_entries'::regclass";
    while t.count(waiting).await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    t.change(&format!(
        "UPDATE requests SET changed_us = changed_us + 1, changed_seq = CAST(CAST(pg_current_xact_id() AS text) AS bigint)
         WHERE request_id = '{quick}'"
    ))
    .await;
    let middle = now(&acme).await;
    let ids = |changes: Vec<(RequestId, Timestamp)>| changes.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(between(&acme, &start, &middle).await), [quick]);
    lock.rollback().await.unwrap();
    extending.await.unwrap().unwrap();
    assert_eq!(ids(between(&acme, &middle, &now(&acme).await).await), [slow]);
}

/// A dump that is restored into another server finds transactions counted anew.
pub async fn a_watch_goes_on_after_the_store_was_moved(t: &mut TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let old = acme.instruct(at(1), erasure("old")).await;
    let start = now(&acme).await;
    t.change("UPDATE deployment SET cluster = 'another'; UPDATE requests SET changed_seq = changed_seq + 1000000")
        .await;
    let Customer { id, agreement, .. } = acme;
    t.close().await;
    t.open("keys").await.unwrap();
    let acme = Customer { store: (**t).clone(), id, agreement };
    let new = acme.instruct(at(2), erasure("new")).await;
    let seen = between(&acme, &start, &now(&acme).await).await;
    assert!(seen.iter().any(|(id, _)| *id == new), "{seen:?}");
    if t.is_postgres() {
        // The lost store had come far beyond the dump.
        let far = ChangeCursor::parse("0.99999999:99999999:").unwrap();
        let seen = between(&acme, &far, &now(&acme).await).await;
        assert!(seen.iter().any(|(id, _)| *id == new), "{seen:?}");
    }
    let later = now(&acme).await;
    t.extend_request(&acme.id, old, day(70), "customers/acme", "complex", at(3)).await.unwrap();
    let seen = between(&acme, &later, &now(&acme).await).await;
    assert_eq!(seen, [(old, at(3))]);
    t.wear_out();
}

pub async fn times_come_back_to_the_microsecond(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let odd = |text: &str| -> Timestamp { text.parse().unwrap() };
    let mut sent = lifting("mara");
    sent.request.subject_informed_at = Some(odd("2026-02-28T23:59:59.999999Z"));
    sent.request.subject_asked_at = Some(odd("2025-10-26T00:59:59.000001Z"));
    sent.request.controller_due_at = Some(odd("2026-03-29T01:00:00.123456Z"));
    let now = odd("2026-03-01T12:00:00.654321Z");
    let id = acme.instruct(now, sent.clone()).await;
    let row = acme.request(id).await;
    assert_eq!((row.created_at, row.changed_at), (now, now));
    assert_eq!(row.subject_informed_at, sent.request.subject_informed_at);
    assert_eq!(row.subject_asked_at, sent.request.subject_asked_at);
    assert_eq!(row.controller_due_at, sent.request.controller_due_at);
    assert_eq!(Some(row.due_at), sent.request.controller_due_at);
    // Long before and long after our time, too.
    let mut old = erasure("noor");
    old.request.subject_asked_at = Some(odd("0001-01-01T00:00:00.000001Z"));
    old.request.controller_due_at = Some(odd("1969-12-31T23:59:59.999999Z"));
    let old = acme.request(acme.instruct(now, old).await).await;
    assert_eq!(old.subject_asked_at, Some(odd("0001-01-01T00:00:00.000001Z")));
    assert_eq!(old.due_at, odd("1969-12-31T23:59:59.999999Z"), "late from the first moment on");
    let far = odd("9999-12-30T21:59:59.999999Z");
    t.extend_request(&acme.id, id, far, "customers/acme", "complex", now).await.unwrap();
    assert_eq!(acme.request(id).await.due_at, far);
    // A microsecond decides about a claim.
    let before = odd("2026-03-01T12:00:00.654320Z");
    assert!(claim(t, &crm, before).await.is_none());
    assert!(claim(t, &crm, now).await.is_some());
}

pub async fn texts_come_back_to_the_letter(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let references = [
        "Ticket",
        "ticket",
        "TICKET",
        "ticket ",
        " ticket",
        "Ångström",
        "A\u{30a}ngstro\u{308}m",
        "ångström",
        "日本語 🙂",
        "a'b\"c\\d",
        "%",
        "_",
        "$1",
        "{rows}",
        "NULL",
        "0",
        "00",
        "1e3",
        "\u{200b}",
        "tab\tline\nend",
    ];
    let mut ids = Vec::new();
    for (n, reference) in references.iter().enumerate() {
        let mut sent: Intake = erasure(&format!("p{n}"));
        sent.request.reference = (*reference).to_owned();
        ids.push(acme.instruct(at(1), sent).await);
    }
    for (id, reference) in ids.iter().zip(references) {
        assert_eq!(acme.request(*id).await.reference, reference);
        let filter = RequestFilter { reference: reference.to_owned(), ..RequestFilter::default() };
        assert_eq!(list(&acme, &filter).await, [*id], "{reference:?} and no other");
    }
    // A reason that a worker gave, and a name.
    let batch = claim_at(t, &crm, at(2), 1).await.unwrap();
    let reason = "naïve \"quoted\" — 🙂 \\ {rows}";
    let result = quittance_store::ReportResult::Attention { reason: reason.to_owned() };
    acme.report(&batch.tasks[0], at(3), result).await;
    assert_eq!(acme.task(batch.tasks[0].key.request, &crm).await.reason, reason);
    let named = quittance_store::NewCustomer {
        id: quittance_domain::ids::CustomerId::new("bolt").unwrap(),
        idempotency: new_id(),
        display_name: "Bølt & Søn 🙂 'A/S'".to_owned(),
        agreement: agreement(),
    };
    assert_eq!(t.create_customer(named, at(1)).await.unwrap().display_name, "Bølt & Søn 🙂 'A/S'");
}

pub async fn a_request_comes_back_as_it_was_instructed(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    for action in Action::ALL {
        for instruction in InstructionKind::ALL {
            for ground in RestrictionGround::ALL {
                if *action != Action::Restriction && *ground != RestrictionGround::ALL[0] {
                    continue;
                }
                let mut sent = intake(*action, &[email(&format!("{action}-{instruction}-{ground}").to_lowercase())]);
                sent.request.instruction = *instruction;
                sent.request.restriction_ground = (*action == Action::Restriction).then_some(*ground);
                let row = acme.request(acme.instruct(at(1), sent.clone()).await).await;
                assert_eq!((row.action, row.instruction), (*action, *instruction));
                assert_eq!(row.restriction_ground, sent.request.restriction_ground);
                assert_eq!((row.agreement_version, row.closing_reason, row.objection), (1, None, None));
            }
        }
    }
}

/// Ids are compared by their bytes on both engines, whatever language the database was made for.
pub async fn ids_are_listed_in_the_order_of_their_bytes(t: &TestStore) {
    let sorted = ["0", "a", "a-0", "a-a", "a0", "aa", "ab", "b", "z9", "zz"];
    for id in ["zz", "a", "b", "a-a", "ab", "0", "aa", "a0", "z9", "a-0"] {
        customer(t, id).await;
        register(t, id, &[Email], &[]).await;
    }
    let (mut customers, mut systems): (Vec<String>, Vec<String>) = Default::default();
    loop {
        let after = customers.last().cloned().unwrap_or_default();
        let page = t.list_customers(&after, 3).await.unwrap();
        customers.extend(page.iter().map(|c| c.id.to_string()));
        let listed = t.list_systems(&after, 3).await.unwrap();
        systems.extend(listed.iter().map(|(s, ..)| s.id.to_string()));
        if page.is_empty() {
            break;
        }
    }
    assert_eq!(customers, sorted);
    assert_eq!(systems, sorted);
    let topology = t.topology().await.unwrap();
    assert_eq!(topology.systems.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), sorted);
}

/// As it was registered, with the map as it was written.
pub async fn a_system_comes_back_as_it_was_registered(t: &TestStore) {
    let mut sent = system("crm", &[Email, UserId], &[Phone]);
    sent.registration.display_name = "CRM — Åre".to_owned();
    sent.registration.connection_secret = Some("crm-url".to_owned());
    sent.registration.grace_period_s = 30 * 86_400;
    let yaml = "version: 1\n# naïve comment 🙂\ncollections: {}\n";
    t.register_system(&sent, yaml, new_id(), at(1)).await.unwrap();
    let (found, text, created) = t.system(&sent.id).await.unwrap();
    assert_eq!((&found, text.as_str(), created), (&sent, yaml, at(1)));
    let acme = customer(t, "acme").await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let (row, task) = (acme.request(id).await, acme.task(id, &sent.id).await);
    let grace = row.due_at.duration_since(task.latest_start_at.unwrap());
    assert_eq!(grace.as_secs(), 30 * 86_400, "counted back from the due date");
}

/// Intake and confirmations share a lock on what a new system changes, and under load there is always one of them.
pub async fn a_system_is_registered_while_others_never_let_go(t: &TestStore) {
    if !t.is_postgres() {
        // One writer at a time, in the order in which they come.
        return;
    }
    let under_way = AtomicBool::new(true);
    let sharers = async |delay: u64| {
        let pool = t.raw_pool();
        sleep(Duration::from_millis(delay)).await;
        while under_way.load(Ordering::Relaxed) {
            let mut tx = pool.begin().await.unwrap();
            tx.fetch_one("SELECT key_epoch FROM deployment WHERE id = 1 FOR SHARE", vec![]).await.unwrap();
            sleep(Duration::from_millis(100)).await;
            tx.commit().await.unwrap();
        }
    };
    let registered = async {
        sleep(Duration::from_millis(200)).await;
        let done = timeout(Duration::from_secs(10), register(t, "late", &[Email], &[])).await;
        under_way.store(false, Ordering::Relaxed);
        done
    };
    let (.., registered) = tokio::join!(sharers(0), sharers(35), sharers(70), registered);
    assert_eq!(registered.unwrap().as_str(), "late");
}
