//! Two replicas over the same tables, driven by hand: each with its own lanes, and branches that one of them reads at a
//! time. What either does is held to the contract of both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::contract::Table;
use super::rig::{Happened, LANE, Rig, Spec, ev, root_of};
use crate::event::{Root, Sequence};
use crate::lane::{LaneSettings, Opening};
use crate::relay_table::Checkpoint;
use crate::storage::{Ending, Mark, MarkState, Passed};
use crate::stream::{Branch, LaneId, ShardId, StreamPoint, StreamSequence};

/// Two on the first branch, two on the second, and two whose item collections are split over both.
pub(super) const ROOTS: [&str; 6] = ["a", "b", "c", "d", "both", "twin"];
const SHARED_FROM: usize = 4;

/// What both replicas see.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) table: Table,
    pub(super) positions: BTreeMap<Root, Sequence>,
    pub(super) marks: BTreeMap<Root, Mark>,
    pub(super) endings: BTreeMap<Root, Ending>,
    pub(super) passed: BTreeMap<Root, Passed>,
    pub(super) skipped: BTreeSet<(Root, Sequence)>,
}

/// A shard: its records, and whether it has ended.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) records: Vec<(u64, Spec)>,
    pub(super) ended: bool,
}

/// A branch and who reads it.
pub(super) struct Path {
    pub(super) branch: Branch,
    pub(super) shards: Vec<Shard>,
    /// The shard that is read, its durable checkpoint, and how many of its records were shown to the lane.
    pub(super) reading: usize,
    pub(super) checkpoint: u64,
    pub(super) shown: usize,
    pub(super) end_shown: bool,
    pub(super) owner: Option<(usize, LaneId)>,
    /// It is to be given up, and who takes it then.
    pub(super) next: Option<usize>,
}

/// Events of a root that may come again: those accepted and not durable when a replica died or gave up uncleanly.
#[derive(Clone, Copy, Default)]
pub(super) struct Again {
    above: Option<u64>,
    up_to: Option<u64>,
}

pub(super) struct World {
    pub(super) rigs: [Rig; 2],
    /// The branches whose deferred roots each replica works off.
    pub(super) duties: [Arc<Mutex<BTreeSet<Branch>>>; 2],
    pub(super) settings: LaneSettings,
    pub(super) tables: Tables,
    pub(super) paths: [Path; 2],
    pub(super) next: [u64; ROOTS.len()],
    pub(super) withheld: Vec<(usize, Spec)>,
    pub(super) number: u64,
    pub(super) next_lane: u32,
    pub(super) accepted: BTreeMap<Root, u64>,
    pub(super) again: BTreeMap<Root, Again>,
    /// Roots that both replicas may meet at once.
    pub(super) shared: BTreeSet<Root>,
    /// Lanes on segments of jobs.
    pub(super) jobs: BTreeSet<LaneId>,
}

fn path(name: &str) -> Path {
    Path {
        branch: Branch(ShardId::new(name)),
        shards: vec![Shard::default()],
        reading: 0,
        checkpoint: 0,
        shown: 0,
        end_shown: false,
        owner: None,
        next: None,
    }
}

impl World {
    pub(super) fn new(settings: LaneSettings) -> Self {
        let duties: [Arc<Mutex<BTreeSet<Branch>>>; 2] = Default::default();
        let rigs = [0, 1].map(|rig| replica(rig == 0, &settings, &duties[rig]));
        let mut world = Self {
            rigs,
            duties,
            settings,
            tables: Tables::default(),
            paths: [path("left"), path("right")],
            next: [0; ROOTS.len()],
            withheld: Vec::new(),
            number: 0,
            next_lane: 10,
            accepted: BTreeMap::new(),
            again: BTreeMap::new(),
            shared: ROOTS[SHARED_FROM..].iter().map(|root| root_of(root)).collect(),
            jobs: BTreeSet::new(),
        };
        world.take(0, 0);
        world.take(1, 1);
        world
    }

    /// Lets one replica act on the tables, and judges what it did.
    pub(super) fn on<T>(&mut self, rig: usize, act: impl FnOnce(&mut Rig) -> T) -> T {
        self.swap(rig);
        let acted = act(&mut self.rigs[rig]);
        self.swap(rig);
        for happened in std::mem::take(&mut self.rigs[rig].log) {
            match happened {
                Happened::Delivered(root, events) => self.delivered(&root, &events),
                Happened::Accepted(root, events) => self.is_accepted(&root, &events),
            }
        }
        self.follow_lanes(rig);
        acted
    }

