//! This replica's leases: the rows are read, what is due is written, and whoever opens and closes lanes is told.
//!
//! What is due is decided in `fleet`; renewing is left to `heart`, lanes to `shards`. Invariants: rows of leases are read
//! before the rows of members that they are judged by; a lease is told as held only when the write that took it has
//! succeeded; its closing is ordered before anybody else may take it, whatever became of the announcement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use metrics::{counter, gauge};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::desk::DESK;
use super::heart::Says;
use super::held::HeldLeases;
use crate::fleet::{
    Epoch, Fence, Fleet, FleetStore, Lease, LeaseAction, LeaseKey, MemberId, Planner, Taken, Timing, Unread,
    ViewAction, ViewKeeper, Watch,
};
use crate::handler::HandlerName;
use crate::lane::Progress;
use crate::relay_table::Checkpoint;
use crate::storage::StorageError;
use crate::stream::ShardId;
use crate::telemetry::{Health, counted, names, with_causes};
use crate::time::Clock;

/// Leases that are waited for are read so often, for as long as a hand-over may take.
const QUICK: Duration = Duration::from_millis(100);

/// Leases read in one such quick look; the rest waits for its turn.
const QUICK_KEYS_MAX: usize = 100;

/// Rows that were read so long ago are read again, though nothing is known to have changed: no belief lasts for ever.
const READ_AGAIN: Duration = Duration::from_mins(10);

/// A write that was not answered may take effect until so long after: what it would change is read until then.
const LATE_MAX: Duration = Duration::from_secs(30);

/// Writes under way at once.
const WRITES_AT_ONCE: usize = 16;

/// The subject of leases in the health report.
const LEASES: &str = "leases";

/// What happens to leases, told to whoever opens and closes lanes.
#[derive(Debug)]
pub(super) enum LeaseEvent {
    /// All leases of this relay's handlers, as they were just read.
    Read(BTreeMap<LeaseKey, Lease>, Fleet),
    /// This one is held from now on, taken from what it was before, whose owner may have died; and how far the handler has
    /// come.
    Held { lease: Lease, before: Lease, died: bool, checkpoint: Option<Checkpoint> },
    /// This one, held since this epoch, is to be closed until then; its lane was told, or there was none or no room.
    Close(LeaseKey, Epoch, Instant, bool),
    /// The view names this replica, and nothing more is due by it.
    Agreed,
}

/// What is told back.
#[derive(Debug)]
pub(super) enum LeaseNote {
    /// Everything on it, as it was held since this epoch, has ended.
    Closed(LeaseKey, Epoch, bool),
    /// The handler has finished it, durably.
    Finished(LeaseKey),
    /// Leases were added.
    Added,
    /// The relay stops: all is to be handed over.
    Leave,
}

/// One incarnation's leases.
pub(super) struct Leasing {
    store: Arc<dyn FleetStore>,
    me: MemberId,
    /// Its handlers, and how far each is.
    progress: Vec<(HandlerName, Progress)>,
    clock: Clock,
    timing: Timing,
    fence: Fence,
    says: Says,
    health: Health,
    held: HeldLeases,
    events: mpsc::UnboundedSender<LeaseEvent>,
    planner: Planner,
    keeper: ViewKeeper,
    watch: Watch,
    unread: Unread,
    leases: BTreeMap<LeaseKey, Lease>,
    /// The view and the lineage by which the leases were read; none when they are to be read again.
    read_by: Option<(u64, u64)>,
    read_at: Instant,
    /// A write was not answered, and may take effect until then.
    late_until: Option<Instant>,
    /// It was told that all is agreed, since the leases were read.
    told_agreed: bool,
    /// Leases that this member is to have and another still holds, and until when they are looked at quickly.
    wanted: (Vec<LeaseKey>, Instant),
    leaving: bool,
}

