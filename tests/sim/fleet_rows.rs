//! The rows of the fleet in memory, where a test ends the process after so many steps, or has the taking of a lease fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use angzarr_relay::fleet::{
    Changed, Fleet, FleetStore, JoinError, Lease, LeaseKey, Member, MemberId, Report, Taken, ViewAction,
};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::relay_table::{Checkpoint, MemoryRelayTable};
use angzarr_relay::storage::StorageError;
use angzarr_relay::stream::ShardId;
use async_trait::async_trait;
use tokio::sync::Notify;

/// When the process ends: before the step, or when it was made and nobody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

/// The rows of the fleet, with an end after so many steps.
pub(crate) struct FleetRows {
    pub(crate) rows: MemoryRelayTable,
    /// Steps that are left; none is counted while it is negative.
    pub(crate) left: AtomicI64,
    pub(crate) moment: Moment,
    pub(crate) ended: Notify,
    /// What the last step was.
    pub(crate) step: Mutex<&'static str>,
    /// Shards whose leases nobody can take.
    pub(crate) refused: Mutex<BTreeSet<ShardId>>,
    /// What the last write was that was refused so, of each lease: what was read, and what it was to be.
    pub(crate) unanswered: Mutex<BTreeMap<LeaseKey, (Lease, Lease)>>,
    /// Leases that were read since the members were.
    pub(crate) unjudged: Mutex<BTreeSet<LeaseKey>>,
    /// Leases that were taken, and those of them that were read later than the members their owner was judged by.
    pub(crate) taken: Mutex<(Vec<LeaseKey>, Vec<LeaseKey>)>,
}

impl FleetRows {
    /// Rows that end nothing and refuse nothing.
    pub(crate) fn new(rows: MemoryRelayTable) -> Self {
        let (left, moment, ended) = (AtomicI64::new(-1), Moment::Before, Notify::new());
        let (step, refused, unanswered, unjudged, taken) = Default::default();
        Self { rows, left, moment, ended, step, refused, unanswered, unjudged, taken }
    }

    /// Notes that these leases were read, of one owner or another.
    fn note_read(&self, leases: &[Lease]) {
        self.unjudged.lock().unwrap().extend(leases.iter().map(Lease::key));
    }

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
impl FleetStore for FleetRows {
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
        self.unjudged.lock().unwrap().clear();
        self.step("fleet", self.rows.fleet()).await
    }

    async fn keep(&self, action: &ViewAction) -> Result<bool, StorageError> {
        self.step("keep", self.rows.keep(action)).await
    }

    async fn leave(&self, member: &MemberId) -> Result<(), StorageError> {
        self.rows.leave(member).await
    }

    async fn leases(&self, handler: &HandlerName) -> Result<Vec<Lease>, StorageError> {
        let read = self.step("leases", self.rows.leases(handler)).await?;
        self.note_read(&read);
        Ok(read)
    }

    async fn checkpoints(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Checkpoint>, StorageError> {
        self.step("checkpoints", FleetStore::checkpoints(&self.rows, handler)).await
    }

    async fn leases_of(&self, keys: &[LeaseKey]) -> Result<Vec<Lease>, StorageError> {
        let read = self.step("leases_of", self.rows.leases_of(keys)).await?;
        self.note_read(&read);
        Ok(read)
    }

    async fn add(&self, leases: &[Lease]) -> Result<(), StorageError> {
        self.step("add", self.rows.add(leases)).await
    }

    async fn change(&self, read: &Lease, changed: &Lease) -> Result<Option<Changed>, StorageError> {
        if changed.owner.is_some() && self.refused.lock().unwrap().contains(&read.shard) {
            self.unanswered.lock().unwrap().insert(read.key(), (read.clone(), changed.clone()));
            let (operation, table, source) = ("UpdateItem", "simulated".into(), "refused".into());
            return Err(StorageError::Unavailable { operation, table, source });
        }
        if changed.owner.is_some() && changed.owner != read.owner {
            let is_unjudged = self.unjudged.lock().unwrap().contains(&read.key());
            let mut taken = self.taken.lock().unwrap();
            taken.0.push(read.key());
            taken.1.extend(is_unjudged.then(|| read.key()));
        }
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
