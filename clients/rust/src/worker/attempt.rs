//! One attempt at one task: find, keep, act, read back.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{FutureExt as _, StreamExt as _, future::try_join, stream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::{Backend, BackendError, ReadBack, RecordSink, Shared, lease_of, outbox::Posted};
use crate::{
    ClientError,
    api::{
        Action, LeasedTask, TaskAwaiting, TaskFailed, TaskMatchSet, TaskResolved, UploadRecordsRequest, Work,
        task_report, upload_records_request,
    },
};

/// The contract's bounds.
const MATCH_SET_MAX: usize = 1 << 20;
const REASON_MAX: usize = 512;

/// What came of an attempt.
pub(super) enum Attempt {
    Report(task_report::Result),
    /// The task is somebody else's by now.
    Lost,
}

enum Stop {
    Failed(BackendError),
    Lost,
}

impl From<BackendError> for Stop {
    fn from(error: BackendError) -> Self {
        Self::Failed(error)
    }
}

/// Words as the contract takes them: in one line, within the bound. A backend's own may be an error of several lines.
fn words(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    let text = text.trim();
    text[..text.floor_char_boundary(REASON_MAX)].to_owned()
}

/// A reason that the service takes, whatever the backend gave.
pub(super) fn failed(reason: &str) -> TaskFailed {
    let reason = words(reason);
    TaskFailed { reason: if reason.is_empty() { "no reason given".to_owned() } else { reason } }
}

pub(super) async fn once<B: Backend>(shared: &Shared<B>, task: &LeasedTask) -> Attempt {
    // A defect in the backend is one task's trouble, not the worker's. Its message may hold personal data and goes nowhere from here.
    let attempt = AssertUnwindSafe(run(shared, task)).catch_unwind().await;
    let attempt = attempt.unwrap_or_else(|_| {
        Err(BackendError::NeedsAttention("the worker has a defect: it panicked; see its own log".to_owned()).into())
    });
    match attempt {
        Ok(result) => Attempt::Report(result),
        Err(Stop::Lost) => Attempt::Lost,
        Err(Stop::Failed(BackendError::Retry(reason))) => Attempt::Report(task_report::Result::Retry(failed(&reason))),
        Err(Stop::Failed(BackendError::NeedsAttention(reason))) => {
            Attempt::Report(task_report::Result::NeedsAttention(failed(&reason)))
        }
    }
}

async fn run<B: Backend>(shared: &Shared<B>, task: &LeasedTask) -> Result<task_report::Result, Stop> {
    match task.work() {
        Work::Resolve => {
            let identifiers = shared.backend.resolve(task).await?;
            return Ok(task_report::Result::Resolved(TaskResolved { identifiers }));
        }
        Work::Act => {}
        Work::Replay | Work::Unspecified => {
            let reason = "the worker does not know this sort of work: update the worker";
            return Err(BackendError::NeedsAttention(reason.to_owned()).into());
        }
    }
    let match_set = shared.backend.find(task).await?;
    if match_set.len() > MATCH_SET_MAX {
        let reason = "the match set is larger than 1 MiB: look whether the subject's data is really that much";
        return Err(BackendError::NeedsAttention(reason.to_owned()).into());
    }
    // I4: kept before anything is touched.
    match shared.saves.post(TaskMatchSet { lease: Some(lease_of(task)), match_set: match_set.clone() }).await {
        Posted::Kept => {}
        Posted::Lost | Posted::Undelivered => return Err(Stop::Lost),
        Posted::Refused(reason) => {
            return Err(BackendError::NeedsAttention(format!("the service refused the match set: {reason}")).into());
        }
    }
    // Kept it was under the lease; the answer may have come after that had passed.
    if !shared.leases.holds(&task.name, task.lease) {
        return Err(Stop::Lost);
    }
    let records = if task.action() == Action::Access {
        upload(shared, task, &match_set).await?
    } else {
        shared.backend.act(task, &match_set).await?;
        0
    };
    match shared.backend.read_back(task, &match_set, records).await? {
        ReadBack::Done(done) => Ok(task_report::Result::Done(done)),
        ReadBack::Awaiting { check_after, reference } => Ok(task_report::Result::Awaiting(TaskAwaiting {
            check_after: prost_types::Duration::try_from(check_after).ok(),
            reference: words(&reference),
        })),
    }
}

/// Streams the records; the count is the service's.
async fn upload<B: Backend>(shared: &Shared<B>, task: &LeasedTask, match_set: &[u8]) -> Result<u64, Stop> {
    let (sender, receiver) = mpsc::channel(32);
    let (complete, completed) = oneshot::channel::<()>();
    let sent = Arc::new(AtomicU64::new(0));
    let sink = RecordSink { sender, sent: sent.clone() };
    let first = UploadRecordsRequest { part: Some(upload_records_request::Part::Lease(lease_of(task))) };
    // The stream ends only after the backend said that it was all; one that stops in the middle is reset. A tonic server reads a reset as
    // an end all the same, so what makes half a package harmless is that no outcome is reported for it, and that the next one replaces it.
    let end = stream::once(async move {
        if completed.await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    let parts = stream::iter([first])
        .chain(ReceiverStream::new(receiver))
        .map(Some)
        .chain(end.map(|()| None))
        .filter_map(std::future::ready);
    let mut service = shared.client.connectors();
    let upload = async { service.upload_records(parts).await.map_err(|status| cut(&status.into())) };
    let produce = async {
        shared.backend.records(task, match_set, sink).await?;
        // Fails only where the upload is over, which then says why.
        let _ = complete.send(());
        Ok(())
    };
    let (answer, ()) = try_join(upload, produce).await?;
    let kept = answer.into_inner().record_count;
    if kept != sent.load(Ordering::Relaxed) {
        return Err(BackendError::Retry("the service keeps another number of records than were sent".to_owned()).into());
    }
    Ok(kept)
}

fn cut(error: &ClientError) -> Stop {
    match error.reason() {
        Some("LEASE_LOST") => Stop::Lost,
        Some(reason) if !error.is_retryable() => {
            let field = error.refused_field().map(|field| format!(" at {field}")).unwrap_or_default();
            BackendError::NeedsAttention(format!("the service refused the records: {reason}{field}")).into()
        }
        reason => BackendError::Retry(format!(
            "the records could not be sent: {}",
            reason.unwrap_or("the connection was cut")
        ))
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_between_characters() {
        let reason = failed(&"é".repeat(400)).reason;
        assert_eq!(reason.len(), 512);
        assert_eq!(failed("short").reason, "short");
        assert_eq!(failed(&format!("x{}", "é".repeat(400))).reason.len(), 511);
    }

    #[test]
    fn a_reason_is_one_that_the_service_takes() {
        for nothing in ["", "  ", "\n\t\u{7f}"] {
            assert_eq!(failed(nothing).reason, "no reason given");
        }
        let reason = failed("\r\n500 Internal Server Error\n\tat line 7\u{0}").reason;
        assert_eq!(reason, "500 Internal Server Error  at line 7");
        // What is cut off at the front makes room at the end.
        assert_eq!(failed(&format!("\n{}", "x".repeat(512))).reason, "x".repeat(512));
        assert_eq!((words("job\n17"), words("\n")), ("job 17".to_owned(), String::new()));
    }
}
