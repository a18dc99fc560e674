//! English.

use quittance_domain::{
    action::{Action, InstructionKind, RestrictionGround},
    outcome::{EvidenceKind, Grade, OutcomeKind},
    system::{ConnectorKind, SystemRole},
    task::TaskState,
};
use quittance_ledger::certificate::DecisionKind;

use super::{Texts, Word, word};

pub static MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub static TEXTS: Texts = Texts {
    certificate: "Certificate: {action}",
    interim_statement: "Interim statement: {action}",
    closing_statement: "Statement of what was done: {action}",
    intro_completed: "{processor}, the processor, certifies to {controller}, the controller, how the instruction named in section 1 \
                      was carried out (GDPR Art. 28(3)(e) and (h)). It was carried to {systems} systems, and each of them has \
                      confirmed what section 4 says.",
    intro_exceptions: "{processor}, the processor, certifies to {controller}, the controller, how the instruction named in section 1 \
                       was carried out (GDPR Art. 28(3)(e) and (h)). It was carried to {systems} systems. Section 4 says what each \
                       of them has confirmed; what could not be confirmed is in section 6.",
    intro_interim: "{processor}, the processor, states to {controller}, the controller, how the instruction named in section 1 \
                    stands (GDPR Art. 28(3)(e) and (h)). The request is open: {confirmed} of {systems} systems have confirmed. This \
                    is not a certificate of completion.",
    intro_declined: "{processor}, the processor, states to {controller}, the controller, what had been done of the instruction named in section 1 \
                     when the controller declined it (GDPR Art. 28(3)(e) and (h)). Of the {systems} systems that it was planned \
                     for, {confirmed} confirmed what section 4 says; section 7 names where nothing was done. Why it ended is in section 8. \
                     This is not a certificate of completion.",
    intro_cancelled: "{processor}, the processor, states to {controller}, the controller, what had been done of the instruction named in section 1 \
                      when the controller took it back (GDPR Art. 28(3)(e) and (h)). Of the {systems} systems that it was planned \
                      for, {confirmed} confirmed what section 4 says; section 7 names where nothing was done. Why it ended is in section 8. \
                      This is not a certificate of completion.",
    result_completed: "COMPLETED IN TIME",
    result_completed_late: "COMPLETED LATE",
    result_exceptions: "COMPLETED IN TIME, WITH EXCEPTIONS",
    result_exceptions_late: "COMPLETED LATE, WITH EXCEPTIONS",
    result_open: "OPEN",
    result_open_late: "OPEN, AND OVERDUE",
    result_declined: "DECLINED",
    result_declined_late: "DECLINED LATE",
    result_cancelled: "CANCELLED",
    result_cancelled_late: "CANCELLED LATE",
    code_caption: "SHA-256 of the signed file",
    code_alternative: "QR code with the SHA-256 digest of the signed file: {digest}",
    instruction: "1. The instruction",
    dates: "2. Dates",
    overview: "3. The systems",
    systems: "4. What each system stated",
    holds: "5. What is kept, and until when",
    exceptions: "6. What could not be confirmed",
    not_processed: "7. What was not done, or not yet",
    decisions: "8. Decisions on the way",
    words: "9. What the words mean",
    check: "10. How to check this document",
    controller: "Controller",
    representative: "Representative",
    data_protection_officer: "Data protection officer",
    processor: "Processor",
    agreement: "Agreement",
    agreement_terms: "Version {version}, signed on {signed}; {days} days, counted in the time zone {zone}",
    request: "Request",
    reference: "Controller's reference",
    action: "Action",
    basis: "Instruction",
    restriction_ground: "Ground of the restriction",
    instructed_by: "Instructed by",
    follow_up: "Carried out again",
    follow_up_of: "What request {request} had instructed, at {system}, which was restored from a backup",
    follows: "Carried on",
    follows_hold_of: "What was kept after request {request}, now that the time is over",
    instructed_by_referred: "{by}; it did not come from the controller, and was referred to it (section 8)",
    person: "Person concerned",
    person_commitment: "Not named here; commitment {commitment}",
    issued: "Issued",
    dates_note: "Local times are those of {zone}, the agreement's time zone. Who states a time stands beside it.",
    event: "Event",
    local_time: "Local time",
    utc: "UTC",
    word_of: "Source",
    subject_asked: "The person asked the controller",
    subject_informed: "The person was informed",
    received: "Received by the processor",
    controller_due: "The controller must answer by",
    first_due: "First due date",
    extension_decided: "Extension decided: {reason}",
    extension_decided_by: "Extension decided by {by}: {reason}",
    extension_due: "Extended to",
    due: "Due date",
    completed: "Completed",
    asserted: "Asserted",
    by_customer: "Controller",
    attested: "Asserted; in the log by {at} ({by})",
    overview_note: "All systems of the processor and its sub-processors that may hold data of this controller, when the request was planned or \
                    since. Of the recipients to whom data were disclosed (GDPR Art. 19) only those that were to be told.",
    overview_note_follows: "Only what this request carries on, where it does so: of the other systems the certificate of request {request} tells.",
    system: "System",
    role: "Role",
    country: "Country",
    connector: "Connection",
    connector_and_map: "{connector}, data map {version}",
    result: "Result",
    confirmed: "Confirmed",
    confirmed_in_time: "{time}, in time; by {by}",
    confirmed_late: "{time}, LATE; by {by}",
    evidence: "Evidence",
    evidence_reference: "reference {reference}",
    evidence_digest: "SHA-256 {digest}",
    read_back: "Read back",
    read_back_none: "The processor did not look again; the evidence says what the statement rests on",
    backups: "Backups",
    backups_until: "The last backup that may hold the data expires on {time}",
    backups_none: "None stated",
    planned: "Planned",
    open_state: "State",
    open: "not confirmed",
    not_begun: "nothing was done",
    collection: "Collection",
    category: "Category",
    outcome: "Outcome",
    grade: "Grade",
    count: "Rows",
    basis_and_until: "Ground or reason; until",
    until: "Until",
    ground: "Ground",
    reason: "Reason",
    holds_note: "Kept under an exception to erasure (GDPR Art. 17(3)), to be erased once the time is over. Where it is marked as restricted \
                 meanwhile, section 4 says so.",
    exceptions_note: "Nothing supports that this was done. It is not rounded up to a success.",
    not_processed_note: "When this document was issued, beside what sections 5 and 6 say.",
    what: "What",
    not_processed_open: "The system has not confirmed",
    not_processed_not_begun: "Nothing had begun when the request ended, and nothing was done",
    not_processed_expires: "Expires by itself: {collection}, {category}",
    not_processed_backups: "Backups may still hold it",
    not_processed_withheld: "Kept out of the package by the controller, since it concerns others (GDPR Art. 15(4)): {collection}, {category}; {count} records",
    none: "None.",
    everything: "all",
    no_systems: "No system is planned yet: the request awaits the controller's word.",
    no_systems_ended: "No system had been planned when the request ended: nothing was done anywhere.",
    decided: "Made",
    decision: "Decision",
    by: "By",
    words_note: "As they are used in this document.",
    term: "Word",
    meaning: "Meaning",
    verified_absent: "verified absent",
    asserted_meaning: "A time by the processor's own clock. Nobody else vouches for it.",
    attested_meaning: "Beside the processor's word, an independent witness signed at the time given that the log already held the \
                       entry: it was not written later than that.",
    by_customer_meaning: "A time that the controller stated; the processor only repeats it.",
    commitment_term: "commitment",
    commitment_meaning: "A salted SHA-256 digest of the person's identifiers. The controller can obtain its opening, a file of its own, \
                         until the request's data are forgotten, and prove with it whom this document is about; nobody else can find \
                         out (GDPR Art. 5(1)(c)).",
    commitment_meaning_follows: "A salted SHA-256 digest. This request was made without the person's identifiers, and the digest has no opening. Section \
                                 1 names the request that it carries on: both are about the same person.",
    backups_meaning: "\u{201c}Verified\u{201d} speaks of live data. Copies in backups are not altered; they expire at the time that is \
                      stated with each system, and whatever is restored from one before must be erased again.",
    check_file: "Signed file",
    check_digest: "SHA-256 of the file",
    check_signed_by: "Signed with the key",
    check_log: "Log",
    check_keys: "Keys of the log",
    key_current: "current since {from}",
    key_retired: "from {from} to {to}",
    key_revoked: "revoked, from {from} to {to}",
    witness: "Witness",
    witnesses_none: "No witnesses: all times are asserted.",
    check_command: "The signed file certificate.json is attached to this PDF. The command \u{201c}quittance verify certificate.json --key KEY\u{201d} checks it \
                    offline, and so does any software that knows Ed25519, RFC 9162 and the C2SP formats signed-note and tlog-proof. Take the \
                    key from somewhere else than from this document.",
    check_statement: "The statement follows from {entries} entries of an append-only log; the file holds each with the proof that the \
                      log has it. A check recomputes the statement from them and refuses the file if a single byte was altered.",
    check_alone: "On the processor's signature alone rest: when the file was issued and by whom; the names of the controller and of the \
                  systems, their roles, countries and connections; the terms of the agreement; how tasks stand that are not \
                  confirmed, and which had not begun when the request ended; and the list of keys.",
    check_prevails: "This document is for reading. Where it differs from the signed file, the file prevails.",
    page: "Page {page} of {pages}",
};

