//! Where a root begins for a handler, and holes in the table.

use std::time::Duration;

use super::rig::{Answer, Kind, LANE, Rig, Spec, ev, evs};

#[test]
fn a_diverged_edition_begins_at_its_lowest_sequence_once_the_timeout_is_over() {
    let mut rig = Rig::new();
    rig.page(evs("a", 7..10));
    rig.millis(10_100);
    assert_eq!(rig.of("a"), Vec::<u64>::new(), "what is below may be about to show");
    rig.millis(200);
    assert_eq!(rig.of("a"), [7, 8, 9]);
    rig.rest();
    assert_eq!((rig.position("a"), rig.checkpoint(LANE)), (Some(9), Some(3)));
}

#[test]
fn a_lower_row_that_shows_in_time_is_the_base() {
    let mut rig = Rig::new();
    rig.page(evs("a", 2..4));
    rig.millis(5000);
    rig.write(evs("a", 0..2));
    rig.millis(1100);
    assert_eq!(rig.of("a"), [0, 1, 2, 3]);
}

/// 0 and 1 are from before the start, the others are not, whatever 3 says.
fn siblings() -> Vec<Spec> {
    vec![ev("a", 0).at(100), ev("a", 1).at(499), ev("a", 2).at(500), ev("a", 3).at(400), ev("a", 4).at(600)]
}

/// Every order of five.
fn orders() -> Vec<Vec<usize>> {
    let mut orders = vec![vec![]];
    for _ in 0..5 {
        orders = (orders.iter())
            .flat_map(|order: &Vec<usize>| {
                (0..5).filter(|next| !order.contains(next)).map(|next| [order.clone(), vec![next]].concat())
            })
            .collect();
    }
    orders
}

#[test]
fn siblings_in_any_order_of_arrival_give_the_same_base() {
    let orders = orders();
    assert_eq!(orders.len(), 120);
    for order in orders {
        for together in [false, true] {
            let mut rig = Rig::starting_at(500);
            rig.write(siblings());
            for index in &order {
                rig.show(LANE, &siblings()[*index..=*index], false);
                if !together {
                    rig.millis(60);
                }
            }
            rig.rest();
            assert_eq!(rig.of("a"), [2, 3, 4], "shown in the order {order:?}");
            assert_eq!(rig.checkpoint(LANE), Some(5));
        }
    }
}

#[test]
fn a_crash_before_the_first_checkpoint_gives_the_same_base() {
    for answered in [false, true] {
        let mut rig = Rig::starting_at(500);
        rig.write(siblings());
        if !answered {
            rig.hold(Kind::Deliver);
        }
        rig.show(LANE, &siblings()[4..], false);
        rig.millis(500);
        assert_eq!(rig.of("a"), [2, 3, 4]);
        // The crash: another life over the same tables.
        let mut again = Rig::starting_at(500);
        again.contract.table = rig.contract.table.clone();
        again.contract.positions = rig.contract.positions.clone();
        again.show(LANE, &siblings()[..3], false);
        again.show(LANE, &siblings()[3..], false);
        again.rest();
        assert_eq!(again.of("a"), [2, 3, 4], "nothing was durable");
    }
}

#[test]
fn a_root_all_from_before_the_start_is_covered_without_a_delivery_or_a_position() {
    let mut rig = Rig::starting_at(500);
    rig.page(evs("a", 0..3).into_iter().map(|event| event.at(100)).collect::<Vec<_>>());
    rig.rest();
    assert_eq!((rig.of("a").len(), rig.position("a"), rig.checkpoint(LANE)), (0, None, Some(3)));
    rig.page([ev("a", 3).at(500)]);
    rig.rest();
    assert_eq!((rig.of("a"), rig.position("a")), (vec![3], Some(3)));
}

