//! What is wrong with one root for one handler. Pure.
//!
//! The table and the positions are read one after the other while both change; so the newest event counts only as it was
//! before the position was read, and what was written lately is *late*, not missing. Invariant: a root whose wanted
//! events are all covered by a position or a mark is answered with nothing.

use std::time::Duration;

use super::RootKeys;
use crate::event::{Sequence, Timestamp};
use crate::storage::{Mark, MarkState, Standing};

/// The first event above a position that the handler wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Its sequence.
    pub sequence: Sequence,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Whether a position beyond the newest event was seen twice: the root may have got an event meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// It was looked at once.
    Unconfirmed,
    /// The newest event was read again after the position, and is still before it.
    Confirmed,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Wanted events are not covered and were written long ago.
    Missing(Open),
    /// Wanted events are not covered, and the relay may still be at them.
    Late(Open),
    /// The position is beyond the newest event.
    Ahead {
        /// The position.
        position: Sequence,
    },
    /// The root is parked or deferred: known, and in nobody's way.
    Marked(Mark),
    /// The root carries a mark that says nothing of why.
    Unexplained(Mark),
    /// The table lacks a sequence between two others, and the handler has not passed it.
    Hole,
    /// An event appeared in a hole that the handler has passed, and its root is not parked for that.
    Filled,
}

impl Finding {
    /// Whether somebody must do something about it.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Late(_) | Self::Marked(_))
    }
}

/// The holes that a handler was made to pass, as the table has them now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassedHoles {
    /// Sequences in them that are missing still.
    pub missing: u64,
    /// An event that the handler wants has appeared in one.
    pub filled: bool,
}

/// What is known of a root for a handler.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// Its keys in the table.
    pub keys: &'a RootKeys,
    /// Its position and mark.
    pub standing: &'a Standing,
    /// The first event above the position that the handler wants; none when there is none.
    pub open: Option<Open>,
    /// Of a position beyond the newest event.
    pub ahead: Ahead,
    /// What became of the holes that were passed.
    pub holes: PassedHoles,
    /// The time.
    pub now: Timestamp,
    /// What is older is missing, not late.
    pub late_after: Duration,
}

/// What is wrong with a root for a handler; nothing mostly.
#[must_use]
pub fn judge(root: Judged<'_>) -> Option<Finding> {
    if let Some(mark) = &root.standing.mark {
        let unexplained = mark.state == MarkState::Parked && mark.reason.is_empty();
        return Some(if unexplained { Finding::Unexplained(mark.clone()) } else { Finding::Marked(mark.clone()) });
    }
    if let Some(position) = root.standing.position.filter(|position| *position > root.keys.last) {
        return (root.ahead == Ahead::Confirmed).then_some(Finding::Ahead { position });
    }
    if let Some(open) = root.open {
        let missing = root.now.since(open.created_at) > root.late_after;
        return Some(if missing { Finding::Missing(open) } else { Finding::Late(open) });
    }
    if root.holes.filled {
        return Some(Finding::Filled);
    }
    (root.keys.missing() > root.holes.missing).then_some(Finding::Hole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Root;

    const MINUTE: Duration = Duration::from_mins(1);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_unix_millis(minutes * 60_000)
    }

    fn keys(first: u64, last: u64, count: u64) -> RootKeys {
        RootKeys { root: Root::new("d", "", "r").unwrap(), first: Sequence(first), last: Sequence(last), count }
    }

    fn found(
        keys: &RootKeys,
        position: Option<u64>,
        mark: Option<Mark>,
        open: Option<Open>,
        ahead: Ahead,
    ) -> Option<Finding> {
        let standing = Standing { position: position.map(Sequence), mark, passed: None };
        let holes = PassedHoles::default();
        judge(Judged { keys, standing: &standing, open, ahead, holes, now: at(100), late_after: MINUTE * 5 })
    }

    #[test]
    fn what_is_covered_is_right() {
        assert_eq!(found(&keys(0, 9, 10), Some(9), None, None, Ahead::Unconfirmed), None);
        assert_eq!(found(&keys(0, 9, 10), None, None, None, Ahead::Unconfirmed), None, "it wants none of them");
    }

    #[test]
    fn what_is_not_covered_is_missing_or_late_by_its_age() {
        let open = |minutes| Some(Open { sequence: Sequence(8), created_at: at(minutes) });
        let missing = found(&keys(0, 9, 10), Some(7), None, open(10), Ahead::Unconfirmed).unwrap();
        assert_eq!(missing, Finding::Missing(open(10).unwrap()));
        let late = found(&keys(0, 9, 10), Some(7), None, open(99), Ahead::Unconfirmed).unwrap();
        assert_eq!(late, Finding::Late(open(99).unwrap()));
        assert!(missing.is_fault() && !late.is_fault());
    }

    #[test]
    fn a_position_beyond_the_newest_event_counts_when_it_is_confirmed() {
        assert_eq!(found(&keys(0, 9, 10), Some(10), None, None, Ahead::Unconfirmed), None);
        let ahead = found(&keys(0, 9, 10), Some(10), None, None, Ahead::Confirmed);
        assert_eq!(ahead, Some(Finding::Ahead { position: Sequence(10) }));
    }

    #[test]
    fn a_mark_covers_its_root_and_must_say_why() {
        let mark = |state, reason| Mark::new(state, Sequence(3), 1, reason, at(0));
        let open = Some(Open { sequence: Sequence(3), created_at: at(0) });
        for (state, reason, fault) in
            [(MarkState::Parked, "refused", false), (MarkState::Parked, "", true), (MarkState::Deferred, "", false)]
        {
            let found = found(&keys(0, 9, 10), Some(2), Some(mark(state, reason)), open, Ahead::Unconfirmed).unwrap();
            assert_eq!(found.is_fault(), fault, "{state:?} {reason}");
        }
    }

    #[test]
    fn a_table_that_lacks_a_sequence_is_told() {
        assert_eq!(found(&keys(0, 9, 9), Some(9), None, None, Ahead::Unconfirmed), Some(Finding::Hole));
        assert_eq!(found(&keys(5, 9, 5), Some(9), None, None, Ahead::Unconfirmed), None, "a diverged edition");
    }

    #[test]
    fn a_hole_that_was_passed_is_right_until_it_fills() {
        let standing = Standing { position: Some(Sequence(9)), ..Standing::default() };
        let found = |count, missing, filled| {
            let (keys, holes) = (keys(0, 9, count), PassedHoles { missing, filled });
            let (open, ahead, now, late_after) = (None, Ahead::Unconfirmed, at(100), MINUTE * 5);
            judge(Judged { keys: &keys, standing: &standing, open, ahead, holes, now, late_after })
        };
        assert_eq!(found(8, 2, false), None);
        assert_eq!(found(7, 2, false), Some(Finding::Hole), "there is another one");
        assert_eq!(found(9, 1, true), Some(Finding::Filled));
        assert_eq!(found(9, 1, false), None, "it filled with what the handler does not want");
        assert_eq!(found(8, 1, false), Some(Finding::Hole), "it filled, and there is another one");
        assert!(Finding::Filled.is_fault());
    }
}
