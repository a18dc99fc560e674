//! Everything that a log has published, against one head of it.

use std::collections::HashMap;

use futures::{StreamExt as _, stream};
use quittance_ledger::{
    audit::{Damage, Findings, Portion},
    integrate::RightEdge,
    tile::{Tile, TileKind, right_edge_tiles},
    tree::TreeHead,
};

use crate::{PublishedLog, ReadError};

/// Portions that are fetched ahead: some hundred kilobytes.
const AHEAD: usize = 16;

/// Reads every tile and every entry of the tree of this head. `progress` is told how many entries were looked at.
/// An error says nothing of the log: it is out of reach.
pub async fn audit(log: &PublishedLog, head: &TreeHead, mut progress: impl FnMut(u64)) -> Result<Findings, ReadError> {
    let mut findings = Findings::new(head);
    let lowest = |tile: &Tile| matches!(tile.kind(), TileKind::Entries | TileKind::Hashes { level: 0 });
    let fetched = stream::iter(Portion::all(head.size)).map(|portion| async move {
        let mut tiles = HashMap::new();
        for tile in portion.reads().into_iter().filter(lowest) {
            read(log, tile, &mut tiles).await?;
        }
        Ok::<_, ReadError>((portion, tiles))
    });
    let mut fetched = std::pin::pin!(fetched.buffered(AHEAD));
    // Of the levels above, each tile serves hundreds of portions.
    let mut above = HashMap::new();
    while let Some(next) = fetched.next().await {
        let (portion, mut tiles) = next?;
        let reads = portion.reads();
        above.retain(|tile, _| reads.contains(tile));
        for tile in reads.into_iter().filter(|tile| !lowest(tile)) {
            if !above.contains_key(&tile) {
                read(log, tile, &mut above).await?;
            }
        }
        tiles.extend(above.iter().map(|(tile, bytes)| (*tile, bytes.clone())));
        findings.portion(portion.check(&tiles).err().map(Damage::from));
        progress(portion.places().end);
    }
    let mut tiles = HashMap::new();
    for tile in right_edge_tiles(head.size) {
        read(log, tile, &mut tiles).await?;
    }
    if let Err(fault) = RightEdge::load(head, &tiles) {
        findings.found(fault.into());
    }
    Ok(findings)
}

/// What is missing, or too long, shows when it is looked for.
async fn read(log: &PublishedLog, tile: Tile, into: &mut HashMap<Tile, Vec<u8>>) -> Result<(), ReadError> {
    match log.tile(tile).await {
        Ok(bytes) => drop(into.insert(tile, bytes)),
        Err(error) if error.is_damage() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
