//! One handler's way through its shards, from page to position.
//!
//! A *lane* is one handler over one shard. All lanes of a handler share one table of root courses, so a root that is
//! met in two lanes is still delivered by one sequencer. [`Lanes`] is the whole of it as pure decisions: pages,
//! positions, answers and the time go in, [`Effect`]s come out; it never waits and does no I/O. [`LanesTask`] carries
//! the effects out, with `tables`, `payload`, `delivery` and `stop`, the async files here. Reading shards is left to `stream`, receiving events to `handler`,
//! wiring to `relay`.

mod settings;
mod glob;
mod subscription;
mod sequencer;
mod course;
mod courses;
mod watermark;
mod unsaved;
mod outage;
mod retry;
mod lanes;
mod intake;
mod standing;
mod placing;
mod preload;
mod dispatch;
mod flush;
mod marks;
mod errands;
mod holes;
mod purge;
mod repair;
mod closing;
mod gauges;
mod progress;
mod safety;
mod tables;
mod payload;
mod spans;
mod delivery;
mod parts;
mod task;
mod stop;

pub use glob::Glob;
pub use lanes::{Effect, Lanes, Stuck};
pub use marks::MarkOrder;
pub use payload::PayloadRoom;
pub use preload::KnownPositions;
pub use progress::Progress;
pub use repair::{RepairOrder, Repaired};
pub use sequencer::{Sequencer, Verdict};
pub use settings::{LaneSettings, MARK_TTL, OnEditionDelete, OnFailure, OnHole, OnInvalid, UNWRITTEN_ROOTS_ABOVE};
pub use subscription::{Pattern, Subscription, default_editions};

pub use parts::{LaneOrder, LaneReport, LanesParts, MayDeliver, Opening, WorksOff};
pub use task::LanesTask;
pub use watermark::Watermark;

#[cfg(test)]
mod tests;
