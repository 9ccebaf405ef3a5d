//! The reader of one shard: makes every GetRecords call for it, for the window and for lanes that are behind, and
//! feeds the pages in.
//!
//! All reads of a shard share one pace and are served in turn, so that no lagging lane starves another. An empty page
//! is never the end: only an absent next iterator is. Which lanes want what is the window's to decide; what a record
//! means, the lanes'.

use std::collections::HashMap;
use std::future::pending;
use std::time::Duration;

use metrics::{Counter, counter};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::ahead::Ahead;
use super::budget::{Budget, Room};
use super::feed::Feed;
use super::pace::{Fill, POLL_INTERVAL_MIN, Pace};
use super::window::{LaneId, Read, ReadPlace};
use super::{Change, Fetched, Page, Record, ShardIterator, ShardSource, StreamError, StreamPoint};
use crate::failpoint::{self, Failpoint};
use crate::telemetry::{Beat, Health, names, with_causes};
use crate::time::{Backoff, BackoffPolicy, Clock, ClockReading, Random};
use std::sync::Arc;

/// Room reserved before a read: what GetRecords returns at most, about.
const READ_RESERVE_BYTES: usize = 1 << 20;

/// So much older than it is a record may seem: its time is rounded down to a second, and clocks differ.
const TIME_SLACK: Duration = Duration::from_secs(2);

/// Waits of the reader that has nothing to do end after so long, so that its loop is seen to turn.
const IDLE_TURN: Duration = Duration::from_secs(10);

/// The waits after failed calls.
const FAILURE_BACKOFF: BackoffPolicy =
    BackoffPolicy { initial: Duration::from_millis(100), max: Duration::from_secs(10) };

/// A shard that answers "not found" so many times in a row is gone: one answer may be a listing ahead of the service's
/// other nodes.
const GONE_ANSWERS_MAX: u32 = 5;

/// What a reader needs besides its feed.
#[derive(Clone)]
pub struct ReaderParts {
    /// The stream.
    pub source: Arc<dyn ShardSource>,
    /// The bound on all windows' bytes.
    pub budget: Budget,
    /// The bytes a window may keep for slower lanes; computed anew for each page, because the number of shards changes.
    pub kept_bytes_max: Arc<dyn Fn() -> usize + Send + Sync>,
    /// The longest wait between two reads of an idle shard.
    pub poll_interval_max: Duration,
    /// Wall time.
    pub clock: Clock,
    /// Chance.
    pub random: Random,
    /// Where obstacles are named.
    pub health: Health,
    /// The metric that counts what is read, by kind.
    pub counted_as: &'static str,
    /// Who is told of records that were lost; nobody may be.
    pub lost: Option<UnboundedSender<Lost>>,
}

#[cfg(test)]
impl ReaderParts {
    /// Those of a reader of this source, with room for everything and nobody to tell of losses.
    pub(crate) fn of(source: Arc<dyn ShardSource>) -> Self {
        Self {
            source,
            budget: Budget::new(1 << 30),
            kept_bytes_max: Arc::new(|| 0),
            poll_interval_max: Duration::from_secs(1),
            clock: Clock::system(),
            random: Random::seeded(1),
            health: Health::default(),
            counted_as: names::RECORDS_READ,
            lost: None,
        }
    }
}

/// Records that the stream no longer has.
#[derive(Debug)]
pub struct Lost {
    /// The lanes that had not been given them.
    pub lanes: Vec<LaneId>,
    /// They were trimmed, so at least 24 hours old; else their shard is gone, whatever it held.
    pub trimmed: bool,
    /// What happened, for operators.
    pub reason: String,
    /// Told when that is durable: the reader waits for it.
    pub noted: oneshot::Sender<()>,
}

/// The reader of one shard.
pub struct ShardReader {
    parts: ReaderParts,
    feed: Feed,
    beat: Beat,
    places: HashMap<ReadPlace, PlaceState>,
    not_before: Instant,
    ahead: Option<Ahead>,
    turn: u64,
    at_head_at: Option<ClockReading>,
    failures: Backoff,
    gone_answers: u32,
    read_kinds: ReadKinds,
}

