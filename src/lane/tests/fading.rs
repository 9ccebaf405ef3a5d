//! For how long a mark is believed, and what is looked for once others have forgotten it (`mark_ttl`).

use std::time::Duration;

use super::rig::{Answer, Kind, LANE, OTHER, Rig, branch_of, ev, evs, root_of, settings};
use crate::lane::{LaneSettings, MARK_TTL, OnFailure};
use crate::storage::Ending;

fn parking() -> LaneSettings {
    LaneSettings { on_failure: OnFailure::Park, ..settings() }
}

/// A root that is parked, at the moment its mark was written.
fn parked() -> Rig {
    let mut rig = Rig::with(parking());
    rig.script("r", [Answer::Permanent]);
    rig.page([ev("r", 0)]);
    assert!(rig.mark("r").is_some());
    rig
}

/// Another replica works the root off, up to here.
fn worked_off_elsewhere(rig: &mut Rig, through: u64) {
    let marks = std::mem::take(&mut rig.contract.marks);
    rig.contract.endings.extend(marks.into_iter().map(|(root, mark)| (root, Ending::of(&mark))));
    rig.elsewhere("r", through);
}

#[test]
fn a_young_mark_is_believed_and_an_old_one_looked_at_again() {
    for (age, delivered) in [(MARK_TTL.saturating_sub(Duration::from_millis(1)), vec![0]), (MARK_TTL, vec![0, 1])] {
        let mut rig = parked();
        worked_off_elsewhere(&mut rig, 0);
        rig.advance(age);
        rig.page([ev("r", 1)]);
        rig.millis(1_000);
        assert_eq!(rig.of("r"), delivered, "{age:?} old");
    }
}

#[test]
fn a_mark_that_still_stands_is_believed_for_as_long_again() {
    let mut rig = parked();
    rig.advance(MARK_TTL);
    rig.hold(Kind::Load);
    rig.page([ev("r", 1)]);
    assert_eq!(rig.held(Kind::Load), 1);
    rig.page([ev("other", 0)]);
    rig.millis(10_000);
    assert_eq!(rig.checkpoint(LANE), Some(1), "until it is known it holds the checkpoint");
    rig.release(Kind::Load);
    rig.hold(Kind::Load);
    rig.millis(10_000);
    rig.page([ev("r", 2)]);
    assert_eq!((rig.held(Kind::Load), rig.of("r")), (0, vec![0]));
    rig.millis(10_000);
    assert_eq!(rig.checkpoint(LANE), Some(4));
}

#[test]
fn looking_whether_a_mark_stands_does_not_shorten_the_wait_of_a_deferred_root() {
    let settings = LaneSettings { checkpoint_hold: Duration::from_secs(1), ..settings() };
    let mut rig = Rig::with(settings);
    rig.script("r", [Answer::RetryAfter(Duration::from_mins(3))]);
    rig.page([ev("r", 0)]);
    assert!(rig.mark("r").is_some());
    rig.advance(MARK_TTL * 2);
    rig.page([ev("r", 1)]);
    rig.advance(MARK_TTL);
    assert_eq!((rig.of("r"), rig.checkpoint(LANE)), (vec![0], Some(2)));
    rig.advance(Duration::from_mins(2));
    assert_eq!((rig.of("r"), rig.mark("r")), (vec![0, 0, 1], None));
}

#[test]
fn a_deferred_root_that_another_has_worked_off_is_not_worked_off_again() {
    let settings = LaneSettings { checkpoint_hold: Duration::from_secs(1), ..settings() };
    let mut rig = Rig::with(settings);
    rig.script("r", [Answer::RetryAfter(Duration::from_mins(1))]);
    rig.page(evs("r", 0..3));
    worked_off_elsewhere(&mut rig, 1);
    rig.advance(Duration::from_mins(2));
    assert_eq!(rig.of("r"), [0, 1, 2, 2], "what is left is looked for behind the position");
}

#[test]
fn what_others_let_go_of_is_looked_for_once_after_the_mark_went() {
    let mut rig = parked();
    rig.release_parked("r", false);
    rig.hold(Kind::Mark);
    rig.rest();
    rig.release(Kind::Mark);
    assert_eq!((rig.of("r"), rig.mark("r")), (vec![0, 0], None));
    // Its record came to a replica that still believed the mark.
    rig.write([ev("r", 1)]);
    rig.advance((MARK_TTL + MARK_TTL / 4).saturating_sub(Duration::from_millis(1)));
    assert_eq!(rig.of("r").len(), 2);
    assert!(rig.contract.endings.contains_key(&root_of("r")), "whoever takes over looks at it, too");
    rig.millis(1);
    assert_eq!((rig.of("r"), rig.lanes.courses.active()), (vec![0, 0, 1], 1));
    rig.write([ev("r", 2)]);
    rig.rest();
    assert_eq!((rig.of("r").len(), rig.position("r"), rig.lanes.courses.active()), (3, Some(1), 0), "once");
    assert!(rig.contract.endings.is_empty(), "nothing is left of the mark");
}

