//! Says what the system holds, after it was restored from a backup.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt as _;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::{Backend, BackendError, KeySink, Shared, attempt::failed, lease_of, leases};
use crate::{
    ClientError,
    api::{HeldKeys, HeldKeysEnd, LeasedTask, UploadHeldKeysRequest, upload_held_keys_request::Part},
};

/// However long the backend looks for the next key, the lease lives: at least this often something is sent.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Before the work is asked for again that could not be done now.
const PAUSE: Duration = Duration::from_secs(2);

fn message(part: Part) -> UploadHeldKeysRequest {
    UploadHeldKeysRequest { part: Some(part) }
}

/// What cannot be done now is not reported: the lease passes, and the work comes again.
pub(super) async fn tell<B: Backend>(shared: &Shared<B>, task: &LeasedTask, until: Instant) {
    let (sender, receiver) = mpsc::channel(8);
    let mut service = shared.client.connectors();
    let upload = async { service.upload_held_keys(ReceiverStream::new(receiver)).await.map_err(ClientError::from) };
    let produce = produce(shared, task, leases::pause(until).min(ALIVE_EVERY), sender);
    let (answer, produced) = tokio::select! {
        biased;
        () = shared.drain.cancelled() => return,
        both = futures::future::join(upload, produce) => both,
    };
    match (answer, produced) {
        (Ok(answer), Ok(())) => {
            let answer = answer.into_inner();
            let (keys, left_out) = (answer.key_count, answer.left_out_count);
            tracing::info!(replay = %task.name, keys, left_out, "said what the system holds");
        }
        (Ok(_), Err(reason)) => {
            tracing::warn!(replay = %task.name, reason, "what the system holds cannot be said");
        }
        (Err(error), _) => {
            let (error, lost) = (error.brief().to_string(), error.code() == Some(Code::Aborted));
            tracing::warn!(replay = %task.name, error, lost, "what the system holds did not get through; the lease brings it back");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// `Err`: why a person must look.
async fn produce<B: Backend>(
    shared: &Shared<B>,
    task: &LeasedTask,
    alive_every: Duration,
    sender: mpsc::Sender<UploadHeldKeysRequest>,
) -> Result<(), String> {
    // A send fails only where the upload is over, which then says why.
    let _ = sender.send(message(Part::Lease(lease_of(task)))).await;
    let alive = sender.clone();
    let keep_alive = async {
        loop {
            tokio::time::sleep(alive_every).await;
            let _ = alive.send(message(Part::Keys(HeldKeys::default()))).await;
        }
    };
    let mut sink = KeySink::new(sender.clone());
    let tell = async {
        shared.backend.held_keys(&mut sink).await?;
        sink.flush().await?;
        Ok(sink.sent())
    };
    // A defect in the backend is this task's trouble, not the worker's; half of what it holds is never taken for all.
    let tell = AssertUnwindSafe(tell).catch_unwind();
    let told: Result<u64, BackendError> = tokio::select! {
        () = keep_alive => return Ok(()),
        told = tell => told.unwrap_or_else(|_| {
            Err(BackendError::NeedsAttention("the worker has a defect: it panicked; see its own log".to_owned()))
        }),
    };
    match told {
        Ok(key_count) => {
            let _ = sender.send(message(Part::End(HeldKeysEnd { key_count }))).await;
            Ok(())
        }
        // The stream ends without its end.
        Err(BackendError::Retry(_)) => Ok(()),
        Err(BackendError::NeedsAttention(reason)) => {
            let _ = sender.send(message(Part::NeedsAttention(failed(&reason)))).await;
            Err(reason)
        }
    }
}
