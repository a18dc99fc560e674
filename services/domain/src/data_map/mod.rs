//! The data map: what of a system is personal data, how its rows belong to a subject, and what each action does to them.
//!
//! Written in YAML (`docs/data-map.md`), parsed by [`DataMap::parse`] with errors that name line and field, checked against the
//! live schema by the connector when the system is registered. Versioned: a task pins the version it was planned with.

mod parse;

pub use parse::{BUILT_IN_CATEGORIES, DataMapError, MapKind, Problem};

use std::collections::BTreeSet;

use crate::{
    action::{Correction, CorrectionTarget},
    identifier::{Identifier, IdentifierKind},
    text_enum,
};

/// A data map that has passed every check that needs no database.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct DataMap {
    /// The guard: a subject that matches more rows than this in one system waits for a person to look.
    pub max_rows_per_subject: u32,
    /// Owners stand before what they own, as far as there are no cycles.
    pub collections: Vec<Collection>,
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Collection {
    /// The name in confirmations and packages.
    pub name: String,
    /// `table` or `schema.table`.
    pub table: Table,
    /// The columns that name one row, in order. At least one.
    pub key: Vec<String>,
    /// The column that holds the customer's own key where several customers share the table (I8).
    pub customer_field: Option<String>,
    /// How rows are found from an identifier. Empty where rows are only owned by others.
    pub identifiers: Vec<IdentifierRule>,
    /// Identifiers that a found row gives away for other systems.
    pub yields: Vec<Yield>,
    /// Rows that belong to a row of another collection (or of this one) and go with it.
    pub owned_by: Vec<Link>,
    /// Rows of somebody else's that point at a row of the subject: only the pointer is masked.
    pub points_at: Vec<Pointer>,
    pub fields: Vec<Field>,
    pub erase: RowErasure,
    /// What erasure does to a row that also belongs to another subject.
    pub shared: SharedRows,
    /// Rows kept for a while (Art. 17(3)), counted per row.
    pub retain: Option<Retention>,
    pub restriction: Option<RestrictionMarker>,
    /// Rows hold data of third parties: in an access package they are marked for the customer's review (Art. 15(4)).
    pub third_party: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Table {
    pub schema: Option<String>,
    pub name: String,
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct IdentifierRule {
    pub kind: IdentifierKind,
    pub field: String,
    pub matching: Matching,
    /// In a shared row, the fields that are this subject's and are masked. Always holds `field` itself.
    pub redacts: Vec<String>,
}

/// How a stored value is compared with the normalised identifier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matching {
    /// Byte for byte: what is stored is stored normalised. Uses a plain index.
    Exact,
    /// `lower(field)`: the default for emails. Wants an index on `lower(field)`.
    CaseInsensitive,
    /// Digits only, as phone numbers are often stored with blanks and dashes.
    Digits,
}

impl Matching {
    /// Of a kind, where nothing else is said.
    pub const fn of(kind: IdentifierKind) -> Self {
        match kind {
            IdentifierKind::Email => Self::CaseInsensitive,
            IdentifierKind::Phone => Self::Digits,
            IdentifierKind::UserId | IdentifierKind::DirectoryObjectId | IdentifierKind::CustomerKey => Self::Exact,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Yield {
    pub kind: IdentifierKind,
    pub field: String,
}

/// `fields`: pairs of (column here, column there). They join exactly.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Link {
    pub collection: String,
    pub fields: Vec<(String, String)>,
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Pointer {
    pub link: Link,
    /// What the pointing columns become.
    pub mask: Mask,
    /// The category that the confirmation counts it under.
    pub category: String,
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Field {
    pub name: String,
    pub category: String,
    pub erase: FieldErasure,
    /// May be corrected (Art. 16). Keys, links and the customer's column never are.
    pub rectify: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum FieldErasure {
    Mask(Mask),
    /// Kept while the row stays: no personal data of its own once the rest is masked. Needs the collection to be masked.
    Keep,
    Retain(Retention),
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Mask {
    SetNull,
    Constant(String),
    /// A keyed pseudonym: the same for all rows of one subject at this system, nobody without the key can make it.
    Pseudonym,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowErasure {
    Delete,
    Mask,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedRows {
    /// Only this subject's fields are masked (`IdentifierRule::redacts`).
    Redact,
    /// Treated as the subject's alone.
    Delete,
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Retention {
    /// Why the data must be kept, for the certificate: law and article.
    pub ground: String,
    /// The date column that the period counts from.
    pub anchor: String,
    pub counted_from: CountedFrom,
    pub period: Period,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountedFrom {
    /// The anchor's own day.
    Date,
    /// 31 December of the anchor's year (a book year).
    EndOfYear,
}

/// Calendar time, written as ISO 8601 (`P7Y`, `P18M`, `P90D`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Period {
    pub years: i16,
    pub months: i32,
    pub days: i32,
}

/// The column that says that a row is restricted (Art. 18), what it then holds, and what it holds otherwise.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct RestrictionMarker {
    pub field: String,
    pub set: String,
    /// `None` is SQL NULL.
    pub clear: Option<String>,
}

// The words of the YAML.
text_enum!(Matching, Exact => "exact", CaseInsensitive => "case_insensitive", Digits => "digits");
text_enum!(RowErasure, Delete => "delete", Mask => "mask");
text_enum!(SharedRows, Redact => "redact", Delete => "delete");
text_enum!(CountedFrom, Date => "date", EndOfYear => "end_of_year");

impl DataMap {
    pub fn collection(&self, name: &str) -> Option<&Collection> {
        self.collections.iter().find(|c| c.name == name)
    }

    /// Columns of a collection that links and pointers of others (or its own) lead to, each once, in the order of the map.
    pub fn linked_columns(&self, collection: &str) -> Vec<&String> {
        let mut found: Vec<&String> = Vec::new();
        let links = self.collections.iter().flat_map(|c| c.owned_by.iter().chain(c.points_at.iter().map(|p| &p.link)));
        for (_, there) in links.filter(|link| link.collection == collection).flat_map(|link| &link.fields) {
            if !found.contains(&there) {
                found.push(there);
            }
        }
        found
    }

    /// Whether some field of this collection has this category.
    pub fn has_category(&self, collection: &str, category: &str) -> bool {
        self.collection(collection).is_some_and(|c| c.fields.iter().any(|field| field.category == category))
    }

    /// The identifier kinds that some collection can be found by.
    pub fn accepts(&self) -> impl Iterator<Item = IdentifierKind> + '_ {
        self.collections.iter().flat_map(|c| c.identifiers.iter().map(|i| i.kind))
    }

    /// What sorts of identifier a field holds: it is looked up by them, or gives them away.
    pub fn identifier_kinds(&self, collection: &str, field: &str) -> BTreeSet<IdentifierKind> {
        let Some(c) = self.collection(collection) else { return BTreeSet::new() };
        let by = c.identifiers.iter().filter(|i| i.field == field).map(|i| i.kind);
        by.chain(c.yields.iter().filter(|y| y.field == field).map(|y| y.kind)).collect()
    }

    /// A correction whose new value is an identifier's one form, where it becomes one: so it is found again.
    pub fn as_written(&self, correction: &Correction) -> Correction {
        let kinds = self.identifier_kinds(&correction.collection, &correction.field);
        let form = |raw: &str| -> Option<String> {
            let form = |kind| Some(Identifier::normalise(kind, raw).ok()?.value().expose().clone());
            let forms: BTreeSet<String> = kinds.iter().filter_map(|kind| form(*kind)).collect();
            // Of two forms for one column, neither is the better one.
            if forms.len() == 1 { forms.into_iter().next() } else { None }
        };
        let mut written = correction.clone();
        if let CorrectionTarget::Replace { new, .. } | CorrectionTarget::Record { new, .. } = &mut written.target
            && let Some(form) = form(new)
        {
            *new = form;
        }
        written
    }

    pub fn yields(&self) -> impl Iterator<Item = IdentifierKind> + '_ {
        self.collections.iter().flat_map(|c| c.yields.iter().map(|y| y.kind))
    }
}

impl Collection {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }
}