#[test]
fn a_root_that_is_busy_then_is_looked_at_when_it_has_come_to_rest() {
    let mut rig = parked();
    rig.release_parked("r", false);
    rig.advance(MARK_TTL.saturating_sub(Duration::from_secs(1)));
    rig.hold(Kind::Deliver);
    rig.page([ev("r", 1)]);
    rig.write([ev("r", 2)]);
    rig.millis(5_000);
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!(rig.of("r"), [0, 0, 1, 2]);
}

#[test]
fn a_look_that_is_cut_short_is_made_again() {
    let mut rig = parked();
    rig.release_parked("r", false);
    rig.hold(Kind::Mark);
    rig.rest();
    rig.release(Kind::Mark);
    rig.write([ev("r", 1)]);
    rig.hold(Kind::Deliver);
    rig.advance(MARK_TTL + MARK_TTL / 4);
    assert_eq!(rig.held(Kind::Deliver), 1, "it has found something");
    // Another replica comes further meanwhile: the root is asked again how it stands.
    rig.write([ev("r", 2)]);
    rig.elsewhere("r", 2);
    rig.release(Kind::Deliver);
    rig.rest();
    assert_eq!((rig.of("r"), rig.position("r")), (vec![0, 0, 1], Some(2)));
    assert!(rig.contract.endings.is_empty(), "nothing is left of the mark");
}

#[test]
fn a_reply_that_was_lost_as_the_mark_went_makes_no_difference() {
    let mut rig = parked();
    rig.release_parked("r", false);
    rig.rest();
    let mut rig = parked();
    rig.hold(Kind::Mark);
    rig.release_parked("r", false);
    rig.millis(1_100);
    rig.contract.marks.clear();
    rig.release(Kind::Mark);
    rig.write([ev("r", 1)]);
    rig.rest();
    assert_eq!(rig.of("r"), [0, 0, 1]);
}

/// A lane that goes on with no root but its own, and has let go of one that is deferred elsewhere.
fn beside_another(settings: LaneSettings) -> Rig {
    let mut rig = Rig::with(settings);
    rig.contract.defer("r", 0, Some(branch_of(OTHER)));
    let mine = branch_of(LANE);
    rig.lanes = std::mem::replace(&mut rig.lanes, Rig::new().lanes)
        .working_off(std::sync::Arc::new(move |branch| branch == Some(&mine)));
    rig.open(LANE);
    rig.write(evs("r", 0..2));
    rig.page([ev("r", 2)]);
    rig
}

#[test]
fn what_is_found_behind_a_mark_that_is_gone_is_of_the_lane_that_found_it() {
    let settings = LaneSettings { checkpoint_hold: Duration::from_secs(1), ..settings() };
    let mut rig = beside_another(settings);
    rig.write([ev("r", 3)]);
    worked_off_elsewhere(&mut rig, 2);
    rig.script("r", [Answer::RetryAfter(Duration::from_mins(1))]);
    rig.advance(MARK_TTL);
    rig.page([ev("r", 2)]);
    rig.millis(1_000);
    assert_eq!(rig.of("r"), [3], "it was looked for what was let go");
    assert_eq!(rig.mark("r").map(|mark| mark.branch.clone()), Some(Some(branch_of(LANE))));
    rig.rest();
    assert_eq!((rig.of("r"), rig.mark("r")), (vec![3, 3], None));
}

#[test]
fn what_was_let_go_of_for_another_is_looked_for_should_he_have_stopped_since() {
    for shown_again in [false, true] {
        let mut rig = beside_another(settings());
        if shown_again {
            rig.page([ev("r", 3)]);
        }
        rig.millis(1_000);
        assert!(rig.of("r").is_empty(), "it is the other's");
        // He takes the mark away without having seen what was let go of, and is gone.
        worked_off_elsewhere(&mut rig, 1);
        rig.advance(MARK_TTL);
        rig.rest();
        let expected = if shown_again { vec![2, 3] } else { vec![2] };
        assert_eq!(rig.of("r"), expected);
        rig.advance(MARK_TTL * 2);
        assert_eq!(rig.of("r"), expected, "once");
    }
}
