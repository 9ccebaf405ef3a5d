//! What must hold whatever the lanes are given: clauses 1, 3, 4 and 5 of the contract, stated plainly over the tables.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Subscription;
use crate::event::{Event, Root, Row, Sequence, Timestamp};
use crate::handler::RootBatch;
use crate::relay_table::Checkpoint;
use crate::storage::{Advance, Ending, Mark, Pass, Passed, Standing};
use crate::stream::{LaneId, StreamSequence};

/// The events table, by root and sequence.
pub(super) type Table = BTreeMap<(Root, Sequence), Row>;

/// What a lane was shown: each record's number in the shard and its event's key.
type Shown = Vec<(StreamSequence, Root, Sequence)>;

/// Judges what the lanes do. Panics on a violation.
pub(super) struct Contract {
    pub(super) subscription: Subscription,
    pub(super) started_at: Option<Timestamp>,
    pub(super) table: Table,
    /// The positions table.
    pub(super) positions: BTreeMap<Root, Sequence>,
    /// What the lanes were told of it.
    pub(super) told: BTreeMap<Root, Sequence>,
    pub(super) accepted: BTreeMap<Root, Sequence>,
    pub(super) in_flight: BTreeSet<Root>,
    pub(super) shown: BTreeMap<LaneId, Shown>,
    pub(super) ended: BTreeSet<LaneId>,
    /// The marks in the positions table.
    pub(super) marks: BTreeMap<Root, Mark>,
    /// What is left of marks that were taken away.
    pub(super) endings: BTreeMap<Root, Ending>,
    /// Holes that were passed, as the positions table keeps them.
    pub(super) passed: BTreeMap<Root, Passed>,
    /// Events passed, for the record.
    pub(super) skipped: BTreeSet<(Root, Sequence)>,
    checkpoints: BTreeMap<LaneId, Checkpoint>,
}

impl Contract {
    pub(super) fn new(subscription: Subscription, started_at: Option<Timestamp>) -> Self {
        Self {
            subscription,
            started_at,
            table: Table::new(),
            positions: BTreeMap::new(),
            told: BTreeMap::new(),
            accepted: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            shown: BTreeMap::new(),
            ended: BTreeSet::new(),
            marks: BTreeMap::new(),
            endings: BTreeMap::new(),
            passed: BTreeMap::new(),
            skipped: BTreeSet::new(),
            checkpoints: BTreeMap::new(),
        }
    }

