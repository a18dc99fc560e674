//! Looking again, in a new transaction: by the match set's keys, by the identifiers, and by what hung on the rows that went (I5).

use std::collections::HashSet;

use quittance_domain::{
    action::Action,
    data_map::{FieldErasure, Mask},
    outcome::{Outcome, OutcomeKind},
};
use quittance_sql::{Engine, Row, Tx};

use super::{
    erase::{Acting, Share, pseudonym, shares},
    failure,
    fate::{decide, fields, redacted},
    find::{pointing, zone},
    identify::is_of,
    outcomes::{self, not_held},
    plan::Plan,
    rectify,
    walk::Walk,
};
use crate::{BatchContext, ConnectorError, MatchSet, MatchedRow, RowFate, Subject, SubjectError, SubjectResult};

pub(super) async fn read_back(
    plan: &Plan,
    ctx: &BatchContext,
    subjects: &[Subject],
    sets: &[MatchSet],
    tx: &mut Tx,
) -> Result<Vec<SubjectResult<Vec<Outcome>>>, ConnectorError> {
    on_primary(tx).await?;
    let mut acting = Acting { plan, ctx, subjects, sets, tx };
    match ctx.action {
        Action::Erasure => erased(&mut acting).await,
        Action::Restriction | Action::LiftRestriction => restricted(&mut acting).await,
        Action::Rectification => rectify::read_back(&mut acting).await,
        Action::Access => Ok(sets.iter().map(|set| Ok(if set.is_empty() { not_held() } else { Vec::new() })).collect()),
    }
}

/// A replica would confirm what it has not heard of yet.
async fn on_primary(tx: &mut Tx) -> Result<(), ConnectorError> {
    if tx.engine() == Engine::Postgres {
        let row = tx.fetch_one("SELECT pg_is_in_recovery()::int::bigint", Vec::new()).await.map_err(failure)?;
        if row.is_none_or(|row| row.i64(0).is_ok_and(|standby| standby != 0)) {
            return Err(ConnectorError::Unavailable("the connection leads to a standby".to_owned()));
        }
    }
    Ok(())
}

/// (subject, collection, key): each row counts once, however it was noticed.
type Left = HashSet<(usize, usize, Vec<String>)>;

async fn erased(acting: &mut Acting<'_, '_>) -> Result<Vec<SubjectResult<Vec<Outcome>>>, ConnectorError> {
    let (plan, ctx, subjects, sets) = (acting.plan, acting.ctx, acting.subjects, acting.sets);
    let zone = zone(ctx)?;
    let mut left = Left::new();
    let mut reused = Left::new();
    let shares = shares(plan, sets.iter().enumerate())?;
    for (at, share) in shares.iter().enumerate() {
        by_key(acting, at, share, &mut left, &mut reused).await?;
    }

    let mut walk = Walk::new(plan, ctx, subjects, acting.tx, true);
    for (subject, set) in sets.iter().enumerate() {
        walk.seed(subject, set, |collection, row| reused.contains(&(subject, collection, row.key.clone())));
    }
    walk.run().await?;
    let decided: Vec<_> =
        walk.sets.iter().map(|set| set.error.clone().map_or_else(|| decide(set, plan, ctx, &zone), Err)).collect();
    for (subject, collection, row) in pointing(&mut walk, &decided).await? {
        left.insert((subject, collection, row.key));
    }
    let mut found = Vec::with_capacity(subjects.len());
    for (s, (set, decided)) in walk.sets.iter().zip(decided).enumerate() {
        let decided = match set.error.clone().map_or(decided, Err) {
            Ok(decided) => decided,
            // More than the guard allows has come in meanwhile: found again, a person is told so.
            Err(SubjectError::TooManyRows { rows, .. }) => {
                found.push(Err(SubjectError::NotYet { rows }));
                continue;
            }
            Err(error) => {
                found.push(Err(error));
                continue;
            }
        };
        for (row, decided) in set.rows.iter().zip(&decided).filter(|(row, _)| row.fresh) {
            // Of a row that the match set holds, only a deleted one has no business here: what a masked one still holds, its key has shown.
            let stands = row.stored.is_some_and(|stored| stored.fate_at(ctx.now) == RowFate::Delete);
            if decided.is_some() || stands {
                left.insert((s, row.collection, row.key(plan.collections[row.collection].key_len())));
            }
        }
        let rows = left.iter().filter(|(subject, ..)| *subject == s).count() as u64;
        found.push(match rows {
            0 if sets[s].is_empty() => Ok(not_held()),
            0 => Ok(outcomes::erased(plan, ctx, &sets[s])),
            rows => Err(SubjectError::NotYet { rows }),
        });
    }
    Ok(found)
}

