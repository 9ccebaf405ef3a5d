//! How much of a scan is done, counted by its readers and shown to operators.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::stream::ShardId;

/// What one segment has scanned.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scanned {
    /// Rows.
    pub rows: u64,
    /// Roots.
    pub roots: u64,
    /// Read capacity units consumed.
    pub units: f64,
}

impl Scanned {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, roots: self.roots + other.roots, units: self.units + other.units }
    }
}

impl Scanned {
    /// The same, when a life that was killed had covered so many rows: more or less than it had noted. The roots are
    /// estimated in proportion, and what more rows have consumed; what was noted as consumed was.
    #[must_use]
    pub fn at(self, rows: u64) -> Self {
        let roots = (self.roots * rows).checked_div(self.rows).unwrap_or(0);
        let units =
            if rows > self.rows && self.rows > 0 { self.units * f64_of(rows) / f64_of(self.rows) } else { self.units };
        Self { rows, roots, units }
    }
}

/// Rows as a factor.
fn f64_of(rows: u64) -> f64 {
    f64::from(u32::try_from(rows).unwrap_or(u32::MAX))
}

/// What the segments read by this process have scanned. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ScanProgress(Arc<Mutex<HashMap<ShardId, Scanned>>>);

impl ScanProgress {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<ShardId, Scanned>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins where an earlier life of the segment's reader stopped.
    pub fn resume(&self, segment: &ShardId, scanned: Scanned) {
        self.with(|all| all.insert(segment.clone(), scanned));
    }

    /// Counts a page.
    pub fn add(&self, segment: &ShardId, page: Scanned) {
        self.with(|all| {
            let scanned = all.entry(segment.clone()).or_default();
            *scanned = scanned.and(page);
        });
    }

    /// What a segment has scanned.
    #[must_use]
    pub fn of(&self, segment: &ShardId) -> Scanned {
        self.with(|all| all.get(segment).copied().unwrap_or_default())
    }

    /// Forgets a segment that is done.
    pub fn forget(&self, segment: &ShardId) {
        self.with(|all| all.remove(segment));
    }
}

/// Marks of a whole bar.
const BAR_MARKS: u64 = 20;

/// A bar of so many rows done of so many, with its share in percent: `[########------------]  40 %`. The number of all
/// rows is an estimate: a bar is full only when the scan is `done`.
#[must_use]
pub fn bar(rows: u64, of: u64, done: bool) -> String {
    let share = if done { 100 } else { (rows * 100).checked_div(of).unwrap_or(0).min(99) };
    let marks = share * BAR_MARKS / 100;
    let text: String = (0..BAR_MARKS).map(|at| if at < marks { '#' } else { '-' }).collect();
    format!("[{text}] {share:>3} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_when_done() {
        assert_eq!(bar(0, 0, false), "[--------------------]   0 %");
        assert_eq!(bar(40, 100, false), "[########------------]  40 %");
        assert_eq!(bar(200, 100, false), "[###################-]  99 %");
        assert_eq!(bar(7, 100, true), "[####################] 100 %");
    }

    #[test]
    fn counts_go_on_where_they_stopped() {
        let (progress, segment) = (ScanProgress::default(), ShardId::new("backfill#h#1#0#1"));
        let page = Scanned { rows: 10, roots: 2, units: 0.5 };
        progress.resume(&segment, page);
        progress.add(&segment, page);
        assert_eq!(progress.of(&segment), Scanned { rows: 20, roots: 4, units: 1.0 });
        assert_eq!(progress.of(&segment).at(5), Scanned { rows: 5, roots: 1, units: 1.0 });
        assert_eq!(page.at(50), Scanned { rows: 50, roots: 10, units: 2.5 });
        assert_eq!(Scanned::default().at(50), Scanned { rows: 50, ..Scanned::default() });
        progress.forget(&segment);
        assert_eq!(progress.of(&segment), Scanned::default());
    }
}
