//! The certificate on paper: the same facts as in the signed file, for people to read, as PDF/A in English or Dutch. It states nothing
//! of its own; the signed file prevails, and is attached to the document.

mod content;
mod draw;
mod face;
mod flow;
mod language;
mod table;
mod tags;
mod times;

use quittance_ledger::certificate::{CertificateFault, TrustedKey, check_consistency, open};

pub use language::Language;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DocumentError {
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    #[error("the agreement's time zone is not one")]
    Zone,
    #[error("a font cannot be read")]
    Font,
    #[error("the document cannot be set up")]
    Configuration,
    #[error("the document does not fit a QR code")]
    Code,
    #[error("the document would break a rule of PDF/A or PDF/UA: {0}")]
    Standard(String),
}

/// Renders a certificate's file, after checking it: what is printed is what was signed. The same file, keys and language give the same
/// bytes.
pub fn render(file: &[u8], trusted: &[TrustedKey], language: Language) -> Result<Vec<u8>, DocumentError> {
    let opened = open(file, trusted)?;
    check_consistency(&opened.certificate)?;
    let faces = face::Faces::load()?;
    let (flow, title) = content::lay_out(&faces, &opened, language)?;
    let certificate = &opened.certificate;
    let about = draw::About {
        description: format!("{title}, {}", certificate.statement.request.id),
        title,
        author: certificate.issuer.name.clone(),
        language: language.tag(),
        issued_at: certificate.issued.at,
        id: format!("sha256:{}:{}", opened.sha256, language.tag()),
        file,
    };
    draw::draw(&faces, flow, &about)
}
