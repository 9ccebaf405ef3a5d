//! The handlers of the simulation: they take time, take a part, fail, hang, panic, are down, or refuse one event for
//! good.

use std::time::Duration;

use angzarr_relay::event::Sequence;
use angzarr_relay::handler::{Accepted, GroupLimits, Handler, HandlerError, HandlerName, RootBatch};
use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::world::World;

/// A handler that misbehaves in so many of a hundred calls.
pub(crate) struct Receiver {
    pub(crate) world: World,
    pub(crate) name: HandlerName,
    pub(crate) percent: u64,
    pub(crate) slowness: Duration,
    pub(crate) group: usize,
    /// Down in every other stretch of this length, after the first.
    pub(crate) outages: Option<Duration>,
    pub(crate) began: Instant,
    pub(crate) healed_after: Duration,
}

impl Receiver {
    fn healed(&self) -> bool {
        self.began.elapsed() >= self.healed_after
    }

    fn is_down(&self) -> bool {
        let stretch = |outages: Duration| self.began.elapsed().as_millis() / outages.as_millis() % 2 == 1;
        !self.healed() && self.outages.is_some_and(stretch)
    }

    /// Refuses one event in some roots for good, until it is healed.
    fn refuses(&self, root: &str, sequence: Sequence) -> bool {
        !self.healed() && self.percent > 0 && root.ends_with('3') && sequence == Sequence(2)
    }

    async fn take(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        for event in &batch.events {
            self.world.check(|checker| checker.delivered(&self.name, event));
        }
        let shown: Vec<u64> = batch.events.iter().map(|event| event.sequence.0).collect();
        self.world.note(&format!("deliver {} {} {shown:?}", self.name, batch.root));
        sleep(self.slowness.mul_f64(0.5) + self.world.chance.up_to(self.slowness)).await;
        if self.is_down() {
            self.world.happened("receiver down");
            return Err(HandlerError::unavailable("down"));
        }
        let strikes = || !self.healed() && self.world.chance.percent(self.percent);
        if strikes() {
            self.world.happened("handler failed");
            return Err(HandlerError::retry("not now"));
        }
        if strikes() && strikes() {
            self.world.happened("handler hung");
            sleep(Duration::from_hours(1)).await;
        }
        assert!(!(strikes() && strikes() && self.panics()), "a handler that panics");
        let mut taken = batch.events.len();
        if strikes() {
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
                self.world.check(|checker| checker.accepted(&self.name, &batch.root, event.sequence));
            }
            self.world.note(&format!("accepted {} {} {events}", self.name, batch.root));
        }
        answer
    }

    fn panics(&self) -> bool {
        self.world.happened("handler panicked");
        true
    }
}

#[async_trait]
impl Handler for Receiver {
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        let answer = self.take(batch).await;
        self.answer(batch, answer)
    }

    async fn deliver_group(&self, group: &[RootBatch]) -> Vec<Result<Accepted, HandlerError>> {
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
