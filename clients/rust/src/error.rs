//! What can go wrong, and what to do about it. No error holds a token or an identifier's value: the service never sends them back.

use std::{fmt, path::PathBuf, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why a call did not bring what was wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The endpoint is not a URL that can be called.
    #[error("the endpoint {0:?} is not a URL: give one like http://127.0.0.1:7443 or https://quittance.example:7443")]
    Endpoint(String),
    /// The token has characters that no header can carry. It is not repeated here.
    #[error("the token has characters that a token cannot have: check for line breaks and other stray characters")]
    Token,
    /// The file with the authority's certificate cannot be read.
    #[error("the CA file {} cannot be read ({source}): give a PEM file", path.display())]
    CaFile { path: PathBuf, source: std::io::Error },
    /// TLS cannot be set up as asked.
    #[error("TLS cannot be set up ({}): check the CA file and the endpoint's name", chain(.0))]
    Tls(#[source] tonic::transport::Error),
    /// Nobody answers there, or not as was asked for.
    #[error("the service cannot be reached ({}): {}", chain(.0), advice(.0).unwrap_or("check the endpoint, and that the service is up"))]
    Connect(#[source] tonic::transport::Error),
    /// The service answered with an error, or the call was cut.
    #[error(transparent)]
    Rpc(#[from] Box<RpcError>),
    /// The service answered what the contract does not allow, or the caller asked for what it does not allow.
    #[error("{0}")]
    Contract(String),
}

/// An error of a call, with what the service said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    pub code: Code,
    /// For people.
    pub message: String,
    /// A value of `ErrorReason` without its prefix. `None` where the error is not the service's own: the network's, or a proxy's.
    pub reason: Option<String>,
    /// Which fields are wrong, and why.
    pub violations: Vec<FieldViolation>,
    /// When to come back, if that helps.
    pub retry_delay: Option<Duration>,
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path in the request, as `request.identifiers[0].value`.
    pub field: String,
    pub description: String,
}

/// An error with what lies under it, in one line: tonic's own text is only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = inner.source();
    }
    text
}

/// What to do about a connection that does not stand, where its cause says so.
fn advice(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    use rustls::{CertificateError as C, Error as E, InvalidMessage};
    // An I/O error's source is that of what it wraps.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
    if let Some(wrapped) = wrapped {
        return advice(wrapped);
    }
    match error.downcast_ref::<E>() {
        Some(E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. })) => {
            Some("the certificate is for another name: check the endpoint, or name the server as its certificate does")
        }
        Some(E::InvalidCertificate(C::UnknownIssuer)) => {
            Some("the authority of the certificate is not known here: give its certificate as the CA file (--ca-file)")
        }
        Some(E::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            Some("what answers there speaks no TLS: check the port, or say http:// on the same machine")
        }
        Some(_) => None,
        // The first bytes of a TLS alert, read as the header of an HTTP/2 frame, are one that is much too long.
        None if error.to_string().contains("frame with invalid size") => {
            Some("what answers there is no plain HTTP/2, most likely TLS: say https://")
        }
        None => error.source().and_then(advice),
    }
}

impl RpcError {
    /// A call that may have been lost on the way, or that the service could not serve just now. Trying again is right for calls that
    /// read and for those that bear a `request_id`.
    pub fn is_retryable(&self) -> bool {
        match (self.code, self.reason.as_deref()) {
            (_, Some("UNAVAILABLE" | "LEDGER_HALTED")) => true,
            (_, Some("LIMIT_EXCEEDED")) => self.retry_delay.is_some(),
            (Code::Unavailable | Code::DeadlineExceeded, _) => true,
            (_, Some(_)) => false,
            // Without a reason it comes from the connection or a proxy, and these codes are how tonic shows a cut.
            (Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted, None) => true,
            (Code::ResourceExhausted, None) => self.retry_delay.is_some(),
            _ => false,
        }
    }

    /// One line, for logs.
    pub fn brief(&self) -> String {
        match self.message.lines().next() {
            Some(message) => format!("{}: {message}", self.reason_or_code()),
            None => self.reason_or_code().to_owned(),
        }
    }

    fn reason_or_code(&self) -> &str {
        self.reason.as_deref().unwrap_or_else(|| self.code_name())
    }

