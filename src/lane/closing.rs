//! Giving up one lane while the others go on.
//!
//! A lane that closes takes no more pages. Roots that no other lane holds, nor a deferral of another branch, *leave*: what
//! only waits is let go, what is with the handler is answered, what was accepted is written. What the lane still *owes*
//! then is counted by root; when it owes nothing its checkpoint is written, and it is gone. At the deadline what is owed is
//! not paid any more. Invariants: the pin of a row that was let go is never taken back, so no checkpoint passes it; after
//! its end nothing is begun or written for a lane; it ends once, as finished or as closed.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::Lanes;
use super::MarkOrder;
use super::course::{Course, Durable, Phase, Work};
use super::courses::Slot;
use super::lanes::Lane;
use super::preload::KnownPositions;
use crate::event::Sequence;
use crate::storage::MarkState;
use crate::stream::LaneId;

/// A lane that closes.
#[derive(Debug)]
pub(crate) struct Closing {
    deadline: Instant,
    /// Roots with something accepted and not durable, or with an answer to come.
    owed: BTreeMap<Slot, Owed>,
}

/// What is to happen to a root before its lane may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    /// What is under way comes to its answer.
    Answer,
    /// Its position is durable up to here: other lanes go on with it.
    Durable(Sequence),
}

impl Lanes {
    /// Gives a lane up, until the deadline at the latest. One that is not there any more is finished.
    pub fn close(&mut self, id: LaneId, deadline: Instant, now: Instant) {
        let Some(lane) = self.by_id.get_mut(&id) else { return };
        if lane.closes_by.replace(deadline).is_some() {
            return;
        }
        self.closings.insert(id, Closing { deadline, owed: BTreeMap::new() });
        self.removed.retain(|(_, of, _)| *of != id);
        self.forget_idle(now);
        for slot in self.courses.active_slots() {
            let Some(course) = self.courses.get(slot) else { continue };
            let pinned = course.active.as_deref().is_some_and(|active| active.pins.iter().any(|pin| pin.lane == id));
            let claimed = self.is_claimed(course);
            if claimed && !pinned {
                continue;
            }
            if let Some(closing) = self.closings.get_mut(&id) {
                closing.owed.insert(slot, Owed::Answer);
            }
            self.touch(slot);
            if !claimed {
                self.leave(slot, now);
            }
        }
        // What waits to be written for this lane does not wait for its interval.
        self.flush_at_once(now);
        self.settle_debts(now);
        self.end_if_paid(id, now);
    }

    /// Whether a root is held by a lane that goes on, or worked off for a branch that does.
    fn is_claimed(&self, course: &Course) -> bool {
        let Some(active) = course.active.as_deref() else { return false };
        let mark = course.mark.as_deref().filter(|mark| mark.state == MarkState::Deferred);
        active.pins.iter().any(|pin| self.by_id.get(&pin.lane).is_some_and(|lane| !lane.is_closing()))
            || mark.is_some_and(|mark| self.works_off(mark.branch.as_ref()))
            || active.errand.as_ref().is_some_and(|errand| self.works_off(errand.branch.as_ref()))
    }

