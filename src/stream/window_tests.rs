//! The window against its promise: every lane gets every record in order, however it lags, and what is kept is bounded.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::event::{Event, Root, Sequence};
use crate::stream::budget::Budget;
use crate::stream::{Change, Record, StreamSequence};

fn record(number: u64) -> Record {
    let event = Event {
        root: Root::new("orders", "", "r").unwrap(),
        sequence: Sequence(number),
        event_type: "T".into(),
        payload: vec![0; 100].into(),
        chunked: None,
        correlation_id: None,
        traceparent: None,
        created_at: Timestamp::from_unix_millis(0),
    };
    Record {
        sequence: StreamSequence::new(&(number + 1).to_string()),
        happened_at: Timestamp::from_unix_millis(i64::try_from(number).unwrap()),
        change: Change::Inserted(event),
    }
}

/// A shard of `total` records, read `page` at a time.
struct Shard {
    total: u64,
    page: u64,
    closed: bool,
}

impl Shard {
    fn read(&self, from: &StreamPoint) -> (Page, bool) {
        let first = match from {
            StreamPoint::Horizon => 0,
            StreamPoint::After(sequence) => sequence.to_string().parse::<u64>().unwrap(),
        };
        let last = (first + self.page).min(self.total);
        let records = (first..last).map(record).collect();
        let at_head = last == self.total;
        (Page::new(from.clone(), records, at_head && self.closed), at_head)
    }

    fn serve(&self, window: &mut Window, read: &Read) -> Vec<LaneId> {
        let (page, at_head) = self.read(&read.from);
        let room = Budget::new(1 << 30).try_reserve(page.memory_bytes).unwrap();
        window.insert(read.place, page, room, at_head.then(|| Timestamp::from_unix_millis(NOW)))
    }
}

const NOW: i64 = 5_000_000;

fn joined(lanes: u32) -> Window {
    let mut window = Window::new();
    for lane in 0..lanes {
        window.join(LaneId(lane), StreamPoint::Horizon, Timestamp::from_unix_millis(NOW));
    }
    window
}

fn sequences(page: &Page) -> Vec<u64> {
    page.runs.iter().flat_map(|run| &run.rows).map(|row| row.as_ref().unwrap().sequence.0).collect()
}

#[test]
fn three_lanes_share_one_read() {
    let shard = Shard { total: 3, page: 10, closed: false };
    let mut window = joined(3);
    assert!((0..3).all(|lane| window.take(LaneId(lane)).is_none()));
    let wanted = window.wanted();
    assert_eq!(wanted, [Read { place: ReadPlace::Head, from: StreamPoint::Horizon }]);
    assert_eq!(shard.serve(&mut window, &wanted[0]), [LaneId(0), LaneId(1), LaneId(2)]);
    for lane in 0..3 {
        assert_eq!(sequences(&window.take(LaneId(lane)).unwrap()), [0, 1, 2]);
    }
    assert!(window.pages.is_empty(), "a page that every lane took is dropped");
}

#[test]
fn a_page_read_for_lanes_that_have_left_is_not_given_to_one_that_stands_before_it() {
    let shard = Shard { total: 30, page: 10, closed: false };
    let mut window = Window::new();
    let now = Timestamp::from_unix_millis(NOW);
    window.join(LaneId(0), StreamPoint::After(StreamSequence::new("20")), now);
    let under_way = window.wanted().remove(0);
    window.leave(LaneId(0));
    window.join(LaneId(1), StreamPoint::Horizon, now);
    assert!(window.take(LaneId(1)).is_none());
    assert!(shard.serve(&mut window, &under_way).is_empty());
    let mut got = Vec::new();
    for _ in 0..3 {
        let read = window.wanted().remove(0);
        shard.serve(&mut window, &read);
        got.extend(sequences(&window.take(LaneId(1)).unwrap()));
    }
    assert_eq!(got, (0..30).collect::<Vec<_>>());
}

#[test]
fn reads_no_further_ahead_than_its_bound() {
    let shard = Shard { total: 100, page: 10, closed: false };
    let mut window = joined(1);
    let mut reads = 0;
    while let Some(read) = window.wanted().first().cloned() {
        shard.serve(&mut window, &read);
        reads += 1;
    }
    assert_eq!(reads, AHEAD_PAGES_MAX + 1);
    window.take(LaneId(0)).unwrap();
    assert_eq!(window.wanted().len(), 1);
}

