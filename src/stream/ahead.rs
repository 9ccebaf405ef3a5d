//! A read of a shard that is under way while the page before it is still being decoded, grouped and handed out.
//!
//! Only a full page is followed by one: there is more for certain, and nothing to wait for. Its room was reserved when
//! it began. It ends when it is dropped.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::budget::Room;
use super::{Fetched, ShardIterator, ShardSource, StreamError, StreamPoint};
use crate::time::ClockReading;

/// A read begun early.
pub(super) struct Ahead {
    from: StreamPoint,
    room: Room,
    asked_at: ClockReading,
    task: JoinSet<Result<Fetched, StreamError>>,
}

/// What a read brought, the room it has, and when it was made.
pub(super) type Answer = (Result<Fetched, StreamError>, Room, ClockReading);

impl Ahead {
    /// Begins to read behind `from`, where the iterator stands.
    pub(super) fn start(
        source: Arc<dyn ShardSource>,
        iterator: ShardIterator,
        from: StreamPoint,
        room: Room,
        asked_at: ClockReading,
    ) -> Self {
        let mut task = JoinSet::new();
        task.spawn(async move { source.fetch(&iterator).await });
        Self { from, room, asked_at, task }
    }

    /// Whether it reads from there.
    pub(super) fn is_from(&self, from: &StreamPoint) -> bool {
        self.from == *from
    }

    /// Waits for the answer.
    pub(super) async fn answer(mut self) -> Answer {
        let answer = match self.task.join_next().await {
            Some(Ok(answer)) => answer,
            Some(Err(stopped)) => Err(StreamError::Unavailable { operation: OPERATION, source: Box::new(stopped) }),
            None => Err(StreamError::ExpiredIterator),
        };
        (answer, self.room, self.asked_at)
    }
}

/// The call that a read is.
const OPERATION: &str = "GetRecords";
