//! `quittance tasks …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quittance_api::v1;
use serde::Deserialize;

use super::missing;
use crate::{
    args::Global,
    failure::{Done, End, Failure},
    files,
    output::Output,
    resource,
    short_names::ShortName,
    times, view,
};

#[derive(Subcommand)]
pub enum Command {
    /// Lets a task that needs attention run again.
    Retry(Named),
    /// Confirms a task that needs attention with evidence, or gives it up with a reason.
    #[command(after_help = RESOLVE_HELP)]
    Resolve(Resolve),
}

const RESOLVE_HELP: &str = "\
Examples:
  quittance tasks resolve customers/acme/requests/0199b7a4-…/tasks/mailer --unconfirmed 'the vendor was wound up'
  quittance tasks resolve 0199b7a4-… --customer acme --system mailer -f resolution.yaml --document letter.pdf

resolution.yaml:
  outcomes:
    - {collection: contacts, category: email, outcome: erased, grade: executed, count: 1}
  evidence:                      # may be left out beside --document
    kind: signed_statement       # vendor_receipt, document_digest, …
    reference: letter 2026-117
    sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    time: 2026-03-01T09:00:00Z";

#[derive(Args)]
pub struct Named {
    /// The task's full name, or its request with --system.
    task: String,
    /// The task's system.
    #[arg(long)]
    system: Option<String>,
    /// The customer, where the request is named by its id.
    #[arg(long)]
    customer: Option<String>,
}

impl Named {
    fn name(&self) -> Result<String, Failure> {
        resource::task(&self.task, self.system.as_deref(), self.customer.as_deref())
    }
}

