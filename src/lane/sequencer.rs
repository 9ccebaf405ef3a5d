//! The sequencer of one (handler, root): the only judge of order. Pure.
//!
//! It knows the next sequence the handler may be given, and whether the root has been *placed*: whether its base, the
//! first event that is the handler's, was found. Until then everything below `next` was looked at and lies before the
//! handler's start. Invariants: `next` never goes back, and moves past a sequence only when that one is covered:
//! accepted, left out by the subscription, before the start, or below a durable position.

use crate::event::Sequence;

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one.
    Deliver,
    /// It is covered already.
    Duplicate,
    /// Others come before it.
    Gap {
        /// The first that is missing.
        from: Sequence,
        /// The last that is missing.
        to: Sequence,
    },
}

/// The order of one root for one handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequencer {
    next: Sequence,
    placed: bool,
}

impl Sequencer {
    /// A root of which the positions table says this: its last durable sequence, or nothing.
    #[must_use]
    pub fn from_position(durable: Option<Sequence>) -> Self {
        Self { next: durable.map_or(Sequence::FIRST, Sequence::next), placed: durable.is_some() }
    }

    /// A root that is to be given again from `to` on, or from its base where that lies behind.
    #[must_use]
    pub fn ordered_back(to: Sequence) -> Self {
        Self { next: to, placed: false }
    }

    /// Judges an event by its sequence alone.
    #[must_use]
    pub fn judge(self, sequence: Sequence) -> Verdict {
        match sequence.cmp(&self.next) {
            std::cmp::Ordering::Less => Verdict::Duplicate,
            std::cmp::Ordering::Equal => Verdict::Deliver,
            std::cmp::Ordering::Greater => {
                Verdict::Gap { from: self.next, to: sequence.previous().unwrap_or(Sequence::FIRST) }
            }
        }
    }

    /// The next sequence to be covered.
    #[must_use]
    pub fn next(self) -> Sequence {
        self.next
    }

    /// Whether the root's base was found.
    #[must_use]
    pub fn is_placed(self) -> bool {
        self.placed
    }

    /// The last covered sequence of a placed root.
    #[must_use]
    pub fn covered(self) -> Option<Sequence> {
        if self.placed { self.next.previous() } else { None }
    }

    /// Everything up to and including `through` is covered.
    pub fn cover(&mut self, through: Sequence) {
        self.next = self.next.max(through.next());
        self.placed = true;
    }

    /// The next sequence is before the handler's start: it is passed, and the root stays unplaced.
    pub fn pass_before_start(&mut self) {
        self.next = self.next.next();
    }

    /// Nothing lies between the last one looked at and `base` (the table starts there).
    pub fn skip_to(&mut self, base: Sequence) {
        self.next = self.next.max(base);
    }

