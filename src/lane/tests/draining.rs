//! A clean stop: nothing new starts, what was accepted is written, checkpoints come last, nothing comes twice (clause
//! 3).

use std::time::Duration;

use super::rig::{Answer, Kind, LANE, Rig, Writes, ev, evs, settings};
use crate::lane::LaneSettings;

#[test]
fn a_stop_writes_positions_then_checkpoints() {
    let mut rig = Rig::new();
    rig.page([evs("a", 0..3), evs("b", 0..2)].concat());
    assert!(rig.flushes.is_empty() && !rig.lanes.is_drained());
    rig.hold(Kind::Flush);
    rig.lanes.drain(rig.now);
    rig.run();
    assert_eq!((rig.held(Kind::Flush), rig.checkpoints.len()), (1, 0), "positions first");
    assert!(!rig.lanes.is_drained());
    rig.release(Kind::Flush);
    assert_eq!((rig.position("a"), rig.position("b"), rig.checkpoint(LANE)), (Some(2), Some(1), Some(5)));
    assert!(rig.lanes.is_drained());
}

#[test]
fn nothing_new_starts() {
    let mut rig = Rig::with(LaneSettings { max_in_flight: 1, ..settings() });
    rig.hold(Kind::Deliver);
    rig.write(evs("gap", 0..1));
    rig.page([ev("a", 0), ev("b", 0), ev("gap", 1)]);
    rig.lanes.drain(rig.now);
    assert!(!rig.lanes.wants_page());
    rig.millis(500);
    assert_eq!((rig.delivered.len(), rig.repairs.len()), (1, 0));
    assert!(!rig.lanes.is_drained(), "one is with the handler");
    rig.release(Kind::Deliver);
    assert_eq!((rig.delivered.len(), rig.position("a"), rig.checkpoint(LANE)), (1, Some(0), None));
    assert!(rig.lanes.is_drained());
}

#[test]
fn an_answer_during_the_stop_is_written_whatever_it_is() {
    for (answer, position) in [
        (Answer::All, Some(1)),
        (Answer::Take(1), Some(0)),
        (Answer::Retry, None),
        (Answer::Unavailable, None),
        (Answer::Permanent, None),
    ] {
        for flush_interval in [Duration::ZERO, Duration::from_secs(1)] {
            let mut rig = Rig::with(LaneSettings { flush_interval, ..settings() });
            rig.hold(Kind::Deliver);
            rig.page(evs("a", 0..2));
            rig.lanes.drain(rig.now);
            rig.run();
            rig.script("a", [answer]);
            rig.release(Kind::Deliver);
            assert!(rig.lanes.is_drained(), "{answer:?}");
            assert_eq!(rig.position("a"), position, "{answer:?}");
        }
    }
}

#[test]
fn deliveries_given_up_hold_nobody() {
    let mut rig = Rig::new();
    rig.page([ev("b", 0)]);
    rig.hold(Kind::Deliver);
    rig.page([ev("a", 0)]);
    rig.lanes.drain(rig.now);
    rig.run();
    assert!(!rig.lanes.is_drained());
    rig.lanes.give_up_in_flight();
    rig.run();
    assert!(rig.lanes.is_drained());
    assert_eq!((rig.position("b"), rig.checkpoint(LANE)), (Some(0), Some(1)));
}

#[test]
fn writes_that_fail_during_the_stop_are_tried_again() {
    let mut rig = Rig::new();
    rig.page(evs("a", 0..3));
    rig.writes = Writes::Fail;
    rig.lanes.drain(rig.now);
    rig.run();
    assert!(!rig.lanes.is_drained());
    rig.writes = Writes::Work;
    rig.millis(500);
    assert!(rig.lanes.is_drained());
    assert_eq!((rig.position("a"), rig.checkpoint(LANE)), (Some(2), Some(3)));
}

#[test]
fn a_checkpoint_under_way_is_followed_by_the_last_one() {
    let mut rig = Rig::new();
    rig.hold(Kind::Checkpoint);
    rig.page(evs("a", 0..1));
    rig.millis(6000);
    assert_eq!(rig.held(Kind::Checkpoint), 1);
    rig.page(evs("a", 1..3));
    rig.lanes.drain(rig.now);
    rig.run();
    assert!(!rig.lanes.is_drained());
    rig.release(Kind::Checkpoint);
    assert!(rig.lanes.is_drained());
    assert_eq!(rig.checkpoint(LANE), Some(3));
}

#[test]
fn after_a_clean_stop_nothing_comes_again() {
    let mut rig = Rig::new();
    rig.page(evs("a", 0..5));
    rig.page(evs("b", 0..5));
    rig.lanes.drain(rig.now);
    rig.run();
    let mut again = Rig::new();
    again.contract.table = rig.contract.table.clone();
    again.contract.positions = rig.contract.positions.clone();
    again.show(LANE, [evs("a", 0..5), evs("b", 0..6)].concat(), false);
    again.rest();
    assert!(again.of("a").is_empty());
}

#[test]
fn a_stop_with_nothing_to_do_is_done() {
    let mut rig = Rig::new();
    rig.lanes.drain(rig.now);
    assert!(rig.lanes.is_drained());
}
