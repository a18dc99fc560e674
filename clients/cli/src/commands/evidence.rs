//! `quittance confirmations …` and `quittance interim-statement`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use quittance_api::v1;
use quittance_ledger::certificate::FILE_BYTES_MAX;

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
    /// Also the printable document of it (PDF/A), and where it goes.
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// The document's.
    #[arg(long, value_enum, default_value = "en", requires = "document")]
    language: Language,
    /// The signed file that was issued by itself when the due time passed, and where it goes.
    #[arg(long, value_name = "FILE")]
    at_deadline: Option<PathBuf>,
}

/// Of a printable document.
#[derive(Clone, Copy, ValueEnum)]
pub enum Language {
    En,
    Nl,
}

impl Language {
    /// As the contract has it; nothing where no document is wanted.
    pub fn if_asked(self, document: Option<&Path>) -> String {
        let code = match self {
            Self::En => "en",
            Self::Nl => "nl",
        };
        document.map(|_| code).unwrap_or_default().to_owned()
    }
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
    let request = v1::GetInterimStatementRequest {
        name: asked.request.name()?,
        document_language: asked.language.if_asked(asked.document.as_deref()),
    };
    let client = global.connect().await?;
    // As large as a statement may be, with the one of the due time, and with the document that has it attached.
    let mut service = client.evidence().max_decoding_message_size(4 * FILE_BYTES_MAX);
    let mut answer = service.get_interim_statement(request).await?.into_inner();
    let none = "there is no signed statement: the request is complete (`quittance requests certificate`), or it is too early; ask again in a \
                second";
    if let Some(path) = &asked.out {
        files::write(path, &signed(std::mem::take(&mut answer.statement), none)?)?;
    }
    if let Some(path) = &asked.document {
        files::write(path, &signed(std::mem::take(&mut answer.document), none)?)?;
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
