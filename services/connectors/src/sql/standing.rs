//! What the keys of a match set lead to now: nothing any more, the subject's row as it should be or not, or a row of somebody else's.
//!
//! A key that a deletion has freed may be given out again (SQLite does it with rowids at once), and the new row may own rows whose keys were
//! freed with it: to a rerun such a child looks the subject's, for it hangs on the very key that the subject had. So owners are looked at first.

use std::{borrow::Cow, collections::HashSet};

use quittance_domain::{
    Timestamp,
    data_map::{FieldErasure, Mask},
};
use quittance_sql::{Part, Row};

use super::{
    batch::CHUNK,
    erase::{Acting, Share, of_fate, pseudonym, shares},
    failure,
    fate::redacted,
    identify::is_of,
    plan::Plan,
    seen::Bits,
};
use crate::{ConnectorError, MatchSet, MatchedRow, RowFate, Subject};

/// (subject, collection, key): each row counts once, however it was noticed.
pub(super) type Places = HashSet<(usize, usize, Vec<String>)>;

#[derive(Default)]
pub(super) struct Standing {
    /// Not as instructed.
    pub left: Places,
    /// Somebody else's by now.
    pub reused: Places,
}

/// Rows of the match sets whose key, or whose owner's, is somebody else's by now. Only deletion frees keys, and only owners mislead.
pub(super) async fn strangers(acting: &mut Acting<'_, '_>) -> Result<Places, ConnectorError> {
    let (plan, now) = (acting.plan, acting.ctx.now);
    let shares = shares(plan, acting.sets.iter().enumerate())?;
    let owners = shares.iter().enumerate().filter(|(at, _)| !plan.owned[*at].is_empty());
    let gone: Vec<_> = owners.map(|(at, share)| (at, of_fate(share, RowFate::Delete, now))).collect();
    let mut strangers = by_key(acting, &gone).await?.reused;
    if strangers.is_empty() {
        return Ok(strangers);
    }
    let mut owners: HashSet<(usize, usize, Vec<String>)> = HashSet::new();
    // Owners stand first but for rings, and a ring has been through once by its end.
    for (at, share) in shares.iter().enumerate() {
        let of = &plan.collections[at];
        for (s, row) in share {
            let by_owner = row.via.as_ref().filter(|_| row.fate != RowFate::Unpoint).is_some_and(|via| {
                let link = of.links.get(usize::from(via.link));
                link.is_some_and(|link| owners.contains(&(*s, link.owner, via.values.clone())))
            });
            let place = (*s, at, row.key.clone());
            if by_owner {
                strangers.insert(place.clone());
            }
            if strangers.contains(&place) {
                owners.extend(referred(plan, at, row).into_iter().map(|values| (*s, at, values)));
            }
        }
    }
    Ok(strangers)
}

/// The values by which what it owns refers to a row.
fn referred(plan: &Plan, at: usize, row: &MatchedRow) -> Vec<Vec<String>> {
    let of = &plan.collections[at];
    let text = |position: &usize| match row.key.get(*position) {
        Some(key) if *position < of.key_len() => Some(key.clone()),
        _ => of.shape.linked.iter().position(|p| p == position).and_then(|l| row.linked.get(l).cloned().flatten()),
    };
    let links = plan.owned[at].iter().map(|(child, link)| &plan.collections[*child].links[*link]);
    links.filter_map(|link| link.there.iter().map(text).collect()).collect()
}

/// The match sets without the strangers. What an identifier leads to as well is judged by that alone.
pub(super) fn without<'s>(plan: &Plan, sets: &'s [MatchSet], strangers: &Places) -> Cow<'s, [MatchSet]> {
    if strangers.is_empty() {
        return Cow::Borrowed(sets);
    }
    let mut own = sets.to_vec();
    for (s, at, key) in strangers {
        let Some(rows) = own[*s].collections.get_mut(&plan.map_of(*at).name) else { continue };
        rows.retain(|row| row.key != *key || row.fate == RowFate::Unpoint || !row.rules.is_empty());
        rows.iter_mut().filter(|row| row.key == *key && row.fate != RowFate::Unpoint).for_each(|row| row.via = None);
    }
    Cow::Owned(own)
}

