//! What is stored is checked against the tree it should make.

use quittance_ledger::{
    audit::{Fault, check, checked_against},
    integrate::RightEdge,
    tile::{Tile, TileKind, tiles_between},
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
