//! Replays: a system was restored from a backup, and what was instructed there since is carried out again.

use std::collections::BTreeSet;

use crate::{Timestamp, action::Action, ids::RequestId, text_enum};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReplayState {
    /// The system says what it holds, and that is matched with what was instructed.
    Matching,
    /// A guard stopped it: nothing is instructed until a person has looked.
    AwaitingApproval,
    /// Follow-up requests are made.
    Instructing,
    /// They are carried out.
    Confirming,
    Completed,
    Cancelled,
    Failed,
}

text_enum!(ReplayState,
    Matching => "MATCHING",
    AwaitingApproval => "AWAITING_APPROVAL",
    Instructing => "INSTRUCTING",
    Confirming => "CONFIRMING",
    Completed => "COMPLETED",
    Cancelled => "CANCELLED",
    Failed => "FAILED",
);

impl ReplayState {
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Failed)
    }

    /// A worker has something to do.
    pub const fn is_at_work(self) -> bool {
        matches!(self, Self::Matching | Self::Instructing | Self::Confirming)
    }
}

/// When a match is too wide to be carried out without a person: a wrong snapshot time, a wrong database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplayGuard {
    /// Matched identifiers that something would be done for.
    pub matches_max: u64,
    /// Of the keys that the system holds, in percent. Asked only of more than [`ReplayGuard::FEW`].
    pub share_percent_max: u64,
}

impl ReplayGuard {
    pub const MATCHES_DEFAULT: u64 = 10_000;
    pub const SHARE_PERCENT_DEFAULT: u64 = 10;
    /// So many may be any share of a small system.
    pub const FEW: u64 = 20;

    /// `acting`: identifiers that something would be done for; `keys`: all that the system holds, and how many of them were matched.
    pub const fn stops(self, acting: u64, keys_read: u64, keys_matched: u64) -> bool {
        let share = keys_matched.saturating_mul(100) > keys_read.saturating_mul(self.share_percent_max);
        acting > self.matches_max || (acting > Self::FEW && share)
    }
}

/// One instruction about a person that a system has confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Past {
    pub request: RequestId,
    pub action: Action,
    pub confirmed_at: Timestamp,
}

/// What a person's data in a restored system lack.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Net {
    /// To be carried out again, and the request that had instructed it.
    pub act: Option<(Action, RequestId)>,
    /// Rectifications that are undone. Their values are not kept: the customer instructs them anew.
    pub rectifications: BTreeSet<RequestId>,
}