/// Rows that are not as they should be, and those whose key is a neighbour's by now; of the given shares, each of one collection.
pub(super) async fn by_key(
    acting: &mut Acting<'_, '_>,
    shares: &[(usize, Share<'_>)],
) -> Result<Standing, ConnectorError> {
    let (plan, now) = (acting.plan, acting.ctx.now);
    let mut asked: Vec<(usize, usize, &MatchedRow)> = Vec::new();
    let mut batches = Vec::with_capacity(shares.len());
    for (at, share) in shares {
        let mut batch = acting.batch(*at, CHUNK);
        for (subject, row) in share.iter().filter(|(_, row)| row.fate != RowFate::Unpoint) {
            let wanted = match row.fate_at(now) {
                RowFate::Delete => 0,
                RowFate::Hold => 2,
                RowFate::Mask | RowFate::Redact | RowFate::Unpoint => 1,
            };
            let of = &acting.subjects[*subject];
            batch.push(asked.len(), wanted, row, of, pseudonym(of, &acting.sets[*subject]));
            asked.push((*subject, *at, row));
        }
        batches.push((&plan.collections[*at].statements.left, batch.finish().into_iter()));
    }
    let mut standing = Standing::default();
    loop {
        let customer = acting.ctx.customer_key.as_deref();
        let parts = batches.iter_mut().filter_map(|(left, rows)| Some(left.part(customer, rows.next()?)));
        let parts: Vec<Part> = parts.collect();
        if parts.iter().all(Part::is_empty) {
            break;
        }
        for row in acting.tx.fetch_together(parts).await.map_err(failure)? {
            let i = usize::try_from(row.i64(0).map_err(failure)?).unwrap_or(usize::MAX);
            let Some((s, at, matched)) = asked.get(i).copied() else { continue };
            let subject = &acting.subjects[s];
            let name = pseudonym(subject, &acting.sets[s]);
            let place = (s, at, matched.key.clone());
            match Rest::read(plan, at, &row)?.judge(plan, at, matched, subject, name, now) {
                Verdict::Left => standing.left.insert(place),
                Verdict::Neighbours => standing.reused.insert(place),
                Verdict::Fine => true,
            };
        }
    }
    // A row with two ties was asked for once for each: one that holds is enough.
    let Standing { left, reused } = &mut standing;
    reused.retain(|place| !left.contains(place));
    Ok(standing)
}

/// What is left of a row.
struct Rest {
    tied: bool,
    todo: Vec<u16>,
    identifiers: Vec<Option<String>>,
    links: Vec<Option<String>>,
}

enum Verdict {
    Left,
    Neighbours,
    Fine,
}

impl Rest {
    fn read(plan: &Plan, at: usize, row: &Row) -> Result<Self, ConnectorError> {
        let of = &plan.collections[at];
        let words = of.shape.words;
        let links: usize = of.links.iter().map(|link| link.here.len()).sum();
        let from = plan.left.texts_at();
        let rules = from..from + of.rules.len();
        let text = |t| row.opt_text(t).map_err(failure);
        Ok(Self {
            tied: row.i64(1).map_err(failure)? == 1,
            todo: Bits::read(row, 2..2 + words)?.fields(),
            links: (rules.end..rules.end + links).map(text).collect::<Result<_, _>>()?,
            identifiers: rules.map(text).collect::<Result<_, _>>()?,
        })
    }

    fn judge(
        &self,
        plan: &Plan,
        at: usize,
        matched: &MatchedRow,
        subject: &Subject,
        pseudonym: &str,
        now: Timestamp,
    ) -> Verdict {
        let of = &plan.collections[at];
        let map = plan.map_of(at);
        let fate = matched.fate_at(now);
        if fate == RowFate::Redact {
            // Each rule for itself: the other party's columns stay.
            let (fields, _) = redacted(of, &matched.rules, matched.rest);
            let mine = |r: &u16| {
                let rule = usize::from(*r);
                let kind = map.identifiers.get(rule).map(|rule| rule.kind);
                let stored = self.identifiers.get(rule).cloned().flatten();
                matches!((kind, stored), (Some(kind), Some(stored)) if is_of(&of.rules[rule], kind, subject, &stored))
            };
            let kept = |r: &u16| {
                let field = of.rules.get(usize::from(*r)).and_then(|rule| rule.field);
                field.is_some_and(|f| matches!(map.fields[f].erase, FieldErasure::Keep | FieldErasure::Retain(_)))
            };
            if matched.rules.iter().any(|r| mine(r) && !kept(r)) {
                return Verdict::Left;
            }
            let remains = self.todo.iter().any(|f| fields.contains(f));
            return if remains && !self.names_another(plan, at, matched, subject, pseudonym) {
                Verdict::Left
            } else {
                Verdict::Fine
            };
        }
        if self.tied {
            return Verdict::Left;
        }
        if self.names_another(plan, at, matched, subject, pseudonym) { Verdict::Neighbours } else { Verdict::Left }
    }

    /// The columns that made the row the subject's hold something else now, and not what our mask put there.
    fn names_another(&self, plan: &Plan, at: usize, matched: &MatchedRow, subject: &Subject, pseudonym: &str) -> bool {
        let of = &plan.collections[at];
        let map = plan.map_of(at);
        // Where a hold has ended nobody knows the identifiers any more: whatever a column holds may be the subject's, and nothing says that it
        // is another's. A person looks.
        let rules = if subject.identifiers.is_empty() { [].as_slice() } else { matched.rules.as_slice() };
        let by_rule = rules.iter().map(|r| usize::from(*r)).filter(|r| *r < of.rules.len()).any(|r| {
            let Some(stored) = self.identifiers.get(r).cloned().flatten() else { return false };
            let erase = of.rules[r].field.map(|f| &map.fields[f].erase);
            match erase {
                Some(FieldErasure::Mask(Mask::Constant(text))) => stored != *text,
                Some(FieldErasure::Mask(Mask::Pseudonym)) => stored != pseudonym,
                _ => true,
            }
        });
        let by_link = matched.via.as_ref().is_some_and(|via| {
            let link = usize::from(via.link);
            let from: usize = of.links.iter().take(link).map(|l| l.here.len()).sum();
            let len = of.links.get(link).map_or(0, |l| l.here.len());
            let now = self.links.get(from..from + len).unwrap_or_default();
            now.iter().all(Option::is_some) && now.iter().flatten().ne(via.values.iter())
        });
        by_rule || by_link
    }
}
