//! Certificates to try things on: built from events as the service stages them, with keys and proofs made up.

use std::collections::BTreeMap;

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use quittance_domain::{
    Timestamp,
    action::{Action, InstructionKind},
    country::Country,
    identifier::{Identifier, IdentifierKind},
    ids::{CustomerId, EntryId, RequestId, SystemId},
    outcome::{Confirmation, Evidence, EvidenceKind, Grade, Outcome, OutcomeKind},
    request::RequestState,
    system::{ConnectorKind, SystemRole},
    task::TaskState,
};
use quittance_ledger::{
    Event, Hex, Operation, PlannedSystem, SALT_BYTES, StagedEntry, Withheld,
    certificate::{
        AgreementTerms, Attestation, CertificateFault, CertificateInput, Customer, EntryOpening, Issuer, KeyStatus,
        LogKey, LogKeys, OpenTask, Signer, SubjectOpening, SystemDescription, TrustedKey, WitnessKey, issue,
    },
    key::{KeyType, SignerKey},
    subject_commitment,
};
use uuid::Uuid;

pub const KEY_NAME: &str = "log.processor.example/quittance";
pub const WITNESS: &str = "witness.university.example";
pub const SUBJECT_SALT: [u8; SALT_BYTES] = [0xee; SALT_BYTES];

pub struct SampleKey {
    pair: Ed25519KeyPair,
}

impl SampleKey {
    pub fn new(seed: u8) -> Self {
        Self { pair: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap() }
    }

    fn public(&self) -> [u8; 32] {
        self.pair.public_key().as_ref().try_into().unwrap()
    }

    pub fn vkey(&self) -> String {
        let key = [&[1], self.public().as_slice()].concat();
        format!("{}+{}", self.key_id(), STANDARD.encode(key))
    }

    pub fn trusted(&self) -> TrustedKey {
        TrustedKey { id: self.key_id(), public: self.public() }
    }
}

impl Signer for SampleKey {
    fn key_id(&self) -> String {
        let named = [KEY_NAME.as_bytes(), b"\n", &[1], self.public().as_slice()].concat();
        let hash = digest(&SHA256, &named);
        let short: String = hash.as_ref()[..4].iter().map(|b| format!("{b:02x}")).collect();
        format!("{KEY_NAME}+{short}")
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], CertificateFault> {
        self.pair.sign(message).as_ref().try_into().map_err(|_| CertificateFault::Signing)
    }
}

pub fn signer(name: &str, key_type: KeyType, seed: u8) -> SignerKey {
    SignerKey::from_seed(name.parse().unwrap(), key_type, &[seed; 32]).unwrap()
}

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn us(text: &str) -> i64 {
    at(text).as_microsecond()
}

pub fn system(id: &str) -> SystemId {
    SystemId::new(id).unwrap()
}

pub fn customer() -> CustomerId {
    CustomerId::new("acme").unwrap()
}

pub fn request() -> RequestId {
    RequestId::parse("0193a6f2-7c1e-7d40-9a2b-5f0c8e4d1a77").unwrap()
}

pub fn identifiers() -> Vec<Identifier> {
    vec![
        Identifier::normalise(IdentifierKind::Email, "mara@example.com").unwrap(),
        Identifier::normalise(IdentifierKind::UserId, "U-7").unwrap(),
    ]
}

pub fn subject_opening() -> SubjectOpening {
    SubjectOpening::new(customer(), request(), SUBJECT_SALT, &identifiers())
}

pub fn opening(number: u8, event: &Event) -> EntryOpening {
    let id = EntryId::new(Uuid::from_u128(u128::from(number)));
    let staged = StagedEntry::new(customer(), request(), id, [number; SALT_BYTES], event);
    EntryOpening {
        kind: staged.kind.to_owned(),
        payload: String::from_utf8(staged.payload).unwrap(),
        salt: Hex(staged.salt),
        leaf: Hex(staged.leaf.0),
        proof: format!(
            "c2sp.org/tlog-proof@v1\nindex {number}\nBIdIxV5Fzn7ncwwWXR0ouxLYDHZ0lmM8YGFnVPDhPyo=\n\n{KEY_NAME}\n17\n\
             PcT1r3s8wEEzCyiQ0kb1NbWdjnAXoFsE1RCWzHfNDC8=\n\n\u{2014} {KEY_NAME} made-up\n"
        ),
        attested: Vec::new(),
    }
}

