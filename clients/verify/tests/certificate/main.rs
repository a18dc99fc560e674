//! Whole files: what a verifier is told of a good one, and that nothing else gets through.

mod proven;
#[expect(dead_code, reason = "shared with the ledger's tests, which need more of it")]
#[path = "../../../../services/ledger/tests/certificate/sample.rs"]
mod sample;

use proven::{ATTESTED_S, Log, cosigned, file, log_key, proven_in, witness};
use quittance_domain::{action::Action, task::TaskState};
use quittance_ledger::{
    Event, Hex, Leaf,
    certificate::{Attestation, CertificateFault, CertificateInput, KeyStatus, OpenTask, OpeningFault, WitnessKey},
    checkpoint::{Checkpoint, CheckpointError},
    cosignature::cosign,
    key::{KeyType, SignerKey},
    note::NoteError,
    proof::InvalidProof,
    tlog_proof::{TlogProof, TlogProofError},
};
use quittance_verify::{DocumentKind, Fact, Failure, Gap, Policy, Report, verify_certificate};
use sample::{SampleKey, at, signed, signed_by, signer, subject_opening};

fn policy_of(keys: &[&SignerKey], witnesses: &[&SignerKey], required: usize) -> Policy {
    let public = |keys: &[&SignerKey]| keys.iter().map(|key| key.verifier().clone()).collect();
    Policy::new(public(keys), public(witnesses), required).unwrap()
}

fn policy() -> Policy {
    policy_of(&[&log_key(7)], &[&witness()], 1)
}

fn verify(input: CertificateInput) -> Result<Report, Failure> {
    verify_certificate(&signed(input), &policy())
}

#[test]
fn a_good_certificate_is_told_with_what_was_checked_and_what_was_not() {
    let report = verify_certificate(&file(sample::rich()), &policy()).unwrap();
    assert_eq!(report.kind, DocumentKind::Certificate);
    let (key, size) = (log_key(7).verifier().id(), 315);
    for fact in [
        Fact::Canonical,
        Fact::Inclusion { entries: 15, log: log_key(7).verifier().name().clone() },
        Fact::Head { size, key },
        Fact::Witnesses { required: 1 },
        Fact::Attested { entries: 1 },
    ] {
        assert!(report.checked.contains(&fact), "{fact} is not among {:#?}", report.checked);
    }
    let told = |lines: &[String], part: &str| assert!(lines.iter().any(|l| l.contains(part)), "{part}: {lines:#?}");
    let checked: Vec<String> = report.checked.iter().map(ToString::to_string).collect();
    told(&checked, "cosigned by the witness witness.university.example");
    told(&checked, "at 2026-05-04T07:30:02Z");
    let unchecked: Vec<String> = report.unchecked.iter().map(ToString::to_string).collect();
    for part in ["ASSERTED", "14 of 15 entries bear no witness's time", "display names", "revoked", "whom it is about"]
    {
        told(&unchecked, part);
    }
    assert!(!report.unchecked.contains(&Gap::NoWitness));
}

#[test]
fn an_interim_statement_is_verified_the_same_way_and_called_so() {
    let report = verify_certificate(&file(sample::interim()), &policy()).unwrap();
    assert_eq!(report.kind, DocumentKind::InterimStatement);
    assert!(report.checked.iter().any(|fact| fact.to_string().starts_with("the interim statement is signed by")));
}

/// Every byte replaced, left out or doubled, and the file cut at every byte.
#[test]
fn any_changed_byte_is_refused() {
    let whole = file(sample::small());
    let policy = policy();
    assert!(verify_certificate(&whole, &policy).is_ok());
    let mut altered = whole.clone();
    for at in 0..whole.len() {
        let byte = whole[at];
        for other in [byte ^ 0x01, byte ^ 0x20, b' ', b'0'] {
            if other != byte {
                altered[at] = other;
                assert!(verify_certificate(&altered, &policy).is_err(), "byte {at}: {byte} replaced by {other}");
            }
        }
        altered[at] = byte;
        assert!(verify_certificate(&whole[..at], &policy).is_err(), "cut at {at}");
        let without = [&whole[..at], &whole[at + 1..]].concat();
        assert!(verify_certificate(&without, &policy).is_err(), "without byte {at}");
        let doubled = [&whole[..at], &[byte], &whole[at..]].concat();
        assert!(verify_certificate(&doubled, &policy).is_err(), "byte {at} doubled");
    }
}

