//! Checks what Quittance hands out, offline: no network, no database, nothing but the document, public keys and a policy.
//!
//! A verdict is either an error, which tells the reason, or two lists: what was checked, and what could not be. Whoever shows a verdict
//! shows both.

mod policy;
mod tlog_proof;

pub use policy::{Policy, PolicyError};
pub use quittance_ledger::key::{KeyError, KeyId, KeyName, VerifierKey};
pub use tlog_proof::{Checked, Unchecked, Verified, VerifyError, verify_tlog_proof};
