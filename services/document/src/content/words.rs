//! What the words mean: those that stand in this document, and no others.

use std::collections::BTreeSet;

use quittance_domain::outcome::{EvidenceKind, Grade, OutcomeKind};

use super::Context;
use crate::{flow::Flow, language::Word, table::Column};

impl Context<'_> {
    pub fn words(&self, flow: &mut Flow<'_>) {
        let (t, said) = (self.texts, &self.certificate.statement);
        let confirmations = || said.systems.iter().filter_map(|s| s.confirmation.as_ref());
        let lines = || confirmations().flat_map(|c| &c.outcomes);
        let outcomes: BTreeSet<OutcomeKind> = lines().map(|o| o.outcome).collect();
        let grades: BTreeSet<Grade> = lines().map(|o| o.grade).collect();
        let evidence: BTreeSet<EvidenceKind> = confirmations().map(|c| c.evidence.kind).collect();
        let mut words: Vec<Word> = Vec::new();
        words.extend(outcomes.into_iter().map(|kind| self.language.outcome(kind)));
        words.extend(grades.into_iter().map(|grade| self.language.grade(grade)));
        words.extend(evidence.into_iter().map(|kind| self.language.evidence(kind)));
        if confirmations().any(|c| c.backups_expire.is_some()) {
            words.push(Word { name: t.backups, meaning: t.backups_meaning });
        }
        words.push(Word { name: t.asserted, meaning: t.asserted_meaning });
        if said.dates.subject_asked.is_some()
            || said.dates.subject_informed.is_some()
            || said.dates.controller_due.is_some()
        {
            words.push(Word { name: t.by_customer, meaning: t.by_customer_meaning });
        }
        if self.certificate.entries.iter().any(|e| !e.attested.is_empty()) {
            words.push(Word { name: t.witness, meaning: t.attested_meaning });
        }
        let meaning = if said.request.follows.is_some() { t.commitment_meaning_follows } else { t.commitment_meaning };
        words.push(Word { name: t.commitment_term, meaning });
        let rows: Vec<Vec<String>> =
            words.iter().map(|w| vec![super::lower_first(w.name), w.meaning.to_owned()]).collect();
        flow.heading(t.words);
        flow.note(t.words_note);
        flow.table(&[Column::new(t.term, 24.0), Column::new(t.meaning, 76.0)], &rows, t.words);
    }
}
