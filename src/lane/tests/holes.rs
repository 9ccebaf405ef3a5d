//! Holes that a handler passes, and events that appear in one later (contract, holes).

use std::time::Duration;

use super::super::{LaneSettings, OnFailure, OnHole};
use super::rig::{Answer, Kind, LANE, Rig, Writes, ev, evs, settings, types};
use crate::storage::MarkState;

fn passing() -> LaneSettings {
    LaneSettings { on_hole: OnHole::Pass, on_failure: OnFailure::Park, attempts_max: 3, ..settings() }
}

/// A root of 0, 1, 4 and 5, whose handler has passed 2 and 3.
fn passed(settings: LaneSettings) -> Rig {
    let mut rig = Rig::with(settings);
    rig.page(evs("r", 0..2));
    rig.page(evs("r", 4..6));
    rig.rest();
    assert_eq!((rig.of("r"), rig.position("r"), rig.passed("r")), (vec![0, 1, 4, 5], Some(5), "2-3".to_owned()));
    assert_eq!((rig.mark("r"), rig.checkpoint(LANE)), (None, Some(4)));
    rig.delivered.clear();
    rig
}

#[test]
fn a_hole_is_passed_and_kept() {
    for flush_interval in [Duration::from_secs(1), Duration::ZERO] {
        let mut rig = passed(LaneSettings { flush_interval, ..passing() });
        rig.page(evs("r", 6..8));
        rig.page([ev("r", 10)]);
        rig.rest();
        assert_eq!((rig.of("r"), rig.position("r"), rig.passed("r")), (vec![6, 7, 10], Some(10), "2-3,8-9".to_owned()));
        assert_eq!((rig.checkpoint(LANE), rig.lanes.stuck()), (Some(7), super::super::Stuck::default()));
    }
}

#[test]
fn nothing_behind_it_is_given_before_it_is_kept() {
    let mut rig = Rig::with(passing());
    rig.page([ev("r", 0)]);
    rig.hold(Kind::Mark);
    rig.page([ev("r", 2), ev("other", 0)]);
    rig.rest();
    assert_eq!((rig.of("r"), rig.of("other"), rig.checkpoint(LANE)), (vec![0], vec![0], Some(1)));
    rig.release(Kind::Mark);
    rig.rest();
    assert_eq!((rig.of("r"), rig.checkpoint(LANE)), (vec![0, 2], Some(3)));
}

#[test]
fn a_reply_that_is_lost_is_found_in_the_table() {
    let mut rig = Rig::with(passing());
    rig.page([ev("r", 0)]);
    rig.writes = Writes::LoseReplies;
    rig.page([ev("r", 2)]);
    rig.millis(15_000);
    rig.writes = Writes::Work;
    rig.rest();
    assert_eq!((rig.of("r"), rig.passed("r"), rig.mark("r")), (vec![0, 2], "1".to_owned(), None));
}

#[test]
fn what_appears_in_it_parks_the_root_and_a_release_gives_it_and_what_follows() {
    for flush_interval in [Duration::from_secs(1), Duration::ZERO] {
        let mut rig = passed(LaneSettings { flush_interval, ..passing() });
        rig.page([ev("r", 3), ev("other", 0)]);
        rig.rest();
        let mark = rig.mark("r").unwrap();
        assert_eq!((mark.state, mark.sequence.0, mark.rewound), (MarkState::Parked, 3, false));
        assert!(mark.reason.contains("parked release"), "{}", mark.reason);
        assert_eq!((rig.of("r"), rig.position("r"), rig.checkpoint(LANE)), (vec![], Some(5), Some(6)));
        // Shown again, and with more behind it, nothing changes.
        rig.page([ev("r", 3)]);
        rig.page([ev("r", 6)]);
        rig.rest();
        assert_eq!(rig.of("r"), [] as [u64; 0]);
        rig.release_parked("r", false);
        rig.rest();
        assert_eq!((rig.of("r"), rig.position("r"), rig.passed("r")), (vec![3, 4, 5, 6], Some(6), "2".to_owned()));
        // Now it is a repeat; what is missing still is not.
        rig.page([ev("r", 3)]);
        rig.rest();
        assert_eq!((rig.mark("r"), rig.of("r").len()), (None, 4));
        rig.page([ev("r", 2)]);
        rig.rest();
        assert_eq!(rig.mark("r").map(|mark| mark.sequence.0), Some(2));
    }
}