/// Rows of one collection that are not as they should be, and those whose key is a neighbour's by now.
async fn by_key(acting: &mut Acting<'_, '_>, at: usize, share: &Share<'_>, left: &mut Left, reused: &mut Left) -> Result<(), ConnectorError> {
    let (plan, now) = (acting.plan, acting.ctx.now);
    let asked: Share<'_> = share.iter().filter(|(_, row)| row.fate != RowFate::Unpoint).copied().collect();
    if asked.is_empty() {
        return Ok(());
    }
    let mut batch = acting.batch(at, super::batch::CHUNK);
    for (i, (subject, row)) in asked.iter().enumerate() {
        let wanted = match row.fate_at(now) {
            RowFate::Delete => 0,
            RowFate::Hold => 2,
            RowFate::Mask | RowFate::Redact | RowFate::Unpoint => 1,
        };
        let of = &acting.subjects[*subject];
        batch.push(i, wanted, row, of, pseudonym(of, &acting.sets[*subject]));
    }
    let statement = &plan.collections[at].statements.left;
    for rows in batch.finish() {
        let args = statement.args(acting.ctx.customer_key.as_deref());
        for row in acting.tx.fetch_rows(&statement.sql, args, rows).await.map_err(failure)? {
            let i = usize::try_from(row.i64(0).map_err(failure)?).unwrap_or(usize::MAX);
            let Some((s, matched)) = asked.get(i) else { continue };
            let subject = &acting.subjects[*s];
            let name = pseudonym(subject, &acting.sets[*s]);
            let place = (*s, at, matched.key.clone());
            match Rest::read(plan, at, &row)?.judge(plan, at, matched, subject, name, now) {
                Verdict::Left => left.insert(place),
                Verdict::Neighbours => reused.insert(place),
                Verdict::Fine => true,
            };
        }
    }
    // A row with two ties was asked for once for each: one that holds is enough.
    reused.retain(|place| !left.contains(place));
    Ok(())
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
        let todo: Vec<u64> =
            (2..2 + words).map(|w| row.i64(w).map(i64::cast_unsigned)).collect::<Result<_, _>>().map_err(failure)?;
        let links: usize = of.links.iter().map(|link| link.here.len()).sum();
        let rules = 2 + words..2 + words + of.rules.len();
        let text = |t| row.opt_text(t).map_err(failure);
        Ok(Self {
            tied: row.i64(1).map_err(failure)? == 1,
            todo: fields(&todo),
            links: (rules.end..rules.end + links).map(text).collect::<Result<_, _>>()?,
            identifiers: rules.map(text).collect::<Result<_, _>>()?,
        })
    }

    fn judge(&self, plan: &Plan, at: usize, matched: &MatchedRow, subject: &Subject, pseudonym: &str, now: quittance_domain::Timestamp) -> Verdict {
        let of = &plan.collections[at];
        let map = plan.map_of(at);
        let fate = matched.fate_at(now);
        if fate == RowFate::Redact {
            // Each rule for itself: the other party's columns stay.
            let (fields, _) = redacted(of, &matched.rules);
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
            return if remains && !self.names_another(plan, at, matched, pseudonym) { Verdict::Left } else { Verdict::Fine };
        }
        if self.tied {
            return Verdict::Left;
        }
        if self.names_another(plan, at, matched, pseudonym) { Verdict::Neighbours } else { Verdict::Left }
    }

    /// The columns that made the row the subject's hold something else now, and not what our mask put there.
    fn names_another(&self, plan: &Plan, at: usize, matched: &MatchedRow, pseudonym: &str) -> bool {
        let of = &plan.collections[at];
        let map = plan.map_of(at);
        let by_rule = matched.rules.iter().map(|r| usize::from(*r)).filter(|r| *r < of.rules.len()).any(|r| {
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

/// Restricted, or not any more: every row that the identifiers lead to now, and every row that they led to before.
async fn restricted(acting: &mut Acting<'_, '_>) -> Result<Vec<SubjectResult<Vec<Outcome>>>, ConnectorError> {
    let (plan, ctx, subjects, sets) = (acting.plan, acting.ctx, acting.subjects, acting.sets);
    let lifting = ctx.action == Action::LiftRestriction;
    let again = super::find::find(plan, ctx, subjects, acting.tx).await?;
    let mut union: Vec<SubjectResult<MatchSet>> = Vec::with_capacity(subjects.len());
    for (set, again) in sets.iter().zip(again) {
        union.push(match again {
            Ok(found) => {
                let mut set = set.clone();
                set.absorb(found.match_set);
                Ok(set)
            }
            // By identifiers it was found once; that it cannot be now makes nothing of the match set wrong.
            Err(SubjectError::NoUsableIdentifier) if !set.is_empty() => Ok(set.clone()),
            Err(error) => Err(error),
        });
    }
    let known = union.iter().enumerate().filter_map(|(s, set)| set.as_ref().ok().map(|set| (s, set)));
    let shares = shares(plan, known)?;
    let mut wrong = vec![0_u64; subjects.len()];
    for (at, share) in shares.iter().enumerate() {
        let statements = &plan.collections[at].statements;
        let share: Share<'_> = share.iter().filter(|(_, row)| row.fate != RowFate::Unpoint).copied().collect();
        let Some(statement) = (if lifting { &statements.marked } else { &statements.unmarked }) else {
            share.iter().for_each(|(s, _)| wrong[*s] += 1);
            continue;
        };
        let mut batch = acting.batch(at, super::batch::CHUNK);
        for (i, (s, row)) in share.iter().enumerate() {
            batch.push(i, 0, row, &subjects[*s], pseudonym(&subjects[*s], &sets[*s]));
        }
        let mut seen = HashSet::new();
        for rows in batch.finish() {
            let args = statement.args(ctx.customer_key.as_deref());
            for row in acting.tx.fetch_rows(&statement.sql, args, rows).await.map_err(failure)? {
                let i = usize::try_from(row.i64(0).map_err(failure)?).unwrap_or(usize::MAX);
                if let Some((s, _)) = share.get(i).filter(|_| seen.insert(i)) {
                    wrong[*s] += 1;
                }
            }
        }
    }
    let outcome = if lifting { OutcomeKind::RestrictionLifted } else { OutcomeKind::Restricted };
    let mut found = Vec::with_capacity(subjects.len());
    for (s, set) in union.iter().enumerate() {
        found.push(match set {
            Err(error) => Err(error.clone()),
            Ok(_) if wrong[s] > 0 => Err(SubjectError::NotYet { rows: wrong[s] }),
            Ok(set) if set.is_empty() => Ok(not_held()),
            Ok(set) => {
                let rows = set.collections.iter().filter_map(|(name, rows)| Some((plan.index(name)?, rows)));
                let rows = rows.flat_map(|(at, rows)| rows.iter().map(move |row| (at, row)));
                let rows = rows.filter(|(_, row)| row.fate != RowFate::Unpoint);
                Ok(outcomes::whole(plan, rows.map(|(at, row)| (at, row.filled.as_slice())), outcome))
            }
        });
    }
    Ok(found)
}
