//! Client of the Quittance service.
//!
//! [`Client`] gives a typed client per service of the contract ([`api`]). On top of them stand two things that are hard to get right by
//! hand: [`bulk`], which takes a great many requests in and survives cuts, and [`worker`], which does the tasks of a remote system.
//!
//! ```no_run
//! # async fn example() -> Result<(), quittance_client::ClientError> {
//! use quittance_client::{Client, ClientError, api};
//!
//! let client = Client::connect("https://quittance.example:7443", "token").await?;
//! let name = "customers/acme/requests/0199b7a4-2f6c-7d58-9a51-6f2d3c8e1b40";
//! let answer = client
//!     .requests()
//!     .get_request(api::GetRequestRequest { name: name.into() })
//!     .await
//!     .map_err(ClientError::from)?;
//! # Ok(())
//! # }
//! ```

mod backoff;
pub mod bulk;
mod client;
mod error;
pub mod worker;

pub use backoff::{Backoff, retrying};
pub use client::{Bearer, Client, ClientBuilder, Transport};
pub use error::{ClientError, FieldViolation, RpcError};
pub use quittance_api::RecordJoiner;
/// The contract's own types.
pub use quittance_api::v1 as api;
