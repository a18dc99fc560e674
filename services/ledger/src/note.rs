//! C2SP signed-note: text, a blank line, and signature lines of which the unknown ones are ignored.
//!
//! After <https://c2sp.org/signed-note>, C2SP commit b3a911e3f2bd (2026-04-09; newest tag v1.0.0).

use std::fmt;

use crate::{
    cosignature,
    encoding::{from_base64, to_base64},
    key::{KeyError, KeyId, KeyName, KeyType, SignerKey, VerifierKey},
};

/// Room for 64 post-quantum signatures, which others may add.
pub const MAX_NOTE_BYTES: usize = 512 * 1024;
pub const MAX_SIGNATURES: usize = 64;
const MAX_SIGNATURE_BYTES: usize = 8 * 1024;
const LINE_START: &str = "\u{2014} ";

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoteError {
    #[error("the note is larger than {MAX_NOTE_BYTES} bytes or has more than {MAX_SIGNATURES} signatures")]
    TooLarge,
    #[error("the note is not UTF-8, or has a control character other than the end of a line")]
    Encoding,
    #[error("the note is not a text that ends in a newline, a blank line and signature lines")]
    Form,
    #[error("signature line {0} is malformed")]
    SignatureLine(usize),
    #[error("two of the keys handed in have the same name and id: {0}+{1}")]
    AmbiguousKeys(KeyName, KeyId),
    #[error("the signature of {0}+{1} is not valid")]
    InvalidSignature(KeyName, KeyId),
    #[error("no signature is of a known key")]
    NoKnownSignature,
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// One signature line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    name: KeyName,
    id: KeyId,
    bytes: Vec<u8>,
}

impl Signature {
    pub(crate) fn by(key: &VerifierKey, bytes: Vec<u8>) -> Self {
        Self { name: key.name().clone(), id: key.id(), bytes }
    }

    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// What follows the key id: the signature as its type encodes it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn is_by(&self, key: &VerifierKey) -> bool {
        self.name == *key.name() && self.id == key.id()
    }

    /// A line without its newline.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(LINE_START)?.split_once(' ')?;
        let bytes = from_base64(encoded)?;
        let (id, bytes) = bytes.split_first_chunk::<4>()?;
        (1..=MAX_SIGNATURE_BYTES).contains(&bytes.len()).then_some(())?;
        Some(Self { name: name.parse().ok()?, id: KeyId(u32::from_be_bytes(*id)), bytes: bytes.to_owned() })
    }
}

/// The line without its newline.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = to_base64(&[&self.id.0.to_be_bytes(), self.bytes.as_slice()].concat());
        write!(f, "{LINE_START}{} {encoded}", self.name)
    }
}

/// A note whose form is good. That says nothing about its text before [`SignedNote::verify`] has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedNote {
    text: String,
    signatures: Vec<Signature>,
}

/// What a known key said about a note's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Statement {
    Signed,
    /// Cosigned at this time, in seconds since 1970-01-01 UTC, by the witness's clock.
    CosignedAt(u64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedSignature {
    pub name: KeyName,
    pub id: KeyId,
    pub statement: Statement,
}

/// The outcome: at least one verified signature, and how many were of keys that nobody handed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedNote {
    pub signatures: Vec<VerifiedSignature>,
    pub unknown: usize,
}

impl SignedNote {
    /// Signs a text with plain Ed25519 keys.
    pub fn sign(text: String, keys: &[&SignerKey]) -> Result<Self, NoteError> {
        let signatures = keys.iter().map(|key| sign_text(key, &text)).collect::<Result<Vec<_>, _>>()?;
        Self::new(text, signatures)
    }

    pub(crate) fn new(text: String, signatures: Vec<Signature>) -> Result<Self, NoteError> {
        let note = Self { text, signatures };
        // What we would not read ourselves is not written.
        Self::parse(note.to_string().as_bytes())?;
        Ok(note)
    }

    pub fn parse(note: &[u8]) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooLarge);
        }
        let note = str::from_utf8(note).map_err(|_| NoteError::Encoding)?;
        if note.bytes().any(|b| b < 0x20 && b != b'\n') {
            return Err(NoteError::Encoding);
        }
        let blank = note.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, lines) = (&note[..=blank], &note[blank + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        let mut signatures = Vec::new();
        for (number, line) in (1..).zip(lines.split('\n')) {
            if number > MAX_SIGNATURES {
                return Err(NoteError::TooLarge);
            }
            signatures.push(Signature::parse(line).ok_or(NoteError::SignatureLine(number))?);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// With its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a line, say a witness's.
    pub fn add(&mut self, signature: Signature) -> Result<(), NoteError> {
        let mut signatures = self.signatures.clone();
        signatures.push(signature);
        *self = Self::new(self.text.clone(), signatures)?;
        Ok(())
    }

    /// Checks every signature of a known key; one that is invalid spoils the note. Signatures of unknown keys are counted.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<VerifiedNote, NoteError> {
        for (at, key) in keys.iter().enumerate() {
            if keys[..at].iter().any(|k| k.name() == key.name() && k.id() == key.id()) {
                return Err(NoteError::AmbiguousKeys(key.name().clone(), key.id()));
            }
        }
        let mut verified = VerifiedNote { signatures: Vec::new(), unknown: 0 };
        for signature in &self.signatures {
            let Some(key) = keys.iter().find(|key| signature.is_by(key)) else {
                verified.unknown += 1;
                continue;
            };
            let statement = check(key, &self.text, signature)
                .ok_or_else(|| NoteError::InvalidSignature(key.name().clone(), key.id()))?;
            verified.signatures.push(VerifiedSignature { name: key.name().clone(), id: key.id(), statement });
        }
        if verified.signatures.is_empty() { Err(NoteError::NoKnownSignature) } else { Ok(verified) }
    }
}

/// The note as it is stored and sent.
impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

/// What the signature says, if it is valid.
pub(crate) fn check(key: &VerifierKey, text: &str, signature: &Signature) -> Option<Statement> {
    match key.key_type() {
        KeyType::Ed25519 => {
            let raw = signature.bytes.as_slice().try_into().ok()?;
            key.verify_raw(text.as_bytes(), raw).then_some(Statement::Signed)
        }
        KeyType::CosignatureV1 => cosignature::verify(key, text, &signature.bytes).map(Statement::CosignedAt),
    }
}

fn sign_text(key: &SignerKey, text: &str) -> Result<Signature, KeyError> {
    match key.verifier().key_type() {
        KeyType::Ed25519 => Ok(Signature::by(key.verifier(), key.sign_raw(text.as_bytes()).to_vec())),
        KeyType::CosignatureV1 => Err(KeyError::WrongType),
    }
}