#[test]
fn a_lane_that_falls_out_reads_for_itself_until_it_is_back() {
    let shard = Shard { total: 60, page: 10, closed: false };
    let mut window = joined(2);
    for _ in 0..5 {
        let read = window.wanted()[0].clone();
        shard.serve(&mut window, &read);
        window.trim(0);
        while window.take(LaneId(0)).is_some() {}
        window.trim(0);
    }
    assert!(window.take(LaneId(1)).is_none(), "its first page was dropped");
    let mut got = Vec::new();
    for _ in 0..20 {
        for read in window.wanted() {
            if read.place == ReadPlace::Behind(LaneId(1)) {
                shard.serve(&mut window, &read);
            }
        }
        while let Some(page) = window.take(LaneId(1)) {
            got.extend(sequences(&page));
        }
    }
    assert_eq!(got, (0..50).collect::<Vec<_>>());
    assert!(matches!(window.lanes[&LaneId(1)].place, Place::In(_)), "back in the window");
}

#[test]
fn the_age_of_what_waits_is_known_in_every_place() {
    let shard = Shard { total: 20, page: 10, closed: false };
    let at = Timestamp::from_unix_millis;
    let mut window = joined(1);
    assert_eq!(window.waiting_since(LaneId(0)), Some(at(NOW)), "nothing read yet");
    let read = window.wanted()[0].clone();
    shard.serve(&mut window, &read);
    assert_eq!(window.waiting_since(LaneId(0)), Some(at(0)), "the oldest record of the page that waits");
    window.take(LaneId(0));
    assert_eq!(window.waiting_since(LaneId(0)), Some(at(9)), "more is to be read, not older than this");
    let read = window.wanted()[0].clone();
    shard.serve(&mut window, &read);
    window.take(LaneId(0));
    assert_eq!(window.waiting_since(LaneId(0)), None, "at the head with everything taken");
}

fn after(number: u64) -> StreamPoint {
    StreamPoint::After(StreamSequence::new(&number.to_string()))
}

#[test]
fn a_lane_with_a_checkpoint_is_read_for_from_there() {
    let mut window = Window::new();
    window.join(LaneId(0), after(50), Timestamp::from_unix_millis(NOW));
    assert_eq!(window.wanted(), [Read { place: ReadPlace::Head, from: after(50) }]);
}

#[test]
fn the_most_advanced_lane_leads_and_the_others_catch_up_by_themselves() {
    let shard = Shard { total: 60, page: 10, closed: false };
    let mut window = joined(1);
    let stale = window.wanted()[0].clone();
    window.join(LaneId(1), after(50), Timestamp::from_unix_millis(NOW));
    assert!(shard.serve(&mut window, &stale).is_empty(), "the head has moved on");
    assert!(window.take(LaneId(0)).is_none() && window.take(LaneId(1)).is_none());
    let places: Vec<_> = window.wanted().into_iter().map(|read| (read.place, read.from)).collect();
    assert_eq!(places, [(ReadPlace::Head, after(50)), (ReadPlace::Behind(LaneId(0)), StreamPoint::Horizon)]);
    let (mut got, mut reads) = (Vec::new(), 0);
    while got.len() < 60 {
        for read in window.wanted() {
            shard.serve(&mut window, &read);
        }
        while let Some(page) = window.take(LaneId(0)) {
            got.extend(sequences(&page));
        }
        reads += 1;
        assert!(reads < 20);
    }
    assert_eq!(got, (0..60).collect::<Vec<_>>());
    assert_eq!(sequences(&window.take(LaneId(1)).unwrap()), (50..60).collect::<Vec<_>>());
    assert!(!window.is_behind(LaneId(0)), "back in the window");
}

proptest! {
    /// Lanes that pull, join and fall behind at random all get every record, in order, and the end; pages stay bounded.
    #[test]
    fn every_lane_gets_every_record(
        steps in proptest::collection::vec((0u8..4, 0u32..3), 0..200),
        starts in proptest::collection::vec(0u64..40, 3),
        kept in 0usize..8000,
        page in 1u64..20,
    ) {
        let shard = Shard { total: 60, page, closed: true };
        let mut window = Window::new();
        let mut got: BTreeMap<u32, (Vec<u64>, bool)> = BTreeMap::new();
        for (lane, start) in starts.iter().enumerate() {
            let lane = u32::try_from(lane).unwrap();
            let after = match start {
                0 => StreamPoint::Horizon,
                start => StreamPoint::After(StreamSequence::new(&start.to_string())),
            };
            window.join(LaneId(lane), after, Timestamp::from_unix_millis(NOW));
            got.insert(lane, (Vec::new(), false));
        }
        let drain = std::iter::repeat_n([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)], 200).flatten();
        for (act, pick) in steps.into_iter().chain(drain) {
            if act == 0 {
                if let Some(page) = window.take(LaneId(pick)) {
                    let (records, ended) = got.get_mut(&pick).unwrap();
                    prop_assert!(!*ended, "nothing follows the end");
                    records.extend(sequences(&page));
                    *ended = page.end;
                }
            } else {
                let wanted = window.wanted();
                if let Some(read) = wanted.get(pick as usize % wanted.len().max(1)) {
                    shard.serve(&mut window, read);
                    window.trim(kept);
                }
            }
        }
        for (lane, (records, ended)) in got {
            let mut seen = Vec::new();
            for sequence in records {
                if seen.last().is_none_or(|last| *last < sequence) {
                    seen.push(sequence);
                }
            }
            let start = starts[lane as usize];
            let from = seen.iter().position(|sequence| *sequence >= start).unwrap_or(seen.len());
            prop_assert_eq!(&seen[from..], &(start..60).collect::<Vec<_>>()[..], "lane {}", lane);
            prop_assert!(ended, "lane {} never saw the end", lane);
        }
    }
}

