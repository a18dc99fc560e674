//! From a match set that was carried out to the lines of a confirmation.

use std::collections::{BTreeMap, BTreeSet};

use quittance_domain::{
    Timestamp,
    data_map::{Collection, FieldErasure, Mask},
    outcome::{Grade, Outcome, OutcomeKind},
};

use super::{fate::redacted, plan::Plan};
use crate::{BatchContext, MatchSet, MatchedRow, RowFate};

/// Where no mapped field of a row held anything, or where there was no row.
pub(super) const ANY: &str = "*";

/// What tells one line from another: collection, category, outcome, basis.
type Line = (String, String, OutcomeKind, String);

/// Adds rows up.
#[derive(Default)]
pub(super) struct Tally(BTreeMap<Line, (u64, Option<Timestamp>)>);

impl Tally {
    /// One row; each line counts it once, however many of its fields are of the category.
    pub fn row(&mut self, lines: impl IntoIterator<Item = (Line, Option<Timestamp>)>) {
        self.rows(lines, 1);
    }

    fn rows(&mut self, lines: impl IntoIterator<Item = (Line, Option<Timestamp>)>, rows: usize) {
        let mut once: BTreeMap<Line, Option<Timestamp>> = BTreeMap::new();
        for (line, until) in lines {
            let latest = once.entry(line).or_default();
            *latest = (*latest).max(until);
        }
        for (line, until) in once {
            let (count, latest) = self.0.entry(line).or_default();
            *count += rows as u64;
            *latest = (*latest).max(until);
        }
    }

    pub fn outcomes(self) -> Vec<Outcome> {
        let grade = |kind| if kind == OutcomeKind::Retained { Grade::RetainedUntil } else { Grade::Verified };
        self.0
            .into_iter()
            .map(|((collection, category, outcome, basis), (count, until))| Outcome {
                collection,
                category,
                outcome,
                grade: grade(outcome),
                count,
                basis,
                until,
            })
            .collect()
    }
}

/// Looked for, by every identifier that the system accepts, and not there.
pub(super) fn not_held() -> Vec<Outcome> {
    vec![Outcome {
        collection: ANY.to_owned(),
        category: ANY.to_owned(),
        outcome: OutcomeKind::NotHeld,
        grade: Grade::Verified,
        count: 0,
        basis: String::new(),
        until: None,
    }]
}

pub(super) fn erased(plan: &Plan, ctx: &BatchContext, set: &MatchSet) -> Vec<Outcome> {
    let mut tally = Tally::default();
    for (name, rows) in &set.collections {
        let Some(at) = plan.index(name) else { continue };
        // Most rows of one collection are like the one before.
        for alike in rows.chunk_by(alike) {
            tally.rows(row_erased(plan, at, &alike[0], ctx.now), alike.len());
        }
    }
    tally.outcomes()
}

/// Whether two rows say the same in a confirmation.
fn alike(a: &MatchedRow, b: &MatchedRow) -> bool {
    let said = |row: &MatchedRow| (row.fate, row.then, row.held_until);
    said(a) == said(b)
        && a.filled == b.filled
        && a.rules == b.rules
        && a.rest == b.rest
        && a.held_fields == b.held_fields
        && a.held_by == b.held_by
}

fn row_erased(plan: &Plan, at: usize, row: &MatchedRow, now: Timestamp) -> Vec<(Line, Option<Timestamp>)> {
    let map = plan.map_of(at);
    let filled = || row.filled.iter().filter_map(|f| map.fields.get(usize::from(*f)).map(|field| (*f, field)));
    let mut lines: Vec<(Line, Option<Timestamp>)> = Vec::new();
    match row.fate_at(now) {
        RowFate::Delete => {
            let categories: BTreeSet<&str> = filled().map(|(_, field)| field.category.as_str()).collect();
            lines.extend(categories.into_iter().map(|c| (line(map, c, OutcomeKind::Erased, ""), None)));
            if lines.is_empty() {
                lines.push((line(map, ANY, OutcomeKind::Erased, ""), None));
            }
        }
        RowFate::Mask => {
            for (f, field) in filled() {
                let held = row.held_fields.iter().find(|(h, until)| *h == f && *until > now);
                match (&field.erase, held) {
                    (FieldErasure::Retain(retention), Some((_, until))) => {
                        lines
                            .push((line(map, &field.category, OutcomeKind::Retained, &retention.ground), Some(*until)));
                    }
                    (FieldErasure::Retain(_), None) => {
                        lines.push((line(map, &field.category, OutcomeKind::Erased, ""), None))
                    }
                    (FieldErasure::Mask(mask), _) => lines.push((line(map, &field.category, done(mask), ""), None)),
                    (FieldErasure::Keep, _) => {}
                }
            }
        }
        RowFate::Redact => {
            let (fields, undeclared) = redacted(&plan.collections[at], &row.rules, row.rest);
            for (_, field) in filled().filter(|(f, _)| fields.contains(f)) {
                if let FieldErasure::Mask(mask) = &field.erase {
                    lines.push((line(map, &field.category, done(mask), ""), None));
                }
            }
            if undeclared && lines.is_empty() {
                lines.push((line(map, ANY, OutcomeKind::Erased, ""), None));
            }
        }
        RowFate::Unpoint => {
            for pointer in row.rules.iter().filter_map(|p| map.points_at.get(usize::from(*p))) {
                lines.push((line(map, &pointer.category, done(&pointer.mask), ""), None));
            }
        }
        RowFate::Hold => {
            let by = row.held_by.as_deref().and_then(|name| plan.map.collection(name)).unwrap_or(map);
            let ground = by.retain.as_ref().map_or("", |retain| retain.ground.as_str());
            let categories: BTreeSet<&str> = filled().map(|(_, field)| field.category.as_str()).collect();
            let held = |category: &str| (line(map, category, OutcomeKind::Retained, ground), row.held_until);
            lines.extend(categories.iter().map(|category| held(category)));
            if lines.is_empty() {
                lines.push(held(ANY));
            }
        }
    }
    lines
}

/// The same outcome for all that each row held.
pub(super) fn whole<'r>(
    plan: &Plan,
    rows: impl Iterator<Item = (usize, &'r [u16])>,
    outcome: OutcomeKind,
) -> Vec<Outcome> {
    let mut tally = Tally::default();
    for (at, filled) in rows {
        let map = plan.map_of(at);
        let mut categories: BTreeSet<&str> = filled
            .iter()
            .filter_map(|f| map.fields.get(usize::from(*f)))
            .map(|field| field.category.as_str())
            .collect();
        if categories.is_empty() {
            categories.insert(ANY);
        }
        tally.row(categories.into_iter().map(|category| (line(map, category, outcome, ""), None)));
    }
    tally.outcomes()
}

pub(super) fn line(map: &Collection, category: &str, outcome: OutcomeKind, basis: &str) -> Line {
    (map.name.clone(), category.to_owned(), outcome, basis.to_owned())
}

const fn done(mask: &Mask) -> OutcomeKind {
    match mask {
        Mask::Pseudonym => OutcomeKind::Pseudonymised,
        Mask::SetNull | Mask::Constant(_) => OutcomeKind::Erased,
    }
}
