//! Structured logs on standard error. No personal data: what holds some has no `Display` and a silent `Debug` (I10).

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("QUITTANCE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => logs.json().init(),
        LogFormat::Text => logs.init(),
    }
}
