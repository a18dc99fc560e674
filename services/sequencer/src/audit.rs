//! Is everything in the store what was signed? Tiles against each other, and every entry against its place in them.

use std::cmp::Ordering;

use quittance_ledger::{
    Leaf,
    audit::{Damage, Findings, Portion},
    checkpoint::{LogKeys, SignedHead},
    integrate::RightEdge,
    proof::{consistency, consistency_tiles, verify_consistency},
    tile::{parse_entries, right_edge_tiles},
    tree::TreeHead,
};
use quittance_store::{PlacedEntry, Store, StoreResult};

use crate::{CheckpointFile, Halt, LogFiles, Publisher, fetch};

/// Checks a portion, its entries' payloads, salts and leaves included. Damage is an answer; an error says nothing of the log.
pub async fn check_portion(store: &Store, portion: Portion) -> StoreResult<Option<Damage>> {
    let places = portion.places();
    let tiles = fetch(store, portion.reads()).await?;
    let in_tiles = portion.check(&tiles).err().map(Damage::from);
    let placed = store.placed_entries(places.clone()).await?;
    let lost = store.lost_entries(places.clone()).await?;
    let bundle = portion.bundle().and_then(|bundle| Some((bundle, tiles.get(&bundle)?)));
    let bundled = bundle.and_then(|(bundle, bytes)| parse_entries(&bundle, bytes).ok()).unwrap_or_default();
    let mut placed = placed.iter().peekable();
    let in_entries = places.clone().find_map(|index| {
        let mut here = Vec::new();
        while let Some(entry) = placed.next_if(|entry| entry.index == index) {
            here.push(entry);
        }
        let is_lost = lost.iter().any(|range| range.contains(&index));
        let leaf = usize::try_from(index - places.start).ok().and_then(|at| bundled.get(at));
        check_place(&here, is_lost, leaf.copied()).map(|what| Damage::at(index, what))
    });
    Ok(first_of(in_tiles, in_entries))
}

fn check_place(here: &[&PlacedEntry], is_lost: bool, leaf: Option<&[u8]>) -> Option<&'static str> {
    match here {
        [] if is_lost => None,
        [] => Some("the store has no entry for this place"),
        [entry] if Leaf::commit(&entry.salt, &entry.payload) != entry.leaf => {
            Some("its payload and salt are not what its leaf commits to")
        }
        [entry] if leaf != Some(&entry.leaf.0) => Some("its leaf is not the one in the tiles"),
        [_] => None,
        _ => Some("two entries of the store have this place"),
    }
}

fn first_of(a: Option<Damage>, b: Option<Damage>) -> Option<Damage> {
    match (a, b) {
        (Some(a), Some(b)) if b.index.cmp(&a.index) == Ordering::Less => Some(b),
        (a, b) => a.or(b),
    }
}

/// Proves that the tiles at the right edge make the root, and gives what the next batch is appended to.
pub async fn right_edge(store: &Store, head: &TreeHead) -> StoreResult<Result<RightEdge, Damage>> {
    let tiles = fetch(store, right_edge_tiles(head.size)).await?;
    Ok(RightEdge::load(head, &tiles).map_err(Damage::from))
}

/// Whether what was signed is the beginning of what is there. `None`: it is.
pub async fn begins_with(store: &Store, signed: &TreeHead, present: &TreeHead) -> StoreResult<Option<Halt>> {
    if signed.size > present.size {
        return Ok(Some(Halt::Shorter { size: present.size, signed: signed.size }));
    }
    let forked = Halt::Forked { signed: signed.size };
    let Ok(tiles) = consistency_tiles(signed.size, present.size) else { return Ok(Some(forked)) };
    let tiles = fetch(store, tiles).await?;
    Ok(match consistency(&tiles, signed.size, present.size) {
        Err(fault) => Some(Halt::Altered(Damage::of_the_whole(fault))),
        Ok(proof) => verify_consistency(signed, present, &proof).is_err().then_some(forked),
    })
}

/// What a look at everything found.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct StoreFindings {
    #[serde(flatten)]
    pub findings: Findings,
    /// Entries that have no place yet.
    pub staged: u64,
    /// Entries that were lost with a database: their places are known, and what they commit to is not.
    pub lost: u64,
}

/// Looks at every tile, every entry and every checkpoint. `progress` is told how many entries were looked at.
pub async fn check_all(
    store: &Store,
    log: &LogKeys,
    files: &LogFiles,
    mut progress: impl FnMut(u64, u64),
) -> StoreResult<StoreFindings> {
    // While the log is written it grows, and its files behind it: read before the store, they are not ahead of it.
    let mut outside = vec![("the highest checkpoint", CheckpointFile::highest(files.highest.clone()).read(log))];
    if let Some(folder) = &files.publish {
        outside.push(("the checkpoint in the published folder", Publisher::new(folder).read(log)));
    }
    let state = store.log_state().await?;
    let head = state.head;
    let mut findings = Findings::new(&head);
    for portion in Portion::all(head.size) {
        findings.portion(check_portion(store, portion).await?);
        progress(portion.places().end, head.size);
    }
    if let Err(damage) = right_edge(store, &head).await? {
        findings.found(damage);
    }
    let last = store.last_place().await?;
    let grown_to = store.log_state().await?.head.size;
    if let Some(last) = last.filter(|last| *last >= grown_to) {
        findings.found(Damage::at(last, "an entry of the store has a place beyond the tree"));
    }
    if head.size > 0 && outside.iter().all(|(_, read)| matches!(read, Ok(None))) {
        findings.found(Damage::of_the_whole(Halt::NothingOutside { size: head.size }));
    }
    let row = state.checkpoint.map(|row| SignedHead::read(row.note.as_bytes(), log));
    let row = row.transpose().map_err(|fault| fault.to_string());
    let outside = outside.into_iter().map(|(name, read)| (name, read.map_err(|fault| fault.to_string())));
    for (name, signed) in [("the published checkpoint", row)].into_iter().chain(outside) {
        let fault = match signed {
            Err(fault) => Some(fault),
            Ok(None) => None,
            Ok(Some(signed)) => begins_with(store, &signed.head, &head).await?.map(|halt| halt.to_string()),
        };
        if let Some(fault) = fault {
            findings.found(Damage::of_the_whole(format!("{name}: {fault}")));
        }
    }
    let lost = store.lost_entries(0..head.size).await?.iter().map(|range| range.end - range.start).sum();
    Ok(StoreFindings { findings, staged: store.staged_count().await?, lost })
}
