//! The one source of wall time.

use std::time::Duration;

use tokio::time::Instant;

use crate::event::Timestamp;

/// Wall time: the system's, or one that starts at a chosen moment and then follows tokio's clock (for tests and
/// simulation).
#[derive(Debug, Clone)]
pub struct Clock {
    start: Option<(Timestamp, Instant)>,
}

/// One moment by both clocks: the wall's, for what people read, and tokio's, for what is judged by its age.
#[derive(Debug, Clone, Copy)]
pub struct ClockReading {
    /// The wall time.
    pub wall: Timestamp,
    /// The same moment by tokio's clock, which never jumps.
    pub instant: Instant,
}

impl Clock {
    /// The system's wall clock.
    #[must_use]
    pub const fn system() -> Self {
        Self { start: None }
    }

    /// A clock that shows `moment` now and goes on with tokio's clock, paused or not.
    #[must_use]
    pub fn starting_at(moment: Timestamp) -> Self {
        Self { start: Some((moment, Instant::now())) }
    }

    /// The moment now, by both clocks.
    #[must_use]
    pub fn reading(&self) -> ClockReading {
        ClockReading { wall: self.now(), instant: Instant::now() }
    }

    /// The wall time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self.start {
            Some((moment, since)) => moment.plus(since.elapsed()),
            None => system_now(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system's wall clock")]
fn system_now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp::from_unix_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
