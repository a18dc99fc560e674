//! Rectification (Art. 16): only rows of the subject, only the field that is named, only where it holds what the customer says it holds.

use std::collections::{BTreeMap, HashMap, HashSet};

use quittance_domain::{
    action::{Correction, CorrectionTarget},
    outcome::{Outcome, OutcomeKind},
};

use super::{
    batch::CHUNK,
    erase::{Acting, pseudonym},
    failure,
    outcomes::{Tally, line, not_held},
    plan::Plan,
    statements::{values, write},
};
use crate::{BatchContext, ConnectorError, Found, MatchSet, MatchedRow, Subject, SubjectError, SubjectResult};

/// Where a correction leads: collection and field, by position.
type Place = (usize, usize);

/// What a row holds in the field of a correction.
struct Held<'a> {
    row: &'a MatchedRow,
    value: Option<String>,
    /// It is still the subject's by what tied it to the subject when it was found. A corrected identifier may be what did.
    tied: bool,
}

/// By subject and correction.
type Holdings<'a> = HashMap<(usize, usize), Vec<Held<'a>>>;

/// Narrows what was found to the rows that the corrections name.
pub(super) async fn narrow(
    plan: &Plan,
    ctx: &BatchContext,
    subjects: &[Subject],
    tx: &mut quittance_sql::Tx,
    found: Vec<SubjectResult<Found>>,
) -> Result<Vec<SubjectResult<Found>>, ConnectorError> {
    let empty = MatchSet::default();
    let sets: Vec<MatchSet> =
        found.iter().map(|f| f.as_ref().map_or_else(|_| empty.clone(), |f| f.match_set.clone())).collect();
    let mut acting = Acting { plan, ctx, subjects, sets: &sets, tx };
    let holdings = read(&mut acting, false, |_, _| true).await?;
    let mut narrowed = Vec::with_capacity(found.len());
    for (s, found) in found.into_iter().enumerate() {
        narrowed.push(match found {
            Ok(found) => name(plan, &subjects[s], s, found, &holdings),
            error => error,
        });
    }
    Ok(narrowed)
}

fn name(plan: &Plan, subject: &Subject, s: usize, mut found: Found, holdings: &Holdings<'_>) -> SubjectResult<Found> {
    let mut named: HashMap<(usize, Vec<String>), Vec<u16>> = HashMap::new();
    let mut taken: HashSet<(Place, Vec<String>)> = HashSet::new();
    for (c, correction) in subject.corrections.iter().enumerate() {
        let place = place(plan, correction)?;
        let held = holdings.get(&(s, c)).map_or(&[][..], Vec::as_slice);
        for row in targets(correction, held) {
            if !taken.insert((place, row.key.clone())) {
                let message = format!("two corrections name {}.{} of one row", correction.collection, correction.field);
                return Err(SubjectError::Other(message));
            }
            named.entry((place.0, row.key.clone())).or_default().push(u16::try_from(c).unwrap_or(u16::MAX));
        }
    }
    for (collection, rows) in &mut found.match_set.collections {
        let at = plan.index(collection).unwrap_or(usize::MAX);
        rows.retain_mut(|row| {
            let corrections = named.remove(&(at, row.key.clone()));
            row.corrections = corrections.unwrap_or_default();
            !row.corrections.is_empty()
        });
    }
    found.match_set.collections.retain(|_, rows| !rows.is_empty());
    Ok(found)
}

/// The rows that a correction is about, as they stand: those with the old value, or if there are none, those that have the new one already.
fn targets<'a>(correction: &Correction, held: &[Held<'a>]) -> Vec<&'a MatchedRow> {
    let holding =
        |value: &str| held.iter().filter(|h| h.value.as_deref() == Some(value)).map(|h| h.row).collect::<Vec<_>>();
    match &correction.target {
        CorrectionTarget::Replace { old, new } => {
            let old = holding(old);
            if old.is_empty() { holding(new) } else { old }
        }
        CorrectionTarget::Record { key, .. } => held.iter().filter(|h| h.row.key == *key).map(|h| h.row).collect(),
        CorrectionTarget::Append { .. } => held.iter().map(|h| h.row).collect(),
    }
}

