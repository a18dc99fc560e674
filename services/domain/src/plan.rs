//! The fan-out: one task for every system that may hold the customer's data (I3), and in which order they run.
//!
//! Systems that yield identifiers are asked first (`Work::Resolve`): an email finds the user id that another system is keyed by. A
//! task acts once everything that yields what it accepts has been asked. In an erasure the yielding systems act last.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use crate::{
    Timestamp,
    action::{Action, IdentifierChange},
    identifier::IdentifierKind,
    ids::SystemId,
    request::Notice,
    task::{TaskState, Work},
};

/// Why a task was planned straight into `NEEDS_ATTENTION`, or came there.
pub const NO_USABLE_IDENTIFIER: &str = "NO_USABLE_IDENTIFIER";

/// What planning must know of a system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemFacts {
    pub id: SystemId,
    pub accepts: BTreeSet<IdentifierKind>,
    pub yields: BTreeSet<IdentifierKind>,
    pub map_version: u32,
    pub grace_period_s: u64,
    /// Has a task only where the instruction says to tell it.
    pub recipient: bool,
}

/// Of a customer's systems, those that a request has tasks at. `only`: a follow-up is about one system.
pub fn concerned(systems: &[SystemFacts], notices: &[Notice], only: Option<&SystemId>) -> Vec<SystemFacts> {
    let told = |s: &SystemFacts| notices.iter().any(|notice| notice.system == s.id);
    let asked = |s: &&SystemFacts| only.is_none_or(|id| *id == s.id) && (!s.recipient || told(s));
    systems.iter().filter(asked).cloned().collect()
}

/// What a wait ends with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Until {
    Resolved,
    Confirmed,
}

crate::text_enum!(Until, Resolved => "RESOLVED", Confirmed => "CONFIRMED");

/// `before` may not begin before the task at `on` is `until`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Wait {
    pub before: Work,
    pub on: SystemId,
    pub until: Until,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedTask {
    pub system: SystemId,
    pub map_version: u32,
    pub work: Work,
    pub state: TaskState,
    /// Set with `NeedsAttention`.
    pub reason: Option<&'static str>,
    pub waits: Vec<Wait>,
    /// So that what the vendor keeps is gone when the window ends.
    pub latest_start: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    #[error("no system may hold this customer's data, so nothing would be done")]
    NoSystems,
    #[error("no system can be reached by any of the identifiers")]
    NoUsableIdentifier,
}

/// Plans the tasks of one request. `known`: the kinds of its identifiers.
pub fn plan(
    action: Action,
    known: &BTreeSet<IdentifierKind>,
    systems: &[SystemFacts],
    due: Timestamp,
) -> Result<Vec<PlannedTask>, PlanError> {
    if systems.is_empty() {
        return Err(PlanError::NoSystems);
    }
    let rounds = rounds(known, systems);
    if rounds.is_empty() {
        return Err(PlanError::NoUsableIdentifier);
    }
    Ok(plan_all(action, systems, &rounds, due))
}

/// As [`plan`], of a request that was taken in: what none of its identifiers leads to needs attention, even where that is every system (I3).
pub fn plan_anyhow(
    action: Action,
    known: &BTreeSet<IdentifierKind>,
    systems: &[SystemFacts],
    due: Timestamp,
) -> Vec<PlannedTask> {
    plan_all(action, systems, &rounds(known, systems), due)
}

