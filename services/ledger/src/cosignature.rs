//! C2SP tlog-cosignature: a witness's statement that, at a time, this is the largest consistent head it has seen of the log.
//!
//! After <https://c2sp.org/tlog-cosignature>, C2SP commit 01194db11950 (2026-06-03; newest tag v1.0.1), the type `cosignature/v1`
//! (Ed25519, type byte 0x04). The specification prefers ML-DSA-44 for new witnesses: to us those are unknown keys, and ignored.

use crate::{
    checkpoint::Checkpoint,
    key::{ED25519_SIGNATURE_BYTES, KeyError, KeyType, SignerKey, VerifierKey},
    note::Signature,
};

const TIMESTAMP_BYTES: usize = 8;
const MAX_TIMESTAMP: u64 = i64::MAX as u64;

/// Signs a checkpoint as a witness. The caller has proved that it is consistent with all that it signed before ([`crate::witness`]).
pub fn cosign(key: &SignerKey, checkpoint: &Checkpoint, at_s: u64) -> Result<Signature, CosignError> {
    if key.verifier().key_type() != KeyType::CosignatureV1 {
        return Err(KeyError::WrongType.into());
    }
    if !(1..=MAX_TIMESTAMP).contains(&at_s) {
        return Err(CosignError::Time);
    }
    let signature = key.sign_raw(message(&checkpoint.text(), at_s).as_bytes());
    Ok(Signature::by(key.verifier(), [&at_s.to_be_bytes()[..], &signature].concat()))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CosignError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("a cosignature's time is after 1970 and fits 63 bits")]
    Time,
}

/// The time of a valid cosignature over this text, which must be a checkpoint's.
pub(crate) fn verify(key: &VerifierKey, text: &str, signature: &[u8]) -> Option<u64> {
    let (time, raw) = signature.split_first_chunk::<TIMESTAMP_BYTES>()?;
    let raw: &[u8; ED25519_SIGNATURE_BYTES] = raw.try_into().ok()?;
    let at_s = u64::from_be_bytes(*time);
    // Zero means "no statement about the time" in other cosignature types. Such a one is of no use here.
    let has_time = (1..=MAX_TIMESTAMP).contains(&at_s);
    // Witnesses sign checkpoints: anything else under their name is not a statement we know.
    let valid = has_time && Checkpoint::parse(text).is_ok() && key.verify_raw(message(text, at_s).as_bytes(), raw);
    valid.then_some(at_s)
}

fn message(text: &str, at_s: u64) -> String {
    format!("cosignature/v1\ntime {at_s}\n{text}")
}
