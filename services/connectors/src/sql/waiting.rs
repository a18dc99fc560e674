//! Rows that identifiers have named, and that may be owned by somebody else: a note about one, by another. They wait until all is known that the
//! subject owns, and are the subject's alone if that leads to them, or if none of their owners is anybody's.

use std::collections::{BTreeMap, HashSet};

use quittance_domain::{
    action::Action,
    data_map::{FieldErasure, Matching},
};
use quittance_sql::{Column as Values, Row, Rows};

use super::{
    batch::CHUNK,
    failure,
    identify::is_of,
    others::{LookedUp, is_mask, may_be_anothers, sharing_counts, texts},
    plan::{CollectionPlan, Plan},
    seen::Rowset,
    walk::{Walk, index},
};
use crate::{ConnectorError, Subject};

/// A row that waits.
pub(super) struct Waiting {
    pub subject: usize,
    pub row: usize,
    /// `None`: not asked yet.
    pub owners: Option<Vec<Owner>>,
}

/// An owner's row, or an owner's owner's.
pub(super) struct Owner {
    collection: usize,
    key: Vec<String>,
    /// It names somebody who is not the subject.
    names: bool,
}

/// A row of a subject's, and the values by which a link names its owner.
pub(super) struct Question {
    pub subject: usize,
    pub collection: usize,
    pub link: usize,
    pub values: Vec<String>,
}

/// What is looked up of an owner.
pub(super) struct OwnersRow {
    pub key: Vec<String>,
    identifiers: Vec<Option<String>>,
    links: Vec<Option<String>>,
    /// An erasure would find something in it.
    unmasked: bool,
    pub anchor: Option<String>,
}

impl OwnersRow {
    pub fn read(row: &Row, of: &CollectionPlan) -> Result<Self, ConnectorError> {
        let identifiers = 1 + of.key_len();
        let links = identifiers + of.rules.len();
        let unmasked = links + of.links.iter().map(|link| link.here.len()).sum::<usize>();
        let several = |places: std::ops::Range<usize>| {
            places.map(|at| row.opt_text(at)).collect::<Result<Vec<_>, _>>().map_err(failure)
        };
        Ok(Self {
            key: texts(row, 1, of.key_len())?,
            identifiers: several(identifiers..links)?,
            links: several(links..unmasked)?,
            unmasked: row.i64(unmasked).map_err(failure)? == 1,
            anchor: of.shape.anchor.map(|_| row.opt_text(unmasked + 1)).transpose().map_err(failure)?.flatten(),
        })
    }

    /// By an identifier that is not the subject's. One that is kept names nobody once the rest is gone.
    fn names_another(&self, plan: &Plan, at: usize, subject: &Subject) -> bool {
        let (of, map) = (&plan.collections[at], plan.map_of(at));
        of.rules.iter().zip(&map.identifiers).zip(&self.identifiers).any(|((rule, named), text)| {
            let Some(text) = text else { return false };
            let telling = match rule.matching {
                Matching::Digits => text.contains(|c: char| c.is_ascii_digit()),
                Matching::Exact | Matching::CaseInsensitive => !text.trim().is_empty(),
            };
            let kept = rule.field.is_some_and(|f| map.fields[f].erase == FieldErasure::Keep);
            telling
                && (self.unmasked || !kept)
                && !is_mask(map, rule.field, text)
                && !is_of(rule, named.kind, subject, text)
        })
    }

    /// By link, the values that name its own owner.
    fn owners<'r>(&'r self, of: &'r CollectionPlan) -> impl Iterator<Item = (usize, Vec<String>)> + 'r {
        let mut from = 0;
        of.links.iter().enumerate().filter_map(move |(l, link)| {
            let here = from..from + link.here.len();
            from = here.end;
            Some((l, self.links[here].iter().cloned().collect::<Option<Vec<String>>>()?))
        })
    }
}

