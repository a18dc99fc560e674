//! The data of `make demo` (deploy/demo/run.sh): makes it, and proves afterwards by plain SQL what has become of it.

mod people;
mod proof;
mod seed;
mod tables;

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};

pub type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes the application databases, the print shop's folder and the list of leavers.
    Seed { folder: PathBuf },
    /// Says the e-mail address of somebody who plays a part.
    Email { part: Part },
    /// Says the user id.
    UserId { part: Part },
    /// Looks into databases and folder itself, and fails where anything is not as it must be after the demonstration.
    Prove {
        folder: PathBuf,
        /// The supplementary statement that the print shop was given.
        #[arg(long)]
        statement: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    Access,
    Rectified,
    Restricted,
    Erased,
}

impl Part {
    fn number(self) -> u64 {
        match self {
            Self::Access => people::ACCESS,
            Self::Rectified => people::RECTIFIED,
            Self::Restricted => people::RESTRICTED,
            Self::Erased => people::ERASED,
        }
    }
}

/// Where the print shop keeps a person's files: its own key for our customer, then what it knows the person by, percent-encoded.
pub fn print_shop_folder(root: &Path, n: u64) -> PathBuf {
    root.join("print-shop/AN-7/email").join(people::email(n).replace('@', "%40"))
}

async fn run(command: Command) -> Result<bool, Failure> {
    match command {
        Command::Seed { folder } => seed::run(&folder).await.map(|()| true),
        Command::Prove { folder, statement } => proof::run(&folder, &statement).await,
        Command::Email { part } => {
            println!("{}", people::email(part.number()));
            Ok(true)
        }
        Command::UserId { part } => {
            println!("{}", people::user_id(part.number()));
            Ok(true)
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse().command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo-data: {error}");
            ExitCode::FAILURE
        }
    }
}
