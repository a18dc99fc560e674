//! The map against the live schema: what would fail, reach too far, or crawl, told before the first request.

use quittance_domain::{
    data_map::{
        Collection, CountedFrom, DataMap, FieldErasure, Link, Mask, Matching, Retention, RowErasure, SharedRows,
    },
    system::SystemScope,
};
use quittance_sql::{Engine, SqlError, Tx};

use super::{
    STANDBY,
    catalog::{Catalog, catalog},
    others::{may_be_anothers, naming_others, owners_part, rivals},
    schema::{Class, Column, Lower, Schema, Spelled},
};
use crate::{Finding, FindingSeverity};

/// InnoDB deletes and changes along foreign keys of tables that this user has no right to, and shows them to nobody without PROCESS.
pub(super) const UNSEEN_REFERENCES: &str = "this user is not shown the foreign keys by which a deletion would carry rows of other tables away: GRANT PROCESS ON *.* to it";

/// `anon-` and 32 hexadecimal digits.
const PSEUDONYM_CHARS: u64 = 37;

struct Check<'a> {
    engine: Engine,
    map: &'a DataMap,
    scope: &'a SystemScope,
    schema: &'a Schema,
    /// Parallel to the map's collections.
    catalogs: &'a [Catalog],
    findings: Vec<Finding>,
}

pub(super) async fn check(map: &DataMap, scope: &SystemScope, tx: &mut Tx) -> Result<Vec<Finding>, SqlError> {
    let schema = Schema::load(tx, map).await?;
    let mut catalogs = Vec::with_capacity(map.collections.len());
    for c in &map.collections {
        catalogs.push(catalog(tx, &c.table).await?);
    }
    let mut check =
        Check { engine: tx.engine(), map, scope, schema: &schema, catalogs: &catalogs, findings: Vec::new() };
    if tx.is_standby().await? {
        check.error("", format!("{STANDBY}: read-back needs the primary"));
    }
    for at in 0..map.collections.len() {
        check.collection(at);
    }
    Ok(check.findings)
}

