//! I4: confirmed once. I5: what is confirmed is so, with exact counts.

use quittance_domain::{
    action::Action,
    outcome::{Confirmation, EvidenceKind, OutcomeKind},
};

use crate::{
    scene::Scene,
    snapshot::{Confirmed, Snapshot, TaskId},
    system::Truth,
};

use super::{Checked, Step, requests::short, violated};

pub fn once(before: &Snapshot, now: &Snapshot) -> Checked {
    for (id, was) in before.confirmations.iter() {
        if now.confirmations.get(id) != Some(was) {
            return Err(violated("I4", format!("the confirmation of {} at {} has changed", short(&id.0), id.1)));
        }
    }
    for (id, task) in now.tasks.iter().filter(|(_, t)| t.state == "CONFIRMED") {
        if !now.confirmations.contains_key(id) {
            return Err(violated("I5", format!("a task at {} is {} without a confirmation", id.1, task.state)));
        }
    }
    for id in now.confirmations.keys() {
        if now.tasks.get(id).is_none_or(|task| task.state != "CONFIRMED") {
            return Err(violated("I4", format!("there is a confirmation of an open task at {}", id.1)));
        }
    }
    Ok(())
}

/// New confirmations, against the systems as they are.
pub fn invented(scene: &Scene, before: &Snapshot, now: &Snapshot, step: Step) -> Checked {
    for (id, confirmed) in now.confirmations.iter().filter(|(id, _)| !before.confirmations.contains_key(*id)) {
        let request = &now.requests[&id.0];
        if confirmed.late != (confirmed.at_us > request.due_us) {
            return Err(violated("I9", format!("a confirmation at {} says late={}, and is not", id.1, confirmed.late)));
        }
        one(scene, now, id, confirmed, step)?;
    }
    Ok(())
}

fn one(scene: &Scene, now: &Snapshot, id: &TaskId, confirmed: &Confirmed, step: Step) -> Checked {
    let confirmation: Confirmation = serde_json::from_str(&confirmed.body)
        .map_err(|_| violated("I5", format!("a confirmation at {} does not parse", id.1)))?;
    let number = scene.number_of(now, &id.0);
    let (customer, item) = match number.and_then(|n| scene.asked().get(&n).cloned()) {
        Some(asked) => (asked.customer, asked.item),
        None => return Err(violated("I1", format!("{} was confirmed and never asked for", short(&id.0)))),
    };
    confirmation.check(item.action).map_err(|e| violated("I5", format!("a confirmation at {}: {e}", id.1)))?;
    // A person's word, which says that nothing is known.
    if confirmation.evidence.kind == EvidenceKind::OperatorStatement {
        return Ok(());
    }
    let system = scene.system_no(&id.1).ok_or_else(|| violated("I3", format!("{} is no system", id.1)))?;
    let count = |kind: OutcomeKind| -> u64 {
        confirmation.outcomes.iter().filter(|o| o.outcome == kind).map(|o| o.count).sum()
    };
    let seen = scene.seen();
    let changed = seen.changed.get(id).map_or(0, |rows| rows.len() as u64);
    let truth = seen.truths.get(&(step.actor, system, customer, item.person)).copied();
    let looked = || truth.ok_or_else(|| violated("I5", format!("{} was confirmed at {} unseen", item.action, id.1)));
    let wrong = |said: u64, what: &str, is: u64| {
        Err(violated("I5", format!("{} at {}: {said} {what} confirmed, and it is {is}", item.action, id.1)))
    };
    match item.action {
        Action::Erasure => {
            let Truth { live, held, .. } = looked()?;
            let said = count(OutcomeKind::Erased) + count(OutcomeKind::Pseudonymised);
            // A row that is held was restricted, which is a change too.
            let erased = {
                let state = scene.system(system);
                let rows = seen.changed.get(id).into_iter().flatten();
                rows.filter(|row| state.rows.get(row).is_some_and(|r| r.erased_at.is_some())).count() as u64
            };
            if live > 0 {
                return wrong(said, "erased", live);
            }
            if said != erased {
                return wrong(said, "erased", erased);
            }
            if count(OutcomeKind::Retained) != held {
                return wrong(count(OutcomeKind::Retained), "retained", held);
            }
        }
        Action::Restriction => {
            let Truth { live, held, unrestricted, .. } = looked()?;
            if unrestricted > 0 || count(OutcomeKind::Restricted) < live + held {
                return wrong(count(OutcomeKind::Restricted), "restricted", live + held - unrestricted);
            }
        }
        Action::LiftRestriction => {
            let Truth { live, restricted, .. } = looked()?;
            if restricted > 0 {
                return wrong(count(OutcomeKind::RestrictionLifted), "lifted", live - restricted);
            }
        }
        Action::Rectification => {
            if count(OutcomeKind::Rectified) != changed {
                return wrong(count(OutcomeKind::Rectified), "rectified", changed);
            }
        }
        Action::Access => {
            let lease = now.tasks.get(id).map_or(0, |t| t.lease);
            let stored = now.records.get(&(id.clone(), lease)).copied().unwrap_or_default();
            if count(OutcomeKind::Exported) != stored {
                return wrong(count(OutcomeKind::Exported), "exported", stored);
            }
        }
    }
    Ok(())
}
