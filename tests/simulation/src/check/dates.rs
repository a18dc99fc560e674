//! I9: the first due date never changes; extensions are appended; it is the day that the agreement says.

use quittance_domain::{Timestamp, window};

use crate::{scene::Scene, snapshot::Snapshot, system::customer_id};

use super::{Checked, ledger::LedgerSeen, requests::short, violated};

pub const ZONE: &str = "Europe/Amsterdam";

pub fn honest(scene: &Scene, before: &Snapshot, now: &Snapshot, ledger: &LedgerSeen) -> Checked {
    for (rid, request) in now.requests.iter() {
        if let Some(was) = before.requests.get(rid) {
            if was.created_us != request.created_us {
                return Err(violated("I9", format!("{} was taken in at another time", short(rid))));
            }
            let authorised = ledger.first_dates(rid).contains(&request.first_due_us);
            if was.first_due_us != request.first_due_us && !authorised {
                return Err(violated("I9", format!("the first due date of {} has changed", short(rid))));
            }
            if request.due_us < was.due_us && !authorised {
                return Err(violated("I9", format!("{} is due earlier than it was", short(rid))));
            }
        } else {
            first(scene, now, rid, request.created_us, request.first_due_us)?;
        }
        let extended = now.extended.get(rid).copied().unwrap_or(i64::MIN);
        if request.due_us != request.first_due_us.max(extended) {
            return Err(violated("I9", format!("{} is not due when its last extension says", short(rid))));
        }
    }
    Ok(())
}

/// By the agreement's window, or the controller's own date.
fn first(scene: &Scene, now: &Snapshot, rid: &crate::snapshot::Rid, created_us: i64, due_us: i64) -> Checked {
    let Some(number) = scene.number_of(now, rid) else { return Ok(()) };
    let asked = scene.asked();
    let Some(a) = asked.get(&number).filter(|a| customer_id(a.customer) == rid.0) else { return Ok(()) };
    let agreement = now.requests.get(rid).map_or(1, |r| r.agreement);
    let days = now.windows.get(&(rid.0.clone(), agreement)).copied();
    let controller = a.controller_due;
    let due = Timestamp::from_microsecond(created_us)
        .ok()
        .and_then(|at| window::due_at(at, days?, &window::zone(ZONE).ok()?, controller).ok());
    match due {
        Some(due) if due.as_microsecond() != due_us => Err(violated(
            "I9",
            format!("instruction {number} is due at {due_us}, and by its agreement at {}", due.as_microsecond()),
        )),
        _ => Ok(()),
    }
}