    pub(super) fn swap(&mut self, rig: usize) {
        let contract = &mut self.rigs[rig].contract;
        std::mem::swap(&mut contract.table, &mut self.tables.table);
        std::mem::swap(&mut contract.positions, &mut self.tables.positions);
        std::mem::swap(&mut contract.marks, &mut self.tables.marks);
        std::mem::swap(&mut contract.endings, &mut self.tables.endings);
        std::mem::swap(&mut contract.passed, &mut self.tables.passed);
        std::mem::swap(&mut contract.skipped, &mut self.tables.skipped);
    }

    /// Clause 3: what comes again was accepted and not durable when a replica died, or its root is met by both.
    pub(super) fn delivered(&self, root: &Root, events: &[u64]) {
        if self.shared.contains(root) {
            return;
        }
        let again = self.again.get(root).copied().unwrap_or_default();
        for event in events {
            let accepted = self.accepted.get(root).is_some_and(|through| event <= through);
            let allowed = Some(*event) > again.above && Some(*event) <= again.up_to;
            assert!(!accepted || allowed, "{root}: {event} comes again, though nothing was lost of it");
        }
    }

    /// Clause 1: first acceptances come in order without a gap.
    pub(super) fn is_accepted(&mut self, root: &Root, events: &[u64]) {
        for event in events {
            let last = self.accepted.get(root).copied();
            if last.is_none_or(|last| *event > last) {
                assert_eq!(*event, last.map_or(0, |last| last + 1), "{root}: accepted first out of order");
                self.accepted.insert(root.clone(), *event);
            }
        }
    }

    /// What became of the lanes of a replica: checkpoints, and lanes at their end.
    pub(super) fn follow_lanes(&mut self, rig: usize) {
        for (lane, checkpoint) in std::mem::take(&mut self.rigs[rig].checkpoints) {
            if self.jobs.contains(&lane) {
                continue;
            }
            let path = self.paths.iter_mut().find(|path| path.owner == Some((rig, lane)));
            let path = path.expect("a checkpoint of a lane that is read here");
            if let Checkpoint::At(sequence) = checkpoint {
                path.checkpoint = sequence.to_string().parse().unwrap();
            }
        }
        for lane in std::mem::take(&mut self.rigs[rig].finished) {
            if self.jobs.remove(&lane) {
                continue;
            }
            let at = self.paths.iter().position(|path| path.owner == Some((rig, lane))).expect("it is read here");
            let path = &mut self.paths[at];
            assert!(path.end_shown, "finished before the end");
            (path.reading, path.checkpoint) = (path.reading + 1, 0);
            path.owner = None;
            let to = path.next.take().unwrap_or(rig);
            self.open(at, to, to != rig);
        }
        for (lane, clean) in std::mem::take(&mut self.rigs[rig].closed) {
            let at = self.paths.iter().position(|path| path.owner == Some((rig, lane))).expect("it is read here");
            if !clean {
                self.may_come_again();
            }
            self.paths[at].owner = None;
            if let Some(to) = self.paths[at].next.take() {
                self.take(at, to);
            }
        }
    }

    /// What is accepted and not durable at this moment may come again.
    pub(super) fn may_come_again(&mut self) {
        for (root, accepted) in &self.accepted {
            let durable = self.tables.positions.get(root).map(|position| position.0);
            if durable.is_none_or(|durable| durable < *accepted) {
                let again = self.again.entry(root.clone()).or_default();
                *again = Again { above: durable, up_to: Some(*accepted) };
            }
        }
    }

    pub(super) fn take(&mut self, at: usize, rig: usize) {
        self.open(at, rig, true);
    }

    pub(super) fn open(&mut self, at: usize, rig: usize, taken: bool) {
        self.next_lane += 1;
        let lane = LaneId(self.next_lane);
        let path = &mut self.paths[at];
        if path.reading == path.shards.len() {
            path.shards.push(Shard::default());
        }
        let checkpoint = path.checkpoint;
        let records = &path.shards[path.reading].records;
        path.shown = records.iter().position(|(number, _)| *number > checkpoint).unwrap_or(records.len());
        (path.owner, path.end_shown) = (Some((rig, lane)), false);
        let after = match checkpoint {
            0 => StreamPoint::Horizon,
            number => StreamPoint::After(StreamSequence::new(&number.to_string())),
        };
        let opening = Opening { after, branch: Some(path.branch.clone()), taken };
        self.duties[rig].lock().unwrap().insert(path.branch.clone());
        self.on(rig, |rig| {
            rig.open_as(lane, opening);
            rig.run();
        });
    }

