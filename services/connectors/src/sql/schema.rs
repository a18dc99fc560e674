//! What the live database says of the mapped tables' columns.

use std::collections::{HashMap, HashSet};

use quittance_domain::data_map::{Collection, DataMap, FieldErasure, Matching, RowErasure, Table, Yield};
use quittance_sql::{Engine, Row, SqlError, Tx, Val};

use super::{
    catalog::{Facts, References, cascades_to, facts, indexes_of},
    dialect::{Dialect, SideEffects, StoredBy},
};

/// How values of a column compare, and which texts it can hold at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Text,
    Int {
        min: i64,
        max: u64,
    },
    Uuid,
    /// Travels as hexadecimal where the engine has no text form of its own.
    Bytes,
    /// A day, with or without a time of no zone.
    Date,
    Instant,
    Other,
}

/// What a value's text is to somebody who has the value from elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spelled {
    /// As everybody spells it.
    Alike,
    /// A whole number is read with a point behind it: `5.0`.
    WithPoint,
    /// As the database alone does: lists, documents, bytes, times, numbers that are rounded.
    Otherwise,
}

/// What `lower()` makes of a column's text, which on PostgreSQL its collation decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lower {
    /// What we make of it.
    Same,
    /// Capitals of ASCII alone are folded, for all that is known.
    Ascii,
    /// Not even those: Turkish has another small letter for I.
    Other,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Column {
    pub name: String,
    /// As the schema calls it.
    pub type_name: String,
    pub class: Class,
    /// What a value is cast to so that the column's index answers (PostgreSQL a type; MySQL a CAST's target, or of text the character set).
    pub cast: Option<String>,
    /// Its own equality lets different texts pass as equal; on MySQL all those that differ in case alone.
    pub folds: bool,
    pub lower: Lower,
    pub spelled: Spelled,
    pub blank_padded: bool,
    /// As a statement names it; PostgreSQL and MySQL.
    pub collation: String,
    pub nullable: bool,
    /// The database makes it of other columns.
    pub generated: bool,
    /// MySQL sets it to the present whenever a row is changed (`ON UPDATE CURRENT_TIMESTAMP`).
    pub moves: bool,
    pub max_chars: Option<u64>,
}

impl Column {
    /// No index answers for its folded text: it is compared without the blanks around it, which costs less than asking for each.
    pub fn trims(&self, engine: Engine) -> bool {
        engine == Engine::MySql && !self.folds
    }

    /// MySQL shows its numbers with zeros before them, which no other column has.
    pub fn zero_filled(&self) -> bool {
        self.type_name.ends_with(" zerofill")
    }

    /// MySQL's BIT: a number, which as text is the bytes of it, and a text that is written is taken for such bytes.
    pub fn is_bits(&self) -> bool {
        self.type_name.starts_with("bit(")
    }

    /// An identifier without the zeros that the column does not hold.
    pub fn bare<'v>(&self, value: &'v str) -> &'v str {
        let zeros = value.len() - value.trim_start_matches('0').len();
        let bare = if self.zero_filled() { value.get(zeros..) } else { None };
        match bare {
            Some(bare) if bare.starts_with(|c: char| c.is_ascii_digit()) => bare,
            // Of `000` one is left.
            Some(_) => value.get(zeros.saturating_sub(1)..).unwrap_or(value),
            None => value,
        }
    }

    /// Whether the column could hold this very text. What it could not is not asked for: the question alone would be an error.
    pub fn accepts(&self, value: &str) -> bool {
        match self.class {
            Class::Int { min, max } => match value.strip_prefix('-') {
                Some(digits) => is_canonical(digits) && value.parse::<i64>().is_ok_and(|n| n != 0 && n >= min),
                None => is_canonical(value) && value.parse::<u64>().is_ok_and(|n| n <= max),
            },
            Class::Uuid => matches!(value.len(), 32 | 36) && uuid::Uuid::try_parse(value).is_ok(),
            _ => true,
        }
    }
}

/// `007` is not the number 7 to whoever issued it.
fn is_canonical(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'))
}

