//! Deleted editions, and the positions that go with them.

use super::super::{Glob, LaneSettings, OnEditionDelete, OnFailure, Pattern, Subscription};
use super::rig::{Answer, Kind, LANE, Rig, Spec, Writes, ev, evs, settings};
use crate::event::Root;

fn what_if(id: &str) -> Root {
    Root::new("orders", "what-if", id).unwrap()
}

/// Events of a root in a diverged edition.
fn diverged(id: &str, sequences: std::ops::Range<u64>) -> Vec<Spec> {
    sequences.map(|sequence| ev(id, sequence).of_root(what_if(id))).collect()
}

fn rig(on_edition_delete: OnEditionDelete) -> Rig {
    let star = Glob::new("*");
    let everything = Pattern { domain: star.clone(), types: vec![star.clone()], editions: vec![star] };
    let settings = LaneSettings { on_edition_delete, on_failure: OnFailure::Park, ..settings() };
    Rig::subscribed(settings, Subscription::new(vec![everything]))
}

fn position(rig: &Rig, root: &Root) -> Option<u64> {
    rig.contract.positions.get(root).map(|position| position.0)
}

#[test]
fn the_position_goes_with_the_last_row_and_the_edition_may_begin_anew() {
    let mut rig = rig(OnEditionDelete::Purge);
    rig.page(diverged("a", 5..9));
    rig.rest();
    assert_eq!(position(&rig, &what_if("a")), Some(8), "a diverged edition begins where it diverged");
    rig.removed(&what_if("a"), 5..7);
    rig.rest();
    assert_eq!(position(&rig, &what_if("a")), Some(8), "it has rows left");
    rig.removed(&what_if("a"), 7..9);
    rig.rest();
    assert_eq!((position(&rig, &what_if("a")), rig.checkpoint(LANE)), (None, Some(8)));
    rig.delivered.clear();
    rig.page(diverged("a", 2..4));
    rig.rest();
    let given: Vec<u64> = rig.delivered.iter().flat_map(|(_, events)| events.clone()).collect();
    assert_eq!((given, position(&rig, &what_if("a"))), (vec![2, 3], Some(3)));
}

#[test]
fn it_stays_where_the_handler_says_so_and_on_the_main_timeline() {
    let mut keeping = rig(OnEditionDelete::Keep);
    keeping.page(diverged("a", 0..2));
    keeping.rest();
    keeping.removed(&what_if("a"), 0..2);
    keeping.rest();
    assert_eq!(position(&keeping, &what_if("a")), Some(1));
    let mut purging = rig(OnEditionDelete::Purge);
    purging.page(evs("a", 0..2));
    purging.rest();
    purging.removed(&super::rig::root_of("a"), 0..2);
    purging.rest();
    assert_eq!(purging.position("a"), Some(1));
}

#[test]
fn a_parked_root_loses_its_mark_as_well() {
    let mut rig = rig(OnEditionDelete::Purge);
    rig.everybody = Answer::Permanent;
    rig.page(diverged("a", 0..2));
    rig.rest();
    assert!(rig.contract.marks.contains_key(&what_if("a")));
    rig.removed(&what_if("a"), 0..2);
    rig.rest();
    assert!(rig.contract.marks.is_empty());
    rig.everybody = Answer::All;
    rig.page(diverged("a", 0..1));
    rig.rest();
    assert_eq!((position(&rig, &what_if("a")), rig.checkpoint(LANE)), (Some(0), Some(5)));
}

#[test]
fn what_is_under_way_comes_first_and_the_page_is_held_until_it_was_looked_at() {
    let mut rig = rig(OnEditionDelete::Purge);
    rig.hold(Kind::Deliver);
    rig.page(diverged("a", 0..2));
    rig.removed(&what_if("a"), 0..2);
    rig.millis(6000);
    assert_eq!(rig.checkpoint(LANE), None);
    rig.writes = Writes::Fail;
    rig.release(Kind::Deliver);
    rig.millis(6000);
    assert_eq!(rig.checkpoint(LANE), None, "nothing can be written");
    rig.writes = Writes::Work;
    rig.rest();
    rig.rest();
    assert_eq!((position(&rig, &what_if("a")), rig.checkpoint(LANE)), (None, Some(4)));
    assert_eq!((rig.lanes.courses.active(), rig.lanes.queued_bytes()), (0, 0));
}

#[test]
fn a_position_that_was_about_to_be_written_does_not_come_back() {
    let star = Glob::new("*");
    let placed = Pattern { domain: star.clone(), types: vec![Glob::new("Placed")], editions: vec![star] };
    let settings = LaneSettings { on_edition_delete: OnEditionDelete::Purge, filtered_flush: 2, ..settings() };
    let mut rig = Rig::subscribed(settings, Subscription::new(vec![placed]));
    rig.page(diverged("a", 0..5));
    rig.removed(&what_if("a"), 0..5);
    rig.rest();
    rig.rest();
    assert_eq!((position(&rig, &what_if("a")), rig.checkpoint(LANE)), (None, Some(10)));
}
