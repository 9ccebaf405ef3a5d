//! How a handler's lanes come to their end: all of them at a stop, or one by one where a lane is given up.
//!
//! A stop takes no more pages, lets the deliveries in flight come to their end, writes positions, then checkpoints. A lane
//! that is given up is left to the machine until its deadline; then the calls it waits for are ended. Invariant: neither
//! waits longer than it was told to, whatever a handler or a table does.

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::task::LanesTask;
use crate::telemetry::Beat;

/// The part of the grace period that deliveries in flight may take; the rest is for positions and checkpoints.
const GRACE_FOR_DELIVERIES: f64 = 0.6;

/// While draining, failed writes are tried again after so long.
const DRAIN_TURN: std::time::Duration = std::time::Duration::from_millis(100);

impl LanesTask {
    /// Ends the lanes whose deadline has passed. Calls of the handler that they wait for end with them, and all others with
    /// these: roots of other lanes are given again.
    pub(super) fn end_overdue(&mut self, now: Instant) {
        if !self.lanes.is_overdue(now) {
            return;
        }
        if self.lanes.waits_for_deliveries(now) {
            // What was answered in time counts.
            while let Some(done) = self.deliveries.try_join_next() {
                self.take_delivery(done);
            }
            warn!(handler = %self.parts.name, calls = self.deliveries.len(), "a lane is given up with deliveries that did not end in time; they are repeated");
            // Dropped, they are aborted; one that computes without a pause is not waited for.
            self.deliveries = JoinSet::new();
            self.lanes.deliveries_aborted(now);
        }
        self.lanes.end_overdue(now);
    }

    /// Stops within the grace period; what is not done by then is repeated at the next start.
    pub(super) async fn drain(&mut self, beat: &Beat) {
        let start = Instant::now();
        let until = start + self.parts.shutdown_grace;
        let deliveries_until = start + self.parts.shutdown_grace.mul_f64(GRACE_FOR_DELIVERIES);
        self.lanes.drain(start);
        loop {
            beat.beat();
            let now = Instant::now();
            self.end_overdue(now);
            while let Some(effect) = self.lanes.next_effect(now) {
                self.start(effect);
            }
            if self.lanes.is_drained() {
                return self.lanes.end_closing(now);
            }
            if now >= deliveries_until && !self.deliveries.is_empty() {
                warn!(handler = %self.parts.name, "deliveries did not end within the grace period; they are repeated at the next start");
                self.deliveries.abort_all();
                // What was answered in time counts.
                while let Some(done) = self.deliveries.join_next().await {
                    self.take_delivery(done);
                }
                self.lanes.give_up_in_flight();
                continue;
            }
            if now >= until {
                warn!(handler = %self.parts.name, "stopped before all positions were written; events since then are repeated at the next start");
                return self.lanes.end_closing(now);
            }
            let wake_at = if self.deliveries.is_empty() { until } else { deliveries_until };
            tokio::select! {
                biased;
                Some(done) = self.deliveries.join_next() => self.take_delivery(done),
                Some(done) = self.jobs.join_next() => self.take_job(done),
                () = sleep_until(self.lanes.next_deadline(now).map_or(wake_at, |at| at.max(now + DRAIN_TURN).min(wake_at))) => {}
            }
        }
    }
}
