//! What a subject has in this system, decided and ready to be stored.

use std::collections::{HashMap, HashSet};

use jiff::tz::TimeZone;
use quittance_domain::{action::Action, data_map::FieldErasure, identifier::Identifier, window};
use quittance_sql::{Column as Values, Rows, Tx};

use super::{
    batch::CHUNK,
    fate::decide,
    identify::forms,
    keepers::kept_by_others,
    others::{BySubject, another_owner, second_owners, yielded_by_others},
    plan::Plan,
    seen::Rowset,
    walk::{Walk, index},
};
use crate::{BatchContext, ConnectorError, Found, MatchedRow, RowFate, Subject, SubjectError, SubjectResult, Via};

pub(super) fn zone(ctx: &BatchContext) -> Result<TimeZone, ConnectorError> {
    window::zone(&ctx.time_zone).map_err(|_| ConnectorError::Refused("the agreement's time zone is unknown".to_owned()))
}

pub(super) async fn find(
    plan: &Plan,
    ctx: &BatchContext,
    subjects: &[Subject],
    tx: &mut Tx,
) -> Result<Vec<SubjectResult<Found>>, ConnectorError> {
    let zone = zone(ctx)?;
    let mut walk = Walk::new(plan, ctx, subjects, tx, ctx.action == Action::Erasure);
    for (subject, set) in subjects.iter().zip(&mut walk.sets) {
        if !plan.map.accepts().any(|kind| subject.identifiers.iter().any(|i| i.kind() == kind)) {
            set.error = Some(SubjectError::NoUsableIdentifier);
        }
    }
    walk.run().await?;
    let asked = ctx.resolving || ctx.action != Action::Restriction;
    let two_owners = if asked { second_owners(&mut walk).await? } else { BySubject::new() };
    // What they give away, and what hangs on them, may be the other's.
    let doubtful: BySubject = two_owners.iter().map(|(s, rows)| (*s, walk.sets[*s].with_owned(rows))).collect();
    if matches!(ctx.action, Action::Access | Action::Rectification | Action::LiftRestriction) {
        // Shown, it is marked as a third party's (Art. 15(4)); corrected, it might be the other's that is; and so might the restriction be.
        for (s, rows) in &doubtful {
            for row in rows {
                let row = &mut walk.sets[*s].rows[*row];
                // No column says which of the owners it is about.
                (row.shared, row.rest) = (true, false);
            }
        }
    }
    let others = if ctx.resolving { yielded_by_others(&mut walk, &doubtful).await? } else { HashMap::new() };
    let kept = if ctx.action == Action::Erasure { kept_by_others(&mut walk, &zone).await? } else { HashMap::new() };
    let decided = |(s, set): (usize, &Rowset<'_>)| {
        set.error.clone().map_or_else(|| decide(set, plan, ctx, &zone, kept.get(&s)), Err)
    };
    let mut decided: Vec<SubjectResult<Vec<Option<MatchedRow>>>> = walk.sets.iter().enumerate().map(decided).collect();
    if ctx.action == Action::Erasure {
        for (s, rows) in &two_owners {
            let touched =
                decided[*s].as_ref().ok().and_then(|decided| rows.iter().find(|row| decided[**row].is_some()));
            if let Some(row) = touched {
                decided[*s] = Err(another_owner(plan, &walk.sets[*s], *row));
            }
        }
    }
    let pointing = if ctx.action == Action::Erasure { pointing(&mut walk, &decided).await? } else { Vec::new() };
    let mut found: Vec<SubjectResult<Found>> = Vec::with_capacity(subjects.len());
    for (s, ((set, decided), subject)) in walk.sets.iter().zip(decided.drain(..)).zip(subjects).enumerate() {
        let error = set.error.clone();
        let mut one = error.map_or(decided, Err).map(|decided| {
            let alone = |row: usize| !set.rows[row].shared && !doubtful.get(&s).is_some_and(|rows| rows.contains(&row));
            collect(plan, set, decided, subject, alone)
        });
        if let Ok(one) = &mut one {
            one.yielded_by_others = others.get(&s).copied();
        }
        found.push(one);
    }
    for (subject, collection, row) in pointing {
        if let Ok(found) = &mut found[subject] {
            found.match_set.collections.entry(plan.map_of(collection).name.clone()).or_default().push(row);
        }
    }
    Ok(found)
}

/// `alone`: whether a row is the subject's alone.
fn collect(
    plan: &Plan,
    set: &Rowset<'_>,
    decided: Vec<Option<MatchedRow>>,
    subject: &Subject,
    alone: impl Fn(usize) -> bool,
) -> Found {
    let mut found = Found::default();
    found.match_set.pseudonym.clone_from(&subject.pseudonym);
    for ((at, row), decided) in set.rows.iter().enumerate().zip(decided) {
        let map = plan.map_of(row.collection);
        // What a shared row gives away may be the other's.
        if alone(at) {
            for (y, position) in map.yields.iter().zip(&plan.collections[row.collection].shape.yields) {
                let value = row
                    .text(&plan.collections[row.collection], *position)
                    .and_then(|v| Identifier::normalise(y.kind, v).ok());
                found.yielded.extend(value.filter(|v| !subject.identifiers.contains(v)));
            }
        }
        if let Some(mut matched) = decided {
            matched.known_by = known_by(plan, row.collection, &matched, subject);
            found.match_set.collections.entry(map.name.clone()).or_default().push(matched);
        }
    }
    found.yielded.sort();
    found.yielded.dedup();
    found
}