pub const fn action(action: Action) -> Word {
    match action {
        Action::Access => word("access to personal data", "GDPR Art. 15"),
        Action::Rectification => word("rectification of personal data", "GDPR Art. 16"),
        Action::Erasure => word("erasure of personal data", "GDPR Art. 17"),
        Action::Restriction => word("restriction of processing", "GDPR Art. 18"),
        Action::LiftRestriction => word("lifting of a restriction of processing", "GDPR Art. 18(3)"),
    }
}

pub const fn outcome(outcome: OutcomeKind) -> Word {
    match outcome {
        OutcomeKind::Erased => word(
            "erased",
            "Deleted, or overwritten with something that says nothing about the person (GDPR Art. 17(1)).",
        ),
        OutcomeKind::Pseudonymised => word(
            "pseudonymised",
            "Replaced by a keyed pseudonym. Whoever holds the key can still tell that rows belong together (GDPR Art. 4(5)).",
        ),
        OutcomeKind::NotHeld => {
            word("not held", "Looked for by every identifier that the system accepts, and nothing found.")
        }
        OutcomeKind::Retained => word("retained", "Kept because a law or a legal claim requires it (GDPR Art. 17(3))."),
        OutcomeKind::Rectified => {
            word("rectified", "Corrected, or completed by a supplementary statement (GDPR Art. 16).")
        }
        OutcomeKind::Restricted => {
            word("restricted", "Marked, so that it is stored and not otherwise processed (GDPR Art. 18(1) and (2)).")
        }
        OutcomeKind::Notified => {
            word("notified", "Told to a recipient to whom the data had been disclosed (GDPR Art. 19).")
        }
        OutcomeKind::RestrictionLifted => {
            word("restriction lifted", "The mark was taken away after the person had been informed (GDPR Art. 18(3)).")
        }
        OutcomeKind::Exported => word("exported", "Copied into the access package (GDPR Art. 15(1) and (3))."),
        OutcomeKind::Unconfirmed => word(
            "unconfirmed",
            "Nobody could confirm it: an operator gave it up and said why. It may not have been done.",
        ),
    }
}

