//! The ledger's sample certificates with proofs of a real log.

use std::collections::HashMap;

use quittance_ledger::{
    Leaf,
    certificate::CertificateInput,
    checkpoint::Checkpoint,
    cosignature::cosign,
    integrate::{RightEdge, integrate},
    key::{KeyType, SignerKey},
    note::SignedNote,
    proof::inclusion,
    tile::Tile,
    tlog_proof::TlogProof,
    tree::MerkleHash,
};

use super::sample::{self, KEY_NAME, WITNESS, signer};

/// Of the witness's cosignatures in the samples.
pub const ATTESTED_S: u64 = 1_777_879_802;
/// Of other people's entries before the sample's.
const BEFORE: u64 = 300;

pub fn log_key(seed: u8) -> SignerKey {
    signer(KEY_NAME, KeyType::Ed25519, seed)
}

pub fn witness() -> SignerKey {
    signer(WITNESS, KeyType::CosignatureV1, 8)
}

/// A log whose last entries are the sample's.
pub struct Log {
    edge: RightEdge,
    pub tiles: HashMap<Tile, Vec<u8>>,
}

impl Log {
    /// `seed` makes the others' entries.
    pub fn of(input: &CertificateInput, seed: u8) -> Self {
        let others = (0..BEFORE).map(|n| Leaf(MerkleHash::of_entry(&[&[seed], &n.to_be_bytes()[..]].concat()).0));
        let mut log = Self { edge: RightEdge::empty(), tiles: HashMap::new() };
        log.append(&others.collect::<Vec<_>>());
        log.append(&input.entries.iter().map(|entry| Leaf(entry.leaf.0)).collect::<Vec<_>>());
        log
    }

    pub fn append(&mut self, leaves: &[Leaf]) {
        let (edge, writes) = integrate(&self.edge, leaves).unwrap();
        self.edge = edge;
        self.tiles.extend(writes.into_iter().map(|write| (write.tile, write.bytes)));
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::new(KEY_NAME, self.edge.head()).unwrap()
    }

    pub fn proof(&self, entry: usize, checkpoint: SignedNote) -> String {
        let (index, size) = (BEFORE + entry as u64, self.edge.head().size);
        TlogProof { extra: None, index, hashes: inclusion(&self.tiles, index, size).unwrap(), checkpoint }.to_string()
    }
}

/// All proofs lead to one checkpoint of that log.
pub fn proven_in(log: &Log, mut input: CertificateInput, checkpoint: &SignedNote) -> CertificateInput {
    for (entry, opening) in input.entries.iter_mut().enumerate() {
        opening.proof = log.proof(entry, checkpoint.clone());
    }
    input
}

/// Signed by the log's present key, and cosigned.
pub fn cosigned(log: &Log) -> SignedNote {
    let checkpoint = log.checkpoint();
    let mut note = checkpoint.sign(&[&log_key(7)]).unwrap();
    note.add(cosign(&witness(), &checkpoint, ATTESTED_S).unwrap()).unwrap();
    note
}

/// A sample as an honest issuer would issue it.
pub fn proven(input: CertificateInput) -> CertificateInput {
    let log = Log::of(&input, 0);
    let checkpoint = cosigned(&log);
    proven_in(&log, input, &checkpoint)
}

pub fn file(input: CertificateInput) -> Vec<u8> {
    sample::signed(proven(input))
}
