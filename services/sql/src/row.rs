//! A row of an answer, read by position.

use sqlx::{Row as _, mysql::MySqlRow, postgres::PgRow, sqlite::SqliteRow};
use uuid::Uuid;

use crate::SqlError;

/// One row. Readers are unchecked against the column's declared type, since SQLite's types are the value's.
pub enum Row {
    Postgres(PgRow),
    Sqlite(SqliteRow),
    MySql(MySqlRow),
}

macro_rules! reader {
    ($(#[$doc:meta])* $name:ident, $optional:ident, $type:ty) => {
        $(#[$doc])*
        pub fn $name(&self, at: usize) -> Result<$type, SqlError> {
            Ok(match self {
                Self::Postgres(r) => r.try_get_unchecked::<$type, _>(at)?,
                Self::Sqlite(r) => r.try_get_unchecked::<$type, _>(at)?,
                Self::MySql(r) => r.try_get_unchecked::<$type, _>(at)?,
            })
        }

        pub fn $optional(&self, at: usize) -> Result<Option<$type>, SqlError> {
            Ok(match self {
                Self::Postgres(r) => r.try_get_unchecked::<Option<$type>, _>(at)?,
                Self::Sqlite(r) => r.try_get_unchecked::<Option<$type>, _>(at)?,
                Self::MySql(r) => r.try_get_unchecked::<Option<$type>, _>(at)?,
            })
        }
    };
}

impl Row {
    reader!(
        /// Text, or what was cast to text.
        text, opt_text, String
    );
    reader!(
        /// A bigint: `count(*)` is one; cast what is not.
        i64, opt_i64, i64
    );
    reader!(bytes, opt_bytes, Vec<u8>);
    reader!(uuid, opt_uuid, Uuid);
}
