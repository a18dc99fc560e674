//! Rows of two people whose last party would go: such a row is not redacted to nothing, it goes as a whole, with what it owns. That is
//! for a find to see, once the other party has been redacted. Here it is told whom this concerns, before anything is changed.
//!
//! Two parties may be of one batch, or of two that run at the same moment: so the rows are locked first, and what they hold then counts.

use std::collections::{HashMap, HashSet};

use quittance_domain::data_map::{Collection, FieldErasure, Mask, RowErasure, SharedRows};

use super::{
    batch::CHUNK,
    erase::{Acting, Share, of_fate, shares},
    failure,
    identify::is_of,
    others::is_mask,
    plan::{CollectionPlan, Plan},
    schema::Column,
    statements::values,
    waiting::{Question, is_another, links_of_others},
    walk::Walk,
};
use crate::{ConnectorError, RowFate};

/// A shared row: which of its identifier columns hold somebody's, and behind them whether its owner is somebody; and what each subject of the batch
/// has in it.
struct Shared {
    held: Vec<bool>,
    parts: HashMap<usize, Part>,
}

/// The places that hold the subject's own, and those that its redaction empties.
struct Part {
    own: Vec<usize>,
    goes: Vec<usize>,
}

impl Shared {
    /// Nobody else is left: a find would say that the row is the subject's alone.
    fn is_left_to(&self, subject: usize) -> bool {
        let own = &self.parts[&subject].own;
        let mut held = (0..self.held.len()).filter(|c| self.held[*c]).peekable();
        held.peek().is_some() && held.all(|c| own.contains(&c))
    }
}

/// Subjects that would leave a shared row to nobody. They are left out of this run as a whole.
pub(super) async fn left_alone(acting: &mut Acting<'_, '_>) -> Result<HashSet<usize>, ConnectorError> {
    let (plan, now) = (acting.plan, acting.ctx.now);
    let mut rows: Vec<Shared> = Vec::new();
    for (at, share) in shares(plan, acting.sets.iter().enumerate())?.iter().enumerate() {
        let map = plan.map_of(at);
        if map.erase == RowErasure::Delete && map.shared == SharedRows::Redact {
            let shared = of_fate(share, RowFate::Redact, now);
            rows.extend(read(acting, at, &shared).await?);
        }
    }
    let mut of: HashMap<usize, Vec<usize>> = HashMap::new();
    for (r, row) in rows.iter().enumerate() {
        row.parts.keys().for_each(|subject| of.entry(*subject).or_default().push(r));
    }
    // In the batch's order: who comes first is redacted, and who is then the last is left for later.
    let mut alone = HashSet::new();
    for subject in 0..acting.subjects.len() {
        let Some(mine) = of.get(&subject) else { continue };
        if mine.iter().any(|r| rows[*r].is_left_to(subject)) {
            alone.insert(subject);
            continue;
        }
        for r in mine {
            let Shared { held, parts } = &mut rows[*r];
            parts[&subject].goes.iter().for_each(|c| held[*c] = false);
        }
    }
    Ok(alone)
}