pub fn openings(events: &[Event]) -> Vec<EntryOpening> {
    (1..).zip(events).map(|(n, event)| opening(n, event)).collect()
}

pub fn instructed(action: Action) -> Event {
    Event::Instructed {
        action,
        instruction: InstructionKind::CustomerRequest,
        subject: subject_commitment(&SUBJECT_SALT, &identifiers()),
        by: "customers/acme".to_owned(),
        referred: false,
        received_us: us("2026-03-02T09:15:04.120334Z"),
        first_due_us: us("2026-04-01T21:59:59.999999Z"),
        agreement: 2,
        reference: "DSR-2026-0042".to_owned(),
        restriction_ground: None,
        follows: None,
        subject_asked_us: Some(us("2026-03-01T18:40:00Z")),
        subject_informed_us: None,
        controller_due_us: None,
        follow_up: None,
    }
}

pub fn planned(systems: &[&str]) -> Event {
    planned_by(systems, 3)
}

/// By a version of their maps.
pub fn planned_by(systems: &[&str], map_version: u32) -> Event {
    let systems = systems.iter().map(|id| PlannedSystem { system: system(id), map_version }).collect();
    Event::Planned { at_us: us("2026-03-02T09:15:04.120334Z"), systems }
}

pub fn line(collection: &str, category: &str, outcome: OutcomeKind, grade: Grade, count: u64) -> Outcome {
    let (collection, category) = (collection.to_owned(), category.to_owned());
    Outcome { collection, category, outcome, grade, count, basis: String::new(), until: None }
}

pub fn retained(collection: &str, category: &str, count: u64, ground: &str, until: &str) -> Outcome {
    Outcome {
        basis: ground.to_owned(),
        until: Some(at(until)),
        ..line(collection, category, OutcomeKind::Retained, Grade::RetainedUntil, count)
    }
}

pub fn confirmed(id: &str, outcomes: Vec<Outcome>) -> Confirmation {
    Confirmation {
        system: system(id),
        outcomes,
        evidence: Evidence {
            kind: EvidenceKind::ReadBack,
            reference: String::new(),
            sha256: String::new(),
            at: at("2026-03-02T09:16:11.5Z"),
        },
        by: "connector".to_owned(),
        confirmed_at: at("2026-03-02T09:16:12.000001Z"),
        backups_expire_at: Some(at("2026-04-06T09:16:12.000001Z")),
    }
}

fn described(display_name: &str, role: SystemRole, country: &str, connector: ConnectorKind) -> SystemDescription {
    let country = Country::parse(country).unwrap();
    SystemDescription { display_name: display_name.to_owned(), role, country, connector }
}

/// Two systems, one line each.
pub fn small() -> CertificateInput {
    let erased = |collection| line(collection, "email", OutcomeKind::Erased, Grade::Verified, 2);
    let events = [
        instructed(Action::Erasure),
        planned(&["crm", "desk"]),
        Event::Confirmed { confirmation: confirmed("crm", vec![erased("contacts")]), late: false },
        Event::Confirmed { confirmation: confirmed("desk", vec![erased("tickets")]), late: false },
        Event::Completed { state: RequestState::Completed, at_us: us("2026-03-02T09:16:12.1Z"), late: false },
    ];
    input(openings(&events), &["crm", "desk"])
}

/// Everything that a certificate can hold: holds, an expiry, an exception, an extension, an objection, operators, a late end.
pub fn rich() -> CertificateInput {
    let (mut events, systems) = rich_events();
    events.push(Event::Completed {
        state: RequestState::CompletedWithExceptions,
        at_us: us("2026-05-04T07:30:00.25Z"),
        late: true,
    });
    let mut rich = input(openings(&events), &systems);
    if let Some(last) = rich.entries.last_mut() {
        last.attested = vec![Attestation { at: at("2026-05-04T07:30:02Z"), by: WITNESS.to_owned() }];
    }
    rich
}

