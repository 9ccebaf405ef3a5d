//! The pace of all scans of this process: so many read capacity units a second at most.
//!
//! What a page consumed is known only after it was read, so the next one waits for it. Invariant: over any longer time
//! the pages read consume at most the rate, but for the last of each reader.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A bound on the capacity that scans consume. Clones share it.
#[derive(Debug, Clone)]
pub struct CapacityPace {
    units_per_sec: u32,
    free_at: Arc<Mutex<Option<Instant>>>,
}

impl CapacityPace {
    /// At most so many units a second.
    #[must_use]
    pub fn new(units_per_sec: u32) -> Self {
        Self { units_per_sec: units_per_sec.max(1), free_at: Arc::default() }
    }

    /// Waits until there is capacity again.
    pub async fn ready(&self) {
        loop {
            let free_at = *self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            match free_at {
                Some(at) if at > Instant::now() => sleep_until(at).await,
                _ => return,
            }
        }
    }

    /// A page has consumed so much.
    pub fn consumed(&self, units: f64) {
        let now = Instant::now();
        let cost = Duration::from_secs_f64(units.clamp(0.0, UNITS_A_PAGE_MAX) / f64::from(self.units_per_sec));
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = Some(free_at.map_or(now, |at| at.max(now)) + cost);
    }
}

/// More than a page of 1 MB can cost: what a service says beyond it is not believed.
const UNITS_A_PAGE_MAX: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readers_together_stay_within_the_rate() {
        let pace = CapacityPace::new(100);
        let began = Instant::now();
        let read = || async {
            for _ in 0..10 {
                pace.ready().await;
                pace.consumed(50.0);
            }
        };
        tokio::join!(read(), read());
        // 1,000 units at 100 a second, less the last page of each, for which nobody waits.
        assert_eq!(began.elapsed().as_secs(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_is_not_saved_up() {
        let pace = CapacityPace::new(10);
        tokio::time::advance(Duration::from_hours(1)).await;
        pace.consumed(20.0);
        let began = Instant::now();
        pace.ready().await;
        assert_eq!(began.elapsed().as_secs(), 2);
    }
}
