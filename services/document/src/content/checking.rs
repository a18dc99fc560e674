//! How the reader can check it all, without the processor.

use quittance_ledger::certificate::{KeyStatus, LogKey};

use super::Context;
use crate::{flow::Flow, language::fill, times::Clock};

impl Context<'_> {
    pub fn checking(&self, flow: &mut Flow<'_>) {
        let (t, log) = (self.texts, &self.certificate.log);
        let mut facts = vec![
            (t.check_file, "certificate.json".to_owned()),
            (t.check_digest, self.opened.sha256.to_string()),
            (t.check_signed_by, self.opened.signed_by.join(", ")),
            (t.check_log, log.origin.clone()),
        ];
        facts.extend(log.keys.iter().map(|key| (t.check_keys, self.key(key))));
        facts.extend(log.witnesses.iter().map(|w| (t.witness, format!("{}: {}", w.name, w.vkey))));
        if log.witnesses.is_empty() {
            facts.push((t.witness, t.witnesses_none.to_owned()));
        }
        let entries = self.certificate.entries.len().to_string();
        flow.heading(t.check);
        flow.paragraph(t.check_command);
        flow.facts(&facts);
        flow.paragraph(&fill(t.check_statement, &[("entries", &entries)]));
        flow.paragraph(t.check_alone);
        flow.paragraph(t.check_prevails);
    }

    fn key(&self, key: &LogKey) -> String {
        let text = match key.status {
            KeyStatus::Current => self.texts.key_current,
            KeyStatus::Retired => self.texts.key_retired,
            KeyStatus::Revoked => self.texts.key_revoked,
        };
        let (from, to) = (Clock::utc(key.from), key.to.map(Clock::utc).unwrap_or_default());
        format!("{} ({})", key.vkey, fill(text, &[("from", &from), ("to", &to)]))
    }
}
