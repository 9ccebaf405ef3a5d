//! Roots that an operator orders back (clause 12): given again in order, under their own cursor, while the position stays.

use std::time::Duration;

use super::super::{LaneSettings, OnFailure};
use super::rig::{Answer, Kind, LANE, Rig, ev, evs, settings, types};
use crate::storage::{MarkState, Marked};

fn parking() -> LaneSettings {
    LaneSettings { on_failure: OnFailure::Park, attempts_max: 3, ..settings() }
}

/// A root with so many events, all delivered and durable.
fn delivered(settings: LaneSettings, events: u64) -> Rig {
    let mut rig = Rig::with(settings);
    rig.page(evs("r", 0..events));
    rig.rest();
    assert_eq!(rig.position("r"), Some(events - 1));
    rig.delivered.clear();
    rig
}

#[test]
fn it_is_given_again_to_its_end_and_then_goes_on_as_ever() {
    for flush_interval in [Duration::from_secs(1), Duration::ZERO] {
        let mut rig = delivered(LaneSettings { flush_interval, ..settings() }, 5);
        rig.rewind("r", 2);
        rig.rest();
        assert_eq!(rig.of("r"), [2, 3, 4]);
        assert_eq!((rig.position("r"), rig.mark("r")), (Some(4), None));
        rig.page(evs("r", 5..7));
        rig.rest();
        assert_eq!(rig.of("r"), [2, 3, 4, 5, 6]);
        assert_eq!((rig.position("r"), rig.checkpoint(LANE)), (Some(6), Some(7)));
        rig.rewind("r", 6);
        rig.rest();
        assert_eq!(rig.of("r").last(), Some(&6));
    }
}

#[test]
fn what_comes_meanwhile_waits_for_its_turn_and_holds_the_checkpoint() {
    let mut rig = delivered(settings(), 3);
    rig.hold(Kind::Deliver);
    rig.rewind("r", 1);
    rig.page(evs("r", 3..5));
    rig.page([ev("other", 0)]);
    rig.millis(10_000);
    assert_eq!(rig.checkpoint(LANE), Some(3));
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!(rig.of("r"), [1, 2, 3, 4]);
    assert_eq!((rig.position("r"), rig.checkpoint(LANE)), (Some(4), Some(6)));
}

#[test]
fn its_position_is_never_written_before_it_is_passed() {
    let mut rig = delivered(settings(), 10);
    rig.flushes.clear();
    rig.rewind("r", 0);
    rig.rest();
    assert_eq!(rig.of("r").len(), 10);
    assert!(rig.flushes.is_empty(), "{:?}", rig.flushes);
}

#[test]
fn an_event_that_fails_again_parks_it_there_and_a_release_goes_on_from_there() {
    for pass in [false, true] {
        let mut rig = delivered(parking(), 6);
        rig.script("r", [Answer::Permanent, Answer::All, Answer::All, Answer::Permanent]);
        rig.rewind("r", 1);
        rig.rest();
        assert_eq!(rig.of("r"), [1, 2, 3, 4, 5, 1, 2, 3], "the batch, then one at a time");
        let mark = rig.mark("r").unwrap();
        assert_eq!((mark.state, mark.sequence.0, mark.rewound), (MarkState::Parked, 3, true));
        rig.delivered.clear();
        rig.release_parked("r", pass);
        rig.rest();
        let rest: Vec<u64> = if pass { vec![4, 5] } else { vec![3, 4, 5] };
        assert_eq!((rig.of("r"), rig.position("r"), rig.mark("r")), (rest, Some(5), None));
    }
}

#[test]
fn a_skipping_handler_passes_what_fails_again() {
    let mut rig = delivered(LaneSettings { on_failure: OnFailure::Skip, ..settings() }, 4);
    rig.script("r", [Answer::Permanent, Answer::Permanent]);
    rig.rewind("r", 1);
    rig.rest();
    assert_eq!(rig.of("r"), [1, 2, 3, 1, 2, 3]);
    assert_eq!((rig.position("r"), rig.mark("r"), rig.skips.len()), (Some(3), None, 1));
}

