//! One offline proof: what a verifier is told, and that nothing altered gets through.

use std::collections::HashMap;

use quittance_ledger::{
    Leaf,
    checkpoint::{Checkpoint, CheckpointError},
    cosignature::cosign,
    integrate::{RightEdge, integrate},
    key::{KeyType, SignerKey},
    note::NoteError,
    proof::{InvalidProof, inclusion},
    tlog_proof::{TlogProof, TlogProofError},
};
use quittance_verify::{Checked, Policy, PolicyError, Unchecked, VerifierKey, VerifyError, verify_tlog_proof};

const SIZE: u64 = 300;
const INDEX: u64 = 123;
const AT_S: u64 = 1_790_000_000;

fn signer(name: &str, key_type: KeyType, seed: u8) -> SignerKey {
    SignerKey::from_seed(name.parse().unwrap(), key_type, &[seed; 32]).unwrap()
}

fn log(seed: u8) -> SignerKey {
    signer("ledger.example/log", KeyType::Ed25519, seed)
}

fn witness(number: u8) -> SignerKey {
    signer(&format!("w{number}.example"), KeyType::CosignatureV1, 100 + number)
}

fn public(keys: &[SignerKey]) -> Vec<VerifierKey> {
    keys.iter().map(|key| key.verifier().clone()).collect()
}

fn entry(index: u64) -> [u8; 32] {
    [index as u8; 32]
}

fn proof(log: &SignerKey, witnesses: &[SignerKey]) -> TlogProof {
    let leaves: Vec<Leaf> = (0..SIZE).map(|index| Leaf(entry(index))).collect();
    let (edge, tiles) = integrate(&RightEdge::empty(), &leaves).unwrap();
    let tiles: HashMap<_, _> = tiles.into_iter().map(|write| (write.tile, write.bytes)).collect();
    let checkpoint = Checkpoint::new(log.verifier().name().as_str(), edge.head()).unwrap();
    let mut note = checkpoint.sign(&[log]).unwrap();
    for witness in witnesses {
        note.add(cosign(witness, &checkpoint, AT_S).unwrap()).unwrap();
    }
    TlogProof { extra: None, index: INDEX, hashes: inclusion(&tiles, INDEX, SIZE).unwrap(), checkpoint: note }
}

fn policy(witnesses: &[SignerKey], required: usize) -> Policy {
    Policy::new(public(&[log(1)]), public(witnesses), required).unwrap()
}

#[test]
fn a_good_proof_tells_all_that_was_checked() {
    let text = proof(&log(1), &[witness(1), witness(2)]).to_string();
    let verdict = verify_tlog_proof(text.as_bytes(), &entry(INDEX), &policy(&[witness(1), witness(2)], 2)).unwrap();
    assert_eq!((verdict.index, verdict.head.size), (INDEX, SIZE));
    let checked: Vec<String> = verdict.checked.iter().map(ToString::to_string).collect();
    let id = |key: &SignerKey| key.verifier().id();
    assert_eq!(
        checked,
        [
            format!("the checkpoint is signed by the log ledger.example/log (key {})", id(&log(1))),
            format!(
                "the checkpoint is cosigned by the witness w1.example (key {}) at 2026-09-21T14:13:20Z",
                id(&witness(1))
            ),
            format!(
                "the checkpoint is cosigned by the witness w2.example (key {}) at 2026-09-21T14:13:20Z",
                id(&witness(2))
            ),
            "2 witnesses cosigned, 2 are required".to_owned(),
            "the entry is number 123 in the log of 300 entries".to_owned(),
        ]
    );
    assert_eq!(verdict.unchecked, []);
}

#[test]
fn what_could_not_be_checked_is_told() {
    let mut proof = proof(&log(1), &[witness(3)]);
    proof.extra = Some(vec![1, 2, 3]);
    let verdict = verify_tlog_proof(proof.to_string().as_bytes(), &entry(INDEX), &policy(&[witness(1)], 0)).unwrap();
    assert_eq!(
        verdict.unchecked,
        [
            Unchecked::UnknownSignatures(1),
            Unchecked::ExtraData { bytes: 3 },
            Unchecked::SilentWitness("w1.example".parse().unwrap()),
            Unchecked::NoWitness,
        ]
    );
    assert!(!verdict.checked.iter().any(|c| matches!(c, Checked::Witnesses { .. } | Checked::Cosignature { .. })));
}

