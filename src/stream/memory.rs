//! A stream in memory, for tests and simulation: shards made, rolled, trimmed and filled by the caller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{
    Change, Fetched, Record, RecordPage, Shard, ShardId, ShardIterator, ShardPage, ShardSource, StreamError,
    StreamPoint, StreamSequence, StreamSource,
};
use crate::event::Timestamp;

/// Records one read brings at most, as the service.
const READ_RECORDS_MAX: usize = 1000;

/// A stream in memory. Clones share the same shards.
#[derive(Debug, Clone, Default)]
pub struct MemoryStream(Arc<Mutex<Shards>>);

#[derive(Debug, Default)]
struct Shards {
    by_id: BTreeMap<ShardId, Contents>,
    next_sequence: u64,
    next_shard: u64,
    page_records_max: Option<usize>,
}

#[derive(Debug, Default)]
struct Contents {
    parent: Option<ShardId>,
    records: Vec<Record>,
    trimmed: usize,
    closed: bool,
}

impl MemoryStream {
    fn with<T>(&self, act: impl FnOnce(&mut Shards) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets a page hold fewer records than the service's limit, as the service may.
    pub fn shorten_pages(&self, records_max: usize) {
        self.with(|shards| shards.page_records_max = Some(records_max));
    }

    /// Makes a new open shard.
    pub fn create_shard(&self, parent: Option<&ShardId>) -> ShardId {
        self.with(|shards| shards.create(parent))
    }

    /// Closes a shard and makes so many children of it: one is a roll, two a split.
    pub fn close_shard(&self, shard: &ShardId, children: usize) -> Vec<ShardId> {
        self.with(|shards| {
            if let Some(contents) = shards.by_id.get_mut(shard) {
                contents.closed = true;
            }
            (0..children).map(|_| shards.create(Some(shard))).collect()
        })
    }

    /// Appends a record to a shard; nothing happens when there is no such shard.
    pub fn push(&self, shard: &ShardId, happened_at: Timestamp, change: Change) {
        self.with(|shards| {
            shards.next_sequence += 1;
            let sequence = StreamSequence::new(&shards.next_sequence.to_string());
            if let Some(contents) = shards.by_id.get_mut(shard) {
                contents.records.push(Record { sequence, happened_at, change });
            }
        });
    }

    /// Trims the first records of a shard, up to `keep` from its end.
    pub fn trim(&self, shard: &ShardId, keep: usize) {
        self.with(|shards| {
            if let Some(contents) = shards.by_id.get_mut(shard) {
                contents.trimmed = contents.records.len().saturating_sub(keep);
            }
        });
    }

    /// Removes a shard whole, as the service does some time after its records were trimmed.
    pub fn remove_shard(&self, shard: &ShardId) {
        self.with(|shards| shards.by_id.remove(shard));
    }
}

impl Shards {
    fn create(&mut self, parent: Option<&ShardId>) -> ShardId {
        self.next_shard += 1;
        let id = ShardId::new(&format!("shardId-{:020}-{:08x}", self.next_shard, self.next_shard));
        self.by_id.insert(id.clone(), Contents { parent: parent.cloned(), ..Contents::default() });
        id
    }
}

fn listed(id: &ShardId, contents: &Contents) -> Shard {
    Shard { id: id.clone(), parent: contents.parent.clone() }
}

#[async_trait]
impl StreamSource for MemoryStream {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    async fn shards(&self, after: Option<&ShardId>) -> Result<ShardPage, StreamError> {
        Ok(self.with(|shards| ShardPage {
            shards: (shards.by_id.iter())
                .filter(|(id, _)| after.is_none_or(|after| *id > after))
                .map(|(id, contents)| listed(id, contents))
                .collect(),
            next: None,
        }))
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, StreamError> {
        Ok(self.with(|shards| {
            (shards.by_id.iter())
                .filter(|(_, contents)| contents.parent.as_ref() == Some(parent))
                .map(|(id, contents)| listed(id, contents))
                .collect()
        }))
    }
}

#[async_trait]
impl ShardSource for MemoryStream {
    async fn open(&self, shard: &ShardId, from: &StreamPoint) -> Result<ShardIterator, StreamError> {
        self.with(|shards| {
            let contents = shards.by_id.get(shard).ok_or(StreamError::Gone)?;
            let at = match from {
                StreamPoint::Horizon => contents.trimmed,
                StreamPoint::After(sequence) => {
                    let at = contents.records.partition_point(|record| record.sequence <= *sequence);
                    if at < contents.trimmed {
                        return Err(StreamError::Trimmed);
                    }
                    at
                }
            };
            Ok(ShardIterator(format!("{shard}|{at}")))
        })
    }

    async fn fetch(&self, iterator: &ShardIterator) -> Result<Fetched, StreamError> {
        let place =
            iterator.0.split_once('|').and_then(|(shard, at)| Some((ShardId::new(shard), at.parse::<usize>().ok()?)));
        let Some((shard, at)) = place else { return Err(StreamError::ExpiredIterator) };
        self.with(|shards| {
            let contents = shards.by_id.get(&shard).ok_or(StreamError::Gone)?;
            if at < contents.trimmed {
                return Err(StreamError::Trimmed);
            }
            let page_records_max = shards.page_records_max.unwrap_or(READ_RECORDS_MAX);
            let end = contents.records.len().min(at + page_records_max);
            let records = contents.records[at..end].to_vec();
            let ended = contents.closed && end == contents.records.len();
            let bytes = records.len() * 1000;
            let next = (!ended).then(|| ShardIterator(format!("{shard}|{end}")));
            Ok(RecordPage { records, bytes, next }.into())
        })
    }
}
