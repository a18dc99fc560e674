//! A match set's rows as the batch of a statement: key, ties, and what masks need.

use std::borrow::Cow;

use quittance_domain::Timestamp;
use quittance_sql::{Column as Values, Engine, Rows};

use super::{
    identify::forms,
    plan::CollectionPlan,
    schema::{Class, Column},
};
use crate::{MatchedRow, RowFate, Subject};

/// Rows of one statement. Beyond, an argument would grow past what servers take in one packet.
pub(super) const CHUNK: usize = 20_000;

/// Bytes of values that one page of an access package is read of, but for the last rows read at once: whoever stores the page holds it in memory a few times
/// over, once for each of the batches in work.
pub(super) const PAGE_TEXT_MAX: usize = 8 << 20;

/// A batch's values for a column: `Dialect::equals` casts them to its type. PostgreSQL, whose arrays have types, is given numbers as such: to read
/// them anew from their texts is a good part of what a small look-up costs.
pub(super) enum ForColumn {
    Numbers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
}

impl ForColumn {
    pub fn of(engine: Engine, column: &Column) -> Self {
        let number = matches!(column.class, Class::Int { .. }) && column.cast.is_some() && !column.folds;
        if engine == Engine::Postgres && number { Self::Numbers(Vec::new()) } else { Self::Texts(Vec::new()) }
    }

    pub fn push(&mut self, value: Option<&str>) {
        match self {
            Self::Texts(texts) => texts.push(value.map(str::to_owned)),
            Self::Numbers(numbers) => match value.map(str::parse).transpose() {
                Ok(number) => numbers.push(number),
                // No number's text, and the database will say so.
                Err(_) => {
                    let mut texts: Vec<_> = numbers.iter().map(|n| n.map(|n| n.to_string())).collect();
                    texts.push(value.map(str::to_owned));
                    *self = Self::Texts(texts);
                }
            },
        }
    }
}

impl From<ForColumn> for Values {
    fn from(values: ForColumn) -> Self {
        match values {
            ForColumn::Numbers(numbers) => Self::I64(numbers),
            ForColumn::Texts(texts) => Self::Text(texts),
        }
    }
}

/// In the column order of `statements::key_batch`.
pub(super) struct KeyBatch<'a> {
    engine: Engine,
    plan: &'a CollectionPlan,
    kinds: Vec<quittance_domain::identifier::IdentifierKind>,
    now: Timestamp,
    chunk: usize,
    done: Vec<Rows>,
    open: Open,
}

#[derive(Default)]
struct Open {
    numbers: [Vec<i64>; 2],
    values: Vec<ForColumn>,
    marker: Vec<i64>,
    pseudonym: Vec<String>,
    held: Vec<Vec<i64>>,
    new: Vec<String>,
}

/// What makes a row the subject's.
enum Tie<'r> {
    /// The first of its texts, and their values.
    Texts(usize, Cow<'r, [String]>),
    Marker,
    None,
}

impl<'a> KeyBatch<'a> {
    /// `chunk`: `usize::MAX` where all must be one statement.
    pub fn new(
        engine: Engine,
        map: &quittance_domain::data_map::Collection,
        plan: &'a CollectionPlan,
        now: Timestamp,
        chunk: usize,
    ) -> Self {
        let kinds = map.identifiers.iter().map(|rule| rule.kind).collect();
        let mut batch = Self { engine, plan, kinds, now, chunk, done: Vec::new(), open: Open::default() };
        batch.open = batch.fresh();
        batch
    }

    fn fresh(&self) -> Open {
        let linked = self.plan.links.iter().flat_map(|link| &link.here);
        let mut values: Vec<_> =
            self.plan.key.iter().chain(linked).map(|column| ForColumn::of(self.engine, column)).collect();
        // What an identifier is compared with is a column's text.
        values.extend(self.plan.rules.iter().map(|_| ForColumn::Texts(Vec::new())));
        Open { values, held: vec![Vec::new(); self.plan.retained.len()], ..Open::default() }
    }

    /// One entry for each tie that the row has, and at least one.
    pub fn push(&mut self, i: usize, f: i64, row: &MatchedRow, subject: &Subject, pseudonym: &str) {
        self.push_with(i, f, row, subject, pseudonym, None);
    }