pub const fn grade(grade: Grade) -> Word {
    match grade {
        Grade::None => word("none", "Nothing is known."),
        Grade::Accepted => word("accepted", "The system took the instruction in. That it was carried out is not said."),
        Grade::Executed => {
            word("executed", "The system, or whoever runs it, says that it was done. It was not looked at again.")
        }
        Grade::RetainedUntil => {
            word("retained until", "Kept under the ground named, until the time named; to be erased then.")
        }
        Grade::ExpiresOn => word("expires on", "Still there; goes by itself at the time named."),
        Grade::Verified => word(
            "verified",
            "Looked at again after the act, in the live data and at the time named, and found as stated; \u{201c}verified absent\u{201d} where \
             nothing was found any more. It says nothing of backups.",
        ),
    }
}

pub const fn evidence(kind: EvidenceKind) -> Word {
    match kind {
        EvidenceKind::ReadBack => word(
            "read-back",
            "The processor asked the system again, in a new transaction on its primary copy, by the rows' keys and by the identifiers.",
        ),
        EvidenceKind::SystemReport => {
            word("system report", "Reported by a program that works in the system's own place and looked again there.")
        }
        EvidenceKind::VendorReceipt => word("vendor's receipt", "A receipt that the vendor's interface returned."),
        EvidenceKind::SignedStatement => word("signed statement", "Somebody answerable for the system signed it."),
        EvidenceKind::DocumentDigest => {
            word("document", "A document that the processor keeps; its SHA-256 digest is stated here.")
        }
        EvidenceKind::RetentionExpiry => word("expiry of retention", "The system's own retention period ends then."),
        EvidenceKind::OperatorStatement => {
            word("operator's statement", "The word of one of the processor's staff; it supports no success.")
        }
    }
}

