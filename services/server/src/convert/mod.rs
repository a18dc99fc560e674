//! Contract to domain and back. What comes in is refused here, with the field's path, before anything else sees it.

mod agreement;
mod enums;
mod evidence;
mod replay;
mod request;
mod system;

pub use agreement::{agreement_from, agreement_to, customer_to};
pub use enums::{action_from, request_state_from, timeliness_from};
pub use enums::{action_to, identifier_kind_from, task_state_to, work_to};
pub use evidence::{confirmation_to, evidence_from, outcomes_from};
pub use replay::{finding_of, replay_to};
pub use request::{
    correction_to, identifier_change_to, identifier_from, identifier_to, new_request, recipients_to, request_to,
    task_to, wait_to,
};
pub use system::{check_reach, keys_from, map_violations, registration_from, system_to};

use std::ops::RangeInclusive;

use jiff::Timestamp;
use quittance_domain::ids::{CustomerId, IdError, IdempotencyId};

use crate::error::{ApiError, ApiResult};

/// What `google.protobuf.Timestamp` can say: the years 1 to 9999, and parts of a second that count forward.
const SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS: RangeInclusive<i32> = 0..=999_999_999;

pub fn time_to(at: Timestamp) -> prost_types::Timestamp {
    // Before 1970 ours count backward.
    let borrowed = i64::from(at.subsec_nanosecond() < 0);
    let nanos = at.subsec_nanosecond().rem_euclid(NANOS.end() + 1);
    prost_types::Timestamp { seconds: (at.as_second() - borrowed).max(*SECONDS.start()), nanos }
}

/// Microseconds: what the store keeps.
pub fn time_from(at: &prost_types::Timestamp, field: &str) -> ApiResult<Timestamp> {
    Some(at)
        .filter(|at| SECONDS.contains(&at.seconds) && NANOS.contains(&at.nanos))
        .and_then(|at| Timestamp::new(at.seconds, at.nanos).ok())
        .and_then(|t| Timestamp::from_microsecond(t.as_microsecond()).ok())
        .ok_or_else(|| ApiError::field(field, "is out of range: of the years 1 to 9999, with 0 to 999,999,999 nanos"))
}

pub fn opt_time_from(at: Option<&prost_types::Timestamp>, field: &str) -> ApiResult<Option<Timestamp>> {
    at.map(|at| time_from(at, field)).transpose()
}

pub fn required<'a, T>(value: Option<&'a T>, field: &str) -> ApiResult<&'a T> {
    value.ok_or_else(|| ApiError::field(field, "is required"))
}

pub fn idempotency(text: &str, field: &str) -> ApiResult<IdempotencyId> {
    IdempotencyId::parse(text)
        .map_err(|_| ApiError::field(field, "must be a UUID of yours, and not the nil one (AIP-155)"))
}

pub fn id<T>(parsed: Result<T, IdError>, field: &str) -> ApiResult<T> {
    parsed.map_err(|e| ApiError::field(field, e))
}

/// `customers/{customer}`, or nothing where the caller's own is meant.
pub fn parent(name: &str, field: &str) -> ApiResult<Option<CustomerId>> {
    if name.is_empty() { Ok(None) } else { id(CustomerId::from_resource_name(name), field).map(Some) }
}

pub fn text_within(text: &str, bytes_max: usize, field: &str) -> ApiResult<String> {
    if text.len() > bytes_max {
        return Err(ApiError::field(field, format!("is longer than {bytes_max} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(ApiError::field(field, "holds control characters"));
    }
    Ok(text.to_owned())
}

pub fn required_text(text: &str, bytes_max: usize, field: &str) -> ApiResult<String> {
    if text.trim().is_empty() {
        return Err(ApiError::field(field, "is required"));
    }
    text_within(text, bytes_max, field)
}

/// `page_size` of a listing: 0 means 100.
pub fn page_size(size: i32) -> ApiResult<u32> {
    match size {
        0 => Ok(100),
        1..=1000 => Ok(size.unsigned_abs()),
        _ => Err(ApiError::field("page_size", "must be between 0 and 1000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_one_of_the_contract_both_ways() {
        let sent = |seconds, nanos| time_from(&prost_types::Timestamp { seconds, nanos }, "t");
        for (seconds, nanos) in [(*SECONDS.start() - 1, 0), (*SECONDS.end() + 1, 0), (0, -1), (0, 1_000_000_000)] {
            assert!(sent(seconds, nanos).is_err(), "{seconds} {nanos}");
        }
        assert!(sent(*SECONDS.start(), 0).is_ok() && sent(0, 999_999_999).is_ok());
        for (seconds, nanos) in [(-2, 500_000_000), (-1, 999_999_000), (-1, 0), (0, 0), (1, 500_000_000)] {
            let back = time_to(sent(seconds, nanos).unwrap());
            assert_eq!((back.seconds, back.nanos), (seconds, nanos));
        }
    }
}
