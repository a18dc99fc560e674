//! Holds a certificate's statement against the entries that it opens.

use std::collections::{BTreeMap, BTreeSet};

use quittance_domain::ids::SystemId;

use super::{
    Certificate, CertificateFault, CertifiedState, KeyStatus, LogKeys, Statement, SystemStatement,
    derive::{Described, Sources, derive},
    issue::SystemDescription,
};

const ENTRIES_MAX: usize = 10_000;
const KEYS_MAX: usize = 1000;
/// Where every reader of JSON still counts exactly.
pub const COUNT_MAX: u64 = (1 << 53) - 1;

/// What a certificate says that no ledger entry says: the outer signature alone covers it.
pub const BY_SIGNATURE_ALONE: &[&str] = &[
    "when it was issued, and by whom",
    "the customer's names",
    "when the agreement was signed, its window and its time zone",
    "the systems' display names, roles, countries and kinds of connector",
    "how tasks stand that are not confirmed, and which had not begun when the request was declined or cancelled",
    "the key history and the witnesses' keys",
];

/// What was compared, entry by entry and member by member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checked {
    pub state: CertifiedState,
    /// Openings whose leaf is their payload's. Whether the log holds the leaves, their proofs say.
    pub entries: usize,
    pub systems: usize,
    pub confirmations: usize,
    pub outcomes: usize,
}

/// Recomputes every leaf, derives the statement from the payloads, and compares. It looks neither at the proofs nor at signatures.
pub fn check_consistency(certificate: &Certificate) -> Result<Checked, CertificateFault> {
    if certificate.entries.len() > ENTRIES_MAX {
        return Err(CertificateFault::Limit("the number of entries"));
    }
    let said = &certificate.statement;
    let derived = derive(&Sources {
        customer: &certificate.customer.id,
        request: said.request.id,
        issued_at: certificate.issued.at,
        entries: &certificate.entries,
        described: described(said)?,
    })?;
    if certificate.agreement.version != derived.agreement_version {
        return Err(CertificateFault::Statement("agreement.version"));
    }
    compare(said, &derived.statement)?;
    check_keys(&certificate.log)?;
    check_attestations(certificate)?;
    let confirmations = said.systems.iter().filter_map(|s| s.confirmation.as_ref());
    let outcomes: Vec<_> = confirmations.clone().flat_map(|c| &c.outcomes).collect();
    let withheld = said.not_processed.iter().filter_map(|n| n.count);
    if outcomes.iter().map(|o| o.count).chain(withheld).any(|count| count > COUNT_MAX) {
        return Err(CertificateFault::Limit("a count"));
    }
    Ok(Checked {
        state: said.state,
        entries: certificate.entries.len(),
        systems: said.systems.len(),
        confirmations: confirmations.count(),
        outcomes: outcomes.len(),
    })
}

fn described(said: &Statement) -> Result<BTreeMap<SystemId, Described>, CertificateFault> {
    let mut described = BTreeMap::new();
    for s in &said.systems {
        let system = SystemDescription {
            display_name: s.display_name.clone(),
            role: s.role,
            country: s.country,
            connector: s.connector,
        };
        if described.insert(s.id.clone(), Described { system, open: s.open.clone() }).is_some() {
            return Err(CertificateFault::Statement("statement.systems"));
        }
    }
    Ok(described)
}