/// What is left to go by on the day a hold ends, where nothing else is: of columns that stay as they are meanwhile.
fn known_by(plan: &Plan, at: usize, row: &MatchedRow, subject: &Subject) -> Vec<(u16, String)> {
    let of = &plan.collections[at];
    let map = plan.map_of(at);
    let whole = row.fate == RowFate::Hold;
    let nothing_held = !whole && row.held_fields.is_empty();
    if nothing_held || row.via.is_some() || of.marker.is_some() {
        return Vec::new();
    }
    let stays = |r: &usize| match of.rules[*r].field.map(|f| (f, &map.fields[f].erase)) {
        _ if whole => true,
        None | Some((_, FieldErasure::Keep)) => true,
        Some((f, _)) => row.held_fields.iter().any(|(held, _)| usize::from(*held) == f),
    };
    let rules = row.rules.iter().map(|r| usize::from(*r)).filter(|r| *r < of.rules.len()).filter(stays);
    let known = rules.filter_map(|r| Some((r, map.identifiers.get(r)?.kind))).flat_map(|(r, kind)| {
        let forms = forms(plan.dialect.engine, &of.rules[r], kind, subject);
        forms.into_iter().map(move |form| (u16::try_from(r).unwrap_or(u16::MAX), form))
    });
    known.collect()
}

/// Somebody else's rows that point at a row of a subject which goes or is masked.
pub(super) async fn pointing(
    walk: &mut Walk<'_, '_>,
    decided: &[SubjectResult<Vec<Option<MatchedRow>>>],
) -> Result<Vec<(usize, usize, MatchedRow)>, ConnectorError> {
    let plan = walk.plan;
    let mut found = Vec::new();
    let mut met = HashSet::new();
    for target in 0..plan.collections.len() {
        for (collection, at) in &plan.pointing[target] {
            let of = &plan.collections[*collection];
            let pointer = &of.pointers[*at];
            let mut asked: Vec<(usize, Vec<String>)> = Vec::new();
            for (s, set) in walk.sets.iter().enumerate() {
                let Some(Ok(decided)) = decided.get(s).filter(|_| set.error.is_none()) else { continue };
                for (row, decided) in set.rows.iter().zip(decided).filter(|(row, _)| row.collection == target) {
                    let stays = row.shared || fate(row.stored, decided.as_ref(), walk.ctx) == Some(RowFate::Hold);
                    let values = row.values(&plan.collections[target], &pointer.there).filter(|_| !stays);
                    let values = values.filter(|v| pointer.here.iter().zip(v).all(|(c, v)| c.accepts(v)));
                    asked.extend(values.map(|values| (s, values)));
                }
            }
            for chunk in asked.chunks(CHUNK) {
                let mut batch = vec![Values::i64s((0..chunk.len()).map(index))];
                for j in 0..pointer.here.len() {
                    batch.push(Values::texts(chunk.iter().map(|(_, values)| values[j].clone())));
                }
                let rows = walk.fetch(&of.statements.pointers[*at], Rows::new(batch)).await?;
                for row in &rows {
                    let i = row.i64(0).map_err(super::failure)?;
                    let Some((s, values)) = usize::try_from(i).ok().and_then(|i| chunk.get(i)) else { continue };
                    let key: Vec<String> =
                        (1..=of.key_len()).map(|k| row.text(k)).collect::<Result<_, _>>().map_err(super::failure)?;
                    // What goes with the subject, or must stay as it is, needs no masking.
                    let own = walk.sets[*s].position(*collection, of, key.iter().map(String::as_str)).and_then(|row| {
                        let decided = decided[*s].as_ref().ok().and_then(|d| d[row].as_ref());
                        fate(walk.sets[*s].rows[row].stored, decided, walk.ctx)
                    });
                    let again = !met.insert((*s, *collection, *at, key.clone()));
                    if again || matches!(own, Some(RowFate::Delete | RowFate::Hold)) {
                        continue;
                    }
                    let pointer = u16::try_from(*at).unwrap_or(u16::MAX);
                    let mut matched = MatchedRow::new(key, RowFate::Unpoint);
                    matched.rules = vec![pointer];
                    matched.via = Some(Via { link: pointer, values: values.clone() });
                    found.push((*s, *collection, matched));
                }
            }
        }
    }
    Ok(found)
}

fn fate(stored: Option<&MatchedRow>, decided: Option<&MatchedRow>, ctx: &BatchContext) -> Option<RowFate> {
    stored.or(decided).map(|row| row.fate_at(ctx.now))
}
