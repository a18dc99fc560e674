//! Which systems there are, and what each of them stated.

use std::collections::BTreeSet;

use quittance_domain::outcome::{Grade, Outcome, OutcomeKind};
use quittance_ledger::certificate::{CertifiedState, ConfirmationStatement, SystemStatement};

use super::Context;
use crate::{flow::Flow, language::fill, table::Column};

impl Context<'_> {
    pub fn overview(&self, flow: &mut Flow<'_>) {
        let (t, systems) = (self.texts, &self.certificate.statement.systems);
        flow.heading(t.overview);
        if systems.is_empty() {
            let is_open = self.certificate.statement.state == CertifiedState::Interim;
            flow.paragraph(if is_open { t.no_systems } else { t.no_systems_ended });
            return;
        }
        let request = &self.certificate.statement.request;
        match request.follows.or(request.follow_up.as_ref().map(|f| f.follows)) {
            None => flow.note(t.overview_note),
            Some(first) => flow.note(&fill(t.overview_note_follows, &[("request", &first.to_string())])),
        }
        let columns = [
            Column::new(t.system, 25.0),
            Column::new(t.role, 17.0),
            Column::new(t.country, 15.0),
            Column::new(t.connector, 19.0),
            Column::new(t.result, 24.0),
        ];
        let row = |s: &SystemStatement| {
            let connection =
                [("connector", self.language.connector(s.connector)), ("version", &s.map_version.to_string())];
            vec![
                s.display_name.clone(),
                self.language.role(s.role).to_owned(),
                self.language.country(s.country),
                fill(t.connector_and_map, &connection),
                self.result_in_short(s),
            ]
        };
        flow.table(&columns, &systems.iter().map(row).collect::<Vec<_>>(), t.overview);
    }

    fn result_in_short(&self, system: &SystemStatement) -> String {
        let t = self.texts;
        let Some(confirmation) = &system.confirmation else {
            return if system.open.is_some() { t.open } else { t.not_begun }.to_owned();
        };
        let kinds: BTreeSet<OutcomeKind> = confirmation.outcomes.iter().map(|o| o.outcome).collect();
        kinds.into_iter().map(|kind| self.language.outcome(kind).name).collect::<Vec<_>>().join(", ")
    }

    pub fn statements(&self, flow: &mut Flow<'_>) {
        let (t, systems) = (self.texts, &self.certificate.statement.systems);
        flow.heading(t.systems);
        if systems.is_empty() {
            flow.paragraph(t.none);
        }
        for system in systems {
            flow.subheading(&format!("{} (systems/{})", system.display_name, system.id));
            match &system.confirmation {
                Some(confirmation) => self.confirmation(flow, system, confirmation),
                None => self.open(flow, system),
            }
        }
    }

    fn open(&self, flow: &mut Flow<'_>, system: &SystemStatement) {
        let t = self.texts;
        let mut facts = vec![(t.planned, self.told(&system.planned))];
        match &system.open {
            Some(open) => {
                let state = self.language.task_state(open.state);
                facts.push((t.open_state, format!("{}. {}", super::upper_first(state.name), state.meaning)));
                if !open.reason.is_empty() {
                    facts.push((t.reason, open.reason.clone()));
                }
            }
            None => facts.push((t.open_state, t.not_processed_not_begun.to_owned())),
        }
        flow.facts(&facts);
    }

    fn confirmation(&self, flow: &mut Flow<'_>, system: &SystemStatement, said: &ConfirmationStatement) {
        let t = self.texts;
        let confirmed = if said.late { t.confirmed_late } else { t.confirmed_in_time };
        let confirmed = fill(confirmed, &[("time", &self.told(&said.confirmed)), ("by", &said.confirmed_by)]);
        let kind = self.language.evidence(said.evidence.kind);
        let mut evidence = vec![super::upper_first(kind.name)];
        if !said.evidence.reference.is_empty() {
            evidence.push(fill(t.evidence_reference, &[("reference", &said.evidence.reference)]));
        }
        if let Some(digest) = said.evidence.sha256 {
            evidence.push(fill(t.evidence_digest, &[("digest", &digest.to_string())]));
        }
        if said.read_back.is_none() {
            evidence.push(self.told(&said.evidence.at));
        }
        let read_back = said.read_back.as_ref().map(|at| self.told(at));
        let backups = said.backups_expire.as_ref().map(|at| fill(t.backups_until, &[("time", &self.told(at))]));
        flow.facts(&[
            (t.planned, self.told(&system.planned)),
            (t.confirmed, confirmed),
            (t.evidence, evidence.join("; ")),
            (t.read_back, read_back.unwrap_or_else(|| t.read_back_none.to_owned())),
            (t.backups, backups.unwrap_or_else(|| t.backups_none.to_owned())),
        ]);
        let columns = [
            Column::new(t.collection, 22.0),
            Column::new(t.category, 16.0),
            Column::new(t.outcome, 14.0),
            Column::new(t.grade, 15.0),
            Column::number(t.count, 7.0),
            Column::new(t.basis_and_until, 30.0),
        ];
        let row = |o: &Outcome| {
            vec![
                self.named(&o.collection).to_owned(),
                self.named(&o.category).to_owned(),
                self.language.outcome(o.outcome).name.to_owned(),
                self.grade(o).to_owned(),
                o.count.to_string(),
                self.basis(o),
            ]
        };
        let summary = format!("{}: {}", t.outcome, system.display_name);
        flow.table(&columns, &said.outcomes.iter().map(row).collect::<Vec<_>>(), &summary);
    }

    /// What is gone, or never was, was verified *absent*.
    fn grade(&self, outcome: &Outcome) -> &'static str {
        match (outcome.outcome, outcome.grade) {
            (OutcomeKind::Erased | OutcomeKind::NotHeld, Grade::Verified) => self.texts.verified_absent,
            (_, grade) => self.language.grade(grade).name,
        }
    }
}