/// Lanes that take when they are told and wait otherwise, as a handler's task does.
struct Waiting {
    window: Window,
    shard: Shard,
    told: BTreeSet<LaneId>,
    ended: BTreeSet<LaneId>,
}

impl Waiting {
    /// True when it got a page; else it waits to be told.
    fn take(&mut self, lane: LaneId) -> bool {
        let Some(page) = self.window.take(lane) else {
            self.told.remove(&lane);
            return false;
        };
        if page.end {
            self.told.remove(&lane);
            self.ended.insert(lane);
        }
        true
    }

    /// A read of the shard brings what there is, or nothing though there is something, as the service may.
    fn read(&mut self, read: &Read, nothing: bool) {
        let ready = if nothing {
            let room = Budget::new(1 << 30).try_reserve(1).unwrap();
            self.window.insert(read.place, Page::new(read.from.clone(), Vec::new(), false), room, None)
        } else {
            self.shard.serve(&mut self.window, read)
        };
        self.told.extend(ready);
    }

    /// Gives up what was read for lanes that do not take it.
    fn give_back(&mut self) {
        for lane in self.window.lanes.values_mut() {
            if let Place::Behind(kept) = &mut lane.place {
                *kept = None;
            }
        }
        self.window.trim(0);
    }
}

proptest! {
    #[test]
    fn a_lane_that_waits_is_told_of_what_there_is(
        steps in proptest::collection::vec((0u8..6, any::<u8>()), 0..150),
        lanes in 1u32..4,
        page in 1u64..8,
    ) {
        let all: BTreeSet<LaneId> = (0..lanes).map(LaneId).collect();
        let shard = Shard { total: 20, page, closed: true };
        let mut waiting = Waiting { window: joined(lanes), shard, told: all.clone(), ended: BTreeSet::new() };
        for (step, pick) in steps {
            let wanted = waiting.window.wanted();
            let read = wanted.get(usize::from(pick) % wanted.len().max(1));
            let lane = waiting.told.iter().nth(usize::from(pick) % waiting.told.len().max(1)).copied();
            match (step, read, lane) {
                (0..=1, _, Some(lane)) => drop(waiting.take(lane)),
                (2..=3, Some(read), _) => waiting.read(read, false),
                (4, Some(read), _) => waiting.read(read, true),
                (5, ..) => waiting.give_back(),
                _ => {}
            }
        }
        for _ in 0..200 {
            for lane in waiting.told.clone() {
                while waiting.told.contains(&lane) && waiting.take(lane) {}
            }
            for read in waiting.window.wanted() {
                waiting.read(&read, false);
            }
        }
        prop_assert_eq!(waiting.ended, all, "a lane waits for ever");
    }
}

#[test]
fn a_page_kept_for_a_lane_that_does_not_take_it_is_given_back_where_room_is_wanted() {
    let shard = Shard { total: 40, page: 10, closed: false };
    let mut window = joined(2);
    // The first takes all, the second nothing: it falls behind, and a page is read for it.
    for _ in 0..8 {
        let read = window.wanted().into_iter().find(|read| read.place == ReadPlace::Head);
        if let Some(read) = read {
            shard.serve(&mut window, &read);
        }
        while window.take(LaneId(0)).is_some() {}
        window.trim(0);
    }
    assert!(window.take(LaneId(1)).is_none());
    let read = window.wanted().into_iter().find(|read| read.place == ReadPlace::Behind(LaneId(1))).unwrap();
    let budget = Budget::new(100);
    let (page, _) = shard.read(&read.from);
    let room = budget.try_reserve(100).unwrap();
    window.insert(read.place, page, room, None);
    window.give_back(LaneId(1));
    assert_eq!(budget.used_bytes(), 100, "nobody waits for it");
    let waiting = budget.clone();
    let mut waits = std::pin::pin!(async move { waiting.reserve(50).await });
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    window.give_back(LaneId(1));
    assert!(waits.as_mut().poll(&mut context).is_ready());
    // It is read again when the lane asks for it, and nothing is left out.
    assert!(window.wanted().iter().all(|read| read.place != ReadPlace::Behind(LaneId(1))));
    assert!(window.take(LaneId(1)).is_none());
    let again = window.wanted().into_iter().find(|read| read.place == ReadPlace::Behind(LaneId(1))).unwrap();
    assert_eq!(again.from, read.from);
}
