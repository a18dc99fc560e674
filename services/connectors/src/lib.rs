//! Connectors: the code that speaks to one kind of system.
//!
//! Dispatch calls [`Connector::find`], stores the match sets durably, then [`Connector::act`], then [`Connector::read_back`]; what
//! read-back returns is all that is ever confirmed (I5). Every call takes a whole batch of one customer, one system and one
//! action, and answers per subject, in the batch's order.

mod carry;
mod connector;
mod match_set;
pub mod sql;

pub use carry::{CannotCarry, carry};
pub use connector::{
    BatchContext, Connector, ConnectorError, Exported, Finding, FindingSeverity, Found, HeldKey, HeldPage, HeldPlace,
    Record, RecordField, Subject, SubjectError, SubjectResult,
};
pub use match_set::{MatchSet, MatchedRow, RowFate, Via};
