//! The ports with faults: latency, throttling, lost replies, expired iterators, repeated pages. What goes through is
//! told to the checker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use angzarr_relay::backfill::{
    Job, JobKind, JobStore, MemoryScan, ScanProgress, Scanned, Seen, TableSize, TableSource,
};
use angzarr_relay::event::{Event, Root, Sequence, Timestamp};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::relay_table::{HandlerRegistry, RegisteredInterest, Registration, Start};
use angzarr_relay::storage::{
    Advance, Advanced, EventSource, Mark, MarkStore, Marked, Marking, Pass, PositionStore, RowPage, Skip, Standing,
    StorageError,
};
use angzarr_relay::stream::{
    Change, Fetched, RecordPage, Shard, ShardId, ShardIterator, ShardPage, ShardSource, StreamError, StreamPoint,
    StreamSource,
};
use async_trait::async_trait;
use bytes::Bytes;

use crate::world::World;

/// All ports of the relay over one world.
pub(crate) struct Faulty {
    pub(crate) world: World,
    percent: u64,
    last_page: Mutex<Option<(ShardIterator, RecordPage)>>,
}

impl Faulty {
    pub(crate) fn new(world: World, percent: u64) -> Self {
        Self { world, percent, last_page: Mutex::new(None) }
    }

    /// The same once more.
    pub(crate) fn again(&self) -> Self {
        Self::new(self.world.clone(), self.percent)
    }

    pub(crate) fn strikes(&self) -> bool {
        self.world.chance.percent(self.percent)
    }

    pub(crate) async fn latency(&self) {
        tokio::time::sleep(Duration::from_millis(1 + self.world.chance.below(20))).await;
    }

    pub(crate) fn unavailable(&self, operation: &'static str) -> StorageError {
        self.world.happened("table unavailable");
        StorageError::Unavailable { operation, table: "simulated".into(), source: "simulated".into() }
    }
}

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
        if self.faulty.strikes() {
            self.faulty.world.happened("scan throttled");
            return Err(StreamError::Throttled { operation: "Scan" });
        }
        let page = self.scan.read(iterator).await?;
        let segment = iterator.0.split('\n').next().unwrap();
        let rows = page.records.iter().map(|record| match &record.change {
            Change::Inserted(event) => (record.sequence.row().unwrap().0, event.root.clone(), event.sequence),
            other => panic!("a row that is no event: {other:?}"),
        });
        self.faulty.world.check(|checker| checker.scanned(segment, rows.collect()));
        self.faulty.world.happened("page scanned");
        Ok(page.into())
    }
}

#[async_trait]
impl JobStore for Faulty {
    async fn job(&self, handler: &HandlerName) -> Result<Option<Job>, StorageError> {
        self.world.table.job(handler).await
    }

    async fn put_job(&self, handler: &HandlerName, job: &Job) -> Result<(), StorageError> {
        self.latency().await;
        if self.strikes() {
            return Err(self.unavailable("PutItem"));
        }
        self.world.note(&format!("job {handler} {} {:?} {}", job.kind.as_str(), job.finished_at, job.reason));
        let kind = if job.kind == JobKind::Backfill { "backfill" } else { "reconcile" };
        self.world.happened(kind);
        self.world.table.put_job(handler, job).await
    }

    async fn progress(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Scanned>, StorageError> {
        self.world.table.progress(handler).await
    }

    async fn put_progress(
        &self,
        handler: &HandlerName,
        segment: &ShardId,
        scanned: &Scanned,
    ) -> Result<(), StorageError> {
        self.latency().await;
        if self.strikes() {
            return Err(self.unavailable("PutItem"));
        }
        self.world.table.put_progress(handler, segment, scanned).await
    }

    async fn forget_progress(&self, handler: &HandlerName, segment: &ShardId) -> Result<(), StorageError> {
        self.world.table.forget_progress(handler, segment).await
    }

    async fn seen(&self, handler: &HandlerName) -> Result<Option<Seen>, StorageError> {
        self.world.table.seen(handler).await
    }

    async fn put_seen(&self, handler: &HandlerName, seen: &Seen) -> Result<(), StorageError> {
        if self.strikes() {
            return Err(self.unavailable("PutItem"));
        }
        self.world.table.put_seen(handler, seen).await
    }

    async fn need(&self, handler: &HandlerName) -> Result<Option<String>, StorageError> {
        self.world.table.need(handler).await
    }

    async fn put_need(&self, handler: &HandlerName, reason: &str) -> Result<(), StorageError> {
        if self.strikes() {
            return Err(self.unavailable("TransactWriteItems"));
        }
        self.world.table.put_need(handler, reason).await
    }

    async fn forget_need(&self, handler: &HandlerName) -> Result<(), StorageError> {
        self.world.table.forget_need(handler).await
    }
}

#[async_trait]
impl StreamSource for Faulty {
    fn name(&self) -> String {
        self.world.stream.name()
    }

