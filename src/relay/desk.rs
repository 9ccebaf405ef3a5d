//! A handler's desk: what is done for a handler once in the whole fleet. It is compared with the stream, and its jobs are
//! begun and closed.
//!
//! Whoever holds the lease of the desk does it. Leases of shards are added only once it is known what the handler needs,
//! and not while it is built from the table: so no replica reads the stream for it before. Invariant: before a needed
//! job is durable, nothing of what shows the need is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use super::jobs::{JobPorts, Running};
use crate::backfill::{self, Job, JobKind, Need, Seen};
use crate::event::Timestamp;
use crate::fleet::{FleetStore, Lease, LeaseKey, LeaseKind};
use crate::handler::HandlerName;
use crate::relay_table::Checkpoint;
use crate::storage::StorageError;
use crate::stream::{Branch, Shard, ShardId};

/// The lease of a handler's desk.
pub(super) fn desk_lease(handler: &HandlerName) -> Lease {
    // Named after the handler, so that the desks of several handlers are spread over the members.
    let branch = Branch::of(&ShardId::new(&format!("desk of {handler}")));
    Lease::new(handler.clone(), ShardId::new(DESK), LeaseKind::Desk, branch, None)
}

/// What it is called among the shards.
pub(super) const DESK: &str = "desk";

/// One handler's desk, held by this replica.
pub(super) struct Desk {
    name: HandlerName,
    started_at: Option<Timestamp>,
    seen: Option<Seen>,
    job: Option<Job>,
    checkpoints: BTreeMap<ShardId, Checkpoint>,
    running: Option<Running>,
    pub(super) need: Need,
    /// The stream it follows; none before its first sight of one.
    pub(super) follows: Option<String>,
    /// The shards of the stream, as they were last listed.
    listed: BTreeSet<ShardId>,
    /// The same when the job that runs was begun here: what was not among them then is older than the job, which finds it.
    listed_at_begin: Option<BTreeSet<ShardId>>,
}

impl Desk {
    /// Takes up a handler's desk: what another replica has left on it is in the tables.
    pub(super) async fn take_up(
        name: &HandlerName,
        started_at: Option<Timestamp>,
        ports: &JobPorts,
        leases: &dyn FleetStore,
    ) -> Result<Self, StorageError> {
        let (checkpoints, seen, job) =
            tokio::try_join!(leases.checkpoints(name), ports.store.seen(name), ports.store.job(name))?;
        let (running, need, follows) = (None, None, None);
        let (name, listed, listed_at_begin) = (name.clone(), BTreeSet::new(), None);
        Ok(Self { name, started_at, seen, job, checkpoints, running, need, follows, listed, listed_at_begin })
    }

    /// Learns which stream there is, and what that means for the handler.
    pub(super) fn look(&mut self, stream: &str, listed: &BTreeSet<ShardId>, now: Timestamp) {
        self.listed.clone_from(listed);
        let need = match &self.follows {
            Some(follows) if follows == stream => return,
            Some(follows) => Some((JobKind::Reconcile, backfill::other_stream(follows))),
            None => {
                let Self { started_at, seen, job, checkpoints, .. } = &*self;
                let (seen, job) = (seen.as_ref(), job.as_ref());
                let known = backfill::Known { started_at: *started_at, seen, job, checkpoints };
                backfill::at_first_sight(known, backfill::Listed { stream, shards: listed, now })
            }
        };
        self.need = self.need.take().or(need);
        self.follows = Some(stream.to_owned());
    }

    /// Notes what the handler needs because records of these shards were lost. Trimmed ones were 24 hours old: a job that
    /// began since then finds them; so does one that began when their shard was gone already.
    pub(super) fn misses(&mut self, need: Need, (shards, trimmed): (&[ShardId], bool), now: Timestamp) {
        let lately = |running: &Running| now.since(running.job().started_at) < backfill::STREAM_KEEPS;
        let trimmed_before = trimmed && self.running.as_ref().is_some_and(lately);
        let gone_before = !shards.is_empty() && shards.iter().all(|shard| self.is_found(shard));
        if !trimmed_before && !gone_before {
            self.need = self.need.take().or(need);
        }
    }

