//! C2SP tlog-tiles: where the hashes and entries of a tree lie, and the bytes of a tile.
//!
//! After <https://c2sp.org/tlog-tiles>, C2SP commit 1cd32db2278a (2026-02-06; its newest tag is v0.1.0).

use std::{collections::HashMap, fmt, hash::BuildHasher, str::FromStr};

use crate::{
    encoding::from_decimal,
    tree::{HASH_BYTES, MAX_TREE_SIZE, MerkleHash},
};

/// Hashes in a full tile, entries in a full bundle.
pub const FULL_WIDTH: u16 = 256;
pub(crate) const TILE_HEIGHT: u32 = 8;
const MAX_LEVEL: u8 = 63;
// An index above this would hold entries beyond the largest tree, at every level.
const MAX_INDEX: u64 = MAX_TREE_SIZE >> TILE_HEIGHT;
/// The largest entry that the two length bytes can tell.
pub const MAX_ENTRY_BYTES: usize = u16::MAX as usize;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum TileKind {
    /// Hashes of complete subtrees of 256^level entries. Level 0 holds leaf hashes.
    Hashes { level: u8 },
    /// An entry bundle: the entries themselves.
    Entries,
}

impl TileKind {
    /// How many entries one element of such a tile covers, as a power of two.
    const fn height(self) -> u32 {
        match self {
            Self::Hashes { level } => level as u32 * TILE_HEIGHT,
            Self::Entries => 0,
        }
    }

    /// How many elements of this kind a tree of this size has, all tiles together.
    fn elements(self, size: u64) -> u64 {
        size.checked_shr(self.height()).unwrap_or(0)
    }
}

/// The coordinates of one tile: what kind, which, and how wide.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Tile {
    kind: TileKind,
    index: u64,
    width: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TileError {
    #[error("not the path of a tile")]
    Path,
    #[error("a tile's level is 0 to 63, its width 1 to 256, its index below 2^55")]
    Coordinates,
    #[error("a tile has {found} bytes where {expected} belong")]
    Length { expected: usize, found: usize },
    #[error("an entry bundle ends inside an entry, or has entries or bytes too many")]
    Bundle,
    #[error("an entry is longer than 65535 bytes")]
    EntryTooLong,
}

impl Tile {
    pub fn new(kind: TileKind, index: u64, width: u16) -> Result<Self, TileError> {
        let level_fits = !matches!(kind, TileKind::Hashes { level } if level > MAX_LEVEL);
        let fits = level_fits && index <= MAX_INDEX && (1..=FULL_WIDTH).contains(&width);
        fits.then_some(Self { kind, index, width }).ok_or(TileError::Coordinates)
    }

    /// The tile as it is in a tree of this size: full, or partial at the right edge. `None` if the tree has nothing there.
    pub fn in_tree(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let before = index.checked_mul(u64::from(FULL_WIDTH))?;
        let width = kind.elements(size).checked_sub(before)?.min(u64::from(FULL_WIDTH));
        Self::new(kind, index, u16::try_from(width).ok()?).ok()
    }

    pub const fn kind(&self) -> TileKind {
        self.kind
    }

    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The first entry that it covers.
    pub fn first_entry(&self) -> u64 {
        let before = self.index.saturating_mul(u64::from(FULL_WIDTH));
        before.checked_shl(self.kind.height()).unwrap_or(u64::MAX)
    }

    pub const fn width(&self) -> u16 {
        self.width
    }

    pub const fn is_full(&self) -> bool {
        self.width == FULL_WIDTH
    }

    /// The same place, 256 wide: may be there when the partial tile is no longer.
    #[must_use]
    pub const fn full(self) -> Self {
        Self { width: FULL_WIDTH, ..self }
    }
}

/// The path below the log's prefix: `tile/0/x001/234.p/5`, `tile/entries/067`.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes { level } => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for group in groups[1..].iter().rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups[0])?;
        if !self.is_full() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for Tile {
    type Err = TileError;

    /// Strict: a path is good only if it is what we would write for the tile it names.
    fn from_str(path: &str) -> Result<Self, TileError> {
        let parse = || -> Option<Self> {
            let (kind, place) = path.strip_prefix("tile/")?.split_once('/')?;
            let kind = match kind {
                "entries" => TileKind::Entries,
                level => TileKind::Hashes { level: u8::try_from(from_decimal(level)?).ok()? },
            };
            let (place, width) = match place.split_once(".p/") {
                Some((place, width)) => (place, u16::try_from(from_decimal(width)?).ok()?),
                None => (place, FULL_WIDTH),
            };
            let mut index = 0_u64;
            for group in place.split('/') {
                let digits = group.strip_prefix('x').unwrap_or(group);
                index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
            }
            Self::new(kind, index, width).ok()
        };
        parse().filter(|tile| tile.to_string() == path).ok_or(TileError::Path)
    }
}

