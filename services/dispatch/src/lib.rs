//! Dispatch: from a planned task to a recorded confirmation.
//!
//! One loop finds due work in the small table `ready`, leases batches of one customer, system and action, and runs them: find,
//! store the match sets, act, read back, report. In-process connectors and remote workers use the same lease, extend, report path;
//! [`remote`] is the latter's side of it.

mod batch;
mod breaker;
mod clock;
mod clock_watch;
mod deadlines;
mod dispatcher;
mod execute;
mod gate;
mod heartbeat;
mod held;
mod holds;
mod keys;
mod limits;
mod registry;
pub mod remote;
mod replay;
mod singles;
mod suppressions;
mod topology;

pub use clock::{Clock, SystemClock};
pub use clock_watch::{ClockTrust, ClockWatch};
pub use deadlines::Deadlines;
pub use dispatcher::{DispatchHandle, Dispatcher, Lookout};
pub use holds::EndsOfHolds;
pub use keys::KeyKeeper;
pub use limits::DispatchLimits;
pub use registry::{ConnectorFactory, ConnectorRegistry, as_planned};
pub use replay::{KeyMatcher, Replays, UnknownCustomer};
pub use suppressions::Suppressions;
pub use topology::TopologyCache;
