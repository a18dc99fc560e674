//! One error for three drivers, free of values.

use std::io::ErrorKind;

/// What the caller can do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SqlErrorKind {
    /// The server cannot be reached, is shutting down, or the connection broke.
    Unavailable,
    /// Deadlock, serialisation failure: the same transaction may succeed later.
    Conflict,
    /// A statement, a transaction or a wait for a lock took longer than it may.
    Timeout,
    /// A unique, foreign key, NOT NULL or CHECK constraint.
    Constraint,
    /// The disk is full or the database read-only.
    Full,
    /// Wrong password, missing permission.
    Denied,
    /// A statement that the schema does not allow, or a value that cannot be read.
    Statement,
}

/// The code and the names of schema objects; never the driver's text, which may quote a row (I10).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("database error {code}{}{}{}", at(" on table ", .table), at(", constraint ", .constraint), advice(.code))]
pub struct SqlError {
    pub kind: SqlErrorKind,
    /// SQLSTATE, SQLite's extended result code, or a word for what is not the server's.
    pub code: String,
    pub table: String,
    pub constraint: String,
}

fn at(label: &str, name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{label}{name}") }
}

/// Codes of our own, for what goes wrong before a server can say anything.
const TLS: &str = "TLS";
const TLS_AUTHORITY: &str = "TLS_AUTHORITY";
const TLS_NAME: &str = "TLS_NAME";
pub(crate) const TLS_REQUIRED: &str = "TLS_REQUIRED";
const NO_FILE: &str = "NO_FILE";
const POOL_TIMED_OUT: &str = "POOL_TIMED_OUT";
pub(crate) const READ_ONLY_SERVER: &str = "READ_ONLY_SERVER";

fn advice(code: &str) -> &'static str {
    match code {
        TLS => ": TLS could not be agreed with the server, or it speaks none",
        TLS_AUTHORITY => {
            ": the server's certificate is not of an authority that is known: name it in the URL (sslrootcert, or ssl-ca with MySQL)"
        }
        TLS_NAME => ": the server's certificate is for another name: connect by the name that it is for",
        TLS_REQUIRED => {
            ": a database on the network needs sslmode=verify-full (PostgreSQL) or ssl-mode=VERIFY_IDENTITY (MySQL)"
        }
        NO_FILE => {
            ": a file that the URL names cannot be read (sslrootcert, ssl-ca, a socket), or this machine forbids the connection"
        }
        _ => meaning(code),
    }
}

/// In words, what an operator meets most. SQLite's codes bear their names already.
fn meaning(code: &str) -> &'static str {
    match code {
        "23502" | "1048" | "1364" => ": a column that must not be NULL would be",
        "23503" | "1451" | "1452" => ": a foreign key forbids it",
        "23505" | "1062" => ": a unique index forbids it",
        "23514" | "3819" | "4025" => ": a CHECK forbids it",
        "22001" | "1406" => ": a text is longer than its column",
        "22P02" | "22007" | "1292" | "1366" => ": a text is no value of the column's type",
        "428C9" | "3105" | "1906" => ": the database makes that column of others",
        "42501" | "1142" | "1143" | "1227" => ": the user has no right to",
        "28P01" | "28000" | "1045" => ": the user or the password is wrong",
        "3D000" | "1049" => ": there is no such database",
        "42P01" | "1146" => ": a table is not there",
        "42703" | "1054" => ": a column is not there",
        "25006" | "1290" | "1792" | "1836" | "SQLITE_READONLY" => ": the database is read-only",
        "57P01" | "57P02" | "57P03" | "1053" => ": the server was shut down, or is about to begin",
        "53100" | "1021" | "1114" | "SQLITE_FULL" => ": the disk is full",
        "57014" | "55P03" | "1205" | "3024" | "1969" => ": it took too long, or waited too long for somebody's lock",
        "SQLITE_CANTOPEN" => ": the file cannot be opened: is it there, and readable?",
        "SQLITE_NOTADB" => ": the file is no SQLite database",
        "SQLITE_BUSY" | "SQLITE_LOCKED" => ": somebody else holds its lock",
        "SQLITE_CONSTRAINT_CHECK" => ": a CHECK forbids it",
        "SQLITE_CONSTRAINT_DATATYPE" => ": the value is not of the column's type (STRICT)",
        "SQLITE_CONSTRAINT_FOREIGNKEY" => ": a foreign key forbids it",
        "SQLITE_CONSTRAINT_NOTNULL" => ": a column that must not be NULL would be",
        "SQLITE_CONSTRAINT_UNIQUE" | "SQLITE_CONSTRAINT_PRIMARYKEY" => ": a unique index forbids it",
        POOL_TIMED_OUT => ": no connection in time: the database cannot be reached, or all connections are taken",
        _ => "",
    }
}

