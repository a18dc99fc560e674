//! Tiles from the store, fetched at once for whoever then reads them one by one.

use std::collections::HashMap;

use quittance_ledger::tile::Tile;
use quittance_store::{Store, StoreResult};

/// What is missing shows when it is read.
pub async fn fetch(store: &Store, tiles: impl IntoIterator<Item = Tile>) -> StoreResult<HashMap<Tile, Vec<u8>>> {
    let tiles: Vec<Tile> = tiles.into_iter().collect();
    store.log_tiles(&tiles).await
}
