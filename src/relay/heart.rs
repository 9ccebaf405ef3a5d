//! The heartbeat: renews this replica's membership and moves its fence, whatever else is slow.
//!
//! Invariants: a renewal counts from before its request was sent; a call that hangs is given up after one heartbeat's
//! time, so that the next is sent; once the row says that this incarnation is dead, its fence is broken for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::warn;

use crate::fleet::{Fence, FleetStore, Member, Report, Timing};
use crate::telemetry::{Health, names, with_causes};

/// The subject of the membership in the health report.
pub(super) const MEMBERSHIP: &str = "membership";

/// A renewal may take so many heartbeats; the next is sent meanwhile only when this one is given up.
const RENEWAL_MAX: u32 = 1;

/// What a member says of itself with each renewal; changed by the task that keeps its leases.
#[derive(Debug, Clone, Default)]
pub(super) struct Says(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    view: AtomicU64,
    leaving: AtomicBool,
    /// It has changed: the next renewal does not wait.
    changed: Notify,
}

impl Says {
    /// The view it goes by.
    pub(super) fn goes_by(&self, view: u64) {
        if self.0.view.swap(view, Ordering::Relaxed) != view {
            self.0.changed.notify_one();
        }
    }

    /// It leaves.
    pub(super) fn leaves(&self) {
        if !self.0.leaving.swap(true, Ordering::Relaxed) {
            self.0.changed.notify_one();
        }
    }
}

/// What a heart is made of.
pub(super) struct Heart {
    pub(super) store: Arc<dyn FleetStore>,
    pub(super) member: Member,
    pub(super) says: Says,
    pub(super) fence: Fence,
    pub(super) timing: Timing,
    pub(super) health: Health,
    /// What it tells people.
    pub(super) reports: Box<dyn Fn() -> Report + Send>,
}

/// Renews until this incarnation is declared dead; the future is dropped when it is to end otherwise.
pub(super) async fn beat(heart: Heart) {
    let Heart { store, mut member, says, fence, timing, health, reports } = heart;
    let alive = health.register(MEMBERSHIP);
    let mut ticks = interval(timing.heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = says.0.changed.notified() => ticks.reset(),
            _ = ticks.tick() => {}
        }
        alive.beat();
        member.view = says.0.view.load(Ordering::Relaxed);
        member.leaving = says.0.leaving.load(Ordering::Relaxed);
        let (sent_at, report) = (Instant::now(), reports());
        match timeout(timing.heartbeat * RENEWAL_MAX, store.renew(&member, &report)).await {
            Ok(Ok(true)) => {
                fence.renewed(sent_at, timing.fences_after);
                renewed_at = sent_at;
                health.mended(MEMBERSHIP);
            }
            Ok(Ok(false)) => {
                fence.break_off();
                counter!(names::MEMBERSHIP_LOST).increment(1);
                warn!(member = %member.id, "this replica was declared dead, because it had not renewed in time: it drops its leases and joins anew");
                return;
            }
            Ok(Err(error)) => missed(&health, &with_causes(&error)),
            Err(_elapsed) => missed(&health, &format!("no answer within {:?}", timing.heartbeat)),
        }
        gauge!(names::FENCE).set(left(renewed_at, timing.fences_after).as_secs_f64());
    }
}

fn missed(health: &Health, reason: &str) {
    counter!(names::RENEWALS_MISSED).increment(1);
    health.problem(MEMBERSHIP, format!("the membership could not be renewed: {reason}"));
}

fn left(renewed_at: Instant, fences_after: Duration) -> Duration {
    (renewed_at + fences_after).saturating_duration_since(Instant::now())
}
