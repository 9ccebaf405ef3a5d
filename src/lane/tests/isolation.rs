//! One root in trouble delays no other, and everything is bounded (clauses 6 and 7).

use std::time::Duration;

use super::rig::{Answer, Kind, LANE, Rig, Writes, ev, evs, settings, types};
use crate::lane::LaneSettings;

fn bounded() -> LaneSettings {
    LaneSettings { queued_bytes_max: 40_000, ..settings() }
}

#[test]
fn one_root_in_flight_holds_its_share_and_the_lanes_go_on_pulling() {
    let mut rig = Rig::with(bounded());
    rig.hold(Kind::Deliver);
    for sequence in 0..200 {
        rig.page([ev("stuck", sequence).sized(1000)]);
    }
    assert!(rig.lanes.queued_bytes() <= 12_000, "a quarter and a row: {}", rig.lanes.queued_bytes());
    assert!(rig.lanes.wants_page());
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!(rig.of("stuck"), (0..200).collect::<Vec<_>>(), "the rest came from the table");
    assert_eq!(rig.repairs.len(), 1);
}

#[test]
fn several_stuck_roots_let_go_of_what_they_hold() {
    let mut rig = Rig::with(bounded());
    rig.hold(Kind::Deliver);
    for root in ["a", "b", "c", "d"] {
        for sequence in 0..20 {
            rig.page([ev(root, sequence).sized(1000)]);
        }
    }
    assert!(!rig.lanes.wants_page());
    rig.millis(1000);
    rig.lanes.relieve(rig.now);
    assert!(rig.lanes.wants_page() && rig.lanes.queued_bytes() == 0);
    rig.release(Kind::Deliver);
    rig.rest();
    for root in ["a", "b", "c", "d"] {
        assert_eq!(rig.of(root), (0..20).collect::<Vec<_>>());
    }
}

#[test]
fn relief_leaves_alone_what_only_waits_for_its_turn_or_was_just_handed_over() {
    let mut rig = Rig::with(LaneSettings { max_in_flight: 1, ..bounded() });
    rig.hold(Kind::Deliver);
    for root in ["a", "b", "c", "d"] {
        for sequence in 0..20 {
            rig.page([ev(root, sequence).sized(1000)]);
        }
    }
    rig.millis(5000);
    rig.release_one(Kind::Deliver);
    let held = rig.lanes.queued_bytes();
    rig.lanes.relieve(rig.now);
    assert_eq!(rig.lanes.queued_bytes(), held, "nothing stands");
}

#[test]
fn a_slow_root_delays_no_other() {
    let mut rig = Rig::with(LaneSettings { max_in_flight: 2, ..bounded() });
    rig.hold(Kind::Deliver);
    rig.page([ev("slow", 0)]);
    rig.hold(Kind::Deliver);
    for sequence in 0..50 {
        rig.page([ev("fast", sequence)]);
        assert_eq!(rig.held(Kind::Deliver), 2);
        // The slow one is the oldest: leave it, answer the other.
        rig.release_newest();
    }
    assert_eq!((rig.of("slow").len(), rig.of("fast").len()), (1, 50));
    rig.rest();
    assert_eq!((rig.position("fast"), rig.checkpoint(LANE)), (Some(49), None), "the slow one holds the checkpoint");
}

#[test]
fn a_root_waiting_for_the_table_delays_no_other() {
    let mut rig = Rig::new();
    rig.hold(Kind::Repair);
    rig.page([ev("gap", 1), ev("b", 0)]);
    rig.millis(300);
    for sequence in 1..5 {
        rig.page([ev("b", sequence)]);
    }
    assert_eq!((rig.held(Kind::Repair), rig.of("b").len()), (1, 5));
}

#[test]
fn repairs_and_loads_under_way_are_bounded() {
    let mut rig = Rig::new();
    rig.hold(Kind::Load);
    rig.page((0..2000).map(|root| ev(&root.to_string(), 1)).collect::<Vec<_>>());
    assert_eq!(rig.held(Kind::Load), 4);
    rig.hold(Kind::Repair);
    rig.release(Kind::Load);
    rig.millis(300);
    assert_eq!(rig.held(Kind::Repair), 8);
    rig.write((0..2000).map(|root| ev(&root.to_string(), 0)).collect::<Vec<_>>());
    rig.release(Kind::Repair);
    rig.rest();
    assert_eq!(rig.checkpoint(LANE), Some(2000));
}

#[test]
fn roots_waiting_for_their_position_are_bounded() {
    let mut rig = Rig::new();
    rig.hold(Kind::Load);
    let mut roots = 0;
    while rig.lanes.wants_page() {
        rig.page((roots..roots + 1000).map(|root| ev(&root.to_string(), 0)).collect::<Vec<_>>());
        roots += 1000;
        assert!(roots < 20_000);
    }
}