/// The columns of each table of the map; a table that is not there has none.
#[derive(Debug, Default)]
pub(super) struct Schema {
    tables: HashMap<Table, Vec<Column>>,
    facts: HashMap<Table, Facts>,
    /// Foreign keys by which the database itself deletes what refers to a deleted row.
    cascades: HashMap<Table, References>,
    /// PostgreSQL's `server_version_num`; elsewhere 0.
    pub version: i64,
    pub maria: bool,
    /// Of tables that yield identifiers: their unique indexes, as columns.
    unique: HashMap<Table, Vec<Vec<String>>>,
    /// SQLite: tables with a constraint that has a way of its own with conflicts (`ON CONFLICT REPLACE`).
    conflicting: HashSet<Table>,
    /// SQLite: the primary keys of tables without rowids.
    keyed: HashMap<Table, Vec<String>>,
}

impl Schema {
    pub async fn load(tx: &mut Tx, map: &DataMap) -> Result<Self, SqlError> {
        let mut schema = Self::default();
        let mut encoding = String::new();
        match tx.engine() {
            Engine::Postgres => {
                let sql = "SELECT current_setting('server_version_num'), current_setting('server_encoding')";
                if let Some(row) = tx.fetch_one(sql, Vec::new()).await? {
                    schema.version = row.text(0)?.parse().unwrap_or(0);
                    encoding = row.text(1)?;
                }
            }
            Engine::MySql => {
                let row = tx.fetch_one("SELECT CAST(VERSION() AS CHAR)", Vec::new()).await?;
                schema.maria = row.map_or(Ok(false), |r| r.text(0).map(|v| v.contains("MariaDB")))?;
            }
            Engine::Sqlite => {}
        }
        let mut folding = Folding { encoding, known: HashMap::new() };
        for c in &map.collections {
            if !schema.tables.contains_key(&c.table) {
                let mut columns = columns(tx, &c.table).await?;
                if schema.maria {
                    documents(tx, &c.table, &mut columns).await?;
                }
                for column in columns.iter_mut().filter(|column| is_folded(map, &c.table, column)) {
                    folding.tell(tx, column).await?;
                }
                schema.tables.insert(c.table.clone(), columns);
                schema.facts.insert(c.table.clone(), facts(tx, &c.table).await?);
                if tx.engine() == Engine::Sqlite {
                    schema.sqlite(tx, &c.table).await?;
                }
            }
            if !c.yields.is_empty() && !schema.unique.contains_key(&c.table) {
                let unique = indexes_of(tx, &c.table).await?.into_iter().filter(|index| index.unique);
                // One with an expression says nothing of a column.
                let columns = unique.filter_map(|index| index.parts.into_iter().map(|part| part.column).collect());
                schema.unique.insert(c.table.clone(), columns.collect());
            }
            if c.erase == RowErasure::Delete && !schema.cascades.contains_key(&c.table) {
                let cascades = cascades_to(tx, &[&c.table]).await?.pop().unwrap_or_default();
                schema.cascades.insert(c.table.clone(), cascades);
            }
        }
        Ok(schema)
    }

    async fn sqlite(&mut self, tx: &mut Tx, table: &Table) -> Result<(), SqlError> {
        let schema = table.schema.as_deref().unwrap_or("main");
        // By the word, wherever it stands: what is taken for one merely has its conflicts told.
        let sql = format!(
            "SELECT 1 FROM {}.sqlite_schema WHERE type = 'table' AND lower(name) = lower($1) AND sql LIKE '%conflict%'",
            Dialect { engine: Engine::Sqlite }.quote(schema)
        );
        if tx.fetch_one(&sql, vec![Val::from(table.name.clone())]).await?.is_some() {
            self.conflicting.insert(table.clone());
        }
        // Of a table with rowids, each index ends in the rowid.
        let sql = "SELECT x.name FROM pragma_index_list($1, $2) l JOIN pragma_index_xinfo(l.name, $2) x ON x.key = 1 WHERE l.origin = 'pk' \
            AND NOT EXISTS (SELECT 1 FROM pragma_index_xinfo(l.name, $2) r WHERE r.cid = -1) ORDER BY x.seqno";
        let key = tx.fetch(sql, vec![Val::from(table.name.clone()), Val::from(schema.to_owned())]).await?;
        if !key.is_empty() {
            self.keyed.insert(table.clone(), key.iter().map(|row| row.text(0)).collect::<Result<_, _>>()?);
        }
        Ok(())
    }

    /// `None`: no such table.
    pub fn columns(&self, table: &Table) -> Option<&[Column]> {
        self.tables.get(table).filter(|c| !c.is_empty()).map(Vec::as_slice)
    }

