//! Access (Art. 15): the mapped fields of a match set's rows, a page at a time.

use quittance_domain::outcome::OutcomeKind;
use quittance_sql::Tx;

use super::{
    batch::{CHUNK, KeyBatch},
    failure,
    outcomes::{not_held, whole},
    plan::Plan,
    schema::Column,
    statements::values,
};
use crate::{BatchContext, ConnectorError, Exported, MatchSet, MatchedRow, Record, RecordField, RowFate, Subject};

/// One page from row `after` on, and where the next begins. The cursor counts rows of the match set, which does not change.
pub(super) async fn page(
    plan: &Plan,
    ctx: &BatchContext,
    (subject, set): (&Subject, &MatchSet),
    after: u64,
    records_max: usize,
    tx: &mut Tx,
) -> Result<(Exported, Option<u64>), ConnectorError> {
    let mut rows: Vec<(usize, &MatchedRow)> = Vec::new();
    for (at, c) in plan.map.collections.iter().enumerate() {
        let own = set.collections.get(&c.name).map_or(&[][..], Vec::as_slice);
        rows.extend(own.iter().filter(|row| row.fate != RowFate::Unpoint).map(|row| (at, row)));
    }
    if rows.is_empty() {
        return Ok((Exported { records: Vec::new(), outcomes: not_held() }, None));
    }
    let from = usize::try_from(after).unwrap_or(usize::MAX).min(rows.len());
    let to = from.saturating_add(records_max.max(1)).min(rows.len());
    let mut records: Vec<(usize, Record, Vec<u16>)> = Vec::with_capacity(to - from);
    let mut rest = &rows[from..to];
    // Rows stand by collection: each is one statement.
    while let Some((at, _)) = rest.first() {
        let (mine, others) = rest.split_at(rest.iter().take_while(|(other, _)| other == at).count());
        collection(plan, ctx, (subject, set), *at, mine, tx, &mut records).await?;
        rest = others;
    }
    let filled = records.iter().map(|(at, _, filled)| (*at, filled.as_slice()));
    let outcomes = whole(plan, filled, OutcomeKind::Exported);
    let records = records.into_iter().map(|(_, record, _)| record).collect();
    let next = (to < rows.len()).then_some(to as u64);
    Ok((Exported { records, outcomes }, next))
}

async fn collection(
    plan: &Plan,
    ctx: &BatchContext,
    (subject, set): (&Subject, &MatchSet),
    at: usize,
    rows: &[(usize, &MatchedRow)],
    tx: &mut Tx,
    records: &mut Vec<(usize, Record, Vec<u16>)>,
) -> Result<(), ConnectorError> {
    let (of, map) = (&plan.collections[at], plan.map_of(at));
    let columns: Vec<&Column> = of.fields.iter().collect();
    let statement = values(plan.dialect, map, of, &columns, true, false);
    let mut batch = KeyBatch::new(plan.dialect.engine, map, of, ctx.now, CHUNK);
    for (i, (_, row)) in rows.iter().enumerate() {
        batch.push(i, 0, row, subject, super::erase::pseudonym(subject, set));
    }
    let mut read: Vec<Option<Vec<Option<String>>>> = vec![None; rows.len()];
    for batch in batch.finish() {
        for row in
            tx.fetch_rows(&statement.sql, statement.args(ctx.customer_key.as_deref()), batch).await.map_err(failure)?
        {
            let i = usize::try_from(row.i64(0).map_err(failure)?).unwrap_or(usize::MAX);
            if let Some(slot) = read.get_mut(i).filter(|slot| slot.is_none()) {
                let text = |(t, column): (usize, &&Column)| plan.dialect.read(column, &row, 2 + t);
                let texts: Result<Vec<_>, _> = columns.iter().enumerate().map(text).collect();
                *slot = Some(texts.map_err(failure)?);
            }
        }
    }
    // A row that is gone, or not the subject's any more, is left out.
    for ((_, row), values) in rows.iter().zip(read) {
        let Some(values) = values else { continue };
        let filled =
            values.iter().enumerate().filter(|(_, v)| v.is_some()).filter_map(|(f, _)| u16::try_from(f).ok()).collect();
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
        records.push((at, record, filled));
    }
    Ok(())
}
