//! `angzarr-relay run`: the daemon.

use clap::Args;

use super::{CliError, Context};

/// Relay events to the configured handlers until stopped
///
/// Reads the stream of the events table and delivers every event to the handlers of the configuration file, in order
/// per root. SIGTERM or Ctrl-C stops it cleanly, within relay.shutdown_grace. /metrics, /livez and /readyz are at
/// telemetry.listen.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  angzarr-relay run --config config/relay.toml")]
pub struct RunArgs {}

#[expect(clippy::unused_async, reason = "the body comes with the relay")]
pub(super) async fn run(_args: RunArgs, context: Context) -> Result<(), CliError> {
    context.config.validate(&context.handlers.names())?;
    Err(CliError::NotBuilt { command: "run" })
}
