//! Keeps one stream: follows the upstream's, and lets others look at it and change it.
//!
//! A change is made at the upstream's head: what was written before it was asked for is in the shards as they were, and
//! what is written when it is done is in those that came of it. Invariant: records come in under the follower's lock,
//! so nothing comes between catching up and a change.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::fault::Fault;
use super::follower::{Follower, Round};
use super::stream::VirtualStream;
use super::upstream::UpstreamError;
use crate::time::{Backoff, BackoffPolicy, Clock, Random};

/// How long a request waits until the stream was read to its head for the first time.
const FIRST_READ_MAX: Duration = Duration::from_secs(5);

/// How often what is too old is trimmed.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// The waits after failed reads of the upstream.
const FAILURE_BACKOFF: BackoffPolicy =
    BackoffPolicy { initial: Duration::from_millis(50), max: Duration::from_secs(2) };

/// One stream with its follower.
#[derive(Debug)]
pub(super) struct Keeper {
    stream: Mutex<VirtualStream>,
    follower: tokio::sync::Mutex<Follower>,
    caught_up: watch::Sender<bool>,
    clock: Clock,
}

impl Keeper {
    pub(super) fn new(stream: VirtualStream, follower: Follower) -> Self {
        let (caught_up, _) = watch::channel(false);
        Self {
            stream: Mutex::new(stream),
            follower: tokio::sync::Mutex::new(follower),
            caught_up,
            clock: Clock::system(),
        }
    }

    /// The stream as it is now.
    pub(super) fn stream(&self) -> MutexGuard<'_, VirtualStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_unix_millis(&self) -> u64 {
        u64::try_from(self.clock.now().unix_millis()).unwrap_or(0)
    }

    /// Reads the upstream for ever, every `poll_interval`; trims what is older than `retention`.
    pub(super) async fn run(&self, poll_interval: Duration, retention: Duration) {
        let mut backoff = Backoff::new(FAILURE_BACKOFF, Random::from_entropy());
        let retention_millis = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let mut trim_at = Instant::now();
        loop {
            let wait = match self.at_head(|_| ()).await {
                Ok(()) => {
                    self.caught_up.send_replace(true);
                    backoff.reset();
                    poll_interval
                }
                Err(error) => {
                    debug!(%error, "the upstream's stream could not be read");
                    backoff.next_wait()
                }
            };
            if Instant::now() >= trim_at {
                trim_at = Instant::now() + TRIM_INTERVAL;
                self.stream().trim_old(self.now_unix_millis().saturating_sub(retention_millis));
            }
            sleep(wait).await;
        }
    }

    /// Waits until everything that stood in the upstream at the beginning has been read.
    pub(super) async fn ready(&self) -> Result<(), Fault> {
        let mut caught_up = self.caught_up.subscribe();
        let ready = timeout(FIRST_READ_MAX, caught_up.wait_for(|ready| *ready)).await;
        ready.map(drop).map_err(|_elapsed| Fault::Internal("the stream is still being read for the first time".into()))
    }

    /// Reads the upstream to its head, then acts on the stream before anything else comes in.
    pub(super) async fn at_head<T>(&self, act: impl FnOnce(&mut VirtualStream) -> T) -> Result<T, UpstreamError> {
        let mut follower = self.follower.lock().await;
        loop {
            match follower.read_round(&mut |record| self.take(record)).await? {
                Round::More => {}
                Round::AtHead => break,
                Round::Ended => {
                    let now = self.now_unix_millis();
                    self.stream().end(now);
                    break;
                }
            }
        }
        Ok(act(&mut self.stream()))
    }

    fn take(&self, record: &mut Value) {
        if let Err(missing) = self.stream().take(record) {
            warn!(missing, "a record of the upstream cannot be served");
        }
    }
}
