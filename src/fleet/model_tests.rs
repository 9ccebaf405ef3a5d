//! The rules of the fleet, explored in every order: three members, three leases, and whatever may happen to them.
//!
//! The model is made of the real decisions ([`ViewKeeper`], [`Planner`], [`Watch`], [`assign`](super::assign)) and the real
//! conditional writes of [`Lease`]; only the table and the clock are its own. A member's turn is cut where a process can
//! be stopped or another write can come between: renewing and reading leases, reading the fleet and deciding, each write.
//! Time goes on when every member that runs has had its turn; one that is stopped (SIGSTOP, a pause of its node) has none.
//! All properties are safety properties: what must happen in time is a counter of ticks that never passes its bound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

use stateright::{Checker, Model, Property};
use tokio::time::Instant;

use super::{
    Epoch, Fleet, Lease, LeaseAction, LeaseKey, LeaseKind, Member, MemberId, Patience, Planner, Stage, Timing,
    ViewAction, ViewKeeper, Watch,
};
use crate::handler::HandlerName;
use crate::stream::{Branch, ShardId};

const TICK: Duration = Duration::from_secs(1);

/// As in production, with the fewest ticks that keep every margin.
const TIMING: Timing = Timing {
    heartbeat: TICK,
    fences_after: Duration::from_secs(2),
    expires_after: Duration::from_secs(3),
    closes_within: Duration::from_secs(1),
    overdue_after: Duration::from_secs(2),
};

/// So many ticks after the last thing that happened to the fleet every lease is held by an unfenced owner, and no hand-over
/// is open. The longest way: a member that has just come stops; it expires (3) and is declared dead (1); those left are
/// the same for a heartbeat (1), one puts the view (1) and goes by it (1); the next owner is waited for (2); the lease is
/// announced (1), closed or cut off (1), and taken (1).
const SETTLED_AFTER: u8 = 12;

const RULES: [&str; 3] = [
    "a lease has one unfenced owner at most",
    "no lease is unowned past its deadline",
    "no hand-over is open past its deadline",
];

/// To know that the model reaches what it is for.
const SHARED: &str = "three members hold a lease each";
const DIED: &str = "a member is declared dead that holds a lease";

/// The one moment at which every state is looked at: all times in a state are relative to it.
fn now() -> Instant {
    static NOW: OnceLock<Instant> = OnceLock::new();
    *NOW.get_or_init(|| Instant::now() + Duration::from_secs(1000))
}

fn id(member: usize) -> MemberId {
    MemberId::new(&format!("m{member}"))
}

