//! Handing ready roots to the handler, and what follows from its answers.
//!
//! Parallel over roots, serial within a root: a root is in at most one group at a time. A batch is a run of
//! consecutive events; events left out by type do not break it.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::course::{Course, Durable, Phase, Why, fills};
use super::courses::Slot;
use super::lanes::GROUPS_IN_FLIGHT_MAX;
use super::outage::Gate;
use super::retry::{Decision, Failing, decide};
use super::{Lanes, OnFailure};
use crate::event::Sequence;
use crate::failpoint::{self, Failpoint};
use crate::handler::{Accepted, HandlerError, RootBatch};
use crate::stream::row_sequence;
use crate::telemetry::with_causes;

/// A root that waits longer than this lets go of what it has queued.
const KEPT_WAIT_MAX: Duration = Duration::from_secs(1);

/// What is known of a root's position holds for so long; then it is asked for before the root is given to the handler.
pub(super) const STANDS_MAX: Duration = Duration::from_secs(5);

/// The key of all lines about roots that are tried again.
const RETRIES: &str = "retries";

impl Lanes {
    /// The next call of the handler to make.
    pub(crate) fn next_group(&mut self, now: Instant) -> Option<Vec<RootBatch>> {
        if self.draining || self.paused || self.suspended || self.ready.is_empty() {
            return None;
        }
        let limits = self.settings.limits;
        let gate = self.outage.gate(now);
        if gate == Gate::Probe {
            self.probe_first();
        }
        let roots_max = match gate {
            Gate::Open if !self.is_careful() => limits.roots.max(1),
            Gate::Open | Gate::Probe => 1,
            Gate::Closed(_) => return None,
        };
        let in_flight_max = if self.is_careful() { 1 } else { self.settings.max_in_flight };
        self.forget_turns();
        let mut room = in_flight_max.saturating_sub(self.roots_in_flight + self.turns.len());
        if limits.roots > 1 && self.groups_in_flight >= GROUPS_IN_FLIGHT_MAX {
            return None;
        }
        let (mut group, mut bytes) = (Vec::with_capacity(roots_max.min(room).min(self.ready.len())), 0);
        while group.len() < roots_max.min(room) {
            let Some(slot) = self.ready.pop_front() else { break };
            let phase = self.courses.get(slot).and_then(|course| course.active.as_deref()).map(|active| active.phase);
            if phase != Some(Phase::Ready) {
                continue;
            }
            if self.courses.get(slot).is_some_and(Course::is_stale) {
                self.enter(slot, Phase::Open);
                self.evaluate(slot, now);
                continue;
            }
            if self.has_stood(slot, now) && !failpoint::is_set(Failpoint::StoodNotAsked) {
                self.ask_in_turn(slot);
                room -= 1;
                continue;
            }
            let bytes_left = limits.bytes.saturating_sub(bytes);
            match self.next_batch(slot, limits.bytes_per_root.min(bytes_left), group.is_empty()) {
                Some(batch) => {
                    bytes += batch.events.iter().map(|event| event.payload_bytes()).sum::<usize>();
                    self.enter(slot, Phase::InFlight);
                    self.note_moved(slot, now);
                    if gate == Gate::Probe {
                        self.outage.probing(slot);
                    }
                    self.courses.expect(&batch.root, slot);
                    group.push(batch);
                }
                // What stood in front was covered by somebody else's position meanwhile.
                None if group.is_empty() => {
                    self.enter(slot, Phase::Open);
                    self.evaluate(slot, now);
                }
                None => {
                    self.ready.push_front(slot);
                    break;
                }
            }
        }
        if group.is_empty() {
            return None;
        }
        self.roots_in_flight += group.len();
        self.groups_in_flight += 1;
        Some(group)
    }

    /// Whether a root has not come on for so long that another replica may have, where both meet on it: its position is read
    /// again before it is given once more (contract clause 3).
    fn has_stood(&self, slot: Slot, now: Instant) -> bool {
        let Some(active) = self.courses.get(slot).and_then(|course| course.active.as_deref()) else { return false };
        active.moved_at.max(active.trust.asked_at).is_none_or(|at| at + STANDS_MAX <= now)
    }

    /// Asks for the position of a root whose turn has come. It keeps its turn, and has its part of what may be in flight: one
    /// that waits long is asked once, not again and again.
    fn ask_in_turn(&mut self, slot: Slot) {
        self.look_up(slot);
        self.turns.push(slot);
    }

    /// Lets go of the turns of roots that are known by now.
    fn forget_turns(&mut self) {
        let courses = &self.courses;
        self.turns.retain(|slot| {
            let active = courses.get(*slot).and_then(|course| course.active.as_deref());
            active.is_some_and(|active| active.phase == Phase::Loading)
        });
    }

