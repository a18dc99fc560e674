//! The log as it is published: signed, whole, and never otherwise than it grew.

use std::{fs, path::Path};

use crate::{
    finding::{Report, Rule},
    note::{self, Head, LogKey},
    tiles,
    tree::{Growing, Hash, leaf_hash, node},
};

const HASH_BYTES: usize = 32;
/// In a bundle, two bytes of length stand before each entry, which has 32.
const ENTRY_BYTES: usize = 34;

/// The entries under the published checkpoint, in their places; `None` if there is nothing that could be read as a log.
pub fn check(folder: &Path, keys: &[String], seen: &[&str], report: &mut Report) -> Option<Vec<Hash>> {
    let keys: Vec<LogKey> = keys.iter().filter_map(|text| LogKey::parse(text)).collect();
    let Ok(published) = fs::read_to_string(folder.join("checkpoint")) else {
        report.find(Rule::Checkpoint, "nothing is published");
        return None;
    };
    let Some(head) = note::open(&published, &keys) else {
        report.find(Rule::Checkpoint, "the published checkpoint is not signed by the log");
        return None;
    };
    let entries = match entries(folder, head.size) {
        Ok(entries) => entries,
        Err(what) => {
            report.find(Rule::Tiles, what);
            return None;
        }
    };
    let mut earlier = earlier(seen, &keys, head.size, report);
    let mut growing = Growing::default();
    let mut level = Vec::with_capacity(entries.len());
    for entry in &entries {
        level.push(leaf_hash(entry));
        growing.add(leaf_hash(entry));
        while earlier.last().is_some_and(|head| head.size == growing.size()) {
            let Some(head) = earlier.pop() else { break };
            report.expect(head.root == growing.root(), Rule::OnlyGrows, || {
                format!("a checkpoint of {} entries that was published is of another log", head.size)
            });
        }
    }
    report.expect(growing.root() == head.root, Rule::Checkpoint, || {
        format!("the signed root is not that of the {} published entries", head.size)
    });
    hash_tiles(folder, level, report);
    Some(entries)
}

/// What was published before, largest first.
fn earlier(seen: &[&str], keys: &[LogKey], size: u64, report: &mut Report) -> Vec<Head> {
    let mut heads = Vec::new();
    let mut last = 0;
    for text in seen {
        report.figures.checkpoints += 1;
        let Some(head) = note::open(text, keys) else {
            report.find(Rule::Checkpoint, "a checkpoint was published that the log has not signed");
            continue;
        };
        report.expect(head.size >= last, Rule::OnlyGrows, || {
            format!("a checkpoint of {} entries was published after one of {last}", head.size)
        });
        report.expect(head.size <= size, Rule::OnlyGrows, || {
            format!("a checkpoint of {} entries was published, and the log has {size}", head.size)
        });
        last = head.size;
        // An empty tree proves nothing.
        if head.size > 0 {
            heads.push(head);
        }
    }
    heads.sort_by_key(|head| std::cmp::Reverse(head.size));
    heads
}

fn entries(folder: &Path, size: u64) -> Result<Vec<Hash>, String> {
    let mut entries = Vec::new();
    for index in 0..size.div_ceil(tiles::WIDTH) {
        let width = (size - index * tiles::WIDTH).min(tiles::WIDTH);
        let bundle = tiles::read(folder, "entries", index, width, ENTRY_BYTES)?;
        for entry in bundle.as_chunks::<ENTRY_BYTES>().0 {
            let Some(data) = entry.strip_prefix(&[0, 32]).and_then(|data| Hash::try_from(data).ok()) else {
                return Err(format!("an entry of bundle {index} has not 32 bytes"));
            };
            entries.push(data);
        }
    }
    Ok(entries)
}

/// Every hash tile is what the entries make it.
fn hash_tiles(folder: &Path, mut hashes: Vec<Hash>, report: &mut Report) {
    for level in 0.. {
        if hashes.is_empty() {
            break;
        }
        for (index, tile) in (0_u64..).zip(hashes.chunks(256)) {
            report.figures.tiles += 1;
            match tiles::read(folder, &level.to_string(), index, tile.len() as u64, HASH_BYTES) {
                Ok(bytes) if bytes == tile.concat() => {}
                Ok(_) => report.find(Rule::Tiles, format!("tile {index} of level {level} has other hashes")),
                Err(what) => report.find(Rule::Tiles, what),
            }
        }
        hashes = hashes.as_chunks::<256>().0.iter().map(complete).collect();
    }
}

fn complete(tile: &[Hash; 256]) -> Hash {
    let mut hashes = tile.to_vec();
    while hashes.len() > 1 {
        hashes = hashes.as_chunks::<2>().0.iter().map(|[left, right]| node(left, right)).collect();
    }
    hashes[0]
}
