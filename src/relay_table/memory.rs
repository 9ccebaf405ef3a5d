//! The relay's table in memory, for tests and simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Checkpoint, CheckpointStore, HandlerRegistry, Registration, Start};
use crate::event::Timestamp;
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::stream::ShardId;

/// Checkpoints and registry in memory. Clones share the same rows, so they outlive a relay that stops.
#[derive(Debug, Clone, Default)]
pub struct MemoryRelayTable(Arc<Mutex<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    checkpoints: BTreeMap<HandlerName, BTreeMap<ShardId, Checkpoint>>,
    handlers: BTreeMap<HandlerName, Registration>,
    paused: BTreeSet<HandlerName>,
}

impl MemoryRelayTable {
    fn with<T>(&self, act: impl FnOnce(&mut Rows) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The checkpoints of a handler, as they stand.
    #[must_use]
    pub fn checkpoints(&self, handler: &HandlerName) -> BTreeMap<ShardId, Checkpoint> {
        self.with(|rows| rows.checkpoints.get(handler).cloned().unwrap_or_default())
    }
}

#[async_trait]
impl CheckpointStore for MemoryRelayTable {
    async fn load(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Checkpoint>, StorageError> {
        Ok(self.checkpoints(handler))
    }

    async fn save(&self, handler: &HandlerName, shard: &ShardId, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        self.with(|rows| {
            rows.checkpoints.entry(handler.clone()).or_default().insert(shard.clone(), checkpoint.clone())
        });
        Ok(())
    }

    async fn forget(&self, handler: &HandlerName, shard: &ShardId) -> Result<(), StorageError> {
        self.with(|rows| rows.checkpoints.entry(handler.clone()).or_default().remove(shard));
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

    async fn paused(&self) -> Result<BTreeSet<HandlerName>, StorageError> {
        Ok(self.with(|rows| rows.paused.clone()))
    }
}
