//! Roots that fail for good: parked, skipped, deferred, and back in their course.

use std::time::Duration;

use super::super::{LaneSettings, OnFailure};
use super::rig::{Answer, Kind, LANE, OTHER, Rig, Writes, ev, evs, settings};
use crate::storage::MarkState;

fn parking() -> LaneSettings {
    LaneSettings { on_failure: OnFailure::Park, attempts_max: 3, ..settings() }
}

#[test]
fn a_refused_event_parks_its_root_and_no_other_and_holds_no_checkpoint() {
    let mut rig = Rig::with(parking());
    rig.script("bad", [Answer::All, Answer::Permanent, Answer::Permanent]);
    rig.page([ev("bad", 0)]);
    rig.page([evs("bad", 1..3), evs("good", 0..3)].concat());
    rig.rest();
    let mark = rig.mark("bad").expect("the root is parked");
    assert_eq!((mark.state, mark.sequence.0, mark.attempts), (MarkState::Parked, 1, 2));
    assert!(mark.reason.contains("never"));
    assert_eq!((rig.position("bad"), rig.position("good")), (Some(0), Some(2)));
    assert_eq!(rig.checkpoint(LANE), Some(6), "a mark covers its root");
    // What comes later is left in the table; others go on.
    rig.page([ev("bad", 3), ev("good", 3)]);
    rig.rest();
    assert_eq!(rig.of("bad"), [0, 1, 2, 1], "the batch, then its first event alone");
    assert_eq!(rig.checkpoint(LANE), Some(8));
}

#[test]
fn attempts_are_counted_and_only_the_event_at_fault_is_left() {
    let mut rig = Rig::with(parking());
    rig.always("bad", Answer::Retry);
    rig.page([evs("bad", 0..5), evs("good", 0..1)].concat());
    rig.rest();
    assert_eq!(rig.mark("bad").map(|mark| (mark.sequence.0, mark.attempts)), Some((0, 4)));
    // The third of five is at fault: two are taken first.
    rig.page(evs("third", 0..2));
    rig.always("third", Answer::Permanent);
    rig.script("third", [Answer::Permanent, Answer::All, Answer::All]);
    rig.page(evs("third", 2..5));
    rig.rest();
    assert_eq!(rig.mark("third").map(|mark| mark.sequence.0), Some(4));
    assert_eq!(rig.position("third"), Some(3));
}

#[test]
fn a_root_that_fails_alone_is_not_given_up_before_another_succeeds() {
    let mut rig = Rig::with(parking());
    rig.always("bad", Answer::Retry);
    rig.page([ev("bad", 0)]);
    rig.advance(Duration::from_hours(1));
    assert!(rig.mark("bad").is_none() && rig.of("bad").len() > 100, "it may be the receiver");
    rig.page([ev("good", 0)]);
    rig.rest();
    assert_eq!(rig.mark("bad").map(|mark| mark.state), Some(MarkState::Parked));
}

#[test]
fn a_released_root_is_delivered_to_its_end_in_order_and_joins_the_stream() {
    let mut rig = Rig::with(parking());
    rig.always("bad", Answer::Permanent);
    rig.page(evs("bad", 0..3));
    rig.rest();
    rig.page(evs("bad", 3..700));
    rig.rest();
    rig.always("bad", Answer::All);
    rig.release_parked("bad", false);
    rig.rest();
    assert!(rig.mark("bad").is_none());
    assert_eq!(rig.position("bad"), Some(699), "more than one read brings");
    rig.page([ev("bad", 700)]);
    rig.page([ev("bad", 701)]);
    rig.rest();
    assert_eq!(rig.of("bad").into_iter().skip(4).collect::<Vec<_>>(), (0..702).collect::<Vec<_>>());
    rig.contract.all_is_covered();
}

#[test]
fn a_skipped_event_is_passed_and_what_follows_is_delivered() {
    let mut rig = Rig::with(parking());
    rig.script("bad", [Answer::All, Answer::Permanent]);
    rig.page([ev("bad", 0)]);
    rig.page([ev("bad", 1)]);
    rig.page(evs("bad", 2..4));
    rig.rest();
    assert_eq!(rig.mark("bad").map(|mark| mark.sequence.0), Some(1));
    rig.release_parked("bad", true);
    rig.rest();
    assert!(rig.mark("bad").is_none());
    assert_eq!(rig.of("bad"), [0, 1, 2, 3]);
    rig.contract.all_is_covered();
}

