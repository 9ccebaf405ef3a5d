//! `angzarr-relay read`: the events of a root.

use std::num::NonZeroUsize;

use clap::Args;

use super::{CliError, Context, RootArgs};

/// Show the events of a root
///
/// One event a line, in sequence order. With --json each line is the event as CloudEvents JSON, payload included.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  angzarr-relay read orders order-1
  angzarr-relay read orders order-1 --from 10 --limit 5 --json | jq -r .data_base64")]
pub struct ReadArgs {
    /// The root.
    #[command(flatten)]
    pub root: RootArgs,

    /// The first sequence to show
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub from: u64,

    /// How many events to show at most
    #[arg(long, value_name = "COUNT", default_value = "100")]
    pub limit: NonZeroUsize,

    /// Print JSON, one event a line
    #[arg(long)]
    pub json: bool,

    /// Read consistently: see every write that was answered before, at twice the price
    #[arg(long)]
    pub consistent: bool,
}

#[expect(clippy::unused_async, reason = "the body comes with the event store")]
pub(super) async fn run(args: ReadArgs, _context: Context) -> Result<(), CliError> {
    args.root.root()?;
    Err(CliError::NotBuilt { command: "read" })
}
