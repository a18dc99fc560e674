//! `WatchRequests`: every change of a customer's requests, at least once, resumable.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::SignedDuration;
use quittance_api::v1;
use quittance_domain::ids::{CustomerId, RequestId};
use quittance_store::ChangeCursor;
use tokio::sync::mpsc;
use tonic::Status;

use crate::{
    app::App,
    convert::request_to,
    error::{ApiError, ApiResult},
    status::to_status,
};

/// A change is stamped before its transaction commits, so a later look may find an earlier stamp: every look goes back this far.
const OVERLAP: SignedDuration = SignedDuration::from_secs(5);
const PAGE: u32 = 500;
/// Unread changes that a slow reader may have before it holds its own watch up.
const UNREAD_MAX: usize = 64;
/// A sign of life, with a fresh token.
const SILENCE_MAX: Duration = Duration::from_secs(15);

pub type WatchStream = tokio_stream::wrappers::ReceiverStream<Result<v1::WatchRequestsResponse, Status>>;

pub fn read_token(token: &str, now: jiff::Timestamp) -> ApiResult<ChangeCursor> {
    if token.is_empty() {
        return Ok(ChangeCursor::from_time(now));
    }
    let us = token.strip_prefix("w1.").and_then(|t| t.parse::<i64>().ok());
    let at = us.and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    at.map(ChangeCursor::from_time).ok_or_else(|| ApiError::field("resume_token", "is not one of ours"))
}

pub fn run(app: Arc<App>, customer: CustomerId, from: ChangeCursor) -> ApiResult<WatchStream> {
    let permit = app.watchers.clone().try_acquire_owned();
    let permit =
        permit.map_err(|_| ApiError::LimitExceeded("too many watchers: use one stream for all requests".into()))?;
    let (sender, stream) = mpsc::channel(UNREAD_MAX);
    tokio::spawn(async move {
        if let Err(error) = serve(&app, &customer, from, &sender).await {
            // Nobody there to hear it: the client is gone.
            let _ = sender.send(Err(to_status(error))).await;
        }
        drop(permit);
    });
    Ok(WatchStream::new(stream))
}

async fn serve(
    app: &App,
    customer: &CustomerId,
    from: ChangeCursor,
    sender: &mpsc::Sender<Result<v1::WatchRequestsResponse, Status>>,
) -> ApiResult<()> {
    let mut position = from;
    // What was sent of the stretch that the next look sees again.
    let mut sent: HashMap<RequestId, i64> = HashMap::new();
    let mut spoke = tokio::time::Instant::now() - SILENCE_MAX;
    loop {
        let mut look = position;
        loop {
            let page = app.store.changed_requests(customer, look, PAGE).await?;
            for row in &page {
                let changed_us = row.changed_at.as_microsecond();
                if sent.insert(row.id, changed_us) == Some(changed_us) {
                    continue;
                }
                let request = request_to(customer, row, &[], app.now(), app.at_risk());
                let token = format!("w1.{}", position.changed_us);
                let response = v1::WatchRequestsResponse { request: Some(request), resume_token: token };
                if sender.send(Ok(response)).await.is_err() {
                    return Ok(());
                }
                spoke = tokio::time::Instant::now();
            }
            match page.last() {
                Some(last) if page.len() == PAGE as usize => {
                    let next = ChangeCursor { changed_us: last.changed_at.as_microsecond(), request: last.id };
                    // A page of one and the same row would go on for ever.
                    if next <= look {
                        break;
                    }
                    look = next;
                }
                _ => break,
            }
        }
        let behind = app.now().checked_sub(OVERLAP).unwrap_or(app.now());
        position = position.max(ChangeCursor::from_time(behind));
        sent.retain(|_, changed_us| *changed_us >= position.changed_us);
        if spoke.elapsed() >= SILENCE_MAX {
            let alive =
                v1::WatchRequestsResponse { request: None, resume_token: format!("w1.{}", position.changed_us) };
            if sender.send(Ok(alive)).await.is_err() {
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
