//! The two text encodings that all formats share: standard base64 and plain decimals, each with exactly one spelling per value.

use base64::{Engine, engine::general_purpose::STANDARD};

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// RFC 4648 section 4. The engine demands the padding, refuses white space and refuses trailing bits that are not zero.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// An ASCII decimal without sign and without leading zeroes.
pub(crate) fn from_decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_spelling() {
        assert_eq!(from_decimal("0"), Some(0));
        assert_eq!(from_decimal("18446744073709551615"), Some(u64::MAX));
        for bad in ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "0x1", "18446744073709551616", "١"] {
            assert_eq!(from_decimal(bad), None, "{bad}");
        }
        assert_eq!(from_base64("QQ==").as_deref(), Some(&b"A"[..]));
        for bad in ["QQ", "QQ=", "QR==", "QQ== ", "Q Q==", "QQ==\n", "QQ==QQ==", "Q-Q="] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }
}
