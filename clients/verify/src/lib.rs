//! Checks what Quittance hands out, offline: no network, no database, nothing but the document, public keys and a policy.
//!
//! A verdict is either an error, which tells the reason, or two lists: what was checked, and what could not be. Whoever shows a verdict
//! shows both.

mod certificate;
mod policy;
mod report;
mod tlog_proof;

pub use certificate::{Failure, verify_certificate};
pub use policy::{Policy, PolicyError};
pub use quittance_ledger::key::{KeyError, KeyId, KeyName, VerifierKey};
pub use report::{DocumentKind, Fact, Gap, Report};
pub use tlog_proof::{Checked, Unchecked, Verified, VerifyError, verify_tlog_proof};
