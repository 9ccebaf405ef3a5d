//! One lane is given up while others go on: what is in flight is answered and written, what waits is let go, nothing is
//! repeated, nothing is passed; at the deadline nothing more is done.

use std::time::Duration;

use super::rig::{Answer, Kind, LANE, OTHER, Rig, Writes, branch_of, ev, evs, settings, types};
use crate::event::Root;
use crate::lane::{Glob, LaneSettings, OnEditionDelete, OnFailure, Pattern, Subscription};
use crate::storage::MarkState;

/// Long enough for all that is not stuck.
const LONG: u64 = 10_000;

fn parking() -> LaneSettings {
    LaneSettings { on_failure: OnFailure::Park, attempts_max: 3, ..settings() }
}

#[test]
fn what_is_in_flight_is_answered_then_written_then_the_checkpoint_then_it_is_gone() {
    let mut rig = Rig::new();
    rig.page(evs("a", 0..2));
    rig.hold(Kind::Deliver);
    rig.page([evs("a", 2..3), evs("b", 0..3)].concat());
    rig.hold(Kind::Flush);
    rig.hold(Kind::Checkpoint);
    rig.close(LANE, LONG);
    rig.show(LANE, [ev("c", 0)], false);
    rig.run();
    assert_eq!((rig.held(Kind::Flush), rig.held(Kind::Checkpoint)), (1, 0), "accepted before: written at once");
    rig.release(Kind::Flush);
    rig.hold(Kind::Flush);
    assert_eq!(rig.checkpoints, [], "with answers to come there is no checkpoint");
    rig.script("b", [Answer::Take(1)]);
    rig.release(Kind::Deliver);
    assert_eq!((rig.held(Kind::Flush), rig.held(Kind::Checkpoint)), (1, 0));
    rig.release(Kind::Flush);
    assert_eq!((rig.held(Kind::Checkpoint), rig.closed.len()), (1, 0));
    rig.release(Kind::Checkpoint);
    assert_eq!((rig.closed.as_slice(), rig.checkpoint(LANE)), (&[(LANE, true)][..], Some(2)));
    assert_eq!((rig.position("a"), rig.position("b")), (Some(2), Some(0)));
    rig.rest();
    assert_eq!((rig.of("b").len(), rig.of("c").len()), (3, 0), "the rest of b, and what came later, is another's");
    assert_eq!(rig.lanes.courses.len(), 0, "nothing is remembered");
}

#[test]
fn what_only_waits_is_let_go_and_holds_the_checkpoint() {
    for wait in ["gap", "hole", "retry", "outage", "load", "repair", "pause"] {
        let mut rig = Rig::new();
        rig.page([ev("done", 0)]);
        rig.rest();
        match wait {
            "gap" | "hole" => rig.show(LANE, [ev("r", 0), ev("r", 2)], false),
            "retry" => rig.always("r", Answer::Retry),
            "outage" => rig.everybody = Answer::Unavailable,
            "load" => rig.hold(Kind::Load),
            "repair" => rig.hold(Kind::Repair),
            _ => rig.lanes.pause(true),
        }
        if wait == "repair" {
            rig.write([ev("r", 0)]);
            rig.page([ev("r", 1)]);
        } else {
            rig.page([ev("r", 0)]);
        }
        rig.millis(if wait == "hole" || wait == "repair" { 2_000 } else { 150 });
        let delivered = rig.delivered.len();
        rig.close(LANE, LONG);
        assert_eq!(rig.closed, [(LANE, true)], "{wait}");
        rig.everybody = Answer::All;
        rig.always("r", Answer::All);
        rig.lanes.pause(false);
        rig.release(Kind::Load);
        rig.release(Kind::Repair);
        rig.rest();
        assert_eq!(rig.delivered.len(), delivered, "{wait}");
        assert_eq!((rig.checkpoint(LANE), rig.lanes.courses.len()), (Some(1), 0), "{wait}");
        assert_eq!((rig.lanes.queued_bytes(), rig.lanes.stuck()), (0, super::super::Stuck::default()), "{wait}");
    }
}

#[test]
fn a_failure_ends_it() {
    for answer in [Answer::Retry, Answer::Unavailable, Answer::Permanent, Answer::Throttled, Answer::Broken] {
        for on_failure in [OnFailure::Park, OnFailure::Skip, OnFailure::Block] {
            let mut rig = Rig::with(LaneSettings { on_failure, ..settings() });
            rig.hold(Kind::Deliver);
            rig.page(evs("r", 0..3));
            rig.close(LANE, LONG);
            assert_eq!(rig.closed, []);
            rig.script("r", [answer]);
            rig.release(Kind::Deliver);
            assert_eq!(rig.closed, [(LANE, true)], "{answer:?}");
            rig.rest();
            assert_eq!((rig.of("r").len(), rig.checkpoint(LANE), rig.mark("r")), (3, None, None), "{answer:?}");
        }
    }
}