    pub fn stored_by(&self, c: &Collection) -> StoredBy {
        let columns = self.columns(&c.table).unwrap_or_default();
        let taken = |name: &&str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        match self.keyed.get(&c.table) {
            Some(key) => StoredBy::Key(key.clone()),
            None => match ["rowid", "oid", "_rowid_"].into_iter().find(|name| !taken(name)) {
                Some(name) => StoredBy::Rowid(name),
                // Columns hide all its names.
                None => StoredBy::Key(c.key.clone()),
            },
        }
    }

    pub fn cascades(&self, table: &Table) -> References {
        self.cascades.get(table).cloned().unwrap_or_default()
    }

    /// Why a table is not what it looks like.
    pub fn misleading(&self, table: &Table) -> Option<String> {
        self.facts.get(table).and_then(|facts| facts.misleading().into_iter().next())
    }

    /// How a yielded column is asked for who else has the same in it; `None` where no two rows of one customer can. Emails and phone numbers have many
    /// spellings, which no unique index tells of.
    pub fn repeats(&self, engine: Engine, c: &Collection, y: &Yield) -> Option<Matching> {
        let matching = Matching::of(y.kind);
        (matching != Matching::Exact || !self.is_unique(engine, c, &y.field)).then_some(matching)
    }

    /// No two rows of one customer have the same in that column.
    fn is_unique(&self, engine: Engine, c: &Collection, field: &str) -> bool {
        let same = |a: &str, b: &str| a == b || (engine != Engine::Postgres && a.eq_ignore_ascii_case(b));
        let within = |part: &String| same(part, field) || c.customer_field.as_ref().is_some_and(|f| same(part, f));
        self.unique.get(&c.table).is_some_and(|unique| unique.iter().any(|columns| columns.iter().all(within)))
    }

    /// Whatever collection of the table is changed: another's anchor moves with it.
    pub fn side_effects(&self, engine: Engine, map: &DataMap, table: &Table) -> SideEffects {
        let mut moving: Vec<Column> = Vec::new();
        for c in map.collections.iter().filter(|c| c.table == *table) {
            let of_fields = c.fields.iter().filter_map(|field| match &field.erase {
                FieldErasure::Retain(retain) => Some(retain),
                FieldErasure::Mask(_) | FieldErasure::Keep => None,
            });
            for retain in c.retain.iter().chain(of_fields) {
                let anchor = self.column(engine, table, &retain.anchor);
                moving.extend(anchor.filter(|column| column.moves && !moving.contains(column)).cloned());
            }
        }
        SideEffects { moving, replaces: self.conflicting.contains(table) }
    }

    pub fn column(&self, engine: Engine, table: &Table, name: &str) -> Option<&Column> {
        let columns = self.columns(table)?;
        columns
            .iter()
            .find(|c| c.name == name)
            .or_else(|| columns.iter().find(|c| engine != Engine::Postgres && c.name.eq_ignore_ascii_case(name)))
    }
}

/// How collations fold, each asked of the database once: names say little of it, the server's own library decides.
struct Folding {
    /// PostgreSQL's.
    encoding: String,
    known: HashMap<String, Lower>,
}

impl Folding {
    async fn tell(&mut self, tx: &mut Tx, column: &mut Column) -> Result<(), SqlError> {
        let engine = tx.engine();
        let asked = match engine {
            Engine::Postgres => column.lower == Lower::Same,
            Engine::MySql => column.folds && column.class == Class::Text && column.cast.is_some(),
            Engine::Sqlite => false,
        };
        if !asked {
            return Ok(());
        }
        let lower = match self.known.get(&column.collation) {
            Some(lower) => *lower,
            None if engine == Engine::Postgres => self.postgres(tx, column).await?,
            None => Self::mysql(tx, column).await?,
        };
        self.known.insert(column.collation.clone(), lower);
        match engine {
            Engine::Postgres => column.lower = lower,
            // Its LOWER() is asked in utf8mb4 and folds as we do; the column's own equality is what an index answers by.
            _ => column.folds = lower == Lower::Same,
        }
        Ok(())
    }

    async fn postgres(&self, tx: &mut Tx, column: &Column) -> Result<Lower, SqlError> {
        // A letter that the database's encoding lacks would be an error.
        let letters = if matches!(self.encoding.as_str(), "UTF8" | "SQL_ASCII") { CAPITALS } else { "I" };
        let row = tx.fetch_one(&format!("SELECT lower('{letters}' COLLATE {})", column.collation), Vec::new()).await?;
        let lower = row.map_or(Ok(String::new()), |row| row.text(0))?;
        Ok(match lower.as_str() {
            SMALL => Lower::Same,
            other if other.ends_with('i') => Lower::Ascii,
            _ => Lower::Other,
        })
    }

