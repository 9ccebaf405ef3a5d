//! Which shards are read: discovery, each handler's lineage, one reader a shard, one lane a handler and shard.
//!
//! Discovery is at shard end (the children of the shard) and by a slow comparison with the whole list; never a fast
//! loop over DescribeStream. The segments of a handler's job are shards, too; while it is built from the table it reads
//! no others. Invariants: a shard has at most one reader, a reader ends when its last lane has left, and no lane of a
//! handler is opened before it is known what the handler needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{Gauge, gauge};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::jobs::{JobPorts, PROGRESS_INTERVAL, reader_parts};
use super::kept::{HandlerLanes, Kept};
use super::{OnTrim, RelayError};
use crate::backfill::{self, JobKind, Seen, Segment};
use crate::lane::{LaneOrder, LaneReport, Opening};
use crate::relay_table::Checkpoint;
use crate::stream::{
    Branch, Feed, LaneId, Lost, ReaderParts, Shard, ShardId, ShardReader, StreamError, StreamPoint, StreamSource,
    with_causes,
};
use crate::telemetry::names;
use crate::time::{Backoff, BackoffPolicy};

/// The children of a closed shard may not be listed yet: it is asked so often, then left to the slow comparison
/// (`aws-facts` A).
const CHILDREN_TRIES_MAX: u32 = 10;

/// The waits between those tries.
const CHILDREN_BACKOFF: BackoffPolicy =
    BackoffPolicy { initial: Duration::from_millis(50), max: Duration::from_secs(1) };

/// The waits between attempts to list the shards.
const LIST_BACKOFF: BackoffPolicy = BackoffPolicy { initial: Duration::from_millis(200), max: Duration::from_secs(10) };

/// DescribeStream allows 10 calls a second: pages of one listing keep this distance.
const LIST_PAGE_DISTANCE: Duration = Duration::from_millis(110);

/// The subject of discovery in the health report.
const DISCOVERY: &str = "shards";

/// The subject of jobs in the health report.
const JOBS: &str = "jobs";

/// How often it is noted that the handlers follow the stream.
const SEEN_INTERVAL: Duration = Duration::from_mins(10);

/// Keeps the shards of one stream.
pub(super) struct Shards {
    stream: Arc<dyn StreamSource>,
    parts: ReaderParts,
    windows: Arc<AtomicUsize>,
    jobs: JobPorts,
    on_trim: OnTrim,
    reconcile_interval: Duration,
    handlers: Vec<Kept>,
    /// The handler of each open lane.
    lanes: BTreeMap<LaneId, (usize, ShardId)>,
    lost: mpsc::UnboundedReceiver<Lost>,
    /// A listing that nobody has looked at yet.
    listed: Option<Vec<Shard>>,
    feeds: BTreeMap<ShardId, Feed>,
    readers: JoinSet<ShardId>,
    searches: JoinSet<Vec<Shard>>,
    searched: BTreeSet<ShardId>,
    next_lane: u32,
    reading: Gauge,
    waiting: Gauge,
}

impl Shards {
    pub(super) fn new(
        stream: Arc<dyn StreamSource>,
        mut parts: ReaderParts,
        jobs: JobPorts,
        (reconcile_interval, on_trim): (Duration, OnTrim),
        handlers: Vec<HandlerLanes>,
    ) -> Self {
        let (tell_lost, lost) = mpsc::unbounded_channel();
        parts.lost = Some(tell_lost);
        let windows = Arc::new(AtomicUsize::new(1));
        let (counted, limit) = (windows.clone(), parts.budget.limit_bytes());
        // Half of the windows' room is for reading on, the other half for pages that slower lanes still need.
        parts.kept_bytes_max = Arc::new(move || limit / 2 / counted.load(Ordering::Relaxed).max(1));
        let state = |state: &'static str| gauge!(names::SHARDS, "state" => state);
        Self {
            stream,
            parts,
            windows,
            jobs,
            on_trim,
            reconcile_interval,
            handlers: handlers.into_iter().map(Kept::new).collect(),
            lanes: BTreeMap::new(),
            lost,
            listed: None,
            feeds: BTreeMap::new(),
            readers: JoinSet::new(),
            searches: JoinSet::new(),
            searched: BTreeSet::new(),
            next_lane: 0,
            reading: state("reading"),
            waiting: state("waiting"),
        }
    }

