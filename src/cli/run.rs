//! `angzarr-relay run`: the daemon.

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::signal::stop_signal;
use super::{CliError, Context};
use crate::relay::{Relay, RelayBuilder, RunError};

/// Relay events to the configured handlers until stopped
///
/// Reads the stream of the events table and delivers every event to the handlers of the configuration file, in order
/// per root. SIGTERM or Ctrl-C stops it cleanly, within relay.shutdown_grace; a second one at once. /metrics, /livez
/// and /readyz are at telemetry.listen, /status and /log-level at telemetry.admin_listen.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  angzarr-relay run --config config/relay.toml")]
pub struct RunArgs {}

pub(super) async fn run(_args: RunArgs, context: Context) -> Result<(), CliError> {
    let names = context.handlers.names();
    context.config.validate(&names)?;
    let mut builder = Relay::builder(context.config.clone()).config_path(context.config_path.as_deref());
    for name in names {
        if let Some(handler) = context.handlers.get(name) {
            builder = builder.shared_handler(name, handler);
        }
    }
    until_stopped(builder).await
}

/// Runs until a signal, then stops cleanly; a second signal ends it at once, as a crash would.
pub(super) async fn until_stopped(builder: RelayBuilder) -> Result<(), CliError> {
    let stop = CancellationToken::new();
    let signals = async {
        stop_signal().await?;
        stop.cancel();
        stop_signal().await
    };
    tokio::select! {
        biased;
        outcome = builder.run(stop.clone().cancelled_owned()) => Ok(outcome?),
        signalled = signals => {
            signalled.map_err(|error| CliError::Failed(error.into()))?;
            Err(CliError::Interrupted)
        }
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Config(error) => Self::Config(error),
            RunError::Receiver(_) | RunError::Endpoint(_) | RunError::Relay(_) => Self::Failed(error.into()),
        }
    }
}
