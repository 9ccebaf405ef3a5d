//! The shards of one stream: which there are, which came from which, which of them a key falls into. Pure.
//!
//! A change ends a shard at a *cut*, a number between two records, and begins its children behind it. So where a record
//! belongs follows from its key and its number alone, and it is found again after a restart. Invariants: every point of
//! the key space lies in exactly one open shard; the ranges of a shard's children make up its own; a parent's name is
//! less than its children's.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::error::ShardsError;
use super::key::Point;
use super::name::ShardName;
use super::number::Number;
use super::range::Range;

/// Shards a stream has at most, closed ones among them.
pub(super) const SHARDS_MAX: usize = 100_000;

/// One virtual shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shard {
    /// The shard it came from, whether it is still there or not.
    pub(super) parent: Option<ShardName>,
    pub(super) range: Range,
    /// The first number that may be in it.
    pub(super) start: Number,
    /// The last; none while it is open.
    pub(super) end: Option<Number>,
    /// When it was closed.
    pub(super) closed_unix_millis: Option<u64>,
    /// DescribeStream tells of it.
    pub(super) listed: bool,
}

/// The shards of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    shards: BTreeMap<ShardName, Shard>,
    /// The open ones by where their ranges begin.
    open: BTreeMap<Point, ShardName>,
    /// The greatest number in use: a record's or a cut.
    last: Number,
    /// The greatest number a cut may have: behind it comes the next record.
    cut_max: Number,
    last_made_unix_millis: u64,
}

impl Layout {
    /// So many open shards with ranges of the same width.
    pub(super) fn new(shards: u32, now_unix_millis: u64) -> Self {
        let mut layout = Self::of_shards(BTreeMap::new(), Number::ZERO);
        let first = Number::ZERO.next();
        for (index, range) in (0..).zip(Range::even(shards)) {
            layout.add(ShardName::new(now_unix_millis, index), None, range, first);
        }
        layout
    }

    /// What was kept of a stream's shards; `last` is the greatest number that was in use.
    pub(super) fn of_shards(shards: BTreeMap<ShardName, Shard>, last: Number) -> Self {
        let open = shards.iter().filter(|(_, shard)| shard.end.is_none());
        let open = open.map(|(name, shard)| (shard.range.lower.clone(), *name)).collect();
        let last_made_unix_millis = shards.keys().next_back().map_or(0, |name| name.made_unix_millis());
        let cut_max = last.next_record().previous();
        Self { shards, open, last, cut_max, last_made_unix_millis }
    }

    fn add(&mut self, name: ShardName, parent: Option<ShardName>, range: Range, start: Number) {
        self.last_made_unix_millis = self.last_made_unix_millis.max(name.made_unix_millis());
        self.open.insert(range.lower.clone(), name);
        let shard = Shard { parent, range, start, end: None, closed_unix_millis: None, listed: true };
        self.shards.insert(name, shard);
    }

    /// A record has this number.
    pub(super) fn note_record(&mut self, number: Number) {
        self.last = self.last.max(number);
        self.cut_max = self.cut_max.max(number.next_record().previous());
    }

    /// The shard of the record with this number at this point; none when that shard is gone.
    pub(super) fn place(&self, point: &Point, number: Number) -> Option<ShardName> {
        let mut name = self.open_at(point)?;
        loop {
            let shard = self.shards.get(&name)?;
            if shard.start <= number {
                return Some(name);
            }
            name = shard.parent?;
        }
    }

    /// The open shard that has this point; none once the stream has ended.
    pub(super) fn open_at(&self, point: &Point) -> Option<ShardName> {
        self.open.range(..=point).next_back().map(|(_, name)| *name)
    }

    pub(super) fn get(&self, name: ShardName) -> Option<&Shard> {
        self.shards.get(&name)
    }

