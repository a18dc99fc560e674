//! What the live database says beside its columns: indexes, foreign keys, and whether what a table shows can be relied on. Read for the check, whenever a
//! map is compiled, and for what a deletion would carry away.

use std::collections::BTreeMap;

use quittance_domain::data_map::Table;
use quittance_sql::{Engine, Row, SqlError, Tx, Val};

use super::dialect::Dialect;

#[derive(Debug, Default)]
pub(super) struct Index {
    pub unique: bool,
    pub parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) struct Part {
    /// `None`: an expression.
    pub column: Option<String>,
    /// The expression, or the collation of an SQLite column; in lower case.
    pub definition: String,
}

/// A reference from elsewhere to this table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// In the form of [`Facts::id`].
    pub from: String,
    /// For people.
    pub name: String,
    /// As a statement names it.
    pub table: String,
    /// It refers to itself.
    pub own: bool,
    /// (column there, column here).
    pub columns: Vec<(String, String)>,
    /// Upper case: `CASCADE`, `SET NULL`, `NO ACTION`, …
    pub on_delete: String,
}

/// All that refer to a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct References {
    pub known: Vec<Reference>,
    /// MySQL: there may be more, from tables that this user may not see. The database follows them all the same.
    pub others_hidden: bool,
}

/// Of the table itself.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// As its references from elsewhere name it.
    pub id: String,
    /// MySQL: its storage engine.
    engine: Option<String>,
    pub is_view: bool,
    /// MariaDB: it keeps what its rows were.
    versioned: bool,
    /// PostgreSQL: policies hide rows from this connection.
    hides_rows: bool,
    /// PostgreSQL: the right to change, which locking a row needs as well; the right to delete.
    pub lacks_update: bool,
    pub lacks_delete: bool,
}

