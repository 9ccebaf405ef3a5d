//! What is remembered of roots holds no longer than the lease it was read under.

use std::collections::HashMap;
use std::sync::Arc;

use super::rig::{Answer, Kind, LANE, OTHER, Rig, branch_of, ev, evs, root_of, settings};
use crate::event::Sequence;
use crate::lane::{KnownPositions, LaneSettings, Opening};
use crate::storage::{MarkState, Standing};
use crate::stream::{LaneId, StreamPoint};

fn opening(lane: LaneId, taken: bool) -> Opening {
    Opening { after: StreamPoint::Horizon, branch: Some(branch_of(lane)), taken }
}

/// A segment of a job.
fn segment() -> Opening {
    Opening { after: StreamPoint::Horizon, branch: None, taken: false }
}

#[test]
fn a_lane_that_was_taken_over_begins_with_what_the_table_says() {
    for (taken, delivered) in [(false, vec![0, 1]), (true, vec![0])] {
        let mut rig = Rig::new();
        rig.page([ev("r", 0)]);
        rig.rest();
        rig.elsewhere("r", 1);
        rig.open_as(OTHER, opening(OTHER, taken));
        rig.page_of(OTHER, [ev("r", 1)]);
        rig.rest();
        assert_eq!(rig.of("r"), delivered, "taken over: {taken}");
    }
}

#[test]
fn what_was_written_long_ago_may_be_covered_by_others_meanwhile() {
    for (at_head, delivered) in [(true, vec![0, 1]), (false, vec![0])] {
        let mut rig = Rig::new();
        rig.page([ev("r", 0)]);
        rig.rest();
        rig.elsewhere("r", 1);
        rig.at_head = at_head;
        rig.page([ev("r", 1)]);
        rig.rest();
        assert_eq!(rig.of("r"), delivered, "the shard was read to its head just before: {at_head}");
    }
}

#[test]
fn what_waited_long_for_its_turn_is_asked_once_and_keeps_it() {
    let mut rig = Rig::with(LaneSettings { max_in_flight: 1, ..settings() });
    rig.hold(Kind::Deliver);
    let roots = ["slow", "covered", "a", "b", "c"];
    rig.page(roots.map(|root| ev(root, 0)));
    rig.millis(60_000);
    rig.elsewhere("covered", 0);
    for (asked, delivered) in [(2, 2), (3, 3), (4, 4), (4, 4)] {
        rig.release_one(Kind::Deliver);
        assert_eq!((rig.loads, rig.delivered.len()), (roots.len() + asked, delivered));
    }
    assert_eq!(rig.delivered.iter().map(|(root, _)| root.id()).collect::<Vec<_>>(), ["slow", "a", "b", "c"]);
}

#[test]
fn with_a_lane_that_closes_goes_what_was_remembered() {
    let mut rig = Rig::new();
    rig.open(OTHER);
    rig.page([ev("r", 0)]);
    rig.rest();
    rig.close(LANE, 1_000);
    rig.elsewhere("r", 1);
    rig.page_of(OTHER, [ev("r", 1)]);
    rig.rest();
    assert_eq!(rig.of("r"), [0]);
}

#[test]
fn positions_read_ahead_are_forgotten() {
    for taken in [false, true] {
        let mut rig = Rig::new();
        let standing = Standing { position: Some(Sequence(3)), ..Standing::default() };
        let known = KnownPositions::new(HashMap::from([(root_of("r"), standing)]), true);
        rig.lanes = std::mem::replace(&mut rig.lanes, Rig::new().lanes).knowing(known);
        rig.tell(&root_of("r"), Some(Sequence(3)));
        rig.elsewhere("r", 4);
        rig.write(evs("r", 0..5));
        rig.open_as(OTHER, opening(OTHER, taken));
        rig.page_of(OTHER, [ev("r", 4)]);
        assert_eq!(rig.of("r").is_empty(), taken);
    }
}

#[test]
fn a_root_that_is_busy_is_asked_again_for_the_lane_that_was_taken_over() {
    let mut rig = Rig::new();
    rig.hold(Kind::Deliver);
    rig.page([ev("r", 0)]);
    rig.open_as(OTHER, opening(OTHER, true));
    // The other lane's last owner came further.
    rig.elsewhere("r", 2);
    rig.page_of(OTHER, evs("r", 1..4));
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!((rig.of("r"), rig.position("r"), rig.checkpoint(OTHER)), (vec![0, 3], Some(3), Some(4)));
}

