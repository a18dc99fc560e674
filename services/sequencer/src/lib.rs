//! The sequencer: gives staged ledger entries their places in the log, and signs checkpoints (docs/ledger.md).
//!
//! One at a time writes, by a lease with an epoch. Places, tiles and the new head are one transaction, which is refused to a passed
//! epoch; a checkpoint is signed over a head that is committed, kept outside the database, and only then published. So whatever is lost,
//! or done though it was reported as failed, the next turn reads what stands and goes on from there: no fork, no gap, nothing twice.

mod audit;
mod checkpoint_file;
mod durable;
mod entry_index;
mod folder_scrub;
mod halt;
mod keys;
mod publisher;
mod recover;
mod scrub;
mod sequencer;
mod tiles;
mod witnesses;
mod writes;

pub use audit::{AuditKeys, StoreFindings, begins_with, check_all, check_portion, right_edge};
pub use checkpoint_file::{CheckpointFile, CheckpointFileError};
pub use entry_index::{EntryIndex, EntryIndexError};
pub use halt::{Halt, LogStatus};
pub use keys::{KeyFileError, LogKeyRing};
pub use publisher::Publisher;
pub use recover::{RecoverError, Recovered, accept_store, recover};
pub use scrub::Scrub;
pub use sequencer::{Doubt, LogFiles, Now, Sequencer, SequencerOptions};
pub use tiles::fetch;
pub use witnesses::{WitnessError, Witnesses};
pub use writes::{Direct, RecoveredPlaces, Writes};
