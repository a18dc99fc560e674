//! The one place where errors become gRPC statuses: code, `ErrorInfo` with a reason of `ErrorReason`, `BadRequest` with fields.
//! Private text is logged, never answered.

use std::{collections::HashMap, time::Duration};

use quittance_api::v1::ErrorReason;
use quittance_sql::SqlErrorKind;
use quittance_store::StoreError;
use tonic::{Code, Status, codegen::http::Response};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error::{ApiError, Violation};

const DOMAIN: &str = "quittance";
/// When a caller may come back to what was not there.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// What a person must repair takes longer.
const RETRY_AFTER_REPAIR: Duration = Duration::from_secs(30);

/// Code, reason, public text.
pub fn describe(error: &ApiError) -> (Code, ErrorReason, String) {
    use ErrorReason as R;
    let text = error.to_string();
    match error {
        ApiError::Invalid(_) => (Code::InvalidArgument, R::InvalidField, text),
        ApiError::InvalidDataMap(_) => (Code::InvalidArgument, R::InvalidDataMap, text),
        ApiError::Unauthenticated => (Code::Unauthenticated, R::UnknownToken, text),
        ApiError::NotAllowed(_) => (Code::PermissionDenied, R::RoleNotAllowed, text),
        ApiError::NotFound(_) => (Code::NotFound, R::NotFound, text),
        ApiError::NoAgreement(_) => (Code::FailedPrecondition, R::NoAgreement, text),
        ApiError::CountryNotAllowed(_) => (Code::InvalidArgument, R::CountryNotAllowed, text),
        ApiError::InvalidPageToken => (Code::InvalidArgument, R::InvalidPageToken, text),
        ApiError::CertificateNotIssued => (Code::FailedPrecondition, R::CertificateNotIssued, text),
        ApiError::PackageAwaitingReview => (Code::FailedPrecondition, R::PackageAwaitingReview, text),
        ApiError::WrongState(_) => (Code::FailedPrecondition, R::WrongState, text),
        ApiError::LimitExceeded(_) => (Code::ResourceExhausted, R::LimitExceeded, text),
        ApiError::Internal(_) => (Code::Internal, R::Internal, "a defect: the server's log says more".to_owned()),
        ApiError::WorkerProtocol { .. } => (Code::FailedPrecondition, R::WorkerProtocol, text),
        ApiError::BeyondLog(_) => (Code::OutOfRange, R::BeyondLog, text),
        ApiError::Unavailable(_) => (Code::Unavailable, R::Unavailable, text),
        ApiError::LedgerHalted => (Code::Unavailable, R::LedgerHalted, text),
        ApiError::Store(e) => describe_store(e),
    }
}

fn describe_store(error: &StoreError) -> (Code, ErrorReason, String) {
    use ErrorReason as R;
    let text = error.to_string();
    match error {
        StoreError::NotFound(_) => (Code::NotFound, R::NotFound, text),
        StoreError::AlreadyExists(_) => (Code::AlreadyExists, R::AlreadyExists, text),
        StoreError::RequestIdReused | StoreError::RequestIdForgotten => (Code::AlreadyExists, R::RequestIdReused, text),
        StoreError::WrongState(_) | StoreError::SubjectBusy => (Code::FailedPrecondition, R::WrongState, text),
        StoreError::Refused(reason) if reason == "NO_SYSTEMS" => (
            Code::FailedPrecondition,
            R::NoSystems,
            "no system may hold this customer's data, so nothing would be done: register one first".to_owned(),
        ),
        StoreError::Refused(reason) if reason == "NO_USABLE_IDENTIFIER" => (
            Code::InvalidArgument,
            R::NoUsableIdentifier,
            "no system can be reached by any of the identifiers: send one that a system accepts".to_owned(),
        ),
        StoreError::Refused(_) => (Code::InvalidArgument, R::InvalidField, text),
        // Whoever plans by an agreement reads it again; only one that changes all the time gets here.
        StoreError::AgreementChanged => (Code::Unavailable, R::Unavailable, text),
        StoreError::LeaseLost => (Code::Aborted, R::LeaseLost, text),
        StoreError::Forgotten => (Code::FailedPrecondition, R::Forgotten, text),
        StoreError::NoEpochKey(_) => {
            tracing::warn!(%error, "a key is missing: key rings of replicas must be one folder");
            (Code::Unavailable, R::Unavailable, "the keys are being rotated: try again".to_owned())
        }
        StoreError::Sql(e) if e.kind == SqlErrorKind::Full => {
            tracing::error!(%error, "the store takes no writes: make room on its disk, or point us at its primary");
            (
                Code::Unavailable,
                R::StoreNotWritable,
                "the store takes no writes (a full disk, or a read-only copy): the service's operator must see to it"
                    .to_owned(),
            )
        }
        StoreError::Sql(e) if e.is_transient() => {
            (Code::Unavailable, R::Unavailable, "the store is not there at the moment: try again".to_owned())
        }
        StoreError::Sql(_)
        | StoreError::Inconsistent { .. }
        | StoreError::KeyRing(_)
        | StoreError::Unsealable(_)
        | StoreError::Startup(_) => (Code::Internal, R::Internal, "a defect: the server's log says more".to_owned()),
    }
}

