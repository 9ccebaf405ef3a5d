//! The relay's table with faults, as leases and lives go through it: late, refused, or done with the answer lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use angzarr_relay::fleet::{
    Changed, Fleet, FleetStore, JoinError, Lease, LeaseKey, Member, MemberId, Report, Taken, ViewAction,
};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::relay_table::{Checkpoint, Life, Lives, LivesOfAll, Suspect};
use angzarr_relay::storage::StorageError;
use angzarr_relay::stream::ShardId;
use async_trait::async_trait;

use crate::faults::Faulty;

impl Faulty {
    /// Makes a call: it may fail before it is made, or its answer be lost.
    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        self.latency().await;
        if self.strikes() {
            return Err(self.unavailable(operation));
        }
        let answer = call.await?;
        if self.strikes() {
            return Err(self.unavailable(operation));
        }
        Ok(answer)
    }
}

#[async_trait]
impl FleetStore for Faulty {
    async fn check_schema(&self) -> Result<(), JoinError> {
        self.call("PutItem", async { Ok(()) }).await.map_err(JoinError::Storage)
    }

    async fn join(&self, member: &Member) -> Result<(), StorageError> {
        self.latency().await;
        if self.strikes() {
            return Err(self.unavailable("PutItem"));
        }
        self.world.table.join(member).await
    }

    async fn renew(&self, member: &Member, report: &Report) -> Result<bool, StorageError> {
        self.call("UpdateItem", self.world.table.renew(member, report)).await
    }

    async fn fleet(&self) -> Result<Fleet, StorageError> {
        self.call("Query", self.world.table.fleet()).await
    }

    async fn keep(&self, action: &ViewAction) -> Result<bool, StorageError> {
        self.world.note(&format!("{action:?}"));
        self.call("UpdateItem", self.world.table.keep(action)).await
    }

    async fn leave(&self, member: &MemberId) -> Result<(), StorageError> {
        self.call("DeleteItem", self.world.table.leave(member)).await
    }

    async fn leases(&self, handler: &HandlerName) -> Result<Vec<Lease>, StorageError> {
        self.call("Query", self.world.table.leases(handler)).await
    }

    async fn checkpoints(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Checkpoint>, StorageError> {
        self.call("Query", FleetStore::checkpoints(&self.world.table, handler)).await
    }

    async fn leases_of(&self, keys: &[LeaseKey]) -> Result<Vec<Lease>, StorageError> {
        self.call("BatchGetItem", self.world.table.leases_of(keys)).await
    }

    async fn add(&self, leases: &[Lease]) -> Result<(), StorageError> {
        self.call("TransactWriteItems", self.world.table.add(leases)).await
    }

    async fn change(&self, read: &Lease, changed: &Lease) -> Result<Option<Changed>, StorageError> {
        self.call("UpdateItem", self.world.table.change(read, changed)).await
    }

    async fn checkpoint(&self, key: &LeaseKey, taken: &Taken, to: &Checkpoint) -> Result<bool, StorageError> {
        let through = match to {
            Checkpoint::At(sequence) => {
                let row = sequence.row().map(|(rows, _, _)| rows);
                Some(row.unwrap_or_else(|| sequence.to_string().parse().unwrap()))
            }
            Checkpoint::Finished => None,
        };
        let (handler, shard) = (&key.handler, key.shard.as_str());
        self.world.note(&format!("checkpoint {handler} {shard} {to:?}"));
        self.world.check(|checker| checker.checkpoint(handler, shard, through));
        self.call("UpdateItem", self.world.table.checkpoint(key, taken, to)).await
    }

    async fn finish(&self, key: &LeaseKey, taken: &Taken, children: &[Lease]) -> Result<bool, StorageError> {
        let (handler, shard) = (&key.handler, key.shard.as_str());
        self.world.note(&format!("finish {handler} {shard}, {} children", children.len()));
        self.world.check(|checker| checker.checkpoint(handler, shard, None));
        self.call("TransactWriteItems", self.world.table.finish(key, taken, children)).await
    }

    async fn forget(&self, read: &Lease) -> Result<bool, StorageError> {
        self.call("DeleteItem", FleetStore::forget(&self.world.table, read)).await
    }
}

/// One member's notes, with faults.
struct FaultyLives {
    faulty: Faulty,
    lives: Arc<dyn Lives>,
}

#[async_trait]
impl LivesOfAll for Faulty {
    fn notes_of(&self, member: &MemberId) -> Arc<dyn Lives> {
        Arc::new(FaultyLives { faulty: self.again(), lives: self.world.table.notes_of(member) })
    }

    async fn members(&self, handler: &HandlerName) -> Result<Vec<MemberId>, StorageError> {
        self.call("Query", LivesOfAll::members(&self.world.table, handler)).await
    }

    async fn of(&self, member: &MemberId, handler: &HandlerName) -> Result<Life, StorageError> {
        self.call("GetItem", self.world.table.of(member, handler)).await
    }

    async fn forget(&self, member: &MemberId, handler: &HandlerName) -> Result<(), StorageError> {
        self.call("DeleteItem", LivesOfAll::forget(&self.world.table, member, handler)).await
    }
}

#[async_trait]
impl Lives for FaultyLives {
    async fn begin(&self, handler: &HandlerName) -> Result<(), StorageError> {
        self.faulty.call("UpdateItem", self.lives.begin(handler)).await
    }

    async fn suspect(&self, handler: &HandlerName, suspect: &Suspect) -> Result<(), StorageError> {
        self.faulty.world.happened("event given alone");
        self.faulty.call("UpdateItem", self.lives.suspect(handler, suspect)).await
    }

    async fn clear(&self, handler: &HandlerName) -> Result<(), StorageError> {
        self.lives.clear(handler).await
    }

    async fn end(&self, handler: &HandlerName) -> Result<(), StorageError> {
        self.lives.end(handler).await
    }
}
