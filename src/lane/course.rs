//! The course of one root for one handler: its sequencer, its durable position, and, while something is to be done,
//! what waits.
//!
//! Pure state; what moves it is in `intake`, `placing`, `dispatch`, `flush` and `marks`. Invariants: `queue` is strictly
//! increasing in sequence and holds nothing below the sequencer's next; whatever is seen and neither covered nor
//! queued can be fetched again by its sequence.

use std::collections::VecDeque;
use std::ops::Deref;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Sequencer, Subscription};
use crate::event::{Root, Sequence};
use crate::failpoint::{self, Failpoint};
use crate::storage::{Ending, Mark, Passed, Standing};
use crate::stream::{Branch, LaneId, RunRow, row_sequence};

/// What the positions table holds for the root, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    /// Not asked yet, or asked and not answered.
    Unknown,
    /// No position.
    Absent,
    /// This one.
    At(Sequence),
}

impl Durable {
    pub(crate) fn known(self) -> Option<Sequence> {
        match self {
            Self::At(sequence) => Some(sequence),
            Self::Unknown | Self::Absent => None,
        }
    }
}

/// A mark, and since when it is known.
#[derive(Debug)]
pub(crate) struct KnownMark {
    pub(crate) mark: Mark,
    pub(crate) as_of: Instant,
    /// Something was let go of on its strength, and will be looked for.
    pub(crate) looked_for: bool,
}

impl Deref for KnownMark {
    type Target = Mark;

    fn deref(&self) -> &Mark {
        &self.mark
    }
}

/// One root for one handler.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) root: Root,
    pub(crate) sequencer: Sequencer,
    pub(crate) durable: Durable,
    /// Its durable mark, when it is not in its normal course.
    pub(crate) mark: Option<Box<KnownMark>>,
    /// Holes that were passed; an event that appears in one is no repeat.
    pub(crate) passed: Option<Box<Passed>>,
    /// Events left out by type since the position was last written.
    pub(crate) filtered: u32,
    /// Met since the last sweep of idle courses.
    pub(crate) referenced: bool,
    /// It may be remembered when nothing is left to do: its root was met where a lease says that nobody else moves it.
    pub(crate) lasting: bool,
    /// The era in which it was asked how it stands: lanes taken over since know more.
    pub(crate) asked_in: u32,
    /// Told apart from earlier uses of the same slot, and from earlier phases of the same course.
    pub(crate) generation: u64,
    pub(crate) active: Option<Box<Active>>,
}

/// What a root has while something is to be done for it.
#[derive(Debug, Default)]
pub(crate) struct Active {
    pub(crate) queue: VecDeque<RunRow>,
    pub(crate) queued_bytes: usize,
    /// The highest sequence the stream has shown.
    pub(crate) seen: Option<Sequence>,
    pub(crate) phase: Phase,
    /// Why it is counted as stuck.
    pub(crate) stuck: Option<Why>,
    pub(crate) pins: SmallVec<[Pin; 1]>,
    /// The last accepted event whose position is not durable.
    pub(crate) accepted: Option<Sequence>,
    /// The position being written.
    pub(crate) flushing: Option<Sequence>,
    /// In the list of positions to write.
    pub(crate) dirty: bool,
    pub(crate) failures: u32,
    /// Since when it fails.
    pub(crate) failing_since: Option<Instant>,
    /// Up to here the handler is given one event at a time, so that it is known which one fails.
    pub(crate) singly: Option<Sequence>,
    pub(crate) work: Work,
    /// When a deferred root is tried again.
    pub(crate) retry_at: Option<Instant>,
    /// Since when a gap before this sequence waits.
    pub(crate) gap: Option<(Sequence, Instant)>,
    /// Up to where the table was asked for missing rows.
    pub(crate) asked: Option<Sequence>,
    /// Since when the table was seen without this sequence.
    pub(crate) hole: Option<(Sequence, Instant)>,
    /// Rows that were seen were let go, or never kept: a gap before the queue is filled from the table at once.
    pub(crate) let_go: bool,
    /// The first event that appeared in a passed hole, and is not parked for that yet.
    pub(crate) filled: Option<Sequence>,
    /// Rows were let go that may lie in a passed hole: those from here on are looked at in the table.
    pub(crate) recheck: Option<Sequence>,
    /// The hole, or the row that cannot be read, that was reported.
    pub(crate) reported: Option<Sequence>,
    /// When the course last came on.
    pub(crate) moved_at: Option<Instant>,
    pub(crate) trust: Trust,
    /// Only lanes that close hold it: it comes to its end.
    pub(crate) leaving: bool,
    /// It was taken up without a row of a lane, for this branch.
    pub(crate) errand: Option<Errand>,
}

/// Why a root is taken up that no lane has shown: its mark was listed, or is gone since a while.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) branch: Option<Branch>,
    /// The table is to be looked at once for what lies behind its position.
    pub(crate) looks: bool,
    /// What is left of its mark, and goes when it was looked at.
    pub(crate) ending: Option<Ending>,
}

