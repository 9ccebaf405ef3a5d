//! How a handler starts: registered, its checkpoints and orders read, and how its life before ended.
//!
//! Invariant: an event with which the process has ended again and again parks its root before anything is delivered.

use std::time::Duration;

use metrics::counter;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{HandlerSpec, RelayPorts, RelaySettings};
use crate::fleet::MemberId;
use crate::handler::HandlerName;
use crate::lane::{LaneSettings, OnFailure, Subscription};
use crate::relay_table::{Life, Suspect};
use crate::storage::{Mark, MarkState, Marking, StorageError};
use crate::telemetry::{names, with_causes};
use crate::time::{Backoff, BackoffPolicy};

/// The waits between attempts to reach the relay's table at the start.
pub(super) const START_BACKOFF: BackoffPolicy =
    BackoffPolicy { initial: Duration::from_millis(200), max: Duration::from_secs(10) };

/// The subject of the relay's table in the health report.
pub(super) const RELAY_TABLE: &str = "relay table";

/// What a handler starts with.
pub(super) struct Started {
    pub(super) settings: LaneSettings,
    pub(super) subscription: Subscription,
    pub(super) paused: bool,
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
    loop {
        let attempt = async {
            tokio::try_join!(
                ports.registry.register(&spec.name, spec.start, ports.clock.now()),
                ports.registry.paused(),
                subscribe(ports, spec),
            )
        };
        // Not waited for when the relay stops: an answer may take longer than the grace period.
        let error = match cancel.run_until_cancelled(attempt).await? {
            Ok((registration, paused, subscription)) => {
                ports.health.mended(RELAY_TABLE);
                let mut settings = settings.bounded(&spec.settings, handlers);
                settings.started_at = registration.started_at;
                return Some(Started { settings, subscription, paused: paused.contains(&spec.name) });
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

/// How a replica ended that held a lease of the handler and died.
/// The event that it was given then is taken to be what ended it, once it has been often enough.
pub(super) async fn last_life(
    ports: &RelayPorts,
    (handler, settings): (&HandlerName, &LaneSettings),
    dead: &MemberId,
) -> Life {
    let mut backoff = Backoff::new(START_BACKOFF, ports.random.clone());
    loop {
        let attempt = async {
            let life = ports.lives.of(dead, handler).await?;
            if let Some(suspect) = life.suspect.as_ref().filter(|suspect| is_guilty(settings, suspect)) {
                park(ports, handler, suspect).await?;
            }
            Ok::<_, StorageError>(life)
        };
        match attempt.await {
            Ok(life) => {
                ports.health.mended(RELAY_TABLE);
                if life.unclean {
                    warn!(%handler, member = %dead, events = settings.careful_events, "a replica that had the handler did not end as it should; the next events are given one by one");
                }
                return life;
            }
            Err(error) => ports.health.problem(RELAY_TABLE, with_causes(&error)),
        }
        sleep(backoff.next_wait()).await;
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
fn is_guilty(settings: &LaneSettings, suspect: &Suspect) -> bool {
    settings.on_failure != OnFailure::Block && suspect.attempts + 1 >= settings.attempts_max
}

/// Parks the root of an event that ends the process, unless it was accepted meanwhile.
async fn park(ports: &RelayPorts, handler: &HandlerName, suspect: &Suspect) -> Result<(), StorageError> {
    let Suspect { root, sequence, attempts } = suspect;
    let loaded = ports.positions.load(handler, std::slice::from_ref(root)).await?;
    let standing = loaded.into_iter().next().unwrap_or_default();
    let accepted = standing.position.is_some_and(|position| position >= *sequence);
    let again = standing.mark.as_ref().is_some_and(|mark| mark.rewound && mark.sequence <= *sequence);
    if !accepted || again {
        let reason = "the process ended while the handler had this event";
        let mark = Mark::new(MarkState::Parked, *sequence, attempts + 1, reason, ports.clock.now());
        let mark = Mark { rewound: accepted, ..mark };
        if ports.marks.mark(handler, root, &standing, &mark).await? == Marking::Done {
            counter!(names::ROOTS_PARKED, "handler" => handler.as_str().to_owned()).increment(1);
            error!(%handler, %root, %sequence, attempts = mark.attempts, reason, "the root is parked for this handler: nothing is lost; mend the cause, then `angzarr-relay parked release`");
        }
    }
    Ok(())
}