    /// Takes a listing that was made beforehand.
    pub(super) fn knowing(self, listed: Option<Vec<Shard>>) -> Self {
        Self { listed, ..self }
    }

    /// Runs until cancelled. Readers and searches stop with it, and so does whatever it waits for itself: an answer of
    /// a silent service may take longer than the grace period.
    pub(super) async fn run(
        self,
        reports: mpsc::UnboundedReceiver<LaneReport>,
        cancel: CancellationToken,
    ) -> Result<(), RelayError> {
        cancel.run_until_cancelled(self.keep(reports)).await.unwrap_or(Ok(()))
    }

    async fn keep(mut self, mut reports: mpsc::UnboundedReceiver<LaneReport>) -> Result<(), RelayError> {
        let beat = self.parts.health.register("shard discovery");
        let (mut reconcile_at, mut seen_at) = (Instant::now(), Instant::now());
        let mut backoff = Backoff::new(LIST_BACKOFF, self.parts.random.clone());
        loop {
            beat.beat();
            let turn_at = reconcile_at.min(Instant::now() + self.turn());
            tokio::select! {
                biased;
                Some(report) = reports.recv() => self.learn(report).await,
                Some(lost) = self.lost.recv() => self.miss(&lost),
                Some(found) = self.searches.join_next() => {
                    self.observe(&found.map_err(RelayError::Stopped)?);
                    self.open_lanes().await;
                }
                Some(ended) = self.readers.join_next() => {
                    let shard = ended.map_err(RelayError::Stopped)?;
                    self.reader_ended(&shard);
                }
                () = sleep_until(turn_at) => {}
            }
            let released = self.work_on_jobs().await?;
            if released || Instant::now() >= reconcile_at {
                let listing = match self.listed.take() {
                    Some(shards) => Ok(shards),
                    None => list_all(&*self.stream).await,
                };
                let outcome = match listing {
                    Ok(shards) => {
                        self.parts.health.mended(DISCOVERY);
                        self.reconcile(&shards).await?
                    }
                    Err(error) => {
                        self.parts.health.problem(DISCOVERY, with_causes(&error));
                        false
                    }
                };
                let wait = if outcome {
                    self.parts.health.started();
                    backoff.reset();
                    self.reconcile_interval
                } else {
                    backoff.next_wait().min(self.reconcile_interval)
                };
                reconcile_at = Instant::now() + wait;
            }
            if Instant::now() >= seen_at {
                seen_at = Instant::now() + if self.note_seen().await { SEEN_INTERVAL } else { TURN_MAX };
            }
        }
    }

    fn turn(&self) -> Duration {
        let busy = self.handlers.iter().any(|kept| kept.running.is_some() || kept.need.is_some());
        if busy { PROGRESS_INTERVAL } else { TURN_MAX }
    }

    async fn learn(&mut self, report: LaneReport) {
        let (name, shard) = match report {
            LaneReport::Finished(name, shard) => (name, shard),
            LaneReport::Closed(name, shard, clean) => {
                debug!(handler = %name, %shard, clean, "gave up a shard");
                let of = self.handlers.iter().position(|kept| kept.handler.name == name);
                self.lanes.retain(|_, (index, read)| Some(*index) != of || *read != shard);
                return;
            }
        };
        debug!(handler = %name, %shard, "finished a shard");
        let Some(index) = self.handlers.iter().position(|kept| kept.handler.name == name) else { return };
        self.lanes.retain(|_, (of, read)| *of != index || *read != shard);
        let kept = &mut self.handlers[index];
        kept.lineage.finish(&shard);
        if Segment::of_shard(&shard).is_some() {
            if let Some(running) = &mut kept.running {
                running.finish(&shard);
            }
        } else if !kept.lineage.has_child(&shard) && self.searched.insert(shard.clone()) {
            let backoff = Backoff::new(CHILDREN_BACKOFF, self.parts.random.clone());
            self.searches.spawn(find_children(self.stream.clone(), shard, backoff));
        }
        self.open_lanes().await;
    }

