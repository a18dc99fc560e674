//! What a worker or an operator states for a task, as the confirmation that it becomes.

use jiff::Timestamp;
use quittance_domain::{
    CLOCKS_APART_MAX,
    outcome::{Confirmation, Evidence, EvidenceKind, Outcome, OutcomeKind},
    system::System,
};
use quittance_store::Instructed;

use crate::error::{ApiError, ApiResult};

pub struct Stated {
    pub outcomes: Vec<Outcome>,
    pub evidence: Evidence,
    /// The principal that states it.
    pub by: String,
}

/// Refuses what says more than is known (I5). `path` is that of the message it came in, with a dot behind it; empty for the request itself.
pub fn confirmation(
    system: &System,
    instructed: Instructed,
    stated: Stated,
    now: Timestamp,
    path: &str,
) -> ApiResult<Confirmation> {
    let Stated { outcomes, evidence, by } = stated;
    if let Some(i) = outcomes.iter().position(|o| o.until.is_some_and(|until| until <= now)) {
        return Err(ApiError::field(format!("{path}outcomes[{i}].until"), "has passed: say what is so now"));
    }
    let anything_done = outcomes.iter().any(|o| o.outcome != OutcomeKind::Unconfirmed);
    // A rule of retention may be older than the instruction that it answers; what a system says of its data may not. What is said now is never
    // too early, whichever of our clocks dated the request.
    let early = evidence.at < now && instructed.at.duration_since(evidence.at) > CLOCKS_APART_MAX;
    if early && anything_done && evidence.kind != EvidenceKind::RetentionExpiry {
        return Err(ApiError::field(
            format!("{path}evidence.time"),
            "is before the request came: say what is so since",
        ));
    }
    let confirmation = Confirmation {
        system: system.id.clone(),
        backups_expire_at: system.backups_expire_at(&outcomes, now),
        outcomes,
        evidence,
        by,
        confirmed_at: now,
    };
    let checked = confirmation.check(instructed.action).and_then(|()| confirmation.check_role(system.role));
    let checked = checked.and_then(|()| confirmation.check_consistent()).and_then(|()| confirmation.check_named());
    checked.map_err(|e| ApiError::field(format!("{path}{}", e.field()), e))?;
    Ok(confirmation)
}
