//! Names of the countries that systems are mostly in: the European Economic Area and its usual neighbours and vendors.

use super::Language;

/// Code, English, Dutch; by code.
const NAMES: &[(&str, &str, &str)] = &[
    ("AD", "Andorra", "Andorra"),
    ("AR", "Argentina", "Argentini\u{eb}"),
    ("AT", "Austria", "Oostenrijk"),
    ("AU", "Australia", "Australi\u{eb}"),
    ("BE", "Belgium", "Belgi\u{eb}"),
    ("BG", "Bulgaria", "Bulgarije"),
    ("BR", "Brazil", "Brazili\u{eb}"),
    ("CA", "Canada", "Canada"),
    ("CH", "Switzerland", "Zwitserland"),
    ("CN", "China", "China"),
    ("CY", "Cyprus", "Cyprus"),
    ("CZ", "Czechia", "Tsjechi\u{eb}"),
    ("DE", "Germany", "Duitsland"),
    ("DK", "Denmark", "Denemarken"),
    ("EE", "Estonia", "Estland"),
    ("ES", "Spain", "Spanje"),
    ("FI", "Finland", "Finland"),
    ("FO", "Faroe Islands", "Faer\u{f6}er"),
    ("FR", "France", "Frankrijk"),
    ("GB", "United Kingdom", "Verenigd Koninkrijk"),
    ("GG", "Guernsey", "Guernsey"),
    ("GR", "Greece", "Griekenland"),
    ("HR", "Croatia", "Kroati\u{eb}"),
    ("HU", "Hungary", "Hongarije"),
    ("IE", "Ireland", "Ierland"),
    ("IL", "Israel", "Isra\u{eb}l"),
    ("IM", "Isle of Man", "Eiland Man"),
    ("IN", "India", "India"),
    ("IS", "Iceland", "IJsland"),
    ("IT", "Italy", "Itali\u{eb}"),
    ("JE", "Jersey", "Jersey"),
    ("JP", "Japan", "Japan"),
    ("KR", "South Korea", "Zuid-Korea"),
    ("LI", "Liechtenstein", "Liechtenstein"),
    ("LT", "Lithuania", "Litouwen"),
    ("LU", "Luxembourg", "Luxemburg"),
    ("LV", "Latvia", "Letland"),
    ("MT", "Malta", "Malta"),
    ("NL", "Netherlands", "Nederland"),
    ("NO", "Norway", "Noorwegen"),
    ("NZ", "New Zealand", "Nieuw-Zeeland"),
    ("PH", "Philippines", "Filipijnen"),
    ("PL", "Poland", "Polen"),
    ("PT", "Portugal", "Portugal"),
    ("RO", "Romania", "Roemeni\u{eb}"),
    ("RS", "Serbia", "Servi\u{eb}"),
    ("SE", "Sweden", "Zweden"),
    ("SG", "Singapore", "Singapore"),
    ("SI", "Slovenia", "Sloveni\u{eb}"),
    ("SK", "Slovakia", "Slowakije"),
    ("TR", "T\u{fc}rkiye", "Turkije"),
    ("UA", "Ukraine", "Oekra\u{ef}ne"),
    ("US", "United States", "Verenigde Staten"),
    ("UY", "Uruguay", "Uruguay"),
    ("ZA", "South Africa", "Zuid-Afrika"),
];

pub fn name(code: &str, language: Language) -> Option<&'static str> {
    let at = NAMES.binary_search_by_key(&code, |(code, ..)| code).ok()?;
    let (_, english, dutch) = NAMES[at];
    Some(match language {
        Language::English => english,
        Language::Dutch => dutch,
    })
}