/// An access whose package held others' data as well, and what the customer kept out of it.
pub fn reviewed(withheld: Vec<Withheld>) -> CertificateInput {
    let exported = |collection, count| line(collection, "free_text", OutcomeKind::Exported, Grade::Verified, count);
    let confirmed = |id, lines| Confirmation { backups_expire_at: None, ..confirmed(id, lines) };
    let events = [
        instructed(Action::Access),
        planned(&["crm", "desk"]),
        Event::Confirmed { confirmation: confirmed("crm", vec![exported("contacts", 2)]), late: false },
        Event::Confirmed { confirmation: confirmed("desk", vec![exported("tickets", 40)]), late: false },
        Event::Completed { state: RequestState::Completed, at_us: us("2026-03-02T09:16:12.1Z"), late: false },
        Event::Reviewed { by: "customers/acme".to_owned(), at_us: us("2026-03-05T10:00:00Z"), withheld },
    ];
    input(openings(&events), &["crm", "desk"])
}

pub fn withheld(id: &str, collection: &str, category: &str, count: u64) -> Withheld {
    Withheld { system: system(id), collection: collection.to_owned(), category: category.to_owned(), count }
}

/// The request of [`rich`] some weeks earlier.
pub fn interim() -> CertificateInput {
    let (events, systems) = rich_events();
    let events: Vec<Event> = events
        .into_iter()
        .filter(|e| match e {
            Event::Confirmed { confirmation, .. } => !["fax", "mail"].contains(&confirmation.system.as_str()),
            Event::Operated { what, .. } => *what == Operation::Retried,
            _ => true,
        })
        .collect();
    let mut interim = input(openings(&events), &systems);
    interim.issued_at = at("2026-04-02T00:00:00Z");
    let open = |state, reason: &str| OpenTask { state, reason: reason.to_owned() };
    interim.open = BTreeMap::from([
        (system("fax"), open(TaskState::NeedsAttention, "NO_USABLE_IDENTIFIER")),
        (system("mail"), open(TaskState::AwaitingConfirmation, "")),
    ]);
    interim
}

/// The customer said no when one system had acted, another was asked, and the third had not begun.
pub fn declined() -> CertificateInput {
    let erased = line("contacts", "email", OutcomeKind::Erased, Grade::Verified, 2);
    let events = [
        instructed(Action::Erasure),
        planned(&["crm", "desk", "mail"]),
        Event::Confirmed { confirmation: confirmed("crm", vec![erased]), late: false },
        Event::Objected {
            by: "operators/kim".to_owned(),
            reason: "Tax law says to keep this".to_owned(),
            at_us: us("2026-03-02T10:00:00Z"),
        },
        Event::Closed {
            state: RequestState::Declined,
            by: "customers/acme".to_owned(),
            reason: "You are right, we must keep it".to_owned(),
            at_us: us("2026-03-03T08:00:00Z"),
        },
    ];
    let mut declined = input(openings(&events), &["crm", "desk", "mail"]);
    let stopped = OpenTask { state: TaskState::NeedsAttention, reason: "REQUEST_CLOSED".to_owned() };
    declined.open = BTreeMap::from([(system("desk"), stopped)]);
    declined
}

