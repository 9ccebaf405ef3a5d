//! All lanes of one handler as one pure machine: what happened goes in, what is to be done comes out as [`Effect`]s.
//!
//! It never waits and does no I/O; the time is given in. The same machine runs in production, in tests and in the
//! simulation. The methods by concern are in `intake` (pages and positions), `placing` (order, gaps, bases, holes),
//! `dispatch` (delivery and its answers), `flush` (positions and checkpoints), `marks` (parked and deferred roots),
//! `errands` (deferred roots taken up again), `standing` (what is believed, and for how long), `closing` (a lane that is
//! given up) and `gauges` (what can be seen from outside).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::info;

use super::closing::Closing;
use super::course::{Phase, Why, Work};
use super::courses::{Courses, Slot};
use super::errands::{Listing, Look};
use super::gauges::Counters;
use super::outage::{Gate, Outage};
use super::preload::KnownPositions;
use super::purge::REMOVED_ROOTS_MAX;
use super::repair::RepairOrder;
use super::unsaved::Unsaved;
use super::{LaneSettings, MarkOrder, Subscription, Watermark, WorksOff};
use crate::event::Root;
use crate::handler::{HandlerName, RootBatch};
use crate::relay_table::Checkpoint;
use crate::storage::Advance;
use crate::stream::{Branch, LaneId, StreamPoint};
use crate::telemetry::LogLimiter;
use crate::time::Random;

/// Position loads under way at once.
pub(crate) const LOADS_IN_FLIGHT_MAX: usize = 4;

/// Repairs under way at once.
pub(crate) const REPAIRS_IN_FLIGHT_MAX: usize = 8;

/// Calls of a handler under way at once when each takes many roots.
pub(crate) const GROUPS_IN_FLIGHT_MAX: usize = 4;

/// Something to be done outside; each is answered by the method of the same name.
#[derive(Debug)]
pub enum Effect {
    /// Load the positions of these roots: [`Lanes::loaded`].
    Load(Vec<Root>),
    /// Read missing rows from the table: [`Lanes::repaired`].
    Repair(RepairOrder),
    /// Hand these batches to the handler in one call: [`Lanes::delivered`].
    Deliver(Vec<RootBatch>),
    /// Write these positions: [`Lanes::flushed`].
    Flush(Vec<Advance>),
    /// Set a lane's checkpoint: [`Lanes::checkpointed`].
    Checkpoint(LaneId, Checkpoint),
    /// Change a root's mark: [`Lanes::marked`].
    Mark(MarkOrder),
    /// List the marked roots: [`Lanes::resume`].
    List,
}

/// Roots that the handler cannot go on with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stuck {
    /// Waiting to be tried again.
    pub retrying: usize,
    /// Stopped.
    pub blocked: usize,
    /// Waiting for the table to show a missing sequence.
    pub holes: usize,
}

/// Says which deferred roots this process goes on with.
pub(crate) struct Duty(pub(crate) WorksOff);

impl std::fmt::Debug for Duty {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Duty").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) watermark: Watermark,
    pub(crate) saved: StreamPoint,
    /// What was taken beyond it.
    pub(crate) unsaved: Unsaved,
    /// None: a segment of a job.
    pub(crate) branch: Option<Branch>,
    /// The era it was taken over in; 0 when it was not.
    pub(crate) era: u32,
    pub(crate) ended: bool,
    pub(crate) saving: bool,
    pub(crate) queued: bool,
    /// It is given up, until then at the latest.
    pub(crate) closes_by: Option<Instant>,
}

impl Lane {
    pub(crate) fn is_closing(&self) -> bool {
        self.closes_by.is_some()
    }
}

