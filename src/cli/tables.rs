//! `angzarr-relay tables`: the tables of the event store and the relay's own.

use clap::{Args, Subcommand};

use super::{CliError, Context};

/// What to do with the tables.
#[derive(Debug, Clone, Subcommand)]
pub enum TablesCommand {
    /// Create the tables that are missing, with the events table's stream
    ///
    /// Creates {prefix}-events (with a stream of new images), {prefix}-positions, {prefix}-snapshots and
    /// {prefix}-relay, billed per request, and waits until they are active. Tables that are there and right are left
    /// alone; a table of another shape is refused, saying what differs. The prefix is storage.dynamo.table_prefix.
    #[command(after_help = "Example:\n  DYNAMO_ENDPOINT=http://localhost:8000 angzarr-relay tables create")]
    Create,
    /// Show the tables, and how they differ from what they should be
    #[command(after_help = "Example:\n  angzarr-relay tables describe --json")]
    Describe(TablesDescribeArgs),
}

/// How to show the tables.
#[derive(Debug, Clone, Args)]
pub struct TablesDescribeArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn run(command: TablesCommand, context: Context) -> Result<(), CliError> {
    match command {
        TablesCommand::Create => create(context).await,
        TablesCommand::Describe(args) => describe(args, context).await,
    }
}

#[expect(clippy::unused_async, reason = "the body comes with the tables")]
async fn create(_context: Context) -> Result<(), CliError> {
    Err(CliError::NotBuilt { command: "tables create" })
}

#[expect(clippy::unused_async, reason = "the body comes with the tables")]
async fn describe(_args: TablesDescribeArgs, _context: Context) -> Result<(), CliError> {
    Err(CliError::NotBuilt { command: "tables describe" })
}
