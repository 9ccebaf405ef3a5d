//! One handler as the keeper of the shards knows it: its lineage, the leases that this replica holds for it, its desk.
//!
//! Invariant: a lane is open only while its lease is held.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::desk::Desk;
use crate::event::Timestamp;
use crate::fleet::{Epoch, Lease, LeaseKey, LeaseKind, MemberId};
use crate::handler::HandlerName;
use crate::lane::{LaneOrder, LaneSettings};
use crate::relay_table::Checkpoint;
use crate::stream::{Branch, LaneId, Lineage, Shard, ShardId};

/// One handler as the keeper of the shards sees it.
pub(super) struct HandlerLanes {
    pub(super) name: HandlerName,
    pub(super) orders: mpsc::Sender<LaneOrder>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) settings: LaneSettings,
    pub(super) marks: MarkShare,
}

/// A lease that this replica holds for the handler.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) epoch: Epoch,
    pub(super) kind: LeaseKind,
    pub(super) branch: Branch,
    /// How far the handler had come when it was taken.
    pub(super) checkpoint: Option<Checkpoint>,
    /// Others may have moved its roots since anything was remembered of them.
    pub(super) taken: bool,
    /// Its lane, once it is open.
    pub(super) lane: Option<LaneId>,
    /// How the life of its last owner ended is looked into before.
    pub(super) awaits_look: bool,
    /// What the handler needs because of it is made durable before.
    pub(super) awaits_need: bool,
}

impl Held {
    /// Whether its lane may be opened now.
    fn is_ready(&self) -> bool {
        self.lane.is_none() && !self.awaits_look && !self.awaits_need
    }
}

/// Which deferred roots this replica goes on with: those of the branches it reads, and, with the desk, those of none.
#[derive(Debug, Clone, Default)]
pub(super) struct MarkShare(Arc<Mutex<Share>>);

#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Share {
    mine: Vec<Branch>,
    read: Vec<Branch>,
    desk: bool,
}

impl MarkShare {
    /// Whether this replica goes on with a deferred root of this branch, or of none.
    pub(super) fn works_off(&self, branch: Option<&Branch>) -> bool {
        let share = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match branch.filter(|branch| share.read.contains(branch)) {
            Some(branch) => share.mine.contains(branch),
            None => share.desk,
        }
    }

    /// Takes what is so now; true when it has changed.
    fn set(&self, now: Share) -> bool {
        let mut share = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *share != now;
        *share = now;
        changed
    }
}

/// One handler while its shards are kept.
pub(super) struct Kept {
    pub(super) handler: HandlerLanes,
    pub(super) lineage: Lineage,
    pub(super) held: BTreeMap<ShardId, Held>,
    /// What is done for the handler once in the fleet, while this replica does it.
    pub(super) desk: Option<Desk>,
    /// The desk is held, and could not be taken up yet.
    pub(super) desk_due: bool,
    /// What is older is delivered, or found by a job that began then.
    pub(super) complete_since: Timestamp,
    /// Dead members whose last life is looked into, and whether that is done.
    pub(super) looked_into: BTreeMap<MemberId, bool>,
    /// What is held, or what there is, has changed since it was said which deferred roots are this replica's.
    share_is_due: bool,
}

impl Kept {
    pub(super) fn new(handler: HandlerLanes) -> Self {
        let complete_since = handler.started_at.unwrap_or(Timestamp::from_unix_millis(0));
        let (lineage, held) = (Lineage::default(), BTreeMap::new());
        Self {
            handler,
            lineage,
            held,
            desk: None,
            desk_due: false,
            complete_since,
            looked_into: BTreeMap::new(),
            share_is_due: true,
        }
    }

    pub(super) fn key(&self, shard: &ShardId) -> LeaseKey {
        LeaseKey { handler: self.handler.name.clone(), shard: shard.clone() }
    }

    /// Learns of all leases there are.
    pub(super) fn read(&mut self, leases: &BTreeMap<LeaseKey, Lease>) {
        let mine = || leases.values().filter(|lease| lease.handler == self.handler.name);
        let shards: Vec<Shard> = mine()
            .filter(|lease| lease.kind != LeaseKind::Desk)
            .map(|lease| Shard { id: lease.shard.clone(), parent: lease.parent.clone() })
            .collect();
        self.lineage.observe(&shards);
        for lease in mine().filter(|lease| lease.finished) {
            self.lineage.finish(&lease.shard);
        }
        self.lineage.retain(&shards.into_iter().map(|shard| shard.id).collect());
        self.share_is_due = true;
    }

    /// A lease of a shard or a segment is held.
    pub(super) fn hold(&mut self, shard: ShardId, held: Held) {
        self.held.insert(shard, held);
        self.share_is_due = true;
    }

    /// A lease is not held any more; it may have been taken anew, under another epoch, meanwhile.
    pub(super) fn let_go(&mut self, shard: &ShardId, epoch: Epoch) {
        if self.held.get(shard).is_some_and(|held| held.epoch == epoch) {
            self.held.remove(shard);
            self.share_is_due = true;
        }
    }

    /// The desk is taken up.
    pub(super) fn take_up_desk(&mut self, desk: Desk) {
        self.desk = Some(desk);
        self.share_is_due = true;
    }

