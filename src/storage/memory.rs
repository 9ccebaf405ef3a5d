//! The events and positions tables in memory, for tests and simulation. Clones share the same rows, as processes share
//! a table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Advance, Advanced, Commit, CommitStore, Committed, Ending, EventSource, Mark, MarkState, MarkStore, Marked,
    Marking, Pass, PositionStore, RowPage, Skip, Standing, StorageError,
};
use crate::event::{Event, InvalidRow, Root, Row, Sequence, Timestamp};
use crate::failpoint::{self, Failpoint};
use crate::handler::HandlerName;

/// The events table in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryEvents(Arc<Contents>);

#[derive(Debug, Default)]
struct Contents {
    rows: Mutex<BTreeMap<(Root, Sequence), Row>>,
    /// By their append.
    chunks: Mutex<BTreeMap<Box<str>, Vec<Bytes>>>,
}

impl MemoryEvents {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<(Root, Sequence), Row>) -> T) -> T {
        act(&mut self.0.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts the chunks of one append's payload.
    pub fn put_chunks(&self, append_id: &str, chunks: Vec<Bytes>) {
        let mut all = self.0.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(append_id.into(), chunks);
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

    async fn payload(&self, event: &Event) -> Result<Bytes, StorageError> {
        let Some(chunked) = &event.chunked else { return Ok(event.payload.clone()) };
        let unreadable = |reason| {
            let key = format!("{} {}", event.root.key(), event.sequence);
            StorageError::Unreadable { table: "memory".to_owned(), key, reason }
        };
        let mut joining = chunked.join();
        let chunks = self.0.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, chunk) in (0..).zip(chunks.get(&chunked.append_id).into_iter().flatten()) {
            joining.push(number, chunk).map_err(unreadable)?;
        }
        joining.finish().map_err(unreadable)
    }
}

/// The positions table in memory, marks included. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryPositions(Arc<Mutex<Standings>>);

#[derive(Debug, Default)]
struct Standings {
    rows: BTreeMap<(HandlerName, Root), Standing>,
    skips: Vec<(HandlerName, Root, Skip)>,
    orders: u64,
    endings: BTreeMap<(HandlerName, Root), Ending>,
    /// The tokens of transactions that were carried out.
    committed: BTreeSet<String>,
}

impl MemoryPositions {
    fn with<T>(&self, act: impl FnOnce(&mut Standings) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How a root stands for a handler.
    #[must_use]
    pub fn standing(&self, handler: &HandlerName, root: &Root) -> Standing {
        self.with(|all| all.rows.get(&(handler.clone(), root.clone())).cloned().unwrap_or_default())
    }

    /// A handler's position of a root.
    #[must_use]
    pub fn position(&self, handler: &HandlerName, root: &Root) -> Option<Sequence> {
        self.standing(handler, root).position
    }

    /// Whether a transaction with this token was carried out.
    #[must_use]
    pub fn has_committed(&self, token: &str) -> bool {
        self.with(|all| all.committed.contains(token))
    }

    /// The events that were passed.
    #[must_use]
    pub fn skips(&self) -> Vec<(HandlerName, Root, Skip)> {
        self.with(|all| all.skips.clone())
    }

    /// An operator has ordered something: a running relay looks at what has changed.
    pub fn order(&self) {
        self.with(|all| all.orders += 1);
    }

    /// What an operator does who orders a root back; true when it could be.
    pub fn rewind(&self, handler: &HandlerName, root: &Root, to: Sequence) -> bool {
        self.with(|all| {
            all.orders += 1;
            let row = all.rows.get_mut(&(handler.clone(), root.clone()));
            let Some(row) = row.filter(|row| row.mark.is_none() && row.position >= Some(to)) else { return false };
            let mark = Mark::new(MarkState::Deferred, to, 0, "ordered back", Timestamp::from_unix_millis(0));
            row.mark = Some(Mark { rewound: true, ..mark });
            all.endings.remove(&(handler.clone(), root.clone()));
            true
        })
    }

    /// What an operator does with a parked root: it goes on, behind the event when that is passed.
    pub fn release(&self, handler: &HandlerName, root: &Root, passed: bool) {
        self.with(|all| {
            all.orders += 1;
            let Some(row) = all.rows.get_mut(&(handler.clone(), root.clone())) else { return };
            let filled = row.filled();
            let Some(mark) = &mut row.mark else { return };
            mark.state = MarkState::Deferred;
            match (passed, filled) {
                (true, None) => row.position = row.position.max(Some(mark.sequence)),
                (true, Some(_)) => row.passed = row.passed.as_deref().map(|all| Box::new(all.without(mark.sequence))),
                (false, Some(before)) => (mark.rewound, row.passed) = (true, Some(Box::new(before))),
                (false, None) => {}
            }
            if passed {
                mark.sequence = mark.sequence.next();
            }
        });
    }
}

#[async_trait]
impl PositionStore for MemoryPositions {
    async fn load(&self, handler: &HandlerName, roots: &[Root]) -> Result<Vec<Standing>, StorageError> {
        Ok(roots.iter().map(|root| self.standing(handler, root)).collect())
    }

