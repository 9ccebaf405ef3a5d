//! The intervals of the fleet, all of which follow from the duration of a lease. Pure.
//!
//! Two clocks never meet here: a member counts from before it sent a renewal, an observer from when it saw it, which is
//! later. So what an observer may do after `expires_after` lies behind what the member forbids itself after
//! `fences_after`, by at least the margin between the two.

use std::time::Duration;

/// Heartbeats in one lease duration: so many may fail in a row, less those of the margins, before a replica fences
/// itself.
const HEARTBEATS: u32 = 5;

/// The shortest duration of a lease: a heartbeat must have time for a slow call.
pub const LEASE_DURATION_MIN: Duration = Duration::from_secs(1);
/// The longest: a crash stops its roots for so long.
pub const LEASE_DURATION_MAX: Duration = Duration::from_mins(5);

/// The intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two renewals of a member.
    pub heartbeat: Duration,
    /// So long after it sent its last successful renewal a member starts no delivery.
    pub fences_after: Duration,
    /// So long after it saw a member's last renewal an observer may declare it dead.
    pub expires_after: Duration,
    /// So long after it announced a hand-over the owner has ended everything on the lease.
    pub closes_within: Duration,
    /// So long after it saw the announcement anybody may take the lease.
    pub overdue_after: Duration,
}

/// How long others wait for a member, as its row says: at the least, for their own intervals may be longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Patience {
    /// See [`Timing::expires_after`].
    pub expires_after: Duration,
    /// See [`Timing::overdue_after`].
    pub overdue_after: Duration,
}

impl Timing {
    /// The intervals for leases that are taken over within `lease_duration` of a crash, and hand-overs that may take
    /// `hand_over`.
    #[must_use]
    pub fn new(lease_duration: Duration, hand_over: Duration) -> Self {
        let heartbeat = lease_duration / HEARTBEATS;
        Self {
            heartbeat,
            // A renewal is seen up to a heartbeat after it was made: from the crash to the take-over it is one duration.
            expires_after: heartbeat * (HEARTBEATS - 1),
            fences_after: heartbeat * (HEARTBEATS - 2),
            closes_within: hand_over,
            overdue_after: hand_over + heartbeat,
        }
    }

    /// How long the others wait for a member that goes by these intervals.
    #[must_use]
    pub fn patience(&self) -> Patience {
        Patience { expires_after: self.expires_after, overdue_after: self.overdue_after }
    }

    /// How an observer with these intervals waits for a member with those: the longer of both. In a deployment that changes
    /// them, nobody is judged by what he does not go by.
    #[must_use]
    pub fn with(&self, member: Patience) -> Self {
        Self {
            expires_after: self.expires_after.max(member.expires_after),
            overdue_after: self.overdue_after.max(member.overdue_after),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_fenced_before_anybody_may_take() {
        for millis in [1_000, 3_000, 10_000, 300_000] {
            let duration = Duration::from_millis(millis);
            let timing = Timing::new(duration, duration);
            assert!(timing.fences_after + timing.heartbeat <= timing.expires_after);
            assert!(timing.closes_within + timing.heartbeat <= timing.overdue_after);
            assert!(timing.heartbeat + timing.expires_after <= duration);
            assert!(timing.fences_after >= 3 * timing.heartbeat, "two renewals may fail");
            for others in [1_000, 60_000] {
                let observer = Timing::new(Duration::from_millis(others), Duration::from_millis(others));
                let waits = observer.with(timing.patience());
                assert!(timing.fences_after + timing.heartbeat <= waits.expires_after);
                assert!(timing.closes_within + timing.heartbeat <= waits.overdue_after);
                assert_eq!(waits.heartbeat, observer.heartbeat);
            }
        }
    }
}
