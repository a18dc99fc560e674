//! `quittance requests certificate`

use std::{path::PathBuf, time::Duration};

use clap::Args;
use quittance_api::v1;
use quittance_client::{Client, ClientError};
use quittance_ledger::certificate::FILE_BYTES_MAX;
use tokio::time::{Instant, sleep, timeout_at};

use super::{super::evidence::Language, Named, missing, wait};
use crate::{
    args::Global,
    failure::{Done, End, Failure},
    files,
    output::{Output, note},
};

pub const HELP: &str = "\
Examples:
  quittance requests certificate 0199b7a4-… --out certificate.json --opening opening.json --wait
  quittance requests certificate 0199b7a4-… --customer acme --out certificate.json --document certificate.pdf --language nl
  quittance verify certificate.json --key log.vkey --subject-opening opening.json";

const PAUSE: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct Certificate {
    #[command(flatten)]
    request: Named,
    /// Where the certificate goes; `-` is standard output.
    #[arg(long, default_value = "-", value_name = "FILE")]
    out: PathBuf,
    /// Where the subject's opening goes: personal data, readable by you alone. Keep it apart from the certificate.
    #[arg(long, value_name = "FILE")]
    opening: Option<PathBuf>,
    /// Also the printable document (PDF/A), and where it goes.
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// The document's.
    #[arg(long, value_enum, default_value = "en", requires = "document")]
    language: Language,
    /// If the request is complete, wait until its certificate is issued, a second or two as a rule.
    #[arg(long)]
    wait: bool,
}

pub async fn run(certificate: Certificate, global: &Global, out: &mut Output) -> Done {
    let request = v1::GetCertificateRequest {
        name: certificate.request.name()?,
        document_language: certificate.language.if_asked(certificate.document.as_deref()),
    };
    let client = global.connect().await?;
    let deadline = wait::deadline(global.timeout);
    let Some(answer) = get(&client, request, certificate.wait.then_some(deadline)).await? else {
        note("the request is complete, and its certificate is not issued yet: ask again");
        return Ok(End::StillOpen);
    };
    let there = |bytes: Vec<u8>| Some(bytes).filter(|bytes| !bytes.is_empty());
    let whole = missing(there(answer.certificate))?;
    if certificate.out.as_os_str() == "-" {
        out.raw(&whole)?;
    } else {
        files::write(&certificate.out, &whole)?;
    }
    if let Some(path) = &certificate.document {
        files::write(path, &missing(there(answer.document))?)?;
    }
    if let Some(path) = &certificate.opening {
        let gone = || {
            Failure::Other(
                "there is no subject opening: it is the customer's alone (use its token), and gone once the request's data are forgotten; a request that \
                 carries on what was kept never has one, and the one that it follows tells whom it is about"
                    .to_owned(),
            )
        };
        files::write(path, &there(answer.subject_opening).ok_or_else(gone)?)?;
    }
    Ok(End::Fine)
}

/// `None` when the time is over.
async fn get(
    client: &Client,
    request: v1::GetCertificateRequest,
    wait_until: Option<Instant>,
) -> Result<Option<v1::GetCertificateResponse>, Failure> {
    loop {
        // As large as a certificate may be, with its opening, and with the document that has it attached.
        let mut service = client.evidence().max_decoding_message_size(3 * FILE_BYTES_MAX);
        let error = match service.get_certificate(request.clone()).await {
            Ok(answer) => return Ok(Some(answer.into_inner())),
            Err(status) => ClientError::from(status),
        };
        let Some(deadline) = wait_until.filter(|_| error.reason() == Some("CERTIFICATE_NOT_ISSUED")) else {
            return Err(error.into());
        };
        // Of a request that is open, none will be there soon; of one that was declined or cancelled, never.
        let named = v1::GetRequestRequest { name: request.name.clone() };
        let state = missing(client.requests().get_request(named).await?.into_inner().request)?.state();
        if !matches!(state, v1::RequestState::Completed | v1::RequestState::CompletedWithExceptions) {
            return Err(error.into());
        }
        if timeout_at(deadline, sleep(PAUSE)).await.is_err() {
            return Ok(None);
        }
    }
}
