//! What is printed, in each language: a file per language, and no text anywhere else.

mod countries;
mod en;
mod nl;

use quittance_domain::{
    action::{Action, InstructionKind, RestrictionGround},
    country::Country,
    outcome::{EvidenceKind, Grade, OutcomeKind},
    system::{ConnectorKind, SystemRole},
    task::TaskState,
};
use quittance_ledger::certificate::DecisionKind;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Language {
    English,
    Dutch,
}

/// A word of the certificate for people, and what it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    pub name: &'static str,
    pub meaning: &'static str,
}

pub const fn word(name: &'static str, meaning: &'static str) -> Word {
    Word { name, meaning }
}

/// Every language has every text: the struct sees to it. `{name}` stands for what [`fill`] puts there.
macro_rules! texts {
    ($($name:ident),+ $(,)?) => {
        pub struct Texts {
            $(pub $name: &'static str),+
        }

        #[cfg(test)]
        impl Texts {
            fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($name), self.$name)),+]
            }
        }
    };
}

texts!(
    certificate,
    interim_statement,
    closing_statement,
    intro_completed,
    intro_exceptions,
    intro_interim,
    intro_declined,
    intro_cancelled,
    result_completed,
    result_completed_late,
    result_exceptions,
    result_exceptions_late,
    result_open,
    result_open_late,
    result_declined,
    result_declined_late,
    result_cancelled,
    result_cancelled_late,
    code_caption,
    code_alternative,
    instruction,
    dates,
    overview,
    systems,
    holds,
    exceptions,
    not_processed,
    decisions,
    words,
    check,
    controller,
    representative,
    data_protection_officer,
    processor,
    agreement,
    agreement_terms,
    request,
    reference,
    action,
    basis,
    restriction_ground,
    instructed_by,
    instructed_by_referred,
    follow_up,
    follow_up_of,
    follows,
    follows_hold_of,
    person,
    person_commitment,
    issued,
    dates_note,
    event,
    local_time,
    utc,
    word_of,
    subject_asked,
    subject_informed,
    received,
    controller_due,
    first_due,
    extension_decided,
    extension_decided_by,
    extension_due,
    due,
    completed,
    asserted,
    by_customer,
    attested,
    overview_note,
    overview_note_follows,
    system,
    role,
    country,
    connector,
    connector_and_map,
    result,
    confirmed,
    confirmed_in_time,
    confirmed_late,
    evidence,
    evidence_reference,
    evidence_digest,
    read_back,
    read_back_none,
    backups,
    backups_until,
    backups_none,
    planned,
    open_state,
    open,
    not_begun,
    collection,
    category,
    outcome,
    grade,
    count,
    basis_and_until,
    until,
    ground,
    reason,
    holds_note,
    exceptions_note,
    not_processed_note,
    what,
    not_processed_open,
    not_processed_not_begun,
    not_processed_expires,
    not_processed_backups,
    not_processed_withheld,
    none,
    everything,
    no_systems,
    no_systems_ended,
    decided,
    decision,
    by,
    words_note,
    term,
    meaning,
    verified_absent,
    asserted_meaning,
    attested_meaning,
    by_customer_meaning,
    commitment_term,
    commitment_meaning,
    commitment_meaning_follows,
    backups_meaning,
    check_file,
    check_digest,
    check_signed_by,
    check_log,
    check_keys,
    key_current,
    key_retired,
    key_revoked,
    witness,
    witnesses_none,
    check_command,
    check_statement,
    check_alone,
    check_prevails,
    page,
);

impl Language {
    pub const ALL: &'static [Self] = &[Self::English, Self::Dutch];

