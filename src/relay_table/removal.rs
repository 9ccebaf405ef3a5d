//! What the relay's table knows of all handlers, and forgetting one that is gone for good.
//!
//! Invariant: the handler's own row goes last, so that one whose removal was cut short is still listed and can be removed
//! again.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::RelayTable;
use super::handlers::{HANDLERS, PAUSED};
use super::interests::INTERESTS;
use super::jobs::{JOBS, NEEDS, SEEN};
use super::lease_row::{PARTS, part_key};
use super::table::SK;
use crate::event::escape;
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::storage::call::text_of;

/// Rows removed at once.
const CALLS_AT_ONCE: usize = 8;

/// The partitions that each handler has of its own: what their keys begin with.
const OWN_PARTITIONS: [&str; 4] = ["progress", "marks", "skipped", "rewound"];

impl RelayTable {
    /// All handlers that have ever run and were not removed, by name.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn handlers(&self) -> Result<Vec<HandlerName>, StorageError> {
        let rows = self.partition(HANDLERS).await?;
        Ok(rows.iter().filter_map(|row| HandlerName::new(text_of(row, SK)?).ok()).collect())
    }

    /// Removes everything that this table holds of a handler: its next start is that of a new one. Its positions are in
    /// their own table, and are to be removed before.
    ///
    /// # Errors
    /// As a call failed; it can be made again.
    pub async fn forget_handler(&self, handler: &HandlerName) -> Result<(), StorageError> {
        let own = OWN_PARTITIONS.iter().map(|partition| format!("{partition}#{}", escape(handler.as_str())));
        for pk in own.chain((0..PARTS).map(|part| part_key(handler, part))) {
            // What was removed is gone from the first page.
            loop {
                let (rows, next) = self.page(&pk, None).await?;
                let keys = rows.iter().filter_map(|row| text_of(row, SK));
                let remove = |sk| self.remove(&pk, sk);
                stream::iter(keys).map(remove).buffer_unordered(CALLS_AT_ONCE).try_collect::<()>().await?;
                if next.is_none() {
                    break;
                }
            }
        }
        self.forget_lives(handler).await?;
        for pk in [JOBS, SEEN, NEEDS, PAUSED, INTERESTS, HANDLERS] {
            self.remove(pk, handler.as_str()).await?;
        }
        Ok(())
    }
}