    async fn mysql(tx: &mut Tx, column: &Column) -> Result<Lower, SqlError> {
        let charset = column.cast.as_deref().unwrap_or_default();
        let text = |text: &str| format!("CONVERT('{text}' USING {charset}) COLLATE {}", column.collation);
        let sql = format!("SELECT CAST({} = {} AS SIGNED)", text(CAPITALS), text(SMALL));
        let row = tx.fetch_one(&sql, Vec::new()).await?;
        let equal = row.map_or(Ok(0), |row| row.i64(0))? == 1;
        Ok(if equal { Lower::Same } else { Lower::Other })
    }
}

const CAPITALS: &str = "ÅЯI";
const SMALL: &str = "åяi";

/// Whether anybody looks for its text in any case.
fn is_folded(map: &DataMap, table: &Table, column: &Column) -> bool {
    let here = |field: &str| field.eq_ignore_ascii_case(&column.name);
    let rules = |c: &Collection| {
        c.identifiers.iter().any(|rule| rule.matching == Matching::CaseInsensitive && here(&rule.field))
            || c.yields.iter().any(|y| Matching::of(y.kind) == Matching::CaseInsensitive && here(&y.field))
    };
    map.collections.iter().any(|c| c.table == *table && rules(c))
}

async fn columns(tx: &mut Tx, table: &Table) -> Result<Vec<Column>, SqlError> {
    let dialect = Dialect { engine: tx.engine() };
    match tx.engine() {
        Engine::Postgres => {
            tx.fetch(POSTGRES, vec![Val::from(dialect.table(table))]).await?.iter().map(postgres).collect()
        }
        Engine::MySql => {
            let args = vec![Val::from(table.schema.clone()), Val::from(table.name.clone())];
            tx.fetch(MYSQL, args).await?.iter().map(mysql).collect()
        }
        Engine::Sqlite => {
            let name = Val::from(table.name.clone());
            let rows = match table.schema.clone() {
                Some(schema) => tx.fetch(&SQLITE.replace("$1", "$1, $2"), vec![name, Val::from(schema)]).await?,
                None => tx.fetch(SQLITE, vec![name]).await?,
            };
            rows.iter().map(sqlite).collect()
        }
    }
}

const POSTGRES: &str = "SELECT a.attname::text, format_type(a.atttypid, -1), b.typname::text, \
    (CASE WHEN a.attnotnull OR t.typnotnull THEN 0 ELSE 1 END)::bigint, \
    (CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END)::bigint, \
    (CASE WHEN c.collisdeterministic IS FALSE THEN 1 ELSE 0 END)::bigint, \
    (CASE WHEN a.attgenerated <> '' OR a.attidentity = 'a' THEN 1 ELSE 0 END)::bigint, \
    COALESCE(quote_ident(n.nspname) || '.' || quote_ident(c.collname), 'pg_catalog.\"default\"'), \
    b.typcategory::text, (b.typtype = 'd')::int::bigint \
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
    JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END \
    LEFT JOIN pg_collation c ON c.oid = a.attcollation LEFT JOIN pg_namespace n ON n.oid = c.collnamespace \
    WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped";

fn postgres(row: &Row) -> Result<Column, SqlError> {
    let (type_name, base) = (row.text(1)?, row.text(2)?);
    let class = match base.as_str() {
        "text" | "varchar" | "bpchar" | "name" | "citext" => Class::Text,
        "int2" => Class::Int { min: i16::MIN.into(), max: i16::MAX as u64 },
        "int4" => Class::Int { min: i32::MIN.into(), max: i32::MAX as u64 },
        "int8" => Class::Int { min: i64::MIN, max: i64::MAX as u64 },
        "uuid" => Class::Uuid,
        "bytea" => Class::Bytes,
        "date" | "timestamp" => Class::Date,
        "timestamptz" => Class::Instant,
        _ => Class::Other,
    };
    let comparable = !matches!(base.as_str(), "json" | "xml" | "point" | "polygon");
    let (typmod, collation) = (row.i64(4)?, row.text(7)?);
    // Its equality folds by the database's collation, lower() by the column's: where they differ, neither counts.
    let differs = base == "citext" && collation != "pg_catalog.\"default\"";
    let spelled = match (class, row.text(8)?.as_str()) {
        (Class::Text | Class::Int { .. } | Class::Uuid, _) | (Class::Other, "S" | "E") => Spelled::Alike,
        // The scale is the lower half. A domain of a domain does not tell it.
        (Class::Other, "N") if base == "numeric" && typmod > 4 && (typmod - 4) & 0xffff != 0 => Spelled::WithPoint,
        (Class::Other, "N") if matches!(base.as_str(), "numeric" | "oid") || row.i64(9)? == 1 => Spelled::Alike,
        _ => Spelled::Otherwise,
    };
    Ok(Column {
        name: row.text(0)?,
        cast: comparable.then(|| type_name.clone()),
        folds: base == "citext" || row.i64(5)? == 1,
        blank_padded: base == "bpchar",
        max_chars: if class == Class::Text && typmod > 4 { u64::try_from(typmod - 4).ok() } else { None },
        lower: if differs { Lower::Other } else { Lower::Same },
        spelled,
        collation,
        nullable: row.i64(3)? == 1,
        generated: row.i64(6)? == 1,
        moves: false,
        class,
        type_name,
    })
}

