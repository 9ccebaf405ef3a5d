//! The three tables of the event store: events, positions, snapshots (design section 3).
//!
//! The ports the relay needs of them, [`EventSource`] and [`PositionStore`], with a DynamoDB adapter and one in memory
//! each; and the library's own event store for writers. Every write is conditional; nothing here retries: that is its
//! caller's decision.

pub(crate) mod call;
mod error;
mod event_append;
mod event_chunks;
mod event_store;
mod mark;
pub(crate) mod mark_orders;
mod mark_row;
mod mark_store;
mod memory;
mod passed;
mod position_advance;
mod position_commit;
mod position_store;
pub(crate) mod rows;
mod snapshot_store;
mod table_check;
mod tables;
pub(crate) mod transaction;

pub use error::StorageError;
pub use event_append::{APPEND_BYTES_MAX, APPEND_EVENTS_MAX, EVENT_BYTES_MAX, NewEvent};
pub use event_chunks::CHUNK_BYTES_DEFAULT;
pub use event_store::EventStore;
pub use mark::{Ending, Mark, MarkState, MarkStore, Marked, Marking, Pass, Skip, Standing};
pub use mark_store::DynamoMarks;
pub use memory::{MemoryEvents, MemoryPositions};
pub use passed::{Hole, Passed};
pub use position_commit::{Commit, CommitStore, Committed};
pub use position_store::{DynamoPositions, PositionCursor, PositionPage, PositionRow};
pub use snapshot_store::{Snapshot, SnapshotPut, SnapshotStore};
pub use tables::{
    KeyState, StreamState, TableNames, TableProgress, TableSpec, TableState, TablesError, create_all, describe_all,
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::event::{Event, Root, Row, Sequence};
use crate::handler::HandlerName;

/// The most roots one [`PositionStore::load`] takes: BatchGetItem's limit.
pub const LOAD_ROOTS_MAX: usize = 100;

/// One page of a root's rows, in sequence order.
#[derive(Debug, Clone, Default)]
pub struct RowPage {
    /// The rows, strictly increasing in sequence; not necessarily without gaps.
    pub rows: Vec<Row>,
    /// Where the next page begins; none when this was the last.
    pub next: Option<Sequence>,
}

/// Whether a read must show every write that was acknowledged before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Strongly consistent: for repair, and for whoever decides on what is read.
    Strong,
    /// Eventually consistent: half the price.
    Eventual,
}

/// Reads events from their table: for repair, and payloads that did not fit into their rows.
#[async_trait]
pub trait EventSource: Send + Sync {
    /// One page of the rows of `root` with `from <= sequence <= to`, read consistently; at most `rows_max` of them.
    async fn read_consistent(
        &self,
        root: &Root,
        from: Sequence,
        to: Sequence,
        rows_max: usize,
    ) -> Result<RowPage, StorageError>;

    /// The whole payload of an event, put together from its chunks where it is stored in some.
    /// [`StorageError::Unreadable`] when they are not what the event's row says.
    async fn payload(&self, event: &Event) -> Result<Bytes, StorageError>;
}

/// A position to write: the handler has durably finished `root` up to and including `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// Whose position.
    pub root: Root,
    /// What the table is believed to hold: none for no row.
    pub from: Option<Sequence>,
    /// The new position.
    pub to: Sequence,
}

/// What became of an [`Advance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advanced {
    /// The table holds the new position.
    Written,
    /// The table holds this one already, at or past the new one: nothing was written (a position never goes back).
    Refused {
        /// What the table holds.
        durable: Sequence,
    },
}

/// Positions read ahead by [`PositionStore::preload`].
#[derive(Debug, Clone, Default)]
pub struct Preloaded {
    /// What was found.
    pub positions: Vec<(HandlerName, Root, Standing)>,
    /// Whether that is all there is: a root not found then has no position.
    pub complete: bool,
}

/// Loads and advances the positions of handlers. Positions only ever grow.
#[async_trait]
pub trait PositionStore: Send + Sync {
    /// How at most [`LOAD_ROOTS_MAX`] roots stand, in the order asked, read consistently: position and mark, neither
    /// where there is no row.
    async fn load(&self, handler: &HandlerName, roots: &[Root]) -> Result<Vec<Standing>, StorageError>;

    /// Reads ahead positions of some handlers, consistently, in at most `pages_max` calls: the few calls of a start in
    /// the place of one for every hundred roots. A store that cannot do so answers with nothing, which is never wrong.
    async fn preload(&self, _handlers: &[HandlerName], _pages_max: usize) -> Result<Preloaded, StorageError> {
        Ok(Preloaded::default())
    }

    /// Advances each position under the condition `attribute_not_exists(#sequence) OR #sequence < :new`; answers in
    /// the order asked, each for itself: some may be written while others fail.
    async fn advance(&self, handler: &HandlerName, advances: &[Advance]) -> Vec<Result<Advanced, StorageError>>;
}