    /// RFC 3066.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Dutch => "nl",
        }
    }

    pub const fn texts(self) -> &'static Texts {
        match self {
            Self::English => &en::TEXTS,
            Self::Dutch => &nl::TEXTS,
        }
    }

    /// 1 to 12.
    pub fn month(self, number: i8) -> &'static str {
        let months = match self {
            Self::English => &en::MONTHS,
            Self::Dutch => &nl::MONTHS,
        };
        usize::try_from(number - 1).ok().and_then(|n| months.get(n)).copied().unwrap_or_default()
    }

    /// The name with the code; the code alone where we have no name.
    pub fn country(self, country: Country) -> String {
        let code = country.as_str();
        match countries::name(code, self) {
            Some(name) => format!("{name} ({code})"),
            None => code.to_owned(),
        }
    }

    /// The deed, and the article it rests on.
    pub const fn action(self, action: Action) -> Word {
        match self {
            Self::English => en::action(action),
            Self::Dutch => nl::action(action),
        }
    }

    pub const fn outcome(self, outcome: OutcomeKind) -> Word {
        match self {
            Self::English => en::outcome(outcome),
            Self::Dutch => nl::outcome(outcome),
        }
    }

    pub const fn grade(self, grade: Grade) -> Word {
        match self {
            Self::English => en::grade(grade),
            Self::Dutch => nl::grade(grade),
        }
    }

    pub const fn evidence(self, kind: EvidenceKind) -> Word {
        match self {
            Self::English => en::evidence(kind),
            Self::Dutch => nl::evidence(kind),
        }
    }

    pub const fn task_state(self, state: TaskState) -> Word {
        match self {
            Self::English => en::task_state(state),
            Self::Dutch => nl::task_state(state),
        }
    }

    pub const fn instruction(self, kind: InstructionKind) -> &'static str {
        match self {
            Self::English => en::instruction(kind),
            Self::Dutch => nl::instruction(kind),
        }
    }

    pub const fn restriction_ground(self, ground: RestrictionGround) -> &'static str {
        match self {
            Self::English => en::restriction_ground(ground),
            Self::Dutch => nl::restriction_ground(ground),
        }
    }

    pub const fn role(self, role: SystemRole) -> &'static str {
        match self {
            Self::English => en::role(role),
            Self::Dutch => nl::role(role),
        }
    }

    pub const fn connector(self, kind: ConnectorKind) -> &'static str {
        match self {
            Self::English => en::connector(kind),
            Self::Dutch => nl::connector(kind),
        }
    }

    pub const fn decision(self, kind: DecisionKind) -> &'static str {
        match self {
            Self::English => en::decision(kind),
            Self::Dutch => nl::decision(kind),
        }
    }
}

/// Puts values into a text's `{name}`s.
pub fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut rest = text;
    // From left to right, so that a value that looks like a name stays what it is.
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            rest = after;
            continue;
        };
        out.push_str(values.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| value));
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn placeholders(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).collect()
    }

    #[test]
    fn every_language_has_every_text_with_the_same_blanks_to_fill() {
        let (english, dutch) = (Language::English.texts().all(), Language::Dutch.texts().all());
        // Words that are the same in both.
        let same = ["utc", "result_open", "evidence_digest"];
        for ((name, en), (other, nl)) in english.into_iter().zip(dutch) {
            assert_eq!(name, other);
            assert!(!en.trim().is_empty() && !nl.trim().is_empty(), "{name}");
            assert_eq!(placeholders(en), placeholders(nl), "{name}");
            assert!(en != nl || same.contains(&name), "{name} is not translated: {en}");
            assert_eq!(en.matches('{').count(), en.matches('}').count(), "{name}");
        }
    }

    #[test]
    fn every_language_has_every_word_of_a_certificate() {
        let words = |l: Language| -> Vec<Word> {
            let mut all = Vec::new();
            all.extend(Action::ALL.iter().map(|a| l.action(*a)));
            all.extend(OutcomeKind::ALL.iter().map(|o| l.outcome(*o)));
            all.extend(Grade::ALL.iter().map(|g| l.grade(*g)));
            all.extend(EvidenceKind::ALL.iter().map(|e| l.evidence(*e)));
            all.extend(TaskState::ALL.iter().map(|s| l.task_state(*s)));
            all
        };
        let names = |l: Language| -> Vec<&'static str> {
            let mut all = Vec::new();
            all.extend(InstructionKind::ALL.iter().map(|k| l.instruction(*k)));
            all.extend(RestrictionGround::ALL.iter().map(|g| l.restriction_ground(*g)));
            all.extend(SystemRole::ALL.iter().map(|r| l.role(*r)));
            all.extend(ConnectorKind::ALL.iter().map(|c| l.connector(*c)));
            all.extend((1..=12).map(|n| l.month(n)));
            all
        };
        for (en, nl) in words(Language::English).into_iter().zip(words(Language::Dutch)) {
            assert!(!en.name.is_empty() && !nl.name.is_empty() && !nl.meaning.is_empty());
            assert_ne!(en.meaning, nl.meaning);
        }
        for (en, nl) in names(Language::English).into_iter().zip(names(Language::Dutch)) {
            assert!(!en.is_empty() && !nl.is_empty());
        }
        let distinct: BTreeSet<&str> = words(Language::Dutch).iter().map(|w| w.meaning).collect();
        assert_eq!(distinct.len(), words(Language::Dutch).len(), "no meaning stands for two words");
    }

    #[test]
    fn all_of_the_economic_area_has_a_name_in_both() {
        for country in quittance_domain::country::EEA {
            for language in Language::ALL {
                assert!(language.country(country).ends_with(&format!(" ({})", country.as_str())));
            }
        }
        assert_eq!(Language::Dutch.country(Country::parse("SE").unwrap()), "Zweden (SE)");
        assert_eq!(Language::English.country(Country::parse("BV").unwrap()), "BV");
    }

    #[test]
    fn a_value_that_looks_like_a_blank_is_not_filled() {
        assert_eq!(fill("{a} and {b}", &[("a", "{b}"), ("b", "x")]), "{b} and x");
    }
}
