//! I7: what is over is forgotten, and what lives is not; a key goes when nothing is under it, and nothing comes under it again.

use std::{path::Path, sync::Arc};

use crate::{
    scene::Scene,
    snapshot::{Epoch, Rid, Sealed, Snapshot},
};

use super::{Checked, requests::short, violated};

const DAY_US: i64 = 86_400_000_000;
/// Replicas' clocks differ by this much at most.
const SKEW_US: i64 = 10_000_000;

impl Epoch {
    fn is_destroyed(&self) -> bool {
        matches!(self.state.as_str(), "DESTROYED" | "LOGGED")
    }
}

pub fn honest(scene: &Scene, before: &Snapshot, now: &Snapshot, keys: &Path) -> Checked {
    if Arc::ptr_eq(&before.sealed, &now.sealed)
        && Arc::ptr_eq(&before.epochs, &now.epochs)
        && Arc::ptr_eq(&before.kept, &now.kept)
    {
        return Ok(());
    }
    let retention_us = i64::from(scene.scenario.retention_days) * DAY_US;
    for (rid, sealed) in now.sealed.iter() {
        if sealed.epoch.is_empty() {
            forgotten(now, rid, sealed, retention_us)?;
        } else {
            usable(now, rid, &sealed.epoch)?;
            wrapped(before, now, rid, sealed)?;
        }
    }
    for ((task, _), epoch) in now.kept.iter().filter(|(_, epoch)| !epoch.is_empty()).map(|(task, epoch)| (task, epoch))
    {
        usable(now, task, epoch)?;
    }
    for (number, epoch) in now.epochs.iter() {
        // Between the proof that nothing is under it and the record that it is gone, a process may have died.
        let there = keys.join(format!("epoch-{number}.key")).exists();
        if there && epoch.is_destroyed() {
            return Err(violated(
                "I7",
                format!("the key of epoch {number} is on record as destroyed, and it is there"),
            ));
        }
        if !there && matches!(epoch.state.as_str(), "CURRENT" | "CLOSED") {
            return Err(violated("I7", format!("the key of epoch {number} is gone while it is needed")));
        }
        let was_logged = before.epochs.get(number).is_some_and(|was| was.state == "LOGGED");
        if epoch.state == "LOGGED" && !was_logged {
            all_forgotten(now, epoch, retention_us)?;
        }
    }
    Ok(())
}

/// Its key is gone, and nothing is left that it opened.
fn forgotten(now: &Snapshot, rid: &Rid, sealed: &Sealed, retention_us: i64) -> Checked {
    let closed_us = now.requests.get(rid).and_then(|request| request.closed_us);
    let over = closed_us.zip(sealed.forgotten_us).is_some_and(|(closed, at)| closed + retention_us <= at);
    if !over {
        return Err(violated("I7", format!("{} was forgotten before its time", short(rid))));
    }
    let of = |(other, _): &(Rid, String)| other == rid;
    if sealed.bytes > 0 || now.match_sets.iter().any(of) || now.records.keys().any(|(task, _)| of(task)) {
        return Err(violated("I7", format!("{} is forgotten, and something of it is left", short(rid))));
    }
    Ok(())
}

/// What lives can be opened.
fn usable(now: &Snapshot, rid: &Rid, epoch: &str) -> Checked {
    let known = epoch.parse().ok().and_then(|number: i64| now.epochs.get(&number));
    if known.is_none_or(Epoch::is_destroyed) {
        return Err(violated("I7", format!("{} is under epoch {epoch}, whose key is destroyed", short(rid))));
    }
    Ok(())
}

/// Under the epoch that it says.
fn wrapped(before: &Snapshot, now: &Snapshot, rid: &Rid, sealed: &Sealed) -> Checked {
    match before.sealed.get(rid) {
        None => {
            let state = sealed.epoch.parse().ok().and_then(|number: i64| now.epochs.get(&number));
            if state.is_none_or(|epoch| epoch.state != "CURRENT") {
                return Err(violated(
                    "I7",
                    format!("{} was sealed under epoch {}, an old one", short(rid), sealed.epoch),
                ));
            }
        }
        Some(was) if was.epoch != sealed.epoch && was.wrapped == sealed.wrapped => {
            return Err(violated("I7", format!("{} is under epoch {} in name only", short(rid), sealed.epoch)));
        }
        Some(_) => {}
    }
    Ok(())
}

/// What was over before an epoch was closed does not outlive it. What was taken back while somebody worked on it may, until the next.
fn all_forgotten(now: &Snapshot, epoch: &Epoch, retention_us: i64) -> Checked {
    let Some(epoch_closed_us) = epoch.closed_us else { return Ok(()) };
    let over = |closed_us: i64| closed_us + retention_us + SKEW_US <= epoch_closed_us;
    for (rid, _) in now.requests.iter().filter(|(_, r)| r.is_completed() && r.closed_us.is_some_and(over)) {
        if now.sealed.get(rid).is_some_and(|sealed| !sealed.epoch.is_empty()) {
            return Err(violated(
                "I7",
                format!("{} was over, its epoch's key is gone, and it can be read", short(rid)),
            ));
        }
    }
    Ok(())
}

/// At the end: no rotation stands still.
pub fn all_through(now: &Snapshot) -> Checked {
    if now.keys_turn {
        return Err(violated("liveness", "a rotation of the keys never comes to its end"));
    }
    Ok(())
}
