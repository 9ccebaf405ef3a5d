//! The simulation: the real relay over ports in memory, on one thread and a paused clock, with faults drawn from a
//! seed, and a checker that follows every event and judges the delivery contract (design section 2).
//!
//! A seed replays byte for byte. `ANGZARR_SIM_SEEDS=from..to` runs other seeds than the usual ones; a failure names
//! its seed and prints the last of its trace.
#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod checker;
mod faulty;
mod faulty_fleet;
mod faulty_stream;
mod faulty_tables;
mod fleet_rows;
mod isolation;
mod ledger;
mod operator;
mod plan;
mod receiver;
mod replica;
mod scenario;
mod shard_end;
mod store;
mod taking;
#[cfg(debug_assertions)]
mod teeth;
mod told;
mod unread;
mod world;
mod writer;

use plan::{Plan, shrink};
use scenario::{Outcome, run};

/// The seeds every test run takes, with faults and without.
const FAULTY: std::ops::Range<u64> = 0..500;
const CALM: std::ops::Range<u64> = 0..100;

/// The tests that share the seeds, so that no core stands idle.
const PARTS: u64 = 4;

/// The seeds that are asked for by `ANGZARR_SIM_SEEDS`.
fn asked_seeds() -> Option<std::ops::Range<u64>> {
    let asked = std::env::var("ANGZARR_SIM_SEEDS").ok()?;
    let (from, to) = asked.split_once("..").expect("ANGZARR_SIM_SEEDS is FROM..TO");
    Some(from.parse().expect("FROM is a number")..to.parse().expect("TO is a number"))
}

/// The seeds of a part.
fn seeds(usual: std::ops::Range<u64>, part: u64) -> impl Iterator<Item = u64> {
    asked_seeds().unwrap_or(usual).filter(move |seed| seed % PARTS == part)
}

/// So many seeds that break the contract are enough to look at.
const FAILURES_MAX: usize = 20;

/// Plays the plans of these seeds. Of those that break the contract the one with the shortest trace is made smaller, and
/// its trace is shown.
fn check(seeds: impl Iterator<Item = u64>, plan: impl Fn(u64) -> Plan) {
    let mut broken: Vec<(Plan, Outcome)> = Vec::new();
    for plan in seeds.map(plan) {
        let outcome = run(&plan);
        if !outcome.violations.is_empty() && broken.len() < FAILURES_MAX {
            broken.push((plan, outcome));
        }
    }
    broken.sort_by_key(|(_, outcome)| outcome.trace.len());
    let Some((plan, outcome)) = broken.first() else { return };
    let clause = outcome.violations[0].split(':').next().unwrap().to_owned();
    let breaks = |plan: &Plan| run(plan).violations.iter().any(|found| found.starts_with(&clause));
    let is_whole = std::env::var_os("ANGZARR_SIM_WHOLE").is_some();
    let small = if is_whole { plan.clone() } else { shrink(plan.clone(), breaks) };
    let Outcome { violations, trace, .. } = run(&small);
    let lines = std::env::var("ANGZARR_SIM_LINES").map_or(80, |lines| lines.parse().unwrap());
    let shown = trace[trace.len().saturating_sub(lines)..].join("\n");
    let all: Vec<String> =
        broken.iter().map(|(plan, outcome)| format!("seed {}: {}", plan.seed, outcome.violations[0])).collect();
    let all = all.join("\n");
    panic!(
        "the contract is broken:\n{all}\n\nthe shortest, made smaller: {small}\n{}\n\nthe last of its trace of {} lines:\n{shown}",
        violations.join("\n"),
        trace.len(),
    );
}

/// A test for each part.
macro_rules! in_parts {
    ($name:ident, $seeds:expr, $plan:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn first() {
                check(seeds($seeds, 0), $plan);
            }

            #[test]
            fn second() {
                check(seeds($seeds, 1), $plan);
            }

            #[test]
            fn third() {
                check(seeds($seeds, 2), $plan);
            }

            #[test]
            fn fourth() {
                check(seeds($seeds, 3), $plan);
            }
        }
    };
}

in_parts!(the_contract_holds_under_faults, FAULTY, Plan::faulty);
in_parts!(the_contract_holds_without_faults, CALM, Plan::calm);

#[test]
fn a_seed_replays_byte_for_byte() {
    for seed in [1, 7, 42] {
        let (first, second) = (run(&Plan::faulty(seed)), run(&Plan::faulty(seed)));
        assert!(first.trace.len() > 100, "a trace that shows something");
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
    assert_ne!(run(&Plan::faulty(1)).trace, run(&Plan::faulty(2)).trace);
}

#[test]
fn the_faults_really_happen() {
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for seed in 0..60 {
        for (what, count) in run(&Plan::faulty(seed)).happened {
            *seen.entry(what).or_default() += count;
        }
    }
    for what in [
        "crash",
        "clean stop",
        "shard rolled",
        "shard split",
        "record dropped",
        "transaction reordered",
        "page repeated",
        "iterator expired",
        "stream throttled",
        "write lost its reply",
        "table unavailable",
        "root marked",
        "handler failed",
        "handler panicked",
        "handler hung",
        "receiver down",
        "event poisoned",
        "event delivered again",
        "stream trimmed",
        "last of a shard lost",
        "page scanned",
        "event given alone",
        "payload in chunks",
        "scan throttled",
        "backfill",
        "reconcile",
        "replica stood still",
        "call arrived late",
        "children not listed",
        "item collection divided",
        "part of a batch taken",
        "transaction repeated",
        "transaction refused",
        "event skipped",
        "handler paused",
        "root ordered back",
        "parked root released",
        "parked event passed",
    ] {
        assert!(seen.get(what).is_some_and(|count| *count > 0), "{what} never happened: {seen:?}");
    }
}
