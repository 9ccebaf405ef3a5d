//! A page of a shard as the lanes see it: its events grouped by root, each root's in sequence order.
//!
//! Grouping once in the reader spares every lane the work, and puts right what a transaction wrote in one page out of
//! order. Pure. Invariant: the runs of a page are of different roots, and a run's rows are strictly increasing in
//! sequence.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Change, Record, StreamPoint, StreamSequence};
use crate::event::{Event, InvalidRow, Root, Sequence, Timestamp};

/// An event of a run, or a row that cannot be read as one.
pub type RunRow = Result<Arc<Event>, InvalidRow>;

/// The rows of one root on a page.
#[derive(Debug, Clone)]
pub struct Run {
    /// The root.
    pub root: Root,
    /// Its rows, strictly increasing in sequence; gaps may stand between them.
    pub rows: Vec<RunRow>,
}

/// The number in a row's key.
#[must_use]
pub(crate) fn row_sequence(row: &RunRow) -> Sequence {
    match row {
        Ok(event) => event.sequence,
        Err(invalid) => invalid.sequence,
    }
}

impl Run {
    /// The highest sequence of the run.
    #[must_use]
    pub fn last(&self) -> Sequence {
        self.rows.last().map_or(Sequence::FIRST, row_sequence)
    }
}

/// What of a page's records was no event, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Changes of rows.
    pub modified: u64,
    /// Removals of rows.
    pub removed: u64,
    /// Rows whose key is no event key.
    pub foreign: u64,
    /// Parts of large payloads.
    pub chunks: u64,
    /// Events that stood on the page before.
    pub repeated: u64,
}

/// Records of a shard, read in one call.
#[derive(Debug)]
pub struct Page {
    /// The place it was read from.
    pub before: StreamPoint,
    /// Its last record; the place to read on from. The same as `before` when it holds none.
    pub through: StreamPoint,
    /// The runs, by the first appearance of their root.
    pub runs: Vec<Run>,
    /// The roots of rows that were removed, each once where they follow each other.
    pub removed: Vec<Root>,
    /// What was left out.
    pub ignored: Ignored,
    /// The number of records.
    pub records: usize,
    /// What it costs in memory, in bytes, about.
    pub memory_bytes: usize,
    /// The time of its oldest record.
    pub oldest_at: Option<Timestamp>,
    /// The time of its newest record.
    pub newest_at: Option<Timestamp>,
    /// When the shard was seen without any of its records; none when it never was.
    pub absent_at: Option<Instant>,
    /// Nothing follows: the shard is at its end.
    pub end: bool,
}

impl Page {
    /// Groups records read from `before` on.
    #[must_use]
    pub fn new(before: StreamPoint, records: Vec<Record>, end: bool) -> Self {
        let through =
            records.last().map_or_else(|| before.clone(), |record| StreamPoint::After(record.sequence.clone()));
        let mut page = Self {
            through: through.max(before.clone()),
            before,
            runs: Vec::new(),
            removed: Vec::new(),
            ignored: Ignored::default(),
            records: records.len(),
            memory_bytes: size_of::<Self>(),
            oldest_at: records.iter().map(|record| record.happened_at).min(),
            newest_at: records.iter().map(|record| record.happened_at).max(),
            absent_at: None,
            end,
        };
        let mut index = HashMap::with_capacity(records.len());
        for record in records {
            page.add(record.change, &mut index);
        }
        page.sort();
        page
    }

    /// The number of the last record, if the page has any.
    #[must_use]
    pub fn last(&self) -> Option<&StreamSequence> {
        match &self.through {
            StreamPoint::After(sequence) => Some(sequence),
            StreamPoint::Horizon => None,
        }
    }

