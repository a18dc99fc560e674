//! How an identifier of a subject is looked for in a column, and how a stored value is told to be the subject's.

use std::collections::HashSet;

use quittance_domain::{
    data_map::Matching,
    identifier::{Identifier, IdentifierKind},
};
use quittance_sql::Engine;

use super::{
    plan::RulePlan,
    schema::{Class, Column},
};
use crate::Subject;

/// How many letters beyond ASCII are tried in both cases: 2^6 forms at most. Longer words are tried in the cases that people write them in.
const FOLDED_MAX: usize = 6;
/// So many forms are those that people write: three on either side of the @.
const WRITTEN_MAX: usize = 9;

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
    if matching != Matching::CaseInsensitive || column.trims(engine) {
        return forms;
    }
    // Around the forms that people write; they come first.
    let written = forms.iter().take(WRITTEN_MAX).flat_map(|form| blanked(form));
    written.chain(forms.iter().skip(WRITTEN_MAX).cloned()).collect()
}

/// A stored text that is the subject's, and that a find asks for.
pub(super) fn is_sought(rule: &RulePlan, stored: &str) -> bool {
    rule.matching != Matching::CaseInsensitive || blanked(stored.trim()).any(|text| text == stored)
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
    let value = identifier.value().expose();
    match matching {
        Matching::Exact if column.accepts(value) => vec![value.clone()],
        Matching::Exact => Vec::new(),
        // SQLite folds ASCII alone; a stored capital beyond it is asked for by name.
        Matching::CaseInsensitive if engine == Engine::Sqlite => cases(&value.to_lowercase()),
        Matching::CaseInsensitive => vec![value.to_lowercase()],
        // The same number, as it is dialled from abroad.
        Matching::Digits => {
            identifier.digit_forms().into_iter().flat_map(|digits| [format!("00{digits}"), digits]).collect()
        }
    }
}

/// Capitals beyond ASCII as SQLite must be asked for them: first as people write them (none, all, at the beginnings of words, on either side of
/// the @), then any, as far as can be tried.
fn cases(lower: &str) -> Vec<String> {
    let (local, domain) = lower.split_once('@').map_or((lower, None), |(local, domain)| (local, Some(domain)));
    let written = |text: &str| [text.to_owned(), capitals(text, false), capitals(text, true)];
    let mut found: Vec<String> = Vec::new();
    for local in written(local) {
        match domain {
            None => found.push(local),
            Some(domain) => found.extend(written(domain).map(|domain| format!("{local}@{domain}"))),
        }
    }
    let mut any = vec![String::new()];
    let mut doubled = 0;
    for c in lower.chars() {
        let upper: String = c.to_uppercase().collect();
        let both = !c.is_ascii() && upper.chars().ne([c]) && doubled < FOLDED_MAX;
        let mut capitals = if both { any.clone() } else { Vec::new() };
        doubled += usize::from(both);
        any.iter_mut().for_each(|text| text.push(c));
        capitals.iter_mut().for_each(|text| text.push_str(&upper));
        any.append(&mut capitals);
    }
    found.append(&mut any);
    let mut met = HashSet::new();
    found.retain(|text| met.insert(text.clone()));
    found
}

/// Capitals beyond ASCII: of every letter, or of each word's first.
fn capitals(lower: &str, firsts: bool) -> String {
    let mut text = String::with_capacity(lower.len());
    let mut within = false;
    for c in lower.chars() {
        if c.is_ascii() || (firsts && within) {
            text.push(c);
        } else {
            text.extend(c.to_uppercase());
        }
        within = c.is_alphanumeric();
    }
    text
}

/// The same decision on a value that was read.
pub(super) fn is_of(rule: &RulePlan, kind: IdentifierKind, subject: &Subject, stored: &str) -> bool {
    subject.identifiers.iter().filter(|i| i.kind() == kind).any(|identifier| is(rule, identifier, stored))
}

/// The same, of one identifier.
pub(super) fn is(rule: &RulePlan, identifier: &Identifier, stored: &str) -> bool {
    let value = identifier.value().expose();
    match rule.matching {
        Matching::Exact if rule.column.class == Class::Uuid => {
            let bare = |text: &str| text.replace('-', "").to_ascii_lowercase();
            bare(value) == bare(stored)
        }
        Matching::Exact => value == stored,
        Matching::CaseInsensitive => stored.trim().to_lowercase() == value.to_lowercase(),
        Matching::Digits => {
            let digits: String = stored.chars().filter(char::is_ascii_digit).collect();
            identifier.digit_forms().iter().any(|wanted| digits == *wanted || digits.strip_prefix("00") == Some(wanted))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_beyond_ascii() {
        assert_eq!(cases("ab@c"), ["ab@c"]);
        let mut found = cases("åsö");
        assert_eq!(found[0], "åsö");
        found.sort();
        assert_eq!(found, ["ÅsÖ", "Åsö", "åsÖ", "åsö"]);
        // Cyrillic: more letters than can be tried in both cases each.
        let found = cases("иван.петров@почта.рф");
        for written in ["иван.петров@почта.рф", "ИВАН.ПЕТРОВ@ПОЧТА.РФ", "Иван.Петров@почта.рф", "ИВАН.ПЕТРОВ@почта.рф"]
        {
            assert!(found.iter().any(|form| form == written), "{written}");
        }
        assert!(cases(&"å".repeat(30)).len() <= (1 << FOLDED_MAX) + WRITTEN_MAX);
    }

    #[test]
    fn blanks_around() {
        let found: Vec<_> = blanked("a@b").collect();
        assert!(["a@b", "a@b ", "\ta@b", " a@b ", "a@b\r\n"].iter().all(|text| found.iter().any(|f| f == text)));
        assert!(found.iter().all(|text| text.trim() == "a@b"));
    }
}
