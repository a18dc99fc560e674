//! Access (Art. 15): the mapped fields of a match set's rows, a page at a time.

use std::collections::HashSet;

use quittance_domain::outcome::OutcomeKind;
use quittance_sql::Tx;

use super::{
    batch::{CHUNK, KeyBatch, PAGE_TEXT_MAX},
    failure,
    find::find,
    outcomes::{not_held, whole},
    plan::Plan,
    schema::Column,
    statements::values,
};
use crate::{
    BatchContext, ConnectorError, Exported, MatchSet, MatchedRow, Record, RecordField, RowFate, Subject, SubjectError,
    SubjectResult,
};

/// Rows that are read at once, at first and at most: nobody knows how long they are before they are here.
const SLICE_MIN: usize = 8;
const SLICE_MAX: usize = 32;

/// One page from row `after` on, and where the next begins. The cursor counts rows of the match set, which does not change.
pub(super) async fn page(
    plan: &Plan,
    ctx: &BatchContext,
    (subject, set): (&Subject, &MatchSet),
    after: u64,
    records_max: usize,
    tx: &mut Tx,
) -> Result<SubjectResult<(Exported, Option<u64>)>, ConnectorError> {
    let rows = readable(plan, set);
    if rows.is_empty() {
        return Ok(Ok((Exported { records: Vec::new(), outcomes: not_held() }, None)));
    }
    let from = usize::try_from(after).unwrap_or(usize::MAX).min(rows.len());
    let to = from.saturating_add(records_max.max(1)).min(rows.len());
    let mut page = Page { plan, ctx, subject, tx, read: Vec::with_capacity(to - from), held: 0 };
    let (mut rest, mut slice) = (&rows[from..to], SLICE_MIN);
    let mut unread = Vec::new();
    // Rows stand by collection, and a statement is of one.
    while let Some((at, _)) = rest.first().filter(|_| page.held < PAGE_TEXT_MAX) {
        let alike = rest.iter().take(slice).take_while(|(other, _)| other == at).count();
        let (mine, others) = rest.split_at(alike);
        unread.extend(page.read(mine, set).await?);
        let goes_on = others.first().is_some_and(|(next, _)| next == at);
        slice = if goes_on { (2 * slice).min(SLICE_MAX) } else { SLICE_MIN };
        rest = others;
    }
    if !unread.is_empty()
        && let Err(error) = page.read_otherwise(unread).await?
    {
        return Ok(Err(error));
    }
    let to = to - rest.len();
    Ok(Ok((page.exported(), (to < rows.len()).then_some(to as u64))))
}

/// A row, with its collection.
type Matched<'a> = (usize, &'a MatchedRow);

/// What is the subject's, and not only points at it.
fn readable<'a>(plan: &Plan, set: &'a MatchSet) -> Vec<Matched<'a>> {
    let own = |(at, name): (usize, &str)| {
        let rows = set.collections.get(name).map_or(&[][..], Vec::as_slice);
        rows.iter().filter(|row| row.fate != RowFate::Unpoint).map(move |row| (at, row))
    };
    plan.map.collections.iter().map(|c| c.name.as_str()).enumerate().flat_map(own).collect()
}

struct Page<'a, 't> {
    plan: &'a Plan,
    ctx: &'a BatchContext,
    subject: &'a Subject,
    tx: &'t mut Tx,
    /// With the collection and the fields that are not NULL.
    read: Vec<(usize, Record, Vec<u16>)>,
    /// Bytes of the values.
    held: usize,
}

