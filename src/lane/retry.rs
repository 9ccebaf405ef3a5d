//! What follows when a handler does not accept a batch: the only place that decides it. Pure.

use std::time::Duration;

use super::{LaneSettings, OnFailure};
use crate::failpoint::{self, Failpoint};
use crate::handler::HandlerError;
use crate::time::Random;

/// What follows for the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It was not about the event: the root waits with all others until the receiver is back.
    Halt,
    /// It is tried again after this wait.
    Retry(Duration),
    /// The same, and this attempt does not count.
    Later(Duration),
    /// It will not succeed, or was tried too often: the policy says what follows. A root that blocks is tried again
    /// after the longest wait, in case somebody mended the receiver.
    GiveUp(OnFailure),
}

/// How a root has failed so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failing {
    /// Failures in a row, this one included.
    pub(crate) failures: u32,
    /// The time since the first of them.
    pub(crate) age: Duration,
    /// This one is part of an outage.
    pub(crate) outage: bool,
    /// The receiver has answered to others meanwhile.
    pub(crate) others_succeed: bool,
}

/// Decides on a failed delivery.
pub(crate) fn decide(error: &HandlerError, failing: Failing, settings: &LaneSettings, random: &Random) -> Decision {
    match error {
        HandlerError::Unavailable { .. } if failpoint::is_set(Failpoint::OutageCounts) => {
            Decision::GiveUp(settings.on_failure)
        }
        HandlerError::Unavailable { .. } => Decision::Halt,
        HandlerError::Retry { .. } | HandlerError::Throttled { .. } if failing.outage => Decision::Halt,
        HandlerError::Throttled { after, .. } => {
            let wait = settings.retry.wait_after(THROTTLED_AS_FAILURES, random);
            Decision::Later(wait.max(after.unwrap_or_default().min(RETRY_AFTER_MAX)))
        }
        // With nobody else to tell, it may be the receiver: what fails alone is never given up (contract clause 13).
        HandlerError::Retry { .. }
            if failing.others_succeed
                && (failing.failures >= settings.attempts_max || failing.age >= settings.age_max) =>
        {
            match settings.on_failure {
                OnFailure::Block => Decision::Retry(settings.retry.wait_after(failing.failures, random)),
                then => Decision::GiveUp(then),
            }
        }
        HandlerError::Retry { after, .. } => {
            let wait = settings.retry.wait_after(failing.failures, random);
            Decision::Retry(wait.max(after.unwrap_or_default().min(RETRY_AFTER_MAX)))
        }
        HandlerError::Permanent { .. } => Decision::GiveUp(settings.on_failure),
    }
}

/// Who is asked to come later waits as after so many failures, however often it was asked.
const THROTTLED_AS_FAILURES: u32 = 4;

/// A receiver's own wish is followed up to so long.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::BackoffPolicy;

    const POLICY: BackoffPolicy = BackoffPolicy { initial: Duration::from_millis(100), max: Duration::from_secs(8) };

    fn decided(error: &HandlerError, failures: u32, age: u64, outage: bool, on_failure: OnFailure) -> Decision {
        let settings = LaneSettings {
            retry: POLICY,
            attempts_max: 12,
            age_max: Duration::from_mins(1),
            on_failure,
            ..LaneSettings::default()
        };
        let failing = Failing { failures, age: Duration::from_secs(age), outage, others_succeed: true };
        decide(error, failing, &settings, &Random::seeded(1))
    }

    #[test]
    fn what_fails_alone_is_tried_again_for_ever() {
        let failing = Failing { failures: 1000, age: Duration::from_hours(100), outage: false, others_succeed: false };
        let decided = |error: &HandlerError| decide(error, failing, &LaneSettings::default(), &Random::seeded(1));
        assert!(matches!(decided(&HandlerError::retry("x")), Decision::Retry(_)));
        assert_eq!(decided(&HandlerError::permanent("x")), Decision::GiveUp(OnFailure::Park));
    }

    #[test]
    fn decides_by_the_kind_of_failure() {
        for then in [OnFailure::Park, OnFailure::Skip, OnFailure::Block] {
            assert_eq!(decided(&HandlerError::unavailable("x"), 100, 100, false, then), Decision::Halt);
            assert_eq!(decided(&HandlerError::retry("x"), 100, 100, true, then), Decision::Halt);
            assert_eq!(decided(&HandlerError::permanent("x"), 1, 0, true, then), Decision::GiveUp(then));
            let Decision::Retry(first) = decided(&HandlerError::retry("x"), 1, 0, false, then) else { panic!() };
            let Decision::Retry(tenth) = decided(&HandlerError::retry("x"), 10, 0, false, then) else { panic!() };
            assert!(first <= POLICY.initial && tenth > first);
            // It counts for nothing, however often.
            assert!(matches!(decided(&HandlerError::throttled("x"), 100, 100, false, then), Decision::Later(_)));
            assert_eq!(decided(&HandlerError::throttled("x"), 100, 100, true, then), Decision::Halt);
        }
    }

    #[test]
    fn gives_up_after_the_attempts_or_the_age_unless_it_blocks() {
        for then in [OnFailure::Park, OnFailure::Skip] {
            for (failures, age, given_up) in [(11, 59, false), (12, 0, true), (1, 60, true)] {
                let decision = decided(&HandlerError::retry("x"), failures, age, false, then);
                assert_eq!(decision == Decision::GiveUp(then), given_up, "{failures} {age}");
            }
        }
        let decision = decided(&HandlerError::retry("x"), 1000, 1000, false, OnFailure::Block);
        assert!(matches!(decision, Decision::Retry(_)));
    }

    #[test]
    fn follows_the_receivers_wish_within_bounds() {
        let wish = |seconds| HandlerError::Retry {
            reason: "x".into(),
            after: Some(Duration::from_secs(seconds)),
            source: None,
        };
        let decided = |seconds| decided(&wish(seconds), 1, 0, false, OnFailure::Park);
        assert_eq!(decided(20), Decision::Retry(Duration::from_secs(20)));
        assert_eq!(decided(86_400), Decision::Retry(RETRY_AFTER_MAX));
    }
}
