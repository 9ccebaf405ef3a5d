//! How long the roots of a replica wait when it stops or crashes, until another delivers them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use angzarr_relay::event::{Root, Sequence};
use angzarr_relay::storage::{EventStore, NewEvent};
use angzarr_relay::time::{Clock, Random};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::receiver::{Delivery, Receiver};
use super::replicas::Replicas;

const SHARDS: u32 = 8;
const ROOTS: usize = 24;
const REPLICAS: usize = 3;

/// Each root gets an event so often.
const WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// All roots of a replica that is gone are delivered by others within this, or something is wrong.
const TAKEN_MAX: Duration = Duration::from_mins(1);

/// How a replica ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Crash,
}

/// What was measured of roots, one value a root and round.
#[derive(Default)]
struct Waits {
    /// From the end of the replica to the next delivery by another.
    until_next: Vec<Duration>,
    /// Between two deliveries of the root, over that end.
    between: Vec<Duration>,
}

/// Rounds of stops, then of crashes; the table of what they took.
pub(crate) async fn measure(rounds: usize) -> String {
    let receiver = Receiver::default();
    let mut replicas = Replicas::new(SHARDS, receiver.serve().await, "250ms").await;
    for _ in 0..REPLICAS {
        replicas.start().await;
    }
    let stop = CancellationToken::new();
    let store = EventStore::new(&replicas.aws, &replicas.names.events, Random::from_entropy());
    let writing = tokio::spawn(stop.clone().run_until_cancelled_owned(write(store)));
    let mut text = format!(
        "{REPLICAS} replicas, {SHARDS} shards, {ROOTS} roots with an event each every {} ms, lease_duration 10 s; {rounds} rounds each\n\n| | p50 | p99 | longest |\n|---|---|---|---|\n",
        WRITE_INTERVAL.as_millis()
    );
    for (end, name) in [(End::Stop, "SIGTERM"), (End::Crash, "`kill -9`")] {
        let mut waits = Waits::default();
        for _ in 0..rounds {
            round(end, &mut replicas, &receiver, &mut waits).await;
        }
        row(&mut text, &format!("{name} to the next delivery of the same root by another replica"), waits.until_next);
        row(&mut text, &format!("{name}: between two deliveries of a root over that"), waits.between);
    }
    stop.cancel();
    writing.await.unwrap();
    text
}

async fn round(end: End, replicas: &mut Replicas, receiver: &Receiver, waits: &mut Waits) {
    replicas.settled(SHARDS as usize).await;
    // Everybody has delivered since the shares are what they are.
    sleep(WRITE_INTERVAL * 10).await;
    receiver.clear();
    let (victim, (_home, mut relay)) = replicas.running.pop_first().unwrap();
    let is_of_victim = |deliveries: &Vec<Delivery>| deliveries.last().is_some_and(|last| last.by == victim);
    let roots: Vec<String> =
        receiver.deliveries().into_iter().filter(|(_, all)| is_of_victim(all)).map(|(root, _)| root).collect();
    let struck_at = Instant::now();
    let ending = match end {
        End::Stop => {
            Some(tokio::spawn(async move { assert!(relay.terminate().await.success(), "{}", relay.output()) }))
        }
        End::Crash => {
            relay.kill();
            None
        }
    };
    let by_others = async {
        loop {
            let deliveries = receiver.deliveries();
            let next = |root: &String| {
                let at =
                    deliveries[root].iter().position(|delivery| delivery.by != victim && delivery.at > struck_at)?;
                Some((deliveries[root][at].at, deliveries[root][at - 1].at))
            };
            let found: BTreeMap<&String, (Instant, Instant)> =
                roots.iter().filter_map(|root| Some((root, next(root)?))).collect();
            if found.len() == roots.len() {
                return found.into_values().collect::<Vec<_>>();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let found = timeout(TAKEN_MAX, by_others).await.expect("all roots are delivered by others");
    waits.until_next.extend(found.iter().map(|(next, _)| *next - struck_at));
    waits.between.extend(found.iter().map(|(next, last)| *next - *last));
    if let Some(ending) = ending {
        ending.await.unwrap();
    }
    replicas.start().await;
}

async fn write(store: EventStore) {
    let mut last: BTreeMap<usize, Sequence> = BTreeMap::new();
    let mut ticks = interval(WRITE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for number in 0..ROOTS {
            let root = Root::new("orders", "angzarr", &format!("r{number}")).unwrap();
            let event = NewEvent {
                event_type: "OrderPlaced".into(),
                payload: vec![7; 200].into(),
                correlation_id: None,
                created_at: Clock::system().now(),
            };
            let appended = store.append(&root, last.get(&number).copied(), &[event]).await.unwrap();
            last.insert(number, appended);
        }
    }
}

fn row(text: &mut String, name: &str, mut waits: Vec<Duration>) {
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() * percent).div_ceil(100).saturating_sub(1)].as_secs_f64();
    let longest = waits.last().map_or(0.0, Duration::as_secs_f64);
    writeln!(text, "| {name} | {:.2} s | {:.2} s | {longest:.2} s |", at(50), at(99)).unwrap();
}
