//! A whole certificate, or a statement of a request that is not complete: from the file's bytes to what can be relied on.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use quittance_ledger::{
    Leaf,
    certificate::{
        self, Attestation, BY_SIGNATURE_ALONE, Certificate, CertificateFault, CertifiedState, EntryOpening, KeyStatus,
        OpeningFault, SubjectOpening, TrustedKey,
    },
    checkpoint::{self, CheckpointError, Cosignature, LogKeys, VerifiedCheckpoint},
    key::{KeyError, KeyId, KeyName, KeyType, VerifierKey},
    note::{NoteError, SignedNote},
    proof::verify_inclusion,
    tlog_proof::{TlogProof, TlogProofError},
    tree::MerkleHash,
};

use crate::{
    Policy,
    report::{DocumentKind, Fact, Gap, Report},
};

/// Why a file proves nothing. Entries, keys and witnesses are counted from 0, as they stand in the file. No personal data (I10).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    #[error("the file is of another log than {expected}, whose keys were handed in")]
    OtherLog { expected: KeyName },
    #[error("key {number} of the file's key history: {fault}")]
    HistoryKey { number: usize, fault: KeyError },
    #[error("key {number} of the file's key history is not an Ed25519 key of its log")]
    NotOfTheLog { number: usize },
    #[error("key {number} of the file's key history bears the name and id of {handed_in}, and is another key")]
    AnotherKey { number: usize, handed_in: KeyId },
    #[error("witness {number} of the file: {fault}")]
    WitnessKey { number: usize, fault: KeyError },
    #[error("witness {number} of the file has a key of another name or type, or one that is there twice")]
    WitnessForm { number: usize },
    #[error("witness {number} of the file has the key of the log, or of another witness")]
    WitnessIsAnother { number: usize },
    #[error("the key {key} was revoked when it signed, the file's own key history says")]
    Revoked { key: KeyId },
    #[error("the key {key} was not in use when the file was issued, its own key history says")]
    OutOfUse { key: KeyId },
    #[error("entry {entry}: {fault}")]
    Proof { entry: usize, fault: TlogProofError },
    #[error("entry {entry}: its proof is not written in the one canonical way, or carries data that proves nothing")]
    ProofForm { entry: usize },
    #[error("entry {entry}: its proof is for the same place in the log as another's")]
    SamePlace { entry: usize },
    #[error("entry {entry}: {required} witnesses are required, and {found} cosigned")]
    TooFewWitnesses { entry: usize, required: usize, found: usize },
    #[error("entry {entry}: it bears a witness's time, and no cosignature in its proof says so")]
    NotAttested { entry: usize },
    #[error("the log is forked: it signed two different trees of {size} entries")]
    Forked { size: u64 },
    #[error("the subject opening: {0}")]
    Opening(#[from] OpeningFault),
}

/// Verifies a certificate or a statement against the keys and witnesses of the policy. The keys that stand in the file are a
/// hint for finding the right one: none of them is believed.
pub fn verify_certificate(file: &[u8], policy: &Policy) -> Result<Report, Failure> {
    let trusted: Vec<TrustedKey> = policy.log().keys().iter().map(TrustedKey::from).collect();
    let opened = certificate::open(file, &trusted)?;
    let certificate = opened.certificate;
    let consistent = certificate::check_consistency(&certificate)?;
    let origin = policy.log().origin();
    if certificate.log.origin != origin.as_str() {
        return Err(Failure::OtherLog { expected: origin.clone() });
    }
    let log = Log::of(&certificate, policy, &opened.signed_by)?;
    let proven = log.prove(&certificate.entries)?;

    let kind = match consistent.state {
        CertifiedState::Interim => DocumentKind::InterimStatement,
        CertifiedState::Declined | CertifiedState::Cancelled => DocumentKind::ClosingStatement,
        CertifiedState::Completed | CertifiedState::CompletedWithExceptions => DocumentKind::Certificate,
    };
    let mut checked = vec![Fact::Canonical];
    checked.extend(opened.signed_by.into_iter().map(|key| Fact::Signed { kind, key }));
    checked.push(Fact::KeyHistory { keys: certificate.log.keys.len() });
    checked.push(Fact::Statement { kind, consistent });
    checked.push(Fact::Inclusion { entries: proven.places.len(), log: origin.clone() });
    checked.extend(proven.heads());
    if policy.required() > 0 {
        checked.push(Fact::Witnesses { required: policy.required() });
    }
    let attested = certificate.entries.iter().filter(|entry| !entry.attested.is_empty()).count();
    if attested > 0 {
        checked.push(Fact::Attested { entries: attested });
    }
    let unchecked = log.gaps(&certificate, &proven);
    Ok(Report { kind, sha256: opened.sha256, certificate, checked, unchecked })
}

