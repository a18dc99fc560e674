//! The agreement's window: when an answer is due, how that may change, and how close it is (I9).
//!
//! Days are calendar days of the agreement's zone, and periods end with the last hour of their last day, as Regulation
//! 1182/71 counts them. Its other rule, that a period ending on a Sunday or holiday runs on to the next working day, is
//! left aside on purpose: it would need every country's holidays, and without it we are never late by it.

use jiff::{
    SignedDuration, Span,
    civil::Date,
    tz::{TimeZone, TimeZoneDatabase},
};

use crate::{Timestamp, text_enum};

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WindowError {
    #[error("must be an IANA time zone, such as Europe/Amsterdam")]
    UnknownZone,
    #[error("the due date is beyond the calendar")]
    OutOfRange,
    #[error("an extension must end later than what is due now")]
    NotLater,
    #[error("an extension needs a reason")]
    NoReason,
}

/// How long the agreement gives us, from the day after receipt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowLength {
    Days(u16),
    Months(u8),
}

impl From<u16> for WindowLength {
    fn from(days: u16) -> Self {
        Self::Days(days)
    }
}

/// A zone by its IANA name, from the database that is compiled in: every replica has the same one, whatever its image holds.
pub fn zone(name: &str) -> Result<TimeZone, WindowError> {
    let zone = TimeZoneDatabase::bundled().get(name).map_err(|_| WindowError::UnknownZone)?;
    if zone.is_unknown() { Err(WindowError::UnknownZone) } else { Ok(zone) }
}

/// The same day of the next month, or that month's last where it has no such day: the month of Art. 12(3).
pub fn one_month_after(day: Date) -> Result<Date, WindowError> {
    WindowLength::Months(1).after(day)
}

impl WindowLength {
    /// The last day of a window that began with something received on `day`.
    pub fn after(self, day: Date) -> Result<Date, WindowError> {
        let span = match self {
            Self::Days(days) => Span::new().days(i64::from(days)),
            Self::Months(months) => Span::new().months(i64::from(months)),
        };
        day.checked_add(span).map_err(|_| WindowError::OutOfRange)
    }
}

/// When the answer is due: the end of the window's last day in `zone`, or the controller's own date if that is earlier.
///
/// A controller's date in the past stays what it is: late is recorded as late.
pub fn due_at(
    received: Timestamp,
    window: impl Into<WindowLength>,
    zone: &TimeZone,
    controller_due: Option<Timestamp>,
) -> Result<Timestamp, WindowError> {
    let last_day = window.into().after(received.to_zoned(zone.clone()).date())?;
    let end = last_day
        .to_zoned(zone.clone())
        .and_then(|start| start.end_of_day())
        .map_err(|_| WindowError::OutOfRange)?
        .timestamp();
    // Microseconds are what the databases keep; rounding up would be the next day.
    let end = Timestamp::from_microsecond(end.as_microsecond()).map_err(|_| WindowError::OutOfRange)?;
    let end = end.max(received);
    Ok(controller_due.map_or(end, |theirs| theirs.min(end)))
}

/// How a request stands against its due date.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Timeliness {
    OnTrack,
    AtRisk,
    Overdue,
}

text_enum!(Timeliness,
    OnTrack => "ON_TRACK",
    AtRisk => "AT_RISK",
    Overdue => "OVERDUE",
);

/// `due` itself is still in time. At risk begins `at_risk_before` it.
pub fn timeliness(now: Timestamp, due: Timestamp, at_risk_before: SignedDuration) -> Timeliness {
    if now > due {
        Timeliness::Overdue
    } else if due.duration_since(now) <= at_risk_before {
        Timeliness::AtRisk
    } else {
        Timeliness::OnTrack
    }
}

/// One extension or pause: appended, never taken back.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Extension {
    pub new_due: Timestamp,
    /// Why, in the words that the customer and the certificate get.
    pub reason: String,
    pub at: Timestamp,
}

/// The due date and its whole history. The first one never changes (I9).
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "RawDueDates")]
pub struct DueDates {
    first_due: Timestamp,
    extensions: Vec<Extension>,
}

#[derive(serde::Deserialize)]
struct RawDueDates {
    first_due: Timestamp,
    #[serde(default)]
    extensions: Vec<Extension>,
}

impl TryFrom<RawDueDates> for DueDates {
    type Error = WindowError;
    fn try_from(raw: RawDueDates) -> Result<Self, WindowError> {
        raw.extensions.into_iter().try_fold(Self::new(raw.first_due), |mut dates, extension| {
            dates.extend(extension)?;
            Ok(dates)
        })
    }
}

impl DueDates {
    pub const fn new(first_due: Timestamp) -> Self {
        Self { first_due, extensions: Vec::new() }
    }