impl Facts {
    /// Why what is read of it, or done to it, would not be what it looks like. Said of a map at registration, and looked for as long as it is used: an
    /// application is migrated without asking us.
    pub fn misleading(&self) -> Vec<String> {
        let engine = self.engine.as_deref().filter(|engine| !engine.eq_ignore_ascii_case("InnoDB"));
        let versioned = "is system-versioned: what is deleted or changed stays in its history";
        let hides = "row-level security hides rows from this user: what it cannot see it would call not held";
        [
            self.is_view.then(|| "is a view: name the tables behind it".to_owned()),
            engine.map(|engine| format!("uses storage engine {engine}, which has no transactions")),
            self.versioned.then(|| versioned.to_owned()),
            self.hides_rows.then(|| hides.to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub facts: Facts,
    pub indexes: Vec<Index>,
    pub references: References,
}

pub(super) async fn catalog(tx: &mut Tx, table: &Table) -> Result<Catalog, SqlError> {
    let (facts, indexes) = (facts(tx, table).await?, indexes_of(tx, table).await?);
    let references = references_to(tx, &[table]).await?.pop().unwrap_or_default();
    Ok(Catalog { facts, indexes, references })
}

pub(super) async fn facts(tx: &mut Tx, table: &Table) -> Result<Facts, SqlError> {
    match tx.engine() {
        Engine::Postgres => postgres_facts(tx, table).await,
        Engine::MySql => mysql_facts(tx, table).await,
        Engine::Sqlite => sqlite_facts(tx, table).await,
    }
}

pub(super) async fn indexes_of(tx: &mut Tx, table: &Table) -> Result<Vec<Index>, SqlError> {
    match tx.engine() {
        Engine::Postgres => indexes(&tx.fetch(POSTGRES_INDEXES, postgres_name(table)).await?),
        Engine::MySql => indexes(&tx.fetch(MYSQL_INDEXES, mysql_name(table)).await?),
        Engine::Sqlite => sqlite_indexes(tx, table).await,
    }
}

fn postgres_name(table: &Table) -> Vec<Val> {
    vec![Val::from(Dialect { engine: Engine::Postgres }.table(table))]
}

fn mysql_name(table: &Table) -> Vec<Val> {
    vec![Val::from(table.schema.clone()), Val::from(table.name.clone())]
}

fn sqlite_schema(table: &Table) -> String {
    table.schema.clone().unwrap_or_else(|| "main".to_owned())
}

fn sqlite_master(table: &Table) -> String {
    format!("{}.sqlite_schema", Dialect { engine: Engine::Sqlite }.quote(&sqlite_schema(table)))
}

/// Rows of (index, unique, column, definition), in order.
fn indexes(rows: &[Row]) -> Result<Vec<Index>, SqlError> {
    let mut found: BTreeMap<String, Index> = BTreeMap::new();
    for row in rows {
        let index = found.entry(row.text(0)?).or_default();
        index.unique = row.i64(1)? == 1;
        let definition = row.opt_text(3)?.unwrap_or_default().to_lowercase();
        index.parts.push(Part { column: row.opt_text(2)?, definition });
    }
    Ok(found.into_values().collect())
}

/// The foreign keys that refer to each of these tables.
pub(super) async fn references_to(tx: &mut Tx, tables: &[&Table]) -> Result<Vec<References>, SqlError> {
    let engine = tx.engine();
    let (rows, others_hidden) = match tx.fetch_together(references_parts(engine, tables, INNODB_REFERENCES)).await {
        Err(error) if error.code == LACKS_PROCESS => {
            (tx.fetch_together(references_parts(engine, tables, MYSQL_REFERENCES)).await?, true)
        }
        rows => (rows?, false),
    };
    let mut found = vec![References { known: Vec::new(), others_hidden }; tables.len()];
    for (at, mut reference) in references(&rows)? {
        let Some(table) = tables.get(at) else { continue };
        reference.table = named(engine, table, &reference);
        found[at].known.push(reference);
    }
    Ok(found)
}

/// The foreign keys by which the database itself deletes what refers to a deleted row. What refers to its own table goes by the same statement.
pub(super) async fn cascades_to(tx: &mut Tx, tables: &[&Table]) -> Result<Vec<References>, SqlError> {
    let mut found = references_to(tx, tables).await?;
    for references in &mut found {
        references.known.retain(|reference| reference.on_delete == "CASCADE" && !reference.own);
    }
    Ok(found)
}

/// One question a table; `mysql`: where those are shown.
fn references_parts(engine: Engine, tables: &[&Table], mysql: &str) -> Vec<quittance_sql::Part> {
    let part = |(at, table): (usize, &&Table)| {
        let (sql, args) = match engine {
            Engine::Postgres => (POSTGRES_REFERENCES.to_owned(), postgres_name(table)),
            Engine::MySql => (mysql.to_owned(), mysql_name(table)),
            Engine::Sqlite => {
                let args = vec![Val::from(table.name.clone()), Val::from(sqlite_schema(table))];
                (sqlite_references(&sqlite_master(table)), args)
            }
        };
        quittance_sql::Part::plain(sql.replace("{at}", &at.to_string()), args)
    };
    tables.iter().enumerate().map(part).collect()
}

/// The table that refers, as a statement names it.
fn named(engine: Engine, table: &Table, reference: &Reference) -> String {
    let dialect = Dialect { engine };
    match engine {
        // As `regclass` writes it.
        Engine::Postgres => reference.name.clone(),
        Engine::MySql => {
            let schema = reference.from.strip_suffix(&format!(".{}", reference.name)).unwrap_or_default();
            format!("{}.{}", dialect.quote(schema), dialect.quote(&reference.name))
        }
        Engine::Sqlite => format!("{}.{}", dialect.quote(&sqlite_schema(table)), dialect.quote(&reference.name)),
    }
}

/// A row of a partition is deleted whatever name it was reached by: those of the tables above it count (of partitions alone: a table that merely
/// inherits is not referred to with its parent), and those of all below it. What partitions have of a partitioned table's key is that key, once.
const POSTGRES_REFERENCES: &str = "WITH RECURSIVE above(oid) AS (SELECT to_regclass($1)::oid \
    UNION SELECT i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.oid JOIN pg_class c ON c.oid = a.oid AND c.relispartition), \
    below(oid) AS (SELECT to_regclass($1)::oid UNION SELECT i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.oid) \
    SELECT {at}::bigint, o.oid::text, o.conrelid::text, o.conrelid::regclass::text, f.attname::text, t.attname::text, \
    CASE o.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT' ELSE 'NO ACTION' END, \
    (o.conrelid = o.confrelid AND o.confrelid = to_regclass($1))::int::bigint \
    FROM pg_constraint o CROSS JOIN LATERAL unnest(o.conkey, o.confkey) WITH ORDINALITY k(here, there, n) \
    JOIN pg_attribute f ON f.attrelid = o.conrelid AND f.attnum = k.here \
    JOIN pg_attribute t ON t.attrelid = o.confrelid AND t.attnum = k.there \
    WHERE o.contype = 'f' AND o.conparentid = 0 AND o.confrelid IN (SELECT oid FROM above UNION SELECT oid FROM below) ORDER BY o.oid, k.n";

/// What the server says to a user without PROCESS of InnoDB's own dictionary.
const LACKS_PROCESS: &str = "1227";

/// InnoDB's own, whoever asks: the other view of them leaves out those of tables that the user has no right to, and InnoDB follows them without any.
/// In MariaDB's names stand as those of files do; MySQL's view has them as they are.
const INNODB_REFERENCES: &str = "SELECT CAST({at} AS SIGNED), CAST(f.ID AS CHAR), \
    CONCAT(/*M!100000 CONVERT(CONVERT(CAST( */ SUBSTRING_INDEX(f.FOR_NAME, '/', 1) /*M!100000 AS BINARY) USING filename) USING utf8mb4) */, '.', \
    /*M!100000 CONVERT(CONVERT(CAST( */ SUBSTRING_INDEX(f.FOR_NAME, '/', -1) /*M!100000 AS BINARY) USING filename) USING utf8mb4) */), \
    CAST(/*M!100000 CONVERT(CONVERT(CAST( */ SUBSTRING_INDEX(f.FOR_NAME, '/', -1) /*M!100000 AS BINARY) USING filename) USING utf8mb4) */ AS CHAR), \
    CAST(k.FOR_COL_NAME AS CHAR), CAST(k.REF_COL_NAME AS CHAR), \
    CASE WHEN f.TYPE & 1 <> 0 THEN 'CASCADE' WHEN f.TYPE & 2 <> 0 THEN 'SET NULL' ELSE 'NO ACTION' END, \
    CAST(f.FOR_NAME = f.REF_NAME AS SIGNED) \
    FROM information_schema./*!80000 INNODB_FOREIGN *//*M!100000 INNODB_SYS_FOREIGN */ f \
    JOIN information_schema./*!80000 INNODB_FOREIGN_COLS *//*M!100000 INNODB_SYS_FOREIGN_COLS */ k ON k.ID = f.ID \
    WHERE CONVERT(f.REF_NAME USING utf8mb4) COLLATE utf8mb4_general_ci = CONCAT(\
    /*M!100000 CONVERT(CAST(CONVERT( */ COALESCE($1, DATABASE()) /*M!100000 USING filename) AS BINARY) USING utf8mb4) */, '/', \
    /*M!100000 CONVERT(CAST(CONVERT( */ $2 /*M!100000 USING filename) AS BINARY) USING utf8mb4) */) ORDER BY f.FOR_NAME, f.ID, k.POS";

/// As far as this user is shown them.
const MYSQL_REFERENCES: &str = "SELECT CAST({at} AS SIGNED), CAST(k.CONSTRAINT_NAME AS CHAR), CONCAT(k.TABLE_SCHEMA, '.', k.TABLE_NAME), \
    CAST(k.TABLE_NAME AS CHAR), CAST(k.COLUMN_NAME AS CHAR), CAST(k.REFERENCED_COLUMN_NAME AS CHAR), CAST(r.DELETE_RULE AS CHAR), \
    CAST(k.TABLE_SCHEMA = k.REFERENCED_TABLE_SCHEMA AND k.TABLE_NAME = k.REFERENCED_TABLE_NAME AS SIGNED) \
    FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS r \
    ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME \
    WHERE k.REFERENCED_TABLE_SCHEMA = COALESCE($1, DATABASE()) AND k.REFERENCED_TABLE_NAME = $2 \
    ORDER BY k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION";

fn sqlite_references(master: &str) -> String {
    format!(
        "SELECT {{at}}, CAST(f.id AS TEXT), lower(m.name), m.name, f.\"from\", COALESCE(f.\"to\", p.name), f.on_delete, lower(m.name) = lower($1) \
         FROM {master} m JOIN pragma_foreign_key_list(m.name, $2) f \
         LEFT JOIN pragma_table_xinfo($1, $2) p ON f.\"to\" IS NULL AND p.pk = f.seq + 1 \
         WHERE m.type = 'table' AND lower(f.\"table\") = lower($1) ORDER BY m.name, f.id, f.seq"
    )
}

/// Rows of (number of the table, constraint, from, its name, column there, column here, rule, whether it is the table itself), in order.
fn references(rows: &[Row]) -> Result<Vec<(usize, Reference)>, SqlError> {
    let mut found: BTreeMap<(usize, String, String), Reference> = BTreeMap::new();
    for row in rows {
        let at = usize::try_from(row.i64(0)?).unwrap_or(usize::MAX);
        let (constraint, from) = (row.text(1)?, row.text(2)?);
        // RESTRICT differs in when it fails, not in that it does.
        let own = row.i64(7)? == 1;
        let (name, on_delete) = (row.text(3)?, row.text(6)?.to_uppercase().replace("RESTRICT", "NO ACTION"));
        let reference = found.entry((at, from.clone(), constraint)).or_insert_with(|| Reference {
            from,
            name,
            table: String::new(),
            own,
            columns: Vec::new(),
            on_delete,
        });
        reference.columns.push((row.text(4)?, row.text(5)?));
    }
    Ok(found.into_iter().map(|((at, ..), reference)| (at, reference)).collect())
}

async fn postgres_facts(tx: &mut Tx, table: &Table) -> Result<Facts, SqlError> {
    let sql = "SELECT c.oid::text, (c.relkind NOT IN ('r', 'p'))::int::bigint, row_security_active(c.oid)::int::bigint, \
        (NOT has_any_column_privilege(c.oid, 'UPDATE'))::int::bigint, (NOT has_table_privilege(c.oid, 'DELETE'))::int::bigint \
        FROM pg_class c WHERE c.oid = to_regclass($1)";
    let mut facts = Facts::default();
    if let Some(row) = tx.fetch_one(sql, postgres_name(table)).await? {
        (facts.id, facts.is_view, facts.hides_rows) = (row.text(0)?, row.i64(1)? == 1, row.i64(2)? == 1);
        (facts.lacks_update, facts.lacks_delete) = (row.i64(3)? == 1, row.i64(4)? == 1);
    }
    Ok(facts)
}

const POSTGRES_INDEXES: &str = "SELECT i.indexrelid::text, i.indisunique::int::bigint, a.attname::text, pg_get_indexdef(i.indexrelid, n, true) \
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam \
    CROSS JOIN LATERAL generate_series(1, i.indnkeyatts::int) n \
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n - 1] AND a.attnum > 0 \
    WHERE i.indrelid = to_regclass($1) AND i.indisvalid AND i.indpred IS NULL AND m.amname IN ('btree', 'hash') ORDER BY i.indexrelid, n";

async fn mysql_facts(tx: &mut Tx, table: &Table) -> Result<Facts, SqlError> {
    let sql = "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME), CAST(ENGINE AS CHAR), CAST(TABLE_TYPE AS CHAR) \
        FROM information_schema.TABLES WHERE TABLE_SCHEMA = COALESCE($1, DATABASE()) AND TABLE_NAME = $2";
    let mut facts = Facts::default();
    if let Some(row) = tx.fetch_one(sql, mysql_name(table)).await? {
        let kind = row.text(2)?;
        (facts.id, facts.engine) = (row.text(0)?, row.opt_text(1)?);
        (facts.is_view, facts.versioned) = (kind.contains("VIEW"), kind == "SYSTEM VERSIONED");
    }
    Ok(facts)
}

const MYSQL_INDEXES: &str = "SELECT CAST(INDEX_NAME AS CHAR), CAST(1 - NON_UNIQUE AS SIGNED), CAST(COLUMN_NAME AS CHAR), '' \
    FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = COALESCE($1, DATABASE()) AND TABLE_NAME = $2 \
    AND INDEX_TYPE IN ('BTREE', 'HASH') ORDER BY INDEX_NAME, SEQ_IN_INDEX";

async fn sqlite_facts(tx: &mut Tx, table: &Table) -> Result<Facts, SqlError> {
    let sql = format!("SELECT count(*) FROM {} WHERE type = 'view' AND lower(name) = lower($1)", sqlite_master(table));
    let views = tx.fetch_one(&sql, vec![Val::from(table.name.clone())]).await?;
    let is_view = views.map_or(Ok(0), |row| row.i64(0))? > 0;
    Ok(Facts { id: table.name.to_lowercase(), is_view, ..Facts::default() })
}

async fn sqlite_indexes(tx: &mut Tx, table: &Table) -> Result<Vec<Index>, SqlError> {
    let name = || vec![Val::from(table.name.clone()), Val::from(sqlite_schema(table))];
    let sql = format!(
        "SELECT l.name, l.\"unique\", x.name, CASE WHEN x.name IS NULL THEN COALESCE(m.sql, '') ELSE COALESCE(x.coll, '') END \
         FROM pragma_index_list($1, $2) l JOIN pragma_index_xinfo(l.name, $2) x ON x.key = 1 \
         LEFT JOIN {} m ON m.type = 'index' AND m.name = l.name WHERE l.partial = 0 ORDER BY l.name, x.seqno",
        sqlite_master(table)
    );
    let mut found = indexes(&tx.fetch(&sql, name()).await?)?;
    // A rowid's alias is in no list of indexes.
    let sql = "SELECT '', 1, name, 'binary' FROM pragma_table_xinfo($1, $2) WHERE pk > 0 ORDER BY pk";
    found.extend(indexes(&tx.fetch(sql, name()).await?)?);
    Ok(found)
}
