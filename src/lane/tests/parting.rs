//! Lanes that are given up or taken over while their roots are held by others, or something of them is under way.

use super::rig::{Answer, Kind, LANE, OTHER, Rig, Writes, branch_of, ev, evs, settings};
use crate::lane::{LaneSettings, OnFailure, Opening};
use crate::stream::{LaneId, StreamPoint};

const LONG: u64 = 10_000;

fn parking() -> LaneSettings {
    LaneSettings { on_failure: OnFailure::Park, attempts_max: 3, ..settings() }
}

fn taken(lane: LaneId) -> Opening {
    Opening { after: StreamPoint::Horizon, branch: Some(branch_of(lane)), taken: true }
}

#[test]
fn what_was_begun_for_both_is_waited_for_when_the_other_needs_it_no_more() {
    let mut rig = Rig::new();
    rig.open(OTHER);
    rig.hold(Kind::Deliver);
    rig.page_of(OTHER, [ev("r", 0)]);
    rig.page([ev("r", 1)]);
    rig.close(LANE, LONG);
    rig.hold(Kind::Flush);
    rig.release_one(Kind::Deliver);
    assert_eq!(rig.of("r"), [0, 1], "the other lane's is not durable yet");
    rig.release(Kind::Flush);
    assert_eq!((rig.position("r"), rig.closed.len()), (Some(0), 0));
    rig.release(Kind::Deliver);
    assert_eq!((rig.position("r"), rig.closed.as_slice()), (Some(1), &[(LANE, true)][..]));
    assert_eq!(rig.checkpoint(LANE), Some(2));
}

#[test]
fn a_hole_that_only_the_lane_has_shown_is_no_others() {
    let mut rig = Rig::with(parking());
    rig.open(OTHER);
    rig.page_of(OTHER, [ev("r", 0)]);
    rig.page([ev("r", 2)]);
    rig.millis(500);
    rig.close(LANE, LONG);
    rig.rest();
    assert_eq!((rig.closed.as_slice(), rig.mark("r"), rig.position("r")), (&[(LANE, true)][..], None, Some(0)));
    assert_eq!(rig.checkpoint(OTHER), Some(1));
}

#[test]
fn a_mark_that_may_be_gone_covers_nothing() {
    let mut rig = Rig::with(parking());
    rig.script("r", [Answer::Permanent]);
    rig.page([ev("r", 0)]);
    rig.rest();
    rig.hold(Kind::Mark);
    rig.release_parked("r", false);
    rig.rest();
    // It is taken away, and nobody is told.
    rig.writes = Writes::LoseReplies;
    rig.release(Kind::Mark);
    rig.page([ev("r", 1)]);
    rig.writes = Writes::Work;
    rig.close(LANE, LONG);
    rig.rest();
    assert_eq!((rig.closed.as_slice(), rig.checkpoint(LANE), rig.of("r")), (&[(LANE, true)][..], Some(1), vec![0, 0]));
}

#[test]
fn a_mark_that_fails_as_the_lane_closes_is_not_tried_again() {
    let mut rig = Rig::with(parking());
    rig.script("bad", [Answer::Permanent]);
    rig.hold(Kind::Mark);
    rig.page([ev("bad", 0)]);
    rig.close(LANE, LONG);
    rig.writes = Writes::Fail;
    rig.release(Kind::Mark);
    assert_eq!(rig.closed, [(LANE, true)]);
    rig.writes = Writes::Work;
    rig.rest();
    assert_eq!((rig.mark("bad"), rig.checkpoint(LANE)), (None, None));
}

#[test]
fn a_position_that_comes_to_be_written_after_its_lane_is_gone_counts() {
    let mut rig = Rig::new();
    rig.page(evs("r", 0..3));
    rig.rest();
    rig.hold(Kind::Flush);
    rig.page([ev("r", 3)]);
    rig.millis(1_000);
    rig.close(LANE, 0);
    assert_eq!(rig.closed, [(LANE, false)]);
    rig.open_as(OTHER, taken(OTHER));
    rig.page_of(OTHER, evs("r", 0..3));
    rig.release(Kind::Flush);
    rig.page_of(OTHER, [ev("r", 3)]);
    rig.rest();
    assert_eq!((rig.of("r"), rig.checkpoint(OTHER)), (vec![0, 1, 2, 3], Some(8)));
}

#[test]
fn a_root_that_waits_for_its_turn_is_asked_again_before_it_is_given() {
    let mut rig = Rig::new();
    rig.script("down", [Answer::Unavailable]);
    rig.page([ev("down", 0)]);
    rig.page([ev("r", 0)]);
    assert!(rig.of("r").is_empty(), "the receiver is down");
    rig.open_as(OTHER, taken(OTHER));
    rig.elsewhere("r", 0);
    rig.page_of(OTHER, [ev("r", 1)]);
    rig.rest();
    assert_eq!((rig.of("r"), rig.position("r")), (vec![1], Some(1)));
}

#[test]
fn what_was_accepted_is_written_before_an_operators_order_is_followed() {
    let mut rig = Rig::new();
    rig.hold(Kind::Flush);
    rig.page(evs("r", 0..2));
    rig.elsewhere("r", 0);
    rig.rewind("r", 0);
    rig.write([ev("r", 2)]);
    rig.hold(Kind::Deliver);
    rig.page([ev("r", 3)]);
    rig.millis(300);
    assert_eq!((rig.held(Kind::Flush), rig.held(Kind::Deliver)), (1, 0), "it was looked up for the gap");
    rig.release(Kind::Flush);
    assert_eq!(rig.position("r"), Some(1));
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!((rig.of("r"), rig.mark("r"), rig.position("r")), (vec![0, 1, 0, 1, 2, 3], None, Some(3)));
}

#[test]
fn a_root_that_fails_again_keeps_the_branch_it_was_met_on() {
    let mut rig = Rig::with(parking());
    rig.open(OTHER);
    rig.always("r", Answer::Permanent);
    rig.page([ev("r", 0)]);
    rig.hold(Kind::Deliver);
    rig.release_parked("r", false);
    rig.page_of(OTHER, [ev("r", 1)]);
    rig.release(Kind::Deliver);
    rig.rest();
    assert!(rig.of("r").len() > 1, "it is tried again, and fails");
    assert_eq!(rig.mark("r").map(|mark| mark.branch.clone()), Some(Some(branch_of(LANE))));
}