#[test]
fn an_old_root_first_met_after_the_start_is_looked_up_once() {
    let mut rig = Rig::starting_at(500);
    rig.write(evs("a", 0..1200).into_iter().map(|event| event.at(1)).collect::<Vec<_>>());
    rig.page([ev("a", 1200).at(600)]);
    rig.rest();
    assert_eq!((rig.of("a"), rig.repairs.len()), (vec![1200], 3));
}

#[test]
fn a_root_that_begins_above_0_before_the_start_needs_no_timeout() {
    let mut rig = Rig::starting_at(500);
    rig.write([ev("a", 5).at(100), ev("a", 6).at(100)]);
    rig.page([ev("a", 7).at(600)]);
    rig.millis(300);
    assert_eq!(rig.of("a"), [7], "what is below an event from before the start is not the handler's either");
}

#[test]
fn a_hole_stops_its_root_only_and_is_reported_once() {
    let mut rig = Rig::new();
    rig.page([evs("a", 0..2), evs("b", 0..1)].concat());
    rig.page([ev("a", 3), ev("b", 1)]);
    rig.millis(9000);
    assert_eq!((rig.lanes.stuck().holes, rig.lanes.stuck().blocked), (1, 0));
    rig.rest();
    assert_eq!((rig.lanes.stuck().holes, rig.lanes.stuck().blocked), (0, 1));
    rig.rest();
    assert_eq!((rig.of("a"), rig.of("b")), (vec![0, 1], vec![0, 1]));
    assert_eq!(rig.checkpoint(LANE), Some(3), "before the page that shows what is behind the hole");
    rig.page([ev("a", 4)]);
    rig.write([ev("a", 2)]);
    rig.millis(30_000);
    assert_eq!(rig.of("a"), [0, 1, 2, 3, 4]);
    rig.rest();
    assert_eq!((rig.lanes.stuck(), rig.checkpoint(LANE)), (super::super::Stuck::default(), Some(6)));
}

#[test]
fn a_hole_filled_within_the_timeout_is_none() {
    let mut rig = Rig::new();
    rig.page([ev("a", 0)]);
    rig.page([ev("a", 2)]);
    rig.millis(5000);
    assert_eq!(rig.lanes.stuck().holes, 1);
    rig.write([ev("a", 1)]);
    rig.millis(1000);
    assert_eq!((rig.of("a"), rig.lanes.stuck().holes), (vec![0, 1, 2], 0));
}

#[test]
fn a_second_hole_has_a_timeout_of_its_own() {
    let mut rig = Rig::new();
    rig.page([ev("a", 0)]);
    rig.page([ev("a", 2), ev("a", 4)]);
    rig.millis(9000);
    rig.write([ev("a", 1)]);
    rig.millis(5000);
    assert_eq!(rig.of("a"), [0, 1, 2]);
    assert_eq!((rig.lanes.stuck().holes, rig.lanes.stuck().blocked), (1, 0), "3 is missing for less than the timeout");
}

#[test]
fn rows_that_left_the_table_are_given_up_and_the_shard_finishes() {
    let mut rig = Rig::new();
    rig.always("a", Answer::RetryAfter(Duration::from_secs(5)));
    rig.page(evs("a", 0..2));
    rig.end(LANE);
    rig.remove("a", 0);
    rig.remove("a", 1);
    rig.rest();
    assert_eq!(rig.finished, [LANE], "they were let go, and are nowhere any more");
}

#[test]
fn giving_up_vanished_rows_does_not_give_up_what_was_accepted_before() {
    let mut rig = Rig::new();
    rig.writes = super::rig::Writes::Fail;
    rig.script("a", [Answer::Take(1)]);
    rig.always("a", Answer::RetryAfter(Duration::from_secs(2)));
    rig.page(evs("a", 0..2));
    rig.remove("a", 1);
    rig.rest();
    assert_eq!((rig.position("a"), rig.checkpoint(LANE)), (None, None), "0 was accepted and is not durable");
    rig.writes = super::rig::Writes::Work;
    rig.rest();
    assert_eq!((rig.position("a"), rig.checkpoint(LANE)), (Some(0), Some(2)));
}
