//! The log from outside: the tree and its tiles (`tree`), the formats that others read (`formats`).

mod common;
mod formats;
mod tree;
