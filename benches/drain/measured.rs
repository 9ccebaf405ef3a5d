//! What is measured: the bare loop over the stream, and the relay over the same stream with handlers that do nothing.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use angzarr_relay::backfill::{CapacityPace, ScanProgress, Seen, TableScan};
use angzarr_relay::handler::{Accepted, Handler, HandlerError, HandlerName, RootBatch};
use angzarr_relay::lane::{LaneSettings, Subscription};
use angzarr_relay::relay::{HandlerSpec, Relay, RelayPorts, RelaySettings};
use angzarr_relay::relay_table::{RelayTable, Start};
use angzarr_relay::storage::{
    Advance, Advanced, DynamoMarks, DynamoPositions, EventStore, PositionStore, Preloaded, Standing, StorageError,
};
use angzarr_relay::stream::DynamoStream;
use angzarr_relay::telemetry::{Health, Recorder, names};
use angzarr_relay::time::{Clock, Random};
use async_trait::async_trait;
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dataset::{clients, tables};
use super::process::{cpu_millis, peak_mib};

/// One measurement.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) endpoint: String,
    /// Names the tables of the relay's own.
    pub(crate) measurement: String,
    pub(crate) events: usize,
    /// None: the bare loop.
    pub(crate) handlers: Option<usize>,
}

/// What came out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// From the start to the last delivery; of the bare loop, to the last record.
    pub(crate) delivered_ms: f64,
    /// From the start to the last durable position.
    pub(crate) durable_ms: f64,
    /// Processor time over the same.
    pub(crate) cpu_ms: f64,
    pub(crate) peak_mib: f64,
    pub(crate) positions: f64,
    pub(crate) calls: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delivered_ms, durable_ms, cpu_ms, peak_mib, positions, calls } = self;
        write!(formatter, "{delivered_ms} {durable_ms} {cpu_ms} {peak_mib} {positions} {calls}")
    }
}

impl FromStr for Figures {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let figures: Vec<f64> = line.split(' ').filter_map(|figure| figure.parse().ok()).collect();
        let [delivered_ms, durable_ms, cpu_ms, peak_mib, positions, calls] = figures[..] else { return Err(()) };
        Ok(Self { delivered_ms, durable_ms, cpu_ms, peak_mib, positions, calls })
    }
}

/// The first argument of a process that measures.
const MEASURE: &str = "measure";

impl Job {
    pub(crate) fn arguments(&self) -> [String; 5] {
        let handlers = self.handlers.map_or_else(|| "bare".to_owned(), |count| count.to_string());
        [MEASURE.into(), self.endpoint.clone(), self.measurement.clone(), self.events.to_string(), handlers]
    }

    pub(crate) fn from_arguments(arguments: &[String]) -> Option<Self> {
        let [measure, endpoint, measurement, events, handlers] = arguments else { return None };
        (measure == MEASURE).then(|| Self {
            endpoint: endpoint.clone(),
            measurement: measurement.clone(),
            events: events.parse().unwrap(),
            handlers: handlers.parse().ok(),
        })
    }

    pub(crate) async fn run(self) -> Figures {
        match self.handlers {
            None => tokio::spawn(bare(self)).await.unwrap(),
            Some(handlers) => relay(&self, handlers).await,
        }
    }
}

/// What anybody would write who only wants the records.
async fn bare(job: Job) -> Figures {
    let aws = clients(&job.endpoint).await;
    let stream = DynamoStream::connect(&aws, &tables(&job.measurement).events).await.unwrap();
    let (start, cpu_before) = (Instant::now(), cpu_millis());
    let mut calls = 1;
    let described = aws.streams.describe_stream().stream_arn(&*stream.arn()).send().await.unwrap();
    let mut records = 0;
    for shard in described.stream_description.unwrap().shards.unwrap() {
        let opened = (aws.streams.get_shard_iterator())
            .stream_arn(&*stream.arn())
            .set_shard_id(shard.shard_id)
            .shard_iterator_type(ShardIteratorType::TrimHorizon);
        let mut iterator = opened.send().await.unwrap().shard_iterator;
        calls += 1;
        while let Some(at) = iterator.filter(|_| records < job.events) {
            let page = aws.streams.get_records().shard_iterator(at).limit(1000).send().await.unwrap();
            records += page.records().len();
            calls += 1;
            iterator = black_box(page).next_shard_iterator;
        }
    }
    let delivered_ms = millis_since(start);
    Figures {
        delivered_ms,
        durable_ms: delivered_ms,
        cpu_ms: cpu_millis() - cpu_before,
        peak_mib: peak_mib(),
        positions: 0.0,
        calls: f64::from(calls),
    }
}

