//! A request: the customer's instruction about one data subject, and the states it goes through.

use crate::{
    Timestamp,
    action::{Action, Correction, IdentifierChange, InstructionKind, RestrictionGround},
    identifier::Identifier,
    ids::{RecipientId, ReplayId, RequestId, SystemId},
    text_enum,
};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RequestState {
    AwaitingCustomer,
    InProgress,
    Completed,
    CompletedWithExceptions,
    Declined,
    Cancelled,
}

text_enum!(RequestState,
    AwaitingCustomer => "AWAITING_CUSTOMER",
    InProgress => "IN_PROGRESS",
    Completed => "COMPLETED",
    CompletedWithExceptions => "COMPLETED_WITH_EXCEPTIONS",
    Declined => "DECLINED",
    Cancelled => "CANCELLED",
);

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestEvent {
    Authorise,
    Decline,
    Object,
    /// `ran`: whether any of its tasks was ever leased.
    Cancel {
        ran: bool,
    },
    /// The last task was confirmed. `exceptions`: how many are `UNCONFIRMED`.
    Complete {
        exceptions: u32,
    },
}

/// The one error for every transition that there is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a request that is {from} cannot {event}")]
pub struct IllegalTransition {
    pub from: RequestState,
    pub event: &'static str,
}

impl RequestState {
    pub const fn is_closed(self) -> bool {
        !matches!(self, Self::AwaitingCustomer | Self::InProgress)
    }

    /// The only place where a request's state changes.
    pub fn on(self, event: RequestEvent) -> Result<Self, IllegalTransition> {
        use RequestEvent as E;
        match (self, event) {
            (Self::AwaitingCustomer, E::Authorise) => Ok(Self::InProgress),
            (Self::AwaitingCustomer, E::Decline) => Ok(Self::Declined),
            (Self::InProgress, E::Object) => Ok(Self::AwaitingCustomer),
            (Self::InProgress, E::Cancel { ran: false }) | (Self::AwaitingCustomer, E::Cancel { ran: false }) => {
                Ok(Self::Cancelled)
            }
            (Self::InProgress, E::Complete { exceptions: 0 }) => Ok(Self::Completed),
            (Self::InProgress, E::Complete { .. }) => Ok(Self::CompletedWithExceptions),
            (from, event) => Err(IllegalTransition { from, event: event.verb() }),
        }
    }
}

impl RequestEvent {
    const fn verb(self) -> &'static str {
        match self {
            Self::Authorise => "be authorised",
            Self::Decline => "be declined",
            Self::Object => "be objected to",
            Self::Cancel { .. } => "be cancelled any more",
            Self::Complete { .. } => "complete",
        }
    }
}

/// A recipient that the instruction says to tell (Art. 19), and the system by which that is done.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct Notice {
    #[serde(rename = "r")]
    pub recipient: RecipientId,
    #[serde(rename = "s")]
    pub system: SystemId,
}

/// That a request carries out again, at one system, what an earlier one had instructed: the system was restored from a backup since.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FollowUp {
    pub follows: RequestId,
    /// It has no task elsewhere.
    pub system: SystemId,
    pub replay: ReplayId,
}

/// An instruction as it was taken in: valid, normalised, not yet planned.
#[derive(Clone, Debug)]
pub struct NewRequest {
    pub action: Action,
    pub identifiers: Vec<Identifier>,
    pub corrections: Vec<Correction>,
    /// Which of the corrections change an identifier, by the customer's data maps.
    pub identifier_changes: Vec<IdentifierChange>,
    pub restriction_ground: Option<RestrictionGround>,
    pub subject_informed_at: Option<Timestamp>,
    pub subject_asked_at: Option<Timestamp>,
    pub controller_due_at: Option<Timestamp>,
    pub reference: String,
    pub instruction: InstructionKind,
    pub notices: Vec<Notice>,
    pub follow_up: Option<FollowUp>,
}

/// What is wrong with an instruction, by the field's path in the contract.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    pub field: String,
    pub message: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

pub const IDENTIFIERS_MAX: usize = 32;
pub const CORRECTIONS_MAX: usize = 64;
pub const REFERENCE_BYTES_MAX: usize = 128;
/// What systems yield of one person, too. More than this are several persons; and each is compared with all others.
pub const KNOWN_MAX: usize = 256;

