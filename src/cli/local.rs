//! `angzarr-relay local`: everything on one machine, for a first look and for development.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, Context};

/// The configuration of `local`, unless a file is named; built in, so that it works from any folder.
pub(super) const CONFIG: &str = include_str!("../../config/local.toml");
/// What errors call it.
pub(super) const CONFIG_NAME: &str = "config/local.toml (built in)";

/// Try everything on this machine: an embedded DynamoDB and Kinesis, sample events, and a relay between them
///
/// Starts both services on free ports of the loopback address, creates the tables and a Kinesis stream, relays by
/// config/local.toml (or --config) and shows what goes on. Whatever speaks DynamoDB can write to the endpoint shown.
/// Ctrl-C stops it with a summary.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  angzarr-relay local\n  angzarr-relay local --data ./data --no-sample")]
pub struct LocalArgs {
    /// Keep the tables in this folder, so that the next start goes on where this one stops
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Write no sample events
    #[arg(long)]
    pub no_sample: bool,
}

#[expect(clippy::unused_async, reason = "the body comes with the embedded services")]
pub(super) async fn run(_args: LocalArgs, _context: Context) -> Result<(), CliError> {
    Err(CliError::NotBuilt { command: "local" })
}
