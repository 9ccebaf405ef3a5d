//! The end of a shard, and a crash at every step of it: no child is lost, none is stranded.
//!
//! A step is a call to the rows of the fleet, and a crash comes right before it or right after it was made. What was
//! accepted is durable in the relay's own time, so events may come again; none may be missing or out of order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use angzarr_relay::fleet::{
    Changed, Fleet, FleetStore, JoinError, Lease, LeaseKey, LeaseKind, Member, MemberId, Report, Taken, ViewAction,
};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::lane::LaneSettings;
use angzarr_relay::relay::RelayPorts;
use angzarr_relay::relay_table::{Checkpoint, MemoryRelayTable, Start};
use angzarr_relay::storage::StorageError;
use angzarr_relay::stream::{Change, ShardId};
use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::store::{Recorder, SECOND, Store, name, root, takes_all};

/// When the process ends: before the step, or when it was made and nobody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

/// The rows of the fleet, with an end after so many steps.
struct Ending {
    rows: MemoryRelayTable,
    /// Steps that are left; none is counted while it is negative.
    left: AtomicI64,
    moment: Moment,
    ended: Notify,
    /// What the last step was.
    step: Mutex<&'static str>,
}

impl Ending {
    async fn step<T>(&self, what: &'static str, call: impl Future<Output = T>) -> T {
        let ends = self.left.load(Ordering::Relaxed) >= 0 && self.left.fetch_sub(1, Ordering::Relaxed) == 0;
        if ends {
            *self.step.lock().unwrap() = what;
            if self.moment == Moment::After {
                call.await;
            }
            self.ended.notify_one();
            return std::future::pending().await;
        }
        call.await
    }
}

#[async_trait]
impl FleetStore for Ending {
    async fn check_schema(&self) -> Result<(), JoinError> {
        self.rows.check_schema().await
    }

    async fn join(&self, member: &Member) -> Result<(), StorageError> {
        self.rows.join(member).await
    }

    async fn renew(&self, member: &Member, report: &Report) -> Result<bool, StorageError> {
        self.rows.renew(member, report).await
    }

    async fn fleet(&self) -> Result<Fleet, StorageError> {
        self.step("fleet", self.rows.fleet()).await
    }

    async fn keep(&self, action: &ViewAction) -> Result<bool, StorageError> {
        self.step("keep", self.rows.keep(action)).await
    }

    async fn leave(&self, member: &MemberId) -> Result<(), StorageError> {
        self.rows.leave(member).await
    }

    async fn leases(&self, handler: &HandlerName) -> Result<Vec<Lease>, StorageError> {
        self.step("leases", self.rows.leases(handler)).await
    }

    async fn checkpoints(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Checkpoint>, StorageError> {
        self.step("checkpoints", FleetStore::checkpoints(&self.rows, handler)).await
    }

    async fn leases_of(&self, keys: &[LeaseKey]) -> Result<Vec<Lease>, StorageError> {
        self.step("leases_of", self.rows.leases_of(keys)).await
    }

    async fn add(&self, leases: &[Lease]) -> Result<(), StorageError> {
        self.step("add", self.rows.add(leases)).await
    }

    async fn change(&self, read: &Lease, changed: &Lease) -> Result<Option<Changed>, StorageError> {
        self.step("change", self.rows.change(read, changed)).await
    }

    async fn checkpoint(&self, key: &LeaseKey, taken: &Taken, to: &Checkpoint) -> Result<bool, StorageError> {
        self.step("checkpoint", self.rows.checkpoint(key, taken, to)).await
    }

    async fn finish(&self, key: &LeaseKey, taken: &Taken, children: &[Lease]) -> Result<bool, StorageError> {
        self.step("finish", self.rows.finish(key, taken, children)).await
    }

    async fn forget(&self, read: &Lease) -> Result<bool, StorageError> {
        self.step("forget", FleetStore::forget(&self.rows, read)).await
    }
}

const ROOTS: u64 = 6;

/// Events of each root in the parent, in each generation of children.
const EACH: u64 = 3;

/// Steps after which a shard and its children's first events are through, and more.
const STEPS_MAX: i64 = 60;

/// Ends a shard that splits, with the process ending so many steps later; which step that was, none when it had ended
/// before.
async fn ends_after(steps: i64, moment: Moment) -> Option<&'static str> {
    let store = Store { start: Start::Beginning, ..Store::new() };
    let (rows, left, ended) = (store.table.clone(), AtomicI64::new(-1), Notify::new());
    let ending = Arc::new(Ending { rows, left, moment, ended, step: Mutex::default() });
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
