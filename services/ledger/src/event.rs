//! What happened, as the log will hold it. No identifiers, no values: counts, dates and digests (I10).

use quittance_domain::{
    ids::{CustomerId, RequestId},
    outcome::Confirmation,
};
use serde::Serialize;

/// An event of a request. Times are microseconds since 1970-01-01 UTC, by our own clock (`ASSERTED`, I9).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// The customer instructed (or, `referred`, somebody else asked).
    Instructed {
        action: &'static str,
        instruction: &'static str,
        /// Hex of [`crate::subject_commitment`].
        subject: String,
        by: String,
        referred: bool,
        received_us: i64,
        first_due_us: i64,
    },
    /// The fan-out; again when a system was added meanwhile.
    Planned {
        systems: Vec<PlannedSystem>,
    },
    Authorised {
        by: String,
        at_us: i64,
        first_due_us: i64,
    },
    Objected {
        reason: String,
        at_us: i64,
    },
    Extended {
        due_us: i64,
        reason: String,
        at_us: i64,
    },
    Confirmed {
        confirmation: Confirmation,
        late: bool,
    },
    /// An operator's own hand: a resolution, a retry.
    Operated {
        system: String,
        what: &'static str,
        by: String,
        at_us: i64,
    },
    Completed {
        state: &'static str,
        at_us: i64,
        late: bool,
    },
    /// Declined or cancelled.
    Closed {
        state: &'static str,
        reason: String,
        at_us: i64,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PlannedSystem {
    pub system: String,
    pub map_version: u32,
}

#[derive(Serialize)]
struct Envelope<'a> {
    v: u8,
    customer: &'a str,
    request: String,
    kind: &'static str,
    event: &'a Event,
}

impl Event {
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Instructed { .. } => "instructed",
            Self::Planned { .. } => "planned",
            Self::Authorised { .. } => "authorised",
            Self::Objected { .. } => "objected",
            Self::Extended { .. } => "extended",
            Self::Confirmed { .. } => "confirmed",
            Self::Operated { .. } => "operated",
            Self::Completed { .. } => "completed",
            Self::Closed { .. } => "closed",
        }
    }

    /// The bytes that are committed to: struct order is the canonical order, and serde_json writes no blanks.
    pub(crate) fn canonical(&self, customer: &CustomerId, request: RequestId) -> Vec<u8> {
        let envelope = Envelope {
            v: 1,
            customer: customer.as_str(),
            request: request.to_string(),
            kind: self.kind(),
            event: self,
        };
        // Strings, integers and derived structs: there is nothing in them that serde_json can refuse.
        serde_json::to_vec(&envelope).unwrap_or_default()
    }
}
