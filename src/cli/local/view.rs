//! A view in Rust: how many orders stand at which step.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::event::Root;
use crate::handler::{Accepted, Handler, HandlerError, RootBatch};

/// Orders whose last step is remembered; others count under the step they were at.
const ORDERS_MAX: usize = 100_000;

/// Orders by their last event.
#[derive(Debug, Default)]
pub(super) struct OrdersView {
    orders: Mutex<BTreeMap<Root, Box<str>>>,
}

impl OrdersView {
    /// How many orders stand at each step, by its event type.
    pub(super) fn steps(&self) -> BTreeMap<Box<str>, usize> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps = BTreeMap::new();
        for step in orders.values() {
            *steps.entry(step.clone()).or_default() += 1;
        }
        steps
    }
}

#[async_trait]
impl Handler for OrdersView {
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        if let Some(event) = batch.events.last() {
            let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            if orders.len() >= ORDERS_MAX {
                orders.pop_first();
            }
            orders.insert(batch.root.clone(), event.event_type.clone());
        }
        Ok(Accepted::all(batch))
    }
}