#[test]
fn at_the_deadline_calls_are_ended_and_nothing_more_is_begun_or_written() {
    let mut rig = Rig::new();
    rig.open(OTHER);
    rig.page([ev("written", 0)]);
    rig.rest();
    rig.hold(Kind::Deliver);
    rig.page([ev("mine", 0)]);
    rig.page_of(OTHER, [ev("theirs", 0)]);
    let flushes = rig.flushes.len();
    rig.close(LANE, 2_000);
    rig.millis(1_999);
    assert_eq!((rig.closed.len(), rig.held(Kind::Deliver)), (0, 2));
    rig.millis(1);
    assert_eq!(rig.closed, [(LANE, false)]);
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!((rig.of("mine"), rig.of("theirs")), (vec![0], vec![0, 0]), "another lane's is given again");
    assert_eq!((rig.position("mine"), rig.position("theirs")), (None, Some(0)));
    assert_eq!((rig.flushes.len() - flushes, rig.checkpoint(LANE), rig.checkpoint(OTHER)), (1, Some(1), Some(3)));
}

#[test]
fn a_probe_that_was_ended_is_made_again_with_another() {
    let mut rig = Rig::new();
    rig.open(OTHER);
    rig.everybody = Answer::Unavailable;
    rig.page([ev("mine", 0)]);
    rig.hold(Kind::Deliver);
    rig.millis(1_000);
    assert_eq!(rig.held(Kind::Deliver), 1, "the probe");
    rig.page_of(OTHER, [ev("theirs", 0)]);
    rig.close(LANE, 100);
    rig.millis(100);
    assert_eq!(rig.closed, [(LANE, false)]);
    rig.everybody = Answer::All;
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!((rig.of("theirs"), rig.position("theirs")), (vec![0], Some(0)));
}

