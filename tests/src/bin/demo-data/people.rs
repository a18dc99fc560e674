//! Ten thousand people who do not exist, the same ones in every run: what each of them had is known without asking the service.

/// How many there are.
pub const PEOPLE: u64 = 10_000;

/// The parts that the demonstration gives to single people; none of them is a leaver.
pub const ACCESS: u64 = 11;
pub const RECTIFIED: u64 = 12;
pub const RESTRICTED: u64 = 13;
/// Is a company's contact, has referred others, and has written to people who stay.
pub const ERASED: u64 = 20;

/// The city that was entered wrongly, and what it is corrected to.
pub const MISSPELT: (&str, &str) = ("Amstredam", "Amsterdam");

const FIRST_NAMES: &[&str] = &[
    "Sanne", "Daan", "Femke", "Bram", "Anouk", "Jeroen", "Lotte", "Thijs", "Fatima", "Mohammed", "Zoë", "Joris",
    "Yasmina", "Wout", "Marieke", "Ruben", "Elif", "Koen", "Noor", "Pieter", "Amélie", "Luc", "Ilse", "Stijn",
];
const LAST_NAMES: &[&str] = &[
    "de Vries",
    "Jansen",
    "Peeters",
    "van den Berg",
    "Maes",
    "Bakker",
    "Janssens",
    "Visser",
    "El Amrani",
    "Claes",
    "Smit",
    "Yılmaz",
    "Mulder",
    "Wouters",
    "Dubois",
    "van Dijk",
    "De Smet",
    "Hoekstra",
    "Lemmens",
    "Bos",
];
const STREETS: &[&str] = &[
    "Dorpsstraat",
    "Kerkstraat",
    "Molenweg",
    "Stationsstraat",
    "Beukenlaan",
    "Prins Hendrikkade",
    "Grote Markt",
    "Vaartstraat",
    "Tulpenplein",
    "Oude Gracht",
    "Leuvensesteenweg",
    "Wilhelminasingel",
];
const CITIES: &[(&str, &str)] = &[
    ("1012 JS", "Amsterdam"),
    ("3511 LX", "Utrecht"),
    ("2000", "Antwerpen"),
    ("9000", "Gent"),
    ("5211 AP", "'s-Hertogenbosch"),
    ("8911 BM", "Leeuwarden"),
    ("3000", "Leuven"),
    ("6211 GW", "Maastricht"),
    ("8000", "Brugge"),
    ("1811 GB", "Alkmaar"),
    ("2800", "Mechelen"),
    ("4331 LK", "Middelburg"),
];
const NOTES: &[&str] = &[
    "Graag bij de buren afgeven",
    "Cadeau: niet bellen voor zaterdag",
    "Deurbel is kapot, bel even",
    "Nabestelling van vorig jaar",
    "Liefst na 18 uur, ik werk overdag",
    "Is voor mijn dochter, papier graag blauw",
];
const ARTICLES: &[&str] = &["vulpen", "zakmes", "theepot", "fotolijst", "dienblad", "medaillon"];
const ENGRAVINGS: &[&str] =
    &["Voor altijd", "25 jaar getrouwd", "Mijn lieve oma", "Gefeliciteerd, meester", "Tot in Oostende"];
const LETTERS: &[&str] = &[
    "Dank voor de tip, het is prachtig geworden!",
    "Weet jij of ze ook in messing graveren?",
    "Ik heb de pen gisteren gekregen, jij de jouwe al?",
    "Zullen we samen bestellen? Dat scheelt porto.",
];
const OPINIONS: &[&str] =
    &["Mooi werk, snel geleverd.", "De letters zijn wat klein.", "Precies zoals ik het wilde.", "Doos was gedeukt."];
const BROWSERS: &[&str] = &["Firefox on Linux", "Safari on iPhone", "Chrome on Android", "Edge on Windows"];