/// The net state of what was confirmed since the snapshot.
///
/// - An erasure wins over everything: what the snapshot holds of the person is older than it.
/// - Else the last of restrictions and liftings counts. A lifting is carried out again where the snapshot was taken while the person was
///   restricted; where the restriction came after it as well, nothing is.
/// - Rectifications are told of, unless the data go anyway.
///
/// What was confirmed at the very moment of the snapshot counts as since: done twice changes nothing.
pub fn net(snapshot: Timestamp, past: &[Past]) -> Net {
    let mut past: Vec<&Past> = past.iter().collect();
    // Of two at one moment, the one that was instructed later.
    past.sort_by_key(|p| (p.confirmed_at, p.request));
    let (before, since): (Vec<&Past>, Vec<&Past>) = past.into_iter().partition(|p| p.confirmed_at < snapshot);
    if let Some(erasure) = since.iter().rfind(|p| p.action == Action::Erasure) {
        return Net { act: Some((Action::Erasure, erasure.request)), rectifications: BTreeSet::new() };
    }
    let marks = |p: &&&Past| matches!(p.action, Action::Restriction | Action::LiftRestriction);
    let was_restricted = || match since.iter().find(marks).map(|p| p.action) {
        Some(Action::LiftRestriction) => true,
        _ => {
            before.iter().rfind(|p| p.action == Action::Erasure || marks(p)).map(|p| p.action)
                == Some(Action::Restriction)
        }
    };
    let act = since.iter().rfind(marks).filter(|last| last.action == Action::Restriction || was_restricted());
    Net {
        act: act.map(|p| (p.action, p.request)),
        rectifications: since.iter().filter(|p| p.action == Action::Rectification).map(|p| p.request).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use Action::{Access, Erasure, LiftRestriction as Lift, Rectification, Restriction as Restrict};

    const SNAPSHOT: i64 = 1000;

    fn id(n: usize) -> RequestId {
        RequestId::new(Uuid::from_u128(n as u128))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The n-th instruction has the id n.
    fn what_is_missing(past: &[(i64, Action)]) -> (Option<(Action, usize)>, Vec<usize>) {
        let all: Vec<Past> = past
            .iter()
            .enumerate()
            .map(|(n, (second, action))| Past { request: id(n), action: *action, confirmed_at: at(*second) })
            .collect();
        let number = |request: RequestId| request.uuid().as_u128() as usize;
        let net = net(at(SNAPSHOT), &all);
        (net.act.map(|(action, id)| (action, number(id))), net.rectifications.into_iter().map(number).collect())
    }

    #[test]
    fn an_erasure_since_the_snapshot_wins() {
        assert_eq!(what_is_missing(&[(1001, Erasure)]), (Some((Erasure, 0)), vec![]));
        let all = [(1001, Restrict), (1002, Rectification), (1003, Erasure), (1004, Restrict), (1005, Rectification)];
        assert_eq!(what_is_missing(&all), (Some((Erasure, 2)), vec![]));
        assert_eq!(what_is_missing(&[(1001, Erasure), (1002, Erasure)]), (Some((Erasure, 1)), vec![]));
    }

    #[test]
    fn what_the_snapshot_already_holds_is_left_alone() {
        assert_eq!(what_is_missing(&[(999, Erasure), (998, Restrict), (997, Rectification)]), (None, vec![]));
        assert_eq!(what_is_missing(&[(1000, Erasure)]), (Some((Erasure, 0)), vec![]), "at the same moment is since");
        assert_eq!(what_is_missing(&[]), (None, vec![]));
    }

    #[test]
    fn of_restrictions_and_liftings_the_last_counts() {
        assert_eq!(what_is_missing(&[(1001, Restrict)]).0, Some((Restrict, 0)));
        assert_eq!(what_is_missing(&[(1001, Restrict), (1002, Lift)]).0, None, "the snapshot knows of neither");
        assert_eq!(what_is_missing(&[(1001, Lift)]).0, Some((Lift, 0)), "the snapshot is restricted");
        assert_eq!(what_is_missing(&[(1001, Lift), (1002, Restrict)]).0, Some((Restrict, 1)));
        assert_eq!(what_is_missing(&[(1001, Lift), (1002, Restrict), (1003, Lift)]).0, Some((Lift, 2)));
        assert_eq!(what_is_missing(&[(900, Restrict), (1002, Restrict), (1003, Lift)]).0, Some((Lift, 2)));
        assert_eq!(what_is_missing(&[(900, Restrict), (901, Lift), (1002, Restrict), (1003, Lift)]).0, None);
        assert_eq!(what_is_missing(&[(900, Restrict), (901, Erasure), (1002, Restrict), (1003, Lift)]).0, None);
    }

    #[test]
    fn rectifications_are_told_of() {
        let all = [(999, Rectification), (1001, Rectification), (1002, Restrict), (1003, Rectification)];
        assert_eq!(what_is_missing(&all), (Some((Restrict, 2)), vec![1, 3]));
    }

    #[test]
    fn a_wide_match_is_stopped() {
        let guard = ReplayGuard { matches_max: 100, share_percent_max: 10 };
        assert!(!guard.stops(100, 10_000, 500));
        assert!(guard.stops(101, 10_000, 500));
        assert!(guard.stops(50, 400, 50));
        assert!(!guard.stops(ReplayGuard::FEW, 20, 20), "of a small system that is no wonder");
    }

    /// What a person's data are like: there or not, and restricted or not.
    fn apply(state: (bool, bool), action: Action) -> (bool, bool) {
        match action {
            Erasure => (false, false),
            Restrict => (state.0, state.0),
            Lift => (state.0, false),
            Access | Rectification => state,
        }
    }

    proptest! {
        /// What is carried out upon the snapshot ends where the instructions had ended, for data that nobody brought in meanwhile.
        #[test]
        fn the_snapshot_ends_where_the_original_was(
            actions in proptest::collection::vec((0_i64..2000, proptest::sample::select(&[Erasure, Restrict, Lift, Rectification])), 0..8),
        ) {
            let mut all: Vec<Past> = actions.iter().enumerate()
                .map(|(n, (second, action))| Past { request: id(n), action: *action, confirmed_at: at(*second) }).collect();
            let net = net(at(SNAPSHOT), &all);
            all.sort_by_key(|p| (p.confirmed_at, p.request));
            let (before, since): (Vec<&Past>, Vec<&Past>) = all.iter().partition(|p| p.confirmed_at < at(SNAPSHOT));
            let snapshot = before.iter().fold((true, false), |state, p| apply(state, p.action));
            let original = since.iter().fold(snapshot, |state, p| apply(state, p.action));
            let restored = net.act.map_or(snapshot, |(action, _)| apply(snapshot, action));
            prop_assert_eq!(restored, original);
        }
    }
}
