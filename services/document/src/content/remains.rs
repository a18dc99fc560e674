//! What was not simply done: holds, exceptions, what is still to come; and who decided what on the way.

use quittance_ledger::certificate::{Decision, Exception, Hold, NotProcessed, NotProcessedCause};

use super::Context;
use crate::{flow::Flow, language::fill, table::Column};

impl Context<'_> {
    pub fn remains(&self, flow: &mut Flow<'_>) {
        let (t, said) = (self.texts, &self.certificate.statement);
        let hold = |h: &Hold| {
            vec![
                self.system_name(&h.system),
                self.named(&h.collection).to_owned(),
                self.named(&h.category).to_owned(),
                h.count.to_string(),
                h.ground.clone(),
                self.clock.both(h.until),
            ]
        };
        let columns = [
            Column::new(t.system, 19.0),
            Column::new(t.collection, 15.0),
            Column::new(t.category, 15.0),
            Column::number(t.count, 7.0),
            Column::new(t.ground, 24.0),
            Column::new(t.until, 20.0),
        ];
        self.list(flow, t.holds, t.holds_note, &columns, said.holds.iter().map(hold).collect());
        let exception = |e: &Exception| {
            vec![
                self.system_name(&e.system),
                self.named(&e.collection).to_owned(),
                self.named(&e.category).to_owned(),
                e.reason.clone(),
            ]
        };
        let columns = [
            Column::new(t.system, 25.0),
            Column::new(t.collection, 16.0),
            Column::new(t.category, 16.0),
            Column::new(t.reason, 43.0),
        ];
        self.list(flow, t.exceptions, t.exceptions_note, &columns, said.exceptions.iter().map(exception).collect());
        let not_processed = |n: &NotProcessed| {
            let until = n.until.map(|until| self.clock.both(until));
            vec![self.system_name(&n.system), self.cause(n), until.unwrap_or_default()]
        };
        let columns = [Column::new(t.system, 28.0), Column::new(t.what, 36.0), Column::new(t.until, 36.0)];
        let rows = said.not_processed.iter().map(not_processed).collect();
        self.list(flow, t.not_processed, t.not_processed_note, &columns, rows);
    }

    pub fn decisions(&self, flow: &mut Flow<'_>) {
        let t = self.texts;
        let row = |d: &Decision| {
            vec![
                self.told(&d.made),
                self.language.decision(d.what).to_owned(),
                d.by.clone(),
                d.system.as_ref().map(|system| self.system_name(system)).unwrap_or_default(),
                d.reason.clone(),
            ]
        };
        let columns = [
            Column::new(t.decided, 24.0),
            Column::new(t.decision, 22.0),
            Column::new(t.by, 14.0),
            Column::new(t.system, 16.0),
            Column::new(t.reason, 24.0),
        ];
        flow.heading(t.decisions);
        let rows: Vec<Vec<String>> = self.certificate.statement.decisions.iter().map(row).collect();
        if rows.is_empty() { flow.paragraph(t.none) } else { flow.table(&columns, &rows, t.decisions) }
    }

    fn cause(&self, line: &NotProcessed) -> String {
        let t = self.texts;
        match line.cause {
            NotProcessedCause::Open => t.not_processed_open.to_owned(),
            NotProcessedCause::NotBegun => t.not_processed_not_begun.to_owned(),
            NotProcessedCause::InBackups => t.not_processed_backups.to_owned(),
            NotProcessedCause::ExpiresLater => {
                let of = [("collection", self.named(&line.collection)), ("category", self.named(&line.category))];
                fill(t.not_processed_expires, &of)
            }
            NotProcessedCause::Withheld => {
                let count = line.count.unwrap_or_default().to_string();
                let of = [
                    ("collection", self.named(&line.collection)),
                    ("category", self.named(&line.category)),
                    ("count", &count),
                ];
                fill(t.not_processed_withheld, &of)
            }
        }
    }

    /// That there is nothing is worth a line, too.
    fn list(&self, flow: &mut Flow<'_>, heading: &str, note: &str, columns: &[Column], rows: Vec<Vec<String>>) {
        flow.heading(heading);
        if rows.is_empty() {
            flow.paragraph(self.texts.none);
        } else {
            flow.note(note);
            flow.table(columns, &rows, heading);
        }
    }
}
