//! What the keeper of the shards does for the desks it holds: the leases are compared with the stream, jobs are begun and
//! closed.
//!
//! What is due for one handler is decided in `desk`. Invariant: before a needed job is durable, nothing of what shows the
//! need is forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::{debug, warn};

use super::desk::Desk;
use super::jobs::JobPorts;
use super::kept::HandlerLanes;
use super::leasing::LeaseNote;
use super::shards::Shards;
use super::{OnTrim, RelayError};
use crate::backfill::JobKind;
use crate::fleet::{Lease, MemberId};
use crate::lane::LaneOrder;
use crate::storage::StorageError;
use crate::stream::{Shard, ShardId, StreamError};
use crate::telemetry::with_causes;

/// The subject of discovery in the health report.
const DISCOVERY: &str = "shards";

/// The subject of jobs in the health report.
const JOBS: &str = "jobs";

impl Shards {
    /// What stood in the way of a desk that was left is told by whoever has it now; those that are left tell theirs again.
    pub(super) fn forget_problems_of_desks(&self) {
        for subject in [JOBS, DISCOVERY] {
            self.parts.ports.health.mended(subject);
        }
    }

    /// Takes up the desks that are held; true when one was.
    pub(super) async fn take_up_desks(&mut self) -> bool {
        let mut taken = false;
        for kept in self.handlers.iter_mut().filter(|kept| kept.desk_due && kept.desk.is_none()) {
            let HandlerLanes { name, started_at, .. } = &kept.handler;
            match Desk::take_up(name, *started_at, &self.parts.jobs, &*self.parts.ports.fleet).await {
                Ok(desk) => {
                    kept.take_up_desk(desk);
                    taken = true;
                    self.parts.ports.health.mended(JOBS);
                }
                Err(error) => self.parts.ports.health.problem(JOBS, with_causes(&error)),
            }
        }
        taken
    }

    /// Begins to list the shards; when that is under way, once more after it.
    pub(super) fn begin_listing(&mut self) {
        if !self.listings.is_empty() {
            self.lists_again = true;
            return;
        }
        let listing = self.parts.listing.clone();
        self.listings.spawn(async move { listing.all().await });
    }

