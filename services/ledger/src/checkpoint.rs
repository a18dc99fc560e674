//! C2SP tlog-checkpoint: a tree head as the text of a note.
//!
//! After <https://c2sp.org/tlog-checkpoint>, C2SP commit c0d0289bb8fc (2026-07-11; newest tag v1.0.0).

use crate::{
    encoding::from_decimal,
    key::{KeyId, KeyName, KeyType, SignerKey, VerifierKey},
    note::{NoteError, SignedNote, Statement},
    tree::{MAX_TREE_SIZE, MerkleHash, TreeHead},
};

pub const MAX_ORIGIN_BYTES: usize = 255;
pub const MAX_EXTENSIONS: usize = 16;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("the origin must have 1 to {MAX_ORIGIN_BYTES} bytes on one line")]
    Origin,
    #[error("the tree size must be a decimal without leading zeroes that fits 63 bits")]
    Size,
    #[error("the root must be the base64 of 32 bytes")]
    Root,
    #[error("a tree without entries has another root than this")]
    RootOfEmptyTree,
    #[error("there are at most {MAX_EXTENSIONS} extension lines, and none is empty")]
    Extension,
    #[error("the text must be lines that each end in a newline")]
    Form,
    #[error("the checkpoint is of the log {found}, and not of {expected}")]
    OtherLog { expected: String, found: String },
    #[error("the checkpoint is not signed by a known key of its log")]
    NotSignedByLog,
    #[error("a log has at least one Ed25519 key, all have its origin as their name, and none is there twice")]
    LogKeys,
    #[error("a witness's key is of the type for cosignatures")]
    WitnessKeys,
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// What a log says of itself: at this size its root is this.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    origin: String,
    head: TreeHead,
    extensions: Vec<String>,
}

impl Checkpoint {
    pub fn new(origin: &str, head: TreeHead) -> Result<Self, CheckpointError> {
        Self::with_extensions(origin, head, Vec::new())
    }

    /// Our log writes no extension lines: nobody can audit them. Others may.
    pub fn with_extensions(origin: &str, head: TreeHead, extensions: Vec<String>) -> Result<Self, CheckpointError> {
        let one_line = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_ascii_control());
        if !one_line(origin) || origin.len() > MAX_ORIGIN_BYTES {
            return Err(CheckpointError::Origin);
        }
        if head.size > MAX_TREE_SIZE {
            return Err(CheckpointError::Size);
        }
        if head.size == 0 && head.root != MerkleHash::of_empty_tree() {
            return Err(CheckpointError::RootOfEmptyTree);
        }
        if extensions.len() > MAX_EXTENSIONS || !extensions.iter().all(|line| one_line(line)) {
            return Err(CheckpointError::Extension);
        }
        Ok(Self { origin: origin.to_owned(), head, extensions })
    }

    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Form)?.split('\n');
        let origin = lines.next().ok_or(CheckpointError::Origin)?;
        let size = lines.next().and_then(from_decimal).ok_or(CheckpointError::Size)?;
        let root = lines.next().and_then(MerkleHash::from_base64).ok_or(CheckpointError::Root)?;
        // One more than allowed is enough to be refused.
        let extensions = lines.take(MAX_EXTENSIONS + 1).map(str::to_owned).collect();
        Self::with_extensions(origin, TreeHead { size, root }, extensions)
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub const fn head(&self) -> &TreeHead {
        &self.head
    }

    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// The note text, with its final newline.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.head.size, self.head.root);
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    pub fn sign(&self, keys: &[&SignerKey]) -> Result<SignedNote, NoteError> {
        SignedNote::sign(self.text(), keys)
    }
}

/// A log as its users know it: its public keys, whose common name is its origin. More than one while a key is rotated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogKeys(Vec<VerifierKey>);

impl LogKeys {
    pub fn new(keys: Vec<VerifierKey>) -> Result<Self, CheckpointError> {
        let same_name = |key: &VerifierKey| key.name() == keys[0].name() && key.key_type() == KeyType::Ed25519;
        let twice = |at: usize| keys[..at].iter().any(|k| k.public_key() == keys[at].public_key());
        let good = !keys.is_empty() && keys.iter().all(same_name) && !(0..keys.len()).any(twice);
        if good { Ok(Self(keys)) } else { Err(CheckpointError::LogKeys) }
    }

    pub fn origin(&self) -> &KeyName {
        self.0[0].name()
    }

    pub fn keys(&self) -> &[VerifierKey] {
        &self.0
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cosignature {
    pub witness: KeyName,
    pub id: KeyId,
    /// Seconds since 1970-01-01 UTC, by the witness's clock.
    pub at_s: u64,
}

/// A checkpoint whose signatures were verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedCheckpoint {
    pub checkpoint: Checkpoint,
    /// The log's keys that signed it: at least one.
    pub log_keys: Vec<KeyId>,
    /// Of witnesses handed in. A witness that signed twice is here twice.
    pub cosignatures: Vec<Cosignature>,
    /// Signature lines of keys that were not handed in: nothing is known of them.
    pub unknown_signatures: usize,
}

impl VerifiedCheckpoint {
    /// A key's id is short: only together with the witness's name it is that key.
    pub fn has_signed(&self, witness: &VerifierKey) -> bool {
        self.cosignatures.iter().any(|c| c.witness == *witness.name() && c.id == witness.id())
    }
}

/// Verifies a checkpoint: of this log, signed by one of its keys, and no invalid signature of any key handed in.
/// Whether the witnesses that signed are enough is the caller's policy.
pub fn verify(
    note: &SignedNote,
    log: &LogKeys,
    witnesses: &[VerifierKey],
) -> Result<VerifiedCheckpoint, CheckpointError> {
    if witnesses.iter().any(|key| key.key_type() != KeyType::CosignatureV1) {
        return Err(CheckpointError::WitnessKeys);
    }
    let checkpoint = Checkpoint::parse(note.text())?;
    if checkpoint.origin != log.origin().as_str() {
        let expected = log.origin().to_string();
        return Err(CheckpointError::OtherLog { expected, found: checkpoint.origin });
    }
    let known = [log.keys(), witnesses].concat();
    let verified = note.verify(&known)?;
    let mut log_keys = Vec::new();
    let mut cosignatures = Vec::new();
    for signature in verified.signatures {
        match signature.statement {
            Statement::Signed => log_keys.push(signature.id),
            Statement::CosignedAt(at_s) => {
                cosignatures.push(Cosignature { witness: signature.name, id: signature.id, at_s });
            }
        }
    }
    if log_keys.is_empty() {
        return Err(CheckpointError::NotSignedByLog);
    }
    Ok(VerifiedCheckpoint { checkpoint, log_keys, cosignatures, unknown_signatures: verified.unknown })
}

/// A head with the note that says it, signed by a key of its log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedHead {
    pub head: TreeHead,
    pub note: SignedNote,
}

impl SignedHead {
    /// Reads and verifies a checkpoint. Signatures of witnesses are neither asked for nor looked at.
    pub fn read(bytes: &[u8], log: &LogKeys) -> Result<Self, CheckpointError> {
        let note = SignedNote::parse(bytes)?;
        let head = *verify(&note, log, &[])?.checkpoint.head();
        Ok(Self { head, note })
    }
}