pub fn to_status(error: ApiError) -> Status {
    let (code, reason, message) = describe(&error);
    if code == Code::Internal {
        tracing::error!(%error, "internal error");
    } else {
        // Fields by their path, never what was in them.
        let fields: Vec<String> = violations(&error).into_iter().map(|violation| violation.field).collect();
        tracing::info!(?code, reason = reason.as_str_name(), ?fields, "refused");
    }
    let name = reason.as_str_name().trim_start_matches("ERROR_REASON_").to_owned();
    let mut details = ErrorDetails::with_error_info(name, DOMAIN, HashMap::<String, String>::new());
    if code == Code::Unavailable {
        let repair = matches!(reason, ErrorReason::LedgerHalted | ErrorReason::StoreNotWritable);
        details.set_retry_info(Some(if repair { RETRY_AFTER_REPAIR } else { RETRY_AFTER }));
    }
    for violation in violations(&error) {
        details.add_bad_request_violation(violation.field, violation.message);
    }
    Status::with_error_details(code, message, details)
}

/// tonic refuses a message that is too large before a handler sees it, and gives no reason: here it gets one.
pub fn with_reason<B: Default>(answer: Response<B>, message_bytes_max: usize) -> Response<B> {
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() == Code::OutOfRange && status.details().is_empty() => {
            let most = format!("a message may have at most {message_bytes_max} bytes");
            to_status(ApiError::LimitExceeded(most)).into_http()
        }
        _ => answer,
    }
}

pub fn violations(error: &ApiError) -> Vec<Violation> {
    match error {
        ApiError::Invalid(v) | ApiError::InvalidDataMap(v) => v.clone(),
        ApiError::CountryNotAllowed(v) => vec![v.clone()],
        ApiError::Store(StoreError::Refused(reason)) if reason == "NO_USABLE_IDENTIFIER" => {
            vec![Violation { field: "request.identifiers".to_owned(), message: "none can be used".to_owned() }]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_code_a_reason_and_says_nothing_private() {
        let private = StoreError::Inconsistent { table: "requests", what: "secret detail" };
        let cases = [
            (ApiError::field("request.action", "x"), Code::InvalidArgument, "INVALID_FIELD"),
            (ApiError::Unauthenticated, Code::Unauthenticated, "UNKNOWN_TOKEN"),
            (ApiError::BeyondLog("10 of 9".into()), Code::OutOfRange, "BEYOND_LOG"),
            (ApiError::WorkerProtocol { ours: 1, theirs: 2 }, Code::FailedPrecondition, "WORKER_PROTOCOL"),
            (ApiError::LedgerHalted, Code::Unavailable, "LEDGER_HALTED"),
            (ApiError::Store(StoreError::LeaseLost), Code::Aborted, "LEASE_LOST"),
            (ApiError::Store(StoreError::RequestIdReused), Code::AlreadyExists, "REQUEST_ID_REUSED"),
            (ApiError::Store(StoreError::RequestIdForgotten), Code::AlreadyExists, "REQUEST_ID_REUSED"),
            (ApiError::Store(StoreError::Refused("NO_SYSTEMS".into())), Code::FailedPrecondition, "NO_SYSTEMS"),
            (ApiError::Store(StoreError::Forgotten), Code::FailedPrecondition, "FORGOTTEN"),
            (ApiError::Store(private), Code::Internal, "INTERNAL"),
        ];
        for (error, code, reason) in cases {
            let status = to_status(error);
            assert_eq!(status.code(), code);
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, DOMAIN));
            assert!(!status.message().contains("secret"));
        }
    }
}
