//! Where lanes write their checkpoints: on their leases, under the epoch by which they hold them.
//!
//! At the end of a shard its children are looked for first, so that their leases and the end are one transaction.
//! Invariant: nothing is written for a lease that this replica does not hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::held::HeldLeases;
use super::listing::Listing;
use crate::backfill::Segment;
use crate::fleet::{FleetStore, Lease, LeaseKey, LeaseKind};
use crate::handler::HandlerName;
use crate::relay_table::{Checkpoint, CheckpointStore};
use crate::storage::StorageError;
use crate::stream::{Branch, Shard, ShardId};

/// Ended shards whose children are remembered: each handler asks for them when it has finished.
const REMEMBERED_MAX: usize = 1000;

/// The checkpoints of this incarnation's lanes.
#[derive(Clone)]
pub(super) struct LaneCheckpoints {
    pub(super) store: Arc<dyn FleetStore>,
    pub(super) held: HeldLeases,
    pub(super) listing: Listing,
    children: Arc<Mutex<BTreeMap<ShardId, Vec<Shard>>>>,
}

impl LaneCheckpoints {
    pub(super) fn new(store: Arc<dyn FleetStore>, held: HeldLeases, listing: Listing) -> Self {
        Self { store, held, listing, children: Arc::default() }
    }

    /// Finishes a shard; what it says when the answer to an earlier attempt was lost is right, too.
    async fn finish(&self, key: &LeaseKey) -> Result<bool, StorageError> {
        let Some(taken) = self.held.get(key) else { return Ok(false) };
        let Some(lease) = self.store.leases_of(std::slice::from_ref(key)).await?.into_iter().next() else {
            return Ok(false);
        };
        if lease.finished {
            self.held.let_go(key);
            return Ok(true);
        }
        let children = if lease.kind == LeaseKind::Shard { self.children(&key.shard).await } else { Vec::new() };
        let children: Vec<Lease> = child_leases(&lease, &children);
        let finished = self.store.finish(key, &taken, &children).await? || self.is_finished(key).await?;
        if finished {
            self.held.let_go(key);
        }
        Ok(finished)
    }

    async fn is_finished(&self, key: &LeaseKey) -> Result<bool, StorageError> {
        Ok(self.store.leases_of(std::slice::from_ref(key)).await?.iter().any(|lease| lease.finished))
    }

    /// The children of a shard that has ended; none when they are not listed in time: then the comparison finds them.
    async fn children(&self, parent: &ShardId) -> Vec<Shard> {
        if let Some(known) = self.remembered(|children| children.get(parent).cloned()) {
            return known;
        }
        let children = self.listing.children(parent).await;
        if !children.is_empty() {
            self.remembered(|known| {
                while known.len() >= REMEMBERED_MAX {
                    known.pop_first();
                }
                known.insert(parent.clone(), children.clone());
            });
        }
        children
    }

    fn remembered<T>(&self, act: impl FnOnce(&mut BTreeMap<ShardId, Vec<Shard>>) -> T) -> T {
        act(&mut self.children.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The leases of a shard's children: the first goes on with its branch.
fn child_leases(parent: &Lease, children: &[Shard]) -> Vec<Lease> {
    let lease = |(index, child): (usize, &Shard)| {
        let branch = if index == 0 { parent.branch.clone() } else { Branch::of(&child.id) };
        Lease::new(parent.handler.clone(), child.id.clone(), LeaseKind::Shard, branch, child.parent.clone())
    };
    children.iter().enumerate().map(lease).collect()
}

#[async_trait]
impl CheckpointStore for LaneCheckpoints {
    async fn save(&self, handler: &HandlerName, shard: &ShardId, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        let key = LeaseKey { handler: handler.clone(), shard: shard.clone() };
        let saved = match (checkpoint, self.held.get(&key)) {
            (_, None) => false,
            (Checkpoint::Finished, Some(_)) => self.finish(&key).await?,
            (Checkpoint::At(_), Some(taken)) => self.store.checkpoint(&key, &taken, checkpoint).await?,
        };
        if saved {
            return Ok(());
        }
        let what = if Segment::of_shard(shard).is_some() { "segment" } else { "shard" };
        Err(StorageError::Invalid { reason: format!("the lease of the {what} {shard} is not held any more") })
    }
}