struct PlaceState {
    iterator: Option<ShardIterator>,
    at: StreamPoint,
    pace: Pace,
    due: Instant,
    served: u64,
}

struct ReadKinds {
    events: Counter,
    modified: Counter,
    removed: Counter,
    foreign: Counter,
    chunks: Counter,
    invalid_keys: Counter,
    trimmed: Counter,
}

/// How a reader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReaderEnd {
    /// Every lane left: at the end of the shard, or because it was told to.
    Deserted,
}

impl ShardReader {
    /// A reader for a feed.
    #[must_use]
    pub fn new(parts: ReaderParts, feed: Feed) -> Self {
        let counted_as = parts.counted_as;
        let kind = |kind: &'static str| counter!(counted_as, "kind" => kind);
        Self {
            beat: parts.health.register("shard reader"),
            failures: Backoff::new(FAILURE_BACKOFF, parts.random.clone()),
            parts,
            feed,
            places: HashMap::new(),
            not_before: Instant::now(),
            ahead: None,
            turn: 0,
            at_head_at: None,
            gone_answers: 0,
            read_kinds: ReadKinds {
                events: kind("event"),
                modified: kind("modified"),
                removed: kind("removed"),
                foreign: kind("foreign"),
                chunks: kind("chunk"),
                invalid_keys: counter!(names::INVALID_ROWS, "part" => "key"),
                trimmed: counter!(names::STREAM_TRIMMED),
            },
        }
    }

    /// Reads until every lane has left.
    pub async fn run(mut self) -> ReaderEnd {
        loop {
            self.beat.beat();
            let places = &mut self.places;
            let (deserted, wanted) = self.feed.with(|shared| {
                let wanted = shared.window.wanted();
                // A lane's iterator is kept while it takes what was read for it.
                places.retain(|place, _| match place {
                    ReadPlace::Head => true,
                    ReadPlace::Behind(lane) => shared.window.is_behind(*lane),
                });
                (shared.is_deserted(), wanted)
            });
            if deserted {
                return ReaderEnd::Deserted;
            }
            let Some((read, due)) = self.choose(wanted) else {
                drop(timeout(IDLE_TURN, self.feed.woken()).await);
                continue;
            };
            if due > Instant::now() {
                let until = due.min(Instant::now() + IDLE_TURN);
                drop(timeout_at(until, self.feed.woken()).await);
                continue;
            }
            self.read(read).await;
        }
    }

    /// The next place to read: the one due first, and of several due the one served longest ago.
    fn choose(&mut self, wanted: Vec<Read>) -> Option<(Read, Instant)> {
        let now = Instant::now();
        let places = &mut self.places;
        let not_before = self.not_before;
        let mut best: Option<(Instant, u64, Read)> = None;
        for read in wanted {
            let state = places.entry(read.place).or_insert_with(|| PlaceState {
                iterator: None,
                at: read.from.clone(),
                pace: Pace::new(self.parts.poll_interval_max),
                due: now,
                served: 0,
            });
            if state.at != read.from {
                state.iterator = None;
                state.at = read.from.clone();
                state.due = now;
            }
            let due = state.due.max(not_before).max(now);
            if best.as_ref().is_none_or(|(time, served, _)| (due, state.served) < (*time, *served)) {
                best = Some((due, state.served, read));
            }
        }
        best.map(|(due, _, read)| (read, due))
    }

    async fn read(&mut self, read: Read) {
        self.turn += 1;
        let turn = self.turn;
        let ahead = if read.place == ReadPlace::Head { self.ahead.take() } else { None };
        let (answer, room, asked_at) = if let Some(ahead) = ahead.filter(|ahead| ahead.is_from(&read.from)) {
            ahead.answer().await
        } else {
            // Waiting for room is no standstill, and what is wanted may change meanwhile.
            let reserved = timeout(IDLE_TURN, self.parts.budget.reserve(READ_RESERVE_BYTES)).await;
            let Ok(room) = reserved else { return };
            let asked_at = self.parts.clock.reading();
            (self.call(&read).await, room, asked_at)
        };
        let Some(state) = self.places.get_mut(&read.place) else { return };
        state.served = turn;
        match answer {
            Ok(fetched) => self.take_in(&read, fetched, room, asked_at).await,
            Err(error) => self.failed(&read, error, room).await,
        }
    }

