//! `quittanced ledger fsck` and `recover`: an operator's look at the log behind the service, and what brings it back after a restore.

use std::{
    io::{self, Write as _},
    ops::Range,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use quittance_domain::{Timestamp, ids::request_name};
use quittance_ledger::{checkpoint::SignedHead, key::KeyId};
use quittance_log_client::PublishedLog;
use quittance_sequencer::{
    AuditKeys, CheckpointFile, Direct, EntryIndex, LogKeyRing, Publisher, Recovered, StoreFindings, check_all, recover,
};
use quittance_store::Store;

use crate::{
    config::Config,
    ledger,
    lost::{self, LostOfCustomer},
    serve::Failure,
};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one document.
    Json,
}

#[derive(Args)]
pub struct FsckArgs {
    /// How the result is written
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Args)]
pub struct RecoverArgs {
    /// Where the log was published: a folder, or a URL (what stands before /checkpoint and /tile); `ledger.publish` unless given
    #[arg(long, value_name = "FOLDER_OR_URL")]
    from: Option<String>,
    /// A PEM file with the authority of that URL's certificate, where the operating system does not know it
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How the result is written
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// How often is told how far it is, where it takes long.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Open requests that are named; the others are counted.
const OPEN_NAMED: u32 = 10_000;

/// To people, beside the result.
struct Progress {
    told: Instant,
    what: &'static str,
}

impl Progress {
    fn of(what: &'static str) -> Self {
        Self { told: Instant::now(), what }
    }

    fn tell(&mut self, done: impl std::fmt::Display) {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            // Nothing else can be done where standard error is gone.
            let _ = writeln!(io::stderr(), "{}: {done}", self.what);
        }
    }
}

/// Looks at everything; an error tells that it is damaged, after the findings were written.
pub async fn fsck(config: &Config, args: &FsckArgs) -> Result<(), Failure> {
    let store = Store::open(&config.store()?).await?;
    let folder = config.ledger_folder().join("keys");
    let keys = AuditKeys {
        log: LogKeyRing::public(&folder)?,
        ever: LogKeyRing::ever(&folder)?,
        witnesses: ledger::witnesses(&config.ledger)?.keys().to_vec(),
    };
    let mut progress = Progress::of("entries checked");
    let tell = |done: u64, all: u64| progress.tell(format_args!("{done} of {all}"));
    let found = check_all(&store, &keys, &ledger::files(config), tell).await?;
    match args.output {
        Format::Json => writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&found)?)?,
        Format::Text => writeln!(io::stdout(), "{}", text_of(&found))?,
    }
    store.close().await;
    if found.findings.is_whole() { Ok(()) } else { Err("the log is damaged".into()) }
}

fn text_of(found: &StoreFindings) -> String {
    let mut text = found.findings.to_string();
    if found.damaged_checkpoints > 0 {
        text.push_str(&format!("\n{} of the kept checkpoints are none of this log", found.damaged_checkpoints));
    }
    if found.staged > 0 {
        text.push_str(&format!("\n{} entries have no place yet", found.staged));
    }
    if found.lost > 0 {
        text.push_str(&format!("\n{} entries were lost with a database: only their places are known", found.lost));
    }
    text
}

/// What an operator gets to know of a recovery.
#[derive(serde::Serialize)]
struct Account {
    from: u64,
    to: u64,
    /// Entries that the store had staged, and that have their places back.
    placed: u64,
    lost: u64,
    /// Each as first and last.
    lost_entries: Vec<[u64; 2]>,
    backup_ends: Option<Timestamp>,
    /// Whose the lost entries were, as the index outside the database tells.
    lost_of_customers: Vec<LostOfCustomer>,
    /// Lost entries that the index does not know: whose they were, nobody can tell.
    lost_unknown: u64,
    /// Requests that are open in the store: what was lost may have been about them.
    open_requests: Vec<String>,
    open_requests_beyond: u64,
}

