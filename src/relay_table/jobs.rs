//! The rows of jobs in the relay's table.
//!
//! Rows: `pk = jobs`, `sk` = handler, `kind` S, `started_at` S, `segments` N, `reason` S, `stream` S, `finished_at` S
//! once it is done; `pk = progress#{handler}`, `sk` = segment, `rows` N, `roots` N, `units` N; and `pk = seen`, `sk` =
//! handler, `seen_at` S, `stream` S; and `pk = needs`, `sk` = handler, `reason` S. The places of segments are checkpoints, as those of shards.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;

use super::RelayTable;
use super::members::raise_lineage;
use super::table::{SK, keyed};
use crate::backfill::{Job, JobKind, JobStore, Scanned, Seen};
use crate::event::{Timestamp, escape};
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::storage::call::{Item, text, text_of};
use crate::storage::transaction::put;
use crate::stream::ShardId;

pub(super) const JOBS: &str = "jobs";
pub(super) const SEEN: &str = "seen";
pub(super) const NEEDS: &str = "needs";
const KIND: &str = "kind";
const STARTED_AT: &str = "started_at";
const FINISHED_AT: &str = "finished_at";
const SEGMENTS: &str = "segments";
const REASON: &str = "reason";
const ROWS: &str = "rows";
const ROOTS: &str = "roots";
const UNITS: &str = "units";
const SEEN_AT: &str = "seen_at";
const STREAM: &str = "stream";

fn progress_key(handler: &HandlerName) -> String {
    format!("progress#{}", escape(handler.as_str()))
}

fn count(value: &impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn number_of<T: std::str::FromStr>(item: &Item, name: &str) -> Option<T> {
    item.get(name).and_then(|value| value.as_n().ok()).and_then(|digits| digits.parse().ok())
}

fn moment_of(item: &Item, name: &str) -> Option<Timestamp> {
    text_of(item, name).and_then(|text| Timestamp::parse(text).ok())
}

fn encode_job(handler: &HandlerName, job: &Job) -> Item {
    let mut item = keyed(JOBS, handler.as_str());
    item.insert(KIND.to_owned(), text(job.kind.as_str()));
    item.insert(STARTED_AT.to_owned(), text(job.started_at.to_string()));
    item.insert(SEGMENTS.to_owned(), count(&job.segments));
    item.insert(REASON.to_owned(), text(job.reason.as_str()));
    item.insert(STREAM.to_owned(), text(job.stream.as_str()));
    if let Some(finished_at) = job.finished_at {
        item.insert(FINISHED_AT.to_owned(), text(finished_at.to_string()));
    }
    item
}

fn decode_job(item: &Item) -> Result<Job, &'static str> {
    let finished_at = match item.get(FINISHED_AT) {
        Some(_) => Some(moment_of(item, FINISHED_AT).ok_or("`finished_at` is no ISO 8601 time")?),
        None => None,
    };
    Ok(Job {
        kind: text_of(item, KIND).and_then(JobKind::parse).ok_or("`kind` is neither backfill nor reconcile")?,
        started_at: moment_of(item, STARTED_AT).ok_or("`started_at` is no ISO 8601 time")?,
        segments: number_of(item, SEGMENTS).filter(|count| *count > 0).ok_or("`segments` is no number above 0")?,
        reason: text_of(item, REASON).unwrap_or_default().to_owned(),
        stream: text_of(item, STREAM).unwrap_or_default().to_owned(),
        finished_at,
    })
}

fn decode_progress(item: &Item) -> Option<(ShardId, Scanned)> {
    let segment = ShardId::new(text_of(item, SK)?);
    let scanned =
        Scanned { rows: number_of(item, ROWS)?, roots: number_of(item, ROOTS)?, units: number_of(item, UNITS)? };
    Some((segment, scanned))
}

#[async_trait]
impl JobStore for RelayTable {
    async fn job(&self, handler: &HandlerName) -> Result<Option<Job>, StorageError> {
        let unreadable = |reason| self.unreadable(JOBS, handler.as_str(), reason);
        let item = self.get(JOBS, handler.as_str()).await?;
        item.map(|item| decode_job(&item).map_err(unreadable)).transpose()
    }

    async fn put_job(&self, handler: &HandlerName, job: &Job) -> Result<(), StorageError> {
        self.put(encode_job(handler, job)).await
    }

