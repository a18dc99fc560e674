//! I6: every confirmation has its entry, once; the log only grows; what is signed is what stands. I10: no personal data in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quittance_ledger::{
    Leaf, SALT_BYTES,
    checkpoint::{self, LogKeys},
    note::SignedNote,
    tree::{Frontier, MerkleHash},
};
use serde_json::Value;

use crate::{
    scene::{Answer, Scene},
    snapshot::{Entry, Rid, Snapshot, TaskId},
    system::customer_id,
};

use super::{Checked, requests::short, violated};

pub struct LedgerSeen {
    keys: LogKeys,
    entries: BTreeMap<i64, Entry>,
    /// How many of each kind a request has.
    counts: BTreeMap<(Rid, String), usize>,
    confirmed: BTreeMap<TaskId, Value>,
    compared: BTreeSet<TaskId>,
    /// The first due dates that customers' authorisations fixed.
    first_dates: BTreeMap<Rid, Vec<i64>>,
    batches: Arc<BTreeMap<(String, String), Option<i64>>>,
    /// Row of each place.
    placed: Vec<i64>,
    frontier: Frontier,
    /// The root at each size.
    roots: Vec<MerkleHash>,
    checkpoint: (String, i64),
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let byte = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
    let all: Option<Vec<u8>> = (0..N).map(byte).collect();
    all?.try_into().ok()
}

impl LedgerSeen {
    pub fn new(keys: LogKeys) -> Self {
        Self {
            keys,
            entries: BTreeMap::new(),
            counts: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            compared: BTreeSet::new(),
            first_dates: BTreeMap::new(),
            batches: Arc::default(),
            placed: Vec::new(),
            frontier: Frontier::new(),
            roots: vec![MerkleHash::of_empty_tree()],
            checkpoint: (String::new(), 0),
        }
    }

    pub fn look(&mut self, now: &Snapshot) -> Checked {
        self.take_new(now)?;
        self.places(now)?;
        self.signed(now)?;
        self.once(now)
    }

    fn take_new(&mut self, now: &Snapshot) -> Checked {
        for (row, entry) in now.new_entries.iter() {
            if self.entries.contains_key(row) {
                continue;
            }
            let (salt, leaf) = (bytes::<SALT_BYTES>(&entry.salt), bytes(&entry.leaf));
            if salt.is_none_or(|salt| Some(Leaf::commit(&salt, entry.payload.as_bytes()).0) != leaf) {
                return Err(violated("I6", format!("an entry's leaf is not that of its payload: {}", entry.kind)));
            }
            if entry.payload.contains('@') || entry.payload.contains("+4670") {
                return Err(violated("I10", format!("a ledger entry names a person: {}", entry.kind)));
            }
            let value: Value = serde_json::from_str(&entry.payload)
                .map_err(|_| violated("I6", format!("the payload of {} does not parse", entry.kind)))?;
            self.take_event(entry, &value["event"])?;
            self.entries.insert(*row, entry.clone());
        }
        if now.entries != self.entries.len() {
            return Err(violated("I6", "a ledger entry is gone"));
        }
        Ok(())
    }

    /// At the end: all entries are as they were when they were first seen.
    pub fn unaltered(&self, all: &[(i64, Entry)]) -> Checked {
        if all.iter().any(|(row, entry)| self.entries.get(row) != Some(entry)) {
            return Err(violated("I6", "a ledger entry was altered"));
        }
        Ok(())
    }

    fn place(&self, now: &Snapshot, entry: &Entry) -> Option<i64> {
        let batch = (entry.request.0.clone(), entry.batch.clone());
        now.batches.get(&batch).copied().flatten().map(|first| first + entry.offset)
    }

    fn take_event(&mut self, entry: &Entry, event: &Value) -> Checked {
        *self.counts.entry((entry.request.clone(), entry.kind.clone())).or_default() += 1;
        if entry.kind == "authorised" {
            let dates = self.first_dates.entry(entry.request.clone()).or_default();
            dates.extend(event["first_due_us"].as_i64());
        }
        if entry.kind == "confirmed" {
            let system = event["confirmation"]["system"].as_str().unwrap_or_default().to_owned();
            let what = format!("the log has two confirmations of one task at {system}");
            if self.confirmed.insert((entry.request.clone(), system), event.clone()).is_some() {
                return Err(violated("I6", what));
            }
        }
        Ok(())
    }

