//! Marks: a root that is not in its normal course for a handler says so on its position row (design section 3).
//!
//! Types and the port; the adapter on DynamoDB is in `mark_store`. A mark covers its root for checkpoints: what lies
//! behind the position is fetched from the table when the root goes on. Invariant: a mark is written together with
//! what the handler has covered, so that nothing accepted before is delivered again.

use async_trait::async_trait;

use super::{Hole, Passed, StorageError};
use crate::event::{Root, Sequence, Timestamp};
use crate::handler::HandlerName;
use crate::stream::Branch;

/// The longest reason kept, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// Who lets the root go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkState {
    /// The relay itself: it tries again, or was told to by `parked release`.
    Deferred,
    /// An operator.
    Parked,
}

impl MarkState {
    /// As it stands in the row.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deferred => "deferred",
            Self::Parked => "parked",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Deferred, Self::Parked].into_iter().find(|state| state.as_str() == text)
    }
}

/// Why and where a root stands still for a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Who lets it go on.
    pub state: MarkState,
    /// The event it stands before.
    pub sequence: Sequence,
    /// How often the handler was given that event.
    pub attempts: u32,
    /// What the handler, or the relay, said; no payload.
    pub reason: String,
    /// When it was marked.
    pub marked_at: Timestamp,
    /// An operator has ordered it back: what lies between `sequence` and the position is given again. The position stays.
    pub rewound: bool,
    /// The branch of the lane that met the root: who reads it goes on with a deferred root. None when no lane on the stream
    /// has met it, or the mark was written before branches were.
    pub branch: Option<Branch>,
}

impl Mark {
    /// A mark of no branch; a long reason is cut.
    #[must_use]
    pub fn new(state: MarkState, sequence: Sequence, attempts: u32, reason: &str, marked_at: Timestamp) -> Self {
        Self { state, sequence, attempts, reason: bounded(reason), marked_at, rewound: false, branch: None }
    }
}

/// Cut to the longest reason kept.
fn bounded(reason: &str) -> String {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}

/// How a root stands for a handler: all that its position row says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The last sequence durably finished; none when there is none.
    pub position: Option<Sequence>,
    /// Its mark, when it is not in its normal course.
    pub mark: Option<Mark>,
    /// The holes that the handler was made to pass; none mostly.
    pub passed: Option<Box<Passed>>,
}

impl Standing {
    /// The holes that are passed still when a root goes on from an event that appeared in one of them: those before it,
    /// for what follows is given again. None when it is parked for another reason.
    #[must_use]
    pub fn filled(&self) -> Option<Passed> {
        let (mark, passed) = self.mark.as_ref().zip(self.passed.as_deref())?;
        passed.contains(mark.sequence).then(|| passed.before(mark.sequence))
    }
}

/// A mark that was taken away: others may remember it for a while, and let go of what the stream brings. Until the table
/// was looked at after that, this stands for the root in the mark's place, so that whoever takes over looks at it, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ending {
    /// The event the mark stood before.
    pub sequence: Sequence,
    /// When the mark was written.
    pub marked_at: Timestamp,
    /// Its branch.
    pub branch: Option<Branch>,
}

impl Ending {
    /// What is left of a mark that is taken away.
    #[must_use]
    pub fn of(mark: &Mark) -> Self {
        Self { sequence: mark.sequence, marked_at: mark.marked_at, branch: mark.branch.clone() }
    }
}

/// The marked roots of a handler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marked {
    /// Those that the relay goes on with, and the branch each was met on.
    pub deferred: Vec<(Root, Option<Branch>)>,
    /// How many wait for an operator.
    pub parked: usize,
    /// Those whose mark was taken away, and that are to be looked at once more.
    pub ending: Vec<(Root, Ending)>,
}

impl Marked {
    /// Sorts marked roots.
    pub fn of(marked: impl IntoIterator<Item = (Root, MarkState, Option<Branch>)>) -> Self {
        let mut sorted = Self::default();
        marked.into_iter().for_each(|(root, state, branch)| sorted.add(root, state, branch));
        sorted
    }

