//! A shard of the stream and its name.

use std::fmt;
use std::sync::Arc;

/// A shard's id, such as `shardId-00000001700000000000-0a1b2c3d`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Arc<str>);

impl ShardId {
    /// Takes an id.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When the shard was made, in milliseconds since 1970, where the id says it (AWS does not document it, but every
    /// id has it).
    #[must_use]
    pub fn created_unix_millis(&self) -> Option<i64> {
        self.0.strip_prefix("shardId-")?.split('-').next()?.parse().ok()
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A shard as DescribeStream lists it. Whether it is closed is not taken from there: only an absent next iterator ends
/// a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// The shard it came from, if any; that one may be gone already.
    pub parent: Option<ShardId>,
}
