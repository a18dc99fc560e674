//! `quittanced`: the data-subject-request service of a processor.

// Handler, store and driver are futures in each other: with optimisation the compiler follows them deeper than it would by itself.
#![recursion_limit = "256"]

mod agreements;
mod app;
mod auth;
mod config;
mod convert;
mod covering;
mod deadline_statements;
mod error;
mod evidence;
mod health;
mod ledger;
mod log_proofs;
mod lost;
mod numbering;
mod page_token;
mod preview_places;
mod rpc;
mod seats;
mod secrets;
mod serve;
mod status;
mod telemetry;
mod tokens;
mod upkeep;

use std::{collections::BTreeSet, io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use config::Config;
use quittance_domain::ids::{CustomerId, SystemId};
use quittance_ledger::key::KeyId;
use quittance_sequencer::LogKeyRing;
use quittance_store::SuppressionKeys;
use serve::Failure;
use tokens::{NewToken, RoleName, TokenTable};
use upkeep::{FsckArgs, RecoverArgs};

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
  quittanced ledger fsck                                check the whole log in the store
  quittanced ledger recover                             bring the log back after the database was restored from a backup

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
    /// The log: its keys, whether it is whole, and how it comes back after a restore
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
    /// Revoke a key that is lost or that others may have: what it alone has signed is not believed any more
    ///
    /// First `quittanced ledger add-key`, and start every quittanced again, so that the new key signs the log; then revoke the old one, and
    /// start them again. Its secret part is destroyed. Certificates name it as revoked from then on, and those that it had signed are issued
    /// anew when they are asked for: tell your customers. The newest key cannot be revoked. With SQLite, stop quittanced first.
    RevokeKey {
        /// The key's id: the eight digits between the two plus signs, as `quittanced ledger keys` prints it
        key_id: KeyId,
    },
    /// Check every entry, tile and checkpoint of the store's log, and name the first entry that does not fit
    ///
    /// What is published is checked by `quittance ledger fsck`. A SQLite store is checked while no quittanced runs. Exit code 1: damaged.
    Fsck(FsckArgs),
    /// Bring the log of a restored database back up to the highest checkpoint, from the published tiles
    ///
    /// It tells which requests and confirmations the database lacks, and goes on with nothing that is not proven against what was signed.
    Recover(RecoverArgs),
    /// Take what the store says was signed for the highest checkpoint, after every checkpoint outside the database was lost
    ///
    /// Only where the database was never restored from a backup: otherwise a fork of the log would be signed. Refused while the highest
    /// checkpoint or the published folder's is there.
    AcceptStore,
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
        Some(Command::Ledger { command }) => manage_log(&config, &command),
        Some(Command::Serve) | None => {
            telemetry::start(config.log_format);
            runtime()?.block_on(serve::run(config))
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    // Two providers may be linked; rustls must not have to choose.
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    installed.map_err(|_| "a TLS provider was installed before")?;
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn manage_log(config: &Config, command: &LedgerCommand) -> Result<(), Failure> {
    match command {
        LedgerCommand::Fsck(args) => return runtime()?.block_on(upkeep::fsck(config, args)),
        LedgerCommand::Recover(args) => return runtime()?.block_on(upkeep::recover_log(config, args)),
        LedgerCommand::AcceptStore => return runtime()?.block_on(upkeep::accept_store(config)),
        LedgerCommand::Keys => {}
        LedgerCommand::AddKey => drop(LogKeyRing::add(&log_keys(config), jiff::Timestamp::now())?),
        LedgerCommand::RevokeKey { key_id } => runtime()?.block_on(upkeep::revoke_key(config, *key_id))?,
        LedgerCommand::RetireKeys => drop(LogKeyRing::retire_older(&log_keys(config), jiff::Timestamp::now())?),
    }
    print_log_keys(config)
}

fn log_keys(config: &Config) -> PathBuf {
    config.ledger_folder().join("keys")
}

fn print_log_keys(config: &Config) -> Result<(), Failure> {
    for key in LogKeyRing::public(&log_keys(config))?.keys() {
        writeln!(std::io::stdout(), "{key}")?;
    }
    Ok(())
}
