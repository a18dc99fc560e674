//! `quittance requests …`

mod batch;
mod certificate;
mod content;
mod create;
mod follow;
mod list;
mod subjects;
pub mod wait;
mod watch;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quittance_api::v1;
use quittance_client::{ClientError, retrying};

use self::content::Content;
use super::{evidence::Named, missing};
use crate::{
    args::{Global, RequestId},
    failure::{Done, End, Failure},
    files,
    output::Output,
    resource, times, view,
};

#[derive(Subcommand)]
pub enum Command {
    /// Takes one request in, and waits for it if told so.
    #[command(after_help = create::HELP)]
    Create(create::Create),
    /// Takes many in, from a CSV file with one subject a line.
    #[command(after_help = batch::HELP)]
    Batch(batch::Batch),
    /// Says what a request would touch, and touches nothing.
    Preview(Preview),
    /// One request with its tasks.
    Get(Named),
    /// The signed certificate of a request that is complete, which anyone can check offline (`quittance verify`).
    #[command(after_help = certificate::HELP)]
    Certificate(certificate::Certificate),
    /// Requests of a customer, newest first.
    List(list::List),
    /// Every change of the customer's requests from now on, until interrupted.
    Watch(watch::Watch),
    /// Records what reached us from the subject itself. It waits for the customer's word.
    Refer(Refer),
    /// The customer makes a waiting request its own instruction. The window begins now.
    Authorise(Named),
    /// The customer declines a waiting request.
    Decline(WithReason),
    /// Tells the customer that an instruction looks unlawful (Art. 28(3)). What has not begun waits for its word.
    Object(WithReason),
    /// Takes a request back, before anything has run.
    Cancel(Cancel),
    /// Moves the due time. The first one stays on record.
    Extend(Extend),
}

#[derive(Args)]
pub struct Preview {
    #[command(flatten)]
    content: Content,
}

#[derive(Args)]
pub struct Refer {
    #[command(flatten)]
    content: Content,
    /// A file with the person's own words; `-` is standard input. They are sealed on arrival.
    #[arg(long, value_name = "FILE")]
    words_file: Option<PathBuf>,
    #[command(flatten)]
    request_id: RequestId,
}

#[derive(Args)]
pub struct WithReason {
    #[command(flatten)]
    request: Named,
    /// Why. No personal data.
    #[arg(long)]
    reason: String,
}

#[derive(Args)]
pub struct Cancel {
    #[command(flatten)]
    request: Named,
    /// Why. No personal data.
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Args)]
pub struct Extend {
    #[command(flatten)]
    request: Named,
    /// The new due time, as 2026-05-01T00:00:00Z; later than the present one.
    #[arg(long, value_parser = times::parse, value_name = "TIME")]
    due: prost_types::Timestamp,
    /// Why: Art. 12(3) wants a reason. No personal data.
    #[arg(long)]
    reason: String,
}

fn show(request: Option<v1::Request>, out: &mut Output) -> Result<(), Failure> {
    let request = view::Request::from(missing(request)?);
    if out.is_json() {
        return out.document(&request);
    }
    out.table(&request.fields())?;
    if !request.tasks.is_empty() {
        out.line("")?;
        out.table(&view::Task::table(&request.tasks))?;
    }
    Ok(())
}

pub async fn run(command: Command, global: &Global, out: &mut Output) -> Done {
    match command {
        Command::Create(create) => return create::run(create, global, out).await,
        Command::Batch(batch) => return batch::run(batch, global, out).await,
        Command::Certificate(certificate) => return certificate::run(certificate, global, out).await,
        Command::List(list) => return list::run(list, global, out).await,
        Command::Watch(watch) => return watch::run(watch, global, out).await,
        Command::Preview(preview) => {
            let request = v1::PreviewRequestRequest {
                parent: preview.content.parent(),
                request: Some(preview.content.into_request()?),
            };
            let client = global.connect().await?;
            let preview = view::Preview::from(client.requests().preview_request(request).await?.into_inner());
            if out.is_json() {
                out.document(&preview)?;
            } else {
                for line in preview.head() {
                    out.line(&line)?;
                }
                out.line("")?;
                out.table(&preview.table())?;
            }
        }
        Command::Get(named) => {
            let request = v1::GetRequestRequest { name: named.name()? };
            let client = global.connect().await?;
            show(client.requests().get_request(request).await?.into_inner().request, out)?;
        }
        Command::Refer(refer) => {
            let request = v1::ReferRequestRequest {
                request_id: refer.request_id.get(),
                parent: refer.content.parent(),
                words: refer.words_file.as_deref().map(files::text).transpose()?.unwrap_or_default(),
                request: Some(refer.content.into_request()?),
            };
            let client = global.connect().await?;
            let answer = retrying(3, || async {
                client.requests().refer_request(request.clone()).await.map_err(ClientError::from)
            });
            show(answer.await?.into_inner().request, out)?;
        }
        Command::Authorise(named) => {
            let request = v1::AuthoriseRequestRequest { name: named.name()? };
            let client = global.connect().await?;
            show(client.requests().authorise_request(request).await?.into_inner().request, out)?;
        }
        Command::Decline(with) => {
            let request = v1::DeclineRequestRequest { name: with.request.name()?, reason: with.reason };
            let client = global.connect().await?;
            show(client.requests().decline_request(request).await?.into_inner().request, out)?;
        }
        Command::Object(with) => {
            let request = v1::ObjectToRequestRequest { name: with.request.name()?, reason: with.reason };
            let client = global.connect().await?;
            show(client.requests().object_to_request(request).await?.into_inner().request, out)?;
        }
        Command::Cancel(cancel) => {
            let request = v1::CancelRequestRequest { name: cancel.request.name()?, reason: cancel.reason };
            let client = global.connect().await?;
            show(client.requests().cancel_request(request).await?.into_inner().request, out)?;
        }
        Command::Extend(extend) => {
            let request = v1::ExtendRequestRequest {
                name: extend.request.name()?,
                due_time: Some(extend.due),
                reason: extend.reason,
            };
            let client = global.connect().await?;
            show(client.requests().extend_request(request).await?.into_inner().request, out)?;
        }
    }
    Ok(End::Fine)
}

/// A customer's resource name from a flag that may be left out.
fn parent(customer: Option<&String>) -> String {
    customer.map(|customer| resource::customer(customer)).unwrap_or_default()
}
