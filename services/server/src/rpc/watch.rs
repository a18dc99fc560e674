//! `WatchRequests`: every change of a customer's requests, at least once, resumable.

use std::{sync::Arc, time::Duration};

use quittance_api::v1;
use quittance_domain::ids::CustomerId;
use quittance_store::ChangeCursor;
use tokio::sync::mpsc;
use tonic::Status;

use super::tell;
use crate::{
    app::App,
    auth::Standing,
    convert::request_to,
    error::{ApiError, ApiResult},
    status::to_status,
};

/// What whoever does not read is told to do.
const LATER: &str = "resume with the last token";
const PAGE: u32 = 500;
/// Unread changes that a slow reader may have before it holds its own watch up.
const UNREAD_MAX: usize = 64;
/// A sign of life, with a fresh token.
const SILENCE_MAX: Duration = Duration::from_secs(15);

pub type WatchStream = tokio_stream::wrappers::ReceiverStream<Result<v1::WatchRequestsResponse, Status>>;

/// `None`: from now on.
pub fn read_token(token: &str) -> ApiResult<Option<ChangeCursor>> {
    if token.is_empty() {
        return Ok(None);
    }
    let cursor = token.strip_prefix("w2.").and_then(ChangeCursor::parse);
    cursor.map(Some).ok_or_else(|| ApiError::field("resume_token", "is not one of ours"))
}

fn token(cursor: &ChangeCursor) -> String {
    format!("w2.{cursor}")
}

pub fn run(
    app: Arc<App>,
    standing: Standing,
    customer: CustomerId,
    from: Option<ChangeCursor>,
) -> ApiResult<WatchStream> {
    let seat = app.watches.take(&customer)?;
    let (sender, stream) = mpsc::channel(UNREAD_MAX);
    tokio::spawn(async move {
        let served = serve(&app, &standing, &customer, from, &sender).await;
        if let Err(error) = served {
            // The place is free for others while this is read; where nobody is there to hear it, the client is gone.
            drop(seat);
            let unread = Duration::from_secs(app.limits.unread_s);
            let _ = sender.send_timeout(Err(to_status(error)), unread).await;
        }
    });
    Ok(WatchStream::new(stream))
}

async fn serve(
    app: &App,
    standing: &Standing,
    customer: &CustomerId,
    from: Option<ChangeCursor>,
    sender: &mpsc::Sender<Result<v1::WatchRequestsResponse, Status>>,
) -> ApiResult<()> {
    let mut seen = match from {
        Some(from) if from.is_ahead_of(&app.store.changes_now(customer).await?) => {
            let message =
                "the token knows more than the store, which was restored: list the requests, and watch without a token";
            return Err(ApiError::WrongState(message.to_owned()));
        }
        Some(from) => from,
        None => app.store.changes_now(customer).await?,
    };
    let mut spoke = tokio::time::Instant::now() - SILENCE_MAX;
    loop {
        standing.check()?;
        let now = app.store.changes_now(customer).await?;
        if now != seen {
            match send_between(app, customer, &seen, &now, sender).await? {
                Sent::Nothing => {}
                Sent::Some => spoke = tokio::time::Instant::now(),
                Sent::NobodyListens => return Ok(()),
            }
            seen = now;
        }
        if spoke.elapsed() >= SILENCE_MAX {
            let alive = v1::WatchRequestsResponse { request: None, resume_token: token(&seen) };
            if !tell(app, sender, alive, LATER).await? {
                return Ok(());
            }
            spoke = tokio::time::Instant::now();
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(app.limits.watch_poll_ms)) => {}
            () = sender.closed() => return Ok(()),
            () = app.drain.cancelled() => {
                return Err(ApiError::Unavailable("the server is stopping: resume with the last token".to_owned()));
            }
        }
    }
}

enum Sent {
    Nothing,
    Some,
    NobodyListens,
}

async fn send_between(
    app: &App,
    customer: &CustomerId,
    seen: &ChangeCursor,
    now: &ChangeCursor,
    sender: &mpsc::Sender<Result<v1::WatchRequestsResponse, Status>>,
) -> ApiResult<Sent> {
    let (mut sent, mut after) = (Sent::Nothing, None);
    loop {
        let page = app.store.changed_requests(customer, (seen, now), after, PAGE).await?;
        let full = page.len() == PAGE as usize;
        for (n, (row, place)) in page.iter().enumerate() {
            let request = Some(request_to(customer, row, &[], app.now(), app.at_risk()));
            // With the last one, all of them are told: until then, a cut begins from before the first.
            let last = !full && n + 1 == page.len();
            let resume_token = token(if last { now } else { seen });
            if !tell(app, sender, v1::WatchRequestsResponse { request, resume_token }, LATER).await? {
                return Ok(Sent::NobodyListens);
            }
            (sent, after) = (Sent::Some, Some(*place));
        }
        if !full {
            return Ok(sent);
        }
    }
}
