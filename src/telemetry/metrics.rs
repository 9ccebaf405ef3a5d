//! The names of all metrics, what they mean, and the recording of AWS calls.

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};

/// The names. `angzarr_relay_<noun>_<unit|total>`.
pub mod names {
    /// Records read from the stream, by what they were.
    pub const RECORDS_READ: &str = "angzarr_relay_records_read_total";
    /// Events handed to a handler, by its answer.
    pub const EVENTS_DELIVERED: &str = "angzarr_relay_events_delivered_total";
    /// Events a subscription's type patterns left out.
    pub const EVENTS_FILTERED: &str = "angzarr_relay_events_filtered_total";
    /// How long a handler took for one call.
    pub const DELIVER_DURATION: &str = "angzarr_relay_deliver_duration_seconds";
    /// Age of the oldest record not yet delivered to a handler.
    pub const HANDLER_LAG: &str = "angzarr_relay_handler_lag_seconds";
    /// Whether a handler's receiver answers.
    pub const HANDLER_UP: &str = "angzarr_relay_handler_up_ratio";
    /// Whether an operator has paused a handler.
    pub const HANDLER_PAUSED: &str = "angzarr_relay_handler_paused_ratio";
    /// Roots that a handler cannot go on with, by why.
    pub const ROOTS_STUCK: &str = "angzarr_relay_stuck_roots";
    /// Roots parked after an event failed for good.
    pub const ROOTS_PARKED: &str = "angzarr_relay_roots_parked_total";
    /// Events that failed for good and were passed.
    pub const EVENTS_SKIPPED: &str = "angzarr_relay_events_skipped_total";
    /// Events of marked roots, left in the table until their root goes on.
    pub const EVENTS_LEFT_TO_MARK: &str = "angzarr_relay_events_left_to_mark_total";
    /// Queries of the table for events the stream had not brought.
    pub const GAPS_REPAIRED: &str = "angzarr_relay_gaps_repaired_total";
    /// Holes of the table met.
    pub const HOLES: &str = "angzarr_relay_holes_total";
    /// Events dropped because they were covered before.
    pub const DUPLICATES_DROPPED: &str = "angzarr_relay_duplicates_dropped_total";
    /// Rows that are no event, by what is wrong.
    pub const INVALID_ROWS: &str = "angzarr_relay_invalid_rows_total";
    /// Positions written.
    pub const POSITIONS_WRITTEN: &str = "angzarr_relay_positions_written_total";
    /// Positions the table refused, because it holds a later one.
    pub const POSITIONS_REFUSED: &str = "angzarr_relay_positions_refused_total";
    /// Positions taken away because their edition was deleted.
    pub const POSITIONS_PURGED: &str = "angzarr_relay_positions_purged_total";
    /// Age of the oldest of what a handler has read beyond its checkpoints.
    pub const CHECKPOINT_AGE: &str = "angzarr_relay_checkpoint_age_seconds";
    /// Memory held by records and events.
    pub const BUFFERED: &str = "angzarr_relay_buffered_bytes";
    /// Shards, by state.
    pub const SHARDS: &str = "angzarr_relay_shards";
    /// Leases taken by this replica.
    pub const LEASES_TAKEN: &str = "angzarr_relay_leases_taken_total";
    /// Leases it has let go.
    pub const LEASES_RELEASED: &str = "angzarr_relay_leases_released_total";
    /// Leases that others took while it still held them.
    pub const LEASES_LOST: &str = "angzarr_relay_leases_lost_total";
    /// Replicas that this one has declared dead.
    pub const MEMBERS_DECLARED_DEAD: &str = "angzarr_relay_members_declared_dead_total";
    /// Renewals of its membership that failed.
    pub const RENEWALS_MISSED: &str = "angzarr_relay_renewals_missed_total";
    /// Times it was declared dead itself.
    pub const MEMBERSHIP_LOST: &str = "angzarr_relay_memberships_lost_total";
    /// How long it may start deliveries without another renewal.
    pub const FENCE: &str = "angzarr_relay_fence_seconds";
    /// Times the stream had trimmed what was to be read.
    pub const STREAM_TRIMMED: &str = "angzarr_relay_stream_trimmed_total";
    /// Rows read by the scans of backfills and reconciles.
    pub const ROWS_SCANNED: &str = "angzarr_relay_rows_scanned_total";
    /// Backfills and reconciles begun.
    pub const JOBS_BEGUN: &str = "angzarr_relay_jobs_begun_total";
    /// Backfills and reconciles under way.
    pub const JOBS: &str = "angzarr_relay_jobs";
    /// Time until the stream trims what a handler has not read.
    pub const SAFETY_CLOCK: &str = "angzarr_relay_safety_clock_seconds";
    /// Calls of AWS APIs.
    pub const AWS_CALLS: &str = "angzarr_relay_aws_calls_total";
    /// Capacity units DynamoDB says were consumed.
    pub const CAPACITY: &str = "angzarr_relay_consumed_capacity_units_total";
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

use MetricKind::{Counter, Gauge, Histogram};

/// Every metric: name, type, unit, labels, meaning. The README's table is this one.
pub const METRICS: &[(&str, MetricKind, Unit, &[&str], &str)] = &[
    (names::RECORDS_READ, Counter, Unit::Count, &["kind"], "records read from the stream, by what they were"),
    (
        names::EVENTS_DELIVERED,
        Counter,
        Unit::Count,
        &["handler", "outcome"],
        "events handed to a handler, by its answer",
    ),
    (names::EVENTS_FILTERED, Counter, Unit::Count, &["handler"], "events that a subscription's types left out"),
    (names::DELIVER_DURATION, Histogram, Unit::Seconds, &["handler"], "how long a handler took for one call"),
    (names::HANDLER_LAG, Gauge, Unit::Seconds, &["handler"], "age of the oldest record not yet delivered to a handler"),
    (names::HANDLER_UP, Gauge, Unit::Count, &["handler"], "1 when a handler's receiver answers, 0 in an outage"),
    (names::HANDLER_PAUSED, Gauge, Unit::Count, &["handler"], "1 while an operator has paused a handler"),
    (names::ROOTS_STUCK, Gauge, Unit::Count, &["handler", "state"], "roots that a handler cannot go on with, by why"),
    (names::ROOTS_PARKED, Counter, Unit::Count, &["handler"], "roots parked after an event failed for good"),
    (names::EVENTS_SKIPPED, Counter, Unit::Count, &["handler"], "events that failed for good and were passed"),
    (
        names::EVENTS_LEFT_TO_MARK,
        Counter,
        Unit::Count,
        &["handler"],
        "events of parked or deferred roots, left in the table until their root goes on",
    ),
    (names::GAPS_REPAIRED, Counter, Unit::Count, &["handler"], "gaps filled by a query of the events table"),
    (names::HOLES, Counter, Unit::Count, &["handler"], "holes of the events table met"),
    (names::DUPLICATES_DROPPED, Counter, Unit::Count, &["handler"], "events dropped because they were covered before"),
    (names::INVALID_ROWS, Counter, Unit::Count, &["part"], "rows that are no event, by the part that is wrong"),
    (names::POSITIONS_WRITTEN, Counter, Unit::Count, &["handler"], "positions written"),
    (names::POSITIONS_REFUSED, Counter, Unit::Count, &["handler"], "positions refused: the table holds a later one"),
    (names::POSITIONS_PURGED, Counter, Unit::Count, &["handler"], "positions purged: their edition was deleted"),
    (
        names::CHECKPOINT_AGE,
        Gauge,
        Unit::Seconds,
        &["handler"],
        "age of the oldest of what a handler has read beyond its checkpoints",
    ),
    (names::BUFFERED, Gauge, Unit::Bytes, &[], "memory held by records and events"),
    (
        names::SHARDS,
        Gauge,
        Unit::Count,
        &["state"],
        "shards of the stream: reading or waiting for their parents here, unread by anybody (told by one replica a handler)",
    ),
    (names::LEASES_TAKEN, Counter, Unit::Count, &["handler"], "leases of shards and segments taken by this replica"),
    (names::LEASES_RELEASED, Counter, Unit::Count, &["handler"], "leases handed over or let go"),
    (names::LEASES_LOST, Counter, Unit::Count, &[], "leases that another replica took while this one still held them"),
    (names::MEMBERS_DECLARED_DEAD, Counter, Unit::Count, &[], "replicas that this one found dead"),
    (names::RENEWALS_MISSED, Counter, Unit::Count, &[], "renewals of the membership that failed"),
    (names::MEMBERSHIP_LOST, Counter, Unit::Count, &[], "times this replica was declared dead and joined anew"),
    (names::FENCE, Gauge, Unit::Seconds, &[], "time left in which deliveries may be started without another renewal"),
    (names::STREAM_TRIMMED, Counter, Unit::Count, &[], "times the stream had trimmed what was to be read"),
    (names::ROWS_SCANNED, Counter, Unit::Count, &["kind"], "rows read by backfills and reconciles, by what they were"),
    (names::JOBS_BEGUN, Counter, Unit::Count, &["handler", "kind"], "backfills and reconciles begun"),
    (names::JOBS, Gauge, Unit::Count, &["handler", "kind"], "1 while a backfill or reconcile is under way"),
    (
        names::SAFETY_CLOCK,
        Gauge,
        Unit::Seconds,
        &["handler"],
        "time left until the stream trims the oldest record a handler has not been given",
    ),
    (names::AWS_CALLS, Counter, Unit::Count, &["operation", "outcome"], "calls of AWS APIs, by outcome"),
    (
        names::CAPACITY,
        Counter,
        Unit::Count,
        &["table", "operation"],
        "capacity units consumed, as DynamoDB reports them",
    ),
];

/// A count as the value of a gauge.
#[expect(clippy::cast_precision_loss, reason = "what is counted is far below 2^52")]
pub(crate) fn counted(count: usize) -> f64 {
    count as f64
}

/// Tells the recorder what every metric means.
pub fn describe_all() {
    for (name, kind, unit, _, meaning) in METRICS {
        match kind {
            Counter => describe_counter!(*name, *unit, *meaning),
            Gauge => describe_gauge!(*name, *unit, *meaning),
            Histogram => describe_histogram!(*name, *unit, *meaning),
        }
    }
}

/// Counts one call of an AWS API; `outcome` is `ok` or the kind of error: `throttled`, `denied`, `refused`, `failed`.
pub fn record_aws_call(operation: &'static str, outcome: &'static str) {
    counter!(names::AWS_CALLS, "operation" => operation, "outcome" => outcome).increment(1);
}

/// Counts capacity units, rounded up to a whole unit a call.
pub fn record_capacity(table: &str, operation: &'static str, units: f64) {
    counter!(names::CAPACITY, "table" => table.to_owned(), "operation" => operation).increment(whole_units(units));
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float of this size rounds to a whole number"
)]
fn whole_units(units: f64) -> u64 {
    units.max(0.0).ceil() as u64
}
