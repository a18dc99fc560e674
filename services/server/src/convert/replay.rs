//! Replays.

use jiff::Timestamp;
use quittance_api::v1;
use quittance_domain::ids::{replay_name, request_name};
use quittance_store::{ReplayFinding, ReplayRow, ReplayShare};

use super::{
    enums::{action_to, finding_to, replay_state_to},
    time_to,
};

pub fn replay_to(r: &ReplayRow, shares: &[ReplayShare], now: Timestamp) -> v1::Replay {
    let unattended = r.state.is_at_work() && r.run_at < now;
    v1::Replay {
        name: replay_name(&r.system, r.id),
        snapshot_time: Some(time_to(r.snapshot_at)),
        dry_run: r.dry_run,
        matches_max: r.guard.matches_max,
        share_percent_max: u32::try_from(r.guard.share_percent_max).unwrap_or(u32::MAX),
        state: replay_state_to(r.state),
        reason: r.reason.clone(),
        asked_by: r.asked_by.clone(),
        decided_by: r.decided_by.clone(),
        create_time: Some(time_to(r.asked_at)),
        end_time: r.ended_at.map(time_to),
        keys_read: r.keys_read,
        keys_matched: r.keys_matched,
        shares: shares.iter().map(share_to).collect(),
        unattended_since_time: unattended.then(|| time_to(r.run_at)),
    }
}

fn share_to(s: &ReplayShare) -> v1::ReplayShare {
    v1::ReplayShare {
        customer: s.customer.resource_name(),
        erasures: s.counts.erasures,
        restrictions: s.counts.restrictions,
        liftings: s.counts.liftings,
        rectifications: s.counts.rectifications,
        unreachable: s.counts.unreachable,
        follow_ups: s.counts.instructed,
        follow_ups_open: s.open,
        waiting: s.waiting,
    }
}

pub fn finding_of(f: &ReplayFinding) -> v1::ReplayFinding {
    v1::ReplayFinding {
        request: request_name(&f.customer, f.request),
        action: action_to(f.action),
        kind: finding_to(f.kind),
        identifier_changed: f.renames,
    }
}
