//! Reads a log as its users see it (C2SP tlog-tiles, over HTTP or in a folder), and asks its witnesses (C2SP tlog-witness).

mod audit;
mod http;
mod published;
mod witness;

pub use audit::audit;
pub use http::{FetchError, HttpClient};
pub use published::{NotALog, PublishedLog, ReadError};
pub use witness::{Witness, WitnessReply};
