//! `quittance requests batch`

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use quittance_api::v1::{Action, BatchItem, Request, RestrictionGround};
use quittance_client::bulk::{self, BulkOptions};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::{Uuid, uuid};

use super::{
    content::Circumstances,
    follow, parent,
    subjects::{self, Cut, Subjects},
};
use crate::{
    args::Global,
    failure::{Done, End, Failure},
    output::{Output, note, people_watch},
    resource::last,
    short_names::ShortName,
    times,
};

pub const HELP: &str = "\
The first line of the CSV names the columns: email, phone, user_id, directory_object_id, customer_key, or some of them. Empty fields are
left out. Every line's request id follows from --batch-id and the line's number: run again with the same ones, a batch resumes where it
was cut, and nothing is taken in twice. Lines must keep their place for that; a line that changed is refused (REQUEST_ID_REUSED). So is
every line of a batch whose requests are forgotten, 30 days after they were closed unless agreed otherwise: what comes every year
needs a --batch-id of its own each time.

Examples:
  quittance requests batch --customer acme --action erasure --file subjects.csv --batch-id leavers-2026-03
  export-leavers | quittance requests batch --customer acme --action access --file - --batch-id march --wait --timeout 2h

Exit codes: 0 all taken in (with --wait: and completed); 1 some lines were refused; with --wait: 3 completed with exceptions, 4 some
still open when --timeout was over.";

/// Errors of lines that are shown; all are counted.
const ERRORS_SHOWN: usize = 20;

/// Request ids of batches are UUIDs under this one (version 5).
const BATCHES: Uuid = uuid!("6f0f9d0e-51c5-4bd6-9b0d-0a6c3f5a4e17");

#[derive(Args)]
pub struct Batch {
    /// The customer; may be left out with a customer's own token.
    #[arg(long)]
    customer: Option<String>,
    /// access, erasure, restriction or lift_restriction, for every line.
    #[arg(long, value_parser = action)]
    action: Action,
    /// The CSV file; `-` is standard input.
    #[arg(long, short)]
    file: PathBuf,
    /// A name for this batch; the same one resumes it. A new one is made and told, unless given.
    #[arg(long)]
    batch_id: Option<String>,
    /// With restriction: its ground.
    #[arg(long, value_parser = RestrictionGround::parse)]
    ground: Option<RestrictionGround>,
    /// With lift_restriction: when the subjects were told.
    #[arg(long, value_parser = times::parse, value_name = "TIME")]
    subject_informed: Option<prost_types::Timestamp>,
    #[command(flatten)]
    circumstances: Circumstances,
    /// Lines acknowledged together; 1 to 1000.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=1000))]
    chunk_size: u16,
    /// Wait until all requests are closed, showing every system's progress.
    #[arg(long)]
    wait: bool,
}

fn action(text: &str) -> Result<Action, String> {
    match Action::parse(text)? {
        Action::Rectification => {
            Err("what is to be corrected differs from subject to subject: use `requests create`".to_owned())
        }
        action => Ok(action),
    }
}

/// The same for the same batch and line, and told by nothing of what stands in the line.
fn request_id(batch: Uuid, line: u64) -> Uuid {
    Uuid::new_v5(&batch, line.to_string().as_bytes())
}

#[derive(Serialize)]
struct Report<'a> {
    batch_id: &'a str,
    created: u64,
    repeated: u64,
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<follow::Counts>,
    errors: Vec<LineError>,
}

#[derive(Serialize)]
struct LineError {
    line: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    field: String,
    message: String,
}

impl LineError {
    fn words(&self) -> String {
        let parts = [self.reason.as_str(), self.field.as_str(), self.message.as_str()];
        format!(
            "line {}: {}",
            self.line,
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
        )
    }
}

