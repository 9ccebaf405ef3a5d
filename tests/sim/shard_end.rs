//! The end of a shard, and a crash at every step of it: no child is lost, none is stranded.
//!
//! A step is a call to the rows of the fleet, and a crash comes right before it or right after it was made. What was
//! accepted is durable in the relay's own time, so events may come again; none may be missing or out of order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use angzarr_relay::fleet::{FleetStore, Lease, LeaseKind};
use angzarr_relay::lane::LaneSettings;
use angzarr_relay::relay::RelayPorts;
use angzarr_relay::relay_table::Start;
use angzarr_relay::stream::{Change, ShardId};
use tokio::time::{sleep, timeout};

use crate::fleet_rows::{FleetRows, Moment};
use crate::store::{Recorder, SECOND, Store, name, root, takes_all};

const ROOTS: u64 = 6;

/// Events of each root in the parent, in each generation of children.
const EACH: u64 = 3;

/// Steps after which a shard and its children's first events are through, and more.
const STEPS_MAX: i64 = 60;

/// Ends a shard that splits, with the process ending so many steps later; which step that was, none when it had ended
/// before.
async fn ends_after(steps: i64, moment: Moment) -> Option<&'static str> {
    let store = Store { start: Start::Beginning, ..Store::new() };
    let ending = Arc::new(FleetRows { moment, ..FleetRows::new(store.table.clone()) });
    let view = Recorder::new(Duration::from_millis(5), takes_all);
    let settings = LaneSettings { checkpoint_interval: SECOND, ..LaneSettings::default() };
    let ports = RelayPorts { fleet: ending.clone(), ..store.ports() };
    let (running, _cancel) = store.start_over(ports, vec![("view", view.clone())], &settings);
    for sequence in 0..EACH {
        (0..ROOTS).for_each(|number| store.push(store.commit(&root(number), sequence)));
    }
    view.until(usize::try_from(ROOTS * EACH).unwrap(), 60 * SECOND).await;

    ending.left.store(steps, Ordering::Relaxed);
    let children = store.stream.close_shard(&store.shard, 2);
    for sequence in EACH..2 * EACH {
        for number in 0..ROOTS {
            let event = store.commit(&root(number), sequence);
            let shard = &children[usize::try_from(number % 2).unwrap()];
            store.stream.push(shard, store.clock.now(), Change::Inserted(event));
        }
    }
    let struck = timeout(120 * SECOND, ending.ended.notified()).await.is_ok();
    running.abort();
    running.await.unwrap_err();

    // Whoever comes next finds everything.
    let (running, cancel) = store.start(&[("view", view.clone())], 8);
    let complete = || (0..ROOTS).all(|number| view.of(&root(number)).contains(&(2 * EACH - 1)));
    let step = *ending.step.lock().unwrap();
    let all = async {
        while !complete() {
            sleep(SECOND / 10).await;
        }
    };
    assert!(timeout(300 * SECOND, all).await.is_ok(), "{moment:?} step {steps} ({step}): not everything was delivered");
    let reads_on = || async {
        let leases = FleetStore::leases(&store.table, &name("view")).await.unwrap();
        let of = |shard: &ShardId| leases.iter().find(|lease| lease.shard == *shard && lease.kind == LeaseKind::Shard);
        let is_read = |lease: Option<&Lease>| lease.is_some_and(|lease| lease.owner.is_some() && !lease.finished);
        of(&store.shard).is_some_and(|lease| lease.finished) && children.iter().all(|child| is_read(of(child)))
    };
    let settled = async {
        while !reads_on().await {
            sleep(SECOND / 10).await;
        }
    };
    assert!(timeout(120 * SECOND, settled).await.is_ok(), "{moment:?} step {steps} ({step}): a child is not read");
    cancel.cancel();
    running.await.unwrap();
    for number in 0..ROOTS {
        let mut first: Vec<u64> = Vec::new();
        for sequence in view.of(&root(number)) {
            if !first.contains(&sequence) {
                first.push(sequence);
            }
        }
        assert_eq!(first, (0..2 * EACH).collect::<Vec<_>>(), "{moment:?} step {steps} ({step}): r{number}");
    }
    struck.then_some(step)
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_of_a_shards_end_loses_and_strands_no_child() {
    let mut met: BTreeMap<&'static str, u32> = BTreeMap::new();
    for moment in [Moment::Before, Moment::After] {
        for steps in 0..STEPS_MAX {
            if let Some(step) = ends_after(steps, moment).await {
                *met.entry(step).or_default() += 1;
            }
        }
    }
    // What the end of a shard is made of was struck: else this shows nothing.
    for step in ["finish", "change", "leases", "fleet", "leases_of"] {
        assert!(met.get(step).is_some_and(|times| *times >= 2), "{step} was not struck: {met:?}");
    }
}
