//! Identifiers of a data subject: the only way in which the service knows a person.

use phonenumber::{
    Metadata,
    metadata::{DATABASE, Descriptor},
};

use crate::{country::Country, sealed::Sealed, text_enum};

/// What sort of name it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentifierKind {
    /// RFC 5321 address; the local part is folded too, since no large provider tells case apart.
    Email,
    /// E.164, with the leading plus.
    Phone,
    /// The processor's own user id; case-sensitive.
    UserId,
    /// An object id of a directory (Microsoft Entra): a UUID, lower case.
    DirectoryObjectId,
    /// The customer's own key for the person; case-sensitive.
    CustomerKey,
}

text_enum!(IdentifierKind,
    Email => "email",
    Phone => "phone",
    UserId => "user_id",
    DirectoryObjectId => "directory_object_id",
    CustomerKey => "customer_key",
);

/// Why a text is not an identifier. It never repeats the text (I10): callers name the field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentifierError {
    /// Nothing is left of it, or what is left names nobody (the nil UUID).
    #[error("is empty")]
    Empty,
    #[error("must be at most {0} bytes long")]
    TooLong(usize),
    #[error("must not hold control characters, or in an email address blanks or invisible ones")]
    Character,
    #[error("must be an email address, such as name@example.com")]
    Email,
    #[error("must be a phone number in international form, such as +46701234567")]
    PhoneForm,
    #[error("must be a phone number that its country can have")]
    Phone,
    #[error("must be a UUID")]
    DirectoryObjectId,
}

/// RFC 5321 leaves this much for an address between the angle brackets.
const MAX_EMAIL: usize = 254;
const MAX_KEY: usize = 256;

/// A normalised identifier. [`Identifier::normalise`] makes one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Identifier {
    kind: IdentifierKind,
    value: Sealed<String>,
}

impl Identifier {
    /// The one form that an identifier is kept and compared in. Normalising twice changes nothing more.
    pub fn normalise(kind: IdentifierKind, raw: &str) -> Result<Self, IdentifierError> {
        let value = match kind {
            IdentifierKind::Email => email(raw)?,
            IdentifierKind::Phone => phone(raw, None)?,
            IdentifierKind::UserId | IdentifierKind::CustomerKey => key(raw)?,
            IdentifierKind::DirectoryObjectId => directory_object_id(raw)?,
        };
        Ok(Self::from_normalised(kind, value))
    }

    /// As [`Identifier::normalise`], of what stands in a system: a phone number by its digits, in international form, and often without the plus.
    pub fn normalise_held(kind: IdentifierKind, stored: &str) -> Result<Self, IdentifierError> {
        if kind != IdentifierKind::Phone {
            return Self::normalise(kind, stored);
        }
        let digits: String = stored.chars().filter(char::is_ascii_digit).collect();
        Self::normalise(kind, &format!("+{}", digits.strip_prefix("00").unwrap_or(&digits)))
    }

    /// As [`Identifier::normalise`], for a phone number that may be written as it is dialled inside `region`.
    pub fn normalise_phone(raw: &str, region: Option<Country>) -> Result<Self, IdentifierError> {
        Ok(Self::from_normalised(IdentifierKind::Phone, phone(raw, region)?))
    }

    /// Only for a value that [`Identifier::normalise`] made and that comes back from our own sealed store: nothing is
    /// checked, so that tightened rules never lock us out of what was taken in under the old ones.
    pub const fn from_normalised(kind: IdentifierKind, value: String) -> Self {
        Self { kind, value: Sealed::new(value) }
    }

    pub const fn kind(&self) -> IdentifierKind {
        self.kind
    }

    /// The normalised value. Personal data: never into a log or an error.
    pub const fn value(&self) -> &Sealed<String> {
        &self.value
    }

    /// The ASCII digits alone, for `match: digits`: of a phone number also with the trunk zero that people leave in it, as in `+31 (0)6 …`, where
    /// that cannot be another number. As much personal data as the value.
    pub fn digit_forms(&self) -> Vec<String> {
        let digits: String = self.value.expose().chars().filter(char::is_ascii_digit).collect();
        let with_trunk = if self.kind == IdentifierKind::Phone { with_trunk(&digits) } else { None };
        [digits].into_iter().filter(|digits| !digits.is_empty()).chain(with_trunk).collect()
    }
}

