//! One part of a parallel scan, named as a shard. Pure.
//!
//! The name holds all there is to know of it: whose it is, of which job, and which of how many. DynamoDB puts a
//! partition key into the same segment as long as the number of segments is the same, so a root lies in one.

use crate::event::{Timestamp, escape, unescape};
use crate::handler::HandlerName;
use crate::stream::ShardId;

use super::{Job, JobKind};

/// One part of a handler's scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Whose scan.
    pub handler: HandlerName,
    /// For what.
    pub kind: JobKind,
    /// When its job began.
    pub started_at: Timestamp,
    /// Which part, from 0 on.
    pub number: u32,
    /// Of so many.
    pub of: u32,
}

impl Segment {
    /// All segments of a handler's job.
    #[must_use]
    pub fn all(handler: &HandlerName, job: &Job) -> Vec<Self> {
        let segment = |number| Self {
            handler: handler.clone(),
            kind: job.kind,
            started_at: job.started_at,
            number,
            of: job.segments,
        };
        (0..job.segments).map(segment).collect()
    }

    /// Its name among the shards.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        let Self { handler, kind, started_at, number, of } = self;
        ShardId::new(&format!(
            "{}#{}#{}#{number}#{of}",
            kind.as_str(),
            escape(handler.as_str()),
            started_at.unix_millis()
        ))
    }

    /// The segment of this name; none for a shard of the stream.
    #[must_use]
    pub fn of_shard(shard: &ShardId) -> Option<Self> {
        let mut parts = shard.as_str().split('#');
        let kind = JobKind::parse(parts.next()?)?;
        let handler = HandlerName::new(&unescape(parts.next()?)?).ok()?;
        let started_at = Timestamp::from_unix_millis(parts.next()?.parse().ok()?);
        let (number, of) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        (parts.next().is_none() && number < of).then_some(Self { handler, kind, started_at, number, of })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_survives_its_name() {
        for name in ["orders", "a#b%c"] {
            let job =
                Job::new(JobKind::Reconcile, Timestamp::from_unix_millis(1_700_000_000_123), 3, "trimmed", "stream");
            let segments = Segment::all(&HandlerName::new(name).unwrap(), &job);
            assert_eq!(segments.len(), 3);
            for segment in segments {
                assert_eq!(Segment::of_shard(&segment.shard()), Some(segment));
            }
        }
        for other in ["shardId-00000001700000000000-0a1b2c3d", "backfill#h#1#3#3", "backfill#h#1#0#1#x", "backfill"] {
            assert_eq!(Segment::of_shard(&ShardId::new(other)), None, "{other}");
        }
    }
}
