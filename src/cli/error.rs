//! How a command fails, and with which exit code.

use std::io;

use super::ServiceTrouble;
use crate::config::ConfigError;
use crate::event::RootError;
use crate::telemetry::{LogError, TracesError};

/// Wrong usage or configuration (`EX_USAGE` of sysexits.h).
pub(super) const EXIT_USAGE: u8 = 64;
/// A failure at run time.
const EXIT_FAILED: u8 = 1;
/// Ended by a signal (128 + SIGINT).
const EXIT_INTERRUPTED: u8 = 130;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The arguments name no possible root.
    #[error("wrong arguments")]
    Root(#[from] RootError),
    /// `ANGZARR_RELAY_LOG` is no filter.
    #[error("cannot set up logs")]
    Log(#[from] LogError),
    /// `OTEL_*` asks for what is not there.
    #[error("cannot export traces")]
    Traces(#[from] TracesError),
    /// The runtime could not start.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// A service did not do what was asked.
    #[error(transparent)]
    Service(#[from] ServiceTrouble),
    /// The answer was found, and it is bad: what is wrong has been printed.
    #[error("{0}")]
    Unsound(String),
    /// What was asked does not fit what the tables say; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// Standard output could not be written.
    #[error("failed to write to standard output")]
    Output(#[source] io::Error),
    /// A second signal came before the stop was done.
    #[error("stopped at once by a second signal; events since the last position flush are repeated at the next start")]
    Interrupted,
    /// It failed while it ran.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl CliError {
    /// 64 for wrong usage or configuration, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Root(_) | Self::Log(_) | Self::Traces(_) => EXIT_USAGE,
            Self::Runtime(_)
            | Self::Service(_)
            | Self::Unsound(_)
            | Self::Refused(_)
            | Self::Output(_)
            | Self::Failed(_) => EXIT_FAILED,
            Self::Interrupted => EXIT_INTERRUPTED,
        }
    }

    /// Whether whoever read standard output had seen enough, which is no failure.
    #[must_use]
    pub fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The failure and its causes on one line (the problems of a configuration have one each).
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
