//! What comes into the lanes: pages of the stream.

use tokio::time::Instant;

use super::Lanes;
use super::course::{Durable, KnownMark, Phase, Pin, Pinned, Why, fills};
use super::courses::Slot;
use super::preload::KnownPositions;
use crate::stream::{LaneId, Page, Run, RunRow, row_sequence};

/// One root may hold this part of the bound on queued bytes; what is beyond is fetched from the table when its turn
/// comes, so that one slow root never stops the others.
const ROOT_SHARE: usize = 4;

impl Lanes {
    /// Takes a page of a lane.
    pub fn accept_page(&mut self, lane: LaneId, page: &Page, now: Instant) {
        let Some(state) = self.by_id.get_mut(&lane).filter(|lane| !lane.is_closing()) else { return };
        if page.end && !std::mem::replace(&mut state.ended, true) {
            self.ending += 1;
        }
        if page.end || page.through > state.saved {
            state.unsaved.taken((!page.end).then_some(&page.through), now);
        }
        let number = state.watermark.begin(&page.through, page.oldest_at);
        self.counters.duplicates(page.ignored.repeated);
        for run in &page.runs {
            if self.subscription.covers(&run.root) {
                self.accept_run(lane, number, page.absent_at, run, now);
            }
        }
        self.take_removed(lane, number, &page.removed, now);
        if let Some(state) = self.by_id.get_mut(&lane) {
            state.watermark.delivered(number);
            state.watermark.unpin(number);
        }
        self.queue_checkpoint(lane, now);
        if page.end && !self.dirty.is_empty() {
            self.flush_at = Some(now);
        }
        let courses = self.courses.len();
        for slot in self.courses.sweep(self.settings.idle_roots_max) {
            self.mark_dirty(slot, now);
        }
        if self.courses.len() < courses {
            self.known = KnownPositions::default();
        }
    }

    /// Takes a root's rows on a page of a lane; none of them was there at `absent_at`.
    fn accept_run(&mut self, lane: LaneId, page: u64, absent_at: Option<Instant>, run: &Run, now: Instant) {
        let (slot, made) = self.courses.find_or_add(&run.root);
        let share = self.settings.queued_bytes_max / ROOT_SHARE;
        let disbelieved = self.meet(slot, lane, made, now);
        let Some(course) = self.courses.get_mut(slot) else { return };
        let next = course.sequencer.next();
        let known = course.durable != Durable::Unknown && !disbelieved;
        let filling =
            |row: &&RunRow| row_sequence(row) < next && fills(course.passed.as_deref(), row, &self.subscription);
        // Hardly a root has any: the others' rows are not looked through.
        let may_fill = known && course.passed.is_some();
        let filled = if may_fill { run.rows.iter().find(filling).map(row_sequence) } else { None };
        if known
            && filled.is_none()
            && run.last() < next
            && course.settled().is_some_and(|settled| settled >= run.last())
        {
            course.referenced = true;
            self.counters.duplicates(run.rows.len() as u64);
            return;
        }
        let ttl = self.settings.mark_ttl;
        let is_old = |mark: &KnownMark| mark.as_of + ttl <= now;
        let (marked, old) = (known && course.is_marked(), course.mark.as_deref().is_some_and(is_old));
        let faded = marked && (old || !self.will_look(slot, Some(lane), now));
        let marked = marked && !faded;
        let Some(course) = self.courses.get_mut(slot) else { return };
        if marked {
            course.referenced = true;
            self.counters.left_to_mark(run.rows.len() as u64);
            if filled.is_none() {
                return;
            }
        }
        let woken = course.active.is_none();
        let active = course.activate();
        if woken {
            // What was remembered holds at least until there was something to pass it with; a new course was asked just now.
            active.trust.asked_at = if made { Some(now) } else { absent_at };
        }
        if let Some(filled) = filled {
            active.fill(filled);
        }
        let before = active.queued_bytes;
        let mut repeated = 0;
        for row in run.rows.iter().filter(|_| !marked) {
            self.unreadable_rows = self.unreadable_rows.filter(|_| row.is_err()).map(|rows| rows.saturating_add(1));
            let covered = known && row_sequence(row) < next;
            repeated += u64::from(covered || !enqueue(active, row, share));
        }
        self.queued_bytes += active.queued_bytes - before;
        let pin = Pin { lane, page, last: run.last(), delivered: false };
        let pinned = active.pin(pin);
        let phase = active.phase;
        if woken {
            self.courses.count_active();
        }
        self.pin_page(lane, page, pinned);
        self.counters.duplicates(repeated);
        if made && !known {
            self.look_up(slot);
        } else if disbelieved || faded {
            self.ask_again(slot, disbelieved);
        } else if known && phase.waits_for_the_stream() {
            self.evaluate(slot, now);
        } else if known {
            self.release_pins(slot, now);
        }
    }

