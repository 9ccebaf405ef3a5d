//! Which shards are read here: by the leases that this replica holds, one reader a shard, one lane a handler and shard.
//!
//! Leases are taken and handed over by `leasing`; each handler's `desk` compares them with the stream. Discovery is at
//! shard end (`lane_checkpoints`) and by that slow comparison; never a fast loop over DescribeStream. The segments of a
//! handler's job are shards, too. Invariants: a shard has at most one reader, a reader ends when its last lane has left,
//! and a lane is open only while its lease is held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::{Gauge, gauge};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::chores::{Chore, Chores, NeedOf};
use super::desk::Desk;
use super::error::RelayError;
use super::held::HeldLeases;
use super::jobs::{JobPorts, PROGRESS_INTERVAL};
use super::kept::{HandlerLanes, Held, Kept};
use super::leasing::{LeaseEvent, LeaseNote};
use super::listing::Listing;
use super::readers::{Readers, Scans};
use super::{OnTrim, RelayPorts};
use crate::backfill::{self, JobKind, Segment};
use crate::fleet::{Epoch, Fleet, Lease, LeaseKey, LeaseKind, MemberId};
use crate::lane::{LaneOrder, LaneReport, Opening};
use crate::relay_table::Checkpoint;
use crate::stream::{LaneId, Lost, ReaderParts, Shard, ShardId, StreamError, StreamPoint};
use crate::telemetry::{counted, names};
use crate::time::{Backoff, BackoffPolicy};

/// The waits between attempts to list the shards.
const LIST_BACKOFF: BackoffPolicy = BackoffPolicy { initial: Duration::from_millis(200), max: Duration::from_secs(10) };

/// How often it is noted that the handlers follow the stream.
const SEEN_INTERVAL: Duration = Duration::from_mins(10);

/// The keeper's loop turns at least so often.
const TURN_MAX: Duration = Duration::from_secs(10);

