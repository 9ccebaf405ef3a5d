//! The table of a handler's root courses: by root and by slot, with a bound on the idle ones. Pure.
//!
//! Idle courses are a cache of positions; they are dropped by the clock algorithm (a course met since the last sweep
//! gets a second chance); one that is not lasting goes when it has nothing to do. Invariant: an active course, or one with events left out whose position is not written, is
//! never dropped.

use std::collections::HashMap;

use super::course::{Course, Durable};
use crate::event::Root;

/// A course's place in the table.
pub(crate) type Slot = usize;

/// All courses of one handler.
#[derive(Debug, Default)]
pub(crate) struct Courses {
    slots: Vec<Option<Course>>,
    free: Vec<Slot>,
    by_root: HashMap<Root, Slot>,
    hand: Slot,
    active: usize,
    /// Where the next search is likely to end.
    expected: Option<(Root, Slot)>,
}

impl Courses {
    /// Remembers where the root delivered last has its course: its answer mostly comes next, and needs no search.
    pub(crate) fn expect(&mut self, root: &Root, slot: Slot) {
        self.expected = Some((root.clone(), slot));
    }

    pub(crate) fn find(&self, root: &Root) -> Option<Slot> {
        if let Some((expected, slot)) = &self.expected
            && expected.is_same(root)
        {
            return Some(*slot);
        }
        self.by_root.get(root).copied()
    }

    /// The course of a root, made if there is none; true when it was made.
    pub(crate) fn find_or_add(&mut self, root: &Root) -> (Slot, bool) {
        if let Some(slot) = self.find(root) {
            return (slot, false);
        }
        let course = Course::new(root.clone());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(course);
        self.by_root.insert(root.clone(), slot);
        (slot, true)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Course> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Course> {
        self.slots.get(slot)?.as_ref()
    }

    /// Courses with something to do.
    pub(crate) fn active(&self) -> usize {
        self.active
    }

    pub(crate) fn count_active(&mut self) {
        self.active += 1;
    }

    /// The slots of the courses with something to do.
    pub(crate) fn active_slots(&self) -> Vec<Slot> {
        (self.slots.iter().enumerate())
            .filter(|(_, course)| course.as_ref().is_some_and(|course| course.active.is_some()))
            .map(|(slot, _)| slot)
            .collect()
    }

    /// Courses in all.
    pub(crate) fn len(&self) -> usize {
        self.by_root.len()
    }

    /// Takes the activity from a course that is done; true when it is forgotten with that.
    pub(crate) fn settle(&mut self, slot: Slot) -> bool {
        let Some(course) = self.get_mut(slot) else { return false };
        let forgotten = !course.lasting;
        if course.active.take().is_some() {
            self.active -= 1;
        }
        if forgotten {
            self.remove(slot);
        }
        forgotten
    }

    /// Forgets a course, whatever it has to do.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let Some(course) = self.slots.get_mut(slot).and_then(Option::take) else { return };
        self.active -= usize::from(course.active.is_some());
        self.by_root.remove(&course.root);
        self.expected = None;
        self.free.push(slot);
    }

    /// Forgets all idle courses but those that must be written first: answers these, which are lasting no longer.
    pub(crate) fn forget_idle(&mut self) -> Vec<Slot> {
        let mut unwritten = Vec::new();
        for slot in 0..self.slots.len() {
            let Some(course) = self.slots[slot].as_mut().filter(|course| course.active.is_none()) else { continue };
            if course.filtered > 0 && course.durable != Durable::Unknown {
                course.lasting = false;
                unwritten.push(slot);
            } else {
                self.remove(slot);
            }
        }
        unwritten
    }

    /// Drops idle courses until at most `idle_max` are left, less two for each that is not idle, as far as one sweep
    /// finds any. Answers courses that must be written first.
    pub(crate) fn sweep(&mut self, idle_max: usize) -> Vec<Slot> {
        let mut unwritten = Vec::new();
        let mut looked_at = 0;
        let idle_max = idle_max.saturating_sub(2 * self.active);
        while self.len() - self.active > idle_max && looked_at < 2 * self.slots.len() {
            looked_at += 1;
            let slot = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let Some(course) = self.slots[slot].as_mut() else { continue };
            if course.active.is_some() || std::mem::take(&mut course.referenced) {
                continue;
            }
            if course.filtered > 0 && course.durable != Durable::Unknown {
                unwritten.push(slot);
                course.referenced = true;
                continue;
            }
            self.remove(slot);
        }
        unwritten
    }

    /// The slots of courses whose position is behind what was left out by type.
    pub(crate) fn unwritten(&self) -> Vec<Slot> {
        (self.slots.iter().enumerate())
            .filter(|(_, course)| course.as_ref().is_some_and(|course| course.filtered > 0))
            .map(|(slot, _)| slot)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(number: usize) -> Root {
        Root::new("d", "", &number.to_string()).unwrap()
    }

    #[test]
    fn idle_courses_are_bounded_and_active_ones_stay() {
        let mut courses = Courses::default();
        for number in 0..100 {
            let (slot, made) = courses.find_or_add(&root(number));
            assert!(made);
            if number % 10 == 0 {
                courses.get_mut(slot).unwrap().activate();
                courses.count_active();
            }
        }
        assert!(courses.sweep(40).is_empty());
        assert_eq!((courses.len(), courses.active()), (30, 10));
        assert!((0..100).step_by(10).all(|number| courses.find(&root(number)).is_some()));
        let (slot, made) = courses.find_or_add(&root(1000));
        assert!(made && slot < 100, "free slots are used again");
    }

    #[test]
    fn what_was_met_lately_gets_a_second_chance() {
        let mut courses = Courses::default();
        for number in 0..10 {
            courses.find_or_add(&root(number));
        }
        courses.sweep(9);
        let (slot, _) = courses.find_or_add(&root(5));
        courses.get_mut(slot).unwrap().referenced = true;
        courses.sweep(1);
        assert!(courses.find(&root(5)).is_some());
    }

    #[test]
    fn what_was_left_out_is_written_before_it_is_dropped() {
        let mut courses = Courses::default();
        let (slot, _) = courses.find_or_add(&root(1));
        let course = courses.get_mut(slot).unwrap();
        course.durable = Durable::Absent;
        course.filtered = 3;
        assert_eq!(courses.sweep(0), [slot]);
        assert!(courses.find(&root(1)).is_some());
        assert_eq!(courses.unwritten(), [slot]);
    }
}
