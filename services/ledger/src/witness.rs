//! C2SP tlog-witness: the messages between a log and its witnesses, and a witness's decision. The HTTP is the caller's.
//!
//! After <https://c2sp.org/tlog-witness>, C2SP commit 95978ca8038c (2026-07-06; newest tag v1.0.0), the call `add-checkpoint`.

use std::fmt;

use crate::{
    checkpoint::{self, Checkpoint, CheckpointError, LogKeys},
    encoding::from_decimal,
    key::VerifierKey,
    note::{self, MAX_NOTE_BYTES, MAX_SIGNATURES, NoteError, Signature, SignedNote},
    proof::{InvalidProof, MAX_PROOF_HASHES, verify_consistency},
    tree::{MerkleHash, TreeHead},
};

/// Of a request's body: a note, the hashes, and the line before them.
pub const MAX_REQUEST_BYTES: usize = MAX_NOTE_BYTES + 64 * (MAX_PROOF_HASHES + 1);

/// The body of `POST <submission prefix>/add-checkpoint`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddCheckpoint {
    pub old_size: u64,
    /// From the old size to the checkpoint's.
    pub consistency: Vec<MerkleHash>,
    pub checkpoint: SignedNote,
}

/// Why a witness does not sign. The status is the one that the specification demands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the request is malformed, or its old size above the checkpoint's")]
    Malformed,
    #[error("the log is not known here")]
    UnknownLog,
    #[error("the checkpoint is not signed by a key of its log")]
    NotSigned,
    #[error("the latest checkpoint signed here has the size {0}")]
    OldSize(u64),
    #[error("the checkpoint is not consistent with the latest one signed here")]
    Inconsistent(#[from] InvalidProof),
}

impl Refusal {
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::UnknownLog => 404,
            Self::NotSigned => 403,
            Self::OldSize(_) => 409,
            Self::Inconsistent(_) => 422,
        }
    }
}

impl AddCheckpoint {
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let parse = || -> Option<Self> {
            let text = (body.len() <= MAX_REQUEST_BYTES).then_some(body).and_then(|b| str::from_utf8(b).ok())?;
            let (head, checkpoint) = text.split_once("\n\n")?;
            let mut lines = head.split('\n');
            let old_size = from_decimal(lines.next()?.strip_prefix("old ")?)?;
            // One more than allowed is enough to be refused.
            let consistency: Option<Vec<_>> = lines.take(MAX_PROOF_HASHES + 1).map(MerkleHash::from_base64).collect();
            let consistency = consistency.filter(|hashes| hashes.len() <= MAX_PROOF_HASHES)?;
            Some(Self { old_size, consistency, checkpoint: SignedNote::parse(checkpoint.as_bytes()).ok()? })
        };
        parse().ok_or(Refusal::Malformed)
    }

    /// A witness's decision. `latest` is the head that it signed last for this log, the empty tree's if none. What is returned must be
    /// stored as the latest, in one step with the comparison, before the cosignature leaves.
    pub fn judge(&self, log: &LogKeys, latest: &TreeHead) -> Result<Checkpoint, Refusal> {
        let checkpoint = match checkpoint::verify(&self.checkpoint, log, &[]) {
            Ok(verified) => verified.checkpoint,
            Err(CheckpointError::OtherLog { .. }) => return Err(Refusal::UnknownLog),
            Err(CheckpointError::Note(NoteError::InvalidSignature(..) | NoteError::NoKnownSignature)) => {
                return Err(Refusal::NotSigned);
            }
            Err(CheckpointError::RootOfEmptyTree) => return Err(InvalidProof::RootMismatch.into()),
            Err(_) => return Err(Refusal::Malformed),
        };
        if self.old_size > checkpoint.head().size {
            return Err(Refusal::Malformed);
        }
        if self.old_size != latest.size {
            return Err(Refusal::OldSize(latest.size));
        }
        verify_consistency(latest, checkpoint.head(), &self.consistency)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        self.consistency.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Reads the body of a witness's refusal that tells the size of the latest checkpoint it signed: a decimal and a newline.
pub fn read_old_size(body: &[u8]) -> Option<u64> {
    str::from_utf8(body).ok()?.strip_suffix('\n').and_then(from_decimal)
}

/// What a witness's answer was worth.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// Valid cosignatures of the keys handed in, to be added to the checkpoint: one a key.
    pub cosignatures: Vec<Signature>,
    /// Lines that were malformed, invalid, repeated, or of other keys. They are to be counted, and never published.
    pub ignored: usize,
}

/// Reads the body of a witness's answer to this checkpoint. Nonsense is ignored, whatever it is.
pub fn read_answer(body: &[u8], checkpoint: &SignedNote, witness: &[VerifierKey]) -> Answer {
    let mut answer = Answer::default();
    let text = body.get(..body.len().min(MAX_NOTE_BYTES)).unwrap_or_default();
    for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).take(MAX_SIGNATURES) {
        let signature = str::from_utf8(line).ok().and_then(Signature::parse);
        let valid = signature.filter(|signature| {
            let known = witness.iter().find(|key| signature.is_by(key));
            let cosigned = known.and_then(|key| note::check(key, checkpoint.text(), signature));
            let seen = answer.cosignatures.iter().any(|s| s.name() == signature.name() && s.id() == signature.id());
            matches!(cosigned, Some(note::Statement::CosignedAt(_))) && !seen
        });
        match valid {
            Some(signature) => answer.cosignatures.push(signature),
            None => answer.ignored += 1,
        }
    }
    answer
}