    /// Records were lost to some lanes: their handlers need what the table has.
    fn miss(&mut self, lost: &Lost) {
        for (index, _) in lost.lanes.iter().filter_map(|lane| self.lanes.get(lane)) {
            let need = Some((JobKind::Reconcile, lost.reason.clone()));
            self.handlers[*index].misses(need, lost.trimmed, self.parts.clock.now());
        }
    }

    fn observe(&mut self, shards: &[Shard]) {
        for kept in self.handlers.iter_mut().filter(|kept| kept.reads_the_stream()) {
            kept.lineage.observe(shards);
        }
    }

    /// Compares what is read with the whole list of shards; false when it is to be done again soon.
    async fn reconcile(&mut self, shards: &[Shard]) -> Result<bool, RelayError> {
        let listed: BTreeSet<ShardId> = shards.iter().map(|shard| shard.id.clone()).collect();
        let (stream, now) = (self.stream.name(), self.parts.clock.now());
        for kept in &mut self.handlers {
            kept.look(&stream, &listed, now);
        }
        // Before a needed job is durable, nothing of what shows the need is forgotten.
        self.work_on_jobs().await?;
        self.observe(shards);
        self.searched.retain(|shard| listed.contains(shard));
        let settled =
            |kept: &&mut Kept| kept.need.is_none() && kept.unfinished_job().is_none() && kept.reads_the_stream();
        for kept in self.handlers.iter_mut().filter(settled) {
            kept.released = false;
            let mut current = listed.clone();
            current.extend(kept.segments().into_iter().map(|segment| segment.id));
            let mut gone: BTreeSet<ShardId> = kept.lineage.retain(&current).into_iter().collect();
            let stale = |shard: &&ShardId| !current.contains(*shard) && !kept.lineage.opened().contains(*shard);
            gone.extend(kept.handler.checkpoints.keys().filter(stale).cloned());
            for shard in gone {
                kept.handler.checkpoints.remove(&shard);
                let name = &kept.handler.name;
                if let Err(error) = self.jobs.checkpoints.forget(name, &shard).await {
                    info!(handler = %name, %shard, error = %with_causes(&error), "could not remove the checkpoint of a shard that is gone");
                }
            }
        }
        self.open_lanes().await;
        Ok(self.handlers.iter().all(|kept| kept.need.is_none()))
    }