pub const fn task_state(state: TaskState) -> Word {
    match state {
        TaskState::Waiting => word("waiting", "It waits for another system or for the controller."),
        TaskState::Pending => word("due", "It is due to be carried out."),
        TaskState::Running => word("running", "It is being carried out."),
        TaskState::AwaitingConfirmation => {
            word("awaiting confirmation", "The system was instructed, and has not answered yet.")
        }
        TaskState::NeedsAttention => word("needs attention", "It cannot go on without a person's decision."),
        TaskState::Confirmed => word("confirmed", "The system has confirmed."),
    }
}

pub const fn instruction(kind: InstructionKind) -> &'static str {
    match kind {
        InstructionKind::CustomerRequest => "Request of the controller (GDPR Art. 28(3)(a))",
        InstructionKind::AgreementTerm => "Term of the agreement (GDPR Art. 28(3)(a) and (g))",
        InstructionKind::LegalRequirement => "Requirement of Union or Member State law (GDPR Art. 28(3)(a))",
    }
}

pub const fn restriction_ground(ground: RestrictionGround) -> &'static str {
    match ground {
        RestrictionGround::AccuracyContested => "The person contests the accuracy (GDPR Art. 18(1)(a))",
        RestrictionGround::UnlawfulProcessing => {
            "The processing is unlawful, and the person opposes erasure (GDPR Art. 18(1)(b))"
        }
        RestrictionGround::NeededForLegalClaims => "The person needs the data for legal claims (GDPR Art. 18(1)(c))",
        RestrictionGround::ObjectionPending => {
            "The person has objected, and that is being considered (GDPR Art. 18(1)(d))"
        }
    }
}

pub const fn role(role: SystemRole) -> &'static str {
    match role {
        SystemRole::StorageBackend => "Processor's own system",
        SystemRole::SubProcessor => "Sub-processor",
        SystemRole::Recipient => "Recipient",
    }
}

pub const fn connector(kind: ConnectorKind) -> &'static str {
    match kind {
        ConnectorKind::Sql => "SQL database",
        ConnectorKind::Remote => "Remote worker",
    }
}

pub const fn decision(kind: DecisionKind) -> &'static str {
    match kind {
        DecisionKind::Objected => "The processor objected to the instruction (GDPR Art. 28(3))",
        DecisionKind::Authorised => "The controller authorised the request",
        DecisionKind::Retried => "An operator had the task run again",
        DecisionKind::Resolved => "An operator resolved the task",
        DecisionKind::Reviewed => "The controller reviewed what also concerns others (GDPR Art. 15(4))",
        DecisionKind::Declined => "The controller declined the request",
        DecisionKind::Cancelled => "The controller took the request back",
    }
}
