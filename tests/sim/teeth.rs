//! Whether the simulation has teeth: small mistakes are made in the relay on purpose (`failpoint`), and each must be
//! found within so many seeds, as a breach of its clause.

use std::ops::Range;

use angzarr_relay::failpoint::{self, Failpoint};

use crate::asked_seeds;
use crate::plan::Plan;
use crate::scenario::run;

/// A mistake, the beginning of what the checker says of it, and the seeds within which it must be found. What hardly a seed
/// shows (one in some hundreds) is looked for from near one that does.
struct Tooth(Failpoint, &'static str, Range<u64>, fn(u64) -> Plan);

const TEETH: [Tooth; 17] = [
    Tooth(Failpoint::UnconditionalPosition, "4:", 0..20, Plan::faulty),
    Tooth(Failpoint::CheckpointAheadOfFlush, "5:", 0..5, Plan::faulty),
    Tooth(Failpoint::ArrivalOrder, "1:", 0..5, Plan::faulty),
    Tooth(Failpoint::RetryOvertakes, "1:", 0..5, Plan::faulty),
    Tooth(Failpoint::EpochNotRaised, "8:", 0..5, Plan::faulty),
    Tooth(Failpoint::FenceNotAsked, "8:", 0..60, Plan::faulty),
    Tooth(Failpoint::MarkForgottenAtOnce, "5:", 390..400, Plan::faulty),
    Tooth(Failpoint::PositionsNotLoaded, "3:", 0..5, Plan::calm),
    Tooth(Failpoint::LossNotTold, "2:", 0..20, Plan::faulty),
    Tooth(Failpoint::EmptyPageEnds, "5:", 0..5, Plan::faulty),
    Tooth(Failpoint::OutageCounts, "13:", 0..20, Plan::faulty),
    Tooth(Failpoint::StartNotAsked, "10:", 0..5, Plan::calm),
    Tooth(Failpoint::RewindIgnored, "12:", 0..10, Plan::faulty),
    Tooth(Failpoint::StoodNotAsked, "3:", 0..30, Plan::faulty),
    Tooth(Failpoint::PartCountsAsAll, "4:", 0..10, Plan::faulty),
    Tooth(Failpoint::SkipNotCounted, "11:", 0..10, Plan::faulty),
    Tooth(Failpoint::AppliedNotAsked, "9:", 0..10, Plan::faulty),
];

/// The mistake is made for as long as this lives.
struct Mistake;

impl Mistake {
    fn make(failpoint: Failpoint) -> Self {
        failpoint::set(Some(failpoint));
        Self
    }
}

impl Drop for Mistake {
    fn drop(&mut self) {
        failpoint::set(None);
    }
}

#[test]
fn every_mistake_is_found() {
    let mut missed = Vec::new();
    let asked = std::env::var("ANGZARR_SIM_MISTAKE").ok();
    for Tooth(failpoint, clause, seeds, plan) in TEETH {
        if asked.as_ref().is_some_and(|asked| *asked != format!("{failpoint:?}")) {
            continue;
        }
        let _mistake = Mistake::make(failpoint);
        let seeds = asked_seeds().unwrap_or(seeds);
        let found = seeds.clone().find_map(|seed| {
            let violations = run(&plan(seed)).violations;
            violations.into_iter().find(|found| found.starts_with(clause)).map(|found| (seed, found))
        });
        match found {
            Some((seed, found)) => eprintln!("{failpoint:?}: seed {seed}: {found}"),
            None => missed.push(format!("{failpoint:?} is not found by the seeds {seeds:?}")),
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
