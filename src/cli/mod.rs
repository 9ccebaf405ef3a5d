//! The command line: one file a command, and the way from arguments to an exit code.
//!
//! `start` reads arguments and configuration, before any thread exists, then runs the command on tokio. A program with
//! Rust handlers of its own calls [`start`] with them and has the whole command line. Commands print to standard
//! output; progress, remarks and logs go to stderr.
//! - `connect`: the services, by the configuration; `trouble`: what to tell when they fail
//! - `output`: how answers are shown

mod arguments;
mod start;
mod error;
mod connect;
mod trouble;
mod output;
mod run;
mod signal;
#[cfg(feature = "local")]
mod local;
mod tables;
mod append;
mod read;
mod positions;
mod parked;
mod pause;
mod rewind;
mod versions;
mod status;
mod backfill;
mod audit;
mod doctor;

pub use append::AppendArgs;
pub use arguments::{Cli, Command, RootArgs};
pub use audit::AuditArgs;
pub use backfill::BackfillCommand;
pub use doctor::DoctorArgs;
pub use error::CliError;
#[cfg(feature = "local")]
pub use local::LocalArgs;
pub use parked::ParkedCommand;
pub use pause::PauseArgs;
pub use positions::PositionsArgs;
pub use read::ReadArgs;
pub use rewind::RewindArgs;
pub use run::RunArgs;
pub use start::{Context, InProcessHandlers, main, start};
pub use status::StatusArgs;
pub use tables::TablesCommand;
pub use trouble::ServiceTrouble;
pub use versions::VersionsCommand;
