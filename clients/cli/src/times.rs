//! Times in RFC 3339, always UTC on the way out; durations as `30d` or `12h`.

use std::time::Duration;

use jiff::Timestamp;
use prost_types::Timestamp as ProtoTime;

pub fn parse(text: &str) -> Result<ProtoTime, String> {
    let time: Timestamp =
        text.trim().parse().map_err(|_| "must be a time with its zone, as 2026-03-01T09:00:00Z".to_owned())?;
    // jiff's nanoseconds count downwards before 1970; the contract's always upwards.
    let total = time.as_nanosecond();
    let seconds = i64::try_from(total.div_euclid(1_000_000_000)).map_err(|_| "is out of range".to_owned())?;
    let nanos = i32::try_from(total.rem_euclid(1_000_000_000)).map_err(|_| "is out of range".to_owned())?;
    Ok(ProtoTime { seconds, nanos })
}

pub fn text(time: &ProtoTime) -> String {
    let total = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    match Timestamp::from_nanosecond(total) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{} s after 1970", time.seconds),
    }
}

pub fn text_or_none(time: Option<&ProtoTime>) -> Option<String> {
    time.map(text)
}

/// A number and a unit: s, m, h, d or w.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number and a unit (s, m, h, d or w), as 90s, 12h or 30d".to_owned();
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
    let seconds_each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    // The contract's durations end at ten thousand years.
    let seconds =
        number.checked_mul(seconds_each).filter(|s| *s <= 315_576_000_000).ok_or_else(|| "is too long".to_owned())?;
    Ok(Duration::from_secs(seconds))
}

/// In the largest unit that leaves no rest.
pub fn duration_text(duration: &prost_types::Duration) -> String {
    let seconds = duration.seconds;
    for (unit, each) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds != 0 && seconds % each == 0 && duration.nanos == 0 {
            return format!("{}{unit}", seconds / each);
        }
    }
    duration.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_in_utc() {
        let time = parse("2026-03-01T10:00:00.25+01:00").unwrap();
        assert_eq!(text(&time), "2026-03-01T09:00:00.25Z");
        assert_eq!(text(&parse("1969-12-31T23:59:59.5Z").unwrap()), "1969-12-31T23:59:59.5Z");
        for bad in ["", "2026-03-01", "2026-03-01T10:00:00", "soon"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_read_back() {
        for good in ["90s", "15m", "12h", "30d"] {
            let duration = prost_types::Duration::try_from(parse_duration(good).unwrap()).unwrap();
            assert_eq!(duration_text(&duration), good);
        }
        assert_eq!(parse_duration("2w"), Ok(Duration::from_secs(1_209_600)));
        for bad in ["", "30", "d", "1.5h", "-1d", "30 days", "99999999999999999999d", "999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }
}
