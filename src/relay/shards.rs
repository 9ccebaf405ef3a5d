//! Which shards are read: discovery, each handler's lineage, one reader a shard, one lane a handler and shard.
//!
//! Discovery is at shard end (the children of the shard) and by a slow comparison with the whole list; never a fast
//! loop over DescribeStream. Invariants: a shard has at most one reader, and a reader ends when its last lane has
//! left.

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

use super::RelayError;
use crate::handler::HandlerName;
use crate::lane::{LaneOrder, LaneReport};
use crate::relay_table::{Checkpoint, CheckpointStore};
use crate::stream::{
    Feed, LaneId, Lineage, ReaderParts, Shard, ShardId, ShardReader, StreamError, StreamPoint, StreamSource,
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

/// One handler as the keeper of the shards sees it.
pub(super) struct HandlerLanes {
    pub(super) name: HandlerName,
    pub(super) orders: mpsc::Sender<LaneOrder>,
    pub(super) checkpoints: BTreeMap<ShardId, Checkpoint>,
}

struct Kept {
    name: HandlerName,
    orders: mpsc::Sender<LaneOrder>,
    checkpoints: BTreeMap<ShardId, Checkpoint>,
    lineage: Lineage,
}

/// Keeps the shards of one stream.
pub(super) struct Shards {
    parts: ReaderParts,
    windows: Arc<AtomicUsize>,
    checkpoints: Arc<dyn CheckpointStore>,
    reconcile_interval: Duration,
    handlers: Vec<Kept>,
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
        mut parts: ReaderParts,
        checkpoints: Arc<dyn CheckpointStore>,
        reconcile_interval: Duration,
        handlers: Vec<HandlerLanes>,
    ) -> Self {
        let windows = Arc::new(AtomicUsize::new(1));
        let (counted, limit) = (windows.clone(), parts.budget.limit_bytes());
        // Half of the windows' room is for reading on, the other half for pages that slower lanes still need.
        parts.kept_bytes_max = Arc::new(move || limit / 2 / counted.load(Ordering::Relaxed).max(1));
        let state = |state: &'static str| gauge!(names::SHARDS, "state" => state);
        Self {
            parts,
            windows,
            checkpoints,
            reconcile_interval,
            handlers: handlers.into_iter().map(Kept::new).collect(),
            feeds: BTreeMap::new(),
            readers: JoinSet::new(),
            searches: JoinSet::new(),
            searched: BTreeSet::new(),
            next_lane: 0,
            reading: state("reading"),
            waiting: state("waiting"),
        }
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
        let mut reconcile_at = Instant::now();
        let mut backoff = Backoff::new(LIST_BACKOFF, self.parts.random.clone());
        loop {
            beat.beat();
            let turn_at = reconcile_at.min(Instant::now() + TURN_MAX);
            tokio::select! {
                biased;
                Some(report) = reports.recv() => self.learn(report).await,
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
            if Instant::now() >= reconcile_at {
                reconcile_at = Instant::now()
                    + match list_all(&*self.parts.source).await {
                        Ok(shards) => {
                            self.parts.health.mended(DISCOVERY);
                            self.parts.health.started();
                            backoff.reset();
                            self.reconcile(&shards).await;
                            self.reconcile_interval
                        }
                        Err(error) => {
                            self.parts.health.problem(DISCOVERY, with_causes(&error));
                            backoff.next_wait().min(self.reconcile_interval)
                        }
                    };
            }
        }
    }

    async fn learn(&mut self, report: LaneReport) {
        let LaneReport::Finished(name, shard) = report;
        debug!(handler = %name, %shard, "finished a shard");
        let Some(handler) = self.handlers.iter_mut().find(|handler| handler.name == name) else { return };
        handler.lineage.finish(&shard);
        if !handler.lineage.has_child(&shard) && self.searched.insert(shard.clone()) {
            let (source, backoff) =
                (self.parts.source.clone(), Backoff::new(CHILDREN_BACKOFF, self.parts.random.clone()));
            self.searches.spawn(find_children(source, shard, backoff));
        }
        self.open_lanes().await;
    }

    fn observe(&mut self, shards: &[Shard]) {
        for handler in &mut self.handlers {
            handler.lineage.observe(shards);
        }
    }

    async fn reconcile(&mut self, shards: &[Shard]) {
        self.observe(shards);
        let listed: BTreeSet<ShardId> = shards.iter().map(|shard| shard.id.clone()).collect();
        self.searched.retain(|shard| listed.contains(shard));
        for handler in &mut self.handlers {
            for shard in handler.lineage.retain(&listed) {
                handler.checkpoints.remove(&shard);
                if let Err(error) = self.checkpoints.forget(&handler.name, &shard).await {
                    info!(handler = %handler.name, %shard, error = %with_causes(&error), "could not remove the checkpoint of a shard that is gone");
                }
            }
        }
        self.open_lanes().await;
    }

    async fn open_lanes(&mut self) {
        for index in 0..self.handlers.len() {
            for shard in self.handlers[index].lineage.open_next() {
                self.next_lane += 1;
                let lane = LaneId(self.next_lane);
                let feed = self.feed(&shard);
                feed.expect_lane();
                let handler = &self.handlers[index];
                let after = match handler.checkpoints.get(&shard) {
                    Some(Checkpoint::At(sequence)) => StreamPoint::After(sequence.clone()),
                    Some(Checkpoint::Finished) | None => StreamPoint::Horizon,
                };
                debug!(handler = %handler.name, %shard, ?after, "opens a lane");
                if handler.orders.send(LaneOrder::Open(lane, feed, after)).await.is_err() {
                    warn!(handler = %handler.name, "the handler's lanes have stopped");
                }
            }
        }
        let waiting = self.handlers.iter().map(|handler| handler.lineage.waiting()).max().unwrap_or(0);
        self.waiting.set(shown(waiting));
        self.reading.set(shown(self.feeds.len()));
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
        let reader = ShardReader::new(self.parts.clone(), feed.clone());
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
        self.reading.set(shown(self.feeds.len()));
    }
}

/// The keeper's loop turns at least so often.
const TURN_MAX: Duration = Duration::from_secs(10);

impl Kept {
    fn new(handler: HandlerLanes) -> Self {
        let finished = (handler.checkpoints.iter())
            .filter(|(_, checkpoint)| **checkpoint == Checkpoint::Finished)
            .map(|(shard, _)| shard.clone());
        Self {
            lineage: Lineage::with_finished(finished),
            name: handler.name,
            orders: handler.orders,
            checkpoints: handler.checkpoints,
        }
    }
}

async fn list_all(source: &dyn StreamSource) -> Result<Vec<Shard>, StreamError> {
    let (mut shards, mut after) = (Vec::new(), None);
    loop {
        let page = source.shards(after.as_ref()).await?;
        shards.extend(page.shards);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(shards),
        }
        sleep(LIST_PAGE_DISTANCE).await;
    }
}

