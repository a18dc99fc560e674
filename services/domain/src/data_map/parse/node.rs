//! YAML as a tree that knows where each of its parts stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    Error, MessageFormatter, Spanned, UserMessageFormatter,
    options::{DuplicateKeyPolicy, MergeKeyPolicy},
};

use super::{Place, Problems};

pub(super) struct Node {
    pub line: u32,
    pub column: u32,
    pub value: Value,
}

pub(super) enum Value {
    Null,
    Flag(bool),
    /// Held in the range of `i64`; no number of the format comes near its ends.
    Number(i64),
    Decimal,
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

impl Value {
    pub const fn is(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Flag(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Decimal => "a decimal number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }
}

pub(super) fn parse(yaml: &str, problems: &mut Problems) -> Option<Node> {
    // Depth and replays bound the work of a hostile file; 256 KiB of plain YAML stay far below. No snippets: they would
    // put the file's text into an error.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 16,
            flow_nesting_limit: 16,
            max_anchors: 1_000,
            max_aliases: 5_000,
            max_recorded_anchor_events: 200_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 50_000,
            max_replay_stack_depth: 4,
        },
        // Told by ourselves, with a path.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        // A column may be called `on` or `no`.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options(yaml, options) {
        Ok(node) => Some(node),
        Err(error) => {
            let location = error.location();
            let place = Place {
                line: location.map_or(1, |l| number(l.line())).max(1),
                column: location.map_or(1, |l| number(l.column())).max(1),
                field: String::new(),
            };
            problems.add(&place, message(&error));
            None
        }
    }
}

impl Node {
    /// The line of what a path leads to, as far as it leads: what is missing is told where it would stand.
    pub fn line_of(&self, path: &str) -> u32 {
        let (mut line, mut node, mut rest) = (self.line, self, path);
        while let Some((at, next, after)) = node.step(rest) {
            (line, node, rest) = (at, next, after.trim_start_matches('.'));
        }
        line
    }

    /// The first step of a path: its line, its value, and the rest of the path. Of names that begin alike, the longest.
    fn step<'a>(&self, path: &'a str) -> Option<(u32, &Self, &'a str)> {
        match &self.value {
            Value::Mapping(entries) => {
                let after = |key: &Self| {
                    let Value::Text(name) = &key.value else { return None };
                    let after = path.strip_prefix(name.as_str())?;
                    (after.is_empty() || after.starts_with(['.', '['])).then_some(after)
                };
                let steps = entries.iter().filter_map(|(key, value)| Some((key.line, value, after(key)?)));
                steps.min_by_key(|(.., after)| after.len())
            }
            Value::List(items) => {
                let (index, after) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item.line, item, after))
            }
            _ => None,
        }
    }
}

fn message(error: &Error) -> String {
    match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => message(error),
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "is nested too deeply or refers to itself too often".to_owned()
        }
        other => UserMessageFormatter.format_message(other).escape_debug().to_string(),
    }
}

fn number(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: number(referenced.line()), column: number(referenced.column()), value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::Number(n))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(Value::Number(i64::try_from(n).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Decimal)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Mapping(entries))
    }
}