#[test]
fn positions_that_cannot_be_written_hold_it_until_the_deadline() {
    for mended in [true, false] {
        let mut rig = Rig::new();
        rig.page(evs("r", 0..2));
        rig.writes = Writes::Fail;
        rig.close(LANE, 3_000);
        rig.millis(2_000);
        assert_eq!((rig.closed.len(), rig.checkpoints.len()), (0, 0));
        if mended {
            rig.writes = Writes::Work;
        }
        rig.millis(1_500);
        assert_eq!(rig.closed, [(LANE, mended)]);
        rig.writes = Writes::Work;
        rig.rest();
        assert_eq!(rig.position("r"), mended.then_some(1), "after the deadline nothing is written");
        assert_eq!(rig.checkpoint(LANE), mended.then_some(2));
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_tried_again_until_the_deadline() {
    for mended in [true, false] {
        let mut rig = Rig::new();
        rig.page(evs("r", 0..2));
        rig.checkpoints_fail = true;
        rig.close(LANE, 3_000);
        rig.millis(1_000);
        assert_eq!((rig.closed.len(), rig.position("r")), (0, Some(1)));
        rig.checkpoints_fail = !mended;
        rig.millis(2_000);
        assert_eq!(rig.closed, [(LANE, mended)]);
    }
}

#[test]
fn a_checkpoint_under_way_is_followed_by_the_last_one() {
    let mut rig = Rig::new();
    rig.hold(Kind::Checkpoint);
    rig.page(evs("a", 0..1));
    rig.millis(6_000);
    rig.page(evs("a", 1..3));
    rig.close(LANE, LONG);
    assert_eq!((rig.held(Kind::Checkpoint), rig.closed.len()), (1, 0));
    rig.release(Kind::Checkpoint);
    assert_eq!((rig.checkpoint(LANE), rig.closed.as_slice()), (Some(3), &[(LANE, true)][..]));
}

#[test]
fn it_ends_once_as_finished_or_as_closed() {
    // All is covered, and the end is not written yet.
    let mut rig = Rig::new();
    rig.hold(Kind::Checkpoint);
    rig.page([ev("r", 0)]);
    rig.end(LANE);
    rig.millis(2_000);
    rig.close(LANE, LONG);
    rig.release(Kind::Checkpoint);
    rig.rest();
    assert_eq!((rig.finished.as_slice(), rig.closed.len(), rig.checkpoint(LANE)), (&[LANE][..], 0, Some(u64::MAX)));
    rig.close(LANE, LONG);
    assert_eq!(rig.closed, [], "it was told already");
    // Something is not covered.
    let mut rig = Rig::new();
    rig.always("bad", Answer::Retry);
    rig.page([ev("bad", 0)]);
    rig.end(LANE);
    rig.close(LANE, LONG);
    rig.rest();
    assert_eq!((rig.finished.len(), rig.closed.as_slice(), rig.checkpoint(LANE)), (0, &[(LANE, true)][..], None));
    assert_eq!(rig.lanes.ending, 0);
    // The last of it is written by the closing itself.
    let mut rig = Rig::new();
    rig.hold(Kind::Deliver);
    rig.page([ev("r", 0)]);
    rig.end(LANE);
    rig.close(LANE, LONG);
    rig.release(Kind::Deliver);
    assert_eq!((rig.finished.as_slice(), rig.closed.len()), (&[LANE][..], 0));
}

#[test]
fn roots_that_another_lane_holds_go_on_for_that_one() {
    let mut rig = Rig::new();
    rig.open(OTHER);
    rig.hold(Kind::Deliver);
    rig.page([ev("r", 0)]);
    rig.page_of(OTHER, [ev("r", 1)]);
    rig.page_of(OTHER, [ev("alone", 0)]);
    rig.close(LANE, LONG);
    rig.script("r", [Answer::All, Answer::Retry]);
    rig.release(Kind::Deliver);
    assert_eq!((rig.closed.as_slice(), rig.checkpoint(LANE)), (&[(LANE, true)][..], Some(1)));
    rig.rest();
    assert_eq!((rig.of("r"), rig.of("alone")), (vec![0, 1, 1], vec![0]));
    assert_eq!((rig.position("r"), rig.checkpoint(OTHER)), (Some(1), Some(3)));
}

#[test]
fn what_only_the_lane_has_shown_is_not_delivered_for_another() {
    let mut rig = Rig::new();
    rig.open(OTHER);
    rig.page_of(OTHER, [ev("r", 0)]);
    rig.always("r", Answer::Retry);
    rig.page([ev("r", 1)]);
    rig.close(LANE, LONG);
    rig.always("r", Answer::All);
    rig.rest();
    assert_eq!((rig.position("r"), rig.of("r").last()), (Some(0), Some(&1)), "it was tried while the lane was there");
    assert_eq!((rig.checkpoint(LANE), rig.checkpoint(OTHER), rig.closed.len()), (None, Some(1), 1));
}

#[test]
fn what_was_left_out_by_type_is_written() {
    let mut rig = Rig::subscribed(settings(), types(&["Placed"]));
    rig.page((0..5).map(|sequence| ev("r", sequence).of("Other")).collect::<Vec<_>>());
    rig.rest();
    assert_eq!(rig.position("r"), None);
    rig.close(LANE, LONG);
    assert_eq!(
        (rig.position("r"), rig.checkpoint(LANE), rig.closed.as_slice()),
        (Some(4), Some(5), &[(LANE, true)][..])
    );
    assert_eq!(rig.lanes.courses.len(), 0);
}

#[test]
fn a_mark_under_way_is_waited_for_and_stands_for_its_root() {
    let mut rig = Rig::with(parking());
    rig.script("bad", [Answer::Take(1), Answer::Permanent, Answer::Permanent]);
    rig.hold(Kind::Mark);
    rig.page(evs("bad", 0..2));
    assert_eq!(rig.held(Kind::Mark), 1);
    rig.close(LANE, LONG);
    rig.millis(2_000);
    assert_eq!(rig.closed, []);
    rig.release(Kind::Mark);
    assert_eq!((rig.closed.as_slice(), rig.checkpoint(LANE)), (&[(LANE, true)][..], Some(2)));
    assert_eq!((rig.position("bad"), rig.mark("bad").map(|mark| mark.state)), (Some(0), Some(MarkState::Parked)));
}

#[test]
fn a_mark_that_cannot_be_written_is_given_up() {
    let mut rig = Rig::with(parking());
    rig.script("bad", [Answer::Take(1), Answer::Permanent]);
    rig.writes = Writes::Fail;
    rig.page(evs("bad", 0..2));
    rig.close(LANE, LONG);
    rig.writes = Writes::Work;
    rig.rest();
    assert_eq!((rig.closed.as_slice(), rig.mark("bad")), (&[(LANE, true)][..], None));
    assert_eq!((rig.position("bad"), rig.checkpoint(LANE)), (Some(0), None), "what was accepted is written");
}

#[test]
fn deferred_roots_of_its_branch_stop_and_others_go_on() {
    let hold = Duration::from_secs(1);
    let mut rig = Rig::with(LaneSettings { checkpoint_hold: hold, ..settings() });
    rig.open(OTHER);
    rig.always("mine", Answer::Retry);
    rig.always("theirs", Answer::Retry);
    rig.page([ev("mine", 0), ev("good", 0)]);
    rig.page_of(OTHER, [ev("theirs", 0)]);
    rig.rest();
    assert_eq!(rig.mark("mine").and_then(|mark| mark.branch.clone()), Some(branch_of(LANE)));
    assert_eq!(rig.mark("theirs").and_then(|mark| mark.branch.clone()), Some(branch_of(OTHER)));
    // What the relay says of a branch it gives up.
    let mine = branch_of(LANE);
    let lanes = std::mem::replace(&mut rig.lanes, Rig::new().lanes);
    rig.lanes = lanes.working_off(std::sync::Arc::new(move |branch| branch != Some(&mine)));
    rig.close(LANE, LONG);
    rig.millis(LONG);
    let tried = rig.of("mine").len();
    rig.always("mine", Answer::All);
    rig.always("theirs", Answer::All);
    rig.rest();
    rig.resume();
    rig.rest();
    assert_eq!((rig.closed.as_slice(), rig.of("mine").len()), (&[(LANE, true)][..], tried));
    assert!(rig.mark("mine").is_some() && rig.mark("theirs").is_none());
}

#[test]
fn how_far_a_root_that_was_ordered_back_has_come_is_noted() {
    let mut rig = Rig::new();
    rig.page(evs("r", 0..300));
    rig.rest();
    rig.hold(Kind::Deliver);
    rig.contract.defer("r", 0, Some(branch_of(LANE)));
    rig.contract.marks.values_mut().for_each(|mark| mark.rewound = true);
    rig.resume();
    rig.release_one(Kind::Deliver);
    rig.close(LANE, LONG);
    rig.release(Kind::Deliver);
    rig.rest();
    let noted = rig.mark("r").map(|mark| (mark.sequence.0, mark.rewound));
    assert_eq!(
        (rig.closed.as_slice(), noted),
        (&[(LANE, true)][..], Some((200, true))),
        "nothing is given again twice"
    );
    assert_eq!(rig.position("r"), Some(299));
}

#[test]
fn a_root_to_be_looked_at_for_a_deleted_edition_is_left_to_the_next() {
    let settings = LaneSettings { on_edition_delete: OnEditionDelete::Purge, ..settings() };
    let any = || Glob::new("*");
    let everything = Pattern { domain: any(), types: vec![any()], editions: vec![any()] };
    let mut rig = Rig::subscribed(settings, Subscription::new(vec![everything]));
    let root = Root::new("orders", "draft", "r").unwrap();
    rig.page([ev("good", 0)]);
    rig.rest();
    rig.writes = Writes::Fail;
    rig.removed(&root, 0..1);
    rig.close(LANE, LONG);
    rig.writes = Writes::Work;
    rig.rest();
    assert_eq!((rig.closed.as_slice(), rig.checkpoint(LANE)), (&[(LANE, true)][..], Some(1)));
}

#[test]
fn a_transactional_handlers_positions_are_not_written_again() {
    let mut rig = Rig::with(LaneSettings { commits_positions: true, ..settings() });
    rig.hold(Kind::Deliver);
    rig.page(evs("r", 0..2));
    rig.close(LANE, LONG);
    // The handler writes it with its own effects.
    rig.elsewhere("r", 1);
    rig.release(Kind::Deliver);
    assert_eq!((rig.closed.as_slice(), rig.flushes.len(), rig.checkpoint(LANE)), (&[(LANE, true)][..], 0, Some(2)));
}

#[test]
fn an_empty_lane_is_gone_at_once_and_a_stop_meanwhile_ends_it_too() {
    let mut rig = Rig::new();
    rig.close(LANE, 1);
    assert_eq!(rig.closed, [(LANE, true)]);
    let mut rig = Rig::new();
    rig.hold(Kind::Deliver);
    rig.page([ev("r", 0)]);
    rig.close(LANE, LONG);
    rig.lanes.drain(rig.now);
    rig.run();
    assert!(!rig.lanes.is_drained());
    rig.release(Kind::Deliver);
    assert!(rig.lanes.is_drained());
    assert_eq!((rig.closed.as_slice(), rig.checkpoint(LANE)), (&[(LANE, true)][..], Some(1)));
}
