//! What one member does with the leases now: take, announce, release. Pure.
//!
//! It goes by rows as they were read, leases before members, and every action is a write under the condition of what
//! was read. Invariants: a lease that is held is closed before it is released; its closing is announced first, ends
//! within the time announced, and is never called off: to go on with it, it is taken anew under a higher epoch.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{Epoch, Fleet, Lease, LeaseKey, LeaseKind, MemberId, Timing, Watch, assign};
use crate::handler::HandlerName;
use crate::stream::{Branch, ShardId};

/// An owner waits so many heartbeats for the next one to know the view before it hands over: then that one is there at
/// once.
const READY_HEARTBEATS_MAX: u32 = 2;

/// What a member does with a lease it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It reads and delivers.
    Open,
    /// It ends its work, within this time.
    Closing(Instant),
    /// It has ended it; cleanly: everything is written.
    Closed(bool),
}

/// A lease that a member holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holding {
    /// Since this epoch.
    pub epoch: Epoch,
    /// See there.
    pub stage: Stage,
}

/// A write that is due; the lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LeaseAction {
    /// Take it.
    Take(Lease),
    /// Announce that it is handed over, and begin to close it.
    Announce(Lease),
    /// Let it go; cleanly or not.
    Release(Lease, bool),
    /// Somebody else has it: end everything on it at once.
    Lost(LeaseKey),
}

/// What is due, and what is waited for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The writes.
    pub actions: Vec<LeaseAction>,
    /// Leases that this member is to have and another still holds: they are read again soon.
    pub wanted: Vec<LeaseKey>,
}

/// One member's leases.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Planner {
    me: MemberId,
    handlers: Vec<HandlerName>,
    holdings: BTreeMap<LeaseKey, Holding>,
    /// The view gone by, and when it was first seen.
    view: Option<(u64, Instant)>,
}

impl Planner {
    /// A member that holds nothing.
    #[must_use]
    pub fn new(me: MemberId, handlers: Vec<HandlerName>) -> Self {
        Self { me, handlers, holdings: BTreeMap::new(), view: None }
    }

    /// What it holds.
    #[must_use]
    pub fn holdings(&self) -> &BTreeMap<LeaseKey, Holding> {
        &self.holdings
    }

    /// The version of the view that it goes by.
    #[must_use]
    pub fn view(&self) -> u64 {
        self.view.map_or(0, |(version, _)| version)
    }

    /// A take has succeeded: it is held from here on.
    pub fn took(&mut self, key: LeaseKey, epoch: Epoch) {
        self.holdings.insert(key, Holding { epoch, stage: Stage::Open });
    }

    /// An announcement is about to be sent: whether it arrives or not, the work ends within the time it gives.
    pub fn announcing(&mut self, key: &LeaseKey, timing: &Timing, now: Instant) {
        if let Some(holding) = self.holdings.get_mut(key).filter(|holding| holding.stage == Stage::Open) {
            holding.stage = Stage::Closing(now + timing.closes_within);
        }
    }

    /// Everything on it, as it was held since this epoch, has ended.
    pub fn closed(&mut self, key: &LeaseKey, epoch: Epoch, clean: bool) {
        if let Some(holding) = self.holdings.get_mut(key).filter(|holding| holding.epoch == epoch) {
            holding.stage = Stage::Closed(clean);
        }
    }

    /// It was released, or lost, or finished: it is not held any more.
    pub fn let_go(&mut self, key: &LeaseKey) {
        self.holdings.remove(key);
    }

    /// What is due by these rows.
    pub fn plan(
        &mut self,
        fleet: &Fleet,
        leases: &BTreeMap<LeaseKey, Lease>,
        (watch, timing): (&Watch, &Timing),
        now: Instant,
    ) -> Due {
        if self.view.is_none_or(|(version, _)| version != fleet.view.version) {
            self.view = Some((fleet.view.version, now));
        }
        let mut due = Due::default();
        let targets = self.targets(fleet, leases);
        for (key, lease) in leases.iter().filter(|(key, _)| self.handlers.contains(&key.handler)) {
            let target = targets.get(&(&key.handler, &key.shard)).copied();
            match self.holdings.get(key) {
                Some(holding) => self.plan_held((key, lease, holding), target, fleet, timing, now, &mut due.actions),
                None if lease.finished => {}
                None => self.plan_free((key, lease), target, fleet, (watch, timing), now, &mut due),
            }
        }
        let gone = self.holdings.keys().filter(|key| !leases.contains_key(*key));
        due.actions.extend(gone.map(|key| LeaseAction::Lost(key.clone())));
        due
    }

