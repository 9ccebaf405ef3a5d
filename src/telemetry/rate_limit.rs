//! Decides when a repeating log line is written: at most once per interval and key, with the number of those left out.
//!
//! Pure over the time given in. It holds a bounded number of keys; what comes beyond them shares one entry, so a flood
//! of distinct keys cannot flood the log either.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The interval that suits most repeating lines.
pub const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Keys one limiter keeps apart.
pub const LOG_KEYS_MAX: usize = 256;

/// One limiter, shared by all who write the same kind of line.
#[derive(Debug)]
pub struct LogLimiter {
    interval: Duration,
    keys_max: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Box<str>, Entry>,
    others: Entry,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    logged: Option<Instant>,
    suppressed: u64,
}

impl Default for LogLimiter {
    fn default() -> Self {
        Self::new(LOG_INTERVAL, LOG_KEYS_MAX)
    }
}

impl LogLimiter {
    /// At most one line per `interval` and key, for at most `keys_max` keys; all further keys count as one.
    #[must_use]
    pub fn new(interval: Duration, keys_max: usize) -> Self {
        Self { interval, keys_max, entries: Mutex::default() }
    }

    /// Whether to write the line of `key` now: `Some` with the number of lines left out since the last one, or `None`
    /// to leave it out.
    #[must_use = "the answer says whether to write the line"]
    pub fn admit(&self, key: &str, now: Instant) -> Option<u64> {
        let mut guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let Entries { by_key, others } = &mut *guard;
        if !by_key.contains_key(key) && by_key.len() >= self.keys_max {
            self.forget_quiet(by_key, others, now);
        }
        if let Some(entry) = by_key.get_mut(key) {
            return entry.admit(self.interval, now);
        }
        if by_key.len() < self.keys_max {
            by_key.insert(key.into(), Entry { logged: Some(now), suppressed: 0 });
            return Some(0);
        }
        others.admit(self.interval, now)
    }

    /// Makes room: keys that were not logged for an interval go; what they left out is counted with the others.
    fn forget_quiet(&self, by_key: &mut HashMap<Box<str>, Entry>, others: &mut Entry, now: Instant) {
        let mut left_out = 0;
        by_key.retain(|_, entry| {
            let keep = entry.is_recent(self.interval, now);
            left_out += if keep { 0 } else { entry.suppressed };
            keep
        });
        others.suppressed += left_out;
    }
}

impl Entry {
    fn is_recent(&self, interval: Duration, now: Instant) -> bool {
        self.logged.is_some_and(|logged| now.saturating_duration_since(logged) < interval)
    }

    fn admit(&mut self, interval: Duration, now: Instant) -> Option<u64> {
        if self.is_recent(interval, now) {
            self.suppressed += 1;
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn one_line_per_interval_and_key_with_the_number_left_out() {
        let limiter = LogLimiter::new(INTERVAL, 8);
        assert_eq!(limiter.admit("a", Instant::now()), Some(0));
        for _ in 0..3 {
            assert_eq!(limiter.admit("a", Instant::now()), None);
        }
        assert_eq!(limiter.admit("b", Instant::now()), Some(0), "keys do not share an interval");
        tokio::time::advance(INTERVAL).await;
        assert_eq!(limiter.admit("a", Instant::now()), Some(3));
        assert_eq!(limiter.admit("a", Instant::now()), None);
        assert_eq!(limiter.admit("b", Instant::now()), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_bounded_and_those_beyond_share_one_line() {
        let limiter = LogLimiter::new(INTERVAL, 2);
        let written = (0..100).filter(|key| limiter.admit(&format!("key {key}"), Instant::now()).is_some()).count();
        assert_eq!(written, 3, "two keys of their own, and one line for all others");
        assert_eq!(limiter.admit("key 0", Instant::now()), None);
        assert!(limiter.entries.lock().unwrap().by_key.len() <= 2);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(limiter.admit("new", Instant::now()), Some(0), "quiet keys made room");
        assert_eq!(limiter.admit("newer", Instant::now()), Some(0));
        assert_eq!(limiter.admit("newest", Instant::now()), Some(98), "no count is lost with a forgotten key");
    }
}