    /// Begins what is needed, notes how far jobs are, and closes those that are done; true when a handler that was
    /// built from the table may read the stream now.
    async fn work_on_jobs(&mut self) -> Result<bool, RelayError> {
        let (mut opens, mut failed) = (false, None);
        for kept in &mut self.handlers {
            if self.on_trim == OnTrim::Fail {
                fail_if_trimmed(kept, &self.jobs).await?;
            }
            match kept.work(&self.jobs).await {
                Ok(opened) => opens |= opened,
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => self.parts.health.problem(JOBS, with_causes(&error)),
            None => self.parts.health.mended(JOBS),
        }
        if opens {
            self.open_lanes().await;
        }
        Ok(self.handlers.iter().any(|kept| kept.released))
    }

    /// Notes which stream the handlers follow; false when that failed.
    async fn note_seen(&self) -> bool {
        let mut noted = true;
        for kept in &self.handlers {
            let Some(stream) = kept.follows.clone().filter(|_| kept.need.is_none()) else {
                noted = false;
                continue;
            };
            let seen = Seen { at: self.parts.clock.now(), stream };
            if let Err(error) = self.jobs.store.put_seen(&kept.handler.name, &seen).await {
                debug!(handler = %kept.handler.name, error = %with_causes(&error), "could not note that the handler follows the stream");
                noted = false;
            }
        }
        noted
    }

    async fn open_lanes(&mut self) {
        let now = self.parts.clock.now();
        for index in 0..self.handlers.len() {
            if self.handlers[index].follows.is_none() {
                continue;
            }
            for shard in self.handlers[index].lineage.open_next() {
                self.next_lane += 1;
                let lane = LaneId(self.next_lane);
                let feed = self.feed(&shard);
                feed.expect_lane();
                let kept = &mut self.handlers[index];
                let after = match kept.handler.checkpoints.get(&shard) {
                    Some(Checkpoint::At(sequence)) => StreamPoint::After(sequence.clone()),
                    Some(Checkpoint::Finished) | None => StreamPoint::Horizon,
                };
                if after == StreamPoint::Horizon {
                    kept.misses(backfill::at_opening(&shard, kept.complete_since, now), true, now);
                }
                let name = &kept.handler.name;
                debug!(handler = %name, %shard, ?after, "opens a lane");
                // One process reads all shards: a branch is as good as any that is told from the others.
                let branch = Segment::of_shard(&shard).is_none().then(|| Branch(shard.clone()));
                let opening = Opening { after, branch, taken: false };
                self.lanes.insert(lane, (index, shard));
                if kept.handler.orders.send(LaneOrder::Open(lane, feed, opening)).await.is_err() {
                    warn!(handler = %name, "the handler's lanes have stopped");
                }
            }
        }
        let waiting = self.handlers.iter().map(|kept| kept.lineage.waiting()).max().unwrap_or(0);
        self.waiting.set(shown(waiting));
        let reading = self.feeds.keys().filter(|shard| Segment::of_shard(shard).is_none()).count();
        self.reading.set(shown(reading));
    }

    fn feed(&mut self, shard: &ShardId) -> Feed {
        if let Some(feed) = self.feeds.get(shard) {
            return feed.clone();
        }
        let feed = Feed::new(shard.clone());
        self.feeds.insert(shard.clone(), feed.clone());
        self.windows.store(self.feeds.len(), Ordering::Relaxed);
        self.start_reader(feed.clone());
        feed
    }

    fn start_reader(&mut self, feed: Feed) {
        let reader = ShardReader::new(reader_parts(feed.shard(), &self.parts, &self.jobs), feed.clone());
        self.readers.spawn(async move {
            feed.joined().await;
            reader.run().await;
            feed.shard().clone()
        });
    }

    fn reader_ended(&mut self, shard: &ShardId) {
        let Some(feed) = self.feeds.get(shard) else { return };
        if feed.is_deserted() {
            self.feeds.remove(shard);
            self.windows.store(self.feeds.len(), Ordering::Relaxed);
        } else {
            // A lane joined between the reader's last look and its end.
            self.start_reader(feed.clone());
        }
    }
}

/// The keeper's loop turns at least so often.
const TURN_MAX: Duration = Duration::from_secs(10);

/// With `on_trim = "fail"`: the loss is noted durably, as a job that nobody works on, and stops the relay now and at every
/// start.
async fn fail_if_trimmed(kept: &mut Kept, jobs: &JobPorts) -> Result<(), RelayError> {
    let handler = kept.handler.name.clone();
    if let Some(job) = kept.unfinished_job().filter(|job| job.kind == JobKind::Reconcile) {
        return Err(RelayError::Trimmed { handler, reason: job.reason.clone() });
    }
    if let Some((JobKind::Reconcile, reason)) = kept.need.clone() {
        let stream = kept.follows.clone().unwrap_or_default();
        if let Err(error) = jobs.begin(&handler, (JobKind::Reconcile, &reason), &stream).await {
            warn!(%handler, error = %with_causes(&error), "that the stream has lost records could not be noted");
        }
        return Err(RelayError::Trimmed { handler, reason });
    }
    Ok(())
}

/// All shards of a stream.
pub(super) async fn list_all(stream: &dyn StreamSource) -> Result<Vec<Shard>, StreamError> {
    let (mut shards, mut after) = (Vec::new(), None);
    loop {
        let page = stream.shards(after.as_ref()).await?;
        shards.extend(page.shards);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(shards),
        }
        sleep(LIST_PAGE_DISTANCE).await;
    }
}

