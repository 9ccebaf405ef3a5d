//! Holes that a handler is made to pass (`on_hole = "pass"`), and what appears in one later.
//!
//! A hole is kept on the position row before anything behind it is delivered. An event that appears in one was never
//! given to the handler, though its position is behind it: the root parks there, and `parked release` gives it with
//! what follows. Invariant: such an event is never taken for a repeat, and its page stays pinned until the mark stands.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{error, warn};

use super::course::{Phase, fills};
use super::courses::Slot;
use super::{Lanes, MarkOrder, OnHole, Repaired};
use crate::storage::{Hole, MarkState, Pass, Standing};
use crate::stream::{RunRow, row_sequence};

/// What is wrong with a root that has a hole.
const HOLE: &str = "the table has a hole: this sequence is missing though later ones exist";

/// ... and with one that has too many to pass.
const TOO_MANY: &str = "the table has a hole, and more of them were passed for this root than are kept";

/// Why a root is parked before an event that appeared in a hole.
const FILLED: &str = "the event appeared in a hole that was passed: `parked release` gives it, and what follows it again; `parked skip` leaves it out";

impl Lanes {
    /// The table holds events behind the hole, and none in it.
    pub(crate) fn meet_hole(&mut self, slot: Slot, hole: Hole, now: Instant) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        let Some(active) = course.active.as_deref_mut() else { return };
        let is_new = active.reported.replace(hole.first) != Some(hole.first);
        if is_new {
            self.counters.hole();
        }
        if self.settings.on_hole == OnHole::Park {
            if is_new {
                error!(
                    handler = %self.handler, root = %course.root, sequence = %hole.first,
                    "{HOLE}; the root is stopped for this handler"
                );
            }
            return self.stop(slot, HOLE, now);
        }
        let Some(passed) = course.passed.as_deref().cloned().unwrap_or_default().with(hole) else {
            return self.stop(slot, TOO_MANY, now);
        };
        let reason = format!("the table has a hole: {hole} missing though later ones exist");
        let (root, standing) = (course.root.clone(), course.standing());
        self.order(slot, MarkOrder::Pass { root, standing, pass: Pass { hole, passed, reason } }, now);
    }

    /// A hole is passed, durably.
    pub(crate) fn passed(&mut self, slot: Slot, standing: &Standing, pass: &Pass, now: Instant) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        warn!(
            handler = %self.handler, root = %course.root, hole = %pass.hole,
            "the table has a hole; it is passed and recorded, and the root parks should it fill"
        );
        course.passed = Some(Box::new(pass.passed.clone()));
        course.sequencer.cover(pass.hole.last);
        if let Some(active) = course.active.as_deref_mut() {
            active.hole = None;
            active.recheck = active.let_go.then_some(pass.hole.first);
        }
        self.enter(slot, Phase::Open);
        self.durable(slot, pass.position(standing.position), now);
        self.evaluate(slot, now);
    }

    /// Parks a root before the first event that appeared in a passed hole; false when there is none.
    pub(crate) fn park_filled(&mut self, slot: Slot, now: Instant) -> bool {
        let Some(course) = self.courses.get_mut(slot) else { return false };
        let Some(active) = course.active.as_deref_mut() else { return false };
        let Some(filled) = active.filled else { return false };
        let known = course.passed.as_deref().is_some_and(|passed| passed.contains(filled));
        let parked = course.mark.as_deref().filter(|mark| mark.state == MarkState::Parked);
        // Released, a parked root is given all from its mark on.
        if parked.is_some_and(|mark| mark.sequence <= filled) || !known {
            active.filled = None;
            return false;
        }
        self.park_before(slot, filled, FILLED, now);
        true
    }

    /// Looks at the passed holes of a root that has let rows go, or goes on after an operator's order: events may have
    /// appeared in them.
    pub(crate) fn recheck_holes(&mut self, slot: Slot) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        // What lies further on is met on the way there.
        let next = course.sequencer.next();
        let first = course.passed.as_deref().and_then(|passed| passed.holes().next()).map(|hole| hole.first);
        let deferred = course.mark.as_deref().is_some_and(|mark| mark.state == MarkState::Deferred);
        let Some(active) = course.active.as_deref_mut() else { return };
        active.recheck = first.filter(|first| *first < next && (active.let_go || deferred));
    }

    /// The rows of the hole that was looked at, or the first of them.
    pub(crate) fn rechecked(&mut self, slot: Slot, repaired: Repaired, now: Instant) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        let (passed, Some(active)) = (course.passed.as_deref(), course.active.as_deref_mut()) else { return };
        let Some(from) = active.recheck.take() else { return };
        let next = course.sequencer.next();
        let rows: Vec<RunRow> = repaired.rows.into_iter().map(|row| row.map(Arc::new)).collect();
        let filled = |row: &&RunRow| row_sequence(row) < next && fills(passed, row, &self.subscription);
        if let Some(row) = rows.iter().find(filled) {
            active.fill(row_sequence(row));
        } else {
            let read_to = match rows.last().filter(|_| !repaired.complete) {
                Some(row) => Some(row_sequence(row)),
                None => passed.and_then(|passed| passed.from(from)).map(|hole| hole.last),
            };
            let rest = passed.zip(read_to).and_then(|(passed, read_to)| {
                let rest = read_to.next();
                passed.from(rest).map(|hole| hole.first.max(rest)).filter(|from| *from < next)
            });
            active.recheck = rest;
        }
        self.enter(slot, Phase::Open);
        self.evaluate(slot, now);
    }
}
