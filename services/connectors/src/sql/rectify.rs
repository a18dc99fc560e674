//! Rectification (Art. 16): only rows of the subject, only the field that is named, only where it holds what the customer says it holds.
//!
//! A changed identifier goes along to every column by which rows of the subject are known under the old one, in whatever form it stands there.

use std::collections::{BTreeMap, HashMap, HashSet};

use quittance_domain::{
    action::{Correction, CorrectionTarget, IdentifierChange},
    identifier::Identifier,
    outcome::{Outcome, OutcomeKind},
};

use super::{
    batch::CHUNK,
    erase::{Acting, pseudonym},
    failure,
    fate::redacted,
    identify,
    outcomes::{ANY, Tally, line, not_held},
    plan::Plan,
    schema::{Class, Column},
    spelling::same,
    statements::{values, write},
};
use crate::{BatchContext, ConnectorError, Found, MatchSet, MatchedRow, RowFate, Subject, SubjectError, SubjectResult};

/// A column of a collection: a declared field, or one that only an identifier rule names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Spot {
    Field(usize),
    Rule(usize),
}

/// Where a correction leads: collection and column, by position.
type Place = (usize, Spot);

fn column(plan: &Plan, (at, spot): Place) -> &Column {
    let of = &plan.collections[at];
    match spot {
        Spot::Field(f) => &of.fields[f],
        Spot::Rule(r) => &of.rules[r].column,
    }
}

/// On the number of an order that a row bears: the row had the new value when it was found. A find after the change sees every such row so,
/// those among them that nobody has corrected; they count where no row is known that had the old one.
const ALREADY: u16 = 1 << 15;

/// One thing to correct of a subject. A match set's rows name them by number: those of the customer's first, in its order.
enum Order<'a> {
    Named(&'a Correction),
    Carried(Carried<'a>),
}

/// An identifier's change, in one column.
struct Carried<'a> {
    place: Place,
    /// The rule that compares with what is stored; a column that only yields has none.
    rule: Option<usize>,
    old: &'a Identifier,
    new: &'a Identifier,
}

impl Carried<'_> {
    fn holds(&self, plan: &Plan, identifier: &Identifier, stored: &str) -> bool {
        match self.rule {
            Some(rule) => identify::is(&plan.collections[self.place.0].rules[rule], identifier, stored),
            None => Identifier::normalise(identifier.kind(), stored).is_ok_and(|found| found == *identifier),
        }
    }

    fn is_old(&self, plan: &Plan, stored: &str) -> bool {
        self.holds(plan, self.old, stored) && !self.is_new(plan, stored)
    }

    /// A column that does not tell the two apart must hold the new one to the letter.
    fn is_new(&self, plan: &Plan, stored: &str) -> bool {
        stored == self.new.value().expose()
            || (self.holds(plan, self.new, stored) && !self.holds(plan, self.old, stored))
    }
}

/// The order depends on map and subject alone, so that a rerun reads its match set as it was written.
fn orders<'a>(plan: &Plan, subject: &'a Subject) -> Vec<Order<'a>> {
    let mut orders: Vec<Order<'a>> = subject.corrections.iter().map(Order::Named).collect();
    let mut met: HashSet<(&Identifier, &Identifier)> = HashSet::new();
    for IdentifierChange { kind, old, new, .. } in &subject.identifier_changes {
        let Some(old) = old.as_ref().filter(|old| met.insert((*old, new))) else { continue };
        for (at, map) in plan.map.collections.iter().enumerate() {
            let field = |name: &str| map.fields.iter().position(|f| f.name == name);
            let by_rule = map.identifiers.iter().enumerate().filter(|(_, rule)| rule.kind == *kind);
            let by_rule = by_rule.map(|(r, rule)| (field(&rule.field).map_or(Spot::Rule(r), Spot::Field), Some(r)));
            let mut spots: Vec<(Spot, Option<usize>)> = by_rule.collect();
            for f in map.yields.iter().filter(|y| y.kind == *kind).filter_map(|y| field(&y.field)) {
                if !spots.iter().any(|(spot, _)| *spot == Spot::Field(f)) {
                    spots.push((Spot::Field(f), None));
                }
            }
            let carried = |(spot, rule)| Order::Carried(Carried { place: (at, spot), rule, old, new });
            orders.extend(spots.into_iter().map(carried));
        }
    }
    orders
}

