//! The keys of the events table, root by root.
//!
//! A parallel Scan puts a partition key into one segment and its rows one behind the other; so a root is complete when
//! the next one begins, and nothing but the one at hand is kept. Rows whose key is no event key are counted and passed.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{ConsumedCapacity, ReturnConsumedCapacity};
use tokio::sync::mpsc;

use crate::aws::AwsClients;
use crate::backfill::CapacityPace;
use crate::event::{ChunkKey, Root, Sequence, columns};
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
    /// How many sequences are missing between the first and the last.
    #[must_use]
    pub fn missing(&self) -> u64 {
        (self.last.0 - self.first.0).saturating_sub(self.count - 1)
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

/// What the table holds of one payload in chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadKeys {
    /// Whose payload, as which append wrote it.
    pub key: ChunkKey,
    /// How many chunks there are; none where an event's row names them and they were not met.
    pub chunks: u64,
    /// The number of the last.
    pub last: Sequence,
}

/// Keys that were met, put together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyBatch {
    /// The roots.
    pub roots: Vec<RootKeys>,
    /// The payloads in chunks: of chunk rows that were met, and of event rows that name some.
    pub payloads: Vec<PayloadKeys>,
}

/// A batch, or why the table could not be read.
type Batch = Result<KeyBatch, StorageError>;

/// Puts rows that follow each other together by root.
#[derive(Debug, Default)]
struct Roots {
    current: Option<RootKeys>,
    complete: Vec<RootKeys>,
    payload: Option<PayloadKeys>,
    payloads: Vec<PayloadKeys>,
}

impl Roots {
    fn add_chunk(&mut self, key: ChunkKey, number: Sequence) {
        match &mut self.payload {
            Some(payload) if payload.key == key => {
                payload.chunks += 1;
                payload.last = payload.last.max(number);
            }
            _ => {
                let next = PayloadKeys { key, chunks: 1, last: number };
                self.payloads.extend(self.payload.replace(next));
            }
        }
    }

    /// Takes a row of the table; one whose key is nobody's is passed.
    fn add_row(&mut self, item: &Item) {
        let (Some(pk), Some(number)) = (text_of(item, columns::PK), sequence_of(item, columns::SK)) else { return };
        if ChunkKey::is_chunk(pk) {
            if let Some(key) = ChunkKey::parse(pk) {
                self.add_chunk(key, number);
            }
        } else if let Ok(root) = Root::parse(pk) {
            if let Some(append_id) = text_of(item, columns::APPEND_ID) {
                let key = ChunkKey { root: root.clone(), sequence: number, append_id: append_id.into() };
                self.payloads.push(PayloadKeys { key, chunks: 0, last: Sequence::FIRST });
            }
            self.add(root, number);
        }
    }

    /// A full batch, or what is left at the end.
    fn batch(&mut self, at_end: bool) -> Option<KeyBatch> {
        let some = self.complete.len() + self.payloads.len();
        if some == 0 || (some < BATCH_ROOTS && !at_end) {
            return None;
        }
        let roots = self.complete.drain(..self.complete.len().min(BATCH_ROOTS)).collect();
        let payloads = self.payloads.drain(..self.payloads.len().min(BATCH_ROOTS)).collect();
        Some(KeyBatch { roots, payloads })
    }

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
        self.payloads.extend(self.payload.take());
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
                .projection_expression("pk, sk, append_id")
                .set_exclusive_start_key(start)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let answer = call.make(request.send()).await?;
            call.consumed(answer.consumed_capacity());
            let units = answer.consumed_capacity().and_then(ConsumedCapacity::capacity_units);
            self.pace.consumed(units.unwrap_or(0.0));
            for item in answer.items() {
                roots.add_row(item);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::call::{number, text};

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
            .map(|keys| (keys.root.id(), keys.first.0, keys.last.0, keys.count, keys.missing()))
            .collect();
        assert_eq!(shown, [("a", 0, 3, 3, 1), ("b", 5, 5, 1, 0), ("c", 0, 0, 1, 0)]);
    }

    #[test]
    fn chunks_are_put_together_by_payload_and_named_by_events() {
        let root = Root::new("d", "", "a").unwrap();
        let key = |sequence, append_id: &str| ChunkKey {
            root: root.clone(),
            sequence: Sequence(sequence),
            append_id: append_id.into(),
        };
        let row =
            |pk: &str, sk: u64| Item::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), number(Sequence(sk)))]);
        let mut roots = Roots::default();
        for number in [0, 1, 5] {
            roots.add_row(&row(&key(7, "x").to_string(), number));
        }
        roots.add_row(&row(&key(7, "y").to_string(), 0));
        let mut event = row("d##a", 7);
        event.insert("append_id".into(), text("x"));
        roots.add_row(&event);
        roots.end();
        let batch = roots.batch(true).unwrap();
        assert_eq!(batch.roots.len(), 1);
        let found: Vec<_> =
            batch.payloads.iter().map(|payload| (&*payload.key.append_id, payload.chunks, payload.last.0)).collect();
        assert_eq!(found, [("x", 3, 5), ("x", 0, 0), ("y", 1, 0)]);
        assert_eq!(roots.batch(true), None);
    }
}
