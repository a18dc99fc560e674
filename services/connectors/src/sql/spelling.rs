//! One value in two spellings: `5` and `5.00`, noon here and ten o'clock there. The database keeps numbers, times and documents in a spelling of its
//! own; a correction brings the customer's.

use jiff::{
    Timestamp,
    civil::{DateTime, Time},
    tz::TimeZone,
};
use quittance_sql::Engine;

use super::schema::{Class, Column};

/// Whether two texts are the same value of the column. What is not read for sure is compared to the letter.
pub(super) fn same(engine: Engine, column: &Column, a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    // Of "decimal(10,2)", "time without time zone".
    let kind = column.type_name.split(['(', ' ']).next().unwrap_or_default();
    match (engine, column.class, kind) {
        (_, Class::Text | Class::Bytes, _) => false,
        (Engine::Sqlite, Class::Other, _) | (_, Class::Int { .. }, _) => alike(number, a, b),
        // Its dates are any text.
        (Engine::Sqlite, ..) => false,
        (_, Class::Uuid, _) => alike(|text| uuid::Uuid::try_parse(text).ok(), a, b),
        (_, Class::Date, _) => alike(local, a, b),
        (_, Class::Instant, _) => alike(instant, a, b),
        (_, _, "numeric" | "decimal" | "real" | "double" | "float") => alike(number, a, b),
        (_, _, "boolean") => alike(flag, a, b),
        (_, _, "time") => alike(|text| text.parse::<Time>().ok(), a, b),
        (_, _, "json" | "jsonb") => alike(|text| serde_json::from_str::<serde_json::Value>(text).ok(), a, b),
        _ => false,
    }
}

fn alike<'t, T: PartialEq>(read: impl Fn(&'t str) -> Option<T>, a: &'t str, b: &'t str) -> bool {
    matches!((read(a), read(b)), (Some(a), Some(b)) if a == b)
}

/// Whether it is negative, and its digits before and behind the point, without idle zeros.
fn number(text: &str) -> Option<(bool, &str, &str)> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
    if !all_digits || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    Some((negative && !(whole.is_empty() && fraction.is_empty()), whole, fraction))
}

fn flag(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Of no zone: what names one is read differently by different databases.
fn local(text: &str) -> Option<DateTime> {
    if text.parse::<Timestamp>().is_ok() { None } else { text.parse().ok() }
}

/// Sessions run in UTC.
fn instant(text: &str) -> Option<Timestamp> {
    let in_utc = |text: &str| TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok();
    text.parse().ok().or_else(|| in_utc(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same() {
        let column = |class, type_name: &str| Column { type_name: type_name.into(), ..Column::of(class) };
        let int = Class::Int { min: -128, max: 127 };
        for (class, kind, a, b, expected) in [
            (Class::Other, "numeric", "5", "5.00", true),
            (Class::Other, "decimal(10,2)", "-0.50", "-.5", true),
            (Class::Other, "numeric", "0.00", "-0", true),
            (Class::Other, "numeric", "5", "50", false),
            (Class::Other, "numeric", "5", "-5", false),
            (Class::Other, "numeric", ".", "0", false),
            (Class::Other, "numeric", "NaN", "nan", false),
            (int, "smallint", "07", "7", true),
            (Class::Text, "character varying", "5", "5.00", false),
            (Class::Other, "bit varying", "0101", "101", false),
            (Class::Other, "boolean", "true", "YES", true),
            (Class::Other, "boolean", "true", "off", false),
            (Class::Other, "time without time zone", "10:00:00", "10:00", true),
            (Class::Other, "jsonb", "{\"a\": 1, \"b\": []}", "{\"b\":[],\"a\":1}", true),
            (Class::Other, "jsonb", "[1, 2]", "[2, 1]", false),
            (Class::Uuid, "uuid", "0190a1b2-0000-7000-8000-000000000001", "0190A1B2000070008000000000000001", true),
            (Class::Date, "date", "2026-01-01", "2026-01-01T00:00", true),
            (Class::Date, "datetime(6)", "2026-01-01 10:00:00.000000", "2026-01-01T10:00", true),
            (Class::Date, "timestamp without time zone", "2026-01-01 10:00:00", "2026-01-01T10:00:00+02:00", false),
            (Class::Instant, "timestamp with time zone", "2026-01-01 10:00:00+00", "2026-01-01T12:00:00+02:00", true),
            (Class::Instant, "timestamp", "2026-01-01 10:00:00", "2026-01-01 10:00:00.000", true),
            (Class::Instant, "timestamp with time zone", "infinity", "tomorrow", false),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                assert_eq!(same(Engine::Postgres, &column(class, kind), a, b), expected, "{kind}: {a}, {b}");
            }
        }
        assert!(same(Engine::Sqlite, &column(Class::Other, "NUMERIC"), "5", "5.00"));
        assert!(!same(Engine::Sqlite, &column(Class::Date, "DATETIME"), "2026-01-01 10:00", "2026-01-01T10:00"));
    }
}
