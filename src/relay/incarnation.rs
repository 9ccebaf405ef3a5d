//! One life of a relay in the fleet: its tasks are spawned, and when it ends they are stopped and joined.
//!
//! Joining the fleet is left to `run`. Invariants: a life that is stopped hands over what it holds before its tasks end; one
//! that was declared dead begins and writes nothing any more; no task outlives it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::RelayPorts;
use super::error::RelayError;
use super::heart::{Heart, Says, beat};
use super::held::HeldLeases;
use super::jobs::JobPorts;
use super::kept::{HandlerLanes, MarkShare};
use super::lane_checkpoints::LaneCheckpoints;
use super::leasing::{LeaseEvent, LeaseNote, Leasing, LeasingParts};
use super::listing::Listing;
use super::readers::Scans;
use super::run::Relay;
use super::shards::{Shards, ShardsParts};
use super::start::Started;
use crate::fleet::{Epoch, Fence, LeaseKey, Member, Report};
use crate::handler::HandlerName;
use crate::lane::{KnownPositions, LaneOrder, LaneReport, LanesParts, LanesTask, PayloadRoom, Progress};
use crate::storage::StorageError;
use crate::stream::{Budget, ReaderParts};
use crate::telemetry::{names, with_causes};
use crate::time::Clock;

/// Orders of the keeper of the shards that may wait for one handler's lanes.
const ORDERS_MAX: usize = 256;

/// A handler, and where its lanes take orders.
type Ordered = (HandlerName, mpsc::Sender<LaneOrder>);

/// How an incarnation ended.
pub(super) enum Ended {
    Stopped,
    DeclaredDead,
}

/// One life of a relay in the fleet.
pub(super) struct Incarnation<'a> {
    pub(super) relay: &'a Relay,
    pub(super) member: Member,
    pub(super) fence: Fence,
    /// Leases that were free before positions were read ahead, and since which epoch.
    pub(super) free_before: BTreeMap<LeaseKey, Epoch>,
    pub(super) known: HashMap<HandlerName, KnownPositions>,
    pub(super) started: Vec<Started>,
}

