//! What can go wrong with a table, as its callers must tell it apart.

use crate::event::Sequence;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another writer appended first. Nothing was written.
    #[error(
        "the root is at sequence {actual:?}, not where the append expected it: its events would begin at {expected}"
    )]
    LostRace {
        /// The sequence the first event would have had.
        expected: Sequence,
        /// The root's last sequence now; none when it has no event.
        actual: Option<Sequence>,
    },
    /// What was asked cannot be written by DynamoDB's or the store's rules. Nothing was written.
    #[error("{reason}")]
    Invalid {
        /// Which rule, with the numbers.
        reason: String,
    },
    /// The credentials do not allow the action.
    #[error("access denied: {action} on {resource} is not allowed; allow it in the IAM policy of this role")]
    Denied {
        /// The IAM action, such as `dynamodb:Query`.
        action: &'static str,
        /// The table or stream.
        resource: String,
        /// What AWS said.
        #[source]
        source: Source,
    },
    /// The table does not exist.
    #[error("the table `{table}` does not exist; create it with `angzarr-relay tables create`")]
    NoTable {
        /// Its name.
        table: String,
    },
    /// The service asks for fewer calls.
    #[error("{operation} on `{table}` was throttled")]
    Throttled {
        /// The API operation.
        operation: &'static str,
        /// The table.
        table: String,
    },
    /// Anything else: connection, time-out, a fault of the service. Whether a write happened is unknown.
    #[error("{operation} on `{table}` failed")]
    Unavailable {
        /// The API operation.
        operation: &'static str,
        /// The table.
        table: String,
        /// What the SDK said.
        #[source]
        source: Source,
    },
}