const MYSQL: &str = "SELECT CAST(COLUMN_NAME AS CHAR), CAST(DATA_TYPE AS CHAR), CAST(COLUMN_TYPE AS CHAR), CAST(IS_NULLABLE AS CHAR), \
    CAST(CHARACTER_MAXIMUM_LENGTH AS SIGNED), CAST(CHARACTER_SET_NAME AS CHAR), CAST(COLLATION_NAME AS CHAR), \
    CAST(COALESCE(NUMERIC_PRECISION, 0) AS SIGNED), CAST(COALESCE(NUMERIC_SCALE, 0) AS SIGNED), \
    CAST(COALESCE(GENERATION_EXPRESSION, '') <> '' AS SIGNED), CAST(COALESCE(EXTRA, '') LIKE '%on update%' AS SIGNED) \
    FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = COALESCE($1, DATABASE()) AND TABLE_NAME = $2";

/// MySQL's integers, and what a text is cast to for them.
fn whole_number(bits: u32, unsigned: bool) -> (Class, Option<String>) {
    let largest = u64::MAX >> (64 - bits);
    if unsigned {
        return (Class::Int { min: 0, max: largest }, Some("UNSIGNED".to_owned()));
    }
    (Class::Int { min: i64::MIN >> (64 - bits), max: largest >> 1 }, Some("SIGNED".to_owned()))
}

fn mysql(row: &Row) -> Result<Column, SqlError> {
    let (kind, type_name) = (row.text(1)?.to_ascii_lowercase(), row.text(2)?.to_ascii_lowercase());
    let (charset, collation) = (row.opt_text(5)?.unwrap_or_default(), row.opt_text(6)?.unwrap_or_default());
    let unsigned = type_name.contains("unsigned");
    let (class, cast) = match kind.as_str() {
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => (Class::Text, Some(charset.clone())),
        "tinyint" => whole_number(8, unsigned),
        "smallint" => whole_number(16, unsigned),
        "mediumint" => whole_number(24, unsigned),
        "int" => whole_number(32, unsigned),
        "bigint" => whole_number(64, unsigned),
        "bit" => whole_number(u32::try_from(row.i64(7)?).unwrap_or_default().clamp(1, 64), true),
        "decimal" => (Class::Other, Some(format!("DECIMAL({},{})", row.i64(7)?, row.i64(8)?))),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => (Class::Bytes, None),
        "uuid" => (Class::Uuid, Some("UUID".to_owned())),
        "date" => (Class::Date, Some("DATE".to_owned())),
        "datetime" => (Class::Date, Some("DATETIME(6)".to_owned())),
        "timestamp" => (Class::Instant, Some("DATETIME(6)".to_owned())),
        "time" => (Class::Other, Some("TIME(6)".to_owned())),
        _ => (Class::Other, None),
    };
    // Pasted into statements: anything but a plain word is done without.
    let plain = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let cast = cast.filter(|_| class != Class::Text || (plain(&charset) && plain(&collation)));
    let spelled = match (class, kind.as_str()) {
        (Class::Text | Class::Int { .. } | Class::Uuid, _) | (_, "enum") => Spelled::Alike,
        (_, "decimal") if row.i64(8)? == 0 => Spelled::Alike,
        (_, "decimal") => Spelled::WithPoint,
        _ => Spelled::Otherwise,
    };
    Ok(Column {
        name: row.text(0)?,
        folds: !collation.ends_with("_bin") && !collation.ends_with("_cs"),
        lower: Lower::Same,
        spelled,
        blank_padded: false,
        max_chars: row.opt_i64(4)?.and_then(|n| u64::try_from(n).ok()).filter(|_| class == Class::Text),
        nullable: row.text(3)?.eq_ignore_ascii_case("YES"),
        generated: row.i64(9)? == 1,
        moves: row.i64(10)? == 1,
        class,
        cast,
        collation,
        type_name,
    })
}