/// A changed identifier goes to the systems that are keyed by it once those where the customer named it are done. They themselves wait
/// for no other, so that no two wait for each other.
pub fn carry_after_named(tasks: &mut [PlannedTask], systems: &[SystemFacts], changes: &[IdentifierChange]) {
    let named: BTreeSet<&SystemId> = changes.iter().flat_map(|change| &change.named_at).collect();
    let planned: BTreeSet<SystemId> = tasks.iter().map(|t| t.system.clone()).collect();
    for task in tasks.iter_mut().filter(|t| !named.contains(&t.system)) {
        let Some(system) = systems.iter().find(|s| s.id == task.system) else { continue };
        let reaches = |change: &&IdentifierChange| {
            change.old.is_some() && (system.accepts.contains(&change.kind) || system.yields.contains(&change.kind))
        };
        let first = changes.iter().filter(reaches).flat_map(|change| &change.named_at);
        let waits = first.filter(|id| planned.contains(*id)).map(|id| Wait {
            before: Work::Act,
            on: id.clone(),
            until: Until::Confirmed,
        });
        let waits: BTreeSet<Wait> = waits.chain(std::mem::take(&mut task.waits)).collect();
        if task.work == Work::Act && task.state == TaskState::Pending && !waits.is_empty() {
            task.state = TaskState::Waiting;
        }
        task.waits = waits.into_iter().collect();
    }
}

/// In which round each system can be asked: 0 with what is known, 1 with what round 0 yields, and so on. Systems that can never
/// be asked are not in it.
fn rounds<'a>(known: &BTreeSet<IdentifierKind>, systems: &'a [SystemFacts]) -> BTreeMap<&'a SystemId, usize> {
    let mut kinds = known.clone();
    let mut rounds = BTreeMap::new();
    for round in 0..=systems.len() {
        let reached: Vec<&SystemFacts> =
            systems.iter().filter(|s| !rounds.contains_key(&s.id) && !s.accepts.is_disjoint(&kinds)).collect();
        if reached.is_empty() {
            break;
        }
        for system in &reached {
            rounds.insert(&system.id, round);
        }
        kinds.extend(reached.iter().flat_map(|s| s.yields.iter().copied()));
    }
    rounds
}

fn plan_all(
    action: Action,
    systems: &[SystemFacts],
    rounds: &BTreeMap<&SystemId, usize>,
    due: Timestamp,
) -> Vec<PlannedTask> {
    systems.iter().map(|s| plan_one(action, s, systems, rounds, due)).collect()
}

fn plan_one(
    action: Action,
    system: &SystemFacts,
    systems: &[SystemFacts],
    rounds: &BTreeMap<&SystemId, usize>,
    due: Timestamp,
) -> PlannedTask {
    let task = PlannedTask {
        system: system.id.clone(),
        map_version: system.map_version,
        work: Work::Act,
        state: TaskState::Pending,
        reason: None,
        waits: Vec::new(),
        latest_start: latest_start(system, due),
    };
    let Some(&round) = rounds.get(&system.id) else {
        return PlannedTask { state: TaskState::NeedsAttention, reason: Some(NO_USABLE_IDENTIFIER), ..task };
    };
    let mut waits = BTreeSet::new();
    let mut yields_for_others = false;
    for other in systems.iter().filter(|o| o.id != system.id) {
        // It is told what was carried out (Art. 19), not what is about to be.
        if system.recipient && !other.recipient {
            waits.insert(Wait { before: Work::Act, on: other.id.clone(), until: Until::Confirmed });
        }
        if !other.yields.is_disjoint(&system.accepts) {
            let Some(&other_round) = rounds.get(&other.id) else { continue };
            waits.insert(Wait { before: Work::Act, on: other.id.clone(), until: Until::Resolved });
            // A system that is only reached through the other one cannot be asked before it either.
            if other_round < round {
                waits.insert(Wait { before: Work::Resolve, on: other.id.clone(), until: Until::Resolved });
            }
        }
        if !system.yields.is_disjoint(&other.accepts) {
            let Some(&other_round) = rounds.get(&other.id) else { continue };
            yields_for_others = true;
            // The pair's order is total, so that two that yield for each other never wait for each other.
            let acts_after = (other_round, &other.id) > (round, &system.id);
            if action == Action::Erasure && acts_after {
                waits.insert(Wait { before: Work::Act, on: other.id.clone(), until: Until::Confirmed });
            }
        }
    }
    let work = if yields_for_others { Work::Resolve } else { Work::Act };
    waits.retain(|w| w.before >= work);
    let blocked = waits.iter().any(|w| w.before == work);
    PlannedTask {
        work,
        state: if blocked { TaskState::Waiting } else { TaskState::Pending },
        waits: waits.into_iter().collect(),
        ..task
    }
}

