//! Why shards were not changed as they were told to be.

use crate::stream::ShardId;

use super::mischief::Mischief;
use super::operation::Operation;
use super::upstream::UpstreamError;

/// Why an order to the shards was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ShardsError {
    /// There is no such shard, or not any more.
    #[error("there is no shard {0}")]
    Unknown(ShardId),
    /// Only an open shard rolls or splits.
    #[error("the shard {0} is closed")]
    Closed(ShardId),
    /// Only a closed shard goes.
    #[error("the shard {0} is open")]
    Open(ShardId),
    /// A shard of one hash has no halves, and no shard is divided where it begins.
    #[error("the shard {0} cannot be divided there")]
    Indivisible(ShardId),
    /// There would be more shards than a stream has at most, or more changes between two records.
    #[error("there are too many shards, or too many changes since the last record")]
    TooMany,
    /// The stream was disabled, or its table deleted.
    #[error("the stream has ended")]
    Ended,
    /// The text is no sequence number.
    #[error("`{0}` is no sequence number")]
    NoNumber(String),
    /// The table has no stream, or it could not be read.
    #[error("failed to read the stream of the table")]
    Upstream(#[source] UpstreamError),
    /// The stream could not be found or begun.
    #[error("the stream cannot be served: {0}")]
    Refused(String),
    /// The layout could not be kept.
    #[error("failed to write the shards to `{path}`")]
    Save {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("failed to read the shards from `{path}`: {reason}")]
    Load {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Calls of this operation do not go wrong so.
    #[error("no call of {operation} goes wrong as {mischief:?} does")]
    Unfit {
        /// The operation.
        operation: Operation,
        /// What cannot happen to it.
        mischief: Mischief,
    },
    /// A script is bounded.
    #[error("the script for the next calls is too long")]
    TooMuchMischief,
    /// The server has stopped.
    #[error("the server has stopped")]
    Stopped,
}
