//! A thin layer over sqlx: one way to say a statement to PostgreSQL, SQLite and MySQL/MariaDB.
//!
//! The store speaks the first two, the connectors all three. Statements are written with `$1`, `$2`…; whole batches travel as
//! [`Rows`], which each engine takes in its own native form (`unnest`, `json_each`, `JSON_TABLE`), so that a batch is one
//! statement and one round trip whatever its size, and its text never changes.
//!
//! Errors never carry the server's message: it may quote a value (I10). They carry the code and the names of schema objects.

mod error;
mod leash;
mod params;
mod pool;
mod row;
mod rows;
mod seam;
mod together;
mod val;

pub use error::{SqlError, SqlErrorKind};
pub use leash::Leash;
pub use pool::{ConnectOptions, Planner, Pool, Tx, round_trips};
pub use row::Row;
pub use rows::{Column, Rows};
pub use seam::{Ending, Seam, through};
pub use together::Part;
pub use val::Val;

/// The databases that we can speak to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Engine {
    Postgres,
    Sqlite,
    MySql,
}
