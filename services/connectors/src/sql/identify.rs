//! How an identifier of a subject is looked for in a column, and how a stored value is told to be the subject's.

use quittance_domain::{
    data_map::Matching,
    identifier::{Identifier, IdentifierKind},
};
use quittance_sql::Engine;

use super::{plan::RulePlan, schema::Class};
use crate::Subject;

/// How many letters beyond ASCII are tried in both cases: 2^6 forms at most.
const FOLDED_MAX: usize = 6;

/// The texts that a batch asks for. Empty where the column cannot hold the identifier.
pub(super) fn forms(engine: Engine, rule: &RulePlan, kind: IdentifierKind, subject: &Subject) -> Vec<String> {
    let mut forms = Vec::new();
    for identifier in subject.identifiers.iter().filter(|i| i.kind() == kind) {
        let value = identifier.value().expose();
        match rule.matching {
            Matching::Exact if rule.column.accepts(value) => forms.push(value.clone()),
            Matching::Exact => {}
            // SQLite folds ASCII alone; a stored capital beyond it is asked for by name.
            Matching::CaseInsensitive if engine == Engine::Sqlite => forms.extend(cases(&value.to_lowercase())),
            Matching::CaseInsensitive => forms.push(value.to_lowercase()),
            Matching::Digits => {
                let digits = identifier.matches_digits();
                if !digits.is_empty() {
                    // The same number, as it is dialled from abroad.
                    forms.push(format!("00{digits}"));
                    forms.push(digits);
                }
            }
        }
    }
    forms
}

fn cases(lower: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut doubled = 0;
    for c in lower.chars() {
        let upper: String = c.to_uppercase().collect();
        let both = !c.is_ascii() && upper.chars().ne([c]) && doubled < FOLDED_MAX;
        let mut capitals = if both { found.clone() } else { Vec::new() };
        doubled += usize::from(both);
        found.iter_mut().for_each(|text| text.push(c));
        capitals.iter_mut().for_each(|text| text.push_str(&upper));
        found.append(&mut capitals);
    }
    found
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
        Matching::CaseInsensitive => stored.to_lowercase() == value.to_lowercase(),
        Matching::Digits => {
            let wanted = identifier.matches_digits();
            let digits: String = stored.chars().filter(char::is_ascii_digit).collect();
            !wanted.is_empty() && (digits == wanted || digits.strip_prefix("00") == Some(wanted.as_str()))
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
        found.sort();
        assert_eq!(found, ["ÅsÖ", "Åsö", "åsÖ", "åsö"]);
        assert_eq!(cases(&"å".repeat(30)).len(), 1 << FOLDED_MAX);
    }
}