#[test]
fn a_policy_of_skipping_records_what_it_passes() {
    let mut rig = Rig::with(LaneSettings { on_failure: OnFailure::Skip, ..settings() });
    rig.script("bad", [Answer::Permanent, Answer::Permanent, Answer::All]);
    rig.page(evs("bad", 0..3));
    rig.rest();
    assert_eq!(rig.skips.iter().map(|(_, skip)| skip.sequence.0).collect::<Vec<_>>(), [0]);
    assert_eq!(rig.of("bad"), [0, 1, 2, 0, 1, 2]);
    assert_eq!(rig.position("bad"), Some(2));
    assert_eq!(rig.checkpoint(LANE), Some(3));
}

#[test]
fn a_root_that_waits_long_is_deferred_goes_on_by_itself_and_holds_no_checkpoint() {
    let hold = Duration::from_secs(20);
    let mut rig = Rig::with(LaneSettings { checkpoint_hold: hold, ..settings() });
    rig.always("bad", Answer::Retry);
    rig.page([evs("bad", 0..2), evs("good", 0..2)].concat());
    rig.advance(hold);
    assert_eq!(rig.mark("bad").map(|mark| mark.state), Some(MarkState::Deferred));
    rig.advance(Duration::from_secs(10));
    assert_eq!(rig.checkpoint(LANE), Some(4));
    rig.page([ev("bad", 2)]);
    rig.always("bad", Answer::All);
    rig.rest();
    assert!(rig.mark("bad").is_none());
    assert_eq!(rig.position("bad"), Some(2));
    rig.contract.all_is_covered();
}

#[test]
fn an_outage_marks_nothing_however_long_it_is() {
    let mut rig = Rig::with(parking());
    rig.everybody = Answer::Unavailable;
    for root in 0..50 {
        rig.page([ev(&root.to_string(), 0)]);
    }
    rig.advance(Duration::from_hours(2));
    assert!(rig.contract.marks.is_empty());
    rig.everybody = Answer::All;
    rig.rest();
    rig.contract.all_is_covered();
}

#[test]
fn marks_that_cannot_be_written_are_tried_again_and_nothing_passes_them() {
    let mut rig = Rig::with(parking());
    rig.always("bad", Answer::Permanent);
    rig.writes = Writes::Fail;
    rig.page([ev("bad", 0)]);
    rig.rest();
    assert!(rig.mark("bad").is_none());
    assert_eq!(rig.checkpoint(LANE), None);
    rig.writes = Writes::LoseReplies;
    rig.rest();
    rig.writes = Writes::Work;
    rig.rest();
    assert!(rig.mark("bad").is_some());
    assert_eq!(rig.checkpoint(LANE), Some(1));
    rig.always("bad", Answer::All);
    rig.writes = Writes::LoseReplies;
    rig.release_parked("bad", false);
    rig.rest();
    rig.writes = Writes::Work;
    rig.rest();
    assert!(rig.mark("bad").is_none());
    assert_eq!(rig.of("bad"), [0, 0]);
    rig.contract.all_is_covered();
}

#[test]
fn a_mark_whose_reply_is_lost_before_the_position_was_written_can_be_released() {
    let mut rig = Rig::with(parking());
    rig.writes = Writes::LoseReplies;
    rig.script("bad", [Answer::Take(1), Answer::Permanent]);
    rig.page(evs("bad", 0..2));
    rig.hold(Kind::Load);
    rig.millis(1_100);
    assert_eq!((rig.held(Kind::Load), rig.position("bad")), (1, Some(0)), "the table is asked how it stands");
    rig.writes = Writes::Work;
    rig.release(Kind::Load);
    rig.rest();
    rig.release_parked("bad", false);
    rig.rest();
    assert_eq!((rig.of("bad"), rig.position("bad"), rig.mark("bad")), (vec![0, 1, 1, 1], Some(1), None));
}

#[test]
fn a_root_that_parks_while_it_is_worked_off_stays_parked_though_the_reply_is_lost() {
    let mut rig = Rig::with(parking());
    rig.script("bad", [Answer::Permanent, Answer::Permanent]);
    rig.page([ev("bad", 0)]);
    rig.rest();
    rig.writes = Writes::LoseReplies;
    rig.release_parked("bad", false);
    rig.rest();
    rig.writes = Writes::Work;
    rig.rest();
    assert_eq!(rig.mark("bad").map(|mark| mark.state), Some(MarkState::Parked));
    assert_eq!(rig.of("bad"), [0, 0]);
}

#[test]
fn what_comes_while_the_mark_is_taken_away_holds_the_checkpoint_until_it_is_delivered() {
    let mut rig = Rig::with(parking());
    rig.script("bad", [Answer::Permanent]);
    rig.page([ev("bad", 0)]);
    rig.rest();
    rig.release_parked("bad", false);
    rig.hold(Kind::Mark);
    rig.rest();
    assert_eq!(rig.held(Kind::Mark), 1, "the work is at its end");
    rig.page([ev("bad", 1)]);
    rig.rest();
    rig.hold(Kind::Deliver);
    rig.release(Kind::Mark);
    rig.rest();
    assert_eq!(rig.checkpoint(LANE), Some(1), "the new event is neither marked nor delivered");
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!((rig.of("bad"), rig.checkpoint(LANE)), (vec![0, 0, 1], Some(2)));
}