    fn code_name(&self) -> &'static str {
        match self.code {
            Code::Ok => "OK",
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// What to do next, where the contract's reason says it.
    pub fn hint(&self) -> &'static str {
        match self.reason.as_deref() {
            Some("UNKNOWN_TOKEN") => "check the token: it is missing, mistyped, or no longer known to the service",
            Some("ROLE_NOT_ALLOWED") => "use a token whose role may do this",
            Some("NOT_FOUND") => "check the name; what belongs to another customer is not found either",
            Some("REQUEST_ID_REUSED") => {
                "use a new request id; the same content is taken under its old one until that request is forgotten"
            }
            Some("NO_AGREEMENT") => "add an agreement that is signed, then send this again",
            Some("COUNTRY_NOT_ALLOWED") => {
                "add the country to the agreements concerned, or keep those customers out of the system"
            }
            Some("NO_USABLE_IDENTIFIER") => "give an identifier of a kind that one of the customer's systems accepts",
            Some("NO_SYSTEMS") => "register the systems that hold this customer's data, then send this again",
            Some("INVALID_PAGE_TOKEN") => "begin again from the first page",
            Some("LEASE_LOST") => "stop working on the task: it is somebody else's by now",
            Some("CERTIFICATE_NOT_ISSUED") => {
                "wait until the request is completed; an interim statement can be had now"
            }
            Some("PACKAGE_AWAITING_REVIEW") => "review the package, then download it",
            Some("INTERNAL") => "look into the service's log at this time; it is a defect",
            Some("UNAVAILABLE") => "try again shortly",
            Some("LEDGER_HALTED") => {
                "tell the service's operator: its log is halted; sent again after the repair, this is done once"
            }
            None if self.is_retryable() => {
                "check that the service is up, and that the endpoint says https:// if it speaks TLS; then try again: what bears a request id is safe to send twice"
            }
            None if self.code == Code::Unimplemented => {
                "check the endpoint and the service's version: this call is not known there"
            }
            _ => "",
        }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason_or_code())?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        for violation in &self.violations {
            write!(f, "\n  {}: {}", violation.field, violation.description)?;
        }
        if let Some(delay) = self.retry_delay {
            write!(f, "\n  try again in {} s", delay.as_secs_f32().ceil())?;
        }
        match self.hint() {
            "" => Ok(()),
            hint => write!(f, "\n  {hint}"),
        }
    }
}

impl std::error::Error for RpcError {}

impl From<Status> for RpcError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let violations = details.bad_request().map(|bad| {
            bad.field_violations
                .iter()
                .map(|v| FieldViolation { field: v.field.clone(), description: v.description.clone() })
                .collect()
        });
        Self {
            code: status.code(),
            reason: details.error_info().map(|info| info.reason.clone()),
            violations: violations.unwrap_or_default(),
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
            message: match std::error::Error::source(&status).and_then(advice) {
                Some(advice) => format!("{} ({advice})", status.message()),
                None => status.message().to_owned(),
            },
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Rpc(Box::new(status.into()))
    }
}

impl ClientError {
    /// One line, for logs.
    pub fn brief(&self) -> String {
        match self {
            Self::Rpc(error) => error.brief(),
            other => other.to_string(),
        }
    }

    /// See [`RpcError::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Rpc(error) => error.is_retryable(),
            Self::Connect(_) => true,
            _ => false,
        }
    }

    /// When the service wants to be asked again.
    pub fn retry_delay(&self) -> Option<Duration> {
        match self {
            Self::Rpc(error) => error.retry_delay,
            _ => None,
        }
    }

    /// The service's reason, if the error is its own.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Rpc(error) => error.reason.as_deref(),
            _ => None,
        }
    }

    /// The first field that the service named, and what is wrong with it.
    pub fn refused_field(&self) -> Option<String> {
        match self {
            Self::Rpc(error) => error.violations.first().map(|v| format!("{}: {}", v.field, v.description)),
            _ => None,
        }
    }

    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Rpc(error) => Some(error.code),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn the_services_details_are_read() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("INVALID_FIELD", "quittance", HashMap::new())
            .add_bad_request_violation("request.action", "is required");
        let error = ClientError::from(Status::with_error_details(Code::InvalidArgument, "one field is wrong", details));
        assert_eq!(error.to_string(), "INVALID_FIELD: one field is wrong\n  request.action: is required");
        assert_eq!(error.reason(), Some("INVALID_FIELD"));
        assert!(!error.is_retryable());
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let reasoned = |code, reason: &str, delay: Option<Duration>| {
            let mut details = ErrorDetails::new();
            details.set_error_info(reason, "quittance", HashMap::new());
            if delay.is_some() {
                details.set_retry_info(delay);
            }
            ClientError::from(Status::with_error_details(code, "", details)).is_retryable()
        };
        assert!(reasoned(Code::Unavailable, "UNAVAILABLE", None));
        assert!(reasoned(Code::ResourceExhausted, "LIMIT_EXCEEDED", Some(Duration::from_secs(1))));
        assert!(!reasoned(Code::ResourceExhausted, "LIMIT_EXCEEDED", None));
        assert!(!reasoned(Code::Internal, "INTERNAL", None));
        assert!(!reasoned(Code::Aborted, "LEASE_LOST", None));
        assert!(ClientError::from(Status::unknown("transport error")).is_retryable());
        assert!(ClientError::from(Status::cancelled("Timeout expired")).is_retryable());
        assert!(!ClientError::from(Status::permission_denied("")).is_retryable());
    }
}