#[test]
fn left_out_by_an_operator_it_is_done_with() {
    let mut rig = passed(passing());
    rig.page([ev("r", 2)]);
    rig.rest();
    rig.release_parked("r", true);
    rig.rest();
    assert_eq!((rig.of("r"), rig.mark("r"), rig.passed("r")), (vec![], None, "3".to_owned()));
    rig.page([ev("r", 2)]);
    rig.page([ev("r", 6)]);
    rig.rest();
    assert_eq!((rig.of("r"), rig.mark("r"), rig.position("r")), (vec![6], None, Some(6)));
}

#[test]
fn of_two_that_appear_each_is_met() {
    // The first is left out; or the second is shown while the first one's mark is being written.
    let mut rig = passed(passing());
    rig.page(evs("r", 2..4));
    rig.rest();
    assert_eq!(rig.mark("r").map(|mark| mark.sequence.0), Some(2));
    rig.release_parked("r", true);
    rig.rest();
    assert_eq!(rig.mark("r").map(|mark| (mark.state, mark.sequence.0)), Some((MarkState::Parked, 3)));
    rig.release_parked("r", false);
    rig.rest();
    assert_eq!((rig.of("r"), rig.mark("r"), rig.passed("r")), (vec![3, 4, 5], None, String::new()));
    let mut rig = passed(passing());
    rig.hold(Kind::Mark);
    rig.page([ev("r", 3)]);
    rig.page([ev("r", 2)]);
    rig.release(Kind::Mark);
    rig.rest();
    assert_eq!(rig.mark("r").map(|mark| mark.sequence.0), Some(2));
    assert_eq!(rig.checkpoint(LANE), Some(rig.number));
}

#[test]
fn one_that_appears_while_another_event_fails_is_not_forgotten() {
    let mut rig = passed(passing());
    rig.script("r", [Answer::Permanent]);
    rig.hold(Kind::Deliver);
    rig.page([ev("r", 6)]);
    rig.page([ev("r", 3)]);
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!(rig.mark("r").map(|mark| (mark.state, mark.sequence.0)), Some((MarkState::Parked, 3)));
    assert_eq!(rig.checkpoint(LANE), Some(rig.number), "and it holds no checkpoint");
    rig.delivered.clear();
    rig.release_parked("r", false);
    rig.rest();
    assert_eq!((rig.of("r"), rig.mark("r")), (vec![3, 4, 5, 6], None));
}

#[test]
fn its_page_is_held_until_the_mark_stands() {
    for kind in [Kind::Mark, Kind::Load, Kind::Deliver] {
        let mut rig = passed(LaneSettings { idle_roots_max: 1, ..passing() });
        // Not in memory any more, or with the handler.
        rig.page([ev("b", 0), ev("c", 0)]);
        rig.rest();
        rig.hold(kind);
        if kind == Kind::Deliver {
            rig.page([ev("r", 6)]);
        }
        let before = rig.checkpoint(LANE);
        rig.page([ev("r", 3)]);
        rig.millis(20_000);
        assert_eq!((rig.mark("r"), rig.checkpoint(LANE)), (None, before), "{kind:?} is held");
        rig.release(kind);
        rig.rest();
        assert_eq!(rig.mark("r").map(|mark| mark.sequence.0), Some(3));
        assert_eq!(rig.checkpoint(LANE), Some(rig.number));
    }
}

#[test]
fn it_is_seen_on_a_root_that_stands_still_already() {
    for (deferred, answer) in [(false, Answer::Permanent), (true, Answer::RetryAfter(Duration::from_mins(5)))] {
        let hold = if deferred { Duration::from_secs(1) } else { Duration::from_hours(24) };
        let mut rig = passed(LaneSettings { checkpoint_hold: hold, ..passing() });
        rig.script("r", [answer]);
        rig.page([ev("r", 6)]);
        rig.millis(20_000);
        let state = if deferred { MarkState::Deferred } else { MarkState::Parked };
        assert_eq!(rig.mark("r").map(|mark| (mark.state, mark.sequence.0)), Some((state, 6)));
        rig.page([ev("r", 2)]);
        rig.millis(10_000);
        rig.advance(Duration::from_mins(6));
        assert_eq!(rig.mark("r").map(|mark| (mark.state, mark.sequence.0)), Some((MarkState::Parked, 2)));
        assert_eq!(rig.checkpoint(LANE), Some(6));
        rig.delivered.clear();
        rig.release_parked("r", false);
        rig.rest();
        assert_eq!((rig.of("r"), rig.position("r"), rig.mark("r")), (vec![2, 4, 5, 6], Some(6), None));
        assert_eq!(rig.passed("r"), "3", "it is a hole still");
    }
}