async fn find_children(stream: Arc<dyn StreamSource>, parent: ShardId, mut backoff: Backoff) -> Vec<Shard> {
    for _ in 0..CHILDREN_TRIES_MAX {
        match stream.children(&parent).await {
            Ok(children) if !children.is_empty() => return children,
            Ok(_) => {}
            Err(error) => debug!(%parent, error = %with_causes(&error), "could not ask for the children of a shard"),
        }
        sleep(backoff.next_wait()).await;
    }
    list_all(&*stream).await.unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a count of shards is far below 2^52")]
fn shown(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backfill::{MemoryScan, ScanProgress};
    use crate::event::Timestamp;
    use crate::handler::HandlerName;
    use crate::relay_table::MemoryRelayTable;
    use crate::storage::MemoryEvents;
    use crate::stream::{Budget, MemoryStream};
    use crate::telemetry::Health;
    use crate::time::{Clock, Random};

    #[tokio::test(start_paused = true)]
    async fn a_lane_on_its_way_to_a_shard_that_was_just_left_finds_a_reader() {
        let stream = MemoryStream::default();
        let shard = stream.create_shard(None);
        let parts = ReaderParts {
            source: Arc::new(stream.clone()),
            budget: Budget::new(1 << 30),
            kept_bytes_max: Arc::new(|| 0),
            poll_interval_max: Duration::from_secs(1),
            clock: Clock::system(),
            random: Random::seeded(1),
            health: Health::default(),
            counted_as: names::RECORDS_READ,
            lost: None,
        };
        let (orders, mut ordered) = mpsc::channel(10);
        let handlers = ["fast", "slow"].map(|name| HandlerLanes {
            name: HandlerName::new(name).unwrap(),
            orders: orders.clone(),
            checkpoints: BTreeMap::new(),
            started_at: Some(Timestamp::from_unix_millis(i64::MAX)),
            seen: None,
            job: None,
        });
        let (table, progress) = (Arc::new(MemoryRelayTable::default()), ScanProgress::default());
        let jobs = JobPorts {
            store: table.clone(),
            checkpoints: table,
            scan: Arc::new(MemoryScan::new(MemoryEvents::default(), progress.clone(), 10)),
            progress,
            clock: Clock::system(),
            health: Health::default(),
            budgets: BTreeMap::new(),
            segments: 1,
        };
        let mut shards = Shards::new(
            Arc::new(stream.clone()),
            parts,
            jobs,
            (Duration::from_mins(1), OnTrim::Reconcile),
            handlers.into(),
        );
        for kept in &mut shards.handlers {
            kept.look("memory", &BTreeSet::from([shard.clone()]), Timestamp::from_unix_millis(0));
        }
        shards.observe(&[Shard { id: shard.clone(), parent: None }]);
        let (notify, _notices) = mpsc::unbounded_channel();
        let at = Timestamp::from_unix_millis(0);
        shards.open_lanes().await;
        let LaneOrder::Open(lane, feed, Opening { after, .. }) = ordered.recv().await.unwrap() else {
            panic!("a lane is opened")
        };
        // The fast handler joins and leaves before the slow one has joined.
        let fast = feed.join(lane, after, at, notify.clone());
        sleep(Duration::from_secs(1)).await;
        drop(fast);
        if let Ok(ended) = tokio::time::timeout(Duration::from_mins(1), shards.readers.join_next()).await {
            shards.reader_ended(&ended.unwrap().unwrap());
        }
        let LaneOrder::Open(lane, feed, Opening { after, .. }) = ordered.recv().await.unwrap() else {
            panic!("a lane is opened")
        };
        let slow = feed.join(lane, after, at, notify);
        assert!(slow.take().is_none());
        stream.push(&shard, at, crate::stream::Change::Modified);
        stream.close_shard(&shard, 0);
        sleep(Duration::from_secs(30)).await;
        assert!(slow.take().is_some(), "somebody reads for it");
    }
}
