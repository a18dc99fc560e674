//! The command line: what there is, and how to reach the service.

use std::{env, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use quittance_client::Client;
use uuid::Uuid;

use crate::{commands, failure::Failure, files, output, output::Format, times};

const AFTER_HELP: &str = "\
Names may be short: `acme` for `customers/acme`, `crm-nl` for `systems/crm-nl`; a request by its full name, or by its id with --customer.
With a customer's own token, --customer can be left out where a command takes it as a filter or parent.

Examples:
  # a customer, a system, an erasure
  quittance customers create acme --display-name 'Acme B.V.' --time-zone Europe/Amsterdam --country EEA \\
      --signed 2026-01-01T00:00:00Z --contact privacy=dpo@acme.example
  quittance systems register -f crm-nl.yaml
  quittance requests create --customer acme --action erasure --email anna@example.com --wait

  # a great many, and what came of them
  quittance requests batch --customer acme --action erasure --file subjects.csv --batch-id march --wait
  quittance requests list --customer acme --state in_progress --output json

Exit codes: 0 done; 1 error; 2 wrong usage; with --wait: 3 completed with exceptions, 4 still open when the time was over.";

/// Carries data subjects' requests to every system, and shows what each of them confirmed.
#[derive(Parser)]
#[command(name = "quittance", version, after_help = AFTER_HELP, max_term_width = 120)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where the service is: http://host:port, or https:// with TLS.
    #[arg(
        long,
        global = true,
        env = "QUITTANCE_ENDPOINT",
        default_value = "http://127.0.0.1:7443",
        value_name = "URL"
    )]
    pub endpoint: String,
    /// The bearer token. A file or the environment is better: arguments are seen by everybody on the machine.
    /// [env: QUITTANCE_TOKEN]
    #[arg(long, global = true, conflicts_with = "token_file")]
    pub token: Option<String>,
    /// A file that holds the token. [env: QUITTANCE_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A PEM file with the authority of the service's certificate, where the operating system does not know it.
    #[arg(long, global = true, env = "QUITTANCE_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// How results are written.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// How long to wait, as 30s or 10m: for an answer (60s unless set), and with --wait for the requests to close (no limit unless set).
    #[arg(long, global = true, value_parser = times::parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Customers (controllers) and their data-processing agreements.
    #[command(subcommand)]
    Customers(commands::customers::Command),
    /// Storage backends and sub-processors: where personal data lives.
    #[command(subcommand)]
    Systems(commands::systems::Command),
    /// Data subjects' requests.
    #[command(subcommand)]
    Requests(commands::requests::Command),
    /// Tasks that need attention.
    #[command(subcommand)]
    Tasks(commands::tasks::Command),
    /// Access packages (Art. 15).
    #[command(subcommand)]
    Packages(commands::packages::Command),
    /// What the systems confirmed.
    #[command(subcommand)]
    Confirmations(commands::evidence::Command),
    /// How a request stands at this moment: what is confirmed, what is open and why. Of one that was declined or cancelled: what was done.
    InterimStatement(commands::evidence::InterimStatement),
    /// Checks a certificate or a statement, offline: neither the service nor a token is needed.
    #[command(after_help = commands::verify::HELP)]
    Verify(commands::verify::Verify),
    /// The log under the certificates.
    #[command(subcommand)]
    Ledger(commands::ledger::Command),
    /// The keys under which requests are sealed, and by whose destruction they are forgotten.
    #[command(subcommand)]
    Keys(commands::keys::Command),
    /// Writes completions for a shell: `quittance completion bash > /etc/bash_completion.d/quittance`.
    Completion { shell: clap_complete::Shell },
}

/// Makes a change safe to send twice.
#[derive(Args)]
pub struct RequestId {
    /// A UUID of your own. Sent twice, it is one change; a new one is made unless given.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<Uuid>,
}

impl RequestId {
    pub fn get(&self) -> String {
        self.request_id.unwrap_or_else(Uuid::new_v4).to_string()
    }
}

impl Global {
    /// What is said on the command line comes before the environment, which clap alone would not tell apart.
    fn token(&self) -> Result<Option<String>, Failure> {
        let from_environment = |name| env::var_os(name).filter(|value| !value.is_empty());
        if let Some(token) = &self.token {
            return Ok(Some(token.clone()));
        }
        if let Some(path) =
            self.token_file.clone().or_else(|| from_environment("QUITTANCE_TOKEN_FILE").map(PathBuf::from))
        {
            return files::text(&path).map(Some);
        }
        let token = from_environment("QUITTANCE_TOKEN").map(|token| token.into_string());
        token.transpose().map_err(|_| Failure::Usage("QUITTANCE_TOKEN is not text: set it anew".to_owned()))
    }

    pub async fn connect(&self) -> Result<Client, Failure> {
        let mut builder = Client::builder(&self.endpoint);
        if let Some(token) = self.token()? {
            if is_open_to_all(&self.endpoint) {
                output::note("warning: the token goes over the network unencrypted; use an https:// endpoint");
            }
            builder = builder.token(token);
        }
        if let Some(path) = &self.ca_file {
            builder = builder.ca_file(path);
        }
        if let Some(limit) = self.timeout {
            builder = builder.timeout(limit).connect_timeout(limit.min(Duration::from_secs(10)));
        }
        Ok(builder.connect().await?)
    }
}

/// Plain HTTP to another machine.
fn is_open_to_all(endpoint: &str) -> bool {
    let Some(rest) = endpoint.strip_prefix("http://") else { return false };
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.split(':').next().unwrap_or(authority),
    };
    let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    !local
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_token_in_the_clear_is_noticed() {
        for (endpoint, open) in [
            ("http://127.0.0.1:7443", false),
            ("http://localhost:7443", false),
            ("http://[::1]:7443", false),
            ("https://quittance.example", false),
            ("http://quittance.example:7443", true),
        ] {
            assert_eq!(is_open_to_all(endpoint), open, "{endpoint}");
        }
    }
}
