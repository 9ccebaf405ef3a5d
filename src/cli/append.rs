//! `angzarr-relay append`: one event, by hand.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;

use super::connect::Connection;
use super::output::{print, remark};
use super::{CliError, Context, RootArgs, ServiceTrouble};
use crate::event::{PAYLOAD_BYTES_MAX, Root, Sequence};
use crate::shell::{own_command, shown};
use crate::storage::{EventStore, NewEvent, StorageError};
use crate::time::Clock;

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

pub(super) async fn run(args: AppendArgs, context: Context) -> Result<(), CliError> {
    let root = args.root.root()?;
    let payload =
        read_payload(&args.file).with_context(|| format!("cannot read the payload from {}", args.file.display()))?;
    let connection = Connection::new(&context).await?;
    let event = NewEvent {
        event_type: args.event_type.as_str().into(),
        payload,
        correlation_id: args.correlation_id.as_deref().map(Into::into),
        created_at: Clock::system().now(),
    };
    match append(&connection.event_store(), &root, args.expected.map(Sequence), event).await {
        Ok(sequence) => print(format!("appended sequence {sequence} to {}", shown(root.key()))),
        Err(error) => {
            let from = first_in_doubt(&error, args.expected);
            Err(failure(connection.trouble(error), &args.root, from, &context))
        }
    }
}

/// Appends the event at `sequence`, or behind the root's last event.
async fn append(
    store: &EventStore,
    root: &Root,
    sequence: Option<Sequence>,
    event: NewEvent,
) -> Result<Sequence, StorageError> {
    let behind = match sequence {
        Some(sequence) => sequence.previous(),
        None => store.last(root).await?,
    };
    store.append(root, behind, &[event]).await
}

/// The sequence from which on the root's events say what has happened.
fn first_in_doubt(error: &StorageError, sequence: Option<u64>) -> u64 {
    match error {
        StorageError::LostRace { expected, .. } => expected.0,
        _ => sequence.unwrap_or(0),
    }
}

/// The failure, with the command that shows how things stand where a look at the root helps.
fn failure(trouble: ServiceTrouble, root: &RootArgs, from: u64, context: &Context) -> CliError {
    let look = || root_command(root, from, context);
    match trouble {
        ServiceTrouble::Storage(error @ (StorageError::LostRace { .. } | StorageError::NotContiguous { .. })) => {
            CliError::Unsound(format!("{error}; nothing was written; see `{}`", look()))
        }
        trouble if trouble.never_sent() => trouble.into(),
        trouble => {
            let error = CliError::from(trouble);
            CliError::Unsound(format!(
                "{}; it is not known whether the event was written: see `{}`",
                error.report(),
                look()
            ))
        }
    }
}

fn root_command(root: &RootArgs, from: u64, context: &Context) -> String {
    let from = from.to_string();
    let mut words = vec!["read", "--edition", &root.edition, "--from", &from, "--consistent", "--"];
    words.extend([root.domain.as_str(), root.root.as_str()]);
    own_command(&words, context.config_path.as_deref())
}

/// The payload as it stands; never more of it than just too much.
fn read_payload(path: &Path) -> io::Result<Bytes> {
    let mut payload = Vec::new();
    let most = PAYLOAD_BYTES_MAX as u64 + 1;
    if path == Path::new("-") {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            remark("reading the payload from the terminal; Ctrl-D ends it");
        }
        stdin.lock().take(most).read_to_end(&mut payload)?;
    } else {
        File::open(path)?.take(most).read_to_end(&mut payload)?;
    }
    Ok(payload.into())
}
