//! The page window of one shard: the pages read and not yet taken by every lane, and each lane's place among them.
//!
//! Pure: it decides what to read next and who gets which page; the reading is `reader`'s. Every lane pulls at its own
//! pace. The most advanced lane leads: the window reads ahead of it by a few pages. Pages that only slower lanes still
//! need are kept up to a bound; a lane whose page was dropped is *behind* and gets pages read for itself, one at a
//! time, until it meets the window again.
//!
//! Invariants: a lane is given every record behind the place it joined at, in shard order, perhaps some of them twice
//! where it meets the window again; what is kept beyond the leader's need never exceeds the bound it is trimmed to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::budget::Room;
use super::{Page, StreamPoint};
use crate::event::Timestamp;

/// One lane's number among all lanes of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u32);

/// How many pages are read ahead of the leading lane.
const AHEAD_PAGES_MAX: u64 = 2;

/// What to read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) place: ReadPlace,
    pub(crate) from: StreamPoint,
}

/// For whom a read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ReadPlace {
    /// For the window, in front of all pages.
    Head,
    /// For one lane that is behind the window.
    Behind(LaneId),
}

#[derive(Debug)]
struct Kept {
    page: Arc<Page>,
    room: Room,
}

#[derive(Debug)]
struct Lane {
    after: StreamPoint,
    place: Place,
    wants: bool,
    ended: bool,
    reached_at: Timestamp,
}

#[derive(Debug)]
enum Place {
    /// The number of the page to take next.
    In(u64),
    /// Behind the window, perhaps with a page read for it.
    Behind(Option<Kept>),
}

