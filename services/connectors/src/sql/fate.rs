//! What erasure will do to each row that was found: held, deleted, masked, redacted, or nothing because nothing is left.

use jiff::{civil::Date, tz::TimeZone};
use quittance_domain::{
    Timestamp,
    action::Action,
    data_map::{FieldErasure, Mask, Retention, RowErasure},
    hold,
};

use super::{
    keepers::KeptByOthers,
    others::tells_parties_apart,
    plan::{CollectionPlan, Plan},
    seen::{Rowset, Seen},
};
use crate::{BatchContext, MatchedRow, RowFate, SubjectError, Via};

/// While it runs, why a row is held.
#[derive(Clone)]
pub(super) struct Held {
    pub until: Timestamp,
    /// The collection whose retention it is.
    pub by: usize,
}

/// Parallel to the rows; `None` where there is nothing to do, or where the row stood in the match set already.
pub(super) fn decide(
    set: &Rowset<'_>,
    plan: &Plan,
    ctx: &BatchContext,
    zone: &TimeZone,
    by_others: Option<&KeptByOthers>,
) -> Result<Vec<Option<MatchedRow>>, SubjectError> {
    let erasure = ctx.action == Action::Erasure;
    let held = if erasure { holds(set, plan, ctx, zone, by_others)? } else { vec![None; set.rows.len()] };
    let mut decided = Vec::with_capacity(set.rows.len());
    for (row, held) in set.rows.iter().zip(held) {
        decided.push(if !row.fresh || row.stored.is_some() {
            None
        } else if erasure {
            erase(set, row, held, plan, ctx, zone)?
        } else {
            let fate = if row.shared { RowFate::Redact } else { RowFate::Mask };
            Some(matched(set, row, fate, row.filled.fields(), plan))
        });
    }
    Ok(decided)
}

fn erase(
    set: &Rowset<'_>,
    row: &Seen<'_>,
    held: Option<Held>,
    plan: &Plan,
    ctx: &BatchContext,
    zone: &TimeZone,
) -> Result<Option<MatchedRow>, SubjectError> {
    let map = plan.map_of(row.collection);
    let of = &plan.collections[row.collection];
    let own = match map.erase {
        _ if row.shared => RowFate::Redact,
        RowErasure::Delete => RowFate::Delete,
        RowErasure::Mask => RowFate::Mask,
    };
    let has_a_part = !row.rest || !row.rules.is_empty() || !of.rest.is_empty() || tells_parties_apart(map);
    if !has_a_part {
        return Err(SubjectError::Other(format!(
            "a row of collection {} is owned by the subject's, and all that it holds names somebody else: it stays as it is. Decide whose it is in the \
             data, and retry; if such rows are to go with their owner, say shared: delete in the map, and retry",
            map.name
        )));
    }
    // To redact it would leave the field behind, neither held nor erased, and nobody would be told.
    let retained = |f: &usize| matches!(map.fields[*f].erase, FieldErasure::Retain(_)) && row.filled.has(*f);
    let (part, _) = redacted(of, &row.rules, row.rest);
    if let Some(field) = part.into_iter().map(usize::from).find(retained).filter(|_| row.shared) {
        return Err(SubjectError::Other(format!(
            "a row of collection {} is the subject's and somebody else's as well, and its field {} is to be retained: it stays as it is. If such \
             rows are the subject's alone, say shared: delete in the map, and retry; otherwise decide in the data",
            map.name, map.fields[field].name
        )));
    }
    // Fetched for what it yields alone.
    if of.leaf && own == RowFate::Mask && todo(map, row).is_empty() {
        return Ok(None);
    }
    if let Some(held) = held {
        let mut kept = matched(set, row, RowFate::Hold, row.filled.fields(), plan);
        kept.held_until = Some(held.until);
        kept.then = Some(own);
        kept.held_by = (held.by != row.collection).then(|| plan.map_of(held.by).name.clone());
        return Ok(Some(kept));
    }
    match own {
        RowFate::Delete => Ok(Some(matched(set, row, own, row.filled.fields(), plan))),
        RowFate::Redact => {
            let (redacts, undeclared) = redacted(of, &row.rules, row.rest);
            let todo = todo(map, row);
            let mine: Vec<u16> = redacts.into_iter().filter(|f| todo.contains(f)).collect();
            Ok((undeclared || !mine.is_empty()).then(|| matched(set, row, own, mine, plan)))
        }
        _ => {
            let mut left = todo(map, row);
            let held = held_fields(row, plan, ctx.now, zone)?;
            left.retain(|f| !held.iter().any(|(h, _)| h == f));
            if left.is_empty() && held.is_empty() {
                return Ok(None);
            }
            left.extend(held.iter().map(|(f, _)| *f));
            left.sort_unstable();
            let mut masked = matched(set, row, own, left, plan);
            masked.held_fields = held;
            Ok(Some(masked))
        }
    }
}

/// The fields that the matched rules redact, with the rest of them where that is the subject's, and whether one of the rules' own columns is in
/// no field.
pub(super) fn redacted(of: &CollectionPlan, rules: &[u16], rest: bool) -> (Vec<u16>, bool) {
    let rules = || rules.iter().filter_map(|r| of.rules.get(usize::from(*r)));
    let rest = of.rest.iter().filter(|_| rest);
    let mut fields: Vec<u16> =
        rules().flat_map(|rule| &rule.redacts).chain(rest).filter_map(|f| u16::try_from(*f).ok()).collect();
    fields.sort_unstable();
    fields.dedup();
    (fields, rules().any(|rule| rule.field.is_none()))
}

