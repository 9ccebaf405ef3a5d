//! Which shards are read here: by the leases that this replica holds, one reader a shard, one lane a handler and shard.
//!
//! Leases are taken and handed over by `leasing`; each handler's `desk` compares them with the stream. Discovery is at
//! shard end (`lane_checkpoints`) and by that slow comparison; never a fast loop over DescribeStream. The segments of a
//! handler's job are shards, too. Invariants: a shard has at most one reader, a reader ends when its last lane has left,
//! and a lane is open only while its lease is held.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metrics::{Gauge, gauge};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::desk::Desk;
use super::jobs::{JobPorts, PROGRESS_INTERVAL};
use super::kept::{HandlerLanes, Held, Kept};
use super::leasing::{LeaseEvent, LeaseNote};
use super::listing::list_all;
use super::readers::{Readers, Scans};
use super::start::last_life;
use super::{OnTrim, RelayError, RelayPorts};
use crate::backfill::{self, JobKind, Segment};
use crate::fleet::{Epoch, Fleet, Lease, LeaseKey, LeaseKind, MemberId};
use crate::lane::{LaneOrder, LaneReport, Opening};
use crate::relay_table::Checkpoint;
use crate::storage::StorageError;
use crate::stream::{LaneId, Lost, ReaderParts, Shard, ShardId, StreamPoint, with_causes};
use crate::telemetry::names;
use crate::time::{Backoff, BackoffPolicy};

/// The waits between attempts to list the shards.
const LIST_BACKOFF: BackoffPolicy = BackoffPolicy { initial: Duration::from_millis(200), max: Duration::from_secs(10) };

/// The subject of discovery in the health report.
const DISCOVERY: &str = "shards";

/// The subject of jobs in the health report.
const JOBS: &str = "jobs";

/// How often it is noted that the handlers follow the stream.
const SEEN_INTERVAL: Duration = Duration::from_mins(10);

/// The keeper's loop turns at least so often.
const TURN_MAX: Duration = Duration::from_secs(10);

/// What the keeper of the shards needs of the outside.
pub(super) struct ShardsParts {
    pub(super) ports: RelayPorts,
    pub(super) jobs: JobPorts,
    pub(super) on_trim: OnTrim,
    pub(super) reconcile_interval: Duration,
    /// What is told to `leasing`.
    pub(super) notes: mpsc::UnboundedSender<LeaseNote>,
    /// Leases that were free before positions were read ahead, and since which epoch.
    pub(super) free_before: BTreeMap<LeaseKey, Epoch>,
    /// This replica.
    pub(super) me: MemberId,
}

/// Keeps the shards that this replica reads.
pub(super) struct Shards {
    parts: ShardsParts,
    handlers: Vec<Kept>,
    /// The handler, the shard and the epoch of each open lane.
    lanes: BTreeMap<LaneId, (usize, ShardId, Epoch)>,
    /// All leases, as they were last read.
    leases: BTreeMap<LeaseKey, Lease>,
    /// Another member was seen: what is remembered of positions may have been moved by it.
    has_company: bool,
    lost: mpsc::UnboundedReceiver<Lost>,
    readers: Readers,
    next_lane: u32,
    reading: Gauge,
    waiting: Gauge,
}

impl Shards {
    pub(super) fn new(parts: ShardsParts, readers: (ReaderParts, Scans), handlers: Vec<HandlerLanes>) -> Self {
        let (readers, lost) = Readers::new(readers.0, readers.1);
        let state = |state: &'static str| gauge!(names::SHARDS, "state" => state);
        Self {
            parts,
            handlers: handlers.into_iter().map(Kept::new).collect(),
            lanes: BTreeMap::new(),
            leases: BTreeMap::new(),
            has_company: false,
            lost,
            readers,
            next_lane: 0,
            reading: state("reading"),
            waiting: state("waiting"),
        }
    }

    /// Runs until cancelled. Readers stop with it, and so does whatever it waits for itself: an answer of a silent service
    /// may take longer than the grace period.
    pub(super) async fn run(
        self,
        reports: mpsc::UnboundedReceiver<LaneReport>,
        events: mpsc::UnboundedReceiver<LeaseEvent>,
        cancel: CancellationToken,
    ) -> Result<(), RelayError> {
        cancel.run_until_cancelled(self.keep(reports, events)).await.unwrap_or(Ok(()))
    }

