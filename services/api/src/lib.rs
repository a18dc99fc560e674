//! The contract's types, generated from `proto/quittance/v1`: the only source of every client.
//!
//! Conversion to domain types stands in the server (`services/server/src/convert`): clients need none of it. What both sides must do alike
//! ([`record_parts`], [`RecordJoiner`]) stands here.

#[allow(clippy::all, clippy::pedantic, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("quittance.v1");
}

mod record_parts;
pub use record_parts::{RecordJoiner, record_parts};

/// The revision of `ConnectorService` that is described here: `LeaseTasksRequest.protocol`.
pub const WORKER_PROTOCOL: u32 = 1;

/// The compiled descriptors, for reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quittance.bin"));
