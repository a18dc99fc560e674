//! Structured logs on standard error. No personal data: what holds some has no `Display` and a silent `Debug` (I10).

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("QUITTANCE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A file shall not hold a terminal's colours.
    let colours = std::io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => logs.json().init(),
        LogFormat::Text => logs.init(),
    }
}
