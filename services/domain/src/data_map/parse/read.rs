//! From the tree to the map's own shape: keys, types, defaults. What fails here is told and left out, and the rest goes on.

use super::{
    MapKind, Place, Problems,
    node::{Node, Value},
    section::{At, Listed, Section, choice, column, column_item, entries, flag, is_name, list, number, one_of, text},
};
use crate::{
    data_map::{CountedFrom, Mask, Matching, Period, RestrictionMarker, Retention, RowErasure, SharedRows, Table},
    identifier::IdentifierKind,
};

const MAX_COLLECTIONS: usize = 500;
const MAX_FIELDS: usize = 500;
const MAX_ROWS: i64 = 1_000_000;
const DEFAULT_ROWS: u32 = 1000;

pub(super) struct RawMap {
    pub max_rows_per_subject: u32,
    pub collections: Vec<RawCollection>,
    /// Also of those collections that could not be read, lest every link to them be told as a second problem.
    pub names: Vec<String>,
}

pub(super) struct RawCollection {
    pub name: At<String>,
    pub table: Table,
    pub key: Vec<At<String>>,
    pub customer_field: Option<At<String>>,
    pub identifiers: Listed<RawRule>,
    pub yields: Vec<(IdentifierKind, At<String>)>,
    pub owned_by: Listed<RawLink>,
    pub points_at: Listed<RawPointer>,
    pub fields: Listed<RawField>,
    /// `Some(None)`: there, but not understood.
    pub erase: Option<Option<RowErasure>>,
    pub shared: SharedRows,
    pub retain: Option<RawRetention>,
    pub restriction: Option<At<RestrictionMarker>>,
    pub third_party: bool,
}

pub(super) struct RawRule {
    pub kind: IdentifierKind,
    pub field: At<String>,
    pub matching: Option<At<Matching>>,
    pub redacts: Vec<At<String>>,
}

pub(super) struct RawLink {
    pub collection: At<String>,
    pub fields: Vec<(At<String>, String)>,
}

pub(super) struct RawPointer {
    pub link: RawLink,
    pub mask: Mask,
    pub category: String,
}

pub(super) struct RawField {
    pub name: At<String>,
    pub category: String,
    pub erase: RawErasure,
    pub rectify: Option<At<bool>>,
}

pub(super) enum RawErasure {
    Mask(Mask),
    Keep(Place),
    Retain(RawRetention),
}

pub(super) struct RawRetention {
    pub retention: Retention,
    pub place: Place,
    pub anchor: Place,
}

pub(super) fn map(root: &Node, kind: MapKind, problems: &mut Problems) -> Option<RawMap> {
    let mut top = Section::open(
        At { value: root, place: Place { line: root.line, column: root.column, field: String::new() } },
        problems,
    )?;
    match top.required("version", problems) {
        Some(At { value: Node { value: Value::Number(1), .. }, .. }) | None => {}
        Some(At { place, .. }) => problems.add(&place, "must be 1, the only version of this format"),
    }
    let rows = top.optional("max_rows_per_subject").and_then(|at| number(&at, 1..=MAX_ROWS, problems));
    let collections = top.required("collections", problems).and_then(|at| {
        let found = entries(&at, MAX_COLLECTIONS, problems)?;
        if found.is_empty() {
            problems.add(&at.place, "must hold at least one collection");
        }
        Some(found)
    });
    top.close(problems);
    let collections = collections?;
    let names = collections.iter().map(|(name, _)| name.value.clone()).collect();
    let collections = collections.into_iter().filter_map(|(name, at)| collection(name, at, kind, problems)).collect();
    Some(RawMap { max_rows_per_subject: rows.unwrap_or(DEFAULT_ROWS), collections, names })
}

