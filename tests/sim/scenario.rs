//! One run: a plan drawn from a seed, the relay's lives one after the other, the writer beside them, and the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use angzarr_relay::backfill::ScanProgress;
use angzarr_relay::event::Root;
use angzarr_relay::handler::HandlerName;
use angzarr_relay::lane::{Glob, LaneSettings, OnFailure, Pattern, Subscription, default_editions};
use angzarr_relay::relay::{HandlerSpec, Relay, RelayError, RelayPorts, RelaySettings};
use angzarr_relay::relay_table::Start;
use angzarr_relay::telemetry::Health;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::checker::Checker;
use crate::faults::{Faulty, FaultyScan};
use crate::receiver::Receiver;
use crate::world::World;

/// What is drawn for a run.
pub(crate) struct Plan {
    seed: u64,
    fault_percent: u64,
    lives: u64,
    roots: u64,
    appends: u64,
    /// Replicas run side by side, come and go; else one life follows the other.
    side_by_side: bool,
}

impl Plan {
    pub(crate) fn faulty(seed: u64) -> Self {
        Self {
            seed,
            fault_percent: 2 + seed % 8,
            lives: 1 + seed % 4,
            roots: 3 + seed % 12,
            appends: 120,
            side_by_side: false,
        }
    }

    pub(crate) fn calm(seed: u64) -> Self {
        Self { seed, fault_percent: 0, lives: 1 + seed % 3, roots: 5, appends: 60, side_by_side: false }
    }

    /// A shard that ends moves roots to others here; where two replicas meet on a root, what is not written yet comes again
    /// (clause 3 b). Without faults and beside others nothing is to come again.
    fn reshards(&self) -> bool {
        self.fault_percent > 0 || !self.side_by_side
    }

    /// Beside others no root is marked: what one lets go of because of another's mark is looked for 30 s later only, and is
    /// not covered until then (ARCHITECTURE, the life of a marked root).
    fn checkpoint_hold(&self) -> Duration {
        if self.side_by_side { Duration::from_hours(1) } else { Duration::from_secs(4) }
    }

    /// Up to four replicas at once.
    pub(crate) fn side_by_side(self) -> Self {
        Self { side_by_side: true, ..self }
    }
}

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Vec<String>,
    pub(crate) happened: BTreeMap<&'static str, usize>,
}

/// For so long faults strike; after it everything must come to rest.
const TROUBLE: Duration = Duration::from_mins(1);

/// The time everything has to come to rest: longer than the longest waits of the relay one after the other.
const REST: Duration = Duration::from_secs(400);

fn name(text: &str) -> HandlerName {
    HandlerName::new(text).unwrap()
}

fn subscriptions() -> BTreeMap<HandlerName, Subscription> {
    let pattern = |types: &[&str]| Pattern {
        domain: Glob::new("orders"),
        types: types.iter().map(|text| Glob::new(text)).collect(),
        editions: default_editions(),
    };
    BTreeMap::from([
        (name("view"), Subscription::everything()),
        (name("billing"), Subscription::new(vec![pattern(&["Order*"])])),
        (name("copy"), Subscription::new(vec![pattern(&["*"])])),
    ])
}

pub(crate) fn run(plan: Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async move {
        let world = World::new(plan.seed, if plan.reshards() { 1 } else { 4 }, Checker::new(subscriptions()));
        play(&plan, &world).await;
        world.check(Checker::at_rest);
        let again = world.check(|checker| checker.delivered_again);
        let mut happened = std::mem::take(&mut world.trace.lock().unwrap().happened);
        happened.insert("event delivered again", again);
        Outcome {
            violations: world.check(|checker| std::mem::take(&mut checker.violations)),
            trace: std::mem::take(&mut world.trace.lock().unwrap().lines),
            happened,
        }
    })
}

async fn play(plan: &Plan, world: &World) {
    let began = Instant::now();
    // What was written before there was a relay, or a stream; some roots are never written again.
    for root in 0..plan.roots + HISTORIC_ROOTS {
        for _ in 0..world.chance.below(4) {
            world.write_unstreamed(&root_of(root), &["OrderPlaced", "Noted", "OrderShipped"]);
        }
    }
    let mut writer =
        tokio::spawn(write(world.clone(), plan.roots, plan.appends, plan.fault_percent > 0, plan.reshards()));
    if plan.side_by_side {
        play_side_by_side(plan, world, began, &mut writer).await;
        return;
    }
    for life in 0..plan.lives {
        let last = life + 1 == plan.lives;
        world.check(Checker::life_begins);
        world.note(&format!("life {life} begins"));
        let cancel = CancellationToken::new();
        let relay = relay(plan, world, began);
        let mut running = tokio::spawn(relay.run(cancel.clone()));
        let length = TROUBLE.mul_f64(0.8) / u32::try_from(plan.lives).unwrap();
        if last {
            (&mut writer).await.unwrap();
            come_to_rest(world, began).await;
            cancel.cancel();
            running.await.unwrap().unwrap();
        } else if world.chance.percent(50) {
            sleep(length / 2 + world.chance.up_to(length / 2)).await;
            cancel.cancel();
            tokio::select! {
                biased;
                stopped = &mut running => stopped.unwrap().unwrap(),
                () = sleep(Duration::from_mins(2)) => panic!("a stop took longer than its grace period"),
            }
            // With faults the last writes may have failed within the grace period.
            if plan.fault_percent == 0 {
                world.check(Checker::stopped_cleanly);
            }
            world.happened("clean stop");
            world.note("stopped");
        } else {
            sleep(length / 2 + world.chance.up_to(length / 2)).await;
            running.abort();
            assert!(running.await.is_err());
            world.check(Checker::crashed);
            world.happened("crash");
            world.note("crashed");
        }
    }
}

