//! Whether the log is written, and why not.

use quittance_ledger::audit::Damage;

/// Why nothing is signed any more until a person has looked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Halt {
    #[error(
        "the store's log has {size} entries, and a checkpoint of {signed} was signed: the database was restored from a backup. \
         `quittanced ledger recover` brings the log back (docs/operating.md, After a restore)"
    )]
    Shorter { size: u64, signed: u64 },
    #[error(
        "the store's log has {size} entries, and no checkpoint of it is left outside the database: whether the database was restored \
         from a backup cannot be told. Restore ledger.folder (or ledger.publish) from where it was kept; only if this database was never \
         restored, `quittanced ledger accept-store` (docs/operating.md, The highest checkpoint is gone)"
    )]
    NothingOutside { size: u64 },
    #[error("the store's log is another one than was signed at {signed} entries: it was altered")]
    Forked { signed: u64 },
    #[error("the store's log was altered: {0}")]
    Altered(#[from] Damage),
    #[error("a checkpoint outside the database: {0}")]
    File(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogStatus {
    Starting,
    /// We write.
    Writing,
    /// Another replica does.
    Elsewhere,
    /// Nobody can: the reason says what to do.
    Halted(Halt),
}
