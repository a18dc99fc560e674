//! What the format is read with: mappings whose every key is asked for, lists, and scalars of one type.

use super::{
    Place, Problems, join,
    node::{Node, Value},
    quote,
};

const MAX_NAME: usize = 128;
const MAX_TEXT: usize = 1024;

#[derive(Clone)]
pub(super) struct At<T> {
    pub value: T,
    pub place: Place,
}

/// What could be read of a list, and whether all of it could.
pub(super) struct Listed<T> {
    pub items: Vec<T>,
    pub written: usize,
}

pub(super) fn column(at: &At<&Node>, problems: &mut Problems) -> Option<At<String>> {
    text(at, problems).filter(|name| is_name(name, problems))
}

pub(super) fn column_item(at: At<&Node>, problems: &mut Problems) -> Option<At<String>> {
    column(&at, problems)
}

pub(super) fn is_name(name: &At<String>, problems: &mut Problems) -> bool {
    let good = !name.value.trim().is_empty() && name.value.len() <= MAX_NAME && !name.value.contains(char::is_control);
    if !good {
        problems.add(&name.place, format!("must be a name of 1 to {MAX_NAME} bytes without control characters"));
    }
    good
}

pub(super) fn text(at: &At<&Node>, problems: &mut Problems) -> Option<At<String>> {
    let message = match &at.value.value {
        Value::Text(text) if text.len() > MAX_TEXT => format!("must be at most {MAX_TEXT} bytes long"),
        Value::Text(text) if text.contains('\0') => "must not hold a NUL character".to_owned(),
        Value::Text(text) => return Some(At { value: text.clone(), place: at.place.clone() }),
        Value::Flag(_) | Value::Number(_) | Value::Decimal => {
            format!("must be text, and is {}: put it in quotes", at.value.value.is())
        }
        other => format!("must be text, and is {}", other.is()),
    };
    problems.add(&at.place, message);
    None
}

pub(super) fn flag(at: &At<&Node>, problems: &mut Problems) -> Option<bool> {
    if let Value::Flag(flag) = at.value.value {
        return Some(flag);
    }
    problems.add(&at.place, "must be true or false");
    None
}

pub(super) fn number(at: &At<&Node>, range: std::ops::RangeInclusive<i64>, problems: &mut Problems) -> Option<u32> {
    if let Value::Number(n) = at.value.value
        && range.contains(&n)
    {
        return u32::try_from(n).ok();
    }
    problems.add(&at.place, format!("must be a whole number from {} to {}", range.start(), range.end()));
    None
}

pub(super) fn choice<T: Copy>(
    at: &At<&Node>,
    all: &[T],
    name: impl Fn(T) -> &'static str,
    problems: &mut Problems,
) -> Option<T> {
    if let Value::Text(word) = &at.value.value
        && let Some(found) = all.iter().find(|choice| name(**choice) == word)
    {
        return Some(*found);
    }
    problems.add(&at.place, one_of(all, name));
    None
}

pub(super) fn one_of<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> String {
    let names: Vec<_> = all.iter().map(|choice| name(*choice)).collect();
    format!("must be one of {}", names.join(", "))
}

pub(super) fn list<T>(
    at: &At<&Node>,
    problems: &mut Problems,
    mut read: impl FnMut(At<&Node>, &mut Problems) -> Option<T>,
) -> Listed<T> {
    let Value::List(nodes) = &at.value.value else {
        problems.add(&at.place, format!("must be a list, and is {}", at.value.value.is()));
        return Listed { items: Vec::new(), written: 1 };
    };
    let item = |(i, node): (usize, &Node)| {
        let place = Place { line: node.line, column: node.column, field: format!("{}[{i}]", at.place.field) };
        read(At { value: node, place }, problems)
    };
    // Collected first: the closure holds `problems`.
    let items: Vec<T> = nodes.iter().enumerate().filter_map(item).collect();
    Listed { items, written: nodes.len() }
}

/// A mapping whose keys are the writer's own names, in the order of the file.
pub(super) fn entries<'a>(
    at: &At<&'a Node>,
    max: usize,
    problems: &mut Problems,
) -> Option<Vec<(At<String>, At<&'a Node>)>> {
    let Value::Mapping(pairs) = &at.value.value else {
        problems.add(&at.place, format!("must be a mapping, and is {}", at.value.value.is()));
        return None;
    };
    if pairs.len() > max {
        problems.add(&at.place, format!("holds {} entries; the limit is {max}", pairs.len()));
        return None;
    }
    let mut seen = std::collections::HashSet::new();
    let mut found = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let mut place = Place { line: key.line, column: key.column, field: at.place.field.clone() };
        let Value::Text(name) = &key.value else {
            problems.add(&place, format!("has a key that is {}: put it in quotes", key.value.is()));
            continue;
        };
        place.field = join(&place.field, name);
        if !seen.insert(name.as_str()) {
            problems.add(&place, "is given twice");
            continue;
        }
        // The parser places nothing after the colon wherever the next thing begins.
        let (line, column) = match value.value {
            Value::Null => (key.line, key.column),
            _ => (value.line, value.column),
        };
        let at = At { value, place: Place { line, column, field: place.field.clone() } };
        found.push((At { value: name.clone(), place }, at));
    }
    Some(found)
}

/// A mapping whose keys are the format's. What is not asked for until it is closed is unknown.
pub(super) struct Section<'a> {
    pub place: Place,
    left: Vec<(At<String>, At<&'a Node>)>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Problems of the section as a whole are told at `at.place`.
    pub fn open(at: At<&'a Node>, problems: &mut Problems) -> Option<Self> {
        let left = entries(&at, usize::MAX, problems)?;
        Some(Self { place: at.place, left, known: Vec::new() })
    }

    /// Null is as good as absent.
    pub fn optional(&mut self, name: &'static str) -> Option<At<&'a Node>> {
        self.known.push(name);
        let i = self.left.iter().position(|(key, _)| key.value == name)?;
        let (_, at) = self.left.swap_remove(i);
        (!matches!(at.value.value, Value::Null)).then_some(at)
    }

    pub fn required(&mut self, name: &'static str, problems: &mut Problems) -> Option<At<&'a Node>> {
        let found = self.optional(name);
        if found.is_none() {
            problems.add(&self.place.lacking(name), "is required");
        }
        found
    }

    pub fn list<T>(
        &mut self,
        name: &'static str,
        problems: &mut Problems,
        read: impl FnMut(At<&Node>, &mut Problems) -> Option<T>,
    ) -> Listed<T> {
        match self.optional(name) {
            Some(at) => list(&at, problems, read),
            None => Listed { items: Vec::new(), written: 0 },
        }
    }

    /// Whether there was nothing unknown.
    pub fn close(self, problems: &mut Problems) -> bool {
        for (key, _) in &self.left {
            let known = self.known.join(", ");
            problems.add(&key.place, format!("unknown key {}; known here: {known}", quote(&key.value)));
        }
        self.left.is_empty()
    }
}
