//! What the handler answers: all, a prefix, nothing, later, never.

use std::time::Duration;

use super::rig::{Answer, Kind, LANE, Rig, ev, evs, settings};
use crate::handler::GroupLimits;
use crate::lane::LaneSettings;

#[test]
fn a_prefix_accepted_brings_the_rest_again() {
    let mut rig = Rig::new();
    rig.script("a", [Answer::Take(2), Answer::Take(1)]);
    rig.page(evs("a", 0..5));
    rig.rest();
    let runs: Vec<_> = rig.delivered.iter().map(|(_, run)| run.clone()).collect();
    assert_eq!(runs, [vec![0, 1, 2, 3, 4], vec![2, 3, 4], vec![3, 4]]);
    assert_eq!((rig.position("a"), rig.checkpoint(LANE)), (Some(4), Some(5)));
}

#[test]
fn accepting_nothing_or_more_than_there_is_does_no_harm() {
    let mut rig = Rig::new();
    rig.script("a", [Answer::Take(0), Answer::Take(99)]);
    rig.page(evs("a", 0..2));
    assert_eq!((rig.delivered.len(), rig.lanes.stuck().retrying), (1, 1));
    rig.millis(100);
    assert_eq!((rig.of("a"), rig.lanes.stuck().retrying), (vec![0, 1, 0, 1], 0));
    rig.rest();
    assert_eq!(rig.position("a"), Some(1));
}

#[test]
fn a_failing_root_is_tried_again_after_growing_waits_while_others_go_on() {
    let mut rig = Rig::new();
    rig.always("a", Answer::Retry);
    rig.page([ev("a", 0), ev("b", 0)]);
    let mut tries = Vec::new();
    for second in 0..60 {
        rig.page([ev("b", second + 1)]);
        rig.millis(1000);
        tries.push(rig.of("a").len());
    }
    assert_eq!(rig.of("b"), (0..61).collect::<Vec<_>>());
    let (early, late) = (tries[9], tries[59] - tries[49]);
    assert!((5..=15).contains(&early) && late <= 2, "{tries:?}");
    assert_eq!(rig.checkpoint(LANE), None, "a root that is tried again is not covered");
    rig.always("a", Answer::All);
    rig.rest();
    assert_eq!((rig.position("a"), rig.checkpoint(LANE)), (Some(0), Some(62)));
}

#[test]
fn the_receivers_own_wait_is_kept() {
    let mut rig = Rig::new();
    rig.script("a", [Answer::RetryAfter(Duration::from_secs(20))]);
    rig.page(evs("a", 0..2));
    assert_eq!(rig.lanes.queued_bytes(), 0, "what waits long is let go");
    rig.page(evs("a", 2..4));
    rig.millis(19_999);
    assert_eq!(rig.of("a"), [0, 1]);
    rig.millis(1);
    assert_eq!(rig.of("a")[2..], [0, 1, 2, 3], "and fetched from the table");
}

#[test]
fn a_permanent_failure_stops_that_root_only_until_the_receiver_is_mended() {
    let mut rig = Rig::new();
    rig.always("a", Answer::Permanent);
    rig.page([evs("a", 0..3), evs("b", 0..3)].concat());
    rig.page(evs("a", 3..5));
    rig.rest();
    assert_eq!((rig.of("b"), rig.lanes.stuck().blocked), (vec![0, 1, 2], 1));
    assert_eq!(rig.lanes.queued_bytes(), 0);
    rig.always("a", Answer::All);
    rig.rest();
    assert_eq!((rig.position("a"), rig.lanes.stuck().blocked), (Some(4), 0));
}

#[test]
fn what_a_stopped_root_is_shown_meanwhile_follows_later() {
    let mut rig = Rig::new();
    rig.script("a", [Answer::Permanent]);
    rig.page([ev("a", 0)]);
    for sequence in 1..20 {
        rig.page([ev("a", sequence)]);
        rig.millis(100);
    }
    rig.end(LANE);
    rig.rest();
    assert_eq!(rig.of("a")[1..], (0..20).collect::<Vec<_>>());
    assert_eq!(rig.finished, [LANE]);
}

#[test]
fn groups_keep_to_every_limit() {
    let limits =
        GroupLimits { roots: 3, events_per_root: 2, bytes_per_root: 100, bytes: 150, ..GroupLimits::default() };
    let mut rig = Rig::with(LaneSettings { limits, max_in_flight: 64, ..settings() });
    rig.hold(Kind::Deliver);
    rig.write(evs("big", 0..1));
    rig.show(LANE, [ev("big", 0).sized(5000)], false);
    for root in ["b", "c", "d", "e"] {
        rig.write((0..3).map(|sequence| ev(root, sequence).sized(40)).collect::<Vec<_>>());
        rig.show(LANE, (0..3).map(|sequence| ev(root, sequence).sized(40)).collect::<Vec<_>>(), false);
    }
    rig.run();
    assert_eq!(rig.of("big"), [0], "a single larger event is still given");
    assert_eq!(rig.of("b"), [0, 1]);
    assert!(rig.held(Kind::Deliver) >= 3);
    rig.release(Kind::Deliver);
    rig.rest();
    for root in ["b", "c", "d", "e"] {
        assert_eq!(rig.of(root), [0, 1, 2]);
    }
    assert!(rig.delivered.iter().all(|(_, run)| run.len() <= 2));
}

#[test]
fn no_more_roots_are_with_the_handler_than_it_wants() {
    let mut rig = Rig::with(LaneSettings { max_in_flight: 3, ..settings() });
    rig.hold(Kind::Deliver);
    rig.page((0..10).map(|root| ev(&root.to_string(), 0)).collect::<Vec<_>>());
    assert_eq!(rig.held(Kind::Deliver), 3);
    for _ in 0..10 {
        rig.release_one(Kind::Deliver);
        assert!(rig.held(Kind::Deliver) <= 3);
    }
    assert_eq!(rig.delivered.len(), 10);
}

#[test]
fn limits_of_nothing_are_taken_for_one() {
    let limits = GroupLimits { roots: 0, events_per_root: 0, bytes_per_root: 0, bytes: 0, payload_bytes_max: 0 };
    let mut rig = Rig::with(LaneSettings { limits, ..settings() });
    rig.page(evs("a", 0..3));
    rig.rest();
    assert_eq!((rig.of("a"), rig.delivered.len()), (vec![0, 1, 2], 3));
}

#[test]
fn an_answer_for_events_that_another_replica_finished_meanwhile_is_taken() {
    for answer in [Answer::All, Answer::Retry, Answer::Permanent, Answer::Unavailable] {
        let mut rig = Rig::new();
        rig.page([ev("a", 0)]);
        rig.write(evs("a", 1..4));
        rig.hold(Kind::Deliver);
        rig.show(LANE, evs("a", 1..4), false);
        rig.run();
        rig.elsewhere("a", 3);
        rig.millis(1500);
        rig.script("a", [answer]);
        rig.release(Kind::Deliver);
        rig.end(LANE);
        rig.rest();
        assert_eq!(rig.of("a"), [0, 1, 2, 3], "{answer:?}");
        assert_eq!(rig.finished, [LANE], "{answer:?}");
        assert_eq!(rig.lanes.stuck(), super::super::Stuck::default());
    }
}