#[derive(Args)]
pub struct Resolve {
    #[command(flatten)]
    task: Named,
    /// Outcomes and evidence from a YAML file (see the example below); `-` is standard input.
    #[arg(long, short, required_unless_present = "unconfirmed")]
    file: Option<PathBuf>,
    /// Give up, with this reason: nothing is claimed, and the request ends with exceptions. No personal data.
    #[arg(long, value_name = "REASON", conflicts_with = "file")]
    unconfirmed: Option<String>,
    /// The document that shows it, as a letter of the sub-processor's. It stays here: its SHA-256 digest becomes the evidence.
    #[arg(long)]
    document: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResolutionFile {
    outcomes: Vec<OutcomeFile>,
    #[serde(default)]
    evidence: EvidenceFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeFile {
    collection: String,
    category: String,
    outcome: String,
    grade: String,
    #[serde(default)]
    count: u64,
    #[serde(default)]
    basis: String,
    until: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceFile {
    /// May be left out beside a document.
    kind: Option<String>,
    #[serde(default)]
    reference: String,
    #[serde(default)]
    sha256: String,
    time: Option<String>,
}

fn time(field: &str, text: Option<&String>) -> Result<Option<prost_types::Timestamp>, Failure> {
    text.map(|text| times::parse(text).map_err(|problem| Failure::Usage(format!("{field}: {problem}")))).transpose()
}

impl ResolutionFile {
    fn into_proto(self, digest: Option<String>) -> Result<(Vec<v1::Outcome>, v1::Evidence), Failure> {
        let wrong = |field: String| move |problem: String| Failure::Usage(format!("{field}: {problem}"));
        let mut outcomes = Vec::new();
        for (at, o) in self.outcomes.into_iter().enumerate() {
            let field = |name: &str| format!("outcomes[{at}].{name}");
            outcomes.push(v1::Outcome {
                outcome: v1::OutcomeKind::parse(&o.outcome).map_err(wrong(field("outcome")))?.into(),
                grade: v1::Grade::parse(&o.grade).map_err(wrong(field("grade")))?.into(),
                until: time(&field("until"), o.until.as_ref())?,
                collection: o.collection,
                category: o.category,
                count: o.count,
                basis: o.basis,
            });
        }
        let kind = match (&self.evidence.kind, &digest) {
            (Some(kind), _) => v1::EvidenceKind::parse(kind).map_err(wrong("evidence.kind".to_owned()))?,
            (None, Some(_)) => v1::EvidenceKind::DocumentDigest,
            (None, None) => {
                return Err(Failure::Usage("evidence.kind: say what it rests on, or give --document".into()));
            }
        };
        let sha256 = match digest {
            Some(digest) if self.evidence.sha256.is_empty() || self.evidence.sha256 == digest => digest,
            Some(_) => {
                return Err(Failure::Usage("evidence.sha256: is not the document's: is it the right one?".into()));
            }
            None => self.evidence.sha256,
        };
        let evidence = v1::Evidence {
            kind: kind.into(),
            time: time("evidence.time", self.evidence.time.as_ref())?,
            reference: self.evidence.reference,
            sha256,
        };
        if outcomes.iter().any(|o| o.outcome() != v1::OutcomeKind::Unconfirmed) {
            check_named(&evidence)?;
        }
        Ok((outcomes, evidence))
    }
}

/// The service refuses it, too; here it is said in the file's and the options' words.
fn check_named(evidence: &v1::Evidence) -> Result<(), Failure> {
    use v1::EvidenceKind as E;
    let digest = !evidence.sha256.is_empty();
    let reference = !evidence.reference.trim().is_empty();
    match evidence.kind() {
        E::DocumentDigest if !digest => {
            Err(Failure::Usage("evidence.sha256: say which document it is, or give it with --document".into()))
        }
        E::VendorReceipt | E::SignedStatement | E::RetentionExpiry if !digest && !reference => Err(Failure::Usage(
            "evidence.reference: say which one it is, as `letter 2026-117`, or give the document with --document"
                .into(),
        )),
        _ => Ok(()),
    }
}

/// Nothing is claimed; a document may show why.
fn given_up(reason: String, digest: Option<String>) -> (Vec<v1::Outcome>, v1::Evidence) {
    let outcome = v1::Outcome {
        collection: "*".to_owned(),
        category: "*".to_owned(),
        outcome: v1::OutcomeKind::Unconfirmed.into(),
        grade: v1::Grade::None.into(),
        count: 0,
        basis: reason,
        until: None,
    };
    let evidence = v1::Evidence {
        kind: match digest {
            Some(_) => v1::EvidenceKind::DocumentDigest.into(),
            None => v1::EvidenceKind::OperatorStatement.into(),
        },
        sha256: digest.unwrap_or_default(),
        time: Some(std::time::SystemTime::now().into()),
        ..Default::default()
    };
    (vec![outcome], evidence)
}

fn show(task: Option<v1::Task>, out: &mut Output) -> Done {
    let task = view::Task::from(missing(task)?);
    if out.is_json() {
        out.document(&task)?;
    } else {
        out.table(&view::Task::table(&[task]))?;
    }
    Ok(End::Fine)
}

pub async fn run(command: Command, global: &Global, out: &mut Output) -> Done {
    match command {
        Command::Retry(named) => {
            let request = v1::RetryTaskRequest { name: named.name()? };
            let client = global.connect().await?;
            show(client.requests().retry_task(request).await?.into_inner().task, out)
        }
        Command::Resolve(resolve) => {
            let name = resolve.task.name()?;
            let digest = resolve.document.as_deref().map(files::sha256).transpose()?;
            let (outcomes, evidence) = match &resolve.file {
                Some(path) => files::yaml::<ResolutionFile>(path)?.into_proto(digest)?,
                None => given_up(resolve.unconfirmed.unwrap_or_default(), digest),
            };
            let request = v1::ResolveTaskRequest { name, outcomes, evidence: Some(evidence) };
            let client = global.connect().await?;
            show(client.requests().resolve_task(request).await?.into_inner().task, out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_help_is_read() {
        let (_, yaml) = RESOLVE_HELP.split_once("resolution.yaml:\n").unwrap();
        let (outcomes, evidence) = files::parse_yaml::<ResolutionFile>(yaml).unwrap().into_proto(None).unwrap();
        assert_eq!(outcomes[0].outcome(), v1::OutcomeKind::Erased);
        assert_eq!(evidence.kind(), v1::EvidenceKind::SignedStatement);
        assert!(evidence.time.is_some());
    }

    #[test]
    fn a_document_is_evidence_by_its_digest() {
        let outcomes = "outcomes: [{collection: a, category: b, outcome: erased, grade: executed}]\n";
        let read = |evidence: &str, digest: Option<&str>| {
            let file = files::parse_yaml::<ResolutionFile>(&format!("{outcomes}{evidence}")).unwrap();
            file.into_proto(digest.map(str::to_owned)).map(|(_, evidence)| (evidence.kind(), evidence.sha256))
        };
        let digest = "e3b0";
        assert_eq!(read("", Some(digest)).unwrap(), (v1::EvidenceKind::DocumentDigest, digest.to_owned()));
        let letter = "evidence: {kind: signed_statement}";
        assert_eq!(read(letter, Some(digest)).unwrap(), (v1::EvidenceKind::SignedStatement, digest.to_owned()));
        assert!(read("evidence: {kind: signed_statement, sha256: ffff}", Some(digest)).is_err());
        assert!(read("", None).is_err());
        for (vague, field) in [
            ("evidence: {kind: signed_statement}", "evidence.reference"),
            ("evidence: {kind: vendor_receipt, reference: ' '}", "evidence.reference"),
            ("evidence: {kind: document_digest, reference: letter 7}", "evidence.sha256"),
        ] {
            let refused = read(vague, None).unwrap_err().to_string();
            assert!(refused.contains(field) && refused.contains("--document"), "{refused}");
        }
        assert!(read("evidence: {kind: vendor_receipt, reference: '17'}", None).is_ok());
        assert_eq!(given_up("gone".to_owned(), Some(digest.to_owned())).1.kind(), v1::EvidenceKind::DocumentDigest);
    }
}
