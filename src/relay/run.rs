//! Running a relay: handlers are registered, tasks spawned, and on cancellation everything is stopped and joined.

use std::collections::HashMap;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::jobs::JobPorts;
use super::kept::HandlerLanes;
use super::shards::{Shards, list_all};
use super::start::{Started, start};
use super::{HandlerSpec, RelayPorts, RelaySettings};
use crate::event::Root;
use crate::handler::HandlerName;
use crate::lane::{KnownPositions, LaneOrder, LanesParts, LanesTask, PayloadRoom, Progress};
use crate::storage::{Standing, StorageError};
use crate::stream::{Budget, ReaderParts, with_causes};
use crate::telemetry::names;
use std::sync::Arc;
use std::time::Duration;

/// Orders of the keeper of the shards that may wait for one handler's lanes.
const ORDERS_MAX: usize = 256;

/// Pages of the positions table (1 MB each, some 10,000 positions) read ahead at the start.
const PRELOAD_PAGES_MAX: usize = 4;

/// Why a relay stopped unasked.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Two handlers have the same name.
    #[error("two handlers are named `{0}`")]
    SameName(HandlerName),
    /// The stream has lost records that a handler needs, and `relay.on_trim` is `fail`.
    #[error(
        "handler `{handler}`: {reason}; what is missing is in the table: with relay.on_trim = \"reconcile\" the relay finds it and goes on"
    )]
    Trimmed {
        /// The handler.
        handler: HandlerName,
        /// What was lost.
        reason: String,
    },
    /// There is nothing to do.
    #[error("no handler is configured; name at least one under [[handlers]]")]
    NoHandlers,
    /// A task of the relay ended by itself, by a panic: a fault of the relay.
    #[error("a task of the relay ended unexpectedly")]
    Stopped(#[source] JoinError),
    /// A task of the relay ended by itself.
    #[error("{0} ended though nobody stopped it")]
    Ended(&'static str),
}

/// A relay, ready to run.
pub struct Relay {
    ports: RelayPorts,
    settings: RelaySettings,
    handlers: Vec<HandlerSpec>,
    progress: Vec<(HandlerName, Progress)>,
    budget: Budget,
}

impl Relay {
    /// A relay over these ports.
    ///
    /// # Errors
    /// When there is no handler, or two have the same name.
    pub fn new(ports: RelayPorts, settings: RelaySettings, handlers: Vec<HandlerSpec>) -> Result<Self, RelayError> {
        if handlers.is_empty() {
            return Err(RelayError::NoHandlers);
        }
        for (index, handler) in handlers.iter().enumerate() {
            if handlers[..index].iter().any(|other| other.name == handler.name) {
                return Err(RelayError::SameName(handler.name.clone()));
            }
        }
        let progress = handlers.iter().map(|handler| (handler.name.clone(), Progress::default())).collect();
        let budget = Budget::new(settings.window_bytes());
        Ok(Self { ports, settings, handlers, progress, budget })
    }

    /// Shows how far each handler is, and the room the windows take, where others look at them.
    #[must_use]
    pub fn showing(self, progress: Vec<(HandlerName, Progress)>, budget: Budget) -> Self {
        Self { progress, budget, ..self }
    }

    /// Runs until cancelled, then stops within the grace period. Dropping the future stops everything at once, as a
    /// crash would.
    ///
    /// # Errors
    /// When a task ends unasked.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), RelayError> {
        // One report a lane: bounded by the number of lanes, and never waited for, so that orders and reports cannot
        // block each other.
        let (report, reports) = mpsc::unbounded_channel();
        let mut lanes = JoinSet::new();
        let (mut kept, mut ordered_by) = (Vec::new(), Vec::new());
        let (stop, care, count) = (cancel.child_token(), Arc::new(Semaphore::new(1)), self.handlers.len());
        let names: Vec<HandlerName> = self.handlers.iter().map(|spec| spec.name.clone()).collect();
        let starts = self.handlers.iter().map(|spec| start(&self.ports, &self.settings, spec, count, &cancel));
        // Neither is waited for when the relay stops: an answer may take longer than the grace period.
        let listing = cancel.run_until_cancelled(list_all(&*self.ports.stream));
        let preloading = cancel.run_until_cancelled(preload(&self.ports, &names));
        let (started, known, listed) = tokio::join!(join_all(starts), preloading, listing);
        let mut known = known.unwrap_or_default();
        for ((spec, (_, progress)), started) in self.handlers.into_iter().zip(&self.progress).zip(started) {
            let Some(Started { settings, subscription, checkpoints, paused, seen, job, life, parked }) = started else {
                return Ok(());
            };
            let (orders, ordered) = mpsc::channel(ORDERS_MAX);
            ordered_by.push((spec.name.clone(), orders.clone()));
            let (name, started_at) = (spec.name.clone(), settings.started_at);
            kept.push(HandlerLanes { name, orders, checkpoints, started_at, seen, job });
            let parts = LanesParts {
                name: spec.name.clone(),
                handler: spec.handler,
                subscription,
                settings,
                events: self.ports.events.clone(),
                positions: self.ports.positions.clone(),
                marks: self.ports.marks.clone(),
                works_off: Arc::new(|_| true),
                paused,
                lives: self.ports.lives.clone(),
                care: care.clone(),
                payload_room: PayloadRoom::new(self.settings.payload_bytes() / count),
                unclean: life.unclean,
                suspect: life.suspect,
                known: known.remove(&spec.name).filter(|_| !parked).unwrap_or_default(),
                checkpoints: self.ports.checkpoints.clone(),
                shutdown_grace: self.settings.shutdown_grace,
                safety_alarm: self.settings.safety_alarm,
                clock: self.ports.clock.clone(),
                random: self.ports.random.clone(),
                health: self.ports.health.clone(),
            };
            lanes.spawn(LanesTask::new(parts, progress.clone()).run(ordered, report.clone(), stop.clone()));
        }
        drop(report);
        // What could not be listed is listed again, and named, by the keeper.
        let listed = listed.and_then(Result::ok);
        let shards = shards(&self.ports, &self.settings, self.budget, kept).knowing(listed);
        let mut keeper = JoinSet::new();
        keeper.spawn(shards.run(reports, stop.clone()));
        let mut operators = JoinSet::new();
        operators.spawn(stop.clone().run_until_cancelled_owned(follow_orders(self.ports.clone(), ordered_by)));

        let unasked = tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            Some(ended) = keeper.join_next() => Some(match ended {
                Ok(Ok(())) => RelayError::Ended("the keeper of the shards"),
                Ok(Err(error)) => error,
                Err(panic) => RelayError::Stopped(panic),
            }),
            Some(ended) = lanes.join_next() => Some(ended.err().map_or(RelayError::Ended("a handler's lanes"), RelayError::Stopped)),
        };
        stop.cancel();
        while lanes.join_next().await.is_some() {}
        while keeper.join_next().await.is_some() {}
        while operators.join_next().await.is_some() {}
        if cancel.is_cancelled() && unasked.is_none() {
            info!("stopped: positions and checkpoints are written");
        }
        unasked.map_or(Ok(()), Err)
    }
}

