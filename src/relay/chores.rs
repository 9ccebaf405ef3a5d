//! What the keeper of the shards has done beside its loop: it may take as long as DynamoDB does not answer.
//!
//! Invariant: whoever waits for a chore is told only when it is done.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinError as TaskError, JoinSet};
use tokio::time::sleep;

use super::RelayPorts;
use super::start::last_life;
use crate::fleet::{Epoch, MemberId};
use crate::handler::HandlerName;
use crate::lane::LaneSettings;
use crate::relay_table::Life;
use crate::stream::ShardId;
use crate::telemetry::with_causes;

/// What a handler needs is noted again after so long, when it could not be.
const NEED_RETRY: Duration = Duration::from_secs(1);

/// The subject of what handlers need in the health report.
const NEEDS: &str = "needs";

/// What was done, for the handler of this index.
pub(super) enum Chore {
    /// A dead member's life for a handler was looked into.
    LookedInto(usize, MemberId, Life),
    /// What a handler needs is durable.
    Noted(usize, NeedOf),
}

/// Who waits until a need is durable.
pub(super) enum NeedOf {
    /// A shard that is about to be opened under this epoch.
    Opening(ShardId, Epoch),
    /// A reader that has found records lost; the last of the handlers that have lost them tells it.
    Reader(Arc<oneshot::Sender<()>>),
}

/// The chores under way: one a dead member and handler, one a need.
#[derive(Default)]
pub(super) struct Chores(JoinSet<Chore>);

impl Chores {
    /// Waits for the next that is done; none while there is none.
    pub(super) async fn done(&mut self) -> Option<Result<Chore, TaskError>> {
        self.0.join_next().await
    }

    /// Looks into how a dead member's life went for a handler.
    pub(super) fn look_into(
        &mut self,
        (index, handler): (usize, &HandlerName),
        settings: &LaneSettings,
        dead: MemberId,
        ports: &RelayPorts,
    ) {
        let (ports, handler, settings) = (ports.clone(), handler.clone(), settings.clone());
        self.0.spawn(async move {
            let life = last_life(&ports, (&handler, &settings), &dead).await;
            Chore::LookedInto(index, dead, life)
        });
    }

    /// Makes durable what a handler needs, unless it is already.
    pub(super) fn note(
        &mut self,
        (index, handler): (usize, &HandlerName),
        reason: Option<String>,
        of: NeedOf,
        ports: &RelayPorts,
    ) {
        let (ports, handler) = (ports.clone(), handler.clone());
        self.0.spawn(async move {
            if let Some(reason) = reason {
                while let Err(error) = ports.jobs.put_need(&handler, &reason).await {
                    ports.health.problem(NEEDS, with_causes(&error));
                    sleep(NEED_RETRY).await;
                }
                ports.health.mended(NEEDS);
            }
            Chore::Noted(index, of)
        });
    }
}
