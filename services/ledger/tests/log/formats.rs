//! Notes, checkpoints, cosignatures, offline proofs: what is accepted, and that nothing altered is.

use crate::common::{Log, ORIGIN, WITNESS_TIME, altered, leaf, log_key, log_keys, public, signer, witness};
use quittance_ledger::{
    checkpoint::{self, Checkpoint, CheckpointError, LogKeys},
    cosignature::{CosignError, cosign},
    key::{KeyError, KeyType, VerifierKey},
    note::{MAX_SIGNATURES, NoteError, SignedNote, Statement},
    proof::{InvalidProof, consistency, inclusion},
    tlog_proof::{TlogProof, TlogProofError},
    tree::{MerkleHash, TreeHead},
    witness::{AddCheckpoint, Refusal, read_answer, read_old_size},
};

/// The example of the specification.
#[test]
fn the_note_of_the_specification_verifies() {
    let key: VerifierKey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k".parse().unwrap();
    let text = "This is an example message.\n\n\u{2014} example.com/foo \
                Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let note = SignedNote::parse(text.as_bytes()).unwrap();
    assert_eq!(note.to_string(), text);
    let verified = note.verify(std::slice::from_ref(&key)).unwrap();
    assert_eq!(verified.signatures[0].statement, Statement::Signed);
    assert_eq!(key.to_string(), "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k");
    assert_eq!(note.verify(&[log_key().verifier().clone()]), Err(NoteError::NoKnownSignature));
}

/// The example of the specification: signed by its log and cosigned.
#[test]
fn the_checkpoint_of_the_specification_is_read() {
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let checkpoint = Checkpoint::parse(text).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.head().size), ("example.com/behind-the-sofa", 20_852_163));
    assert_eq!(checkpoint.text(), text);
    let extended = format!("{text}more\nlines\n");
    assert_eq!(Checkpoint::parse(&extended).unwrap().extensions(), ["more", "lines"]);
}

#[test]
fn a_checkpoint_in_any_other_spelling_is_refused() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let loose = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=";
    for text in [
        String::new(),
        "a\n".into(),
        "a\n1\n".into(),
        format!("a\n1\n{root}"),
        format!("\n1\n{root}\n"),
        format!("a\n01\n{root}\n"),
        format!("a\n+1\n{root}\n"),
        format!("a\n-1\n{root}\n"),
        format!("a\n1 \n{root}\n"),
        format!("a\n9223372036854775808\n{root}\n"),
        format!("a\n1\n{loose}\n"),
        format!("a\n1\n{}\n", &root[..43]),
        format!("a\n1\nAA{root}\n"),
        format!("a\n1\n{root}\n\n"),
        format!("a\n1\n{root}\nx\n\ny\n"),
        format!("a\n1\n{root}\n{}", "x\n".repeat(17)),
        format!("a\r\n1\n{root}\n"),
        format!("a\n0\n{root}\n"),
    ] {
        assert!(Checkpoint::parse(&text).is_err(), "{text:?}");
    }
}