pub async fn recover_log(config: &Config, args: &RecoverArgs) -> Result<(), Failure> {
    let published = match (&args.from, &config.ledger.publish) {
        (Some(place), _) => PublishedLog::open(place, args.ca_file.as_deref())?,
        (None, Some(folder)) => PublishedLog::folder(folder.clone()),
        (None, None) => return Err("say with --from where the log was published: a folder or a URL".into()),
    };
    let store = Store::open(&config.store()?).await?;
    let log = LogKeyRing::public(&config.ledger_folder().join("keys"))?;
    let highest = CheckpointFile::highest(ledger::files(config).highest);
    let mut progress = Progress::of("entries in the store's log");
    let now = Arc::new(Timestamp::now);
    let done = recover(&Direct, &store, now, &log, &highest, &published, |size| progress.tell(size)).await?;
    let (open, open_requests_beyond) = store.open_requests(OPEN_NAMED).await?;
    let Recovered { from, to, placed, mut lost, backup_ends } = done;
    if from == to {
        // Run again, it tells all that was ever lost.
        lost = store.lost_entries(0..to).await?;
    }
    let known = EntryIndex::new(ledger::files(config).index).read(&lost)?;
    let count = lost.iter().map(|range| range.end - range.start).sum();
    let account = Account {
        from,
        to,
        placed,
        lost: count,
        lost_unknown: count.saturating_sub(known.len() as u64),
        lost_of_customers: lost::by_customer(known),
        lost_entries: lost.iter().map(|Range { start, end }| [*start, end - 1]).collect(),
        backup_ends,
        open_requests: open.iter().map(|(customer, id)| request_name(customer, *id)).collect(),
        open_requests_beyond,
    };
    match args.output {
        Format::Json => writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&account)?)?,
        Format::Text => write!(io::stdout(), "{}", account.text())?,
    }
    store.close().await;
    Ok(())
}

/// A key that is lost, or known to others. Whatever the log says of itself must be signed by another one before: that alone is believed then,
/// and a log whose newest checkpoint nobody believes would halt.
pub async fn revoke_key(config: &Config, key: KeyId) -> Result<(), Failure> {
    let folder = config.ledger_folder().join("keys");
    let left = LogKeyRing::without(&folder, key)?;
    let unsigned = |place: &str, fault: &dyn std::fmt::Display| {
        format!(
            "{place} does not hold without this key ({fault}): start every quittanced again, so that the newer key signs the log, wait a few \
             seconds, and revoke it then"
        )
    };
    let files = ledger::files(config);
    let store = Store::open(&config.store()?).await?;
    CheckpointFile::highest(files.highest).read(&left).map_err(|e| unsigned("the highest checkpoint", &e))?;
    if let Some(folder) = &files.publish {
        Publisher::new(folder).read(&left).map_err(|e| unsigned("the published folder's checkpoint", &e))?;
    }
    // A store without a log has none.
    if store.log_origin().await?.is_some()
        && let Some(row) = store.log_state().await?.checkpoint
    {
        SignedHead::read(row.note.as_bytes(), &left).map_err(|e| unsigned("the published checkpoint", &e))?;
    }
    store.close().await;
    Ok(LogKeyRing::revoke(&folder, key, Timestamp::now())?)
}

/// On the operator's word that this database was never restored.
pub async fn accept_store(config: &Config) -> Result<(), Failure> {
    let store = Store::open(&config.store()?).await?;
    let begun = store.log_origin().await?.ok_or("the store has no log yet: nothing is to be accepted")?;
    let keys = LogKeyRing::open(&config.ledger_folder().join("keys"), &begun, Some(&begun), Timestamp::now())?;
    let size = quittance_sequencer::accept_store(&store, &keys, &ledger::files(config)).await?;
    writeln!(io::stdout(), "the store's checkpoint of {size} entries is the highest now")?;
    store.close().await;
    Ok(())
}

/// Ranges and requests that are written out for people; programs get all.
const SHOWN: usize = 20;

impl Account {
    fn text(&self) -> String {
        let Self { from, to, placed, lost, .. } = self;
        let mut text = if from == to {
            format!("nothing to recover: the store's log has its {to} entries, and all that was signed is in it\n")
        } else {
            format!(
                "the log has {to} entries again (the store had {from})\n\
                 {placed} entries of the store have their places back\n"
            )
        };
        if from == to && *lost == 0 {
            return text;
        }
        text.push_str(&format!(
            "{lost} places have no entry in the store: what they commit to is lost with the database\n"
        ));
        let ranges = self.lost_entries.iter().take(SHOWN);
        ranges.for_each(|[first, last]| text.push_str(&format!("  entries {first} to {last}\n")));
        if self.lost_entries.len() > SHOWN {
            text.push_str(&format!(
                "  and {} more ranges (--output json tells all)\n",
                self.lost_entries.len() - SHOWN
            ));
        }
        text.push_str(&lost::text(&self.lost_of_customers, SHOWN));
        if self.lost_unknown > 0 {
            let unknown = self.lost_unknown;
            text.push_str(&format!("of {unknown} of them ledger.folder does not tell whose they were\n"));
        }
        if let Some(time) = self.backup_ends {
            text.push_str(&format!("the newest entry that the store had in its log was made at {time}\n"));
        }
        let open = self.open_requests.len() as u64 + self.open_requests_beyond;
        text.push_str(&format!("{open} requests are open in the store: what was lost may have been about them\n"));
        self.open_requests.iter().take(SHOWN).for_each(|name| text.push_str(&format!("  {name}\n")));
        if open > SHOWN as u64 {
            text.push_str(&format!("  and {} more\n", open - SHOWN as u64));
        }
        text
    }
}