/// How far what is known of a root's standing is believed.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// Somebody else has changed how it stands, or may have: it is to be read again.
    pub(crate) stale: bool,
    /// It was read this very moment.
    pub(crate) fresh: bool,
    /// Rows came in a lane that was taken over in this era.
    pub(crate) needs_era: u32,
    /// When it was asked for, or, where that was not needed, when it is known to have held.
    pub(crate) asked_at: Option<Instant>,
}

/// How far a marked root is worked off from the table. From the beginning of the work new rows are taken, and pinned, as
/// usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Work {
    /// There is none: the root is not marked, or stands still.
    #[default]
    None,
    /// The rest of the table is to be read.
    Begun,
    /// A read to the end of the table is under way.
    Reading,
    /// It showed the end: what comes later comes by the stream.
    AtEnd,
}

/// Where a root stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its position is being loaded.
    Loading,
    /// Nothing is under way.
    #[default]
    Open,
    /// In the queue of roots to deliver.
    Ready,
    /// With the handler.
    InFlight,
    /// Until a timer.
    Waiting(Why),
    /// Its missing rows are being read from the table.
    Repairing,
    /// Accepted, and held until its position is written.
    Settling,
    /// Until its mark is written or taken away, or a passed event is recorded.
    Marking,
}

impl Phase {
    /// Whether nothing is under way but, perhaps, the wait for the stream to bring what is missing.
    pub(crate) fn waits_for_the_stream(self) -> bool {
        matches!(self, Self::Open | Self::Waiting(Why::Gap))
    }
}

/// Why a root waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// For the stream to bring what is missing.
    Gap,
    /// For the table to show what is missing.
    Hole,
    /// To be tried again.
    Retry,
    /// Stopped: the handler refused the event for good, the row cannot be read, or the table has a hole.
    Blocked,
}

/// Rows of a root on a page of a lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pin {
    pub(crate) lane: LaneId,
    pub(crate) page: u64,
    pub(crate) last: Sequence,
    pub(crate) delivered: bool,
}

/// What became of a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pinned {
    /// Its page is to be pinned.
    Page,
    /// An older pin of the lane stands for it as well; one whose rows were all delivered has some again that are not.
    Merged { reopened: Option<u64> },
}

/// A root with more pins than this merges the newest: a stuck root costs so many at most.
const PINS_MAX: usize = 8;

impl Course {
    pub(crate) fn new(root: Root) -> Self {
        Self {
            root,
            sequencer: Sequencer::from_position(None),
            durable: Durable::Unknown,
            mark: None,
            passed: None,
            filtered: 0,
            referenced: true,
            lasting: true,
            asked_in: 0,
            generation: 0,
            active: None,
        }
    }

    pub(crate) fn activate(&mut self) -> &mut Active {
        self.referenced = true;
        self.active.get_or_insert_default()
    }

    /// Takes what the positions table said then.
    pub(crate) fn stand(&mut self, standing: Standing, as_of: Instant) {
        self.durable = standing.position.map_or(Durable::Absent, Durable::At);
        let back = standing.mark.as_ref().filter(|mark| mark.rewound && Some(mark.sequence) <= standing.position);
        let back = back.filter(|_| !failpoint::is_set(Failpoint::RewindIgnored));
        self.sequencer = match back {
            Some(mark) => Sequencer::ordered_back(mark.sequence),
            None => Sequencer::from_position(standing.position),
        };
        self.mark = standing.mark.map(|mark| Box::new(KnownMark { mark, as_of, looked_for: false }));
        self.passed = standing.passed;
    }

    /// How it stands with all that is covered so far.
    pub(crate) fn standing(&self) -> Standing {
        let position = self.sequencer.covered().max(self.durable.known());
        let mark = self.mark.as_deref().map(|known| known.mark.clone());
        Standing { position, mark, passed: self.passed.clone() }
    }

    /// Whether it was ordered back and what is next lies at or before the durable position, which stays until it is
    /// reached again.
    pub(crate) fn is_rewound(&self) -> bool {
        let next = self.sequencer.next();
        self.mark.as_deref().is_some_and(|mark| mark.rewound)
            && self.durable.known().is_some_and(|durable| next <= durable)
    }

    /// Whether somebody else has changed how it stands.
    pub(crate) fn is_stale(&self) -> bool {
        self.active.as_deref().is_some_and(|active| active.trust.stale)
    }

    /// Whether a durable mark stands for all its events: they come from the table when it goes on.
    pub(crate) fn is_marked(&self) -> bool {
        self.mark.is_some() && !self.active.as_deref().is_some_and(|active| active.work != Work::None)
    }

    /// Up to where the root is covered for a checkpoint: by a mark, by the durable position, or, with no accepted event
    /// unwritten, by the subscription and the start as well; never beyond what appeared in a passed hole, or may have. None
    /// when nothing is.
    pub(crate) fn settled(&self) -> Option<Sequence> {
        if self.durable == Durable::Unknown {
            return None;
        }
        if let Some(active) = self.active.as_deref() {
            if active.trust.stale {
                return None;
            }
            if let Some(unseen) = active.filled.into_iter().chain(active.recheck).min() {
                return unseen.previous();
            }
        }
        if self.is_marked() {
            return Some(Sequence(u64::MAX));
        }
        match self.active.as_deref().and_then(|active| active.accepted) {
            None => self.sequencer.next().previous().max(self.durable.known()),
            Some(accepted) if failpoint::is_set(Failpoint::CheckpointAheadOfFlush) => Some(accepted),
            Some(_) => self.durable.known(),
        }
    }
}