/// Who a member is, and what it goes by.
pub(super) struct LeasingParts {
    pub(super) store: Arc<dyn FleetStore>,
    pub(super) me: MemberId,
    /// Its handlers, and how far each is.
    pub(super) progress: Vec<(HandlerName, Progress)>,
    pub(super) clock: Clock,
    pub(super) timing: Timing,
    pub(super) fence: Fence,
    pub(super) says: Says,
    pub(super) health: Health,
    pub(super) held: HeldLeases,
    pub(super) events: mpsc::UnboundedSender<LeaseEvent>,
}

/// Counters are there before they first count: what a rate does not see begin, it does not see.
fn show_counters(progress: &[(HandlerName, Progress)]) {
    for name in [names::LEASES_LOST, names::MEMBERS_DECLARED_DEAD, names::RENEWALS_MISSED, names::MEMBERSHIP_LOST] {
        counter!(name).increment(0);
    }
    for (handler, _) in progress {
        for name in [names::LEASES_TAKEN, names::LEASES_RELEASED] {
            counter!(name, "handler" => handler.as_str().to_owned()).increment(0);
        }
    }
}

impl Leasing {
    pub(super) fn new(parts: LeasingParts) -> Self {
        let LeasingParts { store, me, progress, clock, timing, fence, says, health, held, events } = parts;
        show_counters(&progress);
        let handlers = progress.iter().map(|(handler, _)| handler.clone()).collect();
        Self {
            planner: Planner::new(me.clone(), handlers),
            store,
            me,
            progress,
            clock,
            timing,
            fence,
            says,
            health,
            held,
            events,
            keeper: ViewKeeper::default(),
            watch: Watch::default(),
            unread: Unread::default(),
            leases: BTreeMap::new(),
            read_by: None,
            read_at: Instant::now(),
            late_until: None,
            told_agreed: false,
            wanted: (Vec::new(), Instant::now()),
            leaving: false,
        }
    }

    /// Runs until everything is handed over after [`LeaseNote::Leave`]; dropped when the incarnation ends otherwise.
    pub(super) async fn run(mut self, mut notes: mpsc::UnboundedReceiver<LeaseNote>) {
        let mut look_at = Instant::now();
        loop {
            let quick_at =
                (!self.wanted.0.is_empty() && Instant::now() < self.wanted.1).then(|| Instant::now() + QUICK);
            tokio::select! {
                biased;
                told = notes.recv() => {
                    let Some(note) = told else { return };
                    self.note(note);
                    while let Ok(note) = notes.try_recv() {
                        self.note(note);
                    }
                    look_at = Instant::now();
                }
                () = sleep_until(quick_at.map_or(look_at, |at| at.min(look_at))) => {}
            }
            if Instant::now() < look_at && !self.look_quickly().await.unwrap_or(false) {
                continue;
            }
            look_at = match self.look().await {
                Ok(again) => {
                    self.health.mended(LEASES);
                    Instant::now() + if again { Duration::ZERO } else { self.timing.heartbeat }
                }
                Err(error) => {
                    self.health.problem(LEASES, with_causes(&error));
                    Instant::now() + self.timing.heartbeat
                }
            };
            if self.leaving && self.planner.holdings().is_empty() {
                return;
            }
        }
    }

    fn note(&mut self, note: LeaseNote) {
        match note {
            LeaseNote::Closed(key, epoch, clean) => self.planner.closed(&key, epoch, clean),
            LeaseNote::Finished(key) => {
                self.let_go(&key);
                self.read_by = None;
            }
            LeaseNote::Added => self.read_by = None,
            LeaseNote::Leave => {
                self.leaving = true;
                self.says.leaves();
            }
        }
    }

    fn let_go(&mut self, key: &LeaseKey) {
        self.planner.let_go(key);
        self.held.let_go(key);
    }

    /// Looks at leases that are waited for; true when there is something to be done.
    async fn look_quickly(&mut self) -> Result<bool, StorageError> {
        let keys: Vec<LeaseKey> = self.wanted.0.iter().take(QUICK_KEYS_MAX).cloned().collect();
        let mut changed = false;
        for lease in self.store.leases_of(&keys).await? {
            changed |= self.leases.insert(lease.key(), lease.clone()).is_none_or(|before| before != lease);
        }
        Ok(changed)
    }

