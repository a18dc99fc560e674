//! Is everything in the store what was signed? Tiles against each other, and every entry against its place in them.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
};

use quittance_ledger::{
    Leaf,
    audit::{Damage, Findings, Portion},
    checkpoint::{self, CheckpointError, LogKeys, SignedHead},
    integrate::RightEdge,
    key::VerifierKey,
    note::SignedNote,
    proof::{consistency, consistency_tiles, verify_consistency},
    tile::{Tile, parse_entries, right_edge_tiles},
    tree::TreeHead,
};
use quittance_store::{LogCheckpoint, PlacedEntry, Store, StoreResult};

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
    let Ok(tiles) = consistency_tiles(signed.size, present.size) else {
        return Ok(Some(Halt::Forked { signed: signed.size }));
    };
    let tiles = fetch(store, tiles).await?;
    Ok(continued(&tiles, signed, present))
}

/// The same, over tiles that were fetched.
fn continued(tiles: &HashMap<Tile, Vec<u8>>, signed: &TreeHead, present: &TreeHead) -> Option<Halt> {
    match consistency(tiles, signed.size, present.size) {
        Err(fault) => Some(Halt::Altered(Damage::of_the_whole(fault))),
        Ok(proof) => {
            let is_another = verify_consistency(signed, present, &proof).is_err();
            is_another.then_some(Halt::Forked { signed: signed.size })
        }
    }
}

/// Whose signatures an audit knows.
#[derive(Clone, Debug)]
pub struct AuditKeys {
    /// The log's, as they are believed today.
    pub log: LogKeys,
    /// And those that were revoked: what is kept was signed by the keys of its day.
    pub ever: LogKeys,
    /// A cosignature of one of them must be valid.
    pub witnesses: Vec<VerifierKey>,
}

/// Kept checkpoints that are looked at in one step: they, and the tiles that prove them, are held in memory at once.
const KEPT_AT_ONCE: u32 = 64;

/// Looks at what is kept for its time: a certificate is proven in it, and would be in a later one instead. Gives how many are none of the log's.
async fn check_kept(store: &Store, keys: &AuditKeys, head: &TreeHead, findings: &mut Findings) -> StoreResult<u64> {
    let (mut from, mut damaged) = (0, 0);
    loop {
        let page = store.kept_checkpoints(from, KEPT_AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(damaged) };
        from = last.size.saturating_add(1);
        // The log may have grown while we looked: of what came since, the signatures alone are checked.
        let grown_to = store.log_state().await?.head.size;
        let sizes = page.iter().map(|row| row.size).filter(|size| *size <= head.size);
        let tiles: BTreeSet<Tile> =
            sizes.filter_map(|size| consistency_tiles(size, head.size).ok()).flatten().collect();
        let tiles = fetch(store, tiles).await?;
        for row in &page {
            let fault = match read_kept(row, keys) {
                Err(fault) => Some(fault.to_string()),
                Ok(kept) if kept.size != row.size => Some(format!("its note is of {} entries", kept.size)),
                Ok(_) if row.size > grown_to => Some(format!("the log has {grown_to} entries")),
                Ok(_) if row.size > head.size => None,
                Ok(kept) => continued(&tiles, &kept, head).map(|halt| halt.to_string()),
            };
            if let Some(fault) = fault {
                damaged += 1;
                findings.found(Damage::of_the_whole(format!("the kept checkpoint of {} entries: {fault}", row.size)));
            }
        }
    }
}

fn read_kept(row: &LogCheckpoint, keys: &AuditKeys) -> Result<TreeHead, CheckpointError> {
    let note = SignedNote::parse(row.note.as_bytes())?;
    Ok(*checkpoint::verify(&note, &keys.ever, &keys.witnesses)?.checkpoint.head())
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
    /// Checkpoints that are kept for the time that witnesses told, and that are none of this log.
    pub damaged_checkpoints: u64,
}

/// Looks at every tile, every entry and every checkpoint. `progress` is told how many entries were looked at.
pub async fn check_all(
    store: &Store,
    keys: &AuditKeys,
    files: &LogFiles,
    mut progress: impl FnMut(u64, u64),
) -> StoreResult<StoreFindings> {
    let log = &keys.log;
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
    let damaged_checkpoints = check_kept(store, keys, &head, &mut findings).await?;
    let lost = store.lost_entries(0..head.size).await?.iter().map(|range| range.end - range.start).sum();
    Ok(StoreFindings { findings, staged: store.staged_count().await?, lost, damaged_checkpoints })
}
