//! The order of a root: what is next, what is left out, and what is missing.
//!
//! A gap waits a short time for the stream, then asks the table. A root without a position is *placed* at its base:
//! the lowest sequence the table holds, or the lowest that was not created before the handler's start. A sequence that
//! a consistent read does not show is asked for again until `hole_timeout`; then a root that is not placed begins
//! behind it, and one that is has a hole and stops.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use super::course::{Course, Phase, Why, Work, fills};
use super::courses::Slot;
use super::lanes::REPAIRS_IN_FLIGHT_MAX;
use super::{Lanes, OnFailure, OnInvalid, RepairOrder, Repaired, Verdict};
use crate::event::{Event, InvalidRow, Root, Sequence};
use crate::failpoint::{self, Failpoint};
use crate::storage::Hole;
use crate::stream::{RunRow, row_sequence};

/// How often the table is asked again for a missing sequence.
pub(super) const HOLE_POLL: Duration = Duration::from_secs(1);

enum Step {
    Covered,
    Deliver,
    Repair,
    Gap,
    Filled,
    Look,
    Invalid(InvalidRow),
    Nothing,
}

impl Lanes {
    /// Takes a root as far as it goes without the outside: over what is covered and left out, to the first event to
    /// deliver.
    pub(crate) fn evaluate(&mut self, slot: Slot, now: Instant) {
        if self.is_left(slot) {
            return self.leave(slot, now);
        }
        loop {
            if self.read_again_if_stale(slot) {
                return;
            }
            if self.park_filled(slot, now) {
                break;
            }
            match self.step(slot) {
                Step::Covered | Step::Filled => {}
                Step::Look if self.begin_look(slot) => {}
                Step::Look => {
                    self.look_up(slot);
                    break;
                }
                Step::Deliver => {
                    self.line_up(slot);
                    break;
                }
                Step::Repair => {
                    self.ask_repair(slot);
                    break;
                }
                Step::Gap => {
                    self.gap(slot, now);
                    break;
                }
                Step::Invalid(invalid) => {
                    self.block_invalid(slot, &invalid, now);
                    break;
                }
                Step::Nothing => {
                    self.enter(slot, Phase::Open);
                    break;
                }
            }
        }
        self.release_pins(slot, now);
        let flush_due = self.settings.filtered_flush;
        if self.courses.get(slot).is_some_and(|course| course.filtered >= flush_due) {
            self.mark_dirty(slot, now);
        }
        self.settle_if_done(slot, now);
    }

    /// Puts a root at the end of those that wait for the handler, or where its turn was.
    pub(crate) fn line_up(&mut self, slot: Slot) {
        self.enter(slot, Phase::Ready);
        if self.turns.contains(&slot) {
            self.ready.push_front(slot);
        } else {
            self.ready.push_back(slot);
        }
    }

    fn step(&mut self, slot: Slot) -> Step {
        let Some(course) = self.courses.get_mut(slot) else { return Step::Nothing };
        let Some(active) = course.active.as_deref_mut() else { return Step::Nothing };
        if active.recheck.is_some() {
            return Step::Repair;
        }
        let next = course.sequencer.next();
        let Some(front) = active.queue.front() else {
            let more = active.seen.is_some_and(|seen| seen >= next) || active.work == Work::Begun;
            return match active.looks() {
                _ if more => Step::Repair,
                true => Step::Look,
                false => Step::Nothing,
            };
        };
        if failpoint::is_set(Failpoint::ArrivalOrder) {
            course.sequencer.skip_to(row_sequence(front));
        }
        let next = course.sequencer.next();
        let is_missing = active.hole.is_some_and(|(missing, _)| missing == next);
        match course.sequencer.judge(row_sequence(front)) {
            Verdict::Gap { .. } if active.let_go || is_missing => return Step::Repair,
            Verdict::Gap { .. } => return Step::Gap,
            Verdict::Duplicate => {
                self.drop_covered(slot);
                return Step::Covered;
            }
            // An operator has ordered the root back behind the hole.
            Verdict::Deliver if fills(course.passed.as_deref(), front, &self.subscription) => {
                active.fill(next);
                return Step::Filled;
            }
            Verdict::Deliver => {}
        }
        active.gap = None;
        let started_at = self.settings.started_at.filter(|_| !failpoint::is_set(Failpoint::StartNotAsked));
        let created_before_start = |event: &Event| started_at.is_some_and(|start| event.created_at < start);
        if !course.sequencer.is_placed() {
            // A row that cannot be read has no time: it lies before the start if what follows it does.
            let judged = first_readable(&active.queue);
            if judged.is_some_and(created_before_start) {
                let before = active.queued_bytes;
                active.dequeue();
                self.queued_bytes -= before - active.queued_bytes;
                course.sequencer.pass_before_start();
                return Step::Covered;
            }
            if judged.is_some() || started_at.is_none() {
                course.sequencer.place();
            }
        }
        match front {
            Err(invalid) => Step::Invalid(invalid.clone()),
            Ok(event) if self.subscription.wants(event) => Step::Deliver,
            Ok(_) => {
                let before = active.queued_bytes;
                active.dequeue();
                self.queued_bytes -= before - active.queued_bytes;
                // What is left out again is behind the position already.
                course.filtered += u32::from(!course.is_rewound());
                course.sequencer.cover(next);
                self.counters.filtered(1);
                Step::Covered
            }
        }
    }

