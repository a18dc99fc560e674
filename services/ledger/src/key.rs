//! Signed-note keys: names, ids, and the two text forms that operators keep in files.
//!
//! After <https://c2sp.org/signed-note>, C2SP commit b3a911e3f2bd (2026-04-09; tag v1.0.0 has the same rules for these key types). The
//! private form is the one of Go's `golang.org/x/mod/sumdb/note`.
//!
//! Ed25519 is ed25519-dalek's. What we rely on, beyond RFC 8032: `verify_strict` refuses a signature whose S is not reduced, whose R is
//! of small order or not canonically encoded, and a public key of small order; the equation is the one without cofactor. We add that a
//! public key must be canonically encoded and is refused as weak when it is read, not only when it verifies.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{SHA256, digest};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::encoding::{from_base64, to_base64};

pub const MAX_NAME_BYTES: usize = 255;
pub const SEED_BYTES: usize = 32;
const PUBLIC_KEY_BYTES: usize = 32;
pub(crate) const ED25519_SIGNATURE_BYTES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    #[error("a key name has 1 to {MAX_NAME_BYTES} bytes without white space, control characters and plus signs")]
    Name,
    #[error("not a verifier key: name+id+base64 is expected")]
    VerifierForm,
    #[error("not a signer key: PRIVATE+KEY+name+id+base64 is expected")]
    SignerForm,
    #[error("the key's type is not one that is known here")]
    UnknownType,
    #[error("the key's id is not the one of its name and public key")]
    WrongId,
    #[error("a key's id has eight hexadecimal digits, in lower case")]
    IdForm,
    #[error("the public key is not a canonical Ed25519 key, or a weak one")]
    PublicKey,
    #[error("a key of this type does not sign this")]
    WrongType,
}

/// Who signs, by a URL without scheme usually. A log's key name is its origin.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyName(String);

impl KeyName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
        let clean = !name.contains(|c: char| c == '+' || c.is_whitespace() || c.is_control());
        if fits && clean { Ok(Self(name.to_owned())) } else { Err(KeyError::Name) }
    }
}

/// What tells signatures of keys with one name apart. Not a strong hash: the key itself decides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u32);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let id = u32::from_str_radix(text, 16).map(Self).map_err(|_| KeyError::IdForm)?;
        if id.to_string() == text { Ok(id) } else { Err(KeyError::IdForm) }
    }
}

/// The signature types that are in use here. Others are unknown keys to us, and their signatures are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyType {
    /// Plain Ed25519 over the note's text: logs sign so.
    Ed25519,
    /// Timestamped Ed25519 over a checkpoint (`cosignature/v1`): witnesses sign so.
    CosignatureV1,
}

impl KeyType {
    const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::CosignatureV1 => 0x04,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            0x01 => Some(Self::Ed25519),
            0x04 => Some(Self::CosignatureV1),
            _ => None,
        }
    }
}

/// A public key with its name. Text form: `name+id+base64(type || public key)`.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    id: KeyId,
    key_type: KeyType,
    key: VerifyingKey,
}

impl VerifierKey {
    pub fn new(name: KeyName, key_type: KeyType, public_key: &[u8; PUBLIC_KEY_BYTES]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(public_key).map_err(|_| KeyError::PublicKey)?;
        if key.is_weak() || key.to_edwards().compress().to_bytes() != *public_key {
            return Err(KeyError::PublicKey);
        }
        let typed = typed_bytes(key_type, public_key);
        let sum = digest(&SHA256, &[name.as_str().as_bytes(), b"\n", typed.as_slice()].concat());
        let mut id = [0; 4];
        id.copy_from_slice(&sum.as_ref()[..4]);
        Ok(Self { name, id: KeyId(u32::from_be_bytes(id)), key_type, key })
    }

    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    pub const fn id(&self) -> KeyId {
        self.id
    }

    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    pub fn public_key(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        self.key.as_bytes()
    }

    /// Strict, see the top of this file.
    pub(crate) fn verify_raw(&self, message: &[u8], signature: &[u8; ED25519_SIGNATURE_BYTES]) -> bool {
        self.key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.name, self.id, to_base64(&typed_bytes(self.key_type, self.public_key())))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::VerifierForm);
        };
        let (key_type, public_key) = from_typed_bytes(key).ok_or(KeyError::VerifierForm)??;
        let parsed = Self::new(name.parse()?, key_type, &public_key)?;
        if parsed.id.to_string() == id { Ok(parsed) } else { Err(KeyError::WrongId) }
    }
}

/// A private key with its name. Never shown, wiped when dropped.
pub struct SignerKey {
    verifier: VerifierKey,
    key: SigningKey,
}

impl SignerKey {
    /// `seed` is 32 random bytes: the caller has the randomness.
    pub fn from_seed(name: KeyName, key_type: KeyType, seed: &[u8; SEED_BYTES]) -> Result<Self, KeyError> {
        let key = SigningKey::from_bytes(seed);
        let verifier = VerifierKey::new(name, key_type, key.verifying_key().as_bytes())?;
        Ok(Self { verifier, key })
    }

