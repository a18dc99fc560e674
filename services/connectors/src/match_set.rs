//! The match set: the keys of the rows that a task found. Stored sealed before the system is touched; a rerun works from it (I4).

use std::collections::{BTreeMap, HashMap};

use quittance_domain::Timestamp;

/// What erasure will do to one row, decided when it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum RowFate {
    #[serde(rename = "d")]
    Delete,
    /// Its mapped fields are masked as the map says.
    #[serde(rename = "m")]
    Mask,
    /// It belongs to somebody else too: only the subject's own fields are masked.
    #[serde(rename = "s")]
    Redact,
    /// Somebody else's row that points here: only the pointer is masked.
    #[serde(rename = "p")]
    Unpoint,
    /// Held (Art. 17(3)) until `held_until`.
    #[serde(rename = "h")]
    Hold,
}

/// One row: its key as text, in the map's key order, and what is to happen to it.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MatchedRow {
    #[serde(rename = "k")]
    pub key: Vec<String>,
    #[serde(rename = "f")]
    pub fate: RowFate,
    /// The indices of the identifier rules through which it was found, or for `Unpoint` of the pointer.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<u16>,
    /// Of a shared row: it is the subject's by an owner, so that what no identifier redacts is the subject's as well.
    #[serde(rename = "o", default, skip_serializing_if = "std::ops::Not::not")]
    pub rest: bool,
    /// Categories whose fields were not NULL when it was found: indices into the collection's fields.
    #[serde(rename = "v", default, skip_serializing_if = "Vec::is_empty")]
    pub filled: Vec<u16>,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Timestamp>,
    /// The collection whose retention holds it, where that is not its own: lines are kept with their order.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
    /// For `Hold`: its fate once the hold has ended.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub then: Option<RowFate>,
    /// Single fields that are retained while the rest of the row is masked: field, and until when.
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    pub held_fields: Vec<(u16, Timestamp)>,
    /// What makes it the subject's where that is no identifier: looked at again before the row is touched.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// For what is held without a mark and without an owner: what its identifiers were looked for by, per rule. By the end of the hold nobody
    /// knows them any more, and without them nobody could tell that the row is still the same person's.
    #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
    pub known_by: Vec<(u16, String)>,
    /// What others refer to it by, beyond its key: read-back looks for such rows when this one is gone.
    #[serde(rename = "l", default, skip_serializing_if = "Vec::is_empty")]
    pub linked: Vec<Option<String>>,
    /// For a rectification: the indices of the corrections that name it.
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub corrections: Vec<u16>,
}

/// The owner's (for `Unpoint`: the target's) values in the linking columns, as they were when the row was found. A key that a deleted row has
/// left behind may be a neighbour's by the next run, and then names another owner.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Via {
    /// Index into the collection's `owned_by`; for `Unpoint`, into its `points_at`.
    #[serde(rename = "i")]
    pub link: u16,
    #[serde(rename = "v")]
    pub values: Vec<String>,
}

fn union(mine: &mut Vec<u16>, theirs: &[u16]) {
    mine.extend_from_slice(theirs);
    mine.sort_unstable();
    mine.dedup();
}

impl MatchedRow {
    /// A row of which nothing more is known.
    pub const fn new(key: Vec<String>, fate: RowFate) -> Self {
        Self {
            key,
            fate,
            rules: Vec::new(),
            rest: false,
            filled: Vec::new(),
            held_until: None,
            held_by: None,
            then: None,
            held_fields: Vec::new(),
            via: None,
            known_by: Vec::new(),
            linked: Vec::new(),
            corrections: Vec::new(),
        }
    }

    /// It was shared, and is the subject's alone now: what is to happen is what the later find says, to all that either has seen of it.
    fn take_over(&mut self, later: Self) {
        union(&mut self.rules, &later.rules);
        union(&mut self.filled, &later.filled);
        union(&mut self.corrections, &later.corrections);
        let (rules, filled) = (std::mem::take(&mut self.rules), std::mem::take(&mut self.filled));
        *self = Self { rules, filled, corrections: std::mem::take(&mut self.corrections), ..later };
    }

    /// It is somebody else's too, now or once its hold has ended.
    pub(crate) fn ends_redacted(&self) -> bool {
        self.fate == RowFate::Redact || (self.fate == RowFate::Hold && self.then == Some(RowFate::Redact))
    }

    /// What is needed of it on the day its hold ends, and the earliest such day: key, links and the hold itself. `None`: nothing of it is held.
    fn held_at(&self, now: Timestamp) -> Option<(Self, Timestamp)> {
        if self.fate_at(now) == RowFate::Hold {
            return Some((self.clone(), self.held_until?));
        }
        let held_fields: Vec<_> = self.held_fields.iter().filter(|(_, until)| *until > now).copied().collect();
        let until = held_fields.iter().map(|(_, until)| *until).min()?;
        // What was done to its other fields is confirmed already.
        let filled = held_fields.iter().map(|(field, _)| *field).collect();
        Some((Self { held_fields, filled, ..self.clone() }, until))
    }

