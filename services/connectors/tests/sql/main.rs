//! One suite over PostgreSQL, MariaDB and SQLite, against real servers: what holds on one holds on all three.
//!
//! `QUITTANCE_TEST_POSTGRES_URL` and `QUITTANCE_TEST_MARIADB_URL` name servers on which databases may be made, `QUITTANCE_TEST_STANDBY_URL` a
//! PostgreSQL that is in recovery. Without them the suite fails, lest it be taken for passed; with `QUITTANCE_TEST_WITHOUT_SERVERS=1` it says
//! what it leaves out.

mod altered;
mod carried;
mod checks;
mod engines;
mod erasure;
mod harness;
mod held;
mod holds;
mod names;
mod ownership;
mod plans;
mod reruns;
mod rights;
mod scale;
mod shared;
mod values;
