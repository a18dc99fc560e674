//! What can go wrong in the store. Three layers: this, the server's statuses, and nothing of the driver's own text.

use quittance_sql::{SqlError, SqlErrorKind};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error("{0} is not there")]
    NotFound(&'static str),
    #[error("{0} exists already")]
    AlreadyExists(&'static str),
    #[error("this request_id was sent before with other content")]
    RequestIdReused,
    #[error("this request_id was sent before, and what came with it is forgotten: send this under an id of its own")]
    RequestIdForgotten,
    #[error("{0}")]
    WrongState(String),
    #[error("{0}")]
    Refused(String),
    /// What was to be planned by it is planned by the new one: read it, and try again.
    #[error("the agreement has changed meanwhile")]
    AgreementChanged,
    /// It comes alone, and something else about the person is open.
    #[error("another instruction about the same person is under way")]
    SubjectBusy,
    #[error("the lease has passed, or the task is somebody else's by now")]
    LeaseLost,
    /// A row that our own code can't have written.
    #[error("table {table}: {what}")]
    Inconsistent { table: &'static str, what: &'static str },
    #[error("key ring: {0}")]
    KeyRing(String),
    /// Sealed under a key that is gone, or altered.
    #[error("a sealed value of {0} cannot be opened: its key is destroyed, or it was altered")]
    Unsealable(&'static str),
    /// Not an error of the ring's own: a replica that does not have the newest key yet, or a key that was destroyed since it was asked for.
    #[error("the key of epoch {0} is not in the key ring")]
    NoEpochKey(u32),
    #[error("the request's identifiers and records are forgotten: it is closed, and its retention is over")]
    Forgotten,
    #[error("{0}")]
    Startup(String),
}

impl StoreError {
    /// Whether the same call may succeed when it is made again.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Sql(e) => e.is_transient(),
            Self::NoEpochKey(_) | Self::AgreementChanged => true,
            _ => false,
        }
    }

    /// PostgreSQL ended this transaction so that another could go on: at once it may succeed.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Sql(e) if e.kind == SqlErrorKind::Conflict)
    }

    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Sql(e) if e.kind == SqlErrorKind::Timeout)
    }

    pub(crate) fn is_constraint(&self) -> bool {
        matches!(self, Self::Sql(e) if e.kind == SqlErrorKind::Constraint)
    }
}

pub type StoreResult<T> = Result<T, StoreError>;
