//! Restriction (Art. 18) and its lifting: the marker of every row of the subject. A row that is somebody else's too has one marker for both.

use quittance_domain::action::Action;

use super::{
    batch::CHUNK,
    erase::{Acting, Share, shares},
};
use crate::{BatchContext, ConnectorError, MatchSet, MatchedRow, RowFate, SubjectError, SubjectResult};

/// Whether a row's marker is to be set, or cleared where a restriction is lifted. That of two people's row stays as long as it may be the
/// other's restriction that it says, and that of a row that an erasure holds as long as it is held.
pub(super) fn is_concerned(row: &MatchedRow, ctx: &BatchContext) -> bool {
    let lifting = ctx.action == Action::LiftRestriction;
    match row.fate {
        RowFate::Unpoint => false,
        RowFate::Redact => !(lifting && ctx.others_restricted),
        RowFate::Hold => !lifting,
        RowFate::Delete | RowFate::Mask => true,
    }
}

/// Sets or clears the marker. A subject with rows that have none is left alone as a whole.
pub(super) async fn mark(acting: &mut Acting<'_, '_>, set: bool) -> Result<Vec<SubjectResult<()>>, ConnectorError> {
    let (plan, sets, ctx) = (acting.plan, acting.sets, acting.ctx);
    let mut results: Vec<SubjectResult<()>> = sets.iter().map(|of| none_concerned(of, ctx)).collect();
    let mut shares = shares(plan, sets.iter().enumerate())?;
    for (at, share) in shares.iter_mut().enumerate() {
        share.retain(|(_, row)| is_concerned(row, ctx));
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
fn none_concerned(set: &MatchSet, ctx: &BatchContext) -> SubjectResult<()> {
    let mut rows = set.collections.values().flatten().filter(|row| row.fate != RowFate::Unpoint).peekable();
    if rows.peek().is_none() || rows.any(|row| is_concerned(row, ctx)) {
        return Ok(());
    }
    Err(SubjectError::Other(
        "all that is there is held by an erasure, or is somebody else's too while other people's restrictions stand: it stays restricted. Retry when \
         the hold has ended or the others are lifted, or lift what is not held in the data and resolve the task"
            .to_owned(),
    ))
}
