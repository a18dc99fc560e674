//! What is stored is checked against the tree it should make.

use std::collections::{BTreeSet, HashMap};

use quittance_ledger::{
    audit::{Fault, Portion, check, checked_against},
    integrate::RightEdge,
    tile::{Tile, TileKind, tiles_between},
    tree::TreeHead,
};

use crate::common::Log;

const SIZE: u64 = 70_000;

fn tile(kind: TileKind, index: u64) -> Tile {
    Tile::in_tree(kind, index, SIZE).unwrap()
}

#[test]
fn a_whole_log_has_no_fault_and_any_altered_byte_of_it_is_one() {
    let mut log = Log::of(SIZE);
    let tiles: Vec<Tile> = tiles_between(0, SIZE).collect();
    for tile in &tiles {
        check(&log.tiles, *tile, SIZE).unwrap();
    }
    for (number, altered) in tiles.iter().enumerate().filter(|(number, t)| number % 40 == 0 || !t.is_full()) {
        let at = number * 7 % log.tiles[altered].len();
        log.tiles.get_mut(altered).unwrap()[at] ^= 4;
        // It shows in its own check, in that of a tile that is checked against it, or at the right edge.
        let seen = tiles.iter().any(|t| check(&log.tiles, *t, SIZE).is_err());
        assert!(seen || RightEdge::load(&log.head(), &log.tiles).is_err(), "{altered}");
        log.tiles.get_mut(altered).unwrap()[at] ^= 4;
    }
}

#[test]
fn a_fault_names_the_first_bad_entry() {
    let mut log = Log::of(SIZE);
    let bundle = tile(TileKind::Entries, 273);
    log.tiles.get_mut(&bundle).unwrap()[10 * 34 + 2] ^= 1;
    log.tiles.get_mut(&bundle).unwrap()[20 * 34 + 2] ^= 1;
    assert!(matches!(check(&log.tiles, bundle, SIZE), Err(Fault::Entry { index, .. }) if index == 273 * 256 + 10));

    let level1 = TileKind::Hashes { level: 1 };
    log.tiles.get_mut(&tile(level1, 0)).unwrap()[0] ^= 1;
    assert!(matches!(check(&log.tiles, tile(level1, 0), SIZE), Err(Fault::Tile { first: 0, .. })));
    let leaves = tile(TileKind::Hashes { level: 0 }, 0);
    assert_eq!(checked_against(leaves, SIZE), Some(tile(level1, 0)));
    assert!(check(&log.tiles, leaves, SIZE).is_err());

    log.tiles.remove(&tile(level1, 1));
    assert!(matches!(check(&log.tiles, tile(level1, 1), SIZE), Err(Fault::Read(_))));
    let beyond = Tile::new(TileKind::Entries, 300, 256).unwrap();
    assert!(matches!(check(&log.tiles, beyond, SIZE), Err(Fault::NotInTree { .. })));
}

#[test]
fn portion_by_portion_everything_is_read_and_the_first_bad_entry_is_found() {
    for size in [1, 255, 256, 257, 65_536, 65_537, SIZE] {
        let mut log = Log::of(size);
        let tiles: Vec<Tile> = tiles_between(0, size).collect();
        let portions: Vec<Portion> = Portion::all(size).collect();
        let read: BTreeSet<Tile> = portions.iter().flat_map(Portion::reads).collect();
        assert_eq!(read, tiles.iter().copied().collect());
        assert!(portions.iter().all(|portion| portion.check(&log.tiles).is_ok()));
        assert_eq!(portions.iter().flat_map(Portion::places).collect::<Vec<_>>(), (0..size).collect::<Vec<_>>());
        for index in [0, size / 2, size - 1] {
            let portion = Portion::of(index, size).unwrap();
            let at = usize::try_from(index % 256).unwrap() * 34 + 5;
            log.tiles.get_mut(&portion.bundle().unwrap()).unwrap()[at] ^= 1;
            let found = portions.iter().find_map(|portion| portion.check(&log.tiles).err());
            assert_eq!(found.unwrap().index(), index);
            log.tiles.get_mut(&portion.bundle().unwrap()).unwrap()[at] ^= 1;
        }
        assert_eq!(Portion::of(size, size), None);
    }
    // A node: the entries below it are the first that do not fit.
    let mut log = Log::of(SIZE);
    log.tiles.get_mut(&tile(TileKind::Hashes { level: 1 }, 0)).unwrap()[200 * 32] ^= 1;
    let found = Portion::all(SIZE).find_map(|portion| portion.check(&log.tiles).err());
    assert_eq!(found.unwrap().index(), 200 * 256);
}

#[test]
fn a_portion_is_proven_to_be_of_the_signed_tree_and_with_any_of_its_tiles_altered_it_is_not() {
    for size in [1, 255, 256, 257, 600, 65_536, 65_537, SIZE] {
        let log = Log::of(size);
        let portions: Vec<Portion> = Portion::all(size).collect();
        for portion in [portions[0], portions[portions.len() / 2], portions[portions.len() - 1]] {
            // It reads what it says, and nothing else.
            let read = portion.proof_reads().into_iter().map(|tile| (tile, log.tiles[&tile].clone()));
            let mut source: HashMap<Tile, Vec<u8>> = read.collect();
            portion.prove(&log.head(), &source).unwrap();
            for tile in portion.tiles() {
                let bytes = source[&tile].len();
                // The length of an entry's, of a bundle, is a fault of its own.
                for at in [2, bytes / 2, bytes - 1] {
                    source.get_mut(&tile).unwrap()[at] ^= 1;
                    assert!(portion.prove(&log.head(), &source).is_err(), "byte {at} of {tile} in a log of {size}");
                    source.get_mut(&tile).unwrap()[at] ^= 1;
                }
            }
            let other = Log::of(size + 1).head();
            let forged = TreeHead { size, ..other };
            assert!(portion.prove(&forged, &source).is_err());
        }
    }
}
