//! The relay's table in memory, for tests and simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{
    Checkpoint, CheckpointStore, HandlerRegistry, Life, Lives, LivesOfAll, RegisteredInterest, Registration, Start,
    Suspect,
};
use crate::backfill::{Job, JobStore, Scanned, Seen};
use crate::event::Timestamp;
use crate::fleet::{Fleet, Lease, LeaseKey, MemberId, Report};
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::stream::ShardId;

/// Checkpoints and registry in memory. Clones share the same rows, so they outlive a relay that stops.
#[derive(Debug, Clone, Default)]
pub struct MemoryRelayTable(Arc<Mutex<Rows>>);

#[derive(Debug, Default)]
pub(super) struct Rows {
    checkpoints: BTreeMap<HandlerName, BTreeMap<ShardId, Checkpoint>>,
    handlers: BTreeMap<HandlerName, Registration>,
    interests: BTreeMap<HandlerName, Vec<RegisteredInterest>>,
    paused: BTreeSet<HandlerName>,
    jobs: BTreeMap<HandlerName, Job>,
    progress: BTreeMap<HandlerName, BTreeMap<ShardId, Scanned>>,
    seen: BTreeMap<HandlerName, Seen>,
    needs: BTreeMap<HandlerName, String>,
    lives: BTreeMap<(MemberId, HandlerName), Life>,
    pub(super) fleet: Fleet,
    pub(super) reports: BTreeMap<MemberId, Report>,
    pub(super) leases: BTreeMap<LeaseKey, (Lease, Option<Checkpoint>)>,
}

impl MemoryRelayTable {
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Rows) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the members told with their last renewals.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        self.with(|rows| rows.reports.values().cloned().collect())
    }

    /// Pauses a handler, or lets it go on.
    pub fn set_paused(&self, handler: &HandlerName, paused: bool) {
        self.with(|rows| {
            if paused {
                rows.paused.insert(handler.clone());
            } else {
                rows.paused.remove(handler);
            }
        });
    }

    /// The checkpoints that were saved without a lease, as they stand: those of lanes that run for themselves.
    #[must_use]
    pub fn saved(&self, handler: &HandlerName) -> BTreeMap<ShardId, Checkpoint> {
        self.with(|rows| rows.checkpoints.get(handler).cloned().unwrap_or_default())
    }
}

#[async_trait]
impl CheckpointStore for MemoryRelayTable {
    async fn save(&self, handler: &HandlerName, shard: &ShardId, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        self.with(|rows| {
            rows.checkpoints.entry(handler.clone()).or_default().insert(shard.clone(), checkpoint.clone())
        });
        Ok(())
    }
}

#[async_trait]
impl HandlerRegistry for MemoryRelayTable {
    async fn register(
        &self,
        handler: &HandlerName,
        start: Start,
        now: Timestamp,
    ) -> Result<Registration, StorageError> {
        Ok(self.with(|rows| *rows.handlers.entry(handler.clone()).or_insert_with(|| start.registration(now))))
    }

    async fn interests(&self, handler: &HandlerName) -> Result<Option<Vec<RegisteredInterest>>, StorageError> {
        Ok(self.with(|rows| rows.interests.get(handler).cloned()))
    }

    async fn put_interests(&self, handler: &HandlerName, interests: &[RegisteredInterest]) -> Result<(), StorageError> {
        self.with(|rows| rows.interests.insert(handler.clone(), interests.to_vec()));
        Ok(())
    }

    async fn paused(&self) -> Result<BTreeSet<HandlerName>, StorageError> {
        Ok(self.with(|rows| rows.paused.clone()))
    }
}

#[async_trait]
impl JobStore for MemoryRelayTable {
    async fn job(&self, handler: &HandlerName) -> Result<Option<Job>, StorageError> {
        Ok(self.with(|rows| rows.jobs.get(handler).cloned()))
    }

    async fn put_job(&self, handler: &HandlerName, job: &Job) -> Result<(), StorageError> {
        self.with(|rows| rows.jobs.insert(handler.clone(), job.clone()));
        Ok(())
    }