/// All lanes of one handler.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each stops something for a reason of its own")]
pub struct Lanes {
    pub(crate) handler: HandlerName,
    pub(crate) settings: LaneSettings,
    pub(crate) subscription: Subscription,
    pub(crate) random: Random,
    pub(crate) by_id: BTreeMap<LaneId, Lane>,
    /// Lanes at the end of their shard with something not covered.
    pub(crate) ending: usize,
    /// Lanes that are given up.
    pub(crate) closings: BTreeMap<LaneId, Closing>,
    /// Roots of which something has come to its end while lanes close.
    pub(crate) touched: Vec<Slot>,
    /// Lanes that were given up, and whether cleanly.
    pub(crate) closed: Vec<(LaneId, bool)>,
    /// Lanes taken over so far: what is believed of a root is of one of these eras.
    pub(crate) era: u32,
    pub(crate) works_off: Duty,
    pub(crate) courses: Courses,
    pub(crate) known: KnownPositions,
    pub(crate) to_load: VecDeque<Slot>,
    pub(crate) loads_in_flight: usize,
    pub(crate) to_repair: VecDeque<Slot>,
    pub(crate) repairs_in_flight: usize,
    pub(crate) ready: VecDeque<Slot>,
    /// Roots whose turn had come and that are asked for.
    pub(crate) turns: Vec<Slot>,
    pub(crate) roots_in_flight: usize,
    pub(crate) groups_in_flight: usize,
    /// Events still to be given one by one.
    pub(crate) careful: u32,
    pub(crate) outage: Outage,
    /// Why the receiver is down, while it is.
    pub(crate) down_reason: String,
    /// Phases entered so far, by all courses: a timer is of one of them.
    pub(crate) phases: u64,
    pub(crate) timers: BinaryHeap<Reverse<(Instant, Slot, u64)>>,
    pub(crate) dirty: Vec<Slot>,
    pub(crate) flush_at: Option<Instant>,
    pub(crate) flush_in_flight: bool,
    /// Positions that could not be written, and when they are tried again.
    pub(crate) unwritten: Vec<Slot>,
    pub(crate) unwritten_at: Option<Instant>,
    pub(crate) checkpoints: VecDeque<(Instant, LaneId)>,
    /// Changes of marks to make, and from when on.
    pub(crate) mark_orders: VecDeque<(Instant, MarkOrder)>,
    pub(crate) marks_in_flight: usize,
    /// Deferred, and not taken up yet.
    pub(crate) to_resume: VecDeque<(Root, Option<Branch>)>,
    /// Roots whose mark was taken away, to be looked at once more.
    pub(crate) looks: VecDeque<Look>,
    pub(crate) listing: Listing,
    /// Roots of which a row was removed, and the page that shows it.
    pub(crate) removed: VecDeque<(Root, LaneId, u64)>,
    /// Roots that wait for an operator: as many as were listed, and those that were parked since.
    pub(crate) parked: usize,
    pub(crate) queued_bytes: usize,
    pub(crate) stuck: Stuck,
    pub(crate) draining: bool,
    /// An operator has paused the handler.
    pub(crate) paused: bool,
    /// Nothing may be handed to it: others may take over what this process holds.
    pub(crate) suspended: bool,
    /// The rows seen so far, none of which could be read; none once one could.
    pub(crate) unreadable_rows: Option<u32>,
    pub(crate) counters: Counters,
    pub(crate) log: LogLimiter,
}

impl Lanes {
    /// The lanes of a handler, none open yet.
    #[must_use]
    pub fn new(handler: HandlerName, subscription: Subscription, settings: LaneSettings, random: Random) -> Self {
        Self {
            counters: Counters::new(&handler),
            log: LogLimiter::default(),
            outage: Outage::new(random.clone()),
            down_reason: String::new(),
            handler,
            settings,
            subscription,
            random,
            by_id: BTreeMap::new(),
            ending: 0,
            closings: BTreeMap::new(),
            touched: Vec::new(),
            closed: Vec::new(),
            era: 0,
            works_off: Duty(Arc::new(|_| true)),
            courses: Courses::default(),
            known: KnownPositions::default(),
            to_load: VecDeque::new(),
            loads_in_flight: 0,
            to_repair: VecDeque::new(),
            repairs_in_flight: 0,
            ready: VecDeque::new(),
            turns: Vec::new(),
            roots_in_flight: 0,
            groups_in_flight: 0,
            careful: 0,
            phases: 0,
            timers: BinaryHeap::new(),
            dirty: Vec::new(),
            flush_at: None,
            flush_in_flight: false,
            unwritten: Vec::new(),
            unwritten_at: None,
            checkpoints: VecDeque::new(),
            mark_orders: VecDeque::new(),
            marks_in_flight: 0,
            to_resume: VecDeque::new(),
            looks: VecDeque::new(),
            listing: Listing::default(),
            removed: VecDeque::new(),
            parked: 0,
            queued_bytes: 0,
            stuck: Stuck::default(),
            draining: false,
            paused: false,
            suspended: false,
            unreadable_rows: Some(0),
        }
    }

