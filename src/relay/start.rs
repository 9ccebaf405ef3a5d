//! How a handler starts: registered, its checkpoints and orders read, and how its life before ended.
//!
//! Invariant: an event with which the process has ended again and again parks its root before anything is delivered.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::counter;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{HandlerSpec, RelayPorts, RelaySettings};
use crate::backfill::{Job, Seen};
use crate::lane::{LaneSettings, OnFailure, Subscription};
use crate::relay_table::{Checkpoint, Life, Suspect};
use crate::storage::{Mark, MarkState, Marking, StorageError};
use crate::stream::{ShardId, with_causes};
use crate::telemetry::names;
use crate::time::{Backoff, BackoffPolicy};

/// The waits between attempts to reach the relay's table at the start.
const START_BACKOFF: BackoffPolicy =
    BackoffPolicy { initial: Duration::from_millis(200), max: Duration::from_secs(10) };

/// The subject of the relay's table in the health report.
const RELAY_TABLE: &str = "relay table";

/// What a handler starts with.
pub(super) struct Started {
    pub(super) settings: LaneSettings,
    pub(super) subscription: Subscription,
    pub(super) checkpoints: BTreeMap<ShardId, Checkpoint>,
    pub(super) paused: bool,
    pub(super) seen: Option<Seen>,
    pub(super) job: Option<Job>,
    pub(super) life: Life,
    /// A root was parked just now: what was read of positions meanwhile may not show it.
    pub(super) parked: bool,
}

/// Registers a handler and loads what it starts with; none when cancelled before the relay's table could be reached.
pub(super) async fn start(
    ports: &RelayPorts,
    settings: &RelaySettings,
    spec: &HandlerSpec,
    handlers: usize,
    cancel: &CancellationToken,
) -> Option<Started> {
    let mut backoff = Backoff::new(START_BACKOFF, ports.random.clone());
    let mut begun = None;
    loop {
        let attempt = async {
            // Once it is noted that this life runs, only the first answer tells how the last one ended.
            let beginning = async {
                match begun.take() {
                    Some(life) => Ok(life),
                    None => ports.lives.begin(&spec.name).await,
                }
            };
            let read = async {
                tokio::try_join!(
                    ports.registry.register(&spec.name, spec.start, ports.clock.now()),
                    ports.checkpoints.load(&spec.name),
                    ports.registry.paused(),
                    ports.jobs.seen(&spec.name),
                    ports.jobs.job(&spec.name),
                    subscribe(ports, spec),
                )
            };
            let (life, read) = tokio::join!(beginning, read);
            begun = Some(life?);
            let guilty =
                begun.as_ref().and_then(|life| life.suspect.clone()).filter(|suspect| is_guilty(spec, suspect));
            if let Some(suspect) = &guilty {
                park(ports, spec, suspect).await?;
            }
            read.map(|read| (read, guilty.is_some()))
        };
        // Not waited for when the relay stops: an answer may take longer than the grace period.
        let error = match cancel.run_until_cancelled(attempt).await? {
            Ok(((registration, checkpoints, paused, seen, job, subscription), parked)) => {
                ports.health.mended(RELAY_TABLE);
                let mut settings = settings.bounded(&spec.settings, handlers);
                settings.started_at = registration.started_at;
                let paused = paused.contains(&spec.name);
                let life = begun.unwrap_or_default();
                if life.unclean {
                    warn!(handler = %spec.name, events = settings.careful_events, "the last life of the handler did not end as it should; its first events are given one by one");
                }
                return Some(Started { settings, subscription, checkpoints, paused, seen, job, life, parked });
            }
            Err(error) => error,
        };
        ports.health.problem(RELAY_TABLE, with_causes(&error));
        tokio::select! {
            biased;
            () = cancel.cancelled() => return None,
            () = sleep(backoff.next_wait()) => {}
        }
    }
}

/// What the handler is subscribed to, and since when: durable before anything is delivered.
async fn subscribe(ports: &RelayPorts, spec: &HandlerSpec) -> Result<Subscription, StorageError> {
    let registered = ports.registry.interests(&spec.name).await?;
    let subscription = match &registered {
        Some(registered) => spec.subscription.clone().holding(registered, ports.clock.now()),
        // All of a new handler's subscription holds since its start.
        None => spec.subscription.clone(),
    };
    let interests = subscription.registered();
    if registered.as_ref() != Some(&interests) {
        ports.registry.put_interests(&spec.name, &interests).await?;
    }
    Ok(subscription)
}

/// Whether the process has ended with this event as often as the policy allows. Its first attempt was not noted.
fn is_guilty(spec: &HandlerSpec, suspect: &Suspect) -> bool {
    spec.settings.on_failure != OnFailure::Block && suspect.attempts + 1 >= spec.settings.attempts_max
}

/// Parks the root of an event that ends the process, unless it was accepted meanwhile.
async fn park(ports: &RelayPorts, spec: &HandlerSpec, suspect: &Suspect) -> Result<(), StorageError> {
    let Suspect { root, sequence, attempts } = suspect;
    let loaded = ports.positions.load(&spec.name, std::slice::from_ref(root)).await?;
    let standing = loaded.into_iter().next().unwrap_or_default();
    let accepted = standing.position.is_some_and(|position| position >= *sequence);
    let again = standing.mark.as_ref().is_some_and(|mark| mark.rewound && mark.sequence <= *sequence);
    if !accepted || again {
        let reason = "the process ended while the handler had this event";
        let mark = Mark::new(MarkState::Parked, *sequence, attempts + 1, reason, ports.clock.now());
        let mark = Mark { rewound: accepted, ..mark };
        if ports.marks.mark(&spec.name, root, &standing, &mark).await? == Marking::Done {
            counter!(names::ROOTS_PARKED, "handler" => spec.name.as_str().to_owned()).increment(1);
            error!(handler = %spec.name, %root, %sequence, attempts = mark.attempts, reason, "the root is parked for this handler: nothing is lost; mend the cause, then `angzarr-relay parked release`");
        }
    }
    ports.lives.clear(&spec.name).await
}
