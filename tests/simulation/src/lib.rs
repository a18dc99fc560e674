//! The service under a seeded simulator: domain, dispatcher and ledger sequencer, over the real store, for thirty simulated days.
//!
//! # What is real
//!
//! The store on SQLite with all its statements, the dispatcher's looks and batches (`Dispatcher::look`, heartbeats, splitting,
//! breakers), `RemoteDesk`, `Deadlines`, and the sequencer's turns (`Sequencer::turn`). What is simulated is what is around them: time and chance
//! ([`clock`]), the order in which things happen ([`world`], [`stage`]), what the database's connection does ([`seam`]), the systems that hold
//! the data ([`system`], [`connector`]), and those who call ([`hands`]).
//!
//! # How a run goes
//!
//! A seed draws a [`scenario`]: replicas, customers, systems, and operations in a few bursts over thirty days. Everybody who would begin a
//! transaction, sleep or wait for a system *parks*; one of the parked is chosen, and runs until it parks again. Between two parkings
//! there is at most one transaction. After each that committed, [`check`] reads the store by its own statements and compares it with what
//! was before, with what customers were told, and with the systems' true rows: I1 to I9, and of I10 the ledger. When the
//! operations are over nothing goes wrong any more, and all must come to its end.
//!
//! # What is a failure, and what is not
//!
//! A task that needs attention is none: an operator looks at it. A request that waits for its customer is none. A call that is
//! refused because it comes too late is none. Work that is done twice at a system is none, as long as the confirmation says exactly what was
//! done. Anything acknowledged and gone, confirmed and untrue, or never finished, is one.
//!
//! # When it fails
//!
//! It prints the seed, makes the run as small as it can ([`shrink`]), and prints that as a text that replays exactly:
//! `make simulate REPLAY='17:ops=0,3:faults=12c:quirks='`. Ids, salts and keys are random in every run; nothing depends on them but
//! their order, which is that of their making (a test compares traces).
//!
//! # What it does not simulate
//!
//! PostgreSQL, where transactions overlap: its conformance suite and the chaos runs do that;
//! rate limits, which go by the machine's clock; corrections of identifiers.

mod check;
mod clock;
mod connector;
mod depot;
pub mod dice;
mod hands;
pub mod plan;
mod planted;
mod play;
mod replica;
pub mod scenario;
mod scene;
mod seam;
mod search;
mod shrink;
mod snapshot;
mod stage;
mod system;
mod world;

/// A run is millions of small pieces of memory, on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub use planted::Planted;
pub use play::{Run, play, run};
pub use scenario::{Replay, Scenario};
pub use search::{Found, at_once, search};
pub use shrink::{Shrunk, shrink};
pub use world::{Trace, Violation};
