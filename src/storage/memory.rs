//! The events and positions tables in memory, for tests and simulation. Clones share the same rows, as processes share
//! a table.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Advance, Advanced, EventSource, PositionStore, RowPage, StorageError};
use crate::event::{Event, InvalidRow, Root, Row, Sequence};
use crate::handler::HandlerName;

/// The events table in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryEvents(Arc<Mutex<BTreeMap<(Root, Sequence), Row>>>);

impl MemoryEvents {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<(Root, Sequence), Row>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts an event, replacing the row it may find.
    pub fn put(&self, event: Event) {
        self.with(|rows| rows.insert((event.root.clone(), event.sequence), Ok(event)));
    }

    /// Puts a row that cannot be read as an event.
    pub fn put_invalid(&self, invalid: InvalidRow) {
        self.with(|rows| rows.insert((invalid.root.clone(), invalid.sequence), Err(invalid)));
    }

    /// Removes a row.
    pub fn remove(&self, root: &Root, sequence: Sequence) {
        self.with(|rows| rows.remove(&(root.clone(), sequence)));
    }

    /// Every row, by root and sequence.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.with(|rows| rows.values().cloned().collect())
    }
}

#[async_trait]
impl EventSource for MemoryEvents {
    async fn read_consistent(
        &self,
        root: &Root,
        from: Sequence,
        to: Sequence,
        rows_max: usize,
    ) -> Result<RowPage, StorageError> {
        if from > to {
            return Ok(RowPage::default());
        }
        Ok(self.with(|rows| {
            let mut found = rows.range((root.clone(), from)..=(root.clone(), to));
            let page: Vec<Row> = found.by_ref().take(rows_max).map(|(_, row)| row.clone()).collect();
            RowPage { rows: page, next: found.next().map(|((_, sequence), _)| *sequence) }
        }))
    }
}

/// The positions table in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryPositions(Arc<Mutex<BTreeMap<(HandlerName, Root), Sequence>>>);

impl MemoryPositions {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<(HandlerName, Root), Sequence>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A position, as it stands.
    #[must_use]
    pub fn position(&self, handler: &HandlerName, root: &Root) -> Option<Sequence> {
        self.with(|rows| rows.get(&(handler.clone(), root.clone())).copied())
    }
}

#[async_trait]
impl PositionStore for MemoryPositions {
    async fn load(&self, handler: &HandlerName, roots: &[Root]) -> Result<Vec<Option<Sequence>>, StorageError> {
        Ok(roots.iter().map(|root| self.position(handler, root)).collect())
    }

    async fn advance(&self, handler: &HandlerName, advances: &[Advance]) -> Vec<Result<Advanced, StorageError>> {
        self.with(|rows| {
            (advances.iter())
                .map(|advance| {
                    let key = (handler.clone(), advance.root.clone());
                    match rows.get(&key) {
                        Some(&durable) if durable >= advance.to => Ok(Advanced::Refused { durable }),
                        _ => {
                            rows.insert(key, advance.to);
                            Ok(Advanced::Written)
                        }
                    }
                })
                .collect()
        })
    }
}
