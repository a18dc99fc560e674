//! How an identifier of a subject is looked for in a column, and how a stored value is told to be the subject's.

use quittance_domain::{
    data_map::Matching,
    identifier::{Identifier, IdentifierKind},
};
use quittance_sql::Engine;

use super::{
    dialect::TRIMMED_CHARS as TRIMMED,
    plan::RulePlan,
    schema::{Class, Column, Lower},
};
use crate::Subject;

/// How many letters beyond ASCII are tried in both cases, by the index: 2^3 forms at most. With more of them, the table is read.
const FOLDED_MAX: usize = 3;
/// Begins a text that is a pattern (SQLite's GLOB, a regular expression on PostgreSQL) in which every letter stands in both cases. No identifier
/// has a control character.
pub(super) const PATTERN: char = '\u{1}';

/// What is typed or pasted along with an address, before or behind it: as much as an index can be asked for. In ASCII: every database's encoding
/// has it.
const BLANKS: [&str; 5] = [" ", "\t", "\n", "\r\n", "\r"];

/// The texts by which a subject's rows are looked for. Empty where the column cannot hold the identifier.
pub(super) fn sought(engine: Engine, rule: &RulePlan, kind: IdentifierKind, subject: &Subject) -> Vec<String> {
    let of_kind = subject.identifiers.iter().filter(|i| i.kind() == kind);
    of_kind.flat_map(|identifier| sought_by(engine, &rule.column, rule.matching, identifier)).collect()
}

/// The same, of one identifier.
pub(super) fn sought_by(engine: Engine, column: &Column, matching: Matching, identifier: &Identifier) -> Vec<String> {
    let forms = forms_of(engine, column, matching, identifier);
    let trimmed = column.trims(engine) || is_pattern(&forms);
    if matching != Matching::CaseInsensitive || trimmed {
        forms
    } else {
        forms.iter().flat_map(|form| blanked(form)).collect()
    }
}

/// Whether a find asks for a stored text that is the subject's.
pub(super) fn is_sought(engine: Engine, rule: &RulePlan, stored: &str) -> bool {
    if rule.matching != Matching::CaseInsensitive {
        return true;
    }
    let core = stored.trim();
    let by_cases = rule.column.lower != Lower::Same;
    let trimmed = rule.column.trims(engine) || (by_cases && is_pattern(&cases(engine, &core.to_lowercase())));
    if trimmed { stored.trim_matches(TRIMMED) == core } else { blanked(core).any(|text| text == stored) }
}

fn is_pattern(forms: &[String]) -> bool {
    forms.iter().any(|form| form.starts_with(PATTERN))
}

/// The text, and the same with a blank before it, behind it, or on both sides.
fn blanked(text: &str) -> impl Iterator<Item = String> {
    let one = BLANKS.iter().flat_map(move |blank| [format!("{text}{blank}"), format!("{blank}{text}")]);
    std::iter::once(text.to_owned()).chain(one).chain([format!(" {text} ")])
}

/// The texts that make a row the subject's, whatever blanks stand around them.
pub(super) fn forms(engine: Engine, rule: &RulePlan, kind: IdentifierKind, subject: &Subject) -> Vec<String> {
    let of_kind = subject.identifiers.iter().filter(|i| i.kind() == kind);
    of_kind.flat_map(|identifier| forms_of(engine, &rule.column, rule.matching, identifier)).collect()
}

fn forms_of(engine: Engine, column: &Column, matching: Matching, identifier: &Identifier) -> Vec<String> {
    let value = column.bare(identifier.value().expose());
    match matching {
        Matching::Exact if column.accepts(value) => vec![value.to_owned()],
        Matching::Exact => Vec::new(),
        Matching::CaseInsensitive if column.lower != Lower::Same => cases(engine, &value.to_lowercase()),
        // Which small sigma a capital one becomes, the databases say otherwise than we do.
        Matching::CaseInsensitive => {
            let lower = value.to_lowercase();
            let bare = folded(value);
            if bare == lower { vec![lower] } else { vec![lower, bare] }
        }
        // The same number, as it is dialled from abroad.
        Matching::Digits => {
            identifier.digit_forms().into_iter().flat_map(|digits| [format!("00{digits}"), digits]).collect()
        }
    }
}

