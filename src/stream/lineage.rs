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

    /// What there is to know of a shard, in the plain model.
    #[derive(Debug, Clone, Default)]
    #[expect(clippy::struct_excessive_bools, reason = "a row of a table, one column for each question")]
    struct Plain {
        known: bool,
        parent: Option<usize>,
        opened: bool,
        finished: bool,
        here: bool,
    }

    /// What may happen to the view of a handler, by the numbers of shards.
    #[derive(Debug, Clone)]
    enum Step {
        Observe(usize, Option<usize>),
        Retain(BTreeSet<usize>),
        Open(BTreeSet<usize>),
        Close(usize),
        Finish(usize),
    }

    /// So many shards there are in all.
    const SHARDS: usize = 8;

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let some = || proptest::collection::btree_set(0..SHARDS, 0..=SHARDS);
        let step = prop_oneof![
            4 => (0..SHARDS, proptest::option::of(0..SHARDS)).prop_map(|(shard, parent)| Step::Observe(shard, parent)),
            1 => some().prop_map(Step::Retain),
            3 => some().prop_map(Step::Open),
            1 => (0..SHARDS).prop_map(Step::Close),
            2 => (0..SHARDS).prop_map(Step::Finish),
        ];
        proptest::collection::vec(step, 0..60)
    }

    fn ids(numbers: impl IntoIterator<Item = usize>) -> Vec<ShardId> {
        numbers.into_iter().map(id).collect()
    }

    /// The numbers of the shards of which this is so.
    fn those(shards: &[Plain], is_so: impl Fn(&Plain) -> bool) -> Vec<usize> {
        (0..shards.len()).filter(|number| is_so(&shards[*number])).collect()
    }

    proptest! {
        /// Against the plain model, whatever happens in whatever order: a row for each shard, looked through each time.
        #[test]
        fn agrees_with_a_row_for_each_shard(
            finished in proptest::collection::btree_set(0..SHARDS, 0..4),
            steps in steps(),
        ) {
            let mut lineage = Lineage::with_finished(finished.iter().copied().map(id));
            let mut plain = vec![Plain::default(); SHARDS];
            for number in &finished {
                plain[*number].finished = true;
            }
            for step in steps {
                match step {
                    Step::Observe(number, parent) => {
                        lineage.observe(&[shard(number, parent)]);
                        if !plain[number].known {
                            (plain[number].known, plain[number].parent) = (true, parent);
                        }
                    }
                    Step::Retain(listed) => {
                        let gone = |number: &usize| !listed.contains(number) && !plain[*number].opened;
                        let known = those(&plain, |shard| shard.known || shard.finished);
                        let gone: Vec<usize> = known.into_iter().filter(gone).collect();
                        let listed = listed.iter().copied().map(id).collect();
                        prop_assert_eq!(lineage.retain(&listed), ids(gone.clone()));
                        for number in gone {
                            plain[number] = Plain::default();
                        }
                    }
                    Step::Open(among) => {
                        let waits_for = |parent: usize| plain[parent].known && !plain[parent].finished;
                        let opens = |shard: &Plain| {
                            let free = !shard.parent.is_some_and(waits_for);
                            free && shard.known && !shard.opened && !shard.finished
                        };
                        let mut ready = those(&plain, opens);
                        ready.retain(|number| among.contains(number));
                        let among = |shard: &ShardId| among.iter().any(|number| id(*number) == *shard);
                        prop_assert_eq!(lineage.open_next(among), ids(ready.clone()));
                        for number in ready {
                            (plain[number].opened, plain[number].here) = (true, true);
                        }
                    }
                    Step::Close(number) => {
                        lineage.close(&id(number));
                        (plain[number].opened, plain[number].here) = (false, false);
                    }
                    Step::Finish(number) => {
                        lineage.finish(&id(number));
                        (plain[number].opened, plain[number].finished) = (false, true);
                    }
                }
                let waiting = those(&plain, |shard| shard.known && !shard.opened && !shard.finished);
                prop_assert_eq!(lineage.waiting(), waiting.len());
                let opened: Vec<ShardId> = lineage.opened().iter().cloned().collect();
                prop_assert_eq!(opened, ids(those(&plain, |shard| shard.opened)));
                for number in 0..SHARDS {
                    prop_assert_eq!(lineage.was_opened(&id(number)), plain[number].here);
                    let child = plain.iter().any(|shard| shard.parent == Some(number));
                    prop_assert_eq!(lineage.has_child(&id(number)), child);
                }
            }
        }

        /// Over any graph of parents, loops included, and any order of finishing: what is opened in the end is what a
        /// search from the shards without a listed parent comes to, each once, and none before its parent.
        #[test]
        fn opens_what_a_search_from_the_oldest_finds(
            parents in proptest::collection::vec(proptest::option::of(0_usize..25), 1..20),
            picks in proptest::collection::vec(0_usize..20, 0..60),
        ) {
            let mut lineage = Lineage::default();
            for (number, parent) in parents.iter().enumerate() {
                lineage.observe(&[shard(number, *parent)]);
            }
            let listed = |parent: Option<usize>| parent.filter(|parent| *parent < parents.len());
            let mut found: BTreeSet<usize> =
                (0..parents.len()).filter(|number| listed(parents[*number]).is_none()).collect();
            for _ in 0..parents.len() {
                let of_found = |number: &usize| listed(parents[*number]).is_some_and(|parent| found.contains(&parent));
                let children: Vec<usize> = (0..parents.len()).filter(of_found).collect();
                found.extend(children);
            }
            let (mut opened, mut finished) = (BTreeSet::new(), BTreeSet::new());
            let mut picks = picks.into_iter();
            loop {
                for opening in lineage.open_next(|_| true) {
                    let number = (0..parents.len()).find(|number| id(*number) == opening).unwrap();
                    prop_assert!(listed(parents[number]).is_none_or(|parent| finished.contains(&parent)));
                    prop_assert!(opened.insert(number), "{} was opened twice", number);
                }
                let running: Vec<usize> = opened.difference(&finished).copied().collect();
                let Some(next) = running.get(picks.next().unwrap_or(0) % running.len().max(1)) else { break };
                lineage.finish(&id(*next));
                finished.insert(*next);
            }
            prop_assert_eq!(opened, found);
        }
    }
}
