//! What is shown: the contract's messages with proto field names in snake_case, enums by short names, times in RFC 3339. Fields that
//! say nothing are left out.

use std::collections::BTreeMap;

use quittance_api::v1;
use serde::Serialize;

use crate::{
    resource::last,
    short_names::short,
    table::Table,
    times::{duration_text, text_or_none},
};

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// For a table: whole seconds are enough for people, and JSON has the rest.
fn seconds(time: Option<&String>) -> String {
    match time.and_then(|time| time.split_once('.')) {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.cloned().unwrap_or_default(),
    }
}

#[derive(Debug, Serialize)]
pub struct Customer {
    pub name: String,
    pub display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_time: Option<String>,
}

impl From<v1::Customer> for Customer {
    fn from(customer: v1::Customer) -> Self {
        Self {
            name: customer.name,
            display_name: customer.display_name,
            agreement: customer.agreement.map(Into::into),
            create_time: text_or_none(customer.create_time.as_ref()),
        }
    }
}

impl Customer {
    pub fn table(customers: &[Self]) -> Table {
        let mut table = Table::new(&["CUSTOMER", "DISPLAY NAME", "AGREEMENT", "WINDOW", "TIME ZONE", "CREATED"]);
        for c in customers {
            let agreement = |of: fn(&Agreement) -> String| c.agreement.as_ref().map(of).unwrap_or_default();
            table.row([
                last(&c.name).to_owned(),
                c.display_name.clone(),
                agreement(|a| format!("v{}", a.version)),
                agreement(|a| format!("{}d", a.window_days)),
                agreement(|a| a.time_zone.clone()),
                c.create_time.clone().unwrap_or_default(),
            ]);
        }
        table
    }
}

#[derive(Debug, Serialize)]
pub struct Agreement {
    pub version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_time: Option<String>,
    pub window_days: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    pub time_zone: String,
    pub allowed_countries: Vec<String>,
    pub contacts: Vec<Contact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<Recipient>,
}

/// Of an agreement, or of a request; there with the task by which it is told.
#[derive(Debug, Serialize)]
pub struct Recipient {
    pub recipient_id: String,
    pub display_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub contact: String,
    pub received: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task: String,
}

