//! From staged leaves to tiles: what has to be written when the tree grows.

use crate::{
    Leaf,
    tile::{
        FULL_WIDTH, ReadError, TILE_HEIGHT, Tile, TileError, TileKind, TileSource, parse_entries, push_entry,
        read_hashes,
    },
    tree::{Frontier, HASH_BYTES, MAX_TREE_SIZE, MerkleHash, TreeHead, complete_root},
};

/// How many leaves one call takes: bounds what a batch holds in memory (some 70 bytes a leaf).
pub const MAX_BATCH: usize = 1 << 20;

/// The state of the log's writer: the tree's head and its partial tiles.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RightEdge {
    frontier: Frontier,
    // By level, the bytes of the partial tile; empty where the last tile is full.
    hashes: Vec<Vec<u8>>,
    bundle: Vec<u8>,
}

/// One resource to write. Its path is the tile's `Display`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TileWrite {
    pub tile: Tile,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IntegrateError {
    #[error("a batch has at most {MAX_BATCH} leaves")]
    BatchTooLarge,
    #[error("the tree has reached its largest size")]
    TreeFull,
    #[error("a tile's coordinates are out of range")]
    Tile(#[from] TileError),
}

/// Why a right edge is not the one of the head it was loaded for.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E: std::error::Error + 'static> {
    #[error(transparent)]
    Read(#[from] ReadError<E>),
    #[error("{tile} has an entry that is not 32 bytes long, or not the one in the tree: index {index}")]
    Entry { tile: Tile, index: u64 },
    #[error("the tiles at the right edge do not hash to the root")]
    RootMismatch,
    #[error("a tree of {0} leaves is larger than the largest")]
    TooLarge(u64),
}

impl RightEdge {
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads the partial tiles of a tree and proves them against its head: they alone make the root.
    pub fn load<S: TileSource>(head: &TreeHead, source: &S) -> Result<Self, LoadError<S::Error>> {
        let mut edge = Self::empty();
        let mut peaks = Vec::new();
        let mut leaves = Vec::new();
        if head.size > MAX_TREE_SIZE {
            return Err(LoadError::TooLarge(head.size));
        }
        let levels = u64::BITS - head.size.leading_zeros();
        for level in (0..levels.div_ceil(TILE_HEIGHT)).rev() {
            let kind = TileKind::Hashes { level: level as u8 };
            let index = head.size >> (TILE_HEIGHT * level) >> TILE_HEIGHT;
            let hashes = match Tile::in_tree(kind, index, head.size) {
                Some(tile) => read_hashes(source, tile)?,
                None => Vec::new(),
            };
            // The width's bits tell the complete subtrees in the tile, the largest first.
            let mut rest = hashes.as_slice();
            while let Some(power) = rest.len().checked_ilog2() {
                let (subtree, after) = rest.split_at(1 << power);
                peaks.extend(complete_root(subtree));
                rest = after;
            }
            edge.hashes.push(hashes.iter().flat_map(|h| h.0).collect());
            leaves = hashes;
        }
        edge.hashes.reverse();
        edge.frontier = Frontier::from_peaks(head.size, peaks).ok_or(LoadError::RootMismatch)?;
        if edge.frontier.root() != head.root {
            return Err(LoadError::RootMismatch);
        }
        if let Some(tile) = Tile::in_tree(TileKind::Entries, head.size / u64::from(FULL_WIDTH), head.size) {
            edge.bundle = source.read(tile).map_err(|source| ReadError::Source { tile, source })?;
            let entries = parse_entries(&tile, &edge.bundle).map_err(|source| ReadError::Malformed { tile, source })?;
            let first = head.size - u64::from(tile.width());
            for (index, (entry, leaf)) in (first..).zip(entries.iter().zip(&leaves)) {
                if entry.len() != HASH_BYTES || MerkleHash::of_entry(entry) != *leaf {
                    return Err(LoadError::Entry { tile, index });
                }
            }
        }
        Ok(edge)
    }

    pub fn head(&self) -> TreeHead {
        self.frontier.head()
    }
}

/// Appends leaves. Returns the new state and every tile and bundle that is new or grew: full ones first, in the order in which
/// they filled, then the partial ones at the right edge. Nothing is changed until the caller takes the new state: write the tiles,
/// then sign, and drop what was returned if that fails.
pub fn integrate(previous: &RightEdge, leaves: &[Leaf]) -> Result<(RightEdge, Vec<TileWrite>), IntegrateError> {
    if leaves.len() > MAX_BATCH {
        return Err(IntegrateError::BatchTooLarge);
    }
    let mut edge = previous.clone();
    let old_size = edge.frontier.size();
    if old_size + leaves.len() as u64 > MAX_TREE_SIZE {
        return Err(IntegrateError::TreeFull);
    }
    let mut writes = Vec::new();
    for leaf in leaves {
        push_entry(&mut edge.bundle, &leaf.0)?;
        let RightEdge { frontier, hashes, .. } = &mut edge;
        frontier.append_with(MerkleHash::of_leaf(leaf), |height, hash| {
            if height % TILE_HEIGHT == 0 {
                let level = (height / TILE_HEIGHT) as usize;
                if hashes.len() == level {
                    hashes.push(Vec::new());
                }
                hashes[level].extend_from_slice(&hash.0);
            }
        });
        let size = edge.frontier.size();
        if size.is_multiple_of(u64::from(FULL_WIDTH)) {
            let index = size / u64::from(FULL_WIDTH) - 1;
            let tile = Tile::new(TileKind::Entries, index, FULL_WIDTH)?;
            writes.push(TileWrite { tile, bytes: std::mem::take(&mut edge.bundle) });
            for (level, bytes) in (0_u8..).zip(&mut edge.hashes) {
                if bytes.len() < usize::from(FULL_WIDTH) * HASH_BYTES {
                    break;
                }
                let index = (size >> (TILE_HEIGHT * (u32::from(level) + 1))) - 1;
                let tile = Tile::new(TileKind::Hashes { level }, index, FULL_WIDTH)?;
                writes.push(TileWrite { tile, bytes: std::mem::take(bytes) });
            }
        }
    }
    let size = edge.frontier.size();
    if size > old_size && !edge.bundle.is_empty() {
        let tile =
            Tile::in_tree(TileKind::Entries, size / u64::from(FULL_WIDTH), size).ok_or(TileError::Coordinates)?;
        writes.push(TileWrite { tile, bytes: edge.bundle.clone() });
    }
    for (level, bytes) in (0_u8..).zip(&edge.hashes) {
        let height = TILE_HEIGHT * u32::from(level);
        if size >> height > old_size >> height && !bytes.is_empty() {
            let kind = TileKind::Hashes { level };
            let tile = Tile::in_tree(kind, size >> height >> TILE_HEIGHT, size).ok_or(TileError::Coordinates)?;
            writes.push(TileWrite { tile, bytes: bytes.clone() });
        }
    }
    Ok((edge, writes))
}
