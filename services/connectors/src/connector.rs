//! What every in-process connector does, and how it says that it could not.

use std::time::Duration;

use async_trait::async_trait;
use quittance_domain::{
    Timestamp,
    action::{Action, Correction, IdentifierChange},
    identifier::{Identifier, IdentifierKind},
    ids::CustomerId,
    outcome::Outcome,
    system::SystemScope,
};
use tokio::time::Instant;

use crate::MatchSet;

/// What holds for all subjects of one batch.
#[derive(Clone, Debug)]
pub struct BatchContext {
    pub customer: CustomerId,
    /// The customer's own key in the system, for `customer_field`; `None` where the system is the customer's alone.
    pub customer_key: Option<String>,
    pub action: Action,
    /// Other systems are to be asked by what the rows give away.
    pub resolving: bool,
    /// Restrictions of other people than the batch's stand: for a lifting.
    pub others_restricted: bool,
    /// The time that holds are counted against, handed in.
    pub now: Timestamp,
    /// IANA name of the agreement's time zone: the day a hold ends, ends there.
    pub time_zone: String,
    /// Every transaction in the target ends within this, which is below what is left of the lease (I4).
    pub time_limit: Duration,
    /// Nothing is committed in the target later than this: the lease may be somebody else's by then, who may have done it all, and what came
    /// next as well (I4).
    pub commit_before: Instant,
}

/// One subject of a batch: one task.
#[derive(Clone, Debug)]
pub struct Subject {
    /// All that is known by now, normalised; only kinds that the system accepts.
    pub identifiers: Vec<Identifier>,
    /// What masks write where the map says `pseudonym`: keyed, made by the caller.
    pub pseudonym: String,
    /// For a rectification.
    pub corrections: Vec<Correction>,
    /// Identifiers that it changes, of kinds that the system knows; the old ones are among `identifiers`.
    pub identifier_changes: Vec<IdentifierChange>,
}

/// What `find` saw of one subject. Nothing has been changed.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub match_set: MatchSet,
    /// Identifiers that its rows give away.
    pub yielded: Vec<Identifier>,
    /// A kind of which they give away what stands on other people's rows too.
    pub yielded_by_others: Option<IdentifierKind>,
}

impl Found {
    /// What the other systems are asked by.
    pub fn leads_to(self) -> SubjectResult<Vec<Identifier>> {
        self.yielded_by_others.map_or(Ok(self.yielded), |kind| Err(SubjectError::YieldedByOthers(kind)))
    }
}

/// What `export` read of one subject.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    pub records: Vec<Record>,
    pub outcomes: Vec<Outcome>,
}

/// One row of an access package.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    pub collection: String,
    pub key: Vec<String>,
    pub fields: Vec<RecordField>,
    /// It holds third parties' data: the customer reviews it first (Art. 15(4)).
    pub third_party: bool,
}

#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecordField {
    pub name: String,
    pub category: String,
    pub value: Option<String>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({}, …)", self.collection)
    }
}

impl std::fmt::Debug for RecordField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordField({}, …)", self.name)
    }
}

/// An identifier that a system holds in a column by which it finds rows; whose it is says the customer's key, where customers share it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldKey {
    pub customer_key: Option<String>,
    pub identifier: Identifier,
}

/// Where the next page of them begins.
#[derive(Clone, PartialEq, Eq)]
pub struct HeldPlace {
    pub(crate) collection: usize,
    /// Of the last row, as text; empty at the beginning of the collection. As much personal data as the row.
    pub(crate) key: Vec<String>,
}

impl std::fmt::Debug for HeldPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeldPlace({}, …)", self.collection)
    }
}

#[derive(Clone, Debug, Default)]
pub struct HeldPage {
    /// The same one as often as there are rows with it.
    pub keys: Vec<HeldKey>,
    /// `None`: that was all.
    pub next: Option<HeldPlace>,
}

