//! Reads the upstream's stream, shard by shard: every record once, a child's after its parent's.
//!
//! Iterators that expire are opened again behind the last record; a place that was trimmed is left for the horizon.
//! When to read, and what becomes of the records, is left to the stream's keeper. Invariant: a record is handed over
//! before anything behind it in its shard is read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::upstream::{StreamFacts, Upstream, UpstreamError, UpstreamPage};

/// How often the upstream is asked for its shards, and whether the stream goes on.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A page of so many records, or bytes, may have been cut short: there may be more right behind. Any other reached the
/// head of its shard.
const FULL_RECORDS: usize = 1000;
const FULL_BYTES: u64 = 512 << 10;

/// Reads one stream of the upstream.
#[derive(Debug)]
pub(super) struct Follower {
    upstream: Upstream,
    arn: String,
    label: String,
    /// The shards being read.
    cursors: BTreeMap<String, Cursor>,
    finished: BTreeSet<String>,
    looked_at: Instant,
    /// One has ended since: there may be children.
    shard_ended: bool,
    ended: bool,
}

/// How far a shard of the upstream is read.
#[derive(Debug, Default)]
struct Cursor {
    iterator: Option<String>,
    /// The last record's number.
    after: Option<String>,
}

/// What one round of reading found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// There may be more right behind.
    More,
    /// Everything there was when the round began has been read.
    AtHead,
    /// And nothing will come any more.
    Ended,
}

impl Follower {
    /// Begins at the horizon of a stream the upstream has just described.
    pub(super) fn new(upstream: Upstream, arn: String, facts: &StreamFacts) -> Self {
        let mut follower = Self {
            upstream,
            arn,
            label: facts.label.clone(),
            cursors: BTreeMap::new(),
            finished: BTreeSet::new(),
            looked_at: Instant::now(),
            shard_ended: false,
            ended: false,
        };
        follower.learn(facts);
        follower
    }

    /// Begins the shards whose parents are read to their end, or gone.
    fn learn(&mut self, facts: &StreamFacts) {
        let listed: BTreeSet<&String> = facts.shards.iter().map(|(id, _)| id).collect();
        self.finished.retain(|id| listed.contains(id));
        for (id, parent) in &facts.shards {
            let is_open = |parent: &String| listed.contains(parent) && !self.finished.contains(parent);
            if !self.finished.contains(id) && !parent.as_ref().is_some_and(is_open) {
                self.cursors.entry(id.clone()).or_default();
            }
        }
        self.ended = !facts.enabled && self.cursors.is_empty();
    }

    /// Asks the upstream for its shards.
    async fn look(&mut self) -> Result<(), UpstreamError> {
        self.looked_at = Instant::now();
        self.shard_ended = false;
        match self.upstream.stream(&self.arn).await {
            // A stream that was enabled again has another label; some upstreams answer for any.
            Ok(facts) if facts.label == self.label => self.learn(&facts),
            Err(error) if !error.is_not_found() => return Err(error),
            _ => self.ended = true,
        }
        Ok(())
    }

    /// Reads each shard once and hands over what it brought.
    pub(super) async fn read_round(
        &mut self,
        take: &mut (impl FnMut(&mut Value) + Send),
    ) -> Result<Round, UpstreamError> {
        if self.ended {
            return Ok(Round::Ended);
        }
        let mut more = false;
        for shard in self.cursors.keys().cloned().collect::<Vec<_>>() {
            more |= self.read_shard(&shard, take).await?;
        }
        if self.shard_ended || self.looked_at.elapsed() >= LOOK_INTERVAL {
            let known = self.cursors.len();
            self.look().await?;
            more |= self.cursors.len() > known;
        }
        Ok(match (self.ended, more) {
            (true, _) => Round::Ended,
            (false, true) => Round::More,
            (false, false) => Round::AtHead,
        })
    }

    /// Reads a page; true when there may be more.
    async fn read_shard(
        &mut self,
        shard: &str,
        take: &mut (impl FnMut(&mut Value) + Send),
    ) -> Result<bool, UpstreamError> {
        let Some(cursor) = self.cursors.get_mut(shard) else { return Ok(false) };
        let page = match cursor.read(&self.upstream, &self.arn, shard).await {
            Ok(page) => page,
            Err(UpstreamError::Refused { code, .. }) if code == "ExpiredIteratorException" => return Ok(true),
            Err(UpstreamError::Refused { code, .. }) if code == "TrimmedDataAccessException" => {
                cursor.after = None;
                return Ok(true);
            }
            Err(error) if error.is_not_found() => {
                self.finish(shard);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let (mut bytes, records) = (0, page.records.len());
        for mut record in page.records {
            let number = record.pointer("/dynamodb/SequenceNumber").and_then(Value::as_str).map(str::to_owned);
            bytes += record.pointer("/dynamodb/SizeBytes").and_then(Value::as_u64).unwrap_or(0);
            take(&mut record);
            cursor.after = number.or(cursor.after.take());
        }
        cursor.iterator = page.next;
        if cursor.iterator.is_none() {
            self.finish(shard);
        }
        Ok(records >= FULL_RECORDS || bytes >= FULL_BYTES)
    }

    fn finish(&mut self, shard: &str) {
        self.cursors.remove(shard);
        self.finished.insert(shard.to_owned());
        self.shard_ended = true;
    }
}

impl Cursor {
    /// The next page. After a failure the place is opened anew.
    async fn read(&mut self, upstream: &Upstream, arn: &str, shard: &str) -> Result<UpstreamPage, UpstreamError> {
        let iterator = match self.iterator.take() {
            Some(iterator) => iterator,
            None => upstream.open(arn, shard, self.after.as_deref()).await?,
        };
        upstream.read(&iterator).await
    }
}