/// Marks that are pasted along unseen (from address books above all) and make two equal texts differ.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn email(raw: &str) -> Result<String, IdentifierError> {
    let trimmed = raw.trim();
    if trimmed.is_empty() {
        return Err(IdentifierError::Empty);
    }
    // Before and after folding, which can lengthen a text.
    if trimmed.len() > MAX_EMAIL {
        return Err(IdentifierError::TooLong(MAX_EMAIL));
    }
    let folded = trimmed.to_lowercase();
    if folded.len() > MAX_EMAIL {
        return Err(IdentifierError::TooLong(MAX_EMAIL));
    }
    if folded.chars().any(|c| c.is_control() || c.is_whitespace() || is_invisible(c)) {
        return Err(IdentifierError::Character);
    }
    let (local, domain) = folded.split_once('@').ok_or(IdentifierError::Email)?;
    // These need quoting in an address. Hardly anybody has such a one, but many paste `mailto:a@b`, `<a@b>` or `a@b,c@d`.
    let needs_quotes = |c: char| matches!(c, '<' | '>' | '(' | ')' | '[' | ']' | ',' | ';' | ':' | '\\' | '"' | '@');
    if local.is_empty() || local.contains(needs_quotes) || !domain.split('.').all(is_label) {
        return Err(IdentifierError::Email);
    }
    Ok(folded)
}

/// Letters, digits and inner hyphens; beyond ASCII (internationalised names) whatever is neither blank nor control.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || !c.is_ascii())
}

fn key(raw: &str) -> Result<String, IdentifierError> {
    let trimmed = raw.trim();
    if trimmed.is_empty() {
        return Err(IdentifierError::Empty);
    }
    if trimmed.len() > MAX_KEY {
        return Err(IdentifierError::TooLong(MAX_KEY));
    }
    if trimmed.chars().any(char::is_control) {
        return Err(IdentifierError::Character);
    }
    Ok(trimmed.to_owned())
}

fn directory_object_id(raw: &str) -> Result<String, IdentifierError> {
    let trimmed = raw.trim();
    if trimmed.is_empty() {
        return Err(IdentifierError::Empty);
    }
    let id = uuid::Uuid::try_parse(trimmed).map_err(|_| IdentifierError::DirectoryObjectId)?;
    // What a missing id looks like once a program has printed it: it must not match everybody who has none.
    if id.is_nil() { Err(IdentifierError::Empty) } else { Ok(id.hyphenated().to_string()) }
}

/// E.164. Numbering plans are those of the `phonenumber` crate, but its parser is not used: it takes trunk prefixes off
/// numbers that really begin so, and a wrong number here is somebody else's data.
fn phone(raw: &str, region: Option<Country>) -> Result<String, IdentifierError> {
    let mut dialled = String::new();
    for c in raw.chars() {
        match c {
            '0'..='9' => dialled.push(c),
            '+' | '\u{ff0b}' if dialled.is_empty() => dialled.push('+'),
            '-' | '.' | '/' | '(' | ')' | '\u{2010}'..='\u{2015}' => {}
            c if c.is_whitespace() || is_invisible(c) => {}
            _ => return Err(IdentifierError::PhoneForm),
        }
        // Longer than any number with its prefix; stops before the patterns are tried on a novel.
        if dialled.len() > 24 {
            return Err(IdentifierError::PhoneForm);
        }
    }
    if !dialled.contains(|c: char| c.is_ascii_digit()) {
        return Err(IdentifierError::Empty);
    }
    match (dialled.strip_prefix('+').or_else(|| dialled.strip_prefix("00")), region) {
        (Some(international), _) => plans(international)
            .and_then(|(plans, code, national)| Some(format!("+{code}{}", significant(&plans, national)?)))
            .ok_or(IdentifierError::Phone),
        (None, Some(region)) => {
            let plan = DATABASE.by_id(region.as_str()).ok_or(IdentifierError::Phone)?;
            let national = significant(&[plan], &dialled).ok_or(IdentifierError::Phone)?;
            Ok(format!("+{}{national}", plan.country_code()))
        }
        (None, None) => Err(IdentifierError::PhoneForm),
    }
}

