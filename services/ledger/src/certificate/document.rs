//! The document's form. Struct order is the canonical order; integers and strings only.

use quittance_domain::{
    Timestamp,
    action::{Action, InstructionKind, RestrictionGround},
    country::Country,
    ids::{CustomerId, RequestId, SystemId},
    outcome::{EvidenceKind, Outcome},
    system::{ConnectorKind, SystemRole},
    task::TaskState,
};
use serde::{Deserialize, Serialize};

use crate::{FollowedUp, Hex, SALT_BYTES};

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    pub format: Format,
    pub issued: StatedTime,
    pub issuer: Issuer,
    pub customer: Customer,
    pub agreement: AgreementTerms,
    pub statement: Statement,
    /// The openings of the request's ledger entries, from which all of `statement` follows.
    pub entries: Vec<EntryOpening>,
    pub log: LogKeys,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Format {
    #[serde(rename = "quittance.certificate/v1")]
    V1,
}

/// A time with whose word it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedTime {
    pub at: Timestamp,
    pub by: TimeSource,
    /// Somebody else had the entry that states it under a signature by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested: Option<Attestation>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TimeSource {
    /// The issuer's own clock, and nobody else's word.
    Asserted,
    /// The customer said so.
    Customer,
}

/// A witness's timestamped cosignature over a checkpoint that covers the entry: it existed at that time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    pub at: Timestamp,
    /// The witness's name, as in `log.witnesses`.
    pub by: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The processor, as it calls itself.
    pub name: String,
    /// Which of its deployments.
    pub deployment: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    pub id: CustomerId,
    pub display_name: String,
    /// Name and address of the controller, as in the agreement's facts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub controller: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub representative: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data_protection_officer: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgreementTerms {
    pub version: u32,
    pub signed: Timestamp,
    pub window_days: u16,
    /// IANA name; its days are the agreement's days.
    pub time_zone: String,
}

/// What was instructed, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    pub state: CertifiedState,
    pub request: Instruction,
    pub dates: Dates,
    /// By the time at which they were made.
    pub decisions: Vec<Decision>,
    /// Every system that may hold this customer's data; by id.
    pub systems: Vec<SystemStatement>,
    /// What is kept, on which ground, until when.
    pub holds: Vec<Hold>,
    /// What could not be confirmed.
    pub exceptions: Vec<Exception>,
    /// What, beside holds and exceptions, was not carried out yet.
    pub not_processed: Vec<NotProcessed>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CertifiedState {
    Completed,
    CompletedWithExceptions,
    /// The request is open: this says how it stands.
    Interim,
    /// The customer said no: this says what had been done before.
    Declined,
    /// The customer took it back: as above.
    Cancelled,
}