fn collection(name: At<String>, at: At<&Node>, kind: MapKind, problems: &mut Problems) -> Option<RawCollection> {
    let readable = is_name(&name, problems);
    // Told at the collection's name, which is easier to find than the first of its keys.
    let mut section = Section::open(At { value: at.value, place: name.place.clone() }, problems)?;
    let table = match section.optional("table") {
        Some(at) => text(&at, problems).and_then(|name| table(&name, problems)),
        None => table(&name, problems),
    };
    let key = match (section.optional("key"), kind) {
        (Some(at), _) => {
            let columns = list(&at, problems, column_item);
            if columns.written == 0 {
                problems.add(&at.place, "must name at least one column");
            }
            columns.items
        }
        (None, MapKind::Declared) => Vec::new(),
        (None, MapKind::Sql) => {
            problems.add(&name.place.lacking("key"), "is required");
            Vec::new()
        }
    };
    let raw = RawCollection {
        table: table.unwrap_or_else(|| Table { schema: None, name: String::new() }),
        key,
        customer_field: section.optional("customer_field").and_then(|at| column(&at, problems)),
        identifiers: section.list("identifiers", problems, |at, problems| rule(at, kind, problems)),
        yields: section.optional("yields").map(|at| yields(&at, problems)).unwrap_or_default(),
        owned_by: section.list("owned_by", problems, owner),
        points_at: section.list("points_at", problems, pointer),
        fields: section.optional("fields").map_or(Listed { items: Vec::new(), written: 0 }, |at| fields(&at, problems)),
        erase: section.optional("erase").map(|at| choice(&at, RowErasure::ALL, RowErasure::as_str, problems)),
        shared: section
            .optional("shared")
            .and_then(|at| choice(&at, SharedRows::ALL, SharedRows::as_str, problems))
            .unwrap_or(SharedRows::Redact),
        retain: section.optional("retain").and_then(|at| retention(at, problems)),
        restriction: section.optional("restriction").and_then(|at| restriction(at, problems)),
        third_party: section.optional("third_party").and_then(|at| flag(&at, problems)).unwrap_or(false),
        name,
    };
    section.close(problems);
    readable.then_some(raw)
}

fn table(name: &At<String>, problems: &mut Problems) -> Option<Table> {
    let parts: Vec<&str> = name.value.split('.').collect();
    let (schema, table) = match parts.as_slice() {
        [table] => (None, *table),
        [schema, table] => (Some(*schema), *table),
        _ => {
            problems.add(&name.place, "must be `table` or `schema.table`");
            return None;
        }
    };
    for part in parts {
        if !is_name(&At { value: part.to_owned(), place: name.place.clone() }, problems) {
            return None;
        }
    }
    Some(Table { schema: schema.map(str::to_owned), name: table.to_owned() })
}

fn rule(at: At<&Node>, kind: MapKind, problems: &mut Problems) -> Option<RawRule> {
    let mut section = Section::open(at, problems)?;
    let place = section.place.clone();
    let named = section.required("kind", problems).and_then(|at| identifier_kind(&at, problems));
    let field = match (section.optional("field"), kind, named) {
        (Some(at), ..) => column(&at, problems),
        // A remote worker knows its own columns.
        (None, MapKind::Declared, Some(kind)) => Some(At { value: kind.as_str().to_owned(), place }),
        (None, ..) => {
            problems.add(&place.lacking("field"), "is required");
            None
        }
    };
    let matching = section.optional("match").and_then(|at| {
        let value = choice(&at, Matching::ALL, Matching::as_str, problems)?;
        Some(At { value, place: at.place })
    });
    let redacts = section.list("redacts", problems, column_item).items;
    section.close(problems);
    Some(RawRule { kind: named?, field: field?, matching, redacts })
}

fn yields(at: &At<&Node>, problems: &mut Problems) -> Vec<(IdentifierKind, At<String>)> {
    let mut found = Vec::new();
    for (name, field) in entries(at, MAX_FIELDS, problems).unwrap_or_default() {
        let field = column(&field, problems);
        match (IdentifierKind::parse(&name.value), field) {
            (Some(kind), Some(field)) => found.push((kind, field)),
            (Some(_), None) => {}
            (None, _) => problems.add(&name.place, one_of(IdentifierKind::ALL, IdentifierKind::as_str)),
        }
    }
    found
}

