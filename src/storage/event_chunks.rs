//! The chunks of large payloads in the events table: written before or with their event's row, and put together again.
//!
//! Chunk rows: `pk` as [`ChunkKey`] writes it, `sk` N the chunk's number from 0, `chunk` B, `written_at` S. They
//! are written once and never changed. Invariant: an event's row is written with or after all of its chunks, so an event that
//! is there is whole. Chunks whose event was never written are orphans: they are of no harm, and `audit` finds them.

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::call::{Item, binary, number, sequence_of, text, text_of};
use super::rows::{put_row, read_page, remove_row};
use super::{EventStore, StorageError};
use crate::event::{ChunkKey, Chunked, Event, Root, Sequence, Timestamp, columns, cut};

/// The bytes of a chunk unless configured: leaves room in a row of 400 KB for the longest key.
pub const CHUNK_BYTES_DEFAULT: usize = 350 << 10;

/// Chunks written, or removed, at once.
const CALLS_AT_ONCE: usize = 4;

/// The rows of one payload's chunks.
pub(super) fn chunk_items(
    (root, sequence): (&Root, Sequence),
    (payload, chunk_bytes): (&Bytes, usize),
    append_id: &str,
    written_at: Timestamp,
) -> impl Iterator<Item = Item> {
    let key = ChunkKey { root: root.clone(), sequence, append_id: append_id.into() }.to_string();
    cut(payload, chunk_bytes).zip(0..).map(move |(chunk, at)| {
        Item::from([
            (columns::PK.to_owned(), text(key.as_str())),
            (columns::SK.to_owned(), number(Sequence(at))),
            (columns::CHUNK.to_owned(), binary(&chunk)),
            (columns::WRITTEN_AT.to_owned(), text(written_at.to_string())),
        ])
    })
}

/// The attributes of an event's row in the place of its payload.
pub(super) fn description(chunked: &Chunked) -> [(String, aws_sdk_dynamodb::types::AttributeValue); 4] {
    [
        (columns::PAYLOAD_BYTES.to_owned(), number(Sequence(chunked.bytes as u64))),
        (columns::PAYLOAD_CHUNKS.to_owned(), number(Sequence(chunked.chunks.into()))),
        (columns::PAYLOAD_SHA256.to_owned(), binary(&Bytes::copy_from_slice(&chunked.sha256))),
        (columns::APPEND_ID.to_owned(), text(&*chunked.append_id)),
    ]
}

impl EventStore {
    /// When the first chunk of a payload was written, as its row says; none when there is no chunk.
    ///
    /// # Errors
    /// As the call failed, or when the row says no time.
    pub async fn chunks_written_at(&self, key: &ChunkKey) -> Result<Option<Timestamp>, StorageError> {
        let call = self.query_call();
        let request = (self.client.query())
            .table_name(&self.table)
            .consistent_read(true)
            .limit(1)
            .projection_expression(columns::WRITTEN_AT)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(key.to_string()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        let Some(item) = answer.items().first() else { return Ok(None) };
        let written_at = text_of(item, columns::WRITTEN_AT).and_then(|text| Timestamp::parse(text).ok());
        let reason = "`written_at` of a chunk is no ISO 8601 time";
        let unreadable = || StorageError::Unreadable { table: self.table.clone(), key: key.to_string(), reason };
        written_at.ok_or_else(unreadable).map(Some)
    }

    /// Removes the chunks up to the number `last` of a payload that belongs to no event.
    ///
    /// # Errors
    /// As a call failed; some may be gone.
    pub async fn remove_chunks(&self, key: &ChunkKey, last: Sequence) -> Result<(), StorageError> {
        let pk = key.to_string();
        let remove = |at: u64| {
            let row = [(columns::PK.to_owned(), text(&pk)), (columns::SK.to_owned(), number(Sequence(at)))];
            remove_row(&self.client, &self.table, row.into())
        };
        stream::iter(0..=last.0).map(remove).buffer_unordered(CALLS_AT_ONCE).try_collect().await
    }

    /// Writes chunks, a few at a time. What was written before one fails stays.
    pub(super) async fn put_chunks(&self, items: impl Iterator<Item = Item>) -> Result<(), StorageError> {
        let put = |item| put_row(&self.client, &self.table, item);
        stream::iter(items).map(put).buffer_unordered(CALLS_AT_ONCE).try_collect().await
    }

    /// The whole payload of an event, read consistently from its chunks where it is stored in some.
    ///
    /// # Errors
    /// [`StorageError::Unreadable`] when the chunks are not what the event's row says; else as the call failed.
    pub async fn payload(&self, event: &Event) -> Result<Bytes, StorageError> {
        let Some(chunked) = &event.chunked else { return Ok(event.payload.clone()) };
        let (root, sequence, append_id) = (event.root.clone(), event.sequence, chunked.append_id.clone());
        let key = ChunkKey { root, sequence, append_id }.to_string();
        let unreadable = |reason| StorageError::Unreadable {
            table: self.table.clone(),
            key: format!("{} {}", event.root.key(), event.sequence),
            reason,
        };
        let (mut joining, mut start) = (chunked.join(), None);
        loop {
            let (rows, next) = read_page(&self.client, &self.table, &key, None, start).await?;
            for item in &rows {
                let number = sequence_of(item, columns::SK).ok_or_else(|| unreadable("a chunk has no number"))?;
                let chunk = item.get(columns::CHUNK).and_then(|value| value.as_b().ok());
                let chunk = chunk.ok_or_else(|| unreadable("`chunk` of a chunk's row is missing or not binary (B)"))?;
                joining.push(number.0, chunk.as_ref()).map_err(unreadable)?;
            }
            start = next;
            if start.is_none() {
                return joining.finish().map_err(unreadable);
            }
        }
    }
}
