//! One replica: the real relay in a runtime of its own, whose clock goes at its own rate, stands still while the replica
//! does, and jumps when it goes on.
//!
//! Only `run` moves it, so all replicas of a run share one thread and their order is that of the calls. Dropping it is a
//! crash: every task ends where it waits.

use std::time::Duration;

use angzarr_relay::relay::{Relay, RelayError};
use metrics::with_local_recorder;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, advance, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::told::Told;

/// Rounds after which no task has anything to do before a timer fires.
const ROUNDS: u32 = 30;

/// A replica that runs, or stands still.
pub(crate) struct Replica {
    pub(crate) name: String,
    /// What it tells by its metrics.
    pub(crate) told: Told,
    runtime: Runtime,
    running: Option<JoinHandle<Result<(), RelayError>>>,
    cancel: CancellationToken,
    began: Instant,
    /// Its own time for each second of the world.
    rate: f64,
    /// The world's time since it began.
    lived: Duration,
    /// Since when it stands still, by `lived`.
    frozen: bool,
}

impl Replica {
    /// Starts what `relay` makes, within the replica's runtime.
    pub(crate) fn start(name: String, rate: f64, relay: impl FnOnce() -> Relay) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let cancel = CancellationToken::new();
        let told = Told::default();
        let beginning = async {
            let relay = relay();
            (tokio::spawn(relay.run(cancel.clone())), Instant::now())
        };
        let (running, began) = with_local_recorder(&told, || runtime.block_on(beginning));
        Self { name, told, runtime, running: Some(running), cancel, began, rate, lived: Duration::ZERO, frozen: false }
    }

    /// Lets so much of the world's time go by.
    pub(crate) fn run(&mut self, step: Duration) {
        self.lived += step;
        if !self.frozen {
            let until = self.began + self.lived.mul_f64(self.rate);
            with_local_recorder(&self.told, || self.runtime.block_on(async { sleep_until(until).await }));
        }
    }

    /// It stands still: nothing of it runs, while its clock goes on.
    pub(crate) fn freeze(&mut self) {
        // What was begun in this moment is begun: a process is not stopped between a look at the fence and the call.
        let moment = async {
            for _ in 0..ROUNDS {
                yield_now().await;
            }
        };
        with_local_recorder(&self.told, || self.runtime.block_on(moment));
        self.frozen = true;
    }

    /// It goes on: everything that was due meanwhile is due at once.
    pub(crate) fn thaw(&mut self) {
        self.frozen = false;
        let until = self.began + self.lived.mul_f64(self.rate);
        let catching_up = async {
            let behind = until.saturating_duration_since(Instant::now());
            advance(behind).await;
        };
        with_local_recorder(&self.told, || self.runtime.block_on(catching_up));
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Asks it to stop.
    pub(crate) fn stop(&self) {
        self.cancel.cancel();
    }

    /// What it ended with, once it has.
    pub(crate) fn ended(&mut self) -> Option<Result<(), String>> {
        let running = self.running.take_if(|running| running.is_finished())?;
        let ended = self.runtime.block_on(running);
        Some(match ended {
            Ok(ended) => ended.map_err(|error| format!("{error:?}")),
            Err(error) => Err(error.to_string()),
        })
    }
}
