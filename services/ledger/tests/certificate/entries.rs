//! Entries that no honest ledger holds of a request: nothing is issued of them, and nobody who checks accepts them.

use quittance_domain::{
    action::Action,
    outcome::{EvidenceKind, Grade, OutcomeKind},
    request::RequestState,
};
use quittance_ledger::{
    Event, Hex,
    certificate::{CertificateFault as Fault, CertificateInput, EntryFault, issue},
};

use crate::sample::{
    SampleKey, confirmed, declined, input, instructed, line, opening, openings, planned, planned_by, reviewed, small,
    system, us, withheld,
};

fn outcome(events: &[Event], systems: &[&str]) -> Result<Vec<u8>, Fault> {
    issued(input(openings(events), systems))
}

fn issued(input: CertificateInput) -> Result<Vec<u8>, Fault> {
    issue(input, &SampleKey::new(7))
}

fn done(id: &str) -> Event {
    let outcomes = vec![line("contacts", "email", OutcomeKind::Erased, Grade::Verified, 1)];
    Event::Confirmed { confirmation: confirmed(id, outcomes), late: false }
}

fn complete(state: RequestState, at: &str, late: bool) -> Event {
    Event::Completed { state, at_us: us(at), late }
}

fn closed(state: RequestState) -> Event {
    Event::Closed { state, by: String::new(), reason: String::new(), at_us: us("2026-03-03T00:00:00Z") }
}

fn in_time() -> Event {
    complete(RequestState::Completed, "2026-03-03T00:00:00Z", false)
}

/// An operator corrected the map, and retried.
#[test]
fn the_last_version_of_a_map_that_a_system_was_planned_by_counts() {
    let with = |again: Event| {
        outcome(&[instructed(Action::Erasure), planned(&["crm"]), again, done("crm"), in_time()], &["crm"])
    };
    let issued = String::from_utf8(with(planned_by(&["crm"], 5)).unwrap()).unwrap();
    assert!(issued.contains("\"map_version\":5") && !issued.contains("\"map_version\":3"), "{issued}");
    let fault = EntryFault::PlannedTwice(system("crm"));
    assert_eq!(with(planned_by(&["crm"], 3)), Err(Fault::Entry { index: 2, fault }));
}

#[test]
fn a_planned_system_without_confirmation_is_no_completion() {
    let events = [instructed(Action::Erasure), planned(&["crm", "desk"]), done("crm"), in_time()];
    assert_eq!(outcome(&events, &["crm", "desk"]), Err(Fault::NotConfirmed(system("desk"))));
    assert_eq!(outcome(&[instructed(Action::Erasure), in_time()], &[]), Err(Fault::NothingPlanned));
}

#[test]
fn an_altered_opening_is_not_that_of_its_leaf() {
    let entry = |index, fault| Err(Fault::Entry { index, fault });
    let mut altered = small();
    altered.entries[2].payload = altered.entries[2].payload.replace("\"count\":2", "\"count\":3");
    assert_eq!(issued(altered), entry(2, EntryFault::Leaf));
    let mut altered = small();
    altered.entries[2].salt = Hex([0; 32]);
    assert_eq!(issued(altered), entry(2, EntryFault::Leaf));
    let mut altered = small();
    altered.entries[2].leaf = altered.entries[3].leaf;
    assert_eq!(issued(altered), entry(2, EntryFault::Leaf));
    let mut altered = small();
    altered.entries[2].kind = "planned".to_owned();
    assert_eq!(issued(altered), entry(2, EntryFault::Kind));
    let mut altered = small();
    altered.entries[2].proof.clear();
    assert_eq!(issued(altered), entry(2, EntryFault::NoProof));
    let mut altered = small();
    altered.entries.push(altered.entries[4].clone());
    assert_eq!(issued(altered), entry(5, EntryFault::Twice));
}

#[test]
fn an_opening_that_is_left_out_is_missed() {
    let end = small().entries.len() - 1;
    for gone in 0..end {
        let mut altered = small();
        altered.entries.remove(gone);
        assert!(issued(altered).is_err(), "entry {gone}");
    }
    // Without its end, it is an interim statement at most.
    let mut altered = small();
    altered.entries.remove(end);
    assert!(String::from_utf8(issued(altered).unwrap()).unwrap().contains("\"state\":\"INTERIM\""));
}

#[test]
fn the_order_in_which_entries_came_into_the_log_says_nothing() {
    let mut turned = small();
    turned.entries[1..].reverse();
    assert!(issued(turned).is_ok());
}

