//! The intervals between retries: exponential, with full jitter, bounded.
//!
//! The only file that uses the crate `backoff` (unmaintained, see `.deny.toml`). It is taken as the generator of the
//! exponential intervals alone, with its own randomization off: jitter comes from [`Random`], waiting from tokio's
//! clock, and the number of attempts is the caller's business.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use super::Random;

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// The interval after the first failure.
    pub initial: Duration,
    /// The longest interval.
    pub max: Duration,
}

/// One run of growing intervals.
#[derive(Debug)]
pub struct Backoff {
    intervals: ExponentialBackoff,
    random: Random,
}

impl Backoff {
    /// Intervals from `policy.initial`, doubling up to `policy.max`, each shortened by full jitter.
    #[must_use]
    pub fn new(policy: BackoffPolicy, random: Random) -> Self {
        let mut intervals = ExponentialBackoff {
            initial_interval: policy.initial,
            max_interval: policy.max,
            multiplier: 2.0,
            randomization_factor: 0.0,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        intervals.reset();
        Self { intervals, random }
    }

    /// The next wait: anything up to the interval.
    pub fn next_wait(&mut self) -> Duration {
        let interval = self.intervals.next_backoff().unwrap_or(self.intervals.max_interval);
        self.random.up_to(interval)
    }

    /// Starts again from the first interval, after a success.
    pub fn reset(&mut self) {
        self.intervals.reset();
    }
}

impl BackoffPolicy {
    /// The wait after `failures` failures in a row, without state.
    #[must_use]
    pub fn wait_after(self, failures: u32, random: &Random) -> Duration {
        let mut backoff = Backoff::new(self, random.clone());
        for _ in 1..failures.clamp(1, DOUBLINGS_MAX) {
            backoff.intervals.next_backoff();
        }
        backoff.next_wait()
    }
}

/// After so many doublings every interval is at its maximum.
const DOUBLINGS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BackoffPolicy = BackoffPolicy { initial: Duration::from_millis(100), max: Duration::from_secs(5) };

    #[test]
    fn intervals_grow_up_to_the_maximum_and_keep_their_jitter() {
        let mut backoff = Backoff::new(POLICY, Random::seeded(1));
        let mut expected = POLICY.initial;
        for _ in 0..10 {
            let wait = backoff.next_wait();
            assert!(wait <= expected, "{wait:?} for {expected:?}");
            expected = (expected * 2).min(POLICY.max);
        }
        backoff.reset();
        assert!(backoff.next_wait() <= POLICY.initial);
    }

    #[test]
    fn the_stateless_wait_agrees() {
        let random = Random::seeded(2);
        assert!(POLICY.wait_after(0, &random) <= POLICY.initial);
        assert!(POLICY.wait_after(1, &random) <= POLICY.initial);
        let waits: Vec<Duration> = (0..100).map(|_| POLICY.wait_after(1000, &random)).collect();
        let mean = waits.iter().sum::<Duration>() / 100;
        assert!((POLICY.max * 2 / 5..POLICY.max * 3 / 5).contains(&mean), "{mean:?}: spread over all of the interval");
    }

    #[test]
    fn a_seed_replays() {
        let waits = |seed| {
            let mut backoff = Backoff::new(POLICY, Random::seeded(seed));
            (0..5).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }
}
