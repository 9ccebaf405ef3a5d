//! Looking for shards: for all of a stream, or for the children of one that has ended.
//!
//! Invariant: DescribeStream allows 10 calls a second; what is asked for here stays below that.

use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use crate::stream::{Shard, ShardId, StreamError, StreamSource, with_causes};
use crate::time::{Backoff, BackoffPolicy, Random};

/// Pages of one listing keep this distance.
const PAGE_DISTANCE: Duration = Duration::from_millis(110);

/// The children of a closed shard may not be listed yet: it is asked so often, then left to the slow comparison
/// (`aws-facts` A).
const CHILDREN_TRIES_MAX: u32 = 10;

/// The waits between those tries.
const CHILDREN_BACKOFF: BackoffPolicy =
    BackoffPolicy { initial: Duration::from_millis(50), max: Duration::from_secs(1) };

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
        sleep(PAGE_DISTANCE).await;
    }
}

/// The children of a shard that has ended, the elder first; none when they are not listed in time: then the slow
/// comparison finds them.
pub(super) async fn list_children(stream: &dyn StreamSource, parent: &ShardId, random: Random) -> Vec<Shard> {
    let mut found = ask_for_children(stream, parent, Backoff::new(CHILDREN_BACKOFF, random)).await;
    found.retain(|shard| shard.parent.as_ref() == Some(parent));
    found.sort_by(|one, other| one.id.cmp(&other.id));
    found
}

async fn ask_for_children(stream: &dyn StreamSource, parent: &ShardId, mut backoff: Backoff) -> Vec<Shard> {
    for _ in 0..CHILDREN_TRIES_MAX {
        match stream.children(parent).await {
            Ok(children) if !children.is_empty() => return children,
            Ok(_) => {}
            Err(error) => debug!(%parent, error = %with_causes(&error), "could not ask for the children of a shard"),
        }
        sleep(backoff.next_wait()).await;
    }
    list_all(stream).await.unwrap_or_default()
}