#[test]
fn each_thing_happens_once() {
    let base = || vec![instructed(Action::Erasure), planned(&["crm"]), done("crm"), in_time()];
    let with = |event: Event| {
        let mut events = base();
        events.push(event);
        outcome(&events, &["crm"])
    };
    let fault = |fault| Err(Fault::Entry { index: 4, fault });
    assert!(outcome(&base(), &["crm"]).is_ok());
    assert_eq!(with(instructed(Action::Access)), fault(EntryFault::SecondInstruction));
    assert_eq!(with(planned(&["crm"])), fault(EntryFault::PlannedTwice(system("crm"))));
    assert_eq!(with(done("crm")), fault(EntryFault::ConfirmedTwice(system("crm"))));
    assert_eq!(with(done("desk")), fault(EntryFault::ConfirmsUnplanned(system("desk"))));
    assert_eq!(with(in_time()), fault(EntryFault::SecondCompletion));
    assert_eq!(with(closed(RequestState::Cancelled)), Err(Fault::Closed));
}

/// What had been done, where nothing was, and why it ended: none of it can be left out or coloured.
#[test]
fn a_request_that_was_declined_is_stated_with_what_had_been_done() {
    let file = String::from_utf8(issued(declined()).unwrap()).unwrap();
    for said in [
        "\"state\":\"DECLINED\"",
        "\"reason\":\"You are right, we must keep it\"",
        "\"not_processed\":[{\"system\":\"desk\",\"cause\":\"OPEN\"},{\"system\":\"mail\",\"cause\":\"NOT_BEGUN\"}]",
        // Issued after the due date, and yet not late: it ended before.
        "\"late\":false},\"decisions\"",
    ] {
        assert!(file.contains(said), "{said} is not in {file}");
    }
    let mut undone = declined();
    undone.systems.remove(&system("mail"));
    assert_eq!(issued(undone), Err(Fault::Undescribed(system("mail"))));
    let mut both = declined();
    both.open.insert(system("crm"), both.open[&system("desk")].clone());
    assert_eq!(issued(both), Err(Fault::OpenTask(system("crm"))), "it has confirmed");
    let end = |state| {
        let mut events = vec![instructed(Action::Erasure), closed(RequestState::Declined)];
        events.extend(state);
        outcome(&events, &[])
    };
    assert!(end(None).is_ok(), "nothing had been planned");
    let fault = |fault| Err(Fault::Entry { index: 2, fault });
    assert_eq!(end(Some(closed(RequestState::Cancelled))), fault(EntryFault::SecondClosing));
    assert_eq!(end(Some(closed(RequestState::Completed))), fault(EntryFault::ClosingState));
}

#[test]
fn a_confirmation_that_says_more_than_is_known_is_not_certified() {
    let mut paper = confirmed("crm", vec![line("contacts", "email", OutcomeKind::Erased, Grade::Verified, 1)]);
    paper.evidence.kind = EvidenceKind::VendorReceipt;
    let events = [
        instructed(Action::Erasure),
        planned(&["crm"]),
        Event::Confirmed { confirmation: paper, late: false },
        in_time(),
    ];
    let fault = outcome(&events, &["crm"]).unwrap_err();
    assert!(matches!(fault, Fault::Entry { index: 2, fault: EntryFault::Overstated(_) }), "{fault}");
    // An erasure's outcome does not answer an access.
    let events = [instructed(Action::Access), planned(&["crm"]), done("crm"), in_time()];
    assert!(matches!(outcome(&events, &["crm"]), Err(Fault::Entry { index: 2, fault: EntryFault::Overstated(_) })));
}

#[test]
fn an_exception_is_never_rounded_up_and_late_never_called_in_time() {
    let mut given_up = line("*", "*", OutcomeKind::Unconfirmed, Grade::None, 0);
    given_up.basis = "no answer".to_owned();
    let given_up = Event::Confirmed { confirmation: confirmed("crm", vec![given_up]), late: false };
    let base = |confirmed: &Event, end| vec![instructed(Action::Erasure), planned(&["crm"]), confirmed.clone(), end];
    assert_eq!(outcome(&base(&given_up, in_time()), &["crm"]), Err(Fault::CompletionState));
    let exceptions = complete(RequestState::CompletedWithExceptions, "2026-03-03T00:00:00Z", false);
    assert!(outcome(&base(&given_up, exceptions.clone()), &["crm"]).is_ok());
    assert_eq!(outcome(&base(&done("crm"), exceptions), &["crm"]), Err(Fault::CompletionState));
    for (at, late, ok) in [
        ("2026-04-01T21:59:59.999998Z", false, true),
        ("2026-04-01T21:59:59.999998Z", true, false),
        ("2026-04-01T22:00:00Z", true, true),
        ("2026-04-01T22:00:00Z", false, false),
    ] {
        let end = complete(RequestState::Completed, at, late);
        assert_eq!(outcome(&base(&done("crm"), end), &["crm"]).is_ok(), ok, "{at} {late}");
    }
    // A single confirmation, too.
    let mut late = confirmed("crm", vec![line("contacts", "email", OutcomeKind::Erased, Grade::Verified, 1)]);
    late.confirmed_at = "2026-04-02T00:00:00Z".parse().unwrap();
    let late = Event::Confirmed { confirmation: late, late: false };
    assert_eq!(
        outcome(&base(&late, complete(RequestState::Completed, "2026-04-02T00:00:01Z", true)), &["crm"]),
        Err(Fault::Late)
    );
}