    /// Compares the leases with the whole list of shards; false when it is to be done again soon.
    pub(super) async fn compare(&mut self, listed: Result<Arc<Vec<Shard>>, StreamError>) -> Result<bool, RelayError> {
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                self.parts.ports.health.problem(DISCOVERY, with_causes(&error));
                return Ok(false);
            }
        };
        let ids: BTreeSet<ShardId> = listed.iter().map(|shard| shard.id.clone()).collect();
        let (stream, now) = (self.parts.ports.stream.name(), self.parts.ports.clock.now());
        for desk in self.handlers.iter_mut().filter_map(|kept| kept.desk.as_mut()) {
            desk.look(&stream, &ids, now);
        }
        // Before a needed job is durable, nothing of what shows the need is forgotten.
        self.work_on_jobs().await?;
        match self.adjust(&listed).await {
            Ok(()) => self.parts.ports.health.mended(DISCOVERY),
            Err(error) => {
                self.parts.ports.health.problem(DISCOVERY, with_causes(&error));
                return Ok(false);
            }
        }
        Ok(self.handlers.iter().filter_map(|kept| kept.desk.as_ref()).all(|desk| desk.need.is_none()))
    }

    /// Adds the leases that are missing, and removes those that nobody needs.
    pub(super) async fn adjust(&mut self, listed: &[Shard]) -> Result<(), StorageError> {
        let fleet = &*self.parts.ports.fleet;
        let mut missing = Vec::new();
        let desks = self.handlers.iter().filter_map(|kept| kept.desk.as_ref());
        for desk in desks.clone() {
            missing.extend(desk.missing(listed, &self.leases));
        }
        if !missing.is_empty() {
            fleet.add(&missing).await?;
            self.parts.notes.send(LeaseNote::Added).ok();
        }
        // While a job runs, what it finds is all that may go.
        let may_go = |desk: &Desk, lease: &Lease| desk.is_settled() || (desk.is_busy() && !lease.finished);
        let outlived = |desk: &Desk| -> Vec<Lease> {
            desk.outlived(listed, &self.leases).filter(|lease| may_go(desk, lease)).cloned().collect()
        };
        let outlived: Vec<Lease> = desks.flat_map(outlived).collect();
        for lease in outlived {
            if !fleet.forget(&lease).await? {
                debug!(handler = %lease.handler, shard = %lease.shard, "the lease of a shard that is gone was taken meanwhile");
            }
            self.leases.remove(&lease.key());
        }
        self.forget_lives().await
    }

    /// Forgets the lives of members that are gone and hold nothing: nobody will ask for them.
    pub(super) async fn forget_lives(&mut self) -> Result<(), StorageError> {
        if !self.lives_due {
            return Ok(());
        }
        let ports = &self.parts.ports;
        let mut lives = Vec::new();
        for kept in self.handlers.iter().filter(|kept| kept.desk.is_some()) {
            let name = &kept.handler.name;
            lives.extend(ports.lives.members(name).await?.into_iter().map(|member| (name, member)));
        }
        // Members after their lives, which begin later than their rows.
        let fleet = ports.fleet.fleet().await?;
        let holds = |member: &MemberId| self.leases.values().any(|lease| lease.owner.as_ref() == Some(member));
        for (name, member) in lives.iter().filter(|(_, member)| fleet.member(member).is_none() && !holds(member)) {
            ports.lives.forget(member, name).await?;
        }
        self.lives_due = false;
        Ok(())
    }

    /// Begins what is needed, and closes jobs that are done; true when leases are to be added or removed.
    pub(super) async fn work_on_jobs(&mut self) -> Result<bool, RelayError> {
        let (mut changed, mut failed) = (false, None);
        for kept in &mut self.handlers {
            let Some(desk) = &mut kept.desk else { continue };
            if self.parts.on_trim == OnTrim::Fail {
                fail_if_trimmed(&kept.handler, desk, &self.parts.jobs).await?;
            }
            match desk.work(&self.parts.jobs, &self.leases).await {
                Ok(worked) => {
                    changed |= worked;
                    if worked {
                        // Roots that others deferred in its segments belong to no branch: they are this desk's.
                        kept.handler.orders.send(LaneOrder::Resume).await.ok();
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => self.parts.ports.health.problem(JOBS, with_causes(&error)),
            None if self.has_desk() => self.parts.ports.health.mended(JOBS),
            None => {}
        }
        Ok(changed)
    }

    /// Notes which stream the handlers follow; false when that failed.
    pub(super) async fn note_seen(&self) -> bool {
        let mut noted = true;
        for kept in &self.handlers {
            let Some(desk) = &kept.desk else { continue };
            let Some(seen) = desk.sight(self.parts.ports.clock.now()) else {
                noted = false;
                continue;
            };
            if let Err(error) = self.parts.jobs.store.put_seen(&kept.handler.name, &seen).await {
                debug!(handler = %kept.handler.name, error = %with_causes(&error), "could not note that the handler follows the stream");
                noted = false;
            }
        }
        noted
    }
}

/// With `on_trim = "fail"`: the loss is noted durably, as a job that nobody works on, and stops the relay now and at every
/// start.
async fn fail_if_trimmed(handler: &HandlerLanes, desk: &mut Desk, jobs: &JobPorts) -> Result<(), RelayError> {
    let handler = handler.name.clone();
    if let Some(job) = desk.unfinished_job().filter(|job| job.kind == JobKind::Reconcile) {
        return Err(RelayError::Trimmed { handler, reason: job.reason.clone() });
    }
    if let Some((JobKind::Reconcile, reason)) = desk.need.clone() {
        let stream = desk.follows.clone().unwrap_or_default();
        if let Err(error) = jobs.begin(&handler, (JobKind::Reconcile, &reason), &stream).await {
            warn!(%handler, error = %with_causes(&error), "that the stream has lost records could not be noted");
        }
        return Err(RelayError::Trimmed { handler, reason });
    }
    Ok(())
}
