//! What the map calls the subject's, and is somebody else's as well: rows with a second owner, yielded identifiers that others bear too. A person decides.

use std::collections::{HashMap, HashSet};

use quittance_domain::{
    data_map::{Matching, SharedRows},
    identifier::{Identifier, IdentifierKind},
};
use quittance_sql::{Column as Values, Row, Rows};

use super::{
    batch::CHUNK,
    failure,
    identify::is_of,
    plan::Plan,
    seen::Rowset,
    walk::{Walk, index},
};
use crate::{ConnectorError, Subject, SubjectError};

/// Rows that two rows of one collection own, of which only one is the subject's: sender and recipient.
pub(super) fn second_owner(plan: &Plan, set: &Rowset<'_>) -> Option<SubjectError> {
    let mut known: HashSet<(usize, &[usize], Vec<String>)> = HashSet::new();
    let rivals = |at: usize| &plan.collections[at].rivals;
    if plan.collections.iter().all(|c| c.rivals.is_empty()) {
        return None;
    }
    for link in
        (0..plan.collections.len()).flat_map(|at| rivals(at).iter().map(move |r| &plan.collections[at].links[r.link]))
    {
        let owners = set.rows.iter().filter(|row| row.collection == link.owner);
        known.extend(owners.filter_map(|row| {
            Some((link.owner, link.there.as_slice(), row.values(&plan.collections[link.owner], &link.there)?))
        }));
    }
    for row in set.rows.iter().filter(|row| row.fresh && row.stored.is_none() && row.parent.is_some()) {
        let of = &plan.collections[row.collection];
        for rival in &of.rivals {
            let link = &of.links[rival.link];
            let Some(values) = row.values(of, &rival.here) else { continue };
            if !known.contains(&(link.owner, link.there.as_slice(), values)) {
                let (collection, column) = (&plan.map_of(row.collection).name, &link.here[0].name);
                return Some(SubjectError::Other(format!(
                    "a row of collection {collection} has another owner besides, by its {column}: say shared: delete in the map if such rows go \
                     with any of their owners"
                )));
            }
        }
    }
    None
}

/// Per subject, a kind whose yielded identifier stands on other people's rows too: a guest's, a shared account's. What is looked for by it
/// elsewhere would be theirs.
pub(super) async fn yielded_by_others(
    walk: &mut Walk<'_, '_>,
) -> Result<HashMap<usize, IdentifierKind>, ConnectorError> {
    let (plan, subjects) = (walk.plan, walk.subjects);
    let mut found = HashMap::new();
    for (at, of) in plan.collections.iter().enumerate() {
        for (y, statement) in of.statements.yielded.iter().enumerate() {
            let Some(statement) = statement else { continue };
            let rules = &plan.map_of(at).identifiers;
            let kind = plan.map_of(at).yields[y].kind;
            let mut asked: Vec<(usize, String)> = Vec::new();
            for (s, set) in walk.sets.iter().enumerate().filter(|(_, set)| set.error.is_none()) {
                let rows = set.rows.iter().filter(|row| row.collection == at && !row.shared);
                let given = rows.filter_map(|row| row.text(of, of.shape.yields[y]));
                let given = given.filter(|text| is_new(kind, text, &subjects[s]));
                asked.extend(given.map(|text| (s, text.to_owned())));
            }
            asked.sort_unstable();
            asked.dedup();
            for chunk in asked.chunks(CHUNK) {
                let batch = vec![
                    Values::i64s((0..chunk.len()).map(index)),
                    Values::texts(chunk.iter().map(|(_, text)| text.clone())),
                ];
                for row in walk.fetch(statement, Rows::new(batch)).await? {
                    let i = usize::try_from(row.i64(0).map_err(failure)?).unwrap_or(usize::MAX);
                    let Some((s, _)) = chunk.get(i) else { continue };
                    let mut others = false;
                    for (r, rule) in rules.iter().enumerate() {
                        others |= names_others(&row, r, &of.rules[r], rule.kind, &subjects[*s])?;
                    }
                    if others {
                        found.insert(*s, kind);
                    }
                }
            }
        }
    }
    Ok(found)
}

fn is_new(kind: IdentifierKind, text: &str, subject: &Subject) -> bool {
    Identifier::normalise(kind, text).is_ok_and(|identifier| !subject.identifiers.contains(&identifier))
}

/// Of all rows that bear it, the first and the last text in one identifier's column, and how many there are.
fn names_others(
    row: &Row,
    rule: usize,
    plan: &super::plan::RulePlan,
    kind: IdentifierKind,
    subject: &Subject,
) -> Result<bool, ConnectorError> {
    let own = subject.identifiers.iter().filter(|i| i.kind() == kind).count() as i64;
    let at = 1 + 3 * rule;
    // A kind under which the subject is not known here says nothing of whose a row is.
    if own == 0 {
        return Ok(false);
    }
    let texts = [row.opt_text(at + 1).map_err(failure)?, row.opt_text(at + 2).map_err(failure)?];
    let strange = |text: &String| !text.trim().is_empty() && !is_of(plan, kind, subject, text);
    let many = plan.matching != Matching::Digits && row.i64(at).map_err(failure)? > own;
    Ok(many || texts.iter().flatten().any(strange))
}

/// A link whose owner's collection owns the row by another link as well.
pub(super) struct Rival {
    pub link: usize,
    /// Positions in the shape.
    pub here: Vec<usize>,
}

/// The links of a collection that may lead to two people.
pub(super) fn rivals(c: &quittance_domain::data_map::Collection) -> Vec<usize> {
    if c.shared == SharedRows::Delete {
        return Vec::new();
    }
    let owner = |l: usize| &c.owned_by[l].collection;
    let other = |l: usize| (0..c.owned_by.len()).any(|o| o != l && owner(o) == owner(l));
    (0..c.owned_by.len()).filter(|l| *owner(*l) != c.name && other(*l)).collect()
}
