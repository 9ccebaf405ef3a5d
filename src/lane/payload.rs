//! Payloads that are stored in chunks, put together just before their handler gets them.
//!
//! Until then an event in the lanes is no larger than its row. A chunk that is missing is waited for as any hole is, then
//! its event counts as refused for good. Invariant: the payloads that are put together for a handler take at most its room;
//! only one that is larger than all of it has more.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use super::LanesParts;
use super::placing::HOLE_POLL;
use super::tables::until_done;
use crate::event::Event;
use crate::handler::{HandlerError, RootBatch};
use crate::storage::StorageError;

/// Room for payloads that are put together. Clones share it; who came first gets it first.
#[derive(Debug, Clone)]
pub struct PayloadRoom {
    kib: Arc<Semaphore>,
    kib_max: u32,
}

impl PayloadRoom {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let kib_max = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).max(1);
        let permits = usize::try_from(kib_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { kib: Arc::new(Semaphore::new(permits)), kib_max }
    }

    /// Waits for room for so many bytes; all of it when they are more.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX).min(self.kib_max);
        self.kib.clone().acquire_many_owned(kib).await.ok()
    }
}

/// Whether a handler that takes payloads up to this size gets this one put together.
fn is_large(event: &Event, bytes_max: usize) -> bool {
    event.chunked.as_ref().is_some_and(|chunked| chunked.bytes <= bytes_max)
}

/// A group as its handler gets it.
pub(super) struct Whole {
    /// For each batch its first events, as many as are whole; or why not even the first is.
    pub(super) batches: Vec<Result<RootBatch, HandlerError>>,
    /// Held for as long as they are.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Puts the payloads of a group together; none when there is nothing to do, as mostly.
pub(super) async fn put_together(parts: &LanesParts, group: &[RootBatch]) -> Option<Whole> {
    if group.iter().flat_map(|batch| &batch.events).all(|event| event.chunked.is_none()) {
        return None;
    }
    let bytes_max = parts.handler.limits().payload_bytes_max;
    let large = || group.iter().flat_map(|batch| &batch.events).filter(|event| is_large(event, bytes_max));
    let bytes = large().map(|event| event.payload_bytes()).sum();
    let room = parts.payload_room.take(bytes).await;
    let mut batches = Vec::with_capacity(group.len());
    for batch in group {
        let mut whole = RootBatch { root: batch.root.clone(), events: Vec::with_capacity(batch.events.len()) };
        let mut broken = None;
        for event in &batch.events {
            if !is_large(event, bytes_max) {
                whole.events.push(event.clone());
                continue;
            }
            match payload(parts, event).await {
                Ok(event) => whole.events.push(Arc::new(event)),
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        // What is whole before a broken one is given first; then the broken one is the first.
        batches.push(broken.filter(|_| whole.events.is_empty()).map_or(Ok(whole), Err));
    }
    Some(Whole { batches, room })
}

/// The event with its payload.
async fn payload(parts: &LanesParts, event: &Event) -> Result<Event, HandlerError> {
    let until = Instant::now() + parts.settings.hole_timeout;
    loop {
        let read = async || match parts.events.payload(event).await {
            Err(error @ StorageError::Unreadable { .. }) => Ok(Err(error)),
            read => read.map(Ok),
        };
        match until_done(parts, "events table", read).await {
            Ok(payload) => return Ok(Event { payload, ..event.clone() }),
            Err(error) if Instant::now() >= until => {
                let reason = "the payload of the event cannot be put together".to_owned();
                return Err(HandlerError::Permanent { reason, source: Some(Box::new(error)) });
            }
            Err(_) => sleep(HOLE_POLL).await,
        }
    }
}
