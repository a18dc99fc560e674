//! Enums of the contract and of the domain, variant by variant.

use quittance_api::v1;
use quittance_domain::{
    action::{Action, InstructionKind, RestrictionGround},
    identifier::IdentifierKind,
    outcome::{EvidenceKind, Grade, OutcomeKind},
    plan::Until,
    replay::ReplayState,
    request::RequestState,
    system::{ConnectorKind, SystemRole},
    task::{TaskState, Work},
    window::Timeliness,
};

use quittance_store::ReplayFindingKind;

use crate::error::{ApiError, ApiResult};

/// Both directions of one pair of enums. The unspecified value, and any that this build does not know, is refused.
macro_rules! enums {
    ($($from:ident, $to:ident: $api:ident <=> $domain:ident { $($variant:ident),+ $(,)? })+) => {
        $(
            pub fn $from(value: i32, field: &str) -> ApiResult<$domain> {
                match v1::$api::try_from(value) {
                    $(Ok(v1::$api::$variant) => Ok($domain::$variant),)+
                    _ => Err(ApiError::field(field, "is required, and must be a value of this version of the contract")),
                }
            }

            pub const fn $to(value: $domain) -> i32 {
                match value { $($domain::$variant => v1::$api::$variant as i32),+ }
            }
        )+
    };
}

enums! {
    action_from, action_to: Action <=> Action { Access, Rectification, Erasure, Restriction, LiftRestriction }
    instruction_from, instruction_to: InstructionKind <=> InstructionKind { CustomerRequest, AgreementTerm, LegalRequirement }
    ground_from, ground_to: RestrictionGround <=> RestrictionGround {
        AccuracyContested, UnlawfulProcessing, NeededForLegalClaims, ObjectionPending
    }
    identifier_kind_from, identifier_kind_to: IdentifierKind <=> IdentifierKind {
        Email, Phone, UserId, DirectoryObjectId, CustomerKey
    }
    outcome_from, outcome_to: OutcomeKind <=> OutcomeKind {
        Erased, Pseudonymised, NotHeld, Retained, Rectified, Restricted, RestrictionLifted, Exported, Notified,
        Unconfirmed
    }
    grade_from, grade_to: Grade <=> Grade { None, Accepted, Executed, RetainedUntil, ExpiresOn, Verified }
    evidence_kind_from, evidence_kind_to: EvidenceKind <=> EvidenceKind {
        ReadBack, SystemReport, VendorReceipt, SignedStatement, DocumentDigest, RetentionExpiry, OperatorStatement
    }
    request_state_from, request_state_to: RequestState <=> RequestState {
        AwaitingCustomer, InProgress, Completed, CompletedWithExceptions, Declined, Cancelled
    }
    timeliness_from, timeliness_to: Timeliness <=> Timeliness { OnTrack, AtRisk, Overdue }
    role_from, role_to: SystemRole <=> SystemRole { StorageBackend, SubProcessor, Recipient }
    connector_from, connector_to: ConnectorKind <=> ConnectorKind { Sql, Remote }
}

pub const fn task_state_to(state: TaskState) -> i32 {
    (match state {
        TaskState::Waiting => v1::TaskState::Waiting,
        TaskState::Pending => v1::TaskState::Pending,
        TaskState::Running => v1::TaskState::Running,
        TaskState::AwaitingConfirmation => v1::TaskState::AwaitingConfirmation,
        TaskState::NeedsAttention => v1::TaskState::NeedsAttention,
        TaskState::Confirmed => v1::TaskState::Confirmed,
    }) as i32
}

pub const fn replay_state_to(state: ReplayState) -> i32 {
    (match state {
        ReplayState::Matching => v1::ReplayState::Matching,
        ReplayState::AwaitingApproval => v1::ReplayState::AwaitingApproval,
        ReplayState::Instructing => v1::ReplayState::Instructing,
        ReplayState::Confirming => v1::ReplayState::Confirming,
        ReplayState::Completed => v1::ReplayState::Completed,
        ReplayState::Cancelled => v1::ReplayState::Cancelled,
        ReplayState::Failed => v1::ReplayState::Failed,
    }) as i32
}

pub const fn finding_to(kind: ReplayFindingKind) -> i32 {
    (match kind {
        ReplayFindingKind::Rectification => v1::ReplayFindingKind::Rectification,
        ReplayFindingKind::Unreachable => v1::ReplayFindingKind::Unreachable,
    }) as i32
}

pub const fn wait_until_to(until: Until) -> i32 {
    (match until {
        Until::Resolved => v1::WaitUntil::Resolved,
        Until::Confirmed => v1::WaitUntil::Confirmed,
    }) as i32
}

pub const fn work_to(work: Work) -> i32 {
    (match work {
        Work::Resolve => v1::Work::Resolve,
        Work::Act => v1::Work::Act,
    }) as i32
}