    /// Whether a root is leaving, or does from now on: the lanes that held it are closing.
    pub(crate) fn is_left(&mut self, slot: Slot) -> bool {
        let Some(course) = self.courses.get(slot) else { return false };
        let Some(active) = course.active.as_deref() else { return false };
        if active.leaving || self.closings.is_empty() {
            return active.leaving;
        }
        let closes = |lane: LaneId| self.by_id.get(&lane).is_some_and(Lane::is_closing);
        let held = active.pins.iter().any(|pin| closes(pin.lane)) || course.mark.is_some();
        let left = held && !self.is_claimed(course);
        if left && let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
            active.leaving = true;
        }
        left
    }

    /// Lets go of a root as far as it can be now: called again whenever something of it has come to its end.
    pub(crate) fn leave(&mut self, slot: Slot, now: Instant) {
        self.forget_queue(slot);
        let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) else { return };
        active.leaving = true;
        let phase = active.phase;
        if phase == Phase::InFlight || (phase == Phase::Marking && !self.recall_order(slot)) {
            return;
        }
        if let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
            (active.seen, active.work, active.retry_at) = (None, Work::None, None);
            (active.failures, active.failing_since, active.singly) = (0, None, None);
        }
        let reads = matches!(phase, Phase::Loading | Phase::Repairing);
        if !reads {
            self.enter(slot, Phase::Open);
        }
        self.release_pins(slot, now);
        if !reads && self.note_rewound_place(slot, now) {
            return;
        }
        let Some(course) = self.courses.get(slot) else { return };
        let Some(active) = course.active.as_deref() else { return };
        let unwritten = active.accepted.is_some() || course.filtered > 0;
        let under_way = active.dirty || active.flushing.is_some();
        if unwritten && !under_way && course.durable != Durable::Unknown {
            self.mark_dirty(slot, now);
            self.flush_at_once(now);
        } else if !under_way && !reads {
            self.drop_course(slot);
        }
    }

    /// Takes back the change of a mark that is not begun yet; false when it is under way, or another lane's.
    fn recall_order(&mut self, slot: Slot) -> bool {
        let Some(course) = self.courses.get(slot) else { return true };
        let rewound = course.mark.as_deref().is_some_and(|mark| mark.rewound);
        let lanes = &self.by_id;
        let mine = |order: &MarkOrder| match order {
            MarkOrder::Purge { lane, .. } => lanes.get(lane).is_none_or(Lane::is_closing),
            // How far a root that was ordered back has come.
            MarkOrder::Mark { mark, .. } => !(rewound && mark.state == MarkState::Deferred),
            _ => true,
        };
        let at = self.mark_orders.iter().position(|(_, order)| *order.root() == course.root && mine(order));
        let recalled = at.and_then(|at| self.mark_orders.remove(at)).is_some();
        if recalled && let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
            // It may have been made before, with its reply lost: what the row says of the root is not known.
            active.trust.stale = true;
        }
        recalled
    }

    /// Writes how far a root that was ordered back has come: that is the place its next owner goes on from.
    fn note_rewound_place(&mut self, slot: Slot, now: Instant) -> bool {
        let Some(course) = self.courses.get(slot) else { return false };
        let stale = course.active.as_deref().is_some_and(|active| active.trust.stale);
        let mark = course.mark.as_deref().filter(|mark| mark.rewound && mark.state == MarkState::Deferred);
        let Some(mark) = mark.filter(|mark| mark.sequence < course.sequencer.next() && !stale) else { return false };
        let reason = mark.reason.clone();
        self.defer_here(slot, &reason, now);
        true
    }

    /// Forgets a course; what it has pinned stays pinned.
    pub(crate) fn drop_course(&mut self, slot: Slot) {
        self.enter(slot, Phase::Open);
        self.courses.remove(slot);
        self.known = KnownPositions::default();
        self.touch(slot);
    }

    /// Notes that something of a root has come to its end, which a lane that closes may wait for.
    pub(crate) fn touch(&mut self, slot: Slot) {
        if !self.closings.is_empty() {
            self.touched.push(slot);
        }
    }

    /// Looks at what the lanes that close still owe.
    pub(crate) fn settle_debts(&mut self, now: Instant) {
        if self.touched.is_empty() {
            return;
        }
        let touched = std::mem::take(&mut self.touched);
        for id in self.closings.keys().copied().collect::<Vec<_>>() {
            let Some(mut closing) = self.closings.remove(&id) else { continue };
            for slot in &touched {
                if let Some(owed) = closing.owed.remove(slot)
                    && let Some(owed) = self.still_owed(*slot, owed)
                {
                    closing.owed.insert(*slot, owed);
                }
            }
            self.closings.insert(id, closing);
            self.end_if_paid(id, now);
        }
    }

    fn still_owed(&self, slot: Slot, owed: Owed) -> Option<Owed> {
        let course = self.courses.get(slot)?;
        let active = course.active.as_deref()?;
        let unwritten = active.accepted.is_some() || active.dirty || active.flushing.is_some() || course.filtered > 0;
        if active.leaving {
            let reads = matches!(active.phase, Phase::Loading | Phase::Repairing);
            return (!reads || unwritten).then_some(Owed::Answer);
        }
        let durable = |through: Sequence| course.durable.known() >= Some(through);
        match owed {
            Owed::Answer if matches!(active.phase, Phase::InFlight | Phase::Marking) => Some(Owed::Answer),
            Owed::Answer => {
                course.sequencer.covered().filter(|through| unwritten && !durable(*through)).map(Owed::Durable)
            }
            Owed::Durable(through) => (unwritten && !durable(through)).then_some(owed),
        }
    }

    /// Plans the last checkpoint of a lane that owes nothing any more.
    pub(crate) fn end_if_paid(&mut self, id: LaneId, now: Instant) {
        let paid = self.closings.get(&id).is_some_and(|closing| closing.owed.is_empty());
        let Some(lane) = self.by_id.get_mut(&id).filter(|lane| paid && !lane.saving) else { return };
        if std::mem::replace(&mut lane.queued, true) {
            self.checkpoints.retain(|(_, queued)| *queued != id);
        }
        self.checkpoints.push_front((now, id));
    }

    /// Whether a lane that closes waits for something still.
    pub(crate) fn owes(&self, id: LaneId) -> bool {
        self.closings.get(&id).is_some_and(|closing| !closing.owed.is_empty())
    }

    /// When the first of the lanes that close is overdue.
    pub(crate) fn next_overdue_at(&self) -> Option<Instant> {
        self.closings.values().map(|closing| closing.deadline).min()
    }

    /// Whether the deadline of a lane that closes has passed: [`Lanes::end_overdue`] is to be called before anything else.
    #[must_use]
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.next_overdue_at().is_some_and(|deadline| deadline <= now)
    }

    /// Whether a lane whose deadline has passed waits for the handler: its calls are to be ended, then
    /// [`Lanes::deliveries_aborted`] is called.
    #[must_use]
    pub fn waits_for_deliveries(&self, now: Instant) -> bool {
        let in_flight = |slot: &Slot| {
            let active = self.courses.get(*slot).and_then(|course| course.active.as_deref());
            active.is_some_and(|active| active.phase == Phase::InFlight)
        };
        let overdue = self.closings.values().filter(|closing| closing.deadline <= now);
        overdue.flat_map(|closing| closing.owed.keys()).any(in_flight)
    }

    /// The calls under way were ended, and no answer to them will come: roots of lanes that go on are given again.
    pub fn deliveries_aborted(&mut self, now: Instant) {
        for slot in self.courses.active_slots() {
            let Some(active) = self.courses.get(slot).and_then(|course| course.active.as_deref()) else { continue };
            if active.phase != Phase::InFlight {
                continue;
            }
            let leaving = active.leaving;
            self.outage.not_asked(slot);
            if leaving {
                self.enter(slot, Phase::Open);
                self.leave(slot, now);
            } else {
                self.line_up(slot);
            }
        }
        (self.roots_in_flight, self.groups_in_flight) = (0, 0);
    }

    /// Ends the lanes whose deadline has passed: nothing more is written for them.
    pub fn end_overdue(&mut self, now: Instant) {
        let overdue = |closing: &Closing| closing.deadline <= now;
        let ids = self.closings.iter().filter(|(_, closing)| overdue(closing)).map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            self.end_unclean(id, now);
        }
        self.settle_debts(now);
    }

    /// Ends all lanes that close, whatever they wait for: everything stops.
    pub fn end_closing(&mut self, now: Instant) {
        for id in self.closings.keys().copied().collect::<Vec<_>>() {
            self.end_unclean(id, now);
        }
    }

    fn end_unclean(&mut self, id: LaneId, now: Instant) {
        let Some(closing) = self.closings.remove(&id) else { return };
        for slot in closing.owed.into_keys() {
            let Some(course) = self.courses.get_mut(slot) else { continue };
            let held = |lane: LaneId| lane != id && self.by_id.contains_key(&lane);
            let leaves =
                |active: &super::course::Active| active.leaving && !active.pins.iter().any(|pin| held(pin.lane));
            let Some(active) = course.active.as_deref_mut().filter(|active| leaves(active)) else { continue };
            (active.accepted, active.flushing, active.dirty) = (None, None, false);
            // Nothing is written of it any more: neither its position nor how far it has come.
            (course.filtered, active.trust.stale) = (0, true);
            let root = course.root.clone();
            self.dirty.retain(|dirty| *dirty != slot);
            self.unwritten.retain(|dirty| *dirty != slot);
            let orders = self.mark_orders.len();
            self.mark_orders.retain(|(_, order)| *order.root() != root);
            if self.mark_orders.len() < orders {
                self.enter(slot, Phase::Open);
            }
            self.leave(slot, now);
        }
        self.remove_lane(id, now);
        self.closed.push((id, false));
    }

    /// Whether a lane that closes is at its end; roots that were held by another lane until now may owe it something.
    pub(crate) fn has_left(&mut self, id: LaneId, now: Instant) -> bool {
        for slot in self.pinned_by(id) {
            if self.is_left(slot) {
                if let Some(closing) = self.closings.get_mut(&id) {
                    closing.owed.insert(slot, Owed::Answer);
                }
                self.touch(slot);
                self.leave(slot, now);
            }
        }
        self.settle_debts(now);
        !self.owes(id)
    }

    fn pinned_by(&self, id: LaneId) -> Vec<Slot> {
        let mut slots = self.courses.active_slots();
        slots.retain(|slot| {
            let active = self.courses.get(*slot).and_then(|course| course.active.as_deref());
            active.is_some_and(|active| active.pins.iter().any(|pin| pin.lane == id))
        });
        slots
    }

    /// A lane is at its end.
    pub(crate) fn remove_lane(&mut self, id: LaneId, now: Instant) {
        let left = if self.by_id.get(&id).is_some_and(Lane::is_closing) { self.pinned_by(id) } else { Vec::new() };
        let (left, others): (Vec<Slot>, Vec<Slot>) = left.into_iter().partition(|slot| self.is_left(*slot));
        for slot in left.iter().chain(&others) {
            if let Some(active) = self.courses.get_mut(*slot).and_then(|course| course.active.as_deref_mut()) {
                active.pins.retain(|pin| pin.lane != id);
            }
        }
        let Some(lane) = self.by_id.remove(&id) else { return };
        self.ending -= usize::from(lane.ended);
        self.closings.remove(&id);
        self.checkpoints.retain(|(_, queued)| *queued != id);
        for slot in left {
            self.leave(slot, now);
        }
        for slot in others {
            self.goes_on_without(slot);
        }
    }

    /// Other lanes go on with a root: what only the lane that is gone has shown is not theirs, and its next owner may deliver
    /// it.
    fn goes_on_without(&mut self, slot: Slot) {
        self.forget_queue(slot);
        let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) else { return };
        active.seen = active.pins.iter().map(|pin| pin.last).max();
        active.trust.stale = true;
        self.ask_again(slot, true);
    }

    /// The lanes that were closed since this was asked last, and whether cleanly.
    pub fn take_closed(&mut self) -> Vec<(LaneId, bool)> {
        std::mem::take(&mut self.closed)
    }
}
