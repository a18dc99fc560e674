//! C2SP signed-note and tlog-checkpoint, as far as a log's own signature goes.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::tree::Hash;

const ED25519: u8 = 1;

/// A log's public key: `name+id+base64(type, public key)`.
pub struct LogKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl LogKey {
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(3, '+');
        let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
        let typed = BASE64_STANDARD.decode(key).ok()?;
        let (kind, public) = typed.split_first()?;
        let sum = Sha256::new().chain_update(name).chain_update(b"\n").chain_update(&typed).finalize();
        let id_is_right = hex::encode(&sum[..4]) == id;
        (*kind == ED25519 && id_is_right).then_some(())?;
        let key = VerifyingKey::from_bytes(public.try_into().ok()?).ok()?;
        Some(Self { name: name.to_owned(), id: sum[..4].try_into().ok()?, key })
    }
}

/// What a checkpoint says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    pub size: u64,
    pub root: Hash,
}

/// Of a note that one of the keys has signed.
pub fn open(note: &str, keys: &[LogKey]) -> Option<Head> {
    let blank = note.rfind("\n\n")?;
    let (text, signatures) = (&note[..=blank], &note[blank + 2..]);
    let mut lines = text.lines();
    let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
    let signed = signatures.lines().any(|line| {
        let Some((name, encoded)) = line.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' ')) else {
            return false;
        };
        let Ok(bytes) = BASE64_STANDARD.decode(encoded) else { return false };
        let Some((id, signature)) = bytes.split_first_chunk::<4>() else { return false };
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        keys.iter().any(|key| {
            key.name == name
                && key.name == origin
                && key.id == *id
                && key.key.verify_strict(text.as_bytes(), &signature).is_ok()
        })
    });
    signed.then_some(())?;
    Some(Head { size: size.parse().ok()?, root: BASE64_STANDARD.decode(root).ok()?.try_into().ok()? })
}
