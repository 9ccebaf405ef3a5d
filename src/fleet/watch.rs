//! What one member has seen of the others, and since when: liveness by its own clock. Pure.
//!
//! A counter that has not changed for so long is a member that has fenced itself: wall clocks are never compared.
//! Invariant: what is seen for the first time counts from then, so a new observer declares nobody dead early.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{Epoch, Lease, LeaseKey, Member, MemberId, Timing};

/// One observer's sightings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Watch {
    /// Each member's counter, and when it was first seen at that.
    members: BTreeMap<MemberId, (u64, Instant)>,
    /// Each announced hand-over, by epoch, and when it was first seen.
    announced: BTreeMap<LeaseKey, (Epoch, Instant)>,
}

impl Watch {
    /// Takes the rows of all members, seen at `now`.
    pub fn see_members(&mut self, members: &[Member], now: Instant) {
        self.members.retain(|id, _| members.iter().any(|member| member.id == *id));
        for member in members {
            let sighting = self.members.entry(member.id.clone()).or_insert((member.counter, now));
            if sighting.0 != member.counter {
                *sighting = (member.counter, now);
            }
        }
    }

    /// Takes rows of leases, seen at `now`. Those that are not among them stay as they were seen.
    pub fn see_leases<'a>(&mut self, leases: impl IntoIterator<Item = &'a Lease>, now: Instant) {
        for lease in leases {
            if lease.announced {
                let sighting = self.announced.entry(lease.key()).or_insert((lease.epoch, now));
                if sighting.0 != lease.epoch {
                    *sighting = (lease.epoch, now);
                }
            } else {
                self.announced.remove(&lease.key());
            }
        }
    }

    /// Forgets the leases that are not there any more.
    pub fn retain_leases(&mut self, is_there: impl Fn(&LeaseKey) -> bool) {
        self.announced.retain(|key, _| is_there(key));
    }

    /// When a member may be declared dead, should it renew no more; none when it was not seen.
    #[must_use]
    pub fn expires_at(&self, member: &Member, timing: &Timing) -> Option<Instant> {
        let (counter, since) = self.members.get(&member.id)?;
        (*counter == member.counter).then(|| *since + timing.with(member.patience).expires_after)
    }

    /// Whether a member may be declared dead.
    #[must_use]
    pub fn is_expired(&self, member: &Member, timing: &Timing, now: Instant) -> bool {
        self.expires_at(member, timing).is_some_and(|at| at <= now)
    }

    /// When anybody may take a lease whose hand-over was announced by `owner`; none when it was not.
    #[must_use]
    pub fn overdue_at(&self, lease: &Lease, owner: &Member, timing: &Timing) -> Option<Instant> {
        let (epoch, since) = self.announced.get(&lease.key())?;
        (lease.announced && *epoch == lease.epoch).then(|| *since + timing.with(owner.patience).overdue_after)
    }
}

#[cfg(test)]
impl Watch {
    /// Moves all sightings into the past, as time goes by; those that are due are all alike.
    pub(crate) fn age(&mut self, by: std::time::Duration, now: Instant, timing: &Timing) {
        for (_, at) in self.members.values_mut() {
            *at = (*at - by).max(now - timing.expires_after);
        }
        for (_, at) in self.announced.values_mut() {
            *at = (*at - by).max(now - timing.overdue_after);
        }
    }

    /// Every counter that is remembered.
    pub(crate) fn counters(&mut self) -> impl Iterator<Item = (&MemberId, &mut u64)> {
        self.members.iter_mut().map(|(id, (counter, _))| (id, counter))
    }

    /// Every epoch that is remembered.
    pub(crate) fn epochs(&mut self) -> impl Iterator<Item = (&LeaseKey, &mut Epoch)> {
        self.announced.iter_mut().map(|(key, (epoch, _))| (key, epoch))
    }
}
