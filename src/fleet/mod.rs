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
mod view;
mod watch;

pub use assignment::assign;
pub use fence::Fence;
pub use lease::{Epoch, Lease, LeaseKey, LeaseKind, Taken};
pub use member::{Member, MemberId};
pub use plan::{Due, Holding, LeaseAction, Planner, Stage};
pub use timing::{LEASE_DURATION_MAX, LEASE_DURATION_MIN, Timing};
pub use view::{Fleet, View, ViewAction, ViewKeeper};
pub use watch::Watch;

#[cfg(test)]
mod model_tests;
