//! I4: who has a lease alone changes its task, and one person's instructions run in their order. I1: nothing begins without a word.

use crate::{scene::Scene, snapshot::Snapshot};

use super::{Checked, Step, requests::Order, violated};

/// Leases that this step gave, and whether they could be.
pub fn given(scene: &Scene, before: &Snapshot, now: &Snapshot, step: Step, order: &Order) -> Checked {
    for (id, task) in now.tasks.iter() {
        let was = before.tasks.get(id);
        if was.is_some_and(|was| was.lease == task.lease) || (was.is_none() && task.lease == 0) {
            continue;
        }
        let Some(was) = was else { return Err(violated("I4", format!("a task at {} began with a lease", id.1))) };
        // An operator's confirmation raises it, too: no worker has it any more.
        if was.state == "NEEDS_ATTENTION" && task.state == "CONFIRMED" {
            continue;
        }
        if task.lease != was.lease + 1 || !was.may_be_leased() {
            return Err(violated("I4", format!("a task at {} that was {} was leased", id.1, was.state)));
        }
        if was.run_at_us > step.called_us {
            let what =
                if was.state == "RUNNING" { "taken from a worker that held it" } else { "leased before its time" };
            return Err(violated("I4", format!("a task at {} was {what}", id.1)));
        }
        let state = now.requests.get(&id.0).map_or("", |r| r.state.as_str());
        if was.lease == 0 && state != "IN_PROGRESS" {
            return Err(violated("I1", format!("a task at {} was begun while its request is {state}", id.1)));
        }
        if was.lease == 0 {
            in_order(scene, now, id, order)?;
        }
        scene.seen().leases.entry(step.actor).or_default().insert(id.clone(), task.lease);
    }
    Ok(())
}

/// What came before it about the same person is done at that system.
fn in_order(scene: &Scene, now: &Snapshot, id: &(crate::snapshot::Rid, String), order: &Order) -> Checked {
    for earlier in order.before(&id.0) {
        let open = now.requests.get(earlier).is_some_and(|r| r.is_open());
        let there = now.tasks.get(&(earlier.clone(), id.1.clone()));
        if open && there.is_some_and(|task| task.state != "CONFIRMED") {
            let numbers = (scene.number_of(now, &id.0), scene.number_of(now, earlier));
            return Err(violated(
                "I4",
                format!("at {} {:?} was begun before {:?} was done", id.1, numbers.0, numbers.1),
            ));
        }
    }
    Ok(())
}

/// What was under a lease was changed by its holder.
pub fn fenced(scene: &Scene, before: &Snapshot, now: &Snapshot, step: Step) -> Checked {
    for (id, was) in before.tasks.iter().filter(|(_, task)| task.state == "RUNNING") {
        let Some(task) = now.tasks.get(id) else { continue };
        if task.lease != was.lease || task.state == "RUNNING" {
            continue;
        }
        let held = scene.seen().leases.get(&step.actor).and_then(|leases| leases.get(id)).copied();
        if held != Some(was.lease) {
            return Err(violated(
                "I4",
                format!(
                    "a task at {} became {} by one who had lease {held:?}, and it is under {}",
                    id.1, task.state, was.lease
                ),
            ));
        }
        if was.run_at_us <= step.called_us {
            return Err(violated("I4", format!("a task at {} became {} after its lease had passed", id.1, task.state)));
        }
    }
    let stored = now.match_sets.difference(&before.match_sets);
    for id in stored {
        let held = scene.seen().leases.get(&step.actor).and_then(|leases| leases.get(id)).copied();
        if held != now.tasks.get(id).map(|t| t.lease) {
            return Err(violated("I4", format!("a match set at {} was stored by one without its lease", id.1)));
        }
    }
    Ok(())
}