    fn gap(&mut self, slot: Slot, now: Instant) {
        let gap_wait = self.settings.gap_wait;
        let Some(course) = self.courses.get_mut(slot) else { return };
        let next = course.sequencer.next();
        let Some(active) = course.active.as_deref_mut() else { return };
        let since = match active.gap {
            Some((missing, since)) if missing == next => since,
            _ => now,
        };
        active.gap = Some((next, since));
        if now >= since + gap_wait {
            self.ask_repair(slot);
        } else {
            self.wait(slot, Why::Gap, since + gap_wait);
        }
    }

    /// Asks the table for what is missing; the position before that: another replica may have delivered it meanwhile.
    fn ask_repair(&mut self, slot: Slot) {
        let Some(active) = self.courses.get(slot).and_then(|course| course.active.as_deref()) else { return };
        if active.trust.fresh || active.work == Work::Begun || active.recheck.is_some() {
            self.enter(slot, Phase::Repairing);
            self.to_repair.push_back(slot);
        } else {
            self.look_up(slot);
        }
    }

    /// The next read of the table to make.
    pub(crate) fn next_repair(&mut self, now: Instant) -> Option<RepairOrder> {
        // With no room left a repair waits as long as anything else can come on, and for a paused handler all do.
        let no_room = self.queued_bytes >= self.settings.queued_bytes_max
            && (self.paused || self.repairs_in_flight + self.roots_in_flight + self.ready.len() > 0);
        if self.draining || no_room || self.repairs_in_flight >= REPAIRS_IN_FLIGHT_MAX {
            return None;
        }
        let slot = loop {
            let slot = self.to_repair.pop_front()?;
            if !self.is_left(slot) {
                break slot;
            }
            self.enter(slot, Phase::Open);
            self.leave(slot, now);
        };
        let course = self.courses.get_mut(slot)?;
        let active = course.active.as_deref_mut()?;
        if let Some((from, hole)) = active.recheck.and_then(|from| Some((from, course.passed.as_deref()?.from(from)?)))
        {
            self.repairs_in_flight += 1;
            return Some(RepairOrder { root: course.root.clone(), from, to: hole.last });
        }
        let from = course.sequencer.next();
        let queued = active.queue.front().and_then(|row| row_sequence(row).previous()).filter(|to| *to >= from);
        let to = if active.work == Work::Begun && queued.is_none() {
            active.work = Work::Reading;
            Sequence(u64::MAX)
        } else {
            queued.or(active.seen).unwrap_or(from)
        };
        // What was let go before is in the table, and shown by the read.
        (active.asked, active.let_go) = (Some(to), false);
        self.repairs_in_flight += 1;
        Some(RepairOrder { root: course.root.clone(), from, to })
    }

    /// Takes the rows that [`super::Effect::Repair`] asked for.
    pub fn repaired(&mut self, root: &Root, repaired: Repaired, now: Instant) {
        self.repairs_in_flight = self.repairs_in_flight.saturating_sub(1);
        self.counters.repaired(1);
        let Some(slot) = self.courses.find(root) else { return };
        if self.is_left(slot) {
            self.enter(slot, Phase::Open);
            return self.leave(slot, now);
        }
        let Some(course) = self.courses.get_mut(slot) else { return };
        let next = course.sequencer.next();
        let Some(active) = course.active.as_deref_mut() else { return };
        if active.trust.stale {
            // Asked before somebody else has moved the root: it is asked again, behind its position of now.
            active.let_go = true;
            self.enter(slot, Phase::Open);
            return self.evaluate(slot, now);
        }
        if active.recheck.is_some() {
            return self.rechecked(slot, repaired, now);
        }
        let before = active.queued_bytes;
        for row in repaired.rows {
            let row: RunRow = row.map(Arc::new);
            if row_sequence(&row) >= next {
                active.seen = active.seen.max(Some(row_sequence(&row)));
                active.enqueue(row);
            }
        }
        let let_go_meanwhile = active.let_go;
        active.let_go |= !repaired.complete;
        let read = active.work == Work::Reading;
        if read {
            active.work = if repaired.complete { Work::AtEnd } else { Work::Begun };
        }
        let ends = read && active.queue.is_empty() && active.seen.is_none_or(|seen| seen < next);
        active.gap = None;
        self.queued_bytes += active.queued_bytes - before;
        let first = active.queue.front().map(row_sequence);
        // What came and was let go meanwhile is not said to be missing by a read that ended before it.
        let shown = first.map_or(active.seen, Sequence::previous);
        let unread = shown > active.asked;
        if first == Some(next) || ends {
            active.hole = None;
        }
        if first == Some(next) || ends || unread {
            self.enter(slot, Phase::Open);
            self.evaluate(slot, now);
        } else {
            self.missing(slot, (next, first), let_go_meanwhile, now);
        }
    }

