//! Does what is stored still make the tree? One tile at a time, so that a scrub can go slowly and an `fsck` through everything.
//!
//! Every entry is checked against its leaf hash, and every full tile against its hash in the tile above it. The partial tiles at the right
//! edge, which have none above them, are checked against the root by [`crate::integrate::RightEdge::load`]. Together that is the whole
//! tree.

use std::{fmt, ops::Range};

use crate::{
    integrate::LoadError,
    proof::{InvalidProof, ProofError, inclusion, inclusion_tiles, verify_inclusion},
    tile::{FULL_WIDTH, ReadError, TILE_HEIGHT, Tile, TileKind, TileSource, parse_entries, read_hashes},
    tree::{MerkleHash, TreeHead, complete_root},
};

/// A bundle of entries with all that ends with it in the levels above: what is checked in one step. In their order, portions find the
/// first entry that does not fit; all together they are the whole tree, but for its right edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Portion {
    number: u64,
    size: u64,
}

impl Portion {
    /// How many a tree of this size has.
    pub const fn count(size: u64) -> u64 {
        size.div_ceil(FULL_WIDTH as u64)
    }

    /// All of a tree of this size, in their order.
    pub fn all(size: u64) -> impl Iterator<Item = Self> {
        (0..Self::count(size)).map(move |number| Self { number, size })
    }

    /// The one that this entry is in, if the tree has it.
    pub fn of(index: u64, size: u64) -> Option<Self> {
        (index < size).then_some(Self { number: index / u64::from(FULL_WIDTH), size })
    }

    /// The entries in it.
    pub fn places(&self) -> Range<u64> {
        let first = self.number * u64::from(FULL_WIDTH);
        first..self.size.min(first + u64::from(FULL_WIDTH))
    }

    /// The bundle of its entries.
    pub fn bundle(&self) -> Option<Tile> {
        Tile::in_tree(TileKind::Entries, self.number, self.size)
    }

    /// What is checked in this step. All together they are the tree's tiles, each once.
    pub fn tiles(&self) -> impl Iterator<Item = Tile> {
        let last = self.number + 1 == Self::count(self.size);
        let after = self.number + 1;
        let levels = (0_u8..).take_while(|level| u32::from(*level) * TILE_HEIGHT < u64::BITS);
        let ended = levels.filter_map(move |level| {
            let height = TILE_HEIGHT * u32::from(level);
            let ends = last || after.is_multiple_of(1 << height);
            let tile = Tile::in_tree(TileKind::Hashes { level }, self.number >> height, self.size);
            tile.filter(|_| ends)
        });
        self.bundle().into_iter().chain(ended)
    }

