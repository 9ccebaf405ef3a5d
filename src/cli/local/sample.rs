//! Sample events: a small shop whose orders are placed, paid and shipped, written at a steady rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::event::{Root, Sequence};
use crate::storage::{EventStore, NewEvent};
use crate::time::{Clock, Random};

/// One order begins so often.
const ORDER_INTERVAL: Duration = Duration::from_millis(200);

/// What becomes of an order, an event each.
const STORY: [&str; 4] = ["OrderPlaced", "OrderPaid", "OrderPacked", "OrderShipped"];

/// Orders open at once; each turn one of them goes on.
const OPEN_ORDERS_MAX: usize = 20;

/// The writer of sample events. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    written: Arc<AtomicU64>,
}

impl Sample {
    /// Events written so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Writes until stopped.
    pub(super) async fn write(self, store: EventStore, clock: Clock, stop: CancellationToken) {
        let random = Random::from_entropy();
        let mut open: Vec<(Root, usize)> = Vec::new();
        let mut ticks = interval(ORDER_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if open.len() < OPEN_ORDERS_MAX
                && let Ok(root) = Root::new("orders", "angzarr", &format!("order-{}", &random.token()[..8]))
            {
                open.push((root, 0));
            }
            for _ in 0..2 {
                let pick = usize::try_from(random.below(open.len() as u64)).unwrap_or(0);
                if !open.is_empty() && self.go_on(&store, &clock, &mut open[pick]).await {
                    open.swap_remove(pick);
                }
            }
        }
    }

    /// Writes the next event of an order; true when it was the last.
    async fn go_on(&self, store: &EventStore, clock: &Clock, order: &mut (Root, usize)) -> bool {
        let (root, step) = order;
        let event = NewEvent {
            event_type: STORY[*step].into(),
            payload: format!(r#"{{"order":"{}","step":{step}}}"#, root.id()).into(),
            correlation_id: Some(root.id().into()),
            created_at: clock.now(),
        };
        let last = step.checked_sub(1).map(|last| Sequence(last as u64));
        match store.append(root, last, &[event]).await {
            Ok(_) => {
                self.written.fetch_add(1, Ordering::Relaxed);
                *step += 1;
                *step == STORY.len()
            }
            Err(error) => {
                warn!(%error, "a sample event could not be written; its order is given up");
                true
            }
        }
    }
}
