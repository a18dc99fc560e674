//! Inclusion and consistency proofs (RFC 9162 section 2.1.3 and 2.1.4): made from tiles, verified from nothing but heads.

use std::collections::HashMap;

use crate::{
    tile::{ReadError, TILE_HEIGHT, Tile, TileKind, TileSource, read_hashes},
    tree::{MAX_TREE_SIZE, MerkleHash, TreeHead, complete_root, fold_peaks},
};

/// A proof has at most one hash a level.
pub const MAX_PROOF_HASHES: usize = 63;

/// A question about something that the tree does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OutOfRange {
    #[error("entry {index} is not in a tree of {size}")]
    Index { index: u64, size: u64 },
    #[error("a tree of {old} is not the beginning of one of {new}")]
    Sizes { old: u64, new: u64 },
    #[error("a tree of {0} is larger than the largest")]
    TooLarge(u64),
}

#[derive(Debug, thiserror::Error)]
pub enum ProofError<E: std::error::Error + 'static> {
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    #[error(transparent)]
    Read(#[from] ReadError<E>),
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidProof {
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    #[error("the proof has too few hashes")]
    TooShort,
    #[error("the proof has too many hashes")]
    TooLong,
    #[error("the proof does not lead to the root")]
    RootMismatch,
    #[error("the proof does not lead to the older root")]
    OldRootMismatch,
}

/// The proof that an entry is in the tree of this size, from the leaf's sibling to the root's child.
///
/// It is computed from what the source returns. Whoever publishes it verifies it against the signed root first.
pub fn inclusion<S: TileSource>(source: &S, index: u64, size: u64) -> Result<Vec<MerkleHash>, ProofError<S::Error>> {
    hash_ranges(source, &inclusion_ranges(index, size)?, size)
}

/// The proof that the tree of size `old` is the beginning of the tree of size `new`. Empty for the empty and for the same tree.
pub fn consistency<S: TileSource>(source: &S, old: u64, new: u64) -> Result<Vec<MerkleHash>, ProofError<S::Error>> {
    hash_ranges(source, &consistency_ranges(old, new)?, new)
}

/// The root of the tree of this size.
pub fn root<S: TileSource>(source: &S, size: u64) -> Result<MerkleHash, ProofError<S::Error>> {
    check_size(size)?;
    let hashes = hash_ranges(source, &[Range { start: 0, end: size }], size)?;
    Ok(hashes.first().copied().unwrap_or_else(MerkleHash::of_empty_tree))
}

/// The tiles that [`inclusion`] will read: for callers who must fetch before they can compute.
pub fn inclusion_tiles(index: u64, size: u64) -> Result<Vec<Tile>, OutOfRange> {
    Ok(tiles_of(&inclusion_ranges(index, size)?, size))
}

/// The tiles that [`consistency`] will read.
pub fn consistency_tiles(old: u64, new: u64) -> Result<Vec<Tile>, OutOfRange> {
    Ok(tiles_of(&consistency_ranges(old, new)?, new))
}

/// Proves that the entry with this leaf hash is number `index` of the tree that `head` is the head of. Size and root must both come from
/// one trusted checkpoint.
pub fn verify_inclusion(
    head: &TreeHead,
    index: u64,
    leaf: &MerkleHash,
    proof: &[MerkleHash],
) -> Result<(), InvalidProof> {
    if index >= head.size {
        return Err(OutOfRange::Index { index, size: head.size }.into());
    }
    // RFC 9162 section 2.1.3.2.
    let mut node = index;
    let mut last = head.size - 1;
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(InvalidProof::TooLong);
        }
        if node & 1 == 1 || node == last {
            hash = MerkleHash::of_node(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = MerkleHash::of_node(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(InvalidProof::TooShort);
    }
    if hash != head.root {
        return Err(InvalidProof::RootMismatch);
    }
    Ok(())
}

/// Proves that the tree with head `old` is the beginning of the tree with head `new`.
pub fn verify_consistency(old: &TreeHead, new: &TreeHead, proof: &[MerkleHash]) -> Result<(), InvalidProof> {
    if old.size > new.size {
        return Err(OutOfRange::Sizes { old: old.size, new: new.size }.into());
    }
    if old.size == 0 || old.size == new.size {
        if !proof.is_empty() {
            return Err(InvalidProof::TooLong);
        }
        if old.size == 0 && old.root != MerkleHash::of_empty_tree() {
            return Err(InvalidProof::OldRootMismatch);
        }
        return if old.size == new.size && old.root != new.root { Err(InvalidProof::RootMismatch) } else { Ok(()) };
    }
    // RFC 9162 section 2.1.4.2. The old root itself begins the path where the old tree is one complete subtree.
    let (first, rest) = if old.size.is_power_of_two() {
        (old.root, proof)
    } else {
        let (first, rest) = proof.split_first().ok_or(InvalidProof::TooShort)?;
        (*first, rest)
    };
    let mut node = old.size - 1;
    let mut last = new.size - 1;
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (first, first);
    for sibling in rest {
        if last == 0 {
            return Err(InvalidProof::TooLong);
        }
        if node & 1 == 1 || node == last {
            old_hash = MerkleHash::of_node(sibling, &old_hash);
            new_hash = MerkleHash::of_node(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = MerkleHash::of_node(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(InvalidProof::TooShort);
    }
    if old_hash != old.root {
        return Err(InvalidProof::OldRootMismatch);
    }
    if new_hash != new.root {
        return Err(InvalidProof::RootMismatch);
    }
    Ok(())
}

/// Entries `start..end`, a subtree as the RFC cuts them: `start` is aligned, only the tree's last subtree is incomplete.
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    end: u64,
}

impl Range {
    /// Where the RFC splits more than one entry: after the largest power of two below their number.
    fn split(self) -> Option<(Self, Self)> {
        let count = self.end - self.start;
        let half = 1 << (count.checked_sub(1)?.checked_ilog2()?);
        let middle = self.start + half;
        Some((Self { start: self.start, end: middle }, Self { start: middle, end: self.end }))
    }

    /// The complete subtrees in it, the largest first.
    fn complete(self) -> Vec<Node> {
        let mut nodes = Vec::new();
        let mut rest = self;
        while let Some(height) = (rest.end - rest.start).checked_ilog2() {
            nodes.push(Node { height, index: rest.start >> height });
            rest.start += 1 << height;
        }
        nodes
    }
}

/// The complete subtree over entries `index * 2^height ..`.
#[derive(Clone, Copy)]
struct Node {
    height: u32,
    index: u64,
}

impl Node {
    /// The tile whose hashes make this node, and which of them.
    fn place(self, size: u64) -> Option<(Tile, std::ops::Range<usize>)> {
        let level = self.height / TILE_HEIGHT;
        let inside = self.height % TILE_HEIGHT;
        let first = self.index << inside;
        let offset = (first & 0xff) as usize;
        let tile = Tile::in_tree(TileKind::Hashes { level: level as u8 }, first >> TILE_HEIGHT, size)?;
        Some((tile, offset..offset + (1 << inside)))
    }
}

fn check_size(size: u64) -> Result<(), OutOfRange> {
    if size > MAX_TREE_SIZE { Err(OutOfRange::TooLarge(size)) } else { Ok(()) }
}

fn inclusion_ranges(index: u64, size: u64) -> Result<Vec<Range>, OutOfRange> {
    check_size(size)?;
    if index >= size {
        return Err(OutOfRange::Index { index, size });
    }
    let mut ranges = Vec::new();
    let mut around = Range { start: 0, end: size };
    while let Some((left, right)) = around.split() {
        let (inner, sibling) = if index < left.end { (left, right) } else { (right, left) };
        ranges.push(sibling);
        around = inner;
    }
    ranges.reverse();
    Ok(ranges)
}

fn consistency_ranges(old: u64, new: u64) -> Result<Vec<Range>, OutOfRange> {
    check_size(new)?;
    if old > new {
        return Err(OutOfRange::Sizes { old, new });
    }
    let mut ranges = Vec::new();
    let mut around = Range { start: 0, end: new };
    if old == 0 {
        return Ok(ranges);
    }
    while around.end != old {
        let Some((left, right)) = around.split() else { break };
        let (inner, sibling) = if old <= left.end { (left, right) } else { (right, left) };
        ranges.push(sibling);
        around = inner;
    }
    // The verifier knows the old root; any other subtree it must be told.
    if around.start != 0 {
        ranges.push(around);
    }
    ranges.reverse();
    Ok(ranges)
}

fn tiles_of(ranges: &[Range], size: u64) -> Vec<Tile> {
    let mut tiles: Vec<Tile> =
        ranges.iter().flat_map(|r| r.complete()).filter_map(|n| n.place(size)).map(|(tile, _)| tile).collect();
    tiles.sort_unstable();
    tiles.dedup();
    tiles
}

fn hash_ranges<S: TileSource>(
    source: &S,
    ranges: &[Range],
    size: u64,
) -> Result<Vec<MerkleHash>, ProofError<S::Error>> {
    let mut tiles: HashMap<Tile, Vec<MerkleHash>> = HashMap::new();
    for tile in tiles_of(ranges, size) {
        tiles.insert(tile, read_hashes(source, tile)?);
    }
    let hash = |node: Node| {
        let (tile, inside) = node.place(size)?;
        complete_root(tiles.get(&tile)?.get(inside)?)
    };
    // Every node lies in a tile that was just read: nothing is lost by the flattening.
    Ok(ranges.iter().filter_map(|r| fold_peaks(r.complete().into_iter().filter_map(hash))).collect())
}
