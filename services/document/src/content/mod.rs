//! What the document says, section by section: each member of the certificate's statement once, in words.

mod checking;
mod front;
mod remains;
mod systems;
mod words;

use quittance_domain::{outcome::Outcome, window};
use quittance_ledger::certificate::{Certificate, Opened, StatedTime, TimeSource};

use crate::{
    DocumentError,
    face::{Faces, Style},
    flow::{CONTENT, Flow, MARGIN, PAGE, Piece, Role},
    language::{Language, Texts, fill},
    times::Clock,
};

/// Stands in a certificate for all collections, or all categories.
const EVERYTHING: &str = "*";

pub struct Context<'a> {
    opened: &'a Opened,
    certificate: &'a Certificate,
    language: Language,
    texts: &'static Texts,
    clock: Clock,
}

/// Gives the pages and the title.
pub fn lay_out<'f>(faces: &'f Faces, opened: &Opened, language: Language) -> Result<(Flow<'f>, String), DocumentError> {
    let certificate = &opened.certificate;
    let name = certificate.agreement.time_zone.clone();
    let zone = window::zone(&name).map_err(|_| DocumentError::Zone)?;
    let clock = Clock { zone, name, language };
    let context = Context { opened, certificate, language, texts: language.texts(), clock };
    let mut flow = Flow::new(faces);
    let title = context.front(&mut flow)?;
    context.instruction(&mut flow);
    context.dates(&mut flow);
    context.overview(&mut flow);
    context.statements(&mut flow);
    context.remains(&mut flow);
    context.decisions(&mut flow);
    context.words(&mut flow);
    context.checking(&mut flow);
    context.running_lines(&mut flow, &title);
    Ok((flow, title))
}

impl Context<'_> {
    /// Whose word a time is.
    fn source(&self, time: &StatedTime) -> String {
        match (time.by, &time.attested) {
            (TimeSource::Customer, _) => self.texts.by_customer.to_owned(),
            (TimeSource::Asserted, None) => self.texts.asserted.to_owned(),
            (TimeSource::Asserted, Some(witness)) => {
                let at = Clock::utc(witness.at);
                fill(self.texts.attested, &[("at", &at), ("by", &witness.by)])
            }
        }
    }

    /// In both clocks, with whose word it is.
    fn told(&self, time: &StatedTime) -> String {
        format!("{} ({})", self.clock.both(time.at), lower_first(&self.source(time)))
    }

    fn named<'t>(&self, text: &'t str) -> &'t str
    where
        'static: 't,
    {
        if text == EVERYTHING { self.texts.everything } else { text }
    }

    fn system_name(&self, id: &quittance_domain::ids::SystemId) -> String {
        let system = self.certificate.statement.systems.iter().find(|s| s.id == *id);
        system.map_or_else(|| id.to_string(), |s| s.display_name.clone())
    }

    /// Ground or reason, and until when, of one line of a confirmation.
    fn basis(&self, outcome: &Outcome) -> String {
        let until = outcome.until.map(|until| format!("{} {}", lower_first(self.texts.until), self.clock.both(until)));
        let basis = Some(outcome.basis.clone()).filter(|basis| !basis.is_empty());
        [basis, until].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// On every page: where it belongs, and how many there are. For the eye only.
    fn running_lines(&self, flow: &mut Flow<'_>, title: &str) {
        const SIZE: f32 = 7.5;
        let face = flow.faces.of(Style::Regular);
        let pages = flow.pages.len();
        let request = self.certificate.statement.request.id;
        let head = face.printable(&format!("{title} \u{b7} {request}"));
        let digest = format!("SHA-256 {}", self.opened.sha256);
        for (n, page) in flow.pages.iter_mut().enumerate() {
            let number = fill(self.texts.page, &[("page", &(n + 1).to_string()), ("pages", &pages.to_string())]);
            let line = |x, baseline, text: &str, role, style| Piece::Text {
                x,
                baseline,
                style,
                size: if style == Style::Mono { 6.0 } else { SIZE },
                grey: 90,
                text: text.to_owned(),
                role,
            };
            if n > 0 {
                page.push(line(MARGIN, 42.0, &head, Role::RunningHead, Style::Regular));
                page.push(Piece::Bar { x: MARGIN, y: 47.0, width: CONTENT, height: 0.4, grey: 175 });
            }
            let foot = PAGE.1 - 36.0;
            let right = PAGE.0 - MARGIN - face.width(&number, SIZE);
            page.push(Piece::Bar { x: MARGIN, y: foot - 11.0, width: CONTENT, height: 0.4, grey: 175 });
            page.push(line(MARGIN, foot, &digest, Role::RunningFoot, Style::Mono));
            page.push(line(right, foot, &number, Role::RunningFoot, Style::Regular));
        }
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