    fn places(&mut self, now: &Snapshot) -> Checked {
        let size = now.log.as_ref().map_or(0, |log| log.tree_size);
        if Arc::ptr_eq(&self.batches, &now.batches) && self.placed.len() as i64 == size {
            return Ok(());
        }
        let mut placed: BTreeMap<i64, i64> = BTreeMap::new();
        for (row, place) in self.entries.iter().filter_map(|(row, entry)| Some((*row, self.place(now, entry)?))) {
            if placed.insert(place, row).is_some() {
                return Err(violated("I6", format!("two entries have place {place}")));
            }
        }
        if placed.len() as i64 != size || placed.keys().copied().ne(0..size) {
            return Err(violated("I6", format!("a log of {size} has {} entries with places", placed.len())));
        }
        for (row, was) in placed.values().zip(&self.placed) {
            if row != was {
                return Err(violated("I6", "an entry got another place"));
            }
        }
        if placed.len() < self.placed.len() {
            return Err(violated("I6", "the log has shrunk"));
        }
        for row in placed.values().skip(self.placed.len()) {
            let leaf = bytes(&self.entries[row].leaf).map(Leaf);
            self.frontier.append(MerkleHash::of_leaf(&leaf.unwrap_or(Leaf([0; 32]))));
            self.roots.push(self.frontier.root());
        }
        self.placed = placed.into_values().collect();
        self.batches = now.batches.clone();
        let root = now.log.as_ref().and_then(|log| bytes::<32>(&log.root));
        if root.is_some_and(|root| self.frontier.root().0 != root) {
            return Err(violated("I6", "the log's root is not that of its entries"));
        }
        Ok(())
    }

    fn signed(&mut self, now: &Snapshot) -> Checked {
        let Some(log) = &now.log else { return Ok(()) };
        if log.checkpoint == self.checkpoint.0 {
            return Ok(());
        }
        if log.checkpoint_size < self.checkpoint.1 {
            return Err(violated("I6", "a smaller checkpoint was published after a larger one"));
        }
        let note = SignedNote::parse(log.checkpoint.as_bytes());
        let verified = note.ok().and_then(|note| checkpoint::verify(&note, &self.keys, &[]).ok());
        let head = verified.map(|verified| *verified.checkpoint.head());
        let Some(head) = head else { return Err(violated("I6", "the published checkpoint does not verify")) };
        let root = usize::try_from(head.size).ok().and_then(|size| self.roots.get(size));
        if root != Some(&head.root) {
            return Err(violated("I6", format!("a checkpoint of {} was published over another tree", head.size)));
        }
        self.checkpoint = (log.checkpoint.clone(), log.checkpoint_size);
        Ok(())
    }

    fn count(&self, rid: &Rid, kind: &str) -> usize {
        self.counts.get(&(rid.clone(), kind.to_owned())).copied().unwrap_or_default()
    }

    pub fn first_dates(&self, rid: &Rid) -> &[i64] {
        self.first_dates.get(rid).map_or(&[], Vec::as_slice)
    }

    fn once(&mut self, now: &Snapshot) -> Checked {
        for (rid, request) in now.requests.iter() {
            let (instructed, completed) = (self.count(rid, "instructed"), self.count(rid, "completed"));
            if instructed != 1 {
                return Err(violated("I6", format!("{} has {instructed} instructions in the log", short(rid))));
            }
            if completed != usize::from(request.is_completed()) {
                let what = format!("{} is {} and has {completed} completions in the log", short(rid), request.state);
                return Err(violated("I6", what));
            }
        }
        let (stand, logged) = (now.confirmations.len(), self.confirmed.len());
        if stand != logged {
            return Err(violated("I6", format!("{stand} confirmations have {logged} entries")));
        }
        // Neither ever changes: what was the same once stays so.
        for (id, event) in self.confirmed.iter().filter(|(id, _)| !self.compared.contains(*id)) {
            let Some(confirmation) = now.confirmations.get(id) else {
                return Err(violated("I6", format!("the log has a confirmation at {} that is not there", id.1)));
            };
            let body: Value = serde_json::from_str(&confirmation.body).unwrap_or_default();
            if body != event["confirmation"] || event["late"] != Value::Bool(confirmation.late) {
                return Err(violated("I6", format!("the log says something else of {} than the confirmation", id.1)));
            }
        }
        self.compared = self.confirmed.keys().cloned().collect();
        Ok(())
    }

    /// I2: what somebody was told is done is in the log.
    pub fn told(&self, scene: &Scene) -> Checked {
        for a in scene.asked().values() {
            let Answer::Acknowledged(id) = &a.answer else { continue };
            let rid = (customer_id(a.customer), id.clone());
            let done =
                [("authorised", a.done.authorised), ("objected", a.done.objected), ("extended", a.done.extended)];
            for (kind, told) in done {
                if (self.count(&rid, kind) as u64) < u64::from(told) {
                    return Err(violated(
                        "I2",
                        format!("{} was {kind}, as was said, and the log knows nothing", short(&rid)),
                    ));
                }
            }
        }
        Ok(())
    }

    /// At the end: nothing is only staged, and all is signed.
    pub fn all_signed(&self, now: &Snapshot) -> Checked {
        let staged = self.entries.values().filter(|entry| self.place(now, entry).is_none()).count();
        let size = self.placed.len() as i64;
        if staged > 0 {
            return Err(violated("liveness", format!("{staged} entries never got a place")));
        }
        if self.checkpoint.1 != size {
            return Err(violated("liveness", format!("of {size} entries {} were signed", self.checkpoint.1)));
        }
        Ok(())
    }
}
