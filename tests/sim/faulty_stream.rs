//! The stream, and the table in segments, with faults: asked too often, iterators that expire, pages that come twice,
//! children that are not listed yet.

use std::sync::Arc;

use angzarr_relay::backfill::{MemoryScan, ScanProgress, TableSize, TableSource};
use angzarr_relay::event::{Root, Sequence};
use angzarr_relay::storage::StorageError;
use angzarr_relay::stream::{
    Change, Fetched, Shard, ShardId, ShardIterator, ShardPage, ShardSource, StreamError, StreamPoint, StreamSequence,
    StreamSource,
};
use async_trait::async_trait;

use crate::faulty::Faulty;
use crate::plan::Fault;

/// The table in segments, with faults.
pub(crate) struct FaultyScan {
    faulty: Arc<Faulty>,
    scan: MemoryScan,
}

impl FaultyScan {
    pub(crate) fn new(faulty: Arc<Faulty>, progress: ScanProgress) -> Self {
        let scan = MemoryScan::new(faulty.world.events.clone(), progress, 5);
        Self { faulty, scan }
    }
}

#[async_trait]
impl TableSource for FaultyScan {
    async fn size(&self) -> Result<TableSize, StorageError> {
        self.scan.size().await
    }
}

#[async_trait]
impl ShardSource for FaultyScan {
    async fn open(&self, shard: &ShardId, from: &StreamPoint) -> Result<ShardIterator, StreamError> {
        self.scan.open(shard, from).await
    }

    async fn fetch(&self, iterator: &ShardIterator) -> Result<Fetched, StreamError> {
        self.faulty.latency().await;
        if self.faulty.strikes(Fault::Throttled) {
            self.faulty.world.happened("scan throttled");
            return Err(StreamError::Throttled { operation: "Scan" });
        }
        let page = self.scan.read(iterator).await?;
        let (segment, after) = iterator.0.split_once('\n').unwrap();
        let after = StreamSequence::parse(after);
        let after = after.as_ref().and_then(StreamSequence::row).map(|(number, sk, pk)| {
            let root = Root::parse(pk).unwrap();
            (number, root, Sequence(sk.parse().unwrap()))
        });
        let rows = page.records.iter().map(|record| match &record.change {
            Change::Inserted(event) => (record.sequence.row().unwrap().0, event.root.clone(), event.sequence),
            other => panic!("a row that is no event: {other:?}"),
        });
        let replica = &self.faulty.name;
        self.faulty.world.check(|checker| checker.scanned(replica, segment, after.as_ref(), rows.collect()));
        self.faulty.world.happened("page scanned");
        Ok(page.into())
    }
}

#[async_trait]
impl StreamSource for Faulty {
    fn name(&self) -> String {
        self.world.stream.name()
    }

    async fn shards(&self, after: Option<&ShardId>) -> Result<ShardPage, StreamError> {
        self.latency().await;
        if self.strikes(Fault::Throttled) {
            return Err(StreamError::Throttled { operation: "DescribeStream" });
        }
        self.world.stream.shards(after).await
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, StreamError> {
        self.latency().await;
        if self.strikes(Fault::UnlistedChildren) {
            self.world.happened("children not listed");
            return Ok(Vec::new());
        }
        self.world.stream.children(parent).await
    }
}

#[async_trait]
impl ShardSource for Faulty {
    async fn open(&self, shard: &ShardId, from: &StreamPoint) -> Result<ShardIterator, StreamError> {
        self.latency().await;
        self.world.stream.open(shard, from).await
    }

    async fn fetch(&self, iterator: &ShardIterator) -> Result<Fetched, StreamError> {
        self.latency().await;
        if self.strikes(Fault::ExpiredIterator) {
            self.world.happened("iterator expired");
            return Err(StreamError::ExpiredIterator);
        }
        if self.strikes(Fault::Throttled) {
            self.world.happened("stream throttled");
            return Err(StreamError::Throttled { operation: "GetRecords" });
        }
        let repeated = self.last_page.lock().unwrap().take();
        if let Some((_, page)) = repeated
            && page.next.as_ref() == Some(iterator)
            && !page.records.is_empty()
            && self.strikes(Fault::RepeatedPage)
        {
            self.world.happened("page repeated");
            return Ok(page.into());
        }
        let page = self.world.stream.read(iterator).await?;
        *self.last_page.lock().unwrap() = Some((iterator.clone(), page.clone()));
        Ok(page.into())
    }
}
