//! What people do to the tables beside a handler's lanes: operators, and whoever deletes events.

use super::contract::Contract;
use super::rig::{LANE, Rig, root_of};
use crate::event::{Root, Sequence, Timestamp};
use crate::storage::{Hole, Mark, MarkState, Marked};
use crate::stream::{Branch, Change, Page, Record, StreamSequence};

impl Contract {
    /// Another replica, or life, has deferred a root.
    pub(super) fn defer(&mut self, root: &str, before: u64, branch: Option<Branch>) {
        let mark = Mark::new(MarkState::Deferred, Sequence(before), 0, "later", Timestamp::from_unix_millis(1));
        self.marks.insert(root_of(root), Mark { branch, ..mark });
    }
}

impl Rig {
    /// What an operator does: the root goes on, behind the event it stands before when that is passed.
    pub(super) fn release_parked(&mut self, root: &str, pass: bool) {
        let root = root_of(root);
        let mark = self.contract.marks.get_mut(&root).expect("the root is parked");
        mark.state = MarkState::Deferred;
        let before = mark.sequence;
        let holes = self.contract.passed.get_mut(&root).filter(|holes| holes.contains(before));
        if pass {
            mark.sequence = before.next();
            self.contract.skipped.insert((root.clone(), before));
            let position = self.contract.positions.entry(root.clone()).or_insert(before);
            *position = before.max(*position);
        } else if holes.is_some() {
            mark.rewound = true;
        }
        if let Some(holes) = holes {
            *holes = if pass { holes.without(before) } else { holes.before(before) };
        }
        self.contract.passed.retain(|_, holes| !holes.is_empty());
        self.resume();
    }

    /// Another replica has passed a hole.
    pub(super) fn passed_elsewhere(&mut self, root: &str, sequence: u64) {
        let passed = self.contract.passed.entry(root_of(root)).or_default();
        let (first, last) = (Sequence(sequence), Sequence(sequence));
        *passed = passed.with(Hole { first, last }).unwrap();
    }

    /// The holes of a root that were passed.
    pub(super) fn passed(&self, root: &str) -> String {
        self.contract.passed.get(&root_of(root)).map(ToString::to_string).unwrap_or_default()
    }

    /// What an operator does who orders a root back.
    pub(super) fn rewind(&mut self, root: &str, to: u64) {
        let root = root_of(root);
        assert!(!self.contract.marks.contains_key(&root) && self.contract.positions[&root].0 >= to);
        let mark = Mark::new(MarkState::Deferred, Sequence(to), 0, "ordered back", Timestamp::from_unix_millis(1));
        self.contract.marks.insert(root, Mark { rewound: true, ..mark });
        self.resume();
    }

    /// The marked roots as the tables list them.
    pub(super) fn listed(&self) -> Marked {
        let marks = self.contract.marks.iter();
        let marked = Marked::of(marks.map(|(root, mark)| (root.clone(), mark.state, mark.branch.clone())));
        let endings = self.contract.endings.iter();
        Marked { ending: endings.map(|(root, ending)| (root.clone(), ending.clone())).collect(), ..marked }
    }

    /// What the relay does when an operator has ordered something.
    pub(super) fn resume(&mut self) {
        self.lanes.resume(self.listed(), self.now);
        self.run();
    }

    pub(super) fn mark(&self, root: &str) -> Option<&Mark> {
        self.contract.marks.get(&root_of(root))
    }

    /// Removes rows of the table, and shows that.
    pub(super) fn removed(&mut self, root: &Root, sequences: std::ops::Range<u64>) {
        let mut records = Vec::new();
        for sequence in sequences {
            self.contract.table.remove(&(root.clone(), Sequence(sequence)));
            self.number += 1;
            let (sequence, happened_at) =
                (StreamSequence::new(&self.number.to_string()), Timestamp::from_unix_millis(1000));
            records.push(Record { sequence, happened_at, change: Change::Removed(Some(root.clone())) });
        }
        let page = Page::new(self.through[&LANE].clone(), records, false);
        self.through.insert(LANE, page.through.clone());
        self.lanes.accept_page(LANE, &page, self.now);
        self.run();
    }
}