fn place(plan: &Plan, correction: &Correction) -> SubjectResult<Place> {
    let Correction { collection, field, target } = correction;
    let refused = |why: &str| SubjectError::Other(format!("{collection}.{field} {why}"));
    let at = plan.index(collection).ok_or_else(|| refused("is not in the map"))?;
    let fields = &plan.map_of(at).fields;
    let f = fields.iter().position(|known| known.name == *field).ok_or_else(|| refused("is not in the map"))?;
    if !fields[f].rectify {
        return Err(refused("cannot be rectified"));
    }
    let new = match target {
        CorrectionTarget::Replace { new, .. } | CorrectionTarget::Record { new, .. } => new,
        CorrectionTarget::Append { statement } => statement,
    };
    // PostgreSQL could not hold it, and SQLite would hold half of it.
    if new.contains('\0') { Err(refused("cannot hold a NUL character")) } else { Ok((at, f)) }
}

/// What the match sets' rows hold, one statement for each field that is corrected anywhere in the batch.
async fn read<'a>(
    acting: &mut Acting<'a, '_>,
    lock: bool,
    about: impl Fn(&MatchedRow, usize) -> bool,
) -> Result<Holdings<'a>, ConnectorError> {
    let (plan, subjects, sets) = (acting.plan, acting.subjects, acting.sets);
    let mut asked: BTreeMap<Place, Vec<(usize, usize, &'a MatchedRow)>> = BTreeMap::new();
    for (s, (subject, set)) in subjects.iter().zip(sets).enumerate() {
        for (c, correction) in subject.corrections.iter().enumerate() {
            let Ok(place) = place(plan, correction) else { continue };
            let rows = set.collections.get(&correction.collection).map_or(&[][..], Vec::as_slice);
            asked.entry(place).or_default().extend(rows.iter().filter(|row| about(row, c)).map(|row| (s, c, row)));
        }
    }
    let mut holdings = Holdings::new();
    for ((at, f), rows) in asked {
        let of = &plan.collections[at];
        let statement = values(plan.dialect, plan.map_of(at), of, &[&of.fields[f]], false, lock);
        let mut batch = acting.batch(at, CHUNK);
        for (i, (s, _, row)) in rows.iter().enumerate() {
            batch.push(i, 0, row, &subjects[*s], pseudonym(&subjects[*s], &sets[*s]));
        }
        // A row with two ties comes twice.
        let mut seen: BTreeMap<usize, Held<'a>> = BTreeMap::new();
        for batch in batch.finish() {
            let args = statement.args(acting.ctx.customer_key.as_deref());
            for read in acting.tx.fetch_rows(&statement.sql, args, batch).await.map_err(failure)? {
                let i = usize::try_from(read.i64(0).map_err(failure)?).unwrap_or(usize::MAX);
                let Some((_, _, row)) = rows.get(i) else { continue };
                let tied = read.i64(1).map_err(failure)? == 1;
                let value = read.opt_text(2).map_err(failure)?;
                seen.entry(i).and_modify(|held| held.tied |= tied).or_insert(Held { row, value, tied });
            }
        }
        for (i, held) in seen {
            let (s, c, _) = rows[i];
            holdings.entry((s, c)).or_default().push(held);
        }
    }
    Ok(holdings)
}

/// What a correction makes of one row.
enum Step {
    Done,
    Write(String),
    /// Not what the correction speaks of.
    Other,
}

fn step(correction: &Correction, held: &Held<'_>) -> Step {
    let value = held.value.as_deref();
    // What holds the new value is done, even where that value was what tied it.
    let (done, write) = match &correction.target {
        CorrectionTarget::Replace { old, new } => {
            (value == Some(new.as_str()), (value == Some(old.as_str())).then(|| new.clone()))
        }
        CorrectionTarget::Record { new, .. } => (value == Some(new.as_str()), Some(new.clone())),
        CorrectionTarget::Append { statement } => {
            let appended =
                |text: &str| if text.is_empty() { statement.clone() } else { format!("{text}\n{statement}") };
            (ends_with(value, statement), Some(value.map_or_else(|| statement.clone(), appended)))
        }
    };
    match write {
        _ if done => Step::Done,
        Some(new) if held.tied => Step::Write(new),
        _ => Step::Other,
    }
}

fn ends_with(value: Option<&str>, statement: &str) -> bool {
    value.is_some_and(|v| v == statement || v.strip_suffix(statement).is_some_and(|before| before.ends_with('\n')))
}

