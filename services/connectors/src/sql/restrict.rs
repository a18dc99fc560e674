//! Restriction (Art. 18) and its lifting: the marker of every row of the subject. Lifting leaves what may be restricted for another reason: what is
//! held is (decision 0004), and of a row that is somebody else's too nobody can see here whose restriction it is.

use quittance_domain::Timestamp;

use super::{
    batch::CHUNK,
    erase::{Acting, Share, shares},
};
use crate::{ConnectorError, MatchSet, MatchedRow, RowFate, SubjectError, SubjectResult};

/// Whether a row's marker is to be set, or cleared where a restriction is lifted.
pub(super) fn is_concerned(row: &MatchedRow, lifting: bool, now: Timestamp) -> bool {
    match row.fate {
        RowFate::Unpoint => false,
        RowFate::Redact => !lifting,
        _ => !(lifting && row.holds_something(now)),
    }
}

/// Sets or clears the marker. A subject with rows that have none is left alone as a whole.
pub(super) async fn mark(acting: &mut Acting<'_, '_>, set: bool) -> Result<Vec<SubjectResult<()>>, ConnectorError> {
    let (plan, sets, now) = (acting.plan, acting.sets, acting.ctx.now);
    let mut results: Vec<SubjectResult<()>> = sets.iter().map(|of| none_concerned(of, !set, now)).collect();
    let mut shares = shares(plan, sets.iter().enumerate())?;
    for (at, share) in shares.iter_mut().enumerate() {
        share.retain(|(_, row)| is_concerned(row, !set, now));
        if plan.collections[at].marker.is_none() {
            for (s, _) in share {
                results[*s] = Err(SubjectError::CannotRestrict { collection: plan.map_of(at).name.clone() });
            }
        }
    }
    for (at, share) in shares.iter().enumerate() {
        let share: Share<'_> = share.iter().filter(|(s, _)| results[*s].is_ok()).copied().collect();
        let statements = &plan.collections[at].statements;
        let statement = if set { statements.mark.as_ref() } else { statements.unmark.as_ref() };
        acting.run(at, statement, &share, CHUNK).await?;
    }
    Ok(results)
}

/// What is there is all to stay as it is: nobody is told that something was lifted.
fn none_concerned(set: &MatchSet, lifting: bool, now: Timestamp) -> SubjectResult<()> {
    let mut rows = set.collections.values().flatten().filter(|row| row.fate != RowFate::Unpoint).peekable();
    if rows.peek().is_none() || rows.any(|row| is_concerned(row, lifting, now)) {
        return Ok(());
    }
    Err(SubjectError::Other(
        "all that is there stays restricted: it is held, or somebody else's too. If it is to be lifted, do so in the data".to_owned(),
    ))
}
