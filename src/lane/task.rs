//! The task that runs one handler's lanes: carries out the effects of [`Lanes`] and feeds their answers back.
//!
//! It decides nothing about events. Everything it spawns it joins or aborts. How it ends, and how it gives up a lane, is in
//! `stop`; on drop all of it stops at once, as in a crash.

use std::collections::{BTreeMap, VecDeque};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use metrics::{Gauge, gauge};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::delivery::{Delivered, deliver, deliver_noted};
use super::safety::SafetyWatch;
use super::tables::{carry_out, until_done};
use super::{Effect, LaneOrder, LaneReport, Lanes, LanesParts, MarkOrder, Progress, Repaired};
use crate::event::Root;
use crate::handler::RootBatch;
use crate::relay_table::Checkpoint;
use crate::storage::{Advance, Advanced, Marked, Marking, Standing, StorageError};
use crate::stream::{LaneFeed, LaneId, ShardId};
use crate::telemetry::{Health, names, with_causes};

/// While suspended, it is asked so often whether it may go on.
const SUSPENDED_TURN: Duration = Duration::from_millis(50);

/// How often the lanes look after what nothing else wakes them for: gauges, stale queues, the sign of life.
const TURN: Duration = Duration::from_secs(1);

/// A handler that holds the lanes' own task longer than this is given tasks ...
const INLINE_MAX: Duration = Duration::from_micros(200);

/// ... for so many deliveries, before it is tried again.
const TASKS_AFTER_SLOW: u32 = 1000;

/// So many effects are started before the lanes look again at what has come in.
const EFFECTS_MAX: usize = 256;

/// How long noting a clean end may take.
const END_MAX: Duration = Duration::from_secs(2);

/// One handler's lanes, running.
pub struct LanesTask {
    pub(super) parts: Arc<LanesParts>,
    pub(super) lanes: Lanes,
    feeds: BTreeMap<LaneId, LaneFeed>,
    pulling: VecDeque<LaneId>,
    /// No page was wanted at the last turn.
    stood: bool,
    /// The shards of lanes that are being given up.
    pub(super) closing: BTreeMap<LaneId, ShardId>,
    pub(super) jobs: JoinSet<Done>,
    pub(super) deliveries: JoinSet<Delivered>,
    notices: mpsc::UnboundedReceiver<LaneId>,
    notify: mpsc::UnboundedSender<LaneId>,
    progress: Progress,
    checkpoint_age: Gauge,
    safety: SafetyWatch,
    finished: Vec<ShardId>,
    /// Deliveries that get a task of their own unasked.
    tasks_owed: u32,
    /// The marked roots are being listed, and have changed since that began.
    listing: bool,
    list_again: bool,
}

pub(super) enum Done {
    Loaded(Vec<(Root, Standing)>),
    Repaired(Root, Repaired),
    Flushed(Vec<(Advance, Result<Advanced, StorageError>)>),
    Checkpointed(LaneId, Checkpoint, Result<(), StorageError>),
    Marked(MarkOrder, Result<Marking, StorageError>),
    Listed(Marked),
}

impl LanesTask {
    /// The lanes of a handler, none open yet.
    #[must_use]
    pub fn new(mut parts: LanesParts, progress: Progress) -> Self {
        let known = std::mem::take(&mut parts.known);
        let mut settings = parts.settings.clone();
        settings.limits = parts.handler.limits();
        settings.commits_positions = parts.handler.commits_positions();
        let (notify, notices) = mpsc::unbounded_channel();
        let lanes = Lanes::new(parts.name.clone(), parts.subscription.clone(), settings, parts.random.clone());
        let mut lanes = lanes.knowing(known);
        lanes.pause(parts.paused);
        let lanes = lanes.working_off(parts.works_off.clone());
        Self {
            lanes,
            checkpoint_age: gauge!(names::CHECKPOINT_AGE, "handler" => parts.name.as_str().to_owned()),
            safety: SafetyWatch::new(parts.safety_alarm),
            parts: Arc::new(parts),
            feeds: BTreeMap::new(),
            pulling: VecDeque::new(),
            stood: false,
            closing: BTreeMap::new(),
            jobs: JoinSet::new(),
            deliveries: JoinSet::new(),
            notices,
            notify,
            progress,
            finished: Vec::new(),
            tasks_owed: 0,
            listing: false,
            list_again: false,
        }
    }