fn owner(at: At<&Node>, problems: &mut Problems) -> Option<RawLink> {
    let mut section = Section::open(at, problems)?;
    let link = link(&mut section, problems);
    section.close(problems);
    link
}

fn pointer(at: At<&Node>, problems: &mut Problems) -> Option<RawPointer> {
    let mut section = Section::open(at, problems)?;
    let link = link(&mut section, problems);
    let mask = section.optional("mask").map(|at| erasure(at, false, problems));
    let category = section.optional("category").map(|at| category(&at, problems));
    section.close(problems);
    let mask = match mask {
        None => Mask::SetNull,
        Some(Some(RawErasure::Mask(mask))) => mask,
        Some(_) => return None,
    };
    let category = category.unwrap_or_else(|| Some("reference".to_owned()))?;
    Some(RawPointer { link: link?, mask, category })
}

fn link(section: &mut Section<'_>, problems: &mut Problems) -> Option<RawLink> {
    let collection = section.required("collection", problems).and_then(|at| text(&at, problems));
    let columns = section.required("fields", problems).and_then(|at| {
        let pairs = entries(&at, MAX_FIELDS, problems)?;
        if pairs.is_empty() {
            problems.add(&at.place, "must name at least one pair, as in {customer_id: id}");
            return None;
        }
        let written = pairs.len();
        let pairs: Vec<_> = pairs
            .into_iter()
            .filter_map(|(here, there)| {
                let there = column(&there, problems);
                (is_name(&here, problems)).then_some((here, there?.value))
            })
            .collect();
        (pairs.len() == written).then_some(pairs)
    });
    Some(RawLink { collection: collection?, fields: columns? })
}

fn fields(at: &At<&Node>, problems: &mut Problems) -> Listed<RawField> {
    let found = entries(at, MAX_FIELDS, problems);
    // A mapping that could not be read at all was still written.
    let written = found.as_ref().map_or(1, Vec::len);
    let items = found.unwrap_or_default().into_iter().filter_map(|(name, at)| field(name, at, problems)).collect();
    Listed { items, written }
}

fn field(name: At<String>, at: At<&Node>, problems: &mut Problems) -> Option<RawField> {
    if !is_name(&name, problems) {
        return None;
    }
    if !matches!(at.value.value, Value::Mapping(_)) {
        let category = category(&at, problems)?;
        return Some(RawField { name, category, erase: RawErasure::Mask(Mask::SetNull), rectify: None });
    }
    let mut section = Section::open(At { value: at.value, place: name.place.clone() }, problems)?;
    let category = section.required("category", problems).and_then(|at| category(&at, problems));
    let erase =
        section.optional("erase").map_or(Some(RawErasure::Mask(Mask::SetNull)), |at| erasure(at, true, problems));
    let rectify = section.optional("rectify").and_then(|at| Some(At { value: flag(&at, problems)?, place: at.place }));
    section.close(problems);
    Some(RawField { name, category: category?, erase: erase?, rectify })
}

fn erasure(at: At<&Node>, may_stay: bool, problems: &mut Problems) -> Option<RawErasure> {
    let expected = if may_stay {
        r#"must be set_null, pseudonym, keep, {constant: "text"} or {retain: {…}}"#
    } else {
        r#"must be set_null, pseudonym or {constant: "text"}"#
    };
    match &at.value.value {
        Value::Text(word) => match word.as_str() {
            "set_null" => return Some(RawErasure::Mask(Mask::SetNull)),
            "pseudonym" => return Some(RawErasure::Mask(Mask::Pseudonym)),
            "keep" if may_stay => return Some(RawErasure::Keep(at.place)),
            _ => {}
        },
        Value::Mapping(_) => {
            let mut section = Section::open(at.clone(), problems)?;
            let constant = section.optional("constant");
            let retain = if may_stay { section.optional("retain") } else { None };
            if !section.close(problems) {
                return None;
            }
            match (constant, retain) {
                (Some(at), None) => {
                    return text(&at, problems).map(|text| RawErasure::Mask(Mask::Constant(text.value)));
                }
                (None, Some(at)) => return retention(at, problems).map(RawErasure::Retain),
                _ => {}
            }
        }
        _ => {}
    }
    problems.add(&at.place, expected);
    None
}

