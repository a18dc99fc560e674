//! What the shape of a map alone does not show: names that lead nowhere, rows that nothing reaches, masks that would take
//! away what a rerun stands on (I4).

use std::collections::{HashMap, HashSet};

use super::{
    MapKind, Problems, quote,
    read::{RawCollection, RawErasure, RawField, RawLink, RawMap, RawRetention, RawRule},
    section::At,
};
use crate::{
    data_map::{
        Collection, DataMap, Field, FieldErasure, IdentifierRule, Link, Matching, Pointer, RowErasure, SharedRows,
        Yield,
    },
    identifier::IdentifierKind,
};

pub(super) fn map(raw: RawMap, kind: MapKind, problems: &mut Problems) -> DataMap {
    let RawMap { max_rows_per_subject, collections, names } = raw;
    if kind == MapKind::Sql {
        reachable(&collections, problems);
    }
    let known: HashSet<&str> = names.iter().map(String::as_str).collect();
    for c in &collections {
        let links = c.owned_by.items.iter().chain(c.points_at.items.iter().map(|p| &p.link));
        for target in links.map(|link| &link.collection).filter(|target| !known.contains(target.value.as_str())) {
            problems.add(&target.place, format!("unknown collection {}", quote(&target.value)));
        }
    }
    let collections = collections.into_iter().map(|c| collection(c, kind, problems)).collect();
    DataMap { max_rows_per_subject, collections: owners_first(collections) }
}

/// Every row must be the subject's by an identifier, belong to such a row, or merely point at one.
fn reachable(collections: &[RawCollection], problems: &mut Problems) {
    let mut reached: HashSet<&str> = HashSet::new();
    loop {
        let before = reached.len();
        for c in collections {
            // What could not be read is told already, and gets the benefit of the doubt.
            let unread = c.owned_by.items.len() < c.owned_by.written;
            let owned = c.owned_by.items.iter().any(|link| {
                let owner = link.collection.value.as_str();
                reached.contains(owner) || !collections.iter().any(|other| other.name.value == owner)
            });
            if c.identifiers.written > 0 || unread || owned {
                reached.insert(&c.name.value);
            }
        }
        if reached.len() == before {
            break;
        }
    }
    for c in collections {
        if reached.contains(c.name.value.as_str()) || is_pointer_only(c) {
            continue;
        }
        let message = "is reached by nothing: give it identifiers, an owned_by that leads to a collection that has some, or points_at";
        problems.add(&c.name.place, message);
    }
}

fn is_pointer_only(c: &RawCollection) -> bool {
    c.identifiers.written == 0 && c.owned_by.written == 0 && c.points_at.written > 0
}