impl From<v1::RequestRecipient> for Recipient {
    fn from(r: v1::RequestRecipient) -> Self {
        Self {
            recipient_id: r.recipient_id,
            display_name: r.display_name,
            contact: r.contact,
            received: r.received,
            system: String::new(),
            task: r.task,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Contact {
    pub role: String,
    pub email: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub display_name: String,
}

#[derive(Debug, Serialize)]
pub struct Facts {
    pub controller: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub representative: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data_protection_officer: String,
    pub purposes: Vec<String>,
    pub recipients: Vec<String>,
    pub processing_categories: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub automated_decisions: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub security_measures: String,
}

impl From<v1::Agreement> for Agreement {
    fn from(agreement: v1::Agreement) -> Self {
        Self {
            version: agreement.version,
            signed_time: text_or_none(agreement.signed_time.as_ref()),
            window_days: agreement.window_days,
            retention_days: agreement.retention_days,
            time_zone: agreement.time_zone,
            allowed_countries: agreement.allowed_countries,
            contacts: agreement
                .contacts
                .into_iter()
                .map(|c| Contact { role: c.role, email: c.email, display_name: c.display_name })
                .collect(),
            facts: agreement.facts.map(|f| Facts {
                controller: f.controller,
                representative: f.representative,
                data_protection_officer: f.data_protection_officer,
                purposes: f.purposes,
                recipients: f.recipients,
                processing_categories: f.processing_categories,
                source: f.source,
                automated_decisions: f.automated_decisions,
                security_measures: f.security_measures,
            }),
            recipients: agreement
                .recipients
                .into_iter()
                .map(|r| Recipient {
                    recipient_id: r.recipient_id,
                    display_name: r.display_name,
                    contact: r.contact,
                    received: r.received,
                    system: r.system,
                    task: String::new(),
                })
                .collect(),
        }
    }
}

impl Agreement {
    pub fn table(agreements: &[Self]) -> Table {
        let mut table = Table::new(&["VERSION", "SIGNED", "WINDOW", "RETENTION", "TIME ZONE", "COUNTRIES", "CONTACTS"]);
        for a in agreements {
            let contacts: Vec<String> = a.contacts.iter().map(|c| format!("{}={}", c.role, c.email)).collect();
            table.row([
                format!("v{}", a.version),
                a.signed_time.clone().unwrap_or_default(),
                format!("{}d", a.window_days),
                a.retention_days.map(|days| format!("{days}d")).unwrap_or_default(),
                a.time_zone.clone(),
                a.allowed_countries.join(" "),
                contacts.join(" "),
            ]);
        }
        table
    }
}

#[derive(Debug, Serialize)]
pub struct System {
    pub name: String,
    pub display_name: String,
    pub role: String,
    pub country: String,
    pub connector: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub connection_secret: String,
    pub all_customers: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub customers: Vec<SystemCustomer>,
    pub accepts: Vec<String>,
    pub yields: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settle_after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_retention: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    pub data_map_version: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data_map_yaml: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_time: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct SystemCustomer {
    pub customer: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
}

#[derive(Debug, Serialize)]
pub struct Limits {
    #[serde(skip_serializing_if = "is_zero")]
    pub concurrency: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub batches_per_second: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub batch_size: u32,
}

impl From<v1::System> for System {
    fn from(system: v1::System) -> Self {
        let kinds = |kinds: &[i32]| kinds.iter().map(|kind| short::<v1::IdentifierKind>(*kind)).collect();
        Self {
            role: short::<v1::SystemRole>(system.role),
            connector: short::<v1::ConnectorKind>(system.connector),
            accepts: kinds(&system.accepts),
            yields: kinds(&system.yields),
            name: system.name,
            display_name: system.display_name,
            country: system.country,
            connection_secret: system.connection_secret,
            all_customers: system.all_customers,
            customers: system
                .customers
                .into_iter()
                .map(|c| SystemCustomer { customer: c.customer, key: c.key })
                .collect(),
            settle_after: system.settle_after.as_ref().map(duration_text),
            backup_retention: system.backup_retention.as_ref().map(duration_text),
            grace_period: system.grace_period.as_ref().map(duration_text),
            limits: system.limits.map(|l| Limits {
                concurrency: l.concurrency,
                batches_per_second: l.batches_per_second,
                batch_size: l.batch_size,
            }),
            data_map_version: system.data_map_version,
            data_map_yaml: system.data_map_yaml,
            create_time: text_or_none(system.create_time.as_ref()),
        }
    }
}

impl System {
    pub fn table(systems: &[Self]) -> Table {
        let mut table = Table::new(&["SYSTEM", "DISPLAY NAME", "ROLE", "COUNTRY", "CONNECTOR", "MAP", "CUSTOMERS"]);
        for s in systems {
            let customers = if s.all_customers { "all".to_owned() } else { s.customers.len().to_string() };
            table.row([
                last(&s.name).to_owned(),
                s.display_name.clone(),
                s.role.clone(),
                s.country.clone(),
                s.connector.clone(),
                format!("v{}", s.data_map_version),
                customers,
            ]);
        }
        table
    }
}

#[derive(Debug, Serialize)]
pub struct Finding {
    pub field: String,
    pub message: String,
    pub error: bool,
}

impl From<v1::Finding> for Finding {
    fn from(finding: v1::Finding) -> Self {
        Self { field: finding.field, message: finding.message, error: finding.error }
    }
}

impl Finding {
    pub fn table(findings: &[Self]) -> Table {
        let mut table = Table::new(&["LEVEL", "FIELD", "MESSAGE"]);
        for f in findings {
            let level = if f.error { "error" } else { "warning" };
            table.row([level.to_owned(), f.field.clone(), f.message.clone()]);
        }
        table
    }
}

#[derive(Debug, Serialize)]
pub struct Request {
    pub name: String,
    pub action: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reference: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instruction: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub restriction_ground: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_informed_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_asked_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_due_time: Option<String>,
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_due_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_time: Option<String>,
    pub timeliness: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete_time: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Task>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objection: Option<Objection>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub closing_reason: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identifier_changes: Vec<IdentifierChange>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<Recipient>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forget_time: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub follows: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub replay: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub etag: String,
}

/// That an identifier changes; never from what to what.
#[derive(Debug, Serialize)]
pub struct IdentifierChange {
    pub kind: String,
    pub collection: String,
    pub field: String,
}

impl From<v1::IdentifierChange> for IdentifierChange {
    fn from(change: v1::IdentifierChange) -> Self {
        let kind = short::<v1::IdentifierKind>(change.kind);
        Self { kind, collection: change.collection, field: change.field }
    }
}

impl IdentifierChange {
    fn line(changes: &[Self]) -> String {
        let one = |c: &Self| format!("{} ({}.{})", c.kind, c.collection, c.field);
        changes.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

#[derive(Debug, Serialize)]
pub struct Objection {
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

impl From<v1::Request> for Request {
    fn from(request: v1::Request) -> Self {
        Self {
            action: short::<v1::Action>(request.action),
            instruction: short::<v1::InstructionKind>(request.instruction),
            restriction_ground: short::<v1::RestrictionGround>(request.restriction_ground),
            state: short::<v1::RequestState>(request.state),
            timeliness: short::<v1::Timeliness>(request.timeliness),
            name: request.name,
            reference: request.reference,
            subject_informed_time: text_or_none(request.subject_informed_time.as_ref()),
            subject_asked_time: text_or_none(request.subject_asked_time.as_ref()),
            controller_due_time: text_or_none(request.controller_due_time.as_ref()),
            create_time: text_or_none(request.create_time.as_ref()),
            first_due_time: text_or_none(request.first_due_time.as_ref()),
            due_time: text_or_none(request.due_time.as_ref()),
            complete_time: text_or_none(request.complete_time.as_ref()),
            tasks: request.tasks.into_iter().map(Into::into).collect(),
            objection: request.objection.map(|o| Objection { reason: o.reason, time: text_or_none(o.time.as_ref()) }),
            closing_reason: request.closing_reason,
            identifier_changes: request.identifier_changes.into_iter().map(Into::into).collect(),
            recipients: request.recipients.into_iter().map(Into::into).collect(),
            forget_time: text_or_none(request.forget_time.as_ref()),
            follows: request.follows,
            replay: request.replay,
            etag: request.etag,
        }
    }
}

impl Request {
    pub fn table(requests: &[Self]) -> Table {
        let mut table = Table::new(&["REQUEST", "ACTION", "STATE", "TIMELINESS", "DUE", "REFERENCE"]);
        for r in requests {
            table.row([
                r.name.clone(),
                r.action.clone(),
                r.state.clone(),
                r.timeliness.clone(),
                seconds(r.due_time.as_ref()),
                r.reference.clone(),
            ]);
        }
        table
    }

    pub fn fields(&self) -> Table {
        let mut table = Table::of_fields();
        table.field("request", &self.name);
        table.field("action", &self.action);
        table.field("reference", &self.reference);
        table.field("state", &self.state);
        table.field("timeliness", &self.timeliness);
        table.field("created", seconds(self.create_time.as_ref()));
        table.field("due", seconds(self.due_time.as_ref()));
        if self.first_due_time != self.due_time {
            table.field("first due", seconds(self.first_due_time.as_ref()));
        }
        table.field("completed", seconds(self.complete_time.as_ref()));
        table.field("follows", &self.follows);
        table.field("forgotten", seconds(self.forget_time.as_ref()));
        table.field("ground", &self.restriction_ground);
        table.field("changes identifier", IdentifierChange::line(&self.identifier_changes));
        let recipients = |told: bool| {
            let these = self.recipients.iter().filter(|r| r.task.is_empty() != told);
            these.map(|r| r.recipient_id.as_str()).collect::<Vec<_>>().join(", ")
        };
        table.field("recipients told", recipients(true));
        table.field("recipients listed", recipients(false));
        if let Some(objection) = &self.objection {
            table.field("objection", &objection.reason);
        }
        table.field("closed because", &self.closing_reason);
        table
    }
}

#[derive(Debug, Serialize)]
pub struct Task {
    pub name: String,
    pub system: String,
    pub state: String,
    pub attempts: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unattended_since_time: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<Confirmation>,
}

/// Another task that comes first.
#[derive(Debug, Serialize)]
pub struct Wait {
    pub request: String,
    pub system: String,
    pub until: String,
}

/// Waits that a line of the table tells of.
const WAITS_SHOWN: usize = 3;

impl From<v1::Task> for Task {
    fn from(task: v1::Task) -> Self {
        let wait = |wait: v1::TaskWait| Wait {
            until: short::<v1::WaitUntil>(wait.until),
            request: wait.request,
            system: wait.system,
        };
        Self {
            waits: task.waits.into_iter().map(wait).collect(),
            name: task.name,
            system: task.system,
            state: short::<v1::TaskState>(task.state),
            attempts: task.attempts,
            reason: task.reason,
            next_attempt_time: text_or_none(task.next_attempt_time.as_ref()),
            latest_start_time: text_or_none(task.latest_start_time.as_ref()),
            unattended_since_time: text_or_none(task.unattended_since_time.as_ref()),
            confirmation: task.confirmation.map(Into::into),
        }
    }
}

impl Task {
    pub fn table(tasks: &[Self]) -> Table {
        let mut table = Table::new(&["SYSTEM", "STATE", "ATTEMPTS", "OUTCOMES", "REASON"]);
        for t in tasks {
            let outcomes = t.confirmation.as_ref().map(Confirmation::summary).unwrap_or_default();
            table.row([last(&t.system).to_owned(), t.state.clone(), t.attempts.to_string(), outcomes, t.why()]);
        }
        table
    }

    /// Its reason, and what it waits for.
    fn why(&self) -> String {
        let mut why: Vec<String> = Some(self.reason.clone()).filter(|reason| !reason.is_empty()).into_iter().collect();
        why.extend(self.waits.iter().take(WAITS_SHOWN).map(|wait| wait.told(self)));
        if let Some(more @ 1..) = self.waits.len().checked_sub(WAITS_SHOWN) {
            why.push(format!("{more} more"));
        }
        why.join("; ")
    }
}

impl Wait {
    fn told(&self, task: &Task) -> String {
        let (system, request) = (last(&self.system), last(&self.request));
        let is_own = task.name.starts_with(&format!("{}/", self.request));
        match (is_own, self.until.as_str()) {
            (true, "resolved") => format!("for identifiers from {system}"),
            (true, _) => format!("until {system} has confirmed"),
            (false, _) if self.system == task.system => format!("for request {request}"),
            (false, _) => format!("for request {request} at {system}"),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Confirmation {
    pub task: String,
    pub system: String,
    pub outcomes: Vec<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    pub confirmed_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_time: Option<String>,
    pub late: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backups_expire_time: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Outcome {
    pub collection: String,
    pub category: String,
    pub outcome: String,
    pub grade: String,
    pub count: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub basis: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Evidence {
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reference: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

impl From<v1::Confirmation> for Confirmation {
    fn from(confirmation: v1::Confirmation) -> Self {
        Self {
            task: confirmation.task,
            system: confirmation.system,
            outcomes: confirmation
                .outcomes
                .into_iter()
                .map(|o| Outcome {
                    outcome: short::<v1::OutcomeKind>(o.outcome),
                    grade: short::<v1::Grade>(o.grade),
                    until: text_or_none(o.until.as_ref()),
                    collection: o.collection,
                    category: o.category,
                    count: o.count,
                    basis: o.basis,
                })
                .collect(),
            evidence: confirmation.evidence.map(|e| Evidence {
                kind: short::<v1::EvidenceKind>(e.kind),
                time: text_or_none(e.time.as_ref()),
                reference: e.reference,
                sha256: e.sha256,
            }),
            confirmed_by: confirmation.confirmed_by,
            confirm_time: text_or_none(confirmation.confirm_time.as_ref()),
            late: confirmation.late,
            backups_expire_time: text_or_none(confirmation.backups_expire_time.as_ref()),
        }
    }
}

impl Confirmation {
    /// Per outcome and grade, how many rows. A row that holds three categories is one row: of each collection the largest count is taken.
    fn summary(&self) -> String {
        let mut lines: Vec<(String, BTreeMap<&str, u64>)> = Vec::new();
        for o in &self.outcomes {
            let what = format!("{} ({})", o.outcome, o.grade);
            let at = lines.iter().position(|(known, _)| *known == what).unwrap_or_else(|| {
                lines.push((what, BTreeMap::new()));
                lines.len() - 1
            });
            let count = lines[at].1.entry(&o.collection).or_default();
            *count = (*count).max(o.count);
        }
        let words = |(what, counts): &(String, BTreeMap<&str, u64>)| format!("{what} {}", counts.values().sum::<u64>());
        lines.iter().map(words).collect::<Vec<_>>().join(", ")
    }

    pub fn table(confirmations: &[Self]) -> Table {
        let mut table = Table::new(&[
            "SYSTEM",
            "COLLECTION",
            "CATEGORY",
            "OUTCOME",
            "GRADE",
            "COUNT",
            "UNTIL",
            "BACKUPS EXPIRE",
            "BASIS",
            "EVIDENCE",
            "CONFIRMED",
            "BY",
        ]);
        for c in confirmations {
            for o in &c.outcomes {
                let late = if c.late { " (late)" } else { "" };
                table.row([
                    last(&c.system).to_owned(),
                    o.collection.clone(),
                    o.category.clone(),
                    o.outcome.clone(),
                    o.grade.clone(),
                    o.count.to_string(),
                    seconds(o.until.as_ref()),
                    seconds(c.backups_expire_time.as_ref()),
                    o.basis.clone(),
                    c.evidence.as_ref().map(|e| e.kind.clone()).unwrap_or_default(),
                    format!("{}{late}", seconds(c.confirm_time.as_ref())),
                    c.confirmed_by.clone(),
                ]);
            }
        }
        table
    }
}

#[derive(Debug, Serialize)]
pub struct Package {
    pub name: String,
    pub state: String,
    pub record_count: u64,
    pub third_party_record_count: u64,
    pub third_party_withheld: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_time: Option<String>,
}

impl From<v1::Package> for Package {
    fn from(package: v1::Package) -> Self {
        Self {
            state: short::<v1::PackageState>(package.state),
            name: package.name,
            record_count: package.record_count,
            third_party_record_count: package.third_party_record_count,
            third_party_withheld: package.third_party_withheld,
            release_time: text_or_none(package.release_time.as_ref()),
        }
    }
}

impl Package {
    pub fn fields(&self) -> Table {
        let mut table = Table::of_fields();
        table.field("package", &self.name);
        table.field("state", &self.state);
        table.field("records", self.record_count.to_string());
        table.field("third-party records", self.third_party_record_count.to_string());
        table.field("third parties withheld", if self.third_party_withheld { "yes" } else { "no" });
        table.field("released", self.release_time.clone().unwrap_or_default());
        table
    }
}

#[derive(Debug, Serialize)]
pub struct SystemPreview {
    pub system: String,
    pub asked: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remark: String,
    pub collections: Vec<CollectionPreview>,
}

#[derive(Debug, Serialize)]
pub struct CollectionPreview {
    pub collection: String,
    pub rows: u64,
    pub held_rows: u64,
}

#[derive(Debug, Serialize)]
pub struct Preview {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_time: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identifier_changes: Vec<IdentifierChange>,
    pub systems: Vec<SystemPreview>,
}

impl From<v1::PreviewRequestResponse> for Preview {
    fn from(preview: v1::PreviewRequestResponse) -> Self {
        let collection = |c: v1::CollectionPreview| CollectionPreview {
            collection: c.collection,
            rows: c.rows,
            held_rows: c.held_rows,
        };
        Self {
            due_time: text_or_none(preview.due_time.as_ref()),
            identifier_changes: preview.identifier_changes.into_iter().map(Into::into).collect(),
            systems: preview
                .systems
                .into_iter()
                .map(|s| SystemPreview {
                    system: s.system,
                    asked: s.asked,
                    remark: s.remark,
                    collections: s.collections.into_iter().map(collection).collect(),
                })
                .collect(),
        }
    }
}

impl Preview {
    /// What comes before the table.
    pub fn head(&self) -> Vec<String> {
        let mut lines = match &self.due_time {
            Some(_) => vec![format!("would be due {}", seconds(self.due_time.as_ref()))],
            None => vec!["would be due at an unknown time".to_owned()],
        };
        if !self.identifier_changes.is_empty() {
            let changes = IdentifierChange::line(&self.identifier_changes);
            lines.push(format!("changes an identifier, in every system that is keyed by it: {changes}"));
        }
        lines
    }

    pub fn table(&self) -> Table {
        let mut table = Table::new(&["SYSTEM", "COLLECTION", "ROWS", "HELD", "REMARK"]);
        for s in &self.systems {
            let system = last(&s.system).to_owned();
            if s.collections.is_empty() {
                let remark = match (s.remark.is_empty(), s.asked) {
                    (false, _) => s.remark.clone(),
                    (true, true) => "nothing found".to_owned(),
                    (true, false) => "not asked".to_owned(),
                };
                table.row([system, String::new(), String::new(), String::new(), remark]);
                continue;
            }
            for c in &s.collections {
                table.row([
                    system.clone(),
                    c.collection.clone(),
                    c.rows.to_string(),
                    c.held_rows.to_string(),
                    s.remark.clone(),
                ]);
            }
        }
        table
    }
}

#[derive(Debug, Serialize)]
pub struct InterimStatement {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    pub open_systems: Vec<OpenSystem>,
    /// When one was issued by itself, since the due time had passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_statement_time: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct OpenSystem {
    pub system: String,
    pub state: String,
    pub reason: String,
}

impl From<v1::GetInterimStatementResponse> for InterimStatement {
    fn from(statement: v1::GetInterimStatementResponse) -> Self {
        Self {
            state_time: text_or_none(statement.state_time.as_ref()),
            deadline_statement_time: text_or_none(statement.deadline_statement_time.as_ref()),
            request: statement.request.map(Into::into),
            open_systems: statement
                .open_systems
                .into_iter()
                .map(|s| OpenSystem { state: short::<v1::TaskState>(s.state), system: s.system, reason: s.reason })
                .collect(),
        }
    }
}

impl OpenSystem {
    pub fn table(systems: &[Self]) -> Table {
        let mut table = Table::new(&["OPEN SYSTEM", "STATE", "REASON"]);
        for s in systems {
            table.row([last(&s.system).to_owned(), s.state.clone(), s.reason.clone()]);
        }
        table
    }
}

/// One line of a downloaded package.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PackagePart {
    Header(PackageHeader),
    Record(Record),
    Trailer(Trailer),
}

#[derive(Debug, Serialize)]
pub struct PackageHeader {
    pub package: Option<Package>,
    pub purposes: Vec<String>,
    pub recipients: Vec<String>,
    pub source: String,
    pub automated_decisions: String,
    pub controller: String,
}

#[derive(Debug, Serialize)]
pub struct Record {
    pub system: String,
    pub collection: String,
    pub key: Vec<String>,
    pub fields: Vec<RecordField>,
    pub third_party: bool,
}

#[derive(Debug, Serialize)]
pub struct RecordField {
    pub name: String,
    pub category: String,
    /// `null` where the field holds nothing.
    pub value: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Trailer {
    pub record_count: u64,
}

impl From<v1::PackageHeader> for PackagePart {
    fn from(h: v1::PackageHeader) -> Self {
        Self::Header(PackageHeader {
            package: h.package.map(Into::into),
            purposes: h.purposes,
            recipients: h.recipients,
            source: h.source,
            automated_decisions: h.automated_decisions,
            controller: h.controller,
        })
    }
}

impl From<v1::PackageRecord> for PackagePart {
    fn from(r: v1::PackageRecord) -> Self {
        let field = |f: v1::RecordField| RecordField { name: f.name, category: f.category, value: f.value };
        Self::Record(Record {
            system: r.system,
            collection: r.collection,
            key: r.key,
            fields: r.fields.into_iter().map(field).collect(),
            third_party: r.third_party,
        })
    }
}

impl From<v1::PackageTrailer> for PackagePart {
    fn from(t: v1::PackageTrailer) -> Self {
        Self::Trailer(Trailer { record_count: t.record_count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_is_due_on_a_whole_second() {
        let due = prost_types::Timestamp { seconds: 1_772_000_399, nanos: 999_999_000 };
        let preview = v1::PreviewRequestResponse { due_time: Some(due), ..v1::PreviewRequestResponse::default() };
        assert_eq!(Preview::from(preview).head(), ["would be due 2026-02-25T06:19:59Z"]);
    }

    #[test]
    fn a_row_counts_once_whatever_its_categories_and_collections_add_up() {
        let outcome = |collection: &str, category: &str, outcome: v1::OutcomeKind, count| v1::Outcome {
            collection: collection.to_owned(),
            category: category.to_owned(),
            outcome: outcome.into(),
            grade: v1::Grade::Verified.into(),
            count,
            ..v1::Outcome::default()
        };
        let confirmation = Confirmation::from(v1::Confirmation {
            outcomes: vec![
                outcome("customer", "email", v1::OutcomeKind::Erased, 1),
                outcome("customer", "phone", v1::OutcomeKind::Erased, 1),
                outcome("orders", "message", v1::OutcomeKind::Erased, 3),
                outcome("invoice", "address", v1::OutcomeKind::Retained, 2),
            ],
            ..v1::Confirmation::default()
        });
        assert_eq!(confirmation.summary(), "erased (verified) 4, retained (verified) 2");
    }

    #[test]
    fn tables_show_whole_seconds() {
        let shown = |time: &str| seconds(Some(&time.to_owned()));
        assert_eq!(shown("2026-12-22T22:59:59.999999Z"), "2026-12-22T22:59:59Z");
        assert_eq!(shown("2026-12-22T23:00:00Z"), "2026-12-22T23:00:00Z");
        assert_eq!(seconds(None), "");
    }
}

#[derive(Debug, Serialize)]
pub struct KeyEpoch {
    pub number: u32,
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrap_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destroy_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_time: Option<String>,
}

impl From<v1::KeyEpoch> for KeyEpoch {
    fn from(epoch: v1::KeyEpoch) -> Self {
        Self {
            number: epoch.number,
            state: short::<v1::KeyEpochState>(epoch.state),
            begin_time: text_or_none(epoch.begin_time.as_ref()),
            close_time: text_or_none(epoch.close_time.as_ref()),
            rewrap_time: text_or_none(epoch.rewrap_time.as_ref()),
            destroy_time: text_or_none(epoch.destroy_time.as_ref()),
            log_time: text_or_none(epoch.log_time.as_ref()),
        }
    }
}

impl KeyEpoch {
    pub fn table(epochs: &[Self]) -> Table {
        let mut table = Table::new(&["EPOCH", "STATE", "BEGUN", "CLOSED", "REWRAPPED", "DESTROYED", "LOGGED"]);
        for e in epochs {
            table.row([
                e.number.to_string(),
                e.state.clone(),
                seconds(e.begin_time.as_ref()),
                seconds(e.close_time.as_ref()),
                seconds(e.rewrap_time.as_ref()),
                seconds(e.destroy_time.as_ref()),
                seconds(e.log_time.as_ref()),
            ]);
        }
        table
    }
}