    /// Whether all that a shard held is found by the job that runs.
    fn is_found(&self, shard: &ShardId) -> bool {
        self.running.is_some() && self.listed_at_begin.as_ref().is_some_and(|listed| !listed.contains(shard))
    }

    /// Whether its lanes may read shards of the stream: not before it is known what the handler needs, nor while it is
    /// built from the table.
    pub(super) fn reads_the_stream(&self) -> bool {
        let held = self.running.as_ref().is_some_and(Running::holds)
            || self.unfinished_job().is_some_and(|job| job.kind == JobKind::Backfill);
        let to_be_held = matches!(self.need, Some((JobKind::Backfill, _)));
        self.follows.is_some() && !held && !to_be_held
    }

    /// Whether nothing is to be done but to follow the stream.
    pub(super) fn is_settled(&self) -> bool {
        self.need.is_none() && self.unfinished_job().is_none() && self.reads_the_stream()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some() || self.need.is_some()
    }

    /// A job of an earlier life that was not taken up yet.
    pub(super) fn unfinished_job(&self) -> Option<&Job> {
        self.job.as_ref().filter(|job| job.finished_at.is_none())
    }

    /// The segments of the job under way, as shards without parents.
    pub(super) fn segments(&self) -> Vec<Shard> {
        self.running.as_ref().map(Running::segments).unwrap_or_default()
    }

    /// Goes on with the handler's job as far as it goes now; true when it has begun or ended one: leases are to be added, and
    /// roots may have been left deferred.
    pub(super) async fn work(
        &mut self,
        ports: &JobPorts,
        leases: &BTreeMap<LeaseKey, Lease>,
    ) -> Result<bool, StorageError> {
        let Some(stream) = self.follows.clone() else { return Ok(false) };
        let mut changed = false;
        if let Some(job) = self.unfinished_job().cloned() {
            self.running = Some(ports.resume(&self.name, job, &self.checkpoints).await?);
            self.job = None;
            changed = true;
        }
        if let Some(running) = &mut self.running {
            for lease in leases.values().filter(|lease| lease.handler == self.name && lease.finished) {
                running.finish(&lease.shard);
            }
            if running.is_complete() {
                running.complete(ports).await?;
                self.need = self.need.take().or_else(|| backfill::after_job(running.job(), ports.clock.now()));
                self.job = Some(running.job().clone());
                (self.running, self.listed_at_begin) = (None, None);
                changed = true;
            } else {
                running.log_now_and_then(ports).await;
            }
        }
        if self.running.is_none()
            && let Some((kind, reason)) = &self.need
        {
            self.running = Some(ports.begin(&self.name, (*kind, reason), &stream).await?);
            self.listed_at_begin = Some(self.listed.clone());
            self.need = None;
            changed = true;
            // Should this fail, the same is looked for once more.
            ports.store.forget_need(&self.name).await?;
        }
        Ok(changed)
    }

