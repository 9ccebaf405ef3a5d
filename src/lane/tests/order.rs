//! Order, gaps and duplicates (clauses 1 and 3).

use super::rig::{Kind, LANE, OTHER, Rig, ev, evs, root_of, settings};
use crate::event::Sequence;

#[test]
fn consecutive_events_come_in_one_batch_and_later_ones_follow() {
    let mut rig = Rig::new();
    rig.page([evs("a", 0..3), evs("b", 0..1)].concat());
    rig.page(evs("a", 3..5));
    let a: Vec<_> = rig.delivered.iter().filter(|(root, _)| *root == root_of("a")).map(|(_, run)| run).collect();
    assert_eq!(a, [&vec![0, 1, 2], &vec![3, 4]]);
    assert!(rig.repairs.is_empty());
}

#[test]
fn a_gap_waits_for_the_stream_before_it_asks_the_table() {
    let mut rig = Rig::new();
    rig.page([ev("a", 0)]);
    rig.page([ev("a", 2)]);
    rig.write([ev("a", 1)]);
    rig.millis(199);
    assert_eq!((rig.of("a"), rig.repairs.len()), (vec![0], 0));
    rig.millis(1);
    assert_eq!((rig.of("a"), rig.repairs.len()), (vec![0, 1, 2], 1));
    assert_eq!((rig.repairs[0].from, rig.repairs[0].to), (Sequence(1), Sequence(1)), "only what is missing");
}

#[test]
fn what_the_stream_brings_in_time_needs_no_repair() {
    let mut rig = Rig::new();
    rig.page([ev("a", 2)]);
    rig.millis(100);
    rig.page([ev("a", 1)]);
    rig.millis(50);
    rig.page([ev("a", 0)]);
    rig.rest();
    assert_eq!((rig.of("a"), rig.repairs.len()), (vec![0, 1, 2], 0));
}

#[test]
fn later_events_do_not_put_the_repair_off() {
    let mut rig = Rig::new();
    rig.write([ev("a", 0)]);
    for sequence in 1..10 {
        rig.page([ev("a", sequence)]);
        rig.millis(50);
    }
    assert_eq!(rig.of("a"), (0..10).collect::<Vec<_>>(), "the wait counts from when the gap was first seen");
}

#[test]
fn events_that_arrive_during_a_repair_are_not_lost() {
    let mut rig = Rig::new();
    rig.write(evs("a", 0..3));
    rig.hold(Kind::Repair);
    rig.page([ev("a", 3)]);
    rig.millis(200);
    assert_eq!(rig.held(Kind::Repair), 1);
    rig.page([ev("a", 4)]);
    rig.page([ev("a", 1)]);
    rig.release(Kind::Repair);
    assert_eq!(rig.of("a"), [0, 1, 2, 3, 4]);
}

#[test]
fn a_long_gap_is_repaired_page_by_page() {
    let mut rig = Rig::new();
    rig.write(evs("a", 0..1700));
    rig.page([ev("a", 1700)]);
    rig.millis(200);
    assert_eq!(rig.of("a"), (0..=1700).collect::<Vec<_>>());
    assert_eq!(rig.repairs.len(), 4, "500 rows a time");
}

#[test]
fn a_record_never_streamed_is_found_when_the_next_one_is() {
    let mut rig = Rig::new();
    rig.page(evs("a", 0..3));
    rig.write(evs("a", 3..6));
    rig.rest();
    assert_eq!(rig.of("a"), [0, 1, 2]);
    rig.page([ev("a", 6)]);
    rig.rest();
    assert_eq!(rig.of("a"), (0..7).collect::<Vec<_>>());
}

#[test]
fn duplicates_are_dropped_wherever_they_come() {
    let mut rig = Rig::new();
    rig.hold(Kind::Deliver);
    rig.page(evs("a", 0..3));
    rig.page(evs("a", 0..3));
    rig.page([ev("a", 2), ev("a", 1)]);
    rig.release(Kind::Deliver);
    rig.page(evs("a", 0..3));
    rig.rest();
    rig.page(evs("a", 1..4));
    rig.rest();
    assert_eq!(rig.of("a"), [0, 1, 2, 3]);
    assert_eq!(rig.lanes.queued_bytes(), 0);
}

#[test]
fn what_is_durable_already_is_not_delivered() {
    let mut rig = Rig::new();
    rig.write(evs("a", 0..8));
    rig.elsewhere("a", 5);
    rig.show(LANE, evs("a", 0..8), false);
    rig.rest();
    assert_eq!((rig.of("a"), rig.position("a")), (vec![6, 7], Some(7)));
    rig.write(evs("b", 0..3));
    rig.elsewhere("b", 9);
    rig.show(LANE, evs("b", 0..3), true);
    rig.rest();
    assert_eq!((rig.of("b"), rig.finished.len()), (vec![], 1), "all of it is covered, so the shard is finished");
}

#[test]
fn rows_wait_for_the_position_before_anything_is_delivered() {
    let mut rig = Rig::new();
    rig.hold(Kind::Load);
    rig.page(evs("a", 0..2));
    rig.page(evs("a", 2..4));
    rig.rest();
    assert_eq!((rig.of("a").len(), rig.held(Kind::Load), rig.checkpoint(LANE)), (0, 1, None));
    rig.elsewhere("a", 1);
    rig.release(Kind::Load);
    rig.rest();
    assert_eq!((rig.of("a"), rig.checkpoint(LANE)), (vec![2, 3], Some(4)));
}

#[test]
fn an_item_collection_split_over_two_shards_keeps_its_order() {
    let mut rig = Rig::new();
    rig.open(OTHER);
    rig.page_of(OTHER, [ev("a", 1), ev("a", 3)]);
    rig.page_of(LANE, [ev("a", 0), ev("a", 2), ev("a", 4)]);
    rig.rest();
    assert_eq!((rig.of("a"), rig.repairs.len()), (vec![0, 1, 2, 3, 4], 0));
    assert_eq!((rig.checkpoint(LANE), rig.checkpoint(OTHER)), (Some(5), Some(2)));
}

#[test]
fn a_child_shard_shown_before_its_parent_keeps_the_order() {
    let mut rig = Rig::new();
    rig.open(OTHER);
    rig.write(evs("a", 0..6));
    rig.show(OTHER, evs("a", 3..6), false);
    rig.run();
    rig.millis(300);
    rig.show(LANE, evs("a", 0..3), true);
    rig.rest();
    assert_eq!(rig.of("a"), (0..6).collect::<Vec<_>>());
    assert_eq!(rig.finished, [LANE], "what the repair brought covers the parent as well");
}

#[test]
fn two_lanes_never_hand_over_one_root_at_once() {
    let mut rig = Rig::with(settings());
    rig.open(OTHER);
    rig.hold(Kind::Deliver);
    rig.page_of(LANE, [ev("a", 0)]);
    rig.page_of(OTHER, [ev("a", 1)]);
    rig.rest();
    assert_eq!(rig.held(Kind::Deliver), 1);
    rig.release(Kind::Deliver);
    assert_eq!(rig.of("a"), [0, 1]);
}
