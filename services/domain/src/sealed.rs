//! `Sealed<T>`: what must never reach a log, a metric, an error or a panic (I10).

use std::fmt;

use zeroize::Zeroize;

/// Holds personal data. It has no `Display`, its `Debug` says nothing, and the memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sealed<T: Zeroize>(T);

impl<T: Zeroize> Sealed<T> {
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The one way to the value: easy to find in a review.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Sealed<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}

impl From<String> for Sealed<String> {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_says_nothing() {
        assert_eq!(format!("{:?}", Sealed::new("mara@example.com".to_owned())), "Sealed(…)");
    }
}