#[test]
fn one_that_is_let_go_while_the_position_is_read_is_found_in_the_table() {
    let mut rig = passed(LaneSettings { idle_roots_max: 1, queued_bytes_max: 1000, ..passing() });
    rig.page([ev("b", 0), ev("c", 0)]);
    rig.rest();
    rig.hold(Kind::Load);
    rig.page([ev("r", 6).sized(300)]);
    rig.page([ev("r", 3)]);
    rig.release(Kind::Load);
    rig.rest();
    assert_eq!((rig.of("r"), rig.mark("r").map(|mark| mark.sequence.0)), (vec![], Some(3)));
    rig.release_parked("r", false);
    rig.rest();
    assert_eq!((rig.of("r"), rig.passed("r")), (vec![3, 4, 5, 6], "2".to_owned()));
}

#[test]
fn what_was_let_go_beside_one_that_is_known_holds_no_checkpoint() {
    let mut rig = passed(LaneSettings { idle_roots_max: 1, queued_bytes_max: 1000, ..passing() });
    rig.page([ev("b", 0), ev("c", 0)]);
    rig.rest();
    rig.hold(Kind::Load);
    rig.page([ev("r", 3)]);
    rig.page([ev("r", 6).sized(300)]);
    rig.page([ev("r", 7)]);
    rig.release(Kind::Load);
    rig.rest();
    assert_eq!(rig.mark("r").map(|mark| mark.sequence.0), Some(3));
    assert_eq!(rig.checkpoint(LANE), Some(rig.number));
    rig.end(LANE);
    rig.rest();
    assert_eq!(rig.finished, [LANE]);
}

#[test]
fn a_long_hole_is_looked_at_to_its_end() {
    let settings = LaneSettings { idle_roots_max: 1, queued_bytes_max: 1000, ..passing() };
    let mut rig = Rig::subscribed(settings, types(&["Placed"]));
    rig.page([ev("r", 0).of("Placed")]);
    rig.page([ev("r", 1500).of("Placed")]);
    rig.rest();
    assert_eq!(rig.passed("r"), "1-1499");
    rig.page([ev("b", 0).of("Placed"), ev("c", 0).of("Placed")]);
    rig.rest();
    rig.write((1..1300).map(|sequence| ev("r", sequence).of("Noise")).collect::<Vec<_>>());
    rig.hold(Kind::Load);
    rig.page([ev("r", 1501).of("Placed").sized(300)]);
    rig.page([ev("r", 1300).of("Placed")]);
    rig.release(Kind::Load);
    rig.rest();
    assert_eq!(rig.mark("r").map(|mark| mark.sequence.0), Some(1300));
}

#[test]
fn what_is_let_go_during_the_last_read_is_no_hole() {
    let mut rig = Rig::with(LaneSettings { queued_bytes_max: 1000, ..passing() });
    rig.page([ev("r", 0)]);
    rig.page([ev("r", 2).sized(200)]);
    rig.millis(9_500);
    rig.hold(Kind::Repair);
    rig.millis(2_000);
    assert_eq!(rig.held(Kind::Repair), 1);
    // It was written after the read, and shown before its answer.
    rig.show(LANE, [ev("r", 1)], false);
    rig.release(Kind::Repair);
    rig.write([ev("r", 1)]);
    rig.rest();
    assert_eq!((rig.of("r"), rig.passed("r")), (vec![0, 1, 2], String::new()));
}