    /// Reads `PRIVATE+KEY+name+id+base64(type || seed)`.
    pub fn decode(text: &str) -> Result<Self, KeyError> {
        let rest = text.strip_prefix("PRIVATE+KEY+").ok_or(KeyError::SignerForm)?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::SignerForm);
        };
        let (key_type, seed) = from_typed_bytes(key).ok_or(KeyError::SignerForm)??;
        let parsed = Self::from_seed(name.parse()?, key_type, &Zeroizing::new(seed))?;
        if parsed.verifier.id.to_string() == id { Ok(parsed) } else { Err(KeyError::WrongId) }
    }

    /// For the operator's secret file, and for nothing else.
    pub fn encode(&self) -> Zeroizing<String> {
        let typed = Zeroizing::new(typed_bytes(self.verifier.key_type, self.key.as_bytes()));
        let key = Zeroizing::new(to_base64(typed.as_slice()));
        Zeroizing::new(format!("PRIVATE+KEY+{}+{}+{}", self.verifier.name, self.verifier.id, *key))
    }

    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    pub(crate) fn sign_raw(&self, message: &[u8]) -> [u8; ED25519_SIGNATURE_BYTES] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({}+{})", self.verifier.name, self.verifier.id)
    }
}

fn typed_bytes(key_type: KeyType, key: &[u8; 32]) -> [u8; 33] {
    let mut typed = [key_type.byte(); 33];
    typed[1..].copy_from_slice(key);
    typed
}

/// `None` if it is not base64 of anything, an error if the type is unknown or has keys of another length.
fn from_typed_bytes(text: &str) -> Option<Result<(KeyType, [u8; 32]), KeyError>> {
    let bytes = Zeroizing::new(from_base64(text)?);
    let (key_type, key) = bytes.split_first()?;
    let Some(key_type) = KeyType::of(*key_type) else { return Some(Err(KeyError::UnknownType)) };
    Some(key.try_into().map(|key| (key_type, key)).map_err(|_| KeyError::PublicKey))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(key_type: KeyType) -> SignerKey {
        SignerKey::from_seed("example.com/log".parse().unwrap(), key_type, &[7; 32]).unwrap()
    }

    #[test]
    fn keys_are_read_back_from_their_text() {
        for key_type in [KeyType::Ed25519, KeyType::CosignatureV1] {
            let key = signer(key_type);
            let text = key.encode();
            assert_eq!(*SignerKey::decode(&text).unwrap().encode(), *text);
            let public = key.verifier().to_string();
            assert_eq!(&public.parse::<VerifierKey>().unwrap(), key.verifier());
        }
        assert_ne!(signer(KeyType::Ed25519).verifier().id(), signer(KeyType::CosignatureV1).verifier().id());
    }

    /// Go's documentation of its note package has these two.
    #[test]
    fn keys_of_the_go_implementation_are_read() {
        let private = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
        let public = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = SignerKey::decode(private).unwrap();
        assert_eq!(*key.encode(), private);
        assert_eq!(key.verifier().to_string(), public);
    }

    #[test]
    fn a_key_that_is_altered_in_any_byte_is_refused() {
        let key = signer(KeyType::Ed25519);
        let texts = [key.encode().to_string(), key.verifier().to_string()];
        for (private, text) in [(true, &texts[0]), (false, &texts[1])] {
            for at in 0..text.len() {
                for flip in [1, 2, 4, 8, 16, 32, 64] {
                    let mut bytes = text.clone().into_bytes();
                    bytes[at] ^= flip;
                    let Ok(altered) = String::from_utf8(bytes) else { continue };
                    let read = if private {
                        SignerKey::decode(&altered).is_ok()
                    } else {
                        altered.parse::<VerifierKey>().is_ok()
                    };
                    assert!(!read, "{at} {flip}");
                }
            }
        }
    }

    #[test]
    fn weak_and_uncanonical_public_keys_are_refused() {
        let name: KeyName = "example.com/log".parse().unwrap();
        // The neutral element, the point of order two, one of order four, and two encodings of y above the prime.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut order_two = [0xff; 32];
        (order_two[0], order_two[31]) = (0xec, 0x7f);
        let mut above = [0xff; 32];
        above[31] = 0x7f;
        for (first, last) in [(0xee, 0x7f), (0xf0, 0x7f)] {
            (above[0], above[31]) = (first, last);
            assert!(VerifierKey::new(name.clone(), KeyType::Ed25519, &above).is_err());
        }
        for key in [neutral, order_two, [0; 32]] {
            assert_eq!(VerifierKey::new(name.clone(), KeyType::Ed25519, &key), Err(KeyError::PublicKey));
        }
    }

    #[test]
    fn names_that_would_break_a_line_or_a_key_are_refused() {
        for bad in ["", "a b", "a+b", "a\nb", "a\u{a0}b", "a\u{2003}b", "a\u{7f}", &"x".repeat(256)] {
            assert_eq!(bad.parse::<KeyName>(), Err(KeyError::Name), "{bad:?}");
        }
    }

    #[test]
    fn a_key_id_has_one_spelling() {
        let id = signer(KeyType::Ed25519).verifier().id();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("0000000a".parse(), Ok(KeyId(10)));
        for bad in ["", "a", "0000000A", "+000000a", "00000000a", "0x00000a", "example.com/log+0000000a"] {
            assert_eq!(bad.parse::<KeyId>(), Err(KeyError::IdForm), "{bad:?}");
        }
    }

    #[test]
    fn a_private_key_is_never_printed() {
        let key = signer(KeyType::Ed25519);
        let seed = key.encode().rsplit('+').next().unwrap().to_owned();
        assert!(!format!("{key:?}").contains(&seed));
    }
}
