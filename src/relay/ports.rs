//! What a relay is made of: its ports to the outside, its handlers, its bounds.

use std::sync::Arc;
use std::time::Duration;

use crate::handler::{Handler, HandlerName};
use crate::lane::{LaneSettings, Subscription};
use crate::relay_table::{CheckpointStore, HandlerRegistry, Start};
use crate::storage::{EventSource, PositionStore};
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
    /// The relay's table: checkpoints.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// The relay's table: handlers.
    pub registry: Arc<dyn HandlerRegistry>,
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
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            memory_limit_bytes: 64 << 20,
            poll_interval_max: Duration::from_secs(1),
            reconcile_interval: Duration::from_mins(1),
            shutdown_grace: Duration::from_secs(20),
        }
    }
}

/// What an idle root costs in memory, in bytes, about.
const IDLE_ROOT_BYTES: usize = 320;

impl RelaySettings {
    /// The part of the memory limit for page windows: half.
    #[must_use]
    pub fn window_bytes(&self) -> usize {
        self.memory_limit_bytes / 2
    }

    /// A quarter goes to the events waiting in lanes, a quarter to remembered positions, each shared by the handlers.
    #[must_use]
    pub fn bounded(&self, settings: &LaneSettings, handlers: usize) -> LaneSettings {
        let share = self.memory_limit_bytes / 4 / handlers.max(1);
        LaneSettings { queued_bytes_max: share, idle_roots_max: share / IDLE_ROOT_BYTES, ..settings.clone() }
    }
}
