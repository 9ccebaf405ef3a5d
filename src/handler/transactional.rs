//! A handler whose effects are DynamoDB writes: they and its position commit together, so each event counts once
//! (contract clause 9).
//!
//! Whatever happens between two events of a root (a crash, a lost reply, another replica), the position says what was
//! applied: what it covers is never applied again, and writes that were computed from another position are refused.
//! Invariant: every transaction's condition is equality with the position its writes were computed from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::TransactWriteItem;
use tokio::time::sleep;

use super::{Accepted, GroupLimits, Handler, HandlerError, HandlerName, RootBatch};
use crate::event::{Event, Root, Sequence};
use crate::failpoint::{self, Failpoint};
use crate::storage::{Commit, CommitStore, Committed, StorageError};
use crate::time::{Backoff, BackoffPolicy, Clock, Random};

/// Writes of a handler in one transaction: DynamoDB's 100, less the position.
pub const WRITES_MAX: usize = 99;

/// How often writes are computed again because the position had moved.
const ROUNDS_MAX: u32 = 5;

/// How often a transaction is sent, as it is, when no answer came or it met another.
const SENDS_MAX: u32 = 6;

/// The waits between.
const SEND_BACKOFF: BackoffPolicy =
    BackoffPolicy { initial: Duration::from_millis(20), max: Duration::from_millis(500) };

/// Roots whose position is remembered; then all are forgotten, and read again when they are met.
const BASES_MAX: usize = 10_000;

/// What events do to tables of the handler's own.
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// The writes for one root's consecutive events: at most [`WRITES_MAX`], no two on the same item, none on the
    /// relay's tables. For more it is asked again with fewer events. It may be asked several times for the same
    /// events, and has no effect but what it answers.
    async fn writes(&self, batch: &RootBatch) -> Result<Vec<TransactWriteItem>, HandlerError>;
}

/// A handler that applies a [`Projection`] exactly once.
pub struct Transactional<P> {
    handler: HandlerName,
    positions: Arc<dyn CommitStore>,
    projection: P,
    clock: Clock,
    random: Random,
    bases: Mutex<HashMap<Root, Sequence>>,
}

impl<P: Projection> Transactional<P> {
    /// The handler `handler`, whose positions are in `positions`: the same name and table as the relay's.
    #[must_use]
    pub fn new(handler: HandlerName, positions: impl CommitStore + 'static, projection: P) -> Self {
        let (clock, random) = (Clock::system(), Random::from_entropy());
        Self { handler, positions: Arc::new(positions), projection, clock, random, bases: Mutex::default() }
    }

    /// With another clock and other random numbers: those of a run that can be repeated.
    #[must_use]
    pub fn with_time(self, clock: Clock, random: Random) -> Self {
        Self { clock, random, ..self }
    }

    fn with_bases<T>(&self, act: impl FnOnce(&mut HashMap<Root, Sequence>) -> T) -> T {
        act(&mut self.bases.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn load(&self, root: &Root) -> Result<Option<Sequence>, HandlerError> {
        let loaded = self.positions.load(&self.handler, std::slice::from_ref(root)).await.map_err(failed)?;
        Ok(loaded.into_iter().next().and_then(|standing| standing.position))
    }

    /// The writes of as many of the batch's first events as fit, and how many those are.
    async fn fitting(&self, mut batch: RootBatch) -> Result<(Vec<TransactWriteItem>, usize), HandlerError> {
        loop {
            let writes = self.projection.writes(&batch).await?;
            let events = batch.events.len();
            if writes.len() <= WRITES_MAX {
                return Ok((writes, events));
            }
            if events == 1 {
                let count = writes.len();
                let reason = format!("one event makes {count} writes, and a transaction takes {WRITES_MAX}");
                return Err(HandlerError::permanent(reason));
            }
            batch.events.truncate(events.div_ceil(2));
        }
    }

    /// Sends a transaction until there is an answer: the token makes it one, however often it is sent.
    async fn commit(&self, commit: &Commit) -> Result<Committed, HandlerError> {
        let mut backoff = Backoff::new(SEND_BACKOFF, self.random.clone());
        for _ in 1..SENDS_MAX {
            match self.positions.commit(&self.handler, commit).await {
                Err(StorageError::Unavailable { .. } | StorageError::Conflict { .. }) => {
                    sleep(backoff.next_wait()).await;
                }
                answer => return answer.map_err(failed),
            }
        }
        self.positions.commit(&self.handler, commit).await.map_err(failed)
    }
}

/// What is wrong with the writes is the event's fault; what two transactions do to each other passes; all else is about
/// the tables.
fn failed(error: StorageError) -> HandlerError {
    let reason = format!("the transaction of the handler's writes and its position failed: {error}");
    let (refused, conflict) =
        (matches!(error, StorageError::Invalid { .. }), matches!(error, StorageError::Conflict { .. }));
    let source = Some(error.into());
    match (refused, conflict) {
        (true, _) => HandlerError::Permanent { reason, source },
        (_, true) => HandlerError::Retry { reason, after: None, source },
        _ => HandlerError::Unavailable { reason, after: None, source },
    }
}

#[async_trait]
impl<P: Projection> Handler for Transactional<P> {
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        // Taken out: whoever is stopped in the middle leaves nothing that may be wrong. What is remembered may be old, so
        // only a position that was read now says that an event was applied.
        let first = batch.events.first().map_or(Sequence::FIRST, |event| event.sequence);
        let remembered = self.with_bases(|bases| bases.remove(&batch.root)).filter(|base| *base < first);
        let mut base = match remembered {
            Some(base) => Some(base),
            None => self.load(&batch.root).await?,
        };
        for _ in 0..ROUNDS_MAX {
            let is_applied = |event: &&Arc<Event>| base.is_some_and(|base| event.sequence <= base);
            let applied = batch.events.iter().take_while(is_applied).count();
            let applied = if failpoint::is_set(Failpoint::AppliedNotAsked) { 0 } else { applied };
            let left = RootBatch { root: batch.root.clone(), events: batch.events[applied..].to_vec() };
            if left.events.is_empty() {
                return Ok(Accepted::all(batch));
            }
            let (writes, events) = self.fitting(left.clone()).await?;
            let to = left.events[events - 1].sequence;
            let commit =
                Commit { root: batch.root.clone(), base, to, writes, at: self.clock.now(), token: self.random.token() };
            match self.commit(&commit).await? {
                Committed::Done => {
                    self.with_bases(|bases| {
                        if bases.len() >= BASES_MAX {
                            bases.clear();
                        }
                        bases.insert(batch.root.clone(), to);
                    });
                    return Ok(Accepted { events: applied + events });
                }
                Committed::Moved => base = self.load(&batch.root).await?,
                Committed::Refused(write) => {
                    return Err(HandlerError::retry(format!(
                        "a condition of the handler's write {write} does not hold"
                    )));
                }
            }
        }
        Err(HandlerError::retry("the position moves again and again: somebody else applies the same events"))
    }

    fn limits(&self) -> GroupLimits {
        GroupLimits { events_per_root: 25, ..GroupLimits::default() }
    }

    fn commits_positions(&self) -> bool {
        true
    }
}
