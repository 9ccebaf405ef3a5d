//! The four operations of the service. Pure.

use std::fmt;

/// An operation of DynamoDB Streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// The streams of a table.
    ListStreams,
    /// A stream, and its shards page by page.
    DescribeStream,
    /// An iterator at a place in a shard.
    GetShardIterator,
    /// The records at an iterator.
    GetRecords,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ListStreams, Self::DescribeStream, Self::GetShardIterator, Self::GetRecords];

    /// Its name in a request.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ListStreams => "ListStreams",
            Self::DescribeStream => "DescribeStream",
            Self::GetShardIterator => "GetShardIterator",
            Self::GetRecords => "GetRecords",
        }
    }

    /// The operation of this name, if there is one.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
