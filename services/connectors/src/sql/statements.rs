//! The statements of one collection. Their text depends on the map and the schema alone, so they are prepared once a connection.
//!
//! Whatever changes a row names it by its key *and* by a tie: a link that still leads to the row's owner, or an identifier column that still holds
//! the subject's. A key that was freed and given to a neighbour (SQLite does that with rowids) is then nobody's.

use quittance_domain::data_map::{Collection, FieldErasure, Mask, Matching, RowErasure};

use super::{
    batch::CHUNK,
    catalog::Reference,
    dialect::Dialect,
    others::PSEUDONYM,
    plan::{Arg, CollectionPlan, LinkPlan, RulePlan, Statement, WORD, Width},
    schema::{Class, Column},
};

/// Rows that one statement may bring back: beyond it a batch is split, and a single subject stopped, before memory is.
pub(super) const FIND_LIMIT: usize = 250_000;

#[derive(Default)]
pub(super) struct Statements {
    /// Per identifier rule.
    pub roots: Vec<Find>,
    /// Per identifier rule, where texts may be patterns.
    pub patterns: Vec<Option<Find>>,
    /// Per `owned_by` link.
    pub children: Vec<Find>,
    /// Per `points_at`: the keys of the rows that point at given values.
    pub pointers: Vec<Statement>,
    /// Per `owned_by` link: the owners that it leads to.
    pub owners: Vec<Statement>,
    /// Per `yields` that is not unique: who else has the same in it.
    pub yielded: Vec<Option<Statement>>,
    pub mask: Option<Statement>,
    pub delete: Statement,
    /// Per table whose rows the database would delete along, by its own foreign key: whether rows would go. With the table's name.
    pub carried: Vec<(String, Statement)>,
    /// Loosens the links that the order of deletion cannot respect.
    pub unlink: Option<Statement>,
    /// Per identifier rule: what a shared row loses.
    pub redact: Vec<Option<Statement>>,
    /// And what it loses for its owner.
    pub redact_rest: Option<Statement>,
    /// Per `points_at`.
    pub unpoint: Vec<Statement>,
    pub mark: Option<Statement>,
    pub unmark: Option<Statement>,
    /// Of given keys, those that are not as erasure should have left them.
    pub left: Statement,
    /// Of given rows, those whose marker does not say "restricted", or still says it.
    pub unmarked: Option<Statement>,
    pub marked: Option<Statement>,
}

/// Finding rows; `left` leaves out those on which nothing is left to erase.
#[derive(Default)]
pub(super) struct Find {
    pub all: Statement,
    pub left: Option<Statement>,
}

/// Collects a statement's arguments while its text is written.
struct Text<'a> {
    d: Dialect,
    c: &'a Collection,
    plan: &'a CollectionPlan,
    args: Vec<Arg>,
}

/// `wide`: what finds bring, and what is left.
pub(super) fn statements(d: Dialect, c: &Collection, plan: &CollectionPlan, wide: (Width, Width)) -> Statements {
    let (found, left) = wide;
    let text = || Text { d, c, plan, args: Vec::new() };
    let mark = |set: bool| {
        let marker = c.restriction.as_ref()?;
        let column = plan.marker.as_ref()?;
        let value = if set { Some(marker.set.as_str()) } else { marker.clear.as_deref() };
        Some((column, value))
    };
    Statements {
        roots: plan.rules.iter().map(|rule| find(text, found, |t| t.root(rule))).collect(),
        patterns: plan
            .rules
            .iter()
            .map(|rule| by_pattern(d, rule).then(|| find(text, found, |t| t.pattern(rule))))
            .collect(),
        children: plan.links.iter().map(|link| find(text, found, |t| t.child(link))).collect(),
        pointers: plan.pointers.iter().map(|p| text().pointer(p)).collect(),
        owners: Vec::new(),
        yielded: plan.repeated.iter().map(|yields| Some(text().yielded(yields.as_ref()?))).collect(),
        mask: text().mask(),
        delete: text().delete(),
        carried: plan.cascades.known.iter().map(|r| (r.name.clone(), text().carried(r))).collect(),
        unlink: text().unlink(),
        redact: plan
            .rules
            .iter()
            .map(|rule| text().redact(&rule.redacts, rule.field.is_none().then_some(&rule.column)))
            .collect(),
        redact_rest: text().redact(&plan.rest, None),
        unpoint: plan.pointers.iter().enumerate().map(|(i, p)| text().unpoint(i, p)).collect(),
        mark: mark(true).map(|(column, value)| text().mark(column, value)),
        unmark: mark(false).map(|(column, value)| text().mark(column, value)),
        left: text().left(left),
        unmarked: mark(true).map(|(column, value)| text().not_marked(column, value)),
        marked: mark(false).map(|(column, value)| text().not_marked(column, value)),
    }
}