    /// The leases that are to be there and are not: of the job's segments, and of the shards that are listed.
    pub(super) fn missing(&self, listed: &[Shard], leases: &BTreeMap<LeaseKey, Lease>) -> Vec<Lease> {
        let is_there =
            |shard: &ShardId| leases.contains_key(&LeaseKey { handler: self.name.clone(), shard: shard.clone() });
        let segment = |shard: &Shard| {
            Lease::new(self.name.clone(), shard.id.clone(), LeaseKind::Segment, Branch::of(&shard.id), None)
        };
        let mut missing: Vec<Lease> =
            self.segments().iter().filter(|shard| !is_there(&shard.id)).map(segment).collect();
        if !self.reads_the_stream() {
            return missing;
        }
        let mut shards: Vec<&Shard> = listed.iter().filter(|shard| !is_there(&shard.id)).collect();
        // Parents first: a child goes on with the branch of its parent.
        shards.sort_by(|one, other| one.id.cmp(&other.id));
        let of_handler = leases.values().filter(|lease| lease.handler == self.name && lease.kind == LeaseKind::Shard);
        let mut branches: BTreeMap<ShardId, Branch> =
            of_handler.clone().map(|lease| (lease.shard.clone(), lease.branch.clone())).collect();
        let mut continued: BTreeSet<ShardId> = of_handler
            .filter(|lease| lease.parent.as_ref().is_some_and(|parent| branches.get(parent) == Some(&lease.branch)))
            .filter_map(|lease| lease.parent.clone())
            .collect();
        for shard in shards {
            let inherited = shard.parent.as_ref().filter(|parent| !continued.contains(*parent));
            let inherited = inherited.and_then(|parent| branches.get(parent)).cloned();
            if let (Some(parent), true) = (&shard.parent, inherited.is_some()) {
                continued.insert(parent.clone());
            }
            let branch = inherited.unwrap_or_else(|| Branch::of(&shard.id));
            branches.insert(shard.id.clone(), branch.clone());
            missing.push(Lease::new(
                self.name.clone(),
                shard.id.clone(),
                LeaseKind::Shard,
                branch,
                shard.parent.clone(),
            ));
        }
        missing
    }

