//! What a handler answers when it does not answer OK. Knows no tonic; `status.rs` turns it into a status, in one place.

use quittance_domain::request::FieldError;
use quittance_store::StoreError;

/// One wrong field, by its path in the request message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub field: String,
    pub message: String,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{}", violations_text(.0))]
    Invalid(Vec<Violation>),
    #[error("{}", violations_text(.0))]
    InvalidDataMap(Vec<Violation>),
    #[error("a token is needed: `authorization: Bearer …`, and this one is not known")]
    Unauthenticated,
    #[error("{0}")]
    NotAllowed(String),
    #[error("{0} is not there")]
    NotFound(&'static str),
    #[error("{0}")]
    NoAgreement(String),
    #[error("{0}")]
    CountryNotAllowed(Violation),
    #[error("the page token is of another query: send the query that it came with, or none")]
    InvalidPageToken,
    #[error("no certificate is issued yet; GetInterimStatement says how the request stands")]
    CertificateNotIssued,
    #[error("the package waits for review: call ReviewPackage first (GDPR Art. 15(4))")]
    PackageAwaitingReview,
    #[error("{0}")]
    WrongState(String),
    #[error("{0}")]
    LimitExceeded(String),
    #[error("{0}")]
    BeyondLog(String),
    #[error(
        "the worker speaks revision {theirs} of ConnectorService, and this server revision {ours}: bring the older of the two up to date"
    )]
    WorkerProtocol { ours: u32, theirs: u32 },
    #[error("{0}")]
    Unavailable(String),
    #[error("the log is halted: nothing is changed until the service's operator has repaired it; reading goes on")]
    LedgerHalted,
    /// A defect. What it says is for our log.
    #[error("{0}")]
    Internal(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

fn violations_text(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ApiError {
    pub fn field(field: impl Into<String>, message: impl ToString) -> Self {
        Self::Invalid(vec![Violation { field: field.into(), message: message.to_string() }])
    }

    /// By the agreement, the data maps and the systems of today this cannot be taken in.
    pub const fn is_of_the_instruction(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::CountryNotAllowed(_) | Self::Store(StoreError::Refused(_)))
    }

    /// The same violations, below a path.
    pub fn below(self, prefix: &str) -> Self {
        let below = |violations: Vec<Violation>| {
            let one = |v: Violation| Violation { field: format!("{prefix}.{}", v.field), message: v.message };
            violations.into_iter().map(one).collect()
        };
        match self {
            Self::Invalid(violations) => Self::Invalid(below(violations)),
            Self::InvalidDataMap(violations) => Self::InvalidDataMap(below(violations)),
            other => other,
        }
    }
}

impl From<FieldError> for ApiError {
    fn from(e: FieldError) -> Self {
        Self::field(e.field, e.message)
    }
}

pub type ApiResult<T> = Result<T, ApiError>;
