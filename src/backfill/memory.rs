//! The events table in memory as a source of segments, for tests and simulation.

use async_trait::async_trait;

use super::ScanProgress;
use super::Scanned;
use super::scan::{TableSize, TableSource, count_roots, iterator, parse_iterator};
use crate::event::Row;
use crate::storage::{MemoryEvents, StorageError};
use crate::stream::{
    Change, Fetched, Record, RecordPage, ShardId, ShardIterator, ShardSource, StreamError, StreamPoint, StreamSequence,
};

/// Segments of an events table in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryScan {
    events: MemoryEvents,
    progress: ScanProgress,
    page_rows_max: usize,
}

impl MemoryScan {
    /// Scans these events, so many rows a page at most.
    #[must_use]
    pub fn new(events: MemoryEvents, progress: ScanProgress, page_rows_max: usize) -> Self {
        Self { events, progress, page_rows_max }
    }
}

/// The key of a row: the partition key, and the sort key.
fn key(row: &Row) -> (String, u64) {
    match row {
        Ok(event) => (event.root.key().to_owned(), event.sequence.0),
        Err(invalid) => (invalid.root.key().to_owned(), invalid.sequence.0),
    }
}

#[async_trait]
impl TableSource for MemoryScan {
    async fn size(&self) -> Result<TableSize, StorageError> {
        let rows = self.events.rows().len() as u64;
        Ok(TableSize { rows, bytes: rows * 100 })
    }
}

#[async_trait]
impl ShardSource for MemoryScan {
    async fn open(&self, shard: &ShardId, from: &StreamPoint) -> Result<ShardIterator, StreamError> {
        Ok(iterator(shard, from))
    }

    async fn fetch(&self, at: &ShardIterator) -> Result<Fetched, StreamError> {
        let Some((shard, segment, place)) = parse_iterator(at) else { return Err(StreamError::ExpiredIterator) };
        let (before, after) = match place.as_ref().and_then(StreamSequence::row) {
            Some((rows, sk, pk)) => (rows, Some((pk.to_owned(), sk.parse().unwrap_or(0)))),
            None => (0, None),
        };
        let mine =
            |pk: &str| pk.bytes().map(u64::from).sum::<u64>() % u64::from(segment.of) == u64::from(segment.number);
        let mut rows: Vec<(String, u64, Row)> = (self.events.rows().into_iter())
            .map(|row| (key(&row), row))
            .filter(|((pk, sk), _)| mine(pk) && after.as_ref().is_none_or(|after| (pk, sk) > (&after.0, &after.1)))
            .map(|((pk, sk), row)| (pk, sk, row))
            .collect();
        rows.sort_by(|one, two| (&one.0, one.1).cmp(&(&two.0, two.1)));
        let more = rows.len() > self.page_rows_max;
        rows.truncate(self.page_rows_max);
        let roots = count_roots(rows.iter().map(|(pk, _, _)| pk.as_str()), after.as_ref().map(|(pk, _)| pk.as_str()));
        self.progress.add(&shard, Scanned { rows: rows.len() as u64, roots, units: 0.5 });
        let record = |((pk, sk, row), number): ((String, u64, Row), u64)| Record {
            sequence: StreamSequence::of_row(number, &sk.to_string(), &pk),
            happened_at: segment.started_at,
            change: Change::of_row(row.map_err(Into::into)),
        };
        let records: Vec<Record> = rows.into_iter().zip(before + 1..).map(record).collect();
        let point = records.last().map(|record| record.sequence.clone()).or(place);
        let next = more.then(|| iterator(&shard, &point.map_or(StreamPoint::Horizon, StreamPoint::After)));
        Ok(RecordPage { records, bytes: 0, next }.into())
    }
}
