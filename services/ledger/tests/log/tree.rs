//! Roots, tiles and proofs against the RFC's own definitions.

use std::{cell::Cell, collections::HashMap, sync::LazyLock};

use crate::common::{Log, leaf, leaves, naive_consistency, naive_inclusion, naive_root};
use proptest::prelude::*;
use quittance_ledger::{
    integrate::{IntegrateError, LoadError, MAX_BATCH, RightEdge, integrate},
    proof::{
        InvalidProof, OutOfRange, ProofError, consistency, consistency_tiles, inclusion, inclusion_tiles, root,
        verify_consistency, verify_inclusion,
    },
    tile::{Tile, TileKind, TileMissing, TileSource, right_edge_tiles, tiles_between},
    tree::{Frontier, MerkleHash, TreeHead},
};

const SIZES: u64 = 600;
const LARGE: u64 = 70_000;

static LARGE_LOG: LazyLock<Log> = LazyLock::new(|| {
    let mut log = Log::default();
    // Cut where no tile ends, so that partial tiles are there too.
    for start in (0..LARGE).step_by(9_973) {
        log.append(&leaves(start..LARGE.min(start + 9_973)));
    }
    log
});

fn head_of(size: u64) -> TreeHead {
    TreeHead { size, root: naive_root(&leaves(0..size)) }
}

/// RFC 9162 and RFC 6962 name none; these are the ones that all implementations test with.
#[test]
fn hashes_are_those_of_the_known_test_vectors() {
    let hex = |h: MerkleHash| h.0.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let empty = MerkleHash::of_empty_tree();
    assert_eq!(hex(empty), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    let entries: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut frontier = Frontier::new();
    for (entry, root) in entries.iter().zip(roots) {
        frontier.append(MerkleHash::of_entry(entry));
        assert_eq!(hex(frontier.root()), root);
    }
}

#[test]
fn roots_of_all_small_trees_are_the_ones_of_the_definition() {
    let all = leaves(0..SIZES);
    let mut frontier = Frontier::new();
    let mut log = Log::default();
    for size in 0..=SIZES {
        let naive = naive_root(&all[..size as usize]);
        assert_eq!(frontier.head(), TreeHead { size, root: naive });
        assert_eq!(log.head(), frontier.head());
        assert_eq!(root(&log.tiles, size).unwrap(), naive);
        let restored = Frontier::from_peaks(size, frontier.peaks().to_vec()).unwrap();
        assert_eq!(restored, frontier);
        assert_eq!(RightEdge::load(&log.head(), &log.tiles).unwrap(), log.edge);
        if size < SIZES {
            frontier.append(MerkleHash::of_leaf(&leaf(size)));
            log.append(&[leaf(size)]);
        }
    }
    assert_eq!(Frontier::from_peaks(3, vec![MerkleHash([0; 32])]), None);
}

#[test]
fn proofs_in_all_small_trees_are_the_ones_of_the_definition() {
    let all = leaves(0..SIZES);
    for size in 1..=SIZES {
        let log = Log::of(size);
        let tree = &all[..size as usize];
        let step = if size <= 70 { 1 } else { size / 4 };
        let mut points: Vec<u64> = (0..size).step_by(step as usize).chain([size - 1, 255, 256]).collect();
        points.retain(|at| *at < size);
        for index in points {
            let path = inclusion(&log.tiles, index, size).unwrap();
            assert_eq!(path, naive_inclusion(index as usize, tree));
            assert_eq!(verify_inclusion(&log.head(), index, &MerkleHash::of_leaf(&leaf(index)), &path), Ok(()));
            let old = index + 1;
            let path = consistency(&log.tiles, old, size).unwrap();
            assert_eq!(path, naive_consistency(old as usize, tree));
            let old = TreeHead { size: old, root: naive_root(&tree[..old as usize]) };
            assert_eq!(verify_consistency(&old, &log.head(), &path), Ok(()));
        }
        assert_eq!(consistency(&log.tiles, 0, size).unwrap(), []);
        assert_eq!(verify_consistency(&TreeHead::empty(), &log.head(), &[]), Ok(()));
    }
}

#[test]
fn what_the_tree_does_not_hold_is_out_of_range() {
    let log = Log::of(10);
    for (index, size) in [(10, 10), (0, 0), (u64::MAX, 10)] {
        let error = inclusion(&log.tiles, index, size);
        assert!(matches!(error, Err(ProofError::OutOfRange(OutOfRange::Index { .. }))), "{error:?}");
        let head = TreeHead { size, ..log.head() };
        let error = verify_inclusion(&head, index, &MerkleHash::of_leaf(&leaf(0)), &[]);
        assert_eq!(error, Err(OutOfRange::Index { index, size }.into()));
    }
    assert!(matches!(
        consistency(&log.tiles, 11, 10),
        Err(ProofError::OutOfRange(OutOfRange::Sizes { old: 11, new: 10 }))
    ));
    assert!(matches!(inclusion_tiles(0, u64::MAX), Err(OutOfRange::TooLarge(_))));
    assert_eq!(
        verify_consistency(&TreeHead { size: 11, ..log.head() }, &log.head(), &[]),
        Err(OutOfRange::Sizes { old: 11, new: 10 }.into())
    );
}

/// The promise that a proof out of a million entries costs a handful of tiles.
#[test]
fn a_proof_reads_a_handful_of_tiles_and_exactly_those_that_it_announces() {
    for index in [0, 1, 255, 256, 65_535, 65_536, 500_000, 999_999] {
        assert!(inclusion_tiles(index, 1_000_000).unwrap().len() <= 6);
        assert!(consistency_tiles(index.max(1), 1_000_000).unwrap().len() <= 6);
    }
    struct Counting<'a>(&'a HashMap<Tile, Vec<u8>>, Cell<usize>);
    impl TileSource for Counting<'_> {
        type Error = TileMissing;
        fn read(&self, tile: Tile) -> Result<Vec<u8>, TileMissing> {
            self.1.set(self.1.get() + 1);
            self.0.read(tile)
        }
    }
    let source = Counting(&LARGE_LOG.tiles, Cell::new(0));
    inclusion(&source, 40_000, LARGE).unwrap();
    assert_eq!(source.1.get(), inclusion_tiles(40_000, LARGE).unwrap().len());
}

