//! Random pages, answers, faults and pauses against the contract: whatever happens it holds, and in the end
//! everything is delivered.

use std::time::Duration;

use proptest::prelude::*;

use super::rig::{Answer, Kind, LANE, OTHER, Rig, Spec, Writes, ev, settings, types};
use crate::event::Timestamp;
use crate::handler::GroupLimits;
use crate::lane::{LaneSettings, OnFailure, OnHole, Subscription};
use crate::storage::MarkState;

const ROOTS: [&str; 5] = ["a", "b", "c", "d", "e"];
const TYPES: [&str; 2] = ["Placed", "Noise"];

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// So many events of a root are appended; the stream will show them, each in one of the lanes.
    Append(usize, u64),
    /// The stream shows some of what it has not shown, picked from the front, perhaps again later.
    Show {
        other: bool,
        count: usize,
        skip: usize,
        again: bool,
    },
    /// So many events of a root are missing though later ones follow; perhaps they are written much later.
    Withhold(usize, u64),
    /// What is missing of a root is written.
    Fill(usize),
    /// Records are never shown.
    Drop(usize),
    /// What the handler answers from now on.
    Answer(Answer),
    /// What it answers for one root, once.
    Once(usize, Answer),
    Writes(Writes),
    Hold(usize),
    Release(usize),
    Elsewhere(usize),
    /// A root is ordered back by so many events.
    Rewind(usize, u64),
    Pass(u64),
    Relieve,
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::All),
        2 => (0usize..4).prop_map(Answer::Take),
        2 => Just(Answer::Retry),
        1 => Just(Answer::RetryAfter(Duration::from_secs(3))),
        1 => Just(Answer::Unavailable),
        1 => Just(Answer::Throttled),
        1 => Just(Answer::Permanent),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let root = 0..ROOTS.len();
    let writes = prop_oneof![2 => Just(Writes::Work), 1 => Just(Writes::Fail), 1 => Just(Writes::LoseReplies)];
    prop_oneof![
        6 => (root.clone(), 1u64..6).prop_map(|(root, count)| Step::Append(root, count)),
        8 => (any::<bool>(), 1usize..8, 0usize..3, any::<bool>())
            .prop_map(|(other, count, skip, again)| Step::Show { other, count, skip, again }),
        1 => (0usize..20).prop_map(Step::Drop),
        1 => (root.clone(), 1u64..4).prop_map(|(root, count)| Step::Withhold(root, count)),
        1 => root.clone().prop_map(Step::Fill),
        1 => answer().prop_map(Step::Answer),
        3 => (root.clone(), answer()).prop_map(|(root, answer)| Step::Once(root, answer)),
        1 => writes.prop_map(Step::Writes),
        3 => (0..KINDS.len()).prop_map(Step::Hold),
        4 => (0..KINDS.len()).prop_map(Step::Release),
        2 => (root.clone(), 0u64..10).prop_map(|(root, back)| Step::Rewind(root, back)),
        1 => root.prop_map(Step::Elsewhere),
        6 => (1u64..3000).prop_map(Step::Pass),
        1 => Just(Step::Relieve),
    ]
}

const KINDS: [Kind; 6] = [Kind::Load, Kind::Repair, Kind::Deliver, Kind::Flush, Kind::Checkpoint, Kind::Mark];

/// The rig, and what the stream has yet to show.
struct World {
    rig: Rig,
    next: [u64; ROOTS.len()],
    unshown: Vec<Spec>,
    withheld: Vec<(usize, Spec)>,
    created_at: i64,
    passes_holes: bool,
}

impl World {
    fn event(&mut self, root: usize) -> Spec {
        let sequence = self.next[root];
        self.next[root] += 1;
        self.created_at += 10;
        let kind = TYPES[usize::from(sequence % 4 == 1)];
        ev(ROOTS[root], sequence).of(kind).at(self.created_at).sized(50)
    }