#[test]
fn stuck_roots_stop_the_pulling_at_their_bound() {
    let mut rig = Rig::with(LaneSettings { stuck_roots_max: 10, ..settings() });
    rig.everybody = Answer::Permanent;
    for root in 0..10 {
        assert!(rig.lanes.wants_page());
        rig.page([ev(&root.to_string(), 0)]);
    }
    assert!(!rig.lanes.wants_page());
    rig.everybody = Answer::All;
    rig.rest();
    assert!(rig.lanes.wants_page());
}

#[test]
fn roots_that_fail_are_bounded_though_they_wait_for_their_turn() {
    let mut rig = Rig::with(LaneSettings { stuck_roots_max: 100, max_in_flight: 1, ..settings() });
    rig.everybody = Answer::Permanent;
    // One healthy root between them, so that it is no outage.
    rig.always("healthy", Answer::All);
    let mut roots = 0;
    while rig.lanes.wants_page() {
        let failing = (roots..roots + 20).map(|root| ev(&root.to_string(), 0));
        rig.page(failing.chain([ev("healthy", roots / 20)]).collect::<Vec<_>>());
        roots += 20;
        assert!(roots <= 200, "the bound is 100");
    }
    // All of them are due, and one call is under way.
    rig.hold(Kind::Deliver);
    rig.rest();
    assert_eq!(rig.held(Kind::Deliver), 1);
    assert!(!rig.lanes.wants_page(), "who waits to be tried again is stuck all the same");
    rig.everybody = Answer::All;
    rig.release(Kind::Deliver);
    rig.rest();
    assert!(rig.lanes.wants_page());
    assert_eq!((rig.lanes.stuck().retrying, rig.lanes.stuck().blocked), (0, 0));
}

#[test]
fn idle_roots_are_bounded() {
    let mut rig = Rig::with(LaneSettings { idle_roots_max: 50, ..settings() });
    for root in 0..500 {
        rig.page([ev(&root.to_string(), 0)]);
        rig.millis(1100);
        assert!(rig.lanes.courses.len() <= 52, "{}", rig.lanes.courses.len());
    }
    rig.page([ev("0", 0), ev("0", 1)]);
    assert_eq!(rig.of("0"), [0, 1], "what was forgotten is loaded again");
}

#[test]
fn idle_roots_are_bounded_when_all_is_left_out_by_type() {
    let mut rig = Rig::subscribed(LaneSettings { idle_roots_max: 50, ..settings() }, types(&["Placed"]));
    for root in 0..500 {
        rig.page([ev(&root.to_string(), 0)]);
        rig.millis(1100);
        assert!(rig.lanes.courses.len() <= 110, "{}", rig.lanes.courses.len());
    }
}

#[test]
fn roots_whose_positions_cannot_be_written_are_bounded() {
    let mut rig = Rig::new();
    rig.writes = Writes::Fail;
    let mut roots = 0;
    while rig.lanes.wants_page() {
        rig.page((roots..roots + 1000).map(|root| ev(&root.to_string(), 0)).collect::<Vec<_>>());
        roots += 1000;
        assert!(roots <= 50_000, "positions cannot be written and the lanes still pull");
    }
    rig.writes = Writes::Work;
    rig.rest();
    assert!(rig.lanes.wants_page());
    assert_eq!(rig.checkpoint(LANE), Some(roots));
}

#[test]
fn timers_do_not_pile_up_for_a_root_that_waits() {
    let mut rig = Rig::new();
    rig.page([ev("a", 0)]);
    for sequence in 2..500 {
        rig.page([ev("a", sequence)]);
        rig.advance(Duration::from_millis(40));
        assert!(rig.lanes.timers.len() < 20, "{}", rig.lanes.timers.len());
    }
}

#[test]
fn a_paused_handler_is_given_nothing_and_catches_up_after() {
    let mut rig = Rig::new();
    rig.page(evs("r", 0..2));
    rig.hold(Kind::Deliver);
    rig.page(evs("r", 2..4));
    rig.lanes.pause(true);
    assert!(!rig.lanes.wants_page());
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!(rig.of("r"), [0, 1, 2, 3], "what was in flight is answered");
    assert_eq!(rig.position("r"), Some(3), "and its position written");
    // A page that was on its way.
    rig.page(evs("r", 4..6));
    rig.rest();
    assert_eq!(rig.of("r").len(), 4);
    rig.lanes.pause(false);
    assert!(rig.lanes.wants_page());
    rig.rest();
    assert_eq!(rig.of("r"), [0, 1, 2, 3, 4, 5]);
}
