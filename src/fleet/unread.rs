//! Shards that nobody reads: which, and since when. Pure.
//!
//! Rows of leases are read again only when the fleet changes, so what looks unread may have been taken since: whoever
//! asks reads those rows again for as long as there are some. Left to others: who is to take them (`plan`).

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{Fleet, Lease, LeaseKey, LeaseKind};
use crate::handler::HandlerName;

/// What was seen of shards that nobody reads.
#[derive(Debug, Clone, Default)]
pub struct Unread {
    since: BTreeMap<LeaseKey, Instant>,
}

impl Unread {
    /// Learns from these rows, of the handlers for which this is to be known here.
    pub fn see(
        &mut self,
        fleet: &Fleet,
        leases: &BTreeMap<LeaseKey, Lease>,
        is_known_here: impl Fn(&HandlerName) -> bool,
        now: Instant,
    ) {
        let is_read = |lease: &Lease| lease.owner.as_ref().is_some_and(|owner| fleet.is_alive(owner));
        let before = std::mem::take(&mut self.since);
        self.since = leases
            .iter()
            .filter(|(key, lease)| lease.kind == LeaseKind::Shard && !lease.finished && is_known_here(&key.handler))
            .filter(|(_, lease)| !is_read(lease))
            .map(|(key, _)| (key.clone(), before.get(key).copied().unwrap_or(now)))
            .collect();
    }

    /// Which they are.
    pub fn keys(&self) -> impl Iterator<Item = &LeaseKey> {
        self.since.keys()
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.since.len()
    }

    /// Since when the first of a handler's is not read; none when all are.
    #[must_use]
    pub fn since(&self, handler: &HandlerName) -> Option<Instant> {
        self.since.iter().filter(|(key, _)| key.handler == *handler).map(|(_, since)| *since).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    use crate::fleet::{Member, MemberId, Patience};
    use crate::stream::{Branch, ShardId};

    #[test]
    fn a_shard_is_unread_while_nobody_alive_holds_it() {
        let handler = |name: &str| HandlerName::new(name).unwrap();
        let lease = |name: &str, shard: &str, kind: LeaseKind| {
            let shard = ShardId::new(shard);
            Lease::new(handler(name), shard.clone(), kind, Branch::of(&shard), None)
        };
        let member = |id: &str, dead: bool| Member {
            id: MemberId::new(id),
            dead,
            counter: 1,
            leaving: false,
            view: 1,
            handlers: BTreeSet::new(),
            version: String::new(),
            patience: Patience::default(),
        };
        let fleet = Fleet { members: vec![member("alive", false), member("dead", true)], ..Fleet::default() };
        let owned = |lease: Lease, by: &str| Lease { owner: Some(MemberId::new(by)), ..lease };
        let rows = [
            owned(lease("h", "read", LeaseKind::Shard), "alive"),
            owned(lease("h", "of the dead", LeaseKind::Shard), "dead"),
            owned(lease("h", "of one without a row", LeaseKind::Shard), "gone"),
            lease("h", "free", LeaseKind::Shard),
            lease("h", "segment", LeaseKind::Segment),
            lease("elsewhere", "free", LeaseKind::Shard),
            Lease { finished: true, ..lease("h", "finished", LeaseKind::Shard) },
        ];
        let mut leases: BTreeMap<_, _> = rows.into_iter().map(|lease| (lease.key(), lease)).collect();
        let (mut unread, began) = (Unread::default(), Instant::now());
        let here = |name: &HandlerName| *name == handler("h");
        unread.see(&fleet, &leases, here, began);
        let shards: Vec<_> = unread.keys().map(|key| key.shard.as_str().to_owned()).collect();
        assert_eq!(shards, ["free", "of one without a row", "of the dead"]);
        let later = began + Duration::from_secs(5);
        let free = lease("h", "free", LeaseKind::Shard);
        leases.insert(free.key(), owned(free, "alive"));
        unread.see(&fleet, &leases, here, later);
        assert_eq!((unread.count(), unread.since(&handler("h"))), (2, Some(began)));
        assert_eq!(unread.since(&handler("elsewhere")), None);
        leases.clear();
        unread.see(&fleet, &leases, here, later);
        assert_eq!((unread.count(), unread.since(&handler("h"))), (0, None));
    }
}
