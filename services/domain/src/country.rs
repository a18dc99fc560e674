//! Countries: where a system keeps personal data, and where an agreement allows it.

use std::fmt;

/// ISO 3166-1 alpha-2, the officially assigned codes (249 of them). `UK`, `EU` and `XK` are not among these.
const ASSIGNED: &[&str] = &[
    "AD", "AE", "AF", "AG", "AI", "AL", "AM", "AO", "AQ", "AR", "AS", "AT", "AU", "AW", "AX", "AZ", "BA", "BB", "BD",
    "BE", "BF", "BG", "BH", "BI", "BJ", "BL", "BM", "BN", "BO", "BQ", "BR", "BS", "BT", "BV", "BW", "BY", "BZ", "CA",
    "CC", "CD", "CF", "CG", "CH", "CI", "CK", "CL", "CM", "CN", "CO", "CR", "CU", "CV", "CW", "CX", "CY", "CZ", "DE",
    "DJ", "DK", "DM", "DO", "DZ", "EC", "EE", "EG", "EH", "ER", "ES", "ET", "FI", "FJ", "FK", "FM", "FO", "FR", "GA",
    "GB", "GD", "GE", "GF", "GG", "GH", "GI", "GL", "GM", "GN", "GP", "GQ", "GR", "GS", "GT", "GU", "GW", "GY", "HK",
    "HM", "HN", "HR", "HT", "HU", "ID", "IE", "IL", "IM", "IN", "IO", "IQ", "IR", "IS", "IT", "JE", "JM", "JO", "JP",
    "KE", "KG", "KH", "KI", "KM", "KN", "KP", "KR", "KW", "KY", "KZ", "LA", "LB", "LC", "LI", "LK", "LR", "LS", "LT",
    "LU", "LV", "LY", "MA", "MC", "MD", "ME", "MF", "MG", "MH", "MK", "ML", "MM", "MN", "MO", "MP", "MQ", "MR", "MS",
    "MT", "MU", "MV", "MW", "MX", "MY", "MZ", "NA", "NC", "NE", "NF", "NG", "NI", "NL", "NO", "NP", "NR", "NU", "NZ",
    "OM", "PA", "PE", "PF", "PG", "PH", "PK", "PL", "PM", "PN", "PR", "PS", "PT", "PW", "PY", "QA", "RE", "RO", "RS",
    "RU", "RW", "SA", "SB", "SC", "SD", "SE", "SG", "SH", "SI", "SJ", "SK", "SL", "SM", "SN", "SO", "SR", "SS", "ST",
    "SV", "SX", "SY", "SZ", "TC", "TD", "TF", "TG", "TH", "TJ", "TK", "TL", "TM", "TN", "TO", "TR", "TT", "TV", "TW",
    "TZ", "UA", "UG", "UM", "US", "UY", "UZ", "VA", "VC", "VE", "VG", "VI", "VN", "VU", "WF", "WS", "YE", "YT", "ZA",
    "ZM", "ZW",
];

/// The European Economic Area: the 27 members of the Union, then Iceland, Liechtenstein and Norway. Greece is `GR`.
pub const EEA: [Country; 30] = [
    Country("AT"),
    Country("BE"),
    Country("BG"),
    Country("CY"),
    Country("CZ"),
    Country("DE"),
    Country("DK"),
    Country("EE"),
    Country("ES"),
    Country("FI"),
    Country("FR"),
    Country("GR"),
    Country("HR"),
    Country("HU"),
    Country("IE"),
    Country("IT"),
    Country("LT"),
    Country("LU"),
    Country("LV"),
    Country("MT"),
    Country("NL"),
    Country("PL"),
    Country("PT"),
    Country("RO"),
    Country("SE"),
    Country("SI"),
    Country("SK"),
    Country("IS"),
    Country("LI"),
    Country("NO"),
];

/// A country, as its ISO 3166-1 alpha-2 code in upper case. Only assigned codes exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Country(&'static str);

/// The text is not repeated: callers name the field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("must be an ISO 3166-1 alpha-2 country code, such as SE")]
pub struct CountryError;

impl Country {
    /// Takes either case.
    pub fn parse(text: &str) -> Result<Self, CountryError> {
        let upper = text.to_ascii_uppercase();
        ASSIGNED.binary_search(&upper.as_str()).map(|i| Self(ASSIGNED[i])).map_err(|_| CountryError)
    }

    /// Every assigned code, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        ASSIGNED.iter().map(|code| Self(code))
    }

    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// Whether data stays under the GDPR there without any transfer tool (Art. 44).
    pub fn is_eea(self) -> bool {
        EEA.contains(&self)
    }
}

// By hand: derived, it would want the text to live as long as our own.
impl<'de> serde::Deserialize<'de> for Country {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl std::str::FromStr for Country {
    type Err = CountryError;
    fn from_str(text: &str) -> Result<Self, CountryError> {
        Self::parse(text)
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole_and_sorted() {
        assert_eq!(ASSIGNED.len(), 249);
        assert!(ASSIGNED.is_sorted_by(|a, b| a < b), "binary search needs it");
        for country in EEA {
            assert_eq!(Country::parse(country.as_str()), Ok(country));
        }
        let mut distinct = EEA.to_vec();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 30);
    }

    #[test]
    fn only_assigned_codes_are_countries() {
        assert_eq!(Country::parse("se").unwrap().to_string(), "SE");
        for bad in ["", "S", "SWE", "UK", "EU", "XK", "EL", "ZZ", " SE", "s\u{e9}"] {
            assert_eq!(Country::parse(bad), Err(CountryError), "{bad:?}");
        }
        assert!(Country::parse("NO").unwrap().is_eea());
        for outside in ["CH", "GB", "US"] {
            assert!(!Country::parse(outside).unwrap().is_eea());
        }
    }

    #[test]
    fn it_is_its_code_in_json() {
        let json = serde_json::to_string(&Country::parse("nl").unwrap()).unwrap();
        assert_eq!(json, "\"NL\"");
        assert_eq!(serde_json::from_str::<Country>(&json).unwrap(), Country::parse("NL").unwrap());
        assert!(serde_json::from_str::<Country>("\"UK\"").is_err());
    }
}
