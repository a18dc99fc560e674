//! Looking again, in a new transaction: by the match set's keys, by the identifiers, and by what hung on the rows that went (I5).

use std::collections::HashSet;

use quittance_domain::{
    action::Action,
    outcome::{Outcome, OutcomeKind},
};
use quittance_sql::Tx;

use super::{
    erase::{Acting, Share, shares},
    failure,
    fate::decide,
    find::{pointing, zone},
    keepers::kept_by_others,
    outcomes::{self, not_held},
    plan::Plan,
    rectify,
    restrict::is_concerned,
    seen::Rowset,
    standing::{Standing, by_key, strangers, without},
    walk::Walk,
};
use crate::{BatchContext, ConnectorError, MatchSet, MatchedRow, RowFate, Subject, SubjectError, SubjectResult};

pub(super) async fn read_back(
    plan: &Plan,
    ctx: &BatchContext,
    subjects: &[Subject],
    sets: &[MatchSet],
    tx: &mut Tx,
) -> Result<Vec<SubjectResult<Vec<Outcome>>>, ConnectorError> {
    let mut acting = Acting { plan, ctx, subjects, sets, tx };
    match ctx.action {
        Action::Erasure => erased(&mut acting).await,
        Action::Restriction | Action::LiftRestriction => restricted(&mut acting).await,
        Action::Rectification => rectify::read_back(&mut acting).await,
        Action::Access => Ok(sets.iter().map(|set| Ok(if set.is_empty() { not_held() } else { Vec::new() })).collect()),
    }
}

async fn erased(acting: &mut Acting<'_, '_>) -> Result<Vec<SubjectResult<Vec<Outcome>>>, ConnectorError> {
    let (plan, ctx, subjects, sets) = (acting.plan, acting.ctx, acting.subjects, acting.sets);
    let zone = zone(ctx)?;
    let strangers = strangers(acting).await?;
    let own = without(plan, sets, &strangers);
    let mut looking = Acting { plan, ctx, subjects, sets: &own, tx: &mut *acting.tx };
    let shares: Vec<_> = shares(plan, own.iter().enumerate())?.into_iter().enumerate().collect();
    let Standing { mut left, reused } = by_key(&mut looking, &shares).await?;

    let mut walk = Walk::new(plan, ctx, subjects, acting.tx, true);
    for (subject, set) in own.iter().enumerate() {
        walk.seed(subject, set, |collection, row| reused.contains(&(subject, collection, row.key.clone())));
    }
    walk.run().await?;
    let kept = kept_by_others(&mut walk, &zone).await?;
    let decided = |(s, set): (usize, &Rowset<'_>)| {
        set.error.clone().map_or_else(|| decide(set, plan, ctx, &zone, kept.get(&s)), Err)
    };
    let decided: Vec<_> = walk.sets.iter().enumerate().map(decided).collect();
    for (subject, collection, row) in pointing(&mut walk, &decided).await? {
        left.insert((subject, collection, row.key));
    }
    let mut found = Vec::with_capacity(subjects.len());
    for (s, (set, decided)) in walk.sets.iter().zip(decided).enumerate() {
        let decided = match set.error.clone().map_or(decided, Err) {
            Ok(decided) => decided,
            // More than the guard allows has come in meanwhile: found again, a person is told so.
            Err(SubjectError::TooManyRows { rows, .. }) => {
                found.push(Err(SubjectError::NotYet { rows }));
                continue;
            }
            Err(error) => {
                found.push(Err(error));
                continue;
            }
        };
        for (row, decided) in set.rows.iter().zip(&decided).filter(|(row, _)| row.fresh) {
            // Of a row that the match set holds, only a deleted one has no business here: what a masked one still holds, its key has shown.
            let stands = row.stored.is_some_and(|stored| stored.fate_at(ctx.now) == RowFate::Delete);
            if decided.is_some() || stands {
                left.insert((s, row.collection, row.key(&plan.collections[row.collection])));
            }
        }
        let rows = left.iter().filter(|(subject, ..)| *subject == s).count() as u64;
        found.push(match rows {
            0 if sets[s].is_empty() => Ok(not_held()),
            0 => Ok(outcomes::erased(plan, ctx, &sets[s])),
            rows => Err(SubjectError::NotYet { rows }),
        });
    }
    Ok(found)
}

/// Restricted, or not any more: every row that the identifiers lead to now, and every row that they led to before.
async fn restricted(acting: &mut Acting<'_, '_>) -> Result<Vec<SubjectResult<Vec<Outcome>>>, ConnectorError> {
    let (plan, ctx, subjects, sets) = (acting.plan, acting.ctx, acting.subjects, acting.sets);
    let lifting = ctx.action == Action::LiftRestriction;
    let concerned = |row: &MatchedRow| is_concerned(row, ctx);
    let again = super::find::find(plan, ctx, subjects, acting.tx).await?;
    let mut union: Vec<SubjectResult<MatchSet>> = Vec::with_capacity(subjects.len());
    for (set, again) in sets.iter().zip(again) {
        union.push(match again {
            Ok(found) => {
                let mut set = set.clone();
                let _ = set.absorb(found.match_set);
                Ok(set)
            }
            // By identifiers it was found once; that it cannot be now makes nothing of the match set wrong.
            Err(SubjectError::NoUsableIdentifier) if !set.is_empty() => Ok(set.clone()),
            Err(error) => Err(error),
        });
    }
    let known = union.iter().enumerate().filter_map(|(s, set)| set.as_ref().ok().map(|set| (s, set)));
    let shares = shares(plan, known)?;
    let mut wrong = vec![0_u64; subjects.len()];
    for (at, share) in shares.iter().enumerate() {
        let statements = &plan.collections[at].statements;
        let share: Share<'_> = share.iter().filter(|(_, row)| concerned(row)).copied().collect();
        let Some(statement) = (if lifting { &statements.marked } else { &statements.unmarked }) else {
            share.iter().for_each(|(s, _)| wrong[*s] += 1);
            continue;
        };
        let mut seen = HashSet::new();
        for rows in acting.keys(at, &share, super::batch::CHUNK) {
            let args = statement.args(ctx.customer_key.as_deref());
            for row in acting.tx.fetch_rows(&statement.sql, args, rows).await.map_err(failure)? {
                let i = usize::try_from(row.i64(0).map_err(failure)?).unwrap_or(usize::MAX);
                if let Some((s, _)) = share.get(i).filter(|_| seen.insert(i)) {
                    wrong[*s] += 1;
                }
            }
        }
    }
    let outcome = if lifting { OutcomeKind::RestrictionLifted } else { OutcomeKind::Restricted };
    let mut found = Vec::with_capacity(subjects.len());
    for (s, set) in union.iter().enumerate() {
        found.push(match set {
            Err(error) => Err(error.clone()),
            Ok(_) if wrong[s] > 0 => Err(SubjectError::NotYet { rows: wrong[s] }),
            Ok(set) if set.is_empty() => Ok(not_held()),
            Ok(set) => {
                let rows = set.collections.iter().filter_map(|(name, rows)| Some((plan.index(name)?, rows)));
                let rows = rows.flat_map(|(at, rows)| rows.iter().map(move |row| (at, row)));
                let rows = rows.filter(|(_, row)| concerned(row));
                Ok(outcomes::whole(plan, rows.map(|(at, row)| (at, row.filled.as_slice())), outcome))
            }
        });
    }
    Ok(found)
}
