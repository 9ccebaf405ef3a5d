//! The simulation: the real relay over ports in memory, on one thread and a paused clock, with faults drawn from a
//! seed, and a checker that follows every event and judges the delivery contract (design section 2).
//!
//! A seed replays byte for byte. `ANGZARR_SIM_SEEDS=from..to` runs other seeds than the usual ones; a failure names
//! its seed and prints the last of its trace.
#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod checker;
mod faults;
mod faulty_fleet;
mod fleet_rows;
mod isolation;
mod receiver;
mod scenario;
mod shard_end;
mod store;
mod taking;
mod unread;
mod world;

use scenario::{Outcome, Plan, run};

/// The seeds every test run takes.
const SEEDS: std::ops::Range<u64> = 0..150;

fn seeds() -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("ANGZARR_SIM_SEEDS") else { return SEEDS };
    let (from, to) = asked.split_once("..").expect("ANGZARR_SIM_SEEDS is FROM..TO");
    from.parse().expect("FROM is a number")..to.parse().expect("TO is a number")
}

fn check(plan: impl Fn(u64) -> Plan) {
    for seed in seeds() {
        let Outcome { violations, trace, .. } = run(plan(seed));
        if !violations.is_empty() {
            let shown = trace
                .iter()
                .rev()
                .take(std::env::var("ANGZARR_SIM_LINES").map_or(60, |lines| lines.parse().unwrap_or(60)))
                .rev()
                .cloned()
                .collect::<Vec<_>>()
                .join("\n");
            panic!("seed {seed} breaks the contract:\n{}\n\nthe last of its trace:\n{shown}", violations.join("\n"));
        }
    }
}

#[test]
fn the_contract_holds_under_faults() {
    check(Plan::faulty);
}

#[test]
fn the_contract_holds_without_faults() {
    check(Plan::calm);
}

#[test]
fn the_contract_holds_for_replicas_side_by_side_under_faults() {
    check(|seed| Plan::faulty(seed).side_by_side());
}

#[test]
fn the_contract_holds_for_replicas_that_come_and_go_without_faults() {
    check(|seed| Plan::calm(seed).side_by_side());
}

#[test]
fn a_seed_replays_byte_for_byte() {
    for seed in [1, 7, 42] {
        let (first, second) = (run(Plan::faulty(seed)), run(Plan::faulty(seed)));
        assert!(first.trace.len() > 100, "a trace that shows something");
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
    assert_ne!(run(Plan::faulty(1)).trace, run(Plan::faulty(2)).trace);
}

#[test]
fn the_faults_really_happen() {
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for seed in 0..60 {
        for (what, count) in run(Plan::faulty(seed)).happened {
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
        "page scanned",
        "event given alone",
        "payload in chunks",
        "scan throttled",
        "backfill",
        "reconcile",
    ] {
        assert!(seen.get(what).is_some_and(|count| *count > 0), "{what} never happened: {seen:?}");
    }
}
