//! Holes of a root that its handler was made to pass (`on_hole = "pass"`), as its position row keeps them. Pure.
//!
//! An event that appears in one later was never given to the handler, though the position is behind it: it must not be
//! taken for a repeat. Invariants: the holes are in order and apart, and at most [`HOLES_MAX`].

use std::fmt;

use crate::event::Sequence;

/// Holes kept for one root; with more of them the root stops.
const HOLES_MAX: usize = 100;

/// Consecutive sequences that the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The first that is missing.
    pub first: Sequence,
    /// The last.
    pub last: Sequence,
}

impl fmt::Display for Hole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(formatter, "{}", self.first);
        }
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

/// The holes that were passed. Its text is that of the row: `2,5-9`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed(Vec<Hole>);

impl Passed {
    /// Reads the text of a row; none when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut passed = Self::default();
        for hole in text.split(',').filter(|hole| !hole.is_empty()) {
            let (first, last) = hole.split_once('-').unwrap_or((hole, hole));
            let hole = Hole { first: Sequence(first.parse().ok()?), last: Sequence(last.parse().ok()?) };
            if hole.first > hole.last {
                return None;
            }
            passed = passed.joined(hole);
        }
        Some(passed)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one was passed.
    #[must_use]
    pub fn contains(&self, sequence: Sequence) -> bool {
        self.0.iter().any(|hole| hole.first <= sequence && sequence <= hole.last)
    }

    /// The first hole that ends at or behind this one.
    #[must_use]
    pub fn from(&self, sequence: Sequence) -> Option<Hole> {
        self.0.iter().copied().find(|hole| sequence <= hole.last)
    }

    /// The holes, in order.
    pub fn holes(&self) -> impl Iterator<Item = Hole> {
        self.0.iter().copied()
    }

    /// How many sequences were passed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum, hole| (hole.last.0 - hole.first.0).saturating_add(1).saturating_add(sum))
    }

    /// With one more, those that it touches joined; none when there are too many.
    #[must_use]
    pub fn with(&self, hole: Hole) -> Option<Self> {
        Some(self.joined(hole)).filter(|passed| passed.0.len() <= HOLES_MAX)
    }

    fn joined(&self, hole: Hole) -> Self {
        let apart = |other: &Hole| other.last.next() < hole.first || hole.last.next() < other.first;
        let (mut holes, touched): (Vec<Hole>, Vec<Hole>) = self.0.iter().partition(|other| apart(other));
        let first = touched.iter().map(|other| other.first).fold(hole.first, Sequence::min);
        let last = touched.iter().map(|other| other.last).fold(hole.last, Sequence::max);
        let at = holes.partition_point(|other| other.first < first);
        holes.insert(at, Hole { first, last });
        Self(holes)
    }

    /// Only what lies before this one.
    #[must_use]
    pub fn before(&self, sequence: Sequence) -> Self {
        self.cut(|hole| (hole.first < sequence).then(|| Hole { last: below(sequence).min(hole.last), ..hole }))
    }

    /// Only what lies behind this one.
    fn behind(&self, sequence: Sequence) -> Self {
        self.cut(|hole| (hole.last > sequence).then(|| Hole { first: sequence.next().max(hole.first), ..hole }))
    }

    /// All but this one. A hole that it parts counts as two, and that may be one more than is taken: it can be read all the
    /// same.
    #[must_use]
    pub fn without(&self, sequence: Sequence) -> Self {
        let mut holes = self.before(sequence).0;
        holes.extend(self.behind(sequence).0);
        Self(holes)
    }

    fn cut(&self, rest: impl Fn(Hole) -> Option<Hole>) -> Self {
        Self(self.0.iter().copied().filter_map(rest).collect())
    }
}

fn below(sequence: Sequence) -> Sequence {
    sequence.previous().unwrap_or(Sequence::FIRST)
}

impl fmt::Display for Passed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, hole) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(formatter, "{comma}{hole}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passed(text: &str) -> Passed {
        Passed::parse(text).unwrap()
    }

    fn hole(first: u64, last: u64) -> Hole {
        Hole { first: Sequence(first), last: Sequence(last) }
    }

    #[test]
    fn holes_that_touch_are_one() {
        let all = passed("2,5-9");
        for (more, joined) in
            [((3, 3), "2-3,5-9"), ((3, 4), "2-9"), ((0, 0), "0,2,5-9"), ((11, 12), "2,5-9,11-12"), ((0, 20), "0-20")]
        {
            assert_eq!(all.with(hole(more.0, more.1)).unwrap().to_string(), joined);
        }
    }

    #[test]
    fn one_is_taken_out_and_the_rest_stays() {
        for (out, rest) in [(2, "5-9"), (5, "2,6-9"), (7, "2,5-6,8-9"), (9, "2,5-8"), (3, "2,5-9")] {
            assert_eq!(passed("2,5-9").without(Sequence(out)).to_string(), rest);
        }
        assert_eq!(passed("2,5-9").before(Sequence(7)).to_string(), "2,5-6");
        assert!(passed("2,5-9").before(Sequence(0)).is_empty());
    }

    #[test]
    fn they_are_counted() {
        for (text, count) in [("", 0), ("2", 1), ("2,5-9", 6), ("0-18446744073709551615", u64::MAX)] {
            assert_eq!(passed(text).count(), count, "{text}");
        }
    }

    #[test]
    fn there_are_not_too_many() {
        let mut all = Passed::default();
        for at in 0..100 {
            all = all.with(hole(at * 2, at * 2)).unwrap();
        }
        assert_eq!(all.with(hole(1000, 1001)), None);
        assert!(all.with(hole(1, 1)).is_some(), "joined they are fewer");
        let parted = all.with(hole(0, 2)).unwrap().with(hole(1000, 1000)).unwrap().without(Sequence(1));
        assert_eq!(Passed::parse(&parted.to_string()), Some(parted), "what was written can be read");
    }

    #[test]
    fn what_is_no_list_of_holes_is_told() {
        for text in ["a", "1-", "-2", "3-2", "1;2", "18446744073709551616"] {
            assert_eq!(Passed::parse(text), None, "{text}");
        }
        assert_eq!(passed(""), Passed::default());
        assert!(passed("18446744073709551615").contains(Sequence(u64::MAX)));
    }

    proptest! {
        #[test]
        fn they_are_a_set(
            holes in proptest::collection::vec((0u64..60, 0u64..6), 0..20),
            out in proptest::collection::vec(0u64..70, 0..10),
        ) {
            let (mut all, mut expected) = (Passed::default(), std::collections::BTreeSet::new());
            for (first, more) in holes {
                all = all.with(hole(first, first + more)).unwrap();
                expected.extend(first..=first + more);
            }
            for sequence in out {
                all = all.without(Sequence(sequence));
                expected.remove(&sequence);
            }
            for sequence in 0..70 {
                prop_assert_eq!(all.contains(Sequence(sequence)), expected.contains(&sequence));
            }
            prop_assert_eq!(all.count(), expected.len() as u64);
            prop_assert_eq!(Passed::parse(&all.to_string()), Some(all));
        }
    }
}
