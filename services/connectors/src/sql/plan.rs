//! A data map compiled against the live schema: what is read of each collection, and how its rows hang together.

use std::sync::Arc;

use quittance_domain::data_map::{Collection, DataMap, FieldErasure, Link, Mask, Matching, RowErasure};
use quittance_sql::{Engine, Part, Rows, Val};

use super::{
    catalog::References,
    dialect::{Dialect, SideEffects, StoredBy},
    others::{LookedUp, may_be_anothers, owners_part, rivals},
    schema::{Column, Schema},
    statements::{Statements, owner, statements},
};
use crate::ConnectorError;

/// Bits of one bigint that fields are told by; SQLite and MySQL have no wider integers that all three read alike.
pub(super) const WORD: usize = 60;

pub(super) struct Plan {
    pub map: Arc<DataMap>,
    pub dialect: Dialect,
    pub version: i64,
    pub maria: bool,
    pub collections: Vec<CollectionPlan>,
    pub found: Width,
    pub left: Width,
    /// By owner: (collection, link) of what it owns.
    pub owned: Vec<Vec<(usize, usize)>>,
    /// By target: (collection, pointer) of what points at it.
    pub pointing: Vec<Vec<(usize, usize)>>,
}

/// Numbers and texts of the rows that all collections' statements of one sort bring, behind the batch's `i`.
#[derive(Clone, Copy, Default)]
pub(super) struct Width {
    pub numbers: usize,
    pub texts: usize,
}

impl Width {
    fn widest(self, numbers: usize, texts: usize) -> Self {
        Self { numbers: self.numbers.max(numbers), texts: self.texts.max(texts) }
    }

    /// Where the texts stand in a row.
    pub fn texts_at(self) -> usize {
        1 + self.numbers
    }
}

pub(super) struct CollectionPlan {
    pub table: String,
    /// What a change of its rows is not to bring along.
    pub side_effects: SideEffects,
    pub stored_by: StoredBy,
    /// By which the database itself would delete more.
    pub cascades: References,
    pub key: Vec<Column>,
    pub customer: Option<Column>,
    pub rules: Vec<RulePlan>,
    pub links: Vec<LinkPlan>,
    /// Links whose owners are looked up where they are not the subject's.
    pub looked_up: Vec<LookedUp>,
    /// Per `yields`: the column and how it compares, where several rows may bear the same in it.
    pub repeated: Vec<Option<(Column, Matching)>>,
    pub pointers: Vec<LinkPlan>,
    pub fields: Vec<Column>,
    pub marker: Option<Column>,
    pub shape: Shape,
    /// Nothing hangs on its rows: what has nothing left to erase need not even be fetched.
    pub leaf: bool,
    /// Indices of the fields that no identifier redacts: in a shared row, they are its owner's.
    pub rest: Vec<usize>,
    /// Some field becomes a pseudonym: batches carry it.
    pub pseudonym: bool,
    /// Indices of the fields with a retention of their own.
    pub retained: Vec<usize>,
    pub statements: Statements,
}

pub(super) struct RulePlan {
    pub column: Column,
    pub matching: Matching,
    /// The declared field of the same column.
    pub field: Option<usize>,
    /// Indices into the fields that a shared row loses for this subject.
    pub redacts: Vec<usize>,
}

pub(super) struct LinkPlan {
    pub owner: usize,
    pub here: Vec<Column>,
    /// Positions in the owner's shape.
    pub there: Vec<usize>,
    pub there_columns: Vec<Column>,
    /// Both sides are of one type, so that no value of one can fail to be one of the other.
    pub native: Vec<bool>,
    /// The owner stands at or behind the collection itself, so rows cannot go in the order of the map alone.
    pub back: bool,
}

/// What is read of a row as text, by position.
#[derive(Default)]
pub(super) struct Shape {
    /// SELECT expressions; the key's come first.
    pub texts: Vec<String>,
    /// Positions of the columns, beyond the key, that others refer to.
    pub linked: Vec<usize>,
    /// Per identifier rule. Empty where nobody asks: one rule alone cannot be of two minds, unless the row has an owner besides.
    pub identifiers: Vec<usize>,
    pub yields: Vec<usize>,
    /// Of the row's own retention.
    pub anchor: Option<usize>,
    /// Parallel to `CollectionPlan::retained`.
    pub field_anchors: Vec<usize>,
    pub words: usize,
    /// Whether words of "differs from its mask" follow those of "is not NULL".
    pub dirty: bool,
}

