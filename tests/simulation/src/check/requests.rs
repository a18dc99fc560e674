//! I1, I2: what was acknowledged is there and stays; states move as they may. I4: the order of one person's instructions.

use std::collections::BTreeMap;

use crate::{
    scenario::{CustomerNo, PersonId},
    scene::{Answer, Scene},
    snapshot::{Rid, Snapshot},
    system::customer_id,
};

use super::{Checked, violated};

/// When each request was first seen with tasks: the order of instruction.
#[derive(Default)]
pub struct Order {
    planned: BTreeMap<Rid, (u64, usize)>,
    of: BTreeMap<Rid, (CustomerNo, PersonId)>,
    looks: u64,
}

impl Order {
    pub fn note(&mut self, scene: &Scene, now: &Snapshot) {
        self.looks += 1;
        for rid in now.requests.keys().filter(|rid| !self.planned.contains_key(*rid)).cloned().collect::<Vec<_>>() {
            if !now.tasks.keys().any(|(task, _)| *task == rid) {
                continue;
            }
            let Some(number) = scene.number_of(now, &rid) else { continue };
            if let Some(asked) = scene.asked().get(&number) {
                self.of.insert(rid.clone(), (asked.customer, asked.item.person));
            }
            // Those of one chunk stand in the chunk's order.
            self.planned.insert(rid, (self.looks, number));
        }
    }

    /// Instructions about the same person that came before.
    pub fn before<'a>(&'a self, rid: &'a Rid) -> impl Iterator<Item = &'a Rid> {
        let (of, at) = (self.of.get(rid), self.planned.get(rid));
        self.planned
            .iter()
            .filter(move |(other, earlier)| {
                *other != rid && of.is_some() && self.of.get(*other) == of && Some(*earlier) < at
            })
            .map(|(rid, _)| rid)
    }
}

/// I2
pub fn stand(scene: &Scene, before: &Snapshot, now: &Snapshot) -> Checked {
    for rid in before.requests.keys() {
        if !now.requests.contains_key(rid) {
            return Err(violated("I2", format!("request {} is gone", short(rid))));
        }
    }
    let asked = scene.asked();
    for (rid, request) in now.requests.iter() {
        let sent = asked.values().find(|a| a.idempotency == request.idempotency);
        let Some(sent) = sent else {
            return Err(violated("I1", format!("request {} was never sent", short(rid))));
        };
        if customer_id(sent.customer) != rid.0 {
            return Err(violated("I8", format!("{}'s request stands under {}", customer_id(sent.customer), rid.0)));
        }
        if request.action != sent.item.action.as_str() {
            return Err(violated("I1", format!("an instruction of {} became {}", sent.item.action, request.action)));
        }
    }
    for (number, a) in asked.iter() {
        let Answer::Acknowledged(id) = &a.answer else { continue };
        let rid = (customer_id(a.customer), id.clone());
        if !now.requests.contains_key(&rid) {
            return Err(violated("I2", format!("instruction {number} was acknowledged and is not there")));
        }
        let state = now.requests.get(&rid).map_or("", |r| r.state.as_str());
        if a.done.closed > 0 && !matches!(state, "DECLINED" | "CANCELLED") {
            return Err(violated("I2", format!("instruction {number} was taken back, as was said, and is {state}")));
        }
    }
    Ok(())
}

pub fn move_as_they_may(before: &Snapshot, now: &Snapshot) -> Checked {
    for (rid, request) in now.requests.iter() {
        let Some(was) = before.requests.get(rid) else {
            if !matches!(request.state.as_str(), "AWAITING_CUSTOMER" | "IN_PROGRESS") {
                return Err(violated("I1", format!("a new request is {}", request.state)));
            }
            continue;
        };
        let may = was.state == request.state
            || matches!(
                (was.state.as_str(), request.state.as_str()),
                ("AWAITING_CUSTOMER", "IN_PROGRESS" | "DECLINED" | "CANCELLED")
                    | ("IN_PROGRESS", "AWAITING_CUSTOMER" | "CANCELLED" | "COMPLETED" | "COMPLETED_WITH_EXCEPTIONS")
            );
        if !may {
            return Err(violated("I1", format!("a request that was {} is {}", was.state, request.state)));
        }
    }
    for (id, task) in before.tasks.iter() {
        let is = now.tasks.get(id);
        if is.is_none() && task.lease > 0 {
            return Err(violated("I3", format!("a task at {} that was once begun is gone", id.1)));
        }
        if task.state == "CONFIRMED" && is.is_none_or(|t| t.state != "CONFIRMED") {
            return Err(violated("I4", format!("a confirmed task at {} is confirmed no more", id.1)));
        }
    }
    Ok(())
}

/// Everything that was not left to the customer has come to its end.
pub fn all_done(scene: &Scene, now: &Snapshot) -> Checked {
    let Some((rid, request)) = now.requests.iter().find(|(_, r)| r.state == "IN_PROGRESS") else { return Ok(()) };
    let mut open: Vec<String> = Vec::new();
    for ((_, system), task) in now.tasks.iter().filter(|((of, _), t)| of == rid && t.state != "CONFIRMED") {
        open.push(format!("{system} {} {} {}", task.work, task.state, task.reason));
    }
    let number = scene.number_of(now, rid);
    Err(violated("liveness", format!("instruction {number:?} ({}) never completes: {open:?}", request.action)))
}

/// What tells one id from another, and no more.
pub fn short(rid: &Rid) -> String {
    format!("{}/…{}", rid.0, rid.1.get(28..).unwrap_or_default())
}
