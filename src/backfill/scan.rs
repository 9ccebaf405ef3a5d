//! The events table as a source of shards, each a segment of a parallel Scan.
//!
//! A place is the number of rows before it with the key of the last one, from which DynamoDB goes on; so a segment can
//! be read on from any checkpoint. Nothing is ever "gone" here: a table that is missing is an obstacle, not an end.
//! Invariant: pages are asked for only as fast as the pace allows.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity, ReturnConsumedCapacity};

use super::{CapacityPace, JobKind, ScanProgress, Scanned, Segment};
use crate::aws::{AwsClients, AwsFailure, classify, observe};
use crate::event::{ChunkKey, columns, decode_row};
use crate::storage::StorageError;
use crate::storage::call::Call;
use crate::stream::{
    Change, Fetched, Record, ShardId, ShardIterator, ShardSource, StreamError, StreamPoint, StreamSequence,
};
use crate::telemetry;

/// How large a table is, as DynamoDB says: brought up to date every six hours (`aws-facts` A).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableSize {
    /// Its rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A table that is read in segments.
#[async_trait]
pub trait TableSource: ShardSource {
    /// How large it is.
    async fn size(&self) -> Result<TableSize, StorageError>;
}

/// Rows one page asks for, as many as one GetRecords; DynamoDB ends a page at 1 MB besides.
const PAGE_ROWS_MAX: i32 = 1000;

/// The call that a read is.
const SCAN: &str = "Scan";

/// Segments of one events table. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TableScan {
    client: Client,
    table: String,
    pace: CapacityPace,
    progress: ScanProgress,
}

impl TableScan {
    /// Scans `events_table` at this pace and counts in `progress`.
    #[must_use]
    pub fn new(clients: &AwsClients, events_table: &str, pace: CapacityPace, progress: ScanProgress) -> Self {
        Self { client: clients.dynamodb.clone(), table: events_table.to_owned(), pace, progress }
    }
}

/// An iterator is the segment's name and the place in it: names hold no line ends.
pub(super) fn iterator(shard: &ShardId, from: &StreamPoint) -> ShardIterator {
    let place = match from {
        StreamPoint::Horizon => String::new(),
        StreamPoint::After(sequence) => sequence.digits(),
    };
    ShardIterator(format!("{shard}\n{place}"))
}

/// Takes an iterator apart; none when it is no such.
pub(super) fn parse_iterator(iterator: &ShardIterator) -> Option<(ShardId, Segment, Option<StreamSequence>)> {
    let (name, place) = iterator.0.split_once('\n')?;
    let shard = ShardId::new(name);
    let segment = Segment::of_shard(&shard)?;
    let place = if place.is_empty() { None } else { Some(StreamSequence::parse(place)?) };
    Some((shard, segment, place))
}

fn failed<E, R>(error: Box<SdkError<E, R>>) -> StreamError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match classify(&*error) {
        AwsFailure::Throttled => StreamError::Throttled { operation: SCAN },
        AwsFailure::Denied => StreamError::Denied { action: "dynamodb:Scan", source: error },
        _ => StreamError::Unavailable { operation: SCAN, source: error },
    }
}

fn key_text<'a>(item: &'a HashMap<String, AttributeValue>, name: &str) -> &'a str {
    match item.get(name) {
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => text,
        _ => "",
    }
}

/// The roots on a page of rows that follow each other by root, the one the page before ended with not counted again.
pub(super) fn count_roots<'a>(keys: impl Iterator<Item = &'a str>, mut last: Option<&'a str>) -> u64 {
    let mut roots = 0;
    for key in keys.filter(|key| !ChunkKey::is_chunk(key)) {
        roots += u64::from(last != Some(key));
        last = Some(key);
    }
    roots
}

#[async_trait]
impl TableSource for TableScan {
    async fn size(&self) -> Result<TableSize, StorageError> {
        let call = Call { operation: "DescribeTable", action: "dynamodb:DescribeTable", table: &self.table };
        let answer = call.make(self.client.describe_table().table_name(&self.table).send()).await?;
        let count = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        let table = answer.table();
        Ok(TableSize {
            rows: count(table.and_then(|table| table.item_count)),
            bytes: count(table.and_then(|table| table.table_size_bytes)),
        })
    }
}

