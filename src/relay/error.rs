//! Why a relay stopped unasked.

use tokio::task::JoinError as TaskError;

use crate::fleet::JoinError;
use crate::handler::HandlerName;

/// Why a relay stopped unasked.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Two handlers have the same name.
    #[error("two handlers are named `{0}`")]
    SameName(HandlerName),
    /// The stream has lost records that a handler needs, and `relay.on_trim` is `fail`.
    #[error(
        "handler `{handler}`: {reason}; what is missing is in the table: with relay.on_trim = \"reconcile\" the relay finds it and goes on"
    )]
    Trimmed {
        /// The handler.
        handler: HandlerName,
        /// What was lost.
        reason: String,
    },
    /// The relay's table is not this version's.
    #[error(transparent)]
    Refused(JoinError),
    /// There is nothing to do.
    #[error("no handler is configured; name at least one under [[handlers]]")]
    NoHandlers,
    /// A task of the relay ended by itself, by a panic: a fault of the relay.
    #[error("a task of the relay ended unexpectedly")]
    Stopped(#[source] TaskError),
    /// A task of the relay ended by itself.
    #[error("{0} ended though nobody stopped it")]
    Ended(&'static str),
}