fn latest_start(system: &SystemFacts, due: Timestamp) -> Option<Timestamp> {
    if system.grace_period_s == 0 {
        return None;
    }
    let grace = SignedDuration::from_secs(i64::try_from(system.grace_period_s).unwrap_or(i64::MAX));
    Some(due.checked_sub(grace).unwrap_or(Timestamp::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(id: &str, accepts: &[IdentifierKind], yields: &[IdentifierKind]) -> SystemFacts {
        SystemFacts {
            id: SystemId::new(id).unwrap(),
            accepts: accepts.iter().copied().collect(),
            yields: yields.iter().copied().collect(),
            map_version: 1,
            grace_period_s: 0,
            recipient: false,
        }
    }

    fn kinds(kinds: &[IdentifierKind]) -> BTreeSet<IdentifierKind> {
        kinds.iter().copied().collect()
    }

    use IdentifierKind::{CustomerKey, Email, Phone, UserId};

    #[test]
    fn the_yielding_system_is_asked_first_and_erased_last() {
        let systems = [system("crm", &[Email], &[UserId]), system("shop", &[UserId], &[])];
        let tasks = plan(Action::Erasure, &kinds(&[Email]), &systems, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((tasks[0].work, tasks[0].state), (Work::Resolve, TaskState::Pending));
        let until = |on: &str, until| Wait { before: Work::Act, on: SystemId::new(on).unwrap(), until };
        assert_eq!(tasks[0].waits, vec![until("shop", Until::Confirmed)]);
        assert_eq!((tasks[1].work, tasks[1].state), (Work::Act, TaskState::Waiting));
        assert_eq!(tasks[1].waits, vec![until("crm", Until::Resolved)]);
    }

    #[test]
    fn an_access_does_not_wait_for_the_others_to_finish() {
        let systems = [system("crm", &[Email], &[UserId]), system("shop", &[UserId], &[])];
        let tasks = plan(Action::Access, &kinds(&[Email]), &systems, Timestamp::UNIX_EPOCH).unwrap();
        assert!(tasks[0].waits.is_empty());
    }

    #[test]
    fn a_system_that_nothing_leads_to_needs_attention_and_is_never_left_out() {
        let systems = [system("crm", &[Email], &[]), system("pbx", &[Phone], &[])];
        let tasks = plan(Action::Erasure, &kinds(&[Email]), &systems, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(tasks.len(), 2);
        assert_eq!((tasks[1].state, tasks[1].reason), (TaskState::NeedsAttention, Some(NO_USABLE_IDENTIFIER)));
    }

    #[test]
    fn nothing_to_go_by_is_refused() {
        let systems = [system("pbx", &[Phone], &[])];
        let planned = plan(Action::Erasure, &kinds(&[Email]), &systems, Timestamp::UNIX_EPOCH);
        assert_eq!(planned, Err(PlanError::NoUsableIdentifier));
        assert_eq!(plan(Action::Access, &kinds(&[Email]), &[], Timestamp::UNIX_EPOCH), Err(PlanError::NoSystems));
    }

    #[test]
    fn a_changed_identifier_is_carried_once_it_is_changed_where_it_was_named() {
        let systems =
            [system("crm", &[Email], &[UserId]), system("mail", &[Email], &[]), system("shop", &[UserId], &[])];
        let email = |text: &str| crate::identifier::Identifier::normalise(Email, text).unwrap();
        let crm = SystemId::new("crm").unwrap();
        let change = IdentifierChange {
            kind: Email,
            collection: "customer".to_owned(),
            field: "email".to_owned(),
            old: Some(email("a@x.nl")),
            new: email("b@x.nl"),
            named_at: BTreeSet::from([crm.clone()]),
        };
        let mut tasks = plan(Action::Rectification, &kinds(&[Email]), &systems, Timestamp::UNIX_EPOCH).unwrap();
        carry_after_named(&mut tasks, &systems, std::slice::from_ref(&change));
        assert_runs_to_the_end(&tasks, 0);
        let on_crm = |until| Wait { before: Work::Act, on: crm.clone(), until };
        assert!(tasks[0].waits.is_empty());
        assert_eq!((tasks[1].state, &tasks[1].waits), (TaskState::Waiting, &vec![on_crm(Until::Confirmed)]));
        assert_eq!(
            tasks[2].waits,
            vec![on_crm(Until::Resolved)],
            "what is keyed by another kind waits for nothing more"
        );
    }

    #[test]
    fn a_recipient_is_told_where_the_instruction_says_so_once_all_is_done() {
        let bank = SystemFacts { recipient: true, ..system("bank", &[Email], &[]) };
        let systems = [bank.clone(), system("crm", &[Email], &[UserId]), system("pbx", &[Phone], &[])];
        let notice = Notice { recipient: crate::ids::RecipientId::new("bank").unwrap(), system: bank.id };
        let plan = |notices: &[Notice]| {
            let systems = concerned(&systems, notices, None);
            plan(Action::Erasure, &kinds(&[Email]), &systems, Timestamp::UNIX_EPOCH).unwrap()
        };
        assert_eq!(plan(&[]).len(), 2);
        let told = plan(&[notice]);
        let on = |on: &str| Wait { before: Work::Act, on: SystemId::new(on).unwrap(), until: Until::Confirmed };
        assert_eq!((told[0].state, &told[0].waits), (TaskState::Waiting, &vec![on("crm"), on("pbx")]));
        assert!(told[1].waits.is_empty());
    }

    /// Every plan can be carried out: running whatever is not blocked ends with all tasks done, whatever yields what.
    #[test]
    fn no_plan_waits_for_itself() {
        let all = [Email, UserId, Phone, CustomerKey];
        for seed in 0..4096_u32 {
            let bits = |shift: u32| -> Vec<IdentifierKind> {
                (0..4)
                    .filter(|i| seed.wrapping_mul(2_654_435_761) >> ((shift + i) % 32) & 1 == 1)
                    .map(|i| all[i as usize])
                    .collect()
            };
            let systems: Vec<_> = (0..4).map(|n| system(&format!("s{n}"), &bits(n * 7), &bits(n * 5 + 3))).collect();
            for action in [Action::Erasure, Action::Access] {
                let Ok(tasks) = plan(action, &kinds(&[Email]), &systems, Timestamp::UNIX_EPOCH) else { continue };
                assert_eq!(tasks.len(), systems.len());
                assert_runs_to_the_end(&tasks, seed);
            }
        }
    }

    fn assert_runs_to_the_end(tasks: &[PlannedTask], seed: u32) {
        let mut resolved: BTreeSet<SystemId> = BTreeSet::new();
        let mut confirmed: BTreeSet<SystemId> = BTreeSet::new();
        for _ in 0..2 * tasks.len() {
            for task in tasks.iter().filter(|t| t.state != TaskState::NeedsAttention) {
                let free = |work: Work| {
                    task.waits.iter().filter(|w| w.before == work).all(|w| match w.until {
                        Until::Resolved => resolved.contains(&w.on) || confirmed.contains(&w.on),
                        Until::Confirmed => confirmed.contains(&w.on),
                    })
                };
                if task.work == Work::Resolve && !resolved.contains(&task.system) {
                    if free(Work::Resolve) {
                        resolved.insert(task.system.clone());
                    }
                } else if free(Work::Act) {
                    confirmed.insert(task.system.clone());
                }
            }
        }
        let open =
            tasks.iter().filter(|t| t.state != TaskState::NeedsAttention && !confirmed.contains(&t.system)).count();
        assert_eq!(open, 0, "seed {seed}: {tasks:#?}");
    }
}
