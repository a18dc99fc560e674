//! The Merkle tree of RFC 9162 section 2.1 with SHA-256: hashes, heads, and the compact right edge that appends.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

use crate::{
    Leaf,
    encoding::{from_base64, to_base64},
};

pub const HASH_BYTES: usize = 32;

/// The largest tree that every format here and every implementation we know can name (63 bits).
pub const MAX_TREE_SIZE: u64 = i64::MAX as u64;

/// The hash of a leaf or of an inner node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MerkleHash(pub [u8; HASH_BYTES]);

impl MerkleHash {
    /// The root of the tree without leaves: the hash of nothing.
    pub fn of_empty_tree() -> Self {
        sha256(&[])
    }

    /// What a log entry hashes to: SHA-256(0x00 || entry).
    pub fn of_entry(entry: &[u8]) -> Self {
        sha256(&[&[0], entry])
    }

    /// SHA-256(0x01 || left || right).
    pub fn of_node(left: &Self, right: &Self) -> Self {
        sha256(&[&[1], &left.0, &right.0])
    }

    /// The entry data of our log is the leaf's 32 bytes.
    pub fn of_leaf(leaf: &Leaf) -> Self {
        Self::of_entry(&leaf.0)
    }

    pub(crate) fn from_base64(text: &str) -> Option<Self> {
        from_base64(text)?.try_into().ok().map(Self)
    }
}

/// As the text formats write it.
impl fmt::Display for MerkleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_base64(&self.0))
    }
}

impl fmt::Debug for MerkleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A size and the root at that size. The root does not commit to the size: trust the two together or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeHead {
    pub size: u64,
    pub root: MerkleHash,
}

impl TreeHead {
    pub fn empty() -> Self {
        Self { size: 0, root: MerkleHash::of_empty_tree() }
    }
}

/// The roots of the complete subtrees that a tree of this size is made of, the largest first: all that appending needs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<MerkleHash>,
}

impl Frontier {
    pub fn new() -> Self {
        Self::default()
    }

    /// `None` unless there is exactly one peak for each bit that is set in the size.
    pub fn from_peaks(size: u64, peaks: Vec<MerkleHash>) -> Option<Self> {
        (size <= MAX_TREE_SIZE && peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    pub const fn size(&self) -> u64 {
        self.size
    }

    pub fn peaks(&self) -> &[MerkleHash] {
        &self.peaks
    }

    pub fn append(&mut self, leaf: MerkleHash) {
        self.append_with(leaf, |_, _| ());
    }

    /// Appends and tells every complete subtree that this leaf closes, by height, the leaf itself (height 0) first.
    pub(crate) fn append_with(&mut self, leaf: MerkleHash, mut closed: impl FnMut(u32, MerkleHash)) {
        let mut hash = leaf;
        closed(0, hash);
        for height in 1..=self.size.trailing_ones() {
            // There is one peak for every bit that is set, so the low ones each have theirs.
            let Some(left) = self.peaks.pop() else { break };
            hash = MerkleHash::of_node(&left, &hash);
            closed(height, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    pub fn root(&self) -> MerkleHash {
        fold_peaks(self.peaks.iter().copied()).unwrap_or_else(MerkleHash::of_empty_tree)
    }

    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.size, root: self.root() }
    }
}

/// The root over adjacent complete subtrees, given the largest first. `None` of none.
pub(crate) fn fold_peaks(peaks: impl DoubleEndedIterator<Item = MerkleHash>) -> Option<MerkleHash> {
    peaks.rev().reduce(|right, left| MerkleHash::of_node(&left, &right))
}

/// The root of the complete subtree over these hashes, whose number is a power of two.
pub(crate) fn complete_root(hashes: &[MerkleHash]) -> Option<MerkleHash> {
    match hashes {
        [] => None,
        [one] => Some(*one),
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            Some(MerkleHash::of_node(&complete_root(left)?, &complete_root(right)?))
        }
    }
}

fn sha256(parts: &[&[u8]]) -> MerkleHash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; HASH_BYTES];
    out.copy_from_slice(context.finish().as_ref());
    MerkleHash(out)
}