fn compare(said: &Statement, derived: &Statement) -> Result<(), CertificateFault> {
    let (s, d) = (said, derived);
    let members = [
        ("statement.state", s.state == d.state),
        ("statement.request", s.request == d.request),
        ("statement.dates.subject_asked", s.dates.subject_asked == d.dates.subject_asked),
        ("statement.dates.subject_informed", s.dates.subject_informed == d.dates.subject_informed),
        ("statement.dates.received", s.dates.received == d.dates.received),
        ("statement.dates.controller_due", s.dates.controller_due == d.dates.controller_due),
        ("statement.dates.first_due", s.dates.first_due == d.dates.first_due),
        ("statement.dates.extensions", s.dates.extensions == d.dates.extensions),
        ("statement.dates.due", s.dates.due == d.dates.due),
        ("statement.dates.completed", s.dates.completed == d.dates.completed),
        ("statement.dates.late", s.dates.late == d.dates.late),
        ("statement.decisions", s.decisions == d.decisions),
        ("statement.systems", ids(s).eq(ids(d))),
        ("statement.systems[].map_version", all(s, d, |a, b| a.map_version == b.map_version)),
        ("statement.systems[].planned", all(s, d, |a, b| a.planned == b.planned)),
        ("statement.systems[].confirmation", all(s, d, |a, b| a.confirmation == b.confirmation)),
        ("statement.holds", s.holds == d.holds),
        ("statement.exceptions", s.exceptions == d.exceptions),
        ("statement.not_processed", s.not_processed == d.not_processed),
        // No member is forgotten above without being noticed here.
        ("statement", s == d),
    ];
    match members.iter().find(|(_, same)| !same) {
        Some((name, _)) => Err(CertificateFault::Statement(name)),
        None => Ok(()),
    }
}

fn ids(s: &Statement) -> impl Iterator<Item = &SystemId> {
    s.systems.iter().map(|s| &s.id)
}

fn all(a: &Statement, b: &Statement, same: fn(&SystemStatement, &SystemStatement) -> bool) -> bool {
    a.systems.len() == b.systems.len() && a.systems.iter().zip(&b.systems).all(|(a, b)| same(a, b))
}

fn check_keys(log: &LogKeys) -> Result<(), CertificateFault> {
    if log.keys.len() > KEYS_MAX || log.witnesses.len() > KEYS_MAX {
        return Err(CertificateFault::Limit("the number of keys"));
    }
    if !log.keys.iter().any(|k| k.status == KeyStatus::Current) {
        return Err(CertificateFault::KeyHistory("has no current key"));
    }
    for key in &log.keys {
        match (key.status, key.to) {
            (KeyStatus::Current, Some(_)) => return Err(CertificateFault::KeyHistory("ends a key that is current")),
            (KeyStatus::Retired | KeyStatus::Revoked, None) => {
                return Err(CertificateFault::KeyHistory("does not say when a key ended"));
            }
            (_, Some(to)) if to < key.from => return Err(CertificateFault::KeyHistory("ends a key before it began")),
            _ => {}
        }
    }
    let vkeys: BTreeSet<&str> = log.keys.iter().map(|k| k.vkey.as_str()).collect();
    if vkeys.len() == log.keys.len() { Ok(()) } else { Err(CertificateFault::KeyHistory("names a key twice")) }
}

/// What is signed by a key that its own history does not know, or calls unused at that time, is refused by whoever checks it, for ever.
pub(super) fn check_signer(certificate: &Certificate, key_id: &str) -> Result<(), CertificateFault> {
    let mut keys = certificate.log.keys.iter();
    match keys.find(|key| key.has_id(key_id)).map(|key| key.is_in_use_at(certificate.issued.at)) {
        Some(true) => Ok(()),
        Some(false) => Err(CertificateFault::SignerOutOfUse),
        None => Err(CertificateFault::KeyNotInHistory(0)),
    }
}

/// Who attests must be somebody whose key is there.
fn check_attestations(certificate: &Certificate) -> Result<(), CertificateFault> {
    let names: BTreeSet<&str> = certificate.log.witnesses.iter().map(|w| w.name.as_str()).collect();
    let attested = certificate.entries.iter().flat_map(|e| &e.attested);
    if certificate.issued.attested.is_some() {
        return Err(CertificateFault::Statement("issued.attested"));
    }
    match attested.into_iter().all(|a| names.contains(a.by.as_str())) {
        true => Ok(()),
        false => Err(CertificateFault::KeyHistory("lacks a witness that attests a time")),
    }
}
