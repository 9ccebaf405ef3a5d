//! Named cases of the contract on the same ports: a stream that reorders and drops, a handler that fails for one root,
//! one that is a hundred times slower than another, an outage, an event that ends the process. Each is a case the seeds may meet, here alone and in
//! the plain.

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use angzarr_relay::backfill::{JobStore as _, Seen};
use angzarr_relay::event::{Event, Root, Sequence};
use angzarr_relay::fleet::FleetStore;
use angzarr_relay::handler::{Accepted, Handler, HandlerError, HandlerName, RootBatch};
use angzarr_relay::lane::{LaneSettings, OnFailure};
use angzarr_relay::relay::{OnTrim, RelayPorts, RelaySettings};
use angzarr_relay::relay_table::Start;
use angzarr_relay::storage::{
    Advance, Advanced, MarkState, MarkStore as _, Marked, PositionStore, Preloaded, Standing, StorageError,
};
use angzarr_relay::stream::Change;
use angzarr_relay::time::Random;
use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::store::{Recorder, SECOND, Store, name, on_trim, root, takes_all};

#[tokio::test(start_paused = true)]
async fn what_the_stream_reorders_and_drops_is_put_right_from_the_table() {
    let (store, chance) = (Store::new(), Random::seeded(5));
    let (roots, each) = (20, 30);
    for number in 0..roots {
        let mut events: Vec<Event> = (0..each).map(|sequence| store.commit(&root(number), sequence)).collect();
        for index in (1..events.len()).rev() {
            events.swap(index, usize::try_from(chance.below(index as u64 + 1)).unwrap());
        }
        // A third never reaches the stream; the last always does, or nobody could know of it.
        events.retain(|event| event.sequence.0 == each - 1 || !chance.percent(33));
        for event in events {
            store.push(event);
        }
    }
    let view = Recorder::new(Duration::from_millis(1), takes_all);
    let (running, cancel) = store.start(&[("view", view.clone())], 64);
    view.until(600, 60 * SECOND).await;
    cancel.cancel();
    running.await.unwrap();
    view.assert_in_order_once(roots, each);
}

#[tokio::test(start_paused = true)]
async fn a_root_that_fails_holds_no_other_and_goes_on_when_it_is_mended() {
    let store = Store::new();
    for sequence in 0..50 {
        (0..10).for_each(|number| store.push(store.commit(&root(number), sequence)));
    }
    let mended = Arc::new(Mutex::new(false));
    let judge = {
        let (mended, poisoned) = (mended.clone(), root(3));
        move |batch: &RootBatch| {
            if batch.root == poisoned
                && batch.events.iter().any(|event| event.sequence == Sequence(7))
                && !*mended.lock().unwrap()
            {
                return Err(HandlerError::permanent("never"));
            }
            takes_all(batch)
        }
    };
    let (view, other) =
        (Recorder::new(Duration::from_millis(1), judge), Recorder::new(Duration::from_millis(1), takes_all));
    let (running, cancel) = store.start(&[("view", view.clone()), ("other", other.clone())], 64);
    other.until(500, 5 * SECOND).await;
    view.until(450, 5 * SECOND).await;
    assert!(view.of(&root(3)).len() <= 7, "{:?}", view.of(&root(3)));
    let checkpoint = FleetStore::checkpoints(&store.table, &name("view")).await.unwrap();
    assert!(checkpoint.is_empty(), "a stopped root holds its handler's checkpoint: {checkpoint:?}");
    *mended.lock().unwrap() = true;
    view.until(500, 120 * SECOND).await;
    cancel.cancel();
    running.await.unwrap();
    view.assert_in_order_once(10, 50);
    other.assert_in_order_once(10, 50);
}

#[tokio::test(start_paused = true)]
async fn a_handler_a_hundred_times_slower_holds_no_other() {
    let store = Store::new();
    let (roots, each) = (50, 400);
    for sequence in 0..each {
        (0..roots).for_each(|number| store.push(store.commit(&root(number), sequence)));
    }
    let (quick, slow) =
        (Recorder::new(Duration::from_millis(2), takes_all), Recorder::new(Duration::from_millis(200), takes_all));
    let (running, cancel) = store.start(&[("quick", quick.clone()), ("slow", slow.clone())], 4);
    quick.until(20_000, 60 * SECOND).await;
    let behind = slow.total();
    assert!(behind < 10_000, "the slow handler has {behind} already: it was not slow");
    slow.until(20_000, 3600 * SECOND).await;
    cancel.cancel();
    running.await.unwrap();
    quick.assert_in_order_once(roots, each);
    slow.assert_in_order_once(roots, each);
}

