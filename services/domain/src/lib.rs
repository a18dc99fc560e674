//! The rules of Quittance, and nothing else: no clock, no randomness, no I/O.
//!
//! Time and ids are handed in, so thirty days are testable in a millisecond and a schedule of crashes can be replayed from a
//! seed. Words and invariants (I1-I10) are those of `docs/ARCHITECTURE.md`.

pub mod action;
pub mod agreement;
pub mod backoff;
pub mod country;
pub mod data_map;
pub mod hold;
pub mod identifier;
pub mod ids;
pub mod outcome;
pub mod plan;
pub mod replay;
pub mod request;
pub mod sealed;
pub mod system;
pub mod task;
pub mod window;

pub use jiff::Timestamp;

/// No two clocks agree: somebody else's may be so much ahead of ours or behind it, or ours was just set. What differs more needs a person.
pub const CLOCKS_APART_MAX: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);