    async fn shards(&self, after: Option<&ShardId>) -> Result<ShardPage, StreamError> {
        self.latency().await;
        if self.strikes() {
            return Err(StreamError::Throttled { operation: "DescribeStream" });
        }
        self.world.stream.shards(after).await
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, StreamError> {
        self.latency().await;
        if self.strikes() {
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
        if self.strikes() {
            self.world.happened("iterator expired");
            return Err(StreamError::ExpiredIterator);
        }
        if self.strikes() {
            self.world.happened("stream throttled");
            return Err(StreamError::Throttled { operation: "GetRecords" });
        }
        let repeated = self.last_page.lock().unwrap().take();
        if let Some((asked, page)) = repeated
            && page.next.as_ref() == Some(iterator)
            && !page.records.is_empty()
            && self.strikes()
        {
            self.world.happened("page repeated");
            drop(asked);
            return Ok(page.into());
        }
        let page = self.world.stream.read(iterator).await?;
        *self.last_page.lock().unwrap() = Some((iterator.clone(), page.clone()));
        Ok(page.into())
    }
}

#[async_trait]
impl EventSource for Faulty {
    async fn read_consistent(
        &self,
        root: &Root,
        from: Sequence,
        to: Sequence,
        rows_max: usize,
    ) -> Result<RowPage, StorageError> {
        self.latency().await;
        if self.strikes() {
            return Err(self.unavailable("Query"));
        }
        self.world.events.read_consistent(root, from, to, rows_max).await
    }

    async fn payload(&self, event: &Event) -> Result<Bytes, StorageError> {
        self.latency().await;
        if self.strikes() {
            return Err(self.unavailable("Query"));
        }
        self.world.events.payload(event).await
    }
}

#[async_trait]
impl PositionStore for Faulty {
    async fn load(&self, handler: &HandlerName, roots: &[Root]) -> Result<Vec<Standing>, StorageError> {
        self.latency().await;
        if self.strikes() {
            return Err(self.unavailable("BatchGetItem"));
        }
        self.world.positions.load(handler, roots).await
    }

    async fn advance(&self, handler: &HandlerName, advances: &[Advance]) -> Vec<Result<Advanced, StorageError>> {
        self.latency().await;
        let mut results = Vec::new();
        for advance in advances {
            if self.strikes() {
                results.push(Err(self.unavailable("BatchExecuteStatement")));
                continue;
            }
            let result = self.world.positions.advance(handler, std::slice::from_ref(advance)).await.remove(0);
            if matches!(result, Ok(Advanced::Written)) {
                self.world.note(&format!("position {handler} {} {}", advance.root, advance.to));
                self.world.check(|checker| checker.position(handler, &advance.root, advance.to));
            }
            if self.strikes() {
                self.world.happened("write lost its reply");
                results.push(Err(self.unavailable("BatchExecuteStatement")));
            } else {
                results.push(result);
            }
        }
        self.latency().await;
        results
    }
}

#[async_trait]
impl MarkStore for Faulty {
    async fn mark(
        &self,
        handler: &HandlerName,
        root: &Root,
        standing: &Standing,
        mark: &Mark,
    ) -> Result<Marking, StorageError> {
        self.latency().await;
        if self.strikes() {
            return Err(self.unavailable("TransactWriteItems"));
        }
        let marking = self.world.positions.mark(handler, root, standing, mark).await?;
        if marking == Marking::Done {
            self.world.happened("root marked");
            self.world.note(&format!("mark {handler} {root} {} {:?}", mark.state.as_str(), standing.position));
            self.world.check(|checker| {
                checker.mark(handler, root, true);
                if let Some(covered) = standing.position {
                    checker.covered(handler, root, covered);
                }
            });
        }
        if self.strikes() { Err(self.unavailable("TransactWriteItems")) } else { Ok(marking) }
    }

    async fn unmark(&self, handler: &HandlerName, root: &Root, mark: &Mark) -> Result<Marking, StorageError> {
        self.latency().await;
        if self.strikes() {
            return Err(self.unavailable("TransactWriteItems"));
        }
        let marking = self.world.positions.unmark(handler, root, mark).await?;
        if marking == Marking::Done {
            self.world.note(&format!("unmark {handler} {root}"));
            self.world.check(|checker| checker.mark(handler, root, false));
        }
        if self.strikes() { Err(self.unavailable("TransactWriteItems")) } else { Ok(marking) }
    }

    async fn purge(&self, handler: &HandlerName, root: &Root) -> Result<(), StorageError> {
        self.latency().await;
        self.world.positions.purge(handler, root).await
    }

    async fn pass(
        &self,
        handler: &HandlerName,
        root: &Root,
        standing: &Standing,
        pass: &Pass,
    ) -> Result<Marking, StorageError> {
        self.latency().await;
        self.world.positions.pass(handler, root, standing, pass).await
    }

    async fn record_skip(&self, handler: &HandlerName, root: &Root, skip: &Skip) -> Result<(), StorageError> {
        self.world.positions.record_skip(handler, root, skip).await
    }

    async fn marked(&self, handler: &HandlerName) -> Result<Marked, StorageError> {
        self.latency().await;
        if self.strikes() {
            return Err(self.unavailable("Query"));
        }
        self.world.positions.marked(handler).await
    }

    async fn orders(&self) -> Result<u64, StorageError> {
        self.world.positions.orders().await
    }
}

#[async_trait]
impl HandlerRegistry for Faulty {
    async fn register(
        &self,
        handler: &HandlerName,
        start: Start,
        now: Timestamp,
    ) -> Result<Registration, StorageError> {
        self.latency().await;
        if self.strikes() {
            return Err(self.unavailable("PutItem"));
        }
        self.world.table.register(handler, start, now).await
    }

    async fn interests(&self, handler: &HandlerName) -> Result<Option<Vec<RegisteredInterest>>, StorageError> {
        self.world.table.interests(handler).await
    }

    async fn put_interests(&self, handler: &HandlerName, interests: &[RegisteredInterest]) -> Result<(), StorageError> {
        if self.strikes() {
            return Err(self.unavailable("PutItem"));
        }
        self.world.table.put_interests(handler, interests).await
    }

    async fn paused(&self) -> Result<BTreeSet<HandlerName>, StorageError> {
        self.world.table.paused().await
    }
}
