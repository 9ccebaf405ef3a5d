//! Rows that cannot be read: their root stops, nothing else does (design section 5, Invalid rows).

use std::collections::BTreeSet;

use super::rig::{LANE, Rig, ev, evs, settings};
use crate::lane::{LaneSettings, OnFailure, OnInvalid};

#[test]
fn a_row_that_cannot_be_read_stops_its_root_only() {
    let mut rig = Rig::new();
    rig.page([ev("a", 0), ev("a", 1).invalid(), ev("a", 2), ev("b", 0)]);
    rig.rest();
    assert_eq!((rig.of("a"), rig.of("b"), rig.lanes.stuck().blocked), (vec![0], vec![0], 1));
    assert_eq!((rig.position("a"), rig.checkpoint(LANE)), (Some(0), None));
    assert!(!rig.lanes.sees_another_schema());
}

#[test]
fn a_mended_row_goes_on() {
    let mut rig = Rig::new();
    rig.page([ev("a", 0), ev("a", 1).invalid(), ev("a", 2)]);
    rig.rest();
    rig.write([ev("a", 1)]);
    rig.rest();
    assert_eq!((rig.of("a"), rig.lanes.stuck().blocked, rig.checkpoint(LANE)), (vec![0, 1, 2], 0, Some(3)));
}

#[test]
fn a_row_that_cannot_be_read_is_found_by_repair_as_well() {
    let mut rig = Rig::new();
    rig.write([ev("a", 1).invalid()]);
    rig.page([ev("a", 0)]);
    rig.page([ev("a", 2)]);
    rig.rest();
    assert_eq!((rig.of("a"), rig.lanes.stuck().blocked), (vec![0], 1));
    rig.write([ev("a", 1)]);
    rig.rest();
    assert_eq!((rig.of("a"), rig.lanes.stuck().blocked), (vec![0, 1, 2], 0));
}

#[test]
fn the_first_hundred_rows_all_unreadable_are_another_schema() {
    let mut rig = Rig::new();
    for root in 0..99 {
        rig.page([ev(&root.to_string(), 0).invalid()]);
    }
    assert!(!rig.lanes.sees_another_schema());
    rig.page([ev("99", 0).invalid()]);
    assert!(rig.lanes.sees_another_schema());
    rig.rest();
    assert_eq!(rig.checkpoint(LANE), None, "the checkpoint is held");
    rig.page([ev("good", 0)]);
    assert!(!rig.lanes.sees_another_schema());
}

#[test]
fn one_readable_row_before_makes_them_stopped_roots() {
    let mut rig = Rig::new();
    rig.page([ev("good", 0)]);
    rig.page((0..200).map(|root| ev(&root.to_string(), 0).invalid()).collect::<Vec<_>>());
    assert!(!rig.lanes.sees_another_schema());
    assert_eq!(rig.lanes.stuck().blocked, 200);
}

#[test]
fn a_row_that_cannot_be_read_from_before_the_start_is_not_the_handlers() {
    // Where it lies follows from what stands behind it, whenever that arrives.
    for (invalid, first) in [(vec![0], 0), (vec![0], 1), (vec![0, 1], 0), (vec![1], 2)] {
        let rows: Vec<_> = (0..4_u64)
            .map(|sequence| ev("a", sequence).at(if sequence < 3 { 100 } else { 600 }))
            .enumerate()
            .map(|(at, event)| if invalid.contains(&at) { event.invalid() } else { event })
            .collect();
        let mut rig = Rig::starting_at(500);
        rig.page(&rows[first..=first]);
        rig.millis(1000);
        for row in &rows {
            rig.page([row.clone()]);
        }
        rig.rest();
        assert_eq!(rig.of("a"), [3], "{invalid:?} cannot be read, {first} came first");
        assert_eq!(rig.lanes.stuck().blocked, 0);
    }
}

#[test]
fn many_rows_behind_one_that_stops_the_root_hold_no_memory() {
    let mut rig = Rig::new();
    rig.page([ev("a", 0).invalid()]);
    for sequence in 1..200 {
        rig.page([ev("a", sequence).sized(1000)]);
    }
    assert_eq!(rig.lanes.queued_bytes(), 0);
    rig.write([ev("a", 0)]);
    rig.rest();
    assert_eq!(rig.of("a"), (0..200).collect::<Vec<_>>());
    assert_eq!(evs("a", 0..200).len(), rig.of("a").len());
}

#[test]
fn a_row_that_cannot_be_read_is_passed_and_recorded_where_the_handler_says_so() {
    for block in [OnFailure::Block, OnFailure::Park] {
        let mut rig = Rig::with(LaneSettings { on_invalid: OnInvalid::Skip, on_failure: block, ..settings() });
        rig.page([ev("good", 0)]);
        rig.page([ev("a", 0), ev("a", 1).invalid(), ev("a", 2), ev("b", 0).invalid(), ev("b", 1)]);
        rig.rest();
        assert_eq!((rig.of("a"), rig.of("b")), (vec![0, 2], vec![1]));
        assert_eq!((rig.position("a"), rig.position("b"), rig.checkpoint(LANE)), (Some(2), Some(1), Some(6)));
        let skipped: BTreeSet<_> = rig.skips.iter().map(|(root, skip)| (root.id(), skip.sequence.0)).collect();
        assert_eq!(skipped, BTreeSet::from([("a", 1), ("b", 0)]));
    }
    // Of another schema nothing is passed.
    let mut rig = Rig::with(LaneSettings { on_invalid: OnInvalid::Skip, ..settings() });
    rig.page((0..100).map(|root| ev(&root.to_string(), 0).invalid()).collect::<Vec<_>>());
    rig.rest();
    assert!(rig.skips.is_empty() && rig.checkpoint(LANE).is_none());
}
