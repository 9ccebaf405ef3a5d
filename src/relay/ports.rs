//! What a relay is made of: its ports to the outside, its handlers, its bounds.

use std::sync::Arc;
use std::time::Duration;

use crate::backfill::{JobStore, ScanProgress, TableSource};
use crate::fleet::{FleetStore, Timing};
use crate::handler::{Handler, HandlerName};
use crate::lane::{LaneSettings, Subscription, UNWRITTEN_ROOTS_ABOVE};
use crate::relay_table::{HandlerRegistry, LivesOfAll, Start};
use crate::storage::{EventSource, MarkStore, PositionStore};
use crate::stream::StreamSource;
use crate::telemetry::Health;
use crate::time::{Clock, Random};

/// Everything a relay asks of the outside.
#[derive(Clone)]
pub struct RelayPorts {
    /// The stream of the events table.
    pub stream: Arc<dyn StreamSource>,
    /// The events table, for repair.
    pub events: Arc<dyn EventSource>,
    /// The positions table.
    pub positions: Arc<dyn PositionStore>,
    /// The marks of roots, in the positions table and the relay's.
    pub marks: Arc<dyn MarkStore>,
    /// The relay's table: members, view, leases.
    pub fleet: Arc<dyn FleetStore>,
    /// The relay's table: handlers.
    pub registry: Arc<dyn HandlerRegistry>,
    /// The events table in segments, for backfill and reconcile.
    pub scan: Arc<dyn TableSource>,
    /// How much `scan` has read.
    pub scan_progress: ScanProgress,
    /// The relay's table: how lives end.
    pub lives: Arc<dyn LivesOfAll>,
    /// The relay's table: jobs.
    pub jobs: Arc<dyn JobStore>,
    /// Wall time.
    pub clock: Clock,
    /// Chance.
    pub random: Random,
    /// Where life and obstacles are told.
    pub health: Health,
}

/// One handler to run.
#[derive(Clone)]
pub struct HandlerSpec {
    /// Its name.
    pub name: HandlerName,
    /// Where its events go.
    pub handler: Arc<dyn Handler>,
    /// Where it starts when it was never seen before.
    pub start: Start,
    /// What it receives.
    pub subscription: Subscription,
    /// Its bounds and intervals; those that follow from the relay's memory limit are set by the relay.
    pub settings: LaneSettings,
}

/// The bounds and intervals of a whole relay.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// Bytes that records and events may take in memory, windows, queues and caches together.
    pub memory_limit_bytes: usize,
    /// The longest wait between two reads of an idle shard.
    pub poll_interval_max: Duration,
    /// How often the list of shards is compared with what is being read.
    pub reconcile_interval: Duration,
    /// How long a stop may take.
    pub shutdown_grace: Duration,
    /// A replica that crashed is taken over after so long.
    pub lease_duration: Duration,
    /// What tells this replica from others in what people read: its pod's or host's name.
    pub replica_name: String,
    /// What follows when the stream has lost records.
    pub on_trim: OnTrim,
    /// The parallel parts of a scan of the table.
    pub backfill_segments: u32,
    /// A handler is warned about when the stream will trim what it has not been given in less than this.
    pub safety_alarm: Duration,
}

/// What follows when the stream has lost records that a handler needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTrim {
    /// They are found in the table.
    Reconcile,
    /// The relay stops.
    Fail,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            memory_limit_bytes: 64 << 20,
            poll_interval_max: Duration::from_secs(1),
            reconcile_interval: Duration::from_mins(1),
            shutdown_grace: Duration::from_secs(20),
            lease_duration: Duration::from_secs(10),
            replica_name: "relay".to_owned(),
            on_trim: OnTrim::Reconcile,
            backfill_segments: 4,
            safety_alarm: Duration::from_hours(6),
        }
    }
}

/// What an idle root costs in memory, in bytes, about. One whose position is to be written costs twice as much.
const IDLE_ROOT_BYTES: usize = 256;

impl RelaySettings {
    /// The intervals of the fleet. A hand-over may take half of the grace period: a stop that begins with one ends in time.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing::new(self.lease_duration, self.shutdown_grace / 2)
    }

    /// The part of the memory limit for page windows of the stream: three sixteenths.
    #[must_use]
    pub fn window_bytes(&self) -> usize {
        self.memory_limit_bytes / 16 * 3
    }

    /// The part for payloads that are put together from their chunks: a sixteenth, shared by the handlers. One that is
    /// larger is put together alone, and comes on top.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.memory_limit_bytes / 16
    }

    /// The part for page windows of the table's scans: an eighth, shared by the handlers.
    #[must_use]
    pub fn scan_bytes(&self) -> usize {
        self.memory_limit_bytes / 8
    }

    /// An eighth goes to the events waiting in lanes, half to roots and their positions, each shared by the handlers.
    /// So positions can wait for their interval in a backlog, too: written early they would compete with the reading.
    #[must_use]
    pub fn bounded(&self, settings: &LaneSettings, handlers: usize) -> LaneSettings {
        let handlers = handlers.max(1);
        let idle_roots_max = self.memory_limit_bytes / 2 / handlers / IDLE_ROOT_BYTES;
        LaneSettings {
            queued_bytes_max: self.memory_limit_bytes / 8 / handlers,
            idle_roots_max,
            flush_roots: settings.flush_roots.min((idle_roots_max / 2).saturating_sub(UNWRITTEN_ROOTS_ABOVE)).max(1),
            ..settings.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_together_stay_within_the_memory_limit() {
        for memory_limit_bytes in [8 << 20, 64 << 20, 1 << 30] {
            for handlers in [1, 3, 20] {
                let settings = RelaySettings { memory_limit_bytes, ..RelaySettings::default() };
                let bounded = settings.bounded(&LaneSettings::default(), handlers);
                let roots_bytes = bounded.idle_roots_max * IDLE_ROOT_BYTES;
                let windows_bytes = settings.window_bytes() + settings.scan_bytes() + settings.payload_bytes();
                let bytes = windows_bytes + handlers * (bounded.queued_bytes_max + roots_bytes);
                assert!(bytes <= memory_limit_bytes, "{memory_limit_bytes} {handlers}: {bytes}");
                // A root with an unwritten position takes the place of two; one page always goes.
                let most = (bounded.idle_roots_max / 2).max(UNWRITTEN_ROOTS_ABOVE + 1);
                assert!(bounded.unwritten_roots_max() <= most, "{memory_limit_bytes} {handlers}");
            }
        }
    }
}