/// Asked before any of them is looked at, too: a message may hold hundreds of thousands, and each is compared with all others.
pub fn check_lengths(identifiers: usize, corrections: usize) -> Result<(), FieldError> {
    if identifiers > IDENTIFIERS_MAX {
        return Err(FieldError::new("identifiers", format!("at most {IDENTIFIERS_MAX}")));
    }
    if corrections > CORRECTIONS_MAX {
        return Err(FieldError::new("corrections", format!("at most {CORRECTIONS_MAX}")));
    }
    Ok(())
}

/// All that the subject is known by: what the customer named, and identifiers that a rectification is about to replace.
pub fn known_identifiers(identifiers: &[Identifier], changes: &[IdentifierChange]) -> Vec<Identifier> {
    let mut known = identifiers.to_vec();
    for old in changes.iter().filter_map(|change| change.old.as_ref()) {
        if !known.contains(old) {
            known.push(old.clone());
        }
    }
    known
}

impl NewRequest {
    /// A customer's request with nothing beside: what else there is, is set over it.
    pub const fn plain(action: Action, identifiers: Vec<Identifier>) -> Self {
        Self {
            action,
            identifiers,
            corrections: Vec::new(),
            identifier_changes: Vec::new(),
            restriction_ground: None,
            subject_informed_at: None,
            subject_asked_at: None,
            controller_due_at: None,
            reference: String::new(),
            instruction: InstructionKind::CustomerRequest,
            notices: Vec::new(),
            follow_up: None,
        }
    }

    /// What each action asks for, beside the identifiers' own rules.
    pub fn check(&self, now: Timestamp) -> Result<(), FieldError> {
        if self.identifiers.is_empty() {
            return Err(FieldError::new("identifiers", "at least one is needed"));
        }
        check_lengths(self.identifiers.len(), self.corrections.len())?;
        if self.reference.len() > REFERENCE_BYTES_MAX {
            return Err(FieldError::new("reference", format!("at most {REFERENCE_BYTES_MAX} bytes")));
        }
        let rectifies = self.action == Action::Rectification;
        if rectifies && self.corrections.is_empty() {
            return Err(FieldError::new("corrections", "a rectification says what to correct"));
        }
        if !rectifies && !self.corrections.is_empty() {
            return Err(FieldError::new("corrections", "only a rectification has corrections"));
        }
        let restricts = self.action == Action::Restriction;
        if restricts && self.restriction_ground.is_none() {
            return Err(FieldError::new("restriction_ground", "a restriction needs its ground (Art. 18(1))"));
        }
        if !restricts && self.restriction_ground.is_some() {
            return Err(FieldError::new("restriction_ground", "only a restriction has a ground"));
        }
        match (self.action == Action::LiftRestriction, self.subject_informed_at) {
            (true, None) => {
                let message = "the subject is informed before a restriction is lifted (Art. 18(3))";
                return Err(FieldError::new("subject_informed_time", message));
            }
            (false, Some(_)) => {
                return Err(FieldError::new("subject_informed_time", "only the lifting of a restriction has one"));
            }
            (true, Some(informed)) if informed > now => {
                return Err(FieldError::new("subject_informed_time", "lies in the future"));
            }
            (true, Some(_)) | (false, None) => {}
        }
        if !self.notices.is_empty() && !self.action.concerns_recipients() {
            let message = "recipients are told of rectification, erasure and restriction (Art. 19)";
            return Err(FieldError::new("notify_recipients", message));
        }
        if self.subject_asked_at.is_some_and(|asked| asked > now) {
            return Err(FieldError::new("subject_asked_time", "lies in the future"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [RequestEvent; 7] = [
        RequestEvent::Authorise,
        RequestEvent::Decline,
        RequestEvent::Object,
        RequestEvent::Cancel { ran: false },
        RequestEvent::Cancel { ran: true },
        RequestEvent::Complete { exceptions: 0 },
        RequestEvent::Complete { exceptions: 2 },
    ];

    #[test]
    fn what_is_closed_stays_closed() {
        for state in RequestState::ALL.iter().filter(|s| s.is_closed()) {
            for event in EVENTS {
                assert!(state.on(event).is_err(), "{state} {event:?}");
            }
        }
    }

    #[test]
    fn what_has_run_is_not_cancelled() {
        assert!(RequestState::InProgress.on(RequestEvent::Cancel { ran: true }).is_err());
        assert_eq!(RequestState::InProgress.on(RequestEvent::Cancel { ran: false }), Ok(RequestState::Cancelled));
    }

    #[test]
    fn an_exception_is_never_rounded_up() {
        let state = RequestState::InProgress.on(RequestEvent::Complete { exceptions: 1 });
        assert_eq!(state, Ok(RequestState::CompletedWithExceptions));
    }
}
