//! The RFC's definitions, written down as they stand there, and a log in memory.

use std::collections::HashMap;

use quittance_ledger::{
    Leaf,
    checkpoint::{Checkpoint, LogKeys},
    integrate::{RightEdge, integrate},
    key::{KeyType, SignerKey, VerifierKey},
    note::SignedNote,
    tile::Tile,
    tree::{MerkleHash, TreeHead},
};

pub const ORIGIN: &str = "ledger.example/log";
pub const WITNESS_TIME: u64 = 1_790_000_000;

/// Leaf number `index`, the same in every test.
pub fn leaf(index: u64) -> Leaf {
    Leaf(MerkleHash::of_entry(&index.to_be_bytes()).0)
}

pub fn leaves(range: std::ops::Range<u64>) -> Vec<Leaf> {
    range.map(leaf).collect()
}

fn split(count: usize) -> usize {
    1 << (count - 1).ilog2()
}

/// MTH of RFC 9162 section 2.1.1.
pub fn naive_root(leaves: &[Leaf]) -> MerkleHash {
    match leaves {
        [] => MerkleHash::of_empty_tree(),
        [one] => MerkleHash::of_leaf(one),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            MerkleHash::of_node(&naive_root(left), &naive_root(right))
        }
    }
}

/// PATH of RFC 9162 section 2.1.3.1.
pub fn naive_inclusion(index: usize, leaves: &[Leaf]) -> Vec<MerkleHash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let middle = split(leaves.len());
    let (left, right) = leaves.split_at(middle);
    let (mut path, sibling) = if index < middle {
        (naive_inclusion(index, left), right)
    } else {
        (naive_inclusion(index - middle, right), left)
    };
    path.push(naive_root(sibling));
    path
}

/// PROOF of RFC 9162 section 2.1.4.1.
pub fn naive_consistency(old: usize, leaves: &[Leaf]) -> Vec<MerkleHash> {
    fn subproof(old: usize, leaves: &[Leaf], known: bool) -> Vec<MerkleHash> {
        if old == leaves.len() {
            return if known { Vec::new() } else { vec![naive_root(leaves)] };
        }
        let middle = split(leaves.len());
        let (left, right) = leaves.split_at(middle);
        let (mut path, sibling) = if old <= middle {
            (subproof(old, left, known), right)
        } else {
            (subproof(old - middle, right, false), left)
        };
        path.push(naive_root(sibling));
        path
    }
    if old == 0 { Vec::new() } else { subproof(old, leaves, true) }
}

/// What a folder of tiles would hold.
#[derive(Default)]
pub struct Log {
    pub edge: RightEdge,
    pub tiles: HashMap<Tile, Vec<u8>>,
}

impl Log {
    pub fn of(size: u64) -> Self {
        let mut log = Self::default();
        log.append(&leaves(0..size));
        log
    }

    pub fn append(&mut self, leaves: &[Leaf]) {
        let (edge, writes) = integrate(&self.edge, leaves).unwrap();
        self.edge = edge;
        self.tiles.extend(writes.into_iter().map(|write| (write.tile, write.bytes)));
    }

    pub fn head(&self) -> TreeHead {
        self.edge.head()
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::new(ORIGIN, self.head()).unwrap()
    }

    pub fn signed(&self) -> SignedNote {
        self.checkpoint().sign(&[&log_key()]).unwrap()
    }
}

pub fn signer(name: &str, key_type: KeyType, seed: u8) -> SignerKey {
    SignerKey::from_seed(name.parse().unwrap(), key_type, &[seed; 32]).unwrap()
}

pub fn log_key() -> SignerKey {
    signer(ORIGIN, KeyType::Ed25519, 1)
}

pub fn log_keys() -> LogKeys {
    LogKeys::new(vec![log_key().verifier().clone()]).unwrap()
}

pub fn witness(number: u8) -> SignerKey {
    signer(&format!("witness.example/w{number}"), KeyType::CosignatureV1, 100 + number)
}

pub fn public(keys: &[&SignerKey]) -> Vec<VerifierKey> {
    keys.iter().map(|key| key.verifier().clone()).collect()
}

/// Every text that differs from this one in one byte: each of its bits flipped, the byte left out, doubled, or made a newline.
pub fn altered(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..text.len()).flat_map(move |at| {
        let flipped = (0..8).map(move |bit| {
            let mut other = text.to_vec();
            other[at] ^= 1 << bit;
            other
        });
        let without = [&text[..at], &text[at + 1..]].concat();
        let doubled = [&text[..at], &text[at..=at], &text[at..]].concat();
        let broken = [&text[..at], b"\n", &text[at + 1..]].concat();
        flipped.chain([without, doubled, broken]).filter(move |other| other != text)
    })
}