impl Incarnation<'_> {
    /// Works until it is cancelled, declared dead, or a task ends unasked; then everything has ended.
    pub(super) async fn run(mut self, cancel: &CancellationToken) -> Result<Ended, RelayError> {
        let ports = &self.relay.ports;
        // One report a lane, one event and one note a change of a lease: bounded by the number of leases, and never waited
        // for, so that those who tell and those who are told cannot block each other.
        let (report, reports) = mpsc::unbounded_channel();
        let (tell, events) = mpsc::unbounded_channel();
        let (notes, inbox) = mpsc::unbounded_channel();
        let (stop, says) = (CancellationToken::new(), Says::default());
        let _stops_all = stop.clone().drop_guard();
        let held = HeldLeases::default();
        let listing = Listing::new(ports.stream.clone(), ports.random.clone());
        let checkpoints = LaneCheckpoints::new(ports.fleet.clone(), held.clone(), listing.clone());
        let (mut lanes, kept, ordered_by) = self.spawn_lanes(&Arc::new(checkpoints), &report, &stop);

        let shards = self.shards(kept, (listing, held.clone()), notes.clone());
        let mut keeper = JoinSet::new();
        keeper.spawn(shards.run(reports, events, stop.clone()));
        let mut operators = JoinSet::new();
        operators.spawn(stop.clone().run_until_cancelled_owned(follow_orders(ports.clone(), ordered_by)));
        let mut heart = JoinSet::new();
        heart.spawn(beat(self.heart(&says)));
        let mut leasing = JoinSet::new();
        leasing.spawn(self.leasing(says, held, tell).run(inbox));

        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => Ok(Ended::Stopped),
            Some(dead) = heart.join_next() => dead.map(|()| Ended::DeclaredDead).map_err(RelayError::Stopped),
            Some(ended) = keeper.join_next() => Err(match ended {
                Ok(Ok(())) => RelayError::Ended("the keeper of the shards"),
                Ok(Err(error)) => error,
                Err(panic) => RelayError::Stopped(panic),
            }),
            Some(ended) = leasing.join_next() => {
                Err(ended.err().map_or(RelayError::Ended("the keeper of the leases"), RelayError::Stopped))
            }
            Some(ended) = lanes.join_next() => {
                Err(ended.err().map_or(RelayError::Ended("a handler's lanes"), RelayError::Stopped))
            }
        };
        match &ended {
            // What it held is another's: nothing is begun or written any more.
            Ok(Ended::DeclaredDead) => lanes.abort_all(),
            Ok(Ended::Stopped) => {
                notes.send(LeaseNote::Leave).ok();
                let within = self.relay.settings.shutdown_grace.mul_f64(GRACE_FOR_HAND_OVER);
                if timeout(within, leasing.join_next()).await.is_err() {
                    warn!("not everything was handed over within the grace period: what is left is taken over");
                }
            }
            Err(_) => {}
        }
        stop.cancel();
        while lanes.join_next().await.is_some() {}
        while keeper.join_next().await.is_some() {}
        while operators.join_next().await.is_some() {}
        leasing.shutdown().await;
        heart.shutdown().await;
        if matches!(ended, Ok(Ended::Stopped)) {
            self.leave().await;
            info!("stopped: positions and checkpoints are written");
        }
        ended
    }

    /// Removes this life's row: nothing is done under it any more, and where not everything was handed over the others need not
    /// wait until they find it dead.
    async fn leave(&self) {
        let leaving = timeout(LEAVE_MAX, self.relay.ports.fleet.leave(&self.member.id)).await;
        if !matches!(leaving, Ok(Ok(()))) {
            debug!("this replica's row was not removed: the others find it dead");
        }
    }

    /// What renews this membership.
    fn heart(&self, says: &Says) -> Heart {
        let Relay { ports, settings, progress, .. } = self.relay;
        Heart {
            store: ports.fleet.clone(),
            member: self.member.clone(),
            says: says.clone(),
            fence: self.fence.clone(),
            timing: settings.timing(),
            health: ports.health.clone(),
            reports: reports(progress.clone(), ports.clock.clone()),
        }
    }

    /// What takes and hands over its leases.
    fn leasing(&self, says: Says, held: HeldLeases, events: mpsc::UnboundedSender<LeaseEvent>) -> Leasing {
        let Relay { ports, settings, progress, .. } = self.relay;
        Leasing::new(LeasingParts {
            store: ports.fleet.clone(),
            me: self.member.id.clone(),
            progress: progress.clone(),
            clock: ports.clock.clone(),
            timing: settings.timing(),
            fence: self.fence.clone(),
            says,
            health: ports.health.clone(),
            held,
            events,
        })
    }

    /// Spawns each handler's lanes.
    fn spawn_lanes(
        &mut self,
        checkpoints: &Arc<LaneCheckpoints>,
        report: &mpsc::UnboundedSender<LaneReport>,
        stop: &CancellationToken,
    ) -> (JoinSet<()>, Vec<HandlerLanes>, Vec<Ordered>) {
        let Relay { ports, settings, handlers, progress, .. } = self.relay;
        let (mut lanes, mut kept, mut ordered_by) = (JoinSet::new(), Vec::new(), Vec::new());
        let care = Arc::new(Semaphore::new(1));
        let lives = ports.lives.notes_of(&self.member.id);
        for ((spec, (_, progress)), started) in handlers.iter().zip(progress).zip(std::mem::take(&mut self.started)) {
            let (orders, ordered) = mpsc::channel(ORDERS_MAX);
            ordered_by.push((spec.name.clone(), orders.clone()));
            let marks = MarkShare::default();
            kept.push(HandlerLanes {
                name: spec.name.clone(),
                orders,
                started_at: started.settings.started_at,
                settings: started.settings.clone(),
                marks: marks.clone(),
            });
            let fence = self.fence.clone();
            let parts = LanesParts {
                name: spec.name.clone(),
                handler: spec.handler.clone(),
                subscription: started.subscription,
                settings: started.settings,
                events: ports.events.clone(),
                positions: ports.positions.clone(),
                marks: ports.marks.clone(),
                works_off: Arc::new(move |branch| marks.works_off(branch)),
                may_deliver: Arc::new(move || fence.is_open(Instant::now())),
                paused: started.paused,
                lives: lives.clone(),
                care: care.clone(),
                payload_room: PayloadRoom::new(settings.payload_bytes() / handlers.len()),
                suspect: None,
                known: self.known.remove(&spec.name).unwrap_or_default(),
                checkpoints: checkpoints.clone(),
                shutdown_grace: settings.shutdown_grace.mul_f64(1.0 - GRACE_FOR_HAND_OVER),
                safety_alarm: settings.safety_alarm,
                clock: ports.clock.clone(),
                random: ports.random.clone(),
                health: ports.health.clone(),
            };
            lanes.spawn(LanesTask::new(parts, progress.clone()).run(ordered, report.clone(), stop.clone()));
        }
        (lanes, kept, ordered_by)
    }

    /// The keeper of the shards.
    fn shards(
        &mut self,
        handlers: Vec<HandlerLanes>,
        (listing, held): (Listing, HeldLeases),
        notes: mpsc::UnboundedSender<LeaseNote>,
    ) -> Shards {
        let Relay { ports, settings, budget, .. } = self.relay;
        let readers = ReaderParts {
            source: ports.stream.clone(),
            budget: budget.clone(),
            kept_bytes_max: Arc::new(|| 0),
            poll_interval_max: settings.poll_interval_max,
            clock: ports.clock.clone(),
            random: ports.random.clone(),
            health: ports.health.clone(),
            counted_as: names::RECORDS_READ,
            lost: None,
        };
        let jobs = JobPorts {
            store: ports.jobs.clone(),
            scan: ports.scan.clone(),
            progress: ports.scan_progress.clone(),
            clock: ports.clock.clone(),
            health: ports.health.clone(),
            segments: settings.backfill_segments,
        };
        let room = settings.scan_bytes() / handlers.len();
        let budgets = handlers.iter().map(|handler| (handler.name.clone(), Budget::new(room))).collect();
        let parts = ShardsParts {
            ports: ports.clone(),
            listing,
            held,
            jobs,
            on_trim: settings.on_trim,
            reconcile_interval: settings.reconcile_interval,
            notes,
            free_before: std::mem::take(&mut self.free_before),
            me: self.member.id.clone(),
        };
        Shards::new(parts, (readers, Scans { source: ports.scan.clone(), budgets }), handlers)
    }
}

