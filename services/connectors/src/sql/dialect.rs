//! What the three engines say differently: names, casts, comparisons, joins of a batch with a table.
//!
//! In every statement `q` is the table and `v` the batch. Values of the batch are text; the cast is always on their side, so that the column's own
//! index answers, and what the column's collation would let pass ('Abc' for 'abc', 'x ' for 'x') is compared byte for byte on top.

use quittance_sql::{Engine, Row, SqlError};

use super::{
    identify::PATTERN,
    schema::{Class, Column, Lower},
};

#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    pub engine: Engine,
}

/// What a database does of its own when rows of a table are changed, and is kept from.
pub(super) struct SideEffects {
    /// Anchors that it would set to the present: what is held would be held anew.
    pub moving: Vec<Column>,
    /// Where a new value stands in another row, it may delete that.
    pub replaces: bool,
}

/// How SQLite itself tells a table's rows apart.
pub(super) enum StoredBy {
    /// By a number, under this name.
    Rowid(&'static str),
    /// By columns: mostly the primary key, in a table that is `WITHOUT ROWID`.
    Key(Vec<String>),
}

impl Dialect {
    /// A name as it is, whatever it holds.
    pub fn quote(self, name: &str) -> String {
        match self.engine {
            Engine::MySql => format!("`{}`", name.replace('`', "``")),
            Engine::Postgres | Engine::Sqlite => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    pub fn table(self, table: &quittance_domain::data_map::Table) -> String {
        match &table.schema {
            Some(schema) => format!("{}.{}", self.quote(schema), self.quote(&table.name)),
            None => self.quote(&table.name),
        }
    }

    /// Always qualified: SQLite reads an unknown `"name"` as a text, but never an unknown `q."name"`.
    pub fn column(self, column: &Column) -> String {
        format!("q.{}", self.quote(&column.name))
    }

    /// The column's value as text; what [`Dialect::equals`] compares with again.
    pub fn text(self, column: &Column) -> String {
        let name = self.column(column);
        match (self.engine, column.class) {
            (Engine::Postgres, _) => format!("{name}::text"),
            (Engine::MySql, Class::Bytes) => format!("hex({name})"),
            // Its hex() of NULL is empty.
            (Engine::Sqlite, Class::Bytes) => format!("CASE WHEN {name} IS NOT NULL THEN hex({name}) END"),
            (Engine::MySql, Class::Text) => format!("CONVERT({name} USING utf8mb4)"),
            (Engine::MySql, _) if column.is_bits() => format!("CAST({name} + 0 AS CHAR)"),
            (Engine::MySql, _) => match &column.cast {
                Some(cast) if column.zero_filled() => format!("CAST(CAST({name} AS {cast}) AS CHAR)"),
                _ => format!("CAST({name} AS CHAR)"),
            },
            (Engine::Sqlite, Class::Text) => format!("CAST({name} AS TEXT)"),
            // Whatever the type's name, a value may be real.
            (Engine::Sqlite, _) => {
                format!("CASE typeof({name}) WHEN 'real' THEN {} ELSE CAST({name} AS TEXT) END", real(&name))
            }
        }
    }

    /// Whether a column's text leads back to the row, where that is not certain: a date that no text is cast to does not, nor a BLOB in a column of texts.
    pub fn leads_back(self, column: &Column) -> Option<String> {
        let certain = match self.engine {
            Engine::Postgres => true,
            Engine::MySql => matches!(column.class, Class::Text | Class::Int { .. } | Class::Uuid | Class::Bytes),
            Engine::Sqlite => false,
        };
        (!certain).then(|| self.equals(column, &self.text(column)))
    }

    /// What a value is read from, by [`Dialect::read`].
    pub fn value(self, column: &Column) -> String {
        if self.sends_bytes(column) { self.column(column) } else { self.text(column) }
    }

    /// The text that [`Dialect::text`] gives, capitals in hex too, of a column that was selected by [`Dialect::value`].
    pub fn read(self, column: &Column, row: &Row, at: usize) -> Result<Option<String>, SqlError> {
        if self.sends_bytes(column) { Ok(row.opt_bytes(at)?.map(hex::encode_upper)) } else { row.opt_text(at) }
    }

    /// MySQL's HEX() of a long value is NULL, with no more than a warning, once its answer passes max_allowed_packet. The value itself is sent.
    fn sends_bytes(self, column: &Column) -> bool {
        self.engine == Engine::MySql && column.class == Class::Bytes
    }

    /// The day that a hold counts from; an instant as such, since its day depends on the zone.
    pub fn anchor(self, column: &Column) -> String {
        let name = self.column(column);
        match (self.engine, column.class) {
            (Engine::Postgres, Class::Date) => format!("to_char({name}, 'YYYY-MM-DD')"),
            (Engine::Postgres, Class::Instant) => {
                format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
            }
            // Sessions run in UTC.
            (Engine::MySql, Class::Instant) => format!("DATE_FORMAT({name}, '%Y-%m-%dT%H:%i:%sZ')"),
            _ => self.text(column),
        }
    }

    /// The column holds the very value that this column (or one of its type) gave as text.
    pub fn equals(self, column: &Column, value: &str) -> String {
        let name = self.column(column);
        match self.engine {
            Engine::Postgres => match &column.cast {
                None => self.text_equals(column, value),
                Some(cast) if column.folds => {
                    format!("{name} = {value}::{cast} AND {name}::text COLLATE \"C\" = {value}")
                }
                Some(_) if column.class == Class::Text && !column.blank_padded => format!("{name} = {value}"),
                Some(cast) => format!("{name} = {value}::{cast}"),
            },
            Engine::MySql => match (column.class, &column.cast) {
                (Class::Bytes, _) => format!("{name} = UNHEX({value})"),
                (Class::Text, Some(charset)) => format!(
                    "{name} = CONVERT({value} USING {charset}) COLLATE {} AND {}",
                    column.collation,
                    self.text_equals(column, value)
                ),
                (_, Some(cast)) => format!("{name} = CAST({value} AS {cast})"),
                (_, None) => self.text_equals(column, value),
            },
            Engine::Sqlite => match (column.class, &column.cast) {
                // A BLOB column may hold text all the same: its types are the values'.
                (Class::Bytes, _) => format!("({name} = unhex({value}) OR {name} = CAST(unhex({value}) AS TEXT))"),
                // The first half is the index's, in whatever collation it has; the second is the truth.
                (Class::Text, _) => format!("{name} = {value} AND {name} = {value} COLLATE BINARY"),
                (_, Some(_)) => format!("{name} = {value} AND {}", self.text_equals(column, value)),
                (_, None) => self.text_equals(column, value),
            },
        }
    }

    /// As [`Dialect::equals`], for a value from elsewhere, which [`Column::accepts`] has let pass: where a cast of it could still fail, it is the column that
    /// is cast, so that no value can poison the batch.
    pub fn equals_foreign(self, column: &Column, value: &str) -> String {
        let safe =
            matches!(column.class, Class::Text | Class::Int { .. } | Class::Uuid) || self.engine == Engine::Sqlite;
        if safe { self.equals(column, value) } else { self.text_equals(column, value) }
    }

    /// What rows are put in order by, and what its text is compared with as: `{value}` stands for that text.
    pub fn ordered(self, column: &Column) -> (String, String) {
        let (name, value) = (self.column(column), "{value}".to_owned());
        match (self.engine, column.class, &column.cast) {
            (Engine::Postgres, _, Some(cast)) => (name, format!("{value}::{cast}")),
            (Engine::Postgres, _, None) => (format!("{} COLLATE \"C\"", self.text(column)), value),
            (Engine::MySql, Class::Bytes, _) => (name, format!("UNHEX({value})")),
            (Engine::MySql, Class::Text, Some(charset)) => {
                (name, format!("CONVERT({value} USING {charset}) COLLATE {}", column.collation))
            }
            (Engine::MySql, Class::Text, None) | (Engine::MySql, _, None) => (self.text(column), value),
            (Engine::MySql, _, Some(cast)) => (name, format!("CAST({value} AS {cast})")),
            // The column's affinity makes of the text what it made of the stored value; a column without one keeps any.
            (Engine::Sqlite, Class::Bytes, _) | (Engine::Sqlite, _, None) => (self.text(column), value),
            (Engine::Sqlite, _, Some(_)) => (name, value),
        }
    }

    fn text_equals(self, column: &Column, value: &str) -> String {
        let text = self.text(column);
        match self.engine {
            Engine::Postgres => format!("{text} COLLATE \"C\" = {value}"),
            Engine::MySql => format!("CAST({text} AS BINARY) = CAST({value} AS BINARY)"),
            Engine::Sqlite => format!("{text} = {value} COLLATE BINARY"),
        }
    }

    /// A text of a column in lower case, as far as that is needed: by the column's own collation where an index may answer, and by none where that is
    /// not to be trusted.
    fn lower(self, column: &Column, text: &str) -> String {
        match column.lower {
            Lower::Same if column.folds => format!("lower({text}) COLLATE \"C\""),
            Lower::Ascii if column.folds => format!("lower({text} COLLATE \"C\")"),
            Lower::Other => format!("lower({text} COLLATE \"C\")"),
            Lower::Same | Lower::Ascii => format!("lower({text})"),
        }
    }

    /// Equal but for case; the value is in lower case, but for capitals beyond ASCII where [`Lower`] says so.
    pub fn equals_folded(self, column: &Column, value: &str) -> String {
        let name = self.column(column);
        match self.engine {
            Engine::Postgres => {
                let plain = column.class == Class::Text && !column.folds;
                let text = if plain { name.clone() } else { format!("{name}::text") };
                let truth = format!("{} = {value}", self.lower(column, &text));
                match &column.cast {
                    // Its own equality folds no better than its lower().
                    Some(cast) if column.folds && column.lower != Lower::Other => {
                        format!("{name} = {value}::{cast} AND {truth}")
                    }
                    _ => truth,
                }
            }
            Engine::MySql => {
                let mut text = self.text(column);
                if column.trims(self.engine) {
                    // The table is read whole: cheaper for each row than a regular expression.
                    for blank in ["\t", "\n", "\r", " "] {
                        text = format!("TRIM(BOTH '{blank}' FROM {text})");
                    }
                }
                let truth = format!("CAST(LOWER({text}) AS BINARY) = CAST({value} AS BINARY)");
                match &column.cast {
                    // A collation that folds finds at least what we want, and by its index.
                    Some(charset) if column.class == Class::Text && column.folds => {
                        format!("{name} = CONVERT({value} USING {charset}) COLLATE {} AND {truth}", column.collation)
                    }
                    _ => truth,
                }
            }
            // Either an index on lower(column) or one that is NOCASE can answer.
            Engine::Sqlite => format!("lower({name}) = {value} AND {name} = {value} COLLATE NOCASE"),
        }
    }

    /// As [`Dialect::equals_folded`], whatever blanks stand around the stored text. No index answers it: for rows that are named by their keys.
    pub fn equals_folded_trimmed(self, column: &Column, value: &str) -> String {
        let name = self.column(column);
        match self.engine {
            Engine::Postgres => {
                let trimmed = format!("btrim({name}::text, '{TRIMMED}')");
                let truth = format!("{} = {value}", self.lower(column, &trimmed));
                self.or_by_pattern(column, value, &truth)
            }
            Engine::MySql => {
                let trimmed = Self::replaced(&self.text(column), &format!("^[{TRIMMED}]+|[{TRIMMED}]+$"));
                format!("CAST(LOWER({trimmed}) AS BINARY) = CAST({value} AS BINARY)")
            }
            Engine::Sqlite => {
                let trimmed = format!("trim({name}, '{TRIMMED}')");
                let truth = format!("lower({trimmed}) = {value} AND {trimmed} = {value} COLLATE NOCASE");
                self.or_by_pattern(column, value, &truth)
            }
        }
    }

    /// MySQL: a text without what an expression finds in it. Converted, since MySQL 8.0 up to .16 answers in UTF-16.
    fn replaced(text: &str, expression: &str) -> String {
        format!("CONVERT(REGEXP_REPLACE({text}, '{expression}', '') USING utf8mb4)")
    }

    fn or_by_pattern(self, column: &Column, value: &str, truth: &str) -> String {
        if !self.has_patterns(column) {
            return truth.to_owned();
        }
        let pattern = self.matches_pattern(column, value);
        let char = if self.engine == Engine::Postgres { "chr" } else { "char" };
        format!("CASE WHEN substr({value}, 1, 1) = {char}({}) THEN {pattern} ELSE {truth} END", u32::from(PATTERN))
    }

    /// Whether it may be asked for a text by a pattern that begins with [`PATTERN`].
    pub fn has_patterns(self, column: &Column) -> bool {
        column.lower != Lower::Same && column.class != Class::Bytes
    }

    pub fn matches_pattern(self, column: &Column, value: &str) -> String {
        let name = self.column(column);
        match self.engine {
            // Regular expressions take no collation that is not deterministic.
            Engine::Postgres => format!("btrim({name}::text COLLATE \"C\", '{TRIMMED}') ~ substr({value}, 2)"),
            Engine::MySql | Engine::Sqlite => format!("trim({name}, '{TRIMMED}') GLOB substr({value}, 2)"),
        }
    }

    /// Equal in the digits alone.
    pub fn equals_digits(self, column: &Column, value: &str) -> String {
        let text = self.text(column);
        match self.engine {
            Engine::Postgres => format!("regexp_replace({}, '[^0-9]', '', 'g') = {value}", self.plain_text(column)),
            Engine::MySql => {
                let digits = Self::replaced(&text, "[^0-9]");
                format!("CAST({digits} AS BINARY) = CAST({value} AS BINARY)")
            }
            Engine::Sqlite => {
                let mut digits = text;
                for mark in SEPARATORS {
                    digits = format!("replace({digits}, char({}), '')", u32::from(*mark));
                }
                format!("{digits} = {value}")
            }
        }
    }

    /// Without a cast where the column is text, so that an index on the same expression is used.
    fn plain_text(self, column: &Column) -> String {
        match column.class {
            Class::Text if !column.folds => self.column(column),
            // Regular expressions take no collation that is not deterministic.
            Class::Text => format!("{} COLLATE \"C\"", self.text(column)),
            _ => self.text(column),
        }
    }

    /// Whether the column differs from a constant or a pseudonym; NULL differs from nothing.
    pub fn differs(self, column: &Column, value: &str) -> String {
        let name = self.column(column);
        match (self.engine, column.class) {
            (Engine::Postgres, Class::Text) => {
                format!("({name} IS NOT NULL AND {name}::text COLLATE \"C\" <> {value})")
            }
            (Engine::Postgres, _) => {
                format!("({name} IS NOT NULL AND {name}::text <> ({})::text)", self.written(column, value))
            }
            (Engine::MySql, Class::Text) => {
                format!("({name} IS NOT NULL AND CAST({} AS BINARY) <> CAST({value} AS BINARY))", self.text(column))
            }
            (Engine::MySql, _) => format!("({name} IS NOT NULL AND {name} <> {})", self.written(column, value)),
            (Engine::Sqlite, _) => format!("({name} IS NOT NULL AND {name} <> {value} COLLATE BINARY)"),
        }
    }

    /// A text on its way into the column. Too long a text must fail, so no cast that would cut it.
    pub fn written(self, column: &Column, value: &str) -> String {
        match (self.engine, column.class, &column.cast) {
            (Engine::MySql, _, Some(cast)) if column.is_bits() => format!("CAST({value} AS {cast})"),
            (Engine::Postgres, Class::Text, _) | (Engine::MySql | Engine::Sqlite, _, _) => value.to_owned(),
            (Engine::Postgres, _, Some(cast)) => format!("{value}::{cast}"),
            (Engine::Postgres, _, None) => format!("{value}::{}", column.type_name),
        }
    }

    /// A sum of powers of two over conditions, as a bigint.
    pub fn bits(self, conditions: &[(u32, String)]) -> String {
        if conditions.is_empty() {
            return self.bigint("0");
        }
        let terms: Vec<String> =
            conditions.iter().map(|(bit, c)| format!("CASE WHEN {c} THEN {} ELSE 0 END", 1_u64 << bit)).collect();
        self.bigint(&format!("({})", terms.join(" + ")))
    }

    /// Columns of nothing, behind those that a statement has. Statements that travel together bring rows of one shape.
    pub fn padding(self, have: usize, wanted: usize, text: bool) -> impl Iterator<Item = String> {
        let nothing = match self.engine {
            Engine::Postgres if text => "NULL::text",
            Engine::Postgres => "NULL::bigint",
            Engine::MySql | Engine::Sqlite => "NULL",
        };
        (have..wanted).map(|_| nothing.to_owned())
    }

    fn bigint(self, expression: &str) -> String {
        match self.engine {
            Engine::Postgres => format!("{expression}::bigint"),
            Engine::MySql => format!("CAST({expression} AS SIGNED)"),
            Engine::Sqlite => expression.to_owned(),
        }
    }

    /// `SELECT` of a batch joined with a table. `indexed`: the condition names plain columns, so the batch leads.
    pub fn select(self, what: &[String], batch: &[String], table: &str, on: &str, indexed: bool) -> String {
        // SQLite knows nothing of a batch's size and might scan the table for each of its rows.
        let join = if self.engine == Engine::Sqlite && indexed { "CROSS JOIN" } else { "JOIN" };
        format!("WITH v({}) AS ({{rows}}) SELECT {} FROM v {join} {table} q ON {on}", batch.join(", "), what.join(", "))
    }

    pub fn update(
        self,
        batch: &[String],
        table: &str,
        kept_from: &SideEffects,
        sets: &[(&Column, String)],
        on: &str,
    ) -> String {
        let names = batch.join(", ");
        // What is set, be it to itself, is not set to the present.
        let is_set = |column: &Column| sets.iter().any(|(set, _)| set.name == column.name);
        let kept = kept_from.moving.iter().filter(|column| !is_set(column)).map(|column| (column, self.column(column)));
        let sets: Vec<String> = sets
            .iter()
            .map(|(column, value)| (*column, value.clone()))
            .chain(kept)
            .map(|(column, value)| match self.engine {
                Engine::MySql => format!("{} = {value}", self.column(column)),
                Engine::Postgres | Engine::Sqlite => format!("{} = {value}", self.quote(&column.name)),
            })
            .collect();
        let sets = sets.join(", ");
        match self.engine {
            Engine::MySql => {
                format!("UPDATE {table} q JOIN (WITH w({names}) AS ({{rows}}) SELECT * FROM w) v ON {on} SET {sets}")
            }
            Engine::Postgres | Engine::Sqlite => {
                // Only where it must: it overrules the table's triggers too, which may well say OR IGNORE.
                let or = if kept_from.replaces { " OR ABORT" } else { "" };
                format!("WITH v({names}) AS ({{rows}}) UPDATE{or} {table} AS q SET {sets} FROM v WHERE {on}")
            }
        }
    }

    pub fn delete(self, batch: &[String], table: &str, stored_by: &StoredBy, on: &str) -> String {
        let names = batch.join(", ");
        match (self.engine, stored_by) {
            (Engine::Postgres, _) => {
                format!("WITH v({names}) AS ({{rows}}) DELETE FROM {table} AS q USING v WHERE {on}")
            }
            (Engine::MySql, _) => {
                format!("DELETE q FROM {table} q JOIN (WITH w({names}) AS ({{rows}}) SELECT * FROM w) v ON {on}")
            }
            // No USING here. The rows themselves: a column's collation may take another's key for the same.
            (Engine::Sqlite, StoredBy::Rowid(rowid)) => format!(
                "WITH v({names}) AS ({{rows}}) DELETE FROM {table} WHERE {rowid} IN (SELECT q.{rowid} FROM v CROSS JOIN {table} q ON {on})"
            ),
            // By the collation of each column, which mostly is that of the key; and exactly.
            (Engine::Sqlite, StoredBy::Key(key)) => {
                let bare: Vec<String> = key.iter().map(|name| self.quote(name)).collect();
                let exact: Vec<String> = bare.iter().map(|name| format!("{name} COLLATE BINARY")).collect();
                let inner: Vec<String> = bare.iter().map(|name| format!("q.{name}")).collect();
                format!(
                    "WITH v({names}) AS ({{rows}}), w AS MATERIALIZED (SELECT {} FROM v CROSS JOIN {table} q ON {on}) \
                     DELETE FROM {table} WHERE ({}) IN (SELECT * FROM w) AND ({}) IN (SELECT * FROM w)",
                    inner.join(", "),
                    bare.join(", "),
                    exact.join(", ")
                )
            }
        }
    }

    /// Locks what was read until the transaction ends; SQLite's has the only write lock already.
    pub const fn for_update(self) -> &'static str {
        match self.engine {
            Engine::Postgres => " FOR UPDATE OF q",
            Engine::MySql => " FOR UPDATE",
            Engine::Sqlite => "",
        }
    }

    /// MySQL's transactions go on reading what stood when they began to read, but for what they lock. The others' statements see what is committed.
    pub const fn as_it_stands(self) -> &'static str {
        match self.engine {
            Engine::MySql => " LOCK IN SHARE MODE",
            Engine::Postgres | Engine::Sqlite => "",
        }
    }
}

/// SQLite's cast of a real number gives 15 digits, whether or not they are all of it. The shortest of its texts that is the same number again.
fn real(name: &str) -> String {
    let again = |text: &str| format!("CAST({text} AS REAL) = {name}");
    let (short, longer) = (format!("CAST({name} AS TEXT)"), format!("printf('%!.16g', {name})"));
    let (is_short, is_longer) = (again(&short), again(&longer));
    format!("CASE WHEN {is_short} THEN {short} WHEN {is_longer} THEN {longer} ELSE printf('%!.17g', {name}) END")
}

/// What may stand around an address without being part of it. In ASCII: every database's encoding has it.
const TRIMMED: &str = " \t\r\n";
pub(super) const TRIMMED_CHARS: [char; 4] = [' ', '\t', '\r', '\n'];

/// What people write into phone numbers, for the engine that has no regular expressions.
pub(super) const SEPARATORS: &[char] = &[
    ' ', '-', '(', ')', '+', '.', '/', '\t', ',', ':', '\u{a0}', '\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}',
    '\u{2014}', '\u{2212}', '\u{200b}', '\u{200e}', '\u{202a}', '\u{202c}', '\u{2009}', '\u{202f}', '\u{feff}', '\n',
    '\r', ';', '_', '[', ']', '\'', '"', '*', '#', '|', '\\', '~', '\u{ad}', '\u{2002}', '\u{2003}', '\u{2007}',
    '\u{2008}', '\u{2015}', '\u{200c}', '\u{200d}', '\u{200f}', '\u{202b}', '\u{202d}', '\u{202e}', '\u{2060}',
    '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{3000}', '\u{ff0b}',
];

#[cfg(test)]
mod tests {
    use quittance_sql::{ConnectOptions, Pool, Val};

