//! Outcomes, evidence, confirmations.

use jiff::Timestamp;
use quittance_api::v1;
use quittance_domain::{
    CLOCKS_APART_MAX,
    ids::TaskKey,
    outcome::{Confirmation, Evidence, Outcome},
};
use quittance_ledger::certificate::COUNT_MAX;

use super::{
    enums::{evidence_kind_from, evidence_kind_to, grade_from, grade_to, outcome_from, outcome_to},
    opt_time_from, required, required_text, text_within, time_to,
};
use crate::error::{ApiError, ApiResult};

const OUTCOMES_MAX: usize = 1000;

pub fn outcomes_from(outcomes: &[v1::Outcome], field: &str) -> ApiResult<Vec<Outcome>> {
    if outcomes.is_empty() || outcomes.len() > OUTCOMES_MAX {
        return Err(ApiError::field(field, format!("between 1 and {OUTCOMES_MAX} are needed")));
    }
    let one = |(i, o): (usize, &v1::Outcome)| {
        let at = |name: &str| format!("{field}[{i}].{name}");
        // It could never be certified.
        if o.count > COUNT_MAX {
            return Err(ApiError::field(at("count"), format!("at most {COUNT_MAX}")));
        }
        Ok(Outcome {
            collection: required_text(&o.collection, 128, &at("collection"))?,
            category: required_text(&o.category, 64, &at("category"))?,
            outcome: outcome_from(o.outcome, &at("outcome"))?,
            grade: grade_from(o.grade, &at("grade"))?,
            count: o.count,
            basis: text_within(&o.basis, 512, &at("basis"))?,
            until: opt_time_from(o.until.as_ref(), &at("until"))?,
        })
    };
    outcomes.iter().enumerate().map(one).collect()
}

pub fn evidence_from(evidence: Option<&v1::Evidence>, now: Timestamp, field: &str) -> ApiResult<Evidence> {
    let e = required(evidence, field)?;
    let at = |name: &str| format!("{field}.{name}");
    let hex = e.sha256.len() == 64 && e.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !e.sha256.is_empty() && !hex {
        return Err(ApiError::field(at("sha256"), "must be 64 lower-case hex digits"));
    }
    let stated_at = opt_time_from(e.time.as_ref(), &at("time"))?.unwrap_or(now);
    if stated_at.duration_since(now) > CLOCKS_APART_MAX {
        return Err(ApiError::field(at("time"), "lies in the future"));
    }
    Ok(Evidence {
        kind: evidence_kind_from(e.kind, &at("kind"))?,
        reference: text_within(&e.reference, 256, &at("reference"))?,
        sha256: e.sha256.clone(),
        // By our clock it was when we heard of it, at the latest.
        at: stated_at.min(now),
    })
}

pub fn confirmation_to(task: &TaskKey, c: &Confirmation, late: bool) -> v1::Confirmation {
    v1::Confirmation {
        task: task.resource_name(),
        system: task.system.resource_name(),
        outcomes: c.outcomes.iter().map(outcome_out).collect(),
        evidence: Some(v1::Evidence {
            kind: evidence_kind_to(c.evidence.kind),
            reference: c.evidence.reference.clone(),
            sha256: c.evidence.sha256.clone(),
            time: Some(time_to(c.evidence.at)),
        }),
        confirmed_by: c.by.clone(),
        confirm_time: Some(time_to(c.confirmed_at)),
        late,
        backups_expire_time: c.backups_expire_at.map(time_to),
    }
}

fn outcome_out(o: &Outcome) -> v1::Outcome {
    v1::Outcome {
        collection: o.collection.clone(),
        category: o.category.clone(),
        outcome: outcome_to(o.outcome),
        grade: grade_to(o.grade),
        count: o.count,
        basis: o.basis.clone(),
        until: o.until.map(time_to),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_clock_that_is_a_little_ahead_is_not_a_lie() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let stated = |ahead_s| {
            let evidence = v1::Evidence {
                kind: v1::EvidenceKind::SystemReport.into(),
                time: Some(time_to(now + SignedDuration::from_secs(ahead_s))),
                ..v1::Evidence::default()
            };
            evidence_from(Some(&evidence), now, "evidence").map(|evidence| evidence.at).ok()
        };
        assert_eq!(stated(-60), Some(now - SignedDuration::from_secs(60)));
        assert_eq!(stated(299), Some(now));
        assert_eq!(stated(301), None);
    }
}
