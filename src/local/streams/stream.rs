//! One stream as it is served: its shards, its records, and what each operation answers about them. Pure.
//!
//! Records come in as the upstream has them and go out with this stream's numbers. Invariant: what a request is told
//! depends on the shards, the records, the request, and the mischief it meets alone.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::cursor::{Cursor, Given};
use super::error::ShardsError;
use super::fault::Fault;
use super::key::{KeyPart, Point};
use super::layout::{Layout, Shard};
use super::log::{Log, LogRecord};
use super::mischief::Mischief;
use super::name::ShardName;
use super::number::Number;
use super::request::{DescribeStream, Place};

/// What does not change about a stream.
#[derive(Debug, Clone)]
pub(super) struct StreamName {
    pub(super) arn: String,
    pub(super) label: String,
    pub(super) table: String,
    pub(super) view_type: String,
    pub(super) created: Value,
    pub(super) key_schema: Value,
}

/// One stream.
#[derive(Debug)]
pub(super) struct VirtualStream {
    pub(super) name: StreamName,
    pub(super) layout: Layout,
    pub(super) log: Log,
    last_record: Option<Number>,
    /// The shards are those of an earlier life; what stood before the first record is not known.
    restored: bool,
    ended: bool,
}

impl VirtualStream {
    pub(super) fn new(name: StreamName, layout: Layout, log: Log, restored: bool) -> Self {
        Self { name, layout, log, last_record: None, restored, ended: false }
    }

