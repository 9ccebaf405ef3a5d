//! What a lease is taken by: its row is read before the members that say whether its owner is gone.
//!
//! The other way about, a member that joined and took the lease in between would be judged by a list it cannot be on.

use std::sync::Arc;
use std::time::Duration;

use angzarr_relay::lane::LaneSettings;
use angzarr_relay::relay::RelayPorts;
use tokio::time::{Instant, sleep};

use crate::fleet_rows::FleetRows;
use crate::store::{Recorder, SECOND, Store, takes_all};

const SHARDS: usize = 6;

/// Waits until a replica has taken so many leases.
async fn has_taken(rows: &FleetRows, count: usize) {
    let began = Instant::now();
    while rows.taken.lock().unwrap().0.len() < count {
        assert!(began.elapsed() < 120 * SECOND, "{:?}", rows.taken.lock().unwrap());
        sleep(SECOND / 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_read_before_the_members_its_owner_is_judged_by() {
    let store = Store::new();
    for _ in 1..SHARDS {
        store.stream.create_shard(None);
    }
    let view = Recorder::new(Duration::from_millis(1), takes_all);
    let start = || {
        let rows = Arc::new(FleetRows::new(store.table.clone()));
        let ports = RelayPorts { fleet: rows.clone(), ..store.ports() };
        let running = store.start_over(ports, vec![("view", view.clone())], &LaneSettings::default());
        (rows, running)
    };
    // The first takes all; the second what the first hands over; the first again what the second leaves by dying.
    let (first, (first_running, first_cancel)) = start();
    has_taken(&first, SHARDS + 1).await;
    let (second, (second_running, _)) = start();
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