    fn rows<'a>(&'a self, root: &'a Root) -> impl Iterator<Item = (Sequence, &'a Row)> {
        let all = (root.clone(), Sequence(0))..=(root.clone(), Sequence(u64::MAX));
        self.table.range(all).map(|((_, sequence), row)| (*sequence, row))
    }

    fn is_after_start(&self, event: &Event) -> bool {
        self.started_at.is_none_or(|start| event.created_at >= start)
    }

    /// The first sequence of a root that is the handler's: the lowest, or the lowest not created before its start.
    pub(super) fn base(&self, root: &Root) -> Option<Sequence> {
        let first = match self.started_at {
            None => self.rows(root).next(),
            Some(_) => self.rows(root).find(|(_, row)| row.as_ref().is_ok_and(|event| self.is_after_start(event))),
        };
        first.map(|(sequence, _)| sequence)
    }

    /// Whether an event needs no delivery (any more): by the positions given, by acceptance, the subscription or the
    /// start.
    fn is_covered(&self, root: &Root, sequence: Sequence, position: Option<Sequence>, accepted: bool) -> bool {
        let by_position = position.is_some_and(|position| sequence <= position);
        let by_acceptance = accepted && self.accepted.get(root).is_some_and(|through| sequence <= *through);
        let below_base = self.base(root).is_none_or(|base| sequence < base);
        let left_out = (self.table.get(&(root.clone(), sequence)))
            .is_some_and(|row| row.as_ref().is_ok_and(|event| !self.subscription.wants(event)));
        let passed = self.skipped.contains(&(root.clone(), sequence));
        by_position || by_acceptance || below_base || left_out || passed
    }

    /// An event of the table, and of the handler, appeared in a hole that was passed: the position says nothing of it.
    fn fills(&self, root: &Root, sequence: Sequence) -> bool {
        let row = self.table.get(&(root.clone(), sequence));
        let wanted = row.is_some_and(|row| row.as_ref().map_or(true, |event| self.subscription.wants(event)));
        wanted && self.passed.get(root).is_some_and(|holes| holes.contains(sequence))
    }

    /// Clauses 1 and 3: in order, without a gap, never again what is known to be durable, a root once at a time.
    pub(super) fn delivers(&mut self, batch: &RootBatch) {
        let root = &batch.root;
        assert!(!batch.events.is_empty(), "an empty batch of {root}");
        assert!(self.in_flight.insert(root.clone()), "{root} is in flight twice");
        let told = self.told.get(root).copied();
        let mut expected = Sequence(0);
        for event in &batch.events {
            let sequence = event.sequence;
            assert!(event.root == *root && sequence >= expected, "{root}: {sequence} out of order");
            let ordered = self.marks.get(root).is_some_and(|mark| mark.rewound && sequence >= mark.sequence);
            assert!(ordered || told.is_none_or(|told| sequence > told), "{root}: {sequence} was durable already");
            assert!(self.subscription.wants(event), "{root}: {sequence} is not subscribed to");
            assert!(self.base(root).is_some_and(|base| sequence >= base), "{root}: {sequence} is before the base");
            for before in expected.0..sequence.0 {
                assert!(
                    self.is_covered(root, Sequence(before), told, true),
                    "{root}: {sequence} is delivered though {before} is not covered"
                );
            }
            expected = sequence.next();
        }
    }

    pub(super) fn accepts(&mut self, root: &Root, through: Sequence) {
        let accepted = self.accepted.entry(root.clone()).or_insert(through);
        *accepted = through.max(*accepted);
    }

    /// Clause 4: a position never goes back, and never passes what is not covered.
    pub(super) fn writes(&self, advance: &Advance) {
        let root = &advance.root;
        let told = self.told.get(root).copied();
        assert!(told.is_none_or(|told| advance.to > told), "{root}: {} is no advance over {told:?}", advance.to);
        self.covers(root, advance.to);
    }

    /// Clause 4 for the position that a mark carries.
    pub(super) fn covers(&self, root: &Root, through: Sequence) {
        let told = self.told.get(root).copied();
        for sequence in 0..=through.0 {
            assert!(
                self.is_covered(root, Sequence(sequence), told, true),
                "{root}: the position {through} passes {sequence}, which is not covered"
            );
        }
    }

    /// A hole is passed only with all before it covered. It may fill at that very moment.
    pub(super) fn passes(&self, root: &Root, standing: &Standing, pass: &Pass) {
        assert!(standing.position < Some(pass.hole.first) || self.marks.contains_key(root), "{root}: {}", pass.hole);
        if let Some(before) = pass.hole.first.previous() {
            self.covers(root, before);
        }
    }

    /// Clause 5: a checkpoint never goes back and never passes what is not covered durably; the end only when all is.
    pub(super) fn checks(&mut self, lane: LaneId, checkpoint: &Checkpoint) {
        let shown = self.shown.get(&lane).map(Vec::as_slice).unwrap_or_default();
        for (number, root, sequence) in shown {
            let passed = match checkpoint {
                Checkpoint::At(through) => number <= through,
                Checkpoint::Finished => true,
            };
            // A mark stands for what it goes on from; for an event in a passed hole only one at or before it does.
            let filled = self.fills(root, *sequence);
            // What is left of a mark stands for what others let go of on its strength.
            let marked = self.endings.contains_key(root)
                || self.marks.get(root).is_some_and(|mark| !filled || mark.sequence <= *sequence);
            let exists = !marked && self.table.contains_key(&(root.clone(), *sequence));
            let position = self.positions.get(root).copied();
            let covered = self.is_covered(root, *sequence, position, false) && !self.fills(root, *sequence);
            assert!(
                !passed || !exists || covered,
                "{checkpoint:?} of {lane:?} passes {root} {sequence}, which is not covered durably"
            );
        }
        let before = self.checkpoints.insert(lane, checkpoint.clone());
        match (checkpoint, before) {
            (Checkpoint::At(_), Some(Checkpoint::Finished)) => panic!("a checkpoint behind the end"),
            (Checkpoint::Finished, _) => assert!(self.ended.contains(&lane), "finished before the end"),
            (Checkpoint::At(now), Some(Checkpoint::At(before))) => assert!(*now >= before, "a checkpoint went back"),
            (Checkpoint::At(_), None) => {}
        }
    }

    /// After everything came to rest: each event is covered durably or by acceptance.
    pub(super) fn all_is_covered(&self) {
        for (root, sequence) in self.table.keys() {
            let position = self.positions.get(root).copied();
            let covered = self.is_covered(root, *sequence, position, true) && !self.fills(root, *sequence);
            assert!(covered, "{root}: {sequence} was never delivered");
        }
    }
}
