//! The fleet: which replica reads which shard for which handler.
//!
//! Every replica is a *member* with one heartbeat row; the members agree on a versioned *view* of who is there, and each
//! computes from it the same *assignment* of leases. There is no leader: whoever sees that something is due does it, by a
//! conditional write, and the others find it done. This folder decides and does no I/O but through the port
//! [`FleetStore`], whose adapters are in `relay_table`; reading shards and delivering is left to `relay`.
//!
//! **Invariants**, explored exhaustively by `model_tests`: a lease is held by one member at a time that may deliver;
//! holding begins with a write that raises the epoch, under the condition that owner and epoch are what was read; a member
//! takes from another only what is free, what a dead one held, or what was announced to be handed over and whose deadline
//! has passed. Views and assignments say who *wants* a lease: no safety hangs on their being agreed.

mod assignment;
mod fence;
mod lease;
mod member;
mod plan;
mod timing;
mod unread;
mod view;
mod watch;

pub use assignment::assign;
pub use fence::Fence;
pub use lease::{Epoch, Lease, LeaseKey, LeaseKind, Taken};
pub use member::{Member, MemberId, Report};
pub use plan::{Due, Holding, LeaseAction, Planner, Stage};
pub use timing::{LEASE_DURATION_MAX, LEASE_DURATION_MIN, Patience, Timing};
pub use unread::Unread;
pub use view::{Fleet, View, ViewAction, ViewKeeper};
pub use watch::Watch;

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::handler::HandlerName;
use crate::relay_table::Checkpoint;
use crate::storage::StorageError;
use crate::stream::ShardId;

/// Why a replica may not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The table is kept by another version of the program, in a way this one does not know.
    #[error(
        "the relay's table `{table}` has schema {found}, and this version ({version}) knows schema {known} only: deploy a version that knows it; this replica touches nothing"
    )]
    Schema {
        /// The table.
        table: String,
        /// Its schema.
        found: u64,
        /// The one that is known.
        known: u64,
        /// The version of this program.
        version: &'static str,
    },
    /// The table could not be asked.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The schema of the relay's table that this version keeps. Raised when a version could misread what another wrote.
pub const SCHEMA: u64 = 1;

/// The rows of members, the view and the leases. Every change is one write under a condition, and answers whether the
/// condition held; a write whose answer is lost may have been made.
#[async_trait]
pub trait FleetStore: Send + Sync {
    /// Refuses a table of a schema that this version does not know.
    async fn check_schema(&self) -> Result<(), JoinError>;

    /// Puts a new member's row, unless it is there: an earlier attempt's, which may say by now that the member is dead.
    async fn join(&self, member: &Member) -> Result<(), StorageError>;

    /// Raises a member's counter, and says which view it goes by, whether it leaves, and what it reports; false when it was
    /// declared dead.
    async fn renew(&self, member: &Member, report: &Report) -> Result<bool, StorageError>;

    /// Reads all members, the view and the lineage, consistently.
    async fn fleet(&self) -> Result<Fleet, StorageError>;

    /// Carries out a change of the fleet's rows, unless somebody was first.
    async fn keep(&self, action: &ViewAction) -> Result<bool, StorageError>;

    /// Removes the row of a member that holds nothing any more, by itself.
    async fn leave(&self, member: &MemberId) -> Result<(), StorageError>;

    /// All leases of a handler, consistently.
    async fn leases(&self, handler: &HandlerName) -> Result<Vec<Lease>, StorageError>;

    /// How far a handler has come on each of its leases.
    async fn checkpoints(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Checkpoint>, StorageError>;

    /// Reads some leases again, consistently; those that are gone are left out.
    async fn leases_of(&self, keys: &[LeaseKey]) -> Result<Vec<Lease>, StorageError>;

    /// Adds leases where there are none of their key, and raises the lineage.
    async fn add(&self, leases: &[Lease]) -> Result<(), StorageError>;

    /// Changes a lease into what [`Lease`] made of it, if owner and epoch are those that were read; answers how far the
    /// handler has come on it, which nobody of an older epoch changes any more. None when somebody was first.
    async fn change(&self, read: &Lease, changed: &Lease) -> Result<Option<Changed>, StorageError>;

    /// Sets the checkpoint of a lease that is held; false when it is not (any more).
    async fn checkpoint(&self, key: &LeaseKey, taken: &Taken, checkpoint: &Checkpoint) -> Result<bool, StorageError>;

    /// At the end of a shard: finishes the lease and adds those of the shard's children, in one transaction. False when
    /// it is not held (any more): nothing was written.
    async fn finish(&self, key: &LeaseKey, taken: &Taken, children: &[Lease]) -> Result<bool, StorageError>;

    /// Removes a lease whose shard is gone, if owner and epoch are those that were read.
    async fn forget(&self, read: &Lease) -> Result<bool, StorageError>;
}

/// What a changed lease's row says besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// How far the handler has come.
    pub checkpoint: Option<Checkpoint>,
}

#[cfg(test)]
mod model_tests;