    async fn keep(
        mut self,
        mut reports: mpsc::UnboundedReceiver<LaneReport>,
        mut events: mpsc::UnboundedReceiver<LeaseEvent>,
    ) -> Result<(), RelayError> {
        let beat = self.parts.ports.health.register("shard discovery");
        let (mut reconcile_at, mut seen_at) = (Instant::now(), Instant::now());
        let mut backoff = Backoff::new(LIST_BACKOFF, self.parts.ports.random.clone());
        loop {
            beat.beat();
            let turn_at = reconcile_at.min(Instant::now() + self.turn());
            let mut compare = false;
            tokio::select! {
                biased;
                Some(event) = events.recv() => {
                    compare = self.follow(event).await;
                    while let Ok(event) = events.try_recv() {
                        compare |= self.follow(event).await;
                    }
                }
                Some(report) = reports.recv() => self.learn(&report).await,
                Some(lost) = self.lost.recv() => self.miss(&lost).await,
                Some(ended) = self.readers.ended() => self.readers.clear(&ended.map_err(RelayError::Stopped)?),
                () = sleep_until(turn_at) => self.note_segments().await,
            }
            compare |= self.take_up_desks().await;
            self.share_marks().await;
            compare |= self.work_on_jobs().await?;
            if self.has_desk() && (compare || Instant::now() >= reconcile_at) {
                let wait = if self.compare().await? {
                    self.parts.ports.health.started();
                    backoff.reset();
                    self.parts.reconcile_interval
                } else {
                    backoff.next_wait().min(self.parts.reconcile_interval)
                };
                reconcile_at = Instant::now() + wait;
            } else if !self.has_desk() {
                reconcile_at = Instant::now() + TURN_MAX;
            }
            if self.has_desk() && Instant::now() >= seen_at {
                seen_at = Instant::now() + if self.note_seen().await { SEEN_INTERVAL } else { TURN_MAX };
            }
            self.open_lanes().await;
        }
    }

    fn has_desk(&self) -> bool {
        self.handlers.iter().any(|kept| kept.desk.is_some())
    }

    fn turn(&self) -> Duration {
        let segments = |kept: &Kept| kept.held.values().any(|held| held.kind == LeaseKind::Segment);
        let works = |kept: &Kept| kept.desk.as_ref().is_some_and(Desk::is_busy) || segments(kept);
        if self.handlers.iter().any(works) { PROGRESS_INTERVAL } else { TURN_MAX }
    }

    /// Takes what has happened to leases; true when the leases are to be compared with the stream.
    async fn follow(&mut self, event: LeaseEvent) -> bool {
        match event {
            LeaseEvent::Read(leases, fleet) => self.read(leases, &fleet).await,
            LeaseEvent::Held { lease, before, checkpoint } => return self.hold(lease, &before, checkpoint).await,
            LeaseEvent::Close(key, epoch, deadline) => self.close(&key, epoch, deadline).await,
            LeaseEvent::Left => {}
        }
        false
    }

    async fn read(&mut self, leases: BTreeMap<LeaseKey, Lease>, fleet: &Fleet) {
        self.has_company |= fleet.members.iter().any(|member| member.id != self.parts.me);
        self.leases = leases;
        for kept in &mut self.handlers {
            kept.read(&self.leases);
            // What began since is complete from then on, whoever does it.
            if let Ok(Some(job)) = self.parts.jobs.store.job(&kept.handler.name).await {
                kept.complete_since = kept.complete_since.max(job.started_at);
            }
            if let Some(desk) = &mut kept.desk
                && let Ok(Some(reason)) = self.parts.jobs.store.need(&kept.handler.name).await
            {
                desk.misses(Some((JobKind::Reconcile, reason)), false, self.parts.ports.clock.now());
            }
        }
        let owned = |lease: &Lease| lease.owner.as_ref().is_some_and(|owner| fleet.is_alive(owner));
        // Another replica compares the leases with the stream.
        let elsewhere = |lease: &&Lease| {
            lease.kind == LeaseKind::Desk && owned(lease) && lease.owner.as_ref() != Some(&self.parts.me)
        };
        let agreed = fleet.view.members.contains(&self.parts.me);
        if agreed && self.leases.values().filter(elsewhere).count() == self.handlers.len() {
            self.parts.ports.health.started();
        }
    }

