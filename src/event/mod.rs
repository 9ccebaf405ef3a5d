//! The event and its names: what one row of the events table means.
//!
//! Pure data and codecs, no I/O: the root and its key, the sequence, the event itself, the decoding of a
//! table row, payloads in chunks, and the CloudEvents encoding. Reading and writing rows is left to `storage` and `stream`.

mod chunk;
mod cloudevent;
mod record;
mod root;
mod row;
mod sequence;
mod timestamp;
mod traceparent;

pub use chunk::{ChunkKey, Chunked, Joining, PAYLOAD_BYTES_MAX, cut};
pub use cloudevent::{
    CLOUDEVENTS_CONTENT_TYPE, CloudEventPieces, cloudevent_bytes, cloudevent_id, cloudevent_json, cloudevent_reference,
};
pub use record::Event;
pub use root::{Root, RootError, escape, unescape};
pub use row::{Attribute, InvalidRow, Row, RowError, columns, decode_row};
pub use sequence::Sequence;
pub use timestamp::{Timestamp, TimestampError};
pub use traceparent::TraceParent;

#[cfg(test)]
pub(crate) mod testing;
