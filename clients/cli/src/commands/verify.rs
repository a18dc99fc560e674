//! `quittance verify`: no network, no service, nothing but the file and the keys.

use std::path::PathBuf;

use clap::Args;
use quittance_ledger::certificate::{FILE_BYTES_MAX, OPENING_BYTES_MAX};
use quittance_verify::{Failure as Refusal, Policy, Report, verify_certificate};
use serde::Serialize;

use crate::{
    failure::{Done, End, Failure},
    files, keys,
    output::Output,
};

pub const HELP: &str = "\
Take the key from where its owner publishes it, never from the file: the keys in there are a hint only. A key's text looks like
log.processor.example/quittance+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k

Examples:
  quittance verify certificate.json --key log.vkey
  quittance verify certificate.json --key log.vkey --witness witness.vkey --require-witnesses 1 --subject-opening opening.json

Exit codes: 0 verified; 1 refused, with the reason; 2 wrong usage, or a file that cannot be read.";

#[derive(Args)]
pub struct Verify {
    /// The certificate or statement; `-` is standard input.
    #[arg(value_name = "CERTIFICATE")]
    file: PathBuf,
    /// The log's public key, or a file with it. More than one where the log's key was replaced.
    #[arg(long = "key", required = true, value_name = "KEY")]
    keys: Vec<String>,
    /// A witness's public key, or a file with some.
    #[arg(long = "witness", value_name = "KEY")]
    witnesses: Vec<String>,
    /// How many of these witnesses must have cosigned.
    #[arg(long, default_value_t = 0, value_name = "N")]
    require_witnesses: usize,
    /// The file that tells whom it is about.
    #[arg(long, value_name = "FILE")]
    subject_opening: Option<PathBuf>,
}

#[derive(Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
enum Verdict {
    Verified {
        document: String,
        customer: String,
        request: String,
        state: quittance_ledger::certificate::CertifiedState,
        sha256: String,
        checked: Vec<String>,
        not_checked: Vec<String>,
    },
    Refused {
        reason: String,
    },
}

impl From<Result<Report, Refusal>> for Verdict {
    fn from(verified: Result<Report, Refusal>) -> Self {
        match verified {
            Ok(report) => Self::Verified {
                document: report.kind.to_string(),
                customer: report.certificate.customer.id.to_string(),
                request: report.certificate.statement.request.id.to_string(),
                state: report.certificate.statement.state,
                sha256: report.sha256.to_string(),
                checked: report.checked.iter().map(ToString::to_string).collect(),
                not_checked: report.unchecked.iter().map(ToString::to_string).collect(),
            },
            Err(refusal) => Self::Refused { reason: refusal.to_string() },
        }
    }
}

pub fn run(verify: &Verify, out: &mut Output) -> Done {
    let (log, witnesses) = (keys::read(&verify.keys)?, keys::read(&verify.witnesses)?);
    let policy = Policy::new(log, witnesses, verify.require_witnesses);
    let policy = policy.map_err(|fault| Failure::Usage(fault.to_string()))?;
    let file = files::bytes(&verify.file, FILE_BYTES_MAX)?;
    let opening = verify.subject_opening.as_deref().map(|path| files::bytes(path, OPENING_BYTES_MAX)).transpose()?;
    let verified = verify_certificate(&file, &policy).and_then(|report| match opening {
        Some(opening) => report.with_subject_opening(&opening),
        None => Ok(report),
    });
    let end = if verified.is_ok() { End::Fine } else { End::Wrong };
    end.after(show(&verified.into(), out))
}

fn show(verdict: &Verdict, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.document(verdict);
    }
    match verdict {
        Verdict::Verified { document, customer, request, sha256, checked, not_checked, .. } => {
            checked.iter().try_for_each(|line| out.line(&format!("checked: {line}")))?;
            not_checked.iter().try_for_each(|line| out.line(&format!("NOT checked: {line}")))?;
            out.line(&format!("VERIFIED: {document} of customers/{customer}/requests/{request}, SHA-256 {sha256}"))
        }
        Verdict::Refused { reason } => out.line(&format!("REFUSED: {reason}")),
    }
}