#[async_trait]
impl ShardSource for TableScan {
    async fn open(&self, shard: &ShardId, from: &StreamPoint) -> Result<ShardIterator, StreamError> {
        Ok(iterator(shard, from))
    }

    async fn fetch(&self, at: &ShardIterator) -> Result<Fetched, StreamError> {
        let Some((shard, segment, place)) = parse_iterator(at) else { return Err(StreamError::ExpiredIterator) };
        let (before, sort_key, root_key) = place.as_ref().and_then(StreamSequence::row).unwrap_or_default();
        let start = place.as_ref().map(|_| {
            let pk = (columns::PK.to_owned(), AttributeValue::S(root_key.to_owned()));
            HashMap::from([pk, (columns::SK.to_owned(), AttributeValue::N(sort_key.to_owned()))])
        });
        self.pace.ready().await;
        let call = (self.client.scan())
            .table_name(&self.table)
            .segment(i32::try_from(segment.number).unwrap_or(i32::MAX))
            .total_segments(i32::try_from(segment.of).unwrap_or(i32::MAX))
            .limit(PAGE_ROWS_MAX)
            // What a backfill may miss, because it was just written, the stream brings; a reconcile has no such help.
            .consistent_read(segment.kind == JobKind::Reconcile)
            .set_exclusive_start_key(start)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = observe(SCAN, call.send()).await.map_err(failed)?;
        let units = answer.consumed_capacity().and_then(ConsumedCapacity::capacity_units).unwrap_or(0.0);
        telemetry::record_capacity(&self.table, SCAN, units);
        self.pace.consumed(units);
        let more = answer.last_evaluated_key.is_some_and(|key| !key.is_empty());
        let items = answer.items.unwrap_or_default();
        let roots = count_roots(items.iter().map(|item| key_text(item, columns::PK)), Some(root_key));
        self.progress.add(&shard, Scanned { rows: items.len() as u64, roots, units });
        let through = before + items.len() as u64;
        let last = (items.last())
            .map(|item| StreamSequence::of_row(through, key_text(item, columns::SK), key_text(item, columns::PK)));
        let point = last.clone().or(place).map_or(StreamPoint::Horizon, StreamPoint::After);
        let (records, end) = (items.len(), last.clone());
        let decode = move || {
            let rows = items.into_iter().zip(before + 1..);
            let record = |(item, number): (_, u64)| Record {
                sequence: end
                    .clone()
                    .filter(|_| number == through)
                    .unwrap_or_else(|| StreamSequence::of_number(number)),
                happened_at: segment.started_at,
                change: Change::of_row(decode_row(item)),
            };
            Ok(rows.map(record).collect())
        };
        let next = more.then(|| iterator(&shard, &point));
        Ok(Fetched::new(next, (last, records, 0), Box::new(decode)).with_more(more))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Job;
    use super::*;
    use crate::event::Timestamp;
    use crate::handler::HandlerName;

    #[test]
    fn an_iterator_survives_being_written() {
        let job = Job::new(JobKind::Backfill, Timestamp::from_unix_millis(5), 2, "", "stream");
        let segment = Segment::all(&HandlerName::new("orders").unwrap(), &job).remove(1);
        let place = StreamSequence::of_row(1000, "7", "orders##a\nb@c");
        for (from, expected) in [(StreamPoint::Horizon, None), (StreamPoint::After(place.clone()), Some(place))] {
            let (shard, read, place) = parse_iterator(&iterator(&segment.shard(), &from)).unwrap();
            assert_eq!((shard, read, place), (segment.shard(), segment.clone(), expected));
        }
        assert!(parse_iterator(&ShardIterator("x".into())).is_none());
    }

    #[test]
    fn a_root_over_two_pages_is_counted_once() {
        assert_eq!(count_roots(["a", "a", "b"].into_iter(), None), 2);
        assert_eq!(count_roots(["a", "#chunk#a#0#x", "b"].into_iter(), None), 2);
        assert_eq!(count_roots(["b", "c"].into_iter(), Some("b")), 1);
        assert_eq!(count_roots([].into_iter(), Some("b")), 0);
    }
}