    fn add(&mut self, change: Change, index: &mut HashMap<Root, usize>) {
        let mut row = match change {
            Change::Inserted(event) => Ok(event),
            Change::Invalid(invalid) => Err(invalid),
            Change::ForeignKey { .. } => return self.ignored.foreign += 1,
            Change::Chunk => return self.ignored.chunks += 1,
            Change::Modified => return self.ignored.modified += 1,
            Change::Removed(root) => {
                self.ignored.removed += 1;
                // The rows of a root are mostly removed together.
                self.removed.extend(root.filter(|root| self.removed.last() != Some(root)));
                return;
            }
        };
        self.memory_bytes += match &row {
            Ok(event) => event.memory_bytes(),
            Err(invalid) => size_of::<InvalidRow>() + invalid.reason.len(),
        };
        let root = match &mut row {
            Ok(event) => &mut event.root,
            Err(invalid) => &mut invalid.root,
        };
        let at = *index.entry(root.clone()).or_insert_with(|| {
            self.runs.push(Run { root: root.clone(), rows: Vec::with_capacity(1) });
            self.runs.len() - 1
        });
        // The rows of a run share one root, and its text is in memory once.
        *root = self.runs[at].root.clone();
        self.runs[at].rows.push(row.map(Arc::new));
    }

    fn sort(&mut self) {
        for run in &mut self.runs {
            if !run.rows.is_sorted_by(|one, two| row_sequence(one) < row_sequence(two)) {
                let before = run.rows.len();
                run.rows.sort_by_key(row_sequence);
                run.rows.dedup_by_key(|row| row_sequence(row));
                self.ignored.repeated += (before - run.rows.len()) as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Timestamp};

    fn record(number: u64, root: &str, sequence: u64) -> Record {
        let event = Event {
            root: Root::new("orders", "", root).unwrap(),
            sequence: Sequence(sequence),
            event_type: "T".into(),
            payload: vec![0; 10].into(),
            chunked: None,
            correlation_id: None,
            traceparent: None,
            created_at: Timestamp::from_unix_millis(0),
        };
        plain(number, Change::Inserted(event))
    }

    fn plain(number: u64, change: Change) -> Record {
        let digits = number.to_string();
        Record {
            sequence: StreamSequence::new(&digits),
            happened_at: Timestamp::from_unix_millis(i64::try_from(number).unwrap()),
            change,
        }
    }

    fn shape(page: &Page) -> Vec<(&str, Vec<u64>)> {
        page.runs.iter().map(|run| (run.root.id(), run.rows.iter().map(|row| row_sequence(row).0).collect())).collect()
    }

    #[test]
    fn groups_by_root_and_puts_a_transaction_in_order() {
        let records =
            vec![record(1, "a", 1), record(2, "b", 0), record(3, "a", 0), record(4, "a", 1), record(5, "a", 3)];
        let page = Page::new(StreamPoint::Horizon, records, false);
        assert_eq!(shape(&page), [("a", vec![0, 1, 3]), ("b", vec![0])]);
        assert_eq!(page.ignored.repeated, 1);
        assert_eq!(page.through, StreamPoint::After(StreamSequence::new("5")));
        assert_eq!(page.oldest_at, Some(Timestamp::from_unix_millis(1)));
    }

    #[test]
    fn counts_what_is_no_event() {
        let foreign = Change::ForeignKey { problem: "x".into() };
        let page = Page::new(
            StreamPoint::Horizon,
            vec![
                plain(1, Change::Modified),
                plain(2, Change::Removed(None)),
                plain(3, foreign),
                plain(4, Change::Chunk),
            ],
            true,
        );
        assert!(page.runs.is_empty() && page.end);
        assert_eq!(page.ignored, Ignored { modified: 1, removed: 1, foreign: 1, chunks: 1, repeated: 0 });
        assert_eq!(page.records, 4);
    }

    #[test]
    fn an_empty_page_stays_where_it_was() {
        let before = StreamPoint::After(StreamSequence::new("9"));
        let page = Page::new(before.clone(), vec![], false);
        assert_eq!((page.through, page.records), (before, 0));
    }
}
