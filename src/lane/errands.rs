//! Roots that are taken up though no lane shows them: deferred ones, as the tables list them, and those whose mark is
//! gone since `mark_ttl`.
//!
//! Other replicas may let go of a root's records on the strength of a mark that they remember for `mark_ttl`. So some time
//! longer after a mark was taken away the table is looked at once more; until then what is left of the mark is durable, and
//! whoever takes over finds it. Invariant: nothing is taken up of a branch that this
//! process is not to work off.

use std::collections::HashSet;

use tokio::time::Instant;

use super::course::{Errand, Phase, Work};
use super::courses::Slot;
use super::{Effect, Lanes};
use crate::event::Root;
use crate::failpoint::{self, Failpoint};
use crate::storage::{Ending, MarkState, Marked};
use crate::stream::{Branch, LaneId};

/// Deferred roots that are taken up at once.
const RESUMED_AT_ONCE_MAX: usize = 1000;

/// Roots whose mark is gone and that wait to be looked at, before no more are taken up.
const LOOKS_MAX: usize = 20_000;

/// Clocks of replicas may differ by this part of `mark_ttl`: so much longer is waited before a root is looked at.
const MARGIN_PART: u32 = 4;

/// A root to look at once more.
#[derive(Debug)]
pub(crate) struct Look {
    at: Instant,
    root: Root,
    branch: Option<Branch>,
    /// What is left of its mark.
    ending: Option<Ending>,
}

/// When the marked roots are to be listed.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    at: Option<Instant>,
    /// When the last lane was taken over.
    taken_at: Option<Instant>,
}

impl Lanes {
    /// A lane was taken over: whoever had it may have left deferred roots, and what it was writing then may come late.
    pub(crate) fn list_marks(&mut self, now: Instant) {
        self.listing = Listing { at: Some(now), taken_at: Some(now) };
    }

    pub(crate) fn next_listing_at(&self) -> Option<Instant> {
        self.listing.at.filter(|_| !self.draining)
    }

    /// Lists the marked roots when a lane was taken over, and once more `mark_ttl` later.
    pub(crate) fn next_listing(&mut self, now: Instant) -> Option<Effect> {
        self.next_listing_at().filter(|at| *at <= now)?;
        let late = self.listing.taken_at.map(|taken_at| taken_at + self.settings.mark_ttl);
        self.listing.at = late.filter(|late| *late > now);
        Some(Effect::List)
    }

    /// Whether this process goes on with deferred roots of a branch, or of none. Not while a lane of it closes, unless
    /// another one goes on.
    pub(crate) fn works_off(&self, branch: Option<&Branch>) -> bool {
        let on = |closing: bool| {
            self.by_id.values().any(|lane| lane.is_closing() == closing && lane.branch.as_ref() == branch)
        };
        let closes = branch.is_some() && !self.closings.is_empty() && on(true) && !on(false);
        !closes && (self.works_off.0)(branch)
    }

    /// Goes on with roots that are deferred, as the tables say: at the start, when a lane was taken over, and when an
    /// operator has released some. They are all there are. Those whose mark is gone are looked at later.
    pub fn resume(&mut self, marked: Marked, now: Instant) {
        let awaited: HashSet<(Root, Ending)> =
            self.looks.iter().filter_map(|look| Some((look.root.clone(), look.ending.clone()?))).collect();
        for (root, ending) in marked.ending {
            let is_looked_at = || self.is_ending(&root, &ending);
            if self.looks.len() >= LOOKS_MAX {
                // Nobody else looks at the rest: they are listed again.
                self.listing.at = Some(now + self.settings.mark_ttl);
                break;
            }
            if self.works_off(ending.branch.as_ref())
                && !is_looked_at()
                && !awaited.contains(&(root.clone(), ending.clone()))
            {
                self.look_later(&root, ending.branch.clone(), Some(ending), now);
            }
        }
        self.to_resume = marked.deferred.into_iter().filter(|(_, branch)| self.works_off(branch.as_ref())).collect();
        self.parked = marked.parked;
        self.resume_next();
    }

    /// Goes on with as many of them as there is room for. One that is busy is looked at again later.
    pub(crate) fn resume_next(&mut self) {
        for _ in 0..self.to_resume.len().min(RESUMED_AT_ONCE_MAX) {
            if self.courses.active() >= self.settings.stuck_roots_max || self.looks.len() >= LOOKS_MAX {
                return;
            }
            let Some((root, branch)) = self.to_resume.pop_front() else { return };
            if !self.subscription.covers(&root) || !self.works_off(branch.as_ref()) {
                continue;
            }
            let (slot, _) = self.courses.find_or_add(&root);
            let Some(course) = self.courses.get_mut(slot) else { continue };
            let deferred = course.mark.as_deref().is_some_and(|mark| mark.state == MarkState::Deferred);
            match course.active.as_deref() {
                None => {
                    self.send(slot, (branch, None), false);
                    self.load_again(slot);
                }
                Some(active) if active.leaving => self.to_resume.push_back((root, branch)),
                // It is worked off, or waits for its time.
                Some(active) if deferred && active.phase != Phase::Marking => {}
                Some(active) if active.is_at_rest() => {
                    self.send(slot, (branch, None), false);
                    self.load_again(slot);
                }
                Some(_) => self.to_resume.push_back((root, branch)),
            }
        }
    }