impl Page<'_, '_> {
    /// Reads rows of one collection; gives back those that are not the subject's by what the match set knows of them, or are not there.
    async fn read<'r>(&mut self, rows: &[Matched<'r>], set: &MatchSet) -> Result<Vec<Matched<'r>>, ConnectorError> {
        let Some((at, _)) = rows.first().copied() else { return Ok(Vec::new()) };
        let plan = self.plan;
        let (of, map) = (&plan.collections[at], plan.map_of(at));
        let columns: Vec<&Column> = of.fields.iter().collect();
        let statement = values(plan.dialect, map, of, &columns, true, false);
        let mut batch = KeyBatch::new(plan.dialect.engine, map, of, self.ctx.now, CHUNK);
        for (i, (_, row)) in rows.iter().enumerate() {
            batch.push(i, 0, row, self.subject, super::erase::pseudonym(self.subject, set));
        }
        let mut read: Vec<Option<Vec<Option<String>>>> = vec![None; rows.len()];
        for batch in batch.finish() {
            let args = statement.args(self.ctx.customer_key.as_deref());
            for row in self.tx.fetch_rows(&statement.sql, args, batch).await.map_err(failure)? {
                let i = usize::try_from(row.i64(0).map_err(failure)?).unwrap_or(usize::MAX);
                if let Some(slot) = read.get_mut(i).filter(|slot| slot.is_none()) {
                    let text = |(t, column): (usize, &&Column)| plan.dialect.read(column, &row, 2 + t);
                    let texts: Result<Vec<_>, _> = columns.iter().enumerate().map(text).collect();
                    *slot = Some(texts.map_err(failure)?);
                }
            }
        }
        let mut unread = Vec::new();
        for ((at, row), values) in rows.iter().zip(read) {
            match values {
                Some(values) => self.keep(*at, row, values),
                None => unread.push((*at, *row)),
            }
        }
        Ok(unread)
    }

    fn keep(&mut self, at: usize, row: &MatchedRow, values: Vec<Option<String>>) {
        let map = self.plan.map_of(at);
        self.held += values.iter().flatten().map(String::len).sum::<usize>();
        let filled = values.iter().enumerate().filter(|(_, value)| value.is_some());
        let filled = filled.filter_map(|(f, _)| u16::try_from(f).ok()).collect();
        let fields = map.fields.iter().zip(values).map(|(field, value)| RecordField {
            name: field.name.clone(),
            category: field.category.clone(),
            value,
        });
        let record = Record {
            collection: map.name.clone(),
            key: row.key.clone(),
            fields: fields.collect(),
            third_party: map.third_party || row.fate == RowFate::Redact,
        };
        self.read.push((at, record, filled));
    }

    /// What is gone, or not the subject's any more, is left out. What a find still brings is the subject's by something else now; and what is then not there
    /// by its key must not be missing in silence.
    async fn read_otherwise(&mut self, unread: Vec<Matched<'_>>) -> Result<SubjectResult<()>, ConnectorError> {
        let found = find(self.plan, self.ctx, std::slice::from_ref(self.subject), self.tx).await?.pop();
        let again = match found {
            Some(Ok(found)) => found.match_set,
            Some(Err(error)) => return Ok(Err(error)),
            None => return Ok(Ok(())),
        };
        let unread: HashSet<(usize, &[String])> = unread.iter().map(|(at, row)| (*at, row.key.as_slice())).collect();
        let still = readable(self.plan, &again);
        let still: Vec<_> = still.into_iter().filter(|(at, row)| unread.contains(&(*at, row.key.as_slice()))).collect();
        for rows in still.chunk_by(|(one, _), (other, _)| one == other) {
            if let Some((at, _)) = self.read(rows, &again).await?.first() {
                return Ok(Err(SubjectError::Other(format!(
                    "a row of {} is there, and not found by its key: it would be missing from the package",
                    self.plan.map_of(*at).name
                ))));
            }
        }
        Ok(Ok(()))
    }

    fn exported(self) -> Exported {
        let filled = self.read.iter().map(|(at, _, filled)| (*at, filled.as_slice()));
        let outcomes = whole(self.plan, filled, OutcomeKind::Exported);
        Exported { records: self.read.into_iter().map(|(_, record, _)| record).collect(), outcomes }
    }
}
