//! Puts a certificate together and signs it. The same for an interim statement: which of the two it is follows from the entries.

use std::collections::BTreeMap;

use quittance_domain::{
    Timestamp,
    country::Country,
    ids::{CustomerId, RequestId, SystemId},
    system::{ConnectorKind, Registration, SystemRole},
};

use super::{
    AgreementTerms, Certificate, CertificateFault, Customer, EntryOpening, Format, Issuer, LogKeys, OpenTask, Signer,
    StatedTime, TimeSource,
    check::{check_consistency, check_signer},
    derive::{Described, Sources, derive},
    envelope::sealed,
};
use crate::RecordedEvent;

/// What the issuer hands in. The entries are all that the log has of the request, each with its proof.
#[derive(Clone, Debug)]
pub struct CertificateInput {
    pub issued_at: Timestamp,
    pub issuer: Issuer,
    pub customer: Customer,
    pub agreement: AgreementTerms,
    /// Every system that was planned.
    pub systems: BTreeMap<SystemId, SystemDescription>,
    /// While the request is open: every planned system that has not confirmed. Of one that was declined or cancelled: those of them where
    /// work had begun.
    pub open: BTreeMap<SystemId, OpenTask>,
    pub entries: Vec<EntryOpening>,
    pub log: LogKeys,
}

/// A system for people, as it was registered when the certificate was issued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemDescription {
    pub display_name: String,
    pub role: SystemRole,
    pub country: Country,
    pub connector: ConnectorKind,
}

impl From<&Registration> for SystemDescription {
    fn from(r: &Registration) -> Self {
        Self { display_name: r.display_name.clone(), role: r.role, country: r.country, connector: r.connector }
    }
}

/// Gives the file's bytes: a certificate if the request is complete, a statement if it is not.
pub fn issue(input: CertificateInput, signer: &dyn Signer) -> Result<Vec<u8>, CertificateFault> {
    let request = request_of(&input.entries)?;
    let described = described(&input)?;
    let sources = Sources {
        customer: &input.customer.id,
        request,
        issued_at: input.issued_at,
        entries: &input.entries,
        described,
    };
    let derived = derive(&sources)?;
    let CertificateInput { issued_at, issuer, customer, agreement, entries, log, .. } = input;
    let certificate = Certificate {
        format: Format::V1,
        issued: StatedTime { at: issued_at, by: TimeSource::Asserted, attested: None },
        issuer,
        customer,
        agreement,
        statement: derived.statement,
        entries,
        log,
    };
    // What we would refuse from others, we do not sign.
    check_consistency(&certificate)?;
    check_signer(&certificate, &signer.key_id())?;
    sealed(&certificate, signer)
}

fn request_of(entries: &[EntryOpening]) -> Result<RequestId, CertificateFault> {
    let first = entries.first().ok_or(CertificateFault::NoInstruction)?;
    let read = RecordedEvent::read(first.payload.as_bytes());
    read.map(|r| r.request).map_err(|e| CertificateFault::Entry { index: 0, fault: e.into() })
}

fn described(input: &CertificateInput) -> Result<BTreeMap<SystemId, Described>, CertificateFault> {
    if let Some(other) = input.open.keys().find(|system| !input.systems.contains_key(*system)) {
        return Err(CertificateFault::Undescribed(other.clone()));
    }
    let one = |(id, system): (&SystemId, &SystemDescription)| {
        (id.clone(), Described { system: system.clone(), open: input.open.get(id).cloned() })
    };
    Ok(input.systems.iter().map(one).collect())
}

impl Customer {
    /// With the names of the agreement's facts.
    pub fn new(id: CustomerId, display_name: String, facts: &quittance_domain::agreement::ProcessingFacts) -> Self {
        Self {
            id,
            display_name,
            controller: facts.controller.clone(),
            representative: facts.representative.clone(),
            data_protection_officer: facts.data_protection_officer.clone(),
        }
    }
}