impl Report {
    /// Holds a subject opening against the certificate: whom it is about.
    pub fn with_subject_opening(mut self, file: &[u8]) -> Result<Self, Failure> {
        let opening = SubjectOpening::read(file)?;
        opening.verify(&self.certificate)?;
        self.unchecked.retain(|gap| !matches!(gap, Gap::Subject | Gap::SubjectOfFollowed));
        self.checked.push(Fact::Subject { identifiers: opening.identifiers().len() });
        Ok(self)
    }
}

/// Whose signatures count for one file.
struct Log<'a> {
    policy: &'a Policy,
    /// Of the policy, without those that the file calls revoked.
    keys: LogKeys,
    revoked: Vec<KeyId>,
    /// The policy's, then the file's.
    witnesses: Vec<VerifierKey>,
}

/// What the proofs led to.
struct Proven {
    /// Index of every entry in the log.
    places: BTreeSet<u64>,
    /// By the checkpoint's text with its signatures.
    checkpoints: BTreeMap<String, VerifiedCheckpoint>,
    trusted_witnesses: BTreeSet<(KeyName, KeyId)>,
}

impl<'a> Log<'a> {
    fn of(certificate: &Certificate, policy: &'a Policy, signed_by: &[String]) -> Result<Self, Failure> {
        let mut revoked = Vec::new();
        let issued = certificate.issued.at;
        let mut history = Vec::new();
        for (number, entry) in certificate.log.keys.iter().enumerate() {
            let key: VerifierKey = entry.vkey.parse().map_err(|fault| Failure::HistoryKey { number, fault })?;
            if key.name() != policy.log().origin() || key.key_type() != KeyType::Ed25519 {
                return Err(Failure::NotOfTheLog { number });
            }
            if let Some(handed_in) = policy.log().keys().iter().find(|k| k.id() == key.id()) {
                if handed_in.public_key() != key.public_key() {
                    return Err(Failure::AnotherKey { number, handed_in: handed_in.id() });
                }
                let ended = entry.to.is_some_and(|to| to <= issued);
                let signed = signed_by.contains(&TrustedKey::from(&key).id);
                match entry.status {
                    KeyStatus::Revoked if ended && signed => return Err(Failure::Revoked { key: key.id() }),
                    KeyStatus::Revoked if ended => revoked.push(key.id()),
                    _ if signed && !entry.is_in_use_at(issued) => return Err(Failure::OutOfUse { key: key.id() }),
                    _ => {}
                }
            }
            history.push(key);
        }
        let usable = policy.log().keys().iter().filter(|key| !revoked.contains(&key.id())).cloned().collect();
        // At least the key that signed the file is left.
        let keys = LogKeys::new(usable).map_err(|fault| Failure::Proof { entry: 0, fault: fault.into() })?;
        let witnesses = witnesses(certificate, policy, &history)?;
        Ok(Self { policy, keys, revoked, witnesses })
    }

