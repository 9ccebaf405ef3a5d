//! Time and chance: the one clock, the one seeded source of randomness, and the intervals between retries.
//!
//! Everything that waits uses tokio's clock, so a test can pause it; wall time comes from [`Clock`] alone; every
//! random number comes from [`Random`], so that a seed replays a run.

mod backoff;
mod clock;
mod random;

pub use backoff::{Backoff, BackoffPolicy};
pub use clock::{Clock, ClockReading};
pub use random::Random;