/// The number without its trunk prefix, as in `+44 (0)20 7946 0018`.
fn significant<'a>(plans: &[&Metadata], national: &'a str) -> Option<&'a str> {
    // What fits as it stands is left alone: Italian numbers do begin with a zero.
    if plans.iter().any(|plan| fits(plan, national)) {
        return Some(national);
    }
    let without_trunk = plans.iter().find_map(|plan| {
        let rest = national.strip_prefix(plan.national_prefix()?)?;
        fits(plan, rest).then_some(rest)
    });
    // Plans grow faster than the crate is released: a new range of the right length is believed.
    let right_length = || {
        let length = u16::try_from(national.len()).ok()?;
        let possible = |plan: &&Metadata| ranges(plan).any(|range| range.possible_length().contains(&length));
        (!national.starts_with('0') && plans.iter().any(possible)).then_some(national)
    };
    without_trunk.or_else(right_length)
}

/// The digits of an international number with its country's trunk zero in them. `None` where none is dialled (Italy: the zero belongs to the
/// number) or where it would make another number.
fn with_trunk(digits: &str) -> Option<String> {
    let (plans, code, national) = plans(digits)?;
    let dialled = format!("0{national}");
    let trunk = plans.iter().any(|plan| plan.national_prefix() == Some("0"));
    let another = plans.iter().any(|plan| fits(plan, &dialled));
    (trunk && !another).then(|| format!("{code}{dialled}"))
}

/// The numbering plans of an international number, its country code, and the rest. Country codes are prefix-free: the first that exists is the one.
fn plans(international: &str) -> Option<(Vec<&'static Metadata>, &str, &str)> {
    // No country code does: `+0612345678` is a number of some country's own, and was taken for one of +61.
    if international.starts_with('0') {
        return None;
    }
    (1..=3)
        .filter_map(|length| international.split_at_checked(length))
        .find_map(|(code, national)| Some((DATABASE.by_code(&code.parse::<u16>().ok()?)?, code, national)))
}

/// The general description alone has no lengths, and matches beginnings.
fn fits(plan: &Metadata, number: &str) -> bool {
    plan.descriptors().general().is_match(number) && ranges(plan).any(|range| range.is_match(number))
}

