//! The first page: what it is, what came of it, the instruction and its dates.

use krilla::tagging::Tag;
use qrcode::{EcLevel, QrCode};
use quittance_ledger::certificate::{CertifiedState, StatedTime};

use super::{Context, upper_first};
use crate::{
    DocumentError,
    flow::{CONTENT, Flow, MARGIN, PAGE, Piece, Role},
    language::fill,
    table::Column,
    times::Clock,
};

const CODE_SIDE: f32 = 88.0;
/// Four modules of white around the code: without them a camera does not find it.
const QUIET: f32 = 10.0;

impl Context<'_> {
    /// Gives the title.
    pub fn front(&self, flow: &mut Flow<'_>) -> Result<String, DocumentError> {
        let (t, said) = (self.texts, &self.certificate.statement);
        let action = self.language.action(said.request.action);
        let heading = match said.state {
            CertifiedState::Completed | CertifiedState::CompletedWithExceptions => t.certificate,
            CertifiedState::Interim => t.interim_statement,
            CertifiedState::Declined | CertifiedState::Cancelled => t.closing_statement,
        };
        let title = fill(heading, &[("action", action.name)]);
        let width = CONTENT - CODE_SIDE - 18.0;
        let top = flow.y;
        flow.title(&title, width);
        flow.paragraph_within(action.meaning, width, 10.5, 70);
        flow.space(4.0);
        flow.framed(self.result(), width);
        flow.space(2.0);
        self.code(flow, top)?;
        flow.y = flow.y.max(top + CODE_SIDE + QUIET + 22.0);
        flow.paragraph(&self.introduction());
        Ok(title)
    }

    fn result(&self) -> &'static str {
        let (t, said) = (self.texts, &self.certificate.statement);
        match (said.state, said.dates.late) {
            (CertifiedState::Completed, false) => t.result_completed,
            (CertifiedState::Completed, true) => t.result_completed_late,
            (CertifiedState::CompletedWithExceptions, false) => t.result_exceptions,
            (CertifiedState::CompletedWithExceptions, true) => t.result_exceptions_late,
            (CertifiedState::Interim, false) => t.result_open,
            (CertifiedState::Interim, true) => t.result_open_late,
            (CertifiedState::Declined, false) => t.result_declined,
            (CertifiedState::Declined, true) => t.result_declined_late,
            (CertifiedState::Cancelled, false) => t.result_cancelled,
            (CertifiedState::Cancelled, true) => t.result_cancelled_late,
        }
    }

    fn introduction(&self) -> String {
        let (t, said) = (self.texts, &self.certificate.statement);
        let text = match said.state {
            CertifiedState::Completed => t.intro_completed,
            CertifiedState::CompletedWithExceptions => t.intro_exceptions,
            CertifiedState::Interim => t.intro_interim,
            CertifiedState::Declined => t.intro_declined,
            CertifiedState::Cancelled => t.intro_cancelled,
        };
        let confirmed = said.systems.iter().filter(|s| s.confirmation.is_some()).count();
        let values = [
            ("processor", self.certificate.issuer.name.as_str()),
            ("controller", &self.certificate.customer.display_name),
            ("systems", &said.systems.len().to_string()),
            ("confirmed", &confirmed.to_string()),
        ];
        fill(text, &values)
    }

    /// The digest of the signed file as a QR code, with its caption, at the top right.
    fn code(&self, flow: &mut Flow<'_>, top: f32) -> Result<(), DocumentError> {
        let digest = format!("sha256:{}", self.opened.sha256);
        let code = QrCode::with_error_correction_level(&digest, EcLevel::M).map_err(|_| DocumentError::Code)?;
        let modules: Vec<bool> = code.to_colors().into_iter().map(|color| color == qrcode::Color::Dark).collect();
        let modules: Vec<Vec<bool>> = modules.chunks(code.width()).map(<[bool]>::to_vec).collect();
        let place = flow.place();
        let alternative = fill(self.texts.code_alternative, &[("digest", &digest)]);
        let figure = flow.structure.under(place, Tag::Figure(Some(alternative)));
        let x = PAGE.0 - MARGIN - CODE_SIDE;
        flow.put(Piece::Matrix { x, y: top, side: CODE_SIDE, modules, role: Role::Content(figure) });
        flow.caption(self.texts.code_caption, x, top + CODE_SIDE + QUIET, CODE_SIDE);
        Ok(())
    }

    pub fn instruction(&self, flow: &mut Flow<'_>) {
        let (t, c) = (self.texts, self.certificate);
        let (request, customer, terms) = (&c.statement.request, &c.customer, &c.agreement);
        let action = self.language.action(request.action);
        let controller = match customer.controller.as_str() {
            "" => customer.display_name.clone(),
            name => name.to_owned(),
        };
        let signed = self.clock.day(terms.signed);
        let agreement = [
            ("version", terms.version.to_string()),
            ("signed", signed),
            ("days", terms.window_days.to_string()),
            ("zone", terms.time_zone.clone()),
        ];
        let agreement: Vec<(&str, &str)> = agreement.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let by = match request.referred {
            true => fill(t.instructed_by_referred, &[("by", &request.instructed_by)]),
            false => request.instructed_by.clone(),
        };
        let commitment = request.subject.to_string();
        let ground = request.restriction_ground.map(|ground| self.language.restriction_ground(ground).to_owned());
        let again = request
            .follow_up
            .as_ref()
            .map(|f| fill(t.follow_up_of, &[("request", &f.follows.to_string()), ("system", f.system.as_str())]));
        let kept = request.follows.map(|first| fill(t.follows_hold_of, &[("request", &first.to_string())]));
        let facts = [
            (t.controller, format!("{controller} (customers/{})", customer.id)),
            (t.representative, customer.representative.clone()),
            (t.data_protection_officer, customer.data_protection_officer.clone()),
            (t.processor, format!("{} ({})", c.issuer.name, c.issuer.deployment)),
            (t.agreement, fill(t.agreement_terms, &agreement)),
            (t.request, request.id.to_string()),
            (t.reference, request.reference.clone()),
            (t.action, format!("{} ({})", upper_first(action.name), action.meaning)),
            (t.basis, self.language.instruction(request.instruction).to_owned()),
            (t.restriction_ground, ground.unwrap_or_default()),
            (t.instructed_by, by),
            (t.follow_up, again.unwrap_or_default()),
            (t.follows, kept.unwrap_or_default()),
            (t.person, fill(t.person_commitment, &[("commitment", &commitment)])),
            (t.issued, self.told(&c.issued)),
        ];
        flow.heading(t.instruction);
        flow.facts(&facts.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>());
    }

    pub fn dates(&self, flow: &mut Flow<'_>) {
        let (t, dates) = (self.texts, &self.certificate.statement.dates);
        let row = |event: &str, time: &StatedTime| {
            vec![event.to_owned(), self.clock.local(time.at), Clock::utc(time.at), self.source(time)]
        };
        let mut rows: Vec<Vec<String>> = Vec::new();
        let mut put = |event: &str, time: Option<&StatedTime>| rows.extend(time.map(|time| row(event, time)));
        put(t.subject_asked, dates.subject_asked.as_ref());
        put(t.subject_informed, dates.subject_informed.as_ref());
        put(t.received, Some(&dates.received));
        put(t.controller_due, dates.controller_due.as_ref());
        put(t.first_due, Some(&dates.first_due));
        for extension in &dates.extensions {
            let decided = match extension.by.as_str() {
                "" => fill(t.extension_decided, &[("reason", &extension.reason)]),
                by => fill(t.extension_decided_by, &[("by", by), ("reason", &extension.reason)]),
            };
            put(&decided, Some(&extension.decided));
            put(t.extension_due, Some(&extension.due));
        }
        put(t.due, Some(&dates.due));
        put(t.completed, dates.completed.as_ref());
        let columns = [
            Column::new(t.event, 27.0),
            Column::new(t.local_time, 23.0),
            Column::new(t.utc, 26.0),
            Column::new(t.word_of, 24.0),
        ];
        flow.heading(t.dates);
        flow.note(&fill(t.dates_note, &[("zone", &self.clock.name)]));
        flow.table(&columns, &rows, t.dates);
    }
}
