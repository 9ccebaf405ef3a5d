//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[cfg(feature = "local")]
use super::LocalArgs;
use super::{
    AppendArgs, AuditArgs, BackfillCommand, DoctorArgs, ParkedCommand, PauseArgs, PositionsArgs, ReadArgs, RewindArgs,
    RunArgs, StatusArgs, TablesCommand, VersionsCommand,
};
use crate::event::{Root, RootError};
use crate::handler::{HandlerName, HandlerNameError};

/// The edition a root is taken to be in when none is said: the main timeline.
pub(super) const MAIN_EDITION: &str = "angzarr";

const AFTER_HELP: &str = "\
Try it without an account: angzarr-relay local

The environment goes before the configuration file: STORAGE_BACKEND, AWS_REGION,
DYNAMO_TABLE_PREFIX, DYNAMO_ENDPOINT, KINESIS_ENDPOINT, and ANGZARR_RELAY__SECTION__KEY for every
other key. ANGZARR_RELAY_LOG filters log lines.

Exit codes: 0 done, 1 failed, 64 wrong usage or configuration.";

/// Turns a DynamoDB event store into dependable projections, sagas and Kinesis streams.
#[derive(Debug, Parser)]
#[command(name = "angzarr-relay", version, after_help = AFTER_HELP, propagate_version = true)]
pub struct Cli {
    /// The configuration file; without one, defaults and the environment
    #[arg(long, short, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Relay events to the configured handlers until stopped
    Run(RunArgs),
    /// Try everything on this machine: an embedded DynamoDB and Kinesis, sample events, and a relay between them
    #[cfg(feature = "local")]
    Local(LocalArgs),
    /// Create or describe the tables
    #[command(subcommand)]
    Tables(TablesCommand),
    /// Append one event to a root
    Append(AppendArgs),
    /// Show the events of a root
    Read(ReadArgs),
    /// Show how far handlers have come
    Positions(PositionsArgs),
    /// List, release or pass roots that were parked after an event failed for good
    #[command(subcommand)]
    Parked(ParkedCommand),
    /// Hand nothing to a handler until it is resumed; it holds no other back
    #[command(after_help = "Example:\n  angzarr-relay pause orders-view --config config/relay.toml")]
    Pause(PauseArgs),
    /// Let a paused handler go on where it stopped
    #[command(after_help = "Example:\n  angzarr-relay resume orders-view --config config/relay.toml")]
    Resume(PauseArgs),
    /// Give a handler events again that it has had
    Rewind(RewindArgs),
    /// List the versions of handlers and how far each is, or drop one
    ///
    /// To build a view anew, add a second handler to the configuration with the next version in its name: `orders@2` beside
    /// `orders`, which is `orders@1`. It is built from the table while the old one serves. When it is complete, switch your
    /// readers over, take the old one out of the configuration, and drop it.
    #[command(subcommand)]
    Versions(VersionsCommand),
    /// Show how far the scans of the table are, or what one would cost
    #[command(subcommand)]
    Backfill(BackfillCommand),
    /// Show replicas, handlers and leases, and what to do about what is wrong
    Status(StatusArgs),
    /// Compare every root's newest event with what handlers have durably done
    Audit(AuditArgs),
    /// Check configuration, credentials, tables and streams, and say what mends them
    Doctor(DoctorArgs),
}

/// Reads a handler's name.
pub(super) fn handler_name(text: &str) -> Result<HandlerName, HandlerNameError> {
    HandlerName::new(text)
}

/// Which root a command is about.
#[derive(Debug, Clone, Args)]
pub struct RootArgs {
    /// The root's domain, such as orders
    #[arg(value_name = "DOMAIN")]
    pub domain: String,

    /// The root's id, any characters
    #[arg(value_name = "ROOT")]
    pub root: String,

    /// The root's edition; "" is the unnamed one
    #[arg(long, default_value = MAIN_EDITION, value_name = "EDITION")]
    pub edition: String,
}

impl RootArgs {
    /// The root meant.
    ///
    /// # Errors
    /// When domain or root id is empty, or the key would be too long.
    pub fn root(&self) -> Result<Root, RootError> {
        Root::new(&self.domain, &self.edition, &self.root)
    }
}
