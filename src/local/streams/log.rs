//! The records of one stream, in memory, each in its shard. Pure.
//!
//! The oldest are trimmed when they are older than the stream keeps, and when all take more than the log may: as AWS
//! trims, so that a reader that is behind is told. Invariants: a page holds the shard's records behind a place, in
//! order, without a gap; a place before what was trimmed is refused; reading a shard costs nothing for other shards.

use std::collections::{BTreeMap, VecDeque};

use super::name::ShardName;
use super::number::Number;

/// Records in a page at most, and asked for at most.
pub(super) const PAGE_RECORDS_MAX: usize = 1000;
/// Their size together, unless it is one record.
pub(super) const PAGE_BYTES_MAX: usize = 1 << 20;

/// Memory that a record takes beside its text, about.
const ENTRY_BYTES: usize = 128;

/// A record as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogRecord {
    pub(super) shard: ShardName,
    pub(super) number: Number,
    /// When it happened.
    pub(super) at_unix_millis: u64,
    /// Its size as the service counts it.
    pub(super) size: usize,
    /// The JSON of it; empty once it is trimmed.
    pub(super) json: Box<str>,
}

/// What is kept of a stream.
#[derive(Debug)]
pub(super) struct Log {
    /// What all records may take.
    bytes_max: usize,
    records: VecDeque<LogRecord>,
    /// How many records stood before the first of `records`.
    gone: u64,
    bytes: usize,
    shards: BTreeMap<ShardName, ShardLog>,
    /// What was trimmed before this log was begun.
    floor: Number,
}

/// One shard that has, or had, records.
#[derive(Debug, Default)]
struct ShardLog {
    /// The places of its records, counted from the first there ever was.
    places: VecDeque<u64>,
    /// The last number that was trimmed.
    trimmed: Number,
}

/// Records of a shard.
pub(super) struct LogPage<'a> {
    pub(super) records: Vec<&'a LogRecord>,
    /// Behind it stands nothing more at present.
    pub(super) is_last: bool,
}

impl Log {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (records, shards) = (VecDeque::new(), BTreeMap::new());
        Self { bytes_max, records, gone: 0, bytes: 0, shards, floor: Number::ZERO }
    }

    /// Everything up to this number may be missing.
    pub(super) fn begin_behind(&mut self, floor: Number) {
        self.floor = floor;
    }

    /// Takes the stream's next record; the oldest go when there is no room.
    pub(super) fn append(&mut self, record: LogRecord) {
        let place = self.gone + self.records.len() as u64;
        self.shards.entry(record.shard).or_default().places.push_back(place);
        self.bytes += cost(&record);
        self.records.push_back(record);
        while self.bytes > self.bytes_max && self.trim_oldest() {}
    }

    fn at(&self, place: u64) -> Option<&LogRecord> {
        self.records.get(index(place, self.gone))
    }

    /// Up to where records of a shard may be missing.
    pub(super) fn horizon(&self, shard: ShardName) -> Number {
        self.shards.get(&shard).map_or(self.floor, |log| log.trimmed.max(self.floor))
    }

    /// The records of a shard behind a number, at most so many.
    pub(super) fn page(&self, shard: ShardName, after: Number, limit: usize) -> LogPage<'_> {
        let empty = VecDeque::new();
        let places = self.shards.get(&shard).map_or(&empty, |log| &log.places);
        let begin = places.partition_point(|place| self.at(*place).is_none_or(|record| record.number <= after));
        let (mut records, mut bytes) = (Vec::new(), 0);
        for record in places.iter().skip(begin).take(limit.min(PAGE_RECORDS_MAX)).filter_map(|place| self.at(*place)) {
            bytes += record.size;
            if bytes > PAGE_BYTES_MAX && !records.is_empty() {
                break;
            }
            records.push(record);
        }
        let is_last = begin + records.len() == places.len();
        LogPage { records, is_last }
    }

    /// The records of a shard up to a number, as many as one page has.
    pub(super) fn page_before(&self, shard: ShardName, through: Number, limit: usize) -> Vec<&LogRecord> {
        let places = self.shards.get(&shard).into_iter().flat_map(|log| log.places.iter().rev());
        let before = places.filter_map(|place| self.at(*place)).skip_while(|record| record.number > through);
        let mut bytes = 0;
        let fits = |record: &&LogRecord| {
            bytes += record.size;
            bytes <= PAGE_BYTES_MAX
        };
        let mut records: Vec<_> = before.take(limit.min(PAGE_RECORDS_MAX)).take_while(fits).collect();
        records.reverse();
        records
    }

    /// Records a shard has.
    pub(super) fn count(&self, shard: ShardName) -> usize {
        self.shards.get(&shard).map_or(0, |log| log.places.len())
    }

    /// Trims a shard up to a number, the record with it among them.
    pub(super) fn trim_shard(&mut self, shard: ShardName, through: Number) {
        let log = self.shards.entry(shard).or_default();
        log.trimmed = log.trimmed.max(through);
        while let Some(place) = log.places.front() {
            let Some(record) = self.records.get_mut(index(*place, self.gone)) else { break };
            if record.number > through {
                break;
            }
            log.places.pop_front();
            self.bytes -= record.json.len();
            record.json = Box::default();
        }
    }

    /// Trims what happened before a moment.
    pub(super) fn trim_old(&mut self, before_unix_millis: u64) {
        let is_old = |record: &LogRecord| record.json.is_empty() || record.at_unix_millis < before_unix_millis;
        while self.records.front().is_some_and(is_old) {
            self.trim_oldest();
        }
    }

    /// Trims the oldest record; false when there is none.
    fn trim_oldest(&mut self) -> bool {
        let Some(oldest) = self.records.pop_front() else { return false };
        if let Some(log) = self.shards.get_mut(&oldest.shard)
            && log.places.front() == Some(&self.gone)
        {
            log.places.pop_front();
            log.trimmed = log.trimmed.max(oldest.number);
        }
        self.bytes -= cost(&oldest);
        self.gone += 1;
        true
    }

    /// Forgets a shard that is not there any more.
    pub(super) fn forget(&mut self, shard: ShardName) {
        self.trim_shard(shard, Number::MAX);
        self.shards.remove(&shard);
    }
}

fn cost(record: &LogRecord) -> usize {
    record.json.len() + ENTRY_BYTES
}

fn index(place: u64, gone: u64) -> usize {
    place.checked_sub(gone).and_then(|index| usize::try_from(index).ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
