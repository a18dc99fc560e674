//! Rows of any table as text, from either engine.

use std::{fmt::Write as _, str::FromStr as _};

use futures::StreamExt as _;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _, SqliteConnection,
    sqlite::SqliteConnectOptions,
};

use crate::CheckError;

/// A row: `None` is NULL.
pub type Texts = Vec<Option<String>>;

pub enum Database {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// How a column is written as text: bytes and ids in hexadecimal digits.
#[derive(Clone, Copy)]
pub enum As {
    Plain,
    Uuid,
    Bytes,
}

impl Database {
    /// Nothing is ever written through it.
    pub async fn open(url: &str) -> Result<Self, CheckError> {
        if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url)?.create_if_missing(false);
            return Ok(Self::Sqlite(options.connect().await?));
        }
        Ok(Self::Postgres(PgConnection::connect(url).await?))
    }

    fn column(&self, name: &str, kind: As) -> String {
        match (self, kind) {
            (_, As::Plain) => format!("CAST({name} AS TEXT)"),
            (Self::Postgres(_), As::Uuid) => format!("replace(CAST({name} AS TEXT), '-', '')"),
            (Self::Postgres(_), As::Bytes) => format!("encode({name}, 'hex')"),
            (Self::Sqlite(_), As::Uuid | As::Bytes) => format!("lower(hex({name}))"),
        }
    }

    /// Every row of a table, one after the other: tables may be large.
    pub async fn each(
        &mut self,
        table: &str,
        columns: &[(&str, As)],
        mut see: impl FnMut(Texts),
    ) -> Result<(), CheckError> {
        let mut sql = String::from("SELECT ");
        for (at, (name, kind)) in columns.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            // Writing to a String does not fail.
            let _ = write!(sql, "{comma}{}", self.column(name, *kind));
        }
        let _ = write!(sql, " FROM {table}");
        macro_rules! read {
            ($connection:expr) => {{
                let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch($connection);
                while let Some(row) = rows.next().await {
                    let row = row?;
                    see((0..columns.len()).map(|i| row.try_get(i)).collect::<Result<_, _>>()?);
                }
            }};
        }
        match self {
            Self::Postgres(connection) => read!(connection),
            Self::Sqlite(connection) => read!(connection),
        }
        Ok(())
    }

    pub async fn all(&mut self, table: &str, columns: &[(&str, As)]) -> Result<Vec<Texts>, CheckError> {
        let mut rows = Vec::new();
        self.each(table, columns, |row| rows.push(row)).await?;
        Ok(rows)
    }
}