/// What a row holds in the field of a correction.
struct Held<'a> {
    row: &'a MatchedRow,
    column: &'a Column,
    value: Option<String>,
    /// It is still the subject's by what tied it to the subject when it was found. A corrected identifier may be what did.
    tied: bool,
    /// The field is the subject's, and not of another person whose row it is too.
    own: bool,
}

impl Held<'_> {
    /// In whatever spelling.
    fn holds(&self, plan: &Plan, text: &str) -> bool {
        self.value.as_deref().is_some_and(|value| same(plan.dialect.engine, self.column, value, text))
    }
}

/// By subject and order.
type Holdings<'a> = HashMap<(usize, usize), Vec<Held<'a>>>;

/// Narrows what was found to the rows that the corrections name.
pub(super) async fn narrow(
    plan: &Plan,
    ctx: &BatchContext,
    subjects: &[Subject],
    tx: &mut quittance_sql::Tx,
    found: Vec<SubjectResult<Found>>,
) -> Result<Vec<SubjectResult<Found>>, ConnectorError> {
    let empty = MatchSet::default();
    let sets: Vec<MatchSet> =
        found.iter().map(|f| f.as_ref().map_or_else(|_| empty.clone(), |f| f.match_set.clone())).collect();
    let mut acting = Acting { plan, ctx, subjects, sets: &sets, tx };
    let holdings = read(&mut acting, false, all).await?;
    let mut narrowed = Vec::with_capacity(found.len());
    for (s, found) in found.into_iter().enumerate() {
        narrowed.push(match found {
            Ok(found) => name(plan, &subjects[s], s, found, &holdings),
            error => error,
        });
    }
    Ok(narrowed)
}

fn name(plan: &Plan, subject: &Subject, s: usize, mut found: Found, holdings: &Holdings<'_>) -> SubjectResult<Found> {
    let mut named: HashMap<(usize, Vec<String>), Vec<u16>> = HashMap::new();
    let mut taken: HashSet<(Place, Vec<String>)> = HashSet::new();
    let settled = settled(plan, subject, s, holdings);
    for (c, order) in orders(plan, subject).iter().enumerate() {
        let place = place(plan, order)?;
        let settled = |row: &MatchedRow| settled.contains(&(place, row.key.as_slice()));
        let held = holdings.get(&(s, c)).map_or(&[][..], Vec::as_slice);
        let number = u16::try_from(c).unwrap_or(u16::MAX);
        if let Order::Named(Correction { target: CorrectionTarget::Record { key, .. }, .. }) = order
            && held.iter().any(|h| h.row.key == *key && !h.own)
        {
            return Err(SubjectError::Other(format!(
                "{} of the record that is named is not the subject's alone, by the data map: it stays as it is. Decide whose it is in the data",
                text(plan, place)
            )));
        }
        let (mut targets, already) = targets(plan, order, held, &settled);
        if let Order::Carried(carried) = order {
            // What the customer named itself is done as it said.
            targets.retain(|row| !taken.contains(&(place, row.key.clone())));
            if !targets.is_empty() {
                may_carry(plan, carried)?;
            }
        }
        for row in targets {
            if !taken.insert((place, row.key.clone())) {
                let message = format!("two corrections name {} of one row", text(plan, place));
                return Err(SubjectError::Other(message));
            }
            named.entry((place.0, row.key.clone())).or_default().push(if already { number | ALREADY } else { number });
        }
    }
    for (collection, rows) in &mut found.match_set.collections {
        let at = plan.index(collection).unwrap_or(usize::MAX);
        rows.retain_mut(|row| {
            let corrections = named.remove(&(at, row.key.clone()));
            row.corrections = corrections.unwrap_or_default();
            !row.corrections.is_empty()
        });
    }
    found.match_set.collections.retain(|_, rows| !rows.is_empty());
    Ok(found)
}