fn handler() -> HandlerName {
    HandlerName::new("h").unwrap()
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Write {
    View(ViewAction),
    Lease(LeaseAction),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Turn {
    /// To renew and to read the leases.
    Renew,
    /// To read the fleet and to decide, by these leases.
    Look(BTreeMap<LeaseKey, Lease>),
    /// To write what is due.
    Write(Vec<Write>),
    /// Done, until the next tick.
    Done,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Life {
    turn: Turn,
    stopped: bool,
    leaving: bool,
    /// When the last renewal was sent that it knows to have succeeded.
    renewed_at: Instant,
    watch: Watch,
    keeper: ViewKeeper,
    planner: Planner,
}

impl Life {
    /// Ends its work on a lease.
    fn end(&mut self, key: &LeaseKey, clean: bool) {
        let epoch = self.planner.holdings()[key].epoch;
        self.planner.closed(key, epoch, clean);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Process {
    NotBegun,
    Lives(Box<Life>),
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    fleet: Fleet,
    leases: BTreeMap<LeaseKey, Lease>,
    processes: Vec<Process>,
    faults_left: u8,
    /// Ticks since something last happened to the fleet.
    quiet: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Happens {
    Begin(usize),
    Step(usize),
    /// A member ends its work on a lease that it is closing.
    Close(usize, LeaseKey),
    Tick,
    /// SIGTERM.
    Leave(usize),
    /// SIGSTOP, a pause of its node; one that never goes on is a SIGKILL, or a lost node.
    Stop(usize),
    Continue(usize),
    /// A renewal is applied and its answer lost.
    LoseReply(usize),
}

struct Fleets {
    leases: usize,
    members: usize,
    /// So many have begun and hold their leases.
    settled: usize,
    faults: u8,
    /// Whether something may come between a member's reading of the leases and of the fleet.
    fine: bool,
}

impl World {
    fn life(&self, member: usize) -> Option<&Life> {
        match &self.processes[member] {
            Process::Lives(life) => Some(life),
            Process::NotBegun | Process::Over => None,
        }
    }

    fn life_mut(&mut self, member: usize) -> Option<&mut Life> {
        match &mut self.processes[member] {
            Process::Lives(life) => Some(life),
            Process::NotBegun | Process::Over => None,
        }
    }

    fn row(&mut self, member: usize) -> Option<&mut Member> {
        self.fleet.members.iter_mut().find(|row| row.id == id(member))
    }

    /// The members that may start a delivery of this lease now.
    fn deliver(&self, key: &LeaseKey) -> usize {
        let lives = (0..self.processes.len()).filter_map(|member| self.life(member));
        let unfenced = lives.filter(|life| now() < life.renewed_at + TIMING.fences_after);
        let stages = unfenced.filter_map(|life| life.planner.holdings().get(key)).map(|holding| holding.stage);
        stages
            .filter(|stage| matches!(stage, Stage::Open) || matches!(stage, Stage::Closing(until) if now() < *until))
            .count()
    }

    /// Lets time go by until everybody has what is his, each in his turn.
    fn settle(&mut self) {
        for _ in 0..4 * SETTLED_AFTER {
            for member in 0..self.processes.len() {
                while self.life(member).is_some_and(|life| life.turn != Turn::Done) {
                    self.step(member);
                }
                let Some(life) = self.life_mut(member) else { continue };
                let closing = |stage: Stage| matches!(stage, Stage::Closing(_));
                let held = life.planner.holdings().iter().filter(|(_, holding)| closing(holding.stage));
                for key in held.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                    life.end(&key, true);
                }
            }
            self.tick();
        }
    }

    /// Whether everything was given its time, and there is somebody to hold the leases.
    fn is_settled(&self) -> bool {
        let stays = |process: &Process| matches!(process, Process::Lives(life) if !life.leaving && !life.stopped);
        self.quiet >= SETTLED_AFTER && self.processes.iter().any(stays)
    }

    fn begin(&mut self, member: usize) {
        let (id, handlers) = (id(member), BTreeSet::from([handler()]));
        let version = String::new();
        let row = Member {
            id: id.clone(),
            counter: 1,
            dead: false,
            leaving: false,
            view: 0,
            handlers,
            version,
            patience: Patience::default(),
        };
        self.fleet.members.push(row);
        self.fleet.members.sort_by(|one, other| one.id.cmp(&other.id));
        let planner = Planner::new(id, vec![handler()]);
        let (turn, watch, keeper) = (Turn::Look(self.leases.clone()), Watch::default(), ViewKeeper::default());
        let life = Life { turn, stopped: false, leaving: false, renewed_at: now(), watch, keeper, planner };
        self.processes[member] = Process::Lives(Box::new(life));
    }

    /// Applies a renewal; false when it is refused.
    fn renew(&mut self, member: usize) -> bool {
        let Some((view, leaving)) = self.life(member).map(|life| (life.planner.view(), life.leaving)) else {
            return false;
        };
        let Some(row) = self.row(member).filter(|row| !row.dead) else { return false };
        (row.counter, row.view, row.leaving) = (row.counter + 1, view, leaving);
        true
    }

    fn step(&mut self, member: usize) {
        let Some(life) = self.life(member) else { return };
        match life.turn.clone() {
            Turn::Renew if self.renew(member) => {
                let leases = self.leases.clone();
                let Some(life) = self.life_mut(member) else { return };
                (life.renewed_at, life.turn) = (now(), Turn::Look(leases));
            }
            // It was declared dead: all it holds is dropped, and it joins anew as another.
            Turn::Renew => self.processes[member] = Process::Over,
            Turn::Look(leases) => self.look(member, &leases),
            Turn::Write(writes) => {
                for write in writes {
                    self.write(member, write);
                }
                let Some(life) = self.life_mut(member) else { return };
                life.turn = Turn::Done;
            }
            Turn::Done => {}
        }
    }

    fn look(&mut self, member: usize, leases: &BTreeMap<LeaseKey, Lease>) {
        let fleet = self.fleet.clone();
        let Some(life) = self.life_mut(member) else { return };
        // What could not be ended in time is cut off.
        let overdue = |(key, stage): (&LeaseKey, Stage)| {
            matches!(stage, Stage::Closing(until) if until <= now()).then(|| key.clone())
        };
        let held = life.planner.holdings().iter().map(|(key, holding)| (key, holding.stage));
        for key in held.filter_map(overdue).collect::<Vec<_>>() {
            life.end(&key, false);
        }
        life.watch.see_leases(leases.values(), now());
        life.watch.see_members(&fleet.members, now());
        let by = (&life.watch, &TIMING);
        let due = life.planner.plan(&fleet, leases, by, now()).actions.into_iter().map(Write::Lease);
        let kept = life.keeper.decide(&id(member), &fleet, by, now()).into_iter().map(Write::View);
        let writes: Vec<_> = kept.chain(due).collect();
        life.turn = if writes.is_empty() { Turn::Done } else { Turn::Write(writes) };
        // Who leaves and holds nothing removes its row.
        if life.leaving && life.planner.holdings().is_empty() && !fleet.view.members.contains(&id(member)) {
            self.fleet.members.retain(|row| row.id != id(member));
            self.processes[member] = Process::Over;
        }
    }

    fn write(&mut self, member: usize, write: Write) {
        match write {
            Write::View(ViewAction::DeclareDead(id, counter)) => {
                let row = self.fleet.members.iter_mut().find(|row| row.id == id && row.counter == counter);
                if let Some(row) = row {
                    row.dead = true;
                }
            }
            Write::View(ViewAction::Put(view)) => {
                if view.version == self.fleet.view.version + 1 {
                    self.fleet.view = view;
                }
            }
            Write::View(ViewAction::Remove(id)) => self.fleet.members.retain(|row| row.id != id || !row.dead),
            Write::Lease(LeaseAction::Lost(key)) => {
                self.life_mut(member).into_iter().for_each(|life| life.planner.let_go(&key));
            }
            Write::Lease(LeaseAction::Take(read)) => {
                let taken = read.taken(&id(member));
                if self.put(&read, taken.clone()) {
                    let life = self.life_mut(member).into_iter();
                    life.for_each(|life| life.planner.took(read.key(), taken.epoch));
                }
            }
            Write::Lease(LeaseAction::Announce(read)) => {
                let life = self.life_mut(member).into_iter();
                life.for_each(|life| life.planner.announcing(&read.key(), &TIMING, now()));
                self.put(&read, read.announced());
            }
            Write::Lease(LeaseAction::Release(read, clean)) => {
                self.put(&read, read.released(clean));
                self.life_mut(member).into_iter().for_each(|life| life.planner.let_go(&read.key()));
            }
        }
    }

    /// Writes a lease under the condition that its owner and epoch are those that were read.
    fn put(&mut self, read: &Lease, written: Lease) -> bool {
        let Some(row) = self.leases.get_mut(&read.key()) else { return false };
        let holds = row.owner == read.owner && row.epoch == read.epoch;
        if holds {
            *row = written;
        }
        holds
    }

    fn tick(&mut self) {
        // Counted once nothing can happen any more: what comes before is told by the other properties.
        if self.faults_left == 0 {
            self.quiet = (self.quiet + 1).min(SETTLED_AFTER);
        }
        for process in &mut self.processes {
            let Process::Lives(life) = process else { continue };
            life.renewed_at = (life.renewed_at - TICK).max(now() - TIMING.fences_after);
            life.watch.age(TICK, now(), &TIMING);
            life.keeper.age(TICK, now() - TIMING.heartbeat);
            life.planner.age(TICK, now(), &TIMING);
            if life.turn == Turn::Done {
                life.turn = Turn::Renew;
            }
        }
    }

    /// Replaces counters, epochs and versions by their ranks: only whether they are equal, and which is larger, matters.
    /// So the states are finite.
    fn normalize(&mut self) {
        let members: Vec<_> = (0..self.processes.len()).map(id).collect();
        for member in members {
            rank(self.counters(&member));
        }
        let keys: Vec<_> = self.leases.keys().cloned().collect();
        for key in keys {
            rank(self.epochs(&key));
        }
        rank(self.versions());
        // Nothing hangs on it.
        self.leases.values_mut().for_each(|lease| lease.clean = true);
    }

    fn counters(&mut self, member: &MemberId) -> Vec<&mut u64> {
        let rows = self.fleet.members.iter_mut().filter(|row| row.id == *member).map(|row| &mut row.counter);
        let lives = self.processes.iter_mut().filter_map(|process| match process {
            Process::Lives(life) => Some(life),
            _ => None,
        });
        rows.chain(lives.flat_map(|life| {
            let writes = if let Turn::Write(writes) = &mut life.turn { writes.as_mut_slice() } else { &mut [] };
            let written = writes.iter_mut().filter_map(|write| match write {
                Write::View(ViewAction::DeclareDead(id, counter)) => Some((&*id, counter)),
                _ => None,
            });
            let all = life.watch.counters().chain(written);
            all.filter(|(id, _)| *id == member).map(|(_, counter)| counter).collect::<Vec<_>>()
        }))
        .collect()
    }

    fn epochs(&mut self, key: &LeaseKey) -> Vec<&mut u64> {
        let rows = self.leases.get_mut(key).into_iter().map(|lease| &mut lease.epoch.0);
        let lives = self.processes.iter_mut().filter_map(|process| match process {
            Process::Lives(life) => Some(life),
            _ => None,
        });
        rows.chain(lives.flat_map(|life| {
            let mut read: Vec<&mut Lease> = match &mut life.turn {
                Turn::Look(leases) => leases.values_mut().collect(),
                Turn::Write(writes) => writes.iter_mut().filter_map(lease_of).collect(),
                Turn::Renew | Turn::Done => Vec::new(),
            };
            read.retain(|lease| lease.key() == *key);
            let remembered = life.watch.epochs().chain(life.planner.epochs());
            let remembered = remembered.filter(|(of, _)| *of == key).map(|(_, epoch): (_, &mut Epoch)| &mut epoch.0);
            read.into_iter().map(|lease| &mut lease.epoch.0).chain(remembered).collect::<Vec<_>>()
        }))
        .collect()
    }

    fn versions(&mut self) -> Vec<&mut u64> {
        let Self { fleet: Fleet { view, members, .. }, processes, .. } = self;
        let mut versions: Vec<&mut u64> = vec![&mut view.version];
        versions.extend(members.iter_mut().map(|row| &mut row.view));
        for process in processes {
            let Process::Lives(life) = process else { continue };
            versions.extend(life.planner.version());
            if let Turn::Write(writes) = &mut life.turn {
                versions.extend(writes.iter_mut().filter_map(|write| match write {
                    Write::View(ViewAction::Put(view)) => Some(&mut view.version),
                    _ => None,
                }));
            }
        }
        versions
    }
}

fn lease_of(write: &mut Write) -> Option<&mut Lease> {
    match write {
        Write::Lease(LeaseAction::Take(lease) | LeaseAction::Announce(lease) | LeaseAction::Release(lease, _)) => {
            Some(lease)
        }
        _ => None,
    }
}

/// Keeps which are equal, which are larger, and which follow each other at once; the gaps between others shrink.
fn rank(mut numbers: Vec<&mut u64>) {
    numbers.sort();
    let (mut before, mut rank) = (0, 0);
    for number in numbers {
        rank += (*number - before).min(2);
        before = *number;
        *number = rank;
    }
}

impl Model for Fleets {
    type State = World;
    type Action = Happens;

    fn init_states(&self) -> Vec<World> {
        let shards = (0..self.leases).map(|number| ShardId::new(&format!("s{number}")));
        let lease = |shard: ShardId| Lease::new(handler(), shard.clone(), LeaseKind::Shard, Branch::of(&shard), None);
        let leases: BTreeMap<_, _> = shards.map(lease).map(|lease| (lease.key(), lease)).collect();
        let mut world = World {
            fleet: Fleet::default(),
            leases,
            processes: vec![Process::NotBegun; self.members],
            faults_left: self.faults,
            quiet: 0,
        };
        for member in 0..self.settled {
            world.begin(member);
            world.settle();
        }
        world.quiet = 0;
        world.normalize();
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Happens>) {
        let at_rest =
            |process: &Process| !matches!(process, Process::Lives(life) if life.turn != Turn::Done && !life.stopped);
        let all_rest = world.processes.iter().all(at_rest);
        if all_rest {
            actions.push(Happens::Tick);
        }
        for (member, process) in world.processes.iter().enumerate() {
            let life = match process {
                // In their order: which one begins first is all the same.
                Process::NotBegun => {
                    if all_rest && (member == 0 || world.processes[member - 1] != Process::NotBegun) {
                        actions.push(Happens::Begin(member));
                    }
                    continue;
                }
                Process::Over => continue,
                Process::Lives(life) => life,
            };
            if life.stopped {
                actions.push(Happens::Continue(member));
                continue;
            }
            let holdings = life.planner.holdings().iter();
            let closing = holdings.filter(|(_, holding)| matches!(holding.stage, Stage::Closing(_)));
            actions.extend(closing.map(|(key, _)| Happens::Close(member, key.clone())));
            // Between its turns nothing is different from the beginning of the next.
            if life.turn == Turn::Done {
                continue;
            }
            actions.push(Happens::Step(member));
            if world.faults_left > 0 {
                actions.push(Happens::Stop(member));
                if life.turn == Turn::Renew {
                    actions.push(Happens::LoseReply(member));
                    if !life.leaving {
                        actions.push(Happens::Leave(member));
                    }
                }
            }
        }
    }

    fn next_state(&self, before: &World, happens: Happens) -> Option<World> {
        let mut world = before.clone();
        let is_fault = matches!(happens, Happens::Leave(_) | Happens::Stop(_) | Happens::LoseReply(_));
        world.faults_left -= u8::from(is_fault);
        if is_fault || matches!(happens, Happens::Begin(_) | Happens::Continue(_)) {
            world.quiet = 0;
        }
        match happens {
            Happens::Begin(member) => world.begin(member),
            Happens::Step(member) => {
                world.step(member);
                if !self.fine && matches!(world.life(member).map(|life| &life.turn), Some(Turn::Look(_))) {
                    world.step(member);
                }
            }
            Happens::Close(member, key) => world.life_mut(member)?.end(&key, true),
            Happens::Tick => world.tick(),
            Happens::Leave(member) => world.life_mut(member)?.leaving = true,
            Happens::Stop(member) => world.life_mut(member)?.stopped = true,
            Happens::Continue(member) => world.life_mut(member)?.stopped = false,
            Happens::LoseReply(member) => {
                world.renew(member);
                world.life_mut(member)?.turn = Turn::Done;
            }
        }
        world.normalize();
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(RULES[0], |_, world: &World| world.leases.keys().all(|key| world.deliver(key) <= 1)),
            Property::always(RULES[1], |_, world: &World| {
                !world.is_settled() || world.leases.keys().all(|key| world.deliver(key) == 1)
            }),
            Property::always(RULES[2], |_, world: &World| {
                !world.is_settled() || world.leases.values().all(|lease| !lease.announced)
            }),
            Property::sometimes(SHARED, |_, world: &World| {
                let owners: BTreeSet<_> = world.leases.values().filter_map(|lease| lease.owner.as_ref()).collect();
                owners.len() == 3
            }),
            Property::sometimes(DIED, |_, world: &World| {
                let dead = world.fleet.members.iter().find(|member| member.dead);
                dead.is_some_and(|dead| world.leases.values().any(|lease| lease.owner.as_ref() == Some(&dead.id)))
            }),
        ]
    }
}

/// Explores every state; none may break a rule.
fn explore(model: Fleets) -> impl Checker<Fleets> {
    let checker = model.checker().threads(THREADS).spawn_bfs().join();
    eprintln!("{} states, {} deep", checker.unique_state_count(), checker.max_depth());
    for rule in RULES {
        checker.assert_no_discovery(rule);
    }
    checker
}

/// Tests that explore run side by side.
const THREADS: usize = 2;

/// What happens to the fleet, at most: `ANGZARR_MODEL_FAULTS=2` takes minutes.
fn faults() -> u8 {
    std::env::var("ANGZARR_MODEL_FAULTS").map_or(1, |faults| faults.parse().unwrap())
}

#[test]
fn three_members_that_come_share_three_leases() {
    let all = explore(Fleets { leases: 3, members: 3, settled: 0, faults: 0, fine: false });
    all.assert_any_discovery(SHARED);
}

#[test]
fn one_that_stops_leaves_or_is_not_answered_breaks_no_rule() {
    let all = explore(Fleets { leases: 3, members: 3, settled: 3, faults: faults(), fine: false });
    all.assert_any_discovery(SHARED);
    all.assert_any_discovery(DIED);
}

#[test]
fn one_that_comes_while_another_stops_or_leaves_breaks_no_rule() {
    explore(Fleets { leases: 3, members: 3, settled: 2, faults: 1, fine: false }).assert_any_discovery(DIED);
}

#[test]
fn what_comes_between_two_reads_breaks_no_rule() {
    explore(Fleets { leases: 1, members: 2, settled: 0, faults: 2, fine: true }).assert_any_discovery(DIED);
}
