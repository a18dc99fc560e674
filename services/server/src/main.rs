//! `quittanced`: the data-subject-request service of a processor.

mod app;
mod auth;
mod config;
mod convert;
mod deadline_statements;
mod error;
mod evidence;
mod ledger;
mod page_token;
mod rpc;
mod secrets;
mod serve;
mod status;
mod telemetry;
mod tokens;

use std::{collections::BTreeSet, io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use config::Config;
use quittance_domain::ids::{CustomerId, SystemId};
use quittance_sequencer::LogKeyRing;
use quittance_store::SuppressionKeys;
use serve::Failure;
use tokens::{NewToken, RoleName, TokenTable};

/// Batches come and go by the ten thousand small pieces; the C library's allocator keeps what they leave.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Carries a customer's data-subject requests to every system that may hold its data, and records what each of them did.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "\
Examples:
  quittanced token add --name ops --role operator       make a token (shown once) for an operator
  quittanced                                            serve on 127.0.0.1:7443, everything kept in ./quittance-data
  quittanced --config /etc/quittance/quittanced.toml    serve as configured
  quittanced ledger keys                                print the log's public keys, for `quittance verify --key`

Settings come from the file, then from the environment (QUITTANCED_LISTEN, QUITTANCED_STORE_URL_FILE,
QUITTANCED_DISPATCH__LEASE_S, …), then from flags. Logs go to standard error; QUITTANCE_LOG sets their level.
docs/operating.md lists every setting."
)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Settings {
    /// TOML file with settings
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Address and port of the API; port 0 lets the system choose one
    #[arg(long, global = true)]
    listen: Option<SocketAddr>,
    /// Folder of the embedded default: store, key ring, tokens, secrets
    #[arg(long, global = true)]
    data_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM (the default)
    Serve,
    /// Who may call
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// The key ring
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// The log's keys
    Ledger {
        #[command(subcommand)]
        command: LedgerCommand,
    },
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Add a generation of the keys that suppressions are written with; every quittanced takes it up by itself. The older ones recognise
    /// what was written with them, and are destroyed once nothing is kept under them
    RotatePseudonyms,
}

#[derive(Subcommand)]
enum LedgerCommand {
    /// Print the log's public keys, as `quittance verify --key` takes them: publish them where customers find them
    Keys,
    /// Add a key that signs beside the present ones; every quittanced takes it up when it starts again
    AddKey,
    /// Let the newest key alone sign, and destroy the others' secret parts; what they signed stands
    RetireKeys,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token and print it, this once; only its digest is kept
    Add {
        /// For the record: who it is
        #[arg(long)]
        name: String,
        #[arg(long)]
        role: RoleName,
        /// The customer that a customer token speaks for
        #[arg(long)]
        customer: Option<String>,
        /// A system that a connector token works for; may be given several times
        #[arg(long)]
        system: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing else can be done where standard error is gone.
            let _ = writeln!(std::io::stderr(), "quittanced: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let mut config = Config::load(cli.settings.config.as_deref())?;
    if let Some(listen) = cli.settings.listen {
        config.listen = listen;
    }
    if let Some(data_dir) = cli.settings.data_dir {
        config.data_dir = data_dir;
    }
    config.check()?;
    match cli.command {
        Some(Command::Token { command: TokenCommand::Add { name, role, customer, system } }) => {
            let customer = customer.map(|c| CustomerId::new(&c)).transpose()?;
            let systems = system.iter().map(|s| SystemId::new(s)).collect::<Result<BTreeSet<_>, _>>()?;
            let token = TokenTable::add(&config.tokens(), NewToken { name, role, customer, systems })?;
            writeln!(std::io::stdout(), "{token}")?;
            Ok(())
        }
        Some(Command::Keys { command: KeysCommand::RotatePseudonyms }) => {
            let generation = SuppressionKeys::rotate(&config.key_ring())?;
            writeln!(std::io::stdout(), "generation {generation}")?;
            Ok(())
        }
        Some(Command::Ledger { command }) => manage_log_keys(&config, &command),
        Some(Command::Serve) | None => {
            telemetry::start(config.log_format);
            // Two providers may be linked; rustls must not have to choose.
            rustls::crypto::aws_lc_rs::default_provider()
                .install_default()
                .map_err(|_| "a TLS provider was installed before")?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve::run(config))
        }
    }
}

fn manage_log_keys(config: &Config, command: &LedgerCommand) -> Result<(), Failure> {
    let folder = config.ledger_folder().join("keys");
    let now = jiff::Timestamp::now();
    match command {
        LedgerCommand::Keys => {}
        LedgerCommand::AddKey => drop(LogKeyRing::add(&folder, now)?),
        LedgerCommand::RetireKeys => drop(LogKeyRing::retire_older(&folder, now)?),
    }
    for key in LogKeyRing::public_keys(&folder)? {
        writeln!(std::io::stdout(), "{key}")?;
    }
    Ok(())
}
