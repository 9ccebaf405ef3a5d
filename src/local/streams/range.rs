//! The part of the key space that belongs to a shard. Pure.
//!
//! Invariant: a range is never empty, and its parts make it up without overlap.

use super::key::Point;

/// From `lower`, which is in it, up to `upper`, which is not; without an upper end up to the end of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) lower: Point,
    pub(super) upper: Option<Point>,
}

impl Range {
    /// The whole space in so many ranges of the same width; at least one.
    pub(super) fn even(count: u32) -> impl Iterator<Item = Self> {
        let bound = move |index: u32| {
            let hash = (u128::from(index) << u64::BITS) / u128::from(count.max(1));
            // Only the end of all is no hash.
            u64::try_from(hash).ok().map(Point::at_hash)
        };
        (0..count.max(1)).filter_map(move |index| Some(Self { lower: bound(index)?, upper: bound(index + 1) }))
    }

    pub(super) fn contains(&self, point: &Point) -> bool {
        self.lower <= *point && self.upper.as_ref().is_none_or(|upper| point < upper)
    }

    /// The parts before a point and from it on; none when one of them would be empty.
    pub(super) fn parted_at(&self, point: Point) -> Option<[Self; 2]> {
        let inside = self.lower < point && self.contains(&point);
        inside.then(|| {
            let first = Self { lower: self.lower.clone(), upper: Some(point.clone()) };
            [first, Self { lower: point, upper: self.upper.clone() }]
        })
    }

    /// Its halves by hash; none when there is one hash in it.
    pub(super) fn halved(&self) -> Option<[Self; 2]> {
        let end = self.upper.as_ref().map_or(u64::MAX, |upper| upper.hash);
        let middle = self.lower.hash + (end - self.lower.hash) / 2;
        let next = middle.checked_add(1);
        self.parted_at(Point::at_hash(middle)).or_else(|| self.parted_at(Point::at_hash(next?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points() -> impl Strategy<Value = Point> {
        let hashes = prop_oneof![Just(0), Just(1), Just(u64::MAX - 1), Just(u64::MAX), any::<u64>()];
        let sorts = proptest::collection::vec(0_u8..4, 0..3);
        (hashes, sorts).prop_map(|(hash, sort)| Point { hash, sort: sort.into() })
    }

    fn ranges() -> impl Strategy<Value = Range> {
        (points(), proptest::option::of(points())).prop_filter_map("an empty range", |(lower, upper)| {
            upper.as_ref().is_none_or(|upper| lower < *upper).then_some(Range { lower, upper })
        })
    }

    proptest! {
        #[test]
        fn even_ranges_hold_every_point_once(count in 1_u32..200, point in points()) {
            prop_assert_eq!(Range::even(count).count(), count as usize);
            prop_assert_eq!(Range::even(count).filter(|range| range.contains(&point)).count(), 1);
        }

        #[test]
        fn parts_hold_what_the_whole_holds_once(range in ranges(), at in points(), point in points()) {
            let inside = usize::from(range.contains(&point));
            for parts in [range.parted_at(at), range.halved()].into_iter().flatten() {
                prop_assert_eq!(parts.iter().filter(|part| part.contains(&point)).count(), inside);
                prop_assert!(parts.iter().all(|part| part.contains(&part.lower)), "a part is empty");
            }
        }

        #[test]
        fn a_range_with_two_hashes_has_halves(range in ranges()) {
            let last = range.upper.as_ref().map_or(u64::MAX, |upper| upper.hash - u64::from(upper.sort.is_empty() && upper.hash > 0));
            prop_assert_eq!(range.halved().is_some(), last > range.lower.hash);
        }
    }
}