fn rich_events() -> (Vec<Event>, [&'static str; 6]) {
    use {Grade as G, OutcomeKind as K};
    let ground = "Art. 52 Algemene wet inzake rijksbelastingen; GDPR Art. 17(3)(b)";
    let crm = confirmed(
        "crm",
        vec![
            line("contacts", "display_name", K::Erased, G::Verified, 3),
            line("contacts", "email", K::Erased, G::Verified, 3),
            line("contacts", "phone", K::Pseudonymised, G::Verified, 1),
            line("notes", "free_text", K::Erased, G::Verified, 41),
        ],
    );
    let billing = confirmed(
        "billing",
        vec![
            line("customers", "email", K::Erased, G::Verified, 1),
            retained("invoices", "display_name", 12, ground, "2033-12-31T23:00:00Z"),
            retained("invoices", "postal_address", 12, ground, "2033-12-31T23:00:00Z"),
            line("invoices", "display_name", K::Restricted, G::Verified, 12),
        ],
    );
    let matomo = Confirmation {
        backups_expire_at: None,
        confirmed_at: at("2026-03-02T12:01:30Z"),
        ..confirmed("matomo", vec![line("*", "*", K::NotHeld, G::Verified, 0)])
    };
    let receipt = Evidence {
        kind: EvidenceKind::VendorReceipt,
        reference: "PRIV-88213".to_owned(),
        sha256: "5b0e9c0d7b1a4f2c8e6d3a9f1b7c5d2e4f6a8091b2c3d4e5f60718293a4b5c6d".to_owned(),
        at: at("2026-03-03T14:02:00Z"),
    };
    let desk = Confirmation {
        evidence: receipt,
        by: "workers/helpdesk".to_owned(),
        backups_expire_at: None,
        ..confirmed("desk", vec![line("tickets", "email", K::Erased, G::Executed, 5)])
    };
    let expires = Outcome {
        until: Some(at("2026-06-02T00:00:00Z")),
        ..line("message_media", "photo", K::Erased, G::ExpiresOn, 2)
    };
    let mail = Confirmation {
        evidence: Evidence {
            kind: EvidenceKind::RetentionExpiry,
            reference: "Retention schedule 4.2".to_owned(),
            sha256: String::new(),
            at: at("2026-04-20T08:00:00Z"),
        },
        by: "workers/mail".to_owned(),
        confirmed_at: at("2026-04-20T08:00:01Z"),
        backups_expire_at: Some(at("2026-05-25T08:00:01Z")),
        ..confirmed("mail", vec![expires])
    };
    let given_up = Outcome {
        basis: "The vendor has ceased trading; no reply since 2026-03-20".to_owned(),
        ..line("*", "*", K::Unconfirmed, G::None, 0)
    };
    let fax = Confirmation {
        evidence: Evidence {
            kind: EvidenceKind::OperatorStatement,
            reference: String::new(),
            sha256: String::new(),
            at: at("2026-05-04T07:30:00Z"),
        },
        by: "operators/kim".to_owned(),
        confirmed_at: at("2026-05-04T07:30:00.25Z"),
        backups_expire_at: None,
        ..confirmed("fax", vec![given_up])
    };
    let systems = ["billing", "crm", "desk", "fax", "mail", "matomo"];
    let confirm = |confirmation, late| Event::Confirmed { confirmation, late };
    let (by, operated_at) = ("operators/kim".to_owned(), us("2026-03-21T10:00:00Z"));
    let events = vec![
        instructed(Action::Erasure),
        planned(&systems[..5]),
        Event::Objected {
            by: "operators/kim".to_owned(),
            reason: "The address belongs to two account holders: please confirm which one is meant".to_owned(),
            at_us: us("2026-03-02T09:15:40Z"),
        },
        Event::Authorised {
            by: "customers/acme".to_owned(),
            at_us: us("2026-03-02T09:16:00Z"),
            first_due_us: us("2026-04-01T21:59:59.999999Z"),
            agreement: 2,
        },
        confirm(crm, false),
        confirm(billing, false),
        Event::Planned {
            at_us: us("2026-03-02T12:00:00Z"),
            systems: vec![PlannedSystem { system: system("matomo"), map_version: 1 }],
        },
        confirm(matomo, false),
        confirm(desk, false),
        Event::Operated { system: system("fax"), what: Operation::Retried, by: by.clone(), at_us: operated_at },
        Event::Extended {
            due_us: us("2026-05-01T21:59:59.999999Z"),
            by: "customers/acme".to_owned(),
            reason: "Complexity: a sub-processor does not answer (Art. 12(3))".to_owned(),
            at_us: us("2026-03-28T11:30:00Z"),
        },
        confirm(mail, false),
        Event::Operated { system: system("fax"), what: Operation::Resolved, by, at_us: us("2026-05-04T07:30:00.25Z") },
        confirm(fax, true),
    ];
    (events, systems)
}

/// So many systems, with four lines each and long names.
pub fn large(systems: usize) -> CertificateInput {
    let ids: Vec<String> = (0..systems).map(|n| format!("backend-{n:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let outcomes = || {
        vec![
            line("customer_relationship_contacts", "display_name", OutcomeKind::Erased, Grade::Verified, 3),
            line("customer_relationship_contacts", "email", OutcomeKind::Erased, Grade::Verified, 3),
            line("newsletter_subscriptions", "email", OutcomeKind::Erased, Grade::Verified, 1),
            retained("invoices", "postal_address", 2, "Bookkeeping law", "2033-12-31T23:00:00Z"),
        ]
    };
    let mut events = vec![instructed(Action::Erasure), planned(&ids)];
    events.extend(ids.iter().map(|id| Event::Confirmed { confirmation: confirmed(id, outcomes()), late: false }));
    let at_us = us("2026-03-02T11:00:00Z");
    events.push(Event::Completed { state: RequestState::Completed, at_us, late: false });
    let mut large = input(Vec::new(), &ids);
    // More entries than a salt of one repeated byte tells apart.
    large.entries = (0_u32..)
        .zip(&events)
        .map(|(n, event)| {
            let mut salt = [0; SALT_BYTES];
            salt[..4].copy_from_slice(&n.to_be_bytes());
            let staged = StagedEntry::new(customer(), request(), EntryId::new(Uuid::nil()), salt, event);
            EntryOpening {
                payload: String::from_utf8(staged.payload).unwrap(),
                salt: Hex(salt),
                leaf: Hex(staged.leaf.0),
                kind: staged.kind.to_owned(),
                ..opening(1, event)
            }
        })
        .collect();
    large
}

pub fn input(entries: Vec<EntryOpening>, systems: &[&str]) -> CertificateInput {
    use {ConnectorKind as C, SystemRole as R};
    let known = |id: &str| match id {
        "crm" => described("Customer database (CRM)", R::StorageBackend, "NL", C::Sql),
        "billing" => described("Billing and invoices", R::StorageBackend, "NL", C::Sql),
        "matomo" => described("Matomo Analytics", R::StorageBackend, "DE", C::Sql),
        "desk" => described("Helpdesk Cloud Ltd", R::SubProcessor, "IE", C::Remote),
        "mail" => described("Meddelande AB (messages)", R::SubProcessor, "SE", C::Remote),
        "fax" => described("Télécopie S.à r.l.", R::SubProcessor, "LU", C::Remote),
        other => described(&format!("Storage backend {other}"), R::StorageBackend, "FI", C::Sql),
    };
    CertificateInput {
        issued_at: at("2026-05-04T07:31:00Z"),
        issuer: Issuer { name: "Processor B.V., Utrecht".to_owned(), deployment: "eu-1".to_owned() },
        customer: Customer {
            id: customer(),
            display_name: "Acme".to_owned(),
            controller: "Acme Nederland B.V., Stationsplein 1, 3511 ED Utrecht".to_owned(),
            representative: String::new(),
            data_protection_officer: "privacy@acme.example".to_owned(),
        },
        agreement: AgreementTerms {
            version: 2,
            signed: at("2025-01-15T10:00:00Z"),
            window_days: 30,
            time_zone: "Europe/Amsterdam".to_owned(),
        },
        systems: systems.iter().map(|id| (system(id), known(id))).collect(),
        open: BTreeMap::new(),
        entries,
        log: LogKeys {
            origin: KEY_NAME.to_owned(),
            keys: vec![
                LogKey {
                    vkey: SampleKey::new(6).vkey(),
                    from: at("2024-06-01T00:00:00Z"),
                    to: Some(at("2025-06-01T00:00:00Z")),
                    status: KeyStatus::Retired,
                },
                LogKey {
                    vkey: SampleKey::new(7).vkey(),
                    from: at("2025-06-01T00:00:00Z"),
                    to: None,
                    status: KeyStatus::Current,
                },
            ],
            witnesses: vec![WitnessKey {
                name: WITNESS.to_owned(),
                vkey: signer(WITNESS, KeyType::CosignatureV1, 8).verifier().to_string(),
            }],
        },
    }
}

pub fn signed(input: CertificateInput) -> Vec<u8> {
    issue(input, &SampleKey::new(7)).unwrap()
}

/// The same by any key, also where no issuer of ours would sign with it.
pub fn signed_by(key: &SampleKey, input: CertificateInput) -> Vec<u8> {
    let file = String::from_utf8(signed(input)).unwrap();
    resigned(key, certificate_of(&file)).into_bytes()
}

/// The member that is signed.
pub fn certificate_of(file: &str) -> &str {
    &file["{\"certificate\":".len()..file.rfind(",\"signatures\":").unwrap()]
}

/// The certificate with a signature of this key, whatever it says.
pub fn resigned(key: &SampleKey, certificate: &str) -> String {
    let message = [b"quittance/v1/certificate\0", certificate.as_bytes()].concat();
    let signature = STANDARD.encode(key.sign(&message).unwrap());
    format!(
        "{{\"certificate\":{certificate},\"signatures\":[{{\"key\":\"{}\",\"signature\":\"{signature}\"}}]}}",
        key.key_id()
    )
}