#[test]
fn how_far_it_has_come_is_noted_now_and_then() {
    let mut rig = delivered(settings(), 1300);
    rig.hold(Kind::Deliver);
    rig.rewind("r", 0);
    let mut noted = Vec::new();
    while rig.held(Kind::Deliver) > 0 {
        rig.release_one(Kind::Deliver);
        noted.extend(rig.mark("r").map(|mark| mark.sequence.0));
        assert!(rig.of("r").len() <= 1300);
    }
    noted.dedup();
    assert_eq!(noted, [0, 500, 1000]);
    assert_eq!(rig.of("r"), (0..1300).collect::<Vec<_>>(), "each once");
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!((rig.position("r"), rig.mark("r")), (Some(1299), None));
}

#[test]
fn another_life_goes_on_where_it_was_noted() {
    let mut rig = delivered(settings(), 1300);
    rig.hold(Kind::Deliver);
    rig.rewind("r", 0);
    for _ in 0..7 {
        rig.release_one(Kind::Deliver);
    }
    assert_eq!(rig.mark("r").map(|mark| mark.sequence.0), Some(500));
    let mut next = Rig::with(settings());
    next.contract.table = rig.contract.table.clone();
    next.contract.positions = rig.contract.positions.clone();
    next.contract.marks = rig.contract.marks.clone();
    let deferred = next.contract.marks.keys().map(|root| (root.clone(), None)).collect();
    next.lanes.resume(Marked { deferred, ..Marked::default() }, next.now);
    next.rest();
    assert_eq!(next.of("r"), (500..1300).collect::<Vec<_>>());
    assert_eq!((next.position("r"), next.mark("r")), (Some(1299), None));
}

#[test]
fn a_long_wait_keeps_its_place() {
    let mut rig = delivered(LaneSettings { checkpoint_hold: Duration::from_secs(5), ..settings() }, 6);
    rig.script("r", [Answer::Take(2), Answer::RetryAfter(Duration::from_mins(1))]);
    rig.rewind("r", 1);
    rig.millis(1000);
    let mark = rig.mark("r").unwrap();
    assert_eq!((mark.state, mark.sequence.0, mark.rewound), (MarkState::Deferred, 3, true));
    rig.rest();
    assert_eq!(rig.of("r"), [1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5]);
    assert_eq!((rig.position("r"), rig.mark("r")), (Some(5), None));
}

#[test]
fn it_begins_at_its_base_and_never_before_the_handlers_start() {
    let mut rig = Rig::new();
    rig.page(evs("r", 5..8));
    rig.rest();
    rig.delivered.clear();
    rig.rewind("r", 0);
    rig.rest();
    assert_eq!(rig.of("r"), [5, 6, 7]);

    let mut rig = Rig::starting_at(100);
    rig.page((0..6).map(|sequence| ev("r", sequence).at(if sequence < 3 { 50 } else { 150 })).collect::<Vec<_>>());
    rig.rest();
    rig.delivered.clear();
    rig.rewind("r", 0);
    rig.rest();
    assert_eq!((rig.of("r"), rig.position("r")), (vec![3, 4, 5], Some(5)));
}

#[test]
fn what_is_left_out_by_type_stays_out() {
    let mut rig = Rig::subscribed(LaneSettings { filtered_flush: 2, ..settings() }, types(&["Placed"]));
    let typed = |sequence: u64| ev("r", sequence).of(if sequence == 1 { "Placed" } else { "Other" });
    rig.page((0..8).map(typed).collect::<Vec<_>>());
    rig.rest();
    rig.delivered.clear();
    rig.rewind("r", 0);
    rig.rest();
    assert_eq!((rig.of("r"), rig.mark("r")), (vec![1], None));
    rig.page([ev("r", 8).of("Placed")]);
    rig.rest();
    assert_eq!((rig.of("r"), rig.position("r")), (vec![1, 8], Some(8)));
}

/// Another life over the same tables, which takes up what is marked.
fn next_life(rig: &Rig, settings: LaneSettings) -> Rig {
    let mut next = Rig::with(settings);
    next.contract.table = rig.contract.table.clone();
    next.contract.positions = rig.contract.positions.clone();
    next.contract.marks = rig.contract.marks.clone();
    let deferred = next.contract.marks.keys().map(|root| (root.clone(), None)).collect();
    next.lanes.resume(Marked { deferred, ..Marked::default() }, next.now);
    next
}

