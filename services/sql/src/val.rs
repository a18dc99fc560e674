//! Bound arguments. A NULL keeps its type: PostgreSQL asks for it.

use uuid::Uuid;

/// One argument of a statement.
#[derive(Clone, PartialEq)]
pub enum Val {
    Text(Option<String>),
    I64(Option<i64>),
    Bytes(Option<Vec<u8>>),
    Uuid(Option<Uuid>),
    /// PostgreSQL only; elsewhere a batch travels as [`crate::Rows`].
    TextArray(Vec<Option<String>>),
    I64Array(Vec<Option<i64>>),
    BytesArray(Vec<Option<Vec<u8>>>),
    UuidArray(Vec<Option<Uuid>>),
}

// Arguments are personal data more often than not (I10).
impl std::fmt::Debug for Val {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Val(…)")
    }
}

macro_rules! from {
    ($($type:ty => $variant:ident, $convert:expr;)+) => {
        $(
            impl From<$type> for Val {
                fn from(value: $type) -> Self {
                    Self::$variant(Some($convert(value)))
                }
            }
            impl From<Option<$type>> for Val {
                fn from(value: Option<$type>) -> Self {
                    Self::$variant(value.map($convert))
                }
            }
        )+
    };
}

from! {
    String => Text, |v| v;
    &str => Text, |v: &str| v.to_owned();
    i64 => I64, |v| v;
    i32 => I64, i64::from;
    u32 => I64, i64::from;
    bool => I64, i64::from;
    Vec<u8> => Bytes, |v| v;
    &[u8] => Bytes, |v: &[u8]| v.to_vec();
    Uuid => Uuid, |v| v;
}