    pub const fn first_due(&self) -> Timestamp {
        self.first_due
    }

    /// Oldest first.
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    /// What is due now.
    pub fn current(&self) -> Timestamp {
        self.extensions.last().map_or(self.first_due, |extension| extension.new_due)
    }

    pub fn extend(&mut self, extension: Extension) -> Result<(), WindowError> {
        if extension.reason.trim().is_empty() {
            return Err(WindowError::NoReason);
        }
        if extension.new_due <= self.current() {
            return Err(WindowError::NotLater);
        }
        self.extensions.push(extension);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn amsterdam() -> TimeZone {
        zone("Europe/Amsterdam").unwrap()
    }

    #[test]
    fn due_dates_by_hand() {
        use WindowLength::{Days, Months};
        for (received, window, due) in [
            // Winter, then across the change to summer time (30 March 2025) and back (26 October 2025).
            ("2025-01-01T12:00:00Z", Days(30), "2025-01-31T22:59:59.999999Z"),
            ("2025-03-15T12:00:00Z", Days(30), "2025-04-14T21:59:59.999999Z"),
            ("2025-10-01T12:00:00Z", Days(30), "2025-10-31T22:59:59.999999Z"),
            // The short and the long day themselves.
            ("2025-03-29T12:00:00Z", Days(1), "2025-03-30T21:59:59.999999Z"),
            ("2025-10-25T12:00:00Z", Days(1), "2025-10-26T22:59:59.999999Z"),
            // Already the next day in Amsterdam.
            ("2025-01-01T23:30:00Z", Days(30), "2025-02-01T22:59:59.999999Z"),
            ("2025-01-31T12:00:00Z", Months(1), "2025-02-28T22:59:59.999999Z"),
            ("2024-01-31T12:00:00Z", Months(1), "2024-02-29T22:59:59.999999Z"),
            ("2025-01-01T12:00:00Z", Days(0), "2025-01-01T22:59:59.999999Z"),
        ] {
            assert_eq!(due_at(at(received), window, &amsterdam(), None), Ok(at(due)), "{received} {window:?}");
        }
    }

    #[test]
    fn the_earlier_date_counts() {
        let received = at("2025-01-01T12:00:00Z");
        let ours = due_at(received, 30_u16, &amsterdam(), None).unwrap();
        let earlier = at("2025-01-20T00:00:00Z");
        let past = at("2024-12-20T00:00:00Z");
        assert_eq!(due_at(received, 30_u16, &amsterdam(), Some(earlier)), Ok(earlier));
        assert_eq!(due_at(received, 30_u16, &amsterdam(), Some(at("2026-01-01T00:00:00Z"))), Ok(ours));
        assert_eq!(due_at(received, 30_u16, &amsterdam(), Some(past)), Ok(past), "late is late");
    }

    #[test]
    fn a_month_ends_with_its_last_day() {
        for (from, to) in [
            (date(2025, 1, 31), date(2025, 2, 28)),
            (date(2024, 1, 31), date(2024, 2, 29)),
            (date(2100, 1, 31), date(2100, 2, 28)),
            (date(2025, 2, 28), date(2025, 3, 28)),
            (date(2025, 3, 31), date(2025, 4, 30)),
            (date(2025, 12, 31), date(2026, 1, 31)),
        ] {
            assert_eq!(one_month_after(from), Ok(to));
        }
        assert_eq!(one_month_after(Date::MAX), Err(WindowError::OutOfRange));
    }

    #[test]
    fn days_that_end_oddly() {
        // On 26 October 2024 Beirut's clocks went back at midnight, so the day's last hour came twice.
        let beirut = zone("Asia/Beirut").unwrap();
        let due = due_at(at("2024-10-25T12:00:00Z"), 1_u16, &beirut, None).unwrap();
        assert_eq!(due, at("2024-10-26T21:59:59.999999Z"), "the second of the two last hours");
        // 30 December 2011 did not happen in Samoa: what would end then ends with the day after.
        let apia = zone("Pacific/Apia").unwrap();
        let due = due_at(at("2011-12-29T12:00:00Z"), 1_u16, &apia, None).unwrap();
        assert_eq!(due.to_zoned(apia).date(), date(2011, 12, 31));
    }

    #[test]
    fn unknown_zones_are_errors() {
        for bad in ["", "Europe/Nowhere", "Etc/Unknown", "../etc/passwd", "+02:00", "Europe/Amsterdam\0"] {
            assert_eq!(zone(bad), Err(WindowError::UnknownZone), "{bad:?}");
        }
        assert!(zone("UTC").is_ok());
    }

    #[test]
    fn how_it_stands() {
        let due = at("2025-01-31T22:59:59.999999Z");
        let three_days = SignedDuration::from_hours(72);
        let second = SignedDuration::from_secs(1);
        for (now, stands) in [
            (due - three_days - second, Timeliness::OnTrack),
            (due - three_days, Timeliness::AtRisk),
            (due, Timeliness::AtRisk),
            (due + second, Timeliness::Overdue),
        ] {
            assert_eq!(timeliness(now, due, three_days), stands);
        }
        assert_eq!(timeliness(Timestamp::MIN, Timestamp::MAX, SignedDuration::MAX), Timeliness::AtRisk);
        assert_eq!(timeliness(Timestamp::MAX, Timestamp::MIN, SignedDuration::MIN), Timeliness::Overdue);
    }

    fn extension(new_due: &str, reason: &str) -> Extension {
        Extension { new_due: at(new_due), reason: reason.to_owned(), at: at("2025-01-20T10:00:00Z") }
    }

    #[test]
    fn extensions_are_appended() {
        let first = at("2025-01-31T22:59:59Z");
        let mut dates = DueDates::new(first);
        assert_eq!(dates.extend(extension("2025-02-28T00:00:00Z", " \n")), Err(WindowError::NoReason));
        assert_eq!(dates.extend(extension("2025-01-31T22:59:59Z", "same day")), Err(WindowError::NotLater));
        assert_eq!(dates.current(), first);
        dates.extend(extension("2025-02-28T00:00:00Z", "many systems")).unwrap();
        assert_eq!(dates.extend(extension("2025-02-27T00:00:00Z", "shorter")), Err(WindowError::NotLater));
        dates.extend(extension("2025-03-31T00:00:00Z", "paused: identity unclear")).unwrap();
        assert_eq!(dates.first_due(), first);
        assert_eq!(dates.current(), at("2025-03-31T00:00:00Z"));
        assert_eq!(dates.extensions().len(), 2);

        let json = serde_json::to_string(&dates).unwrap();
        assert_eq!(serde_json::from_str::<DueDates>(&json).unwrap(), dates);
        let forged = json.replace("2025-03-31", "2025-01-01");
        assert!(serde_json::from_str::<DueDates>(&forged).is_err());
    }

    #[test]
    fn lengths_in_json() {
        assert_eq!(serde_json::to_string(&WindowLength::Days(30)).unwrap(), r#"{"days":30}"#);
        assert_eq!(serde_json::from_str::<WindowLength>(r#"{"months":1}"#).unwrap(), WindowLength::Months(1));
    }

    fn zones() -> impl Strategy<Value = TimeZone> {
        proptest::sample::select(vec![
            "Europe/Amsterdam",
            "UTC",
            "Pacific/Apia",
            "America/St_Johns",
            "Asia/Beirut",
            "Africa/Cairo",
            "Asia/Kathmandu",
        ])
        .prop_map(|name| zone(name).unwrap())
    }

    /// 1970 to 2100, to the nanosecond.
    fn times() -> impl Strategy<Value = Timestamp> {
        (0_i64..4_102_444_800, 0_i32..1_000_000_000).prop_map(|(s, n)| Timestamp::new(s, n).unwrap())
    }

    proptest! {
        #[test]
        fn never_due_before_it_came(received in times(), days in 0_u16..4000, zone in zones()) {
            let due = due_at(received, days, &zone, None).unwrap();
            prop_assert!(due >= received);
            // Never shorter than the days themselves, less the one hour that a clock change takes (a day, in Samoa's case).
            let whole = SignedDuration::from_hours(24 * i64::from(days)) - SignedDuration::from_hours(25);
            prop_assert!(due.duration_since(received) >= whole);
        }

        #[test]
        fn more_days_are_due_later(received in times(), days in 0_u16..4000, zone in zones()) {
            let due = due_at(received, days, &zone, None).unwrap();
            prop_assert!(due_at(received, days + 1, &zone, None).unwrap() >= due);
        }

        #[test]
        fn never_after_the_controllers_date(received in times(), theirs in times(), days: u16, zone in zones()) {
            prop_assert!(due_at(received, days, &zone, Some(theirs)).unwrap() <= theirs);
        }

        #[test]
        fn a_month_is_28_to_31_days(day in 0_i32..60_000) {
            let from = date(1950, 1, 1).checked_add(Span::new().days(day)).unwrap();
            let to = one_month_after(from).unwrap();
            let days = from.until(to).unwrap().get_days();
            prop_assert!((28..=31).contains(&days), "{from} {to}");
            prop_assert_eq!(to.month(), from.month() % 12 + 1);
        }

        #[test]
        fn nothing_panics(second: i64, days: u16, months: u8, zone in zones()) {
            if let Ok(received) = Timestamp::from_second(second % 253_402_207_200) {
                let _ = due_at(received, days, &zone, None);
                let _ = due_at(received, WindowLength::Months(months), &zone, None);
            }
        }
    }
}