    async fn progress(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Scanned>, StorageError> {
        Ok(self.with(|rows| rows.progress.get(handler).cloned().unwrap_or_default()))
    }

    async fn put_progress(
        &self,
        handler: &HandlerName,
        segment: &ShardId,
        scanned: &Scanned,
    ) -> Result<(), StorageError> {
        self.with(|rows| rows.progress.entry(handler.clone()).or_default().insert(segment.clone(), *scanned));
        Ok(())
    }

    async fn forget_progress(&self, handler: &HandlerName, segment: &ShardId) -> Result<(), StorageError> {
        self.with(|rows| rows.progress.entry(handler.clone()).or_default().remove(segment));
        Ok(())
    }

    async fn seen(&self, handler: &HandlerName) -> Result<Option<Seen>, StorageError> {
        Ok(self.with(|rows| rows.seen.get(handler).cloned()))
    }

    async fn put_seen(&self, handler: &HandlerName, seen: &Seen) -> Result<(), StorageError> {
        self.with(|rows| rows.seen.insert(handler.clone(), seen.clone()));
        Ok(())
    }

    async fn need(&self, handler: &HandlerName) -> Result<Option<String>, StorageError> {
        Ok(self.with(|rows| rows.needs.get(handler).cloned()))
    }

    async fn put_need(&self, handler: &HandlerName, reason: &str) -> Result<(), StorageError> {
        self.with(|rows| {
            rows.needs.insert(handler.clone(), reason.to_owned());
            rows.fleet.lineage += 1;
        });
        Ok(())
    }

    async fn forget_need(&self, handler: &HandlerName) -> Result<(), StorageError> {
        self.with(|rows| rows.needs.remove(handler));
        Ok(())
    }
}

/// One member's notes.
struct MemberLives {
    table: MemoryRelayTable,
    member: MemberId,
}

impl MemberLives {
    fn with(&self, handler: &HandlerName, act: impl FnOnce(&mut Life)) {
        let key = (self.member.clone(), handler.clone());
        self.table.with(|rows| act(rows.lives.entry(key).or_default()));
    }
}

#[async_trait]
impl LivesOfAll for MemoryRelayTable {
    fn notes_of(&self, member: &MemberId) -> Arc<dyn Lives> {
        Arc::new(MemberLives { table: self.clone(), member: member.clone() })
    }

    async fn members(&self, handler: &HandlerName) -> Result<Vec<MemberId>, StorageError> {
        Ok(self.with(|rows| {
            let of_handler = rows.lives.keys().filter(|(_, of)| of == handler);
            of_handler.map(|(member, _)| member.clone()).collect()
        }))
    }

    async fn of(&self, member: &MemberId, handler: &HandlerName) -> Result<Life, StorageError> {
        let key = (member.clone(), handler.clone());
        Ok(self.with(|rows| rows.lives.get(&key).cloned().unwrap_or_default()))
    }

    async fn forget(&self, member: &MemberId, handler: &HandlerName) -> Result<(), StorageError> {
        self.with(|rows| rows.lives.remove(&(member.clone(), handler.clone())));
        Ok(())
    }
}

#[async_trait]
impl Lives for MemberLives {
    async fn begin(&self, handler: &HandlerName) -> Result<(), StorageError> {
        self.with(handler, |life| life.unclean = true);
        Ok(())
    }

    async fn suspect(&self, handler: &HandlerName, suspect: &Suspect) -> Result<(), StorageError> {
        self.with(handler, |life| life.suspect = Some(suspect.clone()));
        Ok(())
    }

    async fn clear(&self, handler: &HandlerName) -> Result<(), StorageError> {
        self.with(handler, |life| life.suspect = None);
        Ok(())
    }

    async fn end(&self, handler: &HandlerName) -> Result<(), StorageError> {
        self.with(handler, |life| *life = Life::default());
        Ok(())
    }
}