    async fn hold(&mut self, lease: Lease, before: &Lease, checkpoint: Option<Checkpoint>) -> bool {
        let key = lease.key();
        self.leases.insert(key.clone(), lease.clone());
        let was_free = self.parts.free_before.get(&key) == Some(&before.epoch) && before.owner.is_none();
        let Some(kept) = self.handlers.iter_mut().find(|kept| kept.handler.name == key.handler) else { return false };
        if let Some(dead) = before.owner.as_ref().filter(|owner| **owner != self.parts.me)
            && !kept.looked_into.contains(dead)
        {
            kept.looked_into.push(dead.clone());
            if let Some(suspect) = last_life(&self.parts.ports, &kept.handler, dead).await {
                kept.handler.orders.send(LaneOrder::Careful(suspect)).await.ok();
            }
        }
        if lease.kind == LeaseKind::Desk {
            kept.desk_due = true;
            return true;
        }
        // A child goes on where its parent was read, or is yet to be: nobody else has moved its roots.
        let is_here = |parent: &ShardId| kept.held.contains_key(parent) || kept.lineage.was_opened(parent);
        let goes_on = before.epoch == Epoch(0) && lease.parent.as_ref().is_some_and(is_here);
        let alone = !self.has_company && (was_free || before.epoch == Epoch(0));
        let taken = !goes_on && !alone;
        if lease.kind == LeaseKind::Segment {
            self.parts.jobs.resume_segment(&key.handler, &key.shard, checkpoint.as_ref()).await;
        }
        let Lease { kind, branch, epoch, .. } = lease;
        kept.lineage.observe(&[Shard { id: key.shard.clone(), parent: lease.parent }]);
        kept.hold(key.shard, Held { epoch, kind, branch, checkpoint, taken, lane: None });
        false
    }

    async fn close(&mut self, key: &LeaseKey, epoch: Epoch, deadline: Instant) {
        let Some(index) = self.handlers.iter().position(|kept| kept.handler.name == key.handler) else { return };
        let of_lease = |open: &(usize, ShardId, Epoch)| *open == (index, key.shard.clone(), epoch);
        let lane = self.lanes.iter().find(|(_, open)| of_lease(open)).map(|(lane, _)| *lane);
        let kept = &mut self.handlers[index];
        if let Some(lane) = lane {
            kept.handler.orders.send(LaneOrder::Close(lane, deadline)).await.ok();
            return;
        }
        kept.let_go(&key.shard, epoch);
        if self.leases.get(key).is_some_and(|lease| lease.kind == LeaseKind::Desk) {
            kept.leave_desk();
        }
        self.parts.notes.send(LeaseNote::Closed(key.clone(), epoch, true)).ok();
    }

