//! An outage is not a poisoned event (clause 13).

use std::time::Duration;

use super::rig::{Answer, Kind, LANE, Rig, ev, settings};
use crate::lane::{LaneSettings, OnFailure};

fn roots(count: u64) -> Vec<super::rig::Spec> {
    (0..count).map(|root| ev(&root.to_string(), 0)).collect()
}

#[test]
fn an_outage_halts_probes_one_at_a_time_and_goes_on_by_itself() {
    let mut rig = Rig::with(LaneSettings { max_in_flight: 4, ..settings() });
    rig.everybody = Answer::Unavailable;
    rig.page(roots(50));
    let before = rig.delivered.len();
    assert!(before <= 4, "{before}");
    rig.hold(Kind::Deliver);
    rig.advance(Duration::from_mins(1));
    assert_eq!(rig.held(Kind::Deliver), 1, "one probe, and nothing until its answer");
    rig.release(Kind::Deliver);
    rig.advance(Duration::from_mins(10));
    let probes = rig.delivered.len() - before;
    assert!((40..90).contains(&probes), "{probes}: one every 15 seconds or less");
    assert_eq!((rig.lanes.stuck(), rig.checkpoint(LANE)), (super::super::Stuck::default(), None), "nothing is counted");
    rig.everybody = Answer::All;
    rig.rest();
    assert!((0..50).all(|root| rig.position(&root.to_string()) == Some(0)));
    assert_eq!(rig.checkpoint(LANE), Some(50));
}

#[test]
fn an_event_that_cannot_be_put_together_parks_and_says_nothing_of_the_receiver() {
    let mut rig = Rig::with(LaneSettings { max_in_flight: 1, on_failure: OnFailure::Park, ..settings() });
    rig.everybody = Answer::Unavailable;
    for root in (0..20).filter(|root| root % 2 == 1) {
        rig.always(&root.to_string(), Answer::Broken);
    }
    rig.page(roots(20));
    rig.advance(Duration::from_mins(10));
    assert!((0..20).all(|root| rig.mark(&root.to_string()).is_some() == (root % 2 == 1)), "all of them are known");
    let others = rig.delivered.len() - 10;
    assert!((60..100).contains(&others), "{others}: it is down all the time, and probed one at a time");
    rig.everybody = Answer::All;
    rig.rest();
    assert!((0..20).all(|root| root % 2 == 1 || rig.position(&root.to_string()) == Some(0)));
    assert_eq!(rig.checkpoint(LANE), Some(20));
}

#[test]
fn order_is_kept_through_an_outage() {
    let mut rig = Rig::new();
    rig.script("a", [Answer::All]);
    rig.page([ev("a", 0)]);
    rig.always("a", Answer::Unavailable);
    for sequence in 1..10 {
        rig.page([ev("a", sequence)]);
        rig.millis(500);
    }
    rig.always("a", Answer::All);
    rig.rest();
    assert_eq!(rig.position("a"), Some(9));
}

#[test]
fn several_roots_failing_and_none_succeeding_are_an_outage() {
    let mut rig = Rig::with(LaneSettings { max_in_flight: 1, ..settings() });
    rig.everybody = Answer::Retry;
    rig.page(roots(30));
    assert_eq!(rig.delivered.len(), 5, "the fifth in a row halts the rest");
    assert_eq!(rig.lanes.stuck().retrying, 4);
    rig.everybody = Answer::All;
    rig.rest();
    assert_eq!(rig.checkpoint(LANE), Some(30));
}

#[test]
fn late_answers_from_before_the_outage_send_no_second_probe() {
    let mut rig = Rig::with(LaneSettings { max_in_flight: 4, ..settings() });
    rig.everybody = Answer::Unavailable;
    rig.hold(Kind::Deliver);
    rig.page(roots(50));
    assert_eq!(rig.held(Kind::Deliver), 4);
    rig.release_one(Kind::Deliver);
    rig.millis(1000);
    assert_eq!((rig.held(Kind::Deliver), rig.delivered.len()), (4, 5), "the probe is under way");
    for _ in 0..3 {
        rig.release_one(Kind::Deliver);
        rig.millis(60_000);
        assert_eq!(rig.delivered.len(), 5, "no other until its answer");
    }
    rig.release_one(Kind::Deliver);
    rig.millis(60_000);
    assert_eq!((rig.held(Kind::Deliver), rig.delivered.len()), (1, 6));
}

#[test]
fn roots_that_always_fail_do_not_keep_a_receiver_that_works_for_others_down() {
    let mut rig = Rig::new();
    for root in 0..8 {
        rig.always(&root.to_string(), Answer::Retry);
    }
    rig.page(roots(8));
    rig.rest();
    assert_eq!(rig.delivered.iter().filter(|(root, _)| root.id() == "new").count(), 0);
    assert!(rig.lanes.wants_page(), "only what is not known yet can show that the receiver works");
    rig.page([ev("new", 0)]);
    rig.millis(16_000);
    assert_eq!(rig.of("new"), [0], "the next probe is a root that has not failed");
    for sequence in 1..10 {
        rig.page([ev("new", sequence)]);
        rig.millis(16_000);
        assert_eq!(rig.of("new").len() as u64, sequence + 1);
    }
}

#[test]
fn what_is_pulled_during_an_outage_is_bounded() {
    let mut rig = Rig::with(LaneSettings { queued_bytes_max: 10_000, ..settings() });
    rig.everybody = Answer::Unavailable;
    let mut pages = 0;
    while rig.lanes.wants_page() {
        rig.page([ev(&pages.to_string(), 0).sized(100)]);
        pages += 1;
        assert!(pages < 1000);
    }
    assert!(rig.lanes.queued_bytes() < 11_000);
    rig.everybody = Answer::All;
    rig.rest();
    assert!(rig.lanes.wants_page() && rig.lanes.queued_bytes() == 0);
    assert_eq!(rig.checkpoint(LANE), Some(pages));
}

#[test]
fn who_is_asked_to_come_later_is_never_given_up_while_others_succeed() {
    let settings = LaneSettings { on_failure: OnFailure::Park, attempts_max: 3, ..settings() };
    let mut rig = Rig::with(LaneSettings { age_max: Duration::from_secs(10), ..settings });
    rig.always("busy", Answer::Throttled);
    rig.page([ev("busy", 0)]);
    for sequence in 0..600 {
        rig.page([ev("other", sequence)]);
        rig.millis(500);
    }
    assert_eq!((rig.mark("busy"), rig.position("other")), (None, Some(599)));
    assert!(rig.of("busy").len() > 100, "{} attempts", rig.of("busy").len());
    // What fails then begins to count then.
    rig.script("busy", [Answer::Retry, Answer::Retry]);
    rig.always("busy", Answer::All);
    rig.rest();
    assert_eq!((rig.mark("busy"), rig.position("busy")), (None, Some(0)));
}
