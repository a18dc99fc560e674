//! The log from outside: the tree and its tiles (`tree`, `audit`), the formats that others read (`formats`).

mod audit;
mod common;
mod formats;
mod tree;
