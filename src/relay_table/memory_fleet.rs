//! The fleet's rows in memory, for tests and simulation: the same conditions as on DynamoDB.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use async_trait::async_trait;

use super::memory::Rows;
use super::{Checkpoint, MemoryRelayTable};
use crate::fleet::{
    Changed, Fleet, FleetStore, JoinError, Lease, LeaseKey, Member, MemberId, Report, Taken, ViewAction,
};
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::stream::ShardId;

impl Rows {
    fn member(&mut self, id: &MemberId) -> Option<&mut Member> {
        self.fleet.members.iter_mut().find(|member| member.id == *id)
    }

    /// A lease, if its owner and epoch are those that were read.
    fn as_read(&mut self, read: &Lease) -> Option<&mut (Lease, Option<Checkpoint>)> {
        let unchanged = |row: &&mut (Lease, _)| row.0.owner == read.owner && row.0.epoch == read.epoch;
        self.leases.get_mut(&read.key()).filter(unchanged)
    }

    fn held(&mut self, key: &LeaseKey, taken: &Taken) -> Option<&mut (Lease, Option<Checkpoint>)> {
        self.leases.get_mut(key).filter(|(lease, _)| lease.is_held(taken))
    }

    fn add_lease(&mut self, lease: &Lease) {
        if let Entry::Vacant(vacant) = self.leases.entry(lease.key()) {
            vacant.insert((lease.clone(), None));
        }
    }
}

#[async_trait]
impl FleetStore for MemoryRelayTable {
    async fn check_schema(&self) -> Result<(), JoinError> {
        Ok(())
    }

    async fn join(&self, member: &Member) -> Result<(), StorageError> {
        self.with(|rows| {
            if rows.member(&member.id).is_none() {
                rows.fleet.members.push(member.clone());
            }
        });
        Ok(())
    }

    async fn renew(&self, member: &Member, report: &Report) -> Result<bool, StorageError> {
        Ok(self.with(|rows| {
            let Some(row) = rows.member(&member.id).filter(|row| !row.dead) else { return false };
            (row.counter, row.view, row.leaving) = (row.counter + 1, member.view, member.leaving);
            rows.reports.insert(member.id.clone(), report.clone());
            true
        }))
    }

    async fn fleet(&self) -> Result<Fleet, StorageError> {
        Ok(self.with(|rows| rows.fleet.clone()))
    }

    async fn keep(&self, action: &ViewAction) -> Result<bool, StorageError> {
        Ok(self.with(|rows| match action {
            ViewAction::DeclareDead(id, counter) => {
                let row = rows.member(id).filter(|row| row.counter == *counter);
                row.map(|row| row.dead = true).is_some()
            }
            ViewAction::Put(view) => {
                let follows = view.version == rows.fleet.view.version + 1;
                if follows {
                    rows.fleet.view = view.clone();
                }
                follows
            }
            ViewAction::Remove(id) => {
                let before = rows.fleet.members.len();
                rows.fleet.members.retain(|row| row.id != *id || !row.dead);
                rows.fleet.members.len() < before
            }
        }))
    }

    async fn leave(&self, member: &MemberId) -> Result<(), StorageError> {
        self.with(|rows| rows.fleet.members.retain(|row| row.id != *member));
        Ok(())
    }

    async fn leases(&self, handler: &HandlerName) -> Result<Vec<Lease>, StorageError> {
        let of_handler = |(lease, _): &&(Lease, _)| lease.handler == *handler;
        Ok(self.with(|rows| rows.leases.values().filter(of_handler).map(|(lease, _)| lease.clone()).collect()))
    }

    async fn checkpoints(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Checkpoint>, StorageError> {
        Ok(self.with(|rows| {
            let of_handler = rows.leases.values().filter(|(lease, _)| lease.handler == *handler);
            of_handler.filter_map(|(lease, at)| Some((lease.shard.clone(), at.clone()?))).collect()
        }))
    }

    async fn leases_of(&self, keys: &[LeaseKey]) -> Result<Vec<Lease>, StorageError> {
        Ok(self.with(|rows| keys.iter().filter_map(|key| Some(rows.leases.get(key)?.0.clone())).collect()))
    }

    async fn add(&self, leases: &[Lease]) -> Result<(), StorageError> {
        self.with(|rows| {
            for lease in leases {
                rows.add_lease(lease);
            }
            rows.fleet.lineage += 1;
        });
        Ok(())
    }

    async fn change(&self, read: &Lease, changed: &Lease) -> Result<Option<Changed>, StorageError> {
        Ok(self.with(|rows| {
            let (lease, checkpoint) = rows.as_read(read)?;
            (lease.owner, lease.epoch) = (changed.owner.clone(), changed.epoch);
            (lease.announced, lease.clean) = (changed.announced, changed.clean);
            Some(Changed { checkpoint: checkpoint.clone() })
        }))
    }

    async fn checkpoint(&self, key: &LeaseKey, taken: &Taken, to: &Checkpoint) -> Result<bool, StorageError> {
        Ok(self.with(|rows| rows.held(key, taken).map(|(_, checkpoint)| *checkpoint = Some(to.clone())).is_some()))
    }

    async fn finish(&self, key: &LeaseKey, taken: &Taken, children: &[Lease]) -> Result<bool, StorageError> {
        Ok(self.with(|rows| {
            let Some((lease, checkpoint)) = rows.held(key, taken) else { return false };
            (lease.finished, lease.clean, lease.owner, lease.announced) = (true, true, None, false);
            *checkpoint = Some(Checkpoint::Finished);
            for child in children {
                rows.add_lease(child);
                if let Some((lease, _)) = rows.leases.get_mut(&child.key()) {
                    lease.branch = child.branch.clone();
                }
            }
            rows.fleet.lineage += 1;
            true
        }))
    }

    async fn forget(&self, read: &Lease) -> Result<bool, StorageError> {
        Ok(self.with(|rows| {
            let is_as_read = rows.as_read(read).is_some();
            if is_as_read {
                rows.leases.remove(&read.key());
            }
            is_as_read
        }))
    }
}
