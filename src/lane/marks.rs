//! Marked roots: parked or deferred ones, and how they go on.
//!
//! A mark is written together with what the root has covered; from then on the root's rows are let go, hold no
//! checkpoint and cost no memory: they are in the table. A deferred root is *worked off*: it is read from the table,
//! delivered in order up to the end, and only then is its mark taken away. Invariant: from the beginning of that work
//! new rows pin their pages as usual, so what the last read did not show holds the checkpoint.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Lanes;
use super::course::{Course, Durable, KnownMark, Phase, Why, Work};
use super::courses::Slot;
use super::lanes::Effect;
use crate::event::{Root, Sequence, Timestamp};
use crate::storage::{Ending, Mark, MarkState, Marking, Pass, Skip, Standing, StorageError};
use crate::stream::{Branch, LaneId};

/// Changes of marks under way at once.
const MARKS_IN_FLIGHT_MAX: usize = 8;

/// So many events of a root that was ordered back are given before it is noted how far it has come. A saga's are noted
/// one batch at a time.
const REWOUND_EVENTS_MAX: u64 = 500;

/// The wait before a change of a mark that failed is made again.
const MARK_RETRY: Duration = Duration::from_millis(500);

/// The key of all lines about roots that are deferred.
const DEFERRALS: &str = "deferrals";

/// The key of all lines about roots that are back in their course.
const RETURNS: &str = "returns";

/// A change to make in the tables; answered by [`Lanes::marked`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkOrder {
    /// Mark a root that stands like this; whoever carries it out sets the mark's time.
    Mark {
        /// The root.
        root: Root,
        /// What it has covered, and the mark it carries.
        standing: Standing,
        /// The mark.
        mark: Mark,
    },
    /// Take a root's mark away.
    Unmark {
        /// The root.
        root: Root,
        /// The mark it carries.
        mark: Mark,
    },
    /// The root was looked at once more: take away what is left of its mark.
    Forget {
        /// The root.
        root: Root,
        /// What is left.
        ending: Ending,
    },
    /// Take the position and the mark of a root away, if the table has no row of it any more.
    Purge {
        /// The root.
        root: Root,
        /// The lane that showed a removal.
        lane: LaneId,
        /// Its page.
        page: u64,
    },
    /// Pass a hole of a root that stands like this.
    Pass {
        /// The root.
        root: Root,
        /// What it has covered, its mark and the holes it has passed.
        standing: Standing,
        /// The hole.
        pass: Pass,
    },
    /// Record that an event is passed.
    Skip {
        /// The root.
        root: Root,
        /// The event.
        skip: Skip,
    },
}

impl MarkOrder {
    /// The root it is about.
    #[must_use]
    pub fn root(&self) -> &Root {
        match self {
            Self::Mark { root, .. }
            | Self::Unmark { root, .. }
            | Self::Forget { root, .. }
            | Self::Purge { root, .. }
            | Self::Pass { root, .. }
            | Self::Skip { root, .. } => root,
        }
    }
}

impl Lanes {
    /// Stops a root until an operator releases it.
    pub(crate) fn park(&mut self, slot: Slot, reason: &str, now: Instant) {
        self.mark(slot, MarkState::Parked, reason, now);
    }