async fn read(acting: &mut Acting<'_, '_>, at: usize, share: &Share<'_>) -> Result<Vec<Shared>, ConnectorError> {
    if share.is_empty() {
        return Ok(Vec::new());
    }
    let plan = acting.plan;
    let (of, map) = (&plan.collections[at], plan.map_of(at));
    let columns = of.rules.iter().map(|rule| &rule.column).chain(of.links.iter().flat_map(|link| &link.here));
    // Texts may be long: they are read where somebody's part is all of them.
    let rest_of: &[usize] = if share.iter().any(|(_, row)| row.rest) { &of.rest } else { &[] };
    let columns: Vec<&Column> = columns.chain(rest_of.iter().map(|f| &of.fields[*f])).collect();
    let statement = values(plan.dialect, map, of, &columns, false, true);
    let owner = of.rules.len();
    let mut rows: HashMap<&[String], Shared> = HashMap::new();
    let (mut asking, mut questions) = (Vec::new(), Vec::new());
    for batch in acting.keys(at, share, CHUNK) {
        let args = statement.args(acting.ctx.customer_key.as_deref());
        for read in acting.tx.fetch_rows(&statement.sql, args, batch).await.map_err(failure)? {
            let i = usize::try_from(read.i64(0).map_err(failure)?).unwrap_or(usize::MAX);
            let Some((s, row)) = share.get(i) else { continue };
            let tied = read.i64(1).map_err(failure)? == 1;
            let text = |(c, column): (usize, &&Column)| plan.dialect.read(column, &read, 2 + c);
            let mut stored: Vec<Option<String>> =
                columns.iter().enumerate().map(text).collect::<Result<_, _>>().map_err(failure)?;
            let mut links = stored.split_off(owner);
            let rest = links.split_off(links.len() - rest_of.len());
            let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.trim().is_empty());
            let shared = rows.entry(row.key.as_slice()).or_insert_with(|| Shared {
                held: stored.iter().map(filled).chain([false]).collect(),
                parts: HashMap::new(),
            });
            let own = row.rules.iter().map(|r| usize::from(*r)).filter(|r| {
                let kind = map.identifiers.get(*r).map(|rule| rule.kind);
                let text = stored.get(*r).cloned().flatten();
                matches!((kind, text), (Some(kind), Some(text)) if is_of(&of.rules[*r], kind, &acting.subjects[*s], &text))
            });
            let mut own: Vec<usize> = own.collect();
            let mut goes: Vec<usize> = own.iter().flat_map(|r| cleared(plan, at, of, *r)).collect();
            // Without identifiers, as on the day a hold ends, another find would see nothing of it.
            if row.rest && tied && !acting.subjects[*s].identifiers.is_empty() && has_a_rest(map, of, &rest) {
                shared.held[owner] = true;
                own.push(owner);
                goes.push(owner);
            } else if row.via.is_none() && !own.is_empty() {
                for looked_up in links_of_others(plan, at, &row.rules) {
                    let from: usize = of.links[..looked_up.link].iter().map(|link| link.here.len()).sum();
                    let here = &links[from..from + of.links[looked_up.link].here.len()];
                    if let Some(values) = here.iter().cloned().collect() {
                        questions.push(Question { subject: *s, collection: at, link: looked_up.link, values });
                        asking.push((*s, row.key.as_slice()));
                    }
                }
            }
            if !own.is_empty() {
                shared.parts.insert(*s, Part { own, goes });
            }
        }
    }
    if !questions.is_empty() {
        let mut walk = Walk::new(plan, acting.ctx, acting.subjects, &mut *acting.tx, false);
        for (s, set) in acting.sets.iter().enumerate() {
            walk.seed(s, set, |_, _| false);
        }
        let owners = walk.owners(questions, plan.dialect.as_it_stands()).await?;
        for ((s, key), owners) in asking.into_iter().zip(owners) {
            if let Some(shared) = rows.get_mut(key).filter(|_| is_another(plan, &walk.sets[s], &owners)) {
                shared.held[owner] = true;
            }
        }
    }
    Ok(rows.into_values().collect())
}

/// Whether something is left of what no identifier redacts.
fn has_a_rest(map: &Collection, of: &CollectionPlan, stored: &[Option<String>]) -> bool {
    of.rest.iter().zip(stored).any(|(f, text)| {
        let masked = matches!(map.fields[*f].erase, FieldErasure::Mask(_));
        masked && text.as_ref().is_some_and(|text| !is_mask(map, Some(*f), text))
    })
}

/// The identifier columns that hold nothing any more once this rule's part of a row is redacted. What a constant or pseudonym takes the place
/// of still names somebody.
fn cleared(plan: &Plan, at: usize, of: &CollectionPlan, rule: usize) -> Vec<usize> {
    let emptied = |f: usize| plan.map_of(at).fields[f].erase == FieldErasure::Mask(Mask::SetNull);
    let goes = |c: &usize| match of.rules[*c].field {
        Some(f) => of.rules[rule].redacts.contains(&f) && emptied(f),
        None => *c == rule,
    };
    (0..of.rules.len()).filter(goes).collect()
}