/// By its name, where it is one that is met (https://sqlite.org/rescode.html).
fn sqlite_name(code: &str) -> Option<&'static str> {
    let code = code.parse::<i32>().ok()?;
    let extended = match code {
        275 => Some("SQLITE_CONSTRAINT_CHECK"),
        787 => Some("SQLITE_CONSTRAINT_FOREIGNKEY"),
        1299 => Some("SQLITE_CONSTRAINT_NOTNULL"),
        1555 => Some("SQLITE_CONSTRAINT_PRIMARYKEY"),
        1811 => Some("SQLITE_CONSTRAINT_TRIGGER"),
        2067 => Some("SQLITE_CONSTRAINT_UNIQUE"),
        3091 => Some("SQLITE_CONSTRAINT_DATATYPE"),
        _ => None,
    };
    extended.or(match code & 0xff {
        1 => Some("SQLITE_ERROR"),
        3 => Some("SQLITE_PERM"),
        5 => Some("SQLITE_BUSY"),
        6 => Some("SQLITE_LOCKED"),
        8 => Some("SQLITE_READONLY"),
        9 => Some("SQLITE_INTERRUPT"),
        10 => Some("SQLITE_IOERR"),
        11 => Some("SQLITE_CORRUPT"),
        13 => Some("SQLITE_FULL"),
        14 => Some("SQLITE_CANTOPEN"),
        18 => Some("SQLITE_TOOBIG"),
        19 => Some("SQLITE_CONSTRAINT"),
        20 => Some("SQLITE_MISMATCH"),
        23 => Some("SQLITE_AUTH"),
        26 => Some("SQLITE_NOTADB"),
        _ => None,
    })
}

/// What of TLS it was, wherever in the error that stands.
fn tls_code(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    use rustls::{CertificateError as C, Error as E};
    // An I/O error's source is that of what it wraps.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
    if let Some(wrapped) = wrapped {
        return tls_code(wrapped);
    }
    match error.downcast_ref::<E>() {
        Some(E::InvalidCertificate(C::UnknownIssuer)) => Some(TLS_AUTHORITY),
        Some(E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. })) => Some(TLS_NAME),
        Some(_) => Some(TLS),
        None => error.source().and_then(tls_code),
    }
}

impl SqlError {
    pub(crate) fn plain(kind: SqlErrorKind, code: &str) -> Self {
        Self { kind, code: code.to_owned(), table: String::new(), constraint: String::new() }
    }

    /// Whether the same work may succeed when it is tried again.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            SqlErrorKind::Unavailable | SqlErrorKind::Conflict | SqlErrorKind::Timeout | SqlErrorKind::Full
        )
    }

    /// What a PostgreSQL that is in recovery answers to a transaction that might write, or what we say of a MySQL that is read-only.
    pub fn is_standby(&self) -> bool {
        self.kind == SqlErrorKind::Unavailable && matches!(self.code.as_str(), "0A000" | READ_ONLY_SERVER)
    }
}

fn kind_of_sqlstate(code: &str) -> SqlErrorKind {
    match code {
        // Numbers are MySQL's and MariaDB's.
        "40001" | "40P01" | "25P03" | "1213" => SqlErrorKind::Conflict,
        "57014" | "55P03" | "25P04" | "1205" | "3024" | "1969" => SqlErrorKind::Timeout,
        "53100" | "25006" | "1021" | "1114" | "1290" | "1836" => SqlErrorKind::Full,
        "42501" | "28000" | "28P01" | "1044" | "1045" | "1142" | "1227" => SqlErrorKind::Denied,
        "1048" | "1062" | "1451" | "1452" | "3819" | "4025" => SqlErrorKind::Constraint,
        _ if code.starts_with("08") || code.starts_with("57P") || code.starts_with("53") => SqlErrorKind::Unavailable,
        _ if code.starts_with("23") => SqlErrorKind::Constraint,
        _ => SqlErrorKind::Statement,
    }
}