/// Fields on which masking still has something to do; retained ones among them, held or not.
fn todo(map: &quittance_domain::data_map::Collection, row: &Seen<'_>) -> Vec<u16> {
    (0..map.fields.len())
        .filter(|f| match &map.fields[*f].erase {
            FieldErasure::Mask(Mask::SetNull) | FieldErasure::Retain(_) => row.filled.has(*f),
            FieldErasure::Mask(Mask::Constant(_) | Mask::Pseudonym) => row.dirty.has(*f),
            FieldErasure::Keep => false,
        })
        .filter_map(|f| u16::try_from(f).ok())
        .collect()
}

fn held_fields(
    row: &Seen<'_>,
    plan: &Plan,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<Vec<(u16, Timestamp)>, SubjectError> {
    let of = &plan.collections[row.collection];
    let map = plan.map_of(row.collection);
    let mut held = Vec::new();
    for (f, anchor) in of.retained.iter().zip(&of.shape.field_anchors) {
        let FieldErasure::Retain(retention) = &map.fields[*f].erase else { continue };
        let index = u16::try_from(*f).unwrap_or(u16::MAX);
        if row.filled.has(*f) {
            let until = until(row.text(of, *anchor), retention, zone, &map.name)?;
            held.extend((until > now).then_some((index, until)));
        }
    }
    Ok(held)
}

/// Per row, its hold: its own, that of any of its owners (what is kept of an order is kept with its lines), or that of something it owns, where it would
/// otherwise be deleted from under it.
fn holds(
    set: &Rowset<'_>,
    plan: &Plan,
    ctx: &BatchContext,
    zone: &TimeZone,
    by_others: Option<&KeptByOthers>,
) -> Result<Vec<Option<Held>>, SubjectError> {
    let mut held: Vec<Option<Held>> = Vec::with_capacity(set.rows.len());
    for row in &set.rows {
        let stored = row.stored.filter(|r| r.fate_at(ctx.now) == RowFate::Hold).and_then(|r| {
            let by = r.held_by.as_deref().and_then(|name| plan.index(name)).unwrap_or(row.collection);
            Some(Held { until: r.held_until?, by })
        });
        let map = plan.map_of(row.collection);
        held.push(match (&map.retain, plan.collections[row.collection].shape.anchor) {
            _ if stored.is_some() || row.stored.is_some() => stored,
            (Some(retention), Some(anchor)) => {
                let until = until(row.text(&plan.collections[row.collection], anchor), retention, zone, &map.name)?;
                (until > ctx.now).then_some(Held { until, by: row.collection })
            }
            _ => None,
        });
    }
    for (at, kept) in by_others.into_iter().flatten() {
        let kept = kept.clone()?;
        if held[*at].as_ref().is_none_or(|held| held.until < kept.until) {
            held[*at] = Some(kept);
        }
    }
    if held.iter().all(Option::is_none) {
        return Ok(held);
    }
    // Down: what an owner is held for, it is held for with all it owns.
    spread(set, &mut held, |at, parent| (parent, at), |_| true);
    // Up, and from there not down again: the owner stays for that one row's sake, not for its other rows'.
    let mut kept = held.clone();
    spread(
        set,
        &mut kept,
        |at, parent| (at, parent),
        |to| plan.map_of(set.rows[to].collection).erase == RowErasure::Delete,
    );
    Ok(kept)
}

/// Hands holds on from row to row, until nothing moves. Ends, because an end only ever moves to a later one of those that there are.
fn spread(
    set: &Rowset<'_>,
    held: &mut [Option<Held>],
    direction: impl Fn(usize, usize) -> (usize, usize),
    may: impl Fn(usize) -> bool,
) {
    let end = |held: &Option<Held>| held.as_ref().map(|held| held.until);
    let mut moved = true;
    while moved {
        moved = false;
        for (at, parent) in set.owned() {
            let (from, to) = direction(at, parent);
            // What a match set says of its rows stands.
            if set.rows[to].stored.is_none() && end(&held[from]) > end(&held[to]) && may(to) {
                held[to] = held[from].clone();
                moved = true;
            }
        }
    }
}

pub(super) fn until(
    anchor: Option<&str>,
    retention: &Retention,
    zone: &TimeZone,
    collection: &str,
) -> Result<Timestamp, SubjectError> {
    let Some(text) = anchor else {
        return Err(SubjectError::Other(format!(
            "a row of collection {collection} has no anchor date in {}",
            retention.anchor
        )));
    };
    let unreadable = || {
        SubjectError::Other(format!(
            "a row of collection {collection} has an anchor in {} that is no date",
            retention.anchor
        ))
    };
    let day = match text.parse::<Timestamp>() {
        Ok(instant) => instant.to_zoned(zone.clone()).date(),
        Err(_) => text.get(..10).and_then(|day| day.parse::<Date>().ok()).ok_or_else(unreadable)?,
    };
    let beyond =
        |_| SubjectError::Other(format!("the retention of a row of collection {collection} ends beyond the calendar"));
    hold::held_until(day, retention).and_then(|last| hold::released_at(last, zone)).map_err(beyond)
}

fn matched(set: &Rowset<'_>, row: &Seen<'_>, fate: RowFate, filled: Vec<u16>, plan: &Plan) -> MatchedRow {
    let of = &plan.collections[row.collection];
    let via = row.parent.and_then(|(parent, link)| {
        let owner = &plan.collections[of.links[link].owner];
        let values = set.rows[parent].values(owner, &of.links[link].there)?;
        Some(Via { link: u16::try_from(link).ok()?, values })
    });
    let mut matched = MatchedRow::new(row.key(of), fate);
    matched.rules.clone_from(&row.rules);
    matched.rest = row.rest;
    matched.filled = filled;
    matched.via = via;
    matched.linked = of.shape.linked.iter().map(|p| row.text(of, *p).map(str::to_owned)).collect();
    matched
}
