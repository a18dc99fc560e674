//! Certificates, from the events to the file and back.

mod bytes;
mod consistency;
mod entries;
pub mod sample;
mod schema;
mod subject;