fn kind_of_sqlite(code: &str) -> SqlErrorKind {
    match code.parse::<i32>().unwrap_or(1) & 0xff {
        5 | 6 => SqlErrorKind::Conflict,
        8 | 13 => SqlErrorKind::Full,
        10 | 14 => SqlErrorKind::Unavailable,
        19 => SqlErrorKind::Constraint,
        3 | 23 => SqlErrorKind::Denied,
        _ => SqlErrorKind::Statement,
    }
}

/// "cached plan must not change result type", in whatever language the server speaks: the same transaction succeeds once it is prepared anew.
fn is_plan_of_before(error: &dyn sqlx::error::DatabaseError) -> bool {
    let error = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>();
    error.is_some_and(|e| e.code() == "0A000" && e.routine() == Some("RevalidateCachedQuery"))
}

pub(crate) fn is_outdated_plan(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(is_plan_of_before)
}

impl From<sqlx::Error> for SqlError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match error {
            E::Database(e) => {
                let mut code = e.code().map(std::borrow::Cow::into_owned).unwrap_or_default();
                if let Some(mysql) = e.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
                    code = mysql.number().to_string();
                }
                let kind = if is_plan_of_before(e.as_ref()) {
                    SqlErrorKind::Conflict
                } else if e.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
                    let kind = kind_of_sqlite(&code);
                    code = sqlite_name(&code).map_or(code, str::to_owned);
                    kind
                } else {
                    kind_of_sqlstate(&code)
                };
                Self {
                    kind,
                    code,
                    table: e.table().unwrap_or_default().to_owned(),
                    constraint: e.constraint().unwrap_or_default().to_owned(),
                }
            }
            E::Io(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                Self::plain(SqlErrorKind::Unavailable, NO_FILE)
            }
            E::Io(e) => Self::plain(SqlErrorKind::Unavailable, tls_code(&e).unwrap_or("IO")),
            E::Tls(e) => Self::plain(SqlErrorKind::Unavailable, tls_code(e.as_ref()).unwrap_or(TLS)),
            E::PoolTimedOut => Self::plain(SqlErrorKind::Unavailable, POOL_TIMED_OUT),
            E::PoolClosed => Self::plain(SqlErrorKind::Unavailable, "POOL_CLOSED"),
            E::WorkerCrashed => Self::plain(SqlErrorKind::Unavailable, "WORKER_CRASHED"),
            E::Protocol(_) => Self::plain(SqlErrorKind::Unavailable, "PROTOCOL"),
            E::Configuration(_) => Self::plain(SqlErrorKind::Statement, "CONFIGURATION"),
            E::RowNotFound => Self::plain(SqlErrorKind::Statement, "ROW_NOT_FOUND"),
            E::ColumnDecode { .. } | E::Decode(_) | E::ColumnIndexOutOfBounds { .. } | E::TypeNotFound { .. } => {
                Self::plain(SqlErrorKind::Statement, "DECODE")
            }
            _ => Self::plain(SqlErrorKind::Statement, "CLIENT"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::{CertificateError, Error};

    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_with_what_to_do() {
        let certificate = |e| io::Error::new(io::ErrorKind::InvalidData, Error::InvalidCertificate(e));
        let unknown = SqlError::from(sqlx::Error::Io(certificate(CertificateError::UnknownIssuer)));
        assert!(unknown.is_transient() && unknown.to_string().contains("sslrootcert"), "{unknown}");
        let name = sqlx::Error::Tls(Box::new(certificate(CertificateError::NotValidForName)));
        assert!(SqlError::from(name).to_string().contains("another name"));
        let expired = SqlError::from(sqlx::Error::Tls(Box::new(certificate(CertificateError::Expired))));
        assert_eq!(expired.code, TLS);
        let cut = SqlError::from(sqlx::Error::Io(io::ErrorKind::ConnectionReset.into()));
        assert_eq!(cut.to_string(), "database error IO");
    }
}
