//! From an event to the bytes that the log holds.

use aws_lc_rs::digest::{Context, SHA256};
use quittance_domain::{
    identifier::Identifier,
    ids::{CustomerId, EntryId, RequestId},
};

use crate::{Event, Hex};

pub const SALT_BYTES: usize = 32;

// Separates our commitments from any other use of SHA-256 over similar bytes.
const ENTRY_DOMAIN: &[u8] = b"quittance/v1/entry\0";
const SUBJECT_DOMAIN: &[u8] = b"quittance/v1/subject\0";

/// What the log holds of an entry: SHA-256 over a fixed label, the salt and the canonical payload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Leaf(pub [u8; 32]);

/// An entry on its way into the log, with its opening.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StagedEntry {
    pub customer: CustomerId,
    pub request: RequestId,
    pub id: EntryId,
    pub kind: &'static str,
    /// Canonical JSON: members in a fixed order, no blanks, integers and strings only.
    pub payload: Vec<u8>,
    pub salt: [u8; SALT_BYTES],
    pub leaf: Leaf,
}

impl Leaf {
    pub fn commit(salt: &[u8; SALT_BYTES], payload: &[u8]) -> Self {
        Self(hash(ENTRY_DOMAIN, salt, &[payload]))
    }
}

impl StagedEntry {
    pub fn new(customer: CustomerId, request: RequestId, id: EntryId, salt: [u8; SALT_BYTES], event: &Event) -> Self {
        let payload = event.canonical(&customer, request);
        let leaf = Leaf::commit(&salt, &payload);
        Self { customer, request, id, kind: event.kind(), payload, salt, leaf }
    }
}

/// Commits to whom a request is about. The customer, who receives the salt, can open it; nobody else can find out.
pub fn subject_commitment(salt: &[u8; SALT_BYTES], identifiers: &[Identifier]) -> Hex<32> {
    Hex(commit_subject(salt, &subject_lines(identifiers)))
}

/// `kind:value`, sorted. Personal data.
pub(crate) fn subject_lines(identifiers: &[Identifier]) -> Vec<String> {
    let mut lines: Vec<String> =
        identifiers.iter().map(|i| format!("{}:{}", i.kind().as_str(), i.value().expose())).collect();
    lines.sort();
    lines
}

/// Each line ends with a line feed, which no identifier holds.
pub(crate) fn commit_subject(salt: &[u8; SALT_BYTES], lines: &[String]) -> [u8; 32] {
    let parts: Vec<&[u8]> = lines.iter().flat_map(|line| [line.as_bytes(), b"\n".as_slice()]).collect();
    hash(SUBJECT_DOMAIN, salt, &parts)
}

fn hash(domain: &[u8], salt: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(domain);
    context.update(salt);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use quittance_domain::{identifier::IdentifierKind, request::RequestState};
    use uuid::Uuid;

    use super::*;

    fn entry(salt: u8, reason: &str) -> StagedEntry {
        StagedEntry::new(
            CustomerId::new("acme").unwrap(),
            RequestId::new(Uuid::from_u128(1)),
            EntryId::new(Uuid::from_u128(2)),
            [salt; SALT_BYTES],
            &Event::Closed { state: RequestState::Cancelled, reason: reason.to_owned(), at_us: 5 },
        )
    }

    #[test]
    fn the_same_event_and_salt_is_the_same_leaf_and_nothing_else_is() {
        assert_eq!(entry(1, "x").leaf, entry(1, "x").leaf);
        assert_ne!(entry(1, "x").leaf, entry(2, "x").leaf);
        assert_ne!(entry(1, "x").leaf, entry(1, "y").leaf);
    }

    /// Written down once: a change of these bytes breaks every certificate ever issued.
    #[test]
    fn canonical_bytes_never_change() {
        let text = String::from_utf8(entry(1, "x").payload).unwrap();
        assert_eq!(
            text,
            "{\"v\":1,\"customer\":\"acme\",\"request\":\"00000000-0000-0000-0000-000000000001\",\
             \"kind\":\"closed\",\"event\":{\"state\":\"CANCELLED\",\"reason\":\"x\",\"at_us\":5}}"
        );
    }

    #[test]
    fn the_order_of_identifiers_does_not_matter_to_the_commitment() {
        let a = Identifier::normalise(IdentifierKind::Email, "a@example.com").unwrap();
        let b = Identifier::normalise(IdentifierKind::UserId, "7").unwrap();
        let salt = [7; SALT_BYTES];
        assert_eq!(subject_commitment(&salt, &[a.clone(), b.clone()]), subject_commitment(&salt, &[b, a]));
    }
}
