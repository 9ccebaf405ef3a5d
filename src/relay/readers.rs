//! The readers of the shards that are read here: one a shard, for all lanes of all handlers.
//!
//! Which shards those are is left to `shards`. Invariants: a shard has at most one reader; a reader begins with its first
//! lane and ends when its last one has left; all windows together stay within their budget.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio::task::{JoinError as TaskError, JoinSet};

use crate::backfill::{Segment, TableSource};
use crate::handler::HandlerName;
use crate::stream::{Budget, Feed, Lost, ReaderParts, ShardId, ShardReader};
use crate::telemetry::names;

/// Where segments are read from, and within which bounds.
#[derive(Clone)]
pub(super) struct Scans {
    pub(super) source: Arc<dyn TableSource>,
    /// The bounds on the bytes of the windows of each handler's segments: what they hold takes no room from the stream, nor
    /// from another handler.
    pub(super) budgets: BTreeMap<HandlerName, Budget>,
}

/// The readers under way.
pub(super) struct Readers {
    parts: ReaderParts,
    scans: Scans,
    windows: Arc<AtomicUsize>,
    feeds: BTreeMap<ShardId, Feed>,
    running: JoinSet<ShardId>,
}

impl Readers {
    /// None yet; what is lost to lanes is told where the second part of the answer listens.
    pub(super) fn new(mut parts: ReaderParts, scans: Scans) -> (Self, mpsc::UnboundedReceiver<Lost>) {
        let (tell_lost, lost) = mpsc::unbounded_channel();
        parts.lost = Some(tell_lost);
        let windows = Arc::new(AtomicUsize::new(1));
        let (counted, limit) = (windows.clone(), parts.budget.limit_bytes());
        // Half of the windows' room is for reading on, the other half for pages that slower lanes still need.
        parts.kept_bytes_max = Arc::new(move || limit / 2 / counted.load(Ordering::Relaxed).max(1));
        (Self { parts, scans, windows, feeds: BTreeMap::new(), running: JoinSet::new() }, lost)
    }

    /// How many shards of the stream are read.
    pub(super) fn of_stream(&self) -> usize {
        self.feeds.keys().filter(|shard| Segment::of_shard(shard).is_none()).count()
    }

    /// The feed of a shard for one lane more, that joins soon; its reader is started when there is none.
    pub(super) fn feed(&mut self, shard: &ShardId) -> Feed {
        let known = self.feeds.get(shard).cloned();
        let feed = known.unwrap_or_else(|| {
            let feed = Feed::new(shard.clone());
            self.feeds.insert(shard.clone(), feed.clone());
            self.windows.store(self.feeds.len(), Ordering::Relaxed);
            self.start(feed.clone());
            feed
        });
        feed.expect_lane();
        feed
    }

    fn start(&mut self, feed: Feed) {
        let reader = ShardReader::new(self.parts_for(feed.shard()), feed.clone());
        self.running.spawn(async move {
            feed.joined().await;
            reader.run().await;
            feed.shard().clone()
        });
    }

    /// Segments are read from the table, all others from the stream.
    fn parts_for(&self, shard: &ShardId) -> ReaderParts {
        let Some(segment) = Segment::of_shard(shard) else { return self.parts.clone() };
        let budget = self.scans.budgets.get(&segment.handler).unwrap_or(&self.parts.budget).clone();
        let source = self.scans.source.clone();
        ReaderParts { source, budget, counted_as: names::ROWS_SCANNED, lost: None, ..self.parts.clone() }
    }

    /// Waits until a reader has ended; none while there is no reader.
    pub(super) async fn ended(&mut self) -> Option<Result<ShardId, TaskError>> {
        self.running.join_next().await
    }

    /// A reader has ended: its window goes with it, unless a lane joined between its last look and its end.
    pub(super) fn clear(&mut self, shard: &ShardId) {
        let Some(feed) = self.feeds.get(shard) else { return };
        if feed.is_deserted() {
            self.feeds.remove(shard);
            self.windows.store(self.feeds.len(), Ordering::Relaxed);
        } else {
            self.start(feed.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use crate::backfill::{MemoryScan, ScanProgress};
    use crate::event::Timestamp;
    use crate::storage::MemoryEvents;
    use crate::stream::{Change, LaneId, MemoryStream, StreamPoint};

    #[tokio::test(start_paused = true)]
    async fn a_lane_on_its_way_to_a_shard_that_was_just_left_finds_a_reader() {
        let stream = MemoryStream::default();
        let shard = stream.create_shard(None);
        let parts = ReaderParts::of(Arc::new(stream.clone()));
        let source = Arc::new(MemoryScan::new(MemoryEvents::default(), ScanProgress::default(), 10));
        let (mut readers, _lost) = Readers::new(parts, Scans { source, budgets: BTreeMap::new() });
        let (notify, _notices) = mpsc::unbounded_channel();
        let at = Timestamp::from_unix_millis(0);
        let (for_fast, for_slow) = (readers.feed(&shard), readers.feed(&shard));
        assert_eq!(readers.of_stream(), 1);
        // The fast handler joins and leaves before the slow one has joined.
        let fast = for_fast.join(LaneId(1), StreamPoint::Horizon, at, notify.clone());
        sleep(Duration::from_secs(1)).await;
        drop(fast);
        if let Ok(ended) = timeout(Duration::from_mins(1), readers.ended()).await {
            readers.clear(&ended.unwrap().unwrap());
        }
        let slow = for_slow.join(LaneId(2), StreamPoint::Horizon, at, notify.clone());
        assert!(slow.take().is_none());
        stream.push(&shard, at, Change::Modified);
        sleep(Duration::from_secs(30)).await;
        assert!(slow.take().is_some(), "somebody reads for it");
        drop(slow);
        let ended = readers.ended().await.unwrap().unwrap();
        // One more comes after the reader's last look.
        let late = readers.feed(&ended).join(LaneId(3), StreamPoint::Horizon, at, notify);
        readers.clear(&ended);
        sleep(Duration::from_secs(30)).await;
        assert!(late.take().is_some(), "somebody reads for it");
        drop(late);
        let ended = readers.ended().await.unwrap().unwrap();
        readers.clear(&ended);
        assert_eq!(readers.of_stream(), 0);
    }
}