/// The links whose owner may be another than whom these rules have found. Where they found the row by the column of a link, or by what it yields, that
/// is its owner's own name.
pub(super) fn links_of_others<'p>(plan: &'p Plan, at: usize, rules: &[u16]) -> impl Iterator<Item = &'p LookedUp> {
    let (of, map) = (&plan.collections[at], plan.map_of(at));
    let found_by = rules.iter().filter_map(|r| map.identifiers.get(usize::from(*r)));
    let names_owner = |field: &String| !may_be_anothers(map).any(|rule| rule.field == *field);
    let owned = rules.is_empty() || found_by.map(|rule| &rule.field).any(names_owner);
    of.looked_up.iter().filter(move |looked_up| looked_up.shares && !owned)
}

/// Whether one of these owners is somebody else.
pub(super) fn is_another(plan: &Plan, set: &Rowset<'_>, owners: &[Owner]) -> bool {
    owners.iter().any(|owner| match owner.place(plan, set) {
        Some(row) => set.rows[row].shared,
        None => owner.names,
    })
}

impl Owner {
    fn place(&self, plan: &Plan, set: &Rowset<'_>) -> Option<usize> {
        set.position(self.collection, &plan.collections[self.collection], self.key.iter().map(String::as_str))
    }
}

impl Walk<'_, '_> {
    /// What identifiers have named, and what may be owned by somebody else. Nobody looks for what these rows own before it is told whose they are.
    pub fn set_aside(&mut self) {
        let plan = self.plan;
        // A restriction is the same for both.
        if self.ctx.action == Action::Restriction && !self.ctx.resolving {
            return;
        }
        for (subject, set) in self.sets.iter().enumerate().filter(|(_, set)| set.error.is_none()) {
            for (row, seen) in set.rows.iter().enumerate() {
                let named = seen.fresh && seen.stored.is_none() && !seen.shared && !seen.rules.is_empty();
                let of = &plan.collections[seen.collection];
                if named
                    && sharing_counts(plan.map_of(seen.collection), self.ctx.action)
                    && links_of_others(plan, seen.collection, &seen.rules)
                        .any(|looked_up| seen.values(of, &looked_up.here).is_some())
                {
                    self.waiting.push(Waiting { subject, row, owners: None });
                }
            }
        }
        let waiting: HashSet<_> = self.waiting.iter().map(|w| (w.subject, w.row)).collect();
        self.frontier.iter_mut().for_each(|rows| rows.retain(|place| !waiting.contains(place)));
    }

    /// Tells of rows that wait whose they are, as far as can be told by now. Whether any is the subject's alone: then what it owns is to be looked for.
    pub async fn settle(&mut self) -> Result<bool, ConnectorError> {
        self.waiting.retain(|w| self.sets[w.subject].error.is_none());
        if self.waiting.is_empty() {
            return Ok(false);
        }
        let owned = self.owned_alone();
        self.ask_owners(&owned).await?;
        let mut any_alone = false;
        while !self.waiting.is_empty() {
            let waiting: HashSet<_> = self.waiting.iter().map(|w| (w.subject, w.row)).collect();
            let (mut alone, mut another) = (HashSet::new(), HashSet::new());
            for w in &self.waiting {
                let (place, set) = ((w.subject, w.row), &self.sets[w.subject]);
                let owners = w.owners.as_deref().unwrap_or_default();
                let mut places = owners.iter().filter_map(|owner| owner.place(self.plan, set));
                if owned.contains(&place) {
                    alone.insert(place);
                } else if is_another(self.plan, set, owners) {
                    another.insert(place);
                } else if !places.any(|row| row != w.row && waiting.contains(&(w.subject, row))) {
                    alone.insert(place);
                }
            }
            // What these own may lead to others that wait.
            if alone.is_empty() && any_alone {
                break;
            }
            // Rows that own one another, and that nobody else owns.
            if alone.is_empty() && another.is_empty() {
                alone = waiting;
            }
            let told = if alone.is_empty() { &another } else { &alone };
            let (erasure, shared) = (self.ctx.action == Action::Erasure, alone.is_empty());
            for (s, row) in told {
                let seen = &mut self.sets[*s].rows[*row];
                seen.shared = shared;
                if !(self.plan.collections[seen.collection].leaf || erasure && shared) {
                    self.frontier[seen.collection].push((*s, *row));
                }
            }
            self.waiting.retain(|w| !told.contains(&(w.subject, w.row)));
            any_alone |= !shared;
        }
        Ok(any_alone || self.frontier.iter().any(|rows| !rows.is_empty()))
    }

