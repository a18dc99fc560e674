//! What a walk has seen of one subject: rows, by collection and key.

use std::{
    collections::{HashMap, HashSet},
    hash::{Hash as _, Hasher as _},
};

use quittance_sql::Row;

use super::{
    failure,
    plan::{CollectionPlan, WORD},
};
use crate::{ConnectorError, MatchedRow, SubjectError};

/// A row on the way.
pub(super) struct Seen<'a> {
    pub collection: usize,
    /// By the positions of the collection's shape. Empty while a stored row has not been seen.
    pub texts: Vec<Option<String>>,
    /// Fields that are not NULL, and those that are and differ from their mask.
    pub filled: Bits,
    pub dirty: Bits,
    pub rules: Vec<u16>,
    /// The owner's row that was met first, and the link to it.
    pub parent: Option<(usize, usize)>,
    /// All links that have led to it, a bit each.
    pub led: Bits,
    /// Belongs to somebody else too, and not through an owner of this subject's.
    pub shared: bool,
    /// Shared, and owned by the subject's row all the same: what no identifier redacts is the subject's.
    pub rest: bool,
    /// From a match set, as read-back begins with.
    pub stored: Option<&'a MatchedRow>,
    /// Seen in the database by this walk.
    pub fresh: bool,
    /// Another row of the same hash.
    pub twin: Option<usize>,
}

/// One bit a field. Hardly any table has more than a word of them, and then nothing is allocated.
#[derive(Clone, Default)]
pub(super) struct Bits {
    first: u64,
    more: Vec<u64>,
}

impl Bits {
    pub fn set(&mut self, at: usize) {
        let word = match at / WORD {
            0 => &mut self.first,
            w => {
                self.more.resize(self.more.len().max(w), 0);
                &mut self.more[w - 1]
            }
        };
        *word |= 1 << (at % WORD);
    }

    pub fn read(row: &Row, at: std::ops::Range<usize>) -> Result<Self, ConnectorError> {
        let word = |at: usize| row.i64(at).map(i64::cast_unsigned).map_err(failure);
        let first = if at.is_empty() { 0 } else { word(at.start)? };
        Ok(Self { first, more: at.skip(1).map(word).collect::<Result<_, _>>()? })
    }

    pub fn has(&self, field: usize) -> bool {
        let word = match field / WORD {
            0 => Some(&self.first),
            w => self.more.get(w - 1),
        };
        word.is_some_and(|word| word >> (field % WORD) & 1 == 1)
    }

    pub fn fields(&self) -> Vec<u16> {
        let end = (1 + self.more.len()) * WORD;
        (0..end).filter(|f| self.has(*f)).filter_map(|f| u16::try_from(f).ok()).collect()
    }
}

impl Seen<'_> {
    /// By position in the collection's shape.
    pub fn text(&self, of: &CollectionPlan, position: usize) -> Option<&str> {
        match (self.stored, self.texts.is_empty()) {
            (Some(stored), true) if position < of.key_len() => stored.key.get(position).map(String::as_str),
            (Some(stored), true) => {
                let linked = of.shape.linked.iter().position(|p| *p == position)?;
                stored.linked.get(linked)?.as_deref()
            }
            _ => self.texts.get(position)?.as_deref(),
        }
    }

    pub fn key(&self, of: &CollectionPlan) -> Vec<String> {
        (0..of.key_len()).map(|k| self.text(of, k).unwrap_or_default().to_owned()).collect()
    }

    pub fn values(&self, of: &CollectionPlan, positions: &[usize]) -> Option<Vec<String>> {
        positions.iter().map(|p| self.text(of, *p).map(str::to_owned)).collect()
    }
}

/// One subject's rows.
#[derive(Default)]
pub(super) struct Rowset<'a> {
    pub rows: Vec<Seen<'a>>,
    /// Rows with a further owner, and it. Most have but one.
    pub further: Vec<(usize, usize)>,
    /// By the hash of collection and key; rows hold their keys themselves.
    index: HashMap<u64, usize>,
    pub error: Option<SubjectError>,
    pub counted: u64,
}

fn hash<'k>(collection: usize, key: impl Iterator<Item = &'k str>) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    collection.hash(&mut hasher);
    key.for_each(|text| text.hash(&mut hasher));
    hasher.finish()
}

impl<'a> Rowset<'a> {
    /// Where the row of this collection and key is.
    pub fn position<'k>(
        &self,
        at: usize,
        of: &CollectionPlan,
        key: impl Iterator<Item = &'k str> + Clone,
    ) -> Option<usize> {
        let mut next = self.index.get(&hash(at, key.clone())).copied();
        while let Some(row) = next {
            let seen = &self.rows[row];
            if seen.collection == at && key.clone().eq((0..of.key_len()).filter_map(|k| seen.text(of, k))) {
                return next;
            }
            next = seen.twin;
        }
        None
    }

    /// Those rows, and what hangs on them without being the subject's by itself.
    pub fn with_owned(&self, rows: &HashSet<usize>) -> HashSet<usize> {
        let mut found = rows.clone();
        let mut before = 0;
        while found.len() > before {
            before = found.len();
            let hangs = |row: &Seen<'_>| row.rules.is_empty() && row.parent.is_some_and(|(p, _)| found.contains(&p));
            let more: Vec<usize> = (0..self.rows.len()).filter(|at| hangs(&self.rows[*at])).collect();
            found.extend(more);
        }
        found
    }

    /// Every owned row with each of its owners' rows.
    pub fn owned(&self) -> impl Iterator<Item = (usize, usize)> {
        let first = self.rows.iter().enumerate().filter_map(|(at, row)| Some((at, row.parent?.0)));
        first.chain(self.further.iter().copied())
    }

    pub fn insert(&mut self, of: &CollectionPlan, mut seen: Seen<'a>) -> usize {
        let hash = hash(seen.collection, (0..of.key_len()).filter_map(|k| seen.text(of, k)));
        let at = self.rows.len();
        seen.twin = self.index.insert(hash, at);
        self.rows.push(seen);
        at
    }
}
