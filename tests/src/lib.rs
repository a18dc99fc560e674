//! What tests across crates share: a deployment of real processes, and application databases to work on.

pub mod app_database;
pub mod authority;
pub mod certificates;
pub mod deployment;
pub mod port;
pub mod servers;
pub mod witness;

pub use app_database::AppDatabase;
pub use deployment::{Deployment, StoreKind};

pub mod scenario;