    fn prove(&self, entries: &[EntryOpening]) -> Result<Proven, Failure> {
        let mut proven =
            Proven { places: BTreeSet::new(), checkpoints: BTreeMap::new(), trusted_witnesses: BTreeSet::new() };
        let mut roots: BTreeMap<u64, MerkleHash> = BTreeMap::new();
        for (entry, opening) in entries.iter().enumerate() {
            let fault = |fault| Failure::Proof { entry, fault };
            let proof = TlogProof::parse(opening.proof.as_bytes()).map_err(fault)?;
            if proof.extra.is_some() || proof.to_string() != opening.proof {
                return Err(Failure::ProofForm { entry });
            }
            // Entries of one request often share a checkpoint: its signatures are checked once.
            let text = proof.checkpoint.to_string();
            let verified = match proven.checkpoints.get(&text) {
                Some(verified) => verified,
                None => {
                    let verified = self.verify(&proof.checkpoint, entry)?;
                    proven.trusted_witnesses.extend(self.trusted(&verified));
                    proven.checkpoints.entry(text).or_insert(verified)
                }
            };
            let head = verified.checkpoint.head();
            if *roots.entry(head.size).or_insert(head.root) != head.root {
                return Err(Failure::Forked { size: head.size });
            }
            let leaf = MerkleHash::of_leaf(&Leaf(opening.leaf.0));
            verify_inclusion(head, proof.index, &leaf, &proof.hashes).map_err(|e| fault(e.into()))?;
            if !proven.places.insert(proof.index) {
                return Err(Failure::SamePlace { entry });
            }
            if !opening.attested.iter().all(|attestation| self.is_attested(attestation, verified)) {
                return Err(Failure::NotAttested { entry });
            }
        }
        Ok(proven)
    }

    fn verify(&self, note: &SignedNote, entry: usize) -> Result<VerifiedCheckpoint, Failure> {
        let verified = checkpoint::verify(note, &self.keys, &self.witnesses).map_err(|fault| {
            let unsigned =
                matches!(fault, CheckpointError::NotSignedByLog | CheckpointError::Note(NoteError::NoKnownSignature));
            let by_revoked =
                |key: &&KeyId| note.signatures().iter().any(|s| s.id() == **key && s.name() == self.keys.origin());
            match self.revoked.iter().find(by_revoked) {
                Some(key) if unsigned => Failure::Revoked { key: *key },
                _ => Failure::Proof { entry, fault: fault.into() },
            }
        })?;
        let (required, found) = (self.policy.required(), self.trusted(&verified).count());
        if found < required { Err(Failure::TooFewWitnesses { entry, required, found }) } else { Ok(verified) }
    }

    /// The policy's witnesses that cosigned, each once.
    fn trusted<'b>(&'b self, verified: &'b VerifiedCheckpoint) -> impl Iterator<Item = (KeyName, KeyId)> + 'b {
        self.policy.witnesses().iter().filter(|key| verified.has_signed(key)).map(|key| (key.name().clone(), key.id()))
    }

    /// A cosignature of that witness, of that very second, is there and was verified. Of a witness that the policy knows only by a key of the
    /// policy: whoever writes the file can name another key after it.
    fn is_attested(&self, attestation: &Attestation, verified: &VerifiedCheckpoint) -> bool {
        let at = |at_s: u64| i64::try_from(at_s).ok().and_then(|s| Timestamp::from_second(s).ok());
        let known: Vec<KeyId> = self
            .policy
            .witnesses()
            .iter()
            .filter(|key| key.name().as_str() == attestation.by)
            .map(VerifierKey::id)
            .collect();
        let counts =
            |c: &&Cosignature| c.witness.as_str() == attestation.by && (known.is_empty() || known.contains(&c.id));
        verified.cosignatures.iter().filter(counts).any(|c| at(c.at_s) == Some(attestation.at))
    }

