//! The keys of the events table, root by root.
//!
//! A parallel Scan puts a partition key into one segment and its rows one behind the other; so a root is complete when
//! the next one begins, and nothing but the one at hand is kept. Rows whose key is no event key are counted and passed.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{ConsumedCapacity, ReturnConsumedCapacity};
use tokio::sync::mpsc;

use crate::aws::AwsClients;
use crate::backfill::CapacityPace;
use crate::event::{Root, Sequence, columns};
use crate::storage::StorageError;
use crate::storage::call::{Call, Item, sequence_of, text_of};

/// Roots handed on together: as many as one read of positions takes.
const BATCH_ROOTS: usize = 100;

/// What the table holds of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootKeys {
    /// The root.
    pub root: Root,
    /// Its first sequence.
    pub first: Sequence,
    /// Its last.
    pub last: Sequence,
    /// How many there are.
    pub count: u64,
}

impl RootKeys {
    /// Whether a sequence is missing between the first and the last.
    #[must_use]
    pub fn has_hole(&self) -> bool {
        self.last.0 - self.first.0 != self.count - 1
    }
}

/// Reads the keys of an events table, in parallel and no faster than its pace.
#[derive(Debug, Clone)]
pub struct KeyScan {
    client: Client,
    table: String,
    pace: CapacityPace,
    segments: u32,
}

/// A batch of roots, or why the table could not be read.
type Batch = Result<Vec<RootKeys>, StorageError>;

/// Puts rows that follow each other together by root.
#[derive(Debug, Default)]
struct Roots {
    current: Option<RootKeys>,
    complete: Vec<RootKeys>,
}

impl Roots {
    fn add(&mut self, root: Root, sequence: Sequence) {
        match &mut self.current {
            Some(keys) if keys.root == root => {
                keys.last = keys.last.max(sequence);
                keys.count += 1;
            }
            _ => {
                let next = RootKeys { root, first: sequence, last: sequence, count: 1 };
                self.complete.extend(self.current.replace(next));
            }
        }
    }

    fn end(&mut self) {
        self.complete.extend(self.current.take());
    }
}

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
                .projection_expression("pk, sk")
                .set_exclusive_start_key(start)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let answer = call.make(request.send()).await?;
            call.consumed(answer.consumed_capacity());
            let units = answer.consumed_capacity().and_then(ConsumedCapacity::capacity_units);
            self.pace.consumed(units.unwrap_or(0.0));
            for item in answer.items() {
                if let Some((root, sequence)) = key_of(item) {
                    roots.add(root, sequence);
                }
            }
            start = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                roots.end();
            }
            while roots.complete.len() >= BATCH_ROOTS || (start.is_none() && !roots.complete.is_empty()) {
                let batch = roots.complete.drain(..roots.complete.len().min(BATCH_ROOTS)).collect();
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

fn key_of(item: &Item) -> Option<(Root, Sequence)> {
    let root = Root::parse(text_of(item, columns::PK)?).ok()?;
    Some((root, sequence_of(item, columns::SK)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_put_together_by_root() {
        let root = |id| Root::new("d", "", id).unwrap();
        let mut roots = Roots::default();
        for (id, sequence) in [("a", 0), ("a", 1), ("a", 3), ("b", 5), ("c", 0)] {
            roots.add(root(id), Sequence(sequence));
        }
        assert_eq!(roots.complete.len(), 2, "the last may have more rows");
        roots.end();
        let shown: Vec<_> = (roots.complete.iter())
            .map(|keys| (keys.root.id(), keys.first.0, keys.last.0, keys.count, keys.has_hole()))
            .collect();
        assert_eq!(shown, [("a", 0, 3, 3, true), ("b", 5, 5, 1, false), ("c", 0, 0, 1, false)]);
    }
}