    async fn progress(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Scanned>, StorageError> {
        Ok(self.partition(&progress_key(handler)).await?.iter().filter_map(decode_progress).collect())
    }

    async fn put_progress(
        &self,
        handler: &HandlerName,
        segment: &ShardId,
        scanned: &Scanned,
    ) -> Result<(), StorageError> {
        let mut item = keyed(&progress_key(handler), segment.as_str());
        item.insert(ROWS.to_owned(), count(&scanned.rows));
        item.insert(ROOTS.to_owned(), count(&scanned.roots));
        item.insert(UNITS.to_owned(), count(&scanned.units));
        self.put(item).await
    }

    async fn forget_progress(&self, handler: &HandlerName, segment: &ShardId) -> Result<(), StorageError> {
        self.remove(&progress_key(handler), segment.as_str()).await
    }

    async fn seen(&self, handler: &HandlerName) -> Result<Option<Seen>, StorageError> {
        let Some(item) = self.get(SEEN, handler.as_str()).await? else { return Ok(None) };
        // To take a lost moment for "never" would build the handler anew.
        let at = moment_of(&item, SEEN_AT)
            .ok_or_else(|| self.unreadable(SEEN, handler.as_str(), "`seen_at` is no ISO 8601 time"))?;
        Ok(Some(Seen { at, stream: text_of(&item, STREAM).unwrap_or_default().to_owned() }))
    }

    async fn put_seen(&self, handler: &HandlerName, seen: &Seen) -> Result<(), StorageError> {
        let mut item = keyed(SEEN, handler.as_str());
        item.insert(SEEN_AT.to_owned(), text(seen.at.to_string()));
        item.insert(STREAM.to_owned(), text(seen.stream.as_str()));
        self.put(item).await
    }

    async fn need(&self, handler: &HandlerName) -> Result<Option<String>, StorageError> {
        let row = self.get(NEEDS, handler.as_str()).await?;
        Ok(row.map(|row| text_of(&row, REASON).unwrap_or("records were lost").to_owned()))
    }

    async fn put_need(&self, handler: &HandlerName, reason: &str) -> Result<(), StorageError> {
        let mut row = keyed(NEEDS, handler.as_str());
        row.insert(REASON.to_owned(), text(reason));
        self.transact_leases(vec![put(&self.table, row), raise_lineage(&self.table)]).await.map(|_| ())
    }

    async fn forget_need(&self, handler: &HandlerName) -> Result<(), StorageError> {
        self.remove(NEEDS, handler.as_str()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::call::testing::any_item;
    use proptest::prelude::*;

    const COLUMNS: [&str; 10] = [SK, KIND, STARTED_AT, FINISHED_AT, SEGMENTS, REASON, ROWS, ROOTS, UNITS, STREAM];

    proptest! {
        /// A job is never taken for unfinished, or for another, because a row cannot be read.
        #[test]
        fn any_row_is_a_job_or_says_what_is_wrong(spoilt in any_item(&COLUMNS), wholly: bool) {
            let handler = HandlerName::new("orders").unwrap();
            let job = Job::new(JobKind::Backfill, Timestamp::from_unix_millis(5), 4, "it is new", "stream");
            let mut item = if wholly { Item::new() } else { encode_job(&handler, &job) };
            // Few at a time: a row with everything spoilt says little.
            item.extend(spoilt.into_iter().take(2));
            match decode_job(&item) {
                Ok(job) => {
                    prop_assert!(job.segments > 0 && text_of(&item, KIND) == Some(job.kind.as_str()));
                    prop_assert_eq!(job.finished_at.is_some(), item.contains_key(FINISHED_AT));
                }
                Err(reason) => prop_assert!(COLUMNS.iter().any(|name| reason.contains(name))),
            }
            if let Some((segment, scanned)) = decode_progress(&item) {
                prop_assert_eq!(text_of(&item, SK), Some(segment.as_str()));
                prop_assert_eq!(number_of(&item, ROWS), Some(scanned.rows));
            }
        }
    }

    #[test]
    fn a_job_survives_its_row() {
        let handler = HandlerName::new("orders").unwrap();
        let at = Timestamp::from_unix_millis(1_700_000_000_123);
        let mut job = Job::new(JobKind::Backfill, at, 8, "a new handler", "stream");
        assert_eq!(decode_job(&encode_job(&handler, &job)), Ok(job.clone()));
        job.finished_at = Some(at.plus(std::time::Duration::from_secs(9)));
        let mut item = encode_job(&handler, &job);
        assert_eq!(decode_job(&item), Ok(job));
        item.insert(FINISHED_AT.into(), text("soon"));
        assert!(decode_job(&item).is_err(), "a job with an unreadable end is not one that runs");
        assert!(decode_job(&Item::new()).is_err());
    }

    #[test]
    fn progress_survives_its_row() {
        let scanned = Scanned { rows: 7, roots: 3, units: 12.5 };
        let mut item = keyed("progress#h", "backfill#h#1#0#1");
        item.extend([(ROWS.into(), count(&7)), (ROOTS.into(), count(&3)), (UNITS.into(), count(&12.5))]);
        assert_eq!(decode_progress(&item), Some((ShardId::new("backfill#h#1#0#1"), scanned)));
    }
}