fn by_pattern(d: Dialect, rule: &RulePlan) -> bool {
    rule.matching == Matching::CaseInsensitive && d.has_patterns(&rule.column)
}

fn find<'a>(
    text: impl Fn() -> Text<'a>,
    wide: Width,
    write: impl Fn(&mut Text<'a>) -> (Vec<String>, String, bool),
) -> Find {
    let finish = |only_left: bool| {
        let mut t = text();
        let words = t.words();
        let what = t.row(wide, words, t.plan.shape.texts.clone());
        let (batch, mut on, indexed) = write(&mut t);
        if only_left {
            let todo: Vec<String> = t.todo(None).into_iter().map(|(_, c)| c).collect();
            on = format!("{on} AND ({})", if todo.is_empty() { "1 = 0".to_owned() } else { todo.join(" OR ") });
        }
        let sql = format!("{} LIMIT {}", t.d.select(&what, &batch, &t.plan.table, &on, indexed), FIND_LIMIT + 1);
        Statement { sql, args: t.args }
    };
    let t = text();
    Find { all: finish(false), left: (t.plan.leaf && t.c.erase == RowErasure::Mask).then(|| finish(true)) }
}

/// A collection's rows that given values of a link lead to: keys, identifiers, links of their own, whether an erasure would still find something in
/// them, and what they are kept from, where they are.
pub(super) fn owner(d: Dialect, c: &Collection, plan: &CollectionPlan, link: &LinkPlan, confined: bool) -> Statement {
    let mut t = Text { d, c, plan, args: Vec::new() };
    let mut batch = vec!["i".to_owned()];
    batch.extend((0..link.here.len()).map(|j| format!("a{j}")));
    let mut what = vec!["v.i".to_owned()];
    let columns = plan.key.iter().chain(plan.rules.iter().map(|rule| &rule.column));
    let columns = columns.chain(plan.links.iter().flat_map(|link| &link.here));
    what.extend(columns.map(|column| d.text(column)));
    let unmasked = t.unmasked();
    what.push(d.bits(&[(0, unmasked)]));
    what.extend(plan.shape.anchor.map(|anchor| plan.shape.texts[anchor].clone()));
    let one = |(j, column): (usize, &Column)| {
        let value = format!("v.a{j}");
        if link.native[j] { d.equals(column, &value) } else { d.equals_foreign(column, &value) }
    };
    let on = link.there_columns.iter().enumerate().map(one).collect::<Vec<_>>().join(" AND ");
    let on = if confined { t.confined(on) } else { on };
    let sql = d.select(&what, &batch, &plan.table, &on, true);
    Statement { sql: format!("{sql} LIMIT {}", FIND_LIMIT + 1), args: t.args }
}

/// What one row of a batch by key is made of, in this order.
pub(super) fn key_batch(plan: &CollectionPlan) -> Vec<String> {
    let mut names = vec!["i".to_owned(), "f".to_owned()];
    names.extend((0..plan.key.len()).map(|k| format!("k{k}")));
    for (l, link) in plan.links.iter().enumerate() {
        names.extend((0..link.here.len()).map(|j| format!("l{l}_{j}")));
    }
    names.extend((0..plan.rules.len()).map(|r| format!("r{r}")));
    names.extend(plan.marker.iter().map(|_| "m".to_owned()));
    names.extend(plan.pseudonym.then(|| "p".to_owned()));
    names.extend((0..plan.retained.len()).map(|h| format!("h{h}")));
    names
}

/// The values of columns, by key, for [`Dialect::read`]. Position 1 is whether the row is still tied to the subject; with `tied_only` others are left out.
pub(super) fn values(
    d: Dialect,
    c: &Collection,
    plan: &CollectionPlan,
    columns: &[&Column],
    tied_only: bool,
    lock: bool,
) -> Statement {
    let mut t = Text { d, c, plan, args: Vec::new() };
    let tie = t.tie(false);
    let mut what = vec!["v.i".to_owned(), t.d.bits(&[(0, tie.clone())])];
    what.extend(columns.iter().map(|column| d.value(column)));
    let mut on = t.keys();
    if tied_only {
        on = format!("{on} AND {tie}");
    }
    let mut sql = d.select(&what, &key_batch(plan), &plan.table, &on, true);
    if lock {
        sql.push_str(d.for_update());
    }
    Statement { sql, args: t.args }
}