#[test]
fn a_tile_that_is_missing_or_has_another_length_is_an_error_that_names_it() {
    let mut log = Log::of(300);
    let tile = Tile::in_tree(TileKind::Hashes { level: 0 }, 0, 300).unwrap();
    let bytes = log.tiles.remove(&tile).unwrap();
    assert!(inclusion(&log.tiles, 3, 300).unwrap_err().to_string().contains("tile/0/000"));
    log.tiles.insert(tile, bytes[..bytes.len() - 1].to_vec());
    assert!(inclusion(&log.tiles, 3, 300).unwrap_err().to_string().contains("tile/0/000"));
}

#[test]
fn an_altered_right_edge_is_never_taken_up() {
    let log = Log::of(300);
    assert_eq!(RightEdge::load(&log.head(), &log.tiles).unwrap(), log.edge);
    for tile in right_edge_tiles(300) {
        for at in 0..log.tiles[&tile].len() {
            let mut tiles = log.tiles.clone();
            tiles.get_mut(&tile).unwrap()[at] ^= 1;
            assert!(RightEdge::load(&log.head(), &tiles).is_err(), "{tile} {at}");
        }
    }
    let other = TreeHead { size: 299, ..log.head() };
    assert!(RightEdge::load(&other, &Log::of(299).tiles).is_err());
    let mut tiles = log.tiles.clone();
    let bundle = Tile::in_tree(TileKind::Entries, 1, 300).unwrap();
    // Entry 300 - 44 + 2, its first byte after two entries of 34 and its own length.
    tiles.get_mut(&bundle).unwrap()[2 * 34 + 2] ^= 1;
    assert!(matches!(RightEdge::load(&log.head(), &tiles), Err(LoadError::Entry { index: 258, .. })));
}

#[test]
fn a_batch_has_a_limit_and_an_empty_one_writes_nothing() {
    let log = Log::of(300);
    assert_eq!(integrate(&log.edge, &[]).unwrap(), (log.edge.clone(), Vec::new()));
    let error = integrate(&log.edge, &vec![leaf(0); MAX_BATCH + 1]);
    assert_eq!(error, Err(IntegrateError::BatchTooLarge));
}

#[test]
fn a_proof_with_a_hash_more_less_or_swapped_is_refused() {
    for size in (1..=40).chain([255, 256, 257, 600]) {
        let log = Log::of(size);
        let head = log.head();
        for index in (0..size).step_by(if size > 40 { 37 } else { 1 }) {
            let leaf_hash = MerkleHash::of_leaf(&leaf(index));
            let proof = inclusion(&log.tiles, index, size).unwrap();
            for bad in ill_formed(&proof) {
                assert!(verify_inclusion(&head, index, &leaf_hash, &bad).is_err());
            }
            let mut longer = proof.clone();
            longer.push(MerkleHash([0; 32]));
            assert_eq!(verify_inclusion(&head, index, &leaf_hash, &longer), Err(InvalidProof::TooLong));

            let old = head_of(index + 1);
            let proof = consistency(&log.tiles, old.size, size).unwrap();
            for bad in ill_formed(&proof) {
                assert!(verify_consistency(&old, &head, &bad).is_err());
            }
        }
    }
}

