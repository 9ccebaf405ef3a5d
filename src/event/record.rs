//! One event: a row of the events table, decoded.

use std::fmt;

use bytes::Bytes;

use super::{Chunked, Root, Sequence, Timestamp, TraceParent};

/// What an event costs in memory besides its texts and payload, about: the struct, its reference counts, its place in
/// a queue.
const OVERHEAD_BYTES: usize = 200;

/// One row of the events table. The payload is the user's: it is never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// The aggregate instance it belongs to.
    pub root: Root,
    /// Its number within the root.
    pub sequence: Sequence,
    /// The type's name, such as `OrderPlaced`.
    pub event_type: Box<str>,
    /// The body, as its writer encoded it; empty while it is stored in chunks and was not put together.
    pub payload: Bytes,
    /// How the payload is stored when it is not in the event's own row. A handler gets the payload whole all the same,
    /// unless it takes none of this size.
    pub chunked: Option<Box<Chunked>>,
    /// What ties together the events of one business transaction, if its writer said.
    pub correlation_id: Option<Box<str>>,
    /// The trace it was made in, if its writer said.
    pub traceparent: Option<TraceParent>,
    /// When its writer made it.
    pub created_at: Timestamp,
}

impl Event {
    /// The size of the whole payload, wherever it is.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.chunked.as_ref().map_or(self.payload.len(), |chunked| chunked.bytes)
    }

    /// Whether `payload` is all of it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.payload.len() == self.payload_bytes()
    }

    /// What the event costs in memory, in bytes, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        OVERHEAD_BYTES
            + self.payload.len()
            + self.root.key().len()
            + self.event_type.len()
            + self.correlation_id.as_deref().map_or(0, str::len)
            + self.traceparent.as_ref().map_or(0, |traceparent| traceparent.as_str().len())
    }
}

/// Shows the key and the sizes, never the payload.
impl fmt::Debug for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Event")
            .field("root", &self.root.key())
            .field("sequence", &self.sequence.0)
            .field("event_type", &self.event_type)
            .field("payload_bytes", &self.payload_bytes())
            .finish_non_exhaustive()
    }
}