/// Replicas there are at once, at the most.
const REPLICAS_MAX: usize = 4;

/// Replicas come, stop and, where there are faults, crash, while there is trouble; then they come to rest.
async fn play_side_by_side(plan: &Plan, world: &World, began: Instant, writer: &mut JoinHandle<()>) {
    let faulty = plan.fault_percent > 0;
    world.check(|checker| checker.side_by_side(faulty));
    let start = || {
        world.note("a replica begins");
        let cancel = CancellationToken::new();
        (tokio::spawn(relay(plan, world, began).run(cancel.clone())), cancel)
    };
    let mut replicas = vec![start()];
    let mut stopping: Vec<JoinHandle<Result<(), RelayError>>> = Vec::new();
    while began.elapsed() < TROUBLE {
        match world.chance.below(if faulty { 4 } else { 3 }) {
            0 | 1 if replicas.len() < REPLICAS_MAX => replicas.push(start()),
            2 if replicas.len() > 1 => {
                let place = usize::try_from(world.chance.below(replicas.len() as u64)).unwrap();
                let (running, cancel) = replicas.remove(place);
                world.note("a replica stops");
                world.happened("clean stop beside others");
                cancel.cancel();
                stopping.push(running);
            }
            3 if replicas.len() > 1 => {
                let place = usize::try_from(world.chance.below(replicas.len() as u64)).unwrap();
                let (running, _cancel) = replicas.remove(place);
                world.note("a replica crashes");
                world.happened("crash beside others");
                running.abort();
                assert!(running.await.is_err());
            }
            _ => {}
        }
        sleep(world.chance.up_to(TROUBLE / 5)).await;
    }
    writer.await.unwrap();
    come_to_rest(world, began).await;
    for (running, cancel) in replicas {
        cancel.cancel();
        stopping.push(running);
    }
    for running in stopping {
        tokio::select! {
            biased;
            stopped = running => stopped.unwrap().unwrap(),
            () = sleep(Duration::from_mins(2)) => panic!("a stop took longer than its grace period"),
        }
    }
}

/// Waits until every event was accepted, at most `REST` after the trouble; what is missing then the verdict shows.
async fn come_to_rest(world: &World, began: Instant) {
    let until = TROUBLE + REST;
    while began.elapsed() < until && !world.check(|checker| checker.missing().is_empty()) {
        sleep(Duration::from_secs(2)).await;
    }
    sleep(Duration::from_secs(10)).await;
}

/// Roots that have a past and no present.
const HISTORIC_ROOTS: u64 = 6;

fn root_of(number: u64) -> Root {
    let domain = if number % 5 == 4 { "stock" } else { "orders" };
    Root::new(domain, "", &format!("r{number}")).unwrap()
}

async fn write(world: World, roots: u64, appends: u64, faults: bool, reshards: bool) {
    let types = ["OrderPlaced", "OrderShipped", "Noted", "Noted"];
    let pause = TROUBLE / u32::try_from(appends).unwrap();
    for _ in 0..appends {
        let root = root_of(world.chance.below(roots));
        let count = 1 + world.chance.below(4);
        let chosen: Vec<&str> = (0..count).map(|_| types[usize::try_from(world.chance.below(4)).unwrap()]).collect();
        world.append(&root, &chosen, faults);
        if world.chance.percent(5) {
            world.push_noise();
        }
        if reshards && world.chance.percent(6) {
            world.reshard();
        }
        if faults && world.chance.percent(2) {
            world.trim();
        }
        sleep(world.chance.up_to(pause * 2)).await;
    }
    // What was lost on the stream is found with the next event of its root; each gets one that arrives.
    sleep(TROUBLE / 4).await;
    for root in (0..roots).map(root_of) {
        world.append(&root, &["OrderClosed"], false);
    }
}

fn relay(plan: &Plan, world: &World, began: Instant) -> Relay {
    let ports = Arc::new(Faulty::new(world.clone(), plan.fault_percent));
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
        registry: ports,
        clock: world.clock.clone(),
        random: world.chance.clone(),
        health: Health::default(),
    };
    let handlers = (subscriptions().into_iter().enumerate())
        .map(|(index, (name, subscription))| {
            let handler = Receiver {
                world: world.clone(),
                name: name.clone(),
                percent: plan.fault_percent,
                slowness: Duration::from_millis([5, 1, 400][index]),
                group: [1, 1, 4][index],
                outages: (plan.fault_percent > 5 && index == 1).then_some(Duration::from_secs(9)),
                began,
                healed_after: TROUBLE,
            };
            let flush_interval = Duration::from_millis([1000, 0, 300][index]);
            let settings = LaneSettings {
                flush_interval,
                filtered_flush: 4,
                checkpoint_interval: Duration::from_secs(2),
                queued_bytes_max: 2000,
                idle_roots_max: 4,
                careful_events: 5,
                on_failure: OnFailure::Block,
                checkpoint_hold: plan.checkpoint_hold(),
                ..LaneSettings::default()
            };
            HandlerSpec { name, handler: Arc::new(handler), start: Start::Beginning, subscription, settings }
        })
        .collect();
    let settings = RelaySettings {
        memory_limit_bytes: if plan.seed.is_multiple_of(2) { 24_000 } else { 64 << 20 },
        ..RelaySettings::default()
    };
    Relay::new(ports, settings, handlers).unwrap()
}
