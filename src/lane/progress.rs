//! How far a handler is, shared with whoever shows it: what it has delivered, and the age of what it has not.
//!
//! The lanes write the moment of the oldest undelivered record; the lag is computed when it is asked for, so it grows
//! when the lanes stand still, whatever the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::event::Timestamp;
use crate::stream::STREAM_RETENTION;

/// One handler's progress. Clones share the same state.
#[derive(Debug, Clone)]
pub struct Progress(Arc<State>);

#[derive(Debug)]
struct State {
    oldest_millis: AtomicI64,
    unread_since_millis: AtomicI64,
    queued_bytes: AtomicUsize,
    delivered_events: AtomicU64,
    stuck_roots: AtomicUsize,
    is_known: AtomicBool,
}

/// No record waits.
const NOTHING_WAITS: i64 = i64::MAX;

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(State {
            oldest_millis: AtomicI64::new(NOTHING_WAITS),
            unread_since_millis: AtomicI64::new(NOTHING_WAITS),
            queued_bytes: AtomicUsize::new(0),
            delivered_events: AtomicU64::new(0),
            stuck_roots: AtomicUsize::new(0),
            is_known: AtomicBool::new(false),
        }))
    }
}

impl Progress {
    /// The age of the oldest undelivered record, or the time for which nobody has read one of the handler's shards; zero
    /// when nothing waits.
    #[must_use]
    pub fn lag(&self, now: Timestamp) -> Duration {
        let lane = self.0.oldest_millis.load(Ordering::Relaxed);
        match lane.min(self.0.unread_since_millis.load(Ordering::Relaxed)) {
            NOTHING_WAITS => Duration::ZERO,
            millis => now.since(Timestamp::from_unix_millis(millis)),
        }
    }

    /// Whether anything is known of it: before its lanes run, no lag means nothing.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.is_known.load(Ordering::Relaxed)
    }

    /// Sets since when nobody has read one of the handler's shards; none when all are read.
    pub(crate) fn set_unread(&self, since: Option<Timestamp>) {
        let millis = since.map_or(NOTHING_WAITS, Timestamp::unix_millis);
        self.0.unread_since_millis.store(millis, Ordering::Relaxed);
    }

    /// The time left until the stream trims the oldest undelivered record; all of its 24 hours when none waits.
    #[must_use]
    pub fn safety(&self, now: Timestamp) -> Duration {
        STREAM_RETENTION.saturating_sub(self.lag(now))
    }

    /// Bytes of events that wait in the handler's lanes.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.0.queued_bytes.load(Ordering::Relaxed)
    }

    /// Events that the handler has accepted since the start of the process.
    #[must_use]
    pub fn delivered_events(&self) -> u64 {
        self.0.delivered_events.load(Ordering::Relaxed)
    }

    /// Roots that the handler cannot go on with.
    #[must_use]
    pub fn stuck_roots(&self) -> usize {
        self.0.stuck_roots.load(Ordering::Relaxed)
    }

    pub(super) fn delivered(&self, events: usize) {
        self.0.delivered_events.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(super) fn set(&self, oldest: Option<Timestamp>, queued_bytes: usize, stuck_roots: usize) {
        self.0.oldest_millis.store(oldest.map_or(NOTHING_WAITS, Timestamp::unix_millis), Ordering::Relaxed);
        self.0.queued_bytes.store(queued_bytes, Ordering::Relaxed);
        self.0.stuck_roots.store(stuck_roots, Ordering::Relaxed);
        self.0.is_known.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_grows_by_itself() {
        let progress = Progress::default();
        let at = Timestamp::from_unix_millis;
        assert!(!progress.is_known() && progress.lag(at(9_000)).is_zero());
        progress.set(Some(at(1_000)), 0, 0);
        assert!(progress.is_known());
        assert_eq!(progress.lag(at(4_000)), Duration::from_secs(3));
        assert_eq!(progress.lag(at(9_000)), Duration::from_secs(8));
        assert_eq!(progress.safety(at(9_000)), Duration::from_secs(24 * 3600 - 8));
        assert_eq!(progress.safety(at(100_000_000)), Duration::ZERO);
        progress.set_unread(Some(at(5_000)));
        assert_eq!(progress.lag(at(9_000)), Duration::from_secs(8));
        progress.set(None, 0, 0);
        assert_eq!(progress.lag(at(9_000)), Duration::from_secs(4));
        progress.set_unread(None);
        assert_eq!(progress.lag(at(9_000)), Duration::ZERO);
    }
}
