//! Everything that this replica holds: the owner and epoch of each lease, and its lane.
//!
//! Shared by whoever takes and closes leases, opens lanes and writes checkpoints. Invariant: an order to close reaches the
//! lane whatever the keeper of the shards waits for, and no lane is opened on a lease that is to be closed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::fleet::{Epoch, LeaseKey, Taken};
use crate::lane::LaneOrder;
use crate::stream::LaneId;

/// Everything held: its owner and epoch, for whoever writes checkpoints; and its lane, so that a closing reaches it whatever
/// else is waited for.
#[derive(Debug, Clone, Default)]
pub(super) struct HeldLeases(Arc<Mutex<BTreeMap<LeaseKey, Holds>>>);

#[derive(Debug)]
struct Holds {
    taken: Taken,
    lane: Option<(LaneId, mpsc::Sender<LaneOrder>)>,
    closes_by: Option<Instant>,
}

impl HeldLeases {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<LeaseKey, Holds>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn get(&self, key: &LeaseKey) -> Option<Taken> {
        self.with(|held| held.get(key).map(|holds| holds.taken.clone()))
    }

    pub(super) fn hold(&self, key: LeaseKey, taken: Taken) {
        self.with(|held| held.insert(key, Holds { taken, lane: None, closes_by: None }));
    }

    /// Whether a lane may be opened on it: it is held since this epoch, and not to be closed.
    pub(super) fn may_open(&self, key: &LeaseKey, epoch: Epoch) -> bool {
        self.with(|held| held.get(key).is_some_and(|holds| holds.taken.epoch == epoch && holds.closes_by.is_none()))
    }

    /// The opening of a lane on it was ordered; by when it is to be closed, if that was ordered in between: the lane has
    /// not heard of it.
    pub(super) fn opened(
        &self,
        key: &LeaseKey,
        epoch: Epoch,
        lane: LaneId,
        orders: &mpsc::Sender<LaneOrder>,
    ) -> Option<Instant> {
        self.with(|held| {
            let Some(holds) = held.get_mut(key).filter(|holds| holds.taken.epoch == epoch) else {
                // It was lost in between.
                return Some(Instant::now());
            };
            holds.lane = Some((lane, orders.clone()));
            holds.closes_by
        })
    }

    /// From now on no lane is opened on it, and the one that is ends by then; true when it was told.
    pub(super) fn close(&self, key: &LeaseKey, epoch: Epoch, deadline: Instant) -> bool {
        self.with(|held| {
            let Some(holds) = held.get_mut(key).filter(|holds| holds.taken.epoch == epoch) else { return false };
            holds.closes_by = Some(deadline);
            let lane = holds.lane.as_ref();
            lane.is_some_and(|(lane, orders)| orders.try_send(LaneOrder::Close(*lane, deadline)).is_ok())
        })
    }

    /// It is not held any more, or finished; false when that was known.
    pub(super) fn let_go(&self, key: &LeaseKey) -> bool {
        self.with(|held| held.remove(key).is_some())
    }
}
