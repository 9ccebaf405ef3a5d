//! How roots stand: what is asked of the positions table, and for how long an answer is believed.
//!
//! Other replicas may move a root for which no lease is held here. So what is remembered of idle roots goes with every
//! lane that closes or is taken over; a course that is active then is asked for again before rows of a lane that was taken
//! over are judged by it; and what the stream did not bring is read from the table only behind a position that was read
//! after the wait for it. Invariant: a sequence at or below the position, as it was read last, is not delivered.

use tokio::time::Instant;

use super::course::{Durable, Phase};
use super::courses::Slot;
use super::lanes::LOADS_IN_FLIGHT_MAX;
use super::preload::KnownPositions;
use super::unsaved::Unsaved;
use super::{Lanes, Opening, Watermark};
use crate::event::{Root, Sequence};
use crate::failpoint::{self, Failpoint};
use crate::storage::{LOAD_ROOTS_MAX, MarkState, Standing};
use crate::stream::LaneId;

impl Lanes {
    /// Opens a lane.
    pub fn open(&mut self, lane: LaneId, opening: Opening, now: Instant) {
        let Opening { after, branch, taken } = opening;
        if taken {
            self.era += 1;
            self.forget_idle(now);
            self.list_marks(now);
        }
        let era = if taken { self.era } else { 0 };
        let watermark = Watermark::new(after.clone());
        let state = super::lanes::Lane {
            watermark,
            saved: after,
            unsaved: Unsaved::default(),
            branch,
            era,
            ended: false,
            saving: false,
            queued: false,
            closes_by: None,
        };
        self.by_id.insert(lane, state);
    }

    /// Forgets what is believed of roots with nothing to do; what they left out by type is written first.
    pub(crate) fn forget_idle(&mut self, now: Instant) {
        self.known = KnownPositions::default();
        for slot in self.courses.forget_idle() {
            self.mark_dirty(slot, now);
        }
    }

    /// Lets go of a course that is done; one that may not be remembered is written first.
    pub(crate) fn settle(&mut self, slot: Slot, now: Instant) {
        let Some(course) = self.courses.get(slot) else { return };
        if !course.lasting && course.filtered > 0 && course.durable != Durable::Unknown {
            return self.mark_dirty(slot, now);
        }
        if self.courses.settle(slot) {
            self.known = KnownPositions::default();
        }
        self.touch(slot);
    }

    /// The next roots whose positions are to be loaded.
    pub(crate) fn next_load(&mut self, now: Instant) -> Option<Vec<Root>> {
        if self.draining || self.loads_in_flight >= LOADS_IN_FLIGHT_MAX {
            return None;
        }
        let mut roots = Vec::new();
        while roots.len() < LOAD_ROOTS_MAX
            && let Some(slot) = self.to_load.pop_front()
        {
            let Some(course) = self.courses.get_mut(slot) else { continue };
            let Some(active) = course.active.as_deref_mut() else { continue };
            if active.leaving && active.accepted.is_none() {
                self.enter(slot, Phase::Open);
                self.leave(slot, now);
                continue;
            }
            (course.asked_in, active.trust.asked_at) = (self.era, Some(now));
            roots.push(course.root.clone());
        }
        self.loads_in_flight += usize::from(!roots.is_empty());
        (!roots.is_empty()).then_some(roots)
    }

    /// Takes the positions that [`super::Effect::Load`] asked for.
    pub fn loaded(&mut self, standings: Vec<(Root, Standing)>, now: Instant) {
        self.loads_in_flight = self.loads_in_flight.saturating_sub(1);
        for (root, mut standing) in standings {
            let Some(slot) = self.courses.find(&root) else { continue };
            let Some(course) = self.courses.get_mut(slot) else { continue };
            let Some(active) = course.active.as_deref().filter(|active| active.phase == Phase::Loading) else {
                continue;
            };
            let as_of = active.trust.asked_at.unwrap_or(now);
            if failpoint::is_set(Failpoint::PositionsNotLoaded) {
                standing = Standing::default();
            }
            // A write that was under way may have said more meanwhile than the read shows.
            standing.position = standing.position.max(course.durable.known());
            let mark = course.mark.as_deref().map(|known| &known.mark);
            let as_known = mark == standing.mark.as_ref() && course.passed == standing.passed;
            let believed = course.durable != Durable::Unknown;
            if believed && as_known {
                self.stands_as_known(slot, standing.position, as_of, now);
            } else if believed && active.accepted > standing.position {
                self.write_first(slot, now);
            } else {
                self.stands_anew(slot, standing, as_of, now);
            }
            self.touch(slot);
        }
    }