/// All of a subject's corrections, or none of them.
pub(super) async fn act(acting: &mut Acting<'_, '_>) -> Result<Vec<SubjectResult<()>>, ConnectorError> {
    let (plan, subjects, sets) = (acting.plan, acting.subjects, acting.sets);
    let holdings = read(acting, true, |row, c| row.corrections.iter().any(|named| usize::from(*named) == c)).await?;
    let mut writes: BTreeMap<Place, Vec<(usize, &MatchedRow, String)>> = BTreeMap::new();
    let mut results = Vec::with_capacity(subjects.len());
    for (s, subject) in subjects.iter().enumerate() {
        let mut steps = Vec::new();
        let mut result = Ok(());
        for (c, correction) in subject.corrections.iter().enumerate() {
            let place = match place(plan, correction) {
                Ok(place) => place,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            let held = holdings.get(&(s, c)).map_or(&[][..], Vec::as_slice);
            let mut met = false;
            for held in held {
                match step(correction, held) {
                    Step::Done => met = true,
                    Step::Write(new) => {
                        met = true;
                        steps.push((place, s, held.row, new));
                    }
                    Step::Other => {}
                }
            }
            if !met {
                let Correction { collection, field, .. } = correction.clone();
                result = Err(SubjectError::OldValueMismatch { collection, field });
                break;
            }
        }
        if result.is_ok() {
            for (place, s, row, new) in steps {
                writes.entry(place).or_default().push((s, row, new));
            }
        }
        results.push(result);
    }
    for ((at, f), rows) in writes {
        let of = &plan.collections[at];
        let statement = write(plan.dialect, plan.map_of(at), of, &of.fields[f]);
        let mut batch = acting.batch(at, CHUNK);
        for (i, (s, row, new)) in rows.iter().enumerate() {
            // By key alone: one entry a row, whatever ties it has.
            let bare = MatchedRow::new(row.key.clone(), row.fate);
            batch.push_with(i, 0, &bare, &subjects[*s], pseudonym(&subjects[*s], &sets[*s]), Some(new));
        }
        for rows in batch.finish() {
            let args = statement.args(acting.ctx.customer_key.as_deref());
            acting.tx.execute_rows(&statement.sql, args, rows).await.map_err(failure)?;
        }
    }
    Ok(results)
}

pub(super) async fn read_back(acting: &mut Acting<'_, '_>) -> Result<Vec<SubjectResult<Vec<Outcome>>>, ConnectorError> {
    let (plan, ctx, subjects, sets) = (acting.plan, acting.ctx, acting.subjects, acting.sets);
    let named = read(acting, false, |row, c| row.corrections.iter().any(|named| usize::from(*named) == c)).await?;
    // The old value must be gone from rows that have come since, too.
    let again: Vec<MatchSet> = super::find::find(plan, ctx, subjects, acting.tx)
        .await?
        .into_iter()
        .map(|found| found.map(|f| f.match_set).unwrap_or_default())
        .collect();
    let mut later = Acting { plan, ctx, subjects, sets: &again, tx: &mut *acting.tx };
    let now = read(&mut later, false, |_, _| true).await?;
    let mut results = Vec::with_capacity(subjects.len());
    for (s, subject) in subjects.iter().enumerate() {
        if sets[s].is_empty() {
            results.push(Ok(not_held()));
            continue;
        }
        let mut wrong = 0_u64;
        let mut rows: BTreeMap<(usize, &[String]), Vec<usize>> = BTreeMap::new();
        for (c, correction) in subject.corrections.iter().enumerate() {
            let Ok((at, f)) = place(plan, correction) else { continue };
            let held = named.get(&(s, c)).map_or(&[][..], Vec::as_slice);
            let done: Vec<_> = held.iter().filter(|h| matches!(step(correction, h), Step::Done)).collect();
            wrong += u64::from(done.is_empty());
            wrong += held.iter().filter(|h| matches!(step(correction, h), Step::Write(_))).count() as u64;
            if let CorrectionTarget::Replace { old, new } = &correction.target
                && old != new
            {
                let known: HashSet<&[String]> = held.iter().map(|h| h.row.key.as_slice()).collect();
                let now = now.get(&(s, c)).map_or(&[][..], Vec::as_slice);
                let stale = |h: &&Held<'_>| h.value.as_ref() == Some(old) && !known.contains(h.row.key.as_slice());
                wrong += now.iter().filter(stale).count() as u64;
            }
            for held in done {
                rows.entry((at, &held.row.key)).or_default().push(f);
            }
        }
        if wrong > 0 {
            results.push(Err(SubjectError::NotYet { rows: wrong }));
            continue;
        }
        let mut tally = Tally::default();
        for ((at, _), fields) in rows {
            let map = plan.map_of(at);
            let lines = fields.into_iter().map(|f| line(map, &map.fields[f].category, OutcomeKind::Rectified, ""));
            tally.row(lines.map(|line| (line, None)));
        }
        results.push(Ok(tally.outcomes()));
    }
    Ok(results)
}