    use super::*;

    #[test]
    fn names_are_quoted_whatever_they_hold() {
        let pg = Dialect { engine: Engine::Postgres };
        let my = Dialect { engine: Engine::MySql };
        assert_eq!(pg.quote("a\"; drop table x; --"), "\"a\"\"; drop table x; --\"");
        assert_eq!(my.quote("a`b"), "`a``b`");
        let table = quittance_domain::data_map::Table { schema: Some("s".into()), name: "order".into() };
        assert_eq!(pg.table(&table), "\"s\".\"order\"");
    }

    /// But for numbers of a size that nobody keeps, of which SQLite reads the last digit otherwise: in a key they are refused.
    #[tokio::test]
    async fn every_real_number_is_found_by_its_text() {
        let pool = Pool::open(&ConnectOptions::new("sqlite::memory:")).unwrap();
        let mut tx = pool.begin().await.unwrap();
        let some = [1.0 / 3.0, 0.1, 0.1 + 0.2, 1.5, 5e-324, 4.5e15, 123_456_789_012_345_678.0];
        let bits = (1_u64..500_000).map(|n| f64::from_bits(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let numbers: Vec<f64> = some.into_iter().chain(bits.filter(|n| (1e-25..1e25).contains(&n.abs()))).collect();
        tx.execute_script("CREATE TABLE t (c REAL)").await.unwrap();
        let numbers = Val::from(serde_json::to_string(&numbers).unwrap());
        tx.execute("INSERT INTO t SELECT value FROM json_each($1)", vec![numbers]).await.unwrap();
        let (d, column) =
            (Dialect { engine: Engine::Sqlite }, Column { cast: Some(String::new()), ..Column::of(Class::Other) });
        let text = d.text(&column);
        let sql = format!("SELECT {text} FROM t q WHERE NOT ({}) LIMIT 20", d.equals(&column, &text));
        let lost: Vec<String> =
            tx.fetch(&sql, Vec::new()).await.unwrap().iter().map(|row| row.text(0).unwrap()).collect();
        assert_eq!(lost, Vec::<String>::new());
        let first =
            tx.fetch(&format!("SELECT {text} FROM t q WHERE rowid <= 4 ORDER BY rowid"), Vec::new()).await.unwrap();
        let first: Vec<String> = first.iter().map(|row| row.text(0).unwrap()).collect();
        assert_eq!(first, ["0.3333333333333333", "0.1", "0.30000000000000004", "1.5"]);
        // No two of them share a text.
        let sql = format!("SELECT count(DISTINCT c), count(DISTINCT {text}) FROM t q");
        let row = tx.fetch_one(&sql, Vec::new()).await.unwrap().unwrap();
        assert_eq!(row.i64(0).unwrap(), row.i64(1).unwrap());
    }

    /// There is no such server to be had: what it answers is compared in bytes, so it must be ours.
    #[test]
    fn what_mysql_8_0_4_answers_in_utf_16_is_converted() {
        let (my, column) = (Dialect { engine: Engine::MySql }, Column::of(Class::Text));
        for sql in [my.equals_digits(&column, "v.a"), my.equals_folded_trimmed(&column, "v.a")] {
            let answers = sql.matches("REGEXP_REPLACE(").count();
            assert_eq!((answers, sql.matches("CONVERT(REGEXP_REPLACE(").count()), (1, 1), "{sql}");
            assert!(sql.contains("'') USING utf8mb4)"), "{sql}");
        }
    }
}