/// Whether a row lies in a hole that was passed, though the handler wants it, or nobody can tell.
pub(crate) fn fills(passed: Option<&Passed>, row: &RunRow, subscription: &Subscription) -> bool {
    passed.is_some_and(|passed| passed.contains(row_sequence(row)))
        && row.as_ref().map_or(true, |event| subscription.wants(event))
}

impl Active {
    /// Puts a row in its place; false when its sequence is there already.
    pub(crate) fn enqueue(&mut self, row: RunRow) -> bool {
        let sequence = row_sequence(&row);
        let at = match self.queue.back() {
            Some(last) if row_sequence(last) < sequence => self.queue.len(),
            None => 0,
            Some(_) => match self.queue.binary_search_by_key(&sequence, row_sequence) {
                Ok(_) => return false,
                Err(at) => at,
            },
        };
        self.queued_bytes += row_bytes(&row);
        self.queue.insert(at, row);
        true
    }

    /// Takes the first row out.
    pub(crate) fn dequeue(&mut self) -> Option<RunRow> {
        let row = self.queue.pop_front()?;
        self.queued_bytes -= row_bytes(&row);
        if self.queue.is_empty() {
            // A root keeps no room for rows while its position waits to be written.
            self.queue = VecDeque::new();
        }
        Some(row)
    }

    /// Lets all rows go; they are fetched from the table when their turn comes.
    pub(crate) fn forget_queue(&mut self) {
        self.let_go |= !self.queue.is_empty();
        self.queue = VecDeque::new();
        self.queued_bytes = 0;
    }

    /// An event appeared in a passed hole.
    pub(crate) fn fill(&mut self, sequence: Sequence) {
        self.filled = Some(self.filled.map_or(sequence, |filled| filled.min(sequence)));
    }

    /// Pins a page, or merges the pin into an older one.
    pub(crate) fn pin(&mut self, pin: Pin) -> Pinned {
        if self.pins.len() >= PINS_MAX
            && let Some(newest) = self.pins.iter_mut().rev().find(|other| other.lane == pin.lane)
        {
            newest.last = newest.last.max(pin.last);
            let reopened = std::mem::take(&mut newest.delivered).then_some(newest.page);
            return Pinned::Merged { reopened };
        }
        self.pins.push(pin);
        Pinned::Page
    }

    /// Whether the table is to be looked at once more.
    pub(crate) fn looks(&self) -> bool {
        self.errand.as_ref().is_some_and(|errand| errand.looks)
    }

    /// Whether nothing is under way, and no accepted event waits for its position.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.phase == Phase::Open && self.accepted.is_none() && self.flushing.is_none()
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_done(&self, next: Sequence) -> bool {
        self.is_at_rest()
            && self.queue.is_empty()
            && self.pins.is_empty()
            && !self.dirty
            && self.filled.is_none()
            && self.recheck.is_none()
            && !self.trust.stale
            && !self.looks()
            && matches!(self.work, Work::None | Work::AtEnd)
            && self.seen.is_none_or(|seen| seen < next)
    }
}

/// What a queued row costs in memory, in bytes, about.
fn row_bytes(row: &RunRow) -> usize {
    match row {
        Ok(event) => event.memory_bytes(),
        Err(invalid) => size_of_val(invalid) + invalid.reason.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::InvalidRow;

    fn row(sequence: u64) -> RunRow {
        let root = Root::new("d", "", "r").unwrap();
        Err(InvalidRow { root, sequence: Sequence(sequence), reason: "test".into() })
    }

    #[test]
    fn the_queue_is_in_order_without_repeats() {
        let mut active = Active::default();
        for sequence in [5, 3, 4, 3, 9, 5, 1] {
            active.enqueue(row(sequence));
        }
        let mut order = Vec::new();
        while let Some(row) = active.dequeue() {
            order.push(row_sequence(&row).0);
        }
        assert_eq!(order, [1, 3, 4, 5, 9]);
        assert_eq!(active.queued_bytes, 0);
    }

    #[test]
    fn pins_are_bounded_and_the_newest_of_a_lane_takes_the_rest() {
        let mut active = Active::default();
        let pin = |page| Pin { lane: LaneId(1), page, last: Sequence(page), delivered: false };
        let taken = (0..20).filter(|page| active.pin(pin(*page)) == Pinned::Page).count();
        assert_eq!(taken, PINS_MAX);
        assert_eq!(active.pins.last().unwrap().last, Sequence(19));
        assert_eq!(active.pin(Pin { lane: LaneId(2), ..pin(0) }), Pinned::Page, "another lane always gets its own");
    }
}