/// Likeliest first: each costs a pattern.
fn ranges(plan: &Metadata) -> impl Iterator<Item = &Descriptor> {
    let of = plan.descriptors();
    [
        of.mobile(),
        of.fixed_line(),
        of.voip(),
        of.personal_number(),
        of.toll_free(),
        of.shared_cost(),
        of.premium_rate(),
        of.uan(),
        of.pager(),
        of.voicemail(),
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use IdentifierKind as Kind;

    fn normal(kind: Kind, raw: &str) -> Result<String, IdentifierError> {
        Identifier::normalise(kind, raw).map(|id| id.value().expose().clone())
    }

    #[test]
    fn email_addresses() {
        for (raw, expected) in [
            (" Mara.Lind@Example.COM\n", "mara.lind@example.com"),
            ("MARA+news@mail.example.co.uk", "mara+news@mail.example.co.uk"),
            ("o'brien@localhost", "o'brien@localhost"),
            ("ÅSA@BÜCHER.example", "åsa@bücher.example"),
            ("x@xn--bcher-kva.example", "x@xn--bcher-kva.example"),
        ] {
            assert_eq!(normal(Kind::Email, raw).as_deref(), Ok(expected), "{raw}");
        }
        use IdentifierError::{Character, Email, Empty, TooLong};
        for (raw, expected) in [
            ("", Empty),
            (" \t\u{a0}", Empty),
            ("mara", Email),
            ("@example.com", Email),
            ("mara@", Email),
            ("a@b@c", Email),
            ("mara@example..com", Email),
            ("mara@.com", Email),
            ("mara@example.com.", Email),
            ("mara@-example.com", Email),
            ("mara@example-.com", Email),
            ("mara@exa_mple.com", Email),
            ("mailto:mara@example.com", Email),
            ("<mara@example.com>", Email),
            ("a@example.com,b@example.com", Email),
            ("mara lind@example.com", Character),
            ("mara\0@example.com", Character),
            ("mara@exam\u{200b}ple.com", Character),
        ] {
            assert_eq!(normal(Kind::Email, raw), Err(expected), "{raw:?}");
        }
        let at_most = |local: usize| normal(Kind::Email, &format!("{}@example.com", "a".repeat(local)));
        assert!(at_most(242).is_ok());
        assert_eq!(at_most(243), Err(TooLong(254)));
        assert_eq!(normal(Kind::Email, &format!("a@{}.com", "b".repeat(64))), Err(Email));
        // 254 bytes that lower case makes longer.
        assert_eq!(normal(Kind::Email, &format!("{}@example.com", "Ⱥ".repeat(121))), Err(TooLong(254)));
    }

    #[test]
    fn phone_numbers() {
        for (raw, expected) in [
            ("+46 70-123 45 67", "+46701234567"),
            ("0046 (0)70 123 45 67", "+46701234567"),
            ("\u{202a}+46\u{a0}70\u{2011}1234567\u{202c}", "+46701234567"),
            ("+44 (0)20 7946 0018", "+442079460018"),
            ("+39 06 698 12345", "+390669812345"),
            ("+39 (0)6 698 12345", "+390669812345"),
            ("+1 (202) 555-0143", "+12025550143"),
            ("+7 812 123-45-67", "+78121234567"),
            ("+31 6 12345678", "+31612345678"),
        ] {
            assert_eq!(normal(Kind::Phone, raw).as_deref(), Ok(expected), "{raw}");
        }
        use IdentifierError::{Empty, Phone, PhoneForm};
        for (raw, expected) in [
            ("", Empty),
            ("+", Empty),
            (" - ", Empty),
            ("070-123 45 67", PhoneForm),
            ("tel:+46701234567", PhoneForm),
            ("+46 70 CALL", PhoneForm),
            ("+46701234567 ext. 3", PhoneForm),
            ("46+701234567", PhoneForm),
            ("+0612345678", Phone),
            ("+4670123456٧", PhoneForm),
            ("+46", Phone),
            ("+46 1234567890123", Phone),
            ("+4670", Phone),
            ("+999 123 456 789", Phone),
            ("+0", Phone),
            ("+46 701 234 567 890 1234", Phone),
            ("+461234567890123456789012345", PhoneForm),
        ] {
            assert_eq!(normal(Kind::Phone, raw), Err(expected), "{raw:?}");
        }
    }

    #[test]
    fn phone_numbers_as_systems_hold_them() {
        let held = |kind, stored: &str| Identifier::normalise_held(kind, stored).map(|i| i.value().expose().clone());
        for stored in ["31612345678", "+31 6 1234 5678", "0031-612345678", "+31 (0)6 12345678", "tel:31612345678"] {
            assert_eq!(held(Kind::Phone, stored), Ok("+31612345678".to_owned()), "{stored}");
        }
        assert_eq!(held(Kind::Phone, "0612345678"), Err(IdentifierError::Phone), "of which country nobody says");
        assert_eq!(held(Kind::Phone, "n/a"), Err(IdentifierError::Empty));
        assert_eq!(held(Kind::UserId, "0031"), Ok("0031".to_owned()));
    }

    #[test]
    fn phone_numbers_of_a_region() {
        let dialled = |raw: &str, region: &str| {
            let region = Country::parse(region).unwrap();
            Identifier::normalise_phone(raw, Some(region)).map(|id| id.value().expose().clone())
        };
        assert_eq!(dialled("070-123 45 67", "SE").as_deref(), Ok("+46701234567"));
        assert_eq!(dialled("06 12345678", "NL").as_deref(), Ok("+31612345678"));
        assert_eq!(dialled("06 6710 2001", "IT").as_deref(), Ok("+390667102001"));
        assert_eq!(dialled("(202) 555-0143", "US").as_deref(), Ok("+12025550143"));
        assert_eq!(dialled("+31 6 12345678", "SE").as_deref(), Ok("+31612345678"), "its own country wins");
        assert_eq!(dialled("12", "SE"), Err(IdentifierError::Phone));
        assert_eq!(dialled("12345678", "AQ"), Err(IdentifierError::Phone), "no numbering plan");
    }

    /// Every plan's own examples come through untouched: no trunk prefix is taken off a number that begins like one.
    #[test]
    fn every_countrys_numbers_stay_what_they_are() {
        let mut seen = 0;
        for plan in DATABASE.iter() {
            let kinds = plan.descriptors();
            for example in [kinds.mobile(), kinds.fixed_line(), kinds.voip(), kinds.personal_number()]
                .into_iter()
                .flatten()
                .filter_map(|kind| kind.example())
            {
                let number = format!("+{}{example}", plan.country_code());
                assert_eq!(normal(Kind::Phone, &number), Ok(number.clone()), "{}", plan.id());
                seen += 1;
            }
        }
        assert!(seen > 400, "{seen}");
    }

    #[test]
    fn ids_and_keys() {
        assert_eq!(normal(Kind::UserId, " User-7 ").as_deref(), Ok("User-7"));
        assert_eq!(normal(Kind::CustomerKey, "Åke/7 b").as_deref(), Ok("Åke/7 b"));
        assert_eq!(normal(Kind::UserId, " "), Err(IdentifierError::Empty));
        assert_eq!(normal(Kind::UserId, "a\u{7f}b"), Err(IdentifierError::Character));
        assert!(normal(Kind::UserId, &"a".repeat(256)).is_ok());
        assert_eq!(normal(Kind::UserId, &"a".repeat(257)), Err(IdentifierError::TooLong(256)));

        let id = "6f9619ff-8b86-d011-b42d-00c04fc964ff";
        for raw in [id.to_uppercase(), format!(" {{{id}}} "), id.replace('-', "")] {
            assert_eq!(normal(Kind::DirectoryObjectId, &raw).as_deref(), Ok(id), "{raw}");
        }
        assert_eq!(normal(Kind::DirectoryObjectId, "mara"), Err(IdentifierError::DirectoryObjectId));
        assert_eq!(normal(Kind::DirectoryObjectId, ""), Err(IdentifierError::Empty));
        assert_eq!(normal(Kind::DirectoryObjectId, &uuid::Uuid::nil().to_string()), Err(IdentifierError::Empty));
    }

    #[test]
    fn digits_alone() {
        let phone = Identifier::normalise(Kind::Phone, "+46 70-123 45 67").unwrap();
        assert_eq!(phone.digit_forms(), ["46701234567", "460701234567"]);
        let italian = Identifier::normalise(Kind::Phone, "+39 06 6710 2001").unwrap();
        assert_eq!(italian.digit_forms(), ["390667102001"]);
        let american = Identifier::normalise(Kind::Phone, "+1 202 555 0143").unwrap();
        assert_eq!(american.digit_forms(), ["12025550143"]);
        assert_eq!(Identifier::from_normalised(Kind::UserId, "a1-٧b2".to_owned()).digit_forms(), ["12"]);
        assert!(Identifier::from_normalised(Kind::UserId, "a".to_owned()).digit_forms().is_empty());
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        proptest::sample::select(Kind::ALL)
    }

    /// Anything at all, and what looks enough like an identifier to come far.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            r"[ ]?[A-Za-zÅİΣß.+]{1,8}@[A-Za-zÅİΣß-]{1,6}(\.[a-zA-Z]{1,3}){0,2}",
            r"(\+|00)[0-9]{1,3}[ (]?[0-9]{0,5}[-)]?[0-9]{0,12}",
            r"\PC{1,20}",
        ]
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing_more(kind in kinds(), raw in texts()) {
            if let Ok(once) = Identifier::normalise(kind, &raw) {
                prop_assert!(!once.value().expose().is_empty());
                prop_assert_eq!(Identifier::normalise(kind, once.value().expose()), Ok(once));
            }
        }

        #[test]
        fn phones_of_every_country_are_idempotent(code in 1_u16..1000, rest in "[0-9]{1,14}", region in 0_usize..249) {
            let region = Country::all().nth(region);
            for raw in [format!("+{code}{rest}"), rest] {
                if let Ok(once) = Identifier::normalise_phone(&raw, region) {
                    prop_assert_eq!(Identifier::normalise(Kind::Phone, once.value().expose()), Ok(once));
                }
            }
        }

        // The mark stands for the person: letters that no message of ours holds.
        #[test]
        fn the_value_is_never_shown(kind in kinds(), before in "[a-z+0-9]{0,5}", after in r"(@example\.com|[0-9]{0,9}|\PC{0,5})") {
            let raw = format!("{before}qzxqzx{after}");
            let shown = match Identifier::normalise(kind, &raw) {
                Ok(id) => format!("{id:?}"),
                Err(error) => format!("{error:?} {error}"),
            };
            prop_assert!(!shown.contains("qzx"), "{}", shown);
        }
    }
}