#[test]
fn too_few_witnesses_are_refused_and_one_that_signed_twice_is_one() {
    let known = [witness(1), witness(2)];
    let text = proof(&log(1), &[witness(1), witness(3)]).to_string();
    let refused = |text: &str| verify_tlog_proof(text.as_bytes(), &entry(INDEX), &policy(&known, 2)).unwrap_err();
    assert_eq!(refused(&text), VerifyError::TooFewWitnesses { required: 2, found: 1 });
    let twice = proof(&log(1), &[witness(1), witness(1)]).to_string();
    assert_eq!(refused(&twice), VerifyError::TooFewWitnesses { required: 2, found: 1 });
}

#[test]
fn another_entry_another_key_and_another_log_are_refused_with_the_reason() {
    let text = proof(&log(1), &[]).to_string();
    let verify = |text: &str, entry: &[u8]| verify_tlog_proof(text.as_bytes(), entry, &policy(&[], 0));
    assert!(verify(&text, &entry(INDEX)).is_ok());
    assert_eq!(
        verify(&text, &entry(INDEX + 1)).unwrap_err(),
        VerifyError::Proof(TlogProofError::Inclusion(InvalidProof::RootMismatch))
    );
    assert!(verify(&text, &entry(INDEX)[..31]).is_err());
    assert_eq!(
        verify(&proof(&log(2), &[]).to_string(), &entry(INDEX)).unwrap_err(),
        VerifyError::Proof(TlogProofError::Checkpoint(NoteError::NoKnownSignature.into()))
    );
    let elsewhere = signer("elsewhere.example/log", KeyType::Ed25519, 1);
    assert!(matches!(
        verify(&proof(&elsewhere, &[]).to_string(), &entry(INDEX)).unwrap_err(),
        VerifyError::Proof(TlogProofError::Checkpoint(CheckpointError::OtherLog { .. }))
    ));
}

#[test]
fn with_the_witnesses_required_no_byte_of_a_proof_can_be_altered_cut_or_added() {
    let text = proof(&log(1), &[witness(1)]).to_string().into_bytes();
    let policy = policy(&[witness(1)], 1);
    let verify = |text: &[u8]| verify_tlog_proof(text, &entry(INDEX), &policy);
    assert!(verify(&text).is_ok());
    for at in 0..text.len() {
        for byte in 0..=255 {
            let mut other = text.clone();
            other[at] = byte;
            assert!(byte == text[at] || verify(&other).is_err(), "{at} {byte}");
        }
        assert!(verify(&text[..at]).is_err(), "cut at {at}");
        assert!(verify(&[&text[..at], &text[at + 1..]].concat()).is_err(), "without {at}");
    }
    assert!(verify(&[text.as_slice(), b"\n"].concat()).is_err());
}

#[test]
fn a_policy_that_would_deceive_its_owner_is_refused() {
    let witnesses = public(&[witness(1)]);
    let logs = public(&[log(1)]);
    assert_eq!(
        Policy::new(logs.clone(), witnesses.clone(), 2),
        Err(PolicyError::Unreachable { required: 2, known: 1 })
    );
    assert!(matches!(Policy::new(logs.clone(), logs.clone(), 0), Err(PolicyError::NotAWitness(_))));
    assert!(matches!(Policy::new(witnesses.clone(), vec![], 0), Err(PolicyError::Log(_))));
    assert!(matches!(Policy::new(vec![], witnesses.clone(), 0), Err(PolicyError::Log(_))));
    let renamed = signer("other.example", KeyType::CosignatureV1, 101);
    assert!(matches!(Policy::new(logs.clone(), public(&[witness(1), renamed]), 1), Err(PolicyError::SameKey(..))));
    let itself = signer("ledger.example/witness", KeyType::CosignatureV1, 1);
    assert!(matches!(Policy::new(logs, public(&[itself]), 1), Err(PolicyError::SameKey(..))));
}