    /// Whether a root is being looked at for what is left of its mark.
    fn is_ending(&self, root: &Root, ending: &Ending) -> bool {
        let course = self.courses.find(root).and_then(|slot| self.courses.get(slot));
        let errand = course.and_then(|course| course.active.as_deref()?.errand.as_ref());
        errand.is_some_and(|errand| errand.ending.as_ref() == Some(ending))
    }

    /// What is left of a root's mark and may go now that the root was looked at.
    pub(crate) fn ended(&self, slot: Slot) -> Option<Ending> {
        let course = self.courses.get(slot).filter(|course| course.mark.is_none())?;
        let active = course.active.as_deref().filter(|active| active.work == Work::AtEnd && !active.looks())?;
        active.errand.as_ref()?.ending.clone()
    }

    /// What was left of a root's mark is gone, or something else is in its place.
    pub(crate) fn forgotten(&mut self, slot: Slot, now: Instant) {
        if let Some(active) = self.courses.get_mut(slot).and_then(|course| course.active.as_deref_mut()) {
            active.errand.iter_mut().for_each(|errand| errand.ending = None);
        }
        self.enter(slot, Phase::Open);
        self.evaluate(slot, now);
    }

    /// Takes a root up for a branch, and for what is left of its mark.
    fn send(&mut self, slot: Slot, (branch, ending): (Option<Branch>, Option<Ending>), looks: bool) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        let woken = course.active.is_none();
        course.activate().errand = Some(Errand { branch, looks, ending });
        if woken {
            self.courses.count_active();
        }
    }

    /// The errand that goes on with a root whose mark is gone, once no lane needs what it has shown any more.
    pub(crate) fn errand_of(&self, slot: Slot) -> Option<Errand> {
        let course = self.courses.get(slot)?;
        let active = course.active.as_deref()?;
        let shown = active.pins.iter().find_map(|pin| self.by_id.get(&pin.lane)?.branch.clone());
        let looks = active.looks();
        let known = || active.errand.as_ref().and_then(|errand| errand.branch.clone());
        let marked = || course.mark.as_deref().and_then(|mark| mark.branch.clone());
        let ending = active.errand.as_ref().and_then(|errand| errand.ending.clone());
        Some(Errand { branch: shown.or_else(known).or_else(marked), looks, ending })
    }

    /// The mark of a root is gone: what others let go of on its strength is looked for, once they know.
    pub(crate) fn look_later(&mut self, root: &Root, branch: Option<Branch>, ending: Option<Ending>, now: Instant) {
        let at = now + self.settings.mark_ttl + self.settings.mark_ttl / MARGIN_PART;
        let at = if failpoint::is_set(Failpoint::MarkForgottenAtOnce) { now } else { at };
        self.looks.push_back(Look { at, root: root.clone(), branch, ending });
    }

    /// What a lane shows of a marked root is let go of: whoever works the root off finds it. Should that be another, who may
    /// have taken the mark away since it was read here, it is looked for once that is known. False when there is no room for
    /// that: then it is asked at once how the root stands.
    pub(crate) fn will_look(&mut self, slot: Slot, shown_by: Option<LaneId>, now: Instant) -> bool {
        let Some(course) = self.courses.get(slot) else { return true };
        let Some(mark) = course.mark.as_deref() else { return true };
        let is_others = mark.state == MarkState::Deferred && !self.works_off(mark.branch.as_ref());
        if !is_others || mark.looked_for {
            return true;
        }
        if self.looks.len() >= LOOKS_MAX {
            return false;
        }
        let branch = shown_by.and_then(|lane| self.by_id.get(&lane)?.branch.clone());
        let root = course.root.clone();
        self.look_later(&root, branch, None, now);
        if let Some(mark) = self.courses.get_mut(slot).and_then(|course| course.mark.as_deref_mut()) {
            mark.looked_for = true;
        }
        true
    }

    /// When the next root is to be looked at.
    pub(crate) fn next_look_at(&self) -> Option<Instant> {
        self.looks.front().map(|look| look.at).filter(|_| !self.draining)
    }

    /// Looks at the roots whose time has come.
    pub(crate) fn look(&mut self, now: Instant) {
        while self.next_look_at().is_some_and(|at| at <= now)
            && let Some(Look { root, branch, ending, .. }) = self.looks.pop_front()
        {
            if !self.works_off(branch.as_ref()) {
                continue;
            }
            let (slot, _) = self.courses.find_or_add(&root);
            let Some(course) = self.courses.get(slot) else { continue };
            if course.active.as_deref().is_some_and(|active| active.leaving) {
                self.look_later(&root, branch, ending, now);
                continue;
            }
            let at_rest = course.active.as_deref().is_none_or(super::course::Active::is_at_rest);
            self.send(slot, (branch, ending), true);
            if at_rest {
                self.load_again(slot);
            }
        }
    }

    /// Begins to look at what lies behind the position of a root with nothing else to do; false when it is first to be
    /// asked how it stands.
    pub(crate) fn begin_look(&mut self, slot: Slot) -> bool {
        let Some(course) = self.courses.get_mut(slot) else { return true };
        let marked = course.mark.is_some();
        let Some(active) = course.active.as_deref_mut() else { return true };
        if active.trust.fresh {
            active.errand.iter_mut().for_each(|errand| errand.looks = false);
            // At the end of the work on its mark it is looked at again.
            if !marked {
                active.work = Work::Begun;
            }
        }
        active.trust.fresh
    }
}
