//! `[relay]`: memory, pace and patience of the relay itself.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::reader::Section;
use crate::fleet::{LEASE_DURATION_MAX, LEASE_DURATION_MIN};
use crate::relay::OnTrim;

const MEMORY_LIMIT: RangeInclusive<usize> = 16 << 20..=1 << 40;
const POLL_INTERVAL_MAX: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_mins(1);
const SHUTDOWN_GRACE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(1);
const LEASE_DURATION: RangeInclusive<Duration> = LEASE_DURATION_MIN..=LEASE_DURATION_MAX;
const GAP_WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(1);
const CHECKPOINT_HOLD: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(10);
const HOLE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(1);
const CHECKPOINT_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_mins(10);
const RECONCILE_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);
const SAFETY_ALARM: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24);

const ON_TRIM: &str = "\"reconcile\" or \"fail\"";

fn parse_on_trim(text: &str) -> Option<OnTrim> {
    match text {
        "reconcile" => Some(OnTrim::Reconcile),
        "fail" => Some(OnTrim::Fail),
        _ => None,
    }
}

/// Memory, pace and patience of the relay itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayConfig {
    /// `memory_limit`, in bytes: what records, events and caches may hold together; default 64 MiB, at least 16 MiB.
    pub memory_limit: usize,
    /// The longest wait between two reads of an idle shard; default 1 s, 50 ms to 60 s.
    pub poll_interval_max: Duration,
    /// How long a stop may take, less than Kubernetes' `terminationGracePeriodSeconds`; default 20 s.
    pub shutdown_grace: Duration,
    /// A replica that crashes is taken over after so long; default 10 s, 1 s to 5 min.
    pub lease_duration: Duration,
    /// How long a gap waits for the stream before it is repaired by a query; default 200 ms.
    pub gap_wait: Duration,
    /// How long an event may be absent from the table, while a later one is there, before it counts as a hole; default
    /// 10 s.
    pub hole_timeout: Duration,
    /// The longest time a root that waits may hold a checkpoint; then it is marked as deferred. Default 1 min.
    pub checkpoint_hold: Duration,
    /// How often checkpoints are written; default 5 s.
    pub checkpoint_interval: Duration,
    /// How often the stream's shards are listed in full; default 60 s.
    pub reconcile_interval: Duration,
    /// What follows when the stream has lost records that a handler needs; default: they are found in the table.
    pub on_trim: OnTrim,
    /// A handler is warned about when the stream will trim what it has not been given in less than this; default 6 h.
    pub safety_alarm: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            memory_limit: 64 << 20,
            poll_interval_max: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(20),
            lease_duration: Duration::from_secs(10),
            gap_wait: Duration::from_millis(200),
            hole_timeout: Duration::from_secs(10),
            checkpoint_hold: Duration::from_mins(1),
            checkpoint_interval: Duration::from_secs(5),
            reconcile_interval: Duration::from_mins(1),
            on_trim: OnTrim::Reconcile,
            safety_alarm: Duration::from_hours(6),
        }
    }
}

impl RelayConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let config = Self {
            memory_limit: section.bytes("memory_limit", defaults.memory_limit, &MEMORY_LIMIT),
            poll_interval_max: section.duration("poll_interval_max", defaults.poll_interval_max, &POLL_INTERVAL_MAX),
            shutdown_grace: section.duration("shutdown_grace", defaults.shutdown_grace, &SHUTDOWN_GRACE),
            lease_duration: section.duration("lease_duration", defaults.lease_duration, &LEASE_DURATION),
            gap_wait: section.duration("gap_wait", defaults.gap_wait, &GAP_WAIT),
            hole_timeout: section.duration("hole_timeout", defaults.hole_timeout, &HOLE_TIMEOUT),
            checkpoint_hold: section.duration("checkpoint_hold", defaults.checkpoint_hold, &CHECKPOINT_HOLD),
            checkpoint_interval: section.duration(
                "checkpoint_interval",
                defaults.checkpoint_interval,
                &CHECKPOINT_INTERVAL,
            ),
            reconcile_interval: section.duration(
                "reconcile_interval",
                defaults.reconcile_interval,
                &RECONCILE_INTERVAL,
            ),
            on_trim: section.parsed("on_trim", ON_TRIM, parse_on_trim).unwrap_or(defaults.on_trim),
            safety_alarm: section.duration("safety_alarm", defaults.safety_alarm, &SAFETY_ALARM),
        };
        if config.gap_wait >= config.hole_timeout {
            let found = humantime::format_duration(config.gap_wait).to_string();
            section.wrong("gap_wait", found, "less than relay.hole_timeout");
        }
        section.finish();
        config
    }
}
