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

    /// The plain model: every page ever taken, in a list; what is asked is worked out anew each time.
    #[derive(Debug)]
    struct Plain {
        start: StreamPoint,
        pages: Vec<PlainPage>,
    }

    #[derive(Debug)]
    struct PlainPage {
        through: StreamPoint,
        oldest_at: Option<Timestamp>,
        pins: u32,
        undelivered: u32,
    }

    impl Plain {
        /// The farthest point of the first so many pages.
        fn through(&self, pages: usize) -> StreamPoint {
            let taken = self.pages[..pages].iter().map(|page| page.through.clone());
            taken.chain([self.start.clone()]).max().unwrap()
        }

        fn settled(&self) -> StreamPoint {
            let open = self.pages.iter().position(|page| page.pins > 0);
            self.through(open.unwrap_or(self.pages.len()))
        }

        fn undelivered_since(&self) -> Option<Timestamp> {
            let undelivered = |page: &&PlainPage| page.pins > 0 && page.undelivered > 0;
            self.pages.iter().find(undelivered).and_then(|page| page.oldest_at)
        }

        /// A page that is still open: nothing happens to any other.
        fn open(&mut self, page: u64) -> Option<&mut PlainPage> {
            self.pages.get_mut(usize::try_from(page).unwrap()).filter(|page| page.pins > 0)
        }
    }

    /// What may happen to a lane's pages, by their numbers: also to one that is closed, or was never taken.
    #[derive(Debug, Clone)]
    enum Step {
        Begin(u64, Option<i64>),
        Pin(u64),
        Delivered(u64),
        Reopened(u64),
        Unpin(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => (0_u64..30, proptest::option::of(0_i64..100)).prop_map(|(through, at)| Step::Begin(through, at)),
            2 => (0_u64..9).prop_map(Step::Pin),
            2 => (0_u64..9).prop_map(Step::Delivered),
            1 => (0_u64..9).prop_map(Step::Reopened),
            4 => (0_u64..9).prop_map(Step::Unpin),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        /// Against the plain model, whatever happens in whatever order, pages that are met again included.
        #[test]
        fn agrees_with_a_list_of_all_pages(start in proptest::option::of(0_u64..20), steps in steps()) {
            let start = start.map_or(StreamPoint::Horizon, point);
            let mut watermark = Watermark::new(start.clone());
            let mut plain = Plain { start, pages: Vec::new() };
            for step in steps {
                match step {
                    Step::Begin(through, at) => {
                        let oldest_at = at.map(Timestamp::from_unix_millis);
                        prop_assert_eq!(watermark.begin(&point(through), oldest_at), plain.pages.len() as u64);
                        plain.pages.push(PlainPage { through: point(through), oldest_at, pins: 1, undelivered: 1 });
                    }
                    Step::Pin(page) => {
                        watermark.pin(page);
                        if let Some(page) = plain.open(page) {
                            page.pins += 1;
                            page.undelivered += 1;
                        }
                    }
                    Step::Delivered(page) => {
                        watermark.delivered(page);
                        if let Some(page) = plain.open(page).filter(|page| page.undelivered > 0) {
                            page.undelivered -= 1;
                        }
                    }
                    Step::Reopened(page) => {
                        watermark.reopened(page);
                        if let Some(page) = plain.open(page) {
                            page.undelivered += 1;
                        }
                    }
                    Step::Unpin(page) => {
                        watermark.unpin(page);
                        if let Some(page) = plain.open(page) {
                            page.pins -= 1;
                        }
                    }
                }
                prop_assert_eq!(watermark.settled(), &plain.settled());
                prop_assert_eq!(watermark.is_settled(), plain.pages.iter().all(|page| page.pins == 0));
                prop_assert_eq!(watermark.undelivered_since(), plain.undelivered_since());
            }
        }
    }
}
