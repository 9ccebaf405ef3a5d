//! The event's number within its root: contiguous, and the only source of order.

use std::fmt;

/// An event's number within its root, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The first sequence a root can have.
    pub const FIRST: Self = Self(0);

    /// The sequence after this one; the last number there is stays where it is.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The sequence before this one, or none for the first.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_the_first_to_the_last_number_there_is() {
        for (number, next, previous) in
            [(0, 1, None), (1, 2, Some(0)), (7, 8, Some(6)), (u64::MAX, u64::MAX, Some(u64::MAX - 1))]
        {
            let sequence = Sequence(number);
            assert_eq!((sequence.next(), sequence.previous()), (Sequence(next), previous.map(Sequence)));
            assert_eq!(sequence.to_string(), number.to_string());
        }
        assert_eq!(Sequence::FIRST, Sequence(0));
    }
}
