//! One value in two spellings: `5` and `5.00`, noon here and ten o'clock there. The database keeps numbers, times and documents in a spelling of its
//! own; a correction brings the customer's.

use std::collections::BTreeMap;

use jiff::{
    Timestamp,
    civil::{DateTime, Time},
    tz::TimeZone,
};
use quittance_sql::Engine;
use serde::{
    Deserialize,
    de::{Deserializer, Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

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
        // A column that makes no numbers of texts holds `007` as it is.
        (Engine::Sqlite, Class::Other, _) => column.cast.is_some() && alike(number, a, b),
        (_, Class::Int { .. }, _) => alike(number, a, b),
        // Its dates are any text.
        (Engine::Sqlite, ..) => false,
        (_, Class::Uuid, _) => alike(|text| uuid::Uuid::try_parse(text).ok(), a, b),
        (_, Class::Date, _) => alike(local, a, b),
        (_, Class::Instant, _) => alike(instant, a, b),
        (_, _, "numeric" | "decimal" | "real" | "double" | "float") => alike(number, a, b),
        (_, _, "boolean") => alike(flag, a, b),
        (_, _, "time") if !column.type_name.ends_with(" with time zone") => alike(time, a, b),
        (_, _, "json" | "jsonb") => alike(document, a, b),
        _ => false,
    }
}

fn alike<'t, T: PartialEq>(read: impl Fn(&'t str) -> Option<T>, a: &'t str, b: &'t str) -> bool {
    matches!((read(a), read(b)), (Some(a), Some(b)) if a == b)
}

/// A number whatever its length: whether it is negative, its digits without idle zeros, and the power of ten of the last one.
#[derive(PartialEq)]
struct Number {
    negative: bool,
    digits: String,
    power: i64,
}

fn number(text: &str) -> Option<Number> {
    let text = text.trim();
    let (text, exponent) = match text.split_once(['e', 'E']) {
        Some((text, exponent)) => (text, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = all.trim_end_matches('0');
    if digits.is_empty() {
        return Some(Number { negative: false, digits: String::new(), power: 0 });
    }
    let idle = i64::try_from(all.len() - digits.len()).ok()?;
    let power = i64::from(exponent) - i64::try_from(fraction.len()).ok()? + idle;
    Some(Number { negative, digits: digits.trim_start_matches('0').to_owned(), power })
}

fn flag(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Of no zone: a text that names one says more than the column holds.
fn time(text: &str) -> Option<Time> {
    let bare = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.'));
    if bare { text.parse().ok() } else { None }
}

/// Of no zone: what names one is read differently by different databases.
fn local(text: &str) -> Option<DateTime> {
    if text.contains('[') || text.parse::<Timestamp>().is_ok() { None } else { text.parse().ok() }
}

/// Sessions run in UTC.
fn instant(text: &str) -> Option<Timestamp> {
    let in_utc = |text: &str| TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok();
    text.parse().ok().or_else(|| in_utc(text))
}

/// JSON, with its numbers in full: serde_json's own would be rounded to what a `f64` holds.
#[derive(PartialEq)]
enum Document {
    Null,
    Flag(bool),
    Number(Number),
    Text(String),
    List(Vec<Document>),
    Object(BTreeMap<String, Document>),
}

/// As serde_json's own limit.
const DEPTH_MAX: usize = 128;

fn document(text: &str) -> Option<Document> {
    parsed(text, DEPTH_MAX)
}

fn parsed(text: &str, depth: usize) -> Option<Document> {
    let (text, deeper) = (text.trim(), depth.checked_sub(1)?);
    match text.bytes().next()? {
        b'n' => serde_json::from_str::<()>(text).ok().map(|()| Document::Null),
        b't' | b'f' => serde_json::from_str(text).ok().map(Document::Flag),
        b'"' => serde_json::from_str(text).ok().map(Document::Text),
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            items.into_iter().map(|item| parsed(item.get(), deeper)).collect::<Option<_>>().map(Document::List)
        }
        b'{' => {
            let Fields(fields) = serde_json::from_str(text).ok()?;
            let fields = fields.into_iter().map(|(name, value)| Some((name, parsed(value.get(), deeper)?)));
            fields.collect::<Option<_>>().map(Document::Object)
        }
        _ => {
            let is_one = serde_json::from_str::<&RawValue>(text).is_ok();
            if is_one { number(text).map(Document::Number) } else { None }
        }
    }
}

/// An object's. Where a name stands twice it is up to each database which of the two counts: then it is none.
struct Fields<'t>(BTreeMap<String, &'t RawValue>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if fields.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name stands twice"));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Each)
    }
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
            (Class::Other, "time", "10:00:00.000000", "10:00", true),
            (Class::Other, "time without time zone", "10:00:00", "10:00:00+02", false),
            (Class::Other, "time with time zone", "10:00:00+02", "10:00:00+05", false),
            (Class::Other, "time with time zone", "10:00:00+02", "10:00:00", false),
            (Class::Other, "numeric", "1e3", "1000.0", true),
            (Class::Other, "double precision", "1.5e+300", "15E299", true),
            (Class::Other, "numeric", "1e3", "1e4", false),
            (Class::Other, "numeric", "1e", "1", false),
            (Class::Other, "jsonb", "[1, 2]", "[2, 1]", false),
            (Class::Other, "jsonb", "{\"n\": 123456789012345678901}", "{\"n\": 123456789012345678902}", false),
            (Class::Other, "jsonb", "[0.1000000000000000055]", "[0.1]", false),
            (Class::Other, "jsonb", "[1000, 2.50, -0, \"\\u0041\", null, true]", "[1e3,2.5,0,\"A\",null,true]", true),
            (Class::Other, "jsonb", "{\"a\": {\"b\": 2}}", "{\"a\": {\"b\": 1, \"b\": 2}}", false),
            (Class::Other, "json", "{\"a\": 1, \"a\": 2}", "{\"a\":1,\"a\":2}", false),
            (Class::Other, "jsonb", "[1]", "[01]", false),
            (Class::Other, "jsonb", "[nul]", "[null]", false),
            (Class::Other, "jsonb", "\"1\"", "1", false),
            (Class::Uuid, "uuid", "0190a1b2-0000-7000-8000-000000000001", "0190A1B2000070008000000000000001", true),
            (Class::Date, "date", "2026-01-01", "2026-01-01T00:00", true),
            (
                Class::Date,
                "timestamp without time zone",
                "2026-01-01 10:00:00",
                "2026-01-01T10:00[Europe/Amsterdam]",
                false,
            ),
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
        let numeric = |kind| Column { cast: Some(String::new()), ..column(Class::Other, kind) };
        assert!(same(Engine::Sqlite, &numeric("NUMERIC"), "5", "5.00"));
        assert!(same(Engine::Sqlite, &numeric("REAL"), "1.0e+300", "1e300"));
        // Without an affinity to numbers, a text stays one.
        assert!(!same(Engine::Sqlite, &column(Class::Other, ""), "0612345678", "612345678"));
        assert!(!same(Engine::Sqlite, &column(Class::Date, "DATETIME"), "2026-01-01 10:00", "2026-01-01T10:00"));
    }
}
