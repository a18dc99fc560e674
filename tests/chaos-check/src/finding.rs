//! What the checker holds against a run.

use std::fmt;

/// What was promised and is not so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// Acknowledged, and not in the store, or there under another name (I2).
    AcknowledgedIsDurable,
    /// In the store, and never sent; or sent once and there twice (I1, I2).
    OnlyWhatWasSent,
    /// Not completed, or not as its tasks say (I3).
    RequestComplete,
    /// Not exactly one task for every system, or one that is not confirmed (I3).
    OneTaskEach,
    /// Not exactly one confirmation for every task (I4).
    OneConfirmationEach,
    /// A confirmation that says something else than what was there to do (I4, I5).
    ConfirmationTrue,
    /// In time or late, and recorded otherwise (I9).
    LateMark,
    /// An event without its entry, with two, or with one that says something else (I6).
    EntryOfEvent,
    /// An entry that does not open its leaf (I6).
    Leaf,
    /// An entry without a place in the log, or with somebody else's (I6).
    Place,
    /// Tiles that are not those of the tree (I6).
    Tiles,
    /// The checkpoint is not signed, or is of another tree (I6).
    Checkpoint,
    /// The log was once published otherwise: it did not only grow (I6).
    OnlyGrows,
    /// Something needs a key that is destroyed, or a destruction is told twice, or of a key that is there (I7).
    DestroyedKeys,
    /// A row of the instructed person's that is not as the data map says (I5).
    SubjectRows,
    /// A row that nobody had instructed anything about, and that is not as it was (I8).
    NeighbourRows,
    /// Personal data in a log (I10).
    SilentLogs,
    /// A process that panicked.
    NoPanic,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    pub rule: Rule,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// Findings, and how much was looked at: a checker that looked at nothing finds nothing.
#[derive(Default, Debug)]
pub struct Report {
    pub findings: Vec<Finding>,
    pub figures: Figures,
}

#[derive(Clone, PartialEq, Eq, Default, Debug, serde::Serialize)]
pub struct Figures {
    pub sent: u64,
    pub acknowledgements: u64,
    /// Of those sent: first referred, and declined by their customers.
    pub referred: u64,
    pub declined: u64,
    pub requests: u64,
    pub tasks: u64,
    pub confirmations: u64,
    pub late: u64,
    pub entries: u64,
    pub tiles: u64,
    pub checkpoints: u64,
    pub keys_destroyed: u64,
    pub people: u64,
    pub neighbours: u64,
}

impl Report {
    pub fn find(&mut self, rule: Rule, what: impl Into<String>) {
        self.findings.push(Finding { rule, what: what.into() });
    }

    /// Finds it unless it holds.
    pub fn expect(&mut self, holds: bool, rule: Rule, what: impl FnOnce() -> String) {
        if !holds {
            self.find(rule, what());
        }
    }
}
