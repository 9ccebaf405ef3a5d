//! Looking for shards: for all of the stream, or for the children of one that has ended.
//!
//! Invariants: DescribeStream allows 10 calls a second, and a listing stays below that; there is one listing at a time, and
//! whoever asks while it waits for one gets that one. So when many shards end at once, they are listed once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::stream::{Shard, ShardId, ShardPage, StreamError, StreamSource};
use crate::telemetry::with_causes;
use crate::time::{Backoff, BackoffPolicy, Random};

/// Pages of one listing keep this distance.
const PAGE_DISTANCE: Duration = Duration::from_millis(110);

/// The children of a closed shard may not be listed yet: it is asked so often, then left to the slow comparison
/// (`aws-facts` A).
const CHILDREN_TRIES_MAX: u32 = 10;

/// The waits between those tries.
const CHILDREN_BACKOFF: BackoffPolicy =
    BackoffPolicy { initial: Duration::from_millis(50), max: Duration::from_secs(1) };

/// A listing under way waits so often for a page that was throttled.
const PAGE_TRIES_MAX: u32 = 5;

/// The waits between them.
const PAGE_BACKOFF: BackoffPolicy = BackoffPolicy { initial: Duration::from_millis(200), max: Duration::from_secs(2) };

/// When the last listing began, and what it found; nothing when it failed.
type Last = Option<(Instant, Option<Arc<Vec<Shard>>>)>;

/// The stream's shards, as they are listed. Clones share the listings.
#[derive(Clone)]
pub(super) struct Listing {
    stream: Arc<dyn StreamSource>,
    random: Random,
    /// The last listing, and when it began.
    last: Arc<Mutex<Last>>,
}

impl Listing {
    pub(super) fn new(stream: Arc<dyn StreamSource>, random: Random) -> Self {
        Self { stream, random, last: Arc::default() }
    }

    /// All shards, as they were listed from now on.
    pub(super) async fn all(&self) -> Result<Arc<Vec<Shard>>, StreamError> {
        let asked_at = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((began_at, shards)) = &*last
            && *began_at > asked_at
        {
            let source = "the listing that this one waited for failed".into();
            return shards.clone().ok_or(StreamError::Unavailable { operation: "DescribeStream", source });
        }
        let began_at = Instant::now();
        let listed = self.list().await.map(Arc::new);
        *last = Some((began_at, listed.as_ref().ok().cloned()));
        listed
    }

    async fn list(&self) -> Result<Vec<Shard>, StreamError> {
        let (mut shards, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(after.as_ref()).await?;
            shards.extend(page.shards);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(shards),
            }
            sleep(PAGE_DISTANCE).await;
        }
    }

    async fn page(&self, after: Option<&ShardId>) -> Result<ShardPage, StreamError> {
        let mut backoff = Backoff::new(PAGE_BACKOFF, self.random.clone());
        for _ in 1..PAGE_TRIES_MAX {
            match self.stream.shards(after).await {
                Err(StreamError::Throttled { .. }) => sleep(backoff.next_wait()).await,
                answer => return answer,
            }
        }
        self.stream.shards(after).await
    }

    /// The children of a shard that has ended, the elder first; none when they are not listed in time: then the slow
    /// comparison finds them.
    pub(super) async fn children(&self, parent: &ShardId) -> Vec<Shard> {
        let mut found = self.ask_for_children(parent).await;
        if found.is_empty() {
            found = self.all().await.map(|shards| shards.to_vec()).unwrap_or_default();
        }
        found.retain(|shard| shard.parent.as_ref() == Some(parent));
        found.sort_by(|one, other| one.id.cmp(&other.id));
        found
    }

    async fn ask_for_children(&self, parent: &ShardId) -> Vec<Shard> {
        let mut backoff = Backoff::new(CHILDREN_BACKOFF, self.random.clone());
        for _ in 0..CHILDREN_TRIES_MAX {
            match self.stream.children(parent).await {
                Ok(children) if !children.is_empty() => return children,
                Ok(_) => {}
                Err(error) => {
                    debug!(%parent, error = %with_causes(&error), "could not ask for the children of a shard");
                }
            }
            sleep(backoff.next_wait()).await;
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use futures_util::future::join_all;

    use crate::stream::{Fetched, MemoryStream, ShardIterator, ShardSource, StreamPoint};

    /// A stream whose filter for children never answers in time, and that counts how often it is listed.
    struct Slow {
        stream: MemoryStream,
        listed: AtomicUsize,
    }

    #[async_trait]
    impl ShardSource for Slow {
        async fn open(&self, shard: &ShardId, from: &StreamPoint) -> Result<ShardIterator, StreamError> {
            self.stream.open(shard, from).await
        }

        async fn fetch(&self, iterator: &ShardIterator) -> Result<Fetched, StreamError> {
            self.stream.fetch(iterator).await
        }
    }

    #[async_trait]
    impl StreamSource for Slow {
        fn name(&self) -> String {
            self.stream.name()
        }

        async fn shards(&self, after: Option<&ShardId>) -> Result<ShardPage, StreamError> {
            self.listed.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_secs(1)).await;
            self.stream.shards(after).await
        }

        async fn children(&self, _: &ShardId) -> Result<Vec<Shard>, StreamError> {
            Err(StreamError::Throttled { operation: "DescribeStream" })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn shards_that_end_together_are_listed_once_for_all() {
        let stream = MemoryStream::default();
        let parents: Vec<ShardId> = (0..50).map(|_| stream.create_shard(None)).collect();
        let children: Vec<Vec<ShardId>> = parents.iter().map(|parent| stream.close_shard(parent, 2)).collect();
        let slow = Arc::new(Slow { stream: stream.clone(), listed: AtomicUsize::new(0) });
        let listing = Listing::new(slow.clone(), Random::seeded(1));
        let found = join_all(parents.iter().map(|parent| listing.children(parent))).await;
        let ids = |shards: &Vec<Shard>| shards.iter().map(|shard| shard.id.clone()).collect::<Vec<_>>();
        assert_eq!(found.iter().map(ids).collect::<Vec<_>>(), children);
        let pages = slow.listed.load(Ordering::Relaxed);
        // Their tries end apart, by chance: so it is a few, not fifty.
        assert!(pages <= 10, "{pages} listings for 50 shards");
        // Who asks later is not answered with what was listed before.
        let late = stream.create_shard(None);
        assert!(listing.all().await.unwrap().iter().any(|shard| shard.id == late));
    }
}
