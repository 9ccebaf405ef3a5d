//! `angzarr-relay doctor`: what is wrong, and what mends it.

use clap::Args;

use super::{CliError, Context};

/// Check configuration, credentials, tables and streams, and say what mends them
///
/// Looks at the configuration, the AWS credentials, the tables and the stream of the events table, the rows in it, and
/// the Kinesis streams of the handlers. Prints the exact command that mends each fault. Changes nothing; the exit code
/// is 1 if anything is wrong.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  angzarr-relay doctor --config config/relay.toml")]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[expect(clippy::unused_async, reason = "the body comes with what it checks")]
pub(super) async fn run(_args: DoctorArgs, _context: Context) -> Result<(), CliError> {
    Err(CliError::NotBuilt { command: "doctor" })
}