/// How far the handlers are, for people.
fn reports(progress: Vec<(HandlerName, Progress)>, clock: Clock) -> Box<dyn Fn() -> Report + Send> {
    Box::new(move || {
        let now = clock.now();
        let lags = progress.iter().map(|(handler, progress)| (handler.clone(), progress.lag(now).as_secs()));
        Report { lags_secs: lags.filter(|(_, lag)| *lag > 0).collect() }
    })
}

/// Removing the row may take so long at the end.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// The part of the grace period in which everything is handed over; the rest is for what could not be.
const GRACE_FOR_HAND_OVER: f64 = 0.8;

/// How often the orders of operators are looked at.
const ORDERS_INTERVAL: Duration = Duration::from_secs(2);

/// Tells the lanes what operators have ordered: pauses, and changes of marks.
async fn follow_orders(ports: RelayPorts, lanes: Vec<Ordered>) {
    let mut known = None;
    loop {
        let looked = async {
            let number = ports.marks.orders().await?;
            let paused = if known == Some(number) { None } else { Some(ports.registry.paused().await?) };
            Ok::<_, StorageError>((number, paused))
        };
        match looked.await {
            Ok((_, None)) => {}
            Ok((number, Some(paused))) => {
                known = Some(number);
                for (name, lane) in &lanes {
                    // Lanes that are gone have no use for it.
                    lane.send(LaneOrder::Pause(paused.contains(name))).await.ok();
                    lane.send(LaneOrder::Resume).await.ok();
                }
            }
            Err(error) => debug!(error = %with_causes(&error), "the orders of operators could not be read"),
        }
        sleep(ORDERS_INTERVAL).await;
    }
}