    async fn advance(&self, handler: &HandlerName, advances: &[Advance]) -> Vec<Result<Advanced, StorageError>> {
        let write = |all: &mut Standings, advance: &Advance| {
            let row = all.rows.entry((handler.clone(), advance.root.clone())).or_default();
            match row.position {
                Some(durable) if durable >= advance.to && !failpoint::is_set(Failpoint::UnconditionalPosition) => {
                    Advanced::Refused { durable }
                }
                _ => {
                    row.position = Some(advance.to);
                    Advanced::Written
                }
            }
        };
        self.with(|all| advances.iter().map(|advance| Ok(write(all, advance))).collect())
    }
}

/// The other writes are their caller's to carry out, when a token is [`Committed::Done`] for the first time.
#[async_trait]
impl CommitStore for MemoryPositions {
    async fn commit(&self, handler: &HandlerName, commit: &Commit) -> Result<Committed, StorageError> {
        Ok(self.with(|all| {
            if all.committed.contains(&commit.token) {
                return Committed::Done;
            }
            let row = all.rows.entry((handler.clone(), commit.root.clone())).or_default();
            if row.position != commit.base {
                return Committed::Moved;
            }
            row.position = Some(commit.to);
            all.committed.insert(commit.token.clone());
            Committed::Done
        }))
    }
}

#[async_trait]
impl MarkStore for MemoryPositions {
    async fn mark(
        &self,
        handler: &HandlerName,
        root: &Root,
        standing: &Standing,
        mark: &Mark,
    ) -> Result<Marking, StorageError> {
        Ok(self.with(|all| {
            let row = all.rows.entry((handler.clone(), root.clone())).or_default();
            if row.position > standing.position || row.mark != standing.mark {
                return Marking::Refused;
            }
            (row.position, row.mark) = (standing.position, Some(mark.clone()));
            all.endings.remove(&(handler.clone(), root.clone()));
            Marking::Done
        }))
    }

    async fn pass(
        &self,
        handler: &HandlerName,
        root: &Root,
        standing: &Standing,
        pass: &Pass,
    ) -> Result<Marking, StorageError> {
        Ok(self.with(|all| {
            let row = all.rows.entry((handler.clone(), root.clone())).or_default();
            let to = pass.position(standing.position);
            if row.position > Some(to) || row.mark != standing.mark || row.passed != standing.passed {
                return Marking::Refused;
            }
            (row.position, row.passed) = (Some(to), Some(Box::new(pass.passed.clone())));
            all.skips.push((handler.clone(), root.clone(), Skip::new(pass.hole.first, 0, &pass.reason)));
            Marking::Done
        }))
    }

    async fn unmark(&self, handler: &HandlerName, root: &Root, mark: &Mark) -> Result<Marking, StorageError> {
        Ok(self.with(|all| {
            let row = all.rows.entry((handler.clone(), root.clone())).or_default();
            if row.mark.as_ref() != Some(mark) {
                return Marking::Refused;
            }
            row.mark = None;
            all.endings.insert((handler.clone(), root.clone()), Ending::of(mark));
            Marking::Done
        }))
    }

    async fn forget(&self, handler: &HandlerName, root: &Root, ending: &Ending) -> Result<Marking, StorageError> {
        let key = (handler.clone(), root.clone());
        Ok(self.with(|all| match all.endings.get(&key) {
            Some(left) if left == ending => {
                all.endings.remove(&key);
                Marking::Done
            }
            _ => Marking::Refused,
        }))
    }

    async fn purge(&self, handler: &HandlerName, root: &Root) -> Result<(), StorageError> {
        let key = (handler.clone(), root.clone());
        self.with(|all| (all.rows.remove(&key), all.endings.remove(&key)));
        Ok(())
    }

    async fn record_skip(&self, handler: &HandlerName, root: &Root, skip: &Skip) -> Result<(), StorageError> {
        self.with(|all| all.skips.push((handler.clone(), root.clone(), skip.clone())));
        Ok(())
    }

    async fn marked(&self, handler: &HandlerName) -> Result<Marked, StorageError> {
        Ok(self.with(|all| {
            let mine = all.rows.iter().filter(|((of, _), _)| of == handler);
            let marked = Marked::of(mine.filter_map(|((_, root), row)| {
                let mark = row.mark.as_ref()?;
                Some((root.clone(), mark.state, mark.branch.clone()))
            }));
            let endings = all.endings.iter().filter(|((of, _), _)| of == handler);
            let ending = endings.map(|((_, root), ending)| (root.clone(), ending.clone())).collect();
            Marked { ending, ..marked }
        }))
    }

    async fn orders(&self) -> Result<u64, StorageError> {
        Ok(self.with(|all| all.orders))
    }
}
