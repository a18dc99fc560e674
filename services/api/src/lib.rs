//! The contract's types, generated from `proto/quittance/v1`: the only source of every client.
//!
//! Conversion to domain types stands in the server (`services/server/src/convert`): clients need none of it.

#[allow(clippy::all, clippy::pedantic, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("quittance.v1");
}

/// The revision of `ConnectorService` that is described here: `LeaseTasksRequest.protocol`.
pub const WORKER_PROTOCOL: u32 = 1;

/// The compiled descriptors, for reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quittance.bin"));
