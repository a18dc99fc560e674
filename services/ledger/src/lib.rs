//! The ledger: what every event puts into the append-only log, the Merkle tree over it, and the open formats in which the world
//! sees and checks it (docs/ledger.md). No I/O but what is handed in.
//!
//! From the first migration on, every event stages its canonical payload and a salt in the transaction that makes it true, so that
//! every confirmation ever made has its leaf. The world sees the leaf only: a salted commitment (I6).

pub mod audit;
pub mod certificate;
pub mod checkpoint;
pub mod cosignature;
mod encoding;
mod event;
mod hex;
pub mod integrate;
pub mod key;
mod leaf;
pub mod note;
pub mod proof;
pub mod tile;
pub mod tlog_proof;
pub mod tree;
pub mod witness;

pub use event::{Event, FollowedUp, Operation, PayloadError, PlannedSystem, RecordedEvent, ReplayCounts, Withheld};
pub use hex::{Hex, HexError};
pub use leaf::{Leaf, SALT_BYTES, StagedEntry, subject_commitment};