fn progress(total: Option<u64>) -> ProgressBar {
    if !people_watch() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "taken in {bar:40} {human_pos}/{human_len} {per_sec} {eta} {msg}"),
        None => (ProgressBar::new_spinner(), "taken in {human_pos} {per_sec} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Lines that cannot be sent at all, as they are read: the first of them, and how many.
type Unsent = (Vec<LineError>, u64);

/// Reads on a thread of its own, for files and standard input block.
fn read(subjects: Subjects, template: Request, batch: Uuid, sender: &mpsc::Sender<BatchItem>) -> Result<Unsent, Cut> {
    let mut unsent: Unsent = (Vec::new(), 0);
    for row in subjects {
        let row = row?;
        match row.subject {
            Ok(identifiers) => {
                let item = BatchItem {
                    number: row.line,
                    request_id: request_id(batch, row.line).to_string(),
                    request: Some(Request { identifiers, ..template.clone() }),
                };
                // Nobody takes them any more: the sending side ended, and says why.
                if sender.blocking_send(item).is_err() {
                    break;
                }
            }
            Err(message) => {
                unsent.1 += 1;
                if unsent.0.len() < bulk_options(1).errors_kept {
                    unsent.0.push(LineError { line: row.line, reason: String::new(), field: String::new(), message });
                }
            }
        }
    }
    Ok(unsent)
}

fn bulk_options(chunk_size: usize) -> BulkOptions {
    BulkOptions { chunk_size, ..BulkOptions::default() }
}

pub async fn run(batch: Batch, global: &Global, out: &mut Output) -> Done {
    let batch_id = batch.batch_id.unwrap_or_else(|| Uuid::new_v4().to_string());
    note(&format!("batch id: {batch_id} (the same one resumes)"));
    let namespace = Uuid::new_v5(&BATCHES, batch_id.as_bytes());
    let mut template = Request {
        action: batch.action.into(),
        restriction_ground: batch.ground.map(Into::into).unwrap_or_default(),
        subject_informed_time: batch.subject_informed,
        ..Request::default()
    };
    batch.circumstances.put(&mut template);
    // Counted only where somebody watches.
    let countable = batch.file.as_os_str() != "-" && people_watch();
    let total = if countable { Some(Subjects::read(subjects::open(&batch.file)?)?.count() as u64) } else { None };
    let subjects = Subjects::read(subjects::open(&batch.file)?)?;
    let parent = parent(batch.customer.as_ref());
    let client = global.connect().await?;

    let (sender, receiver) = mpsc::channel(1_024);
    let reader = tokio::task::spawn_blocking(move || read(subjects, template, namespace, &sender));
    let bar = progress(total);
    let (mut requests, mut customer) = (Vec::new(), parent.clone());
    let sent = bulk::create_requests(
        &client,
        &parent,
        ReceiverStream::new(receiver),
        &bulk_options(usize::from(batch.chunk_size)),
        |answer, so_far| {
            bar.set_position(so_far.answered());
            if so_far.cuts > 0 || so_far.failed > 0 {
                bar.set_message(format!("{} refused, {} cuts", so_far.failed, so_far.cuts));
            }
            if batch.wait {
                // A million names would fill memory with one customer's name; their ids do not.
                if let Some((owner, _)) = answer.names.first().and_then(|name| name.split_once("/requests/")) {
                    owner.clone_into(&mut customer);
                }
                requests.extend(answer.names.iter().filter_map(|name| Uuid::try_parse(last(name)).ok()));
            }
        },
    )
    .await;
    bar.finish_and_clear();
    let (report, cut) = match sent {
        Ok(report) => (report, None),
        Err(error) => (error.report, Some(error.error)),
    };
    if let Some(error) = cut {
        note(&format!(
            "{} lines were taken in before; run again with --batch-id {batch_id} to resume",
            report.created + report.repeated
        ));
        return Err(error.into());
    }
    let read =
        reader.await.map_err(|_| Failure::Other("reading the CSV ended early: run again to resume".to_owned()))?;
    // Neither counted as one bad line nor waited for: nobody knows how many lines there are.
    let (mut errors, unsent) = read.map_err(|Cut { line, problem }| {
        Failure::Other(format!(
            "the file could not be read beyond line {line} ({problem}): run again with --batch-id {batch_id} to resume; \
             {} lines were taken in before",
            report.created + report.repeated
        ))
    })?;
    errors.extend(report.errors.into_iter().map(|e| LineError {
        line: e.number,
        reason: e.reason,
        field: e.field,
        message: e.message,
    }));
    errors.sort_by_key(|error| error.line);
    let failed = report.failed + unsent;
    for error in errors.iter().take(ERRORS_SHOWN) {
        note(&error.words());
    }
    if failed > ERRORS_SHOWN as u64 {
        note(&format!("… and {} more", failed - ERRORS_SHOWN as u64));
    }
    let counts =
        if batch.wait { Some(follow::until_closed(&client, &customer, requests, global.timeout).await?) } else { None };
    let end = match &counts {
        _ if failed > 0 => End::Wrong,
        Some(counts) => counts.end(),
        None => End::Fine,
    };
    let report = Report {
        batch_id: &batch_id,
        created: report.created,
        repeated: report.repeated,
        failed,
        requests: counts,
        errors,
    };
    end.after(tell(&report, out))
}

fn tell(report: &Report<'_>, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.document(report);
    }
    let Report { created, repeated, failed, .. } = report;
    out.line(&format!("taken in: {created} new, {repeated} known from before, {failed} refused"))?;
    report.requests.as_ref().map_or(Ok(()), |counts| out.table(&counts.table()))
}

#[cfg(test)]
mod tests {
    use super::{super::subjects::tests::breaking_off, *};

    #[test]
    fn a_lines_request_id_is_the_same_every_time() {
        let march = Uuid::new_v5(&BATCHES, b"march");
        assert_eq!(request_id(march, 2), request_id(march, 2));
        assert_ne!(request_id(march, 2), request_id(march, 3));
        assert_ne!(request_id(march, 2), request_id(Uuid::new_v5(&BATCHES, b"april"), 2));
        assert_eq!(request_id(march, 2).get_version_num(), 5);
    }

    #[test]
    fn what_was_read_before_a_cut_is_sent_and_the_cut_is_told() {
        let (sender, mut receiver) = mpsc::channel(8);
        let subjects = Subjects::read(breaking_off("email\na@b.nl\n,,\nc@d.nl\n")).unwrap();
        let cut = read(subjects, Request::default(), BATCHES, &sender).map(drop).unwrap_err();
        assert_eq!(cut.line, 4);
        drop(sender);
        let sent: Vec<u64> = std::iter::from_fn(|| receiver.try_recv().ok()).map(|item| item.number).collect();
        assert_eq!(sent, [2, 4]);
    }

    #[test]
    fn a_batch_is_no_rectification() {
        assert!(action("rectification").is_err());
        assert_eq!(action("erasure"), Ok(Action::Erasure));
    }
}