    /// The leases whose shards are gone from the stream, or whose job is done: nobody needs them.
    pub(super) fn outlived<'a>(
        &self,
        listed: &[Shard],
        leases: &'a BTreeMap<LeaseKey, Lease>,
    ) -> impl Iterator<Item = &'a Lease> + use<'a, '_> {
        let mut current: BTreeSet<ShardId> = listed.iter().map(|shard| shard.id.clone()).collect();
        current.extend(self.segments().into_iter().map(|segment| segment.id));
        let name = self.name.clone();
        (leases.values())
            .filter(move |lease| lease.handler == name && lease.kind != LeaseKind::Desk)
            // A shard that is gone and not finished is taken by somebody still, who finds that records are lost: unless the
            // job that runs finds them.
            .filter(|lease| {
                let is_free =
                    lease.owner.is_none() && (lease.kind == LeaseKind::Segment || self.is_found(&lease.shard));
                lease.finished || is_free
            })
            .filter(move |lease| !current.contains(&lease.shard))
    }

    /// What is noted now and then: that the handler follows the stream.
    pub(super) fn sight(&self, now: Timestamp) -> Option<Seen> {
        let stream = self.follows.clone().filter(|_| self.need.is_none())?;
        Some(Seen { at: now, stream })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backfill::{MemoryScan, ScanProgress};
    use crate::relay_table::MemoryRelayTable;
    use crate::storage::MemoryEvents;
    use crate::telemetry::Health;
    use crate::time::Clock;

    const LOST: &str = "records were lost";

    fn shard(id: &str) -> Shard {
        Shard { id: ShardId::new(id), parent: None }
    }

    fn ids(shards: &[Shard]) -> BTreeSet<ShardId> {
        shards.iter().map(|shard| shard.id.clone()).collect()
    }

    fn leases(shards: &[(&str, Option<&str>, bool)]) -> BTreeMap<LeaseKey, Lease> {
        let lease = |(id, owner, finished): &(&str, Option<&str>, bool)| {
            let id = ShardId::new(id);
            let name = HandlerName::new("view").unwrap();
            let lease = Lease::new(name, id.clone(), LeaseKind::Shard, Branch::of(&id), None);
            Lease { owner: owner.map(Into::into), finished: *finished, ..lease }
        };
        shards.iter().map(lease).map(|lease| (lease.key(), lease)).collect()
    }

    /// What shards a desk would forget of these.
    fn outlived(desk: &Desk, listed: &[Shard], leases: &BTreeMap<LeaseKey, Lease>) -> Vec<String> {
        desk.outlived(listed, leases).map(|lease| lease.shard.as_str().to_owned()).collect()
    }

    /// A desk that has listed these shards, and then begun a reconcile.
    async fn searching(listed: &[Shard]) -> (Desk, JobPorts) {
        let (table, progress) = (MemoryRelayTable::default(), ScanProgress::default());
        let ports = JobPorts {
            store: Arc::new(table.clone()),
            scan: Arc::new(MemoryScan::new(MemoryEvents::default(), progress.clone(), 10)),
            progress,
            clock: Clock::starting_at(Timestamp::from_unix_millis(1_800_000_000_000)),
            health: Health::default(),
            segments: 1,
        };
        let started_at = Some(ports.clock.now());
        let mut desk = Desk::take_up(&HandlerName::new("view").unwrap(), started_at, &ports, &table).await.unwrap();
        desk.look("stream", &ids(listed), ports.clock.now());
        // Whatever the first sight of the stream asks for, a reconcile is what it is about here.
        desk.need = Some((JobKind::Reconcile, LOST.into()));
        assert!(desk.work(&ports, &BTreeMap::new()).await.unwrap());
        assert!(desk.running.is_some() && desk.need.is_none());
        (desk, ports)
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_is_gone_is_forgotten_when_it_was_finished_or_the_job_finds_what_it_held() {
        let (mut desk, ports) = searching(&[shard("listed")]).await;
        let found = leases(&[("gone before", None, false), ("listed", None, false)]);
        assert_eq!(outlived(&desk, &[shard("listed")], &found), ["gone before"]);
        // It was there when the job began: what it held last the job may have passed by already.
        assert_eq!(outlived(&desk, &[], &found), ["gone before"]);
        let held = leases(&[("gone before", Some("one~1"), false)]);
        assert_eq!(outlived(&desk, &[], &held), [""; 0], "its reader finds that it is gone");
        let finished = leases(&[("gone", Some("one~1"), true), ("listed", None, true)]);
        assert_eq!(outlived(&desk, &[shard("listed")], &finished), ["gone"]);

        // Without a job nobody has found it.
        for segment in desk.segments() {
            desk.running.as_mut().unwrap().finish(&segment.id);
        }
        assert!(desk.work(&ports, &BTreeMap::new()).await.unwrap());
        assert!(desk.running.is_none());
        assert_eq!(outlived(&desk, &[], &found), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_runs_finds_what_was_lost_before_it_and_no_more() {
        let lost = Some((JobKind::Reconcile, LOST.to_owned()));
        let (gone, listed) = ([ShardId::new("gone before")], [ShardId::new("listed")]);
        let (mut desk, ports) = searching(&[shard("listed")]).await;
        desk.misses(lost.clone(), (&gone, false), ports.clock.now());
        assert_eq!(desk.need, None, "it was gone when the job began");
        desk.misses(lost.clone(), (&listed, true), ports.clock.now());
        assert_eq!(desk.need, None, "what was trimmed was older than the job");
        let later = ports.clock.now().plus(backfill::STREAM_KEEPS);
        desk.misses(lost.clone(), (&listed, true), later);
        assert_eq!(desk.need.take(), lost, "what was trimmed may have come since");
        desk.misses(lost.clone(), (&listed, false), ports.clock.now());
        assert_eq!(desk.need.take(), lost, "a shard that went meanwhile had what came since");
        let both = [gone[0].clone(), listed[0].clone()];
        desk.misses(lost.clone(), (&both, false), ports.clock.now());
        assert_eq!(desk.need.take(), lost);
        // Another replica's need names no shard.
        desk.misses(lost.clone(), (&[], false), ports.clock.now());
        assert_eq!(desk.need, lost);
    }
}