/// Why a column must keep its value while its row stays.
struct Protected(HashMap<String, &'static str>);

impl Protected {
    fn of(c: &RawCollection) -> Self {
        let key = c.key.iter().map(|column| (&column.value, "part of the key"));
        let customer = c.customer_field.iter().map(|column| (&column.value, "the customer's column"));
        let owners = c
            .owned_by
            .items
            .iter()
            .flat_map(|link| &link.fields)
            .map(|(here, _)| (&here.value, "part of an owned_by link"));
        // The first reason is the strongest.
        let mut found = HashMap::new();
        for (column, why) in key.chain(customer).chain(owners) {
            found.entry(column.clone()).or_insert(why);
        }
        Self(found)
    }

    fn refuse(&self, column: &At<String>, problems: &mut Problems) {
        if let Some(why) = self.0.get(&column.value) {
            let message = format!("{} is {why}, and writing to it would lose the row", quote(&column.value));
            problems.add(&column.place, message);
        }
    }
}

fn collection(c: RawCollection, kind: MapKind, problems: &mut Problems) -> Collection {
    let protected = Protected::of(&c);
    let erase = row_erasure(&c, kind, problems);
    let declared: HashSet<String> = c.fields.items.iter().map(|field| field.name.value.clone()).collect();
    let all_declared = c.fields.items.len() == c.fields.written;
    fields_where_they_belong(&c, kind, problems);
    key_columns_once(&c, problems);
    no_mask_on_what_holds_the_row(&c, erase, &protected, problems);
    retention_keeps_its_anchor(&c, problems);
    nothing_stays_of_a_deleted_row(&c, erase, problems);

    let pointed: HashSet<&str> =
        c.points_at.items.iter().flat_map(|p| &p.link.fields).map(|(here, _)| here.value.as_str()).collect();
    let may_rectify = |column: &str| !protected.0.contains_key(column) && !pointed.contains(column);
    let rectify = |field: &RawField, problems: &mut Problems| match &field.rectify {
        Some(At { value: true, place }) if !may_rectify(&field.name.value) => {
            problems.add(place, "keys, links and the customer's column cannot be rectified");
            false
        }
        Some(said) => said.value,
        None => may_rectify(&field.name.value),
    };
    let rectifiable: Vec<bool> = c.fields.items.iter().map(|field| rectify(field, problems)).collect();

    let mut seen = HashSet::new();
    let mut identifiers = Vec::with_capacity(c.identifiers.items.len());
    for rule in c.identifiers.items {
        if !seen.insert((rule.kind, rule.field.value.clone())) {
            problems.add(&rule.field.place, format!("{} is given twice for {}", quote(&rule.field.value), rule.kind));
        }
        // Otherwise the row would be found by it, masked, and still hold it.
        let must_declare = kind == MapKind::Sql && erase == Some(RowErasure::Mask) && all_declared;
        if must_declare && !declared.contains(&rule.field.value) {
            let message =
                format!("{} must be listed in fields too, or its erasure would be forgotten", quote(&rule.field.value));
            problems.add(&rule.field.place, message);
        }
        let known = |column: &str| !all_declared || declared.contains(column);
        identifiers.push(identifier_rule(rule, &protected, c.shared, known, problems));
    }

    let fields = c.fields.items.into_iter().zip(rectifiable).map(|(field, rectify)| Field {
        name: field.name.value,
        category: field.category,
        erase: match field.erase {
            RawErasure::Mask(mask) => FieldErasure::Mask(mask),
            RawErasure::Keep(_) => FieldErasure::Keep,
            RawErasure::Retain(RawRetention { retention, .. }) => FieldErasure::Retain(retention),
        },
        rectify,
    });
    Collection {
        name: c.name.value,
        table: c.table,
        key: c.key.into_iter().map(|column| column.value).collect(),
        customer_field: c.customer_field.map(|column| column.value),
        identifiers,
        yields: c.yields.into_iter().map(|(kind, field)| Yield { kind, field: field.value }).collect(),
        owned_by: c.owned_by.items.into_iter().map(link).collect(),
        points_at: c
            .points_at
            .items
            .into_iter()
            .map(|p| Pointer { link: link(p.link), mask: p.mask, category: p.category })
            .collect(),
        fields: fields.collect(),
        // Nothing is deleted that nobody said to delete.
        erase: erase.unwrap_or(RowErasure::Mask),
        shared: c.shared,
        retain: c.retain.map(|r| r.retention),
        restriction: c.restriction.map(|r| r.value),
        third_party: c.third_party,
    }
}

/// `None`: not said, or not understood.
fn row_erasure(c: &RawCollection, kind: MapKind, problems: &mut Problems) -> Option<RowErasure> {
    match (c.erase, kind) {
        (Some(said), _) => said,
        (None, MapKind::Declared) => Some(RowErasure::Mask),
        (None, MapKind::Sql) => {
            if !is_pointer_only(c) {
                problems.add(&c.name.place.lacking("erase"), "is required: delete or mask");
            }
            None
        }
    }
}

fn fields_where_they_belong(c: &RawCollection, kind: MapKind, problems: &mut Problems) {
    let place = c.name.place.lacking("fields");
    match kind {
        MapKind::Declared if c.fields.written == 0 => {
            problems.add(&place, "is required: what the system declares is its fields and their categories");
        }
        // The subject's rows are elsewhere: these fields would be skipped in silence.
        MapKind::Sql if is_pointer_only(c) && c.fields.written > 0 => {
            let message = "a collection that only points at others holds no row of the subject's: add identifiers or owned_by, or leave the fields out";
            problems.add(&place, message);
        }
        _ => {}
    }
}

fn key_columns_once(c: &RawCollection, problems: &mut Problems) {
    let mut seen = HashSet::new();
    for column in &c.key {
        if !seen.insert(&column.value) {
            problems.add(&column.place, format!("{} is given twice", quote(&column.value)));
        }
    }
}

fn no_mask_on_what_holds_the_row(
    c: &RawCollection,
    erase: Option<RowErasure>,
    protected: &Protected,
    problems: &mut Problems,
) {
    if erase == Some(RowErasure::Mask) {
        for field in c.fields.items.iter().filter(|field| !matches!(field.erase, RawErasure::Keep(_))) {
            protected.refuse(&field.name, problems);
        }
    }
    for (here, _) in c.points_at.items.iter().flat_map(|pointer| &pointer.link.fields) {
        protected.refuse(here, problems);
    }
    if let Some(marker) = &c.restriction {
        protected.refuse(&At { value: marker.value.field.clone(), place: marker.place.clone() }, problems);
    }
}

/// Masked, the anchor could not tell any more when the other field's hold ends.
fn retention_keeps_its_anchor(c: &RawCollection, problems: &mut Problems) {
    for field in &c.fields.items {
        let RawErasure::Retain(retain) = &field.erase else { continue };
        let anchor = c.fields.items.iter().find(|other| other.name.value == retain.retention.anchor);
        if anchor.is_some_and(|anchor| matches!(anchor.erase, RawErasure::Mask(_))) {
            let anchor = quote(&retain.retention.anchor);
            problems.add(
                &retain.anchor,
                format!("{anchor} is erased itself: keep or retain it, or nobody could tell when the hold ends"),
            );
        }
    }
}

fn nothing_stays_of_a_deleted_row(c: &RawCollection, erase: Option<RowErasure>, problems: &mut Problems) {
    if erase != Some(RowErasure::Delete) {
        return;
    }
    for field in &c.fields.items {
        match &field.erase {
            RawErasure::Mask(_) => {}
            RawErasure::Keep(place) => {
                problems.add(place, "nothing can be kept of a row that is deleted: say erase: mask for the collection")
            }
            RawErasure::Retain(retain) => {
                problems.add(&retain.place, "one field of a deleted row cannot be retained: say erase: mask for the collection, or retain the whole of it");
            }
        }
    }
}

fn identifier_rule(
    rule: RawRule,
    protected: &Protected,
    shared: SharedRows,
    known: impl Fn(&str) -> bool,
    problems: &mut Problems,
) -> IdentifierRule {
    let RawRule { kind, field, matching, redacts } = rule;
    if let Some(At { value: Matching::Digits, place }) = &matching
        && kind != IdentifierKind::Phone
    {
        // a1@example.com and b1@example.org have the same digits.
        problems.add(place, "digits is for phone numbers: of anything else it would find other people");
    }
    let mut names: Vec<String> = Vec::with_capacity(redacts.len() + 1);
    for column in redacts {
        if names.contains(&column.value) {
            problems.add(&column.place, format!("{} is given twice", quote(&column.value)));
        } else if column.value != field.value && !known(&column.value) {
            problems.add(&column.place, format!("unknown field {}: list it in fields", quote(&column.value)));
        } else if column.value != field.value && shared == SharedRows::Redact {
            protected.refuse(&column, problems);
        }
        names.push(column.value);
    }
    if !names.contains(&field.value) {
        names.insert(0, field.value.clone());
    }
    IdentifierRule {
        kind,
        field: field.value,
        matching: matching.map_or(Matching::of(kind), |m| m.value),
        redacts: names,
    }
}

fn link(raw: RawLink) -> Link {
    let fields = raw.fields.into_iter().map(|(here, there)| (here.value, there)).collect();
    Link { collection: raw.collection.value, fields }
}

/// Owners before what they own; otherwise, and inside of cycles, the order of the file.
fn owners_first(collections: Vec<Collection>) -> Vec<Collection> {
    let index: HashMap<&str, usize> = collections.iter().enumerate().map(|(i, c)| (c.name.as_str(), i)).collect();
    let owners: Vec<Vec<usize>> = collections
        .iter()
        .map(|c| c.owned_by.iter().filter_map(|link| index.get(link.collection.as_str()).copied()).collect())
        .collect();
    // Post-order: what is under way already when it is met again closes a cycle.
    let mut order = Vec::with_capacity(collections.len());
    let mut met = vec![false; collections.len()];
    let mut path: Vec<(usize, usize)> = Vec::new();
    for start in 0..collections.len() {
        if !std::mem::replace(&mut met[start], true) {
            path.push((start, 0));
        }
        while let Some((at, next)) = path.last_mut() {
            match owners[*at].get(*next) {
                Some(&owner) => {
                    *next += 1;
                    if !std::mem::replace(&mut met[owner], true) {
                        path.push((owner, 0));
                    }
                }
                None => {
                    order.push(*at);
                    path.pop();
                }
            }
        }
    }
    let mut collections: Vec<Option<Collection>> = collections.into_iter().map(Some).collect();
    order.into_iter().filter_map(|i| collections[i].take()).collect()
}
