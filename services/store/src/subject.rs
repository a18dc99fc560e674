//! What is sealed of a request: who it is about, and what is to be corrected.

use quittance_domain::{
    action::Correction,
    identifier::{Identifier, IdentifierKind},
    request::NewRequest,
};
use quittance_ledger::SALT_BYTES;
use zeroize::Zeroizing;

use crate::{
    StoreError, StoreResult,
    seal::{RequestKey, SealedColumn},
};

/// Opened only while a worker has the task, or the customer's own request is served.
#[derive(Clone, Debug)]
pub struct SubjectSecrets {
    pub identifiers: Vec<Identifier>,
    /// So many of them, the first, came with the instruction; systems yielded the others.
    pub instructed: usize,
    pub corrections: Vec<Correction>,
    /// The subject's own words, where a request was referred.
    pub words: Option<quittance_domain::sealed::Sealed<String>>,
    /// Opens the subject's commitment in the ledger.
    pub commitment_salt: [u8; SALT_BYTES],
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    i: Vec<(IdentifierKind, String)>,
    n: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    c: Vec<Correction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    w: Option<String>,
    s: [u8; SALT_BYTES],
}

impl SubjectSecrets {
    pub(crate) fn of(request: &NewRequest, words: Option<String>, commitment_salt: [u8; SALT_BYTES]) -> Self {
        Self {
            identifiers: request.identifiers.clone(),
            instructed: request.identifiers.len(),
            corrections: request.corrections.clone(),
            words: words.map(Into::into),
            commitment_salt,
        }
    }

    /// Whom the commitment is about; a `SubjectOpening` names these.
    pub fn instructed(&self) -> &[Identifier] {
        self.identifiers.get(..self.instructed).unwrap_or(&self.identifiers)
    }

    pub(crate) fn seal(&self, key: &RequestKey) -> StoreResult<Vec<u8>> {
        let stored = Stored {
            i: self.identifiers.iter().map(|i| (i.kind(), i.value().expose().clone())).collect(),
            n: self.instructed,
            c: self.corrections.clone(),
            w: self.words.as_ref().map(|w| w.expose().clone()),
            s: self.commitment_salt,
        };
        let plain = serde_json::to_vec(&stored).map(Zeroizing::new);
        let plain =
            plain.map_err(|_| StoreError::Inconsistent { table: "requests", what: "a subject does not serialise" })?;
        key.seal(SealedColumn::Subject, "", &plain)
    }

    pub(crate) fn open(key: &RequestKey, sealed: &[u8]) -> StoreResult<Self> {
        let plain = Zeroizing::new(key.open(SealedColumn::Subject, "", sealed)?);
        let stored: Stored = serde_json::from_slice(&plain)
            .map_err(|_| StoreError::Inconsistent { table: "requests", what: "a sealed subject does not parse" })?;
        Ok(Self {
            identifiers: stored.i.into_iter().map(|(kind, value)| Identifier::from_normalised(kind, value)).collect(),
            instructed: stored.n,
            corrections: stored.c,
            words: stored.w.map(Into::into),
            commitment_salt: stored.s,
        })
    }
}