fn ill_formed(proof: &[MerkleHash]) -> Vec<Vec<MerkleHash>> {
    let mut bad = vec![[proof, &[MerkleHash([7; 32])]].concat(), [&[MerkleHash([7; 32])], proof].concat()];
    for at in 0..proof.len() {
        bad.push([&proof[..at], &proof[at + 1..]].concat());
        bad.push([&proof[..=at], &proof[at..]].concat());
        if at > 0 {
            let mut swapped = proof.to_vec();
            swapped.swap(at - 1, at);
            bad.push(swapped);
        }
    }
    bad
}

/// Another index or size fails unless it asks the verifier to hash the very same things: a proof does not commit to the size, which is
/// why size and root come from one signed checkpoint.
#[test]
fn a_proof_for_another_index_is_refused() {
    for size in 2..=70 {
        let log = Log::of(size);
        for index in 0..size {
            let proof = inclusion(&log.tiles, index, size).unwrap();
            for other in (0..size).filter(|other| *other != index) {
                assert!(verify_inclusion(&log.head(), other, &MerkleHash::of_leaf(&leaf(index)), &proof).is_err());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn proofs_in_a_large_tree_verify(a in 0..LARGE, b in 1..=LARGE) {
        let log = &*LARGE_LOG;
        let head = log.head();
        let path = inclusion(&log.tiles, a, LARGE).unwrap();
        prop_assert_eq!(verify_inclusion(&head, a, &MerkleHash::of_leaf(&leaf(a)), &path), Ok(()));
        let path = consistency(&log.tiles, b, LARGE).unwrap();
        // An older root from today's tiles needs the older tree's partial tiles: compute it from the leaves.
        let mut frontier = Frontier::new();
        leaves(0..b).iter().for_each(|leaf| frontier.append(MerkleHash::of_leaf(leaf)));
        prop_assert_eq!(verify_consistency(&frontier.head(), &head, &path), Ok(()));
    }

    #[test]
    fn however_the_batches_are_cut_the_tiles_are_the_same(cuts in proptest::collection::vec(0_u64..700, 1..8)) {
        let size = cuts.iter().sum();
        let at_once = Log::of(size);
        let mut log = Log::default();
        let mut start = 0;
        for cut in cuts {
            let (edge, writes) = integrate(&log.edge, &leaves(start..start + cut)).unwrap();
            // Exactly what is new or grew, each once.
            let mut written: Vec<Tile> = writes.iter().map(|write| write.tile).collect();
            let mut expected: Vec<Tile> = tiles_between(start, start + cut).collect();
            written.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(written, expected);
            log.edge = edge;
            log.tiles.extend(writes.into_iter().map(|write| (write.tile, write.bytes)));
            start += cut;
        }
        prop_assert_eq!(&log.edge, &at_once.edge);
        for tile in tiles_between(0, size) {
            prop_assert_eq!(log.tiles.get(&tile), at_once.tiles.get(&tile));
            prop_assert!(log.tiles.contains_key(&tile));
        }
        // Whatever else is there is an older, narrower beginning of the tile.
        for (tile, bytes) in &log.tiles {
            let wide = Tile::in_tree(tile.kind(), tile.index(), size).unwrap();
            prop_assert!(log.tiles[&wide].starts_with(bytes));
        }
    }

    #[test]
    fn a_changed_bit_in_an_inclusion_proof_is_refused(size in 2_u64..600, at in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let log = Log::of(size);
        let index = at.index(size as usize) as u64;
        let leaf_hash = MerkleHash::of_leaf(&leaf(index));
        let mut proof = inclusion(&log.tiles, index, size).unwrap();
        let bit = bit.index(proof.len() * 256);
        proof[bit / 256].0[bit % 256 / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(verify_inclusion(&log.head(), index, &leaf_hash, &proof), Err(InvalidProof::RootMismatch));
    }

    #[test]
    fn a_forked_log_has_no_consistency_proof(size in 2_u64..600, at in any::<prop::sample::Index>(), old in any::<prop::sample::Index>()) {
        let honest = Log::of(size);
        let old = old.index(size as usize) as u64 + 1;
        let mut forked = leaves(0..size);
        // One entry within the older tree is another one.
        forked[at.index(old as usize)] = leaf(1 << 40);
        let mut fork = Log::default();
        fork.append(&forked);
        for tiles in [&honest.tiles, &fork.tiles] {
            let proof = consistency(tiles, old, size).unwrap();
            prop_assert!(verify_consistency(&head_of(old), &fork.head(), &proof).is_err());
        }
    }
}
