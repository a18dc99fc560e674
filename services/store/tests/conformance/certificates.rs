//! What is staged is enough to certify a request by, and holds together: the issuer's own check passes over it.

use std::collections::{BTreeMap, BTreeSet};

use quittance_domain::{
    Timestamp,
    action::Action,
    ids::{RequestId, SystemId},
    outcome::OutcomeKind,
    task::TaskState,
};
use quittance_ledger::{
    Event, Hex, RecordedEvent,
    certificate::{
        AgreementTerms, CertificateFault, CertificateInput, CertifiedState, Customer as Named, DecisionKind,
        EntryOpening, Issuer, KeyStatus, LogKey, LogKeys, NotProcessedCause, OpenTask, Signer, Statement,
        SubjectOpening, SystemDescription, issue,
    },
};
use quittance_sql::Val;
use quittance_store::{IssuedCertificate, LogCheckpoint, ReportResult};

use crate::{harness::TestStore, world::*};

struct NoKey;

impl Signer for NoKey {
    fn key_id(&self) -> String {
        "log+00000000".to_owned()
    }

    fn sign(&self, _: &[u8]) -> Result<[u8; 64], CertificateFault> {
        Ok([0; 64])
    }
}

async fn entries(t: &TestStore, id: RequestId) -> Vec<EntryOpening> {
    let sql = "SELECT kind, payload, salt, leaf FROM ledger_entries WHERE request_id = $1 ORDER BY entry_id";
    let rows = t.rows(sql, vec![Val::from(id.uuid())]).await;
    let one = |row: &quittance_sql::Row| EntryOpening {
        kind: row.text(0).unwrap(),
        payload: String::from_utf8(row.bytes(1).unwrap()).unwrap(),
        salt: Hex(row.bytes(2).unwrap().try_into().unwrap()),
        leaf: Hex(row.bytes(3).unwrap().try_into().unwrap()),
        proof: "the log's".to_owned(),
        attested: Vec::new(),
    };
    rows.iter().map(one).collect()
}

/// As the sequencer issues it, but for proofs and keys.
async fn certified(
    t: &TestStore,
    acme: &Customer,
    id: RequestId,
    issued_at: Timestamp,
) -> Result<Statement, CertificateFault> {
    let topology = t.topology().await.unwrap();
    let tasks = acme.tasks(id).await;
    let entries = entries(t, id).await;
    let planned = planned(&entries);
    let registered = topology.systems.iter().filter(|s| planned.contains(&s.id));
    let open = tasks.iter().filter(|task| task.state != TaskState::Confirmed);
    let (request, _) = t.request(&acme.id, id).await.unwrap();
    let input = CertificateInput {
        issued_at,
        issuer: Issuer { name: "Processor".to_owned(), deployment: "test".to_owned() },
        customer: Named::new(acme.id.clone(), "The acme company".to_owned(), &acme.agreement.facts),
        agreement: AgreementTerms {
            version: u32::try_from(request.agreement_version).unwrap(),
            signed: acme.agreement.signed_at,
            window_days: acme.agreement.window_days,
            time_zone: acme.agreement.time_zone.clone(),
        },
        systems: registered.map(|s| (s.id.clone(), SystemDescription::from(&s.registration))).collect(),
        open: open
            .map(|task| (task.system.clone(), OpenTask { state: task.state, reason: task.reason.clone() }))
            .collect::<BTreeMap<_, _>>(),
        entries,
        log: LogKeys {
            origin: "log".to_owned(),
            keys: vec![LogKey {
                vkey: "log+00000000+AA==".to_owned(),
                from: at(0),
                to: None,
                status: KeyStatus::Current,
            }],
            witnesses: Vec::new(),
        },
    };
    let file: serde_json::Value = serde_json::from_slice(&issue(input, &NoKey)?).unwrap();
    Ok(serde_json::from_value(file["certificate"]["statement"].clone()).unwrap())
}

