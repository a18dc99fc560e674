//! Does what is stored still make the tree? One tile at a time, so that a scrub can go slowly and an `fsck` through everything.
//!
//! Every entry is checked against its leaf hash, and every full tile against its hash in the tile above it. The partial tiles at the right
//! edge, which have none above them, are checked against the root by [`crate::integrate::RightEdge::load`]. Together that is the whole
//! tree.

use crate::{
    tile::{FULL_WIDTH, ReadError, TILE_HEIGHT, Tile, TileKind, TileSource, parse_entries, read_hashes},
    tree::{MerkleHash, complete_root},
};

/// What does not fit. Which of two tiles is the wrong one only a copy can tell.
#[derive(Debug, thiserror::Error)]
pub enum Fault<E: std::error::Error + 'static> {
    #[error(transparent)]
    Read(#[from] ReadError<E>),
    #[error("entry {index} in {bundle} is not the one whose hash is in the tree")]
    Entry { bundle: Tile, index: u64 },
    #[error("{tile}, from entry {first} on, does not hash to what {parent} says")]
    Tile { tile: Tile, parent: Tile, first: u64 },
    #[error("a tree of {size} has no {tile}")]
    NotInTree { tile: Tile, size: u64 },
}

/// The tile against which this one is checked: the leaf hashes of a bundle, the tile above a full one. `None` for a partial tile of hashes.
pub fn checked_against(tile: Tile, size: u64) -> Option<Tile> {
    match tile.kind() {
        TileKind::Entries => Tile::in_tree(TileKind::Hashes { level: 0 }, tile.index(), size),
        TileKind::Hashes { level } if tile.is_full() => {
            Tile::in_tree(TileKind::Hashes { level: level + 1 }, tile.index() / u64::from(FULL_WIDTH), size)
        }
        TileKind::Hashes { .. } => None,
    }
}

/// Checks a tile of the tree of this size, as [`crate::tile::tiles_between`] lists them from 0.
pub fn check<S: TileSource>(source: &S, tile: Tile, size: u64) -> Result<(), Fault<S::Error>> {
    if Tile::in_tree(tile.kind(), tile.index(), size) != Some(tile) {
        return Err(Fault::NotInTree { tile, size });
    }
    let against = checked_against(tile, size).map(|other| Ok::<_, ReadError<_>>((other, read_hashes(source, other)?)));
    let against = against.transpose()?;
    match (tile.kind(), against) {
        (TileKind::Entries, Some((_, leaves))) => {
            let bytes = source.read(tile).map_err(|source| ReadError::Source { tile, source })?;
            let entries = parse_entries(&tile, &bytes).map_err(|source| ReadError::Malformed { tile, source })?;
            let first = tile.index() * u64::from(FULL_WIDTH);
            let bad = entries.iter().zip(&leaves).position(|(entry, leaf)| MerkleHash::of_entry(entry) != *leaf);
            bad.map_or(Ok(()), |at| Err(Fault::Entry { bundle: tile, index: first + at as u64 }))
        }
        (TileKind::Hashes { level }, Some((parent, above))) => {
            let root = complete_root(&read_hashes(source, tile)?);
            let place = (tile.index() % u64::from(FULL_WIDTH)) as usize;
            if root.is_some() && root.as_ref() == above.get(place) {
                return Ok(());
            }
            Err(Fault::Tile { tile, parent, first: tile.index() << (TILE_HEIGHT * (u32::from(level) + 1)) })
        }
        // Only the root can tell: what is left to see here is whether it can be read.
        (_, None) => read_hashes(source, tile).map(drop).map_err(Into::into),
    }
}