    /// A probe is best made with a root that has not failed: when only some roots always do, the others end the outage.
    fn probe_first(&mut self) {
        let outage = &self.outage;
        if let Some(at) = self.ready.iter().position(|slot| !outage.suspects(*slot))
            && let Some(slot) = self.ready.remove(at)
        {
            self.ready.push_front(slot);
        }
    }

    fn note_moved(&mut self, slot: Slot, now: Instant) {
        if let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
            active.moved_at = Some(now);
        }
    }

    /// The consecutive events of a ready root, up to the bounds; `whole`: the first is given whatever its size.
    fn next_batch(&self, slot: Slot, bytes_max: usize, whole: bool) -> Option<RootBatch> {
        let course = self.courses.get(slot)?;
        let active = course.active.as_deref()?;
        let (mut events, mut bytes, mut expected) = (Vec::new(), 0, course.sequencer.next());
        let singly = self.is_careful() || active.singly.is_some_and(|through| expected <= through);
        let events_max = if singly { 1 } else { self.settings.limits.events_per_root.max(1) };
        for row in &active.queue {
            let Ok(event) = row else { break };
            if event.sequence != expected || events.len() >= events_max {
                break;
            }
            expected = expected.next();
            if !self.subscription.wants(event) {
                continue;
            }
            if fills(course.passed.as_deref(), row, &self.subscription) {
                break;
            }
            bytes += event.payload_bytes();
            if bytes > bytes_max && !(whole && events.is_empty()) {
                break;
            }
            events.push(event.clone());
        }
        (!events.is_empty()).then(|| RootBatch { root: course.root.clone(), events })
    }

    /// Counts the calls under way as answered; their handler is not waited for any longer.
    pub fn give_up_in_flight(&mut self) {
        self.groups_in_flight = 0;
    }

    /// Takes the handler's answers to [`super::Effect::Deliver`].
    pub fn delivered(
        &mut self,
        answers: Vec<(RootBatch, Result<Accepted, HandlerError>)>,
        took: Duration,
        now: Instant,
    ) {
        self.groups_in_flight = self.groups_in_flight.saturating_sub(1);
        self.counters.took(took);
        for (batch, answer) in answers {
            self.roots_in_flight = self.roots_in_flight.saturating_sub(1);
            // What is tried again later may be the one: only what is behind it counts.
            let passed = matches!(&answer, Ok(accepted) if accepted.events > 0);
            self.careful = self.careful.saturating_sub(u32::from(passed));
            let Some(slot) = self.courses.find(&batch.root) else { continue };
            self.touch(slot);
            match answer {
                Ok(accepted) if accepted.events > 0 => {
                    let taken = accepted.events.min(batch.events.len());
                    let taken = if failpoint::is_set(Failpoint::PartCountsAsAll) { batch.events.len() } else { taken };
                    let (first, through) = (batch.events[0].sequence, batch.events[taken - 1].sequence);
                    self.counters.accepted(taken as u64);
                    self.counters.filtered((through.0 - first.0 + 1).saturating_sub(taken as u64));
                    self.accepted(slot, through, now);
                }
                Ok(_) => self.failed(slot, &batch, &HandlerError::retry("the handler accepted nothing"), now),
                Err(error) => self.failed(slot, &batch, &error, now),
            }
        }
    }

    fn accepted(&mut self, slot: Slot, through: Sequence, now: Instant) {
        if self.outage.answered(now) {
            info!(handler = %self.handler, "the receiver answers again");
        }
        let Some(course) = self.courses.get_mut(slot) else { return };
        course.sequencer.cover(through);
        let next = course.sequencer.next();
        // What was ordered again is covered by the position already.
        let durable = course.durable.known().is_some_and(|durable| through <= durable);
        let committed = self.settings.commits_positions || durable;
        if self.settings.commits_positions && !durable {
            (course.durable, course.filtered) = (Durable::At(through), 0);
        }
        let Some(active) = course.active.as_deref_mut() else { return };
        if !committed {
            active.accepted = active.accepted.max(Some(through));
        }
        (active.failures, active.failing_since) = (0, None);
        active.moved_at = Some(now);
        let before = active.queued_bytes;
        while active.queue.front().is_some_and(|row| row_sequence(row) < next) {
            active.dequeue();
        }
        self.queued_bytes -= before - active.queued_bytes;
        if !committed {
            self.mark_dirty(slot, now);
        }
        if self.note_rewound(slot, now) {
            return;
        }
        if self.settings.flush_interval.is_zero() && !committed {
            self.enter(slot, Phase::Settling);
            self.release_pins(slot, now);
        } else {
            self.enter(slot, Phase::Open);
            self.evaluate(slot, now);
        }
    }

    /// Counts a failure; whether it is part of an outage.
    fn is_outage(&mut self, slot: Slot, events: u64, error: &HandlerError, now: Instant) -> bool {
        let was_down = self.outage.is_down();
        self.counters.failed(error.outcome(), events);
        let outage = match error {
            HandlerError::Unavailable { after, .. } => {
                self.outage.unavailable(slot, now, *after);
                true
            }
            HandlerError::Retry { after, .. } | HandlerError::Throttled { after, .. } => {
                self.outage.failed(slot, now, *after)
            }
            HandlerError::Permanent { .. } => {
                self.outage.answered(now);
                false
            }
        };
        if outage {
            self.down_reason = with_causes(error);
        }
        if outage && !was_down {
            warn!(handler = %self.handler, error = %with_causes(error), "the receiver is down; the handler halts and probes until it answers");
        }
        outage
    }

    fn failed(&mut self, slot: Slot, batch: &RootBatch, error: &HandlerError, now: Instant) {
        let outage = self.is_outage(slot, batch.events.len() as u64, error, now);
        if failpoint::is_set(Failpoint::RetryOvertakes)
            && let Some(last) = batch.events.last().map(|event| event.sequence)
            && let Some(course) = self.courses.get_mut(slot)
        {
            course.sequencer.cover(last);
            self.drop_covered(slot);
            self.enter(slot, Phase::Open);
            return self.evaluate(slot, now);
        }
        let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) else { return };
        let failures = active.failures + 1;
        // What was only asked to come later has not failed yet, however long ago that began.
        let since = active.failing_since.filter(|_| active.failures > 0).unwrap_or(now);
        let (age, others_succeed) = (self.outage.age(since, now), self.outage.answered_since(since));
        let failing = Failing { failures, age, outage, others_succeed };
        let decision = decide(error, failing, &self.settings, &self.random);
        if !matches!(decision, Decision::Halt | Decision::Later(_)) {
            (active.failures, active.failing_since) = (failures, Some(since));
        }
        self.follow(slot, batch, error, decision, now);
    }

    /// Takes what the handler could not be given: its first event is broken in the table. It says nothing of the receiver.
    pub fn not_deliverable(&mut self, broken: Vec<(RootBatch, HandlerError)>, now: Instant) {
        for (mut batch, error) in broken {
            self.roots_in_flight = self.roots_in_flight.saturating_sub(1);
            let Some(slot) = self.courses.find(&batch.root) else { continue };
            self.outage.not_asked(slot);
            self.touch(slot);
            self.counters.failed("permanent", 1);
            let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) else {
                continue;
            };
            active.failures += 1;
            active.failing_since.get_or_insert(now);
            batch.events.truncate(1);
            self.follow(slot, &batch, &error, Decision::GiveUp(self.settings.on_failure), now);
        }
    }

    /// What was decided about a batch that was not accepted.
    fn follow(&mut self, slot: Slot, batch: &RootBatch, error: &HandlerError, decision: Decision, now: Instant) {
        if self.is_left(slot) {
            // A failure ends it here: whoever reads the root next tries again.
            self.enter(slot, Phase::Open);
            return self.leave(slot, now);
        }
        let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) else { return };
        let (failures, first) = (active.failures, batch.events.first().map(|event| event.sequence.0));
        match decision {
            Decision::Halt => self.line_up(slot),
            Decision::Retry(wait) | Decision::Later(wait) => {
                if let Some(left_out) = self.log.admit(RETRIES, now) {
                    info!(
                        handler = %self.handler, root = %batch.root, sequence = first, failures, ?wait, left_out,
                        error = %with_causes(error), "the handler did not accept; the root is tried again"
                    );
                }
                if wait > KEPT_WAIT_MAX {
                    self.forget_queue(slot);
                }
                self.wait_or_defer(slot, Why::Retry, now + wait, &with_causes(error), now);
            }
            // Which of several events is at fault shows when they are given one at a time.
            Decision::GiveUp(OnFailure::Park | OnFailure::Skip) if batch.events.len() > 1 => {
                active.singly = batch.events.last().map(|event| event.sequence);
                self.line_up(slot);
            }
            Decision::GiveUp(OnFailure::Park) => self.park(slot, &with_causes(error), now),
            Decision::GiveUp(OnFailure::Skip) => {
                let sequence = batch.events.first().map_or(Sequence::FIRST, |event| event.sequence);
                self.skip(slot, sequence, &with_causes(error), now);
            }
            Decision::GiveUp(OnFailure::Block) => {
                if let Some(left_out) = self.log.admit(batch.root.key(), now) {
                    error!(
                        handler = %self.handler, root = %batch.root, sequence = first, error = %with_causes(error), left_out,
                        "the handler refused the event for good; the root is stopped for this handler"
                    );
                }
                self.block(slot, &with_causes(error), now);
            }
        }
    }
}