/// The hashes in a tile's bytes, of which there must be exactly as many as its width says.
pub fn parse_hashes(tile: &Tile, bytes: &[u8]) -> Result<Vec<MerkleHash>, TileError> {
    let expected = usize::from(tile.width) * HASH_BYTES;
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    if bytes.len() != expected || !rest.is_empty() {
        return Err(TileError::Length { expected, found: bytes.len() });
    }
    Ok(hashes.iter().copied().map(MerkleHash).collect())
}

/// Appends one entry to a bundle: its length in two bytes, big-endian, and its bytes.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), TileError> {
    let length = u16::try_from(entry.len()).map_err(|_| TileError::EntryTooLong)?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entries in a bundle's bytes, of which there must be exactly as many as its width says, and nothing after them.
pub fn parse_entries<'a>(tile: &Tile, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, TileError> {
    let mut entries = Vec::with_capacity(usize::from(tile.width));
    let mut rest = bytes;
    for _ in 0..tile.width {
        let (length, after) = rest.split_first_chunk::<2>().ok_or(TileError::Bundle)?;
        let (entry, after) =
            after.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(TileError::Bundle)?;
        entries.push(entry);
        rest = after;
    }
    if rest.is_empty() { Ok(entries) } else { Err(TileError::Bundle) }
}

/// Every tile and bundle that a tree of size `new` has and a tree of size `old` has not, or has narrower.
pub fn tiles_between(old: u64, new: u64) -> impl Iterator<Item = Tile> {
    let levels = (0_u8..).map(|level| TileKind::Hashes { level }).take_while(move |kind| kind.elements(new) > 0);
    std::iter::once(TileKind::Entries).chain(levels).flat_map(move |kind| {
        let (from, to) = (kind.elements(old), kind.elements(new));
        let first = from / u64::from(FULL_WIDTH);
        let end = if to > from { to.div_ceil(u64::from(FULL_WIDTH)) } else { first };
        (first..end).filter_map(move |index| Tile::in_tree(kind, index, new))
    })
}

/// The partial tiles at a tree's right edge, the bundle first: what [`crate::integrate::RightEdge::load`] reads.
pub fn right_edge_tiles(size: u64) -> impl Iterator<Item = Tile> {
    let levels = (0_u8..).map(|level| TileKind::Hashes { level }).take_while(move |kind| kind.elements(size) > 0);
    std::iter::once(TileKind::Entries)
        .chain(levels)
        .filter_map(move |kind| Tile::in_tree(kind, kind.elements(size) / u64::from(FULL_WIDTH), size))
}

/// Where tiles are read from: a folder, a table, a cache.
///
/// `read` returns exactly as many hashes or entries as the tile's width. A source that holds only the full tile may cut it.
pub trait TileSource {
    type Error: std::error::Error + 'static;

    fn read(&self, tile: Tile) -> Result<Vec<u8>, Self::Error>;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} was not handed in")]
pub struct TileMissing(pub Tile);

/// For callers who fetch first (from an async store, say) and compute then.
impl<S: BuildHasher> TileSource for HashMap<Tile, Vec<u8>, S> {
    type Error = TileMissing;

    fn read(&self, tile: Tile) -> Result<Vec<u8>, TileMissing> {
        self.get(&tile).cloned().ok_or(TileMissing(tile))
    }
}

/// Why a tile could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E: std::error::Error + 'static> {
    #[error("{tile} cannot be read")]
    Source { tile: Tile, source: E },
    #[error("{tile} is malformed")]
    Malformed { tile: Tile, source: TileError },
}