impl Shape {
    /// Words that a find brings.
    fn numbers(&self) -> usize {
        if self.dirty { 2 * self.words } else { self.words }
    }

    fn want(&mut self, expression: String) -> usize {
        self.texts.iter().position(|t| *t == expression).unwrap_or_else(|| {
            self.texts.push(expression);
            self.texts.len() - 1
        })
    }
}

/// One argument that is not the batch.
#[derive(Clone, Debug)]
pub(super) enum Arg {
    /// The customer's own key.
    Customer,
    /// A constant of the map.
    Text(String),
}

#[derive(Clone, Default)]
pub(super) struct Statement {
    pub sql: String,
    pub args: Vec<Arg>,
}

impl Statement {
    pub fn args(&self, customer: Option<&str>) -> Vec<Val> {
        let value = |arg: &Arg| match arg {
            Arg::Customer => Val::from(customer.map(str::to_owned)),
            Arg::Text(text) => Val::from(text.clone()),
        };
        self.args.iter().map(value).collect()
    }

    pub fn part(&self, customer: Option<&str>, rows: Rows) -> Part {
        Part::new(self.sql.as_str(), self.args(customer), rows)
    }
}

impl Plan {
    pub fn compile(map: &Arc<DataMap>, engine: Engine, schema: &Schema) -> Result<Self, ConnectorError> {
        let dialect = Dialect { engine };
        let mut collections = Vec::with_capacity(map.collections.len());
        for (at, c) in map.collections.iter().enumerate() {
            collections.push(Compiler { map, dialect, schema, c, at }.collection()?);
        }
        let mut owned = vec![Vec::new(); collections.len()];
        let mut pointing = vec![Vec::new(); collections.len()];
        for (at, c) in collections.iter().enumerate() {
            for (l, link) in c.links.iter().enumerate() {
                owned[link.owner].push((at, l));
            }
            for (p, pointer) in c.pointers.iter().enumerate() {
                pointing[pointer.owner].push((at, p));
            }
        }
        let (mut found, mut left) = (Width::default(), Width::default());
        for c in &collections {
            found = found.widest(c.shape.numbers(), c.shape.texts.len());
            left = left.widest(1 + c.shape.words, c.rules.len() + c.links.iter().map(|l| l.here.len()).sum::<usize>());
        }
        for at in 0..collections.len() {
            collections[at].leaf = owned[at].is_empty() && pointing[at].is_empty();
            collections[at].statements = statements(dialect, &map.collections[at], &collections[at], (found, left));
        }
        for at in 0..collections.len() {
            let of = &collections[at];
            // Where the row itself is confined, so are its owners: ids may be other people's elsewhere.
            let confined = of.customer.is_some();
            let owner = |link: &LinkPlan| {
                owner(dialect, &map.collections[link.owner], &collections[link.owner], link, confined)
            };
            let owners = of.links.iter().map(owner);
            collections[at].statements.owners = owners.collect();
        }
        let (version, maria) = (schema.version, schema.maria);
        Ok(Self { map: Arc::clone(map), dialect, version, maria, collections, found, left, owned, pointing })
    }

    pub fn map_of(&self, at: usize) -> &Collection {
        &self.map.collections[at]
    }

    /// Whether rows refer to this collection's by that column.
    pub fn is_linked(&self, at: usize, column: &str) -> bool {
        self.map.linked_columns(&self.map_of(at).name).into_iter().any(|name| name == column)
    }

    pub fn index(&self, name: &str) -> Option<usize> {
        self.map.collections.iter().position(|c| c.name == name)
    }
}

impl CollectionPlan {
    /// How many texts of the key a row has.
    pub fn key_len(&self) -> usize {
        self.key.len()
    }
}

struct Compiler<'a> {
    map: &'a DataMap,
    dialect: Dialect,
    schema: &'a Schema,
    c: &'a Collection,
    at: usize,
}

