//! What the clients of a run sent and were told, a JSON line each. Whoever writes it has an acknowledgement on disk before it goes on.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::CheckError;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// By the run's own clock, which nobody steps.
    pub at_us: i64,
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// About to be sent for the first time. One person's instructions stand here in the order in which they were given.
    Sent(Sent),
    /// The service said that it has taken it in.
    Acknowledged { customer: String, request_id: String, name: String },
    /// The service said that it is completed.
    SeenCompleted { name: String },
    /// The log was published like this.
    SeenCheckpoint { note: String },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    pub customer: String,
    pub request_id: String,
    pub action: String,
    pub email: String,
    /// Of a rectification: the person's new name, and the statement for the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Corrected>,
    /// The customer must answer by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_due_us: Option<i64>,
    /// It came from the person, and waited for the customer's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referred: Option<Referred>,
}

impl Sent {
    pub fn is_declined(&self) -> bool {
        self.referred.as_ref().is_some_and(|referred| !referred.authorised)
    }
}

/// What the customer says to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Referred {
    /// Or declined.
    pub authorised: bool,
    /// Before that, it takes more time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_due_us: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Corrected {
    pub name: String,
    pub statement: String,
}

/// A last line that a kill cut short is nobody's promise, and left out.
pub fn read(path: &Path) -> Result<Vec<Line>, CheckError> {
    let text = fs::read_to_string(path).map_err(|e| CheckError::File(path.to_owned(), e))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).map_err(|e| CheckError::Form(path.to_owned(), e))).collect()
}