    /// Takes the upstream's next record.
    ///
    /// # Errors
    /// What is missing in it; then it is not taken.
    pub(super) fn take(&mut self, record: &mut Value) -> Result<(), &'static str> {
        let body = record.get("dynamodb").ok_or("body")?;
        let point = self.point_of(body.get("Keys").ok_or("keys")?).ok_or("partition key")?;
        let upstream = body.get("SequenceNumber").and_then(Value::as_str).ok_or("sequence number")?;
        let number = Number::of_upstream(upstream).ok_or("sequence number that is used here")?;
        // A child of the upstream's that counts from the beginning again goes on behind its parent.
        let number = match self.last_record {
            Some(last) if number <= last => last.next_record(),
            _ => number,
        };
        let size =
            body.get("SizeBytes").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        let at_unix_millis = body.get("ApproximateCreationDateTime").and_then(unix_millis).unwrap_or(u64::MAX);
        if self.last_record.is_none() && self.restored {
            self.log.begin_behind(number.previous());
        }
        self.last_record = Some(number);
        self.layout.note_record(number);
        // Of a shard that was taken away nothing is kept.
        if let Some(shard) = self.layout.place(&point, number) {
            record["dynamodb"]["SequenceNumber"] = number.to_string().into();
            let json = record.to_string().into_boxed_str();
            self.log.append(LogRecord { shard, number, at_unix_millis, size, json });
        }
        Ok(())
    }

    fn point_of(&self, keys: &Value) -> Option<Point> {
        let part = |role: &str| {
            let mut schema = self.name.key_schema.as_array()?.iter();
            let name = schema.find(|key| key["KeyType"] == role)?["AttributeName"].as_str()?;
            keys.get(name).and_then(KeyPart::of_attribute)
        };
        Some(Point::of_item(&part("HASH")?, part("RANGE").as_ref()))
    }

    /// Nothing will be written to it any more.
    pub(super) fn end(&mut self, now_unix_millis: u64) {
        if !self.ended {
            self.ended = true;
            self.layout.end(now_unix_millis);
        }
    }

    /// Trims what is older than a moment: records, and closed shards.
    pub(super) fn trim_old(&mut self, before_unix_millis: u64) {
        self.log.trim_old(before_unix_millis);
        let is_old = |shard: &Shard| shard.closed_unix_millis.is_some_and(|at| at < before_unix_millis);
        let gone: Vec<_> = self.layout.behind(None).filter(|(_, shard)| is_old(shard)).map(|(name, _)| name).collect();
        for name in gone {
            self.remove(name).unwrap_or_default();
        }
    }

    /// Trims a shard up to a number.
    pub(super) fn trim(&mut self, name: ShardName, through: Number) -> Result<(), ShardsError> {
        let shard = self.layout.get(name).ok_or_else(|| ShardsError::Unknown(name.id()))?;
        // What is to come is not trimmed.
        let through = through.min(shard.end.unwrap_or(self.layout.last()));
        self.log.trim_shard(name, through);
        Ok(())
    }

    /// Takes a closed shard away, and its records.
    pub(super) fn remove(&mut self, name: ShardName) -> Result<(), ShardsError> {
        self.layout.remove(name)?;
        self.log.forget(name);
        Ok(())
    }

    /// DescribeStream, as it is or with its list bent.
    pub(super) fn describe(&self, request: &DescribeStream, mischief: Option<Mischief>) -> Result<Value, Fault> {
        let (after, limit, parent) = (request.after()?, request.limit()?, request.children_of()?);
        let (shown_open, hides_newest) = self.bent(mischief);
        let listed = |(name, shard): &(ShardName, &Shard)| {
            let hidden = !shard.listed || hides_newest && self.layout.is_newest(*name, shard);
            !hidden && (parent.is_none() || shard.parent == parent)
        };
        let describe = |(name, shard)| described(name, shard, shown_open.contains(&name));
        let mut shards = self.layout.behind(after).filter(listed);
        let page: Vec<_> = shards.by_ref().take(limit).collect();
        let next = page.last().filter(|_| shards.next().is_some()).map(|(name, _)| *name);
        let name = &self.name;
        let mut description = json!({
            "StreamArn": name.arn,
            "StreamLabel": name.label,
            "StreamStatus": if self.ended { "DISABLED" } else { "ENABLED" },
            "StreamViewType": name.view_type,
            "CreationRequestDateTime": name.created,
            "TableName": name.table,
            "KeySchema": name.key_schema,
            "Shards": page.into_iter().map(describe).collect::<Vec<_>>(),
        });
        if let Some(next) = next {
            description["LastEvaluatedShardId"] = next.to_string().into();
        }
        Ok(json!({ "StreamDescription": description }))
    }

    /// Which closed shards a bent list shows as open, and whether the newest shards are not in it.
    fn bent(&self, mischief: Option<Mischief>) -> (BTreeSet<ShardName>, bool) {
        let parents = |of_newest: bool| {
            let children = self.layout.behind(None);
            let children = children.filter(|(name, shard)| !of_newest || self.layout.is_newest(*name, shard));
            children.filter_map(|(_, shard)| shard.parent).collect()
        };
        match mischief {
            Some(Mischief::Outdated) => (parents(true), true),
            Some(Mischief::OpenParents) => (parents(false), false),
            Some(Mischief::UnlistedChildren) => (BTreeSet::new(), true),
            _ => (BTreeSet::new(), false),
        }
    }

    /// A shard that may be read.
    fn readable(&self, name: ShardName) -> Option<&Shard> {
        self.layout.get(name).filter(|shard| shard.listed)
    }

    /// GetShardIterator: behind which number it reads.
    pub(super) fn open(&self, name: ShardName, place: Place) -> Result<Number, Fault> {
        let shard = self.readable(name).ok_or_else(|| Fault::NotFound(format!("Shard: {name}")))?;
        let horizon = self.horizon(name, shard);
        let after = match place {
            Place::Horizon => return Ok(horizon),
            Place::Latest => return Ok(horizon.max(self.layout.last())),
            Place::At(number) => number.previous(),
            Place::After(number) => number,
        };
        if shard.end.is_some_and(|end| after > end) || after.next() < shard.start {
            return Err(Fault::Invalid(format!("the sequence number is not of the shard {name}")));
        }
        if after < horizon { Err(Fault::Trimmed) } else { Ok(after) }
    }

    fn horizon(&self, name: ShardName, shard: &Shard) -> Number {
        self.log.horizon(name).max(shard.start.previous())
    }

    /// GetRecords: its body.
    pub(super) fn read(&self, cursor: &Cursor, limit: usize, now: Given) -> Result<String, Fault> {
        let shard = self.read_from(cursor)?;
        let page = self.log.page(cursor.shard, cursor.after, limit);
        let after = page.records.last().map_or(cursor.after, |record| record.number);
        let goes_on = shard.end.is_none() || !page.is_last;
        Ok(written(&page.records, goes_on.then(|| Cursor { after, given: now, ..cursor.clone() })))
    }

    /// The shard of an iterator that still holds.
    fn read_from(&self, cursor: &Cursor) -> Result<&Shard, Fault> {
        // It was given out, so the shard was there.
        let shard = self.readable(cursor.shard).ok_or(Fault::Trimmed)?;
        if cursor.after < self.horizon(cursor.shard, shard) { Err(Fault::Trimmed) } else { Ok(shard) }
    }

    /// GetRecords with the records before the place once more; none when there are none.
    pub(super) fn read_again(&self, cursor: &Cursor, limit: usize, now: Given) -> Option<String> {
        self.read_from(cursor).ok()?;
        let records = self.log.page_before(cursor.shard, cursor.after, limit);
        let next = Cursor { given: now, ..cursor.clone() };
        (!records.is_empty()).then(|| written(&records, Some(next)))
    }

    /// GetRecords without the records there are; none when there are none.
    pub(super) fn read_nothing(&self, cursor: &Cursor, now: Given) -> Option<String> {
        self.read_from(cursor).ok()?;
        let is_empty = self.log.page(cursor.shard, cursor.after, 1).records.is_empty();
        (!is_empty).then(|| written(&[], Some(Cursor { given: now, ..cursor.clone() })))
    }

    /// Trims what a GetRecords would give; false when that is nothing.
    pub(super) fn trim_page(&mut self, cursor: &Cursor, limit: usize) -> bool {
        let page = self.log.page(cursor.shard, cursor.after, limit);
        let Some(last) = page.records.last().map(|record| record.number) else { return false };
        self.log.trim_shard(cursor.shard, last);
        true
    }
}

/// The body of GetRecords.
fn written(records: &[&LogRecord], next: Option<Cursor>) -> String {
    let mut body = String::from(r#"{"Records":["#);
    for (index, record) in records.iter().enumerate() {
        body.push_str(if index == 0 { "" } else { "," });
        body.push_str(&record.json);
    }
    body.push(']');
    if let Some(next) = next {
        body.push_str(r#","NextShardIterator":"#);
        body.push_str(&Value::from(next.encode()).to_string());
    }
    body.push('}');
    body
}

fn described(name: ShardName, shard: &Shard, shown_open: bool) -> Value {
    let mut range = json!({ "StartingSequenceNumber": shard.start.to_string() });
    if let Some(end) = shard.end.filter(|_| !shown_open) {
        range["EndingSequenceNumber"] = end.to_string().into();
    }
    let mut described = json!({ "ShardId": name.to_string(), "SequenceNumberRange": range });
    if let Some(parent) = shard.parent {
        described["ParentShardId"] = parent.to_string().into();
    }
    described
}

/// A moment in seconds, as the service writes it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "milliseconds since 1970 fit; others saturate"
)]
fn unix_millis(seconds: &Value) -> Option<u64> {
    seconds.as_f64().map(|seconds| (seconds * 1000.0) as u64)
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