impl Check<'_> {
    fn error(&mut self, field: &str, message: impl Into<String>) {
        self.findings.push(Finding {
            severity: FindingSeverity::Error,
            field: field.to_owned(),
            message: message.into(),
        });
    }

    fn warning(&mut self, field: &str, message: impl Into<String>) {
        self.findings.push(Finding {
            severity: FindingSeverity::Warning,
            field: field.to_owned(),
            message: message.into(),
        });
    }

    fn collection(&mut self, at: usize) {
        let c = &self.map.collections[at];
        let path = format!("collections.{}", c.name);
        if self.schema.columns(&c.table).is_none() {
            self.error(&format!("{path}.table"), format!("table {} is not there, or not for this user", c.table.name));
            return;
        }
        self.table(at, &path);
        self.columns(c, &path);
        self.customer(c, &path);
        self.key(at, &path);
        self.masks(at, &path);
        self.marker(at, &path);
        self.anchors(c, &path);
        self.identifiers(at, &path);
        self.links(at, &path);
        self.references(at, &path);
        let own = !c.identifiers.is_empty() || !c.owned_by.is_empty();
        if c.restriction.is_none() && own {
            let held = c.retain.is_some() || c.fields.iter().any(|f| matches!(f.erase, FieldErasure::Retain(_)));
            let also = if held { ", and what is held is not marked as such" } else { "" };
            self.warning(
                &format!("{path}.restriction"),
                format!("no marker: this collection cannot be restricted{also}"),
            );
        }
    }

    fn table(&mut self, at: usize, path: &str) {
        let field = format!("{path}.table");
        let facts = &self.catalogs[at].facts;
        for why in facts.misleading() {
            self.error(&field, why);
        }
        let deletes = self.map.collections[at].erase == RowErasure::Delete;
        for (needed, lacks) in [("UPDATE", facts.lacks_update), ("DELETE", deletes && facts.lacks_delete)] {
            if lacks {
                self.error(&field, format!("this user may not {needed} it: rows are masked, marked, deleted, and locked before they are deleted"));
            }
        }
    }

    /// Every column that the map names, wherever it names it.
    fn columns(&mut self, c: &Collection, path: &str) {
        let mut named: Vec<(String, &str)> = c.key.iter().map(|k| (format!("{path}.key"), k.as_str())).collect();
        named.extend(c.customer_field.iter().map(|f| (format!("{path}.customer_field"), f.as_str())));
        named.extend(
            c.identifiers.iter().enumerate().map(|(i, r)| (format!("{path}.identifiers[{i}].field"), r.field.as_str())),
        );
        named.extend(c.yields.iter().map(|y| (format!("{path}.yields.{}", y.kind), y.field.as_str())));
        for (i, link) in c.owned_by.iter().enumerate() {
            named.extend(link.fields.iter().map(|(here, _)| (format!("{path}.owned_by[{i}].fields"), here.as_str())));
        }
        for (i, pointer) in c.points_at.iter().enumerate() {
            named.extend(
                pointer.link.fields.iter().map(|(here, _)| (format!("{path}.points_at[{i}].fields"), here.as_str())),
            );
        }
        for field in &c.fields {
            named.push((format!("{path}.fields.{}", field.name), &field.name));
            if let FieldErasure::Retain(retain) = &field.erase {
                named.push((format!("{path}.fields.{}.erase.retain.anchor", field.name), &retain.anchor));
            }
        }
        named.extend(c.retain.iter().map(|r| (format!("{path}.retain.anchor"), r.anchor.as_str())));
        named.extend(c.restriction.iter().map(|r| (format!("{path}.restriction.field"), r.field.as_str())));
        for (place, column) in named {
            self.exists(c, &place, column);
        }
        let links = c.owned_by.iter().enumerate().map(|(i, l)| (format!("{path}.owned_by[{i}].fields"), l));
        let pointers = c.points_at.iter().enumerate().map(|(i, p)| (format!("{path}.points_at[{i}].fields"), &p.link));
        for (place, link) in links.chain(pointers) {
            let Some(owner) = self.map.collection(&link.collection) else { continue };
            for (_, there) in &link.fields {
                if self.schema.columns(&owner.table).is_some() {
                    self.exists(owner, &place, there);
                }
            }
        }
    }

    fn exists(&mut self, c: &Collection, place: &str, column: &str) {
        if self.column(c, column).is_some() {
            return;
        }
        let known = self.schema.columns(&c.table).unwrap_or_default();
        let near = known.iter().map(|k| (distance(&k.name, column), &k.name)).filter(|(d, _)| *d <= 2).min();
        let hint = near.map_or_else(String::new, |(_, name)| format!("; did you mean {name}?"));
        self.error(place, format!("table {} has no column {column}{hint}", c.table.name));
    }

    fn column(&self, c: &Collection, name: &str) -> Option<&Column> {
        self.schema.column(self.engine, &c.table, name)
    }

    /// A key that the column cannot hold is nobody's there, and every request of that customer would be refused.
    fn customer(&mut self, c: &Collection, path: &str) {
        let Some(column) = c.customer_field.as_ref().and_then(|name| self.column(c, name)).cloned() else { return };
        let (name, kind) = (&column.name, &column.type_name);
        let place = format!("{path}.customer_field");
        if !self.is_name(&place, &column, "a customer's key") {
            return;
        }
        match self.scope {
            SystemScope::Customers(keys) => {
                let strange: Vec<&str> =
                    keys.iter().filter(|(_, key)| !column.accepts(key)).map(|(customer, _)| customer.as_str()).collect();
                if let Some((first, rest)) = strange.split_first() {
                    let others = if rest.is_empty() { String::new() } else { format!(" and {} others", rest.len()) };
                    self.error(
                        &place,
                        format!("{name} is of type {kind}, which cannot hold the key of {first}{others}: say in the system's customers what it holds for them"),
                    );
                }
            }
            SystemScope::AllCustomers if matches!(column.class, Class::Int { .. } | Class::Uuid) => self.warning(
                &place,
                format!("{name} is of type {kind}, and in a system of all customers a customer's id is its key: where it is none of that type, requests are refused"),
            ),
            SystemScope::AllCustomers => {}
        }
    }

    fn key(&mut self, at: usize, path: &str) {
        let c = &self.map.collections[at];
        let in_key =
            |part: &Option<String>| part.as_ref().is_some_and(|name| c.key.iter().any(|k| same(self.engine, k, name)));
        let unique = self.catalogs[at].indexes.iter().any(|i| i.unique && i.parts.iter().all(|p| in_key(&p.column)));
        if !unique && !self.catalogs[at].facts.is_view {
            self.error(&format!("{path}.key"), "no unique index says that these columns name one row");
        }
    }

    fn masks(&mut self, at: usize, path: &str) {
        let c = &self.map.collections[at];
        for (f, field) in c.fields.iter().enumerate() {
            // Of a row that is deleted only sharing leaves something to mask.
            let of_owner = naming_others(c).next().is_some() && owners_part(c).contains(&f);
            let shared = c.shared == SharedRows::Redact && (redacted(c, &field.name) || of_owner);
            let used = c.erase == RowErasure::Mask || shared;
            let place = format!("{path}.fields.{}", c.fields[f].name);
            match &field.erase {
                FieldErasure::Mask(mask) if used => self.mask(at, &place, &field.name, mask),
                FieldErasure::Retain(_) if used => self.mask(at, &place, &field.name, &Mask::SetNull),
                _ => {}
            }
        }
        if c.erase == RowErasure::Delete
            && c.shared == SharedRows::Redact
            && (c.identifiers.len() > 1 || may_be_anothers(c).next().is_some())
        {
            for (i, rule) in c.identifiers.iter().enumerate().filter(|(_, rule)| c.field(&rule.field).is_none()) {
                self.mask(at, &format!("{path}.identifiers[{i}].field"), &rule.field, &Mask::SetNull);
            }
        }
        for (i, pointer) in c.points_at.iter().enumerate() {
            for (here, _) in &pointer.link.fields {
                self.mask(at, &format!("{path}.points_at[{i}].mask"), here, &pointer.mask);
            }
        }
    }

    fn mask(&mut self, at: usize, place: &str, name: &str, mask: &Mask) {
        let c = &self.map.collections[at];
        let Some(column) = self.column(c, name).cloned() else { return };
        if column.generated {
            self.error(
                place,
                format!("{name} is made of other columns by the database: mask those, and say keep here"),
            );
            return;
        }
        let too_long = |chars: u64| column.max_chars.filter(|max| chars > *max);
        match mask {
            Mask::SetNull if !column.nullable => {
                self.error(place, format!("{name} is NOT NULL: it needs a constant or a pseudonym"))
            }
            Mask::SetNull => {}
            Mask::Pseudonym if column.class != Class::Text => {
                self.error(place, format!("{name} is of type {}, which holds no pseudonym", column.type_name));
            }
            Mask::Pseudonym => {
                if let Some(max) = too_long(PSEUDONYM_CHARS) {
                    self.error(place, format!("{name} holds {max} characters, and a pseudonym has {PSEUDONYM_CHARS}"));
                }
            }
            Mask::Constant(text) => {
                if let Some(max) = too_long(text.chars().count() as u64) {
                    self.error(place, format!("{name} holds {max} characters, and the constant is longer"));
                }
                let fits = match column.class {
                    Class::Date | Class::Instant => {
                        let endless = matches!(text.as_str(), "infinity" | "-infinity");
                        (self.engine == Engine::Postgres && endless)
                            || text.get(..10).is_some_and(|day| day.parse::<jiff::civil::Date>().is_ok())
                    }
                    Class::Bytes => false,
                    _ => column.accepts(text),
                };
                if !fits {
                    self.error(
                        place,
                        format!("{name} is of type {}, which cannot hold the constant", column.type_name),
                    );
                }
                let customer = c.customer_field.as_deref();
                let within = |part: &super::catalog::Part| match &part.column {
                    Some(p) => {
                        same(self.engine, p, name) || customer.is_some_and(|customer| same(self.engine, p, customer))
                    }
                    None => names(&part.definition, name),
                };
                let alone = |i: &super::catalog::Index| {
                    let own = |part: &super::catalog::Part| match &part.column {
                        Some(p) => same(self.engine, p, name),
                        None => true,
                    };
                    i.unique && i.parts.iter().all(within) && i.parts.iter().any(own)
                };
                if self.catalogs[at].indexes.iter().any(alone) {
                    self.error(
                        place,
                        format!("{name} is unique: a second row could not get the same constant; use a pseudonym"),
                    );
                }
            }
        }
    }

    fn marker(&mut self, at: usize, path: &str) {
        let Some(marker) = &self.map.collections[at].restriction else { return };
        self.mask(at, &format!("{path}.restriction.set"), &marker.field, &Mask::Constant(marker.set.clone()));
        let place = format!("{path}.restriction.clear");
        match &marker.clear {
            Some(clear) => self.mask(at, &place, &marker.field, &Mask::Constant(clear.clone())),
            None if self.column(&self.map.collections[at], &marker.field).is_some_and(|c| !c.nullable) => {
                self.error(
                    &place,
                    format!("{} is NOT NULL: say what it holds where nothing is restricted", marker.field),
                );
            }
            None => {}
        }
    }

    fn anchors(&mut self, c: &Collection, path: &str) {
        let mut anchors: Vec<(String, &Retention)> =
            c.retain.iter().map(|r| (format!("{path}.retain.anchor"), r)).collect();
        for field in &c.fields {
            if let FieldErasure::Retain(retain) = &field.erase {
                anchors.push((format!("{path}.fields.{}.erase.retain.anchor", field.name), retain));
            }
        }
        for (place, retain) in anchors {
            let Some(column) = self.column(c, &retain.anchor) else { continue };
            // SQLite has no dates; text is how it keeps them.
            let dated = matches!(column.class, Class::Date | Class::Instant)
                || (self.engine == Engine::Sqlite && column.class == Class::Text);
            let (name, kind, moves) = (column.name.clone(), column.type_name.clone(), column.moves);
            if moves {
                self.warning(
                    &place,
                    format!("{name} is ON UPDATE CURRENT_TIMESTAMP: we leave it as it is, but whatever else changes a row begins its period anew"),
                );
            }
            if !dated {
                let from = if retain.counted_from == CountedFrom::EndOfYear { "a year" } else { "a day" };
                self.error(&place, format!("{name} is of type {kind}: {from} cannot be counted from it"));
            } else if self.column(c, &retain.anchor).is_some_and(|column| column.nullable) {
                self.warning(&place, format!("{name} may be NULL: a request that meets such a row needs attention"));
            }
        }
    }

    fn identifiers(&mut self, at: usize, path: &str) {
        let c = &self.map.collections[at];
        for (i, rule) in c.identifiers.iter().enumerate() {
            let place = format!("{path}.identifiers[{i}].field");
            let Some(column) = self.column(c, &rule.field).cloned() else { continue };
            if self.is_name(&place, &column, "an identifier") {
                self.asked_by(at, &place, &column, rule.matching);
            }
        }
        for y in &c.yields {
            let place = format!("{path}.yields.{}", y.kind);
            let Some(column) = self.column(c, &y.field).cloned() else { continue };
            let repeats = self.schema.repeats(self.engine, c, y);
            if self.is_name(&place, &column, "an identifier")
                && let Some(matching) = repeats
            {
                self.asked_by(at, &place, &column, matching);
            }
        }
        if c.shared == SharedRows::Redact && !rivals(c).is_empty() {
            self.warning(
                &format!("{path}.owned_by"),
                "two owners in one collection: a row whose other owner is not the subject needs a person, unless you say shared: delete",
            );
        }
        let naming: Vec<&str> = naming_others(c).map(|rule| rule.field.as_str()).collect();
        if c.shared == SharedRows::Redact && !naming.is_empty() {
            let stops =
                if c.erase == RowErasure::Delete { ", and a foreign key then stops the owner's deletion" } else { "" };
            let named = if may_be_anothers(c).next().is_some() { ", or who is named" } else { "" };
            self.warning(
                &format!("{path}.owned_by"),
                format!(
                    "a row that names somebody else in {} is redacted when its owner goes{named}, unless you say shared: delete{stops}",
                    naming.join(", ")
                ),
            );
        }
    }

    /// What reads otherwise than people and other systems write it is found by nobody, and the person would be said not to be held.
    fn is_name(&mut self, place: &str, column: &Column, what: &str) -> bool {
        let (name, kind) = (&column.name, &column.type_name);
        let why = match column.spelled {
            Spelled::Alike => return true,
            Spelled::WithPoint => " (5 is read as 5.0)",
            Spelled::Otherwise => "",
        };
        self.error(place, format!("{name} is of type {kind}{why}: {what} is text, a whole number or a UUID"));
        false
    }

    /// Rows are looked for by texts in that column.
    fn asked_by(&mut self, at: usize, place: &str, column: &Column, matching: Matching) {
        let name = &column.name;
        let wanted = match matching {
            Matching::Exact => name.clone(),
            Matching::CaseInsensitive if self.engine == Engine::MySql && column.folds => name.clone(),
            Matching::CaseInsensitive if column.lower == Lower::Other => format!("lower({name} COLLATE \"C\")"),
            Matching::CaseInsensitive => format!("lower({name})"),
            Matching::Digits => format!("the digits of {name}"),
        };
        let exact = matching == Matching::Exact
            || wanted == *name
            || (column.folds && column.lower != Lower::Other && matching == Matching::CaseInsensitive);
        let usable = |part: &super::catalog::Part| match &part.column {
            Some(col) if same(self.engine, col, name) => {
                exact || (matching == Matching::CaseInsensitive && part.definition == "nocase")
            }
            Some(_) => false,
            None => match matching {
                Matching::Exact => false,
                Matching::CaseInsensitive => {
                    // The column's own collation is not asked, nor then an index by it.
                    let collated = column.lower != Lower::Other || part.definition.contains("collate \"c\"");
                    collated && part.definition.contains("lower(") && part.definition.contains(&name.to_lowercase())
                }
                Matching::Digits => {
                    part.definition.contains("regexp_replace(") && part.definition.contains(&name.to_lowercase())
                }
            },
        };
        // A text in another type's column is compared as text, which no index on the column answers.
        let typed =
            self.engine != Engine::Postgres || matches!(column.class, Class::Text | Class::Int { .. } | Class::Uuid);
        if !typed || !self.indexed(at, usable) {
            self.warning(place, format!("no index on {wanted}: every request reads the whole table"));
        }
    }

    /// An index whose first part, after the customer's column at most, is of use.
    fn indexed(&self, at: usize, usable: impl Fn(&super::catalog::Part) -> bool) -> bool {
        let customer = self.map.collections[at].customer_field.as_deref();
        let confines = |part: &super::catalog::Part| match (&part.column, customer) {
            (Some(column), Some(customer)) => same(self.engine, column, customer),
            _ => false,
        };
        self.catalogs[at]
            .indexes
            .iter()
            .any(|index| index.parts.iter().find(|part| !confines(part)).is_some_and(&usable))
    }

    fn links(&mut self, at: usize, path: &str) {
        let c = &self.map.collections[at];
        let owners = c.owned_by.iter().enumerate().map(|(i, l)| (format!("{path}.owned_by[{i}].fields"), l));
        let pointers = c.points_at.iter().enumerate().map(|(i, p)| (format!("{path}.points_at[{i}].fields"), &p.link));
        for (place, link) in owners.chain(pointers) {
            let names: Vec<&str> = link.fields.iter().map(|(here, _)| here.as_str()).collect();
            if names.iter().any(|name| self.column(c, name).is_none()) {
                continue;
            }
            let usable = |part: &super::catalog::Part| {
                part.column.as_ref().is_some_and(|column| names.iter().any(|name| same(self.engine, column, name)))
            };
            if !self.indexed(at, usable) {
                self.warning(&place, format!("no index on {}: every request reads the whole table", names.join(", ")));
            }
            self.compares(c, &place, link);
            self.leads_to_one(c, &place, link);
        }
    }

    /// Both sides must spell a number alike: they are compared as they are read.
    fn compares(&mut self, c: &Collection, place: &str, link: &Link) {
        let Some(owner) = self.map.collection(&link.collection) else { return };
        for (here, there) in &link.fields {
            let (Some(one), Some(other)) = (self.column(c, here), self.column(owner, there)) else { continue };
            // Of one type, they are compared as numbers.
            let apart = (one.spelled == Spelled::WithPoint) != (other.spelled == Spelled::WithPoint);
            if apart && one.type_name != other.type_name {
                let message = format!(
                    "{here} is of type {}, {there} of {} of type {}: one reads 5 as 5.0, and nothing would be found",
                    one.type_name, owner.name, other.type_name
                );
                self.error(place, message);
            }
        }
    }

    /// A key may be one customer's only together with the customer: a link by the rest of it leads to another's row just as well (I8).
    fn leads_to_one(&mut self, c: &Collection, place: &str, link: &Link) {
        let (engine, catalogs) = (self.engine, self.catalogs);
        let Some(at) = self.map.collections.iter().position(|owner| owner.name == link.collection) else { return };
        let owner = &self.map.collections[at];
        if self.schema.columns(&owner.table).is_none() || catalogs[at].facts.is_view {
            return;
        }
        let customers = |column: &str| owner.customer_field.as_ref().is_some_and(|field| same(engine, field, column));
        let confined = c.customer_field.is_some();
        let joined = |column: &str| {
            link.fields.iter().any(|(_, there)| same(engine, there, column)) || (confined && customers(column))
        };
        let told_apart = |part: &super::catalog::Part| part.column.as_deref().is_some_and(joined);
        if catalogs[at].indexes.iter().any(|index| index.unique && index.parts.iter().all(told_apart)) {
            return;
        }
        let names: Vec<&str> = link.fields.iter().map(|(_, there)| there.as_str()).collect();
        let several = format!("{} may be that of several rows of {}", names.join(", "), owner.name);
        let one_customers = confined || names.iter().any(|there| customers(there));
        // Numbered by customer, each number is several customers'.
        let by_customer = |index: &super::catalog::Index| {
            let has = |wanted: &dyn Fn(&str) -> bool| {
                index.parts.iter().any(|part| part.column.as_deref().is_some_and(wanted))
            };
            index.unique && has(&customers) && has(&|column| names.iter().any(|there| same(engine, there, column)))
        };
        if !one_customers && catalogs[at].indexes.iter().any(by_customer) {
            self.error(place, format!("{several}, another customer's among them: name customer_field in {}", c.name));
        } else {
            self.warning(
                place,
                format!("{several}: no unique index says otherwise, and what is here belongs to all of them"),
            );
        }
    }

    /// A masked column that others refer to: the database refuses the change, or carries it on.
    fn masked_references(&mut self, at: usize, path: &str) {
        let c = &self.map.collections[at];
        let catalogs = self.catalogs;
        for field in &c.fields {
            let masked = !matches!(field.erase, FieldErasure::Keep);
            let refers = |(_, here): &(String, String)| same(self.engine, here, &field.name);
            // What goes with the row is deleted before it is masked.
            let goes = |r: &&super::catalog::Reference| {
                self.map.collections.iter().enumerate().any(|(o, other)| {
                    let owned = other.owned_by.iter().any(|link| link.collection == c.name);
                    catalogs[o].facts.id == r.from && other.erase == RowErasure::Delete && owned
                })
            };
            let mut found = catalogs[at].references.known.iter().filter(|r| r.columns.iter().any(refers) && !goes(r));
            let reference = found.next().filter(|_| masked);
            if let Some(reference) = reference {
                let from = &reference.name;
                self.error(
                    &format!("{path}.fields.{}", field.name),
                    format!(
                        "{from} refers to {}: masked, the reference would lead nowhere; say keep, or delete the row",
                        field.name
                    ),
                );
            }
        }
    }

    /// Foreign keys that would stop a deletion, or carry it where the map does not go.
    fn references(&mut self, at: usize, path: &str) {
        let c = &self.map.collections[at];
        if c.erase != RowErasure::Delete {
            self.masked_references(at, path);
            return;
        }
        let catalogs = self.catalogs;
        if catalogs[at].references.others_hidden {
            self.error(&format!("{path}.erase"), UNSEEN_REFERENCES);
        }
        for reference in &catalogs[at].references.known {
            let column = reference.columns.first().map_or("", |(there, _)| there.as_str());
            let from = format!("{}.{column}", reference.name);
            let place = format!("{path}.erase");
            let covers = |fields: &[(String, String)]| {
                fields.len() == reference.columns.len()
                    && reference.columns.iter().all(|(there, here)| {
                        fields.iter().any(|(a, b)| same(self.engine, a, there) && same(self.engine, b, here))
                    })
            };
            let leads_here = |name: &str| self.map.collection(name).is_some_and(|owner| owner.table == c.table);
            let mut covered = false;
            let mut wrong = None;
            for (other, of) in
                self.map.collections.iter().enumerate().filter(|(o, _)| catalogs[*o].facts.id == reference.from)
            {
                if of.owned_by.iter().any(|l| leads_here(&l.collection) && covers(&l.fields)) {
                    covered = true;
                    if of.erase == RowErasure::Mask && matches!(reference.on_delete.as_str(), "NO ACTION" | "CASCADE") {
                        wrong = Some(format!("{from} keeps its row, masked, and refers to what would be deleted"));
                    }
                }
                for pointer in of.points_at.iter().filter(|p| leads_here(&p.link.collection) && covers(&p.link.fields))
                {
                    covered = true;
                    if pointer.mask != Mask::SetNull {
                        wrong = Some(format!("{from} is a foreign key: only set_null can mask it"));
                    }
                }
                debug_assert!(other < catalogs.len());
            }
            match (covered, reference.on_delete.as_str()) {
                (true, _) => {
                    if let Some(message) = wrong {
                        self.error(&place, message);
                    }
                }
                (false, "CASCADE") => self.error(
                    &place,
                    format!("deleting would carry {from} away, which the map does not cover: list it as owned_by"),
                ),
                (false, "SET NULL" | "SET DEFAULT") => {
                    self.error(&place, format!("deleting would change {from}, which the map does not cover: list it as points_at or owned_by"));
                }
                (false, _) => self.error(
                    &place,
                    format!("{from} refers to it and would stop the deletion: list it as owned_by or points_at"),
                ),
            }
        }
    }
}

/// Whether an index's expression, in lower case, is of that column.
fn names(definition: &str, column: &str) -> bool {
    let column = column.to_lowercase();
    // SQLite gives the whole statement, with the index's and the table's names before the bracket.
    let definition = definition.split_once('(').map_or(definition, |(_, inner)| inner);
    let word = |c: char| c.is_alphanumeric() || c == '_';
    definition.split(|c: char| !word(c)).any(|found| found == column)
}

fn redacted(c: &Collection, field: &str) -> bool {
    c.identifiers.len() > 1
        && c.identifiers.iter().any(|rule| rule.field == field || rule.redacts.iter().any(|r| r == field))
}

fn same(engine: Engine, a: &str, b: &str) -> bool {
    a == b || (engine != Engine::Postgres && a.eq_ignore_ascii_case(b))
}

/// Levenshtein's, for names of people's tables: short.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = substituted.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn near_names() {
        assert_eq!(distance("customer", "custmer"), 1);
        assert_eq!(distance("Email", "email"), 0);
        assert_eq!(distance("a", "abcd"), 3);
    }
}
