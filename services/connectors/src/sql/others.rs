//! What the map calls the subject's, and is somebody else's as well: rows with a second owner, yielded identifiers that others bear too.

use std::collections::{HashMap, HashSet};

use quittance_domain::{
    action::Action,
    data_map::{Collection, FieldErasure, IdentifierRule, Mask, Matching, SharedRows},
    identifier::{Identifier, IdentifierKind},
};
use quittance_sql::{Column as Values, Row, Rows};

use super::{
    batch::CHUNK,
    failure,
    identify::{PATTERN, is_of, sought_by},
    plan::{LinkPlan, Plan, Statement},
    seen::Rowset,
    waiting::OwnersRow,
    walk::{Walk, index},
};
use crate::{ConnectorError, Subject, SubjectError};

/// How every pseudonym begins.
pub(super) const PSEUDONYM: &str = "anon-";

/// A link whose owner is looked up, where it has not led to the row.
pub(super) struct LookedUp {
    pub link: usize,
    /// The owner's collection owns the row by another link as well: sender and recipient.
    pub is_rival: bool,
    /// The owner is kept for a while, with what hangs on it.
    pub keeps: bool,
    /// Who is named by an identifier of the row may be another than who owns it.
    pub shares: bool,
    /// Positions in the shape.
    pub here: Vec<usize>,
}

/// Whether it matters that a row is somebody else's too. With `shared: delete` an erasure takes it along; the other one's data is no more the
/// subject's to see unmarked or to correct for that, nor the other one's restriction to lift.
pub(super) fn sharing_counts(c: &Collection, action: Action) -> bool {
    c.shared == SharedRows::Redact || matches!(action, Action::Access | Action::Rectification | Action::LiftRestriction)
}

/// It says of more than the identifiers' own columns whose they are.
pub(super) fn tells_parties_apart(c: &Collection) -> bool {
    c.identifiers.iter().any(|rule| rule.redacts.iter().any(|field| *field != rule.field))
}

/// The fields of a row that are its owner's, where it names somebody else: those that no identifier redacts. What holds the row is nobody's.
pub(super) fn owners_part(c: &Collection) -> Vec<usize> {
    let redacted = |field: &String| c.identifiers.iter().any(|rule| rule.redacts.contains(field));
    let links = || c.owned_by.iter().flat_map(|link| &link.fields);
    let holds = |field: &String| {
        c.key.contains(field) || links().any(|(here, _)| here == field) || c.customer_field.as_ref() == Some(field)
    };
    (0..c.fields.len()).filter(|f| !redacted(&c.fields[*f].name) && !holds(&c.fields[*f].name)).collect()
}

/// Columns by which an owned row may name somebody else. What it yields is its owner's own name.
pub(super) fn naming_others(c: &Collection) -> impl Iterator<Item = &IdentifierRule> {
    let others = |rule: &&IdentifierRule| !c.yields.iter().any(|y| y.field == rule.field);
    c.identifiers.iter().filter(|_| !c.owned_by.is_empty()).filter(others)
}

/// Columns by which a row may name somebody who is not its owner: where a link goes by the same one, it names the owner.
pub(super) fn may_be_anothers(c: &Collection) -> impl Iterator<Item = &IdentifierRule> {
    let links = |field: &String| c.owned_by.iter().flat_map(|link| &link.fields).any(|(here, _)| here == field);
    naming_others(c).filter(move |rule| !links(&rule.field))
}

/// The links of a collection that may lead to two people.
pub(super) fn rivals(c: &Collection) -> Vec<usize> {
    let owner = |l: usize| &c.owned_by[l].collection;
    let other = |l: usize| (0..c.owned_by.len()).any(|o| o != l && owner(o) == owner(l));
    (0..c.owned_by.len()).filter(|l| *owner(*l) != c.name && other(*l)).collect()
}

/// Rows by subject.
pub(super) type BySubject = HashMap<usize, HashSet<usize>>;

/// Rows that one of two such links has led to, while the other leads to a row that is not the subject's.
pub(super) async fn second_owners(walk: &mut Walk<'_, '_>) -> Result<BySubject, ConnectorError> {
    let plan = walk.plan;
    let mut found = BySubject::new();
    let counts = |at: usize| sharing_counts(plan.map_of(at), walk.ctx.action);
    for (at, of) in plan.collections.iter().enumerate().filter(|(at, _)| counts(*at)) {
        for rival in of.looked_up.iter().filter(|link| link.is_rival) {
            let statement = &of.statements.owners[rival.link];
            let link = &of.links[rival.link];
            let mut asked: Vec<Asked> = Vec::new();
            for (s, set) in walk.sets.iter().enumerate().filter(|(_, set)| set.error.is_none()) {
                for (r, row) in set.rows.iter().enumerate().filter(|(_, row)| row.collection == at && row.fresh) {
                    // However else it was reached: a link of the same collection's has led to it, and it was another one.
                    let by_another = (0..of.links.len())
                        .any(|l| l != rival.link && of.links[l].owner == link.owner && row.led.has(l));
                    let values = row.values(of, &rival.here).filter(|_| by_another && row.stored.is_none());
                    let values = values.filter(|v| link.there_columns.iter().zip(v).all(|(c, v)| c.accepts(v)));
                    asked.extend(values.map(|values| ((s, r), values)));
                }
            }
            for ((s, r), _) in strange_owners(walk, link, statement, &asked).await? {
                found.entry(s).or_default().insert(r);
            }
        }
    }
    Ok(found)
}

