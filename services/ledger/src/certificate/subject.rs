//! The subject opening: a small file beside the certificate, for the customer alone. With it the customer can prove whom a request was
//! about; without it nobody can find out.

use std::fmt;

use quittance_domain::{
    identifier::{Identifier, IdentifierKind},
    ids::{CustomerId, RequestId},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Certificate;
use crate::{Hex, SALT_BYTES, leaf::commit_subject, leaf::subject_lines};

/// More than all identifiers that a request can have.
pub const OPENING_BYTES_MAX: usize = 64 << 10;

/// Personal data: never into a log, and silent in `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectOpening {
    format: OpeningFormat,
    pub customer: CustomerId,
    pub request: RequestId,
    pub salt: Hex<SALT_BYTES>,
    /// `kind:value`, sorted: the lines that the commitment is over, without their line feeds.
    identifiers: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum OpeningFormat {
    #[serde(rename = "quittance.subject-opening/v1")]
    V1,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpeningFault {
    #[error("the file is larger than {OPENING_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the file does not have the form of a subject opening, or is not written in the one canonical way")]
    Form,
    #[error("it is of another customer or request than the certificate")]
    OtherRequest,
    #[error("it does not open the certificate's commitment: salt or identifiers are others")]
    Mismatch,
}

impl SubjectOpening {
    /// Of the identifiers that came with the instruction; those that systems yielded later are not under the commitment.
    pub fn new(customer: CustomerId, request: RequestId, salt: [u8; SALT_BYTES], identifiers: &[Identifier]) -> Self {
        let identifiers = subject_lines(identifiers);
        Self { format: OpeningFormat::V1, customer, request, salt: Hex(salt), identifiers }
    }

    /// The file's bytes.
    pub fn write(&self) -> Result<Zeroizing<Vec<u8>>, OpeningFault> {
        serde_json::to_vec(self).map(Zeroizing::new).map_err(|_| OpeningFault::Form)
    }

    pub fn read(file: &[u8]) -> Result<Self, OpeningFault> {
        if file.len() > OPENING_BYTES_MAX {
            return Err(OpeningFault::TooLarge);
        }
        let read: Self = serde_json::from_slice(file).map_err(|_| OpeningFault::Form)?;
        let sorted = read.identifiers.is_sorted() && !read.identifiers.is_empty();
        if sorted && read.identifiers.iter().all(|line| is_line(line)) && *read.write()? == file {
            Ok(read)
        } else {
            Err(OpeningFault::Form)
        }
    }

    /// `kind:value`, as the person who reads the file sees them.
    pub fn identifiers(&self) -> &[String] {
        &self.identifiers
    }

    /// Proves whom a certificate is about.
    pub fn verify(&self, certificate: &Certificate) -> Result<(), OpeningFault> {
        let about = &certificate.statement.request;
        if self.customer != certificate.customer.id || self.request != about.id {
            return Err(OpeningFault::OtherRequest);
        }
        let opened = commit_subject(&self.salt.0, &self.identifiers);
        if Hex(opened) == about.subject { Ok(()) } else { Err(OpeningFault::Mismatch) }
    }
}

/// One line, so that two ways to cut the same bytes into lines cannot both open a commitment.
fn is_line(line: &str) -> bool {
    let known = |kind: &str| IdentifierKind::parse(kind).is_some();
    let named = line.split_once(':').is_some_and(|(kind, value)| known(kind) && !value.is_empty());
    named && !line.contains('\n')
}

impl fmt::Debug for SubjectOpening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectOpening({} identifiers)", self.identifiers.len())
    }
}
