//! One handler as the keeper of the shards knows it: its lineage, its checkpoints, and the job it needs or has.
//!
//! Invariant: its lanes read the stream only once it is known what it needs, and not while it is built from the table.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;

use super::jobs::{JobPorts, Running};
use crate::backfill::{self, Job, JobKind, Need, Seen};
use crate::event::Timestamp;
use crate::handler::HandlerName;
use crate::lane::LaneOrder;
use crate::relay_table::Checkpoint;
use crate::storage::StorageError;
use crate::stream::{Lineage, Shard, ShardId};

/// One handler as the keeper of the shards sees it.
pub(super) struct HandlerLanes {
    pub(super) name: HandlerName,
    pub(super) orders: mpsc::Sender<LaneOrder>,
    pub(super) checkpoints: BTreeMap<ShardId, Checkpoint>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) seen: Option<Seen>,
    pub(super) job: Option<Job>,
}

/// One handler while its shards are kept.
pub(super) struct Kept {
    pub(super) handler: HandlerLanes,
    pub(super) lineage: Lineage,
    /// The job under way.
    pub(super) running: Option<Running>,
    /// A job that is needed and not begun yet.
    pub(super) need: Need,
    /// The stream it follows; none before its first sight of one.
    pub(super) follows: Option<String>,
    /// It was built from the table, and its lanes on the stream are not opened yet.
    pub(super) released: bool,
    /// What is older is delivered, or found by a job that began then.
    pub(super) complete_since: Timestamp,
}

impl Kept {
    pub(super) fn new(handler: HandlerLanes) -> Self {
        let finished = (handler.checkpoints.iter())
            .filter(|(_, checkpoint)| **checkpoint == Checkpoint::Finished)
            .map(|(shard, _)| shard.clone());
        Self {
            lineage: Lineage::with_finished(finished),
            running: None,
            need: None,
            follows: None,
            released: false,
            complete_since: (handler.job.as_ref()).map_or(Timestamp::from_unix_millis(0), |job| job.started_at),
            handler,
        }
    }

    /// Learns which stream there is, and what that means for the handler.
    pub(super) fn look(&mut self, stream: &str, listed: &BTreeSet<ShardId>, now: Timestamp) {
        let need = match &self.follows {
            Some(follows) if follows == stream => return,
            Some(follows) => Some((JobKind::Reconcile, backfill::other_stream(follows))),
            None => {
                let HandlerLanes { started_at, seen, job, checkpoints, .. } = &self.handler;
                // A new handler has missed nothing; one that was there needs what it has not read.
                if let (None, None) = (seen, job) {
                    self.complete_since = now;
                }
                let known =
                    backfill::Known { started_at: *started_at, seen: seen.as_ref(), job: job.as_ref(), checkpoints };
                backfill::at_first_sight(known, backfill::Listed { stream, shards: listed, now })
            }
        };
        self.need = self.need.take().or(need);
        self.follows = Some(stream.to_owned());
    }

    /// Notes what the handler needs because records were lost. Trimmed ones were 24 hours old: a job that began since then
    /// finds them.
    pub(super) fn misses(&mut self, need: Need, trimmed: bool, now: Timestamp) {
        let finds = |running: &Running| now.since(running.job().started_at) < backfill::STREAM_KEEPS;
        if !(trimmed && self.running.as_ref().is_some_and(finds)) {
            self.need = self.need.take().or(need);
        }
    }

    /// Whether its lanes may read shards of the stream: not before it is known what the handler needs, nor while it is
    /// built from the table.
    pub(super) fn reads_the_stream(&self) -> bool {
        let held = self.running.as_ref().is_some_and(Running::holds)
            || self.unfinished_job().is_some_and(|job| job.kind == JobKind::Backfill);
        let to_be_held = matches!(self.need, Some((JobKind::Backfill, _)));
        self.follows.is_some() && !held && !to_be_held
    }

    /// A job of an earlier life that was not taken up yet.
    pub(super) fn unfinished_job(&self) -> Option<&Job> {
        self.handler.job.as_ref().filter(|job| job.finished_at.is_none())
    }

    pub(super) fn segments(&self) -> Vec<Shard> {
        self.running.as_ref().map(Running::segments).unwrap_or_default()
    }

    /// Goes on with the handler's job as far as it goes now; true when shards wait to be opened.
    pub(super) async fn work(&mut self, ports: &JobPorts) -> Result<bool, StorageError> {
        let Some(stream) = self.follows.clone() else { return Ok(false) };
        let mut opens = false;
        if let Some(job) = self.unfinished_job().cloned() {
            let running = ports.resume(&self.handler.name, job, &self.handler.checkpoints).await?;
            self.handler.job = None;
            self.runs(running);
            opens = true;
        }
        if let Some(running) = &mut self.running {
            if running.is_complete() {
                running.complete(ports).await?;
                self.released |= running.holds();
                self.need = self.need.take().or_else(|| backfill::after_job(running.job(), ports.clock.now()));
                self.running = None;
            } else {
                running.note(ports).await;
            }
        }
        if self.running.is_none()
            && let Some((kind, reason)) = &self.need
        {
            let running = ports.begin(&self.handler.name, (*kind, reason), &stream).await?;
            self.need = None;
            self.runs(running);
            opens = true;
        }
        Ok(opens)
    }

    pub(super) fn runs(&mut self, running: Running) {
        self.complete_since = running.job().started_at;
        self.lineage.observe(&running.segments());
        self.running = Some(running);
    }
}
