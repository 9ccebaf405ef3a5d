//! Writing positions, coalesced, and checkpoints behind them.
//!
//! Only the newest position of a root is written, when the oldest unwritten one is `flush_interval` old or many wait.
//! A page's pin goes when the rows it stands for are covered durably; a checkpoint follows the watermark, paced, and
//! never leads it.

use std::time::Duration;

use tokio::time::Instant;

use super::Lanes;
use super::course::{Durable, Phase};
use super::courses::Slot;
use super::lanes::Effect;
use crate::event::Sequence;
use crate::relay_table::Checkpoint;
use crate::storage::{Advance, Advanced, StorageError};
use crate::stream::{LaneId, StreamPoint};

/// Positions in one flush.
const FLUSH_ROOTS_MAX: usize = 2500;

/// The wait before positions or checkpoints that could not be written are tried again.
const WRITE_RETRY: Duration = Duration::from_millis(500);

impl Lanes {
    /// Notes that a root's position is behind what it has covered.
    pub(crate) fn mark_dirty(&mut self, slot: Slot, now: Instant) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        let woken = course.active.is_none();
        let active = course.activate();
        let lanes = &self.by_id;
        let ends = |lane: LaneId| lanes.get(&lane).is_some_and(|lane| lane.ended || lane.is_closing());
        // At the end of a shard its children wait for the last positions, at a lane's its next owner, at a stop everybody.
        let waited_for = self.ending + self.closings.len() > 0;
        let at_once = self.draining || (waited_for && active.pins.iter().any(|pin| ends(pin.lane)));
        if !std::mem::replace(&mut active.dirty, true) {
            self.dirty.push(slot);
        }
        if woken {
            self.courses.count_active();
        }
        if !self.dirty.is_empty() {
            let flush_at = if at_once { now } else { now + self.settings.flush_interval };
            self.flush_at = Some(self.flush_at.map_or(flush_at, |at| at.min(flush_at)));
        }
    }

    /// Brings the next flush forward.
    pub(crate) fn flush_at_once(&mut self, now: Instant) {
        self.flush_at = (!self.dirty.is_empty()).then_some(now);
    }

    /// A position that could not be written waits apart from the others, so that these are not held up and it is not
    /// tried in haste.
    fn mark_unwritten(&mut self, slot: Slot, now: Instant) {
        let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) else { return };
        if !std::mem::replace(&mut active.dirty, true) {
            self.unwritten.push(slot);
            self.unwritten_at.get_or_insert(now + WRITE_RETRY);
        }
    }

    /// The next positions to write.
    pub(crate) fn next_flush(&mut self, now: Instant) -> Option<Vec<Advance>> {
        if !self.flush_in_flight && self.unwritten_at.is_some_and(|at| at <= now) {
            self.dirty.append(&mut self.unwritten);
            (self.unwritten_at, self.flush_at) = (None, Some(now));
        }
        // What was to be written may have been given up with its lane.
        self.flush_at = self.flush_at.filter(|_| !self.dirty.is_empty());
        let due = self.flush_at.is_some_and(|at| at <= now);
        if self.flush_in_flight || self.dirty.is_empty() || !(due || self.dirty.len() >= self.settings.flush_roots) {
            return None;
        }
        let count = self.dirty.len().min(FLUSH_ROOTS_MAX);
        let slots: Vec<Slot> = self.dirty.drain(..count).collect();
        self.flush_at = (!self.dirty.is_empty()).then_some(now);
        let mut advances = Vec::with_capacity(slots.len());
        for slot in slots {
            if let Some(advance) = self.advance(slot) {
                advances.push(advance);
            } else if let Some(durable) = self.courses.get(slot).and_then(|course| course.durable.known()) {
                // Somebody else wrote this position, or a later one, meanwhile.
                self.durable(slot, durable, now);
            } else {
                self.settle_if_done(slot, now);
            }
        }
        self.flush_in_flight = !advances.is_empty();
        self.flush_in_flight.then_some(advances)
    }

    fn advance(&mut self, slot: Slot) -> Option<Advance> {
        let course = self.courses.get_mut(slot)?;
        let active = course.active.as_deref_mut()?;
        active.dirty = false;
        if course.durable == Durable::Unknown {
            // It is asked how the root stands: what it had is not to be written over that.
            return None;
        }
        let to = course.sequencer.covered().filter(|to| course.durable.known().is_none_or(|durable| *to > durable))?;
        active.flushing = Some(to);
        course.filtered = 0;
        Some(Advance { root: course.root.clone(), from: course.durable.known(), to })
    }

    /// Takes what became of the positions of [`Effect::Flush`].
    pub fn flushed(&mut self, results: Vec<(Advance, Result<Advanced, StorageError>)>, now: Instant) {
        self.flush_in_flight = false;
        for (advance, result) in results {
            let Some(slot) = self.courses.find(&advance.root) else { continue };
            self.touch(slot);
            let Some(course) = self.courses.get_mut(slot) else { continue };
            let Some(active) = course.active.as_deref_mut() else {
                // The course that ordered it went with its lane: what is known of the root since is behind this.
                self.drop_course(slot);
                continue;
            };
            active.flushing = None;
            let durable = match result {
                Ok(Advanced::Written) => {
                    self.counters.written(1);
                    advance.to
                }
                // The same position: our own write, whose reply was lost.
                Ok(Advanced::Refused { durable }) if durable == advance.to => durable,
                Ok(Advanced::Refused { durable }) => {
                    self.counters.refused(1);
                    // Somebody else wrote it: with holes passed, perhaps, in which what was seen here may lie.
                    (active.trust.stale, active.let_go) = (true, true);
                    durable
                }
                Err(_) => {
                    self.mark_unwritten(slot, now);
                    continue;
                }
            };
            self.durable(slot, durable, now);
            self.read_again_if_stale(slot);
        }
    }

    /// Reads how a root stands once more, if somebody else has changed that and nothing is under way but the wait for the
    /// stream.
    pub(crate) fn read_again_if_stale(&mut self, slot: Slot) -> bool {
        let active = self.courses.get(slot).and_then(|course| course.active.as_deref());
        let rests = |phase: Phase| phase == Phase::Settling || phase.waits_for_the_stream();
        let stale =
            !self.draining && active.is_some_and(|active| active.trust.stale && !active.leaving && rests(active.phase));
        if stale {
            self.load_again(slot);
        }
        stale
    }

    pub(crate) fn durable(&mut self, slot: Slot, durable: Sequence, now: Instant) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        // What an operator has ordered again is given, whatever the position says.
        let rewound = course.is_rewound();
        course.durable = Durable::At(durable.max(course.durable.known().unwrap_or(durable)));
        if course.sequencer.next() <= durable && !rewound {
            course.sequencer.cover(durable);
        }
        if course.sequencer.covered() <= course.durable.known() {
            course.filtered = 0;
        }
        self.touch(slot);
        let Some(course) = self.courses.get_mut(slot) else { return };
        let Some(active) = course.active.as_deref_mut() else { return };
        if active.accepted.is_some_and(|accepted| accepted <= durable) {
            active.accepted = None;
        }
        let settles = active.phase == Phase::Settling && active.accepted.is_none();
        self.drop_covered(slot);
        if settles {
            self.enter(slot, Phase::Open);
            self.evaluate(slot, now);
        } else {
            self.release_pins(slot, now);
            self.settle_if_done(slot, now);
        }
    }

    /// Takes back the pins of what is covered.
    pub(crate) fn release_pins(&mut self, slot: Slot, now: Instant) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        let (settled, delivered) = (course.settled(), course.sequencer.next().previous());
        if course.durable == Durable::Unknown {
            return;
        }
        let Some(active) = course.active.as_deref_mut() else { return };
        let lanes = &mut self.by_id;
        let mut moved: Vec<LaneId> = Vec::new();
        active.pins.retain_mut(|pin| {
            let Some(lane) = lanes.get_mut(&pin.lane) else { return false };
            if !pin.delivered && delivered.is_some_and(|through| pin.last <= through) {
                pin.delivered = true;
                lane.watermark.delivered(pin.page);
            }
            let covered = settled.is_some_and(|through| pin.last <= through);
            if covered {
                lane.watermark.unpin(pin.page);
                moved.push(pin.lane);
            }
            !covered
        });
        for lane in moved {
            self.queue_checkpoint(lane, now);
        }
    }

    /// Takes back the pins of a root whose rows from the sequencer's next on no longer exist. What was accepted
    /// before stays pinned.
    pub(crate) fn abandon_pins(&mut self, slot: Slot, now: Instant) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        let Some(active) = course.active.as_deref_mut() else { return };
        if let Some(last) = course.sequencer.next().previous() {
            active.pins.iter_mut().for_each(|pin| pin.last = pin.last.min(last));
            self.release_pins(slot, now);
            return;
        }
        for pin in std::mem::take(&mut active.pins) {
            if let Some(lane) = self.by_id.get_mut(&pin.lane) {
                if !pin.delivered {
                    lane.watermark.delivered(pin.page);
                }
                lane.watermark.unpin(pin.page);
            }
            self.queue_checkpoint(pin.lane, now);
        }
    }

    /// Plans a checkpoint for a lane that has moved: at once at the end of its shard and when draining, else paced.
    pub(crate) fn queue_checkpoint(&mut self, id: LaneId, now: Instant) {
        // Of a lane that closes only the last one is written, when it owes nothing.
        let Some(lane) = self.by_id.get_mut(&id).filter(|lane| !lane.is_closing()) else { return };
        let finished = lane.ended && lane.watermark.is_settled();
        let moved = *lane.watermark.settled() > lane.saved || finished;
        if !moved || lane.saving {
            return;
        }
        if finished || self.draining {
            if lane.queued {
                self.checkpoints.retain(|(_, queued)| *queued != id);
            }
            self.checkpoints.push_front((now, id));
        } else if !lane.queued {
            self.checkpoints.push_back((now + self.settings.checkpoint_interval, id));
        }
        lane.queued = true;
    }

    pub(crate) fn next_checkpoint(&mut self, now: Instant) -> Option<Effect> {
        // When draining, the last positions come first: their pins may move the watermark once more.
        if self.draining
            && (self.flush_in_flight
                || !self.dirty.is_empty()
                || !self.unwritten.is_empty()
                || self.groups_in_flight > 0)
        {
            return None;
        }
        while let Some((at, id)) = self.checkpoints.front().copied() {
            if at > now {
                return None;
            }
            self.checkpoints.pop_front();
            let Some(lane) = self.by_id.get_mut(&id) else { continue };
            lane.queued = false;
            let closing = lane.is_closing();
            if closing && !self.has_left(id, now) {
                continue;
            }
            let Some(lane) = self.by_id.get_mut(&id) else { continue };
            let checkpoint = match lane.watermark.settled() {
                _ if lane.ended && lane.watermark.is_settled() => Checkpoint::Finished,
                StreamPoint::After(sequence) if *lane.watermark.settled() > lane.saved => {
                    Checkpoint::At(sequence.clone())
                }
                _ if closing => {
                    self.remove_lane(id, now);
                    self.closed.push((id, true));
                    continue;
                }
                _ => continue,
            };
            lane.saving = true;
            return Some(Effect::Checkpoint(id, checkpoint));
        }
        None
    }

    /// Takes what became of a checkpoint of [`Effect::Checkpoint`]; true when the lane is finished and gone.
    pub fn checkpointed(&mut self, id: LaneId, checkpoint: Checkpoint, saved: bool, now: Instant) -> bool {
        let Some(lane) = self.by_id.get_mut(&id) else { return false };
        lane.saving = false;
        match checkpoint {
            _ if !saved => {
                lane.queued = true;
                let at = now + WRITE_RETRY;
                let place = self.checkpoints.iter().position(|(other, _)| *other > at);
                self.checkpoints.insert(place.unwrap_or(self.checkpoints.len()), (at, id));
                return false;
            }
            Checkpoint::At(sequence) => {
                lane.saved = StreamPoint::After(sequence);
                lane.unsaved.saved(&lane.saved);
            }
            Checkpoint::Finished => {
                self.remove_lane(id, now);
                return true;
            }
        }
        self.queue_checkpoint(id, now);
        self.end_if_paid(id, now);
        false
    }
}
