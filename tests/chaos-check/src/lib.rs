//! Proves that a run of `chaos` kept its promises, without asking the service: it reads the store's tables, the published log and the
//! application databases by itself, with formats and rules written down here a second time.

mod apps;
mod entries;
pub mod finding;
pub mod journal;
mod keys;
mod log;
pub mod manifest;
mod note;
mod people;
mod requests;
mod rows;
mod tiles;
mod tree;

use std::{collections::BTreeSet, fs, io, path::PathBuf};

pub use apps::Snapshot;
pub use finding::{Figures, Finding, Report, Rule};
pub use manifest::{Apps, Manifest};

use journal::{Event, Sent};
use rows::Database;

#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    File(PathBuf, io::Error),
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Form(PathBuf, serde_json::Error),
    #[error("a database cannot be read: {0}")]
    Database(#[from] sqlx::Error),
}

/// Looks at everything, and says what is not as it must be.
pub async fn check(manifest: &Manifest) -> Result<Report, CheckError> {
    let mut report = Report::default();
    let journal = journal::read(&manifest.journal)?;
    let sent: Vec<&Sent> =
        journal.iter().filter_map(|line| if let Event::Sent(sent) = &line.event { Some(sent) } else { None }).collect();
    let seen: Vec<&str> = journal
        .iter()
        .filter_map(|line| if let Event::SeenCheckpoint { note } = &line.event { Some(note.as_str()) } else { None })
        .collect();
    let entries = log::check(&manifest.published, &manifest.log_keys, &seen, &mut report);
    let mut store = Database::open(&manifest.store).await?;
    let ledger = entries::check(&mut store, entries.as_deref(), &mut report).await?;
    let before = Snapshot::read(&manifest.before)?;
    let after = Snapshot::take(&manifest.apps).await?;
    let expected = people::expect(&before, &sent, &mut report);
    people::compare(&expected, &after, &mut report);
    keys::check(&mut store, &ledger, &mut report).await?;
    requests::check(&mut store, &manifest.systems, &journal, &ledger, &expected.outcomes, &mut report).await?;
    logs(manifest, &sent, &mut report)?;
    report.findings.sort();
    Ok(report)
}

/// No identifier of anybody's stands in a log, and nothing has panicked.
fn logs(manifest: &Manifest, sent: &[&Sent], report: &mut Report) -> Result<(), CheckError> {
    let people: BTreeSet<&str> = sent.iter().map(|sent| sent.email.as_str()).collect();
    for path in &manifest.logs {
        let text = fs::read_to_string(path).map_err(|e| CheckError::File(path.clone(), e))?;
        for line in text.lines() {
            report.expect(!line.contains("panicked at"), Rule::NoPanic, || line.to_owned());
            // The names of people end alike; only where that stands is each looked for.
            let names_somebody = line.contains("@example.com") && people.iter().any(|email| line.contains(email));
            report.expect(!names_somebody, Rule::SilentLogs, || format!("{} names a person", path.display()));
        }
    }
    Ok(())
}