/// Writes a new value into one column, by key alone: only for rows that this transaction has locked and looked at. The batch has the value behind the usual
/// columns, as `n`.
pub(super) fn write(d: Dialect, c: &Collection, plan: &CollectionPlan, column: &Column) -> Statement {
    let mut t = Text { d, c, plan, args: Vec::new() };
    let on = t.keys();
    let mut batch = key_batch(plan);
    batch.push("n".to_owned());
    let sql = d.update(&batch, &plan.table, &plan.side_effects, &[(column, d.written(column, "v.n"))], &on);
    Statement { sql, args: t.args }
}

impl Text<'_> {
    fn arg(&mut self, arg: Arg) -> String {
        self.args.push(arg);
        format!("${}", self.args.len())
    }

    /// What a row brings: whose it is, numbers, texts.
    fn row(&self, wide: Width, numbers: Vec<String>, texts: Vec<String>) -> Vec<String> {
        let mut what = vec!["v.i".to_owned()];
        for (columns, wanted, text) in [(numbers, wide.numbers, false), (texts, wide.texts, true)] {
            let have = columns.len();
            what.extend(columns);
            what.extend(self.d.padding(have, wanted, text));
        }
        what
    }

    /// Confines a statement to the customer's rows (I8).
    fn confined(&mut self, on: String) -> String {
        match &self.plan.customer {
            Some(column) => {
                let arg = self.arg(Arg::Customer);
                format!("{on} AND {}", self.d.equals_foreign(column, &arg))
            }
            None => on,
        }
    }

    fn root(&mut self, rule: &RulePlan) -> (Vec<String>, String, bool) {
        let mut batch = vec!["i".to_owned(), "a".to_owned()];
        batch.extend(self.plan.pseudonym.then(|| "p".to_owned()));
        let on = self.confined(matches(self.d, rule, "v.a", Dialect::equals_folded));
        (batch, on, rule.matching == Matching::Exact)
    }

    fn pattern(&mut self, rule: &RulePlan) -> (Vec<String>, String, bool) {
        let mut batch = vec!["i".to_owned(), "a".to_owned()];
        batch.extend(self.plan.pseudonym.then(|| "p".to_owned()));
        let on = self.confined(self.d.matches_pattern(&rule.column, "v.a"));
        (batch, on, false)
    }

    fn child(&mut self, link: &LinkPlan) -> (Vec<String>, String, bool) {
        let mut batch = vec!["i".to_owned()];
        batch.extend((0..link.here.len()).map(|j| format!("a{j}")));
        batch.extend(self.plan.pseudonym.then(|| "p".to_owned()));
        let on = self.linked(link, |j| format!("v.a{j}"));
        (batch, self.confined(on), true)
    }

    fn pointer(mut self, link: &LinkPlan) -> Statement {
        let mut batch = vec!["i".to_owned()];
        batch.extend((0..link.here.len()).map(|j| format!("a{j}")));
        let mut what = vec!["v.i".to_owned()];
        what.extend(self.plan.key.iter().map(|column| self.d.text(column)));
        let on = self.linked(link, |j| format!("v.a{j}"));
        let on = self.confined(on);
        let sql = self.d.select(&what, &batch, &self.plan.table, &on, true);
        Statement { sql: format!("{sql} LIMIT {}", FIND_LIMIT + 1), args: self.args }
    }

    /// Keys, identifiers and links of the rows that bear a value, whosever they are.
    fn yielded(mut self, (column, matching): &(Column, Matching)) -> Statement {
        let mut what = vec!["v.i".to_owned()];
        let columns = self.plan.key.iter().chain(self.plan.rules.iter().map(|rule| &rule.column));
        let columns = columns.chain(self.plan.links.iter().flat_map(|link| &link.here));
        what.extend(columns.map(|column| self.d.text(column)));
        let on = self.confined(match matching {
            Matching::Exact => self.d.equals(column, "v.a"),
            Matching::CaseInsensitive => self.d.equals_folded(column, "v.a"),
            Matching::Digits => self.d.equals_digits(column, "v.a"),
        });
        let batch = ["i".to_owned(), "a".to_owned()];
        let sql = self.d.select(&what, &batch, &self.plan.table, &on, *matching == Matching::Exact);
        Statement { sql: format!("{sql} LIMIT {}", CHUNK + 1), args: self.args }
    }

    fn linked(&self, link: &LinkPlan, value: impl Fn(usize) -> String) -> String {
        let one = |(j, column): (usize, &Column)| {
            if link.native[j] { self.d.equals(column, &value(j)) } else { self.d.equals_foreign(column, &value(j)) }
        };
        link.here.iter().enumerate().map(one).collect::<Vec<_>>().join(" AND ")
    }

    /// Bits of "is not NULL", then of "differs from its mask".
    fn words(&mut self) -> Vec<String> {
        let filled: Vec<(usize, String)> =
            self.plan.fields.iter().map(|c| format!("{} IS NOT NULL", self.d.column(c))).enumerate().collect();
        let mut words = self.pack(&filled);
        if self.plan.shape.dirty {
            let dirty: Vec<(usize, String)> = (0..self.c.fields.len())
                .filter_map(|f| match &self.c.fields[f].erase {
                    FieldErasure::Mask(mask @ (Mask::Constant(_) | Mask::Pseudonym)) => {
                        Some((f, self.unlike(&self.plan.fields[f], mask)))
                    }
                    _ => None,
                })
                .collect();
            words.extend(self.pack(&dirty));
        }
        words
    }

    fn pack(&self, conditions: &[(usize, String)]) -> Vec<String> {
        let word = |w: usize| {
            let mine = conditions.iter().filter(|(f, _)| f / WORD == w);
            // At most 59.
            let bits: Vec<(u32, String)> = mine.map(|(f, c)| ((f % WORD) as u32, c.clone())).collect();
            self.d.bits(&bits)
        };
        (0..self.plan.shape.words).map(word).collect()
    }

    fn unlike(&mut self, column: &Column, mask: &Mask) -> String {
        match mask {
            Mask::SetNull => format!("{} IS NOT NULL", self.d.column(column)),
            Mask::Constant(text) => {
                let arg = self.arg(Arg::Text(text.clone()));
                self.d.differs(column, &arg)
            }
            Mask::Pseudonym => self.d.differs(column, "v.p"),
        }
    }

    /// Per field, the condition that something is left to erase. `holds`: the batch says which retained fields are still held.
    fn todo(&mut self, holds: Option<()>) -> Vec<(usize, String)> {
        let mut conditions = Vec::new();
        for (f, field) in self.c.fields.iter().enumerate() {
            let column = &self.plan.fields[f];
            match &field.erase {
                FieldErasure::Mask(mask) => conditions.push((f, self.unlike(column, mask))),
                FieldErasure::Keep => {}
                FieldErasure::Retain(_) => {
                    let filled = format!("{} IS NOT NULL", self.d.column(column));
                    let held = self.plan.retained.iter().position(|r| *r == f);
                    conditions.push(match (holds, held) {
                        (Some(()), Some(h)) => (f, format!("(v.h{h} = 0 AND {filled})")),
                        _ => (f, filled),
                    });
                }
            }
        }
        conditions
    }

    /// Whether erasure has left anything in a row, whoever's it was. What is masked nowhere is never empty.
    fn unmasked(&mut self) -> String {
        let masks = self.c.fields.iter().enumerate().filter_map(|(f, field)| match &field.erase {
            FieldErasure::Mask(mask) => Some((f, mask.clone())),
            FieldErasure::Retain(_) => Some((f, Mask::SetNull)),
            FieldErasure::Keep => None,
        });
        let masks: Vec<(usize, Mask)> = masks.filter(|_| self.c.erase == RowErasure::Mask).collect();
        let left = masks.into_iter().map(|(f, mask)| {
            let column = &self.plan.fields[f];
            match mask {
                // Each person has another one.
                Mask::Pseudonym => format!("SUBSTR({}, 1, {}) <> '{PSEUDONYM}'", self.d.text(column), PSEUDONYM.len()),
                mask => self.unlike(column, &mask),
            }
        });
        let left: Vec<String> = left.collect();
        if left.is_empty() { "1 = 1".to_owned() } else { format!("({})", left.join(" OR ")) }
    }

    fn keys(&mut self) -> String {
        let keys = self.plan.key.iter().enumerate().map(|(k, column)| self.d.equals(column, &format!("v.k{k}")));
        let on = keys.collect::<Vec<_>>().join(" AND ");
        self.confined(on)
    }

    /// `loosened`: links that [`Text::unlink`] has just set to NULL count as they were. Only for rows that were looked at before.
    fn tie(&mut self, loosened: bool) -> String {
        let mut ties = Vec::new();
        for (l, link) in self.plan.links.iter().enumerate() {
            ties.push(format!("({})", self.linked(link, |j| format!("v.l{l}_{j}"))));
            if loosened && link.back {
                let nulls: Vec<String> = link.here.iter().map(|c| format!("{} IS NULL", self.d.column(c))).collect();
                ties.push(format!("(v.l{l}_0 IS NOT NULL AND {})", nulls.join(" AND ")));
            }
        }
        for (r, rule) in self.plan.rules.iter().enumerate() {
            ties.push(format!("({})", matches(self.d, rule, &format!("v.r{r}"), Dialect::equals_folded_trimmed)));
        }
        if let (Some(marker), Some(column)) = (&self.c.restriction, &self.plan.marker) {
            let arg = self.arg(Arg::Text(marker.set.clone()));
            ties.push(format!("(v.m = 1 AND {})", at(self.d, column, Some(&arg))));
        }
        if ties.is_empty() { "1 = 0".to_owned() } else { format!("({})", ties.join(" OR ")) }
    }

    fn masked(&mut self, column: &Column, mask: &Mask) -> String {
        let (name, value) = match mask {
            Mask::SetNull => return "NULL".to_owned(),
            Mask::Constant(text) => (self.d.column(column), self.arg(Arg::Text(text.clone()))),
            Mask::Pseudonym => (self.d.column(column), "v.p".to_owned()),
        };
        // What is NULL holds nothing, and a mask there would claim that it had.
        format!("CASE WHEN {name} IS NULL THEN NULL ELSE {} END", self.d.written(column, &value))
    }

    fn mask(mut self) -> Option<Statement> {
        let plan = self.plan;
        let mut sets = Vec::new();
        for (f, field) in self.c.fields.iter().enumerate() {
            let column = &plan.fields[f];
            match &field.erase {
                FieldErasure::Mask(mask) => sets.push((column, self.masked(column, mask))),
                FieldErasure::Keep => {}
                FieldErasure::Retain(_) => {
                    let h = plan.retained.iter().position(|r| *r == f)?;
                    sets.push((column, format!("CASE WHEN v.h{h} = 1 THEN {} ELSE NULL END", self.d.column(column))));
                }
            }
        }
        self.update(&sets)
    }

    /// `undeclared`: a column besides that is in no field.
    fn redact(mut self, fields: &[usize], undeclared: Option<&Column>) -> Option<Statement> {
        let plan = self.plan;
        let mut sets = Vec::new();
        for f in fields {
            if let FieldErasure::Mask(mask) = &self.c.fields[*f].erase {
                sets.push((&plan.fields[*f], self.masked(&plan.fields[*f], mask)));
            }
        }
        sets.extend(undeclared.map(|column| (column, "NULL".to_owned())));
        self.update(&sets)
    }

    fn update(mut self, sets: &[(&Column, String)]) -> Option<Statement> {
        if sets.is_empty() {
            return None;
        }
        let on = format!("{} AND {}", self.keys(), self.tie(false));
        let sql = self.d.update(&key_batch(self.plan), &self.plan.table, &self.plan.side_effects, sets, &on);
        Some(Statement { sql, args: self.args })
    }

    fn delete(mut self) -> Statement {
        let on = format!("{} AND {}", self.keys(), self.tie(true));
        let sql = self.d.delete(&key_batch(self.plan), &self.plan.table, &self.plan.stored_by, &on);
        Statement { sql, args: self.args }
    }

    /// By the foreign key's own equality, over all customers, and as it stands now: that is how the database deletes. For rows that are locked.
    fn carried(mut self, reference: &Reference) -> Statement {
        let on = format!("{} AND {}", self.keys(), self.tie(true));
        let sql = self.d.select(&["v.i".to_owned()], &key_batch(self.plan), &self.plan.table, &on, true);
        let refers = reference.columns.iter();
        let refers = refers.map(|(there, here)| format!("q.{} = c.{}", self.d.quote(here), self.d.quote(there)));
        let refers: Vec<String> = refers.collect();
        let (on, now) = (refers.join(" AND "), self.d.as_it_stands());
        let sql = format!("{sql} JOIN {} c ON {on} LIMIT 1{now}", reference.table);
        Statement { sql, args: self.args }
    }

    fn unlink(self) -> Option<Statement> {
        let plan = self.plan;
        let columns = plan.links.iter().filter(|link| link.back).flat_map(|link| &link.here);
        let mut sets: Vec<(&Column, String)> = Vec::new();
        for column in columns {
            if !sets.iter().any(|(other, _)| *other == column) {
                sets.push((column, "NULL".to_owned()));
            }
        }
        self.update(&sets)
    }

    fn unpoint(mut self, at: usize, link: &LinkPlan) -> Statement {
        let mut batch = vec!["i".to_owned()];
        batch.extend((0..self.plan.key.len()).map(|k| format!("k{k}")));
        batch.extend((0..link.here.len()).map(|j| format!("w{j}")));
        batch.push("p".to_owned());
        let mask = self.c.points_at[at].mask.clone();
        let sets: Vec<(&Column, String)> =
            link.here.iter().map(|column| (column, self.masked(column, &mask))).collect();
        let on = format!("{} AND {}", self.keys(), self.linked(link, |j| format!("v.w{j}")));
        let sql = self.d.update(&batch, &self.plan.table, &self.plan.side_effects, &sets, &on);
        Statement { sql, args: self.args }
    }

    fn mark(mut self, column: &Column, value: Option<&str>) -> Statement {
        let value = match value {
            Some(text) => {
                let arg = self.arg(Arg::Text(text.to_owned()));
                self.d.written(column, &arg)
            }
            None => "NULL".to_owned(),
        };
        let on = format!("{} AND {}", self.keys(), self.tie(false));
        let sql =
            self.d.update(&key_batch(self.plan), &self.plan.table, &self.plan.side_effects, &[(column, value)], &on);
        Statement { sql, args: self.args }
    }

    fn not_marked(mut self, column: &Column, value: Option<&str>) -> Statement {
        let arg = value.map(|text| self.arg(Arg::Text(text.to_owned())));
        let marked = at(self.d, column, arg.as_deref());
        let on = format!("{} AND {} AND NOT {marked}", self.keys(), self.tie(false));
        let sql = self.d.select(&["v.i".to_owned()], &key_batch(self.plan), &self.plan.table, &on, true);
        Statement { sql, args: self.args }
    }

    /// `f`: 0 the row is to be gone, 1 masked, 2 marked as restricted. Brings bits of what is left, the identifiers and the links.
    fn left(mut self, wide: Width) -> Statement {
        let todo = self.todo(Some(()));
        let any: Vec<&str> = todo.iter().map(|(_, c)| c.as_str()).collect();
        let any = if any.is_empty() { "1 = 0".to_owned() } else { any.join(" OR ") };
        let unmarked = match (&self.c.restriction, &self.plan.marker) {
            (Some(marker), Some(column)) => {
                let arg = self.arg(Arg::Text(marker.set.clone()));
                format!("NOT {}", at(self.d, column, Some(&arg)))
            }
            _ => "1 = 0".to_owned(),
        };
        let tie = self.tie(false);
        let mut numbers = vec![self.d.bits(&[(0, tie)])];
        numbers.extend(self.pack(&todo));
        let rules = self.plan.rules.iter().map(|rule| &rule.column);
        let columns = rules.chain(self.plan.links.iter().flat_map(|link| &link.here));
        let what = self.row(wide, numbers, columns.map(|column| self.d.text(column)).collect());
        let on = format!("{} AND (v.f = 0 OR (v.f = 1 AND ({any})) OR (v.f = 2 AND {unmarked}))", self.keys());
        let sql = self.d.select(&what, &key_batch(self.plan), &self.plan.table, &on, true);
        Statement { sql, args: self.args }
    }
}

/// The column is at the value; `None` is NULL.
fn at(d: Dialect, column: &Column, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("({} IS NOT NULL AND NOT {})", d.column(column), d.differs(column, value)),
        None => format!("({} IS NULL)", d.column(column)),
    }
}

fn matches(d: Dialect, rule: &RulePlan, value: &str, folded: fn(Dialect, &Column, &str) -> String) -> String {
    match rule.matching {
        // A binary column cannot be asked for a text; the check says so.
        _ if rule.column.class == Class::Bytes => "1 = 0".to_owned(),
        Matching::Exact => d.equals_foreign(&rule.column, value),
        Matching::CaseInsensitive => folded(d, &rule.column, value),
        Matching::Digits => d.equals_digits(&rule.column, value),
    }
}