async fn find_children(source: Arc<dyn StreamSource>, parent: ShardId, mut backoff: Backoff) -> Vec<Shard> {
    for _ in 0..CHILDREN_TRIES_MAX {
        match source.children(&parent).await {
            Ok(children) if !children.is_empty() => return children,
            Ok(_) => {}
            Err(error) => debug!(%parent, error = %with_causes(&error), "could not ask for the children of a shard"),
        }
        sleep(backoff.next_wait()).await;
    }
    list_all(&*source).await.unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a count of shards is far below 2^52")]
fn shown(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;
    use crate::relay_table::MemoryRelayTable;
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
        };
        let (orders, mut ordered) = mpsc::channel(10);
        let handlers = ["fast", "slow"].map(|name| HandlerLanes {
            name: HandlerName::new(name).unwrap(),
            orders: orders.clone(),
            checkpoints: BTreeMap::new(),
        });
        let table = Arc::new(MemoryRelayTable::default());
        let mut shards = Shards::new(parts, table, Duration::from_mins(1), handlers.into());
        shards.observe(&[Shard { id: shard.clone(), parent: None }]);
        let (notify, _notices) = mpsc::unbounded_channel();
        let at = Timestamp::from_unix_millis(0);
        shards.open_lanes().await;
        let LaneOrder::Open(lane, feed, after) = ordered.recv().await.unwrap() else { panic!("a lane is opened") };
        // The fast handler joins and leaves before the slow one has joined.
        let fast = feed.join(lane, after, at, notify.clone());
        sleep(Duration::from_secs(1)).await;
        drop(fast);
        if let Ok(ended) = tokio::time::timeout(Duration::from_mins(1), shards.readers.join_next()).await {
            shards.reader_ended(&ended.unwrap().unwrap());
        }
        let LaneOrder::Open(lane, feed, after) = ordered.recv().await.unwrap() else { panic!("a lane is opened") };
        let slow = feed.join(lane, after, at, notify);
        assert!(slow.take().is_none());
        stream.push(&shard, at, crate::stream::Change::Modified);
        stream.close_shard(&shard, 0);
        sleep(Duration::from_secs(30)).await;
        assert!(slow.take().is_some(), "somebody reads for it");
    }
}
