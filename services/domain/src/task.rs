//! A task: one instruction at one system, and the states it goes through.

use crate::text_enum;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskState {
    Waiting,
    Pending,
    Running,
    AwaitingConfirmation,
    NeedsAttention,
    Confirmed,
}

text_enum!(TaskState,
    Waiting => "WAITING",
    Pending => "PENDING",
    Running => "RUNNING",
    AwaitingConfirmation => "AWAITING_CONFIRMATION",
    NeedsAttention => "NEEDS_ATTENTION",
    Confirmed => "CONFIRMED",
);

/// What a lease asks for. A system that yields identifiers is first asked for them, and acted upon later.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Work {
    Resolve,
    Act,
}

text_enum!(Work, Resolve => "RESOLVE", Act => "ACT");

/// What happens to a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskEvent {
    /// What it waited for has come.
    Release,
    /// A worker took it; from `Running` when the former lease has passed.
    Lease,
    /// Try again later, or handed back at a drain.
    Retry,
    /// Identifiers were found: the act waits or is due.
    Resolved {
        waits: bool,
    },
    /// Instructed; the system answers later.
    Await,
    /// A person must look.
    Attend,
    Confirm,
}

/// The one error for every transition that there is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a task that is {from} cannot take {event:?}")]
pub struct IllegalTransition {
    pub from: TaskState,
    pub event: TaskEvent,
}

impl TaskState {
    /// The only place where a task's state changes. The store's statements say the same in their conditions.
    pub fn on(self, event: TaskEvent) -> Result<Self, IllegalTransition> {
        use TaskEvent as E;
        use TaskState as S;
        match (self, event) {
            (S::Waiting, E::Release) => Ok(S::Pending),
            (S::Pending | S::Running | S::AwaitingConfirmation, E::Lease) => Ok(S::Running),
            (S::Running | S::NeedsAttention, E::Retry) => Ok(S::Pending),
            (S::Running, E::Resolved { waits: true }) => Ok(S::Waiting),
            (S::Running, E::Resolved { waits: false }) => Ok(S::Pending),
            (S::Running, E::Await) => Ok(S::AwaitingConfirmation),
            (S::Waiting | S::Running, E::Attend) => Ok(S::NeedsAttention),
            (S::Running | S::NeedsAttention, E::Confirm) => Ok(S::Confirmed),
            (from, event) => Err(IllegalTransition { from, event }),
        }
    }

    pub const fn is_open(self) -> bool {
        !matches!(self, Self::Confirmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmed_task_never_changes() {
        let events = [
            TaskEvent::Release,
            TaskEvent::Lease,
            TaskEvent::Retry,
            TaskEvent::Resolved { waits: true },
            TaskEvent::Resolved { waits: false },
            TaskEvent::Await,
            TaskEvent::Attend,
            TaskEvent::Confirm,
        ];
        for event in events {
            assert!(TaskState::Confirmed.on(event).is_err());
        }
    }

    #[test]
    fn nothing_is_confirmed_that_has_not_run_or_been_looked_at() {
        for state in [TaskState::Waiting, TaskState::Pending, TaskState::AwaitingConfirmation] {
            assert!(state.on(TaskEvent::Confirm).is_err(), "{state}");
        }
    }
}
