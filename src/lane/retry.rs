//! What follows when a handler does not accept a batch: the only place that decides it. Pure.

use std::time::Duration;

use crate::handler::HandlerError;
use crate::time::{BackoffPolicy, Random};

/// What follows for the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It was not about the event: the root waits with all others until the receiver is back.
    Halt,
    /// It is tried again after this wait.
    Retry(Duration),
    /// It will not succeed: the root stops, loudly, and is tried again after this wait in case somebody mended the
    /// receiver.
    Block(Duration),
}

/// Decides on a failed delivery, the `failures`th in a row of its root. `outage`: the failure is part of an outage.
pub(crate) fn decide(
    error: &HandlerError,
    failures: u32,
    outage: bool,
    policy: BackoffPolicy,
    random: &Random,
) -> Decision {
    match error {
        HandlerError::Unavailable { .. } => Decision::Halt,
        HandlerError::Retry { .. } if outage => Decision::Halt,
        HandlerError::Retry { after, .. } => {
            Decision::Retry(policy.wait_after(failures, random).max(after.unwrap_or_default().min(RETRY_AFTER_MAX)))
        }
        HandlerError::Permanent { .. } => Decision::Block(policy.max),
    }
}

/// A receiver's own wish is followed up to so long.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BackoffPolicy = BackoffPolicy { initial: Duration::from_millis(100), max: Duration::from_secs(8) };

    fn decided(error: &HandlerError, failures: u32, outage: bool) -> Decision {
        decide(error, failures, outage, POLICY, &Random::seeded(1))
    }

    #[test]
    fn decides_by_the_kind_of_failure() {
        assert_eq!(decided(&HandlerError::unavailable("x"), 1, false), Decision::Halt);
        assert_eq!(decided(&HandlerError::retry("x"), 1, true), Decision::Halt);
        assert_eq!(decided(&HandlerError::permanent("x"), 1, true), Decision::Block(POLICY.max));
        let Decision::Retry(first) = decided(&HandlerError::retry("x"), 1, false) else { panic!() };
        let Decision::Retry(tenth) = decided(&HandlerError::retry("x"), 10, false) else { panic!() };
        assert!(first <= POLICY.initial && tenth >= POLICY.max / 2);
    }

    #[test]
    fn follows_the_receivers_wish_within_bounds() {
        let wish = |seconds| HandlerError::Retry {
            reason: "x".into(),
            after: Some(Duration::from_secs(seconds)),
            source: None,
        };
        assert_eq!(decided(&wish(20), 1, false), Decision::Retry(Duration::from_secs(20)));
        assert_eq!(decided(&wish(86_400), 1, false), Decision::Retry(RETRY_AFTER_MAX));
    }
}
