//! How long to wait before trying again. Chance is handed in.

use std::time::Duration;

/// A wait between nothing and `min(cap, base × 2^attempt)`, spread evenly by `random` in `[0, 1)`.
///
/// Full jitter: callers that failed together do not come back together. `attempt` counts from 0, for the wait after the
/// first failure. With a base of 1 s and a cap of 5 min, the longest waits are
///
/// | attempt | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 and later |
/// | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
/// | at most | 1 s | 2 s | 4 s | 8 s | 16 s | 32 s | 64 s | 128 s | 256 s | 300 s |
///
/// and the mean is half of that. A `random` outside its range is brought back into it; NaN waits longest, so that a broken
/// source of chance never makes a busy loop.
pub fn full_jitter(attempt: u32, base: Duration, cap: Duration, random: f64) -> Duration {
    let ceiling =
        2_u32.checked_pow(attempt).and_then(|factor| base.checked_mul(factor)).map_or(cap, |wait| wait.min(cap));
    let share = if random.is_nan() { 1.0 } else { random.clamp(0.0, 1.0) };
    // Rounding can reach above the ceiling by a nanosecond, or above `Duration::MAX` altogether.
    Duration::try_from_secs_f64(ceiling.as_secs_f64() * share).map_or(ceiling, |wait| wait.min(ceiling))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documented_waits() {
        let longest = |attempt| full_jitter(attempt, Duration::from_secs(1), Duration::from_secs(300), 1.0).as_secs();
        assert_eq!((0..12).map(longest).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(full_jitter(3, Duration::from_secs(1), Duration::from_secs(300), 0.5), Duration::from_secs(4));
        assert_eq!(full_jitter(3, Duration::from_secs(1), Duration::from_secs(300), 0.0), Duration::ZERO);
    }

    #[test]
    fn a_base_of_nothing_never_waits() {
        assert_eq!(full_jitter(31, Duration::ZERO, Duration::MAX, 0.9), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn never_above_the_cap(
            attempt: u32, base: (u64, u32), cap: (u64, u32), random in prop_oneof![0.0..1.0, any::<f64>()],
        ) {
            let duration = |(secs, nanos): (u64, u32)| Duration::new(secs, nanos % 1_000_000_000);
            let (base, cap) = (duration(base), duration(cap));
            prop_assert!(full_jitter(attempt, base, cap, random) <= cap);
            prop_assert!(full_jitter(0, base, cap, random) <= base);
        }

        #[test]
        fn more_attempts_wait_no_shorter(attempt in 0_u32..40, random in 0.0..1.0) {
            let wait = |attempt| full_jitter(attempt, Duration::from_millis(250), Duration::from_secs(600), random);
            prop_assert!(wait(attempt) <= wait(attempt + 1));
        }
    }
}
