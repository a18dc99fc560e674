//! `quittance requests create`

use clap::Args;
use quittance_api::v1::{self, Action, PackageState};
use quittance_client::{Client, ClientError, retrying};

use super::{Content, missing, show, wait};
use crate::{
    args::{Global, RequestId},
    failure::{Done, End, Failure},
    output::{Output, note},
};

pub const HELP: &str = "\
Examples:
  quittance requests create --customer acme --action erasure --email anna@example.com --user-id 4711
  quittance requests create --customer acme --action erasure --email anna@example.com --wait --timeout 10m
  quittance requests create --customer acme --action rectification --user-id 4711 --correct 'customer.city=Amstredam=>Amsterdam'
  quittance requests create --customer acme -f request.yaml

request.yaml:
  action: rectification
  identifiers:
    - {kind: email, value: anna@example.com}
  corrections:
    - {collection: customer, field: city, replace: {old_value: Amstredam, new_value: Amsterdam}}
    - {collection: orders, field: note, record: {key: ['7'], new_value: a gift}}
    - {collection: files, field: text, append_statement: She disagrees.}
  reference: DSR-17
  subject_asked_time: 2026-03-01T09:00:00Z

Exit codes with --wait: 0 completed, 3 completed with exceptions, 4 still open when --timeout was over, 1 error.";

#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    content: Content,
    #[command(flatten)]
    request_id: RequestId,
    /// Wait until the request is closed, showing every system's progress.
    #[arg(long)]
    wait: bool,
}

pub async fn run(create: Create, global: &Global, out: &mut Output) -> Done {
    let request = v1::CreateRequestRequest {
        request_id: create.request_id.get(),
        parent: create.content.parent(),
        request: Some(create.content.into_request()?),
    };
    let client = global.connect().await?;
    let answer =
        retrying(4, || async { client.requests().create_request(request.clone()).await.map_err(ClientError::from) })
            .await;
    let answer = answer.map_err(|error| {
        if error.is_retryable() {
            // It may have been taken in, with only the answer lost.
            note(&format!("to send it again safely, add --request-id {}", request.request_id));
        }
        Failure::from(error)
    })?;
    let created = missing(answer.into_inner().request)?;
    if !create.wait {
        show(Some(created), out)?;
        return Ok(End::Fine);
    }
    note(&format!("taken in: {}", created.name));
    let closed = wait::until_closed(&client, &created.name, global.timeout).await?;
    if closed.action() == Action::Access && wait::is_closed(closed.state()) {
        note_review(&client, &closed.name).await?;
    }
    let end = wait::end_of(&closed);
    end.after(show(Some(closed), out))
}

/// An access is completed, and yet nobody has it while others' data in it wait for the customer's decision.
async fn note_review(client: &Client, request: &str) -> Result<(), Failure> {
    let get = || v1::GetPackageRequest { name: format!("{request}/package") };
    let answer =
        retrying(4, || async { client.packages().get_package(get()).await.map_err(ClientError::from) }).await?;
    if answer.into_inner().package.is_some_and(|package| package.state() == PackageState::AwaitingReview) {
        note(&format!(
            "the package holds records with other people's data, and waits for your decision (Art. 15(4)): `quittance packages review {request} --withhold-third-party` or `--release-all`"
        ));
    }
    Ok(())
}