    fn gaps(&self, certificate: &Certificate, proven: &Proven) -> Vec<Gap> {
        let mut gaps = vec![Gap::AssertedTimes];
        let without = certificate.entries.iter().filter(|entry| entry.attested.is_empty()).count();
        if without > 0 {
            gaps.push(Gap::NotAttested { entries: without, of: certificate.entries.len() });
        }
        gaps.extend(BY_SIGNATURE_ALONE.iter().copied().map(Gap::SignatureAlone));
        let cosigned = proven.checkpoints.values().flat_map(|c| &c.cosignatures);
        let cosigned: BTreeSet<(KeyName, KeyId)> = cosigned.map(|c| (c.witness.clone(), c.id)).collect();
        if cosigned.is_empty() {
            gaps.push(Gap::NoWitness);
        }
        let theirs = cosigned.iter().filter(|witness| !proven.trusted_witnesses.contains(*witness));
        gaps.extend(theirs.map(|(witness, _)| Gap::WitnessOfTheFile(witness.clone())));
        let silent = |key: &&VerifierKey| !proven.trusted_witnesses.contains(&(key.name().clone(), key.id()));
        gaps.extend(self.policy.witnesses().iter().filter(silent).map(|key| Gap::SilentWitness(key.name().clone())));
        let unknown = proven.checkpoints.values().map(|c| c.unknown_signatures).sum();
        if unknown > 0 {
            gaps.push(Gap::UnknownSignatures(unknown));
        }
        let sizes: BTreeSet<u64> = proven.checkpoints.values().map(|c| c.checkpoint.head().size).collect();
        if sizes.len() > 1 {
            gaps.push(Gap::HeadsNotLinked { heads: sizes.len() });
        }
        gaps.extend(self.revoked.iter().copied().map(Gap::RevokedKey));
        let follows = certificate.statement.request.follows.is_some();
        let subject = if follows { Gap::SubjectOfFollowed } else { Gap::Subject };
        gaps.extend([Gap::Revocation, Gap::OtherEntries, Gap::Deeds, subject]);
        gaps
    }
}

impl Proven {
    fn heads(&self) -> impl Iterator<Item = Fact> {
        self.checkpoints.values().flat_map(move |verified| {
            let size = verified.checkpoint.head().size;
            let signed = verified.log_keys.iter().map(move |key| Fact::Head { size, key: *key });
            let cosigned = verified.cosignatures.iter().map(move |c| Fact::Cosignature {
                witness: c.witness.clone(),
                key: c.id,
                size,
                at_s: c.at_s,
                trusted: self.trusted_witnesses.contains(&(c.witness.clone(), c.id)),
            });
            signed.chain(cosigned)
        })
    }
}

/// The policy's witnesses, and those that the file names beside them. Of the latter nothing is known but that the log's key signed
/// their keys: they can show that a time was not made up by the file, and never count where witnesses are required, nor for the times of a
/// witness of the policy that has their name.
fn witnesses(certificate: &Certificate, policy: &Policy, history: &[VerifierKey]) -> Result<Vec<VerifierKey>, Failure> {
    let mut all = policy.witnesses().to_vec();
    let mut of_the_file = BTreeSet::new();
    for (number, named) in certificate.log.witnesses.iter().enumerate() {
        let key: VerifierKey = named.vkey.parse().map_err(|fault| Failure::WitnessKey { number, fault })?;
        let fits = key.name().as_str() == named.name && key.key_type() == KeyType::CosignatureV1;
        if !fits || !of_the_file.insert(*key.public_key()) {
            return Err(Failure::WitnessForm { number });
        }
        if all.contains(&key) {
            continue;
        }
        let same = |other: &VerifierKey| {
            other.public_key() == key.public_key() || (other.name() == key.name() && other.id() == key.id())
        };
        if policy.log().keys().iter().chain(history).chain(&all).any(same) {
            return Err(Failure::WitnessIsAnother { number });
        }
        all.push(key);
    }
    Ok(all)
}
