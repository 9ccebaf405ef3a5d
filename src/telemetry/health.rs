//! Whether the process is alive (its loops are turning) and ready (it reads its stream and nothing stands in its way).
//!
//! Loops register a [`Beat`] and touch it at least every few seconds, idle or not. Whoever meets an obstacle that an
//! operator must mend names it as a problem and takes it back when it is gone. Nothing here does I/O.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

/// A loop that has not turned for so long counts as stuck.
const BEAT_AGE_MAX: Duration = Duration::from_mins(1);

/// An obstacle that lasts is logged again after so long.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Shared health of one relay. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    started: Instant,
    beats: Mutex<Vec<(&'static str, Weak<AtomicU64>)>>,
    problems: Mutex<BTreeMap<String, Problem>>,
}

#[derive(Debug)]
struct Problem {
    text: String,
    logged_at: Instant,
}

/// One loop's sign of life; the loop is forgotten when this is dropped.
#[derive(Debug)]
pub struct Beat {
    health: Health,
    last_millis: Arc<AtomicU64>,
}

/// The problem every relay starts with.
const STARTING: &str = "start";

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(State { started: Instant::now(), beats: Mutex::default(), problems: Mutex::new(starting()) }))
    }
}

fn starting() -> BTreeMap<String, Problem> {
    let text = "the stream's shards are not found yet".to_owned();
    BTreeMap::from([(STARTING.to_owned(), Problem { text, logged_at: Instant::now() })])
}

impl Health {
    fn millis(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Registers a loop.
    #[must_use = "the loop is forgotten when its beat is dropped"]
    pub fn register(&self, name: &'static str) -> Beat {
        let last_millis = Arc::new(AtomicU64::new(self.millis()));
        let mut beats = self.0.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.retain(|(_, beat)| beat.strong_count() > 0);
        beats.push((name, Arc::downgrade(&last_millis)));
        Beat { health: self.clone(), last_millis }
    }

    /// The shards were found and are being read.
    pub fn started(&self) {
        self.mended(STARTING);
    }

    /// Names an obstacle; a second report under the same subject replaces the first. It is logged when it is new, and
    /// again from time to time while it lasts.
    pub fn problem(&self, subject: &str, problem: impl Into<String>) {
        let (text, now) = (problem.into(), Instant::now());
        let mut problems = self.0.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let known = problems.get(subject).map(|problem| problem.logged_at);
        let logged_at = known.filter(|logged_at| now.duration_since(*logged_at) < LOG_INTERVAL).unwrap_or_else(|| {
            warn!(subject, problem = text, "not ready");
            now
        });
        problems.insert(subject.to_owned(), Problem { text, logged_at });
    }

    /// Takes an obstacle back; nothing happens when there was none.
    pub fn mended(&self, subject: &str) {
        let mut problems = self.0.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.remove(subject).is_some() && subject != STARTING {
            info!(subject, "mended");
        }
    }

    /// The relay begins anew: what stood in the way of its life before is nobody's to take back any more.
    pub fn begins_anew(&self) {
        let mut problems = self.0.problems.lock().unwrap_or_else(PoisonError::into_inner);
        *problems = starting();
    }

    /// Why the process is not ready, one line each; empty when it is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let problems = self.0.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.iter().map(|(subject, problem)| format!("{subject}: {}", problem.text)).collect()
    }

    /// The loops that have not turned for too long; empty when the process is alive.
    #[must_use]
    pub fn stuck(&self) -> Vec<&'static str> {
        let oldest = self.millis().saturating_sub(u64::try_from(BEAT_AGE_MAX.as_millis()).unwrap_or(u64::MAX));
        let beats = self.0.beats.lock().unwrap_or_else(PoisonError::into_inner);
        (beats.iter())
            .filter(|(_, beat)| beat.upgrade().is_some_and(|last| last.load(Ordering::Relaxed) < oldest))
            .map(|(name, _)| *name)
            .collect()
    }
}

impl Beat {
    /// The loop has turned.
    pub fn beat(&self) {
        self.last_millis.store(self.health.millis(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stops_turning_is_named() {
        let health = Health::default();
        let (reader, lanes) = (health.register("reader"), health.register("lanes"));
        tokio::time::advance(BEAT_AGE_MAX).await;
        reader.beat();
        assert!(health.stuck().is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(health.stuck(), ["lanes"]);
        drop(lanes);
        assert!(health.stuck().is_empty());
    }

    #[tokio::test]
    async fn ready_when_started_and_nothing_is_in_the_way() {
        let health = Health::default();
        assert_eq!(health.problems().len(), 1);
        health.started();
        assert!(health.problems().is_empty());
        health.problem("orders-stream", "the stream does not exist");
        assert_eq!(health.problems(), ["orders-stream: the stream does not exist"]);
        health.mended("orders-stream");
        assert!(health.problems().is_empty());
    }
}
