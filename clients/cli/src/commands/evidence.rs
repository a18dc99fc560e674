//! `quittance confirmations …` and `quittance interim-statement`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quittance_api::v1;

use crate::{
    args::Global,
    failure::{Done, End, Failure},
    files,
    output::Output,
    resource, view,
};

#[derive(Subcommand)]
pub enum Command {
    /// All confirmations of a request, one line per outcome.
    List(Named),
}

#[derive(Args)]
pub struct Named {
    /// The request's full name, or its id with --customer.
    request: String,
    /// The customer, where the request is named by its id.
    #[arg(long)]
    customer: Option<String>,
}

#[derive(Args)]
pub struct InterimStatement {
    #[command(flatten)]
    request: Named,
    /// Also the signed file (`quittance verify` checks it), and where it goes.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The signed file that was issued by itself when the due time passed, and where it goes.
    #[arg(long, value_name = "FILE")]
    at_deadline: Option<PathBuf>,
}

impl Named {
    pub fn name(&self) -> Result<String, Failure> {
        resource::request(&self.request, self.customer.as_deref())
    }
}

pub async fn run(command: Command, global: &Global, out: &mut Output) -> Done {
    let Command::List(named) = command;
    let request = v1::ListConfirmationsRequest { parent: named.name()? };
    let client = global.connect().await?;
    let answer = client.evidence().list_confirmations(request).await?.into_inner();
    let confirmations: Vec<_> = answer.confirmations.into_iter().map(view::Confirmation::from).collect();
    out.list(&confirmations, view::Confirmation::table)?;
    Ok(End::Fine)
}

pub async fn interim_statement(asked: InterimStatement, global: &Global, out: &mut Output) -> Done {
    let request = v1::GetInterimStatementRequest { name: asked.request.name()? };
    let client = global.connect().await?;
    let mut answer = client.evidence().get_interim_statement(request).await?.into_inner();
    if let Some(path) = &asked.out {
        let none = "there is no signed statement: all is confirmed, or the request was declined or cancelled (`quittance confirmations list` tells \
                    what had been done), or it is too early; ask again in a second";
        files::write(path, &signed(std::mem::take(&mut answer.statement), none)?)?;
    }
    if let Some(path) = &asked.at_deadline {
        let none = "none was issued by itself: the due time did not pass with something open";
        files::write(path, &signed(std::mem::take(&mut answer.deadline_statement), none)?)?;
    }
    let statement = view::InterimStatement::from(answer);
    if out.is_json() {
        out.document(&statement)?;
        return Ok(End::Fine);
    }
    out.line(&format!("as of {} (our own clock)", statement.state_time.as_deref().unwrap_or("an unknown time")))?;
    if let Some(request) = &statement.request {
        out.table(&request.fields())?;
        out.line("")?;
        out.table(&view::Task::table(&request.tasks))?;
    }
    if !statement.open_systems.is_empty() {
        out.line("")?;
        out.table(&view::OpenSystem::table(&statement.open_systems))?;
    }
    Ok(End::Fine)
}

fn signed(file: Vec<u8>, none: &str) -> Result<Vec<u8>, Failure> {
    if file.is_empty() { Err(Failure::Usage(none.to_owned())) } else { Ok(file) }
}
