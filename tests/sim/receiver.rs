//! The handlers of the simulation: they take time, take a part, fail, hang, panic, are down, or refuse one event for
//! good.

use std::sync::Arc;
use std::time::Duration;

use angzarr_relay::event::Sequence;
use angzarr_relay::handler::{Accepted, GroupLimits, Handler, HandlerError, HandlerName, RootBatch};
use angzarr_relay::telemetry::names;
use async_trait::async_trait;
use tokio::time::sleep;

use crate::plan::{Fault, Plan};
use crate::world::World;

/// What a receiver says that is down. No root may be parked for it (contract clause 13).
pub(crate) const DOWN: &str = "the receiver is down";

/// A handler that misbehaves as the plan says, until it is healed.
pub(crate) struct Receiver {
    pub(crate) world: World,
    pub(crate) plan: Arc<Plan>,
    pub(crate) name: HandlerName,
    /// The replica it is in.
    pub(crate) replica: String,
    pub(crate) slowness: Duration,
    pub(crate) group: usize,
    /// Down in every other stretch of this length, after the first.
    pub(crate) outages: Option<Duration>,
    pub(crate) healed_after: Duration,
}

impl Receiver {
    fn healed(&self) -> bool {
        self.world.elapsed() >= self.healed_after
    }

    fn is_down(&self) -> bool {
        let stretch = |outages: Duration| self.world.elapsed().as_millis() / outages.as_millis() % 2 == 1;
        !self.healed() && self.plan.has(Fault::HandlerDown) && self.outages.is_some_and(stretch)
    }

    fn strikes(&self, fault: Fault) -> bool {
        !self.healed() && self.plan.has(fault) && self.world.chance.percent(self.plan.percent)
    }

    /// Refuses one event in some roots for good.
    fn refuses(&self, root: &str, sequence: Sequence) -> bool {
        !self.healed() && self.plan.has(Fault::Poisoned) && root.ends_with('3') && sequence == Sequence(2)
    }

    /// A delivery begins: with it those of all roots of its group.
    pub(crate) fn begin(&self, group: &[RootBatch]) {
        let dead = self.world.is_dead(&self.replica);
        for batch in group {
            for event in &batch.events {
                self.world.check(|checker| checker.delivered(&self.name, &self.replica, event));
            }
            let shown: Vec<u64> = batch.events.iter().map(|event| event.sequence.0).collect();
            self.world.note(&format!("{} deliver {} {} {shown:?}", self.replica, self.name, batch.root));
            if dead {
                self.world.check(|checker| checker.delivered_when_dead(&self.name, &self.replica, &batch.root));
            }
        }
    }

    /// What it does with a batch, and how many of its events it takes.
    pub(crate) async fn take(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        sleep(self.slowness.mul_f64(0.5) + self.world.chance.up_to(self.slowness)).await;
        if self.is_down() {
            self.world.happened("receiver down");
            return Err(HandlerError::unavailable(DOWN));
        }
        if self.strikes(Fault::HandlerFails) {
            self.world.happened("handler failed");
            return Err(HandlerError::retry("not now"));
        }
        if self.strikes(Fault::HandlerHangs) && self.world.chance.percent(10) {
            self.world.happened("handler hung");
            sleep(Duration::from_hours(1)).await;
        }
        if self.strikes(Fault::HandlerPanics) && self.world.chance.percent(10) {
            self.world.happened("handler panicked");
            // Without a word: nobody reads so many traces.
            std::panic::resume_unwind(Box::new("a handler that panics"));
        }
        let mut taken = batch.events.len();
        if self.strikes(Fault::HandlerTakesPart) {
            self.world.happened("part of a batch taken");
            taken = usize::try_from(self.world.chance.below(taken as u64 + 1)).unwrap();
        }
        if let Some(at) = batch.events.iter().position(|event| self.refuses(batch.root.id(), event.sequence)) {
            taken = taken.min(at);
            if taken == 0 && at == 0 {
                self.world.happened("event poisoned");
                return Err(HandlerError::permanent("never"));
            }
        }
        Ok(Accepted { events: taken })
    }

    /// An answer counts when it is given: a call that ends early answers for nothing in it.
    fn answer(&self, batch: &RootBatch, answer: Result<Accepted, HandlerError>) -> Result<Accepted, HandlerError> {
        if let Ok(Accepted { events }) = answer {
            for event in &batch.events[..events] {
                self.world.check(|checker| {
                    checker.did(&self.replica, names::EVENTS_DELIVERED, &self.name);
                    checker.accepted(&self.name, &self.replica, &batch.root, event.sequence);
                });
            }
            self.world.note(&format!("{} accepted {} {} {events}", self.replica, self.name, batch.root));
        }
        answer
    }
}

#[async_trait]
impl Handler for Receiver {
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        self.begin(std::slice::from_ref(batch));
        let answer = self.take(batch).await;
        self.answer(batch, answer)
    }

    async fn deliver_group(&self, group: &[RootBatch]) -> Vec<Result<Accepted, HandlerError>> {
        self.begin(group);
        let mut answers = Vec::new();
        for batch in group {
            answers.push(self.take(batch).await);
        }
        group.iter().zip(answers).map(|(batch, answer)| self.answer(batch, answer)).collect()
    }

    fn limits(&self) -> GroupLimits {
        GroupLimits { roots: self.group, events_per_root: 5, ..GroupLimits::default() }
    }
}