    /// Reads what is to be read and does what is due; true when there is more to do at once.
    async fn look(&mut self) -> Result<bool, StorageError> {
        // A release does not change the lineage. Read before the members, as all leases are.
        if self.read_by.is_some() && !self.wanted.0.is_empty() {
            self.look_quickly().await?;
        }
        let mut fleet = self.store.fleet().await?;
        let by = (fleet.view.version, fleet.lineage);
        // A lease that was taken without an answer has an owner who does not know it, and nobody reads its shard.
        let late = self.late_until.is_some();
        self.late_until = self.late_until.filter(|until| Instant::now() < *until);
        if self.read_by != Some(by) || late || self.read_at.elapsed() >= READ_AGAIN {
            self.read_leases().await?;
            (self.read_at, self.told_agreed) = (Instant::now(), false);
            // An owner that is not among the members is gone only if the members were read after its lease.
            fleet = self.store.fleet().await?;
            self.read_by = Some(by);
            self.events.send(LeaseEvent::Read(self.leases.clone(), fleet.clone())).ok();
        }
        let now = Instant::now();
        if let Some(mine) = fleet.members.iter_mut().find(|member| member.id == self.me) {
            mine.leaving |= self.leaving;
        }
        self.watch.see_members(&fleet.members, now);
        self.watch.see_leases(self.leases.values(), now);
        let due = self.planner.plan(&fleet, &self.leases, (&self.watch, &self.timing), now);
        self.says.goes_by(self.planner.view());
        if due.wanted != self.wanted.0 {
            self.wanted = (due.wanted, now + self.timing.overdue_after);
        }
        // One that fails keeps none of the others from being done.
        let kept = self.keep_view(&fleet).await;
        let carried_out = self.carry_out(due.actions, &fleet).await;
        self.watch_unread(&fleet).await?;
        let again = kept? | carried_out?;
        if !again && !self.told_agreed && fleet.view.members.contains(&self.me) {
            self.told_agreed = true;
            self.events.send(LeaseEvent::Agreed).ok();
        }
        Ok(again)
    }

    /// Whoever has a handler's desk tells of its shards that nobody reads. Somebody may have taken them since they were
    /// read: so they are read again, until somebody has.
    async fn watch_unread(&mut self, fleet: &Fleet) -> Result<(), StorageError> {
        let seen: Vec<LeaseKey> = self.unread.keys().take(QUICK_KEYS_MAX).cloned().collect();
        if !seen.is_empty() && self.read_by.is_some() {
            let read = self.store.leases_of(&seen).await?;
            if read.len() < seen.len() {
                // Some are gone, or were not answered.
                self.read_by = None;
            }
            self.leases.extend(read.into_iter().map(|lease| (lease.key(), lease)));
        }
        let desk = |handler: &HandlerName| LeaseKey { handler: handler.clone(), shard: ShardId::new(DESK) };
        let now = Instant::now();
        self.unread.see(fleet, &self.leases, |handler| self.held.get(&desk(handler)).is_some(), now);
        for (handler, progress) in &self.progress {
            let since = self.unread.since(handler).map(|since| self.clock.now().minus(now - since));
            progress.set_unread(since);
        }
        gauge!(names::SHARDS, "state" => "unread").set(counted(self.unread.count()));
        Ok(())
    }

    async fn read_leases(&mut self) -> Result<(), StorageError> {
        let mut leases = BTreeMap::new();
        for (handler, _) in &self.progress {
            let read = self.store.leases(handler).await?;
            leases.extend(read.into_iter().map(|lease| (lease.key(), lease)));
        }
        self.watch.retain_leases(|key| leases.contains_key(key));
        self.leases = leases;
        Ok(())
    }

    async fn keep_view(&mut self, fleet: &Fleet) -> Result<bool, StorageError> {
        let due = self.keeper.decide(&self.me, fleet, (&self.watch, &self.timing), Instant::now());
        let mut changed = false;
        for action in due {
            let done = self.store.keep(&action).await?;
            changed |= done;
            match action {
                ViewAction::DeclareDead(member, _) if done => {
                    counter!(names::MEMBERS_DECLARED_DEAD).increment(1);
                    warn!(%member, "a replica has not renewed in time: its leases are taken over");
                }
                ViewAction::Put(view) if done => {
                    info!(version = view.version, members = ?view.members, "the members of the fleet have changed");
                }
                _ => {}
            }
        }
        Ok(changed)
    }