    /// Takes what is known of positions before the first lane is opened.
    #[must_use]
    pub fn knowing(self, known: KnownPositions) -> Self {
        Self { known, ..self }
    }

    /// Works off only deferred roots of which this says so; all of them otherwise.
    #[must_use]
    pub fn working_off(self, works_off: WorksOff) -> Self {
        Self { works_off: Duty(works_off), ..self }
    }

    /// Gives the next events one by one: a life before ended uncleanly, perhaps by one of them.
    pub fn be_careful(&mut self, events: u32) {
        self.careful = self.careful.max(events);
    }

    /// Whether events are given one by one.
    #[must_use]
    pub fn is_careful(&self) -> bool {
        self.careful > 0
    }

    /// Hands nothing over, or goes on.
    pub fn suspend(&mut self, suspended: bool) {
        self.suspended = suspended;
    }

    /// Pauses the handler, or lets it go on: while paused nothing is taken and nothing handed to it; what is in flight
    /// is answered, and positions are written.
    pub fn pause(&mut self, paused: bool) {
        if std::mem::replace(&mut self.paused, paused) != paused {
            info!(handler = %self.handler, "{}", if paused { "paused by an operator" } else { "goes on after a pause" });
        }
    }

    /// Stops taking and delivering; what is in flight is still answered, and what was accepted written.
    pub fn drain(&mut self, now: Instant) {
        self.draining = true;
        for slot in self.courses.unwritten() {
            self.mark_dirty(slot, now);
        }
        self.unwritten_at = (!self.unwritten.is_empty()).then_some(now);
        self.flush_at = (!self.dirty.is_empty()).then_some(now);
        self.checkpoints.clear();
        self.by_id.values_mut().for_each(|lane| lane.queued = false);
        for lane in self.by_id.keys().copied().collect::<Vec<_>>() {
            self.queue_checkpoint(lane, now);
            self.end_if_paid(lane, now);
        }
    }

