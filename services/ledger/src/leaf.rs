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
    use quittance_domain::{
        Timestamp,
        action::{Action, InstructionKind},
        identifier::IdentifierKind,
        ids::SystemId,
        outcome::{Confirmation, Evidence, EvidenceKind, Grade, Outcome, OutcomeKind},
        request::RequestState,
    };
    use uuid::Uuid;

    use super::*;
    use crate::{Operation, PayloadError, PlannedSystem, RecordedEvent, Withheld};

    fn staged(salt: u8, event: &Event) -> StagedEntry {
        let (customer, request) = (CustomerId::new("acme").unwrap(), RequestId::new(Uuid::from_u128(1)));
        StagedEntry::new(customer, request, EntryId::new(Uuid::from_u128(2)), [salt; SALT_BYTES], event)
    }

    fn entry(salt: u8, reason: &str) -> StagedEntry {
        staged(
            salt,
            &Event::Closed { state: RequestState::Cancelled, by: String::new(), reason: reason.to_owned(), at_us: 5 },
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
        let crm = SystemId::new("crm").unwrap();
        let outcome = Outcome {
            collection: "contacts".to_owned(),
            category: "email".to_owned(),
            outcome: OutcomeKind::Retained,
            grade: Grade::RetainedUntil,
            count: 2,
            basis: "law".to_owned(),
            until: Some(Timestamp::UNIX_EPOCH),
        };
        let confirmation = Confirmation {
            system: crm.clone(),
            outcomes: vec![outcome],
            evidence: Evidence {
                kind: EvidenceKind::ReadBack,
                reference: String::new(),
                sha256: String::new(),
                at: Timestamp::UNIX_EPOCH,
            },
            by: "connector".to_owned(),
            confirmed_at: Timestamp::UNIX_EPOCH,
            backups_expire_at: None,
        };
        let (by, reason) = ("b".to_owned(), "x".to_owned());
        let instructed = |reference: &str, at| Event::Instructed {
            action: Action::LiftRestriction,
            instruction: InstructionKind::CustomerRequest,
            subject: Hex([0xab; 32]),
            by: by.clone(),
            referred: false,
            received_us: 1,
            first_due_us: 2,
            agreement: 3,
            reference: reference.to_owned(),
            restriction_ground: None,
            subject_asked_us: at,
            subject_informed_us: at,
            controller_due_us: at,
            follow_up: None,
            follows: None,
        };
        let long = "{\"action\":\"LIFT_RESTRICTION\",\"instruction\":\"CUSTOMER_REQUEST\",\"subject\":\"SUBJECT\",\
                    \"by\":\"b\",\"referred\":false,\"received_us\":1,\"first_due_us\":2,\"agreement\":3"
            .replace("SUBJECT", &"ab".repeat(32));
        let events = [
            (instructed("", None), "instructed", format!("{long}}}")),
            (
                instructed("r", Some(4)),
                "instructed",
                format!(
                    "{long},\"reference\":\"r\",\"subject_asked_us\":4,\"subject_informed_us\":4,\"controller_due_us\":4}}"
                ),
            ),
            (
                Event::Planned { at_us: 5, systems: vec![PlannedSystem { system: crm.clone(), map_version: 1 }] },
                "planned",
                "{\"at_us\":5,\"systems\":[{\"system\":\"crm\",\"map_version\":1}]}".to_owned(),
            ),
            (
                Event::Authorised { by: by.clone(), at_us: 5, first_due_us: 6, agreement: 1 },
                "authorised",
                "{\"by\":\"b\",\"at_us\":5,\"first_due_us\":6,\"agreement\":1}".to_owned(),
            ),
            (
                Event::Objected { by: by.clone(), reason: reason.clone(), at_us: 5 },
                "objected",
                "{\"by\":\"b\",\"reason\":\"x\",\"at_us\":5}".to_owned(),
            ),
            (
                Event::Extended { due_us: 7, by: by.clone(), reason: reason.clone(), at_us: 5 },
                "extended",
                "{\"due_us\":7,\"by\":\"b\",\"reason\":\"x\",\"at_us\":5}".to_owned(),
            ),
            (
                Event::Confirmed { confirmation, late: true },
                "confirmed",
                "{\"confirmation\":{\"system\":\"crm\",\"outcomes\":[{\"collection\":\"contacts\",\"category\":\"email\",\
                 \"outcome\":\"RETAINED\",\"grade\":\"RETAINED_UNTIL\",\"count\":2,\"basis\":\"law\",\
                 \"until\":\"1970-01-01T00:00:00Z\"}],\"evidence\":{\"kind\":\"READ_BACK\",\"at\":\"1970-01-01T00:00:00Z\"},\
                 \"by\":\"connector\",\"confirmed_at\":\"1970-01-01T00:00:00Z\"},\"late\":true}"
                    .to_owned(),
            ),
            (
                Event::Operated { system: crm, what: Operation::Retried, by: by.clone(), at_us: 5 },
                "operated",
                "{\"system\":\"crm\",\"what\":\"retried\",\"by\":\"b\",\"at_us\":5}".to_owned(),
            ),
            (
                Event::Completed { state: RequestState::CompletedWithExceptions, at_us: 5, late: false },
                "completed",
                "{\"state\":\"COMPLETED_WITH_EXCEPTIONS\",\"at_us\":5,\"late\":false}".to_owned(),
            ),
            (
                Event::Closed { state: RequestState::Cancelled, by, reason, at_us: 5 },
                "closed",
                "{\"state\":\"CANCELLED\",\"by\":\"b\",\"reason\":\"x\",\"at_us\":5}".to_owned(),
            ),
            (
                Event::Reviewed {
                    by: "b".to_owned(),
                    at_us: 5,
                    withheld: vec![Withheld {
                        system: SystemId::new("crm").unwrap(),
                        collection: "notes".to_owned(),
                        category: "free_text".to_owned(),
                        count: 2,
                    }],
                },
                "reviewed",
                "{\"by\":\"b\",\"at_us\":5,\"withheld\":[{\"system\":\"crm\",\"collection\":\"notes\",\"category\":\"free_text\",\
                 \"count\":2}]}"
                    .to_owned(),
            ),
            (
                Event::KeyDestroyed { epoch: 7, forgotten: 2, rewrapped: 3, destroyed_us: 5 },
                "key_destroyed",
                "{\"epoch\":7,\"forgotten\":2,\"rewrapped\":3,\"destroyed_us\":5}".to_owned(),
            ),
        ];
        for (event, kind, body) in events {
            assert_eq!(event.kind(), kind);
            let staged = staged(1, &event);
            let text = String::from_utf8(staged.payload.clone()).unwrap();
            let expected = format!(
                "{{\"v\":1,\"customer\":\"acme\",\"request\":\"00000000-0000-0000-0000-000000000001\",\
                 \"kind\":\"{kind}\",\"event\":{body}}}"
            );
            assert_eq!(text, expected);
            let read = RecordedEvent::read(&staged.payload).unwrap();
            assert_eq!((read.event, read.customer), (event, staged.customer));
        }
    }

    #[test]
    fn only_the_canonical_payload_is_read_back() {
        let text = String::from_utf8(entry(1, "x").payload).unwrap();
        let read = |text: &str| RecordedEvent::read(text.as_bytes());
        assert!(read(&text).is_ok());
        for (from, to, error) in [
            ("{\"v\":1", "{ \"v\":1", PayloadError::NotCanonical),
            ("{\"v\":1", "{\"more\":1,\"v\":1", PayloadError::NotCanonical),
            ("\"reason\":\"x\"", "\"reason\":\"\\u0078\"", PayloadError::NotCanonical),
            ("\"at_us\":5", "\"at_us\":5,\"by\":\"y\"", PayloadError::NotCanonical),
            ("{\"v\":1", "{\"v\":2", PayloadError::Form),
            ("\"closed\"", "\"vanished\"", PayloadError::Form),
            ("\"at_us\":5", "\"at_us\":5.0", PayloadError::Form),
        ] {
            assert_eq!(read(&text.replace(from, to)), Err(error), "{to}");
        }
    }

    #[test]
    fn the_order_of_identifiers_does_not_matter_to_the_commitment() {
        let a = Identifier::normalise(IdentifierKind::Email, "a@example.com").unwrap();
        let b = Identifier::normalise(IdentifierKind::UserId, "7").unwrap();
        let salt = [7; SALT_BYTES];
        assert_eq!(subject_commitment(&salt, &[a.clone(), b.clone()]), subject_commitment(&salt, &[b, a]));
    }
}