/// The window of one shard.
#[derive(Debug)]
pub(crate) struct Window {
    pages: VecDeque<Kept>,
    first: u64,
    head: StreamPoint,
    at_head: bool,
    /// When the shard was last read to its head.
    head_at: Option<Timestamp>,
    lanes: BTreeMap<LaneId, Lane>,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            pages: VecDeque::new(),
            first: 0,
            head: StreamPoint::Horizon,
            at_head: false,
            head_at: None,
            lanes: BTreeMap::new(),
        }
    }

    fn next_number(&self) -> u64 {
        self.first + self.pages.len() as u64
    }

    /// Lets a lane in, which has what is up to `after`; `now` stands for the age of what it has not seen.
    pub(crate) fn join(&mut self, lane: LaneId, after: StreamPoint, now: Timestamp) {
        let lane_state = Lane { after, place: Place::Behind(None), wants: true, ended: false, reached_at: now };
        // The most advanced lane leads from the start: nothing before its place is read for its sake.
        if lane_state.after > self.head {
            self.move_head(lane_state.after.clone());
        }
        self.lanes.insert(lane, lane_state);
        self.readmit(lane);
    }

    /// Forgets a lane.
    pub(crate) fn leave(&mut self, lane: LaneId) {
        self.lanes.remove(&lane);
        self.drop_taken();
    }

    pub(crate) fn is_deserted(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The next page for a lane; none when it must wait, which is remembered.
    pub(crate) fn take(&mut self, id: LaneId) -> Option<Arc<Page>> {
        let (first, next) = (self.first, self.next_number());
        let lane = self.lanes.get_mut(&id).filter(|lane| !lane.ended)?;
        if let Place::In(number) = lane.place
            && number < first
        {
            lane.place = Place::Behind(None);
        }
        // What it waits for may have been read for others: nobody would tell it later.
        self.readmit(id);
        let lane = self.lanes.get_mut(&id)?;
        let page = match &mut lane.place {
            Place::Behind(kept) => kept.take().map(|kept| kept.page),
            Place::In(number) => {
                let mut found = None;
                while *number < next && found.is_none() {
                    let page = &self.pages[usize::try_from(*number - first).unwrap_or(usize::MAX)].page;
                    *number += 1;
                    found = (page.end || page.through > lane.after).then(|| page.clone());
                }
                found
            }
        };
        lane.wants = page.is_none();
        if let Some(page) = &page {
            lane.after = page.through.clone().max(lane.after.clone());
            lane.ended |= page.end;
            lane.reached_at = page.newest_at.unwrap_or(lane.reached_at);
        }
        self.readmit(id);
        self.drop_taken();
        page
    }

    /// Gives up what is kept for a lane that does not take it, where others wait for the room: the page that was read for it
    /// alone, and what the leading lane has taken already. It is read again when the lane asks for it.
    pub(crate) fn give_back(&mut self, id: LaneId) {
        let is_wanted = |kept: Option<&Kept>| kept.is_some_and(|kept| kept.room.is_wanted());
        match self.lanes.get_mut(&id).map(|lane| &mut lane.place) {
            Some(Place::Behind(kept)) if is_wanted(kept.as_ref()) => *kept = None,
            Some(Place::In(_)) if is_wanted(self.pages.front()) => self.trim(0),
            _ => {}
        }
    }

    /// A lane that is behind comes back in where the window holds what follows for it.
    fn readmit(&mut self, id: LaneId) {
        let next = self.next_number();
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if !matches!(lane.place, Place::Behind(None)) {
            return;
        }
        let follows = |page: &Page| page.before <= lane.after && (page.end || lane.after < page.through);
        let meets = self.pages.iter().position(|kept| follows(&kept.page));
        if let Some(index) = meets {
            lane.place = Place::In(self.first + index as u64);
        } else if lane.after >= self.head {
            lane.place = Place::In(next);
        }
    }

    /// What to read next: each place that is wanted, in the order of `turn`, which counts up per place.
    pub(crate) fn wanted(&mut self) -> Vec<Read> {
        if !self
            .lanes
            .values()
            .any(|lane| matches!(lane.place, Place::In(number) if number >= self.first) && !lane.ended)
        {
            self.follow_the_most_advanced();
        }
        let next = self.next_number();
        let mut wanted = Vec::new();
        let leads = |lane: &Lane| matches!(lane.place, Place::In(number) if number + AHEAD_PAGES_MAX >= next);
        let ended = self.pages.back().is_some_and(|kept| kept.page.end);
        if !ended && self.lanes.values().any(|lane| !lane.ended && leads(lane)) {
            wanted.push(Read { place: ReadPlace::Head, from: self.head.clone() });
        }
        for (id, lane) in &self.lanes {
            let behind = match lane.place {
                Place::In(number) => number < self.first,
                Place::Behind(ref kept) => kept.is_none(),
            };
            if behind && lane.wants && !lane.ended {
                wanted.push(Read { place: ReadPlace::Behind(*id), from: lane.after.clone() });
            }
        }
        wanted
    }

    /// With nobody in the window it may as well stand where the most advanced lane is.
    fn follow_the_most_advanced(&mut self) {
        let lanes = self.lanes.iter().filter(|(_, lane)| !lane.ended && matches!(lane.place, Place::Behind(None)));
        let Some((&id, lane)) = lanes.max_by(|(_, one), (_, two)| one.after.cmp(&two.after)) else { return };
        self.move_head(lane.after.clone());
        let number = self.first;
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.place = Place::In(number);
        }
    }

    /// Begins anew at another place: whoever stood in the window is behind it.
    fn move_head(&mut self, to: StreamPoint) {
        for lane in self.lanes.values_mut().filter(|lane| matches!(lane.place, Place::In(_))) {
            lane.place = Place::Behind(None);
        }
        self.head = to;
        self.first = self.next_number();
        self.pages.clear();
        (self.at_head, self.head_at) = (false, None);
    }

    /// Whether a lane still reads for itself.
    pub(crate) fn is_behind(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_some_and(|lane| match lane.place {
            Place::Behind(_) => true,
            Place::In(number) => number < self.first,
        })
    }

    /// The head could not be read: nobody knows what is there.
    pub(crate) fn lost_head(&mut self) {
        self.at_head = false;
    }

    /// Takes in a page that was read; answers which lanes can go on. `at_head`: the shard had no more than this, then.
    pub(crate) fn insert(
        &mut self,
        place: ReadPlace,
        page: Page,
        room: Room,
        at_head: Option<Timestamp>,
    ) -> Vec<LaneId> {
        let kept = Kept { page: Arc::new(page), room };
        match place {
            // The head has moved on while this was being read.
            ReadPlace::Head if kept.page.before != self.head => Vec::new(),
            ReadPlace::Head => {
                self.at_head = at_head.is_some();
                self.head_at = at_head.or(self.head_at);
                self.head = kept.page.through.clone();
                if kept.page.records > 0 || kept.page.end {
                    self.pages.push_back(kept);
                }
                let next = self.next_number();
                let waiting = |lane: &&mut Lane| lane.wants && matches!(lane.place, Place::In(number) if number < next);
                let mut ready = Vec::new();
                for (id, lane) in &mut self.lanes {
                    if waiting(&lane) {
                        lane.wants = false;
                        ready.push(*id);
                    }
                }
                ready
            }
            ReadPlace::Behind(id) => {
                let Some(lane) = self.lanes.get_mut(&id) else { return Vec::new() };
                if kept.page.records == 0 && !kept.page.end {
                    lane.after = kept.page.through.clone().max(lane.after.clone());
                    lane.place = Place::Behind(None);
                } else {
                    lane.place = Place::Behind(Some(kept));
                    lane.wants = false;
                    return vec![id];
                }
                self.readmit(id);
                let next = self.next_number();
                let Some(lane) = self.lanes.get_mut(&id) else { return Vec::new() };
                // It is back in the window: what lies there for it is told now, for perhaps nothing is ever read again.
                let meets = matches!(lane.place, Place::In(number) if number < next);
                if meets && std::mem::take(&mut lane.wants) { vec![id] } else { Vec::new() }
            }
        }
    }

    /// A place could not be read on from where it stood: what lay there is gone, and reading goes on at the horizon.
    /// Answers the lanes that had not been given it; one that began at the horizon anyway has lost nothing.
    pub(crate) fn trimmed(&mut self, place: ReadPlace) -> Vec<LaneId> {
        match place {
            ReadPlace::Head => {
                let began = std::mem::replace(&mut self.head, StreamPoint::Horizon);
                if began == StreamPoint::Horizon { Vec::new() } else { self.unfinished() }
            }
            ReadPlace::Behind(id) => {
                let Some(lane) = self.lanes.get_mut(&id) else { return Vec::new() };
                let began = std::mem::replace(&mut lane.after, StreamPoint::Horizon);
                if began == StreamPoint::Horizon { Vec::new() } else { vec![id] }
            }
        }
    }

    /// The lanes that have not been given the end of the shard.
    pub(crate) fn unfinished(&self) -> Vec<LaneId> {
        self.lanes.iter().filter(|(_, lane)| !lane.ended).map(|(id, _)| *id).collect()
    }

    fn drop_taken(&mut self) {
        let needed = (self.lanes.values())
            .filter(|lane| !lane.ended)
            .filter_map(|lane| if let Place::In(number) = lane.place { Some(number) } else { None })
            .min();
        let needed = needed.unwrap_or_else(|| self.next_number());
        self.drop_before(needed);
    }

    fn drop_before(&mut self, number: u64) {
        while self.first < number && self.pages.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// Drops the oldest pages that the leading lane has taken, until those kept for slower lanes are within
    /// `kept_bytes_max`.
    pub(crate) fn trim(&mut self, kept_bytes_max: usize) {
        let numbers =
            self.lanes.values().filter_map(|lane| if let Place::In(number) = lane.place { Some(number) } else { None });
        let Some(leader) = numbers.max() else { return };
        let taken = usize::try_from(leader.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.pages.len());
        let mut bytes: usize = self.pages.iter().take(taken).map(|kept| kept.page.memory_bytes).sum();
        while bytes > kept_bytes_max && self.first < leader {
            let Some(kept) = self.pages.pop_front() else { return };
            bytes -= kept.page.memory_bytes;
            self.first += 1;
        }
    }

    /// Since when a lane has something to take or to read: the age of the oldest record it was not given; none when it
    /// has all.
    pub(crate) fn waiting_since(&self, id: LaneId) -> Option<Timestamp> {
        let lane = self.lanes.get(&id)?;
        match &lane.place {
            _ if lane.ended => None,
            Place::In(number) if *number >= self.next_number() => {
                let known_at = self.head_at.map_or(lane.reached_at, |head_at| head_at.max(lane.reached_at));
                (!self.at_head).then_some(known_at)
            }
            Place::In(number) if *number >= self.first => {
                let index = usize::try_from(*number - self.first).unwrap_or(usize::MAX);
                self.pages.get(index).and_then(|kept| kept.page.oldest_at).or(Some(lane.reached_at))
            }
            Place::In(_) => Some(lane.reached_at),
            Place::Behind(kept) => kept.as_ref().and_then(|kept| kept.page.oldest_at).or(Some(lane.reached_at)),
        }
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
