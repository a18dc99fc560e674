//! Erasure: one transaction for the whole batch, a fixed number of statements for each collection.
//!
//! Holds are marked first, then pointers of others are masked, then rows go: what is owned before its owner. Every statement looks at each row's tie
//! again, so what a former run has done already, or what has become somebody else's meanwhile, is left alone.

use std::collections::{BTreeMap, HashSet};

use quittance_domain::{Timestamp, data_map::Table};
use quittance_sql::{Column as Values, Rows, Tx};

use super::{
    alone::left_alone,
    batch::{CHUNK, KeyBatch},
    catalog::cascades_to,
    check::UNSEEN_REFERENCES,
    failure,
    plan::{CollectionPlan, Plan, Statement},
    standing::{strangers, without},
    statements::values,
    walk::index,
};
use crate::{BatchContext, ConnectorError, MatchSet, MatchedRow, RowFate, Subject, SubjectError, SubjectResult};

/// Rows of one collection, each with its subject.
pub(super) type Share<'a> = Vec<(usize, &'a MatchedRow)>;

/// The match sets' rows by collection, in the plan's numbering.
pub(super) fn shares<'a>(
    plan: &Plan,
    sets: impl Iterator<Item = (usize, &'a MatchSet)>,
) -> Result<Vec<Share<'a>>, ConnectorError> {
    let mut shares: Vec<Share<'a>> = vec![Vec::new(); plan.collections.len()];
    for (subject, set) in sets {
        for (name, rows) in &set.collections {
            let at = plan.index(name).ok_or_else(|| {
                ConnectorError::Refused(
                    "a match set names a collection that this version of the map has not".to_owned(),
                )
            })?;
            shares[at].extend(rows.iter().map(|row| (subject, row)));
        }
    }
    Ok(shares)
}

/// The pseudonym as it was fixed when the rows were found.
pub(super) fn pseudonym<'a>(subject: &'a Subject, set: &'a MatchSet) -> &'a str {
    if set.pseudonym.is_empty() { &subject.pseudonym } else { &set.pseudonym }
}

pub(super) struct Acting<'a, 't> {
    pub plan: &'a Plan,
    pub ctx: &'a BatchContext,
    pub subjects: &'a [Subject],
    pub sets: &'a [MatchSet],
    pub tx: &'t mut Tx,
}

impl Acting<'_, '_> {
    pub async fn erase(&mut self) -> Result<Vec<SubjectResult<()>>, ConnectorError> {
        let strangers = strangers(self).await?;
        let own = without(self.plan, self.sets, &strangers);
        let mut acting =
            Acting { plan: self.plan, ctx: self.ctx, subjects: self.subjects, sets: &own, tx: &mut *self.tx };
        let alone = left_alone(&mut acting).await?;
        acting.erase_own(&alone).await?;
        let result = |s| if alone.contains(&s) { Err(SubjectError::FindAgain) } else { Ok(()) };
        Ok((0..self.subjects.len()).map(result).collect())
    }

    async fn erase_own(&mut self, alone: &HashSet<usize>) -> Result<(), ConnectorError> {
        let (plan, now) = (self.plan, self.ctx.now);
        let sets = self.sets.iter().enumerate().filter(|(subject, _)| !alone.contains(subject));
        let shares = shares(plan, sets)?;
        for (at, share) in shares.iter().enumerate() {
            let held = share.iter().filter(|(_, row)| row.holds_something(now)).copied().collect();
            self.run(at, plan.collections[at].statements.mark.as_ref(), &held, CHUNK).await?;
        }
        for (at, share) in shares.iter().enumerate() {
            self.unpoint(at, share).await?;
        }
        for (at, share) in shares.iter().enumerate() {
            let shared = of_fate(share, RowFate::Redact, now);
            for (r, statement) in plan.collections[at].statements.redact.iter().enumerate() {
                let by_rule = |(_, row): &&(usize, &MatchedRow)| row.rules.iter().any(|rule| usize::from(*rule) == r);
                let narrowed: Vec<(usize, MatchedRow)> =
                    shared.iter().filter(by_rule).map(|(s, row)| (*s, tied_by(row, r))).collect();
                let narrowed: Share<'_> = narrowed.iter().map(|(s, row)| (*s, row)).collect();
                self.run(at, statement.as_ref(), &narrowed, CHUNK).await?;
            }
            let owned: Vec<(usize, MatchedRow)> =
                shared.iter().filter(|(_, row)| row.rest).map(|(s, row)| (*s, tied_by_owner(row))).collect();
            let owned: Share<'_> = owned.iter().map(|(s, row)| (*s, row)).collect();
            self.run(at, plan.collections[at].statements.redact_rest.as_ref(), &owned, CHUNK).await?;
        }
        let mut to_go = Vec::with_capacity(shares.len());
        for (at, share) in shares.iter().enumerate() {
            to_go.push(self.still_tied(at, of_fate(share, RowFate::Delete, now)).await?);
        }
        for (at, gone) in to_go.iter().enumerate() {
            self.run(at, plan.collections[at].statements.unlink.as_ref(), gone, CHUNK).await?;
        }
        for ((at, share), gone) in shares.iter().enumerate().zip(&to_go).rev() {
            let of = &plan.collections[at];
            let masked = of_fate(share, RowFate::Mask, now);
            self.run(at, of.statements.mask.as_ref(), &masked, CHUNK).await?;
            // A foreign key from a table to itself is looked at when the statement ends, so it must be one.
            let whole = of.links.iter().any(|link| link.owner == at);
            self.nothing_is_carried_away(at, gone).await?;
            self.run(at, Some(&of.statements.delete), gone, if whole { usize::MAX } else { CHUNK }).await?;
        }
        self.all_was_asked(&to_go).await
    }

