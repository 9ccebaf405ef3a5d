//! Which shards one handler may read: a child opens once its own parent is finished, or is not in the stream (any
//! more). Pure.
//!
//! Correctness does not hang on this order, the sequencer repairs any; it spares repairs. Invariants: a shard is
//! opened once, a finished one never again, and one whose parent is unfinished and still listed never.

use std::collections::{BTreeMap, BTreeSet};

use super::{Shard, ShardId};

/// One handler's view of the shards.
#[derive(Debug, Clone, Default)]
pub struct Lineage {
    parents: BTreeMap<ShardId, Option<ShardId>>,
    opened: BTreeSet<ShardId>,
    finished: BTreeSet<ShardId>,
    /// Opened at any time in this process, and still listed.
    here: BTreeSet<ShardId>,
}

impl Lineage {
    /// A view in which these shards were finished in earlier lives.
    #[must_use]
    pub fn with_finished(finished: impl IntoIterator<Item = ShardId>) -> Self {
        Self { finished: finished.into_iter().collect(), ..Self::default() }
    }

    /// Learns of shards; what is known already does not change.
    pub fn observe<'a>(&mut self, shards: impl IntoIterator<Item = &'a Shard>) {
        for shard in shards {
            self.parents.entry(shard.id.clone()).or_insert_with(|| shard.parent.clone());
        }
    }

    /// Takes a complete list of the stream's shards: what is not in it and not being read is forgotten. Answers what
    /// was.
    pub fn retain(&mut self, listed: &BTreeSet<ShardId>) -> Vec<ShardId> {
        let opened = &self.opened;
        let gone = |shard: &ShardId| !listed.contains(shard) && !opened.contains(shard);
        let mut forgotten: BTreeSet<ShardId> = self.finished.iter().filter(|shard| gone(shard)).cloned().collect();
        forgotten.extend(self.parents.keys().filter(|shard| gone(shard)).cloned());
        self.parents.retain(|shard, _| !forgotten.contains(shard));
        self.finished.retain(|shard| !forgotten.contains(shard));
        self.here.retain(|shard| !forgotten.contains(shard));
        forgotten.into_iter().collect()
    }

    /// The shards among these that may be opened now; they count as opened from here on.
    pub fn open_next(&mut self, among: impl Fn(&ShardId) -> bool) -> Vec<ShardId> {
        let ready: Vec<ShardId> = (self.parents.iter())
            .filter(|(shard, _)| !self.opened.contains(*shard) && !self.finished.contains(*shard))
            .filter(|(_, parent)| parent.as_ref().is_none_or(|parent| self.is_behind(parent)))
            .filter(|(shard, _)| among(shard))
            .map(|(shard, _)| shard.clone())
            .collect();
        self.opened.extend(ready.iter().cloned());
        self.here.extend(ready.iter().cloned());
        ready
    }

    fn is_behind(&self, parent: &ShardId) -> bool {
        self.finished.contains(parent) || !self.parents.contains_key(parent)
    }

    /// A shard is not read here any more, and not finished.
    pub fn close(&mut self, shard: &ShardId) {
        self.opened.remove(shard);
        self.here.remove(shard);
    }

    /// The handler has finished a shard: all of it is covered.
    pub fn finish(&mut self, shard: &ShardId) {
        self.opened.remove(shard);
        self.finished.insert(shard.clone());
    }

    /// Shards known, neither opened nor finished: they wait for their parents.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.parents.keys().filter(|shard| !self.opened.contains(*shard) && !self.finished.contains(*shard)).count()
    }

    /// Whether a shard is known to have a child.
    #[must_use]
    pub fn has_child(&self, shard: &ShardId) -> bool {
        self.parents.values().any(|parent| parent.as_ref() == Some(shard))
    }

    /// Whether a shard is being read here, or was finished here.
    #[must_use]
    pub fn was_opened(&self, shard: &ShardId) -> bool {
        self.here.contains(shard)
    }

    /// Shards being read.
    #[must_use]
    pub fn opened(&self) -> &BTreeSet<ShardId> {
        &self.opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: usize) -> ShardId {
        ShardId::new(&format!("shardId-{number:020}-x"))
    }

    fn shard(number: usize, parent: Option<usize>) -> Shard {
        Shard { id: id(number), parent: parent.map(id) }
    }

    #[test]
    fn children_wait_for_their_parent() {
        let mut lineage = Lineage::default();
        lineage.observe(&[shard(2, Some(1)), shard(1, None), shard(3, Some(1)), shard(4, Some(2))]);
        assert_eq!(lineage.open_next(|_| true), [id(1)]);
        assert_eq!(lineage.open_next(|_| true), []);
        lineage.finish(&id(1));
        assert_eq!(lineage.open_next(|_| true), [id(2), id(3)]);
        lineage.finish(&id(2));
        assert_eq!(lineage.open_next(|_| true), [id(4)]);
        assert_eq!(lineage.open_next(|_| true), []);
    }

    #[test]
    fn an_absent_parent_holds_nobody() {
        let mut lineage = Lineage::default();
        lineage.observe(&[shard(7, Some(3))]);
        assert_eq!(lineage.open_next(|_| true), [id(7)]);
    }

    #[test]
    fn what_was_finished_before_stays_finished() {
        let mut lineage = Lineage::with_finished([id(1)]);
        lineage.observe(&[shard(1, None), shard(2, Some(1))]);
        assert_eq!(lineage.open_next(|_| true), [id(2)]);
    }

    #[test]
    fn a_shard_that_leaves_the_stream_frees_its_children_and_is_forgotten() {
        let mut lineage = Lineage::with_finished([id(1)]);
        lineage.observe(&[shard(1, None), shard(2, Some(1)), shard(3, Some(2)), shard(5, Some(4)), shard(4, Some(3))]);
        assert_eq!(lineage.open_next(|_| true), [id(2)]);
        let listed = [id(2), id(4), id(5)].into_iter().collect();
        assert_eq!(lineage.retain(&listed), [id(1), id(3)]);
        assert_eq!(lineage.open_next(|_| true), [id(4)], "3 is gone, 5 waits for 4");
        assert_eq!(lineage.waiting(), 1);
    }

    proptest! {
        /// Against the plain statement of the rule, over random trees and random orders of finishing.
        #[test]
        fn opens_each_shard_once_and_never_before_its_parent(
            parents in proptest::collection::vec(proptest::option::of(0usize..20), 1..20),
            picks in proptest::collection::vec(0usize..20, 0..60),
        ) {
            let shards: Vec<Shard> = (parents.iter().enumerate())
                .map(|(number, parent)| shard(number, parent.filter(|parent| *parent < number)))
                .collect();
            let mut lineage = Lineage::default();
            lineage.observe(&shards);
            let (mut opened, mut finished) = (BTreeSet::new(), BTreeSet::new());
            for pick in picks.iter().map(Some).chain(std::iter::repeat_n(None, shards.len() * 2)) {
                for id in lineage.open_next(|_| true) {
                    let shard = shards.iter().find(|shard| shard.id == id).unwrap();
                    prop_assert!(shard.parent.as_ref().is_none_or(|parent| finished.contains(parent)));
                    prop_assert!(opened.insert(id));
                }
                let running: Vec<_> = opened.difference(&finished).cloned().collect();
                if let Some(next) = running.get(pick.copied().unwrap_or(0) % running.len().max(1)) {
                    lineage.finish(next);
                    finished.insert(next.clone());
                }
            }
            prop_assert_eq!(opened.len(), shards.len());
        }
    }
}
