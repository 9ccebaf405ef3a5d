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

use crate::faulty::Faulty;

#[async_trait]
impl FleetStore for Faulty {
    async fn check_schema(&self) -> Result<(), JoinError> {
        self.read("PutItem", async { Ok(()) }).await.map_err(JoinError::Storage)
    }

    async fn join(&self, member: &Member) -> Result<(), StorageError> {
        let (table, member) = (self.world.table.clone(), member.clone());
        self.write("PutItem", async move { table.join(&member).await }).await
    }

    async fn renew(&self, member: &Member, report: &Report) -> Result<bool, StorageError> {
        let (table, member, report) = (self.world.table.clone(), member.clone(), report.clone());
        self.write("UpdateItem", async move { table.renew(&member, &report).await }).await
    }

    async fn fleet(&self) -> Result<Fleet, StorageError> {
        self.read("Query", self.world.table.fleet()).await
    }

    async fn keep(&self, action: &ViewAction) -> Result<bool, StorageError> {
        let (world, action) = (self.world.clone(), action.clone());
        self.write("UpdateItem", async move {
            world.note(&format!("{action:?}"));
            world.table.keep(&action).await
        })
        .await
    }

    async fn leave(&self, member: &MemberId) -> Result<(), StorageError> {
        let (table, member) = (self.world.table.clone(), member.clone());
        self.write("DeleteItem", async move { table.leave(&member).await }).await
    }

    async fn leases(&self, handler: &HandlerName) -> Result<Vec<Lease>, StorageError> {
        self.read("Query", self.world.table.leases(handler)).await
    }

    async fn checkpoints(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Checkpoint>, StorageError> {
        self.read("Query", FleetStore::checkpoints(&self.world.table, handler)).await
    }

    async fn leases_of(&self, keys: &[LeaseKey]) -> Result<Vec<Lease>, StorageError> {
        self.read("BatchGetItem", self.world.table.leases_of(keys)).await
    }

    async fn add(&self, leases: &[Lease]) -> Result<(), StorageError> {
        let (table, leases) = (self.world.table.clone(), leases.to_vec());
        self.write("TransactWriteItems", async move { table.add(&leases).await }).await
    }

    async fn change(&self, read: &Lease, changed: &Lease) -> Result<Option<Changed>, StorageError> {
        let (world, read, changed) = (self.world.clone(), read.clone(), changed.clone());
        self.write("UpdateItem", async move {
            let answer = world.table.change(&read, &changed).await?;
            if answer.is_some() && changed.owner.is_some() && changed.owner != read.owner && changed.epoch <= read.epoch
            {
                let what = format!("{:?} took {} {} without a new epoch", changed.owner, read.handler, read.shard);
                world.check(|checker| checker.violate("8", &what));
            }
            if answer.is_some() && changed.owner != read.owner {
                world.note(&format!(
                    "lease {} {}: {:?}, before {:?}",
                    read.handler, read.shard, changed.owner, read.owner
                ));
            }
            Ok(answer)
        })
        .await
    }

    async fn checkpoint(&self, key: &LeaseKey, taken: &Taken, to: &Checkpoint) -> Result<bool, StorageError> {
        let through = match to {
            Checkpoint::At(sequence) => {
                let row = sequence.row().map(|(rows, _, _)| rows);
                Some(row.unwrap_or_else(|| sequence.to_string().parse().unwrap()))
            }
            Checkpoint::Finished => None,
        };
        let (world, key, taken, to) = (self.world.clone(), key.clone(), taken.clone(), to.clone());
        let replica = self.name.clone();
        self.write("UpdateItem", async move {
            let done = world.table.checkpoint(&key, &taken, &to).await?;
            if done {
                world.note(&format!("checkpoint {} {} {to:?}", key.handler, key.shard));
                world.check(|checker| checker.checkpoint(&key.handler, &replica, key.shard.as_str(), through));
            }
            Ok(done)
        })
        .await
    }

    async fn finish(&self, key: &LeaseKey, taken: &Taken, children: &[Lease]) -> Result<bool, StorageError> {
        let (world, key, taken) = (self.world.clone(), key.clone(), taken.clone());
        let (replica, children) = (self.name.clone(), children.to_vec());
        self.write("TransactWriteItems", async move {
            let done = world.table.finish(&key, &taken, &children).await?;
            if done {
                world.note(&format!("finish {} {}, {} children", key.handler, key.shard, children.len()));
                world.check(|checker| checker.checkpoint(&key.handler, &replica, key.shard.as_str(), None));
            }
            Ok(done)
        })
        .await
    }

    async fn forget(&self, read: &Lease) -> Result<bool, StorageError> {
        let (table, read) = (self.world.table.clone(), read.clone());
        self.write("DeleteItem", async move { FleetStore::forget(&table, &read).await }).await
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
        self.read("Query", LivesOfAll::members(&self.world.table, handler)).await
    }

    async fn of(&self, member: &MemberId, handler: &HandlerName) -> Result<Life, StorageError> {
        self.read("GetItem", self.world.table.of(member, handler)).await
    }

    async fn forget(&self, member: &MemberId, handler: &HandlerName) -> Result<(), StorageError> {
        let (table, member, handler) = (self.world.table.clone(), member.clone(), handler.clone());
        self.write("DeleteItem", async move { LivesOfAll::forget(&table, &member, &handler).await }).await
    }
}

#[async_trait]
impl Lives for FaultyLives {
    async fn begin(&self, handler: &HandlerName) -> Result<(), StorageError> {
        let (lives, handler) = (self.lives.clone(), handler.clone());
        self.faulty.write("UpdateItem", async move { lives.begin(&handler).await }).await
    }

    async fn suspect(&self, handler: &HandlerName, suspect: &Suspect) -> Result<(), StorageError> {
        self.faulty.world.happened("event given alone");
        let (lives, handler, suspect) = (self.lives.clone(), handler.clone(), suspect.clone());
        self.faulty.write("UpdateItem", async move { lives.suspect(&handler, &suspect).await }).await
    }

    async fn clear(&self, handler: &HandlerName) -> Result<(), StorageError> {
        let (lives, handler) = (self.lives.clone(), handler.clone());
        self.faulty.write("UpdateItem", async move { lives.clear(&handler).await }).await
    }

    async fn end(&self, handler: &HandlerName) -> Result<(), StorageError> {
        let (lives, handler) = (self.lives.clone(), handler.clone());
        self.faulty.write("UpdateItem", async move { lives.end(&handler).await }).await
    }
}