    /// Runs until cancelled, then drains within the grace period.
    pub async fn run(
        mut self,
        mut orders: mpsc::Receiver<LaneOrder>,
        reports: mpsc::UnboundedSender<LaneReport>,
        cancel: CancellationToken,
    ) {
        let beat = self.parts.health.register("handler lanes");
        let mut turn_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= turn_at {
                beat.beat();
                self.turn(now);
                turn_at = now + TURN;
            }
            self.end_overdue(now);
            self.pull(now);
            let suspended = !(self.parts.may_deliver)();
            self.lanes.suspend(suspended);
            let more = self.start_effects(now);
            self.tell(&reports);
            let wake_at = self.lanes.next_deadline(now).map_or(turn_at, |deadline| deadline.min(turn_at));
            let wake_at = if suspended { wake_at.min(now + SUSPENDED_TURN) } else { wake_at };
            let wake_at = if more { now } else { wake_at };
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                // A handler that answers at once always has an answer ready: what is rarer comes before it.
                Some(done) = self.jobs.join_next() => self.take_job(done),
                Some(order) = orders.recv() => self.obey(order),
                Some(lane) = self.notices.recv() => self.pulling.push_back(lane),
                Some(done) = self.deliveries.join_next() => self.take_delivery(done),
                () = sleep_until(wake_at) => {}
            }
        }
        self.drain(&beat).await;
        self.tell(&reports);
        // Should this fail, the next life begins more carefully than it must.
        timeout(END_MAX, self.parts.lives.end(&self.parts.name)).await.ok();
    }

    /// Tells which lanes are at their end.
    fn tell(&mut self, reports: &mpsc::UnboundedSender<LaneReport>) {
        let name = || self.parts.name.clone();
        let finished = std::mem::take(&mut self.finished).into_iter().map(|shard| LaneReport::Finished(name(), shard));
        let closed = self
            .lanes
            .take_closed()
            .into_iter()
            .filter_map(|(lane, clean)| Some(LaneReport::Closed(name(), self.closing.remove(&lane)?, clean)));
        for report in finished.chain(closed) {
            // The relay stops listening only when it stops altogether.
            reports.send(report).ok();
        }
    }

    fn obey(&mut self, order: LaneOrder) {
        match order {
            LaneOrder::Open(lane, feed, opening) => {
                let after = opening.after.clone();
                self.lanes.open(lane, opening, Instant::now());
                let feed = feed.join(lane, after, self.parts.clock.now(), self.notify.clone());
                self.feeds.insert(lane, feed);
                self.pulling.push_back(lane);
            }
            LaneOrder::Close(lane, deadline) => {
                // One that is gone has finished its shard, and that was told.
                let Some(feed) = self.feeds.remove(&lane) else { return };
                self.closing.insert(lane, feed.shard().clone());
                self.lanes.close(lane, deadline, Instant::now());
            }
            LaneOrder::Careful(suspect) => {
                self.lanes.be_careful(self.parts.settings.careful_events);
                Arc::make_mut(&mut self.parts).suspect = suspect;
            }
            LaneOrder::Pause(paused) => self.lanes.pause(paused),
            LaneOrder::Resume if self.listing => self.list_again = true,
            LaneOrder::Resume => {
                self.listing = true;
                let parts = self.parts.clone();
                self.jobs.spawn(async move {
                    let marked = until_done(&parts, "relay table", || parts.marks.marked(&parts.name)).await;
                    Done::Listed(marked)
                });
            }
        }
    }

    /// Takes pages, a lane after the other, as long as there is room.
    fn pull(&mut self, now: Instant) {
        while self.lanes.wants_page()
            && let Some(id) = self.pulling.pop_front()
        {
            let Some(feed) = self.feeds.get(&id) else { continue };
            if let Some(page) = feed.take() {
                self.lanes.accept_page(id, &page, now);
                if !page.end {
                    self.pulling.push_back(id);
                }
            }
        }
    }

    /// A handler that takes nothing for a while, paused or down, keeps no room from the others.
    fn give_back(&mut self) {
        let stands = !self.lanes.wants_page();
        if stands && self.stood {
            for feed in self.pulling.iter().filter_map(|lane| self.feeds.get(lane)) {
                feed.give_back();
            }
        }
        self.stood = stands;
    }

    fn turn(&mut self, now: Instant) {
        self.give_back();
        self.lanes.relieve(now);
        self.lanes.resume_next();
        self.lanes.purge_next(now);
        self.lanes.show();
        let waiting = self.feeds.values().filter_map(LaneFeed::waiting_since).min();
        let oldest = [self.lanes.undelivered_since(), waiting].into_iter().flatten().min();
        let stuck = self.lanes.stuck();
        self.progress.set(oldest, self.lanes.queued_bytes(), stuck.retrying + stuck.blocked + stuck.holes);
        let left = self.progress.safety(self.parts.clock.now());
        if self.safety.warns(left, now) {
            warn!(handler = %self.parts.name, left = ?Duration::from_secs(left.as_secs()), "the stream will trim what the handler has not been given; then it is looked for in the table");
        }
        let unsaved = self.lanes.unsaved_since().map_or(Duration::ZERO, |since| now.duration_since(since));
        self.checkpoint_age.set(unsaved.as_secs_f64());
        let subject = format!("handler {}", self.parts.name);
        if self.lanes.sees_another_schema() {
            let problem = "the first 100 rows are no events: this table has another schema; run `angzarr-relay doctor`";
            self.parts.health.problem(&subject, problem);
        } else if let Some(reason) = self.lanes.outage() {
            self.parts.health.problem(&subject, format!("the receiver is down: {reason}"));
        } else {
            self.parts.health.mended(&subject);
        }
    }

    /// Starts what is to be done now, up to a bound; true when something may be left.
    fn start_effects(&mut self, now: Instant) -> bool {
        for _ in 0..EFFECTS_MAX {
            match self.lanes.next_effect(now) {
                Some(effect) => self.start(effect),
                None => return false,
            }
        }
        true
    }

    pub(super) fn start(&mut self, effect: Effect) {
        let parts = self.parts.clone();
        match effect {
            Effect::Deliver(group) => self.deliver(group),
            Effect::List => self.obey(LaneOrder::Resume),
            Effect::Load(roots) => {
                self.jobs.spawn(async move {
                    let load = || parts.positions.load(&parts.name, &roots);
                    let found = until_done(&parts, "positions table", load).await;
                    Done::Loaded(roots.iter().cloned().zip(found).collect())
                });
            }
            Effect::Repair(order) => {
                self.jobs.spawn(async move {
                    let repair = || order.run(&*parts.events).boxed();
                    let repaired = until_done(&parts, "events table", repair).await;
                    Done::Repaired(order.root.clone(), repaired)
                });
            }
            Effect::Flush(advances) => {
                self.jobs.spawn(async move {
                    let results = parts.positions.advance(&parts.name, &advances).await;
                    Done::Flushed(advances.into_iter().zip(results).collect())
                });
            }
            Effect::Mark(order) => {
                self.jobs.spawn(async move {
                    let (order, marked) = carry_out(&parts, order).await;
                    Done::Marked(order, marked)
                });
            }
            Effect::Checkpoint(lane, checkpoint) => {
                let shard = self.feeds.get(&lane).map(LaneFeed::shard).or_else(|| self.closing.get(&lane)).cloned();
                let Some(shard) = shard else { return };
                self.jobs.spawn(async move {
                    let saved = parts.checkpoints.save(&parts.name, &shard, &checkpoint).await;
                    Done::Checkpointed(lane, checkpoint, saved)
                });
            }
        }
    }

    /// Calls the handler. One that answers at once, as code in this process may, costs no task; one that computes long
    /// before its first wait gets tasks, so that it neither holds up these lanes nor is held to one core.
    fn deliver(&mut self, group: Vec<RootBatch>) {
        if self.lanes.is_careful() {
            self.deliveries.spawn(deliver_noted(self.parts.clone(), group));
            return;
        }
        let began = Instant::now();
        let mut delivery = Box::pin(deliver(self.parts.clone(), group, began));
        if self.tasks_owed > 0 {
            self.tasks_owed -= 1;
        } else {
            let delivered = (&mut delivery).now_or_never();
            let held = delivered.as_ref().map_or_else(|| began.elapsed(), |delivered| delivered.took);
            if held > INLINE_MAX {
                self.tasks_owed = TASKS_AFTER_SLOW;
            }
            if let Some(delivered) = delivered {
                return self.take_delivered(delivered, began + held);
            }
        }
        self.deliveries.spawn(delivery);
    }

    pub(super) fn take_delivery(&mut self, done: Result<Delivered, JoinError>) {
        // A delivery catches its handler's panics; it ends early only when this task is dropped.
        if let Ok(delivered) = done {
            self.take_delivered(delivered, Instant::now());
        }
    }

    fn take_delivered(&mut self, Delivered { answers, broken, took }: Delivered, now: Instant) {
        let taken = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).map(|accepted| accepted.events);
        self.progress.delivered(taken.sum());
        self.lanes.delivered(answers, took, now);
        self.lanes.not_deliverable(broken, now);
    }

    pub(super) fn take_job(&mut self, done: Result<Done, JoinError>) {
        let now = Instant::now();
        match done {
            Ok(Done::Loaded(positions)) => self.lanes.loaded(positions, now),
            Ok(Done::Repaired(root, repaired)) => self.lanes.repaired(&root, repaired, now),
            Ok(Done::Flushed(results)) => {
                let failed = results.iter().find_map(|(_, result)| result.as_ref().err());
                report(&self.parts.health, "write positions", failed);
                self.lanes.flushed(results, now);
            }
            Ok(Done::Marked(order, result)) => {
                report(&self.parts.health, "write marks", result.as_ref().err());
                self.lanes.marked(order, result, now);
            }
            Ok(Done::Listed(marked)) => {
                self.lanes.resume(marked, now);
                self.listing = false;
                if std::mem::take(&mut self.list_again) {
                    self.obey(LaneOrder::Resume);
                }
            }
            Ok(Done::Checkpointed(lane, checkpoint, result)) => {
                report(&self.parts.health, "write checkpoints", result.as_ref().err());
                if self.lanes.checkpointed(lane, checkpoint, result.is_ok(), now) {
                    let shard = self.feeds.remove(&lane).map(|feed| feed.shard().clone());
                    self.finished.extend(shard.or_else(|| self.closing.remove(&lane)));
                }
            }
            // Its answer will never come, and what waits for it would wait in silence: the relay stops instead.
            Err(stopped) if stopped.is_panic() => resume_unwind(stopped.into_panic()),
            Err(stopped) => error!(handler = %self.parts.name, error = %stopped, "a task of the lanes ended early"),
        }
    }
}

fn report(health: &Health, subject: &str, failed: Option<&StorageError>) {
    match failed {
        Some(error) => health.problem(subject, with_causes(error)),
        None => health.mended(subject),
    }
}