#[test]
fn what_somebody_else_asked_for_needs_the_customers_word() {
    let referred = |event| match event {
        Event::Instructed {
            action, instruction, subject, by, received_us, first_due_us, agreement, reference, ..
        } => Event::Instructed {
            action,
            instruction,
            subject,
            by,
            received_us,
            first_due_us,
            agreement,
            reference,
            referred: true,
            restriction_ground: None,
            subject_asked_us: None,
            subject_informed_us: None,
            controller_due_us: None,
            follows: None,
            follow_up: None,
        },
        other => other,
    };
    let mut events = vec![referred(instructed(Action::Erasure)), planned(&["crm"]), done("crm"), in_time()];
    assert_eq!(outcome(&events, &["crm"]), Err(Fault::NotAuthorised));
    // Its window, and the agreement it comes under, are those of the day it was authorised.
    let first_due_us = us("2026-04-02T21:59:59.999999Z");
    let at_us = us("2026-03-03T00:00:00Z");
    events.push(Event::Authorised { by: "customers/acme".to_owned(), at_us, first_due_us, agreement: 3 });
    assert_eq!(outcome(&events, &["crm"]), Err(Fault::Statement("agreement.version")));
    let mut authorised = input(openings(&events), &["crm"]);
    authorised.agreement.version = 3;
    let file = String::from_utf8(issued(authorised).unwrap()).unwrap();
    assert!(file.contains("\"first_due\":{\"at\":\"2026-04-02T21:59:59.999999Z\""));
}

#[test]
fn every_planned_system_is_described_and_no_other() {
    let events = [instructed(Action::Erasure), planned(&["crm"]), done("crm"), in_time()];
    assert_eq!(outcome(&events, &[]), Err(Fault::Undescribed(system("crm"))));
    assert_eq!(outcome(&events, &["crm", "desk"]), Err(Fault::NotPlanned(system("desk"))));
}

#[test]
fn what_the_customer_withheld_is_told_in_counts_and_by_whom() {
    let file = issued(reviewed(vec![
        withheld("desk", "tickets", "email", 3),
        withheld("desk", "tickets", "free_text", 7),
        withheld("crm", "notes", "*", 1),
    ]));
    let file = String::from_utf8(file.unwrap()).unwrap();
    let lines = "\"not_processed\":[{\"system\":\"crm\",\"cause\":\"WITHHELD\",\"collection\":\"notes\",\"category\":\"*\",\"count\":1},\
                 {\"system\":\"desk\",\"cause\":\"WITHHELD\",\"collection\":\"tickets\",\"category\":\"email\",\"count\":3},\
                 {\"system\":\"desk\",\"cause\":\"WITHHELD\",\"collection\":\"tickets\",\"category\":\"free_text\",\"count\":7}]";
    assert!(file.contains(lines), "{file}");
    assert!(file.contains("{\"what\":\"REVIEWED\",\"made\":{\"at\":\"2026-03-05T10:00:00Z\",\"by\":\"ASSERTED\"},\"by\":\"customers/acme\"}"));
    // Where all was released, that is on record, too.
    let file = String::from_utf8(issued(reviewed(Vec::new())).unwrap()).unwrap();
    assert!(file.contains("\"REVIEWED\"") && file.contains("\"not_processed\":[]"));
    let fault = |fault| Err(Fault::Entry { index: 5, fault });
    let of_nobody = issued(reviewed(vec![withheld("mail", "letters", "email", 1)]));
    assert_eq!(of_nobody, fault(EntryFault::WithholdsUnconfirmed(system("mail"))));
    assert_eq!(issued(reviewed(vec![withheld("crm", "notes", "*", u64::MAX)])), Err(Fault::Limit("a count")));
    let review = |at: &str| Event::Reviewed { by: "customers/acme".to_owned(), at_us: us(at), withheld: Vec::new() };
    let mut twice = reviewed(Vec::new());
    twice.entries.push(opening(7, &review("2026-03-06T10:00:00Z")));
    assert_eq!(issued(twice), Err(Fault::Entry { index: 6, fault: EntryFault::SecondReview }));
    let events =
        [instructed(Action::Erasure), planned(&["crm"]), done("crm"), in_time(), review("2026-03-06T10:00:00Z")];
    assert_eq!(outcome(&events, &["crm"]), Err(Fault::Entry { index: 4, fault: EntryFault::NoPackage }));
}