    /// Nothing but the position has changed: where the root is in its course stays.
    fn stands_as_known(&mut self, slot: Slot, position: Option<Sequence>, as_of: Instant, now: Instant) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        if let Some(position) = position {
            let passes = course.sequencer.next() <= position && !course.is_rewound();
            course.durable = Durable::At(position);
            if passes {
                course.sequencer.cover(position);
            }
        }
        if let Some(mark) = course.mark.as_deref_mut() {
            (mark.as_of, mark.looked_for) = (as_of, false);
        }
        let deferred =
            course.is_marked() && course.mark.as_deref().is_some_and(|mark| mark.state == MarkState::Deferred);
        let marked = course.is_marked();
        let Some(active) = course.active.as_deref_mut() else { return };
        active.trust.stale = false;
        if active.accepted <= position {
            active.accepted = None;
        }
        let waits = deferred && active.retry_at.is_some_and(|at| at > now);
        self.drop_covered(slot);
        if waits && !self.is_left(slot) {
            // It was only looked at whether the mark still stands.
            return self.stand_still(slot, MarkState::Deferred, now);
        }
        if marked {
            self.begin_marked(slot, now);
        }
        self.goes_on(slot, now);
    }

    /// Somebody has changed how the root stands, and what was accepted here is not written: that first, then it is asked
    /// again.
    fn write_first(&mut self, slot: Slot, now: Instant) {
        if let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
            active.trust.stale = true;
        }
        self.enter(slot, Phase::Settling);
        self.mark_dirty(slot, now);
        self.flush_at_once(now);
        if self.is_left(slot) {
            self.leave(slot, now);
        }
    }

    fn stands_anew(&mut self, slot: Slot, standing: Standing, as_of: Instant, now: Instant) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        let accepted = course.active.as_deref().and_then(|active| active.accepted);
        let unmarked = course.mark.is_some() && standing.mark.is_none();
        let same_mark = course.mark.as_deref().map(|known| &known.mark) == standing.mark.as_ref();
        let met_on = unmarked.then(|| self.errand_of(slot)).flatten();
        let Some(course) = self.courses.get_mut(slot) else { return };
        course.stand(standing, as_of);
        // Of a root that was marked anew the table has the word: what was accepted beyond it is given again.
        let counts = course.mark.is_none() || (same_mark && !course.is_rewound());
        let unwritten = accepted.filter(|accepted| counts && Some(*accepted) > course.durable.known());
        if let Some(unwritten) = unwritten {
            course.sequencer.cover(unwritten);
        }
        if let Some(active) = course.active.as_deref_mut() {
            (active.accepted, active.trust.stale) = (unwritten, false);
        }
        if unwritten.is_some() {
            self.mark_dirty(slot, now);
        }
        self.drop_covered(slot);
        self.recheck_holes(slot);
        self.begin_marked(slot, now);
        if unmarked {
            // Rows were let go on the strength of a mark that somebody else has taken away: they are in the table.
            self.work_off(slot);
            if let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
                active.errand = met_on;
            }
        }
        self.goes_on(slot, now);
    }

    /// Its standing is known as of now.
    fn goes_on(&mut self, slot: Slot, now: Instant) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        if let Some(active) = course.active.as_deref_mut() {
            active.trust.fresh = true;
            active.trust.stale = course.asked_in < active.trust.needs_era;
        }
        self.enter(slot, Phase::Open);
        self.evaluate(slot, now);
        if let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
            active.trust.fresh = false;
        }
    }

    /// Asks how a root stands, and believes nothing of it until then.
    pub(crate) fn load_again(&mut self, slot: Slot) {
        if let Some(course) = self.courses.get_mut(slot) {
            course.durable = Durable::Unknown;
        }
        self.look_up(slot);
    }

    /// Asks how a root stands; that its position is behind what is known still holds.
    pub(crate) fn look_up(&mut self, slot: Slot) {
        self.enter(slot, Phase::Loading);
        self.to_load.push_back(slot);
    }

    /// A lane shows a root: true when what is known of it does not hold for that, because it was asked before the lane was
    /// taken over, or the root was about to be forgotten, or none but a job has met it.
    pub(crate) fn meet(&mut self, slot: Slot, lane: LaneId, made: bool, now: Instant) -> bool {
        let Some(state) = self.by_id.get(&lane) else { return false };
        let (era, lasting) = (state.era, state.branch.is_some());
        let Some(course) = self.courses.get_mut(slot) else { return false };
        if made {
            course.lasting = lasting;
            if let Some(standing) = self.known.standing(&course.root) {
                course.asked_in = self.era;
                course.stand(standing, now);
            }
            return false;
        }
        let joins_job = lasting && !course.lasting;
        course.lasting |= lasting;
        let older = course.durable != Durable::Unknown && course.asked_in < era;
        let Some(active) = course.active.as_deref_mut() else { return older };
        active.trust.needs_era = active.trust.needs_era.max(era);
        if older || active.leaving || joins_job {
            (active.trust.stale, active.let_go, active.leaving) = (true, true, false);
            return true;
        }
        false
    }

    /// Rows came by which nothing may be judged before it is asked again how the root stands; what is under way comes to
    /// its end first.
    pub(crate) fn ask_again(&mut self, slot: Slot, disbelieved: bool) {
        let Some(course) = self.courses.get(slot) else { return };
        let Some(phase) = course.active.as_deref().map(|active| active.phase) else { return };
        if phase.waits_for_the_stream() || (matches!(phase, Phase::Waiting(_)) && course.is_marked()) {
            if disbelieved { self.load_again(slot) } else { self.look_up(slot) }
        }
    }
}
