//! Times for people: in the agreement's time zone, and exactly in UTC.

use jiff::tz::TimeZone;
use quittance_domain::Timestamp;

use crate::language::Language;

pub struct Clock {
    pub zone: TimeZone,
    /// IANA name.
    pub name: String,
    pub language: Language,
}

impl Clock {
    /// `2 March 2026, 10:15:04 (UTC+01:00)`
    pub fn local(&self, at: Timestamp) -> String {
        let zoned = at.to_zoned(self.zone.clone());
        let month = self.language.month(zoned.month());
        let (day, year) = (zoned.day(), zoned.year());
        let offset = zoned.offset().seconds() / 60;
        let sign = if offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
        format!("{day} {month} {year}, {} (UTC{sign}{hours:02}:{minutes:02})", zoned.strftime("%H:%M:%S"))
    }

    /// `2 March 2026`
    pub fn day(&self, at: Timestamp) -> String {
        let zoned = at.to_zoned(self.zone.clone());
        format!("{} {} {}", zoned.day(), self.language.month(zoned.month()), zoned.year())
    }

    /// As the certificate writes it.
    pub fn utc(at: Timestamp) -> String {
        at.to_string()
    }

    pub fn both(&self, at: Timestamp) -> String {
        format!("{} = {}", self.local(at), Self::utc(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_the_agreements_zone_across_summer_time() {
        let clock = |name: &str, language| Clock {
            zone: quittance_domain::window::zone(name).unwrap(),
            name: name.to_owned(),
            language,
        };
        let winter: Timestamp = "2026-03-02T09:15:04.120334Z".parse().unwrap();
        let summer: Timestamp = "2026-04-01T21:59:59.999999Z".parse().unwrap();
        let english = clock("Europe/Amsterdam", Language::English);
        assert_eq!(english.local(winter), "2 March 2026, 10:15:04 (UTC+01:00)");
        assert_eq!(english.both(summer), "1 April 2026, 23:59:59 (UTC+02:00) = 2026-04-01T21:59:59.999999Z");
        let dutch = clock("Europe/Amsterdam", Language::Dutch);
        assert_eq!(
            (dutch.local(winter), dutch.day(summer)),
            ("2 maart 2026, 10:15:04 (UTC+01:00)".to_owned(), "1 april 2026".to_owned())
        );
        assert_eq!(clock("America/St_Johns", Language::English).local(winter), "2 March 2026, 05:45:04 (UTC-03:30)");
    }
}