/// The issuer itself cannot sign a proof that proves nothing: every byte of one is changed, and the file signed anew.
#[test]
fn a_proof_with_any_changed_byte_is_refused_under_a_good_signature() {
    let whole = proven::proven(sample::small());
    assert!(verify(whole.clone()).is_ok());
    let text = whole.entries[2].proof.clone();
    for at in 0..text.len() {
        for bit in [0, 5] {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            if let Ok(other) = String::from_utf8(bytes) {
                let mut altered = whole.clone();
                altered.entries[2].proof = other;
                // Another witness's name or key id makes it an unknown signature: then the required witness is missing.
                assert!(verify(altered).is_err(), "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn a_key_that_was_not_handed_in_signs_nothing() {
    let good = file(sample::small());
    let refused = |keys: &[&SignerKey]| verify_certificate(&good, &policy_of(keys, &[], 0)).unwrap_err();
    assert_eq!(refused(&[&log_key(6)]), Failure::Certificate(CertificateFault::UntrustedKey(0)));
    let elsewhere = signer("log.other.example", KeyType::Ed25519, 7);
    assert_eq!(refused(&[&elsewhere]), Failure::Certificate(CertificateFault::UntrustedKey(0)));
    assert!(verify_certificate(&good, &policy_of(&[&log_key(6), &log_key(7)], &[], 0)).is_ok());
    // The outer signature is by the right key, the checkpoint by a stranger's.
    let log = Log::of(&sample::small(), 0);
    let checkpoint = log.checkpoint().sign(&[&log_key(5)]).unwrap();
    let unsigned = TlogProofError::Checkpoint(CheckpointError::Note(NoteError::NoKnownSignature));
    assert_eq!(
        verify(proven_in(&log, sample::small(), &checkpoint)),
        Err(Failure::Proof { entry: 0, fault: unsigned })
    );
}

#[test]
fn a_file_of_another_log_is_refused() {
    let mut other = proven::proven(sample::small());
    other.log.origin = "log.other.example".to_owned();
    assert_eq!(verify(other), Err(Failure::OtherLog { expected: log_key(7).verifier().name().clone() }));
    // Its checkpoints as well.
    let log = Log::of(&sample::small(), 0);
    let foreign = Checkpoint::new("log.other.example", *log.checkpoint().head()).unwrap();
    let foreign = foreign.sign(&[&log_key(7)]).unwrap();
    let refused = verify(proven_in(&log, sample::small(), &foreign));
    let other_log =
        |fault: &TlogProofError| matches!(fault, TlogProofError::Checkpoint(CheckpointError::OtherLog { .. }));
    assert!(matches!(refused, Err(Failure::Proof { entry: 0, fault }) if other_log(&fault)));
}

#[test]
fn two_trees_of_one_size_are_a_fork() {
    let input = sample::small();
    let (log, fork) = (Log::of(&input, 0), Log::of(&input, 1));
    let mut forked = proven_in(&log, input, &cosigned(&log));
    forked.entries[3].proof = fork.proof(3, cosigned(&fork));
    assert_eq!(verify(forked), Err(Failure::Forked { size: 305 }));
}

#[test]
fn checkpoints_of_several_sizes_are_told_for_nothing_links_them() {
    let input = sample::small();
    let mut log = Log::of(&input, 0);
    let mut grown = proven_in(&log, input, &cosigned(&log));
    log.append(&[Leaf([9; 32])]);
    grown.entries[4].proof = log.proof(4, cosigned(&log));
    assert!(verify(grown).unwrap().unchecked.contains(&Gap::HeadsNotLinked { heads: 2 }));
}

#[test]
fn proofs_of_other_entries_prove_nothing() {
    let mut swapped = proven::proven(sample::small());
    let (a, b) = (swapped.entries[1].proof.clone(), swapped.entries[2].proof.clone());
    (swapped.entries[1].proof, swapped.entries[2].proof) = (b, a);
    let fault = TlogProofError::Inclusion(InvalidProof::RootMismatch);
    assert_eq!(verify(swapped), Err(Failure::Proof { entry: 1, fault }));
    let mut loaded = proven::proven(sample::small());
    let mut proof = TlogProof::parse(loaded.entries[1].proof.as_bytes()).unwrap();
    proof.extra = Some(vec![1]);
    loaded.entries[1].proof = proof.to_string();
    assert_eq!(verify(loaded), Err(Failure::ProofForm { entry: 1 }));
}

#[test]
fn a_witness_s_time_is_one_that_it_signed() {
    let by = |by: &str, time: &str| Attestation { at: at(time), by: by.to_owned() };
    let with = |attestation| {
        let mut input = proven::proven(sample::small());
        input.entries[4].attested = vec![attestation];
        verify(input)
    };
    assert_eq!(ATTESTED_S as i64, at("2026-05-04T07:30:02Z").as_second());
    assert!(with(by(sample::WITNESS, "2026-05-04T07:30:02Z")).is_ok());
    for time in ["2026-05-04T07:30:01Z", "2026-05-04T07:30:02.000001Z"] {
        assert_eq!(with(by(sample::WITNESS, time)), Err(Failure::NotAttested { entry: 4 }), "{time}");
    }
    // Without a cosignature, whatever the verifier knows of witnesses.
    let log = Log::of(&sample::small(), 0);
    let alone = log.checkpoint().sign(&[&log_key(7)]).unwrap();
    let mut input = proven_in(&log, sample::small(), &alone);
    input.entries[4].attested = vec![by(sample::WITNESS, "2026-05-04T07:30:02Z")];
    let none = policy_of(&[&log_key(7)], &[], 0);
    assert_eq!(verify_certificate(&signed(input), &none), Err(Failure::NotAttested { entry: 4 }));
}

#[test]
fn a_witness_that_only_the_file_names_proves_little_and_counts_for_nothing() {
    let good = file(sample::rich());
    let report = verify_certificate(&good, &policy_of(&[&log_key(7)], &[], 0)).unwrap();
    assert!(report.unchecked.contains(&Gap::WitnessOfTheFile(witness().verifier().name().clone())));
    let stranger = signer("other.example", KeyType::CosignatureV1, 9);
    let refused = verify_certificate(&good, &policy_of(&[&log_key(7)], &[&stranger], 1));
    assert_eq!(refused, Err(Failure::TooFewWitnesses { entry: 0, required: 1, found: 0 }));
    let both = verify_certificate(&good, &policy_of(&[&log_key(7)], &[&stranger, &witness()], 1)).unwrap();
    assert!(both.unchecked.contains(&Gap::SilentWitness(stranger.verifier().name().clone())));
}

/// Else whoever holds the log's key could date entries back under a name that is trusted.
#[test]
fn a_key_that_the_file_names_after_a_trusted_witness_dates_nothing() {
    let another = signer(sample::WITNESS, KeyType::CosignatureV1, 9);
    let log = Log::of(&sample::small(), 0);
    let earlier = ATTESTED_S - 86_400;
    let mut note = cosigned(&log);
    note.add(cosign(&another, &log.checkpoint(), earlier).unwrap()).unwrap();
    let dated = |time: &str| {
        let mut input = proven_in(&log, sample::small(), &note);
        let named = WitnessKey { name: sample::WITNESS.to_owned(), vkey: another.verifier().to_string() };
        input.log.witnesses.push(named);
        input.entries[4].attested = vec![Attestation { at: at(time), by: sample::WITNESS.to_owned() }];
        signed(input)
    };
    let (backdated, honest) = (dated("2026-05-03T07:30:02Z"), dated("2026-05-04T07:30:02Z"));
    assert_eq!(earlier as i64, at("2026-05-03T07:30:02Z").as_second());
    for required in [0, 1] {
        let policy = policy_of(&[&log_key(7)], &[&witness()], required);
        assert_eq!(verify_certificate(&backdated, &policy), Err(Failure::NotAttested { entry: 4 }));
        let report = verify_certificate(&honest, &policy).unwrap();
        assert!(report.unchecked.contains(&Gap::WitnessOfTheFile(witness().verifier().name().clone())));
    }
    // Who hands in both keys trusts both; who hands in none is told that the name is the issuer's word.
    for witnesses in [&[&witness(), &another] as &[&SignerKey], &[]] {
        assert!(verify_certificate(&backdated, &policy_of(&[&log_key(7)], witnesses, 0)).is_ok());
    }
}

#[test]
fn without_a_witness_the_report_says_so() {
    let log = Log::of(&sample::small(), 0);
    let alone = log.checkpoint().sign(&[&log_key(7)]).unwrap();
    let file = signed(proven_in(&log, sample::small(), &alone));
    let report = verify_certificate(&file, &policy_of(&[&log_key(7)], &[], 0)).unwrap();
    assert!(report.unchecked.contains(&Gap::NoWitness));
    assert_eq!(verify_certificate(&file, &policy()), Err(Failure::TooFewWitnesses { entry: 0, required: 1, found: 0 }));
}

#[test]
fn a_log_that_witnesses_itself_has_no_witness() {
    let log = Log::of(&sample::small(), 0);
    let itself = signer("w.example", KeyType::CosignatureV1, 7);
    let checkpoint = log.checkpoint();
    let mut note = checkpoint.sign(&[&log_key(7)]).unwrap();
    note.add(cosign(&itself, &checkpoint, ATTESTED_S).unwrap()).unwrap();
    let mut input = proven_in(&log, sample::small(), &note);
    input.log.witnesses.push(WitnessKey { name: "w.example".to_owned(), vkey: itself.verifier().to_string() });
    let none = policy_of(&[&log_key(7)], &[], 0);
    assert_eq!(verify_certificate(&signed(input), &none), Err(Failure::WitnessIsAnother { number: 1 }));
}

#[test]
fn a_key_that_the_file_calls_revoked_before_it_signed_is_refused() {
    let key = log_key(6).verifier().id();
    let (old, new) = (log_key(6), log_key(7));
    let both = policy_of(&[&old, &new], &[&witness()], 1);
    let by_old = |status, to: &str| {
        let mut input = proven::proven(sample::small());
        input.log.keys[0].status = status;
        input.log.keys[0].to = Some(at(to));
        verify_certificate(&signed_by(&SampleKey::new(6), input), &both)
    };
    assert_eq!(by_old(KeyStatus::Revoked, "2025-06-01T00:00:00Z"), Err(Failure::Revoked { key }));
    assert_eq!(by_old(KeyStatus::Retired, "2025-06-01T00:00:00Z"), Err(Failure::OutOfUse { key }));
    // What it signed in its time stands.
    assert!(by_old(KeyStatus::Retired, "2026-06-01T00:00:00Z").is_ok());
    // One that began later had not signed it.
    let mut early = proven::proven(sample::small());
    early.log.keys[0].from = at("2026-06-01T00:00:00Z");
    early.log.keys[0].to = Some(at("2026-07-01T00:00:00Z"));
    let refused = verify_certificate(&signed_by(&SampleKey::new(6), early), &both);
    assert_eq!(refused, Err(Failure::OutOfUse { key }));
    // A checkpoint that it alone signed counts for nothing, and one that the new key signed, too, is as good as ever.
    let by_log = |keys: &[&SignerKey]| {
        let log = Log::of(&sample::small(), 0);
        let checkpoint = log.checkpoint();
        let mut note = checkpoint.sign(keys).unwrap();
        note.add(cosign(&witness(), &checkpoint, ATTESTED_S).unwrap()).unwrap();
        let mut input = proven_in(&log, sample::small(), &note);
        input.log.keys[0].status = KeyStatus::Revoked;
        verify_certificate(&signed(input), &both)
    };
    assert_eq!(by_log(&[&old]), Err(Failure::Revoked { key }));
    assert!(by_log(&[&old, &new]).unwrap().unchecked.contains(&Gap::RevokedKey(key)));
}

#[test]
fn a_history_with_keys_that_are_none_is_refused() {
    let with = |change: fn(&mut CertificateInput)| {
        let mut input = proven::proven(sample::small());
        change(&mut input);
        verify(input).unwrap_err()
    };
    assert!(matches!(
        with(|i| i.log.keys[0].vkey = "log.processor.example/quittance+00000000+AA==".to_owned()),
        Failure::HistoryKey { number: 0, .. }
    ));
    let foreign = with(|i| i.log.keys[0].vkey = signer("x.example", KeyType::Ed25519, 6).verifier().to_string());
    assert_eq!(foreign, Failure::NotOfTheLog { number: 0 });
    let typed = with(|i| i.log.witnesses[0].vkey = signer(sample::WITNESS, KeyType::Ed25519, 8).verifier().to_string());
    assert_eq!(typed, Failure::WitnessForm { number: 0 });
    assert_eq!(with(|i| i.log.witnesses.push(i.log.witnesses[0].clone())), Failure::WitnessForm { number: 1 });
}

#[test]
fn the_subject_opening_tells_whom_it_is_about() {
    let report = verify_certificate(&file(sample::small()), &policy()).unwrap();
    assert!(report.unchecked.contains(&Gap::Subject));
    let opened = report.clone().with_subject_opening(&subject_opening().write().unwrap()).unwrap();
    assert!(opened.checked.contains(&Fact::Subject { identifiers: 2 }) && !opened.unchecked.contains(&Gap::Subject));
    let mut other = subject_opening();
    other.salt = Hex([1; 32]);
    let refused = report.with_subject_opening(&other.write().unwrap());
    assert_eq!(refused, Err(Failure::Opening(OpeningFault::Mismatch)));
}

/// It was made without identifiers, and names nobody.
#[test]
fn what_carries_another_request_on_promises_no_opening() {
    let mut instructed = sample::instructed(Action::Erasure);
    if let Event::Instructed { follows, .. } = &mut instructed {
        *follows = Some(sample::request());
    }
    let mut input = sample::input(sample::openings(&[instructed, sample::planned(&["crm"])]), &["crm"]);
    let waits = OpenTask { state: TaskState::Pending, reason: String::new() };
    input.open.insert(sample::system("crm"), waits);
    let report = verify_certificate(&file(input), &policy()).unwrap();
    assert!(report.unchecked.contains(&Gap::SubjectOfFollowed) && !report.unchecked.contains(&Gap::Subject));
}
