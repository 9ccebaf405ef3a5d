//! One table and its stream of one shard in memory, relays over them, and receivers that keep what they were given.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use angzarr_relay::backfill::{MemoryScan, ScanProgress};
use angzarr_relay::event::{Event, Root, Sequence, Timestamp};
use angzarr_relay::handler::{Accepted, Handler, HandlerError, HandlerName, RootBatch};
use angzarr_relay::lane::{LaneSettings, OnFailure, Subscription};
use angzarr_relay::relay::{HandlerSpec, OnTrim, Relay, RelayPorts, RelaySettings};
use angzarr_relay::relay_table::{MemoryRelayTable, Start};
use angzarr_relay::storage::{MemoryEvents, MemoryPositions};
use angzarr_relay::stream::{Change, MemoryStream, ShardId};
use angzarr_relay::telemetry::Health;
use angzarr_relay::time::{Clock, Random};
use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A table and its stream, one shard.
pub(crate) struct Store {
    pub(crate) events: MemoryEvents,
    pub(crate) stream: MemoryStream,
    pub(crate) positions: MemoryPositions,
    pub(crate) table: MemoryRelayTable,
    pub(crate) shard: ShardId,
    pub(crate) clock: Clock,
    pub(crate) health: Health,
    pub(crate) start: Start,
    pub(crate) settings: RelaySettings,
    pub(crate) on_failure: OnFailure,
    pub(crate) lives: AtomicU64,
}

pub(crate) fn root(number: u64) -> Root {
    Root::new("orders", "", &format!("r{number}")).unwrap()
}

pub(crate) fn name(text: &str) -> HandlerName {
    HandlerName::new(text).unwrap()
}

pub(crate) fn on_trim(on_trim: OnTrim) -> RelaySettings {
    RelaySettings { on_trim, ..RelaySettings::default() }
}

/// When the world begins.
pub(crate) fn began_at() -> Timestamp {
    Timestamp::from_unix_millis(1_800_000_000_000)
}

impl Store {
    pub(crate) fn new() -> Self {
        let stream = MemoryStream::default();
        let shard = stream.create_shard(None);
        let clock = Clock::starting_at(began_at());
        let (events, positions, table) = Default::default();
        // Within the stream: nothing is to be built from the table first.
        let (start, settings) = (Start::At(began_at()), RelaySettings::default());
        let (health, on_failure, lives) = (Health::default(), OnFailure::Block, AtomicU64::new(1));
        Self { events, stream, positions, table, shard, clock, health, start, settings, on_failure, lives }
    }

    pub(crate) fn commit(&self, root: &Root, sequence: u64) -> Event {
        let event = Event {
            root: root.clone(),
            sequence: Sequence(sequence),
            event_type: "OrderPlaced".into(),
            payload: vec![7; 100].into(),
            chunked: None,
            correlation_id: None,
            traceparent: None,
            created_at: self.clock.now(),
        };
        self.events.put(event.clone());
        event
    }

    pub(crate) fn push(&self, event: Event) {
        self.stream.push(&self.shard, self.clock.now(), Change::Inserted(event));
    }

    pub(crate) fn start(
        &self,
        handlers: &[(&str, Arc<Recorder>)],
        max_in_flight: usize,
    ) -> (JoinHandle<()>, CancellationToken) {
        let settings = LaneSettings { max_in_flight, on_failure: self.on_failure, ..LaneSettings::default() };
        let handlers = handlers.iter().map(|(name, handler)| (*name, handler.clone() as Arc<dyn Handler>));
        self.start_with(handlers.collect(), &settings)
    }

    pub(crate) fn ports(&self) -> RelayPorts {
        let scan_progress = ScanProgress::default();
        RelayPorts {
            scan: Arc::new(MemoryScan::new(self.events.clone(), scan_progress.clone(), 1000)),
            scan_progress,
            jobs: Arc::new(self.table.clone()),
            lives: Arc::new(self.table.clone()),
            stream: Arc::new(self.stream.clone()),
            events: Arc::new(self.events.clone()),
            positions: Arc::new(self.positions.clone()),
            marks: Arc::new(self.positions.clone()),
            fleet: Arc::new(self.table.clone()),
            registry: Arc::new(self.table.clone()),
            clock: self.clock.clone(),
            // Each life has an id of its own.
            random: Random::seeded(self.lives.fetch_add(1, Ordering::Relaxed)),
            health: self.health.clone(),
        }
    }

    pub(crate) fn start_with(
        &self,
        handlers: Vec<(&str, Arc<dyn Handler>)>,
        settings: &LaneSettings,
    ) -> (JoinHandle<()>, CancellationToken) {
        self.start_over(self.ports(), handlers, settings)
    }

    pub(crate) fn start_over(
        &self,
        ports: RelayPorts,
        handlers: Vec<(&str, Arc<dyn Handler>)>,
        settings: &LaneSettings,
    ) -> (JoinHandle<()>, CancellationToken) {
        let specs = (handlers.into_iter())
            .map(|(name, handler)| HandlerSpec {
                name: HandlerName::new(name).unwrap(),
                handler,
                start: self.start,
                subscription: Subscription::everything(),
                settings: settings.clone(),
            })
            .collect();
        let cancel = CancellationToken::new();
        let relay = Relay::new(ports, self.settings.clone(), specs).unwrap().run(cancel.clone());
        (tokio::spawn(async { relay.await.unwrap() }), cancel)
    }
}

pub(crate) type Judge = Box<dyn Fn(&RootBatch) -> Result<Accepted, HandlerError> + Send + Sync>;

/// Keeps what it was given, takes its time, and answers as it is told.
pub(crate) struct Recorder {
    pub(crate) taken: Mutex<BTreeMap<Root, Vec<u64>>>,
    pub(crate) slowness: Duration,
    pub(crate) judge: Judge,
}

impl Recorder {
    pub(crate) fn new(
        slowness: Duration,
        judge: impl Fn(&RootBatch) -> Result<Accepted, HandlerError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), slowness, judge: Box::new(judge) })
    }

    pub(crate) fn total(&self) -> usize {
        self.taken.lock().unwrap().values().map(Vec::len).sum()
    }

    pub(crate) fn of(&self, root: &Root) -> Vec<u64> {
        self.taken.lock().unwrap().get(root).cloned().unwrap_or_default()
    }

    pub(crate) async fn until(&self, total: usize, limit: Duration) {
        let began = Instant::now();
        while self.total() < total {
            assert!(began.elapsed() < limit, "{} of {total} events after {limit:?}", self.total());
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn assert_in_order_once(&self, roots: u64, each: u64) {
        for number in 0..roots {
            assert_eq!(self.of(&root(number)), (0..each).collect::<Vec<_>>(), "{}", root(number));
        }
    }
}

#[async_trait]
impl Handler for Recorder {
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        sleep(self.slowness).await;
        let answer = (self.judge)(batch)?;
        let mut taken = self.taken.lock().unwrap();
        let sequences = batch.events[..answer.events].iter().map(|event| event.sequence.0);
        taken.entry(batch.root.clone()).or_default().extend(sequences);
        Ok(answer)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for a handler's answer")]
pub(crate) fn takes_all(batch: &RootBatch) -> Result<Accepted, HandlerError> {
    Ok(Accepted::all(batch))
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