/// Where ASCII alone is folded: capitals beyond it are asked for one by one, or where that would be too many, by a pattern.
fn cases(engine: Engine, lower: &str) -> Vec<String> {
    let cased = lower.chars().filter(|c| !c.is_ascii() && both(*c).len() > 1).count();
    if cased > FOLDED_MAX {
        return vec![if engine == Engine::Postgres { expression(lower) } else { glob(lower) }];
    }
    let mut found = vec![String::new()];
    for c in lower.chars() {
        let variants = if c.is_ascii() { vec![c] } else { both(c) };
        found = variants.iter().flat_map(|v| found.iter().map(move |text| format!("{text}{v}"))).collect();
    }
    found
}

/// A letter as it may be written: small, capital, and sigma's two small forms. A capital that is another letter's too is none of it.
fn both(lower: char) -> Vec<char> {
    let mut found = vec![lower];
    let mut upper = lower.to_uppercase();
    if let (Some(capital), None) = (upper.next(), upper.next())
        && capital.is_ascii() == lower.is_ascii()
        && capital.to_lowercase().eq([if lower == 'ς' { 'σ' } else { lower }])
    {
        found.push(capital);
    }
    match lower {
        'σ' => found.push('ς'),
        'ς' => found.push('σ'),
        _ => {}
    }
    found.dedup();
    found
}

fn expression(lower: &str) -> String {
    let mut text = format!("{PATTERN}^");
    for c in lower.chars() {
        let variants = both(c);
        if variants.len() > 1 {
            // No bracket: where the encoding is nobody's business (SQL_ASCII), it would be of bytes.
            let variants: Vec<String> = variants.into_iter().map(String::from).collect();
            text.push_str(&format!("(?:{})", variants.join("|")));
        } else {
            if c.is_ascii_punctuation() {
                text.push('\\');
            }
            text.push(c);
        }
    }
    text.push('$');
    text
}

fn glob(lower: &str) -> String {
    let mut text = String::from(PATTERN);
    for c in lower.chars() {
        let variants = both(c);
        if variants.len() > 1 || matches!(c, '*' | '?' | '[') {
            text.push('[');
            text.extend(variants);
            text.push(']');
        } else {
            text.push(c);
        }
    }
    text
}

/// The same decision on a value that was read.
pub(super) fn is_of(rule: &RulePlan, kind: IdentifierKind, subject: &Subject, stored: &str) -> bool {
    subject.identifiers.iter().filter(|i| i.kind() == kind).any(|identifier| is(rule, identifier, stored))
}

/// The same, of one identifier.
pub(super) fn is(rule: &RulePlan, identifier: &Identifier, stored: &str) -> bool {
    let value = rule.column.bare(identifier.value().expose());
    match rule.matching {
        Matching::Exact if rule.column.class == Class::Uuid => {
            let bare = |text: &str| text.replace('-', "").to_ascii_lowercase();
            bare(value) == bare(stored)
        }
        Matching::Exact => value == stored,
        Matching::CaseInsensitive => folded(stored.trim()) == folded(value),
        Matching::Digits => {
            let digits: String = stored.chars().filter(char::is_ascii_digit).collect();
            identifier.digit_forms().iter().any(|wanted| digits == *wanted || digits.strip_prefix("00") == Some(wanted))
        }
    }
}

/// Lower case; which small sigma a capital one is depends on where it stands.
fn folded(text: &str) -> String {
    text.to_lowercase().replace('ς', "σ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_beyond_ascii() {
        assert_eq!(cases(Engine::Sqlite, "ab@c"), ["ab@c"]);
        let mut found = cases(Engine::Sqlite, "åsö");
        found.sort();
        assert_eq!(found, ["ÅsÖ", "Åsö", "åsÖ", "åsö"]);
        // More letters than can be tried in both cases each: one pattern, in which nothing that was typed is a pattern's sign.
        assert_eq!(cases(Engine::Sqlite, "иван*@п.рф"), ["\u{1}[иИ][вВ][аА][нН][*]@[пП].[рР][фФ]"]);
        assert_eq!(
            cases(Engine::Postgres, "иван*1@п.рф"),
            ["\u{1}^(?:и|И)(?:в|В)(?:а|А)(?:н|Н)\\*1\\@(?:п|П)\\.(?:р|Р)(?:ф|Ф)$"]
        );
        // Neither the capital of another letter, nor one in another script.
        assert_eq!([both('ı'), both('µ'), both('ß'), both('ä')], [vec!['ı'], vec!['µ'], vec!['ß'], vec!['ä', 'Ä']]);
    }

    #[test]
    fn blanks_around() {
        let found: Vec<_> = blanked("a@b").collect();
        assert!(["a@b", "a@b ", "\ta@b", " a@b ", "a@b\r\n"].iter().all(|text| found.iter().any(|f| f == text)));
        assert!(found.iter().all(|text| text.trim() == "a@b"));
    }
}
