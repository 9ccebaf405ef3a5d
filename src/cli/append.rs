//! `angzarr-relay append`: one event, by hand.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, Context, RootArgs};

/// Append one event to a root
///
/// The payload is read from a file or standard input, as it stands. The event is written only if its sequence is free:
/// say which it must be (--expected), or take the one after the root's last (--next).
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  echo '{\"total\": 12}' | angzarr-relay append orders order-1 --type OrderPlaced --expected 0
  angzarr-relay append orders order-1 --type OrderShipped --next --file shipped.json")]
pub struct AppendArgs {
    /// The root.
    #[command(flatten)]
    pub root: RootArgs,

    /// The event's type, such as OrderPlaced
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: String,

    /// The sequence the event is to have; it fails if the root has one of that number, or lacks the one before
    #[arg(long, value_name = "N", required_unless_present = "next", conflicts_with = "next")]
    pub expected: Option<u64>,

    /// Take the sequence after the root's last event
    #[arg(long)]
    pub next: bool,

    /// What joins this event with others of the same cause
    #[arg(long, value_name = "ID")]
    pub correlation_id: Option<String>,

    /// The file with the payload; - is standard input
    #[arg(long, value_name = "PATH", default_value = "-")]
    pub file: PathBuf,
}

#[expect(clippy::unused_async, reason = "the body comes with the event store")]
pub(super) async fn run(args: AppendArgs, _context: Context) -> Result<(), CliError> {
    args.root.root()?;
    Err(CliError::NotBuilt { command: "append" })
}
