//! The bounds and intervals of one handler's lanes.

use std::time::Duration;

use crate::event::Timestamp;
use crate::handler::GroupLimits;
use crate::time::BackoffPolicy;

/// How one handler's lanes behave. Every queue, batch and wait has its bound here or as a constant beside its use.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    /// Events created before this moment are not the handler's; none when it starts at the beginning.
    pub started_at: Option<Timestamp>,
    /// The longest time an accepted event's position stays unwritten; zero writes after every batch and holds the root
    /// until it is written.
    pub flush_interval: Duration,
    /// Positions waiting to be written that bring the flush forward.
    pub flush_roots: usize,
    /// Events left out by type after which a root's position is written without a delivery.
    pub filtered_flush: u32,
    /// The longest pause between two checkpoints of a shard that moves.
    pub checkpoint_interval: Duration,
    /// How long a gap waits for the stream before the table is asked.
    pub gap_wait: Duration,
    /// How long a sequence may be absent from the table, consistently read, before it counts as a hole.
    pub hole_timeout: Duration,
    /// Root batches in flight at once.
    pub max_in_flight: usize,
    /// How much the handler takes at once.
    pub limits: GroupLimits,
    /// The handler writes the position of what it accepts with its own effects.
    pub commits_positions: bool,
    /// The longest one delivery may take.
    pub deliver_timeout: Duration,
    /// The waits between attempts at one root; a root that failed for good is tried again at the longest.
    pub retry: BackoffPolicy,
    /// After so many attempts at an event it counts as failed for good ...
    pub attempts_max: u32,
    /// ... or when it has failed for so long.
    pub age_max: Duration,
    /// What follows when an event has failed for good.
    pub on_failure: OnFailure,
    /// What follows when a row cannot be read as an event.
    pub on_invalid: OnInvalid,
    /// What follows when the table lacks an event though it holds later ones.
    pub on_hole: OnHole,
    /// What follows when a diverged edition is deleted from the table.
    pub on_edition_delete: OnEditionDelete,
    /// The longest time a root that waits may hold a checkpoint; then it is marked as deferred.
    pub checkpoint_hold: Duration,
    /// How long a mark is remembered before it is looked at again; so long after one was taken away its root is looked at
    /// once more, for what others have let go of on its strength.
    pub mark_ttl: Duration,
    /// Bytes of events that may wait in the lanes before they stop pulling.
    pub queued_bytes_max: usize,
    /// Roots remembered with their positions while nothing is to be done for them; one with something to do takes the
    /// place of two.
    pub idle_roots_max: usize,
    /// After an unclean end: so many events are given one by one, each noted before, so that one that ends the process is
    /// found.
    pub careful_events: u32,
    /// Roots that may be stuck before the lanes stop pulling.
    pub stuck_roots_max: usize,
}

/// What follows when an event has failed for good: refused by the handler, or tried too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// The root stops for this handler until an operator releases it; nothing is lost.
    #[default]
    Park,
    /// The event is passed, counted, logged and recorded.
    Skip,
    /// It is tried again for ever.
    Block,
}

/// What follows when a row cannot be read as an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnInvalid {
    /// The root stops there for this handler: until an operator releases it, or, where the handler blocks, until the row
    /// is mended.
    #[default]
    Park,
    /// The row is passed, counted, logged and recorded.
    Skip,
}

/// What follows when the table lacks an event of a root, though it holds later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnHole {
    /// The root stops there for this handler, as at a row that cannot be read.
    #[default]
    Park,
    /// The hole is passed, counted, logged and recorded; when it fills later the root parks there.
    Pass,
}

/// What follows when the last row of a root in a diverged edition is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnEditionDelete {
    /// Its position stays: what is written there later, up to that sequence, is taken for delivered.
    #[default]
    Keep,
    /// Its position goes.
    Purge,
}

/// How many roots above `flush_roots` may wait for their positions to be written before the lanes stop pulling: as many
/// as one more page may bring.
pub const UNWRITTEN_ROOTS_ABOVE: usize = 1_000;

/// How long lanes may remember a mark by default.
pub const MARK_TTL: Duration = Duration::from_secs(30);

impl LaneSettings {
    /// Roots whose positions may wait to be written before the lanes stop pulling.
    #[must_use]
    pub fn unwritten_roots_max(&self) -> usize {
        self.flush_roots + UNWRITTEN_ROOTS_ABOVE
    }
}

impl Default for LaneSettings {
    fn default() -> Self {
        Self {
            started_at: None,
            flush_interval: Duration::from_secs(1),
            flush_roots: 25_000,
            filtered_flush: 64,
            checkpoint_interval: Duration::from_secs(5),
            gap_wait: Duration::from_millis(200),
            hole_timeout: Duration::from_secs(10),
            max_in_flight: 64,
            limits: GroupLimits::default(),
            commits_positions: false,
            deliver_timeout: Duration::from_secs(30),
            retry: BackoffPolicy { initial: Duration::from_millis(100), max: Duration::from_secs(30) },
            attempts_max: 10,
            age_max: Duration::from_mins(10),
            on_failure: OnFailure::Park,
            on_invalid: OnInvalid::Park,
            on_hole: OnHole::Park,
            on_edition_delete: OnEditionDelete::Keep,
            checkpoint_hold: Duration::from_mins(1),
            mark_ttl: MARK_TTL,
            queued_bytes_max: 4 << 20,
            idle_roots_max: 20_000,
            careful_events: 1_000,
            stuck_roots_max: 10_000,
        }
    }
}
