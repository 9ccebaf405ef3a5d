//! The lanes' task over tables in memory, on a paused clock: a lane is given up in time whatever the handler does, and what
//! waited long for room is given by what its position is by then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::rig::{ev, root_of};
use crate::event::{Chunked, Event, Sequence, Timestamp, cut};
use crate::handler::{Accepted, HandlerName, RootBatch, handler_fn};
use crate::lane::dispatch::STANDS_MAX;
use crate::lane::{
    KnownPositions, LaneOrder, LaneReport, LaneSettings, LanesParts, LanesTask, Opening, PayloadRoom, Progress,
    Subscription,
};
use crate::relay_table::{Checkpoint, LivesOfAll as _, MemoryRelayTable};
use crate::storage::{Advance, MemoryEvents, MemoryPositions, PositionStore as _};
use crate::stream::{Branch, Change, Feed, LaneId, MemoryStream, ReaderParts, ShardId, ShardReader, StreamPoint};
use crate::telemetry::Health;
use crate::time::{Clock, Random};

/// The room for payloads that are put together, in bytes.
const PAYLOAD_BYTES: usize = 1 << 20;

/// One handler's task, the stream and the tables around it.
struct World {
    stream: MemoryStream,
    events: MemoryEvents,
    payload_room: PayloadRoom,
    positions: MemoryPositions,
    table: MemoryRelayTable,
    name: HandlerName,
    orders: mpsc::Sender<LaneOrder>,
    reports: mpsc::UnboundedReceiver<LaneReport>,
    calls: Arc<AtomicU32>,
    answers: Arc<AtomicBool>,
    lanes: u32,
}

