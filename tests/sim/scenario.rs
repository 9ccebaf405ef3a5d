//! One run: what a plan draws, played out: replicas that come, stop, crash and stand still, the writer and an operator
//! beside them, and the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use angzarr_relay::backfill::ScanProgress;
use angzarr_relay::handler::{Handler, HandlerName};
use angzarr_relay::lane::{Glob, LaneSettings, OnFailure, Pattern, Subscription, default_editions};
use angzarr_relay::relay::{HandlerSpec, Relay, RelayPorts, RelaySettings};
use angzarr_relay::relay_table::Start;
use angzarr_relay::telemetry::Health;
use angzarr_relay::time::Clock;

use crate::checker::Checker;
use crate::faulty::Faulty;
use crate::faulty_stream::FaultyScan;
use crate::ledger::Ledger;
use crate::operator::Operator;
use crate::plan::{Fault, Plan};
use crate::receiver::Receiver;
use crate::replica::Replica;
use crate::world::World;
use crate::writer::Writer;

/// For so long faults strike; after it everything must come to rest.
const TROUBLE: Duration = Duration::from_mins(1);

/// The time everything has to come to rest: longer than the longest waits of the relay one after the other.
const REST: Duration = Duration::from_secs(400);

/// A stop ends within its grace period, with a grace of our own.
const STOPS_WITHIN: Duration = Duration::from_mins(2);

/// The longest step in which one replica runs before the next: while there is trouble, and at rest.
const STEPS: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(100)];

/// The longest a replica stands still: two leases and more.
const FROZEN_MAX: Duration = Duration::from_secs(25);

/// Clocks go by up to so much faster or slower: what the margin of a heartbeat allows for.
const RATE_PERCENT: u64 = 5;

/// Wall clocks are off by up to so much.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// In so many runs of a hundred the stream loses the last of a shard when all else has come to rest.
const LOSES_LAST_PERCENT: u64 = 25;

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Vec<String>,
    pub(crate) happened: BTreeMap<&'static str, usize>,
}

fn name(text: &str) -> HandlerName {
    HandlerName::new(text).unwrap()
}