impl Compiler<'_> {
    fn collection(&self) -> Result<CollectionPlan, ConnectorError> {
        let c = self.c;
        if let Some(why) = self.schema.misleading(&c.table) {
            return Err(ConnectorError::Refused(format!("table of collection {}: {why}", c.name)));
        }
        let key = self.columns(c.key.iter())?;
        let fields = self.columns(c.fields.iter().map(|f| &f.name))?;
        let customer = c.customer_field.as_ref().map(|name| self.column(name)).transpose()?;
        let marker = c.restriction.as_ref().map(|m| self.column(&m.field)).transpose()?;
        let rules = c
            .identifiers
            .iter()
            .map(|rule| {
                let index = |name: &String| c.fields.iter().position(|f| f.name == *name);
                Ok(RulePlan {
                    column: self.column(&rule.field)?,
                    matching: rule.matching,
                    field: index(&rule.field),
                    redacts: rule.redacts.iter().filter_map(index).collect(),
                })
            })
            .collect::<Result<Vec<_>, ConnectorError>>()?;
        let retained: Vec<usize> = indices(c, |erase| matches!(erase, FieldErasure::Retain(_)));
        let mut shape = self.shape(c, &retained)?;
        let links = c.owned_by.iter().map(|link| self.link(link)).collect::<Result<Vec<_>, _>>()?;
        let pointers = c.points_at.iter().map(|p| self.link(&p.link)).collect::<Result<Vec<_>, _>>()?;
        let (mut looked_up, rivals) = (Vec::new(), rivals(c));
        for (link, to) in c.owned_by.iter().enumerate() {
            let is_rival = rivals.contains(&link);
            let keeps =
                to.collection != c.name && self.map.collection(&to.collection).is_some_and(|o| o.retain.is_some());
            let shares = may_be_anothers(c).next().is_some();
            if is_rival || keeps || shares {
                let here =
                    links[link].here.iter().map(|column: &Column| shape.want(self.dialect.text(column))).collect();
                looked_up.push(LookedUp { link, is_rival, keeps, shares, here });
            }
        }
        let repeated = c.yields.iter().map(|y| {
            let matching = self.schema.repeats(self.dialect.engine, c, y);
            matching.map(|matching| Ok((self.column(&y.field)?, matching))).transpose()
        });
        let repeated = repeated.collect::<Result<Vec<_>, _>>()?;
        let pseudonym = c.fields.iter().any(|f| f.erase == FieldErasure::Mask(Mask::Pseudonym))
            || c.points_at.iter().any(|p| p.mask == Mask::Pseudonym);
        Ok(CollectionPlan {
            table: self.dialect.table(&c.table),
            stored_by: self.schema.stored_by(c),
            side_effects: self.schema.side_effects(self.dialect.engine, self.map, &c.table),
            cascades: self.schema.cascades(&c.table),
            key,
            customer,
            rules,
            links,
            looked_up,
            repeated,
            pointers,
            fields,
            marker,
            shape,
            leaf: true,
            rest: owners_part(c),
            pseudonym,
            retained,
            statements: Statements::default(),
        })
    }

    fn shape(&self, c: &Collection, retained: &[usize]) -> Result<Shape, ConnectorError> {
        let d = self.dialect;
        let mut shape = Shape::default();
        for name in &c.key {
            // Not `want`: position and key must agree even if a column is named twice.
            shape.texts.push(d.text(&self.column(name)?));
        }
        // A row that cannot be looked for again, or what hangs on it, must not be passed over: it then has no key.
        if let (Some(lead_back), Some(first)) = (self.lead_back(c)?, shape.texts.first_mut()) {
            *first = format!("CASE WHEN {lead_back} THEN {first} END");
        }
        for name in self.map.linked_columns(&c.name) {
            if !c.key.contains(name) {
                let position = shape.want(d.text(&self.column(name)?));
                shape.linked.push(position);
            }
        }
        if c.identifiers.len() > 1 || !c.owned_by.is_empty() {
            for rule in &c.identifiers {
                let position = shape.want(d.text(&self.column(&rule.field)?));
                shape.identifiers.push(position);
            }
        }
        for y in &c.yields {
            let position = shape.want(d.text(&self.column(&y.field)?));
            shape.yields.push(position);
        }
        if let Some(retain) = &c.retain {
            shape.anchor = Some(shape.want(d.anchor(&self.column(&retain.anchor)?)));
        }
        for field in retained {
            if let FieldErasure::Retain(retain) = &c.fields[*field].erase {
                let position = shape.want(d.anchor(&self.column(&retain.anchor)?));
                shape.field_anchors.push(position);
            }
        }
        shape.words = c.fields.len().div_ceil(WORD);
        shape.dirty =
            c.fields.iter().any(|f| matches!(f.erase, FieldErasure::Mask(Mask::Constant(_) | Mask::Pseudonym)));
        Ok(shape)
    }

    /// Whether the texts by which a row is looked for, and those by which others refer to it, lead back to it.
    fn lead_back(&self, c: &Collection) -> Result<Option<String>, ConnectorError> {
        let mut conditions = Vec::new();
        for name in &c.key {
            conditions.extend(self.dialect.leads_back(&self.column(name)?));
        }
        for name in self.map.linked_columns(&c.name).into_iter().filter(|name| !c.key.contains(*name)) {
            let column = self.column(name)?;
            let leads_back = self.dialect.leads_back(&column);
            conditions.extend(leads_back.map(|it| format!("({} IS NULL OR {it})", self.dialect.column(&column))));
        }
        Ok((!conditions.is_empty()).then(|| conditions.join(" AND ")))
    }

    fn link(&self, link: &Link) -> Result<LinkPlan, ConnectorError> {
        let owner = self.map.collections.iter().position(|c| c.name == link.collection).ok_or_else(|| {
            ConnectorError::Refused(format!("collection {}: unknown collection {}", self.c.name, link.collection))
        })?;
        let of = &self.map.collections[owner];
        let there = Compiler { c: of, at: owner, ..*self };
        let extra: Vec<&String> =
            self.map.linked_columns(&of.name).into_iter().filter(|name| !of.key.contains(*name)).collect();
        let retained = indices(of, |erase| matches!(erase, FieldErasure::Retain(_)));
        let shape = there.shape(of, &retained)?;
        let mut plan = LinkPlan {
            owner,
            here: Vec::new(),
            there: Vec::new(),
            there_columns: Vec::new(),
            native: Vec::new(),
            back: false,
        };
        for (here, target) in &link.fields {
            let (here, column) = (self.column(here)?, there.column(target)?);
            plan.native.push(here.type_name == column.type_name);
            plan.here.push(here);
            plan.there_columns.push(column);
            let position = of
                .key
                .iter()
                .position(|k| k == target)
                .or_else(|| extra.iter().position(|name| *name == target).map(|i| shape.linked[i]));
            plan.there.push(position.ok_or_else(|| ConnectorError::Refused("a link leads nowhere".to_owned()))?);
        }
        plan.back = owner > self.at || (owner == self.at && self.dialect.engine == Engine::MySql);
        // Only where both ends go can one of them be in the way of the other.
        plan.back &= self.c.erase == RowErasure::Delete && of.erase == RowErasure::Delete;
        // SQLite defers its foreign keys to the commit instead.
        plan.back &= self.dialect.engine != Engine::Sqlite;
        let free = |column: &Column| {
            column.nullable
                && !self.c.key.contains(&column.name)
                && self.c.customer_field.as_ref() != Some(&column.name)
        };
        plan.back &= plan.here.iter().all(free);
        Ok(plan)
    }

    fn columns<'n>(&self, names: impl Iterator<Item = &'n String>) -> Result<Vec<Column>, ConnectorError> {
        names.map(|name| self.column(name)).collect()
    }

    fn column(&self, name: &str) -> Result<Column, ConnectorError> {
        // The one text that our own statements treat as something else.
        if name.contains("{rows}") || self.c.table.name.contains("{rows}") {
            return Err(ConnectorError::Refused(format!("collection {}: a name cannot be used", self.c.name)));
        }
        if self.schema.columns(&self.c.table).is_none() {
            return Err(ConnectorError::Refused(format!("collection {}: its table is not there", self.c.name)));
        }
        self.schema
            .column(self.dialect.engine, &self.c.table, name)
            .cloned()
            .ok_or_else(|| ConnectorError::Refused(format!("collection {}: column {name} is not there", self.c.name)))
    }
}

fn indices(c: &Collection, wanted: impl Fn(&FieldErasure) -> bool) -> Vec<usize> {
    (0..c.fields.len()).filter(|i| wanted(&c.fields[*i].erase)).collect()
}