pub async fn a_completed_request_can_be_certified_from_its_entries(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let mut sent = erasure("mara");
    sent.request.reference = "DSR-1".to_owned();
    sent.request.subject_asked_at = Some(at(0));
    sent.request.controller_due_at = Some(day(20));
    let id = acme.instruct(at(1), sent).await;
    t.extend_request(&acme.id, id, day(60), "customers/acme", "complex", at(2)).await.unwrap();
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(3)).await.unwrap();
    acme.authorise(id, at(4)).await.unwrap();
    let shop = register(t, "shop", &[Email], &[]).await;
    acme.replan(at(5)).await;
    let task = claim_one(t, &crm, at(6)).await;
    acme.report(&task, at(7), attention()).await;
    let given_up = confirmation(&crm, OutcomeKind::Unconfirmed);
    t.resolve_task(&acme.key(id, &crm), given_up, "operators/kim", at(8)).await.unwrap();
    acme.confirm_next(&shop, at(9)).await;
    let said = certified(t, &acme, id, at(10)).await.unwrap();
    assert_eq!(said.state, CertifiedState::CompletedWithExceptions);
    assert_eq!((said.systems.len(), said.exceptions.len(), said.decisions.len()), (2, 1, 3));
    assert_eq!((said.request.reference.as_str(), said.dates.received.at), ("DSR-1", at(1)));
    assert_eq!(said.dates.subject_asked.unwrap().at, at(0));
    assert_eq!((said.dates.first_due.at, said.dates.due.at), (day(20), day(60)));
    assert_eq!((said.dates.completed.unwrap().at, said.dates.late), (at(9), false));
}

pub async fn an_open_request_can_be_stated_at_any_time(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    register(t, "shop", &[Email], &[]).await;
    let mut referred = erasure("mara");
    referred.referred = Some("please delete me".to_owned());
    let id = acme.instruct(at(1), referred).await;
    let waiting = certified(t, &acme, id, at(2)).await.unwrap();
    assert_eq!((waiting.state, waiting.systems.len()), (CertifiedState::Interim, 0));
    acme.authorise(id, at(3)).await.unwrap();
    acme.confirm_next(&crm, at(4)).await;
    let said = certified(t, &acme, id, at(5)).await.unwrap();
    let open: Vec<&str> = said.systems.iter().filter(|s| s.open.is_some()).map(|s| s.id.as_str()).collect();
    assert_eq!((said.state, open, said.not_processed.len()), (CertifiedState::Interim, vec!["shop"], 1));
    assert!(certified(t, &acme, id, day(40)).await.unwrap().dates.late);
}

pub async fn what_was_late_is_certified_as_late(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    acme.confirm_next(&crm, day(40)).await;
    let said = certified(t, &acme, id, day(41)).await.unwrap();
    assert!(said.dates.late && said.systems[0].confirmation.as_ref().unwrap().late);
    // In time to the second.
    let other = acme.instruct(day(50), erasure("noor")).await;
    acme.confirm_next(&crm, day(51)).await;
    assert!(!certified(t, &acme, other, day(52)).await.unwrap().dates.late);
}

fn planned(entries: &[EntryOpening]) -> BTreeSet<SystemId> {
    let events = entries.iter().map(|e| RecordedEvent::read(e.payload.as_bytes()).unwrap().event);
    let systems = events.filter_map(|event| match event {
        Event::Planned { systems, .. } => Some(systems),
        _ => None,
    });
    systems.flatten().map(|planned| planned.system).collect()
}

pub async fn what_was_declined_is_stated_with_what_had_been_done(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let [desk, _] = [register(t, "desk", &[Email], &[]).await, register(t, "shop", &[Email], &[]).await];
    let id = acme.instruct(at(1), erasure("mara")).await;
    acme.confirm_next(&crm, at(2)).await;
    let late = claim_one(t, &desk, at(2)).await;
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(3)).await.unwrap();
    t.decline_request(&acme.id, id, "customers/acme", "it is", at(4)).await.unwrap();
    let said = certified(t, &acme, id, day(90)).await.unwrap();
    assert_eq!((said.state, said.dates.late), (CertifiedState::Declined, false));
    let not = |said: &Statement| said.not_processed.iter().map(|n| (n.system.to_string(), n.cause)).collect::<Vec<_>>();
    let not_begun = ("shop".to_owned(), NotProcessedCause::NotBegun);
    assert_eq!(not(&said), [("desk".to_owned(), NotProcessedCause::Open), not_begun.clone()]);
    let why: Vec<_> = said.decisions.iter().map(|d| (d.what, d.reason.as_str())).collect();
    assert_eq!(why, [(DecisionKind::Objected, "looks unlawful"), (DecisionKind::Declined, "it is")]);
    // What was at work may say what it did, and then it is told.
    assert!(acme.report(&late, at(5), done(&desk)).await.is_empty());
    let said = certified(t, &acme, id, day(90)).await.unwrap();
    assert_eq!(not(&said), [not_begun]);

    let taken_back = acme.instruct(at(6), erasure("noor")).await;
    acme.cancel(taken_back, at(7)).await.unwrap();
    let said = certified(t, &acme, taken_back, at(8)).await.unwrap();
    assert_eq!((said.state, not(&said).len()), (CertifiedState::Cancelled, 3));
}