    /// The whole row or single fields of it.
    pub(crate) fn holds_something(&self, now: Timestamp) -> bool {
        self.fate_at(now) == RowFate::Hold || self.held_fields.iter().any(|(_, until)| *until > now)
    }

    /// What is to happen at `now`: a hold that has ended gives way to what was to follow it.
    pub fn fate_at(&self, now: Timestamp) -> RowFate {
        match (self.fate, self.then) {
            (RowFate::Hold, Some(then)) if self.held_until.is_some_and(|until| until <= now) => then,
            (fate, _) => fate,
        }
    }
}

/// Collections by name, each with its rows.
#[derive(Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct MatchSet {
    #[serde(rename = "c")]
    pub collections: BTreeMap<String, Vec<MatchedRow>>,
    /// The masks' pseudonym: fixed here, so that a rerun writes the same.
    #[serde(rename = "p", default, skip_serializing_if = "String::is_empty")]
    pub pseudonym: String,
    /// Found by an earlier version of the map: what a later find sees is as that one says.
    #[serde(rename = "e", default, skip_serializing_if = "std::ops::Not::not")]
    pub carried: bool,
}

impl MatchSet {
    pub fn rows(&self) -> usize {
        self.collections.values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.collections.values().all(Vec::is_empty)
    }

    /// The part that is held at `now`, and when the first of it is not any more. Without identifiers: by its keys and marks it is found again.
    pub fn held_at(&self, now: Timestamp) -> Option<(Self, Timestamp)> {
        let mut held = Self { collections: BTreeMap::new(), pseudonym: self.pseudonym.clone(), carried: self.carried };
        let mut ends = Vec::new();
        for (name, rows) in &self.collections {
            let (rows, until): (Vec<_>, Vec<_>) = rows.iter().filter_map(|row| row.held_at(now)).unzip();
            ends.extend(until);
            if !rows.is_empty() {
                held.collections.insert(name.clone(), rows);
            }
        }
        Some((held, ends.into_iter().min()?))
    }

    /// Rows that an erasure holds now, said of a lifting's match set: they stay as they are, and what was held and is not any more does not.
    /// Answers whether that was news.
    pub fn hold(&mut self, is_held: impl Fn(&str, &[String]) -> bool) -> bool {
        let mut changed = false;
        for (name, rows) in &mut self.collections {
            for row in rows.iter_mut().filter(|row| row.fate != RowFate::Unpoint) {
                // An erasure's own hold has its end.
                let was_held = row.fate == RowFate::Hold && row.held_until.is_none();
                match (was_held, is_held(name, &row.key)) {
                    (true, false) => {
                        if let Some(then) = row.then.take() {
                            (row.fate, changed) = (then, true);
                        }
                    }
                    (false, true) if row.fate != RowFate::Hold => {
                        row.then = Some(std::mem::replace(&mut row.fate, RowFate::Hold));
                        changed = true;
                    }
                    _ => {}
                }
            }
        }
        changed
    }

    /// Goes by what a later find saw alone. Answers whether that was news.
    pub fn replace(&mut self, later: Self) -> bool {
        let pseudonym = if self.pseudonym.is_empty() { later.pseudonym } else { std::mem::take(&mut self.pseudonym) };
        let earlier = std::mem::replace(self, Self { pseudonym, ..later });
        *self != earlier
    }

    /// Adds what a later find of a rectification saw. What ties a row to the subject, and what of it is the subject's, is as the later find says;
    /// what was to be corrected in it is so for good. Answers whether that was news.
    pub fn follow(&mut self, later: Self) -> bool {
        let mut news = std::mem::take(&mut self.carried);
        for (name, rows) in later.collections {
            let mine = self.collections.entry(name).or_default();
            let known: HashMap<_, usize> = mine.iter().enumerate().map(|(at, row)| (row.key.clone(), at)).collect();
            for mut row in rows {
                match known.get(&row.key).map(|at| &mut mine[*at]) {
                    None => mine.push(row),
                    Some(known) => {
                        union(&mut row.corrections, &known.corrections);
                        if *known == row {
                            continue;
                        }
                        *known = row;
                    }
                }
                news = true;
            }
        }
        if self.pseudonym.is_empty() {
            self.pseudonym = later.pseudonym;
        }
        news
    }