    /// The next sequence is the root's base for the handler.
    pub fn place(&mut self) {
        self.placed = true;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn judges_exhaustively_around_the_position() {
        for durable in [None, Some(0), Some(1), Some(5)] {
            let sequencer = Sequencer::from_position(durable.map(Sequence));
            let next = durable.map_or(0, |durable| durable + 1);
            assert_eq!(sequencer.is_placed(), durable.is_some());
            for sequence in 0..10 {
                let expected = match sequence {
                    _ if sequence < next => Verdict::Duplicate,
                    _ if sequence == next => Verdict::Deliver,
                    _ => Verdict::Gap { from: Sequence(next), to: Sequence(sequence - 1) },
                };
                assert_eq!(sequencer.judge(Sequence(sequence)), expected, "{durable:?} {sequence}");
            }
        }
    }

    #[test]
    fn a_root_is_placed_behind_what_came_before_the_start() {
        let mut sequencer = Sequencer::from_position(None);
        sequencer.pass_before_start();
        sequencer.pass_before_start();
        assert_eq!((sequencer.next(), sequencer.covered(), sequencer.is_placed()), (Sequence(2), None, false));
        sequencer.place();
        assert_eq!(sequencer.covered(), Some(Sequence(1)));
        sequencer.cover(Sequence(2));
        assert_eq!(sequencer.judge(Sequence(2)), Verdict::Duplicate);
    }

    #[test]
    fn the_greatest_sequence_does_not_overflow() {
        let mut sequencer = Sequencer::from_position(Some(Sequence(u64::MAX - 1)));
        assert_eq!(sequencer.judge(Sequence(u64::MAX)), Verdict::Deliver);
        sequencer.cover(Sequence(u64::MAX));
        assert_eq!(sequencer.next(), Sequence(u64::MAX));
    }

    /// The plain model: every sequence that was covered, or looked at before the start, one by one.
    #[derive(Debug)]
    struct Plain {
        passed: BTreeSet<u64>,
        placed: bool,
    }

    impl Plain {
        fn next(&self) -> u64 {
            (0..=u64::MAX).find(|sequence| !self.passed.contains(sequence)).unwrap()
        }

        fn judge(&self, sequence: u64) -> Verdict {
            let missing: Vec<u64> = (0..sequence).filter(|before| !self.passed.contains(before)).collect();
            match (missing.first(), missing.last()) {
                _ if self.passed.contains(&sequence) => Verdict::Duplicate,
                (Some(from), Some(to)) => Verdict::Gap { from: Sequence(*from), to: Sequence(*to) },
                _ => Verdict::Deliver,
            }
        }
    }

    /// What may happen to a root.
    #[derive(Debug, Clone)]
    enum Step {
        Cover(u64),
        PassBeforeStart,
        SkipTo(u64),
        Place,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0_u64..25).prop_map(Step::Cover),
            Just(Step::PassBeforeStart),
            (0_u64..25).prop_map(Step::SkipTo),
            Just(Step::Place),
        ];
        proptest::collection::vec(step, 0..20)
    }

    /// Where a root begins, for both.
    fn begun(position: Option<u64>, back: bool) -> (Sequencer, Plain) {
        match (position, back) {
            (Some(to), true) => {
                (Sequencer::ordered_back(Sequence(to)), Plain { passed: (0..to).collect(), placed: false })
            }
            (position, _) => {
                let passed = position.map_or_else(BTreeSet::new, |position| (0..=position).collect());
                (Sequencer::from_position(position.map(Sequence)), Plain { passed, placed: position.is_some() })
            }
        }
    }

    proptest! {
        /// Against the plain model, whatever happens in whatever order.
        #[test]
        fn agrees_with_a_set_of_what_was_passed(position in proptest::option::of(0_u64..8), back: bool, steps in steps()) {
            let (mut sequencer, mut plain) = begun(position, back);
            for step in std::iter::once(None).chain(steps.into_iter().map(Some)) {
                let before = sequencer.next();
                match step {
                    Some(Step::Cover(through)) => {
                        sequencer.cover(Sequence(through));
                        plain.passed.extend(0..=through);
                        plain.placed = true;
                    }
                    Some(Step::PassBeforeStart) => {
                        sequencer.pass_before_start();
                        let next = plain.next();
                        plain.passed.insert(next);
                    }
                    Some(Step::SkipTo(base)) => {
                        sequencer.skip_to(Sequence(base));
                        plain.passed.extend(0..base);
                    }
                    Some(Step::Place) => {
                        sequencer.place();
                        plain.placed = true;
                    }
                    None => {}
                }
                prop_assert!(sequencer.next() >= before, "it went back");
                prop_assert_eq!(sequencer.next().0, plain.next());
                prop_assert_eq!(sequencer.is_placed(), plain.placed);
                let last = plain.passed.last().copied().filter(|_| plain.placed);
                prop_assert_eq!(sequencer.covered(), last.map(Sequence));
                for sequence in 0..30 {
                    prop_assert_eq!(sequencer.judge(Sequence(sequence)), plain.judge(sequence), "{}", sequence);
                }
            }
        }

        /// Events in any order, with repeats: delivering exactly on `Deliver` gives each once, in order, without a gap.
        #[test]
        fn deliveries_are_contiguous(start in proptest::option::of(0u64..5), arrivals in proptest::collection::vec(0u64..20, 0..200)) {
            let mut sequencer = Sequencer::from_position(start.map(Sequence));
            let mut expected = start.map_or(0, |start| start + 1);
            for sequence in arrivals {
                match sequencer.judge(Sequence(sequence)) {
                    Verdict::Deliver => {
                        prop_assert_eq!(sequence, expected);
                        sequencer.cover(Sequence(sequence));
                        expected += 1;
                    }
                    Verdict::Duplicate => prop_assert!(sequence < expected),
                    Verdict::Gap { from, to } => {
                        prop_assert_eq!((from.0, to.0), (expected, sequence - 1));
                    }
                }
            }
        }
    }
}