impl World {
    /// A handler that takes so long, and for ever while it does not answer.
    fn new(takes: Duration) -> Self {
        let (stream, positions, table) =
            (MemoryStream::default(), MemoryPositions::default(), MemoryRelayTable::default());
        let (events, payload_room) = (MemoryEvents::default(), PayloadRoom::new(PAYLOAD_BYTES));
        let (calls, answers) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(true)));
        let (counted, answering) = (calls.clone(), answers.clone());
        let handler = handler_fn(move |batch: RootBatch| {
            counted.fetch_add(1, Ordering::Relaxed);
            let answers = answering.load(Ordering::Relaxed);
            async move {
                if answers {
                    sleep(takes).await;
                } else {
                    std::future::pending::<()>().await;
                }
                Ok(Accepted::all(&batch))
            }
        });
        let name = HandlerName::new("view").unwrap();
        let parts = LanesParts {
            name: name.clone(),
            handler: Arc::new(handler),
            subscription: Subscription::everything(),
            settings: LaneSettings { deliver_timeout: Duration::from_hours(1), ..LaneSettings::default() },
            events: Arc::new(events.clone()),
            positions: Arc::new(positions.clone()),
            payload_room: payload_room.clone(),
            known: KnownPositions::default(),
            marks: Arc::new(positions.clone()),
            works_off: Arc::new(|_| true),
            may_deliver: Arc::new(|| true),
            paused: false,
            lives: table.notes_of(&"one~1".into()),
            care: Arc::new(Semaphore::new(1)),
            suspect: None,
            checkpoints: Arc::new(table.clone()),
            shutdown_grace: Duration::from_secs(20),
            safety_alarm: Duration::from_hours(1),
            clock: Clock::system(),
            random: Random::seeded(1),
            health: Health::default(),
        };
        let (orders, ordered) = mpsc::channel(10);
        let (report, reports) = mpsc::unbounded_channel();
        let task = LanesTask::new(parts, Progress::default());
        tokio::spawn(task.run(ordered, report, CancellationToken::new()));
        Self { stream, events, payload_room, positions, table, name, orders, reports, calls, answers, lanes: 0 }
    }

    /// A lane on a shard of its own.
    async fn open(&mut self) -> (LaneId, Feed) {
        self.lanes += 1;
        let (lane, shard) = (LaneId(self.lanes), self.stream.create_shard(None));
        let feed = Feed::new(shard.clone());
        let parts = ReaderParts::of(Arc::new(self.stream.clone()));
        let (reader, joins) = (ShardReader::new(parts, feed.clone()), feed.clone());
        tokio::spawn(async move {
            joins.joined().await;
            reader.run().await;
        });
        feed.expect_lane();
        let opening = Opening { after: StreamPoint::Horizon, branch: Some(Branch(shard)), taken: true };
        self.orders.send(LaneOrder::Open(lane, feed.clone(), opening)).await.unwrap();
        (lane, feed)
    }

    fn push(&self, shard: &ShardId, root: &str) {
        self.push_event(shard, ev(root, 0).row().unwrap());
    }

    fn push_event(&self, shard: &ShardId, event: Event) {
        self.stream.push(shard, Timestamp::from_unix_millis(0), Change::Inserted(event));
    }

    async fn called(&self, times: u32) {
        while self.calls.load(Ordering::Relaxed) < times {
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn told(&mut self) -> LaneReport {
        timeout(Duration::from_mins(2), self.reports.recv()).await.expect("it is told").unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_given_up_by_its_deadline_though_the_handler_never_answers() {
    let mut world = World::new(Duration::ZERO);
    world.answers.store(false, Ordering::Relaxed);
    let (lane, feed) = world.open().await;
    let (other, others) = world.open().await;
    world.push(feed.shard(), "mine");
    world.push(others.shard(), "theirs");
    world.called(2).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    world.orders.send(LaneOrder::Close(lane, deadline)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(feed.is_deserted() && !others.is_deserted(), "its reader may end at once");
    world.answers.store(true, Ordering::Relaxed);
    let shard = feed.shard().clone();
    assert_eq!(world.told().await, LaneReport::Closed(world.name.clone(), shard.clone(), false));
    assert_eq!(Instant::now(), deadline);
    world.called(3).await;
    // The other lane's root is given again, and that lane is given up in time.
    sleep(Duration::from_mins(1)).await;
    assert_eq!(world.calls.load(Ordering::Relaxed), 3);
    let position = |root: &str| world.positions.position(&world.name, &root_of(root));
    assert_eq!((position("mine"), position("theirs")), (None, Some(Sequence(0))));
    world.orders.send(LaneOrder::Close(other, Instant::now() + Duration::from_secs(5))).await.unwrap();
    assert_eq!(world.told().await, LaneReport::Closed(world.name.clone(), others.shard().clone(), true));
    assert!(!world.table.saved(&world.name).contains_key(&shard), "no checkpoint for what was given up");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_given_up_in_time_has_everything_written_when_that_is_told() {
    let mut world = World::new(Duration::from_secs(2));
    let (lane, feed) = world.open().await;
    world.push(feed.shard(), "r");
    world.called(1).await;
    let began = Instant::now();
    world.orders.send(LaneOrder::Close(lane, began + Duration::from_mins(1))).await.unwrap();
    assert_eq!(world.told().await, LaneReport::Closed(world.name.clone(), feed.shard().clone(), true));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(world.positions.position(&world.name, &root_of("r")), Some(Sequence(0)));
    let checkpoints = world.table.saved(&world.name);
    assert!(matches!(checkpoints.get(feed.shard()), Some(Checkpoint::At(_))), "{checkpoints:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_was_finished_before_is_not_told_twice() {
    let mut world = World::new(Duration::ZERO);
    let (lane, feed) = world.open().await;
    world.push(feed.shard(), "r");
    world.stream.close_shard(feed.shard(), 0);
    assert_eq!(world.told().await, LaneReport::Finished(world.name.clone(), feed.shard().clone()));
    world.orders.send(LaneOrder::Close(lane, Instant::now() + Duration::from_secs(5))).await.unwrap();
    let told = timeout(Duration::from_mins(1), world.reports.recv()).await;
    assert!(told.is_err(), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn what_another_has_passed_while_room_was_waited_for_is_not_given() {
    let mut world = World::new(Duration::ZERO);
    let (_, feed) = world.open().await;
    let room = world.payload_room.take(PAYLOAD_BYTES).await;
    let mut event = ev("r", 0).row().unwrap();
    event.payload = vec![7; 1000].into();
    world.events.put_chunks("append", cut(&event.payload, 100).collect());
    event.chunked = Some(Box::new(Chunked::new(&event.payload, 100, "append")));
    event.payload = Vec::new().into();
    world.push_event(feed.shard(), event);
    // Its position was read before it waits for room; then another replica writes it.
    sleep(Duration::from_secs(1)).await;
    let advance = Advance { root: root_of("r"), from: None, to: Sequence(0) };
    world.positions.advance(&world.name, &[advance]).await.pop().unwrap().unwrap();
    sleep(STANDS_MAX).await;
    drop(room);
    world.push_event(feed.shard(), ev("r", 1).row().unwrap());
    let follows = async {
        while world.positions.position(&world.name, &root_of("r")) < Some(Sequence(1)) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_mins(1), follows).await.expect("what follows is given");
    assert_eq!(world.calls.load(Ordering::Relaxed), 1, "the first was given, too");
}