    /// Marks a root that is tried again at `retry_at`, so that it holds no checkpoint meanwhile.
    pub(crate) fn defer(&mut self, slot: Slot, reason: &str, retry_at: Instant, now: Instant) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        // What it carries stands for it, unless that would give again what was given since.
        let stands = |mark: &Mark| !mark.rewound || mark.sequence == course.sequencer.next();
        let deferred = course.mark.as_deref().is_some_and(|mark| mark.state == MarkState::Deferred && stands(mark));
        if let Some(active) = course.active.as_deref_mut() {
            active.retry_at = Some(retry_at);
        }
        if deferred {
            // The mark it carries still stands for it; it is not written at every attempt.
            self.stand_still(slot, MarkState::Deferred, now);
        } else {
            self.mark(slot, MarkState::Deferred, reason, now);
        }
    }

    /// Writes how far a root that was ordered back has come, now and then: what a crash repeats is bounded. True when it
    /// is written now, and the root goes on after that.
    pub(crate) fn note_rewound(&mut self, slot: Slot, now: Instant) -> bool {
        let events_max = if self.settings.flush_interval.is_zero() { 1 } else { REWOUND_EVENTS_MAX };
        let due = self.courses.get(slot).is_some_and(|course| {
            let Some(mark) = course.mark.as_deref().filter(|mark| mark.rewound) else { return false };
            // Past its position it is a deferred root like any other, and must not be taken for one that is ordered back.
            !course.is_rewound() || course.sequencer.next().0.saturating_sub(mark.sequence.0) >= events_max
        });
        if due {
            let reason =
                self.courses.get(slot).and_then(|course| course.mark.as_deref()).map(|mark| mark.reason.clone());
            self.mark(slot, MarkState::Deferred, &reason.unwrap_or_default(), now);
        }
        due
    }

    fn mark(&mut self, slot: Slot, state: MarkState, reason: &str, now: Instant) {
        let Some(course) = self.courses.get(slot) else { return };
        self.mark_before(slot, (state, course.sequencer.next()), reason, now);
    }

    /// Parks a root before an event that is behind its position, perhaps.
    pub(crate) fn park_before(&mut self, slot: Slot, sequence: Sequence, reason: &str, now: Instant) {
        self.mark_before(slot, (MarkState::Parked, sequence), reason, now);
    }

    fn mark_before(&mut self, slot: Slot, (state, before): (MarkState, Sequence), reason: &str, now: Instant) {
        self.forget_queue(slot);
        let Some(course) = self.courses.get(slot) else { return };
        let failures = course.active.as_deref().map_or(0, |active| active.failures);
        let unset = Timestamp::from_unix_millis(0);
        let mark = Mark::new(state, before, failures, reason, unset);
        let mark = Mark { rewound: course.is_rewound(), branch: self.branch_of(course), ..mark };
        let (root, standing) = (course.root.clone(), course.standing());
        self.order(slot, MarkOrder::Mark { root, standing, mark }, now);
    }

    /// The branch on which a root was met: who has its lane goes on with it.
    fn branch_of(&self, course: &Course) -> Option<Branch> {
        let known = course.mark.as_deref().and_then(|mark| mark.branch.clone());
        let active = course.active.as_deref()?;
        let met = || active.pins.iter().find_map(|pin| self.by_id.get(&pin.lane)?.branch.clone());
        known.or_else(met).or_else(|| active.errand.as_ref()?.branch.clone())
    }

    /// Notes how far a deferred root has come.
    pub(crate) fn defer_here(&mut self, slot: Slot, reason: &str, now: Instant) {
        self.mark(slot, MarkState::Deferred, reason, now);
    }

    /// Passes an event that failed for good, once that is recorded.
    pub(crate) fn skip(&mut self, slot: Slot, sequence: Sequence, reason: &str, now: Instant) {
        let Some(course) = self.courses.get(slot) else { return };
        let attempts = course.active.as_deref().map_or(0, |active| active.failures);
        let (root, skip) = (course.root.clone(), Skip::new(sequence, attempts, reason));
        self.order(slot, MarkOrder::Skip { root, skip }, now);
    }

    /// At the end of the work on a marked root: its mark goes.
    pub(crate) fn unmark(&mut self, slot: Slot, now: Instant) {
        let Some(course) = self.courses.get(slot) else { return };
        let Some(mark) = course.mark.as_deref().map(|known| known.mark.clone()) else { return };
        self.order(slot, MarkOrder::Unmark { root: course.root.clone(), mark }, now);
    }

    pub(crate) fn order(&mut self, slot: Slot, order: MarkOrder, now: Instant) {
        self.enter(slot, Phase::Marking);
        self.mark_orders.push_back((now, order));
    }

    /// The next change of a mark to make.
    pub(crate) fn next_mark(&mut self, now: Instant) -> Option<Effect> {
        if self.draining || self.marks_in_flight >= MARKS_IN_FLIGHT_MAX {
            return None;
        }
        let due = self.mark_orders.iter().position(|(at, _)| *at <= now)?;
        let (_, order) = self.mark_orders.remove(due)?;
        self.marks_in_flight += 1;
        Some(Effect::Mark(order))
    }

    /// When the next change of a mark is to be made.
    pub(crate) fn next_mark_at(&self) -> Option<Instant> {
        let free = !self.draining && self.marks_in_flight < MARKS_IN_FLIGHT_MAX;
        self.mark_orders.iter().map(|(at, _)| *at).min().filter(|_| free)
    }

    /// Takes what became of a change of [`super::Effect::Mark`].
    pub fn marked(&mut self, order: MarkOrder, result: Result<Marking, StorageError>, now: Instant) {
        self.marks_in_flight = self.marks_in_flight.saturating_sub(1);
        let Some(slot) = self.courses.find(order.root()) else { return };
        self.touch(slot);
        if self.is_left(slot) && self.marked_leaving(slot, &result, &order, now) {
            return;
        }
        match (result, order) {
            (Err(_), order) => self.mark_orders.push_back((now + MARK_RETRY, order)),
            (Ok(marking), MarkOrder::Purge { root, lane, page }) => {
                self.looked_at(&root, (lane, page), marking == Marking::Done, now);
            }
            (Ok(_), MarkOrder::Forget { .. }) => self.forgotten(slot, now),
            // Somebody else changed the row: it says how the root stands.
            (Ok(Marking::Refused), order) => {
                if let MarkOrder::Unmark { root, mark } = order {
                    // Perhaps by this very order, whose reply was lost.
                    self.look_later(&root, mark.branch.clone(), Some(Ending::of(&mark)), now);
                }
                self.load_again(slot);
            }
            (Ok(Marking::Done), MarkOrder::Mark { standing, mark, .. }) => {
                self.stands(slot, standing.position, mark, now);
            }
            (Ok(Marking::Done), MarkOrder::Unmark { root, mark }) => {
                self.look_later(&root, mark.branch.clone(), Some(Ending::of(&mark)), now);
                if let Some(left_out) = self.log.admit(RETURNS, now) {
                    info!(handler = %self.handler, %root, left_out, "the root is back in its course");
                }
                let Some(course) = self.courses.get_mut(slot) else { return };
                course.mark = None;
                if let Some(active) = course.active.as_deref_mut() {
                    active.work = Work::None;
                }
                self.enter(slot, Phase::Open);
                self.evaluate(slot, now);
            }
            (Ok(Marking::Done), MarkOrder::Pass { standing, pass, .. }) => self.passed(slot, &standing, &pass, now),
            (Ok(Marking::Done), MarkOrder::Skip { root, skip }) => {
                self.counters.skipped(1);
                warn!(
                    handler = %self.handler, %root, sequence = %skip.sequence, reason = %skip.reason,
                    "the event was passed; it is recorded as skipped"
                );
                let Some(course) = self.courses.get_mut(slot) else { return };
                course.sequencer.cover(skip.sequence);
                if let Some(active) = course.active.as_deref_mut() {
                    (active.failures, active.failing_since) = (0, None);
                }
                self.drop_covered(slot);
                self.mark_dirty(slot, now);
                self.enter(slot, Phase::Open);
                self.evaluate(slot, now);
            }
        }
    }

    /// A change of a mark of a root that only lanes which close hold; true when nothing else follows from it.
    fn marked_leaving(
        &mut self,
        slot: Slot,
        result: &Result<Marking, StorageError>,
        order: &MarkOrder,
        now: Instant,
    ) -> bool {
        let again = result.is_err()
            && {
                let rewound = matches!(order, MarkOrder::Mark { standing, .. } if standing.mark.as_ref().is_some_and(|mark| mark.rewound));
                let purges = matches!(order, MarkOrder::Purge { lane, .. } if self.by_id.get(lane).is_some_and(|lane| !lane.is_closing()));
                rewound || purges
            };
        let known = matches!(result, Ok(Marking::Done)) || matches!((result, order), (Ok(_), MarkOrder::Purge { .. }));
        if again || known {
            return false;
        }
        // What the row says of the root is not known.
        if let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
            active.trust.stale = true;
        }
        self.enter(slot, Phase::Open);
        self.leave(slot, now);
        true
    }

    /// The mark is durable: the root stands still, and holds nothing.
    fn stands(&mut self, slot: Slot, covered: Option<Sequence>, mark: Mark, now: Instant) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        if let Some(covered) = covered {
            course.durable = Durable::At(covered);
        }
        let (state, sequence, attempts) = (mark.state, mark.sequence, mark.attempts);
        if state == MarkState::Parked {
            self.counters.parked(1);
            self.parked += 1;
            error!(
                handler = %self.handler, root = %course.root, %sequence, attempts, reason = %mark.reason,
                "the root is parked for this handler: nothing is lost; mend the cause, then `angzarr-relay parked release`"
            );
        } else if let Some(left_out) = self.log.admit(DEFERRALS, now) {
            info!(
                handler = %self.handler, root = %course.root, %sequence, attempts, reason = %mark.reason, left_out,
                "the root is deferred"
            );
        }
        course.mark = Some(Box::new(KnownMark { mark, as_of: now, looked_for: false }));
        if let Some(active) = course.active.as_deref_mut() {
            active.accepted = None;
        }
        self.stand_still(slot, state, now);
        let active = self.courses.get(slot).and_then(|course| course.active.as_deref());
        if state == MarkState::Parked && active.is_some_and(|active| active.filled.is_some()) {
            self.evaluate(slot, now);
        }
    }

    /// Lets go of everything a marked root holds: it is in the table, what came meanwhile, too.
    pub(crate) fn stand_still(&mut self, slot: Slot, state: MarkState, now: Instant) {
        self.forget_queue(slot);
        let Some(course) = self.courses.get_mut(slot) else { return };
        let branch = course.mark.as_deref().and_then(|mark| mark.branch.clone());
        let Some(active) = course.active.as_deref_mut() else { return };
        (active.seen, active.work) = (None, Work::None);
        let retry_at = active.retry_at;
        self.release_pins(slot, now);
        if state == MarkState::Parked || !self.works_off(branch.as_ref()) {
            self.enter(slot, Phase::Open);
            if !self.read_again_if_stale(slot) {
                self.settle_if_done(slot, now);
            }
        } else {
            self.wait(slot, Why::Retry, retry_at.unwrap_or(now).max(now));
        }
    }

    /// After its position was loaded: a parked root holds nothing, a deferred one is worked off where that is to be.
    pub(crate) fn begin_marked(&mut self, slot: Slot, now: Instant) {
        let mark = self.courses.get(slot).and_then(|course| course.mark.as_deref());
        let works_off = mark.is_some_and(|mark| self.works_off(mark.branch.as_ref()));
        match mark.map(|mark| mark.state) {
            None => {
                if let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
                    // The table is looked at anew for what was looked for.
                    let looked = std::mem::take(&mut active.work) != Work::None;
                    active.errand.iter_mut().for_each(|errand| errand.looks |= looked);
                }
            }
            Some(MarkState::Deferred) if works_off => self.work_off(slot),
            Some(MarkState::Deferred | MarkState::Parked) => {
                let active = self.courses.get(slot).and_then(|course| course.active.as_deref());
                let shown_by = active.and_then(|active| active.pins.iter().map(|pin| pin.lane).next());
                if shown_by.is_some() {
                    // It was read just now: where there is no room it is believed.
                    self.will_look(slot, shown_by, now);
                }
                self.forget_queue(slot);
                if let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
                    (active.seen, active.work) = (None, Work::None);
                }
                self.release_pins(slot, now);
            }
        }
    }

    /// Begins the work on a deferred root.
    pub(crate) fn work_off(&mut self, slot: Slot) {
        if let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
            (active.work, active.retry_at) = (Work::Begun, None);
        }
    }
}