/// A row of a subject's, by subject and place, and the values by which it names an owner.
pub(super) type Asked = ((usize, usize), Vec<String>);

/// Of the owners that these rows name, those that are not the subject's own; with what they are kept from, where they are.
pub(super) async fn strange_owners(
    walk: &mut Walk<'_, '_>,
    link: &LinkPlan,
    statement: &Statement,
    asked: &[Asked],
) -> Result<Vec<((usize, usize), Option<String>)>, ConnectorError> {
    let owner = &walk.plan.collections[link.owner];
    let mut found = Vec::new();
    for chunk in asked.chunks(CHUNK) {
        let mut batch = vec![Values::i64s((0..chunk.len()).map(index))];
        for j in 0..link.here.len() {
            batch.push(Values::texts(chunk.iter().map(|(_, values)| values[j].clone())));
        }
        for row in walk.fetch(statement, Rows::new(batch)).await? {
            let Some(((s, r), _)) = asked_for(&row, chunk)? else { continue };
            let seen = OwnersRow::read(&row, owner)?;
            if walk.sets[*s].position(link.owner, owner, seen.key.iter().map(String::as_str)).is_none() {
                found.push(((*s, *r), seen.anchor));
            }
        }
    }
    Ok(found)
}

pub(super) fn another_owner(plan: &Plan, set: &Rowset<'_>, row: usize) -> SubjectError {
    SubjectError::Other(format!(
        "a row of collection {} has another owner besides, who is not the subject: it stays as it is. Decide whose it is in the data, and retry; if \
         such rows are to go with any of their owners, say shared: delete in the map, and retry",
        plan.map_of(set.rows[row].collection).name
    ))
}

/// Per subject, a kind whose yielded identifier stands on other people's rows too: a guest's, a shared account's. What is looked for by it
/// elsewhere would be theirs.
pub(super) async fn yielded_by_others(
    walk: &mut Walk<'_, '_>,
    doubtful: &BySubject,
) -> Result<HashMap<usize, IdentifierKind>, ConnectorError> {
    let (plan, subjects) = (walk.plan, walk.subjects);
    let mut found = HashMap::new();
    for (at, of) in plan.collections.iter().enumerate() {
        for y in (0..of.statements.yielded.len()).filter(|y| of.statements.yielded[*y].is_some()) {
            let kind = plan.map_of(at).yields[y].kind;
            // Each value once, however many of the batch have it.
            let mut asked: HashMap<String, Vec<usize>> = HashMap::new();
            for (s, set) in walk.sets.iter().enumerate().filter(|(_, set)| set.error.is_none()) {
                let rows = set.rows.iter().enumerate().filter(|(_, row)| row.collection == at && !row.shared);
                let rows = rows.filter(|(row, _)| !doubtful.get(&s).is_some_and(|rows| rows.contains(row)));
                let given: HashSet<&str> = rows.filter_map(|(_, row)| row.text(of, of.shape.yields[y])).collect();
                for text in given.into_iter().flat_map(|text| new(plan, (at, y), kind, text, &subjects[s])) {
                    let who = asked.entry(text).or_default();
                    who.extend((who.last() != Some(&s)).then_some(s));
                }
            }
            let asked: Vec<(String, Vec<usize>)> = asked.into_iter().collect();
            for s in bearers(walk, at, y, &asked).await? {
                found.insert(s, kind);
            }
        }
    }
    Ok(found)
}