/// A number that looks random and is the same every time (SplitMix64).
fn draw(n: u64, salt: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(salt.wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn pick<T: Copy>(list: &[T], n: u64, salt: u64) -> T {
    list[(draw(n, salt) % list.len() as u64) as usize]
}

/// Leaves in the bulk erasure: every tenth, a thousand in all.
pub fn is_leaver(n: u64) -> bool {
    n % 10 == 5
}

pub fn is_erased(n: u64) -> bool {
    n == ERASED || is_leaver(n)
}

pub fn id(n: u64) -> u64 {
    100_000 + n
}

pub fn user_id(n: u64) -> String {
    format!("U-{n:06}")
}

pub fn first_name(n: u64) -> &'static str {
    pick(FIRST_NAMES, n, 1)
}

pub fn last_name(n: u64) -> &'static str {
    pick(LAST_NAMES, n, 2)
}

pub fn full_name(n: u64) -> String {
    format!("{} {}", first_name(n), last_name(n))
}

/// In lower case, as Quittance normalises it.
pub fn email(n: u64) -> String {
    let plain = |name: &str| name.to_lowercase().replace(|c: char| !c.is_ascii_alphabetic(), "");
    format!("{}.{}.{n}@example.org", plain(first_name(n)), plain(last_name(n)))
}

/// As the person typed it.
pub fn typed_email(n: u64) -> String {
    if n.is_multiple_of(7) { email(n).replace("example.org", "Example.ORG") } else { email(n) }
}

pub fn phone(n: u64) -> String {
    format!("+316{:08}", draw(n, 3) % 100_000_000)
}

pub fn birth_date(n: u64) -> String {
    format!("{}-{:02}-{:02}", 1940 + draw(n, 4) % 66, 1 + draw(n, 5) % 12, 1 + draw(n, 6) % 28)
}

pub fn street(n: u64, salt: u64) -> String {
    format!("{} {}", pick(STREETS, n, salt), 1 + draw(n, salt + 100) % 180)
}

/// Post code and city.
pub fn city(n: u64, salt: u64) -> (&'static str, &'static str) {
    if n == RECTIFIED { ("1012 JS", MISSPELT.0) } else { pick(CITIES, n, salt) }
}

pub fn note(order: u64) -> &'static str {
    pick(NOTES, order, 7)
}

pub fn article(n: u64) -> &'static str {
    pick(ARTICLES, n, 8)
}

pub fn engraving(n: u64) -> String {
    format!("{} - {}", pick(ENGRAVINGS, n, 9), pick(FIRST_NAMES, n, 10))
}

pub fn letter(n: u64) -> &'static str {
    pick(LETTERS, n, 11)
}

pub fn opinion(n: u64) -> &'static str {
    pick(OPINIONS, n, 12)
}

pub fn browser(n: u64) -> &'static str {
    pick(BROWSERS, n, 13)
}

pub fn ip_address(n: u64) -> String {
    format!("203.0.113.{}", draw(n, 14) % 256)
}

/// Any number below `below`.
pub fn number(n: u64, salt: u64, below: u64) -> u64 {
    draw(n, salt) % below
}

/// Whom one writes to: the next person, and now and then one further away, so that two leavers have written to each other.
pub fn writes_to(n: u64) -> impl Iterator<Item = u64> {
    let far = (n % 4 == 1).then_some(n + 10);
    [Some(n + 1), far].into_iter().flatten().map(|to| to % PEOPLE)
}

/// Who brought this customer in.
pub fn referred_by(n: u64) -> Option<u64> {
    (n > 0 && n.is_multiple_of(3)).then(|| n - 1)
}

/// What the print shop keeps: the name of each file and what is in it.
pub fn files(n: u64) -> Vec<(&'static str, String)> {
    let (postcode, city) = city(n, 21);
    let label = format!("{}\n{}\n{postcode} {city}\n", full_name(n), street(n, 20));
    let mut files = vec![("label.txt", label)];
    if n.is_multiple_of(3) {
        files.push(("engraving.svg", format!("<svg><text>{}</text></svg>\n", engraving(n))));
    }
    files
}