    async fn call(&mut self, read: &Read) -> Result<Fetched, StreamError> {
        let source = self.parts.source.clone();
        let iterator = match self.places.get(&read.place).and_then(|state| state.iterator.clone()) {
            Some(iterator) => iterator,
            None => source.open(self.feed.shard(), &read.from).await?,
        };
        source.fetch(&iterator).await
    }

    async fn take_in(&mut self, read: &Read, fetched: Fetched, mut room: Room, asked_at: ClockReading) {
        let fill = if fetched.more { Fill::Full } else { Fill::of(fetched.records, fetched.bytes) };
        let next = fetched.next.clone();
        if read.place == ReadPlace::Head && fill == Fill::Full {
            self.read_ahead(&fetched);
            // A task begun here runs on this thread, once this one lets it: its request goes out before the decoding.
            yield_now().await;
        }
        let records = match fetched.decode() {
            Ok(records) => records,
            Err(error) => {
                self.ahead = None;
                return self.failed(read, error, room).await;
            }
        };
        self.failures.reset();
        self.gone_answers = 0;
        self.parts.health.mended(STREAM);
        self.count(&records);
        let Some(state) = self.places.get_mut(&read.place) else { return };
        let wait = state.pace.wait_after(fill);
        let end = next.is_none() || (failpoint::is_set(Failpoint::EmptyPageEnds) && records.is_empty());
        state.iterator = next;
        state.due = Instant::now() + wait;
        if fill != Fill::Full {
            self.not_before = Instant::now() + POLL_INTERVAL_MIN.min(self.parts.poll_interval_max);
        }
        let mut page = Page::new(read.from.clone(), records, end);
        state.at = page.through.clone();
        if read.place == ReadPlace::Head {
            // A short page may end before the head. What is older than that by its own time was there already.
            let is_new = |seen: &ClockReading| page.oldest_at.is_some_and(|at| at.plus(TIME_SLACK) >= seen.wall);
            page.absent_at = self.at_head_at.filter(is_new).map(|seen| seen.instant);
            // A record seen now was not there when the shard was last read to its head, whatever its rounded time says.
            page.oldest_at = page.oldest_at.map(|oldest| self.at_head_at.map_or(oldest, |seen| oldest.max(seen.wall)));
            self.at_head_at = if fill == Fill::Full { self.at_head_at } else { Some(asked_at) };
        }
        room.resize(page.memory_bytes);
        let kept_bytes_max = (self.parts.kept_bytes_max)();
        self.feed.with(|shared| {
            let ready = shared.window.insert(read.place, page, room, (fill != Fill::Full).then_some(asked_at.wall));
            shared.window.trim(kept_bytes_max);
            Feed::notify(shared, ready);
        });
    }

    /// Begins the read behind a full page, if there is room for another.
    fn read_ahead(&mut self, fetched: &Fetched) {
        if let (Some(iterator), Some(last)) = (&fetched.next, &fetched.last)
            && let Some(room) = self.parts.budget.try_reserve(READ_RESERVE_BYTES)
        {
            let from = StreamPoint::After(last.clone());
            let (source, asked_at) = (self.parts.source.clone(), self.parts.clock.reading());
            self.ahead = Some(Ahead::start(source, iterator.clone(), from, room, asked_at));
        }
    }

    fn count(&self, records: &[Record]) {
        let (mut events, mut modified, mut removed, mut foreign, mut chunks) = (0, 0, 0, 0, 0);
        for record in records {
            match &record.change {
                Change::Inserted(_) | Change::Invalid(_) => events += 1,
                Change::Modified => modified += 1,
                Change::Removed(_) => removed += 1,
                Change::Chunk => chunks += 1,
                Change::ForeignKey { problem } => {
                    foreign += 1;
                    debug!(shard = %self.feed.shard(), sequence = %record.sequence, %problem, "passed a row that is no event");
                }
            }
        }
        if modified + removed > 0 {
            debug!(shard = %self.feed.shard(), modified, removed, "passed changes and removals of rows: they are no events");
        }
        let kinds = &self.read_kinds;
        kinds.events.increment(events);
        kinds.modified.increment(modified);
        kinds.removed.increment(removed);
        kinds.foreign.increment(foreign);
        kinds.chunks.increment(chunks);
        kinds.invalid_keys.increment(foreign);
    }

