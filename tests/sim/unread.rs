//! A shard that nobody can take: it is told as unread, counts as lag for as long, and is read as soon as it can be taken.

use std::sync::Arc;
use std::time::Duration;

use angzarr_relay::fleet::Report;
use angzarr_relay::lane::LaneSettings;
use angzarr_relay::relay::RelayPorts;
use angzarr_relay::stream::Change;
use tokio::time::{sleep, timeout};

use crate::fleet_rows::FleetRows;
use crate::store::{Recorder, SECOND, Store, name, root, takes_all};

/// The lag of the handler as its replica reports it, in seconds.
fn lag_secs(store: &Store) -> u64 {
    let lag = |report: &Report| report.lags_secs.get(&name("view")).copied();
    store.table.reports().iter().filter_map(lag).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_nobody_can_take_counts_as_lag_until_somebody_does() {
    let store = Store::new();
    let other = store.stream.create_shard(None);
    let rows = Arc::new(FleetRows::new(store.table.clone()));
    *rows.refused.lock().unwrap() = [other.clone()].into();
    let view = Recorder::new(Duration::from_millis(1), takes_all);
    let ports = RelayPorts { fleet: rows.clone(), ..store.ports() };
    let (running, cancel) = store.start_over(ports, vec![("view", view.clone())], &LaneSettings::default());
    store.push(store.commit(&root(1), 0));
    store.stream.push(&other, store.clock.now(), Change::Inserted(store.commit(&root(2), 0)));
    // The other shard is read meanwhile, and has no lag of its own.
    view.until(1, 20 * SECOND).await;
    sleep(60 * SECOND).await;
    assert_eq!((view.of(&root(1)).len(), view.of(&root(2)).len()), (1, 0));
    let lag = lag_secs(&store);
    assert!((50..=60).contains(&lag), "{lag}");

    rows.refused.lock().unwrap().clear();
    view.until(2, 20 * SECOND).await;
    let gone = async {
        while lag_secs(&store) > 0 {
            sleep(SECOND).await;
        }
    };
    assert!(timeout(20 * SECOND, gone).await.is_ok(), "{}", lag_secs(&store));
    cancel.cancel();
    running.await.unwrap();
}