#[test]
fn a_hole_and_an_unreadable_row_park_their_root() {
    let mut rig = Rig::with(parking());
    rig.page([ev("unreadable", 0), ev("unreadable", 1).invalid()]);
    rig.page([ev("hole", 0)]);
    rig.page([ev("hole", 2)]);
    rig.rest();
    assert_eq!(rig.mark("unreadable").map(|mark| mark.sequence.0), Some(1));
    assert!(rig.mark("unreadable").is_some_and(|mark| mark.reason.contains("cannot be read")));
    assert_eq!(rig.mark("hole").map(|mark| mark.sequence.0), Some(1));
    assert!(rig.mark("hole").is_some_and(|mark| mark.reason.contains("hole")));
}

#[test]
fn a_parked_root_met_in_another_lane_or_life_stays_parked() {
    let mut rig = Rig::with(LaneSettings { idle_roots_max: 0, ..parking() });
    rig.always("bad", Answer::Permanent);
    rig.page([ev("bad", 0)]);
    rig.rest();
    rig.open(OTHER);
    rig.page_of(OTHER, [ev("bad", 1)]);
    rig.rest();
    assert_eq!(rig.of("bad"), [0]);
    assert_eq!(rig.checkpoint(OTHER), Some(2));
}

#[test]
fn rows_of_another_schema_are_neither_marked_nor_passed() {
    let mut rig = Rig::with(LaneSettings { checkpoint_hold: Duration::from_secs(1), ..parking() });
    for root in 0..150 {
        rig.page([ev(&root.to_string(), 0).invalid()]);
    }
    rig.advance(Duration::from_hours(1));
    assert!(rig.lanes.sees_another_schema() && rig.contract.marks.is_empty());
    assert_eq!(rig.checkpoint(LANE), None);
    // One that can be read: they are rows of their own fault.
    rig.page([ev("good", 0)]);
    rig.rest();
    assert_eq!(rig.contract.marks.len(), 150);
    assert_eq!(rig.checkpoint(LANE), Some(151));
}

#[test]
fn a_deferred_root_is_not_marked_again_at_each_attempt() {
    let mut rig = Rig::with(LaneSettings { checkpoint_hold: Duration::from_secs(1), ..settings() });
    rig.always("bad", Answer::Retry);
    rig.page(evs("bad", 0..2));
    rig.rest();
    let attempts = rig.delivered.len();
    rig.hold(Kind::Mark);
    rig.page([ev("bad", 2)]);
    rig.rest();
    assert!(rig.delivered.len() > attempts, "it is tried again");
    assert_eq!((rig.held(Kind::Mark), rig.checkpoint(LANE)), (0, Some(3)));
    rig.release(Kind::Mark);
    rig.always("bad", Answer::All);
    rig.rest();
    assert!(rig.mark("bad").is_none());
    assert_eq!(rig.position("bad"), Some(2));
}

#[test]
fn the_time_of_an_outage_is_not_held_against_a_root() {
    let mut rig = Rig::with(LaneSettings { attempts_max: 10, ..parking() });
    rig.script("slow", [Answer::Retry]);
    rig.page([ev("slow", 0)]);
    rig.everybody = Answer::Unavailable;
    rig.page([ev("other", 0)]);
    rig.advance(Duration::from_hours(2));
    rig.script("slow", [Answer::Retry, Answer::Retry]);
    rig.everybody = Answer::All;
    rig.rest();
    assert!(rig.contract.marks.is_empty(), "three attempts in a few seconds of service");
    rig.contract.all_is_covered();
}

#[test]
fn a_position_that_is_written_while_it_is_loaded_leaves_no_root_behind() {
    let mut rig = Rig::with(parking());
    rig.page([ev("r", 0)]);
    // Another replica is one event ahead, which refuses the mark here while the first position is not written yet.
    rig.write([ev("r", 1)]);
    rig.elsewhere("r", 1);
    rig.always("r", Answer::Retry);
    rig.hold(Kind::Load);
    rig.page([ev("r", 1)]);
    rig.millis(1000);
    assert_eq!(rig.held(Kind::Load), 1, "it asks how the root stands");
    rig.always("r", Answer::All);
    rig.release(Kind::Load);
    rig.page([ev("r", 2)]);
    rig.rest();
    assert_eq!((rig.of("r").last(), rig.position("r")), (Some(&2), Some(2)));
}
