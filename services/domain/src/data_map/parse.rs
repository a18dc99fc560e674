//! From the YAML of `docs/data-map.md` to a [`DataMap`], with everything that is wrong told at once.
//!
//! Three steps: YAML to a tree that knows its lines (`node`), the tree to the map's own shape (`read`, by means of `section`), and what the shape
//! alone cannot say (`check`). The tree stands between because serde stops at the first unknown key and knows no paths.

mod check;
mod node;
mod read;
mod section;
#[cfg(test)]
mod tests;

use std::fmt;

use super::DataMap;

/// What we expect categories to be called. Any other name of the customer's own is as good.
pub const BUILT_IN_CATEGORIES: &[&str] = &[
    "display_name",
    "first_name",
    "last_name",
    "office_name",
    "phone",
    "city",
    "country",
    "title",
    "company",
    "manager",
    "department",
    "user_name",
    "email",
    "address",
    "ip_address",
    "cookie",
    "message",
    "media",
    "financial",
];

const MAX_BYTES: usize = 256 * 1024;
/// Enough to work through; a file of another sort altogether would bring thousands.
const MAX_PROBLEMS: usize = 100;

/// For whom the map is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MapKind {
    /// One of our SQL connectors works by it: keys, erasure and a way to every row are required.
    Sql,
    /// A remote worker knows its own storage: the map declares what there is.
    Declared,
}

/// One thing that is wrong with a map, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Counts from 1.
    pub line: u32,
    /// Counts from 1, in characters.
    pub column: u32,
    /// `collections.orders.owned_by[0].collection`; empty where the text is no YAML.
    pub field: String,
    pub message: String,
}

/// Everything that is wrong with a map, in the order of its lines. Never empty.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct DataMapError {
    pub problems: Vec<Problem>,
    /// How many more there were.
    pub omitted: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, field, message } = self;
        if field.is_empty() {
            write!(f, "line {line}, column {column}: {message}")
        } else {
            write!(f, "line {line}, {field}: {message}")
        }
    }
}

impl fmt::Display for DataMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl DataMap {
    /// Reads a map and makes every check that needs no database.
    pub fn parse(yaml: &str, kind: MapKind) -> Result<Self, DataMapError> {
        let mut problems = Problems::default();
        let map = parse(yaml, kind, &mut problems);
        match map {
            Some(map) if problems.0.is_empty() => Ok(map),
            _ => Err(problems.into_error()),
        }
    }

    /// On which line each field stands in the text of a map, for what is found out later than by reading it.
    pub fn lines(yaml: &str) -> impl Fn(&str) -> u32 + use<> {
        let root = node::parse(yaml, &mut Problems::default());
        move |field| root.as_ref().map_or(1, |root| root.line_of(field))
    }
}

fn parse(yaml: &str, kind: MapKind, problems: &mut Problems) -> Option<DataMap> {
    if yaml.len() > MAX_BYTES {
        problems.add(&Place::start(), format!("is {} bytes long; the limit is {MAX_BYTES}", yaml.len()));
        return None;
    }
    let root = node::parse(yaml, problems)?;
    let raw = read::map(&root, kind, problems)?;
    Some(check::map(raw, kind, problems))
}

/// Where something stands in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    line: u32,
    column: u32,
    field: String,
}

impl Place {
    const fn start() -> Self {
        Self { line: 1, column: 1, field: String::new() }
    }

    /// The same spot, for something that is missing there.
    fn lacking(&self, name: &str) -> Self {
        Self { field: join(&self.field, name), ..*self }
    }
}

/// One step down a path. Names that would blur the path, or are no names at all, are quoted and cut.
fn join(path: &str, name: &str) -> String {
    let plain = !name.is_empty()
        && name.len() <= 128
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$'));
    let step = if plain { name.to_owned() } else { quote(name) };
    if path.is_empty() { step } else { format!("{path}.{step}") }
}

/// Safe to print, and not too long.
fn quote(text: &str) -> String {
    const SHOWN: usize = 40;
    let shown: String = text.chars().take(SHOWN).collect();
    let more = if text.chars().nth(SHOWN).is_some() { "…" } else { "" };
    format!("{shown:?}{more}")
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, place: &Place, message: impl Into<String>) {
        let Place { line, column, field } = place.clone();
        self.0.push(Problem { line, column, field, message: message.into() });
    }

    fn into_error(self) -> DataMapError {
        let mut problems = self.0;
        problems.sort_by_key(|problem| (problem.line, problem.column));
        let omitted = problems.len().saturating_sub(MAX_PROBLEMS);
        problems.truncate(MAX_PROBLEMS);
        DataMapError { problems, omitted }
    }
}