/// The customer's file opens the commitment of the log, whatever systems yielded meanwhile.
pub async fn the_subject_opening_opens_what_was_staged(t: &TestStore) {
    let acme = customer(t, "acme").await;
    let crm = register(t, "crm", &[Email], &[UserId]).await;
    let shop = register(t, "shop", &[UserId], &[]).await;
    let id = acme.instruct(at(1), intake(Action::Erasure, &[email("mara")])).await;
    let task = claim_one(t, &crm, at(2)).await;
    acme.report(&task, at(3), ReportResult::Resolved(vec![user("U-7")])).await;
    let task = claim_one(t, &shop, at(4)).await;
    assert_eq!(task.subject.identifiers.len(), 2);
    let opening = SubjectOpening::new(acme.id.clone(), id, task.subject.commitment_salt, task.subject.instructed());
    assert_eq!(opening.identifiers(), ["email:mara@example.com"]);
    let said = certified(t, &acme, id, at(5)).await.unwrap();
    let committed = quittance_ledger::subject_commitment(&task.subject.commitment_salt, task.subject.instructed());
    assert_eq!(said.request.subject, committed);
}

/// What a certificate says needs nothing of what is forgotten: it is the same before and after, issued for the first time or again.
pub async fn a_forgotten_request_is_certified_all_the_same(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    acme.confirm_next(&crm, at(2)).await;
    let before = certified(t, &acme, id, day(30)).await.unwrap();
    let issued = IssuedCertificate { content: b"signed".to_vec(), issued_at: day(30) };
    t.keep_certificate(&acme.id, id, issued.clone()).await.unwrap();
    crate::forgetting::rotate(t, day(31)).await;
    assert!(acme.request(id).await.forgotten_at.is_some());
    assert_eq!(certified(t, &acme, id, day(30)).await.unwrap(), before);
    assert_eq!(t.certificate(&acme.id, id).await.unwrap(), Some(issued));
}

/// As often as it is issued anew, what stands is one file.
pub async fn a_certificate_is_replaced_by_one_only(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    acme.confirm_next(&crm, at(2)).await;
    let file = |content: &str, s| IssuedCertificate { content: content.as_bytes().to_vec(), issued_at: at(s) };
    let old = t.keep_certificate(&acme.id, id, file("by a key that was revoked", 3)).await.unwrap();
    let first = t.replace_certificate(&acme.id, id, &old, file("by another", 4)).await.unwrap();
    assert_eq!(first, file("by another", 4));
    let second = t.replace_certificate(&acme.id, id, &old, file("by another, too", 5)).await.unwrap();
    assert_eq!((&second, t.certificate(&acme.id, id).await.unwrap()), (&first, Some(first.clone())));
}

/// What is kept of the log is read a page at a time, each checkpoint once, in the order of the trees.
pub async fn kept_checkpoints_are_read_page_by_page(t: &TestStore) {
    t.begin_log("log.example").await.unwrap();
    assert_eq!(t.kept_checkpoints(0, 2).await.unwrap(), []);
    let epoch = t.log_state().await.unwrap().epoch;
    t.change("UPDATE ledger_log SET tree_size = 100").await;
    let one = |size: u64| LogCheckpoint { size, note: format!("of {size}") };
    for size in [30, 10, 50, 20] {
        t.keep_checkpoint(epoch, &one(size), 1).await.unwrap();
    }
    t.keep_checkpoint(epoch, &one(40), 0).await.unwrap();
    let page = async |from| t.kept_checkpoints(from, 2).await.unwrap();
    assert_eq!(page(0).await, [one(10), one(20)]);
    assert_eq!(page(21).await, [one(30), one(50)], "none that nobody has cosigned");
    assert_eq!(page(50).await, [one(50)]);
    assert_eq!(page(51).await, []);
    assert_eq!(t.kept_checkpoints(u64::MAX, 2).await.unwrap(), []);
    // When witnesses are exchanged, the note has the signatures of those before as well, and one with fewer does not take its place.
    let by = |who: &str| LogCheckpoint { size: 60, note: format!("of 60 by {who}") };
    for (who, cosigned) in [("a, b", 2), ("a, b, c", 1), ("c", 1)] {
        t.keep_checkpoint(epoch, &by(who), cosigned).await.unwrap();
    }
    assert_eq!(t.first_cosigned(55, 2).await.unwrap(), Some(by("a, b, c")));
    // The log is not the case's own.
    t.change("DELETE FROM ledger_checkpoints; UPDATE ledger_log SET tree_size = 0").await;
}