    /// A consistent read does not show `next`; `first` is the first sequence behind it that exists. `uncertain`: rows came
    /// and were let go while it was made.
    fn missing(&mut self, slot: Slot, (next, first): (Sequence, Option<Sequence>), uncertain: bool, now: Instant) {
        let (timeout, started_at) = (self.settings.hole_timeout, self.settings.started_at);
        let Some(course) = self.courses.get_mut(slot) else { return };
        let Some(active) = course.active.as_deref_mut() else { return };
        let since = match active.hole {
            Some((missing, since)) if missing == next => since,
            _ => now,
        };
        active.hole = Some((next, since));
        let placed = course.sequencer.is_placed();
        // What is absent before an event that is older than the handler's start is not the handler's either.
        let before_start =
            |row: &RunRow| row.as_ref().is_ok_and(|event| started_at.is_some_and(|start| event.created_at < start));
        let waited = now >= since + timeout;
        let certain = waited || (!placed && active.queue.front().is_some_and(before_start));
        match first {
            _ if uncertain || !certain => {
                let until = now + HOLE_POLL;
                let until = if waited { until } else { until.min(since + timeout) };
                self.wait(slot, Why::Hole, until);
            }
            None => {
                warn!(handler = %self.handler, root = %course.root, sequence = %next, "the table no longer holds what the stream showed");
                (active.seen, active.hole) = (None, None);
                self.enter(slot, Phase::Open);
                self.abandon_pins(slot, now);
                self.settle_if_done(slot, now);
            }
            Some(base) if !placed => {
                active.hole = None;
                course.sequencer.skip_to(base);
                self.enter(slot, Phase::Open);
                self.evaluate(slot, now);
            }
            Some(behind) => {
                let last = behind.previous().unwrap_or(next);
                self.meet_hole(slot, Hole { first: next, last }, now);
            }
        }
    }

    fn block_invalid(&mut self, slot: Slot, invalid: &InvalidRow, now: Instant) {
        let active = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut());
        if active.is_some_and(|active| active.reported.replace(invalid.sequence) != Some(invalid.sequence)) {
            self.counters.invalid();
        }
        if let Some(left_out) = self.log.admit(invalid.root.key(), now) {
            error!(
                handler = %self.handler, root = %invalid.root, sequence = %invalid.sequence, reason = %invalid.reason,
                left_out,
                "the row cannot be read as an event; the root is stopped for this handler"
            );
        }
        if self.unreadable_rows.is_some() {
            // Nothing readable was seen yet: this may be another schema, of which nothing is marked or passed.
            self.forget_queue(slot);
            return self.wait(slot, Why::Blocked, now + self.settings.retry.max);
        }
        let reason = format!("the row cannot be read as an event: {}", invalid.reason);
        match self.settings.on_invalid {
            OnInvalid::Park => self.stop(slot, &reason, now),
            OnInvalid::Skip => self.skip(slot, invalid.sequence, &reason, now),
        }
    }

    /// What the table itself stops is parked, or looked at again.
    pub(crate) fn stop(&mut self, slot: Slot, reason: &str, now: Instant) {
        match self.settings.on_failure {
            OnFailure::Park | OnFailure::Skip => self.park(slot, reason, now),
            OnFailure::Block => self.block(slot, reason, now),
        }
    }

    /// Stops a root; it is looked at again in case somebody mended the row or the receiver.
    pub(crate) fn block(&mut self, slot: Slot, reason: &str, now: Instant) {
        self.forget_queue(slot);
        self.wait_or_defer(slot, Why::Blocked, now + self.settings.retry.max, reason, now);
    }

    /// Waits, with a mark when the wait would hold a checkpoint for longer than `checkpoint_hold`.
    pub(crate) fn wait_or_defer(&mut self, slot: Slot, why: Why, until: Instant, reason: &str, now: Instant) {
        let hold = self.settings.checkpoint_hold;
        let Some(course) = self.courses.get_mut(slot) else { return };
        let Some(active) = course.active.as_deref_mut() else { return };
        let since = *active.failing_since.get_or_insert(now);
        if until > since + hold {
            self.defer(slot, reason, until, now);
        } else {
            self.wait(slot, why, until);
        }
    }

    pub(crate) fn wait_is_over(&mut self, slot: Slot, why: Why, now: Instant) {
        match why {
            Why::Hole => self.ask_repair(slot),
            // A deferred root is worked off as soon as it is known that the mark still stands.
            Why::Gap | Why::Retry | Why::Blocked if self.courses.get(slot).is_some_and(Course::is_marked) => {
                if let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
                    active.retry_at = None;
                }
                self.look_up(slot);
            }
            Why::Gap | Why::Retry | Why::Blocked => {
                self.enter(slot, Phase::Open);
                self.evaluate(slot, now);
            }
        }
    }
}

/// The first readable of the rows that follow on each other from the front.
fn first_readable(queue: &VecDeque<RunRow>) -> Option<&Event> {
    let mut expected = queue.front().map(row_sequence)?;
    for row in queue {
        if row_sequence(row) != expected {
            return None;
        }
        if let Ok(event) = row {
            return Some(event);
        }
        expected = expected.next();
    }
    None
}
