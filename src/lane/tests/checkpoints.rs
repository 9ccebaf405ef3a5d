//! Checkpoints: behind what is covered, paced, and at once at the end of a shard (clause 5).

use std::time::Duration;

use super::rig::{Answer, Kind, LANE, OTHER, Rig, Writes, ev, evs, settings};
use crate::lane::LaneSettings;

#[test]
fn a_checkpoint_follows_the_positions_and_is_paced() {
    let mut rig = Rig::new();
    for sequence in 0..200 {
        rig.page([ev("a", sequence)]);
        rig.millis(100);
    }
    rig.rest();
    assert!((4..=6).contains(&rig.checkpoints.len()), "{} checkpoints in 20 seconds", rig.checkpoints.len());
    assert_eq!(rig.checkpoint(LANE), Some(200));
}

#[test]
fn it_stays_behind_an_uncovered_record_however_far_the_lane_reads() {
    let mut rig = Rig::new();
    rig.always("stuck", Answer::Permanent);
    rig.page([ev("a", 0), ev("a", 1)]);
    rig.page([ev("a", 2), ev("stuck", 0)]);
    for sequence in 3..50 {
        rig.page([ev("a", sequence), ev("stuck", sequence - 2)]);
    }
    rig.rest();
    assert_eq!((rig.checkpoint(LANE), rig.position("a")), (Some(2), Some(49)));
    rig.always("stuck", Answer::All);
    rig.rest();
    assert_eq!(rig.checkpoint(LANE), Some(98));
}

#[test]
fn an_accepted_event_is_not_covered_until_its_position_is_durable() {
    let mut rig = Rig::new();
    rig.writes = Writes::Fail;
    rig.page(evs("a", 0..3));
    rig.rest();
    assert_eq!((rig.of("a").len(), rig.checkpoint(LANE)), (3, None));
    rig.writes = Writes::Work;
    rig.rest();
    assert_eq!(rig.checkpoint(LANE), Some(3));
}

#[test]
fn a_repeated_record_is_covered_only_with_its_first() {
    let mut rig = Rig::new();
    rig.writes = Writes::Fail;
    rig.page([ev("a", 0)]);
    rig.page([ev("a", 0)]);
    rig.page([ev("b", 0)]);
    rig.rest();
    assert_eq!(rig.checkpoint(LANE), None);
}

#[test]
fn the_end_of_a_shard_writes_positions_and_the_checkpoint_at_once() {
    let mut rig = Rig::new();
    rig.page(evs("a", 0..3));
    assert!(rig.flushes.is_empty());
    rig.end(LANE);
    assert_eq!((rig.position("a"), rig.finished.as_slice()), (Some(2), &[LANE][..]), "its children wait for it");
}

#[test]
fn events_accepted_after_the_end_was_shown_are_written_at_once_too() {
    let mut rig = Rig::new();
    rig.hold(Kind::Deliver);
    rig.page(evs("a", 0..3));
    rig.end(LANE);
    assert_eq!(rig.checkpoint(LANE), None);
    rig.release(Kind::Deliver);
    assert_eq!((rig.position("a"), rig.finished.as_slice()), (Some(2), &[LANE][..]));
}

#[test]
fn a_shard_is_finished_only_when_all_of_it_is_durable() {
    let mut rig = Rig::new();
    rig.always("stuck", Answer::Permanent);
    rig.page([ev("a", 0), ev("stuck", 0)]);
    rig.end(LANE);
    rig.rest();
    assert!(rig.finished.is_empty());
    rig.always("stuck", Answer::All);
    rig.rest();
    assert_eq!(rig.finished, [LANE]);
}

#[test]
fn an_empty_shard_is_finished_at_its_end() {
    let mut rig = Rig::new();
    rig.end(LANE);
    assert_eq!(rig.finished, [LANE]);
}

#[test]
fn a_checkpoint_that_could_not_be_written_is_tried_again() {
    let mut rig = Rig::new();
    rig.checkpoints_fail = true;
    rig.open(OTHER);
    rig.page(evs("a", 0..3));
    rig.end(OTHER);
    rig.rest();
    let tried = rig.checkpoints.len();
    assert!((200..=600).contains(&tried), "{tried} in two minutes, for two lanes");
    assert!(rig.finished.is_empty() && rig.lanes.unsaved_since().is_some());
    rig.checkpoints_fail = false;
    rig.rest();
    assert_eq!((rig.finished.as_slice(), rig.checkpoint(LANE)), (&[OTHER][..], Some(3)));
    assert_eq!(rig.lanes.unsaved_since(), None);
}

#[test]
fn one_checkpoint_of_a_lane_is_under_way_and_the_next_is_the_newest() {
    let mut rig = Rig::new();
    rig.hold(Kind::Checkpoint);
    for sequence in 0..20 {
        rig.page([ev("a", sequence)]);
        rig.millis(3000);
    }
    assert_eq!(rig.held(Kind::Checkpoint), 1);
    rig.release(Kind::Checkpoint);
    rig.rest();
    assert_eq!((rig.checkpoints.len(), rig.checkpoint(LANE)), (2, Some(20)));
}

#[test]
fn a_root_that_is_stuck_for_long_costs_few_entries() {
    let mut rig = Rig::new();
    rig.always("stuck", Answer::Permanent);
    for sequence in 0..500 {
        rig.page([ev("stuck", sequence)]);
    }
    let slot = rig.lanes.courses.find(&super::rig::root_of("stuck")).unwrap();
    let pins = rig.lanes.courses.get(slot).unwrap().active.as_deref().unwrap().pins.len();
    assert!(pins <= 8, "{pins}");
}

#[test]
fn what_is_not_delivered_shows_in_the_lag_however_often_its_root_was_met() {
    let mut rig = Rig::new();
    rig.hold(Kind::Flush);
    for sequence in 0..20 {
        rig.page([ev("a", sequence).at(1000)]);
    }
    assert_eq!(rig.lanes.undelivered_since(), None, "all is delivered, if not durable");
    rig.hold(Kind::Deliver);
    rig.page([ev("a", 20).at(2000)]);
    assert!(rig.lanes.undelivered_since().is_some(), "one is not");
    rig.release(Kind::Deliver);
    assert_eq!(rig.lanes.undelivered_since(), None);
}

#[test]
fn under_steady_load_what_would_be_read_again_is_no_older_than_a_checkpoint() {
    let mut rig = Rig::with(LaneSettings { flush_interval: Duration::from_millis(500), ..settings() });
    let mut oldest = Duration::ZERO;
    for sequence in 0..600 {
        rig.page([ev("r", sequence)]);
        rig.millis(100);
        let age = rig.lanes.unsaved_since().map_or(Duration::ZERO, |since| rig.now.duration_since(since));
        oldest = oldest.max(age);
    }
    let most = LaneSettings::default().checkpoint_interval + Duration::from_secs(3);
    assert!(oldest > Duration::from_secs(1) && oldest <= most, "{oldest:?}");
    rig.rest();
    assert_eq!(rig.lanes.unsaved_since(), None);
    // A checkpoint that is not written ages.
    rig.checkpoints_fail = true;
    rig.page([ev("r", 600)]);
    rig.millis(60_000);
    assert!(rig.lanes.unsaved_since().is_some_and(|since| rig.now.duration_since(since) >= Duration::from_secs(59)));
}
