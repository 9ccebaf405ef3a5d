//! The relay itself: the only place that wires, spawns and stops.
//!
//! It knows both sides, `stream` and `handler`, which do not know each other. One task keeps the shards (discovery,
//! lineage, readers), one per handler runs its lanes. When one of them ends unasked the relay stops with an error: a
//! daemon that is half running is worse than one that is restarted.

mod error;
mod ports;
mod start;
mod heart;
mod held;
mod leasing;
mod desk;
mod jobs;
mod kept;
mod listing;
mod chores;
mod readers;
mod shards;
mod comparison;
mod lane_checkpoints;
mod incarnation;
mod run;
mod receivers;
mod builder;

pub use builder::{RelayBuilder, RunError, Running, clients_for};
pub use error::RelayError;
pub use ports::{HandlerSpec, OnTrim, RelayPorts, RelaySettings};
pub use receivers::ReceiverError;
pub(crate) use receivers::subscription;
pub use run::Relay;
