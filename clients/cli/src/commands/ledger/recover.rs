//! `quittance ledger recover`: what brings a log back needs the store and the keys, which the service's own program alone opens. So that runs.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;

use crate::{
    failure::{Done, Failure},
    output::Format,
};

const PROGRAM: &str = "quittanced";

pub const HELP: &str = "\
It reads the published tiles, proves them against the highest checkpoint that was signed, brings the store's log up to it, and lists what requests
and confirmations the restored database lacks. It runs `quittanced ledger recover`: where the service runs, with the service's own settings.

Examples:
  quittance ledger recover --data-dir /var/lib/quittance
  quittance ledger recover --config quittanced.toml --from https://log.processor.example --output json";

#[derive(Args)]
pub struct Recover {
    /// The service's TOML file with settings.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where the log was published; `ledger.publish` unless given.
    #[arg(long, value_name = "FOLDER_OR_URL")]
    from: Option<String>,
    /// The service's folder of the embedded default.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Answers only where that program cannot be run: it takes this one's place, with its output and exit code.
pub fn run(recover: Recover, ca_file: Option<&Path>, output: Format) -> Done {
    let mut command = Command::new(program());
    command.args(["ledger", "recover", "--output", if output == Format::Json { "json" } else { "text" }]);
    let given = [
        ("--config", recover.config),
        ("--data-dir", recover.data_dir),
        ("--from", recover.from.map(PathBuf::from)),
        ("--ca-file", ca_file.map(Path::to_owned)),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            command.arg(name).arg(value);
        }
    }
    let error = command.exec();
    Err(Failure::Other(format!("{PROGRAM} cannot be run: {error}. Run this where the service is installed")))
}

/// The one that was installed with this, or the path's.
fn program() -> PathBuf {
    let own = env::current_exe().ok();
    let beside = own.and_then(|own| Some(own.parent()?.join(PROGRAM))).filter(|path| path.is_file());
    beside.unwrap_or_else(|| PROGRAM.into())
}
