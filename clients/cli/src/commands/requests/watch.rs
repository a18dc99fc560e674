//! `quittance requests watch`

use clap::Args;
use quittance_api::v1::{WatchRequestsRequest, WatchRequestsResponse};
use quittance_client::{Backoff, Client, ClientError};

use super::parent;
use crate::{
    args::Global,
    failure::{Done, Failure},
    output::{Output, note},
    view,
};

#[derive(Args)]
pub struct Watch {
    /// The customer; may be left out with a customer's own token.
    #[arg(long)]
    customer: Option<String>,
    /// Changes after this token, which an earlier watch gave, instead of from now on.
    #[arg(long, default_value = "", value_name = "TOKEN")]
    resume_token: String,
}

#[derive(serde::Serialize)]
struct Change {
    request: view::Request,
    resume_token: String,
}

pub async fn run(watch: Watch, global: &Global, out: &mut Output) -> Done {
    let client = global.connect().await?;
    let mut resume_token = watch.resume_token;
    let mut backoff = Backoff::default();
    loop {
        let request =
            WatchRequestsRequest { parent: parent(watch.customer.as_ref()), resume_token: resume_token.clone() };
        let error = match follow(&client, request, &mut resume_token, &mut backoff, out).await {
            Ok(()) => ClientError::from(tonic::Status::unavailable("the service ended the stream")),
            Err(Failure::Client(error)) => error,
            Err(failure) => return Err(failure),
        };
        if !error.is_retryable() || backoff.tries() >= 20 {
            return Err(error.into());
        }
        if resume_token.is_empty() {
            note("warning: cut before the first resume token came; changes in between may be missed");
        }
        tokio::time::sleep(backoff.next_wait(error.retry_delay())).await;
    }
}

async fn follow(
    client: &Client,
    request: WatchRequestsRequest,
    resume_token: &mut String,
    backoff: &mut Backoff,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut changes = client.requests().watch_requests(request).await?.into_inner();
    while let Some(WatchRequestsResponse { request, resume_token: token }) = changes.message().await? {
        backoff.reset();
        if let Some(request) = request {
            let request = view::Request::from(request);
            if out.is_json() {
                out.json_line(&Change { request, resume_token: token.clone() })?;
            } else {
                let due = request.due_time.as_deref().unwrap_or("-");
                out.line(&format!(
                    "{}  {}  {}  {}  due {due}",
                    request.name, request.action, request.state, request.timeliness
                ))?;
            }
        }
        *resume_token = token;
    }
    Ok(())
}