    pub(super) fn add(&mut self, root: Root, state: MarkState, branch: Option<Branch>) {
        match state {
            MarkState::Deferred => self.deferred.push((root, branch)),
            MarkState::Parked => self.parked += 1,
        }
    }
}

/// What became of a conditional change of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marking {
    /// It is as asked.
    Done,
    /// The row is no longer what it was taken for: nothing was written.
    Refused,
}

/// An event that a handler was made to pass, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// The event.
    pub sequence: Sequence,
    /// How often the handler was given it.
    pub attempts: u32,
    /// Why it was passed.
    pub reason: String,
}

impl Skip {
    /// A record; a long reason is cut.
    #[must_use]
    pub fn new(sequence: Sequence, attempts: u32, reason: &str) -> Self {
        Self { sequence, attempts, reason: bounded(reason) }
    }
}

/// A hole that a handler is made to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// It.
    pub hole: Hole,
    /// All that were passed, it among them.
    pub passed: Passed,
    /// Why, for the record.
    pub reason: String,
}

impl Pass {
    /// The position behind it, of a root with this one.
    #[must_use]
    pub fn position(&self, before: Option<Sequence>) -> Sequence {
        before.map_or(self.hole.last, |before| before.max(self.hole.last))
    }
}

/// Marks roots, for the relay and for operators.
#[async_trait]
pub trait MarkStore: Send + Sync {
    /// Marks a root that stands like this: its position is set to what is covered (none: nothing is), and its mark is
    /// replaced. Refused when the position is past that already, or the root carries another mark: an operator's.
    async fn mark(
        &self,
        handler: &HandlerName,
        root: &Root,
        standing: &Standing,
        mark: &Mark,
    ) -> Result<Marking, StorageError>;

    /// Takes a mark away, and leaves its [`Ending`]. Refused when the root carries another mark, or none.
    async fn unmark(&self, handler: &HandlerName, root: &Root, mark: &Mark) -> Result<Marking, StorageError>;

    /// The root was looked at once more: what is left of its mark goes, unless it was marked again meanwhile.
    async fn forget(&self, handler: &HandlerName, root: &Root, ending: &Ending) -> Result<Marking, StorageError>;

    /// Takes a root's position and mark away: the table has no row of it any more.
    async fn purge(&self, handler: &HandlerName, root: &Root) -> Result<(), StorageError>;

    /// Makes a handler pass a hole of a root that stands like this: its position is set to the hole's end, or stays
    /// where it is beyond; the hole is kept and recorded. Refused as [`MarkStore::mark`] is, or when other holes were
    /// passed meanwhile.
    async fn pass(
        &self,
        handler: &HandlerName,
        root: &Root,
        standing: &Standing,
        pass: &Pass,
    ) -> Result<Marking, StorageError>;

    /// Records that a handler passes an event it did not accept. The position is not touched.
    async fn record_skip(&self, handler: &HandlerName, root: &Root, skip: &Skip) -> Result<(), StorageError>;

    /// The marked roots of a handler.
    async fn marked(&self, handler: &HandlerName) -> Result<Marked, StorageError>;

    /// A number that changes whenever an operator has changed a mark.
    async fn orders(&self) -> Result<u64, StorageError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters() {
        let reason = "ä".repeat(REASON_BYTES_MAX);
        let mark = Mark::new(MarkState::Parked, Sequence(3), 1, &format!("x{reason}"), Timestamp::from_unix_millis(0));
        assert_eq!(mark.reason.len(), REASON_BYTES_MAX - 1);
        assert!(reason.contains(&mark.reason[1..]));
    }

    #[test]
    fn a_state_survives_its_text() {
        for state in [MarkState::Deferred, MarkState::Parked] {
            assert_eq!(MarkState::parse(state.as_str()), Some(state));
        }
        assert_eq!(MarkState::parse("asleep"), None);
    }
}