    /// What a row leads to that is the subject's alone.
    fn owned_alone(&self) -> HashSet<(usize, usize)> {
        let waiting: HashSet<_> = self.waiting.iter().map(|w| (w.subject, w.row)).collect();
        let subjects: HashSet<usize> = self.waiting.iter().map(|w| w.subject).collect();
        let alone = |s: usize, owner: usize| !self.sets[s].rows[owner].shared && !waiting.contains(&(s, owner));
        let owned =
            |s: usize| self.sets[s].owned().filter(move |(_, owner)| alone(s, *owner)).map(move |(row, _)| (s, row));
        subjects.into_iter().flat_map(owned).collect()
    }

    async fn ask_owners(&mut self, owned: &HashSet<(usize, usize)>) -> Result<(), ConnectorError> {
        let plan = self.plan;
        let (mut asking, mut questions) = (Vec::new(), Vec::new());
        for (at, w) in self.waiting.iter().enumerate() {
            if w.owners.is_some() || owned.contains(&(w.subject, w.row)) {
                continue;
            }
            let seen = &self.sets[w.subject].rows[w.row];
            let of = &plan.collections[seen.collection];
            for looked_up in links_of_others(plan, seen.collection, &seen.rules) {
                if let Some(values) = seen.values(of, &looked_up.here) {
                    let (subject, collection) = (w.subject, seen.collection);
                    questions.push(Question { subject, collection, link: looked_up.link, values });
                    asking.push(at);
                }
            }
        }
        let found = self.owners(questions, "").await?;
        for (at, owners) in asking.into_iter().zip(found) {
            self.waiting[at].owners.get_or_insert_default().extend(owners);
        }
        Ok(())
    }

    /// Per question, the owners, and theirs as long as they name nobody and are none of the subject's. `lock`: what stands behind the statements.
    pub async fn owners(&mut self, asked: Vec<Question>, lock: &str) -> Result<Vec<Vec<Owner>>, ConnectorError> {
        let plan = self.plan;
        let mut found: Vec<Vec<Owner>> = asked.iter().map(|_| Vec::new()).collect();
        let mut met: HashSet<(usize, usize, Vec<String>)> = HashSet::new();
        let mut open: Vec<(usize, Question)> = asked.into_iter().enumerate().collect();
        while !open.is_empty() {
            let mut by_link: BTreeMap<(usize, usize), Vec<(usize, Question)>> = BTreeMap::new();
            for (q, question) in open.drain(..) {
                let columns = &plan.collections[question.collection].links[question.link].there_columns;
                if columns.iter().zip(&question.values).all(|(c, v)| c.accepts(v)) {
                    by_link.entry((question.collection, question.link)).or_default().push((q, question));
                }
            }
            for ((collection, link), asked) in by_link {
                let of = &plan.collections[collection];
                let (at, owner) = (of.links[link].owner, &plan.collections[of.links[link].owner]);
                let mut statement = of.statements.owners[link].clone();
                statement.sql.push_str(lock);
                for chunk in asked.chunks(CHUNK) {
                    let mut batch = vec![Values::i64s((0..chunk.len()).map(index))];
                    for j in 0..of.links[link].here.len() {
                        batch.push(Values::texts(chunk.iter().map(|(_, question)| question.values[j].clone())));
                    }
                    for row in self.fetch(&statement, Rows::new(batch)).await? {
                        let i = usize::try_from(row.i64(0).map_err(failure)?).unwrap_or(usize::MAX);
                        let Some((q, question)) = chunk.get(i) else { continue };
                        let (s, row) = (question.subject, OwnersRow::read(&row, owner)?);
                        if !met.insert((*q, at, row.key.clone())) {
                            continue;
                        }
                        let names = row.names_another(plan, at, &self.subjects[s]);
                        let one = Owner { collection: at, key: row.key.clone(), names };
                        if !names && one.place(plan, &self.sets[s]).is_none() {
                            open.extend(
                                row.owners(owner)
                                    .map(|(link, values)| (*q, Question { subject: s, collection: at, link, values })),
                            );
                        }
                        found[*q].push(one);
                    }
                }
            }
        }
        Ok(found)
    }
}
