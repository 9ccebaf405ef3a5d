//! The keys of the events table, read by a parallel Scan, in batches. How rows are put together is in `grouping`.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{ConsumedCapacity, ReturnConsumedCapacity};
use tokio::sync::mpsc;

use super::grouping::{KeyBatch, Roots};
use crate::aws::AwsClients;
use crate::backfill::CapacityPace;
use crate::event::columns;
use crate::storage::StorageError;
use crate::storage::call::{Call, sequence_of, text_of};

/// Reads the keys of an events table, in parallel and no faster than its pace.
#[derive(Debug, Clone)]
pub struct KeyScan {
    client: Client,
    table: String,
    pace: CapacityPace,
    segments: u32,
}

/// A batch, or why the table could not be read.
type Batch = Result<KeyBatch, StorageError>;

impl KeyScan {
    /// Scans `events_table` in so many parallel parts.
    #[must_use]
    pub fn new(clients: &AwsClients, events_table: &str, pace: CapacityPace, segments: u32) -> Self {
        Self { client: clients.dynamodb.clone(), table: events_table.to_owned(), pace, segments: segments.max(1) }
    }

    /// The parts of the scan.
    #[must_use]
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Reads one segment to its end and sends its roots on, in batches. Ends early when nobody listens any more.
    pub async fn read(self, segment: u32, batches: mpsc::Sender<Batch>) {
        if let Err(error) = self.read_all(segment, &batches).await {
            // Nobody listens any more when the audit has ended on another segment's error.
            batches.send(Err(error)).await.ok();
        }
    }

    async fn read_all(&self, segment: u32, batches: &mpsc::Sender<Batch>) -> Result<(), StorageError> {
        let call = Call { operation: "Scan", action: "dynamodb:Scan", table: &self.table };
        let (mut roots, mut start) = (Roots::default(), None);
        loop {
            self.pace.ready().await;
            let request = (self.client.scan())
                .table_name(&self.table)
                .segment(i32::try_from(segment).unwrap_or(i32::MAX))
                .total_segments(i32::try_from(self.segments).unwrap_or(i32::MAX))
                .consistent_read(true)
                .projection_expression("pk, sk, append_id")
                .set_exclusive_start_key(start)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let answer = call.make(request.send()).await?;
            call.consumed(answer.consumed_capacity());
            let units = answer.consumed_capacity().and_then(ConsumedCapacity::capacity_units);
            self.pace.consumed(units.unwrap_or(0.0));
            for item in answer.items() {
                if let (Some(pk), Some(sk)) = (text_of(item, columns::PK), sequence_of(item, columns::SK)) {
                    roots.add_row(pk, sk, text_of(item, columns::APPEND_ID));
                }
            }
            start = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                roots.end();
            }
            while let Some(batch) = roots.batch(start.is_none()) {
                if batches.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
            if start.is_none() {
                return Ok(());
            }
        }
    }
}