    /// Takes up the desks that are held; true when one was.
    async fn take_up_desks(&mut self) -> bool {
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

    /// Which deferred roots are this replica's follows from what it holds, and from what there is.
    async fn share_marks(&mut self) {
        for kept in &mut self.handlers {
            if kept.share_marks(&self.leases) {
                kept.handler.orders.send(LaneOrder::Resume).await.ok();
            }
        }
    }

    async fn learn(&mut self, report: &LaneReport) {
        let (LaneReport::Finished(name, shard) | LaneReport::Closed(name, shard, _)) = report;
        let Some(index) = self.handlers.iter().position(|kept| kept.handler.name == *name) else { return };
        let of_shard = |(of, read, _): &(usize, ShardId, Epoch)| *of == index && read == shard;
        let lane = self.lanes.iter().find(|(_, open)| of_shard(open)).map(|(lane, _)| *lane);
        let Some((.., epoch)) = lane.and_then(|lane| self.lanes.remove(&lane)) else { return };
        let kept = &mut self.handlers[index];
        if Segment::of_shard(shard).is_some() {
            self.parts.jobs.note_segment(name, shard).await;
            self.parts.jobs.progress.forget(shard);
        }
        kept.let_go(shard, epoch);
        let key = kept.key(shard);
        let note = match report {
            LaneReport::Finished(..) => {
                debug!(handler = %name, %shard, "finished a shard");
                kept.lineage.finish(shard);
                LeaseNote::Finished(key)
            }
            LaneReport::Closed(_, _, clean) => {
                debug!(handler = %name, %shard, clean, "gave up a shard");
                kept.lineage.close(shard);
                LeaseNote::Closed(key, epoch, *clean)
            }
        };
        self.parts.notes.send(note).ok();
    }

    /// Records were lost to some lanes: their handlers need what the table has.
    async fn miss(&mut self, lost: &Lost) {
        let handlers: BTreeSet<usize> =
            lost.lanes.iter().filter_map(|lane| self.lanes.get(lane)).map(|(index, ..)| *index).collect();
        for index in handlers {
            self.needs(index, lost.reason.clone(), lost.trimmed).await;
        }
    }

    /// A handler needs a reconcile: its desk learns of it, here or in another replica.
    async fn needs(&mut self, index: usize, reason: String, trimmed: bool) {
        let kept = &mut self.handlers[index];
        if let Some(desk) = &mut kept.desk {
            desk.misses(Some((JobKind::Reconcile, reason)), trimmed, self.parts.ports.clock.now());
            return;
        }
        while let Err(error) = self.parts.jobs.store.put_need(&kept.handler.name, &reason).await {
            self.parts.ports.health.problem(JOBS, with_causes(&error));
            sleep(NEED_RETRY).await;
        }
    }

    /// Compares the leases with the whole list of shards; false when it is to be done again soon.
    async fn compare(&mut self) -> Result<bool, RelayError> {
        let listed = match list_all(&*self.parts.ports.stream).await {
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
    async fn adjust(&mut self, listed: &[Shard]) -> Result<(), StorageError> {
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
        for desk in desks.filter(|desk| desk.is_settled()) {
            for lease in desk.outlived(listed, &self.leases) {
                if !fleet.forget(lease).await? {
                    debug!(handler = %lease.handler, shard = %lease.shard, "the lease of a shard that is gone was taken meanwhile");
                }
            }
        }
        Ok(())
    }

    /// Begins what is needed, and closes jobs that are done; true when leases are to be added or removed.
    async fn work_on_jobs(&mut self) -> Result<bool, RelayError> {
        let (mut changed, mut failed) = (false, None);
        for kept in &mut self.handlers {
            let Some(desk) = &mut kept.desk else { continue };
            if self.parts.on_trim == OnTrim::Fail {
                fail_if_trimmed(&kept.handler, desk, &self.parts.jobs).await?;
            }
            match desk.work(&self.parts.jobs, &self.leases).await {
                Ok(worked) => changed |= worked,
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

    /// Notes how far the segments are that are read here.
    async fn note_segments(&mut self) {
        for kept in &self.handlers {
            let segments = kept.held.iter().filter(|(_, held)| held.kind == LeaseKind::Segment && held.lane.is_some());
            for (segment, _) in segments {
                self.parts.jobs.note_segment(&kept.handler.name, segment).await;
            }
        }
    }

    /// Notes which stream the handlers follow; false when that failed.
    async fn note_seen(&self) -> bool {
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

    async fn open_lanes(&mut self) {
        let now = self.parts.ports.clock.now();
        for index in 0..self.handlers.len() {
            for shard in self.handlers[index].open_next() {
                self.next_lane += 1;
                let lane = LaneId(self.next_lane);
                let kept = &mut self.handlers[index];
                let Some(held) = kept.held.get_mut(&shard) else { continue };
                let feed = self.readers.feed(&shard);
                held.lane = Some(lane);
                let after = match &held.checkpoint {
                    Some(Checkpoint::At(sequence)) => StreamPoint::After(sequence.clone()),
                    Some(Checkpoint::Finished) | None => StreamPoint::Horizon,
                };
                let branch = (held.kind == LeaseKind::Shard).then(|| held.branch.clone());
                let opening = Opening { after: after.clone(), branch, taken: held.taken };
                let name = &kept.handler.name;
                debug!(handler = %name, %shard, ?after, "opens a lane");
                self.lanes.insert(lane, (index, shard.clone(), held.epoch));
                if kept.handler.orders.send(LaneOrder::Open(lane, feed, opening)).await.is_err() {
                    warn!(handler = %name, "the handler's lanes have stopped");
                }
                let need = match after {
                    StreamPoint::Horizon => backfill::at_opening(&shard, kept.complete_since, now),
                    StreamPoint::After(_) => None,
                };
                if let Some((_, reason)) = need {
                    self.needs(index, reason, true).await;
                }
            }
        }
        let waiting = self.handlers.iter().map(|kept| kept.lineage.waiting()).max().unwrap_or(0);
        self.waiting.set(shown(waiting));
        self.reading.set(shown(self.readers.of_stream()));
    }
}

/// What a handler needs is noted again after so long, when it could not be.
const NEED_RETRY: Duration = Duration::from_secs(1);

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

#[expect(clippy::cast_precision_loss, reason = "a count of shards is far below 2^52")]
pub(super) fn shown(count: usize) -> f64 {
    count as f64
}
