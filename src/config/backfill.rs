//! `[backfill]`: how fast the table is scanned.

use std::ops::RangeInclusive;

use super::reader::Section;

const MAX_RCU: RangeInclusive<usize> = 1..=1_000_000;
const SEGMENTS: RangeInclusive<usize> = 1..=256;

/// How fast the table is scanned for new handlers, and for what the stream lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillConfig {
    /// Read capacity units a second that all scans of this process consume at most; default 1,000 (some 8 MB/s).
    pub max_rcu: u32,
    /// The parallel parts of a new scan; default 4.
    pub segments: u32,
}

impl Default for BackfillConfig {
    fn default() -> Self {
        Self { max_rcu: 1000, segments: 4 }
    }
}

impl BackfillConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let mut count = |key, default: u32, range| {
            let found = section.count(key, usize::try_from(default).unwrap_or(usize::MAX), range);
            u32::try_from(found).unwrap_or(default)
        };
        let config = Self {
            max_rcu: count("max_rcu", defaults.max_rcu, &MAX_RCU),
            segments: count("segments", defaults.segments, &SEGMENTS),
        };
        section.finish();
        config
    }
}
