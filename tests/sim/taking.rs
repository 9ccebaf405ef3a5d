//! What a lease is taken by: its row is read before the members that say whether its owner is gone. The other way about, a
//! member that joined and took the lease in between would be judged by a list it cannot be on.
//!
//! And what becomes of a lease whose taking was not answered, and took effect when another was to have it: its owner
//! learns of it and hands it over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use angzarr_relay::fleet::FleetStore as _;
use angzarr_relay::lane::LaneSettings;
use angzarr_relay::relay::RelayPorts;
use angzarr_relay::stream::ShardId;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::fleet_rows::FleetRows;
use crate::store::{Recorder, SECOND, Store, takes_all};

const SHARDS: usize = 6;

/// So long after it was refused a write takes effect: longer than anybody reads leases again for another reason.
const LATE: Duration = Duration::from_secs(15);

/// A replica, and what ends it.
type Running = (JoinHandle<()>, CancellationToken);

/// A store with so many shards, and a receiver.
fn store() -> (Store, BTreeSet<ShardId>, Arc<Recorder>) {
    let store = Store::new();
    let mut shards: BTreeSet<ShardId> = (1..SHARDS).map(|_| store.stream.create_shard(None)).collect();
    shards.insert(store.shard.clone());
    (store, shards, Recorder::new(Duration::from_millis(1), takes_all))
}

/// Starts a replica over rows that refuse the taking of these shards.
fn start(store: &Store, view: &Arc<Recorder>, refused: &BTreeSet<ShardId>) -> (Arc<FleetRows>, Running) {
    let rows = Arc::new(FleetRows::new(store.table.clone()));
    rows.refused.lock().unwrap().clone_from(refused);
    let ports = RelayPorts { fleet: rows.clone(), ..store.ports() };
    let running = store.start_over(ports, vec![("view", view.clone())], &LaneSettings::default());
    (rows, running)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < 120 * SECOND, "{what}");
        sleep(SECOND / 10).await;
    }
}

/// Waits until a replica has taken so many leases.
async fn has_taken(rows: &FleetRows, count: usize) {
    until("not all are taken", || rows.taken.lock().unwrap().0.len() >= count).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_read_before_the_members_its_owner_is_judged_by() {
    let (store, _, view) = store();
    // The first takes all; the second what the first hands over; the first again what the second leaves by dying.
    let (first, (first_running, first_cancel)) = start(&store, &view, &BTreeSet::new());
    has_taken(&first, SHARDS + 1).await;
    let (second, (second_running, _)) = start(&store, &view, &BTreeSet::new());
    has_taken(&second, SHARDS / 2).await;
    let by_first = first.taken.lock().unwrap().0.len();
    second_running.abort();
    second_running.await.unwrap_err();
    has_taken(&first, by_first + SHARDS / 2).await;

    for rows in [&first, &second] {
        assert_eq!(rows.taken.lock().unwrap().1, []);
    }
    first_cancel.cancel();
    first_running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_taken_without_an_answer_is_handed_over() {
    let (store, shards, view) = store();
    let (first, (first_running, first_cancel)) = start(&store, &view, &shards);
    let tried = |rows: &FleetRows| rows.unanswered.lock().unwrap().clone();
    until("the first takes not all", || tried(&first).len() == SHARDS).await;
    // Some of them are to be the second's, which cannot take them either; all others are taken then.
    let (second, (second_running, second_cancel)) = start(&store, &view, &shards);
    until("the second takes nothing", || !tried(&second).is_empty()).await;
    let (key, _) = tried(&second).pop_first().unwrap();
    let (read, changed) = tried(&first)[&key].clone();
    first.refused.lock().unwrap().clear();
    *second.refused.lock().unwrap() = [key.shard.clone()].into();
    let taken = |rows: &FleetRows| rows.taken.lock().unwrap().0.iter().cloned().collect::<BTreeSet<_>>();
    until("not all are taken", || (&taken(&first) | &taken(&second)).len() == SHARDS).await;
    assert!(!taken(&first).contains(&key));

    // What the first has tried takes effect now: it has the lease, and does not know it.
    sleep(LATE).await;
    store.table.change(&read, &changed).await.unwrap().unwrap();
    second.refused.lock().unwrap().clear();
    until("the second does not get it", || second.taken.lock().unwrap().0.contains(&key)).await;
    for (running, cancel) in [(first_running, first_cancel), (second_running, second_cancel)] {
        cancel.cancel();
        running.await.unwrap();
    }
}