    /// Carries out what is due; true when the rows turned out to be others than those read.
    async fn carry_out(&mut self, actions: Vec<LeaseAction>, fleet: &Fleet) -> Result<bool, StorageError> {
        let (mut stale, mut failed) = (false, None);
        let mut writes = Vec::new();
        for action in actions {
            match action {
                // One that was finished may be gone before its lane has told.
                LeaseAction::Lost(key) if self.held.get(&key).is_none() => self.planner.let_go(&key),
                LeaseAction::Lost(key) => {
                    counter!(names::LEASES_LOST).increment(1);
                    warn!(handler = %key.handler, shard = %key.shard, "a lease was taken by another replica: its lane ends at once");
                    let epoch = self.planner.holdings().get(&key).map_or_else(Epoch::default, |holding| holding.epoch);
                    self.close(&key, epoch, Instant::now());
                    self.let_go(&key);
                }
                // One that is fenced takes nothing: it could not use it.
                LeaseAction::Take(_) if !self.fence.is_open(Instant::now()) => {}
                LeaseAction::Take(read) => writes.push((read.taken(&self.me), read)),
                LeaseAction::Announce(read) => {
                    let now = Instant::now();
                    self.planner.announcing(&read.key(), &self.timing, now);
                    self.close(&read.key(), read.epoch, now + self.timing.closes_within);
                    writes.push((read.announced(), read));
                }
                LeaseAction::Release(read, clean) => writes.push((read.released(clean), read)),
            }
        }
        let store = &self.store;
        let written: Vec<_> = stream::iter(writes)
            .map(|(changed, read)| async move {
                let outcome = store.change(&read, &changed).await;
                (read, changed, outcome)
            })
            .buffer_unordered(WRITES_AT_ONCE)
            .collect()
            .await;
        for (read, changed, outcome) in written {
            match outcome {
                Ok(Some(row)) => self.changed(read, changed, row.checkpoint, fleet),
                Ok(None) => {
                    if changed.owner.is_none() {
                        // It is somebody else's already.
                        self.let_go(&read.key());
                    }
                    stale = true;
                }
                Err(error) => {
                    self.late_until = Some(Instant::now() + LATE_MAX);
                    failed = Some(error);
                }
            }
        }
        if stale || failed.is_some() {
            self.read_by = None;
        }
        failed.map_or(Ok(stale), Err)
    }

    /// Orders the closing of a lease: its lane hears of it at once.
    fn close(&self, key: &LeaseKey, epoch: Epoch, deadline: Instant) {
        let told = self.held.close(key, epoch, deadline);
        self.events.send(LeaseEvent::Close(key.clone(), epoch, deadline, told)).ok();
    }

    fn changed(&mut self, before: Lease, lease: Lease, checkpoint: Option<Checkpoint>, fleet: &Fleet) {
        let key = lease.key();
        self.leases.insert(key.clone(), lease.clone());
        if lease.owner.is_none() {
            counter!(names::LEASES_RELEASED, "handler" => key.handler.as_str().to_owned()).increment(1);
            self.let_go(&key);
        } else if !lease.announced {
            counter!(names::LEASES_TAKEN, "handler" => key.handler.as_str().to_owned()).increment(1);
            debug!(handler = %key.handler, shard = %key.shard, epoch = %lease.epoch, from = ?before.owner, "took a lease");
            self.planner.took(key.clone(), lease.epoch);
            self.held.hold(key, Taken { owner: self.me.clone(), epoch: lease.epoch });
            let died = before.owner.as_ref().is_some_and(|owner| !fleet.is_alive(owner));
            self.events.send(LeaseEvent::Held { lease, before, died, checkpoint }).ok();
        }
    }
}