impl CertifiedState {
    /// Whether this is a certificate: everything was carried out, or given up with a reason. Anything else states how things stand.
    pub const fn is_complete(self) -> bool {
        matches!(self, Self::Completed | Self::CompletedWithExceptions)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instruction {
    pub id: RequestId,
    pub action: Action,
    pub instruction: InstructionKind,
    /// The customer's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restriction_ground: Option<RestrictionGround>,
    /// It carries out again, at one system that was restored from a backup, what another request had instructed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<FollowedUp>,
    /// The principal that sent it.
    pub instructed_by: String,
    /// It came from somebody else, and was referred to the customer.
    pub referred: bool,
    /// A hold has ended: what was kept then is carried on by this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<RequestId>,
    /// Commits to whom it is about; a [`super::SubjectOpening`] opens it.
    pub subject: Hex<32>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dates {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_asked: Option<StatedTime>,
    /// Before a restriction is lifted (Art. 18(3)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_informed: Option<StatedTime>,
    pub received: StatedTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_due: Option<StatedTime>,
    /// Never changed once the request is the customer's own.
    pub first_due: StatedTime,
    /// Oldest first.
    pub extensions: Vec<Extension>,
    pub due: StatedTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<StatedTime>,
    /// Completed, declined or cancelled, or in an interim statement still open, after `due`.
    pub late: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    pub due: StatedTime,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    pub reason: String,
    pub decided: StatedTime,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    pub what: DecisionKind,
    pub made: StatedTime,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemId>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DecisionKind {
    /// The processor objected: the instruction looked unlawful (Art. 28(3)).
    Objected,
    /// The customer made it, or after an objection kept it, its instruction.
    Authorised,
    /// An operator let a task run again.
    Retried,
    /// An operator confirmed a task, with the evidence given there.
    Resolved,
    /// The customer decided about records of the package that hold others' data (Art. 15(4)); what it withheld is in `not_processed`.
    Reviewed,
    /// The customer said no: nothing was begun after that.
    Declined,
    /// The customer took it back: as above.
    Cancelled,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemStatement {
    pub id: SystemId,
    pub display_name: String,
    pub role: SystemRole,
    pub country: Country,
    pub connector: ConnectorKind,
    /// Of the data map that was worked by.
    pub map_version: u32,
    pub planned: StatedTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<ConfirmationStatement>,
    /// Only where there is no confirmation: in an interim statement, and of a request that was declined or cancelled where work had begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<OpenTask>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmationStatement {
    pub confirmed_by: String,
    pub confirmed: StatedTime,
    pub late: bool,
    pub outcomes: Vec<Outcome>,
    pub evidence: EvidenceStatement,
    /// When the system was asked again and found as stated; only where the evidence is our own read-back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_back: Option<StatedTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups_expire: Option<StatedTime>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceStatement {
    pub kind: EvidenceKind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// Of the document that the issuer keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Hex<32>>,
    pub at: StatedTime,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenTask {
    pub state: TaskState,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    pub system: SystemId,
    pub collection: String,
    pub category: String,
    pub count: u64,
    pub ground: String,
    pub until: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    pub system: SystemId,
    pub collection: String,
    pub category: String,
    pub count: u64,
    pub reason: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotProcessed {
    pub system: SystemId,
    pub cause: NotProcessedCause,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub collection: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub category: String,
    /// Records, where they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NotProcessedCause {
    /// The system has not confirmed; `open` says where it stands.
    Open,
    /// Nothing had begun there when the request was declined or cancelled, and nothing was done.
    NotBegun,
    /// Confirmed as going by itself on a day that was still to come.
    ExpiresLater,
    /// When this was issued, the system's backups could still hold what is gone from its live data.
    InBackups,
    /// Kept out of the access package by the customer, since it holds others' data (Art. 15(4)).
    Withheld,
}

/// What the ledger holds of one event: whoever has this can recompute its leaf.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryOpening {
    pub kind: String,
    /// The exact JSON text.
    pub payload: String,
    pub salt: Hex<SALT_BYTES>,
    pub leaf: Hex<32>,
    /// C2SP tlog-proof text: the leaf's place in the log, and a signed checkpoint.
    pub proof: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attested: Vec<Attestation>,
}

/// The keys that a check needs when the issuer's service is long gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogKeys {
    /// The first line of the log's checkpoints.
    pub origin: String,
    /// Oldest first.
    pub keys: Vec<LogKey>,
    pub witnesses: Vec<WitnessKey>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogKey {
    /// Signed-note verifier key: `name+hash+base64`.
    pub vkey: String,
    pub from: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    pub status: KeyStatus,
}

impl LogKey {
    /// Whether it may have signed what was issued then. The first instant counts, the last one does not.
    pub fn is_in_use_at(&self, issued: Timestamp) -> bool {
        self.from <= issued && self.to.is_none_or(|to| issued < to)
    }

    /// By `name+hash`.
    pub(super) fn has_id(&self, id: &str) -> bool {
        self.vkey.strip_prefix(id).is_some_and(|rest| rest.starts_with('+'))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KeyStatus {
    Current,
    /// Replaced in the ordinary course: what it signed in its time stands.
    Retired,
    /// Not trusted from `to` on.
    Revoked,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessKey {
    pub name: String,
    pub vkey: String,
}
