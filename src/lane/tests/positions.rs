//! Writing positions: coalesced, conditional, tried again (clauses 3 and 4).

use std::time::Duration;

use super::rig::{Answer, Kind, LANE, Rig, Writes, ev, evs, settings};
use crate::event::Sequence;
use crate::lane::LaneSettings;
use crate::storage::Advance;

fn at_once() -> LaneSettings {
    LaneSettings { flush_interval: Duration::ZERO, ..settings() }
}

#[test]
fn only_the_newest_position_is_written_once_an_interval() {
    let mut rig = Rig::new();
    for sequence in 0..100 {
        rig.page([ev("a", sequence), ev("b", sequence)]);
        rig.millis(100);
    }
    rig.rest();
    assert!((10..=11).contains(&rig.flushes.len()), "{} flushes in 10 seconds", rig.flushes.len());
    assert_eq!((rig.position("a"), rig.position("b")), (Some(99), Some(99)));
}

#[test]
fn one_flush_is_in_flight_and_the_next_takes_all_that_came_meanwhile() {
    let mut rig = Rig::new();
    rig.hold(Kind::Flush);
    rig.page(evs("a", 0..1));
    rig.millis(1000);
    for sequence in 1..10 {
        rig.page([ev("a", sequence)]);
        rig.millis(1000);
    }
    assert_eq!((rig.held(Kind::Flush), rig.flushes.len()), (1, 1));
    rig.release(Kind::Flush);
    rig.rest();
    let of = |advance: &Advance| (advance.from.map(|from| from.0), advance.to.0);
    let written: Vec<_> = rig.flushes.iter().flatten().map(of).collect();
    assert_eq!(written, [(None, 0), (Some(0), 9)]);
}

#[test]
fn many_dirty_roots_are_written_before_the_interval() {
    let mut rig = Rig::with(LaneSettings { flush_roots: 10, ..settings() });
    rig.page((0..9).map(|root| ev(&root.to_string(), 0)).collect::<Vec<_>>());
    assert!(rig.flushes.is_empty());
    rig.page([ev("9", 0)]);
    assert_eq!(rig.flushes[0].len(), 10);
}

#[test]
fn with_no_interval_a_root_is_held_until_its_position_is_durable() {
    let mut rig = Rig::with(at_once());
    rig.hold(Kind::Flush);
    rig.page([ev("a", 0), ev("b", 0)]);
    rig.page([ev("a", 1)]);
    rig.rest();
    assert_eq!((rig.of("a"), rig.of("b")), (vec![0], vec![0]));
    rig.release(Kind::Flush);
    rig.rest();
    assert_eq!((rig.of("a"), rig.position("a")), (vec![0, 1], Some(1)));
}

#[test]
fn with_no_interval_a_failed_write_still_holds_the_root() {
    let mut rig = Rig::with(at_once());
    rig.writes = Writes::Fail;
    rig.page(evs("a", 0..1));
    rig.page(evs("a", 1..2));
    rig.millis(5000);
    assert_eq!(rig.of("a"), [0]);
    rig.writes = Writes::Work;
    rig.rest();
    assert_eq!((rig.of("a"), rig.position("a")), (vec![0, 1], Some(1)));
}

#[test]
fn a_refused_position_that_is_later_moves_the_root_past_it() {
    let mut rig = Rig::new();
    rig.page(evs("a", 0..1));
    rig.hold(Kind::Flush);
    rig.millis(1000);
    rig.always("a", Answer::RetryAfter(Duration::from_secs(1)));
    rig.page(evs("a", 1..8));
    rig.elsewhere("a", 5);
    rig.release(Kind::Flush);
    rig.always("a", Answer::All);
    rig.rest();
    assert_eq!(rig.of("a")[8..], [6, 7], "nothing at or below what another replica finished");
    assert_eq!((rig.position("a"), rig.checkpoint(LANE)), (Some(7), Some(8)));
}

#[test]
fn a_refused_position_covers_what_waits_for_its_turn() {
    let mut rig = Rig::with(LaneSettings { max_in_flight: 1, ..settings() });
    rig.page(evs("a", 0..1));
    rig.hold(Kind::Flush);
    rig.millis(1000);
    rig.hold(Kind::Deliver);
    rig.page([ev("b", 0)]);
    rig.page(evs("a", 1..3));
    rig.page([ev("c", 0)]);
    rig.elsewhere("a", 2);
    rig.release(Kind::Flush);
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!((rig.of("a"), rig.of("b"), rig.of("c")), (vec![0], vec![0], vec![0]));
    assert_eq!(rig.checkpoint(LANE), Some(5));
}

