//! The certificate of a request: one self-contained file that a customer can check, and show to others, without us.
//!
//! Its statement is derived from the payloads of the request's ledger entries, by one function that both the issuer and whoever checks
//! runs ([`derive`]). What no payload says is a short list ([`BY_SIGNATURE_ALONE`]) that the outer signature alone covers.

mod check;
mod derive;
mod document;
mod envelope;
mod fault;
mod issue;
mod subject;

pub use check::{BY_SIGNATURE_ALONE, COUNT_MAX, Checked, check_consistency};
pub use document::*;
pub use envelope::{FILE_BYTES_MAX, Opened, Signer, TrustedKey, open};
pub use fault::{CertificateFault, EntryFault};
pub use issue::{CertificateInput, SystemDescription, issue};
pub use subject::{OPENING_BYTES_MAX, OpeningFault, SubjectOpening};
