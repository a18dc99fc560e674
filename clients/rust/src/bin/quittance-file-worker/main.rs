//! A sample worker: keeps real files of real subjects in a folder, and does for them what Quittance instructs.
//!
//! Files of a subject lie in `<root>/<customer key>/<identifier kind>/<identifier>/`, with all names percent-encoded (see [`layout`]).
//! It shows how [`quittance_client::worker::Backend`] is meant, and the fault tests run it for real.

mod access;
mod backend;
mod disk;
mod found;
mod layout;
mod moves;
mod statements;

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use quittance_client::{
    Client,
    worker::{Worker, WorkerOptions},
};
use tokio_util::sync::CancellationToken;

/// Does the tasks of a system whose data are files in a folder.
///
/// It calls the service, never the other way round: nothing needs to be opened in a firewall. On SIGTERM or Ctrl-C it ends what it has
/// begun and gives back the rest.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  QUITTANCE_TOKEN_FILE=/run/secrets/worker-token quittance-file-worker --system exports --root /srv/exports"
)]
struct Args {
    /// Where the service is.
    #[arg(long, env = "QUITTANCE_ENDPOINT", default_value = "http://127.0.0.1:7443")]
    endpoint: String,
    /// The worker's token. A file is better: arguments are seen by everybody on the machine.
    #[arg(long, env = "QUITTANCE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the token. Comes before --token.
    #[arg(long, env = "QUITTANCE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// A PEM file with the authority of the service's certificate, where the operating system does not know it.
    #[arg(long, env = "QUITTANCE_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// The system, as `exports`.
    #[arg(long)]
    system: String,
    /// The worker's own name, for the record: 1 to 63 of a-z, 0-9 and '-'.
    #[arg(long, default_value = "file-worker")]
    name: String,
    /// The folder with the files.
    #[arg(long)]
    root: PathBuf,
    /// Subjects worked on at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// For fault tests: a pause before each file but the first is deleted.
    #[arg(long, default_value_t = 0, hide = true)]
    act_delay_ms: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Nothing here logs identifiers or paths, which hold them (I10).
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime cannot start");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = Client::builder(args.endpoint);
    let token = match args.token_file {
        Some(path) => {
            let token = tokio::fs::read_to_string(&path).await;
            Some(token.map_err(|e| format!("the token file {} cannot be read: {e}", path.display()))?)
        }
        None => args.token,
    };
    if let Some(token) = token {
        builder = builder.token(token);
    }
    if let Some(path) = args.ca_file {
        builder = builder.ca_file(path);
    }
    let client = builder.connect_lazy().await?;
    let layout = layout::Layout::open(&args.root).map_err(|e| {
        format!("the folder {} cannot be used: {e}; give a folder that exists with --root", args.root.display())
    })?;
    let backend = backend::Files::new(layout, Duration::from_millis(args.act_delay_ms));
    let drain = CancellationToken::new();
    tokio::spawn(drain_on_signal(drain.clone())?);
    let options = WorkerOptions { concurrency: usize::from(args.concurrency), ..WorkerOptions::default() };
    tracing::info!(system = args.system, worker = args.name, "working");
    Worker::new(client, &args.system, &args.name, backend).options(options).run(drain).await?;
    tracing::info!("drained");
    Ok(())
}

/// Listens from now on, not from the first poll, so that no signal is missed.
fn drain_on_signal(drain: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        let terminated = terminate.recv();
        #[cfg(not(unix))]
        let terminated = std::future::pending::<Option<()>>();
        tokio::select! {
            _ = terminated => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("draining");
        drain.cancel();
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_sound() {
        super::Args::command().debug_assert();
    }
}