    pub(super) fn show(&mut self, at: usize, count: usize) {
        let path = &mut self.paths[at];
        let Some((rig, lane)) = path.owner.filter(|_| path.next.is_none() && !path.end_shown) else { return };
        let shard = &path.shards[path.reading];
        let until = path.shown.saturating_add(count).min(shard.records.len());
        let records = shard.records[path.shown..until].to_vec();
        let end = shard.ended && until == shard.records.len();
        (path.shown, path.end_shown) = (until, end);
        self.on(rig, |rig| {
            rig.show_records(lane, &records, end);
            rig.run();
        });
    }

    /// A job of a replica goes over the table: all rows there are.
    pub(super) fn go_over_the_table(&mut self, rig: usize) {
        self.next_lane += 1;
        let lane = LaneId(self.next_lane);
        self.jobs.insert(lane);
        self.shared.extend(ROOTS.iter().map(|root| root_of(root)));
        let rows = self.tables.table.keys().map(|(root, sequence)| ev(root.id(), sequence.0).sized(50));
        let records: Vec<_> = (1..).zip(rows).collect();
        self.on(rig, |rig| {
            rig.open_as(lane, Opening { after: StreamPoint::Horizon, branch: None, taken: false });
            rig.show_records(lane, &records, true);
            rig.run();
        });
    }

    pub(super) fn event(&mut self, root: usize) -> Spec {
        let sequence = self.next[root];
        self.next[root] += 1;
        ev(ROOTS[root], sequence).sized(50)
    }

    pub(super) fn write(&mut self, spec: &Spec) {
        self.tables.table.insert((spec.root.clone(), Sequence(spec.sequence)), spec.row());
    }

    /// A record in the branch of its root; of a split item collection in the one or the other.
    pub(super) fn stream(&mut self, root: usize, spec: Spec) {
        self.number += 1;
        let at = if root < SHARED_FROM { root / 2 } else { usize::try_from(spec.sequence / 2 % 2).unwrap() };
        let shard = self.paths[at].shards.last_mut().unwrap();
        shard.records.push((self.number, spec));
    }

    pub(super) fn append(&mut self, root: usize, count: u64) {
        for _ in 0..count {
            let event = self.event(root);
            self.write(&event);
            self.stream(root, event);
        }
    }

    pub(super) fn fill(&mut self, of: usize) {
        let (filled, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.withheld).into_iter().partition(|(root, _)| *root == of);
        self.withheld = rest;
        for (root, event) in filled {
            self.write(&event);
            self.stream(root, event);
        }
    }

    pub(super) fn crash(&mut self, rig: usize) {
        self.may_come_again();
        self.duties[rig].lock().unwrap().clear();
        let mut fresh = replica(rig == 0, &self.settings, &self.duties[rig]);
        fresh.now = self.rigs[rig].now;
        self.rigs[rig] = fresh;
        for at in 0..2 {
            if self.paths[at].owner.is_some_and(|(of, _)| of == rig) {
                self.paths[at].next = None;
                self.take(at, 1 - rig);
            }
        }
    }

    pub(super) fn pass(&mut self, millis: u64) {
        let mut left = millis;
        while left > 0 {
            let slice = left.min(150);
            left -= slice;
            for rig in [0, 1] {
                self.on(rig, |rig| rig.millis(slice));
            }
        }
    }

    pub(super) fn release_parked(&mut self, root: &str) {
        if self.tables.marks.get(&root_of(root)).is_some_and(|mark| mark.state == MarkState::Parked) {
            self.on(0, |rig| rig.release_parked(root, false));
            self.on(1, Rig::resume);
        }
    }
}

/// The first works off what has no branch.
fn replica(first: bool, settings: &LaneSettings, duties: &Arc<Mutex<BTreeSet<Branch>>>) -> Rig {
    let duties = duties.clone();
    let mut rig = Rig::with(settings.clone());
    rig.at_head = false;
    let works_off =
        Arc::new(move |branch: Option<&Branch>| branch.map_or(first, |branch| duties.lock().unwrap().contains(branch)));
    rig.lanes = std::mem::replace(&mut rig.lanes, Rig::new().lanes).working_off(works_off);
    // The lane every rig begins with shows nothing here.
    rig.close(LANE, 0);
    rig.closed.clear();
    rig
}