#[test]
fn it_comes_while_the_hole_is_being_passed() {
    // Kept until then, or let go for want of room and found in the table.
    for queued_bytes_max in [1 << 20, 1000] {
        let mut rig = Rig::with(LaneSettings { queued_bytes_max, ..passing() });
        rig.page([ev("r", 0)]);
        rig.hold(Kind::Mark);
        rig.page([ev("r", 2).sized(50)]);
        rig.millis(15_000);
        assert_eq!(rig.held(Kind::Mark), 1);
        rig.page([ev("r", 1)]);
        rig.release(Kind::Mark);
        rig.rest();
        assert_eq!(rig.mark("r").map(|mark| mark.sequence.0), Some(1));
        rig.release_parked("r", false);
        rig.rest();
        assert_eq!((rig.of("r"), rig.passed("r"), rig.mark("r")), (vec![0, 1, 2], String::new(), None));
    }
}

#[test]
fn what_comes_while_the_table_is_asked_is_not_missing() {
    let mut rig = Rig::with(LaneSettings { queued_bytes_max: 300, ..passing() });
    rig.page([ev("r", 0)]);
    rig.page([ev("r", 2).sized(150)]);
    rig.millis(9_500);
    // The last read before the hole is one: it ends before 2.
    rig.hold(Kind::Repair);
    rig.millis(2_000);
    assert_eq!(rig.held(Kind::Repair), 1);
    rig.lanes.relieve(rig.now);
    rig.write(evs("r", 3..5));
    rig.page([ev("r", 5)]);
    rig.release(Kind::Repair);
    rig.rest();
    assert_eq!((rig.of("r"), rig.passed("r")), (vec![0, 2, 3, 4, 5], "1".to_owned()));
}

#[test]
fn a_root_that_is_ordered_back_parks_there_too() {
    let mut rig = passed(passing());
    rig.write([ev("r", 2)]);
    rig.rewind("r", 0);
    rig.rest();
    assert_eq!((rig.of("r"), rig.mark("r").map(|mark| mark.sequence.0)), (vec![0, 1], Some(2)));
    rig.release_parked("r", false);
    rig.rest();
    assert_eq!((rig.of("r"), rig.passed("r")), (vec![0, 1, 2, 4, 5], "3".to_owned()));
    assert_eq!((rig.mark("r"), rig.position("r")), (None, Some(5)));
}

#[test]
fn one_that_the_handler_does_not_want_is_no_matter() {
    let mut rig = Rig::subscribed(passing(), types(&["Placed"]));
    rig.page([ev("r", 0).of("Placed"), ev("r", 3).of("Placed")]);
    rig.rest();
    rig.page([ev("r", 1).of("Noise")]);
    rig.rest();
    assert_eq!((rig.of("r"), rig.passed("r"), rig.mark("r")), (vec![0, 3], "1-2".to_owned(), None));
    rig.rewind("r", 0);
    rig.rest();
    assert_eq!((rig.of("r"), rig.mark("r")), (vec![0, 3, 0, 3], None));
    // Of one that cannot be read nobody can tell.
    rig.page([ev("r", 2).invalid()]);
    rig.rest();
    assert_eq!(rig.mark("r").map(|mark| mark.sequence.0), Some(2));
}

#[test]
fn one_that_another_replica_has_passed_is_known() {
    let mut rig = Rig::with(passing());
    rig.page([ev("r", 0)]);
    rig.rest();
    rig.hold(Kind::Flush);
    rig.page([ev("r", 1)]);
    rig.millis(2_000);
    rig.write([ev("r", 3)]);
    rig.elsewhere("r", 3);
    rig.passed_elsewhere("r", 2);
    rig.release(Kind::Flush);
    rig.page([ev("r", 2), ev("r", 3)]);
    rig.rest();
    assert_eq!((rig.of("r"), rig.mark("r").map(|mark| mark.sequence.0)), (vec![0, 1], Some(2)));
    assert_eq!(rig.checkpoint(LANE), Some(rig.number));
}

#[test]
fn without_the_policy_it_parks() {
    let mut rig = Rig::with(LaneSettings { on_hole: OnHole::Park, ..passing() });
    rig.page([ev("r", 0), ev("r", 2)]);
    rig.rest();
    assert_eq!((rig.of("r"), rig.mark("r").map(|mark| mark.sequence.0)), (vec![0], Some(1)));
    assert_eq!(rig.passed("r"), "");
}
