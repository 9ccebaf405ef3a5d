//! The shards of a stream under random scripts.

use super::*;
use crate::local::streams::key::KeyPart;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Roll(usize),
    Close(usize),
    Split(usize),
    SplitCollection(u8, i8),
    Remove(usize),
    Record(u8, i8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<usize>().prop_map(Step::Roll),
        any::<usize>().prop_map(Step::Close),
        any::<usize>().prop_map(Step::Split),
        any::<(u8, i8)>().prop_map(|(root, sort)| Step::SplitCollection(root % 8, sort)),
        any::<usize>().prop_map(Step::Remove),
        any::<(u8, i8)>().prop_map(|(root, sort)| Step::Record(root % 8, sort)),
    ];
    proptest::collection::vec(step, 0..60)
}

fn item(root: u8, sort: i8) -> Point {
    Point::of_item(&KeyPart::Text(format!("orders##{root}")), Some(&KeyPart::Number(sort.to_string())))
}

/// The records so far: where each lies, its number, and the shard it was put into.
type Placed = Vec<(Point, Number, ShardName)>;

fn play(layout: &mut Layout, steps: &[Step]) -> Placed {
    let (mut placed, mut upstream) = (Vec::new(), 0_u64);
    for (now, step) in (0..).zip(steps) {
        let pick = |of: usize| layout.open().nth(of % layout.open().len()).unwrap();
        match *step {
            Step::Roll(of) => drop(layout.roll(pick(of), true, now).unwrap()),
            Step::Close(of) => drop(layout.roll(pick(of), false, now).unwrap()),
            Step::Split(of) => drop(layout.split(pick(of), now)),
            Step::SplitCollection(root, sort) => drop(layout.split_at(item(root, sort), now)),
            Step::Remove(of) => {
                let closed: Vec<_> = layout.behind(None).filter(|(_, shard)| shard.end.is_some()).collect();
                if let Some((name, _)) = closed.get(of % closed.len().max(1)) {
                    layout.remove(*name).unwrap();
                }
            }
            Step::Record(root, sort) => {
                upstream += 1;
                let number = Number::of_upstream(&upstream.to_string()).unwrap();
                layout.note_record(number);
                let point = item(root, sort);
                let shard = layout.place(&point, number).unwrap();
                placed.push((point, number, shard));
            }
        }
    }
    placed
}

proptest! {
    #[test]
    fn every_key_falls_into_exactly_one_open_shard(count in 1_u32..20, steps in steps(), root: u8, sort: i8, hash: u64) {
        let mut layout = Layout::new(count, 1000);
        play(&mut layout, &steps);
        for point in [item(root, sort), Point::at_hash(hash), Point::at_hash(0), Point::at_hash(u64::MAX)] {
            let open = layout.behind(None).filter(|(_, shard)| shard.end.is_none() && shard.range.contains(&point));
            let open: Vec<_> = open.map(|(name, _)| name).collect();
            prop_assert_eq!(&open, &layout.open_at(&point).into_iter().collect::<Vec<_>>());
            prop_assert_eq!(open.len(), 1);
        }
    }

    #[test]
    fn children_begin_behind_their_parent_and_make_up_its_range(count in 1_u32..20, steps in steps(), root: u8, sort: i8) {
        let mut layout = Layout::new(count, 1000);
        let steps: Vec<_> = steps.into_iter().filter(|step| !matches!(step, Step::Remove(_))).collect();
        play(&mut layout, &steps);
        for (name, shard) in layout.behind(None) {
            prop_assert!(shard.end.is_none_or(|end| shard.start <= end));
            let children: Vec<_> = layout.behind(None).filter(|(_, child)| child.parent == Some(name)).collect();
            prop_assert_eq!(shard.end.is_some(), !children.is_empty());
            prop_assert!(children.len() <= 2);
            for (child_name, child) in &children {
                prop_assert!(name < *child_name && shard.end.is_some_and(|end| end < child.start));
            }
            if !children.is_empty() {
                for point in [item(root, sort), shard.range.lower.clone()] {
                    let holds = children.iter().filter(|(_, child)| child.range.contains(&point)).count();
                    prop_assert_eq!(holds, usize::from(shard.range.contains(&point)));
                }
            }
        }
    }

    #[test]
    fn a_record_is_put_where_it_was_when_everything_is_read_again(count in 1_u32..20, steps in steps()) {
        let mut layout = Layout::new(count, 1000);
        let placed = play(&mut layout, &steps);
        let again = Layout::of_shards(layout.shards.clone(), layout.last);
        for (point, number, shard) in placed {
            let found = again.place(&point, number);
            if layout.get(shard).is_some() {
                prop_assert!(found == Some(shard) || found.is_none(), "{found:?} in the place of {shard}");
                let (of, end) = (&layout.get(shard).unwrap().range, layout.get(shard).unwrap().end);
                prop_assert!(of.contains(&point) && end.is_none_or(|end| number <= end));
            } else {
                prop_assert_eq!(found, None);
            }
        }
    }

    #[test]
    fn without_removals_every_record_is_found_again(count in 1_u32..20, steps in steps()) {
        let mut layout = Layout::new(count, 1000);
        let steps: Vec<_> = steps.into_iter().filter(|step| !matches!(step, Step::Remove(_))).collect();
        for (point, number, shard) in play(&mut layout, &steps) {
            prop_assert_eq!(layout.place(&point, number), Some(shard));
        }
    }
}

#[test]
fn what_cannot_be_done_is_told() {
    let mut layout = Layout::new(1, 1000);
    let first = layout.open().next().unwrap();
    let child = layout.roll(first, false, 5).unwrap();
    assert!(!layout.get(child).unwrap().listed && child.made_unix_millis() == 1001);
    layout.list(child).unwrap();
    assert!(layout.get(child).unwrap().listed);
    let unknown = ShardName::new(7, 7);
    assert!(matches!(layout.roll(first, true, 5), Err(ShardsError::Closed(_))));
    assert!(matches!(layout.split(unknown, 5), Err(ShardsError::Unknown(_))));
    assert!(matches!(layout.list(unknown), Err(ShardsError::Unknown(_))));
    assert!(matches!(layout.remove(child), Err(ShardsError::Open(_))));
    let point = item(1, 5);
    let [low, high] = layout.split_at(point.clone(), 5).unwrap();
    assert_eq!(layout.open_at(&item(1, 4)), Some(low));
    assert_eq!(layout.open_at(&item(1, 5)), Some(high));
    assert!(matches!(layout.split_at(point.clone(), 5), Err(ShardsError::Indivisible(_))));
    layout.end(5);
    assert_eq!(layout.open().len(), 0);
    assert!(matches!(layout.split_at(point, 5), Err(ShardsError::Ended)));
}

#[test]
fn changes_between_two_records_are_bounded() {
    let mut layout = Layout::new(1, 1000);
    layout.last = layout.cut_max.previous();
    let first = layout.open().next().unwrap();
    let child = layout.roll(first, true, 5).unwrap();
    assert!(matches!(layout.roll(child, true, 5), Err(ShardsError::TooMany)));
    layout.note_record(Number::ZERO.next_record());
    layout.roll(child, true, 5).unwrap();
}

#[test]
fn ten_thousand_shards_are_made_and_each_is_found() {
    let layout = Layout::new(10_000, 1000);
    assert_eq!(layout.behind(None).count(), 10_000);
    let names: Vec<_> = layout.open().collect();
    for (range, name) in Range::even(10_000).zip(names) {
        assert_eq!(layout.open_at(&range.lower), Some(name));
    }
}