/// What the keeper of the shards needs of the outside.
pub(super) struct ShardsParts {
    pub(super) ports: RelayPorts,
    pub(super) listing: Listing,
    /// Everything held.
    pub(super) held: HeldLeases,
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
    pub(super) parts: ShardsParts,
    pub(super) handlers: Vec<Kept>,
    /// The handler, the shard and the epoch of each open lane.
    pub(super) lanes: BTreeMap<LaneId, (usize, ShardId, Epoch)>,
    /// All leases, as they were last read.
    pub(super) leases: BTreeMap<LeaseKey, Lease>,
    /// Another member was seen: what is remembered of positions may have been moved by it.
    pub(super) has_company: bool,
    pub(super) lost: mpsc::UnboundedReceiver<Lost>,
    pub(super) readers: Readers,
    /// A listing for the comparison, under way.
    pub(super) listings: JoinSet<Result<Arc<Vec<Shard>>, StreamError>>,
    pub(super) lists_again: bool,
    /// The fleet has changed since the lives of those that are gone were forgotten.
    pub(super) lives_due: bool,
    pub(super) chores: Chores,
    pub(super) next_lane: u32,
    pub(super) reading: Gauge,
    pub(super) waiting: Gauge,
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
            listings: JoinSet::new(),
            lists_again: false,
            lives_due: false,
            chores: Chores::default(),
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
        let (mut compare_at, mut seen_at, mut is_seen) = (Instant::now(), Instant::now(), false);
        let mut backoff = Backoff::new(LIST_BACKOFF, self.parts.ports.random.clone());
        loop {
            beat.beat();
            let turn_at = compare_at.min(Instant::now() + self.turn());
            let mut compare = false;
            tokio::select! {
                biased;
                // What was lost is known before the lane that has lost it is forgotten.
                Some(lost) = self.lost.recv() => self.miss(lost),
                Some(event) = events.recv() => {
                    compare = self.follow(event).await;
                    while let Ok(event) = events.try_recv() {
                        compare |= self.follow(event).await;
                    }
                }
                Some(report) = reports.recv() => self.learn(&report).await,
                Some(done) = self.chores.done() => self.return_from(done.map_err(RelayError::Stopped)?).await,
                Some(ended) = self.readers.ended() => self.readers.clear(&ended.map_err(RelayError::Stopped)?),
                Some(listed) = self.listings.join_next() => {
                    let wait = if self.compare(listed.map_err(RelayError::Stopped)?).await? {
                        self.parts.ports.health.started();
                        backoff.reset();
                        self.parts.reconcile_interval
                    } else {
                        backoff.next_wait().min(self.parts.reconcile_interval)
                    };
                    if !is_seen {
                        // What was found is noted before this replica gives the desk up again.
                        seen_at = Instant::now();
                    }
                    let again = std::mem::take(&mut self.lists_again);
                    compare_at = Instant::now() + if again { Duration::ZERO } else { wait };
                }
                () = sleep_until(turn_at) => self.note_segments().await,
            }
            let taken_up = self.take_up_desks().await;
            (compare, is_seen) = (compare | taken_up, is_seen && !taken_up);
            self.share_marks().await;
            compare |= self.work_on_jobs().await?;
            if !self.has_desk() {
                compare_at = Instant::now() + TURN_MAX;
            } else if compare || Instant::now() >= compare_at {
                compare_at = Instant::now() + self.parts.reconcile_interval;
                self.begin_listing();
            }
            if self.has_desk() && Instant::now() >= seen_at {
                is_seen = self.note_seen().await;
                seen_at = Instant::now() + if is_seen { SEEN_INTERVAL } else { TURN_MAX };
            }
            self.open_lanes().await;
        }
    }

    pub(super) fn has_desk(&self) -> bool {
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
            LeaseEvent::Held { lease, before, died, checkpoint } => {
                return self.hold(lease, &before, died, checkpoint).await;
            }
            LeaseEvent::Close(key, epoch, deadline, told) => self.close(&key, epoch, deadline, told).await,
            // Whoever has a desk compares first.
            LeaseEvent::Agreed if !self.handlers.iter().any(|kept| kept.desk.is_some() || kept.desk_due) => {
                self.parts.ports.health.started();
            }
            LeaseEvent::Agreed => {}
        }
        false
    }

    async fn read(&mut self, leases: BTreeMap<LeaseKey, Lease>, fleet: &Fleet) {
        self.has_company |= fleet.members.iter().any(|member| member.id != self.parts.me);
        self.leases = leases;
        self.lives_due = true;
        for kept in &mut self.handlers {
            kept.read(&self.leases);
            kept.looked_into
                .retain(|dead, known| !*known || self.leases.values().any(|lease| lease.owner.as_ref() == Some(dead)));
            // What began since is complete from then on, whoever does it.
            if let Ok(Some(job)) = self.parts.jobs.store.job(&kept.handler.name).await {
                kept.complete_since = kept.complete_since.max(job.started_at);
            }
            if let Some(desk) = &mut kept.desk
                && let Ok(Some(reason)) = self.parts.jobs.store.need(&kept.handler.name).await
            {
                desk.misses(Some((JobKind::Reconcile, reason)), (&[], false), self.parts.ports.clock.now());
            }
        }
    }

    async fn hold(&mut self, lease: Lease, before: &Lease, died: bool, checkpoint: Option<Checkpoint>) -> bool {
        let key = lease.key();
        self.leases.insert(key.clone(), lease.clone());
        let was_free = self.parts.free_before.get(&key) == Some(&before.epoch) && before.owner.is_none();
        let Some(index) = self.handlers.iter().position(|kept| kept.handler.name == key.handler) else { return false };
        let dead = before.owner.clone().filter(|owner| died && *owner != self.parts.me);
        let awaits_look = dead.is_some_and(|dead| self.look_into(index, dead));
        let kept = &mut self.handlers[index];
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
        let need = match checkpoint {
            None => backfill::at_opening(&key.shard, kept.complete_since, self.parts.ports.clock.now()),
            Some(_) => None,
        };
        let awaits_need = need.is_some() && lease.kind == LeaseKind::Shard;
        let Lease { kind, branch, epoch, .. } = lease;
        kept.lineage.observe(&[Shard { id: key.shard.clone(), parent: lease.parent }]);
        let held = Held { epoch, kind, branch, checkpoint, taken, lane: None, awaits_look, awaits_need };
        kept.hold(key.shard.clone(), held);
        if let Some((_, reason)) = need.filter(|_| awaits_need) {
            let shards = [key.shard.clone()];
            self.needs(index, reason, (&shards, true), NeedOf::Opening(key.shard, epoch));
        }
        false
    }

    /// Looks into the last life of a dead member, once; true while that is not known.
    fn look_into(&mut self, index: usize, dead: MemberId) -> bool {
        let kept = &mut self.handlers[index];
        if let Some(known) = kept.looked_into.get(&dead) {
            return !known;
        }
        kept.looked_into.insert(dead.clone(), false);
        let HandlerLanes { name, settings, .. } = &kept.handler;
        self.chores.look_into((index, name), settings, dead, &self.parts.ports);
        true
    }

    async fn close(&mut self, key: &LeaseKey, epoch: Epoch, deadline: Instant, told: bool) {
        let Some(index) = self.handlers.iter().position(|kept| kept.handler.name == key.handler) else { return };
        let of_lease = |open: &(usize, ShardId, Epoch)| *open == (index, key.shard.clone(), epoch);
        let lane = self.lanes.iter().find(|(_, open)| of_lease(open)).map(|(lane, _)| *lane);
        let kept = &mut self.handlers[index];
        if let Some(lane) = lane {
            if !told {
                kept.handler.orders.send(LaneOrder::Close(lane, deadline)).await.ok();
            }
            return;
        }
        kept.let_go(&key.shard, epoch);
        if self.leases.get(key).is_some_and(|lease| lease.kind == LeaseKind::Desk) {
            kept.leave_desk();
            self.forget_problems_of_desks();
        }
        self.parts.notes.send(LeaseNote::Closed(key.clone(), epoch, true)).ok();
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

    /// Records were lost to some lanes: their handlers need what the table has. The reader waits until that is durable.
    fn miss(&mut self, lost: Lost) {
        let lanes = lost.lanes.iter().filter_map(|lane| self.lanes.get(lane));
        let (handlers, shards): (BTreeSet<usize>, Vec<ShardId>) =
            lanes.map(|(index, shard, _)| (*index, shard.clone())).unzip();
        if handlers.is_empty() {
            // They were given up meanwhile: whoever reads on there finds the same.
            lost.noted.send(()).ok();
            return;
        }
        let noted = Arc::new(lost.noted);
        for index in handlers {
            self.needs(index, lost.reason.clone(), (&shards, lost.trimmed), NeedOf::Reader(noted.clone()));
        }
    }

    /// A handler needs a reconcile: that is noted durably, and its desk learns of it, here or in another replica.
    fn needs(&mut self, index: usize, reason: String, lost: (&[ShardId], bool), of: NeedOf) {
        let kept = &mut self.handlers[index];
        let desk_needs = kept.desk.as_mut().map(|desk| {
            desk.misses(Some((JobKind::Reconcile, reason.clone())), lost, self.parts.ports.clock.now());
            desk.need.is_some()
        });
        // Where the desk needs nothing, the job that runs finds it.
        let reason = (desk_needs != Some(false)).then_some(reason);
        self.chores.note((index, &kept.handler.name), reason, of, &self.parts.ports);
    }

    /// What was looked into or noted is known: whoever waited for it goes on.
    async fn return_from(&mut self, chore: Chore) {
        match chore {
            Chore::LookedInto(index, dead, life) => {
                let kept = &mut self.handlers[index];
                kept.looked_into.insert(dead, true);
                if life.unclean {
                    kept.handler.orders.send(LaneOrder::Careful(life.suspect)).await.ok();
                }
                if kept.looked_into.values().all(|known| *known) {
                    for held in kept.held.values_mut() {
                        held.awaits_look = false;
                    }
                }
            }
            Chore::Noted(index, NeedOf::Opening(shard, epoch)) => {
                if let Some(held) = self.handlers[index].held.get_mut(&shard).filter(|held| held.epoch == epoch) {
                    held.awaits_need = false;
                }
            }
            // The last of those it is for lets the reader go on.
            Chore::Noted(_, NeedOf::Reader(noted)) => {
                if let Ok(noted) = Arc::try_unwrap(noted) {
                    noted.send(()).ok();
                }
            }
        }
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

    async fn open_lanes(&mut self) {
        for index in 0..self.handlers.len() {
            for shard in self.handlers[index].open_next() {
                self.next_lane += 1;
                let lane = LaneId(self.next_lane);
                let kept = &mut self.handlers[index];
                let key = kept.key(&shard);
                let Some(held) = kept.held.get_mut(&shard) else { continue };
                held.lane = Some(lane);
                if !self.parts.held.may_open(&key, held.epoch) {
                    // It is to be closed, and that is on its way here.
                    kept.lineage.close(&shard);
                    continue;
                }
                let feed = self.readers.feed(&shard);
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
                if let Some(deadline) = self.parts.held.opened(&key, held.epoch, lane, &kept.handler.orders) {
                    kept.handler.orders.send(LaneOrder::Close(lane, deadline)).await.ok();
                }
            }
        }
        let waiting = self.handlers.iter().map(|kept| kept.lineage.waiting()).max().unwrap_or(0);
        self.waiting.set(counted(waiting));
        self.reading.set(counted(self.readers.of_stream()));
    }
}
