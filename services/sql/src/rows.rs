//! A batch of rows as one argument list: a table that exists for the length of a statement.

use std::fmt::Write as _;

use uuid::Uuid;

use crate::{Engine, Val};

/// One column of a batch.
#[derive(Clone, PartialEq)]
pub enum Column {
    Text(Vec<Option<String>>),
    /// Text of any length; what is not meant to be compared, since MySQL keeps it apart from the row.
    LongText(Vec<Option<String>>),
    I64(Vec<Option<i64>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Uuid(Vec<Option<Uuid>>),
}

impl Column {
    fn len(&self) -> usize {
        match self {
            Self::Text(v) | Self::LongText(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::Bytes(v) => v.len(),
            Self::Uuid(v) => v.len(),
        }
    }

    pub fn texts<T: Into<String>>(values: impl IntoIterator<Item = T>) -> Self {
        Self::Text(values.into_iter().map(|v| Some(v.into())).collect())
    }

    pub fn i64s(values: impl IntoIterator<Item = i64>) -> Self {
        Self::I64(values.into_iter().map(Some).collect())
    }

    pub fn bytes(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::Bytes(values.into_iter().map(Some).collect())
    }

    pub fn uuids(values: impl IntoIterator<Item = Uuid>) -> Self {
        Self::Uuid(values.into_iter().map(Some).collect())
    }
}

/// Named columns of equal length. In a statement, `{rows}` stands for them as a sub-select:
/// `WITH v(a, b) AS ({rows}) INSERT INTO t (a, b) SELECT a, b FROM v WHERE true`.
#[derive(Clone, PartialEq, Default)]
pub struct Rows {
    columns: Vec<Column>,
}

// What a batch holds is personal data more often than not (I10).
impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rows({} columns, {} rows)", self.columns.len(), self.len())
    }
}

impl Rows {
    pub fn new(columns: Vec<Column>) -> Self {
        debug_assert!(columns.windows(2).all(|w| w[0].len() == w[1].len()), "columns of one batch are of one length");
        Self { columns }
    }

    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces `{rows}` in `sql`, and appends the arguments it takes to `args`.
    pub(crate) fn bind(self, engine: Engine, sql: &str, args: &mut Vec<Val>) -> String {
        let first = args.len() + 1;
        let select = match engine {
            Engine::Postgres => self.bind_unnest(first, args),
            Engine::Sqlite => {
                let select = self.json_each(first);
                args.push(Val::Text(Some(self.json())));
                select
            }
            Engine::MySql => {
                let select = self.json_table(first);
                args.push(Val::Text(Some(self.json())));
                select
            }
        };
        sql.replace("{rows}", &select)
    }

    fn bind_unnest(self, first: usize, args: &mut Vec<Val>) -> String {
        // In the list and not behind FROM, where each array would first be written into a store of its own.
        let mut select = String::from("SELECT ");
        for (i, column) in self.columns.into_iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let (cast, value) = match column {
                Column::Text(v) | Column::LongText(v) => ("text[]", Val::TextArray(v)),
                Column::I64(v) => ("bigint[]", Val::I64Array(v)),
                Column::Bytes(v) => ("bytea[]", Val::BytesArray(v)),
                Column::Uuid(v) => ("uuid[]", Val::UuidArray(v)),
            };
            // Writing to a String cannot fail.
            let _ = write!(select, "{comma}unnest(${}::{cast})", first + i);
            args.push(value);
        }
        select
    }

    fn json_each(&self, at: usize) -> String {
        let mut select = String::from("SELECT ");
        for (i, column) in self.columns.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let _ = match column {
                Column::Text(_) | Column::LongText(_) | Column::I64(_) => write!(select, "{comma}value ->> {i}"),
                Column::Bytes(_) | Column::Uuid(_) => write!(select, "{comma}unhex(value ->> {i})"),
            };
        }
        // LIMIT -1 changes nothing but the plan: a sub-select with a limit is not merged into the statement around it. Merged, it became the
        // inner loop, and the JSON was parsed anew for every row of the customer's.
        let _ = write!(select, " FROM json_each(${at}) LIMIT -1");
        select
    }

    fn json_table(&self, at: usize) -> String {
        let mut select = format!("SELECT * FROM JSON_TABLE(${at}, '$[*]' COLUMNS (");
        for (i, column) in self.columns.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            // utf8mb4_bin: an id that differs in case is another id, whatever the server's default collation says.
            let kind = match column {
                Column::Text(_) | Column::Bytes(_) | Column::Uuid(_) => {
                    "VARCHAR(4096) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
                }
                Column::LongText(_) => "LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
                Column::I64(_) => "BIGINT",
            };
            let _ = write!(select, "{comma}c{i} {kind} PATH '$[{i}]'");
        }
        select.push_str(")) j");
        select
    }

    fn json(&self) -> String {
        let mut text = String::with_capacity(self.len() * self.columns.len() * 24 + 2);
        text.push('[');
        for row in 0..self.len() {
            text.push_str(if row == 0 { "[" } else { ",[" });
            for (i, column) in self.columns.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                match column {
                    // A string always serialises.
                    Column::Text(v) | Column::LongText(v) => {
                        text.push_str(&serde_json::to_string(&v[row]).unwrap_or_default())
                    }
                    Column::I64(v) => match v[row] {
                        Some(n) => {
                            let _ = write!(text, "{n}");
                        }
                        None => text.push_str("null"),
                    },
                    Column::Bytes(v) => push_hex(&mut text, v[row].as_deref()),
                    Column::Uuid(v) => push_hex(&mut text, v[row].as_ref().map(|u| u.as_bytes().as_slice())),
                }
            }
            text.push(']');
        }
        text.push(']');
        text
    }
}

fn push_hex(text: &mut String, bytes: Option<&[u8]>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match bytes {
        None => text.push_str("null"),
        Some(bytes) => {
            text.push('"');
            for b in bytes {
                text.push(DIGITS[usize::from(b >> 4)] as char);
                text.push(DIGITS[usize::from(b & 15)] as char);
            }
            text.push('"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnectOptions, Pool};

    /// Otherwise a batch is parsed as often as the customer has rows.
    #[tokio::test]
    async fn sqlite_parses_a_batch_once() {
        let pool = Pool::open(&ConnectOptions::new("sqlite::memory:")).unwrap();
        let mut tx = pool.begin().await.unwrap();
        tx.execute_script(
            "CREATE TABLE t (customer TEXT NOT NULL, id BLOB NOT NULL, n INTEGER, PRIMARY KEY (customer, id))",
        )
        .await
        .unwrap();
        for sql in [
            "WITH v(id) AS ({rows}) UPDATE t SET n = 1 FROM v WHERE t.customer = $1 AND t.id = v.id",
            "WITH v(id) AS ({rows}) SELECT t.n FROM v JOIN t ON t.customer = $1 AND t.id = v.id",
        ] {
            let rows = Rows::new(vec![Column::uuids([Uuid::nil()])]);
            let plan =
                tx.fetch_rows(&format!("EXPLAIN QUERY PLAN {sql}"), vec![Val::from("acme")], rows).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.text(3).unwrap()).collect();
            assert!(plan.iter().any(|step| step == "MATERIALIZE v" || step == "CO-ROUTINE v"), "{plan:#?}");
        }
    }
}
