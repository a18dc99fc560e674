//! Restriction (Art. 18) and its lifting: the marker of every row of the subject.

use super::{
    batch::CHUNK,
    erase::{Acting, Share, shares},
};
use crate::{ConnectorError, RowFate, SubjectError, SubjectResult};

/// Sets or clears the marker. A subject with rows that have none is left alone as a whole.
pub(super) async fn mark(acting: &mut Acting<'_, '_>, set: bool) -> Result<Vec<SubjectResult<()>>, ConnectorError> {
    let (plan, sets) = (acting.plan, acting.sets);
    let mut results: Vec<SubjectResult<()>> = vec![Ok(()); sets.len()];
    let shares = shares(plan, sets.iter().enumerate())?;
    let own = |share: &Share<'_>| share.iter().any(|(_, row)| row.fate != RowFate::Unpoint);
    for (at, share) in shares.iter().enumerate().filter(|(_, share)| own(share)) {
        if plan.collections[at].marker.is_none() {
            for (s, _) in share {
                results[*s] = Err(SubjectError::CannotRestrict { collection: plan.map_of(at).name.clone() });
            }
        }
    }
    for (at, share) in shares.iter().enumerate() {
        let share: Share<'_> =
            share.iter().filter(|(s, row)| results[*s].is_ok() && row.fate != RowFate::Unpoint).copied().collect();
        let statements = &plan.collections[at].statements;
        let statement = if set { statements.mark.as_ref() } else { statements.unmark.as_ref() };
        acting.run(at, statement, &share, CHUNK).await?;
    }
    Ok(results)
}
