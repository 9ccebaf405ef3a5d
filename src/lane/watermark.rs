//! How far one lane is covered: the pages it has taken and what of them is still open. Pure.
//!
//! A root *pins* a page until its rows there are covered. The watermark stands before the oldest page with a pin, so
//! it passes nothing uncovered (contract clause 5). Only open pages are remembered, so a root that is stuck for long
//! costs one entry and not one per page read since.

use std::collections::BTreeMap;

use crate::event::Timestamp;
use crate::stream::StreamPoint;

/// One lane's pages.
#[derive(Debug)]
pub struct Watermark {
    through: StreamPoint,
    next_page: u64,
    open: BTreeMap<u64, OpenPage>,
}

#[derive(Debug)]
struct OpenPage {
    before: StreamPoint,
    pins: u32,
    undelivered: u32,
    oldest_at: Option<Timestamp>,
}

impl Watermark {
    /// A lane that has everything up to `after`.
    #[must_use]
    pub fn new(after: StreamPoint) -> Self {
        Self { through: after, next_page: 0, open: BTreeMap::new() }
    }

    /// Takes a page that ends at `through`; answers its number. It is pinned once for the caller, who unpins it when
    /// all its roots have set theirs.
    pub fn begin(&mut self, through: &StreamPoint, oldest_at: Option<Timestamp>) -> u64 {
        let number = self.next_page;
        self.next_page += 1;
        let page = OpenPage { before: self.through.clone(), pins: 1, undelivered: 1, oldest_at };
        self.open.insert(number, page);
        // A lane that meets its window again may take a page it partly has: the watermark does not go back for it.
        if *through > self.through {
            self.through = through.clone();
        }
        number
    }

    /// A root has rows on the page that are not covered.
    pub fn pin(&mut self, page: u64) {
        if let Some(open) = self.open.get_mut(&page) {
            open.pins += 1;
            open.undelivered += 1;
        }
    }

    /// A pin's rows were delivered, though perhaps not durably.
    pub fn delivered(&mut self, page: u64) {
        if let Some(open) = self.open.get_mut(&page) {
            open.undelivered = open.undelivered.saturating_sub(1);
        }
    }

    /// A pin that was delivered stands for more rows, which are not.
    pub fn reopened(&mut self, page: u64) {
        if let Some(open) = self.open.get_mut(&page) {
            open.undelivered += 1;
        }
    }

    /// A pin's rows are covered; it must have been delivered before.
    pub fn unpin(&mut self, page: u64) {
        if let Some(open) = self.open.get_mut(&page) {
            open.pins = open.pins.saturating_sub(1);
            if open.pins == 0 {
                self.open.remove(&page);
            }
        }
    }

    /// Everything up to here is covered.
    #[must_use]
    pub fn settled(&self) -> &StreamPoint {
        self.open.first_key_value().map_or(&self.through, |(_, page)| &page.before)
    }

    /// Whether everything taken is covered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    /// The time of the oldest record taken and not delivered.
    #[must_use]
    pub fn undelivered_since(&self) -> Option<Timestamp> {
        self.open.values().find(|page| page.undelivered > 0).and_then(|page| page.oldest_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::StreamSequence;
    use proptest::prelude::*;

    fn point(number: u64) -> StreamPoint {
        StreamPoint::After(StreamSequence::new(&number.to_string()))
    }

    #[test]
    fn stands_before_the_oldest_open_page() {
        let mut watermark = Watermark::new(StreamPoint::Horizon);
        let pages: Vec<u64> = (1..=3)
            .map(|number| {
                let page = watermark.begin(&point(number * 10), None);
                watermark.pin(page);
                watermark.unpin(page);
                page
            })
            .collect();
        assert_eq!(*watermark.settled(), StreamPoint::Horizon);
        watermark.unpin(pages[1]);
        assert_eq!(*watermark.settled(), StreamPoint::Horizon);
        watermark.unpin(pages[0]);
        assert_eq!(*watermark.settled(), point(20));
        watermark.unpin(pages[2]);
        assert_eq!(*watermark.settled(), point(30));
        assert!(watermark.is_settled());
    }

    #[test]
    fn a_page_met_again_does_not_take_it_back() {
        let mut watermark = Watermark::new(point(50));
        let page = watermark.begin(&point(40), None);
        watermark.unpin(page);
        assert_eq!(*watermark.settled(), point(50));
    }

    #[test]
    fn the_oldest_undelivered_record_is_known() {
        let at = Timestamp::from_unix_millis;
        let mut watermark = Watermark::new(StreamPoint::Horizon);
        let first = watermark.begin(&point(1), Some(at(100)));
        let second = watermark.begin(&point(2), Some(at(200)));
        assert_eq!(watermark.undelivered_since(), Some(at(100)));
        watermark.delivered(first);
        assert_eq!(watermark.undelivered_since(), Some(at(200)), "the first is delivered, if not covered");
        watermark.delivered(second);
        assert_eq!(watermark.undelivered_since(), None);
        assert!(!watermark.is_settled());
    }

    proptest! {
        /// Against the plain model: a list of pages, each with a count.
        #[test]
        fn agrees_with_the_plain_model(
            pins in proptest::collection::vec(0u32..4, 1..20),
            order in proptest::collection::vec(0usize..100, 0..100),
        ) {
            let mut watermark = Watermark::new(StreamPoint::Horizon);
            let mut model: Vec<u32> = Vec::new();
            for (index, count) in pins.iter().enumerate() {
                let page = watermark.begin(&point(index as u64 + 1), None);
                for _ in 0..*count {
                    watermark.pin(page);
                }
                watermark.unpin(page);
                model.push(*count);
            }
            for pick in order {
                let open: Vec<usize> = (0..model.len()).filter(|page| model[*page] > 0).collect();
                if let Some(page) = open.get(pick % open.len().max(1)) {
                    watermark.unpin(*page as u64);
                    model[*page] -= 1;
                }
                let settled = model.iter().take_while(|count| **count == 0).count() as u64;
                let expected = if settled == 0 { StreamPoint::Horizon } else { point(settled) };
                prop_assert_eq!(watermark.settled(), &expected);
            }
        }
    }
}
