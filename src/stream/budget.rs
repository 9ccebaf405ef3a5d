//! The bound on the bytes of all page windows together.
//!
//! A reader reserves room before each read and keeps what the page really took until the page leaves its window.
//! Whoever waits for room is woken when some is given back. Invariant: what is reserved never exceeds the limit, but
//! for one page larger than all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes that pages may take. Clones share the same bound.
#[derive(Debug, Clone)]
pub struct Budget(Arc<State>);

#[derive(Debug)]
struct State {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    /// Readers that wait for room.
    waiting: AtomicUsize,
    freed: Notify,
}

/// Room taken from a budget, given back when dropped.
#[derive(Debug)]
pub struct Room {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self(Arc::new(State {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        }))
    }

    /// The bound.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.0.limit_bytes
    }

    /// What is taken now.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.0.used_bytes.load(Ordering::Relaxed)
    }

    /// Takes room at once, if there is any. A request larger than the whole budget is granted when nothing else is
    /// taken.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize) -> Option<Room> {
        let fits =
            |used: usize| (used == 0 || used.saturating_add(bytes) <= self.0.limit_bytes).then_some(used + bytes);
        let taken = self.0.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.is_ok().then(|| Room { budget: self.clone(), bytes })
    }

    /// Waits for room.
    pub async fn reserve(&self, bytes: usize) -> Room {
        let _waits = Waits::new(&self.0.waiting);
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(room) = self.try_reserve(bytes) {
                return room;
            }
            freed.await;
        }
    }
}

/// One that waits, counted for as long as it does.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Room {
    /// Whether somebody waits for room.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.budget.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Keeps what is really needed; more than was reserved is taken without asking, because it is there already.
    pub fn resize(&mut self, bytes: usize) {
        let used = &self.budget.0.used_bytes;
        if bytes >= self.bytes {
            used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.budget.0.freed.notify_waiters();
        }
        self.bytes = bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.resize(0);
        self.budget.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_until_room_is_given_back() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(90).await;
        assert!(budget.try_reserve(20).is_none());
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(20).await.bytes }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        first.resize(70);
        assert_eq!(waiting.await.unwrap(), 20);
        drop(first);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn what_is_larger_than_all_is_granted_alone() {
        let budget = Budget::new(10);
        let all = budget.try_reserve(50).unwrap();
        assert!(budget.try_reserve(1).is_none());
        drop(all);
        assert!(budget.try_reserve(1).is_some());
    }
}