/// The keeper of the shards.
fn shards(ports: &RelayPorts, settings: &RelaySettings, budget: Budget, handlers: Vec<HandlerLanes>) -> Shards {
    let readers = ReaderParts {
        source: ports.stream.clone(),
        budget,
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
        checkpoints: ports.checkpoints.clone(),
        scan: ports.scan.clone(),
        progress: ports.scan_progress.clone(),
        clock: ports.clock.clone(),
        health: ports.health.clone(),
        budgets: (handlers.iter())
            .map(|handler| (handler.name.clone(), Budget::new(settings.scan_bytes() / handlers.len())))
            .collect(),
        segments: settings.backfill_segments,
    };
    Shards::new(ports.stream.clone(), readers, jobs, (settings.reconcile_interval, settings.on_trim), handlers)
}

/// How often the orders of operators are looked at.
const ORDERS_INTERVAL: Duration = Duration::from_secs(2);

/// Tells the lanes what operators have ordered: pauses, and changes of marks.
async fn follow_orders(ports: RelayPorts, lanes: Vec<(HandlerName, mpsc::Sender<LaneOrder>)>) {
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

/// Reads ahead what positions the handlers have: in a few calls or not at all.
async fn preload(ports: &RelayPorts, handlers: &[HandlerName]) -> HashMap<HandlerName, KnownPositions> {
    let preloaded = match ports.positions.preload(handlers, PRELOAD_PAGES_MAX).await {
        Ok(preloaded) => preloaded,
        Err(error) => {
            debug!(error = %with_causes(&error), "positions were not read ahead; each is read when its root is met");
            return HashMap::new();
        }
    };
    let mut positions: HashMap<HandlerName, HashMap<Root, Standing>> =
        handlers.iter().map(|handler| (handler.clone(), HashMap::new())).collect();
    for (handler, root, standing) in preloaded.positions {
        if let Some(positions) = positions.get_mut(&handler) {
            positions.insert(root, standing);
        }
    }
    positions.into_iter().map(|(handler, found)| (handler, KnownPositions::new(found, preloaded.complete))).collect()
}