    /// As [`KeyBatch::push`], with a value to write.
    pub fn push_with(
        &mut self,
        i: usize,
        f: i64,
        row: &MatchedRow,
        subject: &Subject,
        pseudonym: &str,
        new: Option<&str>,
    ) {
        // A match set of another version of the map: the row is nobody's that we know.
        if row.key.len() != self.plan.key.len() {
            return;
        }
        for tie in self.ties(row, subject) {
            if self.open.numbers[0].len() >= self.chunk {
                self.close();
            }
            let open = &mut self.open;
            open.numbers[0].push(i64::try_from(i).unwrap_or(i64::MAX));
            open.numbers[1].push(f);
            let keys = row.key.len();
            for (t, values) in open.values.iter_mut().enumerate() {
                values.push(match &tie {
                    _ if t < keys => Some(&row.key[t]),
                    Tie::Texts(from, texts) => t.checked_sub(*from).and_then(|v| texts.get(v)).map(String::as_str),
                    Tie::Marker | Tie::None => None,
                });
            }
            open.marker.push(i64::from(matches!(tie, Tie::Marker)));
            if self.plan.pseudonym {
                open.pseudonym.push(pseudonym.to_owned());
            }
            for (h, held) in open.held.iter_mut().enumerate() {
                let field = self.plan.retained[h];
                let is_held = |(f, until): &(u16, Timestamp)| usize::from(*f) == field && *until > self.now;
                held.push(i64::from(row.held_fields.iter().any(is_held)));
            }
            open.new.extend(new.map(str::to_owned));
        }
    }

    fn ties<'r>(&self, row: &'r MatchedRow, subject: &Subject) -> Vec<Tie<'r>> {
        let mut ties = Vec::new();
        if let Some(via) = row.via.as_ref().filter(|_| row.fate != RowFate::Unpoint) {
            let link = usize::from(via.link);
            let links = &self.plan.links;
            if links.get(link).is_some_and(|l| l.here.len() == via.values.len()) {
                let from = self.plan.key.len() + links[..link].iter().map(|l| l.here.len()).sum::<usize>();
                ties.push(Tie::Texts(from, Cow::Borrowed(&via.values)));
            }
        }
        let rules = self.open.values.len() - self.plan.rules.len();
        for r in row.rules.iter().map(|r| usize::from(*r)) {
            if let (Some(rule), Some(kind)) = (self.plan.rules.get(r), self.kinds.get(r)) {
                let forms = forms(self.engine, rule, *kind, subject);
                ties.extend(forms.into_iter().map(|form| Tie::Texts(rules + r, Cow::Owned(vec![form]))));
            }
        }
        // The identifiers are forgotten by the time a hold ends (I7): what was kept of them for it, or the mark that we set, is left to go by.
        if subject.identifiers.is_empty() {
            let kept = row.known_by.iter().filter(|(r, _)| usize::from(*r) < self.plan.rules.len());
            ties.extend(kept.map(|(r, form)| Tie::Texts(rules + usize::from(*r), Cow::Owned(vec![form.clone()]))));
        }
        if ties.is_empty() {
            let was_held = row.fate == RowFate::Hold || !row.held_fields.is_empty();
            let by_mark = was_held && subject.identifiers.is_empty() && self.plan.marker.is_some();
            ties.push(if by_mark { Tie::Marker } else { Tie::None });
        }
        ties
    }

    fn close(&mut self) {
        let fresh = self.fresh();
        let open = std::mem::replace(&mut self.open, fresh);
        let mut columns: Vec<Values> = open.numbers.into_iter().map(Values::i64s).collect();
        columns.extend(open.values.into_iter().map(Values::from));
        if self.plan.marker.is_some() {
            columns.push(Values::i64s(open.marker));
        }
        if self.plan.pseudonym {
            columns.push(Values::texts(open.pseudonym));
        }
        columns.extend(open.held.into_iter().map(Values::i64s));
        if !open.new.is_empty() {
            columns.push(Values::LongText(open.new.into_iter().map(Some).collect()));
        }
        self.done.push(Rows::new(columns));
    }

    /// At least one, though it may have no rows.
    pub fn finish(mut self) -> Vec<Rows> {
        if self.done.is_empty() || !self.open.numbers[0].is_empty() {
            self.close();
        }
        self.done
    }
}
