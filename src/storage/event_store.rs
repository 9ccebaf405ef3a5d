//! The events table, read: by writers of commands, by the relay's repair, by operators. Appending is in `event_append`.

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use bytes::Bytes;

use super::call::{Call, Item, number, text};
use super::event_chunks::CHUNK_BYTES_DEFAULT;
use super::{Consistency, EventSource, RowPage, StorageError};
use crate::aws::AwsClients;
use crate::event::{Event, Root, RowError, Sequence, columns, decode_row};
use crate::time::{Clock, Random};

/// The most rows one page asks for; DynamoDB ends a page at 1 MB besides.
const PAGE_ROWS_MAX: usize = 1000;

/// The event store: one events table. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventStore {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) random: Random,
    /// A payload larger than this is stored in chunks of this size.
    pub(super) chunk_bytes: usize,
    pub(super) clock: Clock,
}

impl EventStore {
    /// The events in `table`.
    #[must_use]
    pub fn new(clients: &AwsClients, table: &str, random: Random) -> Self {
        let (client, table) = (clients.dynamodb.clone(), table.to_owned());
        Self { client, table, random, chunk_bytes: CHUNK_BYTES_DEFAULT, clock: Clock::system() }
    }

    /// Stores payloads larger than this in chunks of this size, in bytes; [`CHUNK_BYTES_DEFAULT`] otherwise.
    #[must_use]
    pub fn with_chunk_bytes(self, chunk_bytes: usize) -> Self {
        Self { chunk_bytes: chunk_bytes.clamp(1, CHUNK_BYTES_DEFAULT), ..self }
    }

    /// One page of a root's rows from the sequence `from` on, at most `rows_max` and about 1 MB of them. A row that is
    /// no event comes as an error in its place.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn read(
        &self,
        root: &Root,
        from: Sequence,
        consistency: Consistency,
        rows_max: usize,
    ) -> Result<RowPage, StorageError> {
        self.query(root, from, Sequence(u64::MAX), consistency, rows_max).await
    }

    /// The last sequence of a root, read consistently; none when it has no event.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn last(&self, root: &Root) -> Result<Option<Sequence>, StorageError> {
        let call = self.query_call();
        let request = (self.client.query())
            .table_name(&self.table)
            .consistent_read(true)
            .scan_index_forward(false)
            .limit(1)
            .key_condition_expression("pk = :pk")
            .projection_expression("sk")
            .expression_attribute_values(":pk", text(root.key()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        Ok(answer.items().first().and_then(whole_sequence))
    }

    pub(super) fn query_call(&self) -> Call<'_> {
        Call { operation: "Query", action: "dynamodb:Query", table: &self.table }
    }

    async fn query(
        &self,
        root: &Root,
        from: Sequence,
        to: Sequence,
        consistency: Consistency,
        rows_max: usize,
    ) -> Result<RowPage, StorageError> {
        if from > to {
            return Ok(RowPage::default());
        }
        let call = self.query_call();
        let limit = i32::try_from(rows_max.clamp(1, PAGE_ROWS_MAX)).unwrap_or(i32::MAX);
        let request = (self.client.query())
            .table_name(&self.table)
            .consistent_read(consistency == Consistency::Strong)
            .limit(limit)
            .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
            .expression_attribute_values(":pk", text(root.key()))
            .expression_attribute_values(":from", number(from))
            .expression_attribute_values(":to", number(to))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        let next =
            (answer.last_evaluated_key.as_ref()).and_then(whole_sequence).filter(|last| *last < to).map(Sequence::next);
        let mut rows = Vec::new();
        for item in answer.items.unwrap_or_default() {
            match decode_row(item) {
                Ok(event) => rows.push(Ok(event)),
                Err(RowError::Body(invalid)) => rows.push(Err(invalid)),
                Err(RowError::Chunk) => {}
                // A sort key between two whole numbers: nobody's event.
                Err(RowError::Key { key, reason }) => tracing::warn!(key, reason, "a row that is no event was passed"),
            }
        }
        Ok(RowPage { rows, next })
    }
}

/// The whole number at or below a row's sort key.
fn whole_sequence(key: &Item) -> Option<Sequence> {
    let digits = key.get(columns::SK)?.as_n().ok()?;
    digits.split('.').next()?.parse().ok().map(Sequence)
}

#[async_trait]
impl EventSource for EventStore {
    async fn read_consistent(
        &self,
        root: &Root,
        from: Sequence,
        to: Sequence,
        rows_max: usize,
    ) -> Result<RowPage, StorageError> {
        self.query(root, from, to, Consistency::Strong, rows_max).await
    }

    async fn payload(&self, event: &Event) -> Result<Bytes, StorageError> {
        Self::payload(self, event).await
    }
}
