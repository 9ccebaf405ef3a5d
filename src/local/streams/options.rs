//! How a stream server behaves.

use std::path::PathBuf;
use std::time::Duration;

/// As AWS has it, where AWS says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsOptions {
    /// Open shards of a stream at its beginning; at least one.
    pub shards: u32,
    /// How long an iterator holds.
    pub iterator_lifetime: Duration,
    /// How long a record is kept, and a shard after it was closed.
    pub retention: Duration,
    /// What a stream's records may take in memory; above it the oldest are trimmed.
    pub log_bytes_max: usize,
    /// How often DescribeStream may be called in a second; AWS allows 10. None: as often as one likes.
    pub describes_per_second: Option<u32>,
    /// How often a shard may be read in a second. None: as often as one likes.
    pub reads_per_second: Option<u32>,
    /// How often the upstream is asked for records.
    pub poll_interval: Duration,
    /// By how much [`Mischief::Late`](super::Mischief::Late) is late.
    pub lateness: Duration,
    /// The folder to keep the shards in (not the records, which the upstream has); none: new shards at every start.
    pub data: Option<PathBuf>,
}

impl Default for StreamsOptions {
    fn default() -> Self {
        Self {
            shards: 1,
            iterator_lifetime: Duration::from_mins(15),
            retention: Duration::from_hours(24),
            log_bytes_max: 256 << 20,
            describes_per_second: None,
            reads_per_second: None,
            poll_interval: Duration::from_millis(20),
            lateness: Duration::from_millis(300),
            data: None,
        }
    }
}
