//! No deadline passes in silence.

use std::time::Duration;

use quittance_domain::{
    Timestamp, action::RestrictionGround, ids::RequestId, request::RequestState, task::TaskState, window::Timeliness,
};
use quittance_store::{DeadlineStatement, Intake, RequestFilter, RunningLate, StoreError, TimelinessFilter};
use tokio::task::JoinSet;

use crate::{harness::TestStore, world::*};

const AT_RISK: Duration = Duration::from_secs(7 * 86_400);

fn due(person: &str, due: Timestamp) -> Intake {
    let mut sent = erasure(person);
    sent.request.controller_due_at = Some(due);
    sent
}

async fn told(acme: &Customer, now: Timestamp) -> Vec<(RequestId, Timeliness)> {
    let to_tell = again!(acme.store.running_late(&acme.id, now, AT_RISK)).unwrap();
    let late = to_tell.late.iter().map(|l| (l.request, l.timeliness)).collect();
    to_tell.told().await.unwrap();
    late
}

pub async fn who_runs_late_is_told_of_once_and_once_more_when_the_time_is_over(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let far = acme.instruct(at(0), due("far", day(20))).await;
    let near = acme.instruct(at(0), due("near", day(8))).await;
    let closed = acme.instruct(at(0), due("closed", day(8))).await;
    acme.cancel(closed, at(1)).await.unwrap();
    let referred = Intake { referred: Some("words".to_owned()), ..due("referred", day(8)) };
    let referred = acme.instruct(at(0), referred).await;
    assert!(t.customers_running_late(at(86_399), AT_RISK).await.unwrap().is_empty());
    assert_eq!(told(&acme, at(86_399)).await, []);

    let changed = acme.request(near).await.changed_at;
    assert_eq!(t.customers_running_late(day(1), AT_RISK).await.unwrap(), std::slice::from_ref(&acme.id));
    let to_tell = t.running_late(&acme.id, day(1), AT_RISK).await.unwrap();
    let late = to_tell.late.clone();
    to_tell.told().await.unwrap();
    let expected = RunningLate {
        request: near,
        timeliness: Timeliness::AtRisk,
        due_at: day(8),
        open: vec![(crm.clone(), TaskState::Pending)],
    };
    assert!(late.contains(&expected), "{late:?}");
    assert_eq!(late.len(), 2, "what waits for the customer runs late, too");
    assert!(acme.request(near).await.changed_at > changed, "whoever watches sees it");
    assert_eq!(told(&acme, day(8)).await, [], "told once; at its due time it is still in time");
    assert!(t.customers_running_late(day(8), AT_RISK).await.unwrap().is_empty());

    let over = day(8).checked_add(Duration::from_micros(1)).unwrap();
    let mut late = told(&acme, over).await;
    late.sort_by_key(|(id, _)| *id);
    assert_eq!(late, [(near, Timeliness::Overdue), (referred, Timeliness::Overdue)]);
    assert_eq!(told(&acme, over).await, []);
    // One that nobody looked at in between is overdue, and nothing else.
    let mut late = told(&acme, day(21)).await;
    late.retain(|(id, _)| *id == far);
    assert_eq!(late, [(far, Timeliness::Overdue)]);
}

/// As whoever is killed, or loses the store, before it can say that it told.
pub async fn who_is_not_told_of_to_the_end_is_told_of_again(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let id = acme.instruct(at(0), due("mara", day(8))).await;
    for (now, timeliness) in [(day(2), Timeliness::AtRisk), (day(9), Timeliness::Overdue)] {
        let cut = t.running_late(&acme.id, now, AT_RISK).await.unwrap();
        assert_eq!(cut.late.len(), 1);
        drop(cut);
        assert_eq!(t.customers_running_late(now, AT_RISK).await.unwrap(), std::slice::from_ref(&acme.id));
        assert!(t.without_deadline_statement(&acme.id).await.unwrap().is_empty());
        // It is theirs until the database has noticed that nobody is there.
        let again = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let late = told(&acme, now).await;
                if !late.is_empty() {
                    return late;
                }
            }
        });
        assert_eq!(again.await.unwrap(), [(id, timeliness)]);
        assert_eq!(told(&acme, now).await, []);
    }
    assert_eq!(t.without_deadline_statement(&acme.id).await.unwrap(), [id]);
}

pub async fn a_moved_due_time_is_told_of_anew(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let id = acme.instruct(at(0), due("mara", day(8))).await;
    assert_eq!(told(&acme, day(7)).await, [(id, Timeliness::AtRisk)]);
    t.extend_request(&acme.id, id, day(30), "customers/acme", "many systems", day(8)).await.unwrap();
    assert_eq!(told(&acme, day(10)).await, []);
    assert_eq!(told(&acme, day(24)).await, [(id, Timeliness::AtRisk)]);
    assert_eq!(told(&acme, day(31)).await, [(id, Timeliness::Overdue)]);
    // What is late stays late, and has been told of.
    let moved = t.extend_request(&acme.id, id, day(60), "customers/acme", "many systems", day(31)).await;
    assert!(matches!(moved, Err(StoreError::WrongState(_))));
    assert_eq!(acme.request(id).await.due_at, day(30));
}

