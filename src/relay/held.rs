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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::HandlerName;
    use crate::stream::ShardId;
    use std::time::Duration;

    const EPOCH: Epoch = Epoch(3);

    /// A lease that is held, without a lane.
    fn held() -> (HeldLeases, LeaseKey) {
        let key = LeaseKey { handler: HandlerName::new("view").unwrap(), shard: ShardId::new("shard") };
        let held = HeldLeases::default();
        held.hold(key.clone(), Taken { owner: "one~1".into(), epoch: EPOCH });
        (held, key)
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_to_close_goes_to_the_lane_itself() {
        let (held, key) = held();
        let (orders, mut ordered) = mpsc::channel(1);
        assert!(held.may_open(&key, EPOCH));
        assert_eq!(held.opened(&key, EPOCH, LaneId(7), &orders), None);
        let by = Instant::now() + Duration::from_secs(5);
        assert!(held.close(&key, EPOCH, by));
        assert!(matches!(ordered.try_recv(), Ok(LaneOrder::Close(LaneId(7), at)) if at == by));
        assert!(!held.may_open(&key, EPOCH));
        // No room for another: whoever orders it is told that the lane does not know.
        orders.try_send(LaneOrder::Resume).unwrap();
        assert!(!held.close(&key, EPOCH, by));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_is_being_opened_hears_of_a_closing_ordered_meanwhile() {
        let (held, key) = held();
        let (orders, mut ordered) = mpsc::channel(1);
        assert!(held.may_open(&key, EPOCH));
        let by = Instant::now() + Duration::from_secs(5);
        assert!(!held.close(&key, EPOCH, by), "there is no lane yet");
        assert_eq!(held.opened(&key, EPOCH, LaneId(7), &orders), Some(by));
        assert!(ordered.try_recv().is_err(), "whoever opens it tells it, after the opening");
        assert!(!held.may_open(&key, EPOCH), "nor is another opened");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_anew_has_nothing_to_do_with_what_it_was_before() {
        let (held, key) = held();
        let (orders, mut ordered) = mpsc::channel(1);
        let before = Epoch(EPOCH.0 - 1);
        assert_eq!(held.opened(&key, EPOCH, LaneId(7), &orders), None);
        assert!(!held.may_open(&key, before));
        assert!(!held.close(&key, before, Instant::now()) && ordered.try_recv().is_err());
        assert!(held.may_open(&key, EPOCH));
        assert_eq!(held.opened(&key, before, LaneId(6), &orders), Some(Instant::now()), "it was lost in between");
        assert!(held.let_go(&key) && !held.let_go(&key));
        assert_eq!(held.get(&key), None);
    }
}
