//! How soon a shard may be read again (design section 4, adaptive polling). Pure.
//!
//! A full page is followed by the next read at once: the service's own throttling is the limit. A page that is not
//! full is followed a quarter of a second later, as AWS's own readers do (4 reads a second and shard); empty pages
//! back off up to the longest interval.

use std::time::Duration;

/// The interval after a page that was not full: 4 reads a second and shard (`aws-facts` A).
pub(crate) const POLL_INTERVAL_MIN: Duration = Duration::from_millis(250);

/// GetRecords answers with at most this many records.
const FULL_RECORDS: usize = 1000;

/// A page of 1 MB at most may be cut short by the next record, which has up to 400 KB and its keys: from here on it
/// counts as full.
const FULL_BYTES: usize = 512 << 10;

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// As much as one read can bring: there is more.
    Full,
    /// Some records: the shard was read to its head, as far as can be told.
    Partial,
    /// None: the same.
    Empty,
}

impl Fill {
    /// Judges a page by its number of records and their size.
    #[must_use]
    pub(crate) fn of(records: usize, bytes: usize) -> Self {
        if records >= FULL_RECORDS || bytes >= FULL_BYTES {
            Self::Full
        } else if records == 0 {
            Self::Empty
        } else {
            Self::Partial
        }
    }
}

/// The pace of one place in a shard that is being read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    interval_max: Duration,
    interval: Duration,
}

impl Pace {
    /// A pace whose idle interval grows up to `interval_max`.
    #[must_use]
    pub(crate) fn new(interval_max: Duration) -> Self {
        Self { interval_max, interval: POLL_INTERVAL_MIN.min(interval_max) }
    }

    /// How long to wait after a read that brought this.
    pub(crate) fn wait_after(&mut self, fill: Fill) -> Duration {
        let shortest = POLL_INTERVAL_MIN.min(self.interval_max);
        match fill {
            Fill::Full => {
                self.interval = shortest;
                Duration::ZERO
            }
            Fill::Partial => {
                self.interval = shortest;
                shortest
            }
            Fill::Empty => {
                let wait = self.interval;
                self.interval = (self.interval * 2).min(self.interval_max);
                wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_pages_back_off_and_records_bring_the_pace_back() {
        let millis = Duration::from_millis;
        let mut pace = Pace::new(millis(1000));
        let fills =
            [Fill::Empty, Fill::Empty, Fill::Empty, Fill::Empty, Fill::Partial, Fill::Empty, Fill::Full, Fill::Empty];
        let waits: Vec<_> = fills.into_iter().map(|fill| pace.wait_after(fill)).collect();
        assert_eq!(waits, [250, 500, 1000, 1000, 250, 250, 0, 250].map(millis));
    }

    #[test]
    fn a_short_longest_interval_bounds_all() {
        let mut pace = Pace::new(Duration::from_millis(50));
        assert_eq!(pace.wait_after(Fill::Partial), Duration::from_millis(50));
        assert_eq!(pace.wait_after(Fill::Empty), Duration::from_millis(50));
    }
}