#[tokio::test(start_paused = true)]
async fn a_handler_far_behind_on_many_shards_keeps_no_room_from_another() {
    const SHARDS: u64 = 40;
    // Room for a few pages.
    let settings = RelaySettings { memory_limit_bytes: 16 << 20, ..RelaySettings::default() };
    let store = Store { settings, ..Store::new() };
    let shards: Vec<_> = (0..SHARDS).map(|_| store.stream.create_shard(None)).collect();
    let write = |sequence: u64| {
        for (number, shard) in (0..SHARDS).zip(&shards) {
            let event = store.commit(&root(number), sequence);
            let event = Event { payload: vec![7; 150_000].into(), ..event };
            store.stream.push(shard, store.clock.now(), Change::Inserted(event));
        }
    };
    let (quick, slow) = (Recorder::new(Duration::from_millis(1), takes_all), Recorder::new(100 * SECOND, takes_all));
    let (running, cancel) = store.start(&[("quick", quick.clone()), ("slow", slow.clone())], 2);
    let each = 40;
    for sequence in 0..each {
        write(sequence);
        quick.until(usize::try_from((sequence + 1) * SHARDS).unwrap(), 60 * SECOND).await;
        sleep(20 * SECOND).await;
    }
    cancel.cancel();
    running.await.unwrap();
    quick.assert_in_order_once(SHARDS, each);
}