/// Rows that hold what an order has made of them: nothing holds its old value any more. That may be what another order speaks of: one's new value
/// may be another's old one.
fn settled<'a>(plan: &Plan, subject: &Subject, s: usize, holdings: &'a Holdings<'_>) -> HashSet<(Place, &'a [String])> {
    let mut settled: HashSet<(Place, &[String])> = HashSet::new();
    let orders = orders(plan, subject);
    // Of three that follow one another, the second is known to be done by the first, and the third by the second.
    loop {
        let before = settled.len();
        for (c, order) in orders.iter().enumerate() {
            let (Ok(place), Some(held)) = (place(plan, order), holdings.get(&(s, c))) else { continue };
            let is_settled = |row: &MatchedRow| settled.contains(&(place, row.key.as_slice()));
            if let (rows, true) = targets(plan, order, held, &is_settled) {
                settled.extend(rows.into_iter().map(|row| (place, row.key.as_slice())));
            }
        }
        if settled.len() == before {
            return settled;
        }
    }
}

/// Whether a column of a row is the subject's to correct. Of a row that is somebody else's too, only what erasure would take of it: the other
/// one's name may be the same. An identifier of the subject's is the subject's wherever it stands.
fn is_own(plan: &Plan, order: &Order<'_>, (at, spot): Place, row: &MatchedRow) -> bool {
    let Spot::Field(field) = spot else { return true };
    let redacted = || redacted(&plan.collections[at], &row.rules, row.rest).0;
    row.fate != RowFate::Redact
        || matches!(order, Order::Carried(_))
        || redacted().into_iter().any(|f| usize::from(f) == field)
}