    /// Tells what is lost, and waits until that is durable: behind it the shard goes on, and nothing shows it any more.
    async fn tell_lost(&self, lanes: Vec<LaneId>, trimmed: bool, reason: String) {
        let is_told = !lanes.is_empty() && !failpoint::is_set(Failpoint::LossNotTold);
        let Some(lost) = self.parts.lost.as_ref().filter(|_| is_told) else { return };
        let (noted, mut durable) = oneshot::channel();
        // Nobody listens any more only when the relay stops: then nothing goes on here.
        lost.send(Lost { lanes, trimmed, reason, noted }).ok();
        loop {
            match timeout(IDLE_TURN, &mut durable).await {
                Ok(Ok(())) => return,
                Ok(Err(_stops)) => return pending().await,
                Err(_elapsed) => self.beat.beat(),
            }
        }
    }

    async fn failed(&mut self, read: &Read, error: StreamError, mut room: Room) {
        let Some(state) = self.places.get_mut(&read.place) else { return };
        state.iterator = None;
        match error {
            StreamError::ExpiredIterator => {
                drop(room);
                info!(shard = %self.feed.shard(), "the iterator expired; opening another");
                sleep(self.failures.next_wait()).await;
            }
            StreamError::Trimmed => {
                drop(room);
                self.read_kinds.trimmed.increment(1);
                warn!(shard = %self.feed.shard(), from = ?read.from, "the stream was trimmed past this place; going on at its horizon");
                state.at = StreamPoint::Horizon;
                let lanes = self.feed.with(|shared| shared.window.trimmed(read.place));
                self.tell_lost(
                    lanes,
                    true,
                    format!("the stream has trimmed what was to be read of the shard {}", self.feed.shard()),
                )
                .await;
                sleep(self.failures.next_wait()).await;
            }
            StreamError::Gone if self.gone_answers + 1 >= GONE_ANSWERS_MAX => {
                self.read_kinds.trimmed.increment(1);
                warn!(shard = %self.feed.shard(), from = ?read.from, "the shard is gone; what it held is in the table only");
                // Told before the lanes learn of the end, and note it.
                let lanes = self.feed.with(|shared| shared.window.unfinished());
                let reason = format!("the shard {} was gone before it was read to its end", self.feed.shard());
                self.tell_lost(lanes, false, reason).await;
                let (page, now) = (Page::new(read.from.clone(), Vec::new(), true), self.parts.clock.now());
                room.resize(page.memory_bytes);
                self.feed.with(|shared| {
                    let ready = shared.window.insert(read.place, page, room, Some(now));
                    Feed::notify(shared, ready);
                });
            }
            StreamError::Gone => {
                drop(room);
                self.gone_answers += 1;
                sleep(self.failures.next_wait()).await;
            }
            StreamError::Throttled { .. }
            | StreamError::Denied { .. }
            | StreamError::NoStream { .. }
            | StreamError::Unavailable { .. } => {
                drop(room);
                self.feed.with(|shared| shared.window.lost_head());
                let wait = self.failures.next_wait();
                if !matches!(error, StreamError::Throttled { .. }) {
                    self.parts.health.problem(STREAM, with_causes(&error));
                }
                debug!(shard = %self.feed.shard(), error = %with_causes(&error), ?wait, "a read of the stream failed");
                sleep(wait).await;
            }
        }
    }
}

impl Drop for ShardReader {
    /// Nobody else would take its problem back; whoever has the same tells it again.
    fn drop(&mut self) {
        self.parts.health.mended(STREAM);
    }
}

/// The subject of the stream's problems in the health report.
const STREAM: &str = "stream";

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