#[test]
fn what_was_asked_before_a_lane_was_taken_over_is_asked_again() {
    let mut rig = Rig::new();
    rig.hold(Kind::Load);
    rig.reads_early = true;
    rig.page([ev("r", 0)]);
    rig.elsewhere("r", 1);
    rig.open_as(OTHER, opening(OTHER, true));
    rig.page_of(OTHER, [ev("r", 1)]);
    rig.release(Kind::Load);
    rig.rest();
    assert!(rig.of("r").is_empty(), "{:?}", rig.of("r"));
    assert_eq!((rig.checkpoint(LANE), rig.checkpoint(OTHER)), (Some(1), Some(2)));
}

#[test]
fn a_busy_root_that_comes_to_rest_is_asked_again_for_the_lane_that_was_taken_over() {
    let mut rig = Rig::new();
    rig.page([ev("r", 0)]);
    rig.open_as(OTHER, opening(OTHER, true));
    rig.rest();
    rig.elsewhere("r", 1);
    rig.page_of(OTHER, [ev("r", 1)]);
    rig.rest();
    assert_eq!(rig.of("r"), [0]);
}

#[test]
fn a_gap_that_another_has_filled_is_not_delivered_again() {
    let mut rig = Rig::new();
    rig.page([ev("r", 0)]);
    rig.rest();
    rig.write(evs("r", 1..3));
    rig.page([ev("r", 3)]);
    rig.elsewhere("r", 2);
    rig.rest();
    assert_eq!((rig.of("r"), rig.repairs.len()), (vec![0, 3], 0));
    // All of it: the row that showed the gap, too.
    rig.write(evs("r", 4..6));
    rig.page([ev("r", 6)]);
    rig.elsewhere("r", 6);
    rig.rest();
    assert_eq!((rig.of("r"), rig.repairs.len(), rig.checkpoint(LANE)), (vec![0, 3], 0, Some(3)));
}

#[test]
fn a_hole_that_another_has_filled_and_delivered_is_not_delivered_again() {
    let mut rig = Rig::new();
    rig.page([ev("r", 0)]);
    rig.page([ev("r", 2)]);
    rig.millis(3_000);
    assert!(!rig.repairs.is_empty(), "it was looked for");
    rig.write([ev("r", 1)]);
    rig.elsewhere("r", 1);
    rig.rest();
    assert_eq!((rig.of("r"), rig.position("r")), (vec![0, 2], Some(2)));
}

#[test]
fn a_position_that_is_as_it_was_takes_nothing_back() {
    let mut rig = Rig::starting_at(100);
    let at = |sequence: u64| ev("r", sequence).at(if sequence < 3 { 50 } else { 150 });
    rig.write((0..6).map(at).collect::<Vec<_>>());
    rig.page([at(6)]);
    rig.rest();
    assert_eq!((rig.of("r"), rig.repairs.len()), (vec![3, 4, 5, 6], 1), "the rows before the start are read once");
}

#[test]
fn roots_that_only_a_job_has_met_are_not_remembered() {
    for (opening, delivered) in [(segment(), vec![0]), (opening(OTHER, false), vec![0, 1])] {
        let mut rig = Rig::new();
        rig.open_as(OTHER, opening);
        rig.page_of(OTHER, [ev("r", 0)]);
        rig.rest();
        rig.elsewhere("r", 1);
        rig.page_of(OTHER, [ev("r", 1)]);
        rig.rest();
        assert_eq!(rig.of("r"), delivered);
    }
}

#[test]
fn what_a_job_leaves_out_is_written_before_it_is_forgotten() {
    let mut rig = Rig::subscribed(settings(), super::rig::types(&["Placed"]));
    rig.open_as(OTHER, segment());
    rig.page_of(OTHER, evs("r", 0..3));
    rig.rest();
    assert_eq!((rig.position("r"), rig.lanes.courses.len()), (Some(2), 0));
}

