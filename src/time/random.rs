//! The one source of randomness.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A seeded generator, shared by everything that needs chance. Cheap to clone; clones draw from the same sequence.
#[derive(Debug, Clone)]
pub struct Random(Arc<Mutex<fastrand::Rng>>);

impl Random {
    /// A generator whose draws follow from `seed` alone.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// A generator with a seed from the operating system.
    #[must_use]
    pub fn from_entropy() -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::new())))
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number from 0 to `bound - 1`; 0 when `bound` is 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.draw(|rng| rng.u64(..bound)) }
    }

    /// True with the probability `percent` / 100.
    #[must_use]
    pub fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A duration between zero and `most`, both included.
    #[must_use]
    pub fn up_to(&self, most: Duration) -> Duration {
        most.mul_f64(self.draw(fastrand::Rng::f64))
    }

    /// Text of 32 hex digits, for request tokens.
    #[must_use]
    pub fn token(&self) -> String {
        format!("{:032x}", self.draw(|rng| rng.u128(..)))
    }
}