#[test]
fn a_refusal_while_a_gap_waits_is_read_again_though_the_gap_is_filled_then() {
    let mut rig = Rig::new();
    rig.hold(Kind::Flush);
    rig.page([ev("a", 0)]);
    rig.millis(1000);
    rig.write([ev("a", 1)]);
    rig.page([ev("a", 2)]);
    rig.elsewhere("a", 2);
    rig.release(Kind::Flush);
    rig.page([ev("a", 1)]);
    rig.rest();
    assert_eq!((rig.of("a"), rig.checkpoint(LANE)), (vec![0], Some(3)));
}

#[test]
fn failed_writes_are_tried_again_and_paced() {
    let mut rig = Rig::with(LaneSettings { flush_roots: 5, ..settings() });
    rig.writes = Writes::Fail;
    rig.page((0..50).map(|root| ev(&root.to_string(), 0)).collect::<Vec<_>>());
    rig.millis(5000);
    assert!((10..=22).contains(&rig.flushes.len()), "{}: ten first ones, then two a second", rig.flushes.len());
    assert_eq!(rig.checkpoint(LANE), None);
    rig.writes = Writes::Work;
    rig.rest();
    assert_eq!(rig.checkpoint(LANE), Some(50));
}

#[test]
fn a_lost_reply_is_our_own_write() {
    for settings in [settings(), at_once()] {
        let mut rig = Rig::with(settings);
        rig.writes = Writes::LoseReplies;
        rig.page(evs("a", 0..2));
        rig.millis(1200);
        rig.writes = Writes::Work;
        rig.page(evs("a", 2..4));
        rig.rest();
        assert_eq!((rig.of("a"), rig.position("a")), (vec![0, 1, 2, 3], Some(3)));
    }
}

#[test]
fn after_a_crash_only_what_was_not_durable_comes_again() {
    let mut rig = Rig::new();
    rig.page(evs("a", 0..5));
    rig.millis(1000);
    rig.page(evs("a", 5..8));
    assert_eq!(rig.position("a"), Some(4));
    let mut again = Rig::new();
    again.contract.table = rig.contract.table.clone();
    again.contract.positions = rig.contract.positions.clone();
    again.show(LANE, evs("a", 0..8), false);
    again.rest();
    assert_eq!(again.of("a"), [5, 6, 7]);
}

#[test]
fn the_position_given_as_the_old_one_is_the_one_in_the_table() {
    let mut rig = Rig::new();
    rig.write(evs("a", 0..10));
    rig.elsewhere("a", 3);
    rig.show(LANE, evs("a", 0..10), false);
    rig.rest();
    assert_eq!(rig.flushes.len(), 1);
    assert_eq!((rig.flushes[0][0].from, rig.flushes[0][0].to), (Some(Sequence(3)), Sequence(9)));
}

#[test]
fn a_stuck_root_in_an_ended_shard_does_not_undo_the_coalescing() {
    let mut rig = Rig::new();
    rig.open(super::rig::OTHER);
    rig.always("stuck", Answer::Permanent);
    rig.page([ev("stuck", 0)]);
    rig.end(LANE);
    for sequence in 0..100 {
        rig.page_of(super::rig::OTHER, [ev("a", sequence)]);
        rig.millis(100);
    }
    assert!(rig.flushes.len() <= 11, "{} flushes in 10 seconds", rig.flushes.len());
}

#[test]
fn what_was_accepted_beyond_a_position_written_by_others_is_not_given_again() {
    let mut rig = Rig::new();
    rig.page([ev("a", 0)]);
    rig.rest();
    rig.hold(Kind::Flush);
    rig.page([ev("a", 1)]);
    rig.millis(2_000);
    rig.page(evs("a", 2..5));
    rig.elsewhere("a", 2);
    rig.release_one(Kind::Flush);
    rig.millis(20_000);
    assert_eq!((rig.position("a"), rig.checkpoint(LANE)), (Some(2), Some(2)), "3 and 4 are not durable yet");
    rig.release(Kind::Flush);
    rig.rest();
    assert_eq!((rig.of("a"), rig.position("a")), (vec![0, 1, 2, 3, 4], Some(4)));
    assert_eq!(rig.checkpoint(LANE), Some(rig.number));
}