fn retention(at: At<&Node>, problems: &mut Problems) -> Option<RawRetention> {
    let place = at.place.clone();
    let mut section = Section::open(at, problems)?;
    let ground = section.required("ground", problems).and_then(|at| {
        let ground = text(&at, problems)?;
        if ground.value.trim().is_empty() {
            problems.add(&at.place, "must name the law and article");
            return None;
        }
        Some(ground.value)
    });
    let anchor = section.required("anchor", problems).and_then(|at| column(&at, problems));
    let counted_from = section
        .optional("counted_from")
        .map_or(Some(CountedFrom::Date), |at| choice(&at, CountedFrom::ALL, CountedFrom::as_str, problems));
    let period = section.required("period", problems).and_then(|at| {
        let written = text(&at, problems)?;
        let period = period(&written.value);
        if period.is_none() {
            problems.add(&at.place, "must be an ISO 8601 period of years, months, weeks or days, longer than nothing and at most 1000 years, such as P7Y");
        }
        period
    });
    section.close(problems);
    let anchor = anchor?;
    let retention = Retention { ground: ground?, anchor: anchor.value, counted_from: counted_from?, period: period? };
    Some(RawRetention { retention, place, anchor: anchor.place })
}

/// `P7Y`, `P18M`, `P1Y6M`, `P2W`, `P90D`: whole and positive numbers, each unit once, in order.
fn period(text: &str) -> Option<Period> {
    const UNITS: &str = "YMWD";
    let mut rest = text.strip_prefix('P')?;
    let mut amounts = [0_u32; UNITS.len()];
    let mut least = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let amount: u32 = rest.get(..digits)?.parse().ok()?;
        let unit = UNITS.find(rest[digits..].chars().next()?)?;
        if unit < least || amount > 366_000 {
            return None;
        }
        amounts[unit] = amount;
        least = unit + 1;
        // Every unit is one byte.
        rest = &rest[digits + 1..];
    }
    let [years, months, weeks, days] = amounts;
    let days = weeks * 7 + days;
    let within = years <= 1000 && months <= 12_000 && days <= 366_000 && years + months + days > 0;
    if !within {
        return None;
    }
    Some(Period { years: years.try_into().ok()?, months: months.try_into().ok()?, days: days.try_into().ok()? })
}

fn restriction(at: At<&Node>, problems: &mut Problems) -> Option<At<RestrictionMarker>> {
    let mut section = Section::open(at, problems)?;
    let field = section.required("field", problems).and_then(|at| column(&at, problems));
    let set = section.required("set", problems).and_then(|at| text(&at, problems));
    let clear = section.optional("clear").map(|at| text(&at, problems));
    section.close(problems);
    let (field, set) = (field?, set?);
    let clear = match clear {
        None => None,
        Some(read) => Some(read?.value),
    };
    if clear.as_ref() == Some(&set.value) {
        problems.add(&set.place, "must differ from clear");
        return None;
    }
    Some(At { value: RestrictionMarker { field: field.value, set: set.value, clear }, place: field.place })
}

fn identifier_kind(at: &At<&Node>, problems: &mut Problems) -> Option<IdentifierKind> {
    choice(at, IdentifierKind::ALL, IdentifierKind::as_str, problems)
}

fn category(at: &At<&Node>, problems: &mut Problems) -> Option<String> {
    let name = text(at, problems)?.value;
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if (1..=64).contains(&name.len()) && name.bytes().all(letters) {
        return Some(name);
    }
    problems.add(&at.place, "must be a category: 1 to 64 of a-z, 0-9 and _");
    None
}
