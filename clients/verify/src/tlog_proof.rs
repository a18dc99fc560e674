//! One offline proof: this entry is in the log.

use std::{collections::BTreeSet, fmt};

use jiff::Timestamp;
use quittance_ledger::{
    key::{KeyId, KeyName},
    tlog_proof::{TlogProof, TlogProofError},
    tree::{MerkleHash, TreeHead},
};

use crate::Policy;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Proof(#[from] TlogProofError),
    #[error("{required} witnesses are required, and {found} cosigned")]
    TooFewWitnesses { required: usize, found: usize },
}

/// Something that was checked and is true, given the policy's keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Checked {
    LogSignature { log: KeyName, id: KeyId },
    Cosignature { witness: KeyName, id: KeyId, at_s: u64 },
    Witnesses { required: usize, found: usize },
    Inclusion { index: u64, size: u64 },
}

/// Something that the document alone, or this policy, cannot tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unchecked {
    /// Signature lines of keys that are not in the policy.
    UnknownSignatures(usize),
    /// The proof carries extra data, which nobody signed.
    ExtraData { bytes: usize },
    /// A witness of the policy did not cosign, and was not needed.
    SilentWitness(KeyName),
    /// No witness cosigned: the log's operator may have shown somebody else another tree, and no one but the operator tells a time.
    NoWitness,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    pub head: TreeHead,
    pub index: u64,
    pub leaf_hash: MerkleHash,
    pub checked: Vec<Checked>,
    pub unchecked: Vec<Unchecked>,
}

/// Verifies a C2SP tlog-proof against the entry's own bytes (for our log, the 32 bytes of the salted commitment).
pub fn verify_tlog_proof(text: &[u8], entry: &[u8], policy: &Policy) -> Result<Verified, VerifyError> {
    let proof = TlogProof::parse(text)?;
    let leaf_hash = MerkleHash::of_entry(entry);
    let verified = proof.verify(&leaf_hash, policy.log(), policy.witnesses())?;
    let head = *verified.checkpoint.head();

    let cosigned: BTreeSet<(&KeyName, KeyId)> = verified.cosignatures.iter().map(|c| (&c.witness, c.id)).collect();
    let found = cosigned.len();
    if found < policy.required() {
        return Err(VerifyError::TooFewWitnesses { required: policy.required(), found });
    }
    let mut unchecked = Vec::new();
    if verified.unknown_signatures > 0 {
        unchecked.push(Unchecked::UnknownSignatures(verified.unknown_signatures));
    }
    if let Some(extra) = &proof.extra {
        unchecked.push(Unchecked::ExtraData { bytes: extra.len() });
    }
    let silent = policy.witnesses().iter().filter(|key| !cosigned.contains(&(key.name(), key.id())));
    unchecked.extend(silent.map(|key| Unchecked::SilentWitness(key.name().clone())));
    if found == 0 {
        unchecked.push(Unchecked::NoWitness);
    }

    let log = policy.log().origin();
    let mut checked: Vec<Checked> =
        verified.log_keys.iter().map(|id| Checked::LogSignature { log: log.clone(), id: *id }).collect();
    let cosignatures = verified.cosignatures.into_iter();
    checked.extend(cosignatures.map(|c| Checked::Cosignature { witness: c.witness, id: c.id, at_s: c.at_s }));
    if policy.required() > 0 {
        checked.push(Checked::Witnesses { required: policy.required(), found });
    }
    checked.push(Checked::Inclusion { index: proof.index, size: head.size });
    Ok(Verified { head, index: proof.index, leaf_hash, checked, unchecked })
}

pub(crate) fn write_time(f: &mut fmt::Formatter<'_>, at_s: u64) -> fmt::Result {
    match i64::try_from(at_s).ok().and_then(|s| Timestamp::from_second(s).ok()) {
        Some(time) => write!(f, "{time}"),
        // Beyond the year 9999, by a witness's mistake.
        None => write!(f, "second {at_s} of the Unix epoch"),
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogSignature { log, id } => write!(f, "the checkpoint is signed by the log {log} (key {id})"),
            Self::Cosignature { witness, id, at_s } => {
                write!(f, "the checkpoint is cosigned by the witness {witness} (key {id}) at ")?;
                write_time(f, *at_s)
            }
            Self::Witnesses { required, found } => write!(f, "{found} witnesses cosigned, {required} are required"),
            Self::Inclusion { index, size } => write!(f, "the entry is number {index} in the log of {size} entries"),
        }
    }
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownSignatures(1) => write!(f, "one signature is of an unknown key"),
            Self::UnknownSignatures(count) => write!(f, "{count} signatures are of unknown keys"),
            Self::ExtraData { bytes } => write!(f, "{bytes} bytes of extra data are signed by nobody"),
            Self::SilentWitness(witness) => write!(f, "the witness {witness} has not cosigned"),
            Self::NoWitness => write!(
                f,
                "no witness cosigned: that everybody sees the same log, and when the entry was in it, rests on the log's word"
            ),
        }
    }
}