/// MariaDB's JSON is text, under a constraint by the column's own name.
async fn documents(tx: &mut Tx, table: &Table, columns: &mut [Column]) -> Result<(), SqlError> {
    let sql = "SELECT CAST(CONSTRAINT_NAME AS CHAR) FROM information_schema.CHECK_CONSTRAINTS \
        WHERE CONSTRAINT_SCHEMA = COALESCE($1, DATABASE()) AND TABLE_NAME = $2 AND CHECK_CLAUSE LIKE 'json_valid(%'";
    for row in tx.fetch(sql, vec![Val::from(table.schema.clone()), Val::from(table.name.clone())]).await? {
        let name = row.text(0)?;
        columns.iter_mut().filter(|c| c.name == name).for_each(|c| c.spelled = Spelled::Otherwise);
    }
    Ok(())
}

const SQLITE: &str = "SELECT name, type, \"notnull\", hidden IN (2, 3) FROM pragma_table_xinfo($1)";

fn sqlite(row: &Row) -> Result<Column, SqlError> {
    let type_name = row.opt_text(1)?.unwrap_or_default().to_ascii_uppercase();
    let has = |word: &str| type_name.contains(word);
    // The affinity rules of https://sqlite.org/datatype3.html, in their order. No Int: such a column holds any text.
    let (class, native) = if has("INT") {
        (Class::Other, true)
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        (Class::Text, true)
    } else if has("BLOB") {
        (Class::Bytes, true)
    } else if type_name.is_empty() || type_name == "ANY" {
        // In a STRICT table, ANY keeps texts as they are, too.
        (Class::Other, false)
    } else if has("DATE") || has("TIME") {
        (Class::Date, true)
    } else {
        (Class::Other, true)
    };
    let real = class == Class::Other && ["REAL", "FLOA", "DOUB"].into_iter().any(has) && !has("INT");
    let spelled = match class {
        Class::Bytes => Spelled::Otherwise,
        // Names of types that are nothing to SQLite, and say what the program keeps there.
        _ if ["JSON", "XML", "[]"].into_iter().any(has) => Spelled::Otherwise,
        _ if real => Spelled::WithPoint,
        _ => Spelled::Alike,
    };
    Ok(Column {
        name: row.text(0)?,
        cast: native.then(String::new),
        folds: false,
        lower: Lower::Ascii,
        spelled,
        blank_padded: false,
        collation: String::new(),
        nullable: row.i64(2)? == 0,
        generated: row.i64(3)? == 1,
        moves: false,
        max_chars: None,
        class,
        type_name,
    })
}

#[cfg(test)]
impl Column {
    pub fn of(class: Class) -> Self {
        Self {
            name: "c".into(),
            type_name: String::new(),
            class,
            cast: None,
            folds: false,
            lower: Lower::Same,
            spelled: Spelled::Alike,
            blank_padded: false,
            collation: String::new(),
            nullable: true,
            generated: false,
            moves: false,
            max_chars: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_column_can_hold_is_asked_for() {
        let int = Column::of(Class::Int { min: -128, max: 127 });
        for (value, expected) in [
            ("0", true),
            ("127", true),
            ("-128", true),
            ("128", false),
            ("-129", false),
            ("007", false),
            ("-0", false),
            ("+1", false),
            ("1 ", false),
            ("x", false),
            ("", false),
        ] {
            assert_eq!(int.accepts(value), expected, "{value}");
        }
        let plain = Column::of(Class::Text);
        let filled = Column { type_name: "int(5) unsigned zerofill".into(), ..int };
        for (value, bare) in
            [("00042", "42"), ("42", "42"), ("000", "0"), ("0", "0"), ("0.5", "0.5"), ("a", "a"), ("", "")]
        {
            assert_eq!((filled.bare(value), plain.bare(value)), (bare, value));
        }
        let uuid = Column::of(Class::Uuid);
        assert!(uuid.accepts("0190a1b2-0000-7000-8000-000000000001") && !uuid.accepts("urn:x") && !uuid.accepts("7"));
        assert!(Column::of(Class::Text).accepts("any"));
    }
}
