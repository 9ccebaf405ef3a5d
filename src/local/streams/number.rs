//! Sequence numbers of virtual shards. Pure.
//!
//! A record's number is the upstream's times [`SPACING`], so that the same record has the same number after a restart,
//! and the points at which shards were cut lie between two records. Invariant: a number is written with 21 to 38 digits,
//! and order by (length, text) is order by value.

use std::fmt;

/// Numbers from one record to the next: so many changes of the shards fit between two records, less one.
pub(super) const SPACING: u128 = 1_000_000;

/// The longest number the service takes.
const DIGITS_MAX: usize = 40;
/// The shortest: shorter ones are padded.
const DIGITS_MIN: usize = 21;

/// A place in a stream: of a record, of a cut, or between.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Number(u128);

impl Number {
    /// Before everything.
    pub(super) const ZERO: Self = Self(0);
    /// Behind everything.
    pub(super) const MAX: Self = Self(u128::MAX);

    /// Reads what a client says; none when it is no number of 21 to 40 digits. What is larger than any number given out
    /// is the largest there is.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = (DIGITS_MIN..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| Self(text.parse().unwrap_or(u128::MAX)))
    }

    /// The number of the upstream's record `upstream`; none when it is no number, or one that is too large.
    pub(super) fn of_upstream(upstream: &str) -> Option<Self> {
        upstream.parse::<u128>().ok()?.checked_mul(SPACING).map(Self)
    }

    pub(super) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub(super) fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The first behind it that can be a record's.
    pub(super) fn next_record(self) -> Self {
        Self((self.0 / SPACING + 1).saturating_mul(SPACING))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:021}", self.0)
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::StreamSequence;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_number_is_not_read() {
        for wrong in ["", "1", "-00000000000000000000001", "00000000000000000000x", &"9".repeat(41)] {
            assert_eq!(Number::parse(wrong), None, "{wrong}");
        }
        assert!(Number::parse(&"9".repeat(40)) > Number::of_upstream("100000000000000000007"));
        for wrong in ["", "x", &"9".repeat(38)] {
            assert_eq!(Number::of_upstream(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn numbers_are_ordered_as_the_relay_orders_their_digits(one: u128, two: u128) {
            let [one, two] = [Number(one >> 1), Number(two >> 1)];
            let texts = [one, two].map(|number| StreamSequence::new(&number.to_string()));
            prop_assert_eq!(one.cmp(&two), texts[0].cmp(&texts[1]));
            prop_assert_eq!(Number::parse(&one.to_string()), Some(one));
        }

        #[test]
        fn there_is_room_for_cuts_between_two_records(upstream: u64) {
            let number = |upstream: u64| Number::of_upstream(&upstream.to_string()).unwrap();
            prop_assert_eq!(number(upstream).next_record(), number(upstream.saturating_add(1)).max(number(upstream).next_record()));
            prop_assert!(number(upstream).next() < number(upstream).next_record());
        }
    }
}
