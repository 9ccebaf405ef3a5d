//! Where a shard's reader and the lanes meet: the window behind a lock, and the two ways of waking each other.
//!
//! A lane that found nothing is told by its id, once, on its handler's channel when something is there; so a channel
//! never holds more notices than there are lanes. The lock is never held across an await.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::window::{LaneId, Window};
use super::{Page, ShardId, StreamPoint};
use crate::event::Timestamp;

/// The pages of one shard, shared by its reader and its lanes.
#[derive(Debug, Clone)]
pub struct Feed(Arc<State>);

#[derive(Debug)]
struct State {
    shard: ShardId,
    window: Mutex<Shared>,
    wake_reader: Notify,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) window: Window,
    notices: BTreeMap<LaneId, UnboundedSender<LaneId>>,
    /// Lanes that were told to join and have not yet.
    expected: usize,
}

impl Shared {
    /// Whether no lane reads here (any more), nor is about to.
    pub(crate) fn is_deserted(&self) -> bool {
        self.expected == 0 && self.window.is_deserted()
    }
}

impl Feed {
    /// The feed of a shard that nobody reads yet.
    #[must_use]
    pub fn new(shard: ShardId) -> Self {
        let window = Mutex::new(Shared { window: Window::new(), notices: BTreeMap::new(), expected: 0 });
        Self(Arc::new(State { shard, window, wake_reader: Notify::new() }))
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> &ShardId {
        &self.0.shard
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> T {
        act(&mut self.0.window.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for the first lane: a feed is made before its lanes join.
    pub async fn joined(&self) {
        while self.is_deserted() {
            self.woken().await;
        }
    }

    /// Whether no lane reads here (any more), nor is about to.
    #[must_use]
    pub fn is_deserted(&self) -> bool {
        self.with(|shared| shared.is_deserted())
    }

    /// Announces a lane: the feed is not deserted until it has joined and left.
    pub fn expect_lane(&self) {
        self.with(|shared| shared.expected += 1);
        self.0.wake_reader.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.0.wake_reader.notified().await;
    }

    /// Lets a lane in that has everything up to `after`; it is told on `notices` when a page is there for it.
    #[must_use = "the lane leaves when its feed is dropped"]
    pub fn join(&self, lane: LaneId, after: StreamPoint, now: Timestamp, notices: UnboundedSender<LaneId>) -> LaneFeed {
        self.with(|shared| {
            shared.expected = shared.expected.saturating_sub(1);
            shared.window.join(lane, after, now);
            shared.notices.insert(lane, notices);
        });
        self.0.wake_reader.notify_one();
        LaneFeed { feed: self.clone(), lane }
    }

    pub(crate) fn notify(shared: &Shared, lanes: Vec<LaneId>) {
        for lane in lanes {
            if let Some(notices) = shared.notices.get(&lane) {
                // A handler that has stopped no longer listens; its lanes leave on their own.
                notices.send(lane).ok();
            }
        }
    }
}

/// One lane's end of a feed.
#[derive(Debug)]
pub struct LaneFeed {
    feed: Feed,
    lane: LaneId,
}

impl LaneFeed {
    /// The shard it reads.
    #[must_use]
    pub fn shard(&self) -> &ShardId {
        self.feed.shard()
    }

    /// The next page; none when there is none yet: a notice follows when there is.
    #[must_use]
    pub fn take(&self) -> Option<Arc<Page>> {
        let page = self.feed.with(|shared| shared.window.take(self.lane));
        self.feed.0.wake_reader.notify_one();
        page
    }

    /// Gives up a page that was read for this lane alone, where others wait for its room: it is not about to take it.
    pub fn give_back(&self) {
        self.feed.with(|shared| shared.window.give_back(self.lane));
    }

    /// The time of the oldest record that this lane has not been given; none when it has all there is.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Timestamp> {
        self.feed.with(|shared| shared.window.waiting_since(self.lane))
    }
}

impl Drop for LaneFeed {
    fn drop(&mut self) {
        self.feed.with(|shared| {
            shared.window.leave(self.lane);
            shared.notices.remove(&self.lane);
        });
        self.feed.0.wake_reader.notify_one();
    }
}