#[tokio::test(start_paused = true)]
async fn a_root_with_which_the_handler_always_panics_parks_alone() {
    let mut store = Store::new();
    store.on_failure = OnFailure::Park;
    for sequence in 0..50 {
        (0..10).for_each(|number| store.push(store.commit(&root(number), sequence)));
    }
    let poisoned = root(3);
    let view = Recorder::new(Duration::from_millis(1), move |batch: &RootBatch| {
        assert!(batch.root != poisoned || batch.events[0].sequence < Sequence(7), "the test's own panic");
        // One at a time, so that others are given events all the while.
        Ok(Accepted { events: 1 })
    });
    let (running, cancel) = store.start(&[("view", view.clone())], 1);
    view.until(450 + 7, 600 * SECOND).await;
    let mut more = 50;
    while store.positions.marked(&name("view")).await.unwrap().parked == 0 {
        assert!(more < 2000, "it was never parked");
        store.push(store.commit(&root(4), more));
        more += 1;
        sleep(SECOND).await;
    }
    let standing = store.positions.standing(&name("view"), &root(3));
    let mark = standing.mark.unwrap();
    // Once more alone, when its batch was given up.
    assert_eq!((mark.sequence, mark.attempts), (Sequence(7), LaneSettings::default().attempts_max + 1));
    assert!(mark.reason.contains("panicked"), "{}", mark.reason);
    cancel.cancel();
    running.await.unwrap();
    assert_eq!(view.of(&root(3)), (0..7).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_outage_parks_and_repeats_nothing_with_ten_thousand_roots() {
    let mut store = Store::new();
    store.on_failure = OnFailure::Park;
    let began = Instant::now();
    for sequence in 0..2 {
        (0..10_000).for_each(|number| store.push(store.commit(&root(number), sequence)));
    }
    let judge = move |batch: &RootBatch| {
        if began.elapsed() < Duration::from_hours(2) {
            return Err(HandlerError::unavailable("connection refused"));
        }
        takes_all(batch)
    };
    let (down, other) =
        (Recorder::new(Duration::from_millis(1), judge), Recorder::new(Duration::from_millis(1), takes_all));
    let (running, cancel) = store.start(&[("down", down.clone()), ("other", other.clone())], 64);
    other.until(20_000, 60 * SECOND).await;
    sleep(Duration::from_hours(1)).await;
    assert_eq!(store.health.problems(), ["handler down: the receiver is down: connection refused"]);
    sleep(Duration::from_hours(1)).await;
    let marked = store.positions.marked(&name("down")).await.unwrap();
    assert_eq!(marked, Marked::default(), "nobody is parked, nor deferred");
    down.until(20_000, 120 * SECOND).await;
    sleep(2 * SECOND).await;
    assert!(store.positions.skips().is_empty());
    assert!(store.health.problems().is_empty(), "{:?}", store.health.problems());
    cancel.cancel();
    running.await.unwrap();
    down.assert_in_order_once(10_000, 2);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_down_holds_no_others_backfill() {
    let mut store = Store::new();
    store.start = Start::Beginning;
    // A page is larger than the room of all scans: who keeps one keeps the room.
    store.settings.memory_limit_bytes = 1 << 20;
    for sequence in 0..5 {
        (0..2000).for_each(|number| drop(store.commit(&root(number), sequence)));
    }
    let down = Recorder::new(Duration::ZERO, |_| Err(HandlerError::unavailable("connection refused")));
    let other = Recorder::new(Duration::ZERO, takes_all);
    let (running, cancel) = store.start(&[("down", down), ("other", other.clone())], 4);
    other.until(10_000, 600 * SECOND).await;
    cancel.cancel();
    running.await.unwrap();
    other.assert_in_order_once(2000, 5);
}

/// Ends the process when it is given one event, and counts how often it was given it.
struct Killer {
    recorder: Arc<Recorder>,
    fatal: (Root, Sequence),
    given: AtomicU32,
    killed: Notify,
}

#[async_trait]
impl Handler for Killer {
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        if batch.root == self.fatal.0 && batch.events.iter().any(|event| event.sequence == self.fatal.1) {
            self.given.fetch_add(1, Ordering::Relaxed);
            self.killed.notify_one();
            return pending().await;
        }
        self.recorder.deliver(batch).await
    }
}

/// Lets the relay live again as often as its process ends; how often that is.
async fn lives(store: &Store, killer: &Arc<Killer>, settings: &LaneSettings) -> u32 {
    let mut ends = 0;
    loop {
        let (running, cancel) = store.start_with(vec![("view", killer.clone())], settings);
        let ended = tokio::time::timeout(Duration::from_mins(5), killer.killed.notified()).await.is_ok();
        if !ended {
            cancel.cancel();
            running.await.unwrap();
            return ends;
        }
        ends += 1;
        running.abort();
        assert!(running.await.is_err());
        assert!(ends <= settings.attempts_max, "it ends again and again");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_ends_the_process_when_it_is_given_again_parks_its_root_as_well() {
    let (store, view) = (Store::new(), name("view"));
    for sequence in 0..4 {
        (0..5).for_each(|number| store.push(store.commit(&root(number), sequence)));
    }
    let settings = LaneSettings { attempts_max: 3, ..LaneSettings::default() };
    let recorder = Recorder::new(Duration::from_millis(5), takes_all);
    let (running, cancel) = store.start_with(vec![("view", recorder.clone())], &settings);
    recorder.until(20, 60 * SECOND).await;
    cancel.cancel();
    running.await.unwrap();

    assert!(store.positions.rewind(&view, &root(2), Sequence(0)));
    let fatal = (root(2), Sequence(2));
    let killer = Arc::new(Killer { recorder, fatal, given: AtomicU32::new(0), killed: Notify::new() });
    assert_eq!(lives(&store, &killer, &settings).await, 3);
    let standing = store.positions.standing(&view, &root(2));
    let mark = standing.mark.unwrap();
    assert_eq!((standing.position, mark.state), (Some(Sequence(3)), MarkState::Parked));
    assert_eq!((mark.sequence, mark.rewound, mark.attempts), (Sequence(2), true, 3));
}

#[tokio::test(start_paused = true)]
async fn exactly_the_root_that_ends_the_process_is_parked() {
    const ATTEMPTS: u32 = 4;
    let (store, roots): (Store, Vec<Root>) = (Store::new(), (0..50).map(root).collect());
    for sequence in 0..3 {
        for root in &roots {
            store.push(store.commit(root, sequence));
        }
    }
    let recorder = Recorder::new(Duration::from_millis(5), |batch| Ok(Accepted::all(batch)));
    let killer = Arc::new(Killer {
        recorder: recorder.clone(),
        fatal: (roots[7].clone(), Sequence(1)),
        given: AtomicU32::new(0),
        killed: Notify::new(),
    });
    let settings = LaneSettings { max_in_flight: 50, attempts_max: ATTEMPTS, ..LaneSettings::default() };
    let ends = lives(&store, &killer, &settings).await;
    assert_eq!((ends, killer.given.load(Ordering::Relaxed)), (ATTEMPTS, ATTEMPTS));
    let view = HandlerName::new("view").unwrap();
    for (number, root) in roots.iter().enumerate() {
        let standing = store.positions.standing(&view, root);
        if number == 7 {
            // The event before it was accepted each time; whether that is durable hangs on when the process ended.
            assert!(standing.position.is_none_or(|position| position == Sequence(0)), "{standing:?}");
            let mark = standing.mark.unwrap();
            assert_eq!((mark.state, mark.sequence, mark.attempts), (MarkState::Parked, Sequence(1), ATTEMPTS));
        } else {
            assert_eq!((standing.position, standing.mark), (Some(Sequence(2)), None), "{root}");
            let mut taken = recorder.taken.lock().unwrap()[root].clone();
            taken.dedup();
            assert!(taken.ends_with(&[2]) && taken.contains(&0) && taken.contains(&1), "{root} {taken:?}");
        }
    }

    // After a clean end nothing is noted any more.
    let (running, cancel) = store.start_with(vec![("view", killer)], &settings);
    store.push(store.commit(&roots[0], 3));
    until_taken(&recorder, &roots[0], 3).await;
    cancel.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn told_to_fail_it_builds_new_handlers_and_stops_at_every_start_after_a_loss() {
    let store = Store { start: Start::Beginning, settings: on_trim(OnTrim::Fail), ..Store::new() };
    for sequence in 0..3 {
        store.commit(&root(0), sequence);
    }
    let recorder = Recorder::new(Duration::ZERO, |batch| Ok(Accepted::all(batch)));
    let (running, cancel) = store.start(&[("view", recorder.clone())], 10);
    until_taken(&recorder, &root(0), 2).await;
    sleep(Duration::from_secs(30)).await;
    cancel.cancel();
    running.await.unwrap();

    let seen = Seen { at: store.clock.now(), stream: "another".to_owned() };
    store.table.put_seen(&HandlerName::new("view").unwrap(), &seen).await.unwrap();
    store.commit(&root(0), 3);
    for start in 0..2 {
        let (running, _cancel) = store.start(&[("view", recorder.clone())], 10);
        assert!(running.await.is_err(), "start {start}");
    }
    let store = Store { settings: on_trim(OnTrim::Reconcile), ..store };
    let (running, cancel) = store.start(&[("view", recorder.clone())], 10);
    until_taken(&recorder, &root(0), 3).await;
    cancel.cancel();
    running.await.unwrap();
}

/// Waits until a root's event was taken.
async fn until_taken(recorder: &Recorder, root: &Root, sequence: u64) {
    while recorder.taken.lock().unwrap().get(root).is_none_or(|taken| taken.last() != Some(&sequence)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A positions table that never answers, and tells when it was asked.
#[derive(Default)]
struct SilentPositions(Notify);

impl SilentPositions {
    async fn silence<T>(&self) -> T {
        self.0.notify_one();
        pending().await
    }
}

#[async_trait]
impl PositionStore for SilentPositions {
    async fn load(&self, _: &HandlerName, _: &[Root]) -> Result<Vec<Standing>, StorageError> {
        self.silence().await
    }

    async fn preload(&self, _: &[HandlerName], _: usize) -> Result<Preloaded, StorageError> {
        self.silence().await
    }

    async fn advance(&self, _: &HandlerName, _: &[Advance]) -> Vec<Result<Advanced, StorageError>> {
        self.silence().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_waits_for_the_positions_table_ends_when_it_is_told() {
    let (store, positions) = (Store::new(), Arc::new(SilentPositions::default()));
    let ports = RelayPorts { positions: positions.clone(), ..store.ports() };
    let view: Arc<dyn Handler> = Recorder::new(Duration::ZERO, takes_all);
    let (running, cancel) = store.start_over(ports, vec![("view", view)], &LaneSettings::default());
    positions.0.notified().await;
    cancel.cancel();
    timeout(store.settings.shutdown_grace, running).await.unwrap().unwrap();
}