    /// Of the tables behind the foreign keys as they were when rows were deleted: none can be added while our change of the table is not committed. The
    /// map may have been compiled before a migration of the application's; then nothing of this is kept, and the next attempt asks of all.
    async fn all_was_asked(&mut self, gone: &[Share<'_>]) -> Result<(), ConnectorError> {
        let plan = self.plan;
        let deleted: Vec<usize> = (0..gone.len()).filter(|at| !gone[*at].is_empty()).collect();
        let tables: Vec<&Table> = deleted.iter().map(|at| &plan.map_of(*at).table).collect();
        let now = cascades_to(self.tx, &tables).await.map_err(failure)?;
        match deleted.into_iter().zip(now).find(|(at, now)| plan.collections[*at].cascades != *now) {
            None => Ok(()),
            Some((at, _)) => Err(ConnectorError::Unavailable(format!(
                "foreign keys to the table of collection {} were added or dropped",
                plan.map_of(at).name
            ))),
        }
    }

    /// Of the rows that are to go, those that are their subjects' before any link is loosened: what has no owner by itself is not taken for one of
    /// them afterwards. Nobody comes at them any more, and no row can be made that refers to them: what a foreign key would take along is known then.
    async fn still_tied<'s>(&mut self, at: usize, gone: Share<'s>) -> Result<Share<'s>, ConnectorError> {
        let plan = self.plan;
        let of = &plan.collections[at];
        if gone.is_empty() || (of.statements.unlink.is_none() && of.statements.carried.is_empty()) {
            return Ok(gone);
        }
        let statement = values(plan.dialect, plan.map_of(at), of, &[], true, true);
        let mut tied = HashSet::new();
        for rows in self.keys(at, &gone, CHUNK) {
            let args = statement.args(self.ctx.customer_key.as_deref());
            for row in self.tx.fetch_rows(&statement.sql, args, rows).await.map_err(failure)? {
                tied.insert(row.i64(0).map_err(failure)?);
            }
        }
        let rows = gone.into_iter().enumerate().filter(|(i, _)| tied.contains(&index(*i)));
        Ok(rows.map(|(_, row)| row).collect())
    }

    /// What else the subject has is gone by now, or loosened. What a foreign key would still take along is held, another customer's, or was never
    /// found: then nothing is deleted.
    async fn nothing_is_carried_away(&mut self, at: usize, gone: &Share<'_>) -> Result<(), ConnectorError> {
        if gone.is_empty() {
            return Ok(());
        }
        let plan = self.plan;
        if plan.collections[at].cascades.others_hidden {
            let name = &plan.map_of(at).name;
            return Err(ConnectorError::Refused(format!("collection {name}: {UNSEEN_REFERENCES}")));
        }
        for (table, statement) in &plan.collections[at].statements.carried {
            for rows in self.keys(at, gone, CHUNK) {
                let args = statement.args(self.ctx.customer_key.as_deref());
                if !self.tx.fetch_rows(&statement.sql, args, rows).await.map_err(failure)?.is_empty() {
                    let name = &plan.map_of(at).name;
                    return Err(ConnectorError::Refused(format!(
                        "deleting from collection {name} would carry rows of {table} away that the data map does not give to the subject"
                    )));
                }
            }
        }
        Ok(())
    }

    /// One statement over these rows of one collection.
    pub async fn run(
        &mut self,
        at: usize,
        statement: Option<&Statement>,
        share: &Share<'_>,
        chunk: usize,
    ) -> Result<(), ConnectorError> {
        let Some(statement) = statement.filter(|_| !share.is_empty()) else { return Ok(()) };
        for rows in self.keys(at, share, chunk) {
            let args = statement.args(self.ctx.customer_key.as_deref());
            self.tx.execute_rows(&statement.sql, args, rows).await.map_err(failure)?;
        }
        Ok(())
    }

    /// These rows of one collection as a statement takes them, numbered as they stand.
    pub fn keys(&self, at: usize, share: &Share<'_>, chunk: usize) -> Vec<Rows> {
        let mut batch = self.batch(at, chunk);
        for (i, (subject, row)) in share.iter().enumerate() {
            let of = &self.subjects[*subject];
            batch.push(i, 0, row, of, pseudonym(of, &self.sets[*subject]));
        }
        batch.finish()
    }

    pub fn batch(&self, at: usize, chunk: usize) -> KeyBatch<'_> {
        let of: &CollectionPlan = &self.plan.collections[at];
        KeyBatch::new(self.plan.dialect.engine, self.plan.map_of(at), of, self.ctx.now, chunk)
    }

    async fn unpoint(&mut self, at: usize, share: &Share<'_>) -> Result<(), ConnectorError> {
        let of = &self.plan.collections[at];
        let mut by_pointer: BTreeMap<usize, Share<'_>> = BTreeMap::new();
        for (subject, row) in share.iter().filter(|(_, row)| row.fate == RowFate::Unpoint) {
            if let Some(via) = &row.via {
                by_pointer.entry(usize::from(via.link)).or_default().push((*subject, row));
            }
        }
        for (pointer, rows) in by_pointer {
            let (Some(link), Some(statement)) = (of.pointers.get(pointer), of.statements.unpoint.get(pointer)) else {
                continue;
            };
            let fits = |row: &MatchedRow| {
                let values = row.via.as_ref().map(|via| via.values.len());
                row.key.len() == of.key_len() && values == Some(link.here.len())
            };
            let rows: Share<'_> = rows.into_iter().filter(|(_, row)| fits(row)).collect();
            for chunk in rows.chunks(CHUNK) {
                let mut columns = vec![Values::i64s((0..chunk.len()).map(index))];
                for k in 0..of.key_len() {
                    columns.push(Values::texts(chunk.iter().map(|(_, row)| row.key[k].clone())));
                }
                for j in 0..link.here.len() {
                    let value = |row: &MatchedRow| row.via.as_ref().map(|via| via.values[j].clone());
                    columns.push(Values::Text(chunk.iter().map(|(_, row)| value(row)).collect()));
                }
                let name = |s: usize| pseudonym(&self.subjects[s], &self.sets[s]).to_owned();
                columns.push(Values::texts(chunk.iter().map(|(s, _)| name(*s))));
                let args = statement.args(self.ctx.customer_key.as_deref());
                self.tx.execute_rows(&statement.sql, args, Rows::new(columns)).await.map_err(failure)?;
            }
        }
        Ok(())
    }
}

pub(super) fn of_fate<'a>(share: &Share<'a>, fate: RowFate, now: Timestamp) -> Share<'a> {
    share.iter().filter(|(_, row)| row.fate_at(now) == fate).copied().collect()
}

/// The row as its owner knows it: whatever it names, what is its owner's goes only while it is that one's.
fn tied_by_owner(row: &MatchedRow) -> MatchedRow {
    MatchedRow { via: row.via.clone(), ..MatchedRow::new(row.key.clone(), row.fate) }
}

/// The row as this one rule knows it: another rule that still matches must not let this rule's columns go.
fn tied_by(row: &MatchedRow, rule: usize) -> MatchedRow {
    let mut narrowed = MatchedRow::new(row.key.clone(), row.fate);
    narrowed.rules = row.rules.iter().copied().filter(|r| usize::from(*r) == rule).collect();
    narrowed.known_by = row.known_by.iter().filter(|(r, _)| usize::from(*r) == rule).cloned().collect();
    narrowed
}