    /// Whether nothing is left to do after [`Lanes::drain`].
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining
            && self.groups_in_flight == 0
            && !self.flush_in_flight
            && self.dirty.is_empty()
            && self.unwritten.is_empty()
            && self.checkpoints.is_empty()
            && self.by_id.values().all(|lane| !lane.saving)
    }

    /// Whether another page may be taken. In an outage too, within the bounds: what fails may be some roots only, and
    /// what is yet unread shows it.
    #[must_use]
    pub fn wants_page(&self) -> bool {
        !self.draining
            && !self.paused
            && self.queued_bytes < self.settings.queued_bytes_max
            && self.stuck.retrying + self.stuck.blocked + self.stuck.holes < self.settings.stuck_roots_max
            && self.to_load.len() < LOADING_ROOTS_MAX
            && self.removed.len() < REMOVED_ROOTS_MAX
            && self.dirty.len() + self.unwritten.len() < self.settings.unwritten_roots_max()
    }

    /// Whether the first rows seen were all unreadable: this is another schema than the relay's.
    #[must_use]
    pub fn sees_another_schema(&self) -> bool {
        self.unreadable_rows.is_some_and(|rows| rows >= UNREADABLE_ROWS_MAX)
    }

    /// Why the receiver is down; none while it answers.
    #[must_use]
    pub fn outage(&self) -> Option<&str> {
        self.outage.is_down().then_some(self.down_reason.as_str())
    }

    /// The next thing to be done now, if any.
    pub fn next_effect(&mut self, now: Instant) -> Option<Effect> {
        self.fire_timers(now);
        self.look(now);
        self.settle_debts(now);
        (self.next_flush(now).map(Effect::Flush))
            .or_else(|| self.next_checkpoint(now))
            .or_else(|| self.next_mark(now))
            .or_else(|| self.next_listing(now))
            .or_else(|| self.next_load(now).map(Effect::Load))
            .or_else(|| self.next_repair(now).map(Effect::Repair))
            .or_else(|| self.next_group(now).map(Effect::Deliver))
            // What is to be delivered may have to be asked for first.
            .or_else(|| self.next_load(now).map(Effect::Load))
    }

    /// When to ask again if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _, _))| *at);
        let flush = [self.flush_at, self.unwritten_at].into_iter().flatten().min().filter(|_| !self.flush_in_flight);
        let checkpoint = self.checkpoints.front().map(|(at, _)| *at);
        let probe = match self.outage.gate(now) {
            Gate::Closed(at) if !self.ready.is_empty() && !self.paused => at,
            _ => None,
        };
        let others = [self.next_mark_at(), self.next_look_at(), self.next_listing_at(), self.next_overdue_at()];
        [timer, flush, checkpoint, probe].into_iter().chain(others).flatten().min()
    }

    /// Moves a course to another phase; every timer of the old one is void.
    pub(crate) fn enter(&mut self, slot: Slot, phase: Phase) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        self.phases += 1;
        course.generation = self.phases;
        let Some(active) = course.active.as_deref_mut() else { return };
        let stuck = stuck_as(phase, active.failing_since.is_some());
        count_stuck(&mut self.stuck, active.stuck, -1);
        count_stuck(&mut self.stuck, stuck, 1);
        (active.phase, active.stuck) = (phase, stuck);
    }

    pub(crate) fn wait(&mut self, slot: Slot, why: Why, until: Instant) {
        self.enter(slot, Phase::Waiting(why));
        if let Some(course) = self.courses.get(slot) {
            self.timers.push(Reverse((until, slot, course.generation)));
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(Reverse((at, slot, generation))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(course) = self.courses.get(slot).filter(|course| course.generation == generation) else {
                continue;
            };
            let phase = course.active.as_deref().map(|active| active.phase);
            if !self.draining
                && let Some(Phase::Waiting(why)) = phase
            {
                self.wait_is_over(slot, why, now);
            }
        }
    }

    /// Lets go of a course with nothing left to do; a mark that was worked off is taken away first.
    pub(crate) fn settle_if_done(&mut self, slot: Slot, now: Instant) {
        let Some(course) = self.courses.get(slot) else { return };
        let next = course.sequencer.next();
        let Some(active) = course.active.as_deref() else { return };
        if active.leaving {
            self.leave(slot, now);
        } else if active.looks() && active.is_at_rest() {
            self.look_up(slot);
        } else if !active.is_done(next) {
        } else if active.work == Work::AtEnd && course.mark.is_some() {
            self.unmark(slot, now);
        } else if let Some(ending) = self.ended(slot) {
            let root = course.root.clone();
            self.order(slot, MarkOrder::Forget { root, ending }, now);
        } else {
            self.settle(slot, now);
        }
    }
}

/// So many unreadable rows, and not one readable before, are another schema.
const UNREADABLE_ROWS_MAX: u32 = 100;

/// Roots whose positions may wait to be loaded before the lanes stop pulling.
const LOADING_ROOTS_MAX: usize = 5_000;

/// Why a root counts as stuck. One that fails counts while it is tried again, too: else those that wait for their turn
/// would be no bound for those that are pulled.
fn stuck_as(phase: Phase, fails: bool) -> Option<Why> {
    match phase {
        Phase::Waiting(why @ (Why::Retry | Why::Blocked | Why::Hole)) => Some(why),
        Phase::Loading | Phase::Ready | Phase::InFlight | Phase::Repairing | Phase::Marking if fails => {
            Some(Why::Retry)
        }
        _ => None,
    }
}

fn count_stuck(stuck: &mut Stuck, why: Option<Why>, by: isize) {
    let counted = match why {
        Some(Why::Retry) => &mut stuck.retrying,
        Some(Why::Blocked) => &mut stuck.blocked,
        Some(Why::Hole) => &mut stuck.holes,
        Some(Why::Gap) | None => return,
    };
    *counted = counted.saturating_add_signed(by);
}