/// The rows that a correction is about, as they stand: those with the old value, or if there are none, those that have the new one already; and
/// whether it is these. A row whose old value another order has written is `settled`.
fn targets<'a>(
    plan: &Plan,
    order: &Order<'_>,
    held: &[Held<'a>],
    settled: &dyn Fn(&MatchedRow) -> bool,
) -> (Vec<&'a MatchedRow>, bool) {
    let that =
        |is: &dyn Fn(&Held<'a>) -> bool| held.iter().filter(|h| h.own && is(h)).map(|h| h.row).collect::<Vec<_>>();
    let holding = |value: &str| that(&|h| h.holds(plan, value));
    let rows = match order {
        Order::Named(Correction { target, .. }) => match target {
            CorrectionTarget::Replace { old, new } => {
                let mut old = holding(old);
                old.retain(|row| !settled(row));
                if old.is_empty() {
                    return (holding(new), true);
                }
                old
            }
            CorrectionTarget::Record { key, .. } => that(&|h| h.row.key == *key),
            CorrectionTarget::Append { .. } => that(&|_| true),
        },
        // What has the new one already is no work of ours.
        Order::Carried(carried) => that(&|h| h.value.as_deref().is_some_and(|stored| carried.is_old(plan, stored))),
    };
    (rows, false)
}

fn all(rows: &[MatchedRow], _: usize) -> Vec<&MatchedRow> {
    rows.iter().collect()
}

/// The rows of a match set that an order is about.
fn named(rows: &[MatchedRow], c: usize) -> Vec<&MatchedRow> {
    let bear = |flag: u16| {
        let bears = move |row: &&MatchedRow| row.corrections.iter().any(|of| usize::from(of ^ flag) == c);
        rows.iter().filter(bears).collect::<Vec<_>>()
    };
    let changed = bear(0);
    if changed.is_empty() { bear(ALREADY) } else { changed }
}

fn text(plan: &Plan, place: Place) -> String {
    format!("{}.{}", plan.map_of(place.0).name, column(plan, place).name)
}

/// Where an order leads. What the customer named must be there, and may be corrected.
fn place(plan: &Plan, order: &Order<'_>) -> SubjectResult<Place> {
    let correction = match order {
        Order::Named(correction) => correction,
        Order::Carried(carried) => return Ok(carried.place),
    };
    let Correction { collection, field, target } = correction;
    let refused = |why: &str| SubjectError::Other(format!("{collection}.{field} {why}"));
    let at = plan.index(collection).ok_or_else(|| refused("is not in the map"))?;
    let fields = &plan.map_of(at).fields;
    let f = fields.iter().position(|known| known.name == *field).ok_or_else(|| refused("is not in the map"))?;
    if !fields[f].rectify {
        return Err(refused("cannot be rectified"));
    }
    let new = match target {
        CorrectionTarget::Replace { new, .. } | CorrectionTarget::Record { new, .. } => new,
        CorrectionTarget::Append { statement } => statement,
    };
    // PostgreSQL could not hold it, and SQLite would hold half of it.
    if new.contains('\0') { Err(refused("cannot hold a NUL character")) } else { Ok((at, Spot::Field(f))) }
}

/// An identifier that is also a key, or that rows hang on, is not ours to change: a person does that.
fn may_carry(plan: &Plan, carried: &Carried<'_>) -> SubjectResult<()> {
    let (at, spot) = carried.place;
    let (map, column) = (plan.map_of(at), column(plan, carried.place));
    let refused = |why: &str| Err(SubjectError::Other(format!("{} {why}", text(plan, carried.place))));
    let here = map.owned_by.iter().chain(map.points_at.iter().map(|p| &p.link)).flat_map(|link| &link.fields);
    let holds_the_row = map.key.contains(&column.name)
        || map.customer_field.as_ref() == Some(&column.name)
        || here.into_iter().any(|(here, _)| *here == column.name)
        || plan.is_linked(at, &column.name);
    if holds_the_row || matches!(spot, Spot::Field(f) if !map.fields[f].rectify) {
        return refused("holds the changed identifier, and cannot be rectified: keys and what rows hang on never are");
    }
    if column.accepts(carried.new.value().expose()) { Ok(()) } else { refused("cannot hold the new identifier") }
}

/// What the match sets' rows hold, one statement for each field that is corrected anywhere in the batch.
async fn read<'a>(
    acting: &mut Acting<'a, '_>,
    lock: bool,
    about: impl Fn(&'a [MatchedRow], usize) -> Vec<&'a MatchedRow>,
) -> Result<Holdings<'a>, ConnectorError> {
    let (plan, subjects, sets) = (acting.plan, acting.subjects, acting.sets);
    let mut asked: BTreeMap<Place, Vec<(usize, usize, bool, &'a MatchedRow)>> = BTreeMap::new();
    for (s, (subject, set)) in subjects.iter().zip(sets).enumerate() {
        for (c, order) in orders(plan, subject).iter().enumerate() {
            let Ok(place) = place(plan, order) else { continue };
            let rows = set.collections.get(&plan.map_of(place.0).name).map_or(&[][..], Vec::as_slice);
            let rows = about(rows, c).into_iter();
            asked.entry(place).or_default().extend(rows.map(|row| (s, c, is_own(plan, order, place, row), row)));
        }
    }
    let mut holdings = Holdings::new();
    for (place, rows) in asked {
        let (of, at, column) = (&plan.collections[place.0], place.0, column(plan, place));
        let statement = values(plan.dialect, plan.map_of(at), of, &[column], false, lock);
        let mut batch = acting.batch(at, CHUNK);
        for (i, (s, _, _, row)) in rows.iter().enumerate() {
            batch.push(i, 0, row, &subjects[*s], pseudonym(&subjects[*s], &sets[*s]));
        }
        // A row with two ties comes twice.
        let mut seen: BTreeMap<usize, Held<'a>> = BTreeMap::new();
        for batch in batch.finish() {
            let args = statement.args(acting.ctx.customer_key.as_deref());
            for read in acting.tx.fetch_rows(&statement.sql, args, batch).await.map_err(failure)? {
                let i = usize::try_from(read.i64(0).map_err(failure)?).unwrap_or(usize::MAX);
                let Some((_, _, own, row)) = rows.get(i) else { continue };
                let tied = read.i64(1).map_err(failure)? == 1;
                let value = plan.dialect.read(column, &read, 2).map_err(failure)?;
                seen.entry(i).and_modify(|held| held.tied |= tied).or_insert(Held {
                    row,
                    column,
                    value,
                    tied,
                    own: *own,
                });
            }
        }
        for (i, held) in seen {
            let (s, c, ..) = rows[i];
            holdings.entry((s, c)).or_default().push(held);
        }
    }
    Ok(holdings)
}

/// What a correction makes of one row.
enum Step {
    Done,
    Write(String),
    /// Not what the correction speaks of.
    Other,
}

fn step(plan: &Plan, order: &Order<'_>, held: &Held<'_>) -> Step {
    let value = held.value.as_deref();
    // What holds the new value is done, even where that value was what tied it.
    let (done, write) = match order {
        Order::Carried(carried) => {
            let is = |is: &dyn Fn(&str) -> bool| value.is_some_and(is);
            let old = is(&|stored| carried.is_old(plan, stored));
            (is(&|stored| carried.is_new(plan, stored)), old.then(|| carried.new.value().expose().clone()))
        }
        Order::Named(Correction { target, .. }) => match target {
            CorrectionTarget::Replace { old, new } => {
                (held.holds(plan, new), held.holds(plan, old).then(|| new.clone()))
            }
            CorrectionTarget::Record { key, new } => {
                (held.holds(plan, new), (held.row.key == *key).then(|| new.clone()))
            }
            CorrectionTarget::Append { statement } => {
                let appended =
                    |text: &str| if text.is_empty() { statement.clone() } else { format!("{text}\n{statement}") };
                (ends_with(value, statement), Some(value.map_or_else(|| statement.clone(), appended)))
            }
        },
    };
    match write {
        _ if done => Step::Done,
        Some(new) if held.tied && held.own => Step::Write(new),
        _ => Step::Other,
    }
}

fn ends_with(value: Option<&str>, statement: &str) -> bool {
    value.is_some_and(|v| v == statement || v.strip_suffix(statement).is_some_and(|before| before.ends_with('\n')))
}

/// Per place, the keys of the rows of a match set in which an order of that place is done. What another order finds in them now is what that one
/// has written.
fn corrected<'a>(
    plan: &Plan,
    subject: &Subject,
    s: usize,
    holdings: &'a Holdings<'_>,
) -> HashMap<Place, HashSet<&'a [String]>> {
    let mut corrected: HashMap<Place, HashSet<&[String]>> = HashMap::new();
    for (c, order) in orders(plan, subject).iter().enumerate() {
        let (Ok(place), Some(held)) = (place(plan, order), holdings.get(&(s, c))) else { continue };
        let done = held.iter().filter(|held| matches!(step(plan, order, held), Step::Done));
        corrected.entry(place).or_default().extend(done.map(|held| held.row.key.as_slice()));
    }
    corrected
}

