//! A lease, and the conditional writes that change it. Pure: the adapters put the same conditions to the table.
//!
//! A lease is the right of one member to read one shard, or one segment of a job, for one handler; it is also the row of
//! that handler's checkpoint. Invariants: the epoch grows with every owner; nothing changes a row whose owner and epoch
//! are not those that were read; a finished one is never held again.

use std::fmt;

use super::MemberId;
use crate::failpoint::{self, Failpoint};
use crate::handler::HandlerName;
use crate::stream::{Branch, ShardId};

/// How often a lease has changed its owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Which lease.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// For this handler ...
    pub handler: HandlerName,
    /// ... this shard, segment or desk.
    pub shard: ShardId,
}

/// What a lease is about. Each kind is spread over the members for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseKind {
    /// A shard of the stream.
    Shard,
    /// A segment of a job.
    Segment,
    /// What a handler has once: its jobs, the comparison of its leases with the stream, marks that belong to no branch.
    Desk,
}

/// A lease as its row says it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Whose.
    pub handler: HandlerName,
    /// Of what.
    pub shard: ShardId,
    /// See there.
    pub kind: LeaseKind,
    /// The branch of shards it belongs to.
    pub branch: Branch,
    /// The shard it came from.
    pub parent: Option<ShardId>,
    /// Who holds it, or held it when it died; none when it is free.
    pub owner: Option<MemberId>,
    /// See there.
    pub epoch: Epoch,
    /// The owner ends its work on it, within a time that counts from this announcement.
    pub announced: bool,
    /// Its last owner gave it up with everything written: what follows is no repeat.
    pub clean: bool,
    /// The handler has read all of it.
    pub finished: bool,
}

/// The owner and the epoch that a write is conditional on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Taken {
    /// Who holds it.
    pub owner: MemberId,
    /// Since this epoch.
    pub epoch: Epoch,
}

impl Lease {
    /// A free lease that nobody ever held.
    #[must_use]
    pub fn new(handler: HandlerName, shard: ShardId, kind: LeaseKind, branch: Branch, parent: Option<ShardId>) -> Self {
        let (owner, epoch) = (None, Epoch(0));
        Self { handler, shard, kind, branch, parent, owner, epoch, announced: false, clean: true, finished: false }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> LeaseKey {
        LeaseKey { handler: self.handler.clone(), shard: self.shard.clone() }
    }

    /// Whether this member holds it since this epoch: the condition of checkpoints and of everything the owner writes.
    #[must_use]
    pub fn is_held(&self, taken: &Taken) -> bool {
        self.owner.as_ref() == Some(&taken.owner) && self.epoch == taken.epoch
    }

    /// What it becomes when `by` takes it; the write is conditional on its owner and epoch as they are here.
    #[must_use]
    pub fn taken(&self, by: &MemberId) -> Self {
        let epoch = Epoch(self.epoch.0 + u64::from(!failpoint::is_set(Failpoint::EpochNotRaised)));
        let clean = self.owner.is_none() && self.clean;
        Self { owner: Some(by.clone()), epoch, announced: false, clean, ..self.clone() }
    }

    /// What it becomes when its owner announces that it hands it over.
    #[must_use]
    pub fn announced(&self) -> Self {
        Self { announced: true, ..self.clone() }
    }

    /// What it becomes when its owner lets it go: free for the next, clean when everything was written.
    #[must_use]
    pub fn released(&self, clean: bool) -> Self {
        Self { owner: None, announced: false, clean, ..self.clone() }
    }
}
