//! What operators and customers do beside the main job, through the API of real processes: look, list, decide, retry, review; and what a
//! deployment is configured with: roles, limits, TLS; databases that fail; and what its PostgreSQL is sent.

mod databases;
mod decisions;
mod limits;
mod listings;
mod packages;
mod roles;
mod scene;
mod statement_log;
mod systems;
mod tasks;
mod tls;