/// Collection, key, and the order that is about the row.
type Names = HashSet<(usize, Vec<String>, usize)>;

/// Which rows the corrections name now. One of an earlier attempt may be somebody else's since, and its owner's key with it.
async fn names(acting: &mut Acting<'_, '_>) -> Result<Vec<SubjectResult<Names>>, ConnectorError> {
    let (plan, ctx, subjects) = (acting.plan, acting.ctx, acting.subjects);
    let found = super::find::find(plan, ctx, subjects, acting.tx).await?;
    let found = narrow(plan, ctx, subjects, acting.tx, found).await?;
    let named = |found: Found| {
        let mut names = Names::new();
        for (collection, rows) in found.match_set.collections {
            let Some(at) = plan.index(&collection) else { continue };
            for row in rows {
                names.extend(row.corrections.iter().map(|c| (at, row.key.clone(), usize::from(c & !ALREADY))));
            }
        }
        names
    };
    Ok(found.into_iter().map(|found| found.map(named)).collect())
}

/// All of a subject's corrections, or none of them.
pub(super) async fn act(acting: &mut Acting<'_, '_>) -> Result<Vec<SubjectResult<()>>, ConnectorError> {
    let (plan, subjects, sets) = (acting.plan, acting.subjects, acting.sets);
    let holdings = read(acting, true, named).await?;
    let names = names(acting).await?;
    let mut writes: BTreeMap<Place, Vec<(usize, &MatchedRow, String)>> = BTreeMap::new();
    let mut results = Vec::with_capacity(subjects.len());
    for (s, subject) in subjects.iter().enumerate() {
        let corrected = corrected(plan, subject, s, &holdings);
        let mut steps = Vec::new();
        let mut result = Ok(());
        for (c, order) in orders(plan, subject).iter().enumerate() {
            let place = match place(plan, order) {
                Ok(place) => place,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            let held = holdings.get(&(s, c)).map_or(&[][..], Vec::as_slice);
            let mut met = false;
            for held in held {
                match step(plan, order, held) {
                    Step::Done => met = true,
                    Step::Write(new) => match &names[s] {
                        Ok(names)
                            if names.contains(&(place.0, held.row.key.clone(), c))
                                && !corrected
                                    .get(&place)
                                    .is_some_and(|rows| rows.contains(held.row.key.as_slice())) =>
                        {
                            met = true;
                            steps.push((place, s, held.row, new));
                        }
                        Ok(_) => {}
                        Err(error) => result = Err(error.clone()),
                    },
                    Step::Other => {}
                }
            }
            if result.is_err() {
                break;
            }
            // Of what is carried, nobody said that it is here.
            if let (false, Order::Named(Correction { collection, field, .. })) = (met, order) {
                let (collection, field) = (collection.clone(), field.clone());
                result = Err(SubjectError::OldValueMismatch { collection, field });
                break;
            }
        }
        if result.is_ok() {
            for (place, s, row, new) in steps {
                writes.entry(place).or_default().push((s, row, new));
            }
        }
        results.push(result);
    }
    for (place, rows) in writes {
        let at = place.0;
        let column = column(plan, place);
        let statement = write(plan.dialect, plan.map_of(at), &plan.collections[at], column);
        let mut batch = acting.batch(at, CHUNK);
        for (i, (s, row, new)) in rows.iter().enumerate() {
            // By key alone: one entry a row, whatever ties it has.
            let bare = MatchedRow::new(row.key.clone(), row.fate);
            batch.push_with(i, 0, &bare, &subjects[*s], pseudonym(&subjects[*s], &sets[*s]), Some(new));
        }
        for rows in batch.finish() {
            let args = statement.args(acting.ctx.customer_key.as_deref());
            acting.tx.execute_rows(&statement.sql, args, rows).await.map_err(failure)?;
        }
        // A text that does not fit is refused by the database itself.
        if column.class != Class::Text {
            stands_as_written(acting, place, &rows).await?;
        }
    }
    Ok(results)
}

/// What the database rounds or cuts is not what the customer has said: nothing of it is committed, and a person is told.
async fn stands_as_written(
    acting: &mut Acting<'_, '_>,
    place: Place,
    written: &[(usize, &MatchedRow, String)],
) -> Result<(), ConnectorError> {
    let (plan, at, column) = (acting.plan, place.0, column(acting.plan, place));
    let statement = values(plan.dialect, plan.map_of(at), &plan.collections[at], &[column], false, false);
    let bare: Vec<MatchedRow> = written.iter().map(|(_, row, _)| MatchedRow::new(row.key.clone(), row.fate)).collect();
    let share = written.iter().zip(&bare).map(|((s, ..), row)| (*s, row)).collect();
    for rows in acting.keys(at, &share, CHUNK) {
        let args = statement.args(acting.ctx.customer_key.as_deref());
        for row in acting.tx.fetch_rows(&statement.sql, args, rows).await.map_err(failure)? {
            let i = usize::try_from(row.i64(0).map_err(failure)?).unwrap_or(usize::MAX);
            let Some((_, _, new)) = written.get(i) else { continue };
            let stands = plan.dialect.read(column, &row, 2).map_err(failure)?;
            if !stands.is_some_and(|text| same(plan.dialect.engine, column, &text, new)) {
                return Err(ConnectorError::Refused(format!(
                    "{} is of type {}, which would hold another value than the one instructed: nothing was changed. Have the customer instruct \
                     it as the column can hold it",
                    text(plan, place),
                    column.type_name
                )));
            }
        }
    }
    Ok(())
}

/// The subject under its new names as well: what was carried must be found by them.
fn renamed(subject: &Subject) -> Subject {
    let mut renamed = subject.clone();
    for change in &subject.identifier_changes {
        if !renamed.identifiers.contains(&change.new) {
            renamed.identifiers.push(change.new.clone());
        }
    }
    renamed
}

pub(super) async fn read_back(acting: &mut Acting<'_, '_>) -> Result<Vec<SubjectResult<Vec<Outcome>>>, ConnectorError> {
    let (plan, ctx, subjects, sets) = (acting.plan, acting.ctx, acting.subjects, acting.sets);
    let named = read(acting, false, named).await?;
    // The old value must be gone from rows that have come since, too.
    let renamed: Vec<Subject> = subjects.iter().map(renamed).collect();
    let found = super::find::find(plan, ctx, &renamed, acting.tx).await?;
    let errors: Vec<Option<SubjectError>> = found.iter().map(|found| found.as_ref().err().cloned()).collect();
    let again: Vec<MatchSet> = found.into_iter().map(|found| found.map(|f| f.match_set).unwrap_or_default()).collect();
    let mut later = Acting { plan, ctx, subjects: &renamed, sets: &again, tx: &mut *acting.tx };
    let now = read(&mut later, false, all).await?;
    let mut results = Vec::with_capacity(subjects.len());
    for (s, subject) in subjects.iter().enumerate() {
        // Under its new name it matches too much, say: a person looks.
        if let Some(error) = errors[s].clone().filter(|_| !subject.identifier_changes.is_empty()) {
            results.push(Err(error));
            continue;
        }
        let mut wrong = 0_u64;
        let mut rows: BTreeMap<(usize, &[String]), Vec<Spot>> = BTreeMap::new();
        let corrected = corrected(plan, subject, s, &named);
        for (c, order) in orders(plan, subject).iter().enumerate() {
            let Ok(place) = place(plan, order) else { continue };
            let held = named.get(&(s, c)).map_or(&[][..], Vec::as_slice);
            let now = now.get(&(s, c)).map_or(&[][..], Vec::as_slice);
            let done: Vec<_> = held.iter().filter(|h| matches!(step(plan, order, h), Step::Done)).collect();
            // What was found before and is not found any more is somebody else's by now, and stays as it is.
            let found: HashSet<&[String]> = now.iter().map(|h| h.row.key.as_slice()).collect();
            let corrected = corrected.get(&place).cloned().unwrap_or_default();
            let left = held.iter().filter(|h| matches!(step(plan, order, h), Step::Write(_)));
            let left = left.map(|h| h.row.key.as_slice()).filter(|key| found.contains(key) && !corrected.contains(key));
            let left: HashSet<&[String]> = left.collect();
            wrong += left.len() as u64;
            let known = &corrected | &left;
            match order {
                Order::Named(correction) => {
                    wrong += u64::from(done.is_empty() && !sets[s].is_empty());
                    if let CorrectionTarget::Replace { old, new } = &correction.target
                        && !same(plan.dialect.engine, column(plan, place), old, new)
                        && !sets[s].is_empty()
                    {
                        let stale =
                            |h: &&Held<'_>| h.own && h.holds(plan, old) && !known.contains(h.row.key.as_slice());
                        wrong += now.iter().filter(stale).count() as u64;
                    }
                }
                Order::Carried(carried) => {
                    let is_old = |h: &&Held<'_>| h.value.as_deref().is_some_and(|v| carried.is_old(plan, v));
                    wrong += now.iter().filter(|h| !known.contains(h.row.key.as_slice())).filter(is_old).count() as u64;
                    // By the new name it leads to the row, as the old one did.
                    wrong += done.iter().filter(|h| !found.contains(h.row.key.as_slice())).count() as u64;
                }
            }
            for held in done {
                rows.entry((place.0, &held.row.key)).or_default().push(place.1);
            }
        }
        if wrong > 0 {
            results.push(Err(SubjectError::NotYet { rows: wrong }));
            continue;
        }
        if rows.is_empty() {
            results.push(Ok(not_held()));
            continue;
        }
        let mut tally = Tally::default();
        for ((at, _), spots) in rows {
            let map = plan.map_of(at);
            let category = |spot| match spot {
                Spot::Field(f) => map.fields[f].category.as_str(),
                Spot::Rule(_) => ANY,
            };
            let lines = spots.into_iter().map(|spot| line(map, category(spot), OutcomeKind::Rectified, ""));
            tally.row(lines.map(|line| (line, None)));
        }
        results.push(Ok(tally.outcomes()));
    }
    Ok(results)
}