#[test]
fn a_lane_that_meets_a_root_of_a_job_asks_how_it_stands() {
    let mut rig = Rig::new();
    rig.open_as(OTHER, segment());
    rig.hold(Kind::Deliver);
    rig.page_of(OTHER, [ev("r", 0)]);
    rig.elsewhere("r", 1);
    rig.page([ev("r", 1)]);
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!(rig.of("r"), [0]);
}

#[test]
fn deferred_roots_are_taken_up_with_the_lane_and_those_that_come_late_a_little_later() {
    let mut rig = Rig::new();
    rig.write([evs("early", 0..2), evs("late", 0..2)].concat());
    let defer = |rig: &mut Rig, root: &str| {
        rig.elsewhere(root, 0);
        rig.contract.defer(root, 1, Some(branch_of(OTHER)));
    };
    defer(&mut rig, "early");
    rig.rest();
    assert!(rig.of("early").is_empty(), "nobody has said that there is any");
    rig.open_as(OTHER, opening(OTHER, true));
    rig.millis(2_000);
    assert_eq!((rig.of("early"), rig.mark("early")), (vec![1], None));
    // Written by the lane's last owner as it was given up.
    defer(&mut rig, "late");
    rig.rest();
    assert_eq!((rig.of("late"), rig.mark("late")), (vec![1], None));
}

#[test]
fn deferred_roots_that_are_anothers_are_left_alone() {
    let mut rig = Rig::new();
    let mine = branch_of(LANE);
    rig.lanes =
        std::mem::replace(&mut rig.lanes, Rig::new().lanes).working_off(Arc::new(move |branch| branch == Some(&mine)));
    rig.open(LANE);
    for (root, branch) in [("mine", Some(branch_of(LANE))), ("theirs", Some(branch_of(OTHER))), ("nobodys", None)] {
        rig.write(evs(root, 0..2));
        rig.contract.defer(root, 0, branch);
    }
    rig.resume();
    rig.rest();
    assert_eq!((rig.of("mine"), rig.of("theirs").len(), rig.of("nobodys").len()), (vec![0, 1], 0, 0));
    // Their records are let go on the strength of the mark.
    rig.page([ev("theirs", 2), ev("nobodys", 2)]);
    rig.rest();
    assert_eq!((rig.checkpoint(LANE), rig.delivered.len()), (Some(2), 1));
}

#[test]
fn a_mark_names_the_branch_of_the_lane_that_met_the_root_and_keeps_it() {
    let settings = LaneSettings { on_failure: crate::lane::OnFailure::Park, ..settings() };
    let mut rig = Rig::with(settings);
    rig.open(OTHER);
    rig.open_as(LaneId(3), segment());
    for (lane, root) in [(LANE, "one"), (OTHER, "other"), (LaneId(3), "job")] {
        rig.always(root, Answer::Permanent);
        rig.page_of(lane, [ev(root, 0)]);
    }
    rig.rest();
    let branch = |rig: &Rig, root| rig.mark(root).unwrap().branch.clone();
    assert_eq!(branch(&rig, "one"), Some(branch_of(LANE)));
    assert_eq!((branch(&rig, "other"), branch(&rig, "job")), (Some(branch_of(OTHER)), None));
    rig.page_of(OTHER, [ev("one", 1)]);
    rig.release_parked("one", false);
    rig.rest();
    assert_eq!(rig.mark("one").map(|mark| mark.state), Some(MarkState::Parked), "it fails again");
    assert_eq!(branch(&rig, "one"), Some(branch_of(LANE)));
}

#[test]
fn what_was_accepted_of_a_root_that_is_worked_off_is_not_given_again_for_a_lane_that_was_taken_over() {
    let mut rig = Rig::new();
    rig.write(evs("r", 0..3));
    rig.elsewhere("r", 0);
    rig.contract.defer("r", 1, Some(branch_of(LANE)));
    // Accepted, and not written yet.
    rig.hold(Kind::Flush);
    rig.resume();
    rig.rest();
    assert_eq!(rig.of("r"), [1, 2]);
    rig.open_as(OTHER, opening(OTHER, true));
    rig.write([ev("r", 3)]);
    rig.page_of(OTHER, [ev("r", 3)]);
    rig.release(Kind::Flush);
    rig.rest();
    assert_eq!((rig.of("r"), rig.position("r"), rig.mark("r")), (vec![1, 2, 3], Some(3), None));
}
