//! How long a row is held (Art. 17(3)): counted per row from its own anchor.

use jiff::{Span, civil::Date, tz::TimeZone};

use crate::{
    Timestamp,
    data_map::{CountedFrom, Period, Retention},
};

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HoldError {
    #[error("a retention period must be longer than nothing")]
    Period,
    #[error("the end of the retention is beyond the calendar")]
    OutOfRange,
}

/// The last day on which the row is held. Months that lack the day end on their last one (29 February + 1 year: 28 February).
pub fn held_until(anchor: Date, retention: &Retention) -> Result<Date, HoldError> {
    let from = match retention.counted_from {
        CountedFrom::Date => anchor,
        CountedFrom::EndOfYear => anchor.last_of_year(),
    };
    from.checked_add(span(retention.period)?).map_err(|_| HoldError::OutOfRange)
}

/// The row is held through the whole of its last day, as the calendar stands in `zone`.
pub fn is_held(now: Timestamp, zone: &TimeZone, anchor: Date, retention: &Retention) -> Result<bool, HoldError> {
    Ok(now.to_zoned(zone.clone()).date() <= held_until(anchor, retention)?)
}

/// The first instant at which the row may be erased: when the day after `last_day` begins.
pub fn released_at(last_day: Date, zone: &TimeZone) -> Result<Timestamp, HoldError> {
    let next = last_day.tomorrow().map_err(|_| HoldError::OutOfRange)?;
    // Where clocks skip midnight, the day begins later.
    next.to_zoned(zone.clone()).map(|start| start.timestamp()).map_err(|_| HoldError::OutOfRange)
}

fn span(period: Period) -> Result<Span, HoldError> {
    let Period { years, months, days } = period;
    // A negative part would end a hold early: a map that was read has none, one that was made by hand could.
    if years < 0 || months < 0 || days < 0 || (years == 0 && months == 0 && days == 0) {
        return Err(HoldError::Period);
    }
    Span::new()
        .try_years(years)
        .and_then(|span| span.try_months(months))
        .and_then(|span| span.try_days(days))
        .map_err(|_| HoldError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::window::zone;

    fn retention(counted_from: CountedFrom, years: i16, months: i32, days: i32) -> Retention {
        Retention {
            ground: "Art. 52 AWR".to_owned(),
            anchor: "booked_on".to_owned(),
            counted_from,
            period: Period { years, months, days },
        }
    }

    #[test]
    fn the_last_day() {
        use CountedFrom::{Date as Day, EndOfYear};
        for (anchor, rule, last) in [
            (date(2020, 3, 15), retention(EndOfYear, 7, 0, 0), date(2027, 12, 31)),
            (date(2020, 12, 31), retention(EndOfYear, 7, 0, 0), date(2027, 12, 31)),
            (date(2021, 1, 1), retention(EndOfYear, 7, 0, 0), date(2028, 12, 31)),
            (date(2020, 3, 15), retention(Day, 7, 0, 0), date(2027, 3, 15)),
            (date(2024, 2, 29), retention(Day, 1, 0, 0), date(2025, 2, 28)),
            (date(2024, 8, 31), retention(Day, 0, 18, 0), date(2026, 2, 28)),
            (date(2024, 12, 1), retention(Day, 0, 0, 90), date(2025, 3, 1)),
            (date(2024, 1, 31), retention(Day, 0, 1, 1), date(2024, 3, 1)),
        ] {
            assert_eq!(held_until(anchor, &rule), Ok(last), "{anchor} {rule:?}");
        }
    }

    #[test]
    fn held_through_the_whole_last_day_of_the_zone() {
        let amsterdam = zone("Europe/Amsterdam").unwrap();
        let rule = retention(CountedFrom::EndOfYear, 7, 0, 0);
        let held = |at: &str| is_held(at.parse().unwrap(), &amsterdam, date(2019, 5, 1), &rule).unwrap();
        assert!(held("2026-12-31T22:59:59.999999Z"));
        assert!(!held("2026-12-31T23:00:00Z"), "it is 2027 in Amsterdam");
        assert_eq!(released_at(date(2026, 12, 31), &amsterdam), Ok("2026-12-31T23:00:00Z".parse().unwrap()));
    }

    #[test]
    fn a_day_that_begins_after_midnight() {
        let cairo = zone("Africa/Cairo").unwrap();
        // Clocks went from 00:00 to 01:00 on 26 April 2024.
        let start: Timestamp = released_at(date(2024, 4, 25), &cairo).unwrap();
        assert_eq!(start, "2024-04-25T22:00:00Z".parse().unwrap());
        assert_eq!(start.to_zoned(cairo).date(), date(2024, 4, 26));
    }

    #[test]
    fn what_cannot_be_counted_is_an_error() {
        let from = date(2024, 1, 1);
        assert_eq!(held_until(from, &retention(CountedFrom::Date, 9000, 0, 0)), Err(HoldError::OutOfRange));
        assert_eq!(held_until(from, &retention(CountedFrom::Date, i16::MAX, 0, 0)), Err(HoldError::OutOfRange));
        assert_eq!(held_until(from, &retention(CountedFrom::Date, 0, 0, 0)), Err(HoldError::Period));
        assert_eq!(held_until(from, &retention(CountedFrom::Date, 1, -1, 0)), Err(HoldError::Period));
        assert_eq!(released_at(Date::MAX, &TimeZone::UTC), Err(HoldError::OutOfRange));
    }

    proptest! {
        #[test]
        fn never_ends_before_the_anchor_and_is_released_the_day_after(
            day in 0_i32..30_000, years in 0_i16..100, months in 0_i32..600, days in 1_i32..9_000, end_of_year: bool,
        ) {
            let counted_from = if end_of_year { CountedFrom::EndOfYear } else { CountedFrom::Date };
            let rule = retention(counted_from, years, months, days);
            let anchor = date(1970, 1, 1).checked_add(Span::new().days(day)).unwrap();
            let last = held_until(anchor, &rule).unwrap();
            prop_assert!(last > anchor);
            for name in ["Europe/Amsterdam", "Pacific/Auckland", "UTC"] {
                let zone = zone(name).unwrap();
                let released = released_at(last, &zone).unwrap();
                prop_assert!(!is_held(released, &zone, anchor, &rule).unwrap());
                let before = released - jiff::SignedDuration::from_nanos(1);
                prop_assert!(is_held(before, &zone, anchor, &rule).unwrap());
            }
        }

        #[test]
        fn no_period_panics(day in -700_000_i32..2_900_000, years: i16, months: i32, days: i32, end_of_year: bool) {
            let counted_from = if end_of_year { CountedFrom::EndOfYear } else { CountedFrom::Date };
            if let Ok(anchor) = date(1970, 1, 1).checked_add(Span::new().days(day)) {
                let _ = held_until(anchor, &retention(counted_from, years, months, days));
            }
        }
    }
}
