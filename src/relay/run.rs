//! Running a relay: handlers are registered, the fleet is joined, and joined anew after this replica was declared dead.
//!
//! What happens between joining and leaving is `incarnation`. Invariant: nothing is done in the relay's table before its
//! schema is known.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::desk::desk_lease;
use super::error::RelayError;
use super::incarnation::{Ended, Incarnation};
use super::start::{RELAY_TABLE, START_BACKOFF, Started, start};
use super::{HandlerSpec, RelayPorts, RelaySettings};
use crate::event::Root;
use crate::fleet::{Epoch, Fence, JoinError, Lease, LeaseKey, Member, MemberId};
use crate::handler::HandlerName;
use crate::lane::{KnownPositions, Progress};
use crate::storage::Standing;
use crate::stream::Budget;
use crate::telemetry::with_causes;
use crate::time::Backoff;

/// Pages of the positions table (1 MB each, some 10,000 positions) read ahead at the start.
const PRELOAD_PAGES_MAX: usize = 4;

/// A relay, ready to run.
pub struct Relay {
    pub(super) ports: RelayPorts,
    pub(super) settings: RelaySettings,
    pub(super) handlers: Vec<HandlerSpec>,
    pub(super) progress: Vec<(HandlerName, Progress)>,
    pub(super) budget: Budget,
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

    /// Runs until cancelled, then hands over what it holds and stops within the grace period. Dropping the future stops
    /// everything at once, as a crash would.
    ///
    /// # Errors
    /// When a task ends unasked, or the relay's table is not this version's.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), RelayError> {
        while let Ended::DeclaredDead = self.live(&cancel).await? {
            self.ports.health.begins_anew();
        }
        Ok(())
    }

    /// One incarnation: joins, takes its leases, and works until it is stopped or declared dead.
    async fn live(&self, cancel: &CancellationToken) -> Result<Ended, RelayError> {
        let count = self.handlers.len();
        let names: Vec<HandlerName> = self.handlers.iter().map(|spec| spec.name.clone()).collect();
        if !self.is_known_table(cancel).await? {
            return Ok(Ended::Stopped);
        }
        let starts = self.handlers.iter().map(|spec| start(&self.ports, &self.settings, spec, count, cancel));
        let Some(started) = join_all(starts).await.into_iter().collect::<Option<Vec<Started>>>() else {
            return Ok(Ended::Stopped);
        };
        // Neither is waited for when the relay stops: an answer may take longer than the grace period.
        let reading = async {
            let free = free_leases(&self.ports, &names).await;
            (free, preload(&self.ports, &names).await)
        };
        let Some((free_before, known)) = cancel.run_until_cancelled(reading).await else { return Ok(Ended::Stopped) };
        let me = MemberId::incarnate(&self.settings.replica_name, &self.ports.random);
        let member = Member {
            id: me.clone(),
            counter: 1,
            dead: false,
            leaving: false,
            view: 0,
            handlers: names.iter().cloned().collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            patience: self.settings.timing().patience(),
        };
        let fence = Fence::closed(Instant::now());
        if !self.join(&member, &fence, cancel).await {
            return Ok(Ended::Stopped);
        }
        info!(member = %me, "joined the fleet");
        Incarnation { relay: self, member, fence, free_before, known, started }.run(cancel).await
    }

    /// Whether the relay's table is of the schema that this version keeps; false when cancelled before it could be asked.
    async fn is_known_table(&self, cancel: &CancellationToken) -> Result<bool, RelayError> {
        let mut backoff = Backoff::new(START_BACKOFF, self.ports.random.clone());
        loop {
            let asked = cancel.run_until_cancelled(self.ports.fleet.check_schema()).await;
            match asked {
                None => return Ok(false),
                Some(Ok(())) => return Ok(true),
                Some(Err(JoinError::Storage(error))) => {
                    self.ports.health.problem(RELAY_TABLE, with_causes(&error));
                }
                Some(Err(refused @ JoinError::Schema { .. })) => return Err(RelayError::Refused(refused)),
            }
            if cancel.run_until_cancelled(sleep(backoff.next_wait())).await.is_none() {
                return Ok(false);
            }
        }
    }

    /// Puts this incarnation's row, and notes that the lives of its handlers begin; false when cancelled before.
    async fn join(&self, member: &Member, fence: &Fence, cancel: &CancellationToken) -> bool {
        let timing = self.settings.timing();
        let lives = self.ports.lives.notes_of(&member.id);
        let mut backoff = Backoff::new(START_BACKOFF, self.ports.random.clone());
        // The row may be that of the first attempt: others count from when they saw it.
        let sent_at = Instant::now();
        loop {
            let joining = async {
                self.ports.fleet.join(member).await?;
                fence.renewed(sent_at, timing.fences_after);
                // After the member's row: a life without one is over.
                for spec in &self.handlers {
                    lives.begin(&spec.name).await?;
                }
                let desks: Vec<Lease> = self.handlers.iter().map(|spec| desk_lease(&spec.name)).collect();
                self.ports.fleet.add(&desks).await
            };
            match cancel.run_until_cancelled(joining).await {
                None => return false,
                Some(Ok(())) => {
                    self.ports.health.mended(RELAY_TABLE);
                    return true;
                }
                Some(Err(error)) => self.ports.health.problem(RELAY_TABLE, with_causes(&error)),
            }
            if cancel.run_until_cancelled(sleep(backoff.next_wait())).await.is_none() {
                return false;
            }
        }
    }
}

/// The leases that nobody holds, before positions are read ahead.
async fn free_leases(ports: &RelayPorts, handlers: &[HandlerName]) -> BTreeMap<LeaseKey, Epoch> {
    let mut free = BTreeMap::new();
    for handler in handlers {
        // What is not known to be free is taken for moved.
        let leases = ports.fleet.leases(handler).await.unwrap_or_default();
        free.extend(leases.iter().filter(|lease| lease.owner.is_none()).map(|lease| (lease.key(), lease.epoch)));
    }
    free
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
