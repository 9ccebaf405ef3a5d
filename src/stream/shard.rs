//! A shard of the stream, its name, and the branch it belongs to.

use std::fmt;
use std::sync::Arc;

/// A shard's id, such as `shardId-00000001700000000000-0a1b2c3d`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Arc<str>);

/// DynamoDB Streams are not older than 2014.
const EARLIEST_UNIX_MILLIS: i64 = 1_388_534_400_000;

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
    /// id has it). Emulators count from 0 in its place: that is no time.
    #[must_use]
    pub fn created_unix_millis(&self) -> Option<i64> {
        let millis: i64 = self.0.strip_prefix("shardId-")?.split('-').next()?.parse().ok()?;
        (millis >= EARLIEST_UNIX_MILLIS).then_some(millis)
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

/// A shard and the children that took its place one by one, named by the shard it began with: a roll continues the
/// branch, a split's second child begins a new one. Roots mostly stay on one branch for good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Branch(pub ShardId);

impl Branch {
    /// The branch that begins with this shard.
    #[must_use]
    pub fn of(shard: &ShardId) -> Self {
        Self(shard.clone())
    }

    /// Its name: the id of its first shard.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_an_id_is_taken_where_it_is_one() {
        let created = |id| ShardId::new(id).created_unix_millis();
        assert_eq!(created("shardId-00000001700000000000-0a1b2c3d"), Some(1_700_000_000_000));
        for none in ["shardId-00000000000000000000", "shardId-00000000000000000001-x", "backfill#h#1#0#1"] {
            assert_eq!(created(none), None, "{none}");
        }
    }
}