/// The relay as `angzarr-relay run` wires it, with its default bounds.
async fn relay(job: &Job, handlers: usize) -> Figures {
    let recorder = Recorder::install();
    let aws = clients(&job.endpoint).await;
    let tables = tables(&job.measurement);
    let (clock, random) = (Clock::system(), Random::from_entropy());
    let table = Arc::new(RelayTable::new(&aws, &tables.relay, clock.clone()));
    let total = (job.events * handlers) as u64;
    let delivered = Arc::new(Goal::new(total));
    let durable = Arc::new(Goal::new(total));
    let positions = Counted {
        positions: DynamoPositions::new(&aws, &tables.positions, clock.clone()),
        durable: durable.clone(),
        written: AtomicU64::new(0),
    };
    let positions = Arc::new(positions);
    let (scan_progress, pace) = (ScanProgress::default(), CapacityPace::new(1000));
    let ports = RelayPorts {
        scan: Arc::new(TableScan::new(&aws, &tables.events, pace, scan_progress.clone())),
        scan_progress,
        jobs: table.clone(),
        lives: table.clone(),
        stream: Arc::new(DynamoStream::connect(&aws, &tables.events).await.unwrap()),
        events: Arc::new(EventStore::new(&aws, &tables.events, random.clone())),
        positions: positions.clone(),
        marks: Arc::new(DynamoMarks::new(&aws, &tables, clock.clone())),
        fleet: table.clone(),
        registry: table,
        clock,
        random,
        health: Health::default(),
    };
    let names = (0..handlers).map(|number| HandlerName::new(&format!("handler-{number}")).unwrap());
    let stream = ports.stream.name();
    for name in names.clone() {
        // Handlers that follow the stream already: a new one would begin with the table.
        let seen = Seen { at: ports.clock.now(), stream: stream.clone() };
        ports.jobs.put_seen(&name, &seen).await.unwrap();
    }
    let specs = names.map(|name| HandlerSpec {
        name,
        handler: Arc::new(Nothing(delivered.clone())),
        start: Start::Beginning,
        subscription: Subscription::everything(),
        settings: LaneSettings::default(),
    });
    let relay = Relay::new(ports, RelaySettings::default(), specs.collect()).unwrap();
    let calls_before = aws_calls(&recorder);
    let (start, cpu_before) = (Instant::now(), cpu_millis());
    let running = tokio::spawn(relay.run(CancellationToken::new()));
    let delivered_at = delivered.reached().await;
    let durable_at = durable.reached().await;
    let figures = Figures {
        delivered_ms: millis(delivered_at, start),
        durable_ms: millis(durable_at, start),
        cpu_ms: cpu_millis() - cpu_before,
        peak_mib: peak_mib(),
        positions: float(positions.written.load(Ordering::Relaxed)),
        calls: aws_calls(&recorder) - calls_before,
    };
    running.abort();
    figures
}

/// Counts up to a total and notes when it is there.
struct Goal {
    left: AtomicU64,
    reached: Notify,
    at: std::sync::OnceLock<Instant>,
}

impl Goal {
    fn new(total: u64) -> Self {
        Self { left: AtomicU64::new(total), reached: Notify::new(), at: std::sync::OnceLock::new() }
    }

    fn count(&self, events: u64) {
        if self.left.fetch_sub(events, Ordering::Relaxed) == events {
            self.at.get_or_init(Instant::now);
            self.reached.notify_one();
        }
    }

    async fn reached(&self) -> Instant {
        self.reached.notified().await;
        *self.at.get().unwrap()
    }
}

/// A handler that only counts.
struct Nothing(Arc<Goal>);

#[async_trait]
impl Handler for Nothing {
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        self.0.count(batch.events.len() as u64);
        Ok(Accepted::all(batch))
    }
}

/// The positions table, watched: how many events are covered durably.
struct Counted {
    positions: DynamoPositions,
    durable: Arc<Goal>,
    written: AtomicU64,
}

#[async_trait]
impl PositionStore for Counted {
    async fn load(
        &self,
        handler: &HandlerName,
        roots: &[angzarr_relay::event::Root],
    ) -> Result<Vec<Standing>, StorageError> {
        self.positions.load(handler, roots).await
    }

    async fn preload(&self, handlers: &[HandlerName], pages_max: usize) -> Result<Preloaded, StorageError> {
        self.positions.preload(handlers, pages_max).await
    }

    async fn advance(&self, handler: &HandlerName, advances: &[Advance]) -> Vec<Result<Advanced, StorageError>> {
        let results = self.positions.advance(handler, advances).await;
        let (mut written, mut covered) = (0, 0);
        for (advance, result) in advances.iter().zip(&results) {
            if matches!(result, Ok(Advanced::Written)) {
                written += 1;
                covered += advance.to.0 + 1 - advance.from.map_or(0, |from| from.0 + 1);
            }
        }
        self.written.fetch_add(written, Ordering::Relaxed);
        self.durable.count(covered);
        results
    }
}

/// All calls of AWS so far, of whatever outcome.
fn aws_calls(recorder: &Recorder) -> f64 {
    let text = recorder.render();
    let calls = text.lines().filter(|line| line.starts_with(names::AWS_CALLS));
    calls.filter_map(|line| line.rsplit(' ').next()).filter_map(|count| count.parse::<f64>().ok()).sum()
}

fn millis_since(start: Instant) -> f64 {
    millis(Instant::now(), start)
}

fn millis(at: Instant, start: Instant) -> f64 {
    at.duration_since(start).as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a count of positions is far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