    /// Adds what a later find saw. A row that both hold keeps what was known first: it was whole then. But one that was shared, and is
    /// the subject's alone by now, is treated so, and one that is shared by now; and after a change of the map the later find
    /// is right. Answers whether anything was added.
    pub fn absorb(&mut self, later: Self) -> bool {
        let carried = std::mem::take(&mut self.carried);
        let mut added = carried;
        for (name, rows) in later.collections {
            let mine = self.collections.entry(name).or_default();
            // A row may be the subject's and point at another of the subject's besides.
            let name = |r: &MatchedRow| (r.key.clone(), (r.fate == RowFate::Unpoint).then(|| r.rules.clone()));
            let known: HashMap<_, usize> = mine.iter().enumerate().map(|(at, row)| (name(row), at)).collect();
            for row in rows {
                match known.get(&name(&row)).map(|at| &mut mine[*at]) {
                    None => mine.push(row),
                    Some(known) if carried || (known.fate == RowFate::Redact && row.fate != RowFate::Redact) => {
                        known.take_over(row);
                    }
                    // It stands as it did, and is somebody else's too by now.
                    Some(known) if row.ends_redacted() && !known.ends_redacted() && known.fate != RowFate::Unpoint => {
                        known.take_over(row);
                    }
                    Some(_) => continue,
                }
                added = true;
            }
        }
        if self.pseudonym.is_empty() {
            self.pseudonym = later.pseudonym;
        }
        added
    }
}

// Keys and values are personal data (I10).
impl std::fmt::Debug for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Via({}, …)", self.link)
    }
}

impl std::fmt::Debug for MatchSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MatchSet({} rows)", self.rows())
    }
}

impl std::fmt::Debug for MatchedRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MatchedRow({:?})", self.fate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Found again, and somebody else's too by then: it is not deleted or masked for the one.
    #[test]
    fn what_has_become_shared_meanwhile_is_only_redacted() {
        let set =
            |row: MatchedRow| MatchSet { collections: [("m".to_owned(), vec![row])].into(), ..MatchSet::default() };
        let row = |fate| MatchedRow { corrections: vec![1], ..MatchedRow::new(vec!["1".to_owned()], fate) };
        let held = |then| MatchedRow { then: Some(then), held_until: Some(at(9)), ..row(RowFate::Hold) };
        for first in [row(RowFate::Delete), row(RowFate::Mask), held(RowFate::Delete)] {
            let mut known = set(first);
            let later = MatchedRow { corrections: vec![0], ..row(RowFate::Redact) };
            assert!(known.absorb(set(later)));
            let now = &known.collections["m"][0];
            assert_eq!((now.fate, now.corrections.as_slice()), (RowFate::Redact, [0, 1].as_slice()));
            assert!(!known.absorb(set(row(RowFate::Redact))), "once");
        }
        let mut known = set(held(RowFate::Mask));
        assert!(known.absorb(set(held(RowFate::Redact))));
        assert_eq!(known.collections["m"][0].then, Some(RowFate::Redact));
    }

    /// A lifting that is tried again when the hold has ended.
    #[test]
    fn what_was_held_when_a_lifting_came_is_lifted_when_it_is_held_no_more() {
        let rows = vec![MatchedRow::new(vec!["1".to_owned()], RowFate::Mask)];
        let mut set = MatchSet { collections: [("m".to_owned(), rows)].into(), ..MatchSet::default() };
        let found = set.clone();
        assert!(set.hold(|name, key| name == "m" && key == ["1"]));
        assert!(!set.hold(|_, _| true), "known");
        assert_eq!(set.collections["m"][0].fate, RowFate::Hold);
        assert!(!set.absorb(found.clone()));
        assert!(set.hold(|_, _| false));
        assert_eq!(set, found);
    }

    #[test]
    fn what_is_held_is_kept_until_the_first_of_it_ends() {
        let row = |key: &str, fate| MatchedRow::new(vec![key.to_owned()], fate);
        let held = |key: &str, until| MatchedRow {
            held_until: Some(at(until)),
            then: Some(RowFate::Delete),
            ..row(key, RowFate::Hold)
        };
        let fields = MatchedRow {
            filled: vec![0, 1, 2],
            held_fields: vec![(1, at(50)), (2, at(5))],
            ..row("fields", RowFate::Mask)
        };
        let orders = vec![row("gone", RowFate::Delete), held("ended", 5), held("longer", 90), held("held", 60), fields];
        let pseudonym = "anon-1".to_owned();
        let set = MatchSet { collections: [("orders".to_owned(), orders)].into(), pseudonym, carried: false };
        let (kept, until) = set.held_at(at(10)).unwrap();
        assert_eq!((until, kept.pseudonym.as_str()), (at(50), "anon-1"));
        let keys: Vec<&str> = kept.collections["orders"].iter().map(|row| row.key[0].as_str()).collect();
        assert_eq!(keys, ["longer", "held", "fields"]);
        assert_eq!(kept.collections["orders"][2].filled, [1]);
        assert_eq!(kept.held_at(at(60)).unwrap().1, at(90));
        assert!(kept.held_at(at(90)).is_none());
    }
}