pub async fn of_sweeps_that_race_one_tells(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let mut expected = acme.instruct_all(at(0), (0..40).map(|n| due(&format!("p{n}"), day(3))).collect()).await;
    let mut sweeps = JoinSet::new();
    for _ in 0..6 {
        let acme = acme.clone();
        sweeps.spawn(async move { told(&acme, day(1)).await });
    }
    let mut all: Vec<RequestId> = sweeps.join_all().await.into_iter().flatten().map(|(id, _)| id).collect();
    all.sort();
    expected.sort();
    assert_eq!(all, expected);
}

pub async fn lists_tell_who_is_late(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let mut ids = Vec::new();
    for (person, days) in [("far", 20), ("near", 8), ("over", 1)] {
        ids.push(acme.instruct(at(0), due(person, day(days))).await);
    }
    let done = acme.instruct(at(0), due("done", day(1))).await;
    for task in claim(t, &crm, at(1)).await.unwrap().tasks.iter().filter(|task| task.key.request == done) {
        acme.report(task, at(2), crate::world::done(&crm)).await;
    }
    let list = async |any_of: &[Timeliness]| {
        let timeliness = Some(TimelinessFilter { any_of: any_of.to_vec(), now: day(2), at_risk: AT_RISK });
        let filter = RequestFilter { timeliness, ..RequestFilter::default() };
        let rows = t.list_requests(&acme.id, &filter, None, 10).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(list(&[Timeliness::Overdue]).await, [ids[2]], "and open");
    assert_eq!(list(&[Timeliness::AtRisk]).await, [ids[1]]);
    assert_eq!(list(&[Timeliness::OnTrack]).await, [ids[0]]);
    assert_eq!(list(&[Timeliness::AtRisk, Timeliness::Overdue]).await, [ids[2], ids[1]]);
    assert_eq!(list(&[]).await, [done, ids[2], ids[1], ids[0]]);
}

pub async fn a_deadline_statement_is_kept_once_for_each_due_time_that_passed(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(0), due("mara", day(8))).await;
    let closed = acme.instruct(at(0), due("closed", day(8))).await;
    let moved = acme.instruct(at(0), due("moved", day(8))).await;
    t.extend_request(&acme.id, moved, day(30), "customers/acme", "many systems", day(2)).await.unwrap();
    let statement =
        |due_at, issued_at, text: &str| DeadlineStatement { due_at, content: text.as_bytes().to_vec(), issued_at };
    let early = statement(day(8), day(7), "too early");
    assert!(!t.keep_deadline_statement(&acme.id, id, &early).await.unwrap(), "it is not overdue");
    assert_eq!(told(&acme, day(9)).await.len(), 2);
    assert_eq!(t.customers_without_deadline_statement().await.unwrap(), std::slice::from_ref(&acme.id));
    assert_eq!(t.without_deadline_statement(&acme.id).await.unwrap().len(), 2);
    for task in claim(t, &crm, day(9)).await.unwrap().tasks.iter().filter(|task| task.key.request == closed) {
        acme.report(task, day(9), crate::world::done(&crm)).await;
    }
    let first = statement(day(8), day(9), "first");
    assert!(!t.keep_deadline_statement(&acme.id, closed, &first).await.unwrap(), "nothing of it is open any more");
    assert!(t.keep_deadline_statement(&acme.id, id, &first).await.unwrap());
    assert!(!t.keep_deadline_statement(&acme.id, id, &statement(day(8), day(9), "another replica's")).await.unwrap());
    assert_eq!(t.deadline_statement(&acme.id, id).await.unwrap(), Some(first));
    assert!(t.customers_without_deadline_statement().await.unwrap().is_empty());

    assert_eq!(told(&acme, day(31)).await, [(moved, Timeliness::Overdue)]);
    let of_the_first_date = statement(day(8), day(31), "of a date that was moved in time");
    assert!(!t.keep_deadline_statement(&acme.id, moved, &of_the_first_date).await.unwrap());
    let second = statement(day(30), day(31), "second");
    assert!(t.keep_deadline_statement(&acme.id, moved, &second).await.unwrap());
    assert_eq!(t.deadline_statement(&acme.id, moved).await.unwrap(), Some(second));
    assert_eq!(t.deadline_statement(&acme.id, closed).await.unwrap(), None);
}

/// Its due time is what it was: what was said when it passed stands.
pub async fn an_erasure_that_is_authorised_late_is_not_told_of_again(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    acme.instruct(at(0), restriction("mara", RestrictionGround::NeededForLegalClaims)).await;
    let waits = acme.instruct(at(1), due("mara", day(8))).await;
    assert_eq!(acme.state(waits).await, RequestState::AwaitingCustomer);
    assert_eq!(told(&acme, day(9)).await, [(waits, Timeliness::Overdue)]);
    let statement = DeadlineStatement { due_at: day(8), content: b"late".to_vec(), issued_at: day(9) };
    assert!(t.keep_deadline_statement(&acme.id, waits, &statement).await.unwrap());
    acme.authorise(waits, day(10)).await.unwrap();
    assert_eq!(acme.request(waits).await.due_at, day(8));
    assert_eq!(told(&acme, day(10)).await, []);
    assert!(t.customers_without_deadline_statement().await.unwrap().is_empty());
}