/// Those for whom a value stands on a stranger's row.
async fn bearers(
    walk: &mut Walk<'_, '_>,
    at: usize,
    y: usize,
    asked: &[(String, Vec<usize>)],
) -> Result<Vec<usize>, ConnectorError> {
    let (plan, subjects) = (walk.plan, walk.subjects);
    let of = &plan.collections[at];
    let mut found = Vec::new();
    let mut parts: Vec<&[(String, Vec<usize>)]> = asked.chunks(CHUNK).collect();
    while let Some(part) = parts.pop() {
        let Some(statement) = of.statements.yielded[y].as_ref().filter(|_| !part.is_empty()) else { continue };
        let batch =
            vec![Values::i64s((0..part.len()).map(index)), Values::texts(part.iter().map(|(value, _)| value.clone()))];
        let rows = walk.fetch(statement, Rows::new(batch)).await?;
        match part {
            _ if rows.len() <= CHUNK => {}
            // More than one person may have.
            [(_, who)] => {
                found.extend(who);
                continue;
            }
            _ => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([first, second]);
                continue;
            }
        }
        // Whoever has met a stranger's row need not look at the next one.
        let mut open: Vec<Vec<usize>> = part.iter().map(|(_, who)| who.clone()).collect();
        for row in rows {
            let Some(who) = usize::try_from(row.i64(0).map_err(failure)?).ok().and_then(|i| open.get_mut(i)) else {
                continue;
            };
            if who.is_empty() {
                continue;
            }
            let key = texts(&row, 1, of.key_len())?;
            let mut left = Vec::new();
            for s in who.drain(..) {
                let set = &walk.sets[s];
                let own = set.position(at, of, key.iter().map(String::as_str)).is_some();
                if !own && is_strangers(&row, plan, (at, y), (set, &subjects[s]))? {
                    found.push(s);
                } else {
                    left.push(s);
                }
            }
            *who = left;
        }
    }
    Ok(found)
}

/// A row that is not the subject's by its identifiers, and that names somebody by a kind that the subject is known by, or has another owner.
fn is_strangers(
    row: &Row,
    plan: &Plan,
    (at, y): (usize, usize),
    (set, subject): (&Rowset<'_>, &Subject),
) -> Result<bool, ConnectorError> {
    let (of, map) = (&plan.collections[at], plan.map_of(at));
    let mut strange = false;
    for (r, (rule, named)) in of.rules.iter().zip(&map.identifiers).enumerate() {
        let Some(text) = row.opt_text(1 + of.key_len() + r).map_err(failure)? else { continue };
        if is_of(rule, named.kind, subject, &text) {
            return Ok(false);
        }
        let known = subject.identifiers.iter().any(|i| i.kind() == named.kind);
        // The yielded value itself says nothing of whose it is, nor does a blank or what we have put there.
        let telling = match rule.matching {
            Matching::Digits => text.contains(|c: char| c.is_ascii_digit()),
            Matching::Exact | Matching::CaseInsensitive => !text.trim().is_empty(),
        };
        strange |= known && telling && named.field != map.yields[y].field && !is_mask(map, rule.field, &text);
    }
    let mut from = 1 + of.key_len() + of.rules.len();
    for link in &of.links {
        let here = from..from + link.here.len();
        from = here.end;
        let values: Option<Vec<String>> = here.map(|at| row.opt_text(at)).collect::<Result<_, _>>().map_err(failure)?;
        // Of two types, the same one may read differently.
        let Some(values) = values.filter(|_| link.native.iter().all(|native| *native)) else { continue };
        let owner = &plan.collections[link.owner];
        let own = set.rows.iter().filter(|row| row.collection == link.owner);
        strange |= own.filter_map(|row| row.values(owner, &link.there)).all(|there| there != values);
    }
    Ok(strange)
}

/// What an erasure has put there, whoever's it was.
pub(super) fn is_mask(map: &Collection, field: Option<usize>, text: &str) -> bool {
    match field.map(|f| &map.fields[f].erase) {
        Some(FieldErasure::Mask(Mask::Constant(constant))) => text == constant,
        Some(FieldErasure::Mask(Mask::Pseudonym)) => text.starts_with(PSEUDONYM),
        _ => false,
    }
}

/// The texts by which others will look for a yielded value that is not known of the subject yet; none for one that is.
fn new(plan: &Plan, (at, y): (usize, usize), kind: IdentifierKind, text: &str, subject: &Subject) -> Vec<String> {
    let Some((column, matching)) = &plan.collections[at].repeated[y] else { return Vec::new() };
    let Ok(identifier) = Identifier::normalise(kind, text) else { return Vec::new() };
    if subject.identifiers.contains(&identifier) {
        return Vec::new();
    }
    let mut texts = sought_by(plan.dialect.engine, column, *matching, &identifier);
    if texts.iter().any(|text| text.starts_with(PATTERN)) {
        // As it is spelled here; for a pattern the whole table would be read.
        texts = vec![text.to_ascii_lowercase()];
    }
    if *matching == Matching::Exact && !texts.iter().any(|t| t == text) {
        texts.push(text.to_owned());
    }
    texts
}

fn asked_for<'a, T>(row: &Row, chunk: &'a [T]) -> Result<Option<&'a T>, ConnectorError> {
    let i = row.i64(0).map_err(failure)?;
    Ok(usize::try_from(i).ok().and_then(|i| chunk.get(i)))
}

pub(super) fn texts(row: &Row, from: usize, count: usize) -> Result<Vec<String>, ConnectorError> {
    (from..from + count).map(|at| row.text(at)).collect::<Result<_, _>>().map_err(failure)
}
