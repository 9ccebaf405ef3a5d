//! What a handler's lanes need of the outside, what they are told, and what they tell.
//!
//! Types only. Who gives and takes them is `relay`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{KnownPositions, LaneSettings, PayloadRoom, Subscription};
use crate::handler::{Handler, HandlerName};
use crate::relay_table::{CheckpointStore, Lives, Suspect};
use crate::storage::{EventSource, MarkStore, PositionStore};
use crate::stream::{Branch, Feed, LaneId, ShardId, StreamPoint};
use crate::telemetry::Health;
use crate::time::{Clock, Random};

/// Whether this process goes on with deferred roots of a branch, or of none.
pub type WorksOff = Arc<dyn Fn(Option<&Branch>) -> bool + Send + Sync>;

/// Whether this process may start deliveries: not while others may take over what it holds.
pub type MayDeliver = Arc<dyn Fn() -> bool + Send + Sync>;

/// How a lane begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// It has everything up to here.
    pub after: StreamPoint,
    /// The branch its shard is on; none for a segment of a job.
    pub branch: Option<Branch>,
    /// Its lease came from elsewhere: nothing that is remembered of its roots holds.
    pub taken: bool,
}

/// What a handler's lanes need of the outside.
#[derive(Clone)]
pub struct LanesParts {
    /// The handler's name.
    pub name: HandlerName,
    /// Where its events go.
    pub handler: Arc<dyn Handler>,
    /// What it receives.
    pub subscription: Subscription,
    /// Its bounds and intervals.
    pub settings: LaneSettings,
    /// The table that repairs what the stream did not bring.
    pub events: Arc<dyn EventSource>,
    /// Where its positions are.
    pub positions: Arc<dyn PositionStore>,
    /// Room for payloads that are put together.
    pub payload_room: PayloadRoom,
    /// What is known of its positions before the first lane is opened.
    pub known: KnownPositions,
    /// Where its roots are marked.
    pub marks: Arc<dyn MarkStore>,
    /// Whether this process goes on with deferred roots of a branch, or of none. Who changes what it says orders
    /// [`LaneOrder::Resume`] where it says yes now; of a branch whose lane is ordered to close it says no from then on.
    pub works_off: WorksOff,
    /// Whether a delivery may be started: asked right before each.
    pub may_deliver: MayDeliver,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// Where its lives are noted.
    pub lives: Arc<dyn Lives>,
    /// Held by the one event of the process that is noted.
    pub care: Arc<Semaphore>,
    /// The event it was being given when a life of it ended uncleanly, where that was noted.
    pub suspect: Option<Suspect>,
    /// Where its checkpoints are.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// How long a stop may take.
    pub shutdown_grace: Duration,
    /// Less than this left until the stream trims what the handler has not been given is told.
    pub safety_alarm: Duration,
    /// Wall time.
    pub clock: Clock,
    /// Chance.
    pub random: Random,
    /// Where obstacles are named.
    pub health: Health,
}

/// What the lanes are told.
#[derive(Debug)]
pub enum LaneOrder {
    /// Open a lane on a shard.
    Open(LaneId, Feed, Opening),
    /// Give a lane up: what is in flight is answered, what was accepted is written, then its checkpoint, and it is told
    /// [`LaneReport::Closed`]. What is not done at the deadline is not done any more. A lane that is gone is not told again.
    Close(LaneId, Instant),
    /// A life of the handler ended uncleanly, perhaps by this event: what comes next is given one by one.
    Careful(Option<Suspect>),
    /// An operator has paused the handler, or lets it go on.
    Pause(bool),
    /// Look which marked roots are to go on: at the start, and when an operator has changed some.
    Resume,
}

/// What the lanes tell.
#[derive(Debug, PartialEq, Eq)]
pub enum LaneReport {
    /// This handler has finished this shard, durably. A lane that was ordered to close may still tell this in the place of
    /// the other: never both.
    Finished(HandlerName, ShardId),
    /// The lane was given up as ordered. Clean: all that was accepted of its roots is durable, and so is its checkpoint.
    /// Otherwise the deadline came first: nothing was begun or written for it since.
    Closed(HandlerName, ShardId, bool),
}
