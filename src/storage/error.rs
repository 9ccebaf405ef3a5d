//! What can go wrong with a table, as its callers must tell it apart.

use std::sync::Arc;

use crate::event::Sequence;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another writer appended first. Nothing was written.
    #[error(
        "another writer was first: the append would begin at sequence {expected}, but the root {}",
        actual.map_or_else(|| "changed meanwhile".to_owned(), |last| format!("ends at {last} already"))
    )]
    LostRace {
        /// The sequence the first event would have had.
        expected: Sequence,
        /// The root's last sequence now; none when it could not be read again.
        actual: Option<Sequence>,
    },
    /// The append would leave a gap: events of a root are numbered without one. Nothing was written.
    #[error("the append would begin at sequence {first}, but the root has no event {}", first.0.saturating_sub(1))]
    NotContiguous {
        /// The sequence the first event would have had.
        first: Sequence,
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
    /// Another transaction on the same rows was under way. Nothing was written; trying again is right.
    #[error("{operation} on `{table}` met another transaction on the same rows")]
    Conflict {
        /// The API operation.
        operation: &'static str,
        /// The table.
        table: String,
    },
    /// A row that the relay itself must have written cannot be read.
    #[error("the row `{key}` of `{table}` cannot be read: {reason}")]
    Unreadable {
        /// The table.
        table: String,
        /// The row's key.
        key: String,
        /// The attribute and what is expected of it.
        reason: &'static str,
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

/// One cause of many errors.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
struct Shared(Arc<dyn std::error::Error + Send + Sync>);

impl StorageError {
    /// The same error for each of the `count` writes that one failed call carried.
    pub(super) fn for_each(self, count: usize) -> Vec<Self> {
        let (denied, operation, table, cause) = match self {
            Self::Denied { action, resource, source } => (true, action, resource, source),
            Self::Unavailable { operation, table, source } => (false, operation, table, source),
            Self::Throttled { operation, table } => {
                return (0..count).map(|_| Self::Throttled { operation, table: table.clone() }).collect();
            }
            Self::NoTable { table } => return (0..count).map(|_| Self::NoTable { table: table.clone() }).collect(),
            Self::Conflict { operation, table } => {
                return (0..count).map(|_| Self::Conflict { operation, table: table.clone() }).collect();
            }
            // What only a single write can meet: its text stands for all.
            other @ (Self::Invalid { .. }
            | Self::LostRace { .. }
            | Self::NotContiguous { .. }
            | Self::Unreadable { .. }) => {
                return (0..count).map(|_| Self::Invalid { reason: other.to_string() }).collect();
            }
        };
        let cause = Shared(cause.into());
        let repeated = |source: Source| {
            let table = table.clone();
            if denied {
                Self::Denied { action: operation, resource: table, source }
            } else {
                Self::Unavailable { operation, table, source }
            }
        };
        (0..count).map(|_| repeated(Box::new(cause.clone()))).collect()
    }
}
