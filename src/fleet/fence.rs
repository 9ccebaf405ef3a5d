//! The fence: until when this replica may start deliveries.
//!
//! Shared by the task that renews and by those that deliver, which ask it right before each delivery. Time is tokio's;
//! it goes on while a process is stopped. Invariant: it is moved forward by renewals only, to a moment counted from
//! before each was sent, and once it is broken for good it never opens again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::failpoint::{self, Failpoint};

/// Broken for good.
const BROKEN: u64 = u64::MAX;

/// Says whether a delivery may be started. Clones share it.
#[derive(Debug, Clone)]
pub struct Fence {
    began: Instant,
    /// Milliseconds since `began` until which deliveries may be started.
    until_millis: Arc<AtomicU64>,
}

impl Fence {
    /// A fence that is closed until the first renewal.
    #[must_use]
    pub fn closed(now: Instant) -> Self {
        Self { began: now, until_millis: Arc::new(AtomicU64::new(0)) }
    }

    /// One that never closes, for a relay that shares its shards with nobody.
    #[must_use]
    pub fn open() -> Self {
        Self { began: Instant::now(), until_millis: Arc::new(AtomicU64::new(BROKEN - 1)) }
    }

    /// A renewal that was sent then has succeeded: deliveries may be started for `within` from then on.
    pub fn renewed(&self, sent_at: Instant, within: Duration) {
        let until = millis(sent_at.saturating_duration_since(self.began) + within);
        // What is broken stays broken.
        let forward = |now: u64| (now != BROKEN && now < until).then_some(until);
        self.until_millis.fetch_update(Ordering::AcqRel, Ordering::Acquire, forward).ok();
    }

    /// Closes it for good: this incarnation is over.
    pub fn break_off(&self) {
        self.until_millis.store(BROKEN, Ordering::Release);
    }

    /// Whether a delivery may be started now.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        let until = self.until_millis.load(Ordering::Acquire);
        let is_open = until != BROKEN && millis(now.saturating_duration_since(self.began)) < until;
        is_open || failpoint::is_set(Failpoint::FenceNotAsked)
    }

    /// Whether it will never open again.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.until_millis.load(Ordering::Acquire) == BROKEN
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(BROKEN - 2).min(BROKEN - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_open_from_a_renewal_until_its_time_is_over() {
        let began = Instant::now();
        let fence = Fence::closed(began);
        assert!(!fence.is_open(began));
        fence.renewed(began + SECOND, 3 * SECOND);
        assert!(fence.is_open(began + 4 * SECOND - Duration::from_millis(1)));
        assert!(!fence.is_open(began + 4 * SECOND));
        // A renewal that was sent earlier and answered later takes nothing back.
        fence.renewed(began, 3 * SECOND);
        assert!(fence.is_open(began + 4 * SECOND - Duration::from_millis(1)));
        fence.renewed(began + 5 * SECOND, 3 * SECOND);
        assert!(fence.is_open(began + 7 * SECOND));
    }

    #[test]
    fn what_is_broken_never_opens_again() {
        let now = Instant::now();
        for fence in [Fence::closed(now), Fence::open()] {
            fence.renewed(now, SECOND);
            assert!(fence.is_open(now) && !fence.is_broken());
            fence.break_off();
            fence.renewed(now + SECOND, SECOND);
            assert!(!fence.is_open(now) && !fence.is_open(now + SECOND) && fence.is_broken());
        }
    }
}