    fn plan_held(
        &self,
        (key, lease, holding): (&LeaseKey, &Lease, &Holding),
        target: Option<&MemberId>,
        fleet: &Fleet,
        timing: &Timing,
        now: Instant,
        actions: &mut Vec<LeaseAction>,
    ) {
        let mine = lease.owner.as_ref() == Some(&self.me) && lease.epoch == holding.epoch;
        match holding.stage {
            // The row may have been read before it was taken.
            _ if lease.epoch < holding.epoch => {}
            // Finished by this member itself: its lane tells so.
            _ if lease.finished && lease.epoch == holding.epoch => {}
            _ if !mine => actions.push(LeaseAction::Lost(key.clone())),
            Stage::Closed(clean) => actions.push(LeaseAction::Release(lease.clone(), clean)),
            Stage::Closing(_) => {}
            Stage::Open => {
                let leaves = !fleet.view.members.contains(&self.me);
                let is_next = match target {
                    Some(next) if *next != self.me => self.is_ready(next, fleet, timing, now),
                    Some(_) => false,
                    None => leaves && !lease.finished,
                };
                if is_next {
                    actions.push(LeaseAction::Announce(lease.clone()));
                }
            }
        }
    }

    fn plan_free(
        &self,
        (key, lease): (&LeaseKey, &Lease),
        target: Option<&MemberId>,
        fleet: &Fleet,
        (watch, timing): (&Watch, &Timing),
        now: Instant,
        due: &mut Due,
    ) {
        let is_mine = target == Some(&self.me);
        match &lease.owner {
            // It was taken, and the answer was lost: nothing was done under that epoch.
            Some(owner) if *owner == self.me && !is_mine => {
                due.actions.push(LeaseAction::Release(lease.clone(), lease.clean));
            }
            _ if !is_mine => {}
            Some(owner) if *owner != self.me && fleet.is_alive(owner) => {
                let overdue_at = fleet.member(owner).and_then(|owner| watch.overdue_at(lease, owner, timing));
                if overdue_at.is_some_and(|at| at <= now) {
                    due.actions.push(LeaseAction::Take(lease.clone()));
                } else {
                    due.wanted.push(key.clone());
                }
            }
            Some(_) | None => due.actions.push(LeaseAction::Take(lease.clone())),
        }
    }

    /// Whether the next owner knows the view by which it is one, or was waited for long enough.
    fn is_ready(&self, next: &MemberId, fleet: &Fleet, timing: &Timing, now: Instant) -> bool {
        let knows = fleet.member(next).is_some_and(|member| member.view >= fleet.view.version);
        // With long heartbeats the time for hand-overs would be over before one began.
        let ready_max = (timing.heartbeat * READY_HEARTBEATS_MAX).min(timing.closes_within / 2);
        let waited = self.view.is_some_and(|(_, since)| now >= since + ready_max);
        knows || waited
    }

    /// Who is to hold each unfinished lease of this member's handlers: a member of the view that runs the handler.
    fn targets<'a>(
        &self,
        fleet: &'a Fleet,
        leases: &'a BTreeMap<LeaseKey, Lease>,
    ) -> BTreeMap<(&'a HandlerName, &'a ShardId), &'a MemberId> {
        let mut groups: BTreeMap<(&HandlerName, LeaseKind), Vec<(&ShardId, &Branch)>> = BTreeMap::new();
        let mine = |lease: &&Lease| !lease.finished && self.handlers.contains(&lease.handler);
        for lease in leases.values().filter(mine) {
            groups.entry((&lease.handler, lease.kind)).or_default().push((&lease.shard, &lease.branch));
        }
        let agreed: Vec<_> = fleet.members.iter().filter(|member| fleet.view.members.contains(&member.id)).collect();
        let mut targets = BTreeMap::new();
        for ((handler, _), shards) in groups {
            let able = agreed.iter().filter(|member| member.handlers.contains(handler));
            let able: Vec<&MemberId> = able.map(|member| &member.id).collect();
            let assigned = assign(&able, &shards);
            for (shard, _) in shards {
                let next = assigned.get(shard).and_then(|next| able.iter().find(|id| **id == next));
                targets.extend(next.map(|next| ((handler, shard), *next)));
            }
        }
        targets
    }
}

#[cfg(test)]
impl Planner {
    /// Moves what it remembers into the past, as time goes by; what is due is all alike.
    pub(crate) fn age(&mut self, by: std::time::Duration, now: Instant, timing: &Timing) {
        if let Some((_, since)) = &mut self.view {
            *since = (*since - by).max(now - timing.heartbeat * READY_HEARTBEATS_MAX);
        }
        for holding in self.holdings.values_mut() {
            if let Stage::Closing(until) = &mut holding.stage {
                *until = (*until - by).max(now);
            }
        }
    }

    /// Every epoch that is remembered.
    pub(crate) fn epochs(&mut self) -> impl Iterator<Item = (&LeaseKey, &mut Epoch)> {
        self.holdings.iter_mut().map(|(key, holding)| (key, &mut holding.epoch))
    }

    /// The version of the view that is remembered.
    pub(crate) fn version(&mut self) -> Option<&mut u64> {
        self.view.as_mut().map(|(version, _)| version)
    }
}