#[test]
fn what_lies_behind_the_position_is_not_given_again_by_another_life() {
    for flush_interval in [Duration::from_secs(1), Duration::ZERO] {
        let settings = LaneSettings { flush_interval, ..settings() };
        let mut rig = delivered(settings.clone(), 10);
        // Two hundred more, which nobody has been given yet.
        rig.write(evs("r", 10..400));
        rig.hold(Kind::Deliver);
        rig.rewind("r", 5);
        for _ in 0..3 {
            rig.release_one(Kind::Deliver);
            rig.millis(1100);
        }
        let (given, position) = (rig.of("r"), rig.position("r").unwrap());
        assert!(position >= 100 && given.last().is_some_and(|last| *last > position), "{position}");
        let mut next = next_life(&rig, settings);
        next.rest();
        assert_eq!(next.of("r").first(), Some(&(position + 1)), "not from the place it was ordered back to");
        assert_eq!((next.position("r"), next.mark("r")), (Some(399), None));
    }
}

#[test]
fn past_its_position_it_parks_and_is_skipped_like_any_other() {
    let settings = LaneSettings { on_failure: OnFailure::Park, ..settings() };
    let mut rig = Rig::subscribed(settings, types(&["Placed"]));
    let typed = |sequence: u64| ev("r", sequence).of(if sequence == 4 { "Other" } else { "Placed" });
    rig.page((0..4).map(typed).collect::<Vec<_>>());
    rig.rest();
    rig.page([typed(4)]);
    rig.lanes.drain(rig.now);
    rig.rest();
    let mut rig = {
        let mut next = Rig::subscribed(parking(), types(&["Placed"]));
        next.contract.table = rig.contract.table.clone();
        next.contract.positions = rig.contract.positions.clone();
        next
    };
    assert_eq!(rig.position("r"), Some(4), "the last before is one that is left out");
    rig.script("r", [Answer::Take(1), Answer::Permanent, Answer::Permanent]);
    rig.write([typed(5), typed(6)]);
    rig.rewind("r", 3);
    rig.rest();
    let mark = rig.mark("r").unwrap();
    assert_eq!((mark.state, mark.sequence.0, mark.rewound), (MarkState::Parked, 5, false));
    rig.release_parked("r", true);
    rig.rest();
    assert_eq!((rig.of("r").last(), rig.position("r"), rig.mark("r")), (Some(&6), Some(6), None));
}

#[test]
fn an_order_that_comes_while_a_root_fails_is_not_written_over() {
    let mut rig = delivered(parking(), 6);
    rig.always("r", Answer::Retry);
    rig.hold(Kind::Mark);
    rig.page([evs("r", 6..7), evs("good", 0..1)].concat());
    rig.millis(5000);
    assert_eq!(rig.held(Kind::Mark), 1, "it is to be parked");
    rig.rewind("r", 2);
    rig.always("r", Answer::All);
    rig.release(Kind::Mark);
    rig.rest();
    assert_eq!(rig.of("r").into_iter().rev().take(5).collect::<Vec<_>>(), [6, 5, 4, 3, 2]);
    assert_eq!((rig.position("r"), rig.mark("r")), (Some(6), None));
}

#[test]
fn roots_that_were_given_again_are_forgotten_like_others() {
    let settings = LaneSettings { idle_roots_max: 10, filtered_flush: 2, ..settings() };
    let mut rig = Rig::subscribed(settings, types(&["Placed"]));
    for root in 0..50 {
        let id = root.to_string();
        rig.page((0..6).map(|sequence| ev(&id, sequence).of("Other")).collect::<Vec<_>>());
        rig.rest();
        rig.rewind(&id, 0);
        rig.rest();
    }
    rig.page([ev("last", 0)]);
    rig.rest();
    rig.page([ev("last", 1)]);
    assert!(rig.lanes.courses.len() <= 14, "{}", rig.lanes.courses.len());
}