    fn append(&mut self, root: usize, count: u64) {
        for _ in 0..count {
            let event = self.event(root);
            self.rig.write([event.clone()]);
            self.unshown.push(event);
        }
    }

    /// What is missing of a root is written, and will be shown.
    fn fill(&mut self, of: usize) {
        let (filled, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.withheld).into_iter().partition(|(root, _)| *root == of);
        self.withheld = rest;
        let filled: Vec<Spec> = filled.into_iter().map(|(_, event)| event).collect();
        self.rig.write(&filled);
        self.unshown.extend(filled);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append(root, count) => self.append(root, count),
            Step::Show { other, count, skip, again } => {
                let from = skip.min(self.unshown.len());
                let until = (from + count).min(self.unshown.len());
                let shown =
                    if again { self.unshown[from..until].to_vec() } else { self.unshown.drain(from..until).collect() };
                self.rig.at_head = !again && count % 2 == 0;
                self.rig.show(if other { OTHER } else { LANE }, shown, false);
                self.rig.run();
            }
            // Before its base a root has no hole.
            Step::Withhold(root, count) if self.rig.contract.base(&super::rig::root_of(ROOTS[root])).is_some() => {
                for _ in 0..count {
                    let event = self.event(root);
                    self.withheld.push((root, event));
                }
            }
            Step::Fill(root) => self.fill(root),
            Step::Drop(at) if at < self.unshown.len() => drop(self.unshown.remove(at)),
            Step::Withhold(..) | Step::Drop(_) => {}
            Step::Answer(answer) => self.rig.everybody = answer,
            Step::Once(root, answer) => self.rig.script(ROOTS[root], [answer]),
            Step::Writes(writes) => self.rig.writes = writes,
            Step::Hold(kind) => self.rig.hold(KINDS[kind]),
            Step::Release(kind) => self.rig.release(KINDS[kind]),
            Step::Elsewhere(root) => {
                // Another replica accepted and wrote one more than is known here; it passed what is not there, or did not
                // come that far.
                let of = super::rig::root_of(ROOTS[root]);
                let Some(base) = self.rig.contract.base(&of) else { return };
                let missing = self.withheld.iter().filter(|(of, _)| *of == root).map(|(_, event)| event.sequence);
                let missing: Vec<u64> = missing.filter(|missing| *missing > base.0).collect();
                if !missing.is_empty() && !self.passes_holes {
                    return;
                }
                let accepted = self.rig.contract.accepted.get(&of).map(|through| through.0 + 1);
                let position = [accepted, self.rig.position(ROOTS[root])].into_iter().flatten().max().unwrap_or(0);
                let position = position.max(base.0);
                if position < self.next[root] && !missing.contains(&position) && self.rig.mark(ROOTS[root]).is_none() {
                    self.rig.elsewhere(ROOTS[root], position);
                    for missing in missing.into_iter().filter(|missing| *missing < position) {
                        self.rig.passed_elsewhere(ROOTS[root], missing);
                    }
                }
            }
            Step::Rewind(root, back) => {
                let Some(position) = self.rig.position(ROOTS[root]) else { return };
                if self.rig.mark(ROOTS[root]).is_none() {
                    self.rig.rewind(ROOTS[root], position.saturating_sub(back));
                }
            }
            Step::Pass(millis) => self.rig.millis(millis),
            Step::Relieve => self.rig.lanes.relieve(self.rig.now),
        }
    }

    /// No faults any more: everything comes to rest, and all of it is delivered.
    fn settle(&mut self) {
        self.rig.everybody = Answer::All;
        self.rig.writes = Writes::Work;
        for kind in KINDS {
            self.rig.release(kind);
        }
        // One more event of each root, shown: whatever was never streamed is found behind it.
        for root in 0..ROOTS.len() {
            self.fill(root);
            self.append(root, 1);
        }
        let rest: Vec<_> = self.unshown.drain(..).collect();
        self.rig.show(LANE, rest, false);
        self.rig.rest();
        // Answers scripted for once may park a root again.
        for _ in 0..120 {
            for root in ROOTS {
                if self.rig.mark(root).is_some_and(|mark| mark.state == MarkState::Parked) {
                    self.rig.release_parked(root, false);
                }
            }
            self.rig.rest();
        }
        assert!(self.rig.contract.marks.is_empty(), "every root is back in its course");
        for lane in [LANE, OTHER] {
            self.rig.end(lane);
        }
        self.rig.rest();
        self.rig.contract.all_is_covered();
        assert_eq!(self.rig.finished.len(), 2, "both shards are finished");
        assert_eq!(self.rig.lanes.stuck(), super::super::Stuck::default());
        assert_eq!((self.rig.lanes.queued_bytes(), self.rig.lanes.roots_in_flight), (0, 0));
        assert_eq!((self.rig.lanes.groups_in_flight, self.rig.lanes.courses.active()), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(300), ..ProptestConfig::default() })]

    #[test]
    fn the_contract_holds_whatever_happens(
        steps in proptest::collection::vec(step(), 1..120),
        at_once in any::<bool>(),
        some_types in any::<bool>(),
        started_at in proptest::option::of(0i64..400),
        small in any::<bool>(),
        grouped in any::<bool>(),
        patience in 0..3,
        passes_holes in any::<bool>(),
    ) {
        let limits = if grouped {
            GroupLimits { roots: 3, events_per_root: 4, bytes_per_root: 300, bytes: 500, ..GroupLimits::default() }
        } else {
            GroupLimits::default()
        };
        let settings = LaneSettings {
            started_at: started_at.map(Timestamp::from_unix_millis),
            flush_interval: if at_once { Duration::ZERO } else { Duration::from_secs(1) },
            queued_bytes_max: if small { 3000 } else { 1 << 20 },
            idle_roots_max: if small { 1 } else { 1000 },
            filtered_flush: if small { 2 } else { 64 },
            limits,
            on_failure: if patience == 0 { OnFailure::Park } else { OnFailure::Block },
            attempts_max: 3,
            on_hole: if passes_holes { OnHole::Pass } else { OnHole::Park },
            checkpoint_hold: if patience == 1 { Duration::from_secs(1) } else { Duration::from_hours(24) },
            ..LaneSettings::default()
        };
        let subscription = if some_types { types(&TYPES[..1]) } else { Subscription::everything() };
        let mut rig = Rig::subscribed(settings, subscription);
        rig.open(OTHER);
        let mut world = World { rig, next: [0; ROOTS.len()], unshown: Vec::new(), withheld: Vec::new(), created_at: 0, passes_holes };
        for step in &steps {
            world.step(step);
        }
        world.settle();
    }

    /// A stop at any moment, then another life from the checkpoints and positions it left: nothing is lost.
    #[test]
    fn a_stop_at_any_moment_leaves_what_the_next_life_needs(steps in proptest::collection::vec(step(), 1..60)) {
        let mut rig = Rig::with(settings());
        rig.open(OTHER);
        let mut world = World { rig, next: [0; ROOTS.len()], unshown: Vec::new(), withheld: Vec::new(), created_at: 0, passes_holes: false };
        for step in &steps {
            world.step(step);
        }
        world.rig.everybody = Answer::All;
        world.rig.writes = Writes::Work;
        world.rig.lanes.drain(world.rig.now);
        for kind in KINDS {
            world.rig.release(kind);
        }
        world.rig.millis(5000);
        prop_assert!(world.rig.lanes.is_drained());
        for (root, accepted) in &world.rig.contract.accepted {
            let position = world.rig.contract.positions.get(root);
            let durable = position.is_some_and(|position| position >= accepted);
            prop_assert!(durable, "{} accepted, {:?} durable", accepted, position);
        }
    }
}
