//! What is asked of the table when the stream did not bring it, and what it answered.

use crate::event::{Root, Row, Sequence};
use crate::storage::{EventSource, StorageError};

/// Rows one repair reads at most; a longer gap takes several.
pub(crate) const REPAIR_ROWS_MAX: usize = 500;

/// A consistent read of a root's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairOrder {
    /// The root.
    pub root: Root,
    /// The first sequence wanted.
    pub from: Sequence,
    /// The last sequence wanted.
    pub to: Sequence,
}

/// What the table holds of what was asked, up to a bound.
#[derive(Debug, Clone, Default)]
pub struct Repaired {
    /// The rows in order, not necessarily without gaps.
    pub rows: Vec<Row>,
    /// Nothing was left unread.
    pub complete: bool,
}

impl RepairOrder {
    /// Carries the order out.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn run(&self, events: &dyn EventSource) -> Result<Repaired, StorageError> {
        let page = events.read_consistent(&self.root, self.from, self.to, REPAIR_ROWS_MAX).await?;
        Ok(Repaired { complete: page.next.is_none(), rows: page.rows })
    }
}
