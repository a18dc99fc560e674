//! What happened, as the log will hold it. No identifiers, no values: counts, dates and digests (I10).

use quittance_domain::{
    action::{Action, InstructionKind, RestrictionGround},
    ids::{CustomerId, ReplayId, RequestId, SystemId},
    outcome::Confirmation,
    replay::ReplayState,
    request::RequestState,
};
use serde::{Deserialize, Serialize};

use crate::Hex;

/// An event of a request. Times are microseconds since 1970-01-01 UTC, by our own clock (`ASSERTED`, I9) but where the customer states
/// them: when the subject asked and was informed, and when the customer itself must answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", content = "event", rename_all = "snake_case")]
pub enum Event {
    /// The customer instructed (or, `referred`, somebody else asked).
    Instructed {
        action: Action,
        instruction: InstructionKind,
        /// [`crate::subject_commitment`]
        subject: Hex<32>,
        by: String,
        referred: bool,
        received_us: i64,
        first_due_us: i64,
        /// Version of the data-processing agreement that the dates come from.
        agreement: u32,
        /// The customer's own.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reference: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restriction_ground: Option<RestrictionGround>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject_asked_us: Option<i64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject_informed_us: Option<i64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        controller_due_us: Option<i64>,
        /// It carries out again what another had instructed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        follow_up: Option<FollowedUp>,
        /// A hold has ended: the request whose confirmation this one carries on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        follows: Option<RequestId>,
    },
    /// The fan-out; again when a system was added meanwhile.
    Planned {
        at_us: i64,
        systems: Vec<PlannedSystem>,
    },
    Authorised {
        by: String,
        at_us: i64,
        first_due_us: i64,
        /// As of [`Event::Instructed`]: what was only referred comes under the agreement of the day it is authorised.
        agreement: u32,
    },
    Objected {
        /// Whose decision it was; empty in entries of before this was recorded.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
        reason: String,
        at_us: i64,
    },
    Extended {
        due_us: i64,
        /// As of [`Event::Objected`].
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
        reason: String,
        at_us: i64,
    },
    Confirmed {
        confirmation: Confirmation,
        late: bool,
    },
    /// An operator's own hand.
    Operated {
        system: SystemId,
        what: Operation,
        by: String,
        at_us: i64,
    },
    Completed {
        state: RequestState,
        at_us: i64,
        late: bool,
    },
    /// The customer has decided about the records of an access package that hold others' data as well (Art. 15(4)).
    Reviewed {
        by: String,
        at_us: i64,
        /// What stays out of the package; nothing where all of it was released.
        withheld: Vec<Withheld>,
    },
    /// Declined or cancelled.
    Closed {
        state: RequestState,
        /// As of [`Event::Objected`].
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
        reason: String,
        at_us: i64,
    },
    /// The key of an epoch is destroyed, and with it what `forgotten` requests of the customer's were sealed with; `rewrapped` others live
    /// on under another epoch. Of no single request: its id is nil.
    KeyDestroyed {
        epoch: u32,
        forgotten: u64,
        rewrapped: u64,
        destroyed_us: i64,
    },
    /// A restored system was asked what it holds of the customer's, and what came of it. Its entry stands under the replay's own id.
    Replayed {
        system: SystemId,
        /// What the system was restored from.
        snapshot_us: i64,
        by: String,
        asked_us: i64,
        dry_run: bool,
        state: ReplayState,
        counts: ReplayCounts,
        at_us: i64,
    },
}

/// Why a request carries out again what another had instructed, and where.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowedUp {
    pub follows: RequestId,
    pub system: SystemId,
    pub replay: ReplayId,
}

/// Of one customer. The first three count identifiers, the others requests.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ReplayCounts {
    pub erasures: u64,
    pub restrictions: u64,
    pub liftings: u64,
    /// Undone by the restore, and to be instructed anew.
    pub rectifications: u64,
    /// Ended by hand since nothing led to the system, which therefore cannot be matched.
    pub unreachable: u64,
    /// Follow-up requests that were made.
    pub instructed: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlannedSystem {
    pub system: SystemId,
    pub map_version: u32,
}

/// Records of an access package that are not handed out, since they hold others' data; each counts once in every category that it has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withheld {
    pub system: SystemId,
    pub collection: String,
    pub category: String,
    pub count: u64,
}

/// What an operator did to a task that needed attention.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Resolved,
    Retried,
}

#[derive(Serialize)]
struct Envelope<'a> {
    v: u8,
    customer: &'a CustomerId,
    request: RequestId,
    /// Its kind, then itself.
    #[serde(flatten)]
    event: &'a Event,
}

/// A payload that was read back.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct RecordedEvent {
    v: u8,
    pub customer: CustomerId,
    pub request: RequestId,
    #[serde(flatten)]
    pub event: Event,
}

/// Why bytes are not the payload of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PayloadError {
    #[error("it is not an event of a kind that this version knows")]
    Form,
    #[error("it is not written in the one canonical way")]
    NotCanonical,
}

const VERSION: u8 = 1;

impl Event {
    pub const INSTRUCTED: &str = "instructed";
    pub const PLANNED: &str = "planned";
    pub const CONFIRMED: &str = "confirmed";
    const KEY_DESTROYED: &str = "key_destroyed";
    const REPLAYED: &str = "replayed";

    /// Whether entries of this kind bear the id of a request.
    pub fn is_of_request(kind: &str) -> bool {
        !matches!(kind, Self::KEY_DESTROYED | Self::REPLAYED)
    }

    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Instructed { .. } => Self::INSTRUCTED,
            Self::Planned { .. } => Self::PLANNED,
            Self::Authorised { .. } => "authorised",
            Self::Objected { .. } => "objected",
            Self::Extended { .. } => "extended",
            Self::Confirmed { .. } => Self::CONFIRMED,
            Self::Operated { .. } => "operated",
            Self::Completed { .. } => "completed",
            Self::Reviewed { .. } => "reviewed",
            Self::Closed { .. } => "closed",
            Self::KeyDestroyed { .. } => Self::KEY_DESTROYED,
            Self::Replayed { .. } => Self::REPLAYED,
        }
    }

    /// The bytes that are committed to: struct order is the canonical order, and serde_json writes no blanks.
    pub(crate) fn canonical(&self, customer: &CustomerId, request: RequestId) -> Vec<u8> {
        // Strings, integers and derived structs: there is nothing in them that serde_json can refuse.
        serde_json::to_vec(&Envelope { v: VERSION, customer, request, event: self }).unwrap_or_default()
    }
}

impl RecordedEvent {
    /// Reads what [`crate::StagedEntry::payload`] holds, and nothing that is only like it.
    pub fn read(payload: &[u8]) -> Result<Self, PayloadError> {
        let read: Self = serde_json::from_slice(payload).map_err(|_| PayloadError::Form)?;
        if read.v != VERSION {
            return Err(PayloadError::Form);
        }
        let canonical = read.event.canonical(&read.customer, read.request) == payload;
        if canonical { Ok(read) } else { Err(PayloadError::NotCanonical) }
    }
}