    /// The shards behind `after`, parents before their children.
    pub(super) fn behind(&self, after: Option<ShardName>) -> impl Iterator<Item = (ShardName, &Shard)> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.shards.range((begin, Bound::Unbounded)).map(|(name, shard)| (*name, shard))
    }

    /// The open shards in order of their ranges.
    pub(super) fn open(&self) -> impl ExactSizeIterator<Item = ShardName> {
        self.open.values().copied()
    }

    /// The greatest number in use.
    pub(super) fn last(&self) -> Number {
        self.last
    }

    /// Whether a shard is one of those that the last change made.
    pub(super) fn is_newest(&self, name: ShardName, shard: &Shard) -> bool {
        shard.parent.is_some() && name.made_unix_millis() == self.last_made_unix_millis
    }

    /// Closes a shard; one child has its range. It is listed when `listed` says so.
    pub(super) fn roll(&mut self, name: ShardName, listed: bool, now: u64) -> Result<ShardName, ShardsError> {
        let range = self.open_shard(name)?.range.clone();
        let [child] = self.replace(name, [range], now)?;
        if let Some(child) = self.shards.get_mut(&child) {
            child.listed = listed;
        }
        Ok(child)
    }

    /// Closes a shard; two children have the halves of its range.
    pub(super) fn split(&mut self, name: ShardName, now: u64) -> Result<[ShardName; 2], ShardsError> {
        let halves = self.open_shard(name)?.range.halved().ok_or_else(|| ShardsError::Indivisible(name.id()))?;
        self.replace(name, halves, now)
    }

    /// Closes the shard of a point; two children have what lies before it, and the rest.
    pub(super) fn split_at(&mut self, point: Point, now: u64) -> Result<[ShardName; 2], ShardsError> {
        let name = self.open_at(&point).ok_or(ShardsError::Ended)?;
        let parts = self.open_shard(name)?.range.parted_at(point).ok_or_else(|| ShardsError::Indivisible(name.id()))?;
        self.replace(name, parts, now)
    }

    fn open_shard(&self, name: ShardName) -> Result<&Shard, ShardsError> {
        let shard = self.shards.get(&name).ok_or_else(|| ShardsError::Unknown(name.id()))?;
        if shard.end.is_some() { Err(ShardsError::Closed(name.id())) } else { Ok(shard) }
    }

    fn replace<const N: usize>(
        &mut self,
        parent: ShardName,
        ranges: [Range; N],
        now: u64,
    ) -> Result<[ShardName; N], ShardsError> {
        let cut = self.last.next();
        if self.shards.len() + N > SHARDS_MAX || cut > self.cut_max {
            return Err(ShardsError::TooMany);
        }
        self.close(parent, cut, now);
        let made = now.max(self.last_made_unix_millis + 1);
        let mut index = 0;
        Ok(ranges.map(|range| {
            let child = ShardName::new(made, index);
            index += 1;
            self.add(child, Some(parent), range, cut.next());
            child
        }))
    }

    fn close(&mut self, name: ShardName, cut: Number, now: u64) {
        if let Some(shard) = self.shards.get_mut(&name) {
            shard.end = Some(cut);
            shard.closed_unix_millis = Some(now);
            self.open.remove(&shard.range.lower);
            self.last = cut;
        }
    }

    /// Closes every shard: nothing is written to the stream any more.
    pub(super) fn end(&mut self, now: u64) {
        let cut = self.last.next();
        for name in self.open().collect::<Vec<_>>() {
            self.close(name, cut, now);
        }
    }

    /// Lets DescribeStream tell of a shard.
    pub(super) fn list(&mut self, name: ShardName) -> Result<(), ShardsError> {
        self.shards.get_mut(&name).ok_or_else(|| ShardsError::Unknown(name.id()))?.listed = true;
        Ok(())
    }

    /// Takes a closed shard away.
    pub(super) fn remove(&mut self, name: ShardName) -> Result<(), ShardsError> {
        let shard = self.shards.get(&name).ok_or_else(|| ShardsError::Unknown(name.id()))?;
        if shard.end.is_none() {
            return Err(ShardsError::Open(name.id()));
        }
        self.shards.remove(&name);
        Ok(())
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
