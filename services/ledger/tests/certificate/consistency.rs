//! The statement against the entries: an issuer that signs something else is caught by its own openings.

use quittance_ledger::certificate::{Certificate, CertificateFault as Fault, check_consistency, open};
use serde_json::{Value, json};

use crate::sample::{self, SampleKey, at, signed, system};

fn certificate(input: quittance_ledger::certificate::CertificateInput) -> Certificate {
    open(&signed(input), &[SampleKey::new(7).trusted()]).unwrap().certificate
}

/// What only the signature covers, by the end of its path.
fn described(path: &str) -> bool {
    let member = path.rsplit('.').next().unwrap_or(path);
    path.contains(".systems.")
        && (["display_name", "role", "country", "connector"].contains(&member) || path.contains(".open."))
}

/// Other values that the member may hold by its form.
fn others(value: &Value) -> Vec<Value> {
    let words = [
        "x",
        "2026-03-02T09:15:04.120335Z",
        "2031-01-01T00:00:00Z",
        "ASSERTED",
        "CUSTOMER",
        "ACCESS",
        "ERASURE",
        "AGREEMENT_TERM",
        "COMPLETED",
        "COMPLETED_WITH_EXCEPTIONS",
        "INTERIM",
        "ERASED",
        "NOT_HELD",
        "VERIFIED",
        "EXECUTED",
        "READ_BACK",
        "SIGNED_STATEMENT",
        "AUTHORISED",
        "RETRIED",
        "OPEN",
        "IN_BACKUPS",
        "crm",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ];
    match value {
        Value::String(text) => words.iter().filter(|w| *w != text).map(|w| json!(w)).collect(),
        Value::Number(n) => vec![json!(n.as_u64().unwrap() + 1), json!(0)],
        Value::Bool(b) => vec![json!(!b)],
        Value::Null | Value::Array(_) | Value::Object(_) => Vec::new(),
    }
}

/// All places, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => members.iter().for_each(|(k, v)| places(v, &format!("{at}/{k}"), found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(n, v)| places(v, &format!("{at}/{n}"), found)),
        _ => {}
    }
}

fn refused(altered: Value, what: &str) -> usize {
    // What does not even have the form is refused at the reading.
    let Ok(certificate) = serde_json::from_value::<Certificate>(altered) else { return 0 };
    assert!(check_consistency(&certificate).is_err(), "{what}");
    1
}

