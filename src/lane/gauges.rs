//! What can be seen of a handler's lanes from outside: its counters and gauges.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::time::Instant;

use super::Lanes;
use crate::event::Timestamp;
use crate::failpoint::{self, Failpoint};
use crate::handler::HandlerName;
use crate::telemetry::{counted, names};

/// A handler's metrics, looked up once.
pub(crate) struct Counters {
    handler: String,
    accepted: Counter,
    filtered: Counter,
    duplicates: Counter,
    repaired: Counter,
    holes: Counter,
    invalid: Counter,
    skipped: Counter,
    parked: Counter,
    left_to_mark: Counter,
    purged: Counter,
    written: Counter,
    refused: Counter,
    took: Histogram,
    up: Gauge,
    paused: Gauge,
    retrying: Gauge,
    blocked: Gauge,
    waiting: Gauge,
    parked_now: Gauge,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl Counters {
    pub(crate) fn new(handler: &HandlerName) -> Self {
        let handler = handler.as_str().to_owned();
        let plain = |name: &'static str| counter!(name, "handler" => handler.clone());
        let stuck = |state: &'static str| gauge!(names::ROOTS_STUCK, "handler" => handler.clone(), "state" => state);
        Self {
            accepted: counter!(names::EVENTS_DELIVERED, "handler" => handler.clone(), "outcome" => "accepted"),
            filtered: plain(names::EVENTS_FILTERED),
            duplicates: plain(names::DUPLICATES_DROPPED),
            repaired: plain(names::GAPS_REPAIRED),
            holes: plain(names::HOLES),
            invalid: counter!(names::INVALID_ROWS, "part" => "body"),
            skipped: plain(names::EVENTS_SKIPPED),
            parked: plain(names::ROOTS_PARKED),
            left_to_mark: plain(names::EVENTS_LEFT_TO_MARK),
            purged: plain(names::POSITIONS_PURGED),
            written: plain(names::POSITIONS_WRITTEN),
            refused: plain(names::POSITIONS_REFUSED),
            took: histogram!(names::DELIVER_DURATION, "handler" => handler.clone()),
            paused: gauge!(names::HANDLER_PAUSED, "handler" => handler.clone()),
            up: gauge!(names::HANDLER_UP, "handler" => handler.clone()),
            retrying: stuck("retrying"),
            blocked: stuck("blocked"),
            waiting: stuck("hole"),
            parked_now: stuck("parked"),
            handler,
        }
    }

    pub(crate) fn accepted(&self, events: u64) {
        self.accepted.increment(events);
    }

    pub(crate) fn failed(&self, outcome: &'static str, events: u64) {
        counter!(names::EVENTS_DELIVERED, "handler" => self.handler.clone(), "outcome" => outcome).increment(events);
    }

    pub(crate) fn filtered(&self, events: u64) {
        self.filtered.increment(events);
    }

    pub(crate) fn duplicates(&self, events: u64) {
        if events > 0 {
            self.duplicates.increment(events);
        }
    }

    pub(crate) fn repaired(&self, gaps: u64) {
        self.repaired.increment(gaps);
    }

    pub(crate) fn hole(&self) {
        self.holes.increment(1);
    }

    pub(crate) fn invalid(&self) {
        self.invalid.increment(1);
    }

    pub(crate) fn skipped(&self, events: u64) {
        if !failpoint::is_set(Failpoint::SkipNotCounted) {
            self.skipped.increment(events);
        }
    }

    pub(crate) fn parked(&self, roots: u64) {
        self.parked.increment(roots);
    }

    pub(crate) fn left_to_mark(&self, events: u64) {
        self.left_to_mark.increment(events);
    }

    pub(crate) fn written(&self, positions: u64) {
        self.written.increment(positions);
    }

    pub(crate) fn purged(&self, positions: u64) {
        self.purged.increment(positions);
    }

    pub(crate) fn refused(&self, positions: u64) {
        self.refused.increment(positions);
    }

    pub(crate) fn took(&self, duration: Duration) {
        self.took.record(duration);
    }
}

impl Lanes {
    /// Sets the gauges that show the present state.
    pub fn show(&self) {
        let counters = &self.counters;
        counters.up.set(if self.outage.is_down() { 0.0 } else { 1.0 });
        counters.paused.set(if self.paused { 1.0 } else { 0.0 });
        counters.retrying.set(counted(self.stuck.retrying));
        counters.blocked.set(counted(self.stuck.blocked));
        counters.waiting.set(counted(self.stuck.holes));
        counters.parked_now.set(counted(self.parked));
    }

    /// The time of the oldest record taken by a lane and not delivered.
    #[must_use]
    pub fn undelivered_since(&self) -> Option<Timestamp> {
        self.by_id.values().filter_map(|lane| lane.watermark.undelivered_since()).min()
    }

    /// Since when some lane has taken what its checkpoint does not cover; none when all is covered.
    #[must_use]
    pub fn unsaved_since(&self) -> Option<Instant> {
        self.by_id.values().filter_map(|lane| lane.unsaved.since()).min()
    }

    /// Bytes of events that wait in the lanes.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Roots that the handler cannot go on with.
    #[must_use]
    pub fn stuck(&self) -> super::Stuck {
        self.stuck
    }
}
