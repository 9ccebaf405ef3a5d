//! When to warn that the stream will trim what a handler has not been given. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How often the warning is repeated.
const REPEAT: Duration = Duration::from_mins(10);

/// Watches one handler's safety clock.
#[derive(Debug)]
pub(crate) struct SafetyWatch {
    alarm: Duration,
    warned_at: Option<Instant>,
}

impl SafetyWatch {
    /// Warns when less than `alarm` is left.
    pub(crate) fn new(alarm: Duration) -> Self {
        Self { alarm, warned_at: None }
    }

    /// Whether to warn now, with so much time left.
    pub(crate) fn warns(&mut self, left: Duration, now: Instant) -> bool {
        let warns = left < self.alarm && self.warned_at.is_none_or(|warned| now - warned >= REPEAT);
        if warns {
            self.warned_at = Some(now);
        }
        warns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_below_the_alarm_and_not_all_the_time() {
        let (hour, now) = (Duration::from_hours(1), Instant::now());
        let mut watch = SafetyWatch::new(hour * 6);
        assert!(!watch.warns(hour * 6, now));
        assert!(watch.warns(hour * 5, now));
        assert!(!watch.warns(hour, now + REPEAT / 2));
        assert!(watch.warns(hour, now + REPEAT));
    }
}