/// One handler of every kind: name, start, what it receives, slowness, roots at once, flush interval, failure policy.
struct Kind(&'static str, Start, Subscription, u64, usize, u64, OnFailure);

/// The handler whose effects commit with its positions.
const LEDGER: &str = "ledger";

fn kinds() -> Vec<Kind> {
    let pattern = |types: &[&str]| Pattern {
        domain: Glob::new("orders"),
        types: types.iter().map(|text| Glob::new(text)).collect(),
        editions: default_editions(),
    };
    let orders = |types: &[&str]| Subscription::new(vec![pattern(types)]);
    vec![
        Kind("view", Start::Beginning, Subscription::everything(), 5, 1, 1000, OnFailure::Block),
        Kind("billing", Start::Beginning, orders(&["Order*"]), 1, 1, 0, OnFailure::Park),
        Kind("copy", Start::Beginning, orders(&["*"]), 400, 4, 300, OnFailure::Skip),
        Kind("mail", Start::Latest, orders(&["Order*"]), 20, 1, 0, OnFailure::Park),
        Kind(LEDGER, Start::Beginning, orders(&["Order*"]), 10, 1, 200, OnFailure::Park),
    ]
}

/// A run under way.
struct Play {
    plan: Arc<Plan>,
    world: World,
    replicas: Vec<Replica>,
    /// Those that are asked to stop, and since when.
    stopping: Vec<(Replica, Duration)>,
    /// Those that stand still, and until when.
    frozen: BTreeMap<String, Duration>,
    started: u32,
}

/// Plays a plan.
pub(crate) fn run(plan: &Plan) -> Outcome {
    let shards = if plan.has(Fault::Reshard) { 1 } else { 4 };
    let subscriptions = kinds().into_iter().map(|kind| (name(kind.0), kind.2)).collect();
    let alone = plan.replicas_max == 1 && !plan.has(Fault::LateRequest);
    let mut checker = Checker::new(subscriptions, plan.repeats_nothing(), alone);
    checker.is_transactional(&name(LEDGER));
    let world = World::new(plan.seed, shards, checker);
    let mut under_way = Play {
        plan: Arc::new(plan.clone()),
        world: world.clone(),
        replicas: Vec::new(),
        stopping: Vec::new(),
        frozen: BTreeMap::new(),
        started: 0,
    };
    under_way.play();
    drop(under_way);
    world.check(Checker::at_rest);
    let (violations, again) = world.check(|checker| (std::mem::take(&mut checker.violations), checker.delivered_again));
    let mut trace = world.trace.lock().unwrap();
    trace.happened.insert("event delivered again", again);
    Outcome { violations, trace: std::mem::take(&mut trace.lines), happened: std::mem::take(&mut trace.happened) }
}

impl Play {
    fn play(&mut self) {
        let world = self.world.clone();
        let mut writer = Writer::begin(&world, &self.plan, TROUBLE);
        let mut operator = Operator::new(&world, &self.plan, kinds().iter().map(|kind| name(kind.0)).collect());
        let mut next_blow = world.chance.up_to(TROUBLE / 5);
        self.start();
        while world.elapsed() < TROUBLE {
            self.step(STEPS[0]);
            writer.write_on();
            operator.look();
            if world.elapsed() >= next_blow {
                self.strike();
                next_blow = world.elapsed() + world.chance.up_to(TROUBLE / 5);
            }
        }
        self.replicas.iter_mut().filter(|replica| replica.is_frozen()).for_each(Replica::thaw);
        self.frozen.clear();
        operator.go_on();
        for _ in 0..15 {
            self.step(Duration::from_secs(2));
        }
        writer.close_all();
        self.come_to_rest(&operator);
        if self.plan.has(Fault::Trim) && world.chance.percent(LOSES_LAST_PERCENT) {
            writer.lose_last();
            self.come_to_rest(&operator);
        }
        let now = world.elapsed();
        self.replicas.iter().for_each(Replica::stop);
        self.stopping.extend(self.replicas.drain(..).map(|replica| (replica, now)));
        while !self.stopping.is_empty() {
            self.step(STEPS[1]);
        }
    }

    /// Waits until everything was accepted and is durable, at most `REST`; what is missing then the verdict shows.
    fn come_to_rest(&mut self, operator: &Operator) {
        let until = self.world.elapsed() + REST;
        let mut quiet = 0;
        while self.world.elapsed() < until && quiet < 3 {
            operator.release();
            for _ in 0..50 {
                self.step(STEPS[1]);
            }
            quiet = if self.world.check(Checker::is_at_rest) { quiet + 1 } else { 0 };
        }
    }

    /// Lets a little time go by: every replica runs for so long, one after the other.
    fn step(&mut self, longest: Duration) {
        let world = self.world.clone();
        let mut left = longest;
        while left > Duration::ZERO {
            let step = (world.chance.up_to(STEPS[1].min(longest)) + Duration::from_millis(1)).min(left);
            left -= step;
            world.pass(step);
            let first = usize::try_from(world.chance.below(self.replicas.len().max(1) as u64)).unwrap();
            for turn in 0..self.replicas.len() {
                let place = (first + turn) % self.replicas.len();
                self.replicas[place].run(step);
            }
            self.stopping.iter_mut().for_each(|(replica, _)| replica.run(step));
        }
        self.thaw();
        self.bury();
    }

    fn thaw(&mut self) {
        let now = self.world.elapsed();
        for replica in self.replicas.iter_mut().chain(self.stopping.iter_mut().map(|(replica, _)| replica)) {
            if self.frozen.get(&replica.name).is_some_and(|until| *until <= now) {
                self.frozen.remove(&replica.name);
                self.world.note(&format!("{} goes on", replica.name));
                replica.thaw();
            }
        }
    }

    /// Looks who has ended: only who was asked to may.
    fn bury(&mut self) {
        let world = self.world.clone();
        for replica in &mut self.replicas {
            if let Some(ended) = replica.ended() {
                let what = format!("{} ended unasked: {ended:?}", replica.name);
                world.check(|checker| checker.violate("the relay ends", &what));
            }
        }
        self.stopping.retain_mut(|(replica, since)| match replica.ended() {
            Some(Ok(())) => {
                world.note(&format!("{} has stopped", replica.name));
                world.check(|checker| checker.told(&replica.name, &replica.told));
                world.happened("clean stop");
                false
            }
            Some(Err(error)) => {
                world.check(|checker| checker.violate("the relay stops", &format!("{}: {error}", replica.name)));
                false
            }
            None if world.elapsed() > *since + STOPS_WITHIN => {
                let what = format!("{} does not end", replica.name);
                world.check(|checker| checker.violate("the relay stops", &what));
                false
            }
            None => true,
        });
    }

    fn any(&self) -> usize {
        usize::try_from(self.world.chance.below(self.replicas.len() as u64)).unwrap()
    }

    fn strike(&mut self) {
        let world = self.world.clone();
        match world.chance.below(5) {
            0 | 1 if self.replicas.len() < self.plan.replicas_max => self.start(),
            2 => {
                let place = self.any();
                if self.replicas[place].is_frozen() {
                    return;
                }
                let replica = self.replicas.remove(place);
                world.note(&format!("{} is asked to stop", replica.name));
                replica.stop();
                self.stopping.push((replica, world.elapsed()));
            }
            3 if self.plan.has(Fault::Crash) => {
                let place = self.any();
                let replica = self.replicas.remove(place);
                self.frozen.remove(&replica.name);
                world.note(&format!("{} crashes", replica.name));
                world.happened("crash");
            }
            4 if self.plan.has(Fault::Pause) => {
                let place = self.any();
                let replica = &mut self.replicas[place];
                if !replica.is_frozen() {
                    world.note(&format!("{} stands still", replica.name));
                    world.happened("replica stood still");
                    replica.freeze();
                    self.frozen.insert(replica.name.clone(), world.elapsed() + world.chance.up_to(FROZEN_MAX));
                }
            }
            _ => {}
        }
        // A single replica that stops hands nothing over: the next one begins when it has ended.
        while self.plan.replicas_max == 1 && !self.stopping.is_empty() {
            self.step(STEPS[0]);
        }
        if self.replicas.is_empty() {
            self.start();
        }
    }

    fn start(&mut self) {
        self.started += 1;
        let (name, chance) = (format!("replica-{}", self.started), &self.world.chance);
        let mut rate = 1.0;
        let mut wall = self.world.now();
        if self.plan.has(Fault::Clocks) {
            rate = 1.0 + (f64::from(u32::try_from(chance.below(2 * RATE_PERCENT + 1)).unwrap()) - 5.0) / 100.0;
            wall = wall.plus(chance.up_to(SKEW_MAX));
        }
        self.world.note(&format!("{name} begins, its clock goes at {rate}"));
        let (plan, world) = (self.plan.clone(), self.world.clone());
        let made = Replica::start(name.clone(), rate, || relay(&plan, &world, &name, &Clock::starting_at(wall)));
        self.replicas.push(made);
    }
}

fn relay(plan: &Arc<Plan>, world: &World, replica: &str, clock: &Clock) -> Relay {
    let faulty = Arc::new(Faulty::new(world.clone(), plan.clone(), replica.to_owned()));
    let ports = faulty.clone();
    let scan_progress = ScanProgress::default();
    let ports = RelayPorts {
        scan: Arc::new(FaultyScan::new(ports.clone(), scan_progress.clone())),
        scan_progress,
        jobs: ports.clone(),
        lives: ports.clone(),
        stream: ports.clone(),
        events: ports.clone(),
        positions: ports.clone(),
        marks: ports.clone(),
        fleet: ports.clone(),
        registry: ports.clone(),
        clock: clock.clone(),
        random: world.chance.clone(),
        health: Health::default(),
    };
    let specs = kinds().into_iter().map(|kind| spec(kind, &faulty, clock)).collect();
    let settings = RelaySettings {
        memory_limit_bytes: if plan.tight { 24_000 } else { 64 << 20 },
        replica_name: replica.to_owned(),
        ..RelaySettings::default()
    };
    Relay::new(ports, settings, specs).unwrap()
}

fn spec(kind: Kind, faulty: &Faulty, clock: &Clock) -> HandlerSpec {
    let Kind(called, start, subscription, slowness_ms, group, flush_ms, on_failure) = kind;
    let receiver = Receiver {
        world: faulty.world.clone(),
        plan: faulty.plan.clone(),
        name: name(called),
        replica: faulty.name.clone(),
        slowness: Duration::from_millis(slowness_ms),
        group,
        outages: (called == "billing").then_some(Duration::from_secs(9)),
        healed_after: TROUBLE,
    };
    let handler: Arc<dyn Handler> = if called == LEDGER {
        Arc::new(Ledger::new(receiver, faulty.again(), clock.clone()))
    } else {
        Arc::new(receiver)
    };
    let settings = LaneSettings {
        flush_interval: Duration::from_millis(flush_ms),
        filtered_flush: 4,
        checkpoint_interval: Duration::from_secs(2),
        queued_bytes_max: 2000,
        idle_roots_max: 4,
        careful_events: 5,
        on_failure,
        checkpoint_hold: Duration::from_secs(4),
        mark_ttl: Duration::from_secs(8),
        ..LaneSettings::default()
    };
    HandlerSpec { name: name(called), handler, start, subscription, settings }
}