    /// The desk is somebody else's.
    pub(super) fn leave_desk(&mut self) {
        (self.desk, self.desk_due, self.share_is_due) = (None, false, true);
    }

    /// Says which deferred roots are this replica's, when that may have changed; true when it has.
    pub(super) fn share_marks(&mut self, leases: &BTreeMap<LeaseKey, Lease>) -> bool {
        if !std::mem::take(&mut self.share_is_due) {
            return false;
        }
        let read = leases
            .values()
            .filter(|lease| lease.handler == self.handler.name && lease.kind == LeaseKind::Shard && !lease.finished);
        let mut read: Vec<Branch> = read.map(|lease| lease.branch.clone()).collect();
        // Before the parent is finished, whoever reads that has the roots of their branch.
        let is_behind = |shard: &ShardId, held: &Held| {
            let parent = leases.get(&self.key(shard)).and_then(|lease| lease.parent.clone());
            let parent = parent.and_then(|parent| leases.get(&self.key(&parent)));
            parent.is_some_and(|parent| !parent.finished && parent.branch == held.branch)
        };
        let held = self.held.iter().filter(|(shard, held)| held.kind == LeaseKind::Shard && !is_behind(shard, held));
        let mut mine: Vec<Branch> = held.map(|(_, held)| held.branch.clone()).collect();
        read.extend(mine.iter().cloned());
        for branches in [&mut read, &mut mine] {
            branches.sort();
            branches.dedup();
        }
        self.handler.marks.set(Share { mine, read, desk: self.desk.is_some() })
    }

    /// The shards whose lanes may be opened now: they count as opened from here on.
    pub(super) fn open_next(&mut self) -> Vec<ShardId> {
        let held = &self.held;
        self.lineage.open_next(|shard| held.get(shard).is_some_and(Held::is_ready))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let name = HandlerName::new("view").unwrap();
        let (settings, marks) = (LaneSettings::default(), MarkShare::default());
        Kept::new(HandlerLanes { name, orders: mpsc::channel(1).0, started_at: None, settings, marks })
    }

    fn branch(shard: &str) -> Branch {
        Branch::of(&ShardId::new(shard))
    }

    /// All leases there are: of shards, each with the branch it belongs to, its parent, and whether it is finished.
    fn leases(shards: &[(&str, &str, Option<&str>, bool)]) -> BTreeMap<LeaseKey, Lease> {
        let lease = |(shard, of, parent, finished): &(&str, &str, Option<&str>, bool)| {
            let name = HandlerName::new("view").unwrap();
            let lease = Lease::new(name, ShardId::new(shard), LeaseKind::Shard, branch(of), parent.map(ShardId::new));
            Lease { finished: *finished, ..lease }
        };
        shards.iter().map(lease).map(|lease| (lease.key(), lease)).collect()
    }

    fn hold(kept: &mut Kept, shard: &str, of: &str) {
        let (epoch, kind, checkpoint) = (Epoch(1), LeaseKind::Shard, None);
        let (taken, awaits_look, awaits_need, lane) = (false, false, false, None);
        let held = Held { epoch, kind, branch: branch(of), checkpoint, taken, lane, awaits_look, awaits_need };
        kept.hold(ShardId::new(shard), held);
    }

    #[test]
    fn deferred_roots_are_gone_on_with_where_their_branch_is_read() {
        let mut kept = kept();
        let marks = kept.handler.marks.clone();
        let all = leases(&[("a", "a", None, false), ("b", "b", None, false)]);
        hold(&mut kept, "a", "a");
        assert!(kept.share_marks(&all));
        assert!(marks.works_off(Some(&branch("a"))));
        assert!(!marks.works_off(Some(&branch("b"))), "somebody else reads it, or will");
        assert!(!marks.works_off(Some(&branch("gone"))) && !marks.works_off(None), "they are the desk's");
        assert!(!kept.share_marks(&all), "nothing has changed");
        kept.let_go(&ShardId::new("a"), Epoch(1));
        assert!(kept.share_marks(&all));
        assert!(!marks.works_off(Some(&branch("a"))));
    }

    #[test]
    fn a_child_has_the_roots_of_its_branch_once_its_parent_is_finished() {
        let mut kept = kept();
        let marks = kept.handler.marks.clone();
        let ends = |finished| leases(&[("parent", "b", None, finished), ("heir", "b", Some("parent"), false)]);
        hold(&mut kept, "heir", "b");
        kept.read(&ends(false));
        kept.share_marks(&ends(false));
        assert!(!marks.works_off(Some(&branch("b"))), "whoever reads the parent has them");
        kept.read(&ends(true));
        assert!(kept.share_marks(&ends(true)));
        assert!(marks.works_off(Some(&branch("b"))));
    }

    #[test]
    fn a_child_that_begins_a_branch_of_its_own_has_its_roots_at_once() {
        let mut kept = kept();
        let marks = kept.handler.marks.clone();
        let all = leases(&[("parent", "b", None, false), ("second", "second", Some("parent"), false)]);
        hold(&mut kept, "second", "second");
        assert!(kept.share_marks(&all));
        assert!(marks.works_off(Some(&branch("second"))));
        assert!(!marks.works_off(Some(&branch("b"))));
    }
}