#[test]
fn a_malformed_note_is_refused_whatever_is_wrong_with_it() {
    let good = Log::of(5).signed().to_string();
    let (text, line) = good.split_once("\n\n").unwrap();
    let encoded = line.trim_end().rsplit(' ').next().unwrap();
    for bad in [
        String::new(),
        text.to_owned(),
        format!("{text}\n\n"),
        format!("{text}\n{line}"),
        good.trim_end().to_owned(),
        format!("{good}\n"),
        format!("{good}x"),
        good.replace('\n', "\r\n"),
        good.replacen("ledger", "led\tger", 1),
        format!("{text}\n\n- {ORIGIN} {encoded}\n"),
        format!("{text}\n\n\u{2014} {ORIGIN}  {encoded}\n"),
        format!("{text}\n\n\u{2014}  {encoded}\n"),
        format!("{text}\n\n\u{2014} a+b {encoded}\n"),
        format!("{text}\n\n\u{2014} {ORIGIN} {encoded} \n"),
        format!("{text}\n\n\u{2014} {ORIGIN} {}\n", encoded.trim_end_matches('=')),
        format!("{text}\n\n\u{2014} {ORIGIN} AAAAAA==\n"),
        format!("{text}\n\n{}", line.repeat(MAX_SIGNATURES + 1)),
    ] {
        assert!(SignedNote::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert_eq!(SignedNote::parse(&[good.as_bytes(), b"\xff"].concat()), Err(NoteError::Encoding));
    assert!(SignedNote::parse(format!("{text}\n\n{}", line.repeat(MAX_SIGNATURES)).as_bytes()).is_ok());
}

#[test]
fn every_single_byte_of_a_cosigned_checkpoint_counts() {
    let log = Log::of(300);
    let mut note = log.signed();
    note.add(cosign(&witness(1), &log.checkpoint(), WITNESS_TIME).unwrap()).unwrap();
    let witnesses = public(&[&witness(1)]);
    let good = checkpoint::verify(&note, &log_keys(), &witnesses).unwrap();
    assert_eq!(good.cosignatures[0].at_s, WITNESS_TIME);

    let text = note.to_string();
    for other in altered(text.as_bytes()) {
        let read = SignedNote::parse(&other).map_err(CheckpointError::from);
        if let Ok(verified) = read.and_then(|note| checkpoint::verify(&note, &log_keys(), &witnesses)) {
            // All that a change can achieve is that the witness's line is nobody's whom we know.
            assert_eq!(verified.checkpoint, good.checkpoint);
            assert_eq!(verified.log_keys, good.log_keys);
            assert!(verified.cosignatures.is_empty());
            assert_eq!(verified.unknown_signatures, 1);
        }
    }
}

#[test]
fn signatures_of_unknown_keys_are_ignored_and_counted_and_an_invalid_one_of_a_known_key_spoils_the_note() {
    let log = Log::of(7);
    let stranger = signer("stranger.example", KeyType::Ed25519, 9);
    // Same name as the log, another key: still a stranger.
    let namesake = signer(ORIGIN, KeyType::Ed25519, 10);
    let note = log.checkpoint().sign(&[&stranger, &log_key(), &namesake]).unwrap();
    let verified = checkpoint::verify(&note, &log_keys(), &[]).unwrap();
    assert_eq!((verified.log_keys.len(), verified.unknown_signatures), (1, 2));

    let only_strangers = log.checkpoint().sign(&[&stranger, &namesake]).unwrap();
    let refused = checkpoint::verify(&only_strangers, &log_keys(), &[]);
    assert_eq!(refused, Err(NoteError::NoKnownSignature.into()));

    // A good signature of another text, put under this one.
    let other = Log::of(8).signed();
    let (text, _) = note.to_string().split_once("\n\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let moved = SignedNote::parse(format!("{text}\n\n{}\n", other.signatures()[0]).as_bytes()).unwrap();
    assert!(matches!(
        checkpoint::verify(&moved, &log_keys(), &[]),
        Err(CheckpointError::Note(NoteError::InvalidSignature(..)))
    ));
}

#[test]
fn a_witness_alone_does_not_make_a_checkpoint() {
    let log = Log::of(7);
    let cosigned = cosign(&witness(1), &log.checkpoint(), WITNESS_TIME).unwrap();
    let note = SignedNote::parse(format!("{}\n{cosigned}\n", log.checkpoint().text()).as_bytes()).unwrap();
    let witnesses = public(&[&witness(1)]);
    assert_eq!(checkpoint::verify(&note, &log_keys(), &witnesses), Err(CheckpointError::NotSignedByLog));
    assert!(note.verify(&witnesses).is_ok());
}

#[test]
fn keys_sign_only_what_their_type_is_for() {
    let checkpoint = Log::of(7).checkpoint();
    assert_eq!(checkpoint.sign(&[&witness(1)]), Err(NoteError::Key(KeyError::WrongType)));
    assert_eq!(cosign(&log_key(), &checkpoint, 1), Err(CosignError::Key(KeyError::WrongType)));
    for time in [0, 1 << 63] {
        assert_eq!(cosign(&witness(1), &checkpoint, time), Err(CosignError::Time));
    }
    let log = log_key().verifier().clone();
    assert_eq!(LogKeys::new(public(&[&witness(1)])), Err(CheckpointError::LogKeys));
    assert_eq!(LogKeys::new(vec![]), Err(CheckpointError::LogKeys));
    assert_eq!(LogKeys::new(vec![log.clone(), log.clone()]), Err(CheckpointError::LogKeys));
    let note = Log::of(7).signed();
    assert_eq!(checkpoint::verify(&note, &log_keys(), std::slice::from_ref(&log)), Err(CheckpointError::WitnessKeys));
    assert!(matches!(note.verify(&[log.clone(), log]), Err(NoteError::AmbiguousKeys(..))));
}

#[test]
fn a_checkpoint_of_another_log_is_refused_even_with_a_signature_of_ours() {
    let elsewhere = Checkpoint::new("elsewhere.example/log", Log::of(7).head()).unwrap();
    let note = elsewhere.sign(&[&log_key()]).unwrap();
    assert!(matches!(checkpoint::verify(&note, &log_keys(), &[]), Err(CheckpointError::OtherLog { .. })));
}

#[test]
fn while_a_key_is_rotated_either_key_is_enough_and_an_unknown_one_is_not() {
    let (old, new) = (log_key(), signer(ORIGIN, KeyType::Ed25519, 2));
    let both = LogKeys::new(public(&[&old, &new])).unwrap();
    let only_new = LogKeys::new(public(&[&new])).unwrap();
    let checkpoint = Log::of(7).checkpoint();
    for signers in [vec![&old], vec![&new], vec![&old, &new]] {
        let note = checkpoint.sign(&signers).unwrap();
        assert_eq!(checkpoint::verify(&note, &both, &[]).unwrap().log_keys.len(), signers.len());
    }
    assert!(checkpoint::verify(&checkpoint.sign(&[&old]).unwrap(), &only_new, &[]).is_err());
}

/// The same S plus the group's order is another encoding of the same signature: strict verification knows one only.
#[test]
fn a_signature_with_an_unreduced_scalar_is_refused() {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    use base64::{Engine, engine::general_purpose::STANDARD};
    let note = Log::of(7).signed();
    let line = note.signatures()[0].to_string();
    let encoded = line.rsplit(' ').next().unwrap();
    let mut raw = STANDARD.decode(encoded).unwrap();
    let mut carry = 0;
    for (byte, order) in raw[4 + 32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    let altered = note.to_string().replace(encoded, &STANDARD.encode(raw));
    let altered = SignedNote::parse(altered.as_bytes()).unwrap();
    assert!(matches!(
        checkpoint::verify(&altered, &log_keys(), &[]),
        Err(CheckpointError::Note(NoteError::InvalidSignature(..)))
    ));
}

fn proof_of(log: &Log, index: u64) -> TlogProof {
    let mut checkpoint = log.signed();
    for number in [1, 2] {
        checkpoint.add(cosign(&witness(number), &log.checkpoint(), WITNESS_TIME).unwrap()).unwrap();
    }
    let hashes = inclusion(&log.tiles, index, log.head().size).unwrap();
    TlogProof { extra: None, index, hashes, checkpoint }
}

#[test]
fn an_offline_proof_is_read_back_and_verifies() {
    for (size, index) in [(1, 0), (2, 1), (300, 17), (300, 299)] {
        let log = Log::of(size);
        let mut proof = proof_of(&log, index);
        for extra in [None, Some(b"context".to_vec())] {
            proof.extra = extra;
            let read = TlogProof::parse(proof.to_string().as_bytes()).unwrap();
            assert_eq!(read, proof);
            let witnesses = public(&[&witness(1), &witness(2)]);
            let verified = read.verify(&MerkleHash::of_leaf(&leaf(index)), &log_keys(), &witnesses).unwrap();
            assert_eq!(verified.cosignatures.len(), 2);
            assert_eq!(verified.checkpoint, log.checkpoint());
        }
    }
}

#[test]
fn every_single_byte_of_an_offline_proof_counts() {
    let log = Log::of(100);
    let proof = proof_of(&log, 70);
    let witnesses = public(&[&witness(1), &witness(2)]);
    let leaf_hash = MerkleHash::of_leaf(&leaf(70));
    let text = proof.to_string();
    for other in altered(text.as_bytes()) {
        let Ok(read) = TlogProof::parse(&other) else { continue };
        if let Ok(verified) = read.verify(&leaf_hash, &log_keys(), &witnesses) {
            assert_eq!((read.index, &read.hashes, read.extra), (70, &proof.hashes, None));
            assert_eq!(verified.checkpoint, log.checkpoint());
            assert_eq!((verified.cosignatures.len(), verified.unknown_signatures), (1, 1));
        }
    }
    for end in 0..text.len() {
        let cut = TlogProof::parse(&text.as_bytes()[..end]);
        let verified = cut.and_then(|proof| proof.verify(&leaf_hash, &log_keys(), &witnesses));
        // Cut after a signature line it is a whole proof with fewer witnesses.
        if let Ok(verified) = verified {
            assert!(text[..end].ends_with('\n') && verified.cosignatures.len() < 2);
        }
    }
}

#[test]
fn a_malformed_offline_proof_is_refused_and_says_why() {
    let proof = proof_of(&Log::of(3), 2);
    let text = proof.to_string();
    let parse = |text: String| TlogProof::parse(text.as_bytes()).unwrap_err();
    assert_eq!(parse(text.replace("@v1", "@v2")), TlogProofError::Header);
    assert_eq!(parse(text.replace("index 2", "index 02")), TlogProofError::Index);
    assert_eq!(parse(text.replace("index 2", "extra \nindex 2")), TlogProofError::Extra);
    assert_eq!(parse(text.replace("index 2", "extra QQ=\nindex 2")), TlogProofError::Extra);
    assert_eq!(parse(text.replace("index 2", "index 2\nQQ==")), TlogProofError::Hash(1));
    assert_eq!(parse(text.replace("index 2", "index 2\nindex 2")), TlogProofError::Hash(1));
    let line = format!("{}\n", proof.hashes[0]);
    assert_eq!(parse(text.replace(&line, &line.repeat(64))), TlogProofError::TooLarge);
    assert_eq!(parse(text.replace("\n\n", "\n")), TlogProofError::NoCheckpoint);
    assert!(TlogProof::parse(text.replace("index 2", "extra QQ==\nindex 2").as_bytes()).is_ok());
}

#[test]
fn an_offline_proof_of_another_leaf_index_or_length_is_refused() {
    let log = Log::of(100);
    let good = proof_of(&log, 70);
    let verify = |proof: &TlogProof, index| proof.verify(&MerkleHash::of_leaf(&leaf(index)), &log_keys(), &[]);
    assert!(verify(&good, 70).is_ok());
    assert_eq!(verify(&good, 71), Err(InvalidProof::RootMismatch.into()));
    for index in [0, 69, 71, 99, 100, u64::MAX] {
        assert!(matches!(verify(&TlogProof { index, ..good.clone() }, 70), Err(TlogProofError::Inclusion(_))));
    }
    let mut short = good.clone();
    short.hashes.pop();
    assert_eq!(verify(&short, 70), Err(InvalidProof::TooShort.into()));
    let mut long = good.clone();
    long.hashes.push(MerkleHash([0; 32]));
    assert_eq!(verify(&long, 70), Err(InvalidProof::TooLong.into()));
    // The proof of the same entry in a smaller tree does not fit the checkpoint of the larger.
    let older = TlogProof { hashes: inclusion(&Log::of(71).tiles, 70, 71).unwrap(), ..good };
    assert!(verify(&older, 70).is_err());
}

fn request(old: &Log, new: &Log) -> AddCheckpoint {
    let consistency = consistency(&new.tiles, old.head().size, new.head().size).unwrap();
    AddCheckpoint { old_size: old.head().size, consistency, checkpoint: new.signed() }
}

#[test]
fn a_witness_signs_what_continues_what_it_signed_before() {
    let mut latest = Log::default();
    for size in [0, 1, 5, 5, 300] {
        let next = Log::of(size);
        let sent = request(&latest, &next).to_string();
        let received = AddCheckpoint::parse(sent.as_bytes()).unwrap();
        let checkpoint = received.judge(&log_keys(), &latest.head()).unwrap();
        assert_eq!(checkpoint, next.checkpoint());

        let answer = format!("{}\n", cosign(&witness(1), &checkpoint, WITNESS_TIME).unwrap());
        let answer = read_answer(answer.as_bytes(), &next.signed(), &public(&[&witness(1)]));
        assert_eq!((answer.cosignatures.len(), answer.ignored), (1, 0));
        let mut note = next.signed();
        note.add(answer.cosignatures[0].clone()).unwrap();
        let verified = checkpoint::verify(&note, &log_keys(), &public(&[&witness(1)])).unwrap();
        assert_eq!(verified.cosignatures[0].at_s, WITNESS_TIME);
        latest = next;
    }
}

#[test]
fn a_witness_refuses_with_the_status_of_the_specification() {
    let (old, new) = (Log::of(5), Log::of(300));
    let judge = |request: &AddCheckpoint, latest: &TreeHead| request.judge(&log_keys(), latest).unwrap_err();
    let good = request(&old, &new);

    assert_eq!(judge(&good, &Log::of(7).head()), Refusal::OldSize(7));
    let mut shrinking = good.clone();
    shrinking.old_size = 301;
    assert_eq!(judge(&shrinking, &new.head()).http_status(), 400);
    let mut forked = old.head();
    forked.root = MerkleHash([1; 32]);
    assert_eq!(judge(&good, &forked).http_status(), 422);
    assert_eq!(judge(&request(&new, &new), &TreeHead { root: forked.root, ..new.head() }).http_status(), 422);
    let mut unneeded = request(&Log::default(), &new);
    unneeded.consistency = good.consistency.clone();
    assert_eq!(judge(&unneeded, &TreeHead::empty()).http_status(), 422);
    let empty = format!("old 0\n\n{ORIGIN}\n0\n{}\n", MerkleHash([1; 32]));
    let empty = SignedNote::sign(empty.split_once("\n\n").unwrap().1.to_owned(), &[&log_key()]).unwrap();
    let empty = AddCheckpoint { old_size: 0, consistency: vec![], checkpoint: empty };
    assert_eq!(judge(&empty, &TreeHead::empty()).http_status(), 422);

    let stranger = signer(ORIGIN, KeyType::Ed25519, 9);
    let mut unsigned = good.clone();
    unsigned.checkpoint = new.checkpoint().sign(&[&stranger]).unwrap();
    assert_eq!(judge(&unsigned, &old.head()), Refusal::NotSigned);
    let elsewhere = Checkpoint::new("elsewhere.example", new.head()).unwrap().sign(&[&log_key()]).unwrap();
    assert_eq!(judge(&AddCheckpoint { checkpoint: elsewhere, ..good.clone() }, &old.head()), Refusal::UnknownLog);

    let text = good.to_string();
    for bad in [
        String::new(),
        text.replace("old 5", "old 05"),
        text.replace("old 5", "new 5"),
        text.replace("old 5", "old 5\nQQ=="),
        text.replace("old 5\n", &format!("old 5\n{}", format!("{}\n", MerkleHash([1; 32])).repeat(64))),
    ] {
        assert_eq!(AddCheckpoint::parse(bad.as_bytes()), Err(Refusal::Malformed));
    }
}

#[test]
fn a_witness_that_answers_nonsense_is_ignored_and_counted() {
    let log = Log::of(20);
    let good = cosign(&witness(1), &log.checkpoint(), WITNESS_TIME).unwrap().to_string();
    let other = cosign(&witness(1), &Log::of(21).checkpoint(), WITNESS_TIME).unwrap().to_string();
    let unknown = cosign(&witness(2), &log.checkpoint(), WITNESS_TIME).unwrap().to_string();
    let keys = public(&[&witness(1)]);
    let body = format!("hello\n{other}\n{unknown}\n{good}\n{good}\n\u{2014} x\n");
    let answer = read_answer(body.as_bytes(), &log.signed(), &keys);
    assert_eq!((answer.cosignatures.len(), answer.ignored), (1, 5));
    assert_eq!(read_answer(b"\xff\x00", &log.signed(), &keys).ignored, 1);
    assert_eq!(read_answer(&b"x\n".repeat(1_000_000), &log.signed(), &keys).ignored, MAX_SIGNATURES);
}

#[test]
fn a_witness_tells_its_size_in_one_spelling() {
    assert_eq!(read_old_size(b"20852014\n"), Some(20_852_014));
    for bad in [&b"1"[..], b"01\n", b"1\n\n", b" 1\n", b"-1\n", b"\n", b"", b"99999999999999999999\n", b"\xff\n"] {
        assert_eq!(read_old_size(bad), None, "{bad:?}");
    }
}
