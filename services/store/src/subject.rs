//! What is sealed of a request: who it is about, and what is to be corrected.

use std::collections::BTreeSet;

use quittance_domain::{
    action::{Correction, IdentifierChange},
    identifier::{Identifier, IdentifierKind},
    ids::SystemId,
    request::{NewRequest, known_identifiers},
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
    pub identifier_changes: Vec<IdentifierChange>,
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    r: Vec<StoredChange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    w: Option<String>,
    s: [u8; SALT_BYTES],
}

#[derive(serde::Serialize, serde::Deserialize)]
struct StoredChange {
    k: IdentifierKind,
    c: String,
    f: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    o: Option<String>,
    n: String,
    s: BTreeSet<SystemId>,
}

impl StoredChange {
    fn of(change: &IdentifierChange) -> Self {
        Self {
            k: change.kind,
            c: change.collection.clone(),
            f: change.field.clone(),
            o: change.old.as_ref().map(|old| old.value().expose().clone()),
            n: change.new.value().expose().clone(),
            s: change.named_at.clone(),
        }
    }

    fn into_change(self) -> IdentifierChange {
        let Self { k: kind, c: collection, f: field, o, n, s: named_at } = self;
        let known = |value| Identifier::from_normalised(kind, value);
        IdentifierChange { kind, collection, field, old: o.map(known), new: known(n), named_at }
    }
}

impl SubjectSecrets {
    pub(crate) fn of(request: &NewRequest, words: Option<String>, commitment_salt: [u8; SALT_BYTES]) -> Self {
        Self {
            identifiers: known_identifiers(&request.identifiers, &request.identifier_changes),
            instructed: request.identifiers.len(),
            corrections: request.corrections.clone(),
            identifier_changes: request.identifier_changes.clone(),
            words: words.map(Into::into),
            commitment_salt,
        }
    }

    /// Whom the commitment is about; a `SubjectOpening` names these.
    pub fn instructed(&self) -> &[Identifier] {
        self.identifiers.get(..self.instructed).unwrap_or(&self.identifiers)
    }

    /// All names under which others may instruct about this person: the new ones of a rectification are the person's too.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Identifier> {
        self.identifiers.iter().chain(self.identifier_changes.iter().map(|change| &change.new))
    }

    pub(crate) fn seal(&self, key: &RequestKey) -> StoreResult<Vec<u8>> {
        let stored = Stored {
            i: self.identifiers.iter().map(|i| (i.kind(), i.value().expose().clone())).collect(),
            n: self.instructed,
            c: self.corrections.clone(),
            r: self.identifier_changes.iter().map(StoredChange::of).collect(),
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
            identifier_changes: stored.r.into_iter().map(StoredChange::into_change).collect(),
            words: stored.w.map(Into::into),
            commitment_salt: stored.s,
        })
    }
}
