//! What a handler is given and what it answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::event::{Event, Root};

/// Consecutive events of one root, in sequence order, never empty. Events whose type the subscription leaves out are
/// not in it.
#[derive(Debug, Clone)]
pub struct RootBatch {
    /// The root of all the events.
    pub root: Root,
    /// The events, strictly increasing in sequence.
    pub events: Vec<Arc<Event>>,
}

/// How many events of a batch, from its first, a handler has taken for good. Fewer than all is not an error: the rest
/// comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The number of events accepted.
    pub events: usize,
}

impl Accepted {
    /// Every event of the batch.
    #[must_use]
    pub fn all(batch: &RootBatch) -> Self {
        Self { events: batch.events.len() }
    }
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a handler did not accept the first event of a batch.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// It may succeed later: the root is tried again after a growing wait, other roots go on.
    #[error("{reason}")]
    Retry {
        /// What happened, without payload.
        reason: String,
        /// The least wait the receiver asked for.
        after: Option<Duration>,
        /// The cause.
        #[source]
        source: Option<Source>,
    },
    /// It is asked to come later, and the event has no part in that: the root is tried again after a wait, for as long as
    /// it takes; nothing is counted against it (contract clause 13), and other roots go on.
    #[error("{reason}")]
    Throttled {
        /// What happened, without payload.
        reason: String,
        /// The least wait the receiver asked for.
        after: Option<Duration>,
    },
    /// It is not about the event: the receiver cannot be reached, refuses the credentials, or does not exist. The
    /// whole handler halts and probes until it is back; nothing is counted against the root (contract clause 13).
    #[error("{reason}")]
    Unavailable {
        /// What happened and what mends it.
        reason: String,
        /// The least wait the receiver asked for.
        after: Option<Duration>,
        /// The cause.
        #[source]
        source: Option<Source>,
    },
    /// It will never succeed: this root stops for this handler, other roots go on.
    #[error("{reason}")]
    Permanent {
        /// What happened, without payload.
        reason: String,
        /// The cause.
        #[source]
        source: Option<Source>,
    },
}

impl HandlerError {
    /// What it is called in metrics and traces.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable { .. } => "unavailable",
            Self::Permanent { .. } => "permanent",
        }
    }

    /// A failure worth another attempt.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None, source: None }
    }

    /// The receiver asks to come later.
    pub fn throttled(reason: impl Into<String>) -> Self {
        Self::Throttled { reason: reason.into(), after: None }
    }

    /// An outage of the receiver.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), after: None, source: None }
    }

    /// A failure that no further attempt will mend.
    pub fn permanent(reason: impl Into<String>) -> Self {
        Self::Permanent { reason: reason.into(), source: None }
    }
}

/// How many events a handler takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// Roots in one call of [`Handler::deliver_group`], at least 1.
    pub roots: usize,
    /// Events of one root in one call, at least 1.
    pub events_per_root: usize,
    /// Payload bytes of one root in one call; a single larger event is still given.
    pub bytes_per_root: usize,
    /// Payload bytes in one call; a single larger event is still given.
    pub bytes: usize,
    /// A payload that is stored in chunks and larger than this is not put together: its event comes without it, and
    /// [`Event::chunked`] says so.
    pub payload_bytes_max: usize,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self { roots: 1, events_per_root: 100, bytes_per_root: 1 << 20, bytes: 1 << 20, payload_bytes_max: usize::MAX }
    }
}

/// A named receiver of events.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Takes one root's consecutive events. Different roots come concurrently, one root never does.
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError>;

    /// How much it wants at once.
    fn limits(&self) -> GroupLimits {
        GroupLimits::default()
    }

    /// Whether what it accepts has its position written with it; then nobody else writes one.
    fn commits_positions(&self) -> bool {
        false
    }

    /// Takes several roots at once, for receivers with calls of their own that carry many; answers for each in the
    /// order given.
    async fn deliver_group(&self, group: &[RootBatch]) -> Vec<Result<Accepted, HandlerError>> {
        let mut answers = Vec::with_capacity(group.len());
        for batch in group {
            answers.push(self.deliver(batch).await);
        }
        answers
    }
}