    /// Every tile that [`Self::check`] reads: for callers who must fetch before they can compute.
    pub fn reads(&self) -> Vec<Tile> {
        let above = self.tiles().filter_map(|tile| checked_against(tile, self.size));
        let mut all: Vec<Tile> = self.tiles().chain(above).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    pub fn check<S: TileSource>(&self, source: &S) -> Result<(), Fault<S::Error>> {
        self.tiles().try_for_each(|tile| check(source, tile, self.size))
    }

    /// Every tile that [`Self::prove`] reads.
    pub fn proof_reads(&self) -> Vec<Tile> {
        let mut all = self.reads();
        all.extend(inclusion_tiles(self.places().start, self.size).unwrap_or_default());
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether its tiles are those of a signed tree, and not only of one another: its first entry is proven to be in that tree, and every
    /// hash in these tiles is either on the way to the root or checked against one that is.
    pub fn prove<S: TileSource>(&self, head: &TreeHead, source: &S) -> Result<(), Unproven<S::Error>> {
        self.check(source)?;
        let first = self.places().start;
        let leaves = Tile::in_tree(TileKind::Hashes { level: 0 }, self.number, self.size);
        let leaves = leaves.map(|tile| read_hashes(source, tile)).transpose().map_err(Fault::from)?;
        let leaf = leaves.and_then(|leaves| leaves.first().copied()).unwrap_or_else(MerkleHash::of_empty_tree);
        let path = inclusion(source, first, self.size)?;
        Ok(verify_inclusion(head, first, &leaf, &path)?)
    }
}

/// Why the tiles of a portion are not proven to be those of a signed tree.
#[derive(Debug, thiserror::Error)]
pub enum Unproven<E: std::error::Error + 'static> {
    #[error(transparent)]
    Fault(#[from] Fault<E>),
    #[error(transparent)]
    Proof(#[from] ProofError<E>),
    #[error(transparent)]
    Root(#[from] InvalidProof),
}

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

impl<E: std::error::Error + 'static> Fault<E> {
    /// The first entry that it concerns.
    pub fn index(&self) -> u64 {
        match self {
            Self::Entry { index, .. } | Self::Tile { first: index, .. } => *index,
            Self::Read(ReadError::Source { tile, .. } | ReadError::Malformed { tile, .. })
            | Self::NotInTree { tile, .. } => tile.first_entry(),
        }
    }
}

/// What does not fit, in words, and from which entry on.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, thiserror::Error)]
#[error("{}{what}", .index.map(|index| format!("entry {index} of the log: ")).unwrap_or_default())]
pub struct Damage {
    /// The first entry that it concerns; `None`: the tree as a whole.
    pub index: Option<u64>,
    pub what: String,
}

impl Damage {
    pub fn at(index: u64, what: impl ToString) -> Self {
        Self { index: Some(index), what: what.to_string() }
    }

    pub fn of_the_whole(what: impl ToString) -> Self {
        Self { index: None, what: what.to_string() }
    }
}

impl<E: std::error::Error + 'static> From<Fault<E>> for Damage {
    fn from(fault: Fault<E>) -> Self {
        Self::at(fault.index(), fault)
    }
}

impl<E: std::error::Error + 'static> From<LoadError<E>> for Damage {
    fn from(fault: LoadError<E>) -> Self {
        match &fault {
            LoadError::Entry { index, .. } => Self::at(*index, fault),
            LoadError::Read(_) | LoadError::RootMismatch | LoadError::TooLarge(_) => Self::of_the_whole(fault),
        }
    }
}

/// What came of looking at all of it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Findings {
    pub entries: u64,
    /// As checkpoints write it.
    pub root: String,
    /// Portions of 256 entries in which something does not fit.
    pub damaged_portions: u64,
    /// The first of it, by its place in the log; damage of the tree as a whole comes last.
    pub first: Option<Damage>,
}

impl Findings {
    pub fn new(head: &TreeHead) -> Self {
        Self { entries: head.size, root: head.root.to_string(), damaged_portions: 0, first: None }
    }

    pub fn portion(&mut self, damage: Option<Damage>) {
        if let Some(damage) = damage {
            self.damaged_portions += 1;
            self.found(damage);
        }
    }

    pub fn found(&mut self, damage: Damage) {
        let place = |damage: &Damage| damage.index.unwrap_or(u64::MAX);
        if self.first.as_ref().is_none_or(|first| place(&damage) < place(first)) {
            self.first = Some(damage);
        }
    }

    pub const fn is_whole(&self) -> bool {
        self.first.is_none()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, root, damaged_portions, first } = self;
        match first {
            None => write!(f, "whole: {entries} entries, root {root}"),
            Some(first) => {
                write!(
                    f,
                    "damaged: {first}\n{damaged_portions} of {} portions of 256 entries",
                    Portion::count(*entries)
                )?;
                write!(f, " have something that does not fit")
            }
        }
    }
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
        (TileKind::Hashes { .. }, Some((parent, above))) => {
            let root = complete_root(&read_hashes(source, tile)?);
            let place = (tile.index() % u64::from(FULL_WIDTH)) as usize;
            if root.is_some() && root.as_ref() == above.get(place) {
                return Ok(());
            }
            Err(Fault::Tile { tile, parent, first: tile.first_entry() })
        }
        // Only the root can tell: what is left to see here is whether it can be read.
        (_, None) => read_hashes(source, tile).map(drop).map_err(Into::into),
    }
}
