//! How often something may be called in a second, and how often each operation was. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::name::ShardName;

const SECOND: Duration = Duration::from_secs(1);

/// At most so many calls within any second. It keeps the moments of these.
#[derive(Debug)]
struct Rate {
    calls_max: usize,
    granted: VecDeque<Instant>,
}

impl Rate {
    fn new(calls_per_second: u32) -> Self {
        Self { calls_max: usize::try_from(calls_per_second).unwrap_or(usize::MAX), granted: VecDeque::new() }
    }

    /// Whether one more call is granted now. One that is not does not count.
    fn grant(&mut self, now: Instant) -> bool {
        while self.granted.front().is_some_and(|first| now.duration_since(*first) >= SECOND) {
            self.granted.pop_front();
        }
        let granted = self.granted.len() < self.calls_max;
        if granted {
            self.granted.push_back(now);
        }
        granted
    }
}

/// Calls of one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// All of them.
    pub made: u64,
    /// Those that were refused because there were too many.
    pub throttled: u64,
}

/// The rates of a server.
#[derive(Debug)]
pub(super) struct Rates {
    describing: Option<Rate>,
    reads_per_second: Option<u32>,
    /// Of shards read in the last second, and some others.
    reading: BTreeMap<ShardName, Rate>,
    calls: BTreeMap<&'static str, Calls>,
}

/// Rates of shards that nobody reads are forgotten at so many.
const READING_MAX: usize = 20_000;

impl Rates {
    pub(super) fn new(describes_per_second: Option<u32>, reads_per_second: Option<u32>) -> Self {
        let describing = describes_per_second.map(Rate::new);
        Self { describing, reads_per_second, reading: BTreeMap::new(), calls: BTreeMap::new() }
    }

    /// Counts a call.
    pub(super) fn count(&mut self, operation: &'static str) {
        self.calls.entry(operation).or_default().made += 1;
    }

    /// Whether DescribeStream may be called now.
    pub(super) fn describe(&mut self, operation: &'static str, now: Instant) -> bool {
        let granted = self.describing.as_mut().is_none_or(|rate| rate.grant(now));
        self.calls.entry(operation).or_default().throttled += u64::from(!granted);
        granted
    }

    /// Whether a shard may be read now.
    pub(super) fn read(&mut self, operation: &'static str, shard: ShardName, now: Instant) -> bool {
        let Some(reads_per_second) = self.reads_per_second else { return true };
        if self.reading.len() >= READING_MAX {
            self.reading.retain(|_, rate| rate.granted.back().is_some_and(|last| now.duration_since(*last) < SECOND));
        }
        let granted = self.reading.entry(shard).or_insert_with(|| Rate::new(reads_per_second)).grant(now);
        self.calls.entry(operation).or_default().throttled += u64::from(!granted);
        granted
    }

    /// The calls so far, by operation.
    pub(super) fn calls(&self) -> BTreeMap<&'static str, Calls> {
        self.calls.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_calls_than_allowed() {
        let (begin, millis) = (Instant::now(), Duration::from_millis);
        let mut rates = Rates::new(Some(3), Some(1));
        let granted: Vec<bool> = [0, 100, 200, 300, 999, 1000, 1050, 1100, 2500]
            .map(|at| rates.describe("DescribeStream", begin + millis(at)))
            .into();
        assert_eq!(granted, [true, true, true, false, false, true, false, true, true]);
        assert_eq!(rates.calls()["DescribeStream"], Calls { made: 0, throttled: 3 });
        let shards = [0, 1, 0].map(|index| rates.read("GetRecords", ShardName::new(1, index), begin));
        assert_eq!(shards, [true, true, false]);
    }

    #[test]
    fn without_limits_everything_is_granted() {
        let mut rates = Rates::new(None, None);
        let now = Instant::now();
        for _ in 0..100 {
            rates.count("GetRecords");
            assert!(rates.describe("DescribeStream", now) && rates.read("GetRecords", ShardName::new(1, 1), now));
        }
        assert_eq!(rates.calls()["GetRecords"], Calls { made: 100, throttled: 0 });
    }
}
