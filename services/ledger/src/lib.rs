//! The ledger: what every event puts into the append-only log, and (to come) the tree over it. No I/O but what is handed in.
//!
//! From the first migration on, every event stages its canonical payload and a salt in the transaction that makes it true, so that
//! every confirmation ever made has its leaf. The world sees the leaf only: a salted commitment (I6).

pub mod certificate;
mod event;
mod hex;
mod leaf;

pub use event::{Event, Operation, PayloadError, PlannedSystem, RecordedEvent};
pub use hex::{Hex, HexError};
pub use leaf::{Leaf, SALT_BYTES, StagedEntry, subject_commitment};
