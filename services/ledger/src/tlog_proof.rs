//! C2SP tlog-proof: an inclusion proof with the checkpoint it leads to, in one text that is checked offline.
//!
//! After <https://c2sp.org/tlog-proof>, C2SP commit ab17a7411656 (2026-05-22; no tag yet).

use std::fmt;

use crate::{
    checkpoint::{self, CheckpointError, LogKeys, VerifiedCheckpoint},
    encoding::{from_base64, from_decimal, to_base64},
    key::VerifierKey,
    note::{MAX_NOTE_BYTES, NoteError, SignedNote},
    proof::{InvalidProof, MAX_PROOF_HASHES, verify_inclusion},
    tree::MerkleHash,
};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
pub const MAX_EXTRA_BYTES: usize = 64 * 1024;
/// Of the whole text: a note, the base64 of the extra data, the hashes, and what little stands between.
pub const MAX_PROOF_BYTES: usize = MAX_NOTE_BYTES + 2 * MAX_EXTRA_BYTES + 64 * MAX_PROOF_HASHES;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlogProofError {
    #[error("the proof is larger than {MAX_PROOF_BYTES} bytes or has more than {MAX_PROOF_HASHES} hashes")]
    TooLarge,
    #[error("the proof is not a text, or does not begin with {HEADER}")]
    Header,
    #[error("the extra data must be base64 of 1 to {MAX_EXTRA_BYTES} bytes")]
    Extra,
    #[error("the index must be a decimal without leading zeroes")]
    Index,
    #[error("hash {0} of the proof is not the base64 of 32 bytes")]
    Hash(usize),
    #[error("the proof ends before its checkpoint")]
    NoCheckpoint,
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Inclusion(#[from] InvalidProof),
}

/// A proof whose form is good. That says nothing before [`TlogProof::verify`] has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlogProof {
    /// Not covered by any signature. Our own proofs have none.
    pub extra: Option<Vec<u8>>,
    pub index: u64,
    pub hashes: Vec<MerkleHash>,
    pub checkpoint: SignedNote,
}

impl TlogProof {
    pub fn parse(text: &[u8]) -> Result<Self, TlogProofError> {
        if text.len() > MAX_PROOF_BYTES {
            return Err(TlogProofError::TooLarge);
        }
        let text = str::from_utf8(text).map_err(|_| TlogProofError::Header)?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(TlogProofError::NoCheckpoint)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(TlogProofError::Header);
        }
        let extra = match lines.next_if(|line| line.starts_with("extra ")) {
            Some(line) => {
                let bytes = line.strip_prefix("extra ").and_then(from_base64).ok_or(TlogProofError::Extra)?;
                let fits = (1..=MAX_EXTRA_BYTES).contains(&bytes.len());
                Some(fits.then_some(bytes).ok_or(TlogProofError::Extra)?)
            }
            None => None,
        };
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(from_decimal);
        let index = index.ok_or(TlogProofError::Index)?;
        let mut hashes = Vec::new();
        for (number, line) in (1..).zip(lines) {
            if number > MAX_PROOF_HASHES {
                return Err(TlogProofError::TooLarge);
            }
            hashes.push(MerkleHash::from_base64(line).ok_or(TlogProofError::Hash(number))?);
        }
        Ok(Self { extra, index, hashes, checkpoint: SignedNote::parse(checkpoint.as_bytes())? })
    }

    /// Verifies that this leaf is in the log under its index, by a checkpoint which the log signed. The witnesses that cosigned it are told;
    /// whether they are enough is the caller's policy.
    pub fn verify(
        &self,
        leaf: &MerkleHash,
        log: &LogKeys,
        witnesses: &[VerifierKey],
    ) -> Result<VerifiedCheckpoint, TlogProofError> {
        let verified = checkpoint::verify(&self.checkpoint, log, witnesses)?;
        verify_inclusion(verified.checkpoint.head(), self.index, leaf, &self.hashes)?;
        Ok(verified)
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", to_base64(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}
