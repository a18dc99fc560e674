//! I3: one task for every system that may hold the customer's data, and completion only when each is confirmed.

use std::collections::BTreeMap;

use crate::{
    scene::Scene,
    snapshot::{Rid, Snapshot},
    system::customer_id,
};

use super::{Checked, requests::short, violated};

/// With which generation of systems each system came.
#[derive(Default)]
pub struct Registered(BTreeMap<String, i64>);

impl Registered {
    pub fn note(&mut self, now: &Snapshot) {
        for system in now.systems.iter() {
            self.0.entry(system.clone()).or_insert(now.generation);
        }
    }
}

pub fn complete(scene: &Scene, now: &Snapshot, registered: &Registered) -> Checked {
    for (rid, request) in now.requests.iter() {
        let tasks: Vec<(&String, &str)> = now
            .tasks
            .range((rid.clone(), String::new())..)
            .take_while(|((of, _), _)| of == rid)
            .map(|((_, s), t)| (s, t.state.as_str()))
            .collect();
        let open = tasks.iter().filter(|(_, state)| *state != "CONFIRMED").count();
        match request.state.as_str() {
            "IN_PROGRESS" => {
                planned(scene, rid, &tasks, registered, request.generation)?;
                if request.open_tasks != open as i64 {
                    return Err(violated(
                        "I3",
                        format!("{} counts {} open tasks of {open}", short(rid), request.open_tasks),
                    ));
                }
            }
            "COMPLETED" | "COMPLETED_WITH_EXCEPTIONS" => {
                if open > 0 {
                    return Err(violated("I3", format!("{} is {} with {open} tasks open", short(rid), request.state)));
                }
                if request.exceptions > 0 && request.state == "COMPLETED" {
                    return Err(violated("I3", format!("{} has exceptions and does not say so", short(rid))));
                }
                planned(scene, rid, &tasks, registered, request.generation)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// It has a task at each system of its customer's that it was planned with.
fn planned(scene: &Scene, rid: &Rid, tasks: &[(&String, &str)], registered: &Registered, generation: i64) -> Checked {
    for plan in &scene.scenario.systems {
        let Some(since) = registered.0.get(plan.id) else { continue };
        let concerned = (0..scene.scenario.customers).any(|c| customer_id(c) == rid.0 && plan.holds(c));
        let has = tasks.iter().any(|(system, _)| *system == plan.id);
        if concerned && !has && *since <= generation {
            return Err(violated("I3", format!("{} has no task at {}", short(rid), plan.id)));
        }
        if has && !concerned {
            return Err(violated(
                "I8",
                format!("{} has a task at {}, which has nothing of its customer's", short(rid), plan.id),
            ));
        }
    }
    Ok(())
}
