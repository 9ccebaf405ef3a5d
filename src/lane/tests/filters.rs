//! Events left out by type: they keep their place in the order, and cost next to no writes.

use super::rig::{Answer, Kind, LANE, Rig, Spec, ev, settings, types};
use crate::lane::LaneSettings;

fn placed_and_noise(root: &str, sequences: impl IntoIterator<Item = u64>) -> Vec<Spec> {
    let kind = |sequence: u64| if sequence.is_multiple_of(3) { "Placed" } else { "Noise" };
    sequences.into_iter().map(|sequence| ev(root, sequence).of(kind(sequence))).collect()
}

fn noise(root: &str, sequences: impl IntoIterator<Item = u64>) -> Vec<Spec> {
    sequences.into_iter().map(|sequence| ev(root, sequence).of("Noise")).collect()
}

fn rig(settings: LaneSettings) -> Rig {
    Rig::subscribed(settings, types(&["Placed"]))
}

#[test]
fn types_left_out_do_not_break_a_batch_and_move_the_position_with_it() {
    let mut rig = rig(settings());
    rig.page(placed_and_noise("a", 0..9));
    rig.rest();
    assert_eq!(rig.delivered.len(), 1);
    assert_eq!((rig.of("a"), rig.position("a"), rig.checkpoint(LANE)), (vec![0, 3, 6], Some(8), Some(9)));
}

#[test]
fn a_gap_is_seen_among_what_is_left_out() {
    let mut rig = rig(settings());
    rig.write([ev("a", 1).of("Placed")]);
    rig.page(noise("a", 0..1));
    rig.page([ev("a", 2).of("Placed")]);
    rig.rest();
    assert_eq!(rig.of("a"), [1, 2]);
}

#[test]
fn a_prefix_accepted_covers_what_is_left_out_up_to_it_only() {
    let mut rig = rig(settings());
    rig.script("a", [Answer::Take(1)]);
    rig.always("a", Answer::Permanent);
    rig.page(placed_and_noise("a", 0..9));
    rig.millis(2000);
    assert_eq!((rig.of("a"), rig.position("a")), (vec![0, 3, 6, 3, 6], Some(2)), "3 was not accepted");
    rig.always("a", Answer::All);
    rig.rest();
    assert_eq!(rig.position("a"), Some(8));
}

#[test]
fn what_is_left_out_alone_is_not_written_but_covers_the_checkpoint() {
    let mut rig = rig(settings());
    rig.page(noise("a", 0..63));
    rig.rest();
    assert_eq!((rig.flushes.len(), rig.position("a"), rig.checkpoint(LANE)), (0, None, Some(63)));
    rig.page(noise("a", 63..64));
    rig.rest();
    assert_eq!((rig.flushes.len(), rig.position("a")), (1, Some(63)), "every 64");
    rig.page(noise("a", 64..70));
    rig.page([ev("a", 70).of("Placed")]);
    rig.rest();
    assert_eq!((rig.flushes.len(), rig.position("a")), (2, Some(70)), "and with the next delivery");
}

#[test]
fn what_is_left_out_is_written_before_its_root_is_forgotten() {
    let mut rig = rig(LaneSettings { idle_roots_max: 1, ..settings() });
    rig.page(noise("a", 0..3));
    for root in 0..4 {
        rig.page(noise(&root.to_string(), 0..1));
    }
    rig.rest();
    assert_eq!(rig.position("a"), Some(2));
}

#[test]
fn what_is_left_out_is_written_at_a_stop() {
    let mut rig = rig(settings());
    rig.page(noise("idle", 0..3));
    rig.always("stuck", Answer::Permanent);
    rig.page([noise("stuck", 0..3), vec![ev("stuck", 3).of("Placed")]].concat());
    rig.rest();
    assert_eq!((rig.position("idle"), rig.position("stuck")), (None, None));
    rig.lanes.drain(rig.now);
    rig.run();
    assert_eq!((rig.position("idle"), rig.position("stuck")), (Some(2), Some(2)));
    assert!(rig.lanes.is_drained());
}

#[test]
fn a_position_of_what_is_left_out_that_could_not_be_written_is_tried_again() {
    let mut rig = rig(settings());
    rig.writes = super::rig::Writes::Fail;
    rig.page(noise("a", 0..64));
    rig.millis(3000);
    assert!(rig.flushes.len() >= 3, "{}", rig.flushes.len());
    rig.writes = super::rig::Writes::Work;
    rig.rest();
    assert_eq!(rig.position("a"), Some(63));
}

#[test]
fn a_position_moved_by_others_while_events_are_with_the_handler_does_not_hold_the_root() {
    // With a flush after every batch the root waits for its position: it must not wait for one that is written already.
    let mut rig = rig(LaneSettings { flush_interval: std::time::Duration::ZERO, ..settings() });
    rig.write(noise("a", 0..64));
    rig.write([ev("a", 64).of("Placed"), ev("a", 65).of("Placed"), ev("a", 71).of("Placed")]);
    rig.write(noise("a", 66..71));
    rig.hold(Kind::Flush);
    rig.hold(Kind::Deliver);
    rig.show(LANE, noise("a", 0..64), false);
    rig.show(LANE, [ev("a", 64).of("Placed"), ev("a", 65).of("Placed")], false);
    rig.run();
    assert_eq!((rig.held(Kind::Flush), rig.held(Kind::Deliver)), (1, 1));
    rig.elsewhere("a", 70);
    rig.release(Kind::Flush);
    rig.release(Kind::Deliver);
    rig.show(LANE, [ev("a", 71).of("Placed")], true);
    rig.rest();
    assert_eq!((rig.of("a"), rig.position("a"), rig.finished.len()), (vec![64, 65, 71], Some(71), 1));
}
