//! What operators do while relays run: order roots back, pause a handler and let it go on, release parked roots, and
//! have an event passed.

use std::time::Duration;

use angzarr_relay::event::Sequence;
use angzarr_relay::handler::HandlerName;
use angzarr_relay::storage::MarkState;

use crate::plan::{Fault, Plan};
use crate::world::World;
use crate::writer::{HISTORIC_ROOTS, root_of};

/// Between two looks of an operator, at the most.
const EVERY: Duration = Duration::from_secs(5);

/// The longest a handler is paused.
const PAUSED_MAX: Duration = Duration::from_secs(15);

/// An operator of one run.
pub(crate) struct Operator {
    world: World,
    plan: Plan,
    handlers: Vec<HandlerName>,
    next_at: Duration,
    paused: Option<(HandlerName, Duration)>,
}

impl Operator {
    pub(crate) fn new(world: &World, plan: &Plan, handlers: Vec<HandlerName>) -> Self {
        Self { world: world.clone(), plan: plan.clone(), handlers, next_at: EVERY, paused: None }
    }

    fn any_handler(&self) -> HandlerName {
        self.handlers[usize::try_from(self.world.chance.below(self.handlers.len() as u64)).unwrap()].clone()
    }

    /// Does what comes to mind.
    pub(crate) fn look(&mut self) {
        let (world, now) = (self.world.clone(), self.world.elapsed());
        if !self.plan.has(Fault::Operators) || now < self.next_at {
            return;
        }
        self.next_at = now + world.chance.up_to(EVERY);
        if self.paused.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.go_on();
        }
        match world.chance.below(3) {
            0 => self.rewind(),
            1 if self.paused.is_none() => {
                let handler = self.any_handler();
                world.happened("handler paused");
                world.note(&format!("pause {handler}"));
                world.check(|checker| checker.paused(&handler, true));
                world.table.set_paused(&handler, true);
                world.positions.order();
                self.paused = Some((handler, now + world.chance.up_to(PAUSED_MAX)));
            }
            _ => self.release(),
        }
    }

    /// A paused handler goes on.
    pub(crate) fn go_on(&mut self) {
        if let Some((handler, _)) = self.paused.take() {
            self.world.note(&format!("resume {handler}"));
            self.world.check(|checker| checker.paused(&handler, false));
            self.world.table.set_paused(&handler, false);
            self.world.positions.order();
        }
    }

    fn rewind(&self) {
        let (handler, root) = (self.any_handler(), root_of(self.world.chance.below(self.plan.roots)));
        let Some(position) = self.world.positions.position(&handler, &root) else { return };
        let to = Sequence(self.world.chance.below(position.0 + 1));
        if self.world.positions.rewind(&handler, &root, to) {
            self.world.happened("root ordered back");
            self.world.note(&format!("rewind {handler} {root} to {to}"));
            self.world.check(|checker| checker.ordered_back(&handler, &root, to, position));
        }
    }

    /// Releases every parked root; one event in three is passed.
    pub(crate) fn release(&self) {
        for handler in &self.handlers {
            for root in (0..self.plan.roots + HISTORIC_ROOTS).map(root_of) {
                let Some(mark) = self.world.positions.standing(handler, &root).mark else { continue };
                if mark.state != MarkState::Parked {
                    continue;
                }
                let passed = self.plan.has(Fault::Operators) && self.world.chance.percent(33);
                self.world.happened(if passed { "parked event passed" } else { "parked root released" });
                self.world.note(&format!("release {handler} {root} at {}, passed: {passed}", mark.sequence));
                if passed {
                    self.world.check(|checker| checker.skipped(handler, &root, mark.sequence));
                }
                self.world.positions.release(handler, &root, passed);
            }
        }
    }
}