/// The whole batch failed; nothing of it is confirmed. Texts name schema objects and codes, never values (I10).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectorError {
    /// Down, overloaded, deadlocked: try again later.
    #[error("the system could not do it now: {0}")]
    Unavailable(String),
    /// It answers, and the batch takes it longer than the time limit, be it by its size or since it waits for somebody's lock: split it.
    #[error("it took longer than the time limit: {0}")]
    OutOfTime(String),
    /// Something in the batch (or the system) refuses: split it until the poisonous subject stands alone.
    #[error("the system refused: {0}")]
    Refused(String),
}

/// One subject cannot be done, and trying again does not help: a person looks (`NEEDS_ATTENTION`). Nothing was changed for it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubjectError {
    #[error("matches {rows} rows, and the map allows {allowed}")]
    TooManyRows { rows: u64, allowed: u32 },
    #[error("no identifier that the system accepts")]
    NoUsableIdentifier,
    /// To look for it in other systems would be to look for other people there.
    #[error(
        "YIELDED_BY_OTHERS: the {0} that the subject's rows give away stands on other people's rows too. Correct the rows, and retry. Where the \
         column never tells people apart: take it out of yields in the data map, and retry. Where they are all the subject's: give the task up, and \
         have the customer instruct anew, with all identifiers"
    )]
    YieldedByOthers(IdentifierKind),
    #[error(
        "the old value or record named for {collection}.{field} is not there (what is somebody else's in a shared row is left alone)"
    )]
    OldValueMismatch { collection: String, field: String },
    #[error("collection {collection} holds rows of the subject and has no restriction marker")]
    CannotRestrict { collection: String },
    /// Read-back still sees what should be gone: not confirmed, tried again.
    #[error("read-back found {rows} rows that are not as instructed")]
    NotYet { rows: u64 },
    /// It would leave a shared row to nobody, which is then to go as a whole: left out of the batch, and found again after it.
    #[error("another's erasure has left it alone with a row that was shared")]
    FindAgain,
    #[error("{0}")]
    Other(String),
}

pub type SubjectResult<T> = Result<T, SubjectError>;

/// What the check of a map against the live schema found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub severity: FindingSeverity,
    /// Path in the map, as `collections.orders.fields.note`.
    pub field: String,
    pub message: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FindingSeverity {
    /// The registration is refused.
    Error,
    /// Works, and will hurt: a missing index, say.
    Warning,
}

/// The code that speaks to one kind of system. Calls may be made again with the same arguments after a crash.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Compares the data map with the live system; `scope`: whose data it may hold.
    async fn check(&self, scope: &SystemScope) -> Result<Vec<Finding>, ConnectorError>;

    /// Finds the subjects' rows, and changes nothing.
    async fn find(&self, ctx: &BatchContext, subjects: &[Subject])
    -> Result<Vec<SubjectResult<Found>>, ConnectorError>;

    /// Changes the found rows as instructed, the whole batch in one transaction. `match_sets` are durable by now. Rows that a
    /// former run has already changed are left as they are; rows that are not the subject's any more are not touched.
    async fn act(
        &self,
        ctx: &BatchContext,
        subjects: &[Subject],
        match_sets: &[MatchSet],
    ) -> Result<Vec<SubjectResult<()>>, ConnectorError>;

    /// Looks again, in a new transaction on the primary, by the match sets' keys and by the identifiers, and states per
    /// subject what is so. `SubjectError::NotYet` where it is not as instructed.
    async fn read_back(
        &self,
        ctx: &BatchContext,
        subjects: &[Subject],
        match_sets: &[MatchSet],
    ) -> Result<Vec<SubjectResult<Vec<Outcome>>>, ConnectorError>;

    /// Reads one subject's records for an access package, at most `records_max` of them a page, and no more than fit into memory; `after` is the last page's
    /// cursor. Gives the next cursor while there is more.
    async fn export(
        &self,
        ctx: &BatchContext,
        subject: &Subject,
        match_set: &MatchSet,
        after: Option<u64>,
        records_max: usize,
    ) -> Result<SubjectResult<(Exported, Option<u64>)>, ConnectorError>;

    /// Says which identifiers the system holds, read on the primary, `rows_max` rows a page at most.
    async fn held(
        &self,
        after: Option<&HeldPlace>,
        rows_max: usize,
        time_limit: Duration,
    ) -> Result<HeldPage, ConnectorError>;
}
