//! The relay's own table, `{prefix}-relay`: how far each handler has read each shard, and since when each handler
//! exists.
//!
//! Three ports (and that of `backfill`'s jobs), each with a DynamoDB adapter and one in memory. A checkpoint is only an
//! optimisation: losing it costs re-reading, never an event. The registry is not: a handler's start is written before
//! anything is read and never changes.

mod handlers;
mod interests;
mod jobs;
mod lease_row;
mod leases;
mod lives;
mod members;
mod memory;
mod memory_fleet;
mod overview;
mod removal;
mod table;

pub use memory::MemoryRelayTable;
pub use overview::{LeaseRow, RollCall};
pub use table::RelayTable;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::event::{Root, Sequence, Timestamp};
use crate::fleet::MemberId;
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::stream::{ShardId, StreamSequence};

/// How far a handler has read a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checkpoint {
    /// Every record up to and including this one is covered.
    At(StreamSequence),
    /// The shard was read to its end and all of it is covered.
    Finished,
}

/// Where lanes write how far they have come.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Sets a checkpoint.
    async fn save(&self, handler: &HandlerName, shard: &ShardId, checkpoint: &Checkpoint) -> Result<(), StorageError>;
}

/// Where a handler that was never seen before starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With each root's first event.
    Beginning,
    /// With what is written from its first registration on.
    Latest,
    /// With what was created at or after this moment.
    At(Timestamp),
}

/// What the registry keeps of a handler from its first start on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// Events created before this moment are not the handler's; none when it starts at the beginning.
    pub started_at: Option<Timestamp>,
}

impl Start {
    /// What a handler registered at `now` with this start keeps for good.
    #[must_use]
    pub fn registration(self, now: Timestamp) -> Registration {
        Registration {
            started_at: match self {
                Self::Beginning => None,
                Self::Latest => Some(now),
                Self::At(moment) => Some(moment),
            },
        }
    }
}

/// One domain, one event type and one edition that a handler has subscribed to, each with `*` for any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredInterest {
    /// The domain.
    pub domain: String,
    /// The event type.
    pub event_type: String,
    /// The edition.
    pub edition: String,
    /// Events created before are not the handler's by it; none: it is there as long as the handler.
    pub since: Option<Timestamp>,
}

/// Keeps the handlers.
#[async_trait]
pub trait HandlerRegistry: Send + Sync {
    /// Registers the handler if it is new; answers what was durably registered, now or earlier.
    async fn register(&self, handler: &HandlerName, start: Start, now: Timestamp)
    -> Result<Registration, StorageError>;

    /// What a handler has subscribed to, as it was last put; none for one that is new.
    async fn interests(&self, handler: &HandlerName) -> Result<Option<Vec<RegisteredInterest>>, StorageError>;

    /// Puts what a handler has subscribed to.
    async fn put_interests(&self, handler: &HandlerName, interests: &[RegisteredInterest]) -> Result<(), StorageError>;

    /// The handlers that an operator has paused.
    async fn paused(&self) -> Result<BTreeSet<HandlerName>, StorageError>;
}

/// The event that a handler was being given, alone, when its process may have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Its root.
    pub root: Root,
    /// Its sequence.
    pub sequence: Sequence,
    /// How often it was given with this noted before; its first attempt was not.
    pub attempts: u32,
}

/// How a handler's life before this one ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// It did not stop by itself: the process was killed, or ended with an event in a handler's hands.
    pub unclean: bool,
    /// The event it was being given, where that was noted.
    pub suspect: Option<Suspect>,
}

/// Keeps how the lives of one replica's handlers go: the port of its lanes.
#[async_trait]
pub trait Lives: Send + Sync {
    /// Notes that a life begins.
    async fn begin(&self, handler: &HandlerName) -> Result<(), StorageError>;
    /// Notes the event that the handler is about to be given.
    async fn suspect(&self, handler: &HandlerName, suspect: &Suspect) -> Result<(), StorageError>;
    /// Forgets it.
    async fn clear(&self, handler: &HandlerName) -> Result<(), StorageError>;
    /// Notes that the life ended as it should.
    async fn end(&self, handler: &HandlerName) -> Result<(), StorageError>;
}

/// Keeps the lives of all replicas.
#[async_trait]
pub trait LivesOfAll: Send + Sync {
    /// Where this member notes its own.
    fn notes_of(&self, member: &MemberId) -> Arc<dyn Lives>;
    /// The members of which a life for this handler is kept.
    async fn members(&self, handler: &HandlerName) -> Result<Vec<MemberId>, StorageError>;
    /// How a handler's life in a member went: unclean when its end was not noted.
    async fn of(&self, member: &MemberId, handler: &HandlerName) -> Result<Life, StorageError>;
    /// Forgets it.
    async fn forget(&self, member: &MemberId, handler: &HandlerName) -> Result<(), StorageError>;
}