    fn pin_page(&mut self, lane: LaneId, page: u64, pinned: Pinned) {
        let Some(state) = self.by_id.get_mut(&lane) else { return };
        match pinned {
            Pinned::Page => state.watermark.pin(page),
            Pinned::Merged { reopened: Some(older) } => state.watermark.reopened(older),
            Pinned::Merged { reopened: None } => {}
        }
    }

    /// Drops queued rows below the sequencer's next.
    pub(crate) fn drop_covered(&mut self, slot: Slot) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        let next = course.sequencer.next();
        let Some(active) = course.active.as_deref_mut() else { return };
        let before = active.queued_bytes;
        let (mut dropped, mut filled) = (0, None);
        let fills = |row: &RunRow| fills(course.passed.as_deref(), row, &self.subscription);
        while active.queue.front().is_some_and(|row| row_sequence(row) < next) {
            let row = active.dequeue();
            dropped += 1;
            filled = filled.or(row.filter(fills).map(|row| row_sequence(&row)));
        }
        self.queued_bytes -= before - active.queued_bytes;
        if let Some(filled) = filled {
            active.fill(filled);
        }
        self.counters.duplicates(dropped);
    }

    pub(crate) fn forget_queue(&mut self, slot: Slot) {
        if let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
            self.queued_bytes -= active.queued_bytes;
            active.forget_queue();
        }
    }

    /// When the bound on queued bytes is reached: roots that have not moved for a while let go of what they hold, so
    /// that the others can go on. Roots that only wait for their turn keep theirs.
    pub fn relieve(&mut self, now: Instant) {
        if self.queued_bytes < self.settings.queued_bytes_max {
            return;
        }
        for slot in self.courses.active_slots() {
            let Some(active) = self.courses.get(slot).and_then(|course| course.active.as_deref()) else { continue };
            let stands = matches!(active.phase, Phase::InFlight | Phase::Waiting(_) | Phase::Repairing);
            if stands && active.moved_at.is_none_or(|moved| now.duration_since(moved) >= STANDING_TIME) {
                self.forget_queue(slot);
            }
        }
    }
}

/// A root that has not moved for so long stands in the way of others when room is short.
const STANDING_TIME: std::time::Duration = std::time::Duration::from_secs(1);

/// Queues a row, or only remembers that it was seen when the root holds its share or has let go of earlier ones.
/// False: a repeat.
fn enqueue(active: &mut super::course::Active, row: &RunRow, share: usize) -> bool {
    let sequence = row_sequence(row);
    let new = active.seen.is_none_or(|seen| sequence > seen);
    active.seen = active.seen.max(Some(sequence));
    if active.queued_bytes >= share || stands(active.phase) {
        active.let_go = true;
        return new;
    }
    active.enqueue(row.clone())
}

/// A stopped root keeps nothing: it goes on from the table.
fn stands(phase: Phase) -> bool {
    matches!(phase, Phase::Waiting(Why::Blocked | Why::Hole))
}