/// Every member of the statement, given every other value that it can hold; every line taken out, and doubled; every optional member
/// left out.
#[test]
fn nothing_in_the_statement_can_be_other_than_the_entries_say() {
    let mut tried = 0;
    for input in [sample::rich(), sample::interim(), sample::small()] {
        let whole = serde_json::to_value(certificate(input)).unwrap();
        let mut all = Vec::new();
        places(&whole["statement"], "/statement", &mut all);
        for place in all.iter().filter(|p| !described(&p.replace('/', "."))) {
            for other in others(whole.pointer(place).unwrap()) {
                let mut altered = whole.clone();
                if whole.pointer(place) != Some(&other) {
                    *altered.pointer_mut(place).unwrap() = other.clone();
                    tried += refused(altered, &format!("{place} = {other}"));
                }
            }
            let (parent, name) = place.rsplit_once('/').unwrap();
            let mut altered = whole.clone();
            let mut doubled = None;
            match altered.pointer_mut(parent).unwrap() {
                Value::Array(items) => {
                    let n: usize = name.parse().unwrap();
                    let item = items.remove(n);
                    let mut twice = whole.clone();
                    twice.pointer_mut(parent).unwrap().as_array_mut().unwrap().insert(n, item);
                    doubled = Some(twice);
                }
                Value::Object(members) => drop(members.remove(name)),
                _ => continue,
            }
            tried += refused(altered, &format!("{place} left out"));
            if let Some(doubled) = doubled {
                tried += refused(doubled, &format!("{place} doubled"));
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn what_no_entry_says_is_the_signatures_alone_and_named() {
    let mut altered = certificate(sample::interim());
    altered.customer.display_name.push('!');
    altered.issuer.name.push('!');
    altered.agreement.window_days = 10;
    altered.statement.systems[0].display_name.push('!');
    assert!(check_consistency(&altered).is_ok());
    assert!(quittance_ledger::certificate::BY_SIGNATURE_ALONE.len() < 10);
}

#[test]
fn the_customer_the_request_and_the_agreement_are_those_of_the_entries() {
    let original = certificate(sample::small());
    let mut other = original.clone();
    other.customer.id = quittance_domain::ids::CustomerId::new("globex").unwrap();
    assert!(matches!(check_consistency(&other), Err(Fault::Entry { index: 0, .. })));
    let mut other = original.clone();
    other.statement.request.id =
        quittance_domain::ids::RequestId::parse("0193a6f2-7c1e-7d40-9a2b-5f0c8e4d1a78").unwrap();
    assert!(matches!(check_consistency(&other), Err(Fault::Entry { index: 0, .. })));
    let mut other = original;
    other.agreement.version = 1;
    assert_eq!(check_consistency(&other), Err(Fault::Statement("agreement.version")));
}

#[test]
fn a_time_is_attested_only_by_a_witness_whose_key_is_there() {
    let rich = certificate(sample::rich());
    let attested = rich.statement.dates.completed.clone().unwrap().attested.unwrap();
    assert_eq!((attested.by.as_str(), attested.at), ("witness.university.example", at("2026-05-04T07:30:02Z")));
    assert_eq!(rich.statement.dates.received.attested, None);
    let mut unknown = rich.clone();
    unknown.log.witnesses.clear();
    assert!(matches!(check_consistency(&unknown), Err(Fault::KeyHistory(_))));
    // Said of a time, and not of the entry that states it.
    let mut lifted = rich;
    lifted.statement.dates.received.attested = lifted.statement.dates.completed.as_ref().unwrap().attested.clone();
    assert_eq!(check_consistency(&lifted), Err(Fault::Statement("statement.dates.received")));
}

#[test]
fn a_key_history_that_makes_no_sense_is_refused() {
    let whole = certificate(sample::small());
    let check = |change: fn(&mut Certificate)| {
        let mut altered = whole.clone();
        change(&mut altered);
        assert!(matches!(check_consistency(&altered), Err(Fault::KeyHistory(_))));
    };
    check(|c| drop(c.log.keys.pop()));
    check(|c| c.log.keys[1].to = Some(at("2027-01-01T00:00:00Z")));
    check(|c| c.log.keys[0].to = None);
    check(|c| c.log.keys[0].to = Some(at("2020-01-01T00:00:00Z")));
    check(|c| c.log.keys[0].vkey = c.log.keys[1].vkey.clone());
}

#[test]
fn an_interim_statement_says_of_every_open_system_how_it_stands_and_of_no_other() {
    let interim = certificate(sample::interim());
    let open: Vec<_> = interim.statement.systems.iter().filter(|s| s.open.is_some()).map(|s| s.id.clone()).collect();
    assert_eq!(open, [system("fax"), system("mail")]);
    let mut silent = interim.clone();
    silent.statement.systems[3].open = None;
    assert_eq!(check_consistency(&silent), Err(Fault::OpenTask(system("fax"))));
    let mut chatty = interim.clone();
    chatty.statement.systems[0].open = interim.statement.systems[3].open.clone();
    assert_eq!(check_consistency(&chatty), Err(Fault::OpenTask(system("billing"))));
}

#[test]
fn an_interim_statement_after_the_due_time_says_that_it_is_late() {
    assert!(!certificate(sample::interim()).statement.dates.late);
    let mut later = sample::interim();
    later.issued_at = at("2026-05-01T22:00:00Z");
    let later = certificate(later);
    assert!(later.statement.dates.late);
    let mut backdated = later;
    backdated.issued.at = at("2026-04-30T00:00:00Z");
    assert_eq!(check_consistency(&backdated), Err(Fault::Statement("statement.dates.late")));
}
