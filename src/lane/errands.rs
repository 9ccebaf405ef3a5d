//! Roots that are taken up though no lane shows them: deferred ones, as the tables list them, and those whose mark is
//! gone since `mark_ttl`.
//!
//! Other replicas may let go of a root's records on the strength of a mark that they remember for `mark_ttl`. So that long
//! after a mark was taken away the table is looked at once more. Invariant: nothing is taken up of a branch that this
//! process is not to work off.

use tokio::time::Instant;

use super::course::{Errand, Work};
use super::courses::Slot;
use super::{Effect, Lanes};
use crate::event::Root;
use crate::storage::{MarkState, Marked};
use crate::stream::{Branch, LaneId};

/// Deferred roots that are taken up at once.
const RESUMED_AT_ONCE_MAX: usize = 1000;

/// Roots whose mark is gone and that wait to be looked at, before no more are taken up.
const LOOKS_MAX: usize = 20_000;

/// A root to look at once more.
#[derive(Debug)]
pub(crate) struct Look {
    at: Instant,
    root: Root,
    branch: Option<Branch>,
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
    /// operator has released some. They are all there are.
    pub fn resume(&mut self, marked: Marked) {
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
                    self.send(slot, branch, false);
                    self.load_again(slot);
                }
                Some(active) if active.leaving => self.to_resume.push_back((root, branch)),
                // It is worked off, or waits for its time.
                Some(active) if deferred && active.phase != super::course::Phase::Marking => {}
                Some(active) if active.is_at_rest() => {
                    self.send(slot, branch, false);
                    self.load_again(slot);
                }
                Some(_) => self.to_resume.push_back((root, branch)),
            }
        }
    }

    /// Takes a root up for a branch.
    fn send(&mut self, slot: Slot, branch: Option<Branch>, looks: bool) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        let woken = course.active.is_none();
        course.activate().errand = Some(Errand { branch, looks });
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
        Some(Errand { branch: shown.or_else(known).or_else(marked), looks })
    }

    /// The mark of a root is gone: what others let go of on its strength is looked for, once they know.
    pub(crate) fn look_later(&mut self, root: &Root, branch: Option<Branch>, now: Instant) {
        self.looks.push_back(Look { at: now + self.settings.mark_ttl, root: root.clone(), branch });
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
        self.look_later(&root, branch, now);
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
            && let Some(Look { root, branch, .. }) = self.looks.pop_front()
        {
            if !self.works_off(branch.as_ref()) {
                continue;
            }
            let (slot, _) = self.courses.find_or_add(&root);
            let Some(course) = self.courses.get(slot) else { continue };
            if course.active.as_deref().is_some_and(|active| active.leaving) {
                self.look_later(&root, branch, now);
                continue;
            }
            let at_rest = course.active.as_deref().is_none_or(super::course::Active::is_at_rest);
            self.send(slot, branch, true);
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