pub(crate) fn read_hashes<S: TileSource>(source: &S, tile: Tile) -> Result<Vec<MerkleHash>, ReadError<S::Error>> {
    let bytes = source.read(tile).map_err(|source| ReadError::Source { tile, source })?;
    parse_hashes(&tile, &bytes).map_err(|source| ReadError::Malformed { tile, source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn hashes(level: u8) -> TileKind {
        TileKind::Hashes { level }
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        for (tile, path) in [
            (Tile::new(hashes(0), 1_234_067, 256), "tile/0/x001/x234/067"),
            (Tile::new(hashes(0), 0, 256), "tile/0/000"),
            (Tile::new(hashes(63), 999, 1), "tile/63/999.p/1"),
            (Tile::new(TileKind::Entries, 1000, 255), "tile/entries/x001/000.p/255"),
        ] {
            let tile = tile.unwrap();
            assert_eq!(tile.to_string(), path);
            assert_eq!(path.parse(), Ok(tile));
        }
    }

    #[test]
    fn no_other_spelling_of_a_path_is_accepted() {
        for path in [
            "",
            "/tile/0/000",
            "tile/0/",
            "tile/0/000/",
            "tile/00/000",
            "tile/-1/000",
            "tile/64/000",
            "tile/data/000",
            "tile/0/0",
            "tile/0/0000",
            "tile/0/x000/001",
            "tile/0/001/001",
            "tile/0/x001",
            "tile/0/x001/x002",
            "tile/0/+01",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p/",
            "tile/0/000.p/1/",
            "tile/0/000.p/1.p/1",
            "tile/0/../000",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(path.parse::<Tile>(), Err(TileError::Path), "{path}");
        }
    }

    /// The specification's example: 273 full tiles and one of 112, one full and one of 17, one of 1.
    #[test]
    fn a_tree_of_seventy_thousand_has_the_tiles_of_the_specification() {
        let tiles: Vec<Tile> = tiles_between(0, 70_000).collect();
        let of = |kind| tiles.iter().filter(|t| t.kind() == kind).collect::<Vec<_>>();
        for kind in [hashes(0), TileKind::Entries] {
            assert_eq!(of(kind).len(), 274);
            assert_eq!(of(kind)[273].width(), 112);
            assert!(of(kind)[..273].iter().all(|t| t.is_full()));
        }
        assert_eq!(of(hashes(1)).iter().map(|t| t.width()).collect::<Vec<_>>(), [256, 17]);
        assert_eq!(of(hashes(2)).iter().map(|t| t.width()).collect::<Vec<_>>(), [1]);
        assert_eq!(tiles.len(), 2 * 274 + 2 + 1);

        let edge: Vec<String> = right_edge_tiles(70_000).map(|t| t.to_string()).collect();
        assert_eq!(edge, ["tile/entries/273.p/112", "tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
        assert_eq!(right_edge_tiles(256).map(|t| t.to_string()).collect::<Vec<_>>(), ["tile/1/000.p/1"]);
        assert_eq!(tiles_between(0, 0).count() + right_edge_tiles(0).count(), 0);
    }

    #[test]
    fn a_bundle_that_is_cut_lengthened_or_miscounted_is_refused() {
        let mut bytes = Vec::new();
        push_entry(&mut bytes, b"one").unwrap();
        push_entry(&mut bytes, b"").unwrap();
        let two = Tile::new(TileKind::Entries, 0, 2).unwrap();
        assert_eq!(parse_entries(&two, &bytes).unwrap(), [&b"one"[..], b""]);
        for cut in 0..bytes.len() {
            assert!(parse_entries(&two, &bytes[..cut]).is_err());
        }
        assert!(parse_entries(&two, &[&bytes[..], b"x"].concat()).is_err());
        for width in [1, 3] {
            assert!(parse_entries(&Tile::new(TileKind::Entries, 0, width).unwrap(), &bytes).is_err());
        }
        assert_eq!(push_entry(&mut bytes, &[0; MAX_ENTRY_BYTES + 1]), Err(TileError::EntryTooLong));
        assert!(push_entry(&mut bytes, &[0; MAX_ENTRY_BYTES]).is_ok());
    }

    proptest! {
        #[test]
        fn every_tile_is_read_back_from_its_path(level in 0_u8..=64, index in 0..=MAX_INDEX, width in 1_u16..=256) {
            let kind = if level == 64 { TileKind::Entries } else { hashes(level) };
            let tile = Tile::new(kind, index, width).unwrap();
            prop_assert_eq!(tile.to_string().parse(), Ok(tile));
        }

        #[test]
        fn no_text_makes_the_path_parser_stumble(text in "tile/[0-9x/.p]{0,24}|.{0,24}") {
            if let Ok(tile) = text.parse::<Tile>() {
                prop_assert_eq!(tile.to_string(), text);
            }
        }
    }
}
