//! SQL connectors.
